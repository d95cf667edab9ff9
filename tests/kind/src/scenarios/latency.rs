//! What a webhook in the way of every pod costs whoever creates them.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::{Api, DynamicObject};
use lab::{Calls, Quantiles};

use super::NotShown;
use super::webhook::{clear, create};
use crate::bots::watched;
use crate::stage::{POD, SOON, Stage, is_injected};

const PAIRS: usize = 500;
/// How often the webhook is called for these pods: once for each, and now and then for one of another scenario.
const CALLS: RangeInclusive<f64> = 500.0..=550.0;
/// What the registration may cost, in milliseconds.
const MEDIAN: f64 = 3.0;
const P99: f64 = 10.0;
/// A machine on which a pod takes longer without any registration, as a rule, is slower than what these figures are for: there the
/// registration takes longer, too. Two cores that run the whole cluster take 11 ms.
const BARE: f64 = 6.0;
/// How often it is measured at most: until the machine is quiet enough for it.
const ATTEMPTS: usize = 2;
/// Between one creation of a pod and the next: what watches and garbage collector make of the last pod is not this one's time.
const PAUSE: Duration = Duration::from_millis(50);

/// Milliseconds that a client waits for a pod with registration, without it, and without it once more: how the last two differ is the
/// noise of the measurement.
async fn triples(stage: &Stage, with: &Api<DynamicObject>, without: &Api<DynamicObject>) -> Result<[Vec<f64>; 3]> {
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for n in 0..PAIRS {
        for place in 0..3 {
            let which = (n + place) % 3;
            let pods = if which == 0 { with } else { without };
            tokio::time::sleep(PAUSE).await;
            let (pod, time) = create(stage, pods, &format!("pair-{n}-{which}")).await?;
            ensure!(
                is_injected(&pod) == (which == 0),
                "pair-{n}-{which}: injected is {}",
                is_injected(&pod)
            );
            times[which].push(time.as_secs_f64() * 1e3);
        }
    }
    clear(with).await?;
    clear(without).await?;
    Ok(times)
}

/// What the operator itself takes for a pod, as Prometheus has it.
async fn handler(stage: &Stage) -> Result<String> {
    let mut times = Vec::new();
    for share in [0.5, 0.99] {
        let query = format!(
            "histogram_quantile({share}, sum by (le) (rosey_injector_request_duration_seconds_bucket{{webhook=\"inject\"}})) > 0"
        );
        let found = stage.prometheus.until(SOON, &query).await?;
        times.push(found.first().map_or(f64::NAN, |sample| sample.value * 1e3));
    }
    Ok(format!("our handler {:.2} / {:.2} ms", times[0], times[1]))
}

pub async fn a_registration_costs_a_pod_next_to_nothing(stage: &Stage) -> Result<String> {
    let (with, without) = ("latency", "latency-without");
    watched(stage, with, |_| {}).await?;
    stage.namespace(without).await?;
    let [with, without] = [with, without].map(|namespace| stage.api(POD, "pods", namespace));
    let difference =
        |these: &[f64], those: &[f64]| Quantiles::of(these.iter().zip(those).map(|(this, that)| this - that).collect());
    let mut figures = String::new();
    for _ in 0..ATTEMPTS {
        let before = Calls::for_pods(&stage.cluster.client).await?;
        let times = triples(stage, &with, &without).await?;
        let calls = Calls::for_pods(&stage.cluster.client).await? - before;
        ensure!(
            CALLS.contains(&calls.count),
            "{calls} for {PAIRS} pods that nobody but us changes"
        );
        let (costs, noise) = (difference(&times[0], &times[1]), difference(&times[2], &times[1]));
        let [with, bare, _] = times.map(Quantiles::of);
        figures = format!(
            "p50 / p99 of {PAIRS} pairs: {costs} (noise {noise}); with {with}, without {bare}; the API server: {calls}; {}",
            handler(stage).await?
        );
        let (median, p99) = (costs.p50 <= MEDIAN, costs.p99 <= P99);
        if median && p99 {
            return Ok(figures);
        }
        ensure!(median || bare.p50 > BARE, "more than {MEDIAN} ms as a rule: {figures}");
        ensure!(
            costs.p50 <= bare.p50,
            "more than the pod itself, on whatever machine: {figures}"
        );
        // Where two pods without registration differ by as much, it is not the registration that is measured.
        ensure!(
            p99 || noise.p99 > P99,
            "more than {P99} ms of one pod in a hundred: {figures}"
        );
        println!("latency: the machine is too slow or too busy; {figures}");
        if !median {
            break; // slow it stays
        }
    }
    Err(NotShown(format!(
        "the machine is too slow or too busy for {MEDIAN} / {P99} ms: {figures}"
    ))
    .into())
}
