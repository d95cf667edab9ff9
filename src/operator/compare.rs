//! Whether a live object still is what was planned: pure.
//!
//! `spec` and `data` are ours alone and compared exactly, but for what a server adds by itself. Labels and annotations are
//! shared: ours have to be there, everybody else's may stay.

use std::collections::BTreeSet;

use kube::api::DynamicObject;
use serde_json::{Map, Value};

use super::FIELD_MANAGER;

/// What distinguishes a live object from the planned one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Something that was planned is missing or has another value, or something that is no longer planned is still there.
    pub differs: bool,
    /// `spec` or `data` holds what is not planned. A server-side apply leaves what somebody else has added in place.
    pub strays: bool,
}

/// Compares `live` with `desired`, the whole planned object with its owner reference.
#[must_use]
pub fn compare(desired: &Value, live: &DynamicObject) -> Difference {
    let mut difference = Difference::default();
    for part in ["spec", "data"] {
        let (wanted, found) = (
            desired.get(part).unwrap_or(&Value::Null),
            live.data.get(part).unwrap_or(&Value::Null),
        );
        if !same(wanted, found, "") {
            difference.differs = true;
            difference.strays |= !within(found, wanted, "");
        }
    }
    difference.differs |= !metadata_holds(desired, live);
    difference
}

fn metadata_holds(desired: &Value, live: &DynamicObject) -> bool {
    let metadata = &desired["metadata"];
    let owned = owned_keys(live);
    let holds = |part: &str, found: &std::collections::BTreeMap<String, String>| {
        let wanted = metadata.get(part).and_then(Value::as_object);
        let missing = wanted
            .into_iter()
            .flatten()
            .any(|(key, value)| found.get(key).map(String::as_str) != value.as_str());
        // A label that we set once and no longer plan goes with the next apply.
        let stale = found
            .keys()
            .any(|key| owned.contains(&(part, key.as_str())) && !wanted.is_some_and(|wanted| wanted.contains_key(key)));
        !missing && !stale
    };
    let empty = std::collections::BTreeMap::new();
    holds("labels", live.metadata.labels.as_ref().unwrap_or(&empty))
        && holds("annotations", live.metadata.annotations.as_ref().unwrap_or(&empty))
        && metadata["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|wanted| {
                let found = live.metadata.owner_references.iter().flatten();
                found
                    .filter_map(|found| serde_json::to_value(found).ok())
                    .any(|found| within(wanted, &found, ""))
            })
}

/// The labels and annotations that our applies own, from the managed fields of the object.
fn owned_keys(live: &DynamicObject) -> BTreeSet<(&'static str, &str)> {
    let entries = live
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| applied_by_us(entry));
    let metadata = entries.filter_map(|entry| entry.fields_v1.as_ref()?.0.get("f:metadata"));
    metadata
        .flat_map(|fields| {
            ["labels", "annotations"].into_iter().flat_map(move |part| {
                let keys = fields.get(format!("f:{part}")).and_then(Value::as_object);
                keys.into_iter()
                    .flat_map(Map::keys)
                    .filter_map(move |key| Some((part, key.strip_prefix("f:")?)))
            })
        })
        .collect()
}

/// Whether the operator has ever applied this object: the API server keeps the book, so this survives a user who strips
/// the object of its labels and of its owner.
#[must_use]
pub fn was_ours(live: &DynamicObject) -> bool {
    live.metadata.managed_fields.iter().flatten().any(applied_by_us)
}

fn applied_by_us(entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

/// Equal, where absent, null and empty are the same.
fn same(a: &Value, b: &Value, field: &str) -> bool {
    within(a, b, field) && within(b, a, field)
}

/// Whether everything in `part` is in `whole`. Lists are compared element by element.
fn within(part: &Value, whole: &Value, field: &str) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(key, value)| within(value, whole.get(key).unwrap_or(&Value::Null), key)),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(a, b)| same(a, b, ""))
        }
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => part == whole || (whole.is_null() && absent(part, field)) || (part.is_null() && absent(whole, field)),
    }
}

