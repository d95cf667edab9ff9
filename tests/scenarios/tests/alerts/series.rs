//! The series of a bot and of its deployments, from where they arise to the alerts that read them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use lab::{Labels, Notification, eventually};
use rosey_monitor::catalogue::metrics::{self, Kind, Metric};
use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene};

const NAMESPACE: &str = "bots";
const SCOPE: &str = "namespace=\"bots\",rosey_monitor=\"rosey\"";

/// How the series begin that this monitor has no source for: it reads no log, pushes nowhere and has no web configuration.
const NOT_READ: [&str; 6] = [
    "bot_command",
    "rosey_bot_log_",
    "rosey_exporter_log_",
    "rosey_exporter_push",
    "rosey_exporter_state_",
    "rosey_exporter_web_",
];

fn read() -> impl Iterator<Item = &'static Metric> {
    let elsewhere = |metric: &Metric| NOT_READ.iter().any(|start| metric.name.starts_with(start));
    metrics::ALL.iter().copied().filter(move |metric| !elsewhere(metric))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_series_of_a_bot_and_its_deployments_arrives_with_realistic_values() -> Result<()> {
    let scene = Scene::start().await?;
    scene.namespace(NAMESPACE).await?;
    let monitor = scene.lab.monitor("examples/s0-rosey.yaml", |monitor| {
        monitor["spec"]["bot"]["plugins"] = json!({ "port": 8000 });
    })?;
    scene.put_in_force(&monitor).await?;
    scene.deploy(&bot_with_backups()?).await?;
    scene.lab.scrape_operator(&scene.operator).await?;

    a_bots_values_are_realistic(&scene).await?;
    deployments_are_counted_from_zero(&scene).await?;
    every_series_of_the_catalogue_is_there(&scene).await?;
    scene.lab.nothing_was_forbidden().await
}

/// The bot of the examples with the volume that S0's monitor reads, and four backups in it.
fn bot_with_backups() -> Result<Value> {
    let mut deployment = Scene::deployment(NAMESPACE, "rosey")?;
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["volumes"] = json!([{ "name": "data", "emptyDir": {} }, { "name": "backups", "emptyDir": {} }]);
    let script = "mkdir -p $ROSEY_ROOTFS/backups/prod && cd $ROSEY_ROOTFS/backups/prod && touch backup_1 backup_2 backup_3 backup_4 notes";
    pod["initContainers"] = json!([{
        "name": "backup",
        "image": "busybox",
        "command": ["sh", "-c", script],
        "volumeMounts": [{ "name": "backups", "mountPath": "/backups" }],
    }]);
    Ok(deployment)
}

async fn a_bots_values_are_realistic(scene: &Scene) -> Result<()> {
    let memory = 180.0 * 1024.0 * 1024.0;
    for (series, least, most) in [
        ("rosey_bot_up", 1.0, 1.0),
        ("rosey_bot_connected", 1.0, 1.0),
        ("rosey_bot_uptime_seconds", 1.0, 600.0),
        ("rosey_bot_response_time_ms", 120.0, 120.0),
        ("rosey_bot_memory_bytes", memory, memory),
        ("rosey_bot_user_count", 12.0, 12.0),
        ("rosey_bot_channel_users{channel=\"rosey\"}", 12.0, 12.0),
        ("rosey_bot_message_count_total", 1.0, 6000.0),
        ("rosey_bot_command_count_total{command=\"vote\"}", 0.0, 600.0),
        ("rosey_bot_error_count_total{error_type=\"timeout\"}", 0.0, 0.0),
        ("rosey_disk_usage_bytes{path=\"data:/\"}", 1.0, 1e16),
        ("rosey_backup_count", 4.0, 4.0),
        ("rosey_backup_age_seconds", 0.0, 600.0),
        ("rosey_exporter_source_up{source=\"metrics\"}", 1.0, 1.0),
    ] {
        let selector = match series.strip_suffix('}') {
            Some(start) => format!("{start},{SCOPE}}}"),
            None => format!("{series}{{{SCOPE}}}"),
        };
        let found = scene
            .lab
            .prometheus()
            .until(PATIENCE, &format!("{selector} >= {least} <= {most}"))
            .await?;
        let [sample] = found.as_slice() else {
            anyhow::bail!("{series}: {found:?}")
        };
        let label = |name: &str| sample.labels.get(name).map(String::as_str);
        assert_eq!(label("environment"), Some("prod"), "{series}");
        assert_eq!(
            label("instance"),
            label("pod"),
            "{series}: the pod's address would stand in messages"
        );
    }
    Ok(())
}

