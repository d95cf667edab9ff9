//! The exporter's configuration file, `/etc/rosey/exporter.yaml`, and what it may not say.
//!
//! The check stands here because both sides need it: a file that the exporter would refuse must never be written for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the exporter reads and serves. Unknown fields are refused, so that a typing error is seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Value of the label `environment` on the bot's series; left out in a cluster, where the scrape adds it.
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 256)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Port to serve on; default 9100.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The bot's health document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Endpoint>,
    /// The bot's own metrics, passed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Endpoint>,
    /// The bot's plugins, as a JSON document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugins: Option<Endpoint>,
    /// The bot's log, followed as it grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Logs>,
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
    /// Absolute path of a folder that outlives the exporter's process. There it keeps how far it has read the log, what it counted
    /// in it, and the deployments; without it, counting begins anew with each start.
    #[cfg_attr(feature = "kubernetes", schemars(regex(pattern = "^/")))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// A Pushgateway that gets the series as well, for a bot that no Prometheus can scrape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushgateway: Option<Pushgateway>,
}

/// An HTTP endpoint of the bot, inside the bot's own pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// TCP port on the bot's host.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1)))]
    pub port: u16,
    /// Path, with a leading slash.
    #[cfg_attr(
        feature = "kubernetes",
        schemars(regex(pattern = r"^/[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*$"))
    )]
    pub path: String,
    /// How long an answer may take, in seconds; the scrape's own deadline ends it earlier.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 0.001, max = 60.0)))]
    #[serde(default = "two_seconds")]
    pub timeout_seconds: f64,
}

/// A log of JSON documents, one a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Logs {
    /// Absolute path of the file that the bot writes; those that it was rotated to stand beside it.
    #[cfg_attr(feature = "kubernetes", schemars(regex(pattern = "^/.*[^/]$")))]
    pub path: String,
}

/// Where the series are pushed to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pushgateway {
    /// Address of the Pushgateway, without user, query or fragment. Example: `http://pushgateway:9091`.
    #[cfg_attr(feature = "kubernetes", schemars(regex(pattern = "^https?://[^/]")))]
    pub url: String,
    /// Seconds between two pushes.
    #[cfg_attr(feature = "kubernetes", schemars(range(min = 1.0, max = 240.0)))]
    #[serde(default = "fifteen_seconds")]
    pub interval_seconds: f64,
    /// Value of the label `job`.
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 256)))]
    #[serde(default = "rosey_bot")]
    pub job: String,
    /// More labels of the grouping key, beside `job`, `instance` and, where the bot's series have one, `environment`; `instance` is
    /// the host's name unless it stands here, and so is `pod`, which is added where `rosey_monitor` stands here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// User of basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Absolute path of the file with the password; read anew for each push.
    #[cfg_attr(feature = "kubernetes", schemars(regex(pattern = "^/")))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Absolute path of a file with the certificates (PEM) that an https address is believed by; default: those of the system.
    #[cfg_attr(feature = "kubernetes", schemars(regex(pattern = "^/")))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disk {
    /// Value of the label `path`, for example `data:/`.
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 256)))]
    pub label: String,
    /// Absolute path of a folder on the file system.
    #[cfg_attr(feature = "kubernetes", schemars(regex(pattern = "^/")))]
    pub path: String,
}

/// A folder of backups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kubernetes", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backups {
    /// Absolute path of the folder; one that does not exist holds no backup, unless the whole volume is missing.
    #[cfg_attr(feature = "kubernetes", schemars(regex(pattern = "^/")))]
    pub path: String,
    /// Which names in it are backups: `*` stands for any characters, `?` for one.
    #[cfg_attr(feature = "kubernetes", schemars(length(min = 1, max = 256)))]
    #[serde(default = "any_backup")]
    pub pattern: String,
}

