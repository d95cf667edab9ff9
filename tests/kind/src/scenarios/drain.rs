//! Nodes that are drained, with the operator on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::DynamicObject;
use serde_json::json;

use super::webhook::{clear, stream};
use crate::bots::watched;
use crate::release::{OPERATORS, SYSTEM};
use crate::stage::{POD, SOON, Stage, name};

/// The operator's replicas, once two are ready.
async fn replicas(stage: &Stage) -> Result<Vec<DynamicObject>> {
    lab::eventually(SOON, "two ready replicas of the operator", async || {
        let pods = stage.pods(SYSTEM, OPERATORS).await?;
        Ok((pods.len() == 2 && pods.iter().all(|pod| lab::has_condition(pod, "Ready"))).then_some(pods))
    })
    .await
}

fn node(pod: &DynamicObject) -> &str {
    pod.data["spec"]["nodeName"].as_str().unwrap_or_default()
}

/// Drains the workers one by one; each takes its pods again before the next one goes.
async fn drains(stage: &Stage) -> Result<()> {
    let workers: Vec<_> = stage
        .cluster
        .nodes()
        .await?
        .into_iter()
        .filter(|node| node.contains("worker"))
        .collect();
    ensure!(workers.len() > 1, "a drain needs two workers: --nodes 3");
    for worker in workers {
        let flags = [
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--timeout=180s",
        ];
        let drained = stage.cluster.kubectl(&[&["drain", &worker][..], &flags].concat()).await;
        // The rest of the run needs it, whatever came of it.
        stage.cluster.kubectl(&["uncordon", &worker]).await?;
        drained?;
        let pods = replicas(stage).await?;
        ensure!(
            pods.iter().all(|pod| node(pod) != worker),
            "a replica is on {worker}, which was drained"
        );
    }
    Ok(())
}

/// Asks for the eviction of a pod of the operator's; the status of the answer. Not by the client, which would ask again after a refusal.
async fn evict(stage: &Stage, pod: &str) -> Result<u16> {
    let url = format!("{}/api/v1/namespaces/{SYSTEM}/pods/{pod}/eviction", stage.cluster.proxy);
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": SYSTEM}});
    Ok(stage.http.post(url).json(&eviction).send().await?.status().as_u16())
}

/// A second replica may not be evicted while the first one is on its way.
async fn budget_holds(stage: &Stage) -> Result<()> {
    let pods = replicas(stage).await?;
    let (first, second) = (evict(stage, name(&pods[0])).await?, evict(stage, name(&pods[1])).await?);
    ensure!(
        (first, second) == (201, 429),
        "to the evictions of both replicas the API server says {first} and {second}"
    );
    replicas(stage).await.map(drop)
}

pub async fn a_drain_takes_one_replica_at_a_time_and_no_pod_goes_without(stage: &Stage) -> Result<String> {
    let place = "drain";
    watched(stage, place, |_| {}).await?;
    let nodes: Vec<_> = replicas(stage).await?.iter().map(|pod| json!(node(pod))).collect();
    ensure!(nodes[0] != nodes[1], "both replicas are on {}", nodes[0]);
    budget_holds(stage).await?;

    let pods = stage.api(POD, "pods", place);
    let done = AtomicBool::new(false);
    let drained = async {
        let drained = drains(stage).await;
        // What was asked to end serves on for some seconds.
        tokio::time::sleep(Duration::from_secs(10)).await;
        done.store(true, Ordering::Relaxed);
        drained
    };
    let (figures, ()) = tokio::try_join!(stream(stage, &pods, &done), drained)?;
    clear(&pods).await?;
    Ok(figures)
}
