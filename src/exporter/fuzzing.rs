//! What the fuzzers in `fuzz/` call: a parser reads what it is given, and what it made of it has to keep our promises. So a finding
//! is more than a panic. The seeds, and the inputs of former findings, run as plain tests too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::bounds::{
    DOCUMENT_BYTES, FAMILIES, LABEL_BYTES, LABELS, LINE_BYTES, NAME_BYTES, PAGE_BYTES, VALUE_BYTES, VALUES,
};
use super::page::Page;
use super::sources::Source;
use super::sources::fetch::Bot;
use super::sources::health::Health;
use super::sources::metrics::Metrics;
use super::sources::metrics::line::{self, Line, number};
use crate::catalogue::metrics::{ALL, DEPLOYMENTS, Metric};
use crate::sidecar::config::Endpoint;

/// Reads `data` as a health document.
///
/// # Panics
/// When the page is not one that Prometheus takes, or says more than a health document can.
pub fn health(data: &[u8]) {
    if data.len() > DOCUMENT_BYTES {
        return;
    }
    let (bot, endpoint) = somewhere();
    let health = Arc::new(Health::new(&bot, &endpoint));
    let reading = health.read_document(
        data.to_vec(),
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    );
    for environment in ENVIRONMENTS {
        let series = kept(read_back(&print(&reading.page, environment)));
        let up: Vec<_> = series.iter().filter(|series| series.name == "rosey_bot_up").collect();
        assert!(up.len() == 1 && [0.0, 1.0].contains(&up[0].value), "{up:?}");
        assert!(reading.problem.is_none() || up[0].value == 0.0, "{:?}", reading.problem);
        for series in &series {
            let metric = health.families().iter().find(|metric| metric.name == series.name);
            assert!(metric.is_some_and(|metric| has_labels(metric, series)), "{series:?}");
            assert!(series.value.is_finite() && series.value >= 0.0, "{series:?}");
        }
    }
}

/// Reads `data` as the bot's own metrics.
///
/// # Panics
/// When the page is not one that Prometheus takes, exceeds its bounds, speaks for others, or loses a sample without counting it.
pub fn metrics(data: &[u8]) {
    if data.len() > PAGE_BYTES {
        return;
    }
    let (bot, endpoint) = somewhere();
    let health = Health::new(&bot, &endpoint);
    let ours: Vec<_> = health.families().iter().chain(&DEPLOYMENTS).copied().collect();
    let reserved: BTreeSet<_> = ours.iter().map(|metric| metric.name).collect();
    for environment in ENVIRONMENTS {
        let fresh = || Metrics::new(&bot, &endpoint, reserved.clone(), environment);
        let mut metrics = fresh();
        let reading = metrics.pass(data);
        let text = reading.text.into_string();
        let series = kept(read_back(&text));
        within_bounds(&series);
        for Series { family, name, .. } in &series {
            let reserved = ours.iter().any(|metric| metric.name == family || metric.name == name);
            assert!(
                !reserved && name != "up" && !name.starts_with("rosey_exporter_"),
                "{name}"
            );
        }
        let dropped: u64 = reading.dropped.by_reason().map(|(_, number)| number).sum();
        let lines = || data.split(|&byte| byte == b'\n');
        let samples = lines().map(line::read);
        let samples = samples
            .filter(|line| matches!(line, Ok(Line::Sample { .. }) | Err(_)))
            .count() as u64;
        let told = series.len() as u64 + dropped;
        // Times of creation, and comments without an end, are left out without a word.
        let silent = |line: &[u8]| line.len() > LINE_BYTES || line.windows(8).any(|part| part == b"_created");
        assert!(told <= samples, "more than there was");
        assert!(told == samples || lines().any(silent), "a sample was lost");
        assert_eq!(
            metrics.pass(data).text.into_string(),
            text,
            "the same page passes otherwise a second time"
        );
        if environment.is_none() {
            let again = fresh().pass(text.as_bytes());
            // A help text is cut before it is escaped, so it may be cut a second time.
            let without_help = |text: &str| {
                text.lines()
                    .filter(|line| !line.starts_with("# HELP"))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                without_help(&again.text.into_string()),
                without_help(&text),
                "what passed does not pass"
            );
            assert_eq!(again.dropped, super::bounds::Dropped::default());
        }
    }
}

const ENVIRONMENTS: [Option<&str>; 2] = [None, Some("p\"r\\o\nd")];

fn somewhere() -> (Bot, Endpoint) {
    let host = "127.0.0.1".to_owned();
    let endpoint = Endpoint {
        port: 1,
        path: "/".to_owned(),
        timeout_seconds: 1.0,
    };
    (Bot { host }, endpoint)
}

fn print(page: &Page, environment: Option<&str>) -> String {
    let mut text = String::new();
    page.print(&mut text, environment);
    text
}

/// The outcome of a check; the message of a finding is its reason.
fn kept<T: Debug>(outcome: Result<T, String>) -> T {
    assert!(outcome.is_ok(), "{outcome:?}");
    #[expect(
        clippy::unwrap_used,
        reason = "asserted in the line above, with the reason in the message"
    )]
    outcome.unwrap()
}

fn has_labels(metric: &Metric, series: &Series) -> bool {
    let known = |label: &str| label == "environment" || metric.labels.contains(&label);
    series.labels.iter().all(|(label, _)| known(label))
}

fn within_bounds(series: &[Series]) {
    let families: BTreeSet<_> = series.iter().map(|series| &series.family).collect();
    // Those of the catalogue have places of their own.
    assert!(series.len() <= Metrics::most_series() && families.len() <= FAMILIES + 2 * ALL.len());
    let mut values: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for Series {
        family, name, labels, ..
    } in series
    {
        assert!(name.len() <= NAME_BYTES);
        let own: Vec<_> = labels.iter().filter(|(label, _)| label != "environment").collect();
        assert!(own.len() <= LABELS);
        for (label, value) in own {
            // As it is spelled: an escape is two bytes for one.
            assert!(label.len() <= LABEL_BYTES && value.len() <= 2 * VALUE_BYTES);
            values.entry((family, label)).or_default().insert(value);
        }
    }
    // Critical errors have places of their own, beside those of the family's other errors.
    assert!(values.values().all(|values| values.len() <= 2 * VALUES));
}

/// One line of a page, read back.
#[derive(Debug)]
struct Series {
    family: String,
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// The series of a page in the text format 0.0.4.
///
/// # Errors
/// What Prometheus, or promtool, would not take.
fn read_back(page: &str) -> Result<Vec<Series>, String> {
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

    /// Every file in a folder of seeds, which the fuzzers start from as well.
    fn seeds(target: &str, read: fn(&[u8])) {
        let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut seeds = 0;
        for seed in std::fs::read_dir(folder).unwrap() {
            let seed = seed.unwrap().path();
            eprintln!("{}", seed.display());
            read(&std::fs::read(seed).unwrap());
            seeds += 1;
        }
        assert!(seeds > 2);
    }

    #[test]
    fn every_seed_of_a_health_document_keeps_the_promises() {
        seeds("health", health);
    }

    #[test]
    fn every_seed_of_a_page_of_metrics_keeps_the_promises() {
        seeds("metrics", metrics);
    }

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
