//! Pods without an exporter are replaced where their monitor asks for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, ListParams};
use lab::Image;
use lab::rosey::{BOT_IMAGE, EXPORTER_IMAGE};
use serde_json::{Value, json};

use crate::quiet::settled;
use crate::rights::{done_to_pods, may_write_pods, rights_used};
use crate::stage::{BOTS, SOON, Stage, message, says, stage};
use crate::updates::pods;

const REPAIR: &str = "--repair-exporters";
/// Before each eviction the operator looks on for some seconds, and after a refusal it waits for longer.
const ALL: Duration = Duration::from_secs(120);

fn asks_for_repair(monitor: &mut Value) {
    monitor["spec"]["exporter"]["repair"] = json!("Restart");
}

/// Two pods of a Deployment, older than any operator.
async fn old_pods(stage: &Stage) -> Result<()> {
    let bot = lab::rosey::text("examples/rosey-bot.yaml")?.replace("replicas: 1", "replicas: 2");
    let bot = bot.replace(" labels: {app: rosey}", " labels: {app: rosey, budget: bot}");
    stage.apply(&bot).await?;
    stage
        .kubectl(&[
            "wait",
            "-n",
            BOTS,
            "deployment/rosey",
            "--for=condition=Available",
            "--timeout=60s",
        ])
        .await
        .map(drop)
}

async fn budget(stage: &Stage, available: usize) -> Result<()> {
    let spec = json!({"minAvailable": available, "selector": {"matchLabels": {"app": "rosey", "budget": "bot"}}});
    let metadata = json!({"name": "rosey", "namespace": BOTS});
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec});
    stage.apply(&budget.to_string()).await.map(drop)
}

/// A pod that nothing replaces, and one of a Job.
async fn others(stage: &Stage) -> Result<()> {
    let bot = json!({"name": "bot", "image": "pause"});
    let metadata = json!({"name": "bare", "namespace": BOTS, "labels": {"app": "rosey"}});
    let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [bot]}});
    stage.apply(&bare.to_string()).await?;
    let spec = json!({"restartPolicy": "Never", "containers": [bot]});
    let template = json!({"metadata": {"labels": {"app": "rosey"}}, "spec": spec});
    let metadata = json!({"name": "task", "namespace": BOTS});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}});
    stage.apply(&job.to_string()).await.map(drop)
}

fn has_exporter(pod: &DynamicObject) -> bool {
    let containers = pod.data["spec"]["containers"].as_array().into_iter().flatten();
    containers
        .into_iter()
        .any(|c| c["name"] == rosey_monitor::sidecar::CONTAINER)
}

