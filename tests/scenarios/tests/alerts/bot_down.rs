//! `BotDown`: the ways in which a bot is down, and what only looks like it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use lab::rosey::{Bot, EXPORTER_IMAGE, binary};
use lab::{Image, Notification};
use serde_json::{Value, json};

use crate::scene::{A_WHILE, PATIENCE, Scene, held};

/// Namespace, and what happens to the bot in it.
const WAYS: [&str; 6] = [
    "not-running",
    "closed-port",
    "hanging",
    "exporter-frozen",
    "exporter-killed",
    "pods-gone",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_is_down_when_it_says_so_when_it_is_silent_and_when_exporter_or_pods_are_gone() -> Result<()> {
    let scene = Scene::start().await?;
    let bots = try_join_all(WAYS.map(|way| scene.watched_bot(way, |monitor| in_time(way, monitor)))).await?;
    let prometheus = scene.lab.prometheus();
    prometheus.until(PATIENCE, "absent(ALERTS)").await?;

    for (way, bot) in WAYS.into_iter().zip(&bots) {
        match way {
            // Its port stays open, and nobody answers.
            "exporter-frozen" => signal_exporter(bot, "-STOP")?,
            // Its port is closed, and it does not come back.
            "exporter-killed" => {
                scene.lab.set_image(EXPORTER_IMAGE, Image::Missing);
                signal_exporter(bot, "-KILL")?;
            }
            "pods-gone" => drop(
                scene
                    .lab
                    .kubectl(&["scale", "deployment/rosey", "--replicas=0", "-n", way])
                    .await?,
            ),
            fault => bot.breaks(fault).await?,
        }
    }
    for (way, bot) in WAYS.into_iter().zip(&bots) {
        let labels = scene.until_firing(way, "BotDown").await.context(way)?;
        assert_eq!(labels["rosey_monitor"], "rosey", "{way}");
        let message = scene.lab.discord().of(way).next().await?;
        assert_eq!(message.content, "@everyone BotDown", "{way}");
        let said = message.description();
        if way == "pods-gone" {
            assert_eq!(labels.get("pod"), None, "{way}");
            assert!(said.contains("all pods"), "{way}: {said}");
        } else {
            assert_eq!(labels.get("pod"), Some(&bot.pod), "{way}");
            assert!(said.contains(&bot.pod), "{way}: {said}");
        }
    }
    // The exporter answers for a bot that does not, so that the two can be told apart.
    for (way, up) in [
        ("closed-port", 1),
        ("hanging", 1),
        ("exporter-frozen", 0),
        ("exporter-killed", 0),
    ] {
        prometheus
            .until(PATIENCE, &format!("up{{namespace=\"{way}\"}} == {up}"))
            .await?;
    }

    // Pods that come back end it, under whatever name.
    scene.lab.set_image(EXPORTER_IMAGE, binary("rosey-exporter")?);
    scene
        .lab
        .kubectl(&["scale", "deployment/rosey", "--replicas=1", "-n", "pods-gone"])
        .await?;
    let message = scene.lab.discord().of("pods-gone").next().await?;
    assert!(message.is_resolved(), "{}", message.title());
    scene.lab.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_rollout_nor_a_monitor_that_comes_after_its_bot_pages_anybody() -> Result<()> {
    let scene = Scene::start().await?;
    a_rollout_is_over_before_it_alarms(&scene).await?;
    a_monitor_for_a_running_bot_says_how_to_restart_it(&scene).await?;
    scene.lab.nothing_was_forbidden().await
}

async fn a_rollout_is_over_before_it_alarms(scene: &Scene) -> Result<()> {
    let namespace = "rollout";
    let old = scene
        .watched_bot(namespace, |monitor| {
            monitor["spec"]["alerts"]["overrides"] = json!([held("BotDown", "critical", "90s")]);
        })
        .await?;
    scene
        .lab
        .kubectl(&["rollout", "restart", "deployment/rosey", "-n", namespace])
        .await?;
    let rolled = the_one_after(scene, namespace, &old).await?;

    // With this strategy there is a time without any pod, and this bot takes a while to start.
    let slow = json!({ "name": "migration", "image": "busybox", "command": ["sleep", "8"] });
    let recreate = json!({ "spec": {
        "strategy": { "type": "Recreate", "rollingUpdate": null },
        "template": { "spec": { "initContainers": [slow] } },
    } });
    let patch = recreate.to_string();
    scene
        .lab
        .kubectl(&[
            "patch",
            "deployment/rosey",
            "-n",
            namespace,
            "--type=merge",
            "-p",
            &patch,
        ])
        .await?;
    the_one_after(scene, namespace, &rolled).await?;

    let alerts = format!("ALERTS{{alertname=\"BotDown\",namespace=\"{namespace}\"}}");
    let prometheus = scene.lab.prometheus();
    prometheus.until(PATIENCE, &format!("absent({alerts})")).await?;
    let states = prometheus.query(&format!("last_over_time({alerts}[10m])")).await?;
    ensure!(
        states.iter().any(|s| s.labels["alertstate"] == "pending"),
        "the gap was not noticed: {states:?}"
    );
    ensure!(
        states.iter().all(|s| s.labels["alertstate"] != "firing"),
        "a rollout alarmed: {states:?}"
    );
    let messages = scene.lab.discord().of(namespace).received();
    ensure!(messages.is_empty(), "{messages:?}");
    Ok(())
}

async fn a_monitor_for_a_running_bot_says_how_to_restart_it(scene: &Scene) -> Result<()> {
    let namespace = "late";
    scene.namespace(namespace).await?;
    scene
        .lab
        .apply(&Scene::deployment(namespace, "rosey")?.to_string())
        .await?;
    let bare = scene.lab.bot_of(namespace, "app=rosey").await?;
    scene.put_in_force(&scene.monitor(namespace, "rosey", |_| {})?).await?;

    let (reason, message) = scene.condition(namespace, "rosey", "Injected", "False").await?;
    let command = "kubectl rollout restart deployment/rosey -n late";
    assert_eq!(
        (reason.as_str(), message.contains(command)),
        ("PodsMissing", true),
        "{message}"
    );
    scene.lab.discord().of(namespace).stays_silent_for(A_WHILE).await?;
    let alerts = scene.lab.prometheus().query("ALERTS{namespace=\"late\"}").await?;
    ensure!(alerts.is_empty(), "{alerts:?}");

    let arguments: Vec<_> = command.split(' ').skip(1).collect();
    scene.lab.kubectl(&arguments).await?;
    the_one_after(scene, namespace, &bare).await?;
    scene.condition(namespace, "rosey", "Injected", "True").await?;
    let messages = scene.lab.discord().of(namespace).received();
    ensure!(messages.is_empty(), "{messages:?}");
    Ok(())
}

/// The bot that takes the place of another, once it is scraped.
async fn the_one_after(scene: &Scene, namespace: &str, old: &Bot) -> Result<Bot> {
    scene.lab.until_gone(PATIENCE, "v1/Pod", namespace, &old.pod).await?;
    let new = scene.lab.bot_of(namespace, "app=rosey").await?;
    scene.until_scraped(namespace, "rosey", &new).await?;
    Ok(new)
}

/// Prometheus hears with a delay of some seconds that a pod is gone. Until then it is a pod that does not answer, and with the
/// usual two minutes nobody would hear of that.
fn in_time(way: &str, monitor: &mut Value) {
    if way == "pods-gone" {
        monitor["spec"]["alerts"]["overrides"] = json!([held("BotDown", "critical", "20s")]);
    }
}

/// Sends a signal to the exporter beside a bot.
fn signal_exporter(bot: &Bot, signal: &str) -> Result<()> {
    let mine = format!("POD_IP={}", bot.ip);
    let is_it = |process: &Path| {
        let is_exporter = std::fs::read_link(process.join("exe")).is_ok_and(|exe| exe.ends_with("rosey-exporter"));
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        is_exporter
            && environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mine.as_bytes())
    };
    let mut processes = std::fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let exporter = processes
        .find(|process| is_it(process))
        .context("no exporter runs beside the bot")?;
    let id = exporter.file_name().context("a process has an id")?;
    let sent = Command::new("kill").arg(signal).arg(id).status()?;
    ensure!(sent.success(), "kill {signal} {}: {sent}", id.display());
    Ok(())
}
