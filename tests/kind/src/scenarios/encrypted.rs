//! A bot's owner turns to TLS and a password, while the bot runs.

use anyhow::{Result, ensure};
use lab::{Target, WebSecret, scraped_by_tls};
use serde_json::json;

use super::story::watched_bot;
use crate::stage::{PROPAGATED, Stage};

pub async fn a_pod_is_scraped_in_plain_http_until_it_is_restarted_and_then_by_tls(stage: &Stage) -> Result<String> {
    let place = "encrypted";
    let pod = watched_bot(stage, place).await?;
    let metadata = json!({"name": WebSecret::NAME, "namespace": place});
    let texts = WebSecret::new()?.texts;
    stage
        .apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": texts}))
        .await?;
    stage.patch_monitor(place, "rosey", &scraped_by_tls()?).await?;
    // Until then, Prometheus goes by what it knew: a pod that speaks TLS would be asked in plain HTTP.
    stage
        .prometheus
        .until_config_contains(PROPAGATED, &pool(place, 1))
        .await?;
    let older = scraped(stage, place, 0).await?;
    ensure!(older.scrape_url.starts_with("http://"), "{older:?}");

    let restart = ["rollout", "restart", "deployment/bot", "-n", place];
    stage.cluster.kubectl(&restart).await?;
    let younger = scraped(stage, place, 1).await?;
    ensure!(younger.scrape_url.starts_with("https://"), "{younger:?}");
    let mut targets = stage.prometheus.targets().await?;
    targets
        .retain(|target| target.scrape_pool == pool(place, 0) && target.labels.get("pod") == younger.labels.get("pod"));
    ensure!(targets.is_empty(), "it is asked in plain HTTP, too: {targets:?}");
    let up = format!("count (rosey_bot_up{{namespace=\"{place}\"}} == 1) == 1");
    stage.prometheus.until(PROPAGATED, &up).await?;
    // The alert of the pod, and the one without a pod. It holds for five seconds here: a younger pod may take longer to start.
    let down = format!("ALERTS{{alertname=\"BotDown\",alertstate=\"firing\",namespace=\"{place}\",pod=~\"{pod}|\"}}");
    let told = stage.prometheus.query(&format!("max_over_time({down}[10m])")).await?;
    ensure!(told.is_empty(), "the bot was never down: {told:?}");
    Ok(String::new())
}

/// A pod of the monitor, once it is scraped as this endpoint of the `PodMonitor` says.
async fn scraped(stage: &Stage, place: &str, endpoint: usize) -> Result<Target> {
    stage.prometheus.until_scraped(PROPAGATED, &pool(place, endpoint)).await
}

/// What an endpoint of the monitor's `PodMonitor` is called in Prometheus.
fn pool(place: &str, endpoint: usize) -> String {
    format!("podMonitor/{place}/rosey/{endpoint}")
}
