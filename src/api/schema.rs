//! Reads a document as the API server would: drops nulls, fills in defaults, and refuses what the schema refuses.
//!
//! The rules are those of the custom resource definition itself, so that a file is judged the same with and without a cluster.
//! The definition's CEL rules are not evaluated: the plan repeats what they say.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use super::definition::{LABEL_VALUE, QUANTITY, schema};
use super::{MAX_NAME, RoseyMonitor};

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
fn below(path: &str, name: &str) -> String {
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
                list.iter_mut().for_each(|value| drop_nulls(value, items));
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
                list.iter_mut().for_each(|value| fill(value, items));
            }
        }
        _ => {}
    }
}

/// A value as a message shows it: as JSON, and not longer than a line takes.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.char_indices().nth(60) {
            Some((end, _)) => write!(f, "{}…", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

#[derive(Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(Violation {
            field: field.to_owned(),
            message: message.into(),
        });
    }

    /// Fields that the schema does not have. Pruned by the API server, refused by `kubectl apply`.
    fn unknown(&mut self, value: &Value, schema: &JSONSchemaProps, path: &str) {
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
    fn check(&mut self, value: &Value, schema: &JSONSchemaProps, path: &str) {
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
    fn metadata(&mut self, metadata: Option<&Value>) {
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
        if !is_qualified_name(key, kind == "annotations") {
            self.add(
                path,
                format!(
                    "{} is not a name for one of the {kind}; write name or example.org/name",
                    Shown(&key.into())
                ),
            );
        }
        match value {
            Value::String(text) if kind == "labels" && (text.len() > 63 || !matches(LABEL_VALUE, text)) => self.add(
                path,
                format!(
                    "{} is not the value of a label; write at most 63 letters, digits, -, _ and .",
                    Shown(value)
                ),
            ),
            Value::String(_) | Value::Null => {}
            other => self.add(
                path,
                format!("must be text, not {}; write it in quotes: \"{other}\"", Shown(other)),
            ),
        }
    }
}

fn mistyped(value: &Value, schema: &JSONSchemaProps) -> Option<String> {
    let whole = value.is_i64();
    if schema.x_kubernetes_int_or_string == Some(true) {
        return (!whole && !value.is_string()).then(|| {
            format!(
                "{} is neither a whole number nor text; write decimals in quotes{}",
                Shown(value),
                example(schema)
            )
        });
    }
    let (fits, wanted) = match schema.type_.as_deref()? {
        "string" => (value.is_string(), "text"),
        "integer" => (whole, "a whole number"),
        "number" => (value.is_number(), "a number"),
        "boolean" => (value.is_boolean(), "true or false"),
        "array" => (value.is_array(), "a list"),
        "object" => (value.is_object(), "a mapping"),
        _ => (true, ""),
    };
    if fits {
        return None;
    }
    Some(match value {
        Value::Number(_) | Value::Bool(_) if wanted == "text" => {
            format!("must be text, not {value}; write it in quotes: \"{value}\"")
        }
        Value::String(text) if wanted == "a whole number" && text.parse::<i64>().is_ok() => {
            format!("must be a whole number, not the text {value}; write it without quotes")
        }
        _ => format!("must be {wanted}, not {}{}", Shown(value), example(schema)),
    })
}

fn misspelt(text: &str, schema: &JSONSchemaProps) -> Option<String> {
    let length = text.chars().count();
    if schema.min_length.is_some_and(|least| least > 0) && length == 0 {
        return Some(format!("is empty{}", example(schema)));
    }
    if let Some(most) = schema.max_length.filter(|most| exceeds(length, *most)) {
        return Some(format!("has {length} characters; there may be {most}"));
    }
    let too_short = schema.min_length.is_some_and(|least| !exceeds(length, least - 1));
    let pattern = schema
        .pattern
        .as_deref()
        .filter(|pattern| too_short || !matches(pattern, text));
    let text = Value::from(text);
    match (pattern, too_short) {
        (Some(pattern), _) => Some(match in_words(pattern) {
            Some(words) => format!("{} is not {words}", Shown(&text)),
            None => format!("{} does not have the form {pattern}{}", Shown(&text), example(schema)),
        }),
        (None, true) => Some(format!("{} is too short{}", Shown(&text), example(schema))),
        (None, false) => None,
    }
}

/// The patterns that people meet most, said in words.
fn in_words(pattern: &str) -> Option<&'static str> {
    Some(match pattern {
        "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$" => {
            "a duration; write hours, minutes and seconds such as 30s, 5m or 1h30m"
        }
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" => "a DNS label; write small letters, digits and inner hyphens",
        "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" => {
            "the name of an object; write small letters, digits, inner hyphens and dots"
        }
        "^[a-zA-Z_][a-zA-Z0-9_]*$" => "a name; write letters, digits and underscores, no digit first",
        r"^[^\s@,;:<>]+@[^\s@,;:<>]+$" => "a plain e-mail address; write one such as oncall@example.org",
        r"^/[^\s?#]*$" => "a path; it starts with / and has no query, such as /api/health",
        LABEL_VALUE => "the value of a label; write letters, digits and inner hyphens, underscores and dots",
        QUANTITY => "a Kubernetes quantity; write one such as 5m, 32Mi or 1",
        _ => return None,
    })
}

/// The example that a field's description gives.
fn example(schema: &JSONSchemaProps) -> String {
    let description = schema.description.as_deref().unwrap_or_default();
    let quoted = description
        .split_once("Example: ")
        .and_then(|(_, rest)| rest.strip_prefix('`')?.split_once('`'));
    quoted
        .map(|(example, _)| format!("; for example {example}"))
        .unwrap_or_default()
}

/// Whether a pattern of the schema matches, in the syntax and with the meaning of Go's regular expressions: `\s` and its
/// like are ASCII there.
fn matches(pattern: &str, text: &str) -> bool {
    let compiled = regex::bytes::RegexBuilder::new(pattern).unicode(false).build();
    compiled.is_ok_and(|pattern| pattern.is_match(text.as_bytes()))
}

fn is_dns_label(name: &str, most: usize) -> bool {
    name.len() <= most && matches("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", name)
}

fn is_qualified_name(key: &str, any_case: bool) -> bool {
    let key = if any_case {
        key.to_ascii_lowercase()
    } else {
        key.to_owned()
    };
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key.as_str()), |(prefix, name)| (Some(prefix), name));
    let subdomain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(|label| is_dns_label(label, 253));
    prefix.is_none_or(subdomain) && name.len() <= 63 && matches("^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$", name)
}

fn exceeds(count: usize, most: i64) -> bool {
    i64::try_from(count).is_ok_and(|count| count > most)
}

fn list<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    names
        .into_iter()
        .map(|name| name.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        let by_serde: RoseyMonitor = serde_json::from_value(minimal(&spec)).unwrap();
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
    fn every_pattern_of_the_schema_compiles() {
        fn walk(schema: &JSONSchemaProps, seen: &mut usize) {
            if let Some(pattern) = &schema.pattern {
                regex::bytes::RegexBuilder::new(pattern).unicode(false).build().unwrap();
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