/// How long the bot may take for an answer, in seconds, where nothing else is said.
pub const TIMEOUT_SECONDS: f64 = 2.0;
/// Path of the bot's health document, where nothing else is said.
pub const HEALTH_PATH: &str = "/api/health";
/// Path of the bot's own metrics, where nothing else is said.
pub const METRICS_PATH: &str = "/metrics";
/// Path of the bot's plugins, where nothing else is said.
pub const PLUGINS_PATH: &str = "/api/metrics";
/// Which names are backups, where nothing else is said.
pub const BACKUPS_PATTERN: &str = "backup_*";
/// Seconds between two pushes, where nothing else is said.
pub const PUSH_INTERVAL_SECONDS: f64 = 15.0;
/// Value of the label `job` of what is pushed, where nothing else is said.
pub const PUSH_JOB: &str = "rosey-bot";

fn two_seconds() -> f64 {
    TIMEOUT_SECONDS
}

fn fifteen_seconds() -> f64 {
    PUSH_INTERVAL_SECONDS
}

fn rosey_bot() -> String {
    PUSH_JOB.into()
}

fn any_backup() -> String {
    BACKUPS_PATTERN.into()
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
        for (field, endpoint) in [
            ("health", &self.health),
            ("metrics", &self.metrics),
            ("plugins", &self.plugins),
        ] {
            if let Some((part, reason)) = endpoint.as_ref().and_then(Endpoint::problem) {
                return refuse(&format!("{field}.{part}"), reason);
            }
        }
        let paths = [
            ("logs.path", self.logs.as_ref().map(|logs| &logs.path)),
            ("state", self.state.as_ref()),
        ];
        for (field, path) in paths {
            if let Some(reason) = path.and_then(|path| problem_of_folder(path)) {
                return refuse(field, reason);
            }
        }
        if self.logs.as_ref().is_some_and(|logs| logs.path.ends_with('/')) {
            return refuse("logs.path", "is a folder; write the path of the file");
        }
        if let Some((part, reason)) = self.pushgateway.as_ref().and_then(Pushgateway::problem) {
            return refuse(&format!("pushgateway.{part}"), reason);
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

impl Pushgateway {
    fn problem(&self) -> Option<(String, &'static str)> {
        let problem = |part: &str, reason| Some((part.to_owned(), reason));
        let rest = ["http://", "https://"]
            .into_iter()
            .find_map(|scheme| self.url.strip_prefix(scheme));
        let authority = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let plain = |b: u8| b.is_ascii_graphic() && !b"@?#\\\"<>^`{|}".contains(&b);
        if !names_a_host(authority) || !self.url.bytes().all(plain) {
            return problem(
                "url",
                "is not an address such as http://pushgateway:9091, without user, query or fragment",
            );
        }
        // Less would be load, and more than this makes Prometheus forget what was pushed in between.
        if !(1.0..=240.0).contains(&self.interval_seconds) {
            return problem("intervalSeconds", "is not between 1 and 240 seconds");
        }
        let fits = |text: &str| !text.is_empty() && text.len() <= VALUE_BYTES && !text.contains('\0');
        if !fits(&self.job) {
            return problem("job", "is empty or too long for a label");
        }
        for (name, value) in &self.labels {
            let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let goes_on_well = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !starts_well || !goes_on_well || name.starts_with("__") || name == "job" {
                return problem(
                    &format!("labels.{name}"),
                    "is not a name of a label that can be set here",
                );
            }
            if !fits(value) {
                return problem(&format!("labels.{name}"), "is empty or too long for a label");
            }
        }
        if self.username.is_some() != self.password_file.is_some() {
            return problem("passwordFile", "goes with username; write both or none");
        }
        if self
            .username
            .as_deref()
            .is_some_and(|name| !fits(name) || name.contains(':'))
        {
            return problem("username", "is empty, too long, or has a colon in it");
        }
        for (part, path) in [("passwordFile", &self.password_file), ("caFile", &self.ca_file)] {
            if let Some(reason) = path.as_deref().and_then(problem_of_folder) {
                return problem(part, reason);
            }
        }
        None
    }
}

/// Whether this is a name or an address, with or without a port.
fn names_a_host(authority: &str) -> bool {
    let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = colon.map_or((authority, None), |at| (&authority[..at], Some(&authority[at + 1..])));
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_host = match address {
        Some(address) => address.contains(':') && address.bytes().all(|b| b.is_ascii_hexdigit() || b":.".contains(&b)),
        None => !host.is_empty() && host.bytes().all(letter),
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
    is_host && port.is_none_or(is_port)
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
