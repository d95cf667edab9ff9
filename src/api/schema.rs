//! Reads a document as the API server would: drops nulls, fills in defaults, and refuses what the schema refuses.
//!
//! The rules are those of the custom resource definition itself, so that a file is judged the same with and without a cluster.
//! The definition's CEL rules are not evaluated: the plan repeats what they say.

mod text;
mod violations;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::RoseyMonitor;
use super::definition::schema;
use violations::Violations;

/// One thing that the API server refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, for example `spec.bot.health.port`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// What became of a document.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The monitor with all its defaults; `None` where the violations leave none.
    pub monitor: Option<RoseyMonitor>,
    /// Everything that the schema refuses.
    pub violations: Vec<Violation>,
}

/// Reads a whole `RoseyMonitor`, metadata included, as the API server would at its creation. apiVersion and kind are the caller's
/// to check.
#[must_use]
pub fn admit(document: &Value) -> Admission {
    let mut violations = Violations::default();
    let Value::Object(top) = document else {
        violations.add("", "a manifest is a mapping with apiVersion, kind, metadata and spec");
        return Admission {
            monitor: None,
            violations: violations.0,
        };
    };
    let properties = schema().properties.as_ref();
    for (name, value) in top {
        match properties.and_then(|p| p.get(name)) {
            Some(property) => violations.unknown(value, property, name),
            None if ["apiVersion", "kind", "metadata"].contains(&name.as_str()) => {}
            None => violations.add(name, "is not a field of a manifest; write it below spec or metadata"),
        }
    }
    violations.metadata(top.get("metadata"));

    let mut filled = document.clone();
    // As the API server: what a user says about the status is left aside.
    if let Value::Object(top) = &mut filled {
        top.remove("status");
        if let Some(Value::Object(metadata)) = top.get_mut("metadata") {
            metadata.retain(|_, value| !value.is_null());
            for kind in ["labels", "annotations"] {
                if let Some(Value::Object(entries)) = metadata.get_mut(kind) {
                    // A null among texts is the empty text to the API server.
                    entries
                        .values_mut()
                        .filter(|value| value.is_null())
                        .for_each(|value| *value = "".into());
                }
            }
        }
    }
    drop_nulls(&mut filled, schema());
    fill(&mut filled, schema());
    violations.check(&filled, schema(), "");

    let monitor = serde_json::from_value(filled);
    if let (Err(error), true) = (&monitor, violations.0.is_empty()) {
        violations.add("", error.to_string());
    }
    Admission {
        monitor: monitor.ok(),
        violations: violations.0,
    }
}

/// The path of `name` below `path`, in the API server's own spelling: names that are no plain words stand in brackets.
#[must_use]
pub fn below(path: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (path.is_empty(), plain) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{path}.{name}"),
        (false, false) => format!("{path}[{name}]"),
    }
}

fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        _ => None,
    }
}

fn property<'a>(schema: &'a JSONSchemaProps, name: &str) -> Option<&'a JSONSchemaProps> {
    match (
        schema.properties.as_ref().and_then(|p| p.get(name)),
        &schema.additional_properties,
    ) {
        (Some(property), _) => Some(property),
        (None, Some(JSONSchemaPropsOrBool::Schema(additional))) => Some(additional),
        (None, _) => None,
    }
}

/// A null means "as if it were not written", except in lists and where only null is left to be refused.
fn drop_nulls(value: &mut Value, schema: &JSONSchemaProps) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || property(schema, name).is_none());
            for (name, value) in fields {
                if let Some(property) = property(schema, name) {
                    drop_nulls(value, property);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = items(schema) {
                for value in list {
                    drop_nulls(value, items);
                }
            }
        }
        _ => {}
    }
}

