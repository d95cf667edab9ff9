//! What the examples watch besides a health document, and a monitor that nobody could have meant.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::bots::{PORT, control, monitor, namespace, running, workload};
use crate::stage::{MONITOR, PROPAGATED, SOON, Stage, name};

/// Where the bot's log lies in its volume, and the bot's name for that place.
const LOG: (&str, &str) = ("rosey.log", "/data/rosey.log");

/// A monitor of an example, for bots with `app: <name>`.
fn of(example: &str, place: &str, name: &str, bot: &Value) -> Result<Value> {
    let text = lab::rosey::text(example)?;
    let mut monitor: Value = serde_saphyr::from_str(&text).with_context(|| example.to_owned())?;
    monitor["metadata"] = json!({"namespace": place, "name": name});
    let spec = &mut monitor["spec"];
    spec["selector"] = json!({"matchLabels": {"app": name}});
    for (source, change) in bot.as_object().into_iter().flatten() {
        let wanted = &mut spec["bot"][source];
        ensure!(wanted.is_object(), "{example} has no bot.{source}");
        for (field, value) in change.as_object().into_iter().flatten() {
            wanted[field] = value.clone();
        }
    }
    // Without the certificates and passwords of the third one.
    spec["exporter"] = json!({});
    spec["scrape"] = json!({"interval": "5s", "timeout": "4s"});
    Ok(monitor)
}

pub async fn metrics_plugins_and_logs_become_series(stage: &Stage) -> Result<String> {
    let place = "sources";
    namespace(stage, place).await?;
    let sources = [
        (
            "metrics",
            "examples/s1-metrics.yaml",
            json!({"metrics": {"port": PORT, "path": "/metrics"}}),
            "rosey_exporter_source_up{source=\"metrics\"} == 1",
        ),
        (
            "plugins",
            "examples/s2-plugins.yaml",
            json!({"health": {"port": PORT}, "plugins": {"port": PORT}}),
            "rosey_plugins_running > 0",
        ),
        (
            "logs",
            "examples/s3-logs.yaml",
            json!({"logs": {"volume": "data", "path": LOG.0}}),
            "bot_commands_total{command=\"help\"} > 0",
        ),
    ];
    for (bot, example, change, _) in &sources {
        stage.apply(&of(example, place, bot, change)?).await?;
        let ready = |monitor: &_| lab::has_condition(monitor, "Ready");
        stage.until_monitor(SOON, place, bot, ready).await?;
    }
    for (bot, ..) in &sources {
        stage.until_registered(place, bot).await?;
        let deployment = workload(stage, "Deployment", (place, bot), bot, |pod| {
            if let Some(arguments) = pod["containers"][0]["args"].as_array_mut() {
                arguments.extend([json!("--log"), json!(LOG.1)]);
            }
        });
        stage.apply(&deployment).await?;
    }
    for (bot, ..) in &sources {
        stage.until_injected(place, bot, 1).await?;
    }
    let pods = running(stage, place, "logs", 1).await?;
    let talkative = json!({"log": {"lines_per_second": 20, "commands": ["help"]}});
    control(stage, place, name(pods.first().context("no bot")?), &talkative).await?;
    for (bot, .., series) in &sources {
        let of_it = format!("({series}) and on (namespace, pod) up{{namespace=\"{place}\",pod=~\"{bot}-.*\"}}");
        stage.prometheus.until(PROPAGATED, &of_it).await?;
    }
    refused(stage, place).await?;
    Ok(String::new())
}

/// What the definition alone would let pass: the operator refuses it, and says which field is wrong.
async fn refused(stage: &Stage, place: &str) -> Result<()> {
    let wrong = monitor(place, "wrong", |monitor| {
        monitor["spec"]["alerts"]["overrides"][0]["alert"] = json!("BotDwon");
    })?;
    let Err(error) = stage.apply(&wrong).await else {
        bail!("a monitor was accepted that changes an alert which does not exist");
    };
    let said = format!("{error:#}");
    ensure!(
        said.contains("spec.alerts.overrides[0].alert") && said.contains("BotDwon"),
        "the refusal does not name the field: {said}"
    );
    let stored = stage.manifests.get(MONITOR, place, "wrong").await?;
    ensure!(stored.is_none(), "a monitor that was refused is there");
    Ok(())
}
