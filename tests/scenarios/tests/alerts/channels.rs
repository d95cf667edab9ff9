//! A channel that can't work is silent, is shown, and takes no other with it.

use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::rosey::Bot;
use serde_json::{Value, json};

use crate::scene::{A_WHILE, MONITOR, PATIENCE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_key_silences_one_channel_and_is_shown_until_the_key_is_there() -> Result<()> {
    let scene = Scene::start().await?;
    let lab = &scene.lab;
    let namespace = "bots";
    lab.namespace(namespace).await?;
    scene
        .secret(
            namespace,
            "rosey-channels",
            &json!({ "discord": lab.discord_url(namespace), "ci": lab.webhook_url("ci") }),
        )
        .await?;
    let monitor = scene.monitor(namespace, "rosey", |monitor| {
        let notifications = &mut monitor["spec"]["notifications"];
        let webhook = json!({ "name": "ci", "webhook": { "urlSecretRef": { "name": "rosey-channels", "key": "ci" } } });
        if let Some(critical) = notifications["routes"][0]["channels"].as_array_mut() {
            critical.push(json!("ci"));
        }
        if let Some(channels) = notifications["channels"].as_array_mut() {
            channels.push(webhook);
        }
    })?;
    let stored = lab.apply(&monitor.to_string()).await?;
    ensure!(stored.len() == 1, "{stored:?}");

    let refused = |monitor: &kube::core::DynamicObject| monitor.data["status"]["refusedChannels"].is_array();
    let shown = lab.until_object(PATIENCE, MONITOR, namespace, "rosey", refused).await?;
    let channels = shown.data["status"]["refusedChannels"]
        .as_array()
        .context("refused channels")?;
    let [channel] = channels.as_slice() else {
        anyhow::bail!("{channels:?}")
    };
    assert_eq!(channel["channel"], "ops-slack");
    assert!(
        channel["message"].as_str().is_some_and(|said| said.contains("slack")),
        "{channel}"
    );
    assert!(!channel["time"].is_null(), "{channel}");
    scene.condition(namespace, "rosey", "Ready", "True").await?;

    for receiver in ["ops-discord", "on-call", "ci"] {
        lab.alertmanager()
            .until_config_contains(PATIENCE, &format!("bots/rosey.{receiver}/"))
            .await?;
    }
    let bot: Bot = scene.deploy(&Scene::deployment(namespace, "rosey")?).await?;
    bot.breaks("not-running").await?;
    assert_eq!(lab.discord().of(namespace).next().await?.content, "@everyone BotDown");
    assert!(lab.mail().next().await?.subject.contains("BotDown"));
    the_webhook_gets_the_alert_as_json(lab, &bot).await?;
    // Slack has no address.
    lab.slack().stays_silent_for(A_WHILE).await?;
    ensure!(
        lab.slack().received().is_empty(),
        "Slack has no address, and heard of it"
    );

    let key: Value = json!({ "discord": lab.discord_url(namespace), "slack": lab.slack_url(namespace) });
    scene.secret(namespace, "rosey-channels", &key).await?;
    assert!(lab.slack().of(namespace).next().await?.title().contains("BotDown"));

    // prometheus-operator has no word for a channel that works again. The Event in which it refused the channel ends after an
    // hour; here it ends at once.
    let events = [
        "delete",
        "events.events.k8s.io",
        "-n",
        namespace,
        "--field-selector=reason=InvalidConfiguration",
    ];
    lab.kubectl(&events).await?;
    let mended = |monitor: &kube::core::DynamicObject| monitor.data["status"]["refusedChannels"].is_null();
    lab.until_object(PATIENCE, MONITOR, namespace, "rosey", mended).await?;
    lab.nothing_was_forbidden().await
}

/// What a program can read: which alert, of which bot, and what to do about it.
async fn the_webhook_gets_the_alert_as_json(lab: &Lab, bot: &Bot) -> Result<()> {
    let message = lab.webhook().of("ci").next().await?;
    assert_eq!(message.status, "firing", "{}", message.body);
    assert_eq!(message.alert_names(), ["BotDown"]);
    // Alertmanager writes the name as a regular expression.
    let receiver = message.receiver.replace('\\', "");
    assert!(receiver.starts_with("bots/rosey.ci/"), "{receiver}");
    let alert = &message.alerts[0];
    for (label, value) in [
        ("severity", "critical"),
        ("environment", "prod"),
        ("namespace", "bots"),
        ("rosey_monitor", "rosey"),
        ("pod", &bot.pod),
    ] {
        assert_eq!(
            alert.labels.get(label).map(String::as_str),
            Some(value),
            "{label}: {alert:?}"
        );
    }
    for (annotation, part) in [
        ("summary", "Bot rosey is down"),
        ("description", bot.pod.as_str()),
        ("runbook_url", "/BotDown"),
    ] {
        let said = alert.annotations.get(annotation).map_or("", String::as_str);
        assert!(said.contains(part), "{annotation}: {alert:?}");
    }
    Ok(())
}
