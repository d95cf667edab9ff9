//! The main story: a bot breaks, somebody is told, it recovers.

use anyhow::{Context, Result, ensure};
use lab::{DiscordMessage, Mail, Notification, SlackMessage};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::bots::{by_mail, control, on_slack, received, running, watched, workload};
use crate::stage::{PROPAGATED, SOON, Stage, name};

/// Waits for a message under a name, after the first `before` ones, that tells of an alert, or of its end.
pub async fn told<M: Notification + DeserializeOwned>(
    stage: &Stage,
    channel: &str,
    before: usize,
    alert: &str,
    resolved: bool,
) -> Result<M> {
    let what = format!(
        "{channel} to be told of {}{alert}",
        if resolved { "the end of " } else { "" }
    );
    lab::eventually(SOON, &what, async || {
        let all = received(stage, channel).await?;
        let messages: Vec<M> = serde_json::from_value(json!(all))?;
        let tells = |message: &M| message.summary().contains(alert) && message.is_resolved() == resolved;
        let found = messages.into_iter().skip(before).find(tells);
        found.map(Some).with_context(|| format!("it was told: {}", json!(all)))
    })
    .await
}

/// Waits until the rules of a namespace's monitor are evaluated, and its channels are known.
pub async fn in_force(stage: &Stage, place: &str) -> Result<()> {
    let rules = format!("the rules of {place} to be evaluated");
    lab::until(PROPAGATED, &rules, async || {
        let mut rules = stage.prometheus.rules().await?;
        rules.retain(|rule| rule.labels.get("namespace").is_some_and(|namespace| namespace == place));
        Ok(!rules.is_empty() && rules.iter().all(|rule| rule.health == "ok"))
    })
    .await?;
    for channel in ["ops-discord", "ops-slack", "on-call"] {
        let receiver = format!("{place}/rosey.{channel}/");
        stage.alertmanager.until_config_contains(PROPAGATED, &receiver).await?;
    }
    Ok(())
}

/// A namespace with a monitor in force and a bot, named `bot`: it is scraped, its rules are evaluated, its channels are known. Returns the
/// name of the bot's pod.
pub async fn watched_bot(stage: &Stage, place: &str) -> Result<String> {
    watched(stage, place, |_| {}).await?;
    stage
        .apply(&workload(stage, "Deployment", (place, "bot"), "rosey", |_| {}))
        .await?;
    stage.until_injected(place, "rosey", 1).await?;
    let pods = running(stage, place, "bot", 1).await?;
    let pod = name(pods.first().context("no bot")?);
    stage
        .prometheus
        .until(
            PROPAGATED,
            &format!("rosey_bot_up{{namespace=\"{place}\",pod=\"{pod}\"}} == 1"),
        )
        .await?;
    in_force(stage, place).await?;
    Ok(pod.to_owned())
}

/// Breaks a bot that is watched, after the first `before` messages; how many seconds it takes until somebody is told.
pub async fn breaks(stage: &Stage, place: &str, pod: &str, before: usize) -> Result<f64> {
    let broke = std::time::Instant::now();
    control(stage, place, pod, &json!({"fault": "not-running"})).await?;
    let firing = format!("ALERTS{{alertname=\"BotDown\",alertstate=\"firing\",namespace=\"{place}\"}}");
    stage.prometheus.until(SOON, &firing).await?;
    let message: DiscordMessage = told(stage, place, before, "BotDown", false).await?;
    let heard = broke.elapsed().as_secs_f64();
    let text = message.description();
    ensure!(text.contains(pod), "the message does not say which pod: {text}");
    Ok(heard)
}

/// Mends it, and waits until somebody was told, after the first `before` messages.
pub async fn recovers(stage: &Stage, place: &str, pod: &str, before: usize) -> Result<()> {
    control(stage, place, pod, &json!({"fault": "none"})).await?;
    let up = format!("rosey_bot_up{{namespace=\"{place}\",pod=\"{pod}\"}} == 1");
    stage.prometheus.until(SOON, &up).await?;
    told::<DiscordMessage>(stage, place, before, "BotDown", true)
        .await
        .map(drop)
}

/// Both, one after the other; how many seconds it takes until somebody is told that the bot is broken.
pub async fn announced(stage: &Stage, place: &str, pod: &str) -> Result<f64> {
    let before = received(stage, place).await?.len();
    let heard = breaks(stage, place, pod, before).await?;
    recovers(stage, place, pod, before).await?;
    Ok(heard)
}

pub async fn a_bot_that_breaks_is_announced_and_so_is_its_recovery(stage: &Stage) -> Result<String> {
    let place = "story";
    let pod = watched_bot(stage, place).await?;
    ensure!(
        received(stage, place).await?.is_empty(),
        "somebody was told before anything happened"
    );
    let heard = announced(stage, place, &pod).await?;
    for resolved in [false, true] {
        told::<SlackMessage>(stage, &on_slack(place), 0, "BotDown", resolved).await?;
        told::<Mail>(stage, &by_mail(place), 0, "BotDown", resolved).await?;
    }
    Ok(format!("told {heard:.0} s after the bot broke"))
}
