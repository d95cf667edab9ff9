//! The resource itself, and where its bot answers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::alerts::Alerts;
use super::exporter::Exporter;
use super::forms::{DNS_LABEL, FILE, LABEL_VALUE, SOME_LABEL_VALUE, URL_PATH};
use super::notifications::Notifications;
use super::quantities::Duration;
use super::scrape::Scrape;
use super::status::MonitorStatus;

/// How a chat bot is watched: where it answers, which alerts it gets, and whom they tell.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rosey.dev",
    version = "v1alpha1",
    kind = "RoseyMonitor",
    plural = "roseymonitors",
    singular = "roseymonitor",
    shortname = "rmon",
    category = "monitoring",
    namespaced,
    status = "MonitorStatus",
    derive = "PartialEq",
    doc = "RoseyMonitor says how a chat bot is watched; the operator makes the rules, routes and scrape configuration from it.",
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label of at most 40 characters: it becomes a label value and a prefix of names"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Env", type_ = "string", json_path = ".spec.environment"),
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.sidecars.summary"),
    printcolumn(name = "Alerts", type_ = "integer", json_path = ".status.rules.alerts"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct RoseyMonitorSpec {
    /// Value of the label `environment` on every series and alert, for example `prod` or `test`. Some alerts exist only for
    /// `prod` and `production`.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = SOME_LABEL_VALUE)
    )]
    pub environment: String,

    /// Which pods are the bot's, by their labels, in this namespace. Example: `matchLabels: {app: rosey}`.
    #[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)")
        .message("must name at least one label; an empty selector would take every pod of the namespace"))]
    pub selector: LabelSelector,

    /// Leaves the generated objects as they are, for example during an incident. Injection and status go on. Default: false.
    #[serde(default)]
    pub paused: bool,

    /// Labels for every generated monitoring object, over the operator's defaults; a Prometheus often selects by them.
    /// Example: `release: kube-prometheus-stack`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub object_labels: BTreeMap<String, LabelValue>,

    /// Where the bot answers inside its own pod.
    #[serde(default)]
    pub bot: Bot,

    /// The sidecar that reads the bot.
    #[serde(default)]
    pub exporter: Exporter,

    /// How Prometheus reads the sidecar.
    #[serde(default)]
    pub scrape: Scrape,

    /// Which alerts the bot gets.
    #[serde(default)]
    pub alerts: Alerts,

    /// Whom the alerts tell. Without it the alerts fire, and no route is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Notifications>,
}

/// Value of a Kubernetes label: at most 63 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct LabelValue(#[schemars(length(max = 63), regex(pattern = LABEL_VALUE))] pub String);

/// Where the bot answers. Each part is optional; what is absent is not read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bot {
    /// A JSON document with the bot's health: `status`, `uptime`, `response_time_ms`, `memory_mb`, `user_count` and others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,

    /// The bot's own metrics as Prometheus text; they are passed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<BotMetrics>,

    /// A JSON document with the bot's plugins: what each uses, does and suffers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugins: Option<Plugins>,

    /// The bot's log, one JSON document a line: its commands, their durations and its errors are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Logs>,
}

/// The bot's health document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// TCP port on which the bot answers. Example: 8000.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path of the document. Default: `/api/health`.
    #[serde(default = "health_path")]
    #[schemars(length(max = 256), regex(pattern = URL_PATH))]
    pub path: String,
    /// How long the bot may take to answer, at most 1m; after that it counts as down. Half a second before `scrape.timeout` it
    /// counts as down too. Default: 2s.
    #[serde(default = "two_seconds")]
    pub timeout: Duration,
}

/// The bot's own metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BotMetrics {
    /// TCP port on which the bot serves them. Example: 8000.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path. Default: `/metrics`.
    #[serde(default = "metrics_path")]
    #[schemars(length(max = 256), regex(pattern = URL_PATH))]
    pub path: String,
}

/// The bot's plugins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plugins {
    /// TCP port on which the bot serves the document. Example: 8080.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path of the document. Default: `/api/metrics`.
    #[serde(default = "plugins_path")]
    #[schemars(length(max = 256), regex(pattern = URL_PATH))]
    pub path: String,
}

/// The bot's log, in a volume of its pod. It is read from its end on, and where it was rotated to as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Logs {
    /// Name of a volume in the pod. Example: `logs`.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub volume: String,
    /// The file that the bot writes, in the volume, without `..`. Example: `rosey.log`.
    #[schemars(length(min = 1, max = 256), regex(pattern = FILE))]
    pub path: String,
}

fn health_path() -> String {
    "/api/health".into()
}

fn metrics_path() -> String {
    "/metrics".into()
}

fn plugins_path() -> String {
    "/api/metrics".into()
}

fn two_seconds() -> Duration {
    "2s".into()
}
