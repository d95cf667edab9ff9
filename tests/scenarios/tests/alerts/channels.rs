//! A channel that can't work is silent, is shown, and takes no other with it.

use anyhow::{Context, Result, ensure};
use lab::rosey::Bot;
use serde_json::{Value, json};

use crate::scene::{MONITOR, PATIENCE, Scene};

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
            &json!({ "discord": lab.discord_url(namespace) }),
        )
        .await?;
    let monitor = scene.monitor(namespace, "rosey", |_| {})?;
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

    for receiver in ["ops-discord", "on-call"] {
        lab.alertmanager()
            .until_config_contains(PATIENCE, &format!("bots/rosey.{receiver}/"))
            .await?;
    }
    let bot: Bot = scene.deploy(&Scene::deployment(namespace, "rosey")?).await?;
    bot.breaks("not-running").await?;
    assert_eq!(lab.discord().of(namespace).next().await?.content, "@everyone BotDown");
    assert!(lab.mail().next().await?.subject.contains("BotDown"));
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
    Ok(())
}
