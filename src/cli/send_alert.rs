//! `kubectl rosey send-alert`: a message by hand, for tests of channels and for emergencies.
//!
//! URLs and passwords come from the environment or from Secrets, and never go anywhere but to their channel.

mod deliver;
mod message;
mod target;

use clap::builder::PossibleValue;
use clap::{ArgGroup, Args, ValueEnum};
use futures::future::join_all;

use super::cluster::Cluster;
use super::{Error, Verdict, print};
use crate::api::alerts::Severity;
use deliver::Sender;
use message::Message;
use target::Named;

/// Send a message to the channels, by hand.
///
/// Without --monitor the channels are those that the environment names: DISCORD_WEBHOOK_URL, SLACK_WEBHOOK_URL,
/// ALERT_WEBHOOK_URL, and ALERT_EMAIL with SMTP_HOST, SMTP_PORT (default 587; 465 speaks TLS from the start), SMTP_FROM,
/// SMTP_USERNAME, SMTP_PASSWORD and SMTP_REQUIRE_TLS (default true).
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("kind").args(["discord", "slack", "webhook", "email"]),
    after_help = "Examples:
  kubectl rosey send-alert --severity critical --title 'Bot down' --message 'Production bot crashed'
  kubectl rosey send-alert --severity info --title Test --message 'Is this on?' --slack
  kubectl rosey send-alert --severity warning --title Maintenance --message 'At nine' --monitor rosey -n bots

Exit codes: 0 done; 1 refused or failed; 2 wrong usage."
)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "one flag for each kind of channel; clap lets only one be given"
)]
pub(super) struct SendAlert {
    /// How urgent it is.
    #[arg(long, value_enum, default_value = "warning")]
    severity: Severity,
    /// First line of the message.
    #[arg(long, value_parser = said)]
    title: String,
    /// The message.
    #[arg(long, value_parser = said)]
    message: String,
    /// Only Discord.
    #[arg(long)]
    discord: bool,
    /// Only Slack.
    #[arg(long)]
    slack: bool,
    /// Only webhooks; they get what Alertmanager would post.
    #[arg(long)]
    webhook: bool,
    /// Only e-mail.
    #[arg(long)]
    email: bool,
    /// Use the channels of this monitor; its Secrets are read with your own rights.
    #[arg(long, value_name = "NAME")]
    monitor: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
}

impl ValueEnum for Severity {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Critical, Self::Warning, Self::Info]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// The kinds of channels that a message can go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Discord,
    Slack,
    Webhook,
    Email,
}

fn said(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("must not be empty".into())
    } else {
        Ok(text.into())
    }
}

impl SendAlert {
    pub(super) async fn run(&self) -> Result<Verdict, Error> {
        let only = [
            (self.discord, Kind::Discord),
            (self.slack, Kind::Slack),
            (self.webhook, Kind::Webhook),
            (self.email, Kind::Email),
        ]
        .into_iter()
        .find_map(|(asked, kind)| asked.then_some(kind));
        let channels = match &self.monitor {
            Some(monitor) => {
                let (client, namespace) = self.cluster.connect().await?;
                target::of_monitor(client, &namespace, monitor, only).await?
            }
            None if self.cluster.is_given() => {
                return Err(Error::Usage(
                    "--namespace, --context and --kubeconfig go with --monitor".into(),
                ));
            }
            None => target::of_environment(only, |name| std::env::var(name).ok()),
        };
        if channels.is_empty() {
            return Err(Error::Api {
                what: "nothing sent".into(),
                reason: "there is no such channel".into(),
            });
        }
        let message = Message::new(self.severity, &self.title, &self.message, jiff::Timestamp::now());
        let sender = Sender::new()?;
        let results = join_all(channels.into_iter().map(|Named { name, target }| {
            let (sender, message) = (&sender, &message);
            async move {
                match target {
                    Ok(target) => (name, sender.send(&target, message).await),
                    Err(reason) => (name, Err(reason)),
                }
            }
        }))
        .await;

        let lines = results.iter().map(|(name, result)| match result {
            Ok(()) => format!("✓ {name}: sent\n"),
            Err(reason) => format!("✗ {name}: {reason}\n"),
        });
        print(&lines.collect::<String>())?;
        Ok(if results.iter().any(|(_, result)| result.is_ok()) {
            Verdict::Done
        } else {
            Verdict::Refused
        })
    }
}
