//! Pods on their way in: what Pod Security says, while the operator is replaced, and while there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::json;

use crate::bots::{idle_pod, watched};
use crate::release::{self, SYSTEM};
use crate::stage::{EXPORTER, POD, SOON, Stage, is_injected};

/// Creates a pod that no node runs; the answer, and how long it took.
pub async fn create(stage: &Stage, pods: &Api<DynamicObject>, name: &str) -> Result<(DynamicObject, Duration)> {
    let pod = serde_json::from_value(idle_pod(stage, name, "rosey"))?;
    let start = Instant::now();
    let made = pods
        .create(&PostParams::default(), &pod)
        .await
        .with_context(|| format!("create pod {name}"))?;
    Ok((made, start.elapsed()))
}

pub async fn clear(pods: &Api<DynamicObject>) -> Result<()> {
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default())
        .await?;
    Ok(())
}

pub async fn a_restricted_namespace_admits_the_exporter(stage: &Stage) -> Result<String> {
    let place = "restricted";
    watched(stage, place, |_| {}).await?;
    let pods = stage.api(POD, "pods", place);
    let (admitted, _) = create(stage, &pods, "within").await?;
    ensure!(is_injected(&admitted), "the pod has no exporter");
    let mut against = idle_pod(stage, "against", "rosey");
    against["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let refused = pods
        .create(&PostParams::default(), &serde_json::from_value(against)?)
        .await;
    let Err(kube::Error::Api(status)) = refused else {
        anyhow::bail!("a privileged pod was admitted");
    };
    ensure!(
        status.code == 403 && status.message.contains("restricted"),
        "{status:?}"
    );
    ensure!(
        status.message.contains("\"bot\"") && !status.message.contains(EXPORTER),
        "{}",
        status.message
    );
    clear(&pods).await?;
    Ok(String::new())
}

/// Creates pods one after the other until it is done; every one has to be injected.
pub async fn stream(stage: &Stage, pods: &Api<DynamicObject>, done: &AtomicBool) -> Result<String> {
    let (mut bare, mut slowest, mut count) = (Vec::new(), Duration::ZERO, 0);
    while !done.load(Ordering::Relaxed) {
        let name = format!("pod-{count}");
        let (pod, time) = create(stage, pods, &name).await?;
        slowest = slowest.max(time);
        count += 1;
        if !is_injected(&pod) {
            bare.push(name.clone());
        }
        // Few at a time, so that no more than the stream is measured.
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(
        bare.is_empty(),
        "{} of {count} pods were not injected: {bare:?}",
        bare.len()
    );
    Ok(format!(
        "{count} pods, the slowest {:.0} ms",
        slowest.as_secs_f64() * 1e3
    ))
}

pub async fn a_rollout_of_the_operator_misses_no_pod(stage: &Stage) -> Result<String> {
    let place = "rollout";
    watched(stage, place, |_| {}).await?;
    let pods = stage.api(POD, "pods", place);
    let done = AtomicBool::new(false);
    let rollout = async {
        let rolled = async {
            stage
                .cluster
                .kubectl(&["rollout", "restart", "deployment/rosey-operator", "-n", SYSTEM])
                .await?;
            stage
                .cluster
                .kubectl(&[
                    "rollout",
                    "status",
                    "deployment/rosey-operator",
                    "-n",
                    SYSTEM,
                    "--timeout=180s",
                ])
                .await?;
            // The old replicas serve on for some seconds.
            lab::until(SOON, "the old replicas to be gone", async || {
                let all = release::replicas(stage).await?;
                Ok(all.len() == 2 && all.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()))
            })
            .await
        };
        let rolled = rolled.await;
        done.store(true, Ordering::Relaxed);
        rolled
    };
    let (figures, ()) = tokio::try_join!(stream(stage, &pods, &done), rollout)?;
    clear(&pods).await?;
    Ok(figures)
}

pub async fn without_an_operator_no_pod_is_refused(stage: &Stage) -> Result<String> {
    let place = "away";
    watched(stage, place, |_| {}).await?;
    release::scale(stage, 0).await?;
    let pods = stage.api(POD, "pods", place);
    let created = async {
        let mut times = Vec::new();
        for n in 0..20 {
            let (pod, time) = create(stage, &pods, &format!("pod-{n}")).await?;
            ensure!(!is_injected(&pod), "pod-{n} was injected by nobody");
            times.push(time);
        }
        times.sort();
        Ok(times)
    };
    let created = created.await;
    // Also after a failure: the next scenarios need it.
    release::scale(stage, 2).await?;
    let times: Vec<Duration> = created?;
    clear(&pods).await?;
    stage.until_registered(place, "rosey").await?;
    let (median, longest) = (
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3,
    );
    Ok(format!("a pod takes {median:.1} ms, at most {longest:.1} ms"))
}
