//! What the command line records, on its way to whoever is told.

use anyhow::{Context, Result, ensure};
use lab::DiscordMessage;

use super::story::{in_force, told};
use crate::bots::watched;
use crate::stage::{MONITOR, PROPAGATED, Stage};

pub async fn a_failed_deployment_is_recorded_exported_and_announced(stage: &Stage) -> Result<String> {
    let place = "recorded";
    watched(stage, place, |_| {}).await?;
    in_force(stage, place).await?;
    let failed = format!("rosey_deployment_total{{namespace=\"{place}\",rosey_monitor=\"rosey\",status=\"failed\"}}");
    stage.prometheus.until(PROPAGATED, &format!("{failed} == 0")).await?;

    let words = "record deployment rosey --status failed --duration 42s --namespace";
    let words: Vec<_> = words.split(' ').chain([place]).collect();
    stage.cluster.rosey(&words).await?;
    let monitor = stage.manifests.get(MONITOR, place, "rosey").await?;
    let counts = monitor.context("no monitor")?.data["status"]["deployments"].clone();
    ensure!(counts["failed"] == 1, "the monitor's status says {counts}");
    stage.prometheus.until(PROPAGATED, &format!("{failed} == 1")).await?;
    told::<DiscordMessage>(stage, place, 0, "DeploymentFailed", false)
        .await
        .map(|_| String::new())
}
