//! YAML whose nodes remember their lines.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// A YAML node and the line on which it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub line: u64,
    pub content: Content,
    /// Where its text stands in the document, in bytes.
    source: Option<Range<usize>>,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key, as text, and the line on which it stands.
#[derive(Debug)]
pub(super) struct Key {
    pub line: u64,
    pub name: String,
}

/// The words that kubectl's parser (go-yaml 2, `resolve.go`) reads as true, false or null.
const KUBECTL_WORDS: [&str; 25] = [
    "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "n", "N", "no", "No", "NO", "false",
    "False", "FALSE", "off", "Off", "OFF", "null", "Null", "NULL",
];

impl Node {
    pub fn text(&self, name: &str) -> Option<&str> {
        let Content::Map(entries) = &self.content else {
            return None;
        };
        match &entries.iter().find(|(key, _)| key.name == name)?.1.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Takes back what the parser made of words that kubectl's reads as text: it knows `true`, `True` and `TRUE`, but no `tRUE`.
    pub fn read_words_as_kubectl(&mut self, document: &str) {
        match &mut self.content {
            Content::Scalar(scalar @ (Value::Bool(_) | Value::Null)) => {
                let text = self.source.clone().and_then(|place| document.get(place));
                let word = text.unwrap_or_default().trim();
                let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic());
                if plain && !KUBECTL_WORDS.contains(&word) {
                    *scalar = word.into();
                }
            }
            Content::Scalar(_) => {}
            Content::List(items) => items.iter_mut().for_each(|item| item.read_words_as_kubectl(document)),
            Content::Map(entries) => entries
                .iter_mut()
                .for_each(|(_, value)| value.read_words_as_kubectl(document)),
        }
    }

    pub fn move_down(&mut self, lines: u64) {
        self.line += lines;
        match &mut self.content {
            Content::Scalar(_) => {}
            Content::List(items) => items.iter_mut().for_each(|item| item.move_down(lines)),
            Content::Map(entries) => {
                for (key, value) in entries {
                    key.line += lines;
                    value.move_down(lines);
                }
            }
        }
    }

    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => entries
                .iter()
                .map(|(key, value)| (key.name.clone(), value.to_json()))
                .collect(),
        }
    }

    /// The line of a field, or of what is nearest above it.
    pub fn line_of(&self, path: &str) -> u64 {
        let (mut node, mut rest, mut line) = (self, path, self.line);
        while !rest.is_empty() {
            let step = match &node.content {
                Content::Scalar(_) => None,
                Content::List(items) => rest
                    .strip_prefix('[')
                    .and_then(|rest| rest.split_once(']'))
                    .and_then(|(n, rest)| items.get(n.parse::<usize>().ok()?).map(|item| (item.line, item, rest))),
                // Names may have dots in them, so the longest that fits is meant.
                Content::Map(entries) => entries
                    .iter()
                    .filter_map(|(key, value)| Some((key, value, after(rest, &key.name)?)))
                    .max_by_key(|(key, ..)| key.name.len())
                    .map(|(key, value, rest)| (key.line, value, rest)),
            };
            let Some(step) = step else { break };
            (line, node, rest) = step;
        }
        line
    }
}

/// What is left of a path once it has gone through `name`, written `.name`, `name` or `[name]`.
fn after<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let plain = path.strip_prefix('.').unwrap_or(path).strip_prefix(name);
    plain
        .filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        .or_else(|| path.strip_prefix('[')?.strip_prefix(name)?.strip_prefix(']'))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<Content>::deserialize(deserializer)?;
        let span = spanned.defined.span();
        let place = |start: u64, length: u64| Some(usize::try_from(start).ok()?..usize::try_from(start + length).ok()?);
        let source = span
            .byte_offset()
            .zip(span.byte_len())
            .and_then(|(start, length)| place(start, length));
        Ok(Self {
            line: spanned.referenced.line(),
            content: spanned.value,
            source,
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

/// A number without a fraction is a whole number, as it is once kubectl has made JSON of it.
pub(crate) fn whole(number: f64) -> Option<i64> {
    let text = (number.fract() == 0.0 && number.abs() < 1e15).then(|| format!("{number:.0}"))?;
    text.parse().ok()
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML node")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        if let Some(whole) = whole(value) {
            return Ok(Content::Scalar(whole.into()));
        }
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Content::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let (mut entries, mut seen) = (Vec::new(), HashSet::new());
        while let Some(key) = map.next_key::<Node>()? {
            let name = match key.content {
                Content::Scalar(Value::String(name)) => name,
                Content::Scalar(other) => other.to_string(),
                Content::List(_) | Content::Map(_) => return Err(de::Error::custom("a key must be text")),
            };
            if !seen.insert(name.clone()) {
                return Err(de::Error::custom(format!("the key {name:?} stands here twice")));
            }
            entries.push((Key { line: key.line, name }, map.next_value()?));
        }
        Ok(Content::Map(entries))
    }
}
