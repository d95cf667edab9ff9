//! What the schema says of single values, and how it is said to people.

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use crate::api::definition::{LABEL_VALUE, QUANTITY};

/// A value as a message shows it: as JSON, and not longer than a line takes.
pub(super) struct Shown<'a>(pub &'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.char_indices().nth(60) {
            Some((end, _)) => write!(f, "{}…", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

pub(super) fn mistyped(value: &Value, schema: &JSONSchemaProps) -> Option<String> {
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

pub(super) fn misspelt(text: &str, schema: &JSONSchemaProps) -> Option<String> {
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
pub(super) fn example(schema: &JSONSchemaProps) -> String {
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
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let compiled = regex::bytes::RegexBuilder::new(pattern).unicode(false).build();
    compiled.is_ok_and(|pattern| pattern.is_match(text.as_bytes()))
}

pub(super) fn is_dns_label(name: &str, most: usize) -> bool {
    name.len() <= most && matches("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", name)
}

pub(super) fn is_qualified_name(key: &str, any_case: bool) -> bool {
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

pub(super) fn exceeds(count: usize, most: i64) -> bool {
    i64::try_from(count).is_ok_and(|count| count > most)
}

pub(super) fn list<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    names
        .into_iter()
        .map(|name| name.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
