//! What each kind of channel is told, and how: one function a kind.
//!
//! The texts are Alertmanager templates of our own. Its defaults link to its own address and to Prometheus', which are
//! nobody's business outside the cluster. Alert labels and annotations are data in a template, never code.

use crate::api::notifications::{Channel, Discord, Email, Slack, Webhook};
use crate::api::references::SecretKeyRef;
use crate::monitoring::alertmanager_config::{
    AlertmanagerConfigReceivers as Receiver, AlertmanagerConfigReceiversDiscordConfigs as DiscordConfig,
    AlertmanagerConfigReceiversDiscordConfigsApiUrl as DiscordUrl,
    AlertmanagerConfigReceiversEmailConfigs as EmailConfig,
    AlertmanagerConfigReceiversEmailConfigsAuthPassword as EmailPassword,
    AlertmanagerConfigReceiversEmailConfigsHeaders as EmailHeader,
    AlertmanagerConfigReceiversSlackConfigs as SlackConfig, AlertmanagerConfigReceiversSlackConfigsApiUrl as SlackUrl,
    AlertmanagerConfigReceiversWebhookConfigs as WebhookConfig,
    AlertmanagerConfigReceiversWebhookConfigsUrlSecret as WebhookUrl,
};
use crate::plan::Platform;
use crate::plan::platform::Version;

/// State, severity and alert, in one line.
const TITLE: &str = concat!(
    "{{ if eq .Status \"firing\" }}",
    "{{ if eq .CommonLabels.severity \"critical\" }}🚨 CRITICAL{{ else if eq .CommonLabels.severity \"warning\" }}⚠️ WARNING",
    "{{ else if eq .CommonLabels.severity \"info\" }}ℹ️ INFO{{ else }}ALERT{{ end }}",
    "{{ else }}✅ RESOLVED{{ end }}",
    ": {{ with .CommonLabels.alertname }}{{ . }}{{ else }}{{ len .Alerts }} alerts{{ end }} ({{ .CommonLabels.environment }})"
);

/// The mention and the alert's name, and nothing that a bot could have written: chat services obey what stands here.
const CALL: &str = "{{ if eq .Status \"firing\" }}MENTION {{ with .CommonLabels.alertname }}{{ . }}{{ else }}{{ len .Alerts }} alerts{{ end }}{{ end }}";

const DISCORD_TEXT: &str = concat!(
    "{{ range .Alerts }}{{ if eq .Status \"resolved\" }}✅ {{ end }}**{{ .Annotations.summary }}**\n{{ .Annotations.description }}\n",
    "{{ with .Annotations.runbook_url }}[Runbook]({{ . }})\n{{ end }}{{ end }}"
);

/// Slack reads `<!channel>` and links anywhere in a text, so the characters that begin them are escaped as it asks for.
const SLACK_TEXT: &str = concat!(
    "{{ range .Alerts }}{{ if eq .Status \"resolved\" }}:white_check_mark: {{ end }}",
    "*{{ .Annotations.summary | reReplaceAll \"&\" \"&amp;\" | reReplaceAll \"<\" \"&lt;\" | reReplaceAll \">\" \"&gt;\" }}*\n",
    "{{ .Annotations.description | reReplaceAll \"&\" \"&amp;\" | reReplaceAll \"<\" \"&lt;\" | reReplaceAll \">\" \"&gt;\" }}\n",
    "{{ end }}"
);

const SLACK_COLOUR: &str = concat!(
    "{{ if eq .Status \"resolved\" }}good{{ else if eq .CommonLabels.severity \"critical\" }}danger",
    "{{ else if eq .CommonLabels.severity \"warning\" }}warning{{ else }}#0099ff{{ end }}"
);

const EMAIL_TEXT: &str = concat!(
    "{{ range .Alerts }}{{ if eq .Status \"resolved\" }}Resolved: {{ end }}{{ .Annotations.summary }}\n{{ .Annotations.description }}\n",
    "{{ with .Annotations.runbook_url }}Runbook: {{ . }}\n{{ end }}\n{{ end }}"
);

const EMAIL_HTML: &str = concat!(
    "{{ range .Alerts }}<h3>{{ if eq .Status \"resolved\" }}Resolved: {{ end }}{{ .Annotations.summary }}</h3><p>{{ .Annotations.description }}</p>",
    "{{ with .Annotations.runbook_url }}<p><a href=\"{{ . }}\">Runbook</a></p>{{ end }}{{ end }}"
);

/// A receiver that tells nobody.
pub fn nobody(name: &str) -> Receiver {
    Receiver {
        name: name.into(),
        ..Receiver::default()
    }
}

