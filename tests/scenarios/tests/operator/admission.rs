//! What `kubectl apply` says of a monitor while the operator runs.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::stage::{BOTS, MONITOR, Stage, stage};

/// What `kubectl apply -f -` prints, and whether it succeeds.
async fn kubectl_apply(stage: &Stage, object: &Value) -> Result<(bool, String)> {
    let mut child = tokio::process::Command::new(stage.tools().command("kubectl"))
        .args(["apply", "-f", "-"])
        .env("KUBECONFIG", stage.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
    stdin.write_all(object.to_string().as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_monitor_is_refused_with_every_problem_and_an_odd_one_stored_with_warnings() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    let _operator = stage.operator("operator", &[]).await?;
    let wrong = stage.example(BOTS, "rosey", |monitor| {
        monitor["spec"]["scrape"] = json!({"interval": "5s", "timeout": "10s"});
        monitor["spec"]["exporter"]["port"] = json!(8000);
        monitor["spec"]["alerts"]["overrides"] = json!([{"alert": "BotDwon"}]);
        monitor["spec"]["notifications"]["routes"][0]["channels"] = json!(["nowhere"]);
    })?;
    // The registration follows the operator's readiness by a moment.
    let refused = lab::eventually(crate::stage::SOON, "the monitor to be refused", async || {
        let (stored, said) = kubectl_apply(&stage, &wrong).await?;
        if stored {
            stage.kubectl(&["delete", "rmon", "rosey", "-n", BOTS]).await?;
        }
        Ok((!stored).then_some(said))
    })
    .await?;
    for problem in [
        "spec.scrape.timeout: 10s is longer than spec.scrape.interval, 5s",
        "spec.exporter.port: 8000 is ",
        "spec.alerts.overrides[0].alert: \"BotDwon\" is no alert of the catalogue",
        "spec.notifications.routes[0].channels[0]: \"nowhere\" is no channel",
    ] {
        ensure!(refused.contains(problem), "{problem:?} is not said:\n{refused}");
    }
    ensure!(stage.get(MONITOR, BOTS, "rosey").await?.is_none());

    let odd = stage.example(BOTS, "rosey", |monitor| {
        monitor["spec"]["notifications"]["routes"]
            .as_array_mut()
            .unwrap()
            .truncate(2);
    })?;
    let (stored, said) = kubectl_apply(&stage, &odd).await?;
    ensure!(stored, "{said}");
    ensure!(
        said.contains("Warning: spec.notifications.routes: no route takes severity info; such alerts tell nobody"),
        "{said}"
    );

    // A stored monitor can't be edited into an invalid one either; what it was stays.
    let (stored, said) = kubectl_apply(&stage, &wrong).await?;
    ensure!(!stored && said.contains("is no channel"), "{said}");
    let monitor = stage.ready(BOTS, "rosey").await?;
    ensure!(crate::stage::message(&monitor, "Valid").contains("no route takes severity info"));

    // Somebody removes the registration: it is back, and judges again.
    stage
        .kubectl(&["delete", "validatingwebhookconfiguration", "rosey-monitor-validator"])
        .await?;
    lab::until(crate::stage::SOON, "the monitor to be refused again", async || {
        let (stored, _) = kubectl_apply(&stage, &wrong).await?;
        Ok(!stored)
    })
    .await?;
    stage.nothing_was_forbidden().await
}
