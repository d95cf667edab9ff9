//! Facts about the cluster that a plan depends on. They come in as a value, so that a plan can be made anywhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a plan has to know about the cluster and the operator's own settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Platform {
    /// Version of prometheus-operator; `None` where it is not known, which counts as current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_operator: Option<Version>,
    /// Version of the oldest Alertmanager that selects the routes; `None` counts as current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alertmanager: Option<Version>,
    /// Labels for every monitoring object, below those of the monitor (`--default-object-labels`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub default_object_labels: BTreeMap<String, String>,
    /// Image of the sidecar where the monitor names none (`--exporter-image`).
    pub exporter_image: String,
    /// What a monitor's own image must start with (`--exporter-image-prefixes`).
    pub exporter_image_prefixes: Vec<String>,
    /// Whether every node runs native sidecars. True from API server 1.32 on: its oldest kubelet has them on by default.
    pub native_sidecars: bool,
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            prometheus_operator: None,
            alertmanager: None,
            default_object_labels: BTreeMap::new(),
            exporter_image: concat!("rosey-monitor/rosey-exporter:", env!("CARGO_PKG_VERSION")).into(),
            exporter_image_prefixes: vec!["rosey-monitor/".into()],
            native_sidecars: true,
        }
    }
}

impl Platform {
    /// Whether a monitor may name this image. An empty prefix, as an empty value of a chart leaves it, allows nothing.
    #[must_use]
    pub fn allows_image(&self, image: &str) -> bool {
        self.exporter_image_prefixes
            .iter()
            .any(|prefix| !prefix.is_empty() && image.starts_with(prefix.as_str()))
    }

    /// Whether prometheus-operator and Alertmanager are at least of these versions, as far as is known.
    #[must_use]
    pub fn has(&self, prometheus_operator: Version, alertmanager: Version) -> bool {
        self.prometheus_operator.is_none_or(|v| v >= prometheus_operator)
            && self.alertmanager.is_none_or(|v| v >= alertmanager)
    }
}

/// Major, minor and patch of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(pub u32, pub u32, pub u32);

impl std::str::FromStr for Version {
    type Err = String;

    /// Reads `0.93.1`, `v0.93.1` and `0.93.1-rc.0`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let bare = bare.split(['-', '+']).next().unwrap_or_default();
        let mut parts = bare.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next().unwrap_or(Ok(0)), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Ok(patch), None) => Ok(Self(major, minor, patch)),
            _ => Err(format!(
                "{text:?} is not a version; write major.minor.patch such as 0.93.1"
            )),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(Version(major, minor, patch): Version) -> Self {
        format!("{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_decoration() {
        for text in ["0.93.1", "v0.93.1", "0.93.1-rc.0", "0.93.1+build"] {
            assert_eq!(text.parse(), Ok(Version(0, 93, 1)), "{text}");
        }
        assert_eq!("0.28".parse(), Ok(Version(0, 28, 0)));
        assert!("latest".parse::<Version>().is_err());
    }

    #[test]
    fn what_is_not_known_counts_as_current() {
        let mut platform = Platform::default();
        assert!(platform.has(Version(0, 82, 0), Version(0, 28, 0)));
        platform.alertmanager = Some(Version(0, 27, 0));
        assert!(!platform.has(Version(0, 82, 0), Version(0, 28, 0)));
    }
}
