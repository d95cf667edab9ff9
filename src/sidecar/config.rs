//! The exporter's configuration file, `/etc/rosey/exporter.yaml`, and what it may not say.
//!
//! The check stands here because both sides need it: a file that the exporter would refuse must never be written for it.

use serde::{Deserialize, Serialize};

/// What the exporter reads and serves. Unknown fields are refused, so that a typing error is seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Value of the label `environment` on the bot's series; left out in a cluster, where the scrape adds it.
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
    /// Absolute path of the folder; one that does not exist holds no backup, unless the whole volume is missing.
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

/// The longest value of a label, in bytes.
const VALUE_BYTES: usize = 256;
/// The longest timeout, in seconds: Prometheus waits no longer either.
const LONGEST_TIMEOUT: f64 = 60.0;

impl Config {
    /// Checks what serde can't.
    ///
    /// # Errors
    /// The field, as a path in the file, and what is wrong with it.
    pub fn check(&self) -> Result<(), (String, &'static str)> {
        let refuse = |field: &str, reason| Err((field.to_owned(), reason));
        let fits = |text: &str| !text.is_empty() && text.len() <= VALUE_BYTES && !text.contains('\0');
        if self.environment.as_deref().is_some_and(|name| !fits(name)) {
            return refuse("environment", "is empty or too long for a label; leave it out for none");
        }
        if self.port == Some(0) {
            return refuse("port", "0 is not a port");
        }
        for (field, endpoint) in [("health", &self.health), ("metrics", &self.metrics)] {
            if let Some((part, reason)) = endpoint.as_ref().and_then(Endpoint::problem) {
                return refuse(&format!("{field}.{part}"), reason);
            }
        }
        for (n, disk) in self.disk.iter().enumerate() {
            if let Some(reason) = problem_of_folder(&disk.path) {
                return refuse(&format!("disk[{n}].path"), reason);
            }
            if !fits(&disk.label) {
                return refuse(&format!("disk[{n}].label"), "is empty or too long for a label");
            }
            if self.disk[..n].iter().any(|other| other.label == disk.label) {
                return refuse(&format!("disk[{n}].label"), "is there twice");
            }
        }
        if let Some(backups) = &self.backups {
            if let Some(reason) = problem_of_folder(&backups.path) {
                return refuse("backups.path", reason);
            }
            if !fits(&backups.pattern) {
                return refuse("backups.pattern", "is empty or too long; * stands for all names");
            }
        }
        Ok(())
    }
}

impl Endpoint {
    fn problem(&self) -> Option<(&'static str, &'static str)> {
        // What RFC 3986 allows in a path and a query.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(&b);
        if self.port == 0 {
            Some(("port", "0 is not a port"))
        } else if !self.path.starts_with('/') || !self.path.bytes().all(allowed) {
            Some((
                "path",
                "is not a path that starts with / and has only characters of a URL",
            ))
        } else if !(0.001..=LONGEST_TIMEOUT).contains(&self.timeout_seconds) {
            Some(("timeoutSeconds", "is not between 0.001 and 60 seconds"))
        } else {
            None
        }
    }
}

fn problem_of_folder(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        Some("is not an absolute path")
    } else if path.split('/').any(|part| part == "..") {
        Some("has a .. in it")
    } else if path.contains('\0') {
        Some("has a NUL in it")
    } else {
        None
    }
}
