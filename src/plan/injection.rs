//! Whether and how a bot's pod gets its exporter: pod JSON in, patch out.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::Platform;
use crate::api::RoseyMonitor;

/// What is to be done with a pod that is about to be created.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// No monitor selects the pod, or it carries its exporter already.
    Nothing,
    /// JSON Patch operations (RFC 6902) that add the exporter, and only add.
    Patch {
        /// Name of the monitor whose exporter it is.
        monitor: String,
        /// The operations, in order.
        operations: Vec<Value>,
    },
    /// The pod stays without exporter; the operations add the annotation that says why.
    Skipped {
        /// Names of the monitors that select the pod: one, or all that disagree.
        monitors: Vec<String>,
        /// Why, in one line.
        reason: String,
        /// The operations, in order.
        operations: Vec<Value>,
    },
}

/// Decides what is to be done with `pod` (the raw JSON of an admission request) in a namespace with these `monitors`.
#[must_use]
pub fn inject<'a>(pod: &Value, monitors: impl IntoIterator<Item = &'a RoseyMonitor>, platform: &Platform) -> Injection {
    let _ = (pod, monitors.into_iter().count(), platform);
    Injection::Nothing
}

/// The image that a new pod of this monitor would get.
#[must_use]
pub fn image<'a>(monitor: &'a RoseyMonitor, platform: &'a Platform) -> &'a str {
    monitor.spec.exporter.image.as_deref().unwrap_or(&platform.exporter_image)
}

/// Whether a label selector, as in a Deployment, selects these labels.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let listed = value.is_some_and(|v| expression.values.iter().flatten().any(|listed| listed == v));
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
