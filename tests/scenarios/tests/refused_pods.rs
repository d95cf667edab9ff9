//! A quota refuses the bot's pods because of the exporter: the monitor says so, and says no more of it when the pods run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::rosey::OPERATOR;
use lab::{Lab, condition, eventually};
use serde_json::{Value, json};

const NAMESPACE: &str = "bots";
const PATIENCE: Duration = Duration::from_secs(90);
const MONITOR: &str = "rosey.dev/v1alpha1/RoseyMonitor";

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_refuses_the_exporter_is_named_until_the_pods_run() -> Result<()> {
    let lab = Lab::builder().rosey()?.without_stack().start().await?;
    lab.install_rosey().await?;
    lab.namespace(NAMESPACE).await?;
    let mark = lab.audit().mark().await?;
    let operator = lab.operator("operator", &[]).await?;
    lab.apply(&monitor(&json!({})).to_string()).await?;
    eventually(PATIENCE, "the quota is counted", async || {
        lab.apply(&quota().to_string()).await?;
        let quota = lab
            .kubectl(&[
                "get",
                "resourcequota",
                "cpu",
                "-n",
                NAMESPACE,
                "-o",
                "jsonpath={.status.hard}",
            ])
            .await?;
        Ok((!quota.is_empty()).then_some(()))
    })
    .await?;

    // Alone it fits; beside an exporter without a CPU limit it doesn't.
    lab.apply(&bot().to_string()).await?;
    let refused = until_injected(&lab, "False", "PodsRefused").await?;
    println!("{refused}");
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
    let quiet = lab.audit().mark().await?;
    let tries = failures(&lab).await?;
    eventually(PATIENCE, "the controller tries again", async || {
        Ok((failures(&lab).await? > tries).then_some(()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let writes = lab.audit().writes_by(OPERATOR, quiet).await?;
    let statuses: Vec<_> = writes
        .iter()
        .map(ToString::to_string)
        .filter(|write| write.contains("roseymonitors"))
        .collect();
    ensure!(statuses.is_empty(), "written while nothing changed: {statuses:?}");

    lab.apply(&monitor(&json!({ "limits": { "cpu": "20m", "memory": "32Mi" } })).to_string())
        .await?;
    until_injected(&lab, "True", "Injected").await?;

    let forbidden: Vec<_> = lab
        .audit()
        .requests_by(OPERATOR, mark)
        .await?
        .into_iter()
        .filter(lab::Request::is_forbidden)
        .collect();
    ensure!(
        forbidden.is_empty(),
        "{:?}",
        forbidden.iter().map(ToString::to_string).collect::<Vec<_>>()
    );
    drop(operator);
    Ok(())
}

fn monitor(resources: &Value) -> Value {
    let mut spec = json!({ "environment": "prod", "selector": { "matchLabels": { "app": "rosey" } }, "bot": { "health": { "port": 8000 } } });
    if resources.get("limits").is_some() {
        spec["exporter"] = json!({ "resources": resources });
    }
    json!({ "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": { "name": "rosey", "namespace": NAMESPACE }, "spec": spec })
}

fn quota() -> Value {
    json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "cpu", "namespace": NAMESPACE }, "spec": { "hard": { "limits.cpu": "1" } } })
}

fn bot() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "rosey", "namespace": NAMESPACE },
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
async fn failures(lab: &Lab) -> Result<u64> {
    let events = lab
        .kubectl(&[
            "get",
            "events",
            "-n",
            NAMESPACE,
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
async fn until_injected(lab: &Lab, status: &str, reason: &str) -> Result<String> {
    eventually(PATIENCE, "the condition Injected", async || {
        let monitor = lab.get(MONITOR, NAMESPACE, "rosey").await?.context("the monitor")?;
        let Some(injected) = condition(&monitor, "Injected") else {
            return Ok(None);
        };
        ensure!(
            injected["status"] == status && injected["reason"] == reason,
            "expected {status} {reason}: {injected}"
        );
        Ok(Some(injected["message"].as_str().unwrap_or_default().to_owned()))
    })
    .await
}
