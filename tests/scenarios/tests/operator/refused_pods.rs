//! A quota refuses the bot's pods because of the exporter: the monitor says so, and says no more of it when the pods run.

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use lab::eventually;
use lab::rosey::OPERATOR;
use serde_json::{Value, json};

use crate::quiet::settled;
use crate::stage::{BOTS, COLLECTED, MONITOR, Stage, message, says, stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_refuses_the_exporter_is_named_until_the_pods_run() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    let operator = stage.operator("operator", &[]).await?;
    stage.apply(&monitor(&json!({})).to_string()).await?;
    crate::pods::injected_namespace(&stage).await?;
    stage.apply(&quota().to_string()).await?;
    let counted = |quota: &DynamicObject| !quota.data["status"]["hard"].is_null();
    stage
        .until_object(COLLECTED, "v1/ResourceQuota", BOTS, "cpu", counted)
        .await?;

    // Alone it fits; beside an exporter without a CPU limit it doesn't.
    stage.apply(&bot().to_string()).await?;
    let refused = injected(&stage, "False", "PodsRefused").await?;
    ensure!(refused.starts_with("replicaset/rosey-"), "{refused}");
    ensure!(
        refused.contains("failed quota: cpu: must specify limits.cpu"),
        "{refused}"
    );
    ensure!(
        refused.contains("with the exporter a pod asks for cpu 5m and memory 8Mi more"),
        "{refused}"
    );

    // The controller tries again and again; nothing is written for that.
    let quiet = stage.audit().mark().await?;
    let tries = failures(&stage).await?;
    eventually(COLLECTED, "the controller to try again", async || {
        Ok((failures(&stage).await? > tries).then_some(()))
    })
    .await?;
    settled(&stage, &operator).await?;
    let writes = stage.audit().writes_by(OPERATOR, quiet).await?;
    let statuses: Vec<_> = writes
        .iter()
        .map(ToString::to_string)
        .filter(|write| write.contains("roseymonitors"))
        .collect();
    ensure!(statuses.is_empty(), "written while nothing changed: {statuses:?}");

    let limits = json!({ "limits": { "cpu": "20m", "memory": "32Mi" } });
    stage.apply(&monitor(&limits).to_string()).await?;
    injected(&stage, "True", "Injected").await?;
    stage.nothing_was_forbidden().await
}

fn monitor(resources: &Value) -> Value {
    let mut spec = json!({ "environment": "prod", "selector": { "matchLabels": { "app": "rosey" } }, "bot": { "health": { "port": 8000 } } });
    if resources.get("limits").is_some() {
        spec["exporter"] = json!({ "resources": resources });
    }
    json!({ "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": { "name": "rosey", "namespace": BOTS }, "spec": spec })
}

fn quota() -> Value {
    json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "cpu", "namespace": BOTS }, "spec": { "hard": { "limits.cpu": "1" } } })
}

fn bot() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "rosey", "namespace": BOTS },
        "spec": {
            "selector": { "matchLabels": { "app": "rosey" } },
            "template": {
                "metadata": { "labels": { "app": "rosey" } },
                "spec": { "containers": [{
                    "name": "bot", "image": lab::rosey::BOT_IMAGE, "args": ["--port", "8000", "--control-port", "8001"],
                    "resources": { "requests": { "cpu": "50m" }, "limits": { "cpu": "100m" } },
                }] },
            },
        },
    })
}

/// How often the controller has said that it could not create a pod.
async fn failures(stage: &Stage) -> Result<u64> {
    let events = stage
        .kubectl(&[
            "get",
            "events",
            "-n",
            BOTS,
            "--field-selector",
            "reason=FailedCreate",
            "-o",
            "json",
        ])
        .await?;
    let events: Value = serde_json::from_str(&events)?;
    let count = |event: &Value| event["count"].as_u64().unwrap_or(1);
    Ok(events["items"].as_array().context("items")?.iter().map(count).sum())
}

/// Message of the condition Injected once it has this status and reason.
async fn injected(stage: &Stage, status: &str, reason: &str) -> Result<String> {
    let wanted = |monitor: &DynamicObject| says(monitor, "Injected", status, reason);
    // The controller, which waits longer from one refusal to the next, is in no hurry.
    let monitor = stage.until_object(COLLECTED, MONITOR, BOTS, "rosey", wanted).await?;
    Ok(message(&monitor, "Injected"))
}
