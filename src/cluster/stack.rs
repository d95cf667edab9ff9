//! The Prometheus stack as far as it concerns us: which objects of ours its Prometheus and Alertmanager select.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{ApiResource, Object};
use serde::Deserialize;
use serde_json::Value;

use crate::plan::platform::Version;

/// A `Prometheus` of prometheus-operator.
pub type Prometheus = Object<PrometheusSpec, Value>;
/// An `Alertmanager` of prometheus-operator.
pub type Alertmanager = Object<AlertmanagerSpec, Value>;

/// The part of a Prometheus' spec that is read. A selector that is absent selects nothing; an absent namespace selector
/// means the object's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrometheusSpec {
    /// Which rules.
    pub rule_selector: Option<LabelSelector>,
    /// In which namespaces.
    pub rule_namespace_selector: Option<LabelSelector>,
    /// Which pod monitors.
    pub pod_monitor_selector: Option<LabelSelector>,
    /// In which namespaces.
    pub pod_monitor_namespace_selector: Option<LabelSelector>,
}

/// The part of an Alertmanager's spec that is read; absent selectors mean what they mean for a Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertmanagerSpec {
    /// Its version, if it was asked for.
    pub version: Option<String>,
    /// Its image, if it was asked for.
    pub image: Option<String>,
    /// Which configurations.
    pub alertmanager_config_selector: Option<LabelSelector>,
    /// In which namespaces.
    pub alertmanager_config_namespace_selector: Option<LabelSelector>,
}

impl AlertmanagerSpec {
    /// The version it runs, as far as its spec says.
    #[must_use]
    pub fn runs(&self) -> Option<Version> {
        let tag = || {
            let image = self.image.as_deref()?.split('@').next()?;
            image.rsplit('/').next()?.split_once(':').map(|(_, tag)| tag)
        };
        tag()
            .and_then(|tag| tag.parse().ok())
            .or_else(|| self.version.as_deref()?.parse().ok())
    }
}

/// Group, version and names of a kind of prometheus-operator. Example: `("Prometheus", "prometheuses")`.
#[must_use]
pub fn kind(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: "monitoring.coreos.com".into(),
        version: "v1".into(),
        api_version: "monitoring.coreos.com/v1".into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alertmanager_runs_what_its_image_says_else_what_its_version_says() {
        let spec = |image: Option<&str>, version: Option<&str>| AlertmanagerSpec {
            image: image.map(Into::into),
            version: version.map(Into::into),
            ..AlertmanagerSpec::default()
        };
        assert_eq!(
            spec(Some("quay.io/prometheus/alertmanager:v0.27.0"), None).runs(),
            Some(Version(0, 27, 0))
        );
        assert_eq!(
            spec(Some("host:5000/alertmanager@sha256:0"), Some("v0.28.1")).runs(),
            Some(Version(0, 28, 1))
        );
        assert_eq!(spec(Some("alertmanager:latest"), None).runs(), None);
    }
}