fn evictions(done: &[(String, String, u16)], code: u16) -> usize {
    let evictions = done
        .iter()
        .filter(|(verb, what, _)| verb == "create" && what == "pods/eviction");
    evictions.filter(|(.., answer)| *answer == code).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_without_an_exporter_are_evicted_one_by_one_as_their_budget_allows_and_nothing_else_is() -> Result<()> {
    let quick = |builder: lab::Builder| {
        builder
            .image(EXPORTER_IMAGE, Image::NoProcess)
            .image(BOT_IMAGE, Image::NoProcess)
    };
    let stage = stage(quick).await?;
    may_write_pods(&stage).await?;
    old_pods(&stage).await?;
    others(&stage).await?;
    budget(&stage, 2).await?;
    let counted = |budget: &DynamicObject| budget.data["status"]["currentHealthy"] == 2;
    stage
        .until_object(SOON, "policy/v1/PodDisruptionBudget", BOTS, "rosey", counted)
        .await?;
    let before = pods(&stage).await?;
    ensure!(
        before.len() == 4 && !before.values().any(has_exporter),
        "{:?}",
        before.keys()
    );

    // The monitor asks, and the operator does not.
    let first = stage.operator("operator", &[]).await?;
    stage.watch_bot(BOTS, "rosey", asks_for_repair).await?;
    let named = |monitor: &DynamicObject| {
        says(monitor, "Injected", "False", "PodsMissing") && message(monitor, "Injected").contains(REPAIR)
    };
    stage.status(BOTS, "rosey", "the flag is named", named).await?;
    first.process.terminate()?;
    first.process.exited(SOON).await?;

    // A budget that allows nothing.
    let mark = stage.audit().mark().await?;
    let operator = stage.operator("again", &[REPAIR]).await?;
    let refused = |monitor: &DynamicObject| {
        let said = message(monitor, "Injected");
        said.contains("the operator replaces one after the other, and may not evict pod rosey-")
            && said.contains("disruption budget")
    };
    let told = stage.status(BOTS, "rosey", "the budget is told", refused).await;
    told.with_context(|| operator.process.log())?;
    let now = pods(&stage).await?;
    ensure!(
        now.iter()
            .all(|(name, pod)| pod.metadata.uid == before[name].metadata.uid),
        "a pod was replaced"
    );
    let done = done_to_pods(&stage, mark).await?;
    ensure!(evictions(&done, 429) > 0 && evictions(&done, 201) == 0, "{done:?}");

    // One that allows one at a time.
    budget(&stage, 1).await?;
    lab::eventually(ALL, "two pods with exporters", async || {
        let now = pods(&stage).await?;
        let healthy = now.values().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok((healthy.filter(|pod| has_exporter(pod)).count() == 2).then_some(()))
    })
    .await
    .with_context(|| operator.process.log())?;
    let rest = |monitor: &DynamicObject| {
        says(monitor, "Injected", "False", "PodsMissing")
            && message(monitor, "Injected").ends_with("run: kubectl delete pod/bare -n bots, and create it again")
            && monitor.data["status"]["sidecars"]["summary"] == "2/4"
    };
    stage.status(BOTS, "rosey", "the others are left", rest).await?;
    let after = pods(&stage).await?;
    for (name, pod) in before.iter().filter(|(name, _)| !name.starts_with("rosey-")) {
        ensure!(after[name].metadata.uid == pod.metadata.uid, "{name} was replaced");
    }

    // At rest nothing is written.
    settled(&stage, &operator).await?;
    let done = done_to_pods(&stage, mark).await?;
    ensure!(
        evictions(&done, 201) == 2 && done.iter().all(|(verb, ..)| verb == "create"),
        "{done:?}"
    );
    let mark = stage.audit().mark().await?;
    settled(&stage, &operator).await?;
    ensure!(done_to_pods(&stage, mark).await?.is_empty());
    rights_used(&stage, &[("get", "pods"), ("create", "pods/eviction")]).await?;
    stage.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_comes_back_without_an_exporter_is_the_last_one_that_is_evicted() -> Result<()> {
    let quick = |builder: lab::Builder| {
        builder
            .image(EXPORTER_IMAGE, Image::NoProcess)
            .image(BOT_IMAGE, Image::NoProcess)
    };
    let stage = stage(quick).await?;
    may_write_pods(&stage).await?;
    old_pods(&stage).await?;
    let mark = stage.audit().mark().await?;
    // The webhook is registered, and nobody answers there.
    let flags = [REPAIR, "--webhook-url", "https://127.0.0.1:1"];
    let operator = stage.operator("operator", &flags).await?;
    stage.watch_bot(BOTS, "rosey", asks_for_repair).await?;
    let stopped = |monitor: &DynamicObject| says(monitor, "Injected", "False", "RepairStopped");
    let monitor = stage
        .until_object(ALL, crate::stage::MONITOR, BOTS, "rosey", stopped)
        .await;
    let monitor = monitor.with_context(|| operator.process.log())?;
    let said = message(&monitor, "Injected");
    ensure!(said.starts_with("2 of 2 pods have no exporter: pod rosey-"), "{said}");
    ensure!(
        said.ends_with("run: kubectl rollout restart deployment/rosey -n bots"),
        "{said}"
    );
    lab::until(SOON, "an Event about it", async || {
        let events = stage
            .api("events.k8s.io/v1/Event", BOTS)
            .list(&ListParams::default())
            .await?
            .items;
        Ok(events.iter().any(|event| event.data["reason"] == "RepairStopped"))
    })
    .await?;
    settled(&stage, &operator).await?;

    // Another leader stops as well.
    operator.process.terminate()?;
    operator.process.exited(SOON).await?;
    let again = stage.operator("again", &flags).await?;
    for _ in 0..3 {
        settled(&stage, &again).await?;
    }
    let done = done_to_pods(&stage, mark).await?;
    ensure!(evictions(&done, 201) == 1, "{done:?}");
    rights_used(&stage, &[("patch", "pods")]).await?;
    stage.nothing_was_forbidden().await
}
