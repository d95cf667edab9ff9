//! The sidecar that reads the bot.

use k8s_openapi::api::core::v1::ResourceRequirements;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{DATA_KEY, DNS_LABEL, FILE_PATTERN, FOLDER, IMAGE, OBJECT_NAME, SERVICE_URL, USER};
use super::quantities::Duration;
use super::references::SecretKeyRef;

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

    /// The Secret with the sidecar's web configuration file, in the form of Prometheus' exporter-toolkit: TLS, users and their
    /// password hashes. All its keys are files beside that one, which may name them. Default: plain HTTP for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_config_secret_ref: Option<WebConfigRef>,

    /// A Pushgateway that gets the series as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushgateway: Option<Pushgateway>,

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
            web_config_secret_ref: None,
            pushgateway: None,
            disk: Vec::new(),
            backups: None,
            repair: Repair::Never,
        }
    }
}

/// Where the sidecar's web configuration file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebConfigRef {
    /// Name of the Secret, in the monitor's own namespace. Example: `rosey-exporter-web`.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
    /// Key of the file in the Secret. Default: `web.yml`.
    #[serde(default = "web_config_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: String,
}

/// A Pushgateway that gets the series as well, labelled with namespace, `environment` and `rosey_monitor`. One push replaces the one
/// before it, and the last one is withdrawn when the pod ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pushgateway {
    /// Its address, without user, password, query and fragment. Example: `http://pushgateway:9091`.
    #[schemars(length(min = 1, max = 256), regex(pattern = SERVICE_URL))]
    pub url: String,
    /// How often; at most 4m. Default: 15s.
    #[serde(default = "push_interval")]
    pub interval: Duration,
    /// User and password that are shown to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<PushAuth>,
}

/// User and password for a Pushgateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushAuth {
    /// Name of the user. Example: `rosey`.
    #[schemars(length(min = 1, max = 128), regex(pattern = USER))]
    pub username: String,
    /// The Secret key that holds the password.
    pub password_secret_ref: SecretKeyRef,
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

fn port() -> i32 {
    9100
}

fn pattern() -> String {
    "backup_*".into()
}

fn web_config_key() -> String {
    "web.yml".into()
}

fn push_interval() -> Duration {
    "15s".into()
}