/// The receiver of a channel.
pub fn receiver(
    name: &str,
    channel: &Channel,
    mention: Option<&str>,
    send_resolved: bool,
    platform: &Platform,
) -> Receiver {
    let mut receiver = nobody(name);
    receiver.discord_configs = channel
        .discord
        .as_ref()
        .map(|c| vec![discord(c, mention, send_resolved, platform)]);
    receiver.slack_configs = channel
        .slack
        .as_ref()
        .map(|c| vec![slack(c, mention, send_resolved, platform)]);
    receiver.email_configs = channel.email.as_ref().map(|c| vec![email(c, send_resolved)]);
    receiver.webhook_configs = channel.webhook.as_ref().map(|c| vec![webhook(c, send_resolved)]);
    receiver
}

/// What this platform silently drops from a channel with a mention; `None` where it drops nothing.
pub fn lost_mention(channel: &Channel, platform: &Platform) -> Option<String> {
    (channel.discord.is_some() && !discord_calls(platform)).then(|| {
        format!(
            "channel {}: Discord mentions need prometheus-operator 0.82 and Alertmanager 0.28; they are left out",
            channel.name
        )
    })
}

/// A mention in an embed calls nobody, so it goes to `content`, which older versions drop (prometheus-operator #7307).
fn discord_calls(platform: &Platform) -> bool {
    platform.has(Version(0, 82, 0), Version(0, 28, 0))
}

fn discord(channel: &Discord, mention: Option<&str>, send_resolved: bool, platform: &Platform) -> DiscordConfig {
    let SecretKeyRef { name, key } = channel.webhook_secret_ref.clone();
    let call = mention.map(|mention| match mention.split_once(':') {
        Some(("role", id)) => format!("<@&{id}>"),
        Some((_, id)) => format!("<@{id}>"),
        None => format!("@{mention}"),
    });
    DiscordConfig {
        api_url: DiscordUrl {
            name: Some(name),
            key,
            optional: None,
        },
        title: Some(TITLE.into()),
        message: Some(DISCORD_TEXT.into()),
        content: call
            .filter(|_| discord_calls(platform))
            .map(|call| CALL.replace("MENTION", &call)),
        send_resolved: Some(send_resolved),
        ..DiscordConfig::default()
    }
}

fn slack(channel: &Slack, mention: Option<&str>, send_resolved: bool, platform: &Platform) -> SlackConfig {
    let SecretKeyRef { name, key } = channel.webhook_secret_ref.clone();
    let call = mention.map(|mention| match mention.split_once(':') {
        Some(("role", id)) => format!("<!subteam^{id}>"),
        Some((_, id)) => format!("<@{id}>"),
        None if mention == "everyone" => "<!channel>".into(),
        None => format!("<!{mention}>"),
    });
    let call = call.map(|call| CALL.replace("MENTION", &call));
    // `messageText` is the message itself; before it came (prometheus-operator #8374) an attachment's pretext is nearest.
    let (message_text, pretext) = if platform.has(Version(0, 90, 0), Version(0, 31, 0)) {
        (call, None)
    } else {
        (None, call)
    };
    SlackConfig {
        api_url: Some(SlackUrl {
            name: Some(name),
            key,
            optional: None,
        }),
        channel: channel.channel.as_deref().map(super::template::literal),
        username: Some(super::template::literal(channel.username.as_deref().unwrap_or("Rosey"))),
        icon_emoji: channel.icon_emoji.as_deref().map(super::template::literal),
        color: Some(SLACK_COLOUR.into()),
        title: Some(TITLE.into()),
        title_link: Some("{{ .CommonAnnotations.runbook_url }}".into()),
        fallback: Some(TITLE.into()),
        text: Some(SLACK_TEXT.into()),
        message_text,
        pretext,
        send_resolved: Some(send_resolved),
        ..SlackConfig::default()
    }
}

fn email(channel: &Email, send_resolved: bool) -> EmailConfig {
    let password = channel.password_secret_ref.clone();
    EmailConfig {
        to: Some(super::template::literal(&channel.to.join(", "))),
        from: Some(super::template::literal(&channel.from)),
        smarthost: Some(channel.smarthost.clone()),
        auth_username: channel.username.clone(),
        auth_password: password.map(|SecretKeyRef { name, key }| EmailPassword {
            name: Some(name),
            key,
            optional: None,
        }),
        require_tls: Some(channel.require_tls),
        headers: Some(vec![EmailHeader {
            key: "Subject".into(),
            value: TITLE.into(),
        }]),
        text: Some(EMAIL_TEXT.into()),
        html: Some(EMAIL_HTML.into()),
        send_resolved: Some(send_resolved),
        ..EmailConfig::default()
    }
}

fn webhook(channel: &Webhook, send_resolved: bool) -> WebhookConfig {
    let SecretKeyRef { name, key } = channel.url_secret_ref.clone();
    WebhookConfig {
        url_secret: Some(WebhookUrl {
            name: Some(name),
            key,
            optional: None,
        }),
        send_resolved: Some(send_resolved),
        ..WebhookConfig::default()
    }
}
