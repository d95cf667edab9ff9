//! Whom alerts tell, and when.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alerts::Severity;
use super::forms::{DNS_LABEL, EMAIL_ADDRESS, EMOJI, HOST_AND_PORT, MENTION, PROMETHEUS_NAME};
use super::quantities::Duration;
use super::references::SecretKeyRef;

/// Whom the alerts tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notifications {
    /// Alerts with equal values of these labels come in one message. Default: `[alertname, environment]`.
    #[serde(default = "group_by")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 64), regex(pattern = PROMETHEUS_NAME))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub group_by: Vec<String>,
    /// How long to wait for more alerts of a group before its first message. Default: 30s.
    #[serde(default = "group_wait")]
    pub group_wait: Duration,
    /// How long to wait before telling of a group's changes. Default: 5m.
    #[serde(default = "group_interval")]
    pub group_interval: Duration,
    /// How long to wait before saying the same again. Default: 4h.
    #[serde(default = "repeat_interval")]
    pub repeat_interval: Duration,
    /// Whether the end of an alert is told too. Default: true.
    #[serde(default = "yes")]
    pub send_resolved: bool,
    /// Where messages can go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub channels: Vec<Channel>,
    /// Which alerts go where: every route whose severities and alerts match tells its channels. A channel that several of them
    /// name is told once, as the first of them says; so the more special one goes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub routes: Vec<Route>,
    /// Which alerts are silent while another one fires, besides the catalogue's own. Default: none. Example:
    /// `[{source: BotDown, targets: [HighMemoryUsage]}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub inhibit: Vec<Inhibition>,
    /// Whether the catalogue's inhibitions hold, for example that `BotDown` silences `HighResponseTime`. Default: true.
    #[serde(default = "yes")]
    pub inherit_inhibitions: bool,
}

/// Where messages go: a name and exactly one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.discord), has(self.slack), has(self.email), has(self.webhook)].filter(set, set).size() == 1")
    .message(Message::Expression("'channel ' + self.name + ' must have exactly one of discord, slack, email, webhook'".into())))]
pub struct Channel {
    /// Name by which routes refer to it. Example: `ops-discord`.
    #[schemars(length(min = 1, max = 40), regex(pattern = DNS_LABEL))]
    pub name: String,
    /// A Discord channel, through a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discord: Option<Discord>,
    /// A Slack channel, through an incoming webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<Slack>,
    /// E-mail through an SMTP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// Alertmanager's own JSON, posted to a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

/// A Discord channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Discord {
    /// The Secret key that holds the webhook's URL.
    pub webhook_secret_ref: SecretKeyRef,
}

/// A Slack channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Slack {
    /// The Secret key that holds the webhook's URL.
    pub webhook_secret_ref: SecretKeyRef,
    /// Channel, where the webhook allows to choose it. Example: `"#rosey-alerts"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 80))]
    pub channel: Option<String>,
    /// Name under which the messages appear. Example: `Rosey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 80))]
    pub username: Option<String>,
    /// Emoji beside the name. Example: `":robot_face:"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80), regex(pattern = EMOJI))]
    pub icon_emoji: Option<String>,
}

/// E-mail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.username) == has(self.passwordSecretRef)")
    .message("username and passwordSecretRef go together"))]
pub struct Email {
    /// Recipients. Example: `[oncall@example.org]`.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(max = 254), regex(pattern = EMAIL_ADDRESS))
    )]
    pub to: Vec<String>,
    /// Sender. Example: `alerts@example.org`.
    #[schemars(length(max = 254), regex(pattern = EMAIL_ADDRESS))]
    pub from: String,
    /// SMTP server and port. Example: `smtp.example.org:587`.
    #[schemars(
        length(max = 260),
        regex(pattern = HOST_AND_PORT)
    )]
    pub smarthost: String,
    /// User at the SMTP server; goes with `passwordSecretRef`. Default: none. Example: `alerts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 254))]
    pub username: Option<String>,
    /// The Secret key that holds the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// Whether the server must speak TLS. Default: true.
    #[serde(default = "yes", rename = "requireTLS")]
    pub require_tls: bool,
}

/// A receiver of Alertmanager's own JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// The Secret key that holds the URL.
    pub url_secret_ref: SecretKeyRef,
}

/// Which alerts go where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Name of the route. Example: `critical`.
    #[schemars(length(min = 1, max = 40), regex(pattern = DNS_LABEL))]
    pub name: String,
    /// Severities that take this route. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub severities: Vec<Severity>,
    /// Alerts that take this route. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 64), regex(pattern = PROMETHEUS_NAME))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub alerts: Vec<String>,
    /// Names of the channels that are told.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 40)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub channels: Vec<String>,
    /// Whom a message calls, where its channel knows mentions: `everyone`, `here`, `role:<id>` or `user:<id>`. Default: nobody.
    /// Example: `everyone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = MENTION))]
    pub mention: Option<String>,
    /// Overrides `notifications.groupWait` here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_wait: Option<Duration>,
    /// Overrides `notifications.groupInterval` here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_interval: Option<Duration>,
    /// Overrides `notifications.repeatInterval` here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_interval: Option<Duration>,
}

/// While `source` fires, `targets` are silent, for the same pod; a source without a pod silences them all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Inhibition {
    /// The alert that silences. Example: `BotDown`.
    #[schemars(length(min = 1, max = 64), regex(pattern = PROMETHEUS_NAME))]
    pub source: String,
    /// The alerts that are silenced. Example: `[HighResponseTime]`.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 64), regex(pattern = PROMETHEUS_NAME))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub targets: Vec<String>,
}

fn group_by() -> Vec<String> {
    vec!["alertname".into(), "environment".into()]
}

fn group_wait() -> Duration {
    "30s".into()
}

fn group_interval() -> Duration {
    "5m".into()
}

fn repeat_interval() -> Duration {
    "4h".into()
}

fn yes() -> bool {
    true
}
