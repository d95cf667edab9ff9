//! Whether and how a bot's pod gets its exporter: pod JSON in, patch out.
//!
//! The pod stays raw JSON, so that fields which no library knows yet survive, and the patch only adds; where an annotation of ours was
//! copied with a template, it is written anew or removed. A pod is never refused; whatever stands in the way makes it stay as it is, with the reason in an
//! annotation.

pub mod update;

mod container;
mod pod;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::Platform;
use super::validate::problem_of_container;
use crate::api::{INJECT_ANNOTATION, INJECTED_ANNOTATION, RoseyMonitor, SCHEME_ANNOTATION, SKIPPED_ANNOTATION};
use crate::sidecar::{CONTAINER, DEFAULT_PORT, PORT_NAME};
pub use container::mounted;
use pod::Pod;

/// What is to be done with a pod that is about to be created.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// No monitor selects the pod, or it has been through here already.
    Nothing,
    /// JSON Patch operations (RFC 6902) that add the exporter, and change nothing of the pod's own.
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
        /// The operations, in order; none for a pod that must not be touched at all.
        operations: Vec<Value>,
    },
}

/// Decides what is to be done with `pod` (the raw JSON of an admission request) in a namespace with these `monitors`.
#[must_use]
pub fn inject<'a>(pod: &Value, monitors: impl IntoIterator<Item = &'a RoseyMonitor>, platform: &Platform) -> Injection {
    let pod = Pod(pod);
    let labels = pod.labels();
    let selecting: Vec<_> = monitors
        .into_iter()
        .filter(|m| selects(&m.spec.selector, &labels))
        .collect();
    if selecting.is_empty() || (pod.annotation(INJECTED_ANNOTATION).is_some() && pod.container(CONTAINER).is_some()) {
        return Injection::Nothing;
    }
    match obstacle(&pod, &selecting, platform) {
        Some(reason) => skipped(&pod, &selecting, reason),
        None => patch(&pod, selecting[0], platform),
    }
}

/// The image that a new pod of this monitor would get.
#[must_use]
pub fn image<'a>(monitor: &'a RoseyMonitor, platform: &'a Platform) -> &'a str {
    monitor
        .spec
        .exporter
        .image
        .as_deref()
        .unwrap_or(&platform.exporter_image)
}

/// Whether a label selector, as in a Deployment, selects these labels.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
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

/// Why this pod can't have the exporter.
fn obstacle(pod: &Pod<'_>, monitors: &[&RoseyMonitor], platform: &Platform) -> Option<String> {
    if let [_, _, ..] = monitors {
        let names: Vec<_> = monitors.iter().filter_map(|m| m.metadata.name.as_deref()).collect();
        return Some(format!("more than one monitor selects this pod: {}", names.join(", ")));
    }
    let monitor = monitors.first()?;
    let port = monitor.spec.exporter.port;
    let opted_out = |value: Option<&str>| value == Some("false");
    if opted_out(pod.annotation(INJECT_ANNOTATION))
        || opted_out(pod.labels().get(INJECT_ANNOTATION).map(String::as_str))
    {
        Some(format!("the pod says {INJECT_ANNOTATION}: \"false\""))
    } else if pod.is_mirror() {
        Some("a static pod can't have the exporter: its configuration comes from the API server".into())
    } else if pod.is_windows() {
        Some("the exporter runs on Linux only".into())
    } else if let Some(problem) = problem_of_container(monitor, platform) {
        // A container that the API server refuses would take every new pod of the bot with it.
        Some(format!("the monitor is invalid: {problem}"))
    } else if pod.container(CONTAINER).is_some() {
        Some(format!("the pod has a container {CONTAINER} of its own"))
    } else if let Some(volume) = container::own_names(monitor).find(|volume| pod.volume(volume).is_some()) {
        Some(format!("the pod has a volume {volume} of its own"))
    } else if let Some(container) = pod.container_with_port(i64::from(port)) {
        Some(format!(
            "port {port} is taken by container {container}; set spec.exporter.port of the monitor to another"
        ))
    } else if let Some(container) = pod.container_with_port_name(PORT_NAME) {
        Some(format!("container {container} has a port named {PORT_NAME} of its own"))
    } else if pod.is_on_host_network() && !pod.has_ports() {
        // The exporter's port becomes a host port, and would be the first one: two such pods no longer fit on one node.
        Some("the pod is on the host network without a port of its own, and the exporter's would limit it to one per node".into())
    } else if pod.is_on_host_network() && port == i32::from(DEFAULT_PORT) {
        // The node-exporter of most clusters has this port on every node: the pod would fit on none of them.
        Some(format!(
            "the pod is on the host network, where port {port} is the node-exporter's; set spec.exporter.port of the monitor to another"
        ))
    } else if !pod.runs_for_ever() && !platform.native_sidecars {
        Some("a pod that ends needs native sidecars, which this cluster's nodes don't all have".into())
    } else {
        None
    }
}

fn skipped(pod: &Pod<'_>, monitors: &[&RoseyMonitor], reason: String) -> Injection {
    if pod.annotation(SKIPPED_ANNOTATION) == Some(reason.as_str()) {
        return Injection::Nothing;
    }
    let operations = if pod.is_mirror() {
        Vec::new()
    } else {
        pod.annotate(SKIPPED_ANNOTATION, &reason)
    };
    let monitors = monitors.iter().filter_map(|m| m.metadata.name.clone()).collect();
    Injection::Skipped {
        monitors,
        reason,
        operations,
    }
}

fn patch(pod: &Pod<'_>, monitor: &RoseyMonitor, platform: &Platform) -> Injection {
    let name = monitor.metadata.name.clone().unwrap_or_default();
    let container = container::exporter(pod, monitor, platform);
    let mut operations = pod.annotate(INJECTED_ANNOTATION, &format!("{name}@{}", container::hash(&container)));
    // What its monitor says later does not change how this exporter speaks. Where there is a file, that says it.
    if monitor.spec.exporter.web_config_secret_ref.is_none() {
        operations.extend(pod.annotate(SCHEME_ANNOTATION, "http").pop());
    } else if pod.annotation(SCHEME_ANNOTATION).is_some() {
        // It came with the template, copied from a pod of before the file: this one would be asked in plain HTTP.
        operations.push(Pod::unannotate(SCHEME_ANNOTATION));
    }
    let left_out: Vec<_> = container::volumes(monitor)
        .into_iter()
        .filter_map(|volume| Some(format!("volume {volume} {}", container::why_not_mounted(pod, volume)?)))
        .collect();
    if !left_out.is_empty() {
        let reason = format!("{}; the exporter can't read there", left_out.join(", "));
        operations.extend(pod.annotate(SKIPPED_ANNOTATION, &reason).pop());
    }
    operations.extend(pod.append("volumes", container::own_volumes(monitor)));
    // kubelet starts no main container before the native sidecars run: an image that can't be pulled would keep the bot
    // down. A plain container lets it start, but never lets a pod end.
    let list = if pod.runs_for_ever() {
        "containers"
    } else {
        "initContainers"
    };
    operations.extend(pod.append(list, vec![container]));
    Injection::Patch {
        monitor: name,
        operations,
    }
}

/// One `add`.
fn add(path: &str, value: &Value) -> Value {
    json!({ "op": "add", "path": path, "value": value })
}
