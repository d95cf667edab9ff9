//! Which alerts a bot gets, and where they differ from the catalogue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::PROMETHEUS_NAME;
use super::quantities::{Duration, Threshold};
use kube::KubeSchema;

/// Which alerts the bot gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alerts {
    /// The packs of the catalogue. Default: all.
    #[serde(default = "packs")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub packs: Vec<Pack>,

    /// How often the rules are evaluated; at most 2m. Default: each group's own, 30s or 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,

    /// Where single alerts differ from the catalogue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["alert".into()]))]
    pub overrides: Vec<Override>,

    /// Where the runbooks are; `{alert}` stands for the alert's name. Default: no link;
    /// the project's own are in its folder `docs/runbooks`. Example: `https://runbooks.example.org/{alert}`.
    #[serde(default, rename = "runbookURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = super::forms::PAGE_URL))]
    pub runbook_url: Option<String>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            packs: packs(),
            interval: None,
            overrides: Vec::new(),
            runbook_url: None,
        }
    }
}

/// A set of alerts of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Pack {
    /// The bot itself: down, disconnected, slow, large, alone, failing.
    Bot,
    /// Volumes and backups.
    Storage,
    /// Deployments and rollbacks.
    Deployments,
}

/// How one alert differs from the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.enabled) || self.enabled || !has(self.levels) || size(self.levels) == 0")
    .message(Message::Expression("'alert ' + self.alert + ' has enabled: false and levels; remove one of them'".into())))]
pub struct Override {
    /// Name of the alert. Example: `HighMemoryUsage`.
    #[schemars(length(min = 1, max = 64), regex(pattern = PROMETHEUS_NAME))]
    pub alert: String,

    /// `false` drops the alert; `true` keeps it where the environment would leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// Replaces the catalogue's levels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["severity".into()]))]
    pub levels: Vec<Level>,
}

/// From when on an alert has a severity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Level {
    /// Severity of the alert at this level.
    pub severity: Severity,
    /// The value at which the alert fires, in the alert's unit. Examples: `600Mi`, `"0.1"`, `48h`. Default: the
    /// catalogue's for this severity, else of its first level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// How long the value has to stay there. Default: the catalogue's for this severity, else of its first level.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
}

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Severity {
    /// Act now.
    Critical,
    /// Act soon.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// As it stands in labels and matchers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

fn packs() -> Vec<Pack> {
    vec![Pack::Bot, Pack::Storage, Pack::Deployments]
}
