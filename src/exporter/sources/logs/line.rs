//! One line of the bot's log: what of it is counted.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// How serious a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    /// Without a level, or with one that is not known.
    #[default]
    Other,
}

impl Level {
    /// All of them, with the values of the label `level`.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Critical, "critical"),
        (Self::Other, "other"),
    ];

    /// As Python and its relatives spell them; `WARN` and `FATAL` are Python's own second names.
    fn of(text: &str) -> Self {
        let known = [
            ("warn", Self::Warning),
            ("fatal", Self::Critical),
            ("trace", Self::Debug),
        ];
        let words = Self::ALL.into_iter().map(|(level, word)| (word, level));
        words
            .chain(known)
            .find(|(word, _)| word.eq_ignore_ascii_case(text.trim()))
            .map_or(Self::Other, |(_, level)| level)
    }

    /// Whether a command whose line has this level has failed.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Error | Self::Critical)
    }
}

/// What is counted of a line. A field of a wrong type is as good as none: it costs itself only.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Line<'a> {
    pub level: Level,
    /// The command that was executed; not empty.
    pub command: Option<Cow<'a, str>>,
    /// How long that took, in milliseconds.
    pub milliseconds: Option<f64>,
    /// Whether it succeeded, where the line says so.
    pub success: Option<bool>,
}

impl<'a> Line<'a> {
    /// Reads a line. None if it is not a JSON object in UTF-8, but for the numbers that Python writes into one.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        // serde_json does not look at the bytes of what it ignores.
        let text = std::str::from_utf8(line).ok()?;
        if let Ok(line) = serde_json::from_str(text) {
            return Some(line);
        }
        let plain = in_json(text)?;
        let line: Line<'_> = serde_json::from_str(&plain).ok()?;
        Some(Self {
            level: line.level,
            command: line.command.map(|command| command.into_owned().into()),
            milliseconds: line.milliseconds,
            success: line.success,
        })
    }
}

/// Numbers that JSON does not have, and that Python writes all the same:
/// <https://docs.python.org/3/library/json.html#infinite-and-nan-number-values>.
const OF_PYTHON: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// `text` with null for each of them outside of strings; none if there are none.
fn in_json(text: &str) -> Option<String> {
    if !OF_PYTHON.iter().any(|word| text.contains(word)) {
        return None;
    }
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = OF_PYTHON.iter().find_map(|word| rest.strip_prefix(word)) {
            plain.push_str("null");
            rest = after;
            continue;
        }
        let end = if rest.starts_with('"') { end_of_string(rest) } else { 1 };
        plain.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    plain.push_str(rest);
    Some(plain)
}