/// Whether a value says no more than its absence.
fn absent(value: &Value, field: &str) -> bool {
    match value {
        Value::Null => true,
        // The only default in the schemas of our kinds that is not empty.
        Value::String(text) => text.is_empty() || (field == "action" && text == "replace"),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.iter().all(|(key, value)| absent(value, key)),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn desired() -> Value {
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
            "metadata": {
                "name": "rosey", "labels": {"team": "bots"},
                "ownerReferences": [{"apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "name": "rosey", "uid": "u", "controller": true}],
            },
            "spec": {"groups": [{"name": "a", "rules": [{"alert": "A", "expr": "up"}]}], "relabelings": [{"targetLabel": "x"}]},
        })
    }

    fn served() -> Value {
        let mut served = desired();
        served["metadata"]["labels"]["user"] = json!("kept");
        served["metadata"]["resourceVersion"] = json!("7");
        served["metadata"]["managedFields"] = json!([{
            "manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:metadata": {"f:labels": {"f:team": {}}}},
        }]);
        served
    }

    #[test]
    fn what_a_server_or_a_user_adds_beside_ours_is_no_difference() {
        let mut served = served();
        served["spec"]["relabelings"][0]["action"] = json!("replace");
        served["spec"]["selector"] = json!({});
        assert_eq!(compare(&desired(), &live(served)), Difference::default());
    }

    #[test]
    fn every_edit_of_ours_is_a_difference() {
        let edits: [(&str, Value); 7] = [
            ("/metadata/labels/team", json!("others")),
            ("/metadata/labels", json!({})),
            ("/metadata/ownerReferences", json!([])),
            ("/metadata/ownerReferences/0/controller", json!(false)),
            ("/spec/groups/0/rules/0/expr", json!("down")),
            ("/spec/groups/0/rules", json!([])),
            ("/spec/groups", json!(null)),
        ];
        for (pointer, value) in edits {
            let mut edited = served();
            *edited.pointer_mut(pointer).unwrap() = value;
            assert!(compare(&desired(), &live(edited)).differs, "{pointer}");
        }
    }

    #[test]
    fn what_somebody_adds_to_the_spec_is_a_stray() {
        let additions: [(&str, Value); 3] = [
            (
                "/spec/groups/0/rules/0",
                json!({"alert": "A", "expr": "up", "for": "1h"}),
            ),
            (
                "/spec/groups",
                json!([{"name": "a", "rules": [{"alert": "A", "expr": "up"}]}, {"name": "b", "rules": []}]),
            ),
            (
                "/spec",
                json!({"groups": [{"name": "a", "rules": [{"alert": "A", "expr": "up"}]}], "relabelings": [{"targetLabel": "x"}], "z": 1}),
            ),
        ];
        for (pointer, value) in additions {
            let mut edited = served();
            *edited.pointer_mut(pointer).unwrap() = value;
            assert_eq!(
                compare(&desired(), &live(edited)),
                Difference {
                    differs: true,
                    strays: true
                },
                "{pointer}"
            );
        }
    }

    #[test]
    fn a_label_that_is_no_longer_planned_is_a_difference_only_if_it_was_ours() {
        let mut planned = desired();
        planned["metadata"]["labels"] = json!({});
        assert!(compare(&planned, &live(served())).differs);
        let mut foreign = served();
        foreign["metadata"]["managedFields"] = json!([]);
        assert!(!compare(&planned, &live(foreign)).differs);
    }

    #[test]
    fn an_object_was_ours_if_we_have_applied_it_and_not_if_others_have() {
        assert!(was_ours(&live(served())));
        for (field, value) in [
            ("manager", "kubectl"),
            ("operation", "Update"),
            ("subresource", "status"),
        ] {
            let mut other = served();
            other["metadata"]["managedFields"][0][field] = json!(value);
            assert!(!was_ours(&live(other)), "{field}");
        }
    }
}
