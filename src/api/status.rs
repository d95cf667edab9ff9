//! What the operator says about a monitor.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of the conditions.
pub mod condition {
    /// This generation is valid and all its objects are applied.
    pub const READY: &str = "Ready";
    /// The plan found no problem.
    pub const VALID: &str = "Valid";
    /// Every matching pod carries this monitor's exporter, and it runs.
    pub const INJECTED: &str = "Injected";
    /// A Prometheus selects the rule and the `PodMonitor`, an Alertmanager the routes.
    pub const SELECTED: &str = "Selected";
    /// Only the user can mend it; otherwise absent.
    pub const STALLED: &str = "Stalled";
}

/// What the operator says about a monitor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitorStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Reason of the first condition that is not good, else of Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Message of the first condition that is not good, else of Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Ready, Valid, Injected, Selected, and Stalled where only the user can mend it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The bot's pods and their exporters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecars: Option<SidecarCounts>,
    /// The alerts in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<RuleCounts>,
    /// Channels whose configuration prometheus-operator refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["channel".into()]))]
    pub refused_channels: Vec<RefusedChannel>,
    /// Deployments and rollbacks of the bot, recorded by `kubectl rosey record`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Deployments>,
}

/// The bot's pods and their exporters. Pods that have ended or are being deleted do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarCounts {
    /// Pods that the selector matches.
    pub pods: i32,
    /// Of these, pods with this monitor's exporter.
    pub injected: i32,
    /// Of the injected, pods with an exporter other than the one a new pod would get.
    pub outdated: i32,
    /// Pods without an exporter: they started before the monitor, or while the operator was down.
    pub missing: i32,
    /// `injected/pods`, for the column.
    pub summary: String,
}

/// The alerts in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleCounts {
    /// Alerting rules in force; an alert with two levels counts twice.
    pub alerts: i32,
    /// Groups they stand in.
    pub groups: i32,
    /// Alerts of the chosen packs that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// An alert that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// Name of the alert.
    pub alert: String,
    /// Why, for example `environment is not prod`.
    pub reason: String,
}

/// A channel whose configuration prometheus-operator refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedChannel {
    /// Name of the channel.
    pub channel: String,
    /// What prometheus-operator said.
    pub message: String,
    /// When it last said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// Deployments and rollbacks of the bot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployments {
    /// Deployments that succeeded.
    #[serde(default)]
    pub succeeded: i64,
    /// Deployments that failed.
    #[serde(default)]
    pub failed: i64,
    /// Rollbacks.
    #[serde(default)]
    pub rollbacks: i64,
    /// When a deployment last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Time>,
    /// When a deployment last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Time>,
    /// How long deployments took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durations: Option<Durations>,
    /// How long rollbacks took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_durations: Option<Durations>,
}

/// A histogram: how many took at most so long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Durations {
    /// Cumulative counts, one for each upper bound of the catalogue, in its order.
    #[serde(default)]
    pub buckets: Vec<i64>,
    /// Sum of all durations in milliseconds.
    #[serde(default)]
    pub sum_milliseconds: i64,
    /// How many there were.
    #[serde(default)]
    pub count: i64,
}
