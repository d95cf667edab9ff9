//! Nodes that are drained, with the operator on them.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use kube::api::DynamicObject;
use serde_json::json;

use super::webhook::{clear, streamed};
use crate::bots::watched;
use crate::release::{SYSTEM, settled};
use crate::stage::{POD, Stage, name};

fn node(pod: &DynamicObject) -> &str {
    pod.data["spec"]["nodeName"].as_str().unwrap_or_default()
}

/// Drains the workers one by one; each takes its pods again before the next one goes. None any more once it is `done`.
async fn drains(stage: &Stage, done: &AtomicBool) -> Result<()> {
    let workers: Vec<_> = stage
        .cluster
        .nodes()
        .await?
        .into_iter()
        .filter(|node| node.contains("worker"))
        .collect();
    ensure!(workers.len() > 1, "a drain needs two workers: --nodes 3");
    for worker in workers {
        if done.load(Ordering::Relaxed) {
            break;
        }
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
        let pods = settled(stage).await?;
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
    let pods = settled(stage).await?;
    let (first, second) = (evict(stage, name(&pods[0])).await?, evict(stage, name(&pods[1])).await?);
    ensure!(
        (first, second) == (201, 429),
        "to the evictions of both replicas the API server says {first} and {second}"
    );
    settled(stage).await.map(drop)
}

pub async fn a_drain_takes_one_replica_at_a_time_and_no_pod_goes_without(stage: &Stage) -> Result<String> {
    let place = "drain";
    watched(stage, place, |_| {}).await?;
    let replicas = settled(stage).await?;
    let nodes: Vec<_> = replicas.iter().map(node).collect();
    // A wish of the scheduler's, not a rule: the chart's default has to start on one node, too.
    ensure!(
        nodes[0] != nodes[1],
        "both replicas are on {}, which topologySpread.whenUnsatisfiable: ScheduleAnyway allows: was another node full?",
        nodes[0]
    );
    budget_holds(stage).await?;

    let pods = stage.api(POD, "pods", place);
    let figures = streamed(stage, &pods, async |done| drains(stage, done).await).await?;
    clear(&pods).await?;
    Ok(figures)
}
