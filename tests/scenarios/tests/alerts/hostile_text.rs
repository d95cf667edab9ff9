//! Text that a bot or a user chooses stays text, and what is internal stays inside.

use anyhow::{Result, ensure};
use lab::{Notification, eventually};
use serde_json::json;

use crate::scene::{PATIENCE, Scene, held};

const HOSTILE: &str = "@everyone <!channel> <@1> [x](https://evil.example) {{ query \"up\" }}";
const NAMESPACE: &str = "bots";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bot_says_is_obeyed_nowhere_and_no_message_tells_an_address() -> Result<()> {
    let scene = Scene::start().await?;
    let lab = &scene.lab;
    let bot = scene
        .watched_bot(NAMESPACE, |monitor| {
            let alerts = &mut monitor["spec"]["alerts"];
            alerts["overrides"] = json!([
                held("BotDown", "critical", "2s"),
                held("HighErrorRate", "warning", "1s"),
                held("HighMemoryUsage", "warning", "1s"),
            ]);
            alerts["runbookURL"] = json!("https://runbooks.example.org/{{$labels.pod}}/{alert}");
        })
        .await?;

    // The bot's own words get as far as Prometheus, in the labels of its series.
    bot.control(&json!({
        "fault": "errors", "error_type": HOSTILE, "errors_per_second": 500, "version": HOSTILE, "channel": HOSTILE, "memory_mb": 900,
    }))
    .await?;
    eventually(PATIENCE, "the bot's words in Prometheus", async || {
        let errors = lab.prometheus().query("rosey_bot_error_count_total > 0").await?;
        Ok(errors.into_iter().find(|sample| sample.labels["error_type"] == HOSTILE))
    })
    .await?;
    hears(&scene, "HighErrorRate").await?;
    hears(&scene, "HighMemoryUsage").await?;
    bot.control(&json!({ "fault": "errors", "error_type": "critical" }))
        .await?;
    hears(&scene, "CriticalError").await?;
    bot.breaks("not-running").await?;
    hears(&scene, "BotDown").await?;

    let calls = ["", "@everyone BotDown", "@everyone CriticalError"];
    let discord = lab.discord().received();
    for message in &discord {
        assert!(calls.contains(&&*message.content), "{}", message.content);
    }
    let runbook = "https://runbooks.example.org/{{$labels.pod}}/BotDown";
    ensure!(
        discord.iter().any(|m| m.description().contains(runbook)),
        "the runbook's address is no template"
    );

    let mut bodies: Vec<String> = discord.iter().map(|m| m.body.to_string()).collect();
    for message in lab.slack().received() {
        let calls = ["<!channel> BotDown", "<!channel> CriticalError"];
        let body = message.body.to_string();
        assert!(
            !body.replace(calls[0], "").replace(calls[1], "").contains("<!"),
            "{body}"
        );
        bodies.push(body);
    }
    bodies.extend(
        lab.mail()
            .received()
            .iter()
            .map(|m| format!("{}\n{}\n{}", m.subject, m.text, m.html)),
    );
    ensure!(
        bodies.len() >= 10,
        "four alerts, two of them at three channels: {bodies:#?}"
    );

    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let (prometheus, alertmanager) = (lab.prometheus(), lab.alertmanager());
    let inside = [
        bot.ip.as_str(),
        host.trim(),
        prometheus.url().trim_start_matches("http://"),
        alertmanager.url().trim_start_matches("http://"),
        "127.0.0.1",
        ":21090",
        ":21093",
        "prometheus-operated",
        "alertmanager-operated",
        "/graph?",
        "/#/alerts",
    ];
    for body in &bodies {
        for word in inside {
            assert!(!body.contains(word), "{word} in {body}");
        }
        for word in ["evil.example", "<@1>", "query"] {
            assert!(!body.contains(word), "{word} in {body}");
        }
    }
    scene.lab.nothing_was_forbidden().await
}

async fn hears(scene: &Scene, alert: &str) -> Result<()> {
    let discord = scene.lab.discord().of(NAMESPACE);
    discord
        .next_where(PATIENCE, alert, |message| {
            message.is_firing() && message.title().contains(alert)
        })
        .await?;
    let slack = scene.lab.slack().of(NAMESPACE);
    slack
        .next_where(PATIENCE, alert, |message| {
            message.is_firing() && message.title().contains(alert)
        })
        .await?;
    if ["BotDown", "CriticalError"].contains(&alert) {
        lab_mail(scene, alert).await?;
    }
    Ok(())
}

async fn lab_mail(scene: &Scene, alert: &str) -> Result<()> {
    let mail = scene.lab.mail();
    mail.next_where(PATIENCE, alert, |message| {
        message.is_firing() && message.subject.contains(alert)
    })
    .await?;
    Ok(())
}
