//! An object of the plan, complete and ready to be sent.

use kube::core::ApiResource;
use serde_json::Value;

/// The kinds that a plan may contain; nothing else is ever written for a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The exporter's configuration.
    ConfigMap,
    /// How the exporter is scraped.
    PodMonitor,
    /// The alerts.
    PrometheusRule,
    /// A channel with its routes, or the inhibitions.
    AlertmanagerConfig,
}

impl Kind {
    /// All kinds, in the order in which they are applied: what the sidecar needs comes first.
    pub const ALL: [Self; 4] = [
        Self::ConfigMap,
        Self::PodMonitor,
        Self::PrometheusRule,
        Self::AlertmanagerConfig,
    ];

    /// Group, version and names of the kind.
    #[must_use]
    pub fn api_resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::PodMonitor => ("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
            Self::PrometheusRule => ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
            Self::AlertmanagerConfig => (
                "monitoring.coreos.com",
                "v1alpha1",
                "AlertmanagerConfig",
                "alertmanagerconfigs",
            ),
        };
        ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: if group.is_empty() {
                version.into()
            } else {
                format!("{group}/{version}")
            },
            kind: kind.into(),
            plural: plural.into(),
        }
    }
}

/// An object of the plan. `json` has apiVersion, kind, metadata (name, namespace, labels) and its content, and no
/// ownerReference: whoever applies it knows the monitor's uid.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name; the namespace is the monitor's.
    pub name: String,
    /// The whole object.
    pub json: Value,
}
