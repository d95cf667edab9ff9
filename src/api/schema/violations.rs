//! A document against the schema, field by field.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::{Map, Value};

use super::text::{Shown, example, exceeds, list, misspelt, mistyped};
use super::{Violation, below, items, property};
use crate::api::MAX_NAME;
use crate::api::forms::{is_dns_label, is_label_key, is_label_value};

/// Violations as they are found.
#[derive(Default)]
pub(super) struct Violations(pub Vec<Violation>);

impl Violations {
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(Violation {
            field: field.to_owned(),
            message: message.into(),
        });
    }

    /// Fields that the schema does not have. Pruned by the API server, refused by `kubectl apply`.
    pub fn unknown(&mut self, value: &Value, schema: &JSONSchemaProps, path: &str) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let at = below(path, name);
                    if let Some(property) = property(schema, name) {
                        self.unknown(value, property, &at);
                    } else if let Some(known) = &schema.properties {
                        let near = known
                            .keys()
                            .map(|k| (strsim::osa_distance(k, name), k))
                            .min()
                            .filter(|(d, _)| *d <= 2);
                        self.add(
                            &at,
                            match near {
                                Some((_, near)) => format!("is not a field; did you mean {near}?"),
                                None => format!("is not a field; there are {}", list(known.keys())),
                            },
                        );
                    }
                }
            }
            Value::Array(values) => {
                if let Some(items) = items(schema) {
                    for (n, value) in values.iter().enumerate() {
                        self.unknown(value, items, &format!("{path}[{n}]"));
                    }
                }
            }
            _ => {}
        }
    }

    /// What the schema says of one value and of everything below it.
    pub fn check(&mut self, value: &Value, schema: &JSONSchemaProps, path: &str) {
        if let Some(wrong) = mistyped(value, schema) {
            self.add(path, wrong);
            return;
        }
        if let Some(allowed) = &schema.enum_
            && !allowed.iter().any(|allowed| allowed.0 == *value)
        {
            let names = allowed
                .iter()
                .map(|v| v.0.as_str().map_or_else(|| v.0.to_string(), str::to_owned));
            self.add(path, format!("{} is none of {}", Shown(value), list(names)));
        }
        match value {
            Value::String(text) => {
                if let Some(wrong) = misspelt(text, schema) {
                    self.add(path, wrong);
                }
            }
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                let (low, high) = (schema.minimum.unwrap_or(f64::MIN), schema.maximum.unwrap_or(f64::MAX));
                if !(low..=high).contains(&number) {
                    self.add(
                        path,
                        format!("{number} is out of range; write a number from {low} to {high}"),
                    );
                }
            }
            Value::Array(values) => self.list(values, schema, path),
            Value::Object(fields) => {
                for name in schema
                    .required
                    .iter()
                    .flatten()
                    .filter(|name| !fields.contains_key(*name))
                {
                    let property = property(schema, name);
                    self.add(
                        &below(path, name),
                        format!("is missing{}", property.map(example).unwrap_or_default()),
                    );
                }
                if let Some(most) = schema.max_properties.filter(|most| exceeds(fields.len(), *most)) {
                    self.add(path, format!("has {} entries; there may be {most}", fields.len()));
                }
                for (name, value) in fields {
                    if let Some(property) = property(schema, name) {
                        self.check(value, property, &below(path, name));
                    }
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn list(&mut self, values: &[Value], schema: &JSONSchemaProps, path: &str) {
        if let Some(most) = schema.max_items.filter(|most| exceeds(values.len(), *most)) {
            self.add(path, format!("has {} elements; there may be {most}", values.len()));
        }
        if schema.min_items.is_some_and(|least| !exceeds(values.len(), least - 1)) {
            self.add(path, "is empty; name at least one");
        }
        let mut seen = BTreeSet::new();
        for (n, value) in values.iter().enumerate() {
            let at = format!("{path}[{n}]");
            match (
                schema.x_kubernetes_list_type.as_deref(),
                &schema.x_kubernetes_list_map_keys,
            ) {
                (Some("set"), _) if !seen.insert(value.to_string()) => {
                    self.add(&at, format!("{} stands in the list twice", Shown(value)));
                }
                (Some("map"), Some(keys)) => {
                    let key: Vec<_> = keys.iter().filter_map(|key| Some((key, value.get(key)?))).collect();
                    if key.len() == keys.len() && !seen.insert(format!("{key:?}")) {
                        let key = list(key.iter().map(|(name, value)| format!("{name} {}", Shown(value))));
                        self.add(&at, format!("another element of the list has {key} already"));
                    }
                }
                _ => {}
            }
            if let Some(items) = items(schema) {
                self.check(value, items, &at);
            }
        }
    }

    /// What the API server says of metadata, for every kind, and of our own names.
    pub fn metadata(&mut self, metadata: Option<&Value>) {
        const FIELDS: [&str; 15] = [
            "name",
            "generateName",
            "namespace",
            "labels",
            "annotations",
            "uid",
            "resourceVersion",
            "generation",
            "selfLink",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "ownerReferences",
            "finalizers",
            "managedFields",
        ];
        let none = Map::new();
        let metadata = match metadata {
            None | Some(Value::Null) => &none,
            Some(Value::Object(metadata)) => metadata,
            Some(other) => {
                return self.add(
                    "metadata",
                    format!("must be a mapping with a name, not {}", Shown(other)),
                );
            }
        };
        for name in metadata.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
            self.add(
                &below("metadata", name),
                format!("is not a field; there are {}", list(&FIELDS[..5])),
            );
        }
        match metadata.get("name") {
            Some(Value::String(name)) if is_dns_label(name, MAX_NAME) => {}
            Some(Value::String(name)) if !name.is_empty() => self.add(
                "metadata.name",
                format!(
                    "{} is not a DNS label of at most {MAX_NAME} characters; write small letters, digits and inner hyphens",
                    Shown(&Value::from(name.as_str()))
                ),
            ),
            None | Some(Value::Null | Value::String(_)) => self.add("metadata.name", "is missing; for example rosey"),
            Some(other) => self.add("metadata.name", format!("must be text, not {}", Shown(other))),
        }
        match metadata.get("namespace") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if name.is_empty() || is_dns_label(name, 63) => {}
            Some(other) => self.add(
                "metadata.namespace",
                format!("{} is not the name of a namespace", Shown(other)),
            ),
        }
        for kind in ["labels", "annotations"] {
            let path = format!("metadata.{kind}");
            match metadata.get(kind) {
                None | Some(Value::Null) => {}
                Some(Value::Object(entries)) => {
                    for (key, value) in entries {
                        self.entry(kind, key, value, &below(&path, key));
                    }
                }
                Some(other) => self.add(
                    &path,
                    format!("must be a mapping of names to texts, not {}", Shown(other)),
                ),
            }
        }
    }

    fn entry(&mut self, kind: &str, key: &str, value: &Value, path: &str) {
        // The keys of annotations may have capitals in their domain too (ValidateAnnotations in apimachinery).
        let fits = match kind {
            "annotations" => is_label_key(&key.to_ascii_lowercase()),
            _ => is_label_key(key),
        };
        if !fits {
            self.add(
                path,
                format!(
                    "{} is not a name for one of the {kind}; write name or example.org/name",
                    Shown(&key.into())
                ),
            );
        }
        match value {
            Value::String(text) if kind == "labels" && (!is_label_value(text)) => self.add(
                path,
                format!(
                    "{} is not the value of a label; write at most 63 letters, digits, -, _ and .",
                    Shown(value)
                ),
            ),
            Value::String(_) | Value::Null => {}
            Value::Bool(_) => self.add(
                path,
                format!("must be text, not {value}; put what stands there in quotes"),
            ),
            Value::Number(_) => self.add(
                path,
                format!("must be text, not {value}; write it in quotes: \"{value}\""),
            ),
            other => self.add(path, format!("must be text, not {}", Shown(other))),
        }
    }
}
