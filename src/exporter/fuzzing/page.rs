//! Pages, read back as strictly as Prometheus and promtool read them.

use std::collections::{BTreeMap, BTreeSet};

use crate::exporter::sources::metrics::line::{self, Line, number};

/// One line of a page, read back.
#[derive(Debug)]
pub(super) struct Series {
    pub family: String,
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Series {
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| label == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The series of a page in the text format 0.0.4.
///
/// # Errors
/// What Prometheus, or promtool, would not take.
pub(super) fn read_back(page: &str) -> Result<Vec<Series>, String> {
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut current, mut helped) = (None, None);
    let (mut series, mut seen, mut filled) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    for text in page.lines() {
        let wrong = |reason: &str| Err(format!("{reason}: {text:?}"));
        if let Some(help) = text.strip_prefix("# HELP ") {
            helped = help.split(' ').next();
            if helped.is_none_or(|name| families.contains_key(name)) {
                return wrong("a help text that comes late");
            }
        } else if let Some((name, kind)) = text.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            if helped.take().is_some_and(|helped| helped != name) || families.insert(name, kind).is_some() {
                return wrong("a family that begins twice, or in another's help");
            }
            if !["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind) {
                return wrong("an unknown type");
            }
            current = Some((name, kind));
        } else {
            let (Ok(Line::Sample { name, labels, value }), Some((family, kind))) =
                (line::read(text.as_bytes()), current)
            else {
                return wrong("neither a sample nor a comment");
            };
            if text.trim() != text || helped.is_some() || !belongs(name, family, kind) {
                return wrong("a sample in a foreign family");
            }
            if !is_allowed(name, family, kind, &labels, value) || labels.iter().any(|(_, value)| value.is_empty()) {
                return wrong("a value or a label that its type does not have");
            }
            let mut key: Vec<_> = labels
                .iter()
                .map(|(label, value)| (*label, normal(label, value)))
                .collect();
            key.sort_unstable();
            if !seen.insert((name, key)) {
                return wrong("a series twice");
            }
            filled.insert(family);
            series.push(Series {
                family: family.to_owned(),
                name: name.to_owned(),
                labels: labels
                    .iter()
                    .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                    .collect(),
                value,
            });
        }
    }
    for (family, kind) in &families {
        let taken = |part: &&&str| families.contains_key(format!("{family}{part}").as_str());
        if let Some(part) = parts(kind).iter().find(taken) {
            return Err(format!("{family}{part} is a family, and a part of {family}"));
        }
        if !filled.contains(family) {
            return Err(format!("{family} has no sample"));
        }
    }
    Ok(series)
}

fn parts(kind: &str) -> &'static [&'static str] {
    match kind {
        "histogram" => &["_bucket", "_sum", "_count"],
        "summary" => &["_sum", "_count"],
        _ => &[],
    }
}

fn belongs(name: &str, family: &str, kind: &str) -> bool {
    let part = name.strip_prefix(family);
    part.is_some_and(|part| (part.is_empty() && kind != "histogram") || parts(kind).contains(&part))
}

fn is_allowed(name: &str, family: &str, kind: &str, labels: &[(&str, &str)], value: f64) -> bool {
    let bound = |label| {
        labels
            .iter()
            .any(|(name, value)| *name == label && number(value).is_some())
    };
    let counts = value >= 0.0;
    match (kind, name.strip_prefix(family)) {
        ("counter", _) | ("histogram" | "summary", Some("_count")) => counts,
        ("histogram", Some("_bucket")) => counts && bound("le"),
        ("summary", Some("")) => bound("quantile"),
        _ => true,
    }
}

/// A value as Prometheus tells it from others: `1` and `1.0` are the same bound.
fn normal(label: &str, value: &str) -> String {
    let bound = number(value).filter(|_| matches!(label, "le" | "quantile"));
    bound.map_or_else(|| value.to_owned(), |bound| bound.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_would_not_take_is_seen() {
        let good = "# HELP h a\\nb\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum NaN\nh_count 2\n# TYPE u untyped\nu{x=\"1\"} -1\n";
        assert_eq!(read_back(good).map(|series| series.len()), Ok(4));
        for bad in [
            "# TYPE a gauge\na 1",
            "a 1\n",
            "# TYPE a gauge\n",
            "# TYPE a gauge\na 1\n# HELP a late\n# TYPE b gauge\nb 1\n",
            "# HELP a b\n# TYPE b gauge\nb 1\n",
            "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\na{x=\"1\"} 1\n",
            "# TYPE a number\na 1\n",
            "# TYPE a gauge\nb 1\n",
            "# TYPE a gauge\na 1\na 2\n",
            "# TYPE a gauge\n a 1\n",
            "# TYPE a gauge\na{x=\"\"} 1\n",
            "# TYPE a gauge\na{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n",
            "# TYPE a counter\na -1\n",
            "# TYPE a counter\na NaN\n",
            "# TYPE h histogram\nh 1\n",
            "# TYPE h histogram\nh_bucket 1\n",
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 1\n",
            "# TYPE h histogram\nh_count 1\n# TYPE h_sum gauge\nh_sum 1\n",
            "# TYPE s summary\ns 1\n",
            "\n",
            "a\u{0} 1\n",
        ] {
            assert!(read_back(bad).is_err(), "{bad}");
        }
    }
}
