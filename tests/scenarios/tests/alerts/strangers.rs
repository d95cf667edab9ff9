//! Monitors that share a namespace or a name, and hear nothing of each other, whatever Alertmanager adds to their routes.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use lab::rosey::Bot;
use lab::{Lab, MatcherStrategy};
use serde_json::json;

use crate::scene::{A_WHILE, PATIENCE, Scene, held};

/// Namespace and name of each monitor; its channels are called `<namespace>-<name>`.
const MONITORS: [(&str, &str); 3] = [("one", "rosey"), ("one", "daisy"), ("two", "rosey")];

#[tokio::test(flavor = "multi_thread")]
async fn monitors_hear_of_their_own_bots_only_where_alertmanager_matches_the_namespace() -> Result<()> {
    each_hears_of_its_own(MatcherStrategy::OnNamespace).await
}

#[tokio::test(flavor = "multi_thread")]
async fn monitors_hear_of_their_own_bots_only_where_alertmanager_matches_nothing() -> Result<()> {
    each_hears_of_its_own(MatcherStrategy::None).await
}

async fn each_hears_of_its_own(strategy: MatcherStrategy) -> Result<()> {
    let scene = Scene::of(Lab::builder().matcher_strategy(strategy)).await?;
    for namespace in ["one", "two"] {
        scene.namespace(namespace).await?;
    }
    let [one, daisy, two]: [Bot; 3] = try_join_all(MONITORS.map(|(namespace, name)| watched(&scene, namespace, name)))
        .await?
        .try_into()
        .ok()
        .context("three bots")?;

    // The bot that is down inhibits nothing of the two that are slow, though they share its namespace or its name.
    one.breaks("not-running").await?;
    hears(&scene, "one-rosey", "BotDown").await?;
    daisy.breaks("slow").await?;
    two.breaks("slow").await?;
    hears(&scene, "one-daisy", "HighResponseTime").await?;
    hears(&scene, "two-rosey", "HighResponseTime").await?;

    two.breaks("not-running").await?;
    hears(&scene, "two-rosey", "BotDown").await?;
    let (rosey, daisy) = (scene.lab.discord().of("one-rosey"), scene.lab.discord().of("one-daisy"));
    tokio::try_join!(rosey.stays_silent_for(A_WHILE), daisy.stays_silent_for(A_WHILE))?;
    for (channel, inbox, alert) in [
        ("one-rosey", rosey, "BotDown"),
        ("one-daisy", daisy, "HighResponseTime"),
    ] {
        let titles: Vec<_> = inbox.received().iter().map(|m| m.title().to_owned()).collect();
        assert_eq!(titles, [title(alert)], "{channel}");
    }
    let told = scene.lab.discord().of("two-rosey").received();
    let own = |alert: &str| ["HighResponseTime", "BotDown"].iter().any(|own| alert.contains(own));
    assert!(told.iter().all(|m| own(m.title())), "{told:?}");
    Ok(())
}

async fn watched(scene: &Scene, namespace: &str, name: &str) -> Result<Bot> {
    let channel = format!("{namespace}-{name}");
    let urls = json!({ "discord": scene.lab.discord_url(&channel), "slack": scene.lab.slack_url(&channel) });
    scene.secret(namespace, name, &urls).await?;
    let monitor = scene.monitor(namespace, name, |monitor| {
        monitor["spec"]["alerts"]["overrides"] = json!([
            held("BotDown", "critical", "2s"),
            held("HighResponseTime", "warning", "2s")
        ]);
        let channels = monitor["spec"]["notifications"]["channels"].as_array_mut();
        for channel in channels.into_iter().flatten() {
            for kind in ["discord", "slack"] {
                if let Some(channel) = channel.get_mut(kind) {
                    channel["webhookSecretRef"]["name"] = json!(name);
                }
            }
        }
    })?;
    scene.put_in_force(&monitor).await?;
    scene.deploy(&Scene::deployment(namespace, name)?).await
}

async fn hears(scene: &Scene, channel: &str, alert: &str) -> Result<()> {
    let (inbox, wanted) = (scene.lab.discord().of(channel), title(alert));
    inbox
        .next_where(PATIENCE, &wanted, |message| message.title() == wanted)
        .await
        .map(drop)
}

fn title(alert: &str) -> String {
    let severity = if alert == "BotDown" {
        "🚨 CRITICAL"
    } else {
        "⚠️ WARNING"
    };
    format!("{severity}: {alert} (prod)")
}
