//! What is said, in the form that each channel takes. Nothing in it can call anybody: text stays text.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::alerts::Severity;

const FOOTER: &str = "Rosey Bot Monitoring";

/// A message to all channels.
pub(super) struct Message {
    severity: Severity,
    title: String,
    body: String,
    time: Timestamp,
}

/// How a severity looks in chat.
struct Look {
    colour: u32,
    emoji: &'static str,
    slack_emoji: &'static str,
    slack_colour: &'static str,
}

fn look(severity: Severity) -> Look {
    let (colour, emoji, slack_emoji, slack_colour) = match severity {
        Severity::Critical => (0xFF_00_00, "🚨", ":rotating_light:", "danger"),
        Severity::Warning => (0xFF_A5_00, "⚠️", ":warning:", "warning"),
        Severity::Info => (0x00_99_FF, "ℹ️", ":information_source:", "good"),
    };
    Look {
        colour,
        emoji,
        slack_emoji,
        slack_colour,
    }
}

impl Message {
    pub(super) fn new(severity: Severity, title: &str, body: &str, time: Timestamp) -> Self {
        // A title is one line everywhere; in an e-mail it is a header.
        let title = title
            .split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty());
        Self {
            severity,
            title: title.collect::<Vec<_>>().join(" "),
            body: body.trim().to_owned(),
            time,
        }
    }

    fn severity(&self) -> String {
        self.severity.as_str().to_uppercase()
    }

    fn time(&self) -> String {
        self.time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
    }

    /// For a Discord webhook: an embed within Discord's limits, and nobody is mentioned whatever the text says.
    pub(super) fn discord(&self) -> Value {
        json!({
            "allowed_mentions": {"parse": []},
            "embeds": [{
                "title": cut(&format!("{} {}", look(self.severity).emoji, self.title), 256),
                "description": cut(&self.body, 4096),
                "color": look(self.severity).colour,
                "fields": [
                    {"name": "Severity", "value": self.severity(), "inline": true},
                    {"name": "Time", "value": self.time(), "inline": true},
                ],
                "footer": {"text": FOOTER},
            }],
        })
    }

    /// For an incoming webhook of Slack.
    pub(super) fn slack(&self) -> Value {
        json!({
            "text": format!("{} *{}*", look(self.severity).slack_emoji, slack_text(&cut(&self.title, 256))),
            "attachments": [{
                "color": look(self.severity).slack_colour,
                "fields": [
                    {"title": "Message", "value": slack_text(&cut(&self.body, 3000)), "short": false},
                    {"title": "Severity", "value": self.severity(), "short": true},
                    {"title": "Time", "value": self.time(), "short": true},
                ],
                "footer": FOOTER,
            }],
        })
    }

    /// For a receiver of Alertmanager's own JSON (version 4).
    pub(super) fn webhook(&self, receiver: &str) -> Value {
        let labels = json!({"alertname": "ManualAlert", "severity": self.severity.as_str()});
        let annotations = json!({"summary": self.title, "description": self.body});
        json!({
            "version": "4",
            "groupKey": "{}:{alertname=\"ManualAlert\"}",
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": receiver,
            "groupLabels": {"alertname": "ManualAlert"},
            "commonLabels": labels,
            "commonAnnotations": annotations,
            "externalURL": "",
            "alerts": [{
                "status": "firing",
                "labels": labels,
                "annotations": annotations,
                "startsAt": self.time.to_string(),
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "",
                "fingerprint": "",
            }],
        })
    }

    /// Subject and text of an e-mail.
    pub(super) fn email(&self) -> (String, String) {
        let subject = format!("[{}] {}", self.severity(), cut(&self.title, 256));
        let text = format!(
            "{}\r\n\r\nSeverity: {}\r\nTime: {}\r\n\r\n{FOOTER}\r\n",
            self.body,
            self.severity(),
            self.time()
        );
        (subject, text)
    }
}

/// The text, if need be shortened to so many UTF-16 units, which is how chat services count.
fn cut(text: &str, most: usize) -> String {
    if text.encode_utf16().count() <= most {
        return text.to_owned();
    }
    let mut left = most - 1;
    let short = text.chars().take_while(|c| {
        let fits = c.len_utf16() <= left;
        left = left.saturating_sub(c.len_utf16());
        fits
    });
    short.chain(['…']).collect()
}

/// Slack reads `<!channel>` and links in angle brackets; escaped they are text.
fn slack_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(severity: Severity, title: &str, body: &str) -> Message {
        Message::new(severity, title, body, "2026-11-21T10:00:00Z".parse().unwrap())
    }

    #[test]
    fn each_channel_gets_its_own_form() {
        let message = message(Severity::Critical, "Bot down", "Production bot crashed");
        insta::assert_yaml_snapshot!(json!({
            "discord": message.discord(), "slack": message.slack(), "webhook": message.webhook("ci"), "email": message.email(),
        }));
    }

    #[test]
    fn colours_follow_the_severity() {
        for (severity, discord, slack) in [
            (Severity::Critical, 16_711_680, "danger"),
            (Severity::Warning, 16_753_920, "warning"),
            (Severity::Info, 39_423, "good"),
        ] {
            let message = message(severity, "t", "m");
            assert_eq!(message.discord()["embeds"][0]["color"], discord);
            assert_eq!(message.slack()["attachments"][0]["color"], slack);
        }
    }

    #[test]
    fn long_text_is_cut_to_what_discord_takes() {
        let embed = message(Severity::Info, &"😀".repeat(300), &"x".repeat(5000)).discord()["embeds"][0].clone();
        let length = |field: &str| embed[field].as_str().unwrap().encode_utf16().count();
        assert!((255..=256).contains(&length("title")), "{}", length("title"));
        assert_eq!(length("description"), 4096);
        assert!(embed["description"].as_str().unwrap().ends_with('…'));
    }

    #[test]
    fn text_calls_nobody_and_adds_no_header() {
        let message = message(
            Severity::Info,
            "a\r\nBcc: x@example.org",
            "@everyone <!channel> & <@U1>",
        );
        assert_eq!(message.discord()["allowed_mentions"], json!({"parse": []}));
        assert!(message.discord().get("content").is_none());
        assert_eq!(
            message.slack()["attachments"][0]["fields"][0]["value"],
            "@everyone &lt;!channel&gt; &amp; &lt;@U1&gt;"
        );
        assert_eq!(message.email().0, "[INFO] a Bcc: x@example.org");
    }
}
