//! One line of the Prometheus text format, and of `OpenMetrics` as far as it is the same.

use crate::exporter::bounds::{LABEL_BYTES, LABELS, NAME_BYTES, Reason, VALUE_BYTES};

/// What a line says.
#[derive(Debug, PartialEq)]
pub(crate) enum Line<'a> {
    /// Empty, or a comment without meaning.
    Nothing,
    Help {
        name: &'a str,
        text: &'a str,
    },
    Type {
        name: &'a str,
        word: &'a str,
    },
    Sample {
        name: &'a str,
        labels: Labels<'a>,
        value: f64,
    },
}

/// Names and values. The values are as the page spells them: it has one spelling for each, but for numbers.
pub(crate) type Labels<'a> = Vec<(&'a str, &'a str)>;

pub(crate) fn read(line: &[u8]) -> Result<Line<'_>, Reason> {
    let line = std::str::from_utf8(line).map_err(|_| Reason::Invalid)?.trim_ascii();
    if let Some(comment) = past(line, b'#') {
        return Ok(comment_line(comment));
    }
    if line.is_empty() {
        return Ok(Line::Nothing);
    }
    let (name, rest) = split_name(line, true).ok_or(Reason::Invalid)?;
    let rest = blank(rest);
    let (labels, rest) = match past(rest, b'{') {
        Some(rest) => read_labels(rest)?,
        None => (Vec::new(), rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().and_then(number).ok_or(Reason::Invalid)?;
    match words.next() {
        // What follows is an exemplar of OpenMetrics.
        None | Some("#") => {}
        // The time is read only to tell a sample from nonsense: what we print is of now.
        Some(time) => {
            time.parse::<f64>().map_err(|_| Reason::Invalid)?;
            if words.next().is_some_and(|word| word != "#") {
                return Err(Reason::Invalid);
            }
        }
    }
    if name.len() > NAME_BYTES {
        return Err(Reason::TooLong);
    }
    Ok(Line::Sample { name, labels, value })
}

/// Writes what makes a series, but for the closing brace: for the same labels in the same order the same text.
pub(super) fn print(text: &mut String, name: &str, labels: &[(&str, &str)]) {
    text.clear();
    text.push_str(name);
    let mut before = "{";
    for (label, value) in labels {
        for word in [before, label, "=\"", value, "\""] {
            text.push_str(word);
        }
        before = ",";
    }
}

fn comment_line(comment: &str) -> Line<'_> {
    let comment = blank(comment);
    let (word, rest) = comment.split_once([' ', '\t']).unwrap_or((comment, ""));
    let Some((name, rest)) = split_name(blank(rest), true).filter(|(name, _)| name.len() <= NAME_BYTES) else {
        return Line::Nothing;
    };
    match word {
        "HELP" => Line::Help {
            name,
            text: blank(rest),
        },
        "TYPE" => Line::Type {
            name,
            word: rest.trim(),
        },
        _ => Line::Nothing,
    }
}

/// A number as Go reads it in decimal; one beyond the range of a double is none there either, and not infinity. Nor is a NaN with
/// a sign: <https://pkg.go.dev/strconv#ParseFloat>.
pub(crate) fn number(word: &str) -> Option<f64> {
    if let [b'+' | b'-', b'n' | b'N', ..] = word.as_bytes() {
        return None;
    }
    let number: f64 = word.parse().ok()?;
    let too_large = number.is_infinite() && word.bytes().any(|byte| byte.is_ascii_digit());
    (!too_large).then_some(number)
}

/// What follows the blanks. By bytes as all here, since the patterns of `str` are made of calls in a build for size.
fn blank(text: &str) -> &str {
    let mut rest = text;
    while let Some(b' ' | b'\t') = rest.as_bytes().first() {
        rest = &rest[1..];
    }
    rest
}

/// What follows `mark`, which is one of ASCII, if the text begins with it.
fn past(text: &str, mark: u8) -> Option<&str> {
    (text.as_bytes().first() == Some(&mark)).then(|| &text[1..])
}

fn split_name(text: &str, colon: bool) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut end = 0;
    while let Some(&byte) = bytes.get(end)
        && (IN_NAMES[usize::from(byte)] || (colon && byte == b':'))
    {
        end += 1;
    }
    let starts_well = end > 0 && !bytes[0].is_ascii_digit();
    starts_well.then(|| text.split_at(end))
}

/// Which bytes names have: looked up, since most of a page is names.
const IN_NAMES: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_';
        byte += 1;
    }
    table
};

/// The labels after the opening brace, and what follows the closing one. An empty label is one that is not there.
fn read_labels(mut rest: &str) -> Result<(Labels<'_>, &str), Reason> {
    // Few series have more.
    let mut labels = Labels::with_capacity(8);
    let mut too_long = false;
    loop {
        rest = blank(rest);
        if let Some(after) = past(rest, b'}') {
            return if too_long {
                Err(Reason::TooLong)
            } else {
                Ok((labels, after))
            };
        }
        let (name, after) = split_name(rest, false).ok_or(Reason::Invalid)?;
        let after = past(blank(after), b'=').ok_or(Reason::Invalid)?;
        let (value, length, after) = quoted(past(blank(after), b'"').ok_or(Reason::Invalid)?)?;
        // Names with two underscores are Prometheus's own: `__name__` would rename the series.
        if let [b'_', b'_', ..] = name.as_bytes() {
            return Err(Reason::Reserved);
        }
        if labels.iter().any(|(other, _)| *other == name) {
            return Err(Reason::Invalid);
        }
        too_long |= name.len() > LABEL_BYTES || length > VALUE_BYTES || labels.len() >= LABELS;
        if !too_long {
            labels.push((name, value));
        }
        let after = blank(after);
        rest = match after.as_bytes().first() {
            Some(b',') => &after[1..],
            Some(b'}') => after,
            _ => return Err(Reason::Invalid),
        };
    }
}

