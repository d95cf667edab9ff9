//! A JSON document of which some fields are read, each on its own: one of a wrong type costs itself, and what is not asked for costs
//! no memory. A document of 64 KiB may take forty times as much as a tree of values.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::exporter::bounds::{Dropped, Reason};

/// The fields that were asked for, as they stand in the document; of two with one name, the last.
pub(super) struct Fields<'d, const N: usize> {
    names: &'static [&'static str; N],
    found: [Option<&'d RawValue>; N],
}

/// Why a document can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("is not a JSON object")]
    NoObject,
}

impl<'d, const N: usize> Fields<'d, N> {
    /// The fields with these names.
    pub fn of(document: &'d [u8], names: &'static [&'static str; N]) -> Result<Self, DocumentError> {
        let whole: &RawValue = serde_json::from_slice(document)?;
        Self::of_value(whole, names)
    }

    /// The fields of an object inside of a document.
    pub fn of_value(object: &'d RawValue, names: &'static [&'static str; N]) -> Result<Self, DocumentError> {
        if !object.get().starts_with('{') {
            return Err(DocumentError::NoObject);
        }
        let mut fields = Self {
            names,
            found: [None; N],
        };
        serde_json::Deserializer::from_str(object.get()).deserialize_map(&mut fields)?;
        Ok(fields)
    }

    /// A field as it stands there; none where it is missing or null.
    pub fn raw(&self, name: &str) -> Option<&'d RawValue> {
        let at = self.names.iter().position(|known| *known == name)?;
        self.found[at].filter(|value| value.get() != "null")
    }

    fn typed<T>(&self, name: &str, dropped: &mut Dropped, read: impl FnOnce(&'d str) -> Option<T>) -> Option<T> {
        let found = read(self.raw(name)?.get());
        if found.is_none() {
            dropped.count(Reason::Invalid);
        }
        found
    }

    /// A text; one of another type is counted.
    pub fn text(&self, name: &str, dropped: &mut Dropped) -> Option<String> {
        self.typed(name, dropped, |value| serde_json::from_str(value).ok())
    }

    /// A truth; a field of another type is counted.
    pub fn flag(&self, name: &str, dropped: &mut Dropped) -> Option<bool> {
        self.typed(name, dropped, |value| serde_json::from_str(value).ok())
    }

    /// A number that is finite and not negative; anything else is counted.
    pub fn number(&self, name: &str, dropped: &mut Dropped) -> Option<f64> {
        self.scaled(name, 1.0, dropped)
    }

    /// The product has to be such a number, too: what a bot says can be too large to be told in a smaller unit.
    pub fn scaled(&self, name: &str, scale: f64, dropped: &mut Dropped) -> Option<f64> {
        self.typed(name, dropped, |value| {
            let number: Option<f64> = serde_json::from_str(value).ok();
            let scaled = number? * scale;
            (scaled.is_finite() && scaled >= 0.0).then_some(scaled)
        })
    }
}

impl<'d, const N: usize> Visitor<'d> for &mut Fields<'d, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(place) = map.next_key_seed(Name(self.names))? {
            match place {
                Some(at) => self.found[at] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The place of a name among those that are known.
struct Name(&'static [&'static str]);

impl<'d> DeserializeSeed<'d> for Name {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

/// Calls `take` with each item of a list; says whether it is one.
pub(super) fn each<'d>(list: &'d RawValue, take: impl FnMut(&'d RawValue)) -> bool {
    struct Items<F>(F);

    impl<'d, F: FnMut(&'d RawValue)> Visitor<'d> for Items<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'d>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(item) = list.next_element()? {
                (self.0)(item);
            }
            Ok(())
        }
    }

    serde_json::Deserializer::from_str(list.get())
        .deserialize_seq(Items(take))
        .is_ok()
}

/// A body without what Python's json module writes for numbers that JSON does not have: such a field is then null.
pub(super) fn without_nan(body: Vec<u8>) -> Vec<u8> {
    match replaced(&body) {
        Cow::Owned(changed) => changed,
        Cow::Borrowed(_) => body,
    }
}

fn replaced(body: &[u8]) -> Cow<'_, [u8]> {
    let (mut out, mut copied, mut at, mut in_text) = (Vec::new(), 0, 0, false);
    while let Some(rest) = body.get(at..) {
        let found = if in_text {
            memchr::memchr2(b'"', b'\\', rest)
        } else {
            memchr::memchr3(b'"', b'N', b'I', rest)
        };
        let Some(found) = found else { break };
        at += found;
        let rest = &body[at..];
        if rest[0] == b'\\' {
            at += 2;
        } else if rest[0] == b'"' {
            (at, in_text) = (at + 1, !in_text);
        } else if let Some(word) = [&b"NaN"[..], b"Infinity"]
            .into_iter()
            .find(|word| rest.starts_with(word))
        {
            let before = &body[copied..at];
            let sign = if word == b"Infinity" { &b"-"[..] } else { b"" };
            out.extend_from_slice(before.strip_suffix(sign).unwrap_or(before));
            out.extend_from_slice(b"null");
            at += word.len();
            copied = at;
        } else {
            at += 1;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(body);
    }
    out.extend_from_slice(&body[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(document: &str) -> Result<Fields<'_, 2>, DocumentError> {
        Fields::of(document.as_bytes(), &["a", "b"])
    }

    #[test]
    fn a_field_is_found_whatever_stands_beside_it() {
        let mut dropped = Dropped::default();
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let document = format!(r#" {{"x": {deep}, "b": {deep}, "a": 1, "\u0061": 2.5, "y": 1e400, "b": null}} "#);
        let found = fields(&document).unwrap();
        assert_eq!(found.number("a", &mut dropped), Some(2.5));
        assert!(found.raw("b").is_none());
        assert_eq!(dropped, Dropped::default());
    }

    #[test]
    fn a_field_of_a_wrong_type_costs_itself_and_is_counted() {
        for value in ["1e400", "-1", "\"1\"", "[1]", "{}", "true"] {
            let document = format!("{{\"a\": {value}, \"b\": 1}}");
            let (found, mut dropped) = (fields(&document).unwrap(), Dropped::default());
            assert_eq!(found.number("a", &mut dropped), None, "{value}");
            assert_eq!(found.number("b", &mut dropped), Some(1.0), "{value}");
            assert_eq!(dropped.by_reason().next(), Some(("invalid", 1)), "{value}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for document in ["", "{", "{\"a\": }", "{\"a\": 1}}", "{1: 2}", "{\"a\": \"\\x\"}"] {
            assert!(matches!(fields(document), Err(DocumentError::Json(_))), "{document}");
        }
        for document in ["1", "null", "[{}]", "\"{}\""] {
            assert!(matches!(fields(document), Err(DocumentError::NoObject)), "{document}");
        }
    }

    #[test]
    fn numbers_that_json_does_not_have_become_null_outside_of_texts() {
        let body = r#"{"a": NaN, "b": -Infinity, "c": "NaN \" Infinity", "d": [Infinity]}"#;
        let changed = without_nan(body.into());
        assert_eq!(
            std::str::from_utf8(&changed).unwrap(),
            r#"{"a": null, "b": null, "c": "NaN \" Infinity", "d": [null]}"#
        );
        for as_it_is in [
            &br#"{"NaN": "I", "b": "\\\\"}"#[..],
            b"[Inf, Nan, N",
            br#""NaN\"#,
            b"-I",
            b"",
        ] {
            assert_eq!(without_nan(as_it_is.into()), as_it_is);
        }
        assert_eq!(without_nan(b"NaN,-NaN,NaNI".into()), b"null,-null,nullI");
    }
}