async fn deployments_are_counted_from_zero(scene: &Scene) -> Result<()> {
    let prometheus = scene.lab.prometheus();
    let at = |series: &str, more: &str| format!("{series}{{{SCOPE}{more}}}");
    for zero in [
        at("rosey_deployment_total", ",status=\"success\""),
        at("rosey_deployment_total", ",status=\"failed\""),
        at("rosey_rollback_total", ""),
    ] {
        prometheus.until(PATIENCE, &format!("{zero} == 0")).await?;
    }

    let record = |arguments: &'static [&'static str]| scene.rosey(arguments);
    record(&[
        "record",
        "deployment",
        "rosey",
        "-n",
        "bots",
        "--status",
        "success",
        "--duration",
        "42s",
    ])
    .await?;
    for query in [
        at("rosey_deployment_total", ",status=\"success\"") + " == 1",
        at("rosey_deployment_duration_seconds_count", "") + " == 1",
        at("rosey_deployment_duration_seconds_sum", "") + " == 42",
        at("rosey_deployment_duration_seconds_bucket", ",le=\"60.0\"") + " == 1",
        at("rosey_deployment_duration_seconds_bucket", ",le=\"30.0\"") + " == 0",
        format!("time() - {} < 60", at("rosey_deployment_last_success_timestamp", "")),
    ] {
        prometheus.until(PATIENCE, &query).await?;
    }
    let told = scene.lab.discord().received();
    ensure!(told.is_empty(), "a deployment that went well is no news: {told:?}");

    record(&[
        "record",
        "deployment",
        "rosey",
        "-n",
        "bots",
        "--status",
        "failed",
        "--duration",
        "3m",
    ])
    .await?;
    record(&["record", "rollback", "rosey", "-n", "bots", "--duration", "5s"]).await?;
    for (alert, title) in [
        ("DeploymentFailed", "⚠️ WARNING: DeploymentFailed (prod)"),
        ("RollbackOccurred", "⚠️ WARNING: RollbackOccurred (prod)"),
    ] {
        let discord = scene.lab.discord().of(NAMESPACE);
        discord
            .next_where(PATIENCE, title, |m| m.is_firing() && m.title() == title)
            .await?;
        let slack = scene.lab.slack().of(NAMESPACE);
        slack
            .next_where(PATIENCE, title, |m| m.channel == "#rosey-alerts" && m.title() == title)
            .await?;
        let labels = scene.until_firing(NAMESPACE, alert).await?;
        assert_eq!(
            labels.get("pod"),
            None,
            "{alert} speaks of no pod, least of all the operator's: {labels:?}"
        );
    }
    Ok(())
}

/// The names of the catalogue, those of the exporter through the `PodMonitor`, with the types that the catalogue says.
async fn every_series_of_the_catalogue_is_there(scene: &Scene) -> Result<()> {
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    let all = eventually(PATIENCE, "every series of the catalogue", async || {
        missing.clear();
        for metric in read() {
            let found = scene
                .lab
                .prometheus()
                .query(&format!("{}{{{SCOPE}}}", sample_name(metric)))
                .await?;
            let complete = |labels: &Labels| metric.labels.iter().all(|label| labels.contains_key(*label));
            if found.is_empty() || !found.iter().all(|sample| complete(&sample.labels)) {
                missing.insert(metric.name);
            }
        }
        ensure!(missing.is_empty(), "missing: {missing:?}");
        Ok(Some(()))
    });
    all.await?;

    let known: Value = scene.lab.prometheus().get("metadata", &[]).await?;
    for metric in read() {
        let entries = known[metric.name]
            .as_array()
            .with_context(|| format!("{} has no type", metric.name))?;
        let kind = match metric.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        assert!(
            entries.iter().all(|entry| entry["type"] == kind),
            "{}: {entries:?}",
            metric.name
        );
    }
    Ok(())
}

fn sample_name(metric: &Metric) -> String {
    let suffix = if metric.kind == Kind::Histogram { "_bucket" } else { "" };
    format!("{}{suffix}", metric.name)
}
