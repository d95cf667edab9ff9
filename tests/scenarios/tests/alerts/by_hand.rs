//! Messages that people send by hand. They need neither operator nor Prometheus.

use anyhow::{Context, Result};
use lab::Lab;
use lab::rosey::text;

use crate::scene::{rosey, turn};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_by_hand_reaches_the_channels_of_the_environment_and_of_a_monitor() -> Result<()> {
    let _turn = turn().await?;
    let lab = Lab::builder().without_stack().start().await?;
    to_the_channels_of_the_environment(&lab).await?;
    to_the_channels_of_a_monitor(&lab).await
}

async fn to_the_channels_of_the_environment(lab: &Lab) -> Result<()> {
    let (discord, slack) = (lab.discord_url("by-hand"), lab.slack_url("by-hand"));
    let urls = [
        ("DISCORD_WEBHOOK_URL", discord.as_str()),
        ("SLACK_WEBHOOK_URL", slack.as_str()),
    ];
    let alert = [
        "send-alert",
        "--severity",
        "critical",
        "--title",
        "Bot Down",
        "--message",
        "Production bot crashed",
    ];
    let sent = rosey(lab, &alert, &urls).await?;
    assert!(sent.status.success(), "{sent:?}");

    let message = lab.discord().of("by-hand").next().await?;
    assert_eq!(
        (message.title(), message.description()),
        ("🚨 Bot Down", "Production bot crashed")
    );
    assert_eq!(message.embeds[0].color, 0xFF_00_00);
    let severity = &message.body["embeds"][0]["fields"][0];
    assert_eq!(
        (severity["name"].as_str(), severity["value"].as_str()),
        (Some("Severity"), Some("CRITICAL"))
    );
    let message = lab.slack().of("by-hand").next().await?;
    assert_eq!(
        (message.text.as_str(), message.attachments[0].color.as_str()),
        (":rotating_light: *Bot Down*", "danger")
    );

    let warning = ["send-alert", "--title", "Test", "--message", "Is this on?", "--slack"];
    let sent = rosey(lab, &warning, &urls).await?;
    assert!(sent.status.success(), "{sent:?}");
    let message = lab.slack().of("by-hand").next().await?;
    assert_eq!(
        (message.text.as_str(), message.attachments[0].color.as_str()),
        (":warning: *Test*", "warning")
    );
    assert_eq!(lab.discord().received().len(), 1, "--slack means Slack alone");

    let unsent = rosey(lab, &alert, &[]).await?;
    assert_eq!(unsent.status.code(), Some(1), "nothing was sent: {unsent:?}");
    Ok(())
}

async fn to_the_channels_of_a_monitor(lab: &Lab) -> Result<()> {
    lab.apply(&text("crds/roseymonitors.rosey.dev.yaml")?).await?;
    lab.namespace("bots").await?;
    lab.channels("bots").await?;
    lab.apply(&lab.monitor("examples/rosey.yaml", |_| {})?.to_string())
        .await?;

    let alert = [
        "send-alert",
        "--severity",
        "info",
        "--title",
        "Maintenance",
        "--message",
        "At <nine>, @everyone",
        "--monitor",
        "rosey",
        "-n",
        "bots",
    ];
    let sent = rosey(lab, &alert, &[]).await?;
    assert!(sent.status.success(), "{sent:?}");
    let said = String::from_utf8(sent.stdout).context("what it says is text")?;
    for channel in ["ops-discord (discord)", "ops-slack (slack)", "on-call (email)"] {
        assert!(said.contains(&format!("✓ {channel}: sent")), "{said}");
    }

    let message = lab.discord().of("ops").next().await?;
    assert_eq!(
        (message.title(), message.embeds[0].color),
        ("ℹ️ Maintenance", 0x00_99_FF)
    );
    assert_eq!(
        (message.content.as_str(), &message.body["allowed_mentions"]["parse"]),
        ("", &serde_json::json!([]))
    );
    let message = lab.slack().of("ops").next().await?;
    assert_eq!(
        (message.channel.as_str(), message.username.as_str()),
        ("#rosey-alerts", "Rosey Bot Alerts")
    );
    assert_eq!(message.attachments[0].color, "good");
    assert!(message.body.to_string().contains("At &lt;nine&gt;"), "{}", message.body);
    let message = lab.mail().next().await?;
    assert_eq!(
        (message.subject.as_str(), &message.to[..]),
        ("[INFO] Maintenance", &["oncall@example.org".to_owned()][..])
    );
    Ok(())
}
