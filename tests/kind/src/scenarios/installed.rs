//! The chart: what is there after it was installed, and after it was uninstalled.

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, PostParams};
use serde_json::Value;

use crate::bots::{idle_pod, running, watched, workload};
use crate::release::{self, OPERATORS, REGISTRATIONS, RELEASE, SYSTEM};
use crate::stage::{MONITOR, POD, PROPAGATED, SOON, Stage, is_injected, name, untouched};

/// The objects of a monitor: kind, and what stands after its name.
const OBJECTS: [(&str, &str); 6] = [
    ("v1/ConfigMap", "-exporter"),
    ("monitoring.coreos.com/v1/PodMonitor", ""),
    ("monitoring.coreos.com/v1/PrometheusRule", ""),
    ("monitoring.coreos.com/v1alpha1/AlertmanagerConfig", ""),
    ("monitoring.coreos.com/v1alpha1/AlertmanagerConfig", ".ops-discord"),
    ("monitoring.coreos.com/v1alpha1/AlertmanagerConfig", ".ops-slack"),
];

/// Whether the objects of monitor `rosey` are there, and none is about to go.
async fn all_there(stage: &Stage, place: &str, otherwise: &str) -> Result<()> {
    for (kind, suffix) in OBJECTS {
        let name = format!("rosey{suffix}");
        let object = stage.manifests.get(kind, place, &name).await?;
        let object = object.with_context(|| format!("{kind} {place}/{name} {otherwise}"))?;
        let going = object.metadata.deletion_timestamp;
        ensure!(
            going.is_none(),
            "{kind} {place}/{name} is about to be deleted: {going:?}"
        );
    }
    Ok(())
}

pub async fn every_bot_of_a_deployment_and_of_a_statefulset_is_injected_and_scraped(stage: &Stage) -> Result<String> {
    let place = "install";
    watched(stage, place, |_| {}).await?;
    for kind in ["Deployment", "StatefulSet"] {
        let bot = workload(stage, kind, (place, &kind.to_lowercase()), "rosey", |_| {});
        stage.apply(&bot).await?;
    }
    let tested = release::test(stage).await?;
    ensure!(tested.contains("Succeeded"), "helm test: {tested}");

    stage.until_injected(place, "rosey", 2).await?;
    for kind in ["deployment", "statefulset"] {
        let pods = running(stage, place, kind, 1).await?;
        ensure!(pods.iter().all(is_injected), "{kind}: {pods:?}");
    }
    all_there(stage, place, "is missing").await?;
    let all = format!("count (rosey_bot_up{{namespace=\"{place}\"}} == 1) == 2");
    stage.prometheus.until(PROPAGATED, &all).await?;
    // The labels that the stack selects by have come with the chart's values.
    stage
        .manifests
        .until_condition(SOON, MONITOR, place, "rosey", "Selected")
        .await?;
    let both = format!("count (up{{namespace=\"{SYSTEM}\",container=\"rosey-operator\"}} == 1) == 2");
    stage.prometheus.until(PROPAGATED, &both).await?;
    let table = stage.cluster.kubectl(&["get", "roseymonitors", "-n", place]).await?;
    ensure!(table.contains("2/2"), "kubectl get roseymonitors says:\n{table}");
    Ok(String::new())
}

/// The monitors of the whole cluster, by uid and generation: what is not what it was when somebody has written it.
///
/// # Errors
/// When kubectl fails.
pub async fn monitors(stage: &Stage) -> Result<Vec<Value>> {
    let said = stage
        .cluster
        .kubectl(&["get", "roseymonitors", "-A", "-o", "json"])
        .await?;
    let list: Value = serde_json::from_str(&said)?;
    let of = |monitor: &Value| serde_json::json!([monitor["metadata"]["uid"], monitor["metadata"]["generation"]]);
    Ok(list["items"].as_array().into_iter().flatten().map(of).collect())
}

pub async fn what_stays_and_what_goes_when_the_chart_is_uninstalled(stage: &Stage) -> Result<String> {
    let place = "uninstall";
    watched(stage, place, |_| {}).await?;
    stage
        .apply(&workload(stage, "Deployment", (place, "bot"), "rosey", |_| {}))
        .await?;
    stage.until_injected(place, "rosey", 1).await?;
    let seen = |pods: &[DynamicObject]| -> Vec<_> {
        pods.iter()
            .map(|pod| {
                (
                    name(pod).to_owned(),
                    untouched(pod, "bot"),
                    untouched(pod, "rosey-exporter"),
                )
            })
            .collect()
    };
    let (pods, before) = (running(stage, place, "bot", 1).await?, monitors(stage).await?);
    ensure!(!before.is_empty(), "there are no monitors");

    release::uninstall(stage).await?;
    let start = std::time::Instant::now();
    for (kind, registration) in REGISTRATIONS {
        lab::until(SOON, &format!("{registration} to go with its role"), async || {
            Ok(stage.manifests.get(kind, "", registration).await?.is_none())
        })
        .await?;
    }
    let gone = start.elapsed().as_secs_f64();
    let definition = "apiextensions.k8s.io/v1/CustomResourceDefinition";
    stage
        .manifests
        .get(definition, "", "roseymonitors.rosey.dev")
        .await?
        .context("the definition is gone")?;
    ensure!(monitors(stage).await? == before, "the monitors are not what they were");
    all_there(stage, place, "is gone").await?;
    let left = stage.cluster.helm(&["list", "-n", SYSTEM, "-q"]).await?;
    ensure!(!left.contains(RELEASE), "helm list still has {left}");
    ensure!(
        stage.pods(SYSTEM, OPERATORS).await?.is_empty(),
        "the operator still runs"
    );
    let after = running(stage, place, "bot", 1).await?;
    ensure!(
        seen(&after) == seen(&pods),
        "the bot's pod: {:?} was {:?}",
        seen(&after),
        seen(&pods)
    );
    let new: DynamicObject = serde_json::from_value(idle_pod(stage, "new", "rosey"))?;
    let new = stage
        .api(POD, "pods", place)
        .create(&PostParams::default(), &new)
        .await?;
    ensure!(!is_injected(&new), "there is nobody who could have injected a new pod");
    Ok(format!("registrations gone {gone:.1} s after helm"))
}
