//! Pods that have no exporter, or one that does not run.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use lab::Image;
use lab::rosey::EXPORTER_IMAGE;
use serde_json::{Value, json};

use crate::stage::{BOTS, Stage, message, says, stage, stage_alone};

async fn sidecars(stage: &Stage, what: &str, accept: impl Fn(&DynamicObject) -> bool) -> Result<(Value, String)> {
    let monitor = stage.status(BOTS, "rosey", what, accept).await?;
    Ok((
        monitor.data["status"]["sidecars"].clone(),
        message(&monitor, "Injected"),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_start_while_the_operator_is_stopped_run_are_counted_and_the_condition_says_what_to_run() -> Result<()>
{
    let stage = stage(|builder| builder).await?;
    let operator = stage.operator("operator", &[]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    sidecars(&stage, "no pods", |monitor| {
        says(monitor, "Injected", "Unknown", "NoPods")
    })
    .await?;
    operator.process.kill()?;
    operator.process.exited(crate::stage::SOON).await?;

    // The webhook is registered and nobody answers it.
    let asked = Instant::now();
    let bot = stage.bot(BOTS).await?;
    println!(
        "the bot runs {:?} after it was applied with no operator",
        asked.elapsed()
    );
    ensure!(bot.json["spec"]["containers"].as_array().map(Vec::len) == Some(1));

    let _operator = stage.operator("again", &[]).await?;
    let missing = |monitor: &_| says(monitor, "Injected", "False", "PodsMissing");
    let (counts, said) = sidecars(&stage, "pods missing", missing).await?;
    ensure!(
        counts == json!({"pods": 1, "injected": 0, "outdated": 0, "missing": 1, "summary": "0/1"}),
        "{counts}"
    );
    let mend = said
        .strip_prefix("1 of 1 pods started before the monitor; run: ")
        .context(said.clone())?;
    ensure!(mend == "kubectl rollout restart deployment/rosey -n bots", "{mend}");
    // Pods never gate Ready.
    stage.ready(BOTS, "rosey").await?;

    let restarted = Instant::now();
    stage.kubectl(&mend.split(' ').skip(1).collect::<Vec<_>>()).await?;
    let (counts, _) = sidecars(&stage, "injected", |monitor| {
        says(monitor, "Injected", "True", "Injected")
    })
    .await?;
    println!("Injected=True {:?} after what it said to run", restarted.elapsed());
    ensure!(
        counts == json!({"pods": 1, "injected": 1, "outdated": 0, "missing": 0, "summary": "1/1"}),
        "{counts}"
    );

    columns(&stage).await?;

    // Another image: the pods of now are outdated, and go on.
    let other = json!({"spec": {"exporter": {"image": "rosey-monitor/rosey-exporter:other"}}});
    stage.patch(crate::stage::MONITOR, BOTS, "rosey", other).await?;
    let outdated = |monitor: &DynamicObject| monitor.data["status"]["sidecars"]["outdated"] == 1;
    sidecars(&stage, "outdated", outdated).await?;
    stage.nothing_was_forbidden().await
}

/// What people see first.
async fn columns(stage: &Stage) -> Result<()> {
    let row = async |more: &[&str]| {
        let arguments = [&["get", "roseymonitors", "-n", BOTS], more].concat();
        let table = stage.kubectl(&arguments).await?;
        let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let [head, row] = lines.as_slice() else {
            anyhow::bail!("not one row:\n{table}")
        };
        let (head, row) = (head.join(" "), row.join(" "));
        anyhow::Ok((head, row))
    };
    let monitor = stage.ready(BOTS, "rosey").await?;
    let alerts = &monitor.data["status"]["rules"]["alerts"];
    ensure!(alerts.as_u64().is_some_and(|alerts| alerts > 0), "{alerts}");
    let (head, short) = row(&[]).await?;
    assert_eq!(head, "NAME READY REASON ENV PODS ALERTS AGE");
    let reason = monitor.data["status"]["reason"].as_str().context("status.reason")?;
    let start = format!("rosey True {reason} prod 1/1 {alerts} ");
    ensure!(short.starts_with(&start), "{short} does not start with {start}");
    let (head, wide) = row(&["-o", "wide"]).await?;
    assert_eq!(head, "NAME READY REASON ENV PODS ALERTS AGE MESSAGE");
    let said = monitor.data["status"]["message"].as_str().context("status.message")?;
    ensure!(wide.starts_with(&start) && wide.ends_with(said), "{wide}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_runs_within_ten_seconds_although_the_exporters_image_cant_be_pulled() -> Result<()> {
    let stage = stage_alone(|builder| builder.image(EXPORTER_IMAGE, Image::Missing)).await?;
    let _operator = stage.operator("operator", &[]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    injected_namespace(&stage).await?;

    let asked = Instant::now();
    let bot = stage.bot(BOTS).await?;
    let took = asked.elapsed();
    println!("the bot answers {took:?} after it was applied");
    ensure!(took < Duration::from_secs(10), "{took:?}");
    let pull = |monitor: &_| says(monitor, "Injected", "False", "ImagePull");
    let (counts, said) = sidecars(&stage, "the image can't be pulled", pull).await?;
    let image = bot.json["spec"]["containers"][1]["image"]
        .as_str()
        .context("no second container")?;
    ensure!(image.starts_with(EXPORTER_IMAGE), "{image}");
    ensure!(
        said.starts_with(&format!("image {image} can't be pulled in 1 of 1 pods")),
        "{said}"
    );
    ensure!(counts["injected"] == 1, "{counts}");

    stage.set_image(EXPORTER_IMAGE, lab::rosey::binary("rosey-exporter")?);
    sidecars(&stage, "injected", |monitor| {
        says(monitor, "Injected", "True", "Injected")
    })
    .await?;
    stage.nothing_was_forbidden().await
}

/// Waits until the API server sends the pods of the bots' namespace to the operator.
pub async fn injected_namespace(stage: &Stage) -> Result<()> {
    namespaces_are_injected(stage, &[BOTS]).await
}

/// Waits until the API server sends the pods of these namespaces to the operator.
pub async fn namespaces_are_injected(stage: &Stage, namespaces: &[&str]) -> Result<()> {
    lab::until(crate::stage::SOON, "pods to be sent to the operator", async || {
        for namespace in namespaces {
            // Nothing is stored; a pod that comes back with a sidecar went through the webhook.
            let probe = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "probe", "namespace": namespace, "labels": {"app": "rosey"}},
                "spec": {"containers": [{"name": "bot", "image": "pause", "securityContext": {
                    "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 1000,
                    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
                }}]},
            });
            let dry = kube::api::PostParams {
                dry_run: true,
                ..kube::api::PostParams::default()
            };
            let pod = stage
                .api("v1/Pod", namespace)
                .create(&dry, &serde_json::from_value(probe)?)
                .await?;
            if pod.data["spec"]["containers"].as_array().map_or(0, Vec::len) != 2 {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}
