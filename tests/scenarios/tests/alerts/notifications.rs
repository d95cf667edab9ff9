//! One bot, its troubles, and the messages that people get: each once, at its place, with its looks.

use anyhow::{Result, ensure};
use lab::{Notification, eventually};
use serde_json::json;

use crate::scene::{A_WHILE, PATIENCE, Scene};

/// Alertmanager's colour for a Discord embed that tells of a firing alert.
const RED: u32 = 0x0099_2D22;

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_stops_is_announced_once_on_every_critical_channel_and_so_is_its_recovery() -> Result<()> {
    let scene = Scene::start().await?;
    let bot = scene.watched_bot("bots", |_| {}).await?;
    let lab = &scene.lab;
    let (discord, slack, mail) = (lab.discord().of("bots"), lab.slack().of("bots"), lab.mail());

    // It is slow, too, and no longer connected: both follow from its being down, and are nobody's business now.
    bot.control(&json!({ "status": "stopped", "connected": false, "response_time_ms": 3500 }))
        .await?;

    let labels = scene.until_firing("bots", "BotDown").await?;
    assert_eq!(labels["severity"], "critical");
    assert_eq!(labels["environment"], "prod");
    assert_eq!(labels["pod"], bot.pod);
    let held = lab.alertmanager().until_alert(PATIENCE, "BotDown").await?;
    assert_eq!(held.status.state, "active");

    let message = discord.next().await?;
    assert_eq!(message.content, "@everyone BotDown");
    assert_eq!(message.title(), "🚨 CRITICAL: BotDown (prod)");
    assert_eq!(message.embeds[0].color, RED);
    assert!(
        message.description().starts_with("**Bot rosey is down (prod)**\n"),
        "{}",
        message.description()
    );
    assert!(message.description().contains(&bot.pod), "{}", message.description());
    assert!(
        message.description().contains("/BotDown)"),
        "no runbook: {}",
        message.description()
    );

    let message = slack.next().await?;
    assert_eq!(message.title(), "🚨 CRITICAL: BotDown (prod)");
    assert_eq!(
        (message.channel.as_str(), message.username.as_str()),
        ("#rosey-alerts", "Rosey Bot Alerts")
    );
    assert_eq!(message.attachments[0].color, "danger");
    assert!(message.text.contains("<!channel> BotDown"), "{}", message.body);

    let message = mail.next().await?;
    assert_eq!(message.subject, "🚨 CRITICAL: BotDown (prod)");
    assert_eq!(message.to, ["bots@example.org"]);
    assert!(message.text.contains("Bot rosey is down (prod)"), "{}", message.text);

    scene.until_firing("bots", "HighResponseTime").await?;
    eventually(PATIENCE, "HighResponseTime to be inhibited", async || {
        let alerts = lab.alertmanager().alerts().await?;
        Ok(alerts
            .into_iter()
            .find(|held| held.name() == "HighResponseTime" && held.is_inhibited()))
    })
    .await?;
    // A bot that is down is not connected either, and that is no second piece of news.
    let disconnected = lab.prometheus().query("ALERTS{alertname=\"BotDisconnected\"}").await?;
    assert!(disconnected.is_empty(), "{disconnected:?}");
    tokio::try_join!(
        discord.stays_silent_for(A_WHILE),
        slack.stays_silent_for(A_WHILE),
        mail.stays_silent_for(A_WHILE)
    )?;

    bot.control(&json!({ "status": "running", "connected": true, "response_time_ms": 80 }))
        .await?;
    let message = discord.next().await?;
    assert_eq!(message.title(), "✅ RESOLVED: BotDown (prod)");
    assert_eq!(message.content, "", "an end calls nobody");
    let message = slack.next().await?;
    assert_eq!(message.title(), "✅ RESOLVED: BotDown (prod)");
    assert_eq!(message.attachments[0].color, "good");
    assert!(!message.body.to_string().contains("<!channel>"), "{}", message.body);
    assert_eq!(mail.next().await?.subject, "✅ RESOLVED: BotDown (prod)");

    tokio::try_join!(
        discord.stays_silent_for(A_WHILE),
        slack.stays_silent_for(A_WHILE),
        mail.stays_silent_for(A_WHILE)
    )?;
    assert_eq!(
        (discord.received().len(), slack.received().len(), mail.received().len()),
        (2, 2, 2)
    );

    a_warning_goes_to_discord_and_slack_without_a_call(&scene, &bot).await?;
    scene.lab.nothing_was_forbidden().await
}

async fn a_warning_goes_to_discord_and_slack_without_a_call(scene: &Scene, bot: &lab::rosey::Bot) -> Result<()> {
    let (discord, slack, mail) = (
        scene.lab.discord().of("bots"),
        scene.lab.slack().of("bots"),
        scene.lab.mail(),
    );
    let mails = mail.received().len();
    bot.breaks("memory-high").await?;

    let message = slack.next().await?;
    assert_eq!(message.title(), "⚠️ WARNING: HighMemoryUsage (prod)");
    assert_eq!(message.attachments[0].color, "warning");
    let text = &message.attachments[0].text;
    assert!(text.starts_with("*Bot rosey uses much memory (prod)*\n"), "{text}");
    assert!(
        text.contains("more than 500Mi of memory for 1s; it is 900MiB"),
        "{text}"
    );
    assert!(
        !message.body.to_string().contains("<!"),
        "a warning calls nobody: {}",
        message.body
    );

    let message = discord.next().await?;
    assert_eq!(message.title(), "⚠️ WARNING: HighMemoryUsage (prod)");
    assert_eq!(message.content, "", "a warning calls nobody");
    ensure!(
        mail.received().len() == mails,
        "a warning is no reason to wake the person on call"
    );

    bot.recovers().await?;
    assert!(slack.next().await?.is_resolved());
    assert!(discord.next().await?.is_resolved());
    Ok(())
}
