//! Monitors that share a namespace or a name, and hear nothing of each other, whatever Alertmanager adds to their routes.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use lab::rosey::Bot;
use lab::{Lab, MatcherStrategy, eventually};
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
    // Slack is told too, in a group of its own.
    scene.lab.slack().of("two-rosey").next().await?;

    // Nothing of the same name in the other namespace has come to it, by whichever way.
    silence(&scene, "two-rosey").await?;
    for (title, text) in told(&scene, "two-rosey") {
        assert!(
            !title.contains("BotDown"),
            "two-rosey heard of another's BotDown: {text}"
        );
    }

    two.breaks("not-running").await?;
    hears(&scene, "two-rosey", "BotDown").await?;
    tokio::try_join!(silence(&scene, "one-rosey"), silence(&scene, "one-daisy"))?;

    // Discord and Slack hear of everything, the person on call of what is critical.
    let (down, slow) = (title("BotDown"), title("HighResponseTime"));
    for (channel, bot, alerts) in [
        ("one-rosey", &one, vec![&down, &down, &down]),
        ("one-daisy", &daisy, vec![&slow, &slow]),
    ] {
        let told = told(&scene, channel);
        let titles: Vec<_> = told.iter().map(|(title, _)| title).collect();
        assert_eq!(titles, alerts, "{channel}");
        speak_of(channel, &told, bot);
    }
    let channel = "two-rosey";
    eventually(PATIENCE, "two-rosey to hear of its BotDown three ways", async || {
        let told = told(&scene, channel);
        Ok((told.iter().filter(|(title, _)| *title == down).count() == 3).then_some(()))
    })
    .await?;
    let told = told(&scene, channel);
    let own = |title: &str| ["HighResponseTime", "BotDown"].iter().any(|own| title.contains(own));
    assert!(told.iter().all(|(title, _)| own(title)), "{told:?}");
    speak_of(channel, &told, &two);
    scene.lab.nothing_was_forbidden().await
}

/// Every message names the channel's own bot, whose name nobody else's contains.
fn speak_of(channel: &str, told: &[(String, String)], bot: &Bot) {
    for (title, text) in told {
        assert!(
            text.contains(&bot.pod),
            "{channel}: {title} is not of {}: {text}",
            bot.pod
        );
    }
}

/// Title and text of all that came to a monitor's channels: Discord's, Slack's, and mail.
fn told(scene: &Scene, channel: &str) -> Vec<(String, String)> {
    let lab = &scene.lab;
    let discord = lab.discord().of(channel).received();
    let slack = lab.slack().of(channel).received();
    let mail = lab.mail().of(&mailbox(channel)).received();
    let discord = discord
        .iter()
        .map(|m| (m.title().to_owned(), m.description().to_owned()));
    let slack = slack.iter().map(|m| (m.title().to_owned(), m.body.to_string()));
    let mail = mail.iter().map(|m| (m.subject.clone(), m.text.clone()));
    discord.chain(slack).chain(mail).collect()
}

/// Nothing comes to any of a monitor's channels for a while.
async fn silence(scene: &Scene, channel: &str) -> Result<()> {
    let (lab, mailbox) = (&scene.lab, mailbox(channel));
    let (discord, slack, mail) = (
        lab.discord().of(channel),
        lab.slack().of(channel),
        lab.mail().of(&mailbox),
    );
    tokio::try_join!(
        discord.stays_silent_for(A_WHILE),
        slack.stays_silent_for(A_WHILE),
        mail.stays_silent_for(A_WHILE)
    )?;
    Ok(())
}

fn mailbox(channel: &str) -> String {
    format!("{channel}@example.org")
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
            if let Some(email) = channel.get_mut("email") {
                email["to"] = json!([mailbox(&format!("{namespace}-{name}"))]);
            }
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
