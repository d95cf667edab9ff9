//! The messages, parsed as far as scenarios look into them.

use serde::Deserialize;
use serde_json::Value;

use super::Notification;
use crate::prometheus::Labels;

/// Alertmanager's colour for a Discord embed that tells of a resolved alert.
const DISCORD_GREEN: u32 = 0x002E_CC71;

/// A message as Discord's webhook takes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DiscordMessage {
    /// The name at the end of the URL.
    #[serde(skip)]
    pub channel: String,
    /// The text above the embeds: the only place where Discord obeys mentions.
    pub content: String,
    /// The sender's name, where one is set.
    pub username: String,
    /// The coloured boxes.
    pub embeds: Vec<Embed>,
    /// The whole body as it was sent.
    #[serde(skip)]
    pub body: Value,
}

/// One coloured box of a Discord message.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Embed {
    /// The heading.
    pub title: String,
    /// The text.
    pub description: String,
    /// 0xRRGGBB.
    pub color: u32,
}

impl DiscordMessage {
    /// The first embed's title.
    #[must_use]
    pub fn title(&self) -> &str {
        self.embeds.first().map_or("", |embed| &embed.title)
    }

    /// The first embed's description.
    #[must_use]
    pub fn description(&self) -> &str {
        self.embeds.first().map_or("", |embed| &embed.description)
    }
}

impl Notification for DiscordMessage {
    fn is_for(&self, channel: &str) -> bool {
        self.channel == channel
    }

    fn is_resolved(&self) -> bool {
        self.embeds.first().is_some_and(|embed| embed.color == DISCORD_GREEN) || says_resolved(self.title())
    }

    fn summary(&self) -> String {
        format!("/discord/{}: {:?} {:?}", self.channel, self.content, self.title())
    }
}

/// A message as Slack's webhook takes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SlackMessage {
    /// The name at the end of the URL.
    #[serde(skip)]
    pub name: String,
    /// The Slack channel that it is meant for.
    pub channel: String,
    /// The sender's name.
    pub username: String,
    /// The text outside of attachments.
    pub text: String,
    /// The coloured boxes.
    pub attachments: Vec<Attachment>,
    /// The whole body as it was sent.
    #[serde(skip)]
    pub body: Value,
}

/// One coloured box of a Slack message.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// The heading.
    pub title: String,
    /// The text above the box.
    pub pretext: String,
    /// The text.
    pub text: String,
    /// What a client shows that can't show boxes.
    pub fallback: String,
    /// `danger`, `good`, or #RRGGBB.
    pub color: String,
}

impl SlackMessage {
    /// The first attachment's title.
    #[must_use]
    pub fn title(&self) -> &str {
        self.attachments.first().map_or("", |attachment| &attachment.title)
    }
}

impl Notification for SlackMessage {
    fn is_for(&self, channel: &str) -> bool {
        self.name == channel
    }

    fn is_resolved(&self) -> bool {
        self.attachments
            .first()
            .is_some_and(|attachment| attachment.color == "good")
            || says_resolved(self.title())
    }

    fn summary(&self) -> String {
        format!(
            "/slack/{} ({}): {:?} {:?}",
            self.name,
            self.channel,
            self.text,
            self.title()
        )
    }
}

/// A message as Alertmanager sends it to a plain webhook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WebhookMessage {
    /// The name at the end of the URL.
    #[serde(skip)]
    pub name: String,
    /// `firing` while any of the alerts fires, else `resolved`.
    pub status: String,
    /// The alerts of the group.
    pub alerts: Vec<WebhookAlert>,
    /// The labels that the group is made by.
    pub group_labels: Labels,
    /// The receiver's name in Alertmanager's configuration.
    pub receiver: String,
    /// The whole body as it was sent; for a sender other than Alertmanager the only field that is filled.
    #[serde(skip)]
    pub body: Value,
}

/// One alert of a webhook message.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WebhookAlert {
    /// `firing` or `resolved`.
    pub status: String,
    /// All labels.
    pub labels: Labels,
    /// Summary, description and so on.
    pub annotations: Labels,
}

impl WebhookMessage {
    /// The names of the alerts in it, in order.
    #[must_use]
    pub fn alert_names(&self) -> Vec<&str> {
        self.alerts
            .iter()
            .filter_map(|alert| alert.labels.get("alertname"))
            .map(String::as_str)
            .collect()
    }
}

impl Notification for WebhookMessage {
    fn is_for(&self, channel: &str) -> bool {
        self.name == channel
    }

    fn is_resolved(&self) -> bool {
        self.status == "resolved"
    }

    fn summary(&self) -> String {
        format!("/webhook/{}: {} {:?}", self.name, self.status, self.alert_names())
    }
}

/// A mail as it was handed over. Of one that comes as its text alone, as a fake bot keeps it, the envelope is not known.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "String")]
pub struct Mail {
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// The header's subject, decoded.
    pub subject: String,
    /// Every header, raw, in order.
    pub headers: Vec<(String, String)>,
    /// The text part, or the HTML part made into text.
    pub text: String,
    /// The HTML part.
    pub html: String,
    /// Who logged in, where the session did.
    pub user: Option<String>,
    /// The message as it was sent.
    pub raw: Vec<u8>,
}

impl Mail {
    /// The value of a header, whatever the case of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    pub(crate) fn parse(&mut self) {
        let raw = std::mem::take(&mut self.raw);
        if let Some(message) = mail_parser::MessageParser::default().parse(&raw) {
            self.subject = message.subject().unwrap_or_default().to_owned();
            self.headers = message
                .headers_raw()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            self.text = message.body_text(0).unwrap_or_default().into_owned();
            self.html = message.body_html(0).unwrap_or_default().into_owned();
        }
        self.raw = raw;
    }
}

impl From<String> for Mail {
    fn from(text: String) -> Self {
        let mut mail = Self {
            raw: text.into_bytes(),
            ..Self::default()
        };
        mail.parse();
        mail
    }
}

impl Notification for Mail {
    fn is_for(&self, channel: &str) -> bool {
        self.to.iter().any(|to| to == channel)
    }

    fn is_resolved(&self) -> bool {
        says_resolved(&self.subject)
    }

    fn summary(&self) -> String {
        format!("mail to {}: {:?}", self.to.join(", "), self.subject)
    }
}

fn says_resolved(title: &str) -> bool {
    title.to_ascii_lowercase().contains("resolved")
}
