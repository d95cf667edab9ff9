//! What the schema says of single values, and how it is said to people.

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use crate::api::forms::{SERVICE_URL, in_words};

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
        // In quotes it is refused next where it has not the form.
        Value::Number(_) | Value::Bool(_) if wanted == "text" => match (value, misspelt(&value.to_string(), schema)) {
            (_, Some(wrong)) => format!("must be text, and {wrong}"),
            // It may have been `yes` or `off`.
            (Value::Bool(_), None) => format!("must be text, not {value}; put what stands there in quotes"),
            (_, None) => format!("must be text, not {value}; write it in quotes: \"{value}\""),
        },
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
            // There may be a password in it, and this stands in the logs of pipelines.
            Some(words) if pattern == SERVICE_URL => format!("this is not {words}"),
            Some(words) => format!("{} is not {words}", Shown(&text)),
            None => format!("{} does not have the form {pattern}{}", Shown(&text), example(schema)),
        }),
        (None, true) => Some(format!("{} is too short{}", Shown(&text), example(schema))),
        (None, false) => None,
    }
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
