//! The sidecar and how it is scraped.

use k8s_openapi::api::core::v1::ResourceRequirements;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{DNS_LABEL, FILE_PATTERN, FOLDER, IMAGE};
use super::quantities::Duration;

/// The sidecar that reads the bot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exporter {
    /// Image of the sidecar, under one of the prefixes that the operator allows. Default: the image of the operator's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = IMAGE))]
    pub image: Option<String>,

    /// TCP port of the sidecar; change it where a container of the pod uses it already. Default: 9100.
    #[serde(default = "port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// Resources of the sidecar. Default: requests of 5m CPU and 8Mi memory, a limit of 32Mi memory, fitted to the pod's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Volumes of the pod whose usage is reported as `rosey_disk_usage_bytes{path="<volume>:/<path>"}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub disk: Vec<Disk>,

    /// Where the bot keeps its backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<Backups>,

    /// What the operator does about pods of the bot that have no exporter. Restart: it evicts them one at a time, where something
    /// makes new ones in their place; needs an operator with --repair-exporters. Default: Never.
    #[serde(default)]
    pub repair: Repair,
}

impl Default for Exporter {
    fn default() -> Self {
        Self {
            image: None,
            port: port(),
            resources: None,
            disk: Vec::new(),
            backups: None,
            repair: Repair::Never,
        }
    }
}

/// What the operator does about pods that have no exporter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Repair {
    /// Nothing: the status says what to run.
    #[default]
    Never,
    /// Evicts them one at a time, as disruption budgets allow it.
    Restart,
}

/// A volume of the bot's pod whose usage is reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Name of a volume in the pod. Example: `data`.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub volume: String,
    /// Folder in the volume, without `..`. Default: the volume itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256), regex(pattern = FOLDER))]
    pub path: String,
}

/// A folder of backups in a volume of the bot's pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backups {
    /// Name of a volume in the pod. Example: `backups`.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub volume: String,
    /// Folder in the volume, without `..`. Default: the volume itself. Example: `prod`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256), regex(pattern = FOLDER))]
    pub path: String,
    /// Which names are backups: `*` stands for any characters, `?` for one. Default: `backup_*`.
    #[serde(default = "pattern")]
    #[schemars(length(min = 1, max = 128), regex(pattern = FILE_PATTERN))]
    pub pattern: String,
}

/// How Prometheus reads the sidecar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scrape {
    /// How often; at most 2m. Default: 15s.
    #[serde(default = "interval")]
    pub interval: Duration,
    /// How long one scrape may take; at most the interval. Default: 5s.
    #[serde(default = "timeout")]
    pub timeout: Duration,
}

impl Default for Scrape {
    fn default() -> Self {
        Self {
            interval: interval(),
            timeout: timeout(),
        }
    }
}

fn port() -> i32 {
    9100
}

fn pattern() -> String {
    "backup_*".into()
}

fn interval() -> Duration {
    "15s".into()
}

fn timeout() -> Duration {
    "5s".into()
}