/// Where the string ends with which `text` begins.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    let quote = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    quote.map_or(text.len(), |at| at + 2)
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Level,
    Command,
    ExecutionTimeMs,
    Success,
    // Users, guilds and messages among them: they never become labels.
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Line<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut line = Line::default();
                while let Some(field) = map.next_key()? {
                    match field {
                        Field::Level => {
                            if let Scalar::Text(level) = Scalar::next(&mut map)? {
                                line.level = Level::of(&level);
                            }
                        }
                        Field::Command => {
                            line.command = match Scalar::next(&mut map)? {
                                Scalar::Text(command) if !command.trim().is_empty() => Some(command),
                                _ => None,
                            };
                        }
                        Field::ExecutionTimeMs => {
                            line.milliseconds = match Scalar::next(&mut map)? {
                                Scalar::Number(number) => Some(number),
                                _ => None,
                            };
                        }
                        Field::Success => {
                            line.success = match Scalar::next(&mut map)? {
                                Scalar::Flag(flag) => Some(flag),
                                _ => None,
                            };
                        }
                        Field::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(line)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A value that may be of any type.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Flag(bool),
    Other,
}

impl<'de> Scalar<'de> {
    /// The next value; one that can't be read is as good as one of another type, as `1e999` is.
    fn next<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let raw: &'de RawValue = map.next_value()?;
        Ok(serde_json::from_str(raw.get()).unwrap_or(Self::Other))
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(text.into()))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(text.to_owned().into()))
            }
            fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
                Ok(Scalar::Flag(flag))
            }
            #[expect(clippy::cast_precision_loss, reason = "milliseconds need no more digits")]
            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number as f64))
            }
            #[expect(clippy::cast_precision_loss, reason = "milliseconds need no more digits")]
            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number as f64))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number))
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<Line<'_>> {
        Line::parse(text.as_bytes())
    }

    #[test]
    fn a_line_of_the_bots_says_level_command_and_time() {
        let line = parse(
            r#"{"timestamp": "2025-01-01T00:00:00Z", "level": "INFO", "logger": "bot", "message": "a \u0000 b", "request_id": "1",
            "user_id": "123", "guild_id": "456", "command": "help", "execution_time_ms": 45, "additional_context": {"level": "ERROR"}}"#,
        );
        let expected = Line {
            level: Level::Info,
            command: Some("help".into()),
            milliseconds: Some(45.0),
            success: None,
        };
        assert_eq!(line, Some(expected));
    }

    #[test]
    fn a_level_is_known_in_any_case_and_by_its_second_name() {
        for (text, level) in [
            ("debug", Level::Debug),
            ("Info", Level::Info),
            ("WARN", Level::Warning),
            ("warning", Level::Warning),
            ("ERROR", Level::Error),
            ("CRITICAL", Level::Critical),
            ("Fatal", Level::Critical),
            ("notice", Level::Other),
            ("", Level::Other),
        ] {
            let line = format!("{{\"level\": \"{text}\"}}");
            assert_eq!(parse(&line).unwrap().level, level, "{text}");
        }
    }

    #[test]
    fn a_field_of_a_wrong_type_costs_itself_only() {
        let line = parse(
            r#"{"level": ["ERROR"], "command": {"a": [1]}, "execution_time_ms": "45", "success": "no", "guild_id": 1e999}"#,
        );
        assert_eq!(line, Some(Line::default()));
        let line = parse(r#"{"level": 3, "command": "play", "execution_time_ms": null, "success": false}"#).unwrap();
        assert_eq!((line.command.as_deref(), line.success), (Some("play"), Some(false)));
        for nothing in ["\"\"", "\"  \"", "null", "1"] {
            let line = format!("{{\"command\": {nothing}}}");
            assert_eq!(parse(&line).unwrap().command, None, "{nothing}");
        }
    }

    #[test]
    fn a_number_that_is_none_costs_itself_only() {
        for number in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"] {
            let text = format!(
                "{{\"level\": \"ERROR\", \"message\": \"a \\\" NaN é\", \"command\": \"-Infinity \\\\\", \"x\": [{number}, -1], \
                 \"execution_time_ms\":{number},\"success\": {number}}}"
            );
            let expected = Line {
                level: Level::Error,
                command: Some("-Infinity \\".into()),
                milliseconds: None,
                success: None,
            };
            assert_eq!(parse(&text), Some(expected), "{text}");
        }
        let line = parse(r#"{"level": "\ud800", "command": "play", "execution_time_ms": 1}"#).unwrap();
        assert_eq!((line.level, line.milliseconds), (Level::Other, Some(1.0)));
    }

    #[test]
    fn the_last_of_two_fields_of_one_name_counts() {
        let line = parse(r#"{"level": "error", "level": "info", "command": "a", "command": "b"}"#).unwrap();
        assert_eq!((line.level, line.command.as_deref()), (Level::Info, Some("b")));
    }

    #[test]
    fn what_is_no_object_is_no_line() {
        for text in [
            "",
            "[]",
            "1",
            "null",
            "\"x\"",
            "{",
            "{}}",
            "{\"level\": NaNs}",
            "{\"level\": 1NaN}",
            "{\"level\": -NaN}",
            "{NaN: 1}",
            "NaN",
            "[Infinity]",
            "{\"level\": Infinity, \"x",
            "{\"level\": NaN, \"x\\",
            "Traceback (most recent call last):",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(Line::parse(b"{\"message\": \"\xff\"}"), None);
        assert_eq!(Line::parse(b"{\"level\": \"\xff\"}"), None);
    }

    #[test]
    fn depth_costs_no_stack() {
        for field in ["x", "level"] {
            let (open, close) = ("[".repeat(30_000), "]".repeat(30_000));
            let deep = format!("{{\"{field}\": {open}{close}}}");
            // On a stack as small as that of the thread that reads logs.
            let parsed = std::thread::Builder::new()
                .stack_size(super::super::STACK)
                .spawn(move || Line::parse(deep.as_bytes()).is_some());
            assert!(parsed.unwrap().join().unwrap(), "{field}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let expected = std::str::from_utf8(&bytes).is_ok()
                && serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes).is_ok();
            prop_assert_eq!(Line::parse(&bytes).is_some(), expected);
        }

        #[test]
        fn any_object_is_a_line(level in ".*", command in ".*", number in any::<f64>(), nested in "[a-z]{0,9}") {
            let object = serde_json::json!({
                "level": level, "command": command, "execution_time_ms": number, nested: [{"command": 1}],
            });
            let text = object.to_string();
            let line = parse(&text).unwrap();
            prop_assert_eq!(line.command.as_deref(), Some(command.as_str()).filter(|text| !text.trim().is_empty()));
        }
    }
}