/// The value before the closing quote, its length without escapes, and what follows.
fn quoted(text: &str) -> Result<(&str, usize, &str), Reason> {
    let (mut at, mut escapes) = (0, 0);
    loop {
        let rest = text.as_bytes().get(at..).ok_or(Reason::Invalid)?;
        at += memchr::memchr3(b'"', b'\\', 0, rest).ok_or(Reason::Invalid)?;
        match &text.as_bytes()[at..] {
            [b'"', ..] => return Ok((&text[..at], at - escapes, &text[at + 1..])),
            [b'\\', b'n' | b'\\' | b'"', ..] => (at, escapes) = (at + 2, escapes + 1),
            _ => return Err(Reason::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample<'a>(name: &'a str, labels: &[(&'a str, &'a str)], value: f64) -> Line<'a> {
        let labels = labels.to_vec();
        Line::Sample { name, labels, value }
    }

    #[test]
    fn what_the_format_allows_is_read() {
        assert_eq!(read(b"up 1"), Ok(sample("up", &[], 1.0)));
        assert_eq!(
            read(b"  a:b_c\t{ x = \"1\" , y=\"2\", } 1.5e3 1700000000000\r"),
            Ok(sample("a:b_c", &[("x", "1"), ("y", "2")], 1500.0))
        );
        assert_eq!(
            read(br#"a{x="q\"b\\n\n"} +Inf"#),
            Ok(sample("a", &[("x", r#"q\"b\\n\n"#)], f64::INFINITY))
        );
        assert_eq!(read("a{x=\"Jürgen {,}\"} 0x".as_bytes()), Err(Reason::Invalid));
        assert_eq!(
            read("a{x=\"Jürgen {,}\"} 0".as_bytes()),
            Ok(sample("a", &[("x", "Jürgen {,}")], 0.0))
        );
        assert_eq!(
            read(b"a_total 3 # {trace_id=\"x\"} 0.6 12.5"),
            Ok(sample("a_total", &[], 3.0))
        );
        assert_eq!(
            read(b"# HELP a some \\n text"),
            Ok(Line::Help {
                name: "a",
                text: "some \\n text"
            })
        );
        assert_eq!(
            read(b"#TYPE a counter"),
            Ok(Line::Type {
                name: "a",
                word: "counter"
            })
        );
        for nothing in ["", "   ", "#", "# EOF", "# just words", "# HELP", "# TYPE 1a counter"] {
            assert_eq!(read(nothing.as_bytes()), Ok(Line::Nothing), "{nothing}");
        }
    }

    #[test]
    fn what_prometheus_would_refuse_is_refused() {
        let long = format!("{} 1", "a".repeat(NAME_BYTES + 1));
        let long_value = format!("a{{x=\"{}\"}} 1", "v".repeat(VALUE_BYTES + 1));
        let escaped = format!("a{{x=\"{}\"}} 1", "\\n".repeat(VALUE_BYTES));
        assert!(read(escaped.as_bytes()).is_ok());
        let many = (0..=LABELS)
            .map(|i| format!("l{i}=\"1\""))
            .collect::<Vec<_>>()
            .join(",");
        let many = format!("a{{{many}}} 1");
        for (line, reason) in [
            ("<html>", Reason::Invalid),
            ("1a 1", Reason::Invalid),
            ("a", Reason::Invalid),
            ("a one", Reason::Invalid),
            ("a 1e400", Reason::Invalid),
            ("a -1e400", Reason::Invalid),
            ("a 0x1p-2", Reason::Invalid),
            ("a +nan", Reason::Invalid),
            ("a -NaN", Reason::Invalid),
            ("a 1 now", Reason::Invalid),
            ("a 1 2 3", Reason::Invalid),
            ("a{x=\"1\" 1", Reason::Invalid),
            ("a{x=\"1} 1", Reason::Invalid),
            ("a{x=1} 1", Reason::Invalid),
            ("a{x:y=\"1\"} 1", Reason::Invalid),
            ("a{x=\"\\t\"} 1", Reason::Invalid),
            ("a{x=\"1\",x=\"2\"} 1", Reason::Invalid),
            ("a{x=\"1\"y=\"2\"} 1", Reason::Invalid),
            ("{\"a.b\"} 1", Reason::Invalid),
            ("a{__name__=\"b\"} 1", Reason::Reserved),
            (&long, Reason::TooLong),
            (&long_value, Reason::TooLong),
            (&many, Reason::TooLong),
        ] {
            assert_eq!(read(line.as_bytes()), Err(reason), "{line}");
        }
        assert_eq!(read(b"a{x=\"\xff\"} 1"), Err(Reason::Invalid));
    }
}
