//! Rights: which ones roles grant, which ones requests made use of, and what makes an operator use them.

use std::collections::BTreeSet;

use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::Request;

/// Verb, group and resource.
pub type Right = (String, String, String);

/// An object that says it belongs to the monitor `rosey`, as one of an earlier version's plan would: it goes. `kind` is one of those that
/// a monitor's objects are of.
#[must_use]
pub fn leftover(kind: &str, monitor: &DynamicObject) -> Value {
    let (api_version, short) = kind.rsplit_once('/').unwrap_or(("v1", kind));
    let (part, content) = match short {
        "ConfigMap" => ("data", json!({"old": "yes"})),
        "PodMonitor" => (
            "spec",
            json!({"selector": {}, "podMetricsEndpoints": [{"port": "old"}]}),
        ),
        "PrometheusRule" => (
            "spec",
            json!({"groups": [{"name": "old", "rules": [{"alert": "Old", "expr": "vector(0) > 1"}]}]}),
        ),
        _ => (
            "spec",
            json!({"receivers": [{"name": "old"}], "route": {"receiver": "old"}}),
        ),
    };
    let owner = json!({
        "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "name": "rosey", "uid": monitor.metadata.uid,
        "controller": true, "blockOwnerDeletion": true,
    });
    json!({
        "apiVersion": api_version, "kind": short, part: content,
        "metadata": {
            "name": "rosey-old", "namespace": monitor.metadata.namespace, "ownerReferences": [owner],
            "labels": {"app.kubernetes.io/managed-by": "rosey-operator", "rosey.dev/monitor": "rosey"},
        },
    })
}

/// What the rules of a role grant, one right each.
#[must_use]
pub fn granted(role: &Value) -> BTreeSet<Right> {
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let items = rule[field].as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                rights.extend(
                    list(rule, "verbs")
                        .into_iter()
                        .map(|verb| (verb, group.clone(), resource.clone())),
                );
            }
        }
    }
    rights
}

/// The rights that a request made use of: what was not done, needed none. An apply that creates needs `create` besides `patch`.
#[must_use]
pub fn used(request: &Request) -> Vec<Right> {
    if !(200..400).contains(&request.response_status.code) {
        return Vec::new();
    }
    let of = &request.object_ref;
    let resource = if of.subresource.is_empty() {
        of.resource.clone()
    } else {
        format!("{}/{}", of.resource, of.subresource)
    };
    let right = |verb: &str| (verb.to_owned(), of.api_group.clone(), resource.clone());
    let mut rights = vec![right(&request.verb)];
    if request.verb == "patch" && request.response_status.code == 201 {
        rights.push(right("create"));
    }
    rights
}