/// Defaults appear below what is there: a parent that is absent and has no default of its own stays absent.
fn fill(value: &mut Value, schema: &JSONSchemaProps) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema.properties.iter().flatten() {
                if let Some(default) = &property.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.0.clone());
                }
            }
            for (name, value) in fields {
                if let Some(property) = property(schema, name) {
                    fill(value, property);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = items(schema) {
                for value in list {
                    fill(value, items);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text::matches;
    use super::*;
    use crate::api::forms::in_words;

    fn minimal(spec: &Value) -> Value {
        let mut all = json!({"environment": "prod", "selector": {"matchLabels": {"app": "rosey"}}});
        for (name, value) in spec.as_object().unwrap() {
            all[name] = value.clone();
        }
        json!({"apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": {"name": "rosey"}, "spec": all})
    }

    fn said(spec: &Value) -> Vec<String> {
        admit(&minimal(spec))
            .violations
            .iter()
            .map(|v| format!("{}: {}", v.field, v.message))
            .collect()
    }

    #[test]
    fn a_minimal_monitor_gets_the_defaults_that_the_types_have() {
        for spec in [
            json!({}),
            json!({"bot": {}, "exporter": {}, "scrape": {}, "alerts": {}}),
            json!({"bot": null, "exporter": null, "notifications": null}),
            json!({"exporter": {"image": null, "disk": null, "port": null}}),
        ] {
            let admission = admit(&minimal(&spec));
            assert_eq!(admission.violations, [], "{spec}");
            let bare: RoseyMonitor = serde_json::from_value(minimal(&json!({}))).unwrap();
            assert_eq!(admission.monitor.unwrap().spec, bare.spec, "{spec}");
        }
        let spec = json!({"bot": {"health": {"port": 8000}, "metrics": {"port": 8000}}, "notifications": {}, "exporter": {"backups": {"volume": "b"}}});
        let mut by_serde: RoseyMonitor = serde_json::from_value(minimal(&spec)).unwrap();
        // The one default that only a server gives: nobody has looked at the monitor.
        by_serde.status = Some(serde_json::from_value(json!({"observedGeneration": -1})).unwrap());
        assert_eq!(admit(&minimal(&spec)).monitor.unwrap(), by_serde);
    }

    #[test]
    fn types_are_refused_with_what_to_write() {
        insta::assert_yaml_snapshot!(said(&json!({
            "environment": true,
            "paused": "no",
            "bot": {"health": {"port": "8000", "timeout": 2}},
            "exporter": {"port": 70000, "resources": {"limits": {"memory": "much"}}},
            "alerts": {"overrides": [{"alert": "BotDown", "levels": [{"severity": "fatal", "threshold": 0.1}]}]},
        })));
    }

    #[test]
    fn unknown_missing_and_double_entries_are_named() {
        insta::assert_yaml_snapshot!(said(&json!({
            "selecter": {},
            "bot": {"health": {}},
            "alerts": {"packs": ["Bot", "Bot"], "overrides": [{"alert": "A"}, {"alert": "A"}], "interval": ""},
            "notifications": {"channels": [{"name": "a", "discord": {"webhookSecretRef": {"name": "s", "keys": "k"}}}],
                "routes": [{"name": "r", "channels": []}]},
            "objectLabels": {"app.kubernetes.io/name": "a b"},
        })));
    }

    #[test]
    fn an_address_that_may_have_a_password_in_it_is_not_repeated() {
        let said = said(&json!({"exporter": {"pushgateway": {"url": "http://me:secret@gateway"}}}));
        assert!(
            said[0].starts_with("spec.exporter.pushgateway.url: this is not the address of a service; "),
            "{said:?}"
        );
        assert!(said.len() == 1 && !said[0].contains("secret"), "{said:?}");
    }

    #[test]
    fn metadata_is_judged_as_for_every_kind() {
        let mut document = minimal(&json!({}));
        document["metadata"] =
            json!({"name": "Rosey", "namespace": "a.b", "label": {}, "labels": {"a b": "x", "ok": 5}});
        document["sepc"] = json!({});
        let said: Vec<_> = admit(&document)
            .violations
            .into_iter()
            .map(|v| format!("{}: {}", v.field, v.message))
            .collect();
        insta::assert_yaml_snapshot!(said);
    }

    #[test]
    fn white_space_in_patterns_is_ascii_as_in_go() {
        assert!(matches(r"^/[^\s?#]*$", "/a\u{a0}b"));
        assert!(!matches(r"^/[^\s?#]*$", "/a b"));
        assert!(!matches("^[a-z]+$", "a\n"));
    }

    #[test]
    fn every_pattern_of_the_schema_compiles_and_is_said_in_words() {
        fn walk(schema: &JSONSchemaProps, seen: &mut usize) {
            if let Some(pattern) = &schema.pattern {
                regex::bytes::RegexBuilder::new(pattern).unicode(false).build().unwrap();
                assert!(in_words(pattern).is_some(), "{pattern} is not said in words");
                *seen += 1;
            }
            schema
                .properties
                .iter()
                .flat_map(|p| p.values())
                .chain(items(schema))
                .for_each(|s| walk(s, seen));
            if let Some(JSONSchemaPropsOrBool::Schema(additional)) = &schema.additional_properties {
                walk(additional, seen);
            }
        }
        let mut seen = 0;
        walk(schema(), &mut seen);
        assert!(seen > 20, "{seen}");
    }
}
