//! The exporter's configuration file, `/etc/rosey/exporter.yaml`.

use serde::{Deserialize, Serialize};

/// What the exporter reads and serves. Unknown fields are refused, so that a typing error is seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Value of the label `environment` on the seed's series; left out in a cluster, where the scrape adds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Port to serve on; default [`super::DEFAULT_PORT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The bot's health document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Endpoint>,
    /// The bot's own metrics, passed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Endpoint>,
    /// Mounted volumes whose usage is reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk: Vec<Disk>,
    /// The folder that holds the bot's backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<Backups>,
    /// Whether deployments are recorded here (`POST /record_deployment`, `/record_rollback`). In a cluster they are
    /// recorded on the monitor instead: each deployment replaces the pod, and with it every counter of its exporter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deployments: bool,
}

/// An HTTP endpoint of the bot, inside the bot's own pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// TCP port on the bot's host.
    pub port: u16,
    /// Path, with a leading slash.
    pub path: String,
    /// How long an answer may take, in seconds; the scrape's own deadline ends it earlier.
    #[serde(default = "two_seconds")]
    pub timeout_seconds: f64,
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disk {
    /// Value of the label `path`, for example `data:/`.
    pub label: String,
    /// Absolute path of a folder on the file system.
    pub path: String,
}

/// A folder of backups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backups {
    /// Absolute path of the folder; one that does not exist holds no backup.
    pub path: String,
    /// Which names in it are backups: `*` stands for any characters, `?` for one.
    #[serde(default = "any_backup")]
    pub pattern: String,
}

fn two_seconds() -> f64 {
    2.0
}

fn any_backup() -> String {
    "backup_*".into()
}
