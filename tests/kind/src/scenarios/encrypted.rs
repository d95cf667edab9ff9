//! A bot's owner turns to TLS and a password, while the bot runs.

use anyhow::{Result, ensure};
use lab::{Target, WebSecret, scraped_by_tls};
use serde_json::json;

use super::story::watched_bot;
use crate::stage::{PROPAGATED, SOON, Stage};

pub async fn a_pod_is_scraped_in_plain_http_until_it_is_restarted_and_then_by_tls(stage: &Stage) -> Result<String> {
    let place = "encrypted";
    watched_bot(stage, place).await?;
    let metadata = json!({"name": WebSecret::NAME, "namespace": place});
    let texts = WebSecret::new()?.texts;
    stage
        .apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": texts}))
        .await?;
    stage.patch_monitor(place, "rosey", &scraped_by_tls()?).await?;
    let ready = |monitor: &_| lab::has_condition(monitor, "Ready");
    stage.until_monitor(SOON, place, "rosey", ready).await?;
    let older = scraped(stage, place, 0).await?;
    ensure!(older.scrape_url.starts_with("http://"), "{older:?}");

    let restart = ["rollout", "restart", "deployment/bot", "-n", place];
    stage.cluster.kubectl(&restart).await?;
    let younger = scraped(stage, place, 1).await?;
    ensure!(younger.scrape_url.starts_with("https://"), "{younger:?}");
    let up = format!("count (rosey_bot_up{{namespace=\"{place}\"}} == 1) == 1");
    stage.prometheus.until(PROPAGATED, &up).await?;
    let down = format!("ALERTS{{alertname=\"BotDown\",alertstate=\"firing\",namespace=\"{place}\"}}");
    let told = stage.prometheus.query(&format!("max_over_time({down}[10m])")).await?;
    ensure!(told.is_empty(), "the bot was never down: {told:?}");
    Ok(String::new())
}

/// A pod of the monitor, once it is scraped as this endpoint of the `PodMonitor` says.
async fn scraped(stage: &Stage, place: &str, endpoint: usize) -> Result<Target> {
    let pool = format!("podMonitor/{place}/rosey/{endpoint}");
    stage.prometheus.until_scraped(PROPAGATED, &pool).await
}
