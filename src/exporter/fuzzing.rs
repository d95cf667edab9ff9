//! What the fuzzers in `fuzz/` call: a parser reads what it is given, and what it made of it has to keep our promises. So a finding
//! is more than a panic. The seeds, and the inputs of former findings, run as plain tests too.

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::bounds::{
    DOCUMENT_BYTES, Dropped, FAMILIES, LABEL_BYTES, LABELS, LINE_BYTES, NAME_BYTES, PAGE_BYTES, PLUGINS, PLUGINS_BYTES,
    VALUE_BYTES, VALUES,
};
use super::page::Page;
use super::sources::fetch::Bot;
use super::sources::health::Health;
use super::sources::metrics::Metrics;
use super::sources::metrics::line::{self, Line};
use super::sources::plugins::Plugins;
use super::sources::{Source, logs as log};
use super::web_config::{LARGEST, understand};
use crate::catalogue::metrics::{ALL, BOT_COMMAND_COUNT_TOTAL, COMMANDS_TOTAL, DEPLOYMENTS, Metric};
use crate::sidecar::config::Endpoint;
use page::{Series, read_back};

/// Bytes of what is read as a log. Its lines are told from one another elsewhere; here each is read.
const LOG_BYTES: usize = 64 << 10;

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
            assert_eq!(again.dropped, Dropped::default());
        }
    }
}

/// Reads `data` as a plugins document, twice.
///
/// # Panics
/// When the page is not one that Prometheus takes, says more than a plugins document can, or is another one the second time.
pub fn plugins(data: &[u8]) {
    if data.len() > PLUGINS_BYTES {
        return;
    }
    let (bot, endpoint) = somewhere();
    for uptime in [false, true] {
        let plugins = Plugins::new(&bot, &endpoint, uptime);
        let reading = plugins.read_document(data.to_vec());
        for environment in ENVIRONMENTS {
            let series = kept(read_back(&print(&reading.page, environment)));
            let mut number: BTreeMap<_, usize> = BTreeMap::new();
            for series in &series {
                let metric = plugins.families().iter().find(|metric| metric.name == series.name);
                assert!(metric.is_some_and(|metric| has_labels(metric, series)), "{series:?}");
                assert!(series.value.is_finite() && series.value >= 0.0, "{series:?}");
                *number.entry(&series.name).or_default() += 1;
            }
            assert!(number.values().all(|number| *number <= PLUGINS), "{number:?}");
        }
        let again = plugins.read_document(data.to_vec());
        assert_eq!(
            (print(&again.page, None), again.dropped, again.problem),
            (print(&reading.page, None), reading.dropped, reading.problem),
            "the same document reads otherwise a second time"
        );
    }
}

/// Reads `data` as the bot's log.
///
/// # Panics
/// When the page is not one that Prometheus takes, loses a line, contradicts itself, or is another one after a restart.
#[expect(clippy::cast_precision_loss, reason = "a sample is a double")]
#[expect(clippy::float_cmp, reason = "the values are whole numbers")]
pub fn logs(data: &[u8]) {
    if data.len() > LOG_BYTES {
        return;
    }
    let counted = log::count(data);
    assert!(counted.is_some(), "what was saved can't be gone on with");
    let Some([page, again]) = counted else {
        return;
    };
    assert_eq!(
        print(&again, None),
        print(&page, None),
        "a restart changes what was counted"
    );
    for environment in ENVIRONMENTS {
        let series = kept(read_back(&print(&page, environment)));
        for series in &series {
            let metric = log::FAMILIES.iter().find(|metric| metric.name == series.family);
            let le = |label: &str| label == "le" && series.name.ends_with("_bucket");
            assert!(
                metric.is_some_and(|metric| has_labels_and(metric, series, le)),
                "{series:?}"
            );
            assert!(series.value.is_finite() && series.value >= 0.0, "{series:?}");
        }
        let sum = |of: &dyn Fn(&Series) -> bool| -> f64 {
            let found = series.iter().filter(|series| of(series));
            found.map(|series| series.value).sum()
        };
        let lines = data.split(|&byte| byte == b'\n');
        let lines = lines.filter(|line| !line.trim_ascii().is_empty()).count();
        let names = ["rosey_bot_log_lines_total", "rosey_exporter_log_lines_unparsed_total"];
        assert_eq!(sum(&|series| names.contains(&series.name.as_str())), lines as f64);

        let commands = series
            .iter()
            .filter(|series| series.name == BOT_COMMAND_COUNT_TOTAL.name)
            .collect::<Vec<_>>();
        assert!(commands.len() <= VALUES);
        for command in &commands {
            let both = sum(&|series| {
                series.name == COMMANDS_TOTAL.name && series.label("command") == command.label("command")
            });
            assert_eq!(both, command.value, "{command:?}");
        }
        let both = |metric: &Metric| sum(&|series| series.name == metric.name);
        assert_eq!(both(&COMMANDS_TOTAL), both(&BOT_COMMAND_COUNT_TOTAL));
        // In the order of their bounds, as they are printed.
        let buckets = series.iter().filter(|series| series.label("le").is_some());
        let buckets: Vec<_> = buckets.map(|bucket| bucket.value).collect();
        assert!(buckets.len() > 1 && buckets.is_sorted(), "{buckets:?}");
    }
}

/// Reads `data` as a web configuration file, twice.
///
/// # Panics
/// When it is refused in words that are no line of a log or give a hash away, or is judged otherwise the second time.
pub fn web_config(data: &[u8]) {
    if data.len() as u64 > LARGEST {
        return;
    }
    let outcome = understand(data);
    if let Err(reason) = &outcome {
        assert!(
            !reason.is_empty() && !reason.contains(char::is_control),
            "not one line: {reason:?}"
        );
        assert!(!reason.contains("$2"), "a hash is printed: {reason}");
    }
    assert_eq!(
        understand(data),
        outcome,
        "the same file is judged otherwise a second time"
    );
}

const ENVIRONMENTS: [Option<&str>; 2] = [None, Some("p\"r\\o\nd")];

fn somewhere() -> (Bot, Endpoint) {
    let endpoint = Endpoint {
        port: 1,
        path: "/".to_owned(),
        timeout_seconds: 1.0,
    };
    (Bot::at("127.0.0.1"), endpoint)
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
    has_labels_and(metric, series, |_| false)
}

fn has_labels_and(metric: &Metric, series: &Series, more: impl Fn(&str) -> bool) -> bool {
    let known = |label: &str| label == "environment" || metric.labels.contains(&label) || more(label);
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
    fn every_seed_of_a_plugins_document_keeps_the_promises() {
        seeds("plugins", plugins);
    }

    #[test]
    fn every_seed_of_a_log_keeps_the_promises() {
        seeds("logs", logs);
    }

    #[test]
    fn every_seed_of_a_web_configuration_keeps_the_promises() {
        seeds("web_config", web_config);
    }

    #[test]
    fn the_seeds_of_a_web_configuration_reach_its_certificates() {
        let inline = include_bytes!("../../fuzz/seeds/web_config/inline.yml");
        assert_eq!(understand(inline), Ok(()));
    }
}
