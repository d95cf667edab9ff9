//! The bot's plugins: a JSON document with a list of them, and with what the bot says of itself.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::document::{Fields, each, without_nan};
use super::fetch::{Bot, Fetch};
use super::{Reading, Source};
use crate::catalogue::metrics::{self as series, Metric};
use crate::exporter::bounds::{Admitted, Dropped, PLUGIN_BYTES, PLUGINS, PLUGINS_BYTES, Reason};
use crate::exporter::locked;
use crate::exporter::page::Page;
use crate::sidecar::config::Endpoint;

/// Different versions of one plugin that pass within an hour.
const VERSIONS: usize = 8;

const DOCUMENT: [&str; 2] = ["plugins", "system"];
const SYSTEM: [&str; 3] = ["bot_uptime_seconds", "total_plugins", "plugins_running"];
const PLUGIN: [&str; 8] = [
    "name",
    "version",
    "state",
    "uptime_seconds",
    "cpu_percent",
    "memory_mb",
    "event_count",
    "crash_count",
];

const FAMILIES: [&Metric; 10] = [
    &series::PLUGIN_CPU_PERCENT,
    &series::PLUGIN_MEMORY_MB,
    &series::PLUGIN_UPTIME_SECONDS,
    &series::PLUGIN_EVENTS_TOTAL,
    &series::PLUGIN_CRASHES_TOTAL,
    &series::PLUGIN_RUNNING,
    &series::PLUGIN_INFO,
    &series::TOTAL_PLUGINS,
    &series::PLUGINS_RUNNING,
    &series::BOT_UPTIME_SECONDS,
];

/// The bot's plugins endpoint.
pub(crate) struct Plugins {
    fetch: Fetch,
    /// Whether the bot's uptime is told from here: only where no health document tells it.
    uptime: bool,
    admitted: Mutex<Admitted>,
}

impl Plugins {
    pub fn new(bot: &Bot, endpoint: &Endpoint, uptime: bool) -> Self {
        Self {
            fetch: Fetch::new(bot, endpoint, "application/json", PLUGINS_BYTES),
            uptime,
            admitted: Mutex::new(Admitted::new((1 + VERSIONS) * PLUGINS)),
        }
    }

    pub(crate) fn read_document(&self, body: Vec<u8>) -> Reading {
        let body = without_nan(body);
        let fields = match Fields::of(&body, &DOCUMENT) {
            Ok(fields) => fields,
            Err(error) => return Reading::failed(Page::default(), format!("the plugins document {error}")),
        };
        let mut admitted = locked(&self.admitted);
        admitted.forget(Instant::now());
        let mut list = List {
            admitted: &mut admitted,
            page: Page::default(),
            dropped: Dropped::default(),
            names: HashSet::new(),
            total: 0,
            running: 0,
        };
        let is_list = fields
            .raw("plugins")
            .is_some_and(|plugins| each(plugins, |plugin| list.add(plugin)));
        let (mut page, mut dropped) = (list.page, list.dropped);
        let mut said = [None; SYSTEM.len()];
        if let Some(system) = fields.raw("system") {
            match Fields::of_value(system, &SYSTEM) {
                Ok(system) => said = SYSTEM.map(|field| system.number(field, &mut dropped)),
                Err(_) => dropped.count(Reason::Invalid),
            }
        }
        let [uptime, total, running] = said;
        let counted = |number: u32| is_list.then_some(f64::from(number));
        for (metric, value) in [
            (&series::TOTAL_PLUGINS, total.or(counted(list.total))),
            (&series::PLUGINS_RUNNING, running.or(counted(list.running))),
            (&series::BOT_UPTIME_SECONDS, uptime.filter(|_| self.uptime)),
        ] {
            if let Some(value) = value {
                page.add(metric, &[], value);
            }
        }
        Reading {
            dropped,
            problem: (!is_list).then(|| "the plugins document has no list \"plugins\"".to_owned()),
            ..Reading::of(page)
        }
    }
}

impl Source for Plugins {
    fn name(&self) -> &'static str {
        "plugins"
    }

    fn timeout(&self) -> Duration {
        self.fetch.timeout()
    }

    fn families(&self) -> &'static [&'static Metric] {
        let without_uptime = FAMILIES.len() - 1;
        if self.uptime {
            &FAMILIES
        } else {
            &FAMILIES[..without_uptime]
        }
    }

    fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
        Box::pin(async move {
            match self.fetch.get().await {
                Ok(body) => self.read_document(body),
                Err(error) => Reading::failed(Page::default(), error.to_string()),
            }
        })
    }
}

/// The plugins of one document, as far as it was read.
struct List<'a> {
    admitted: &'a mut Admitted,
    page: Page,
    dropped: Dropped,
    names: HashSet<String>,
    total: u32,
    running: u32,
}

impl List<'_> {
    /// Adds a plugin; the counts take those in, too, that have no series.
    fn add(&mut self, plugin: &RawValue) {
        self.total += 1;
        if let Err(reason) = self.read(plugin) {
            self.dropped.count(reason);
        }
    }

    fn read(&mut self, plugin: &RawValue) -> Result<(), Reason> {
        let fields = Fields::of_value(plugin, &PLUGIN).map_err(|_| Reason::Invalid)?;
        let state = fields.text("state", &mut self.dropped);
        let runs = state.map(|state| state.eq_ignore_ascii_case("running"));
        self.running += u32::from(runs == Some(true));

        let mut unseen = Dropped::default();
        let name = fields.text("name", &mut unseen).ok_or(Reason::Invalid)?;
        is_label(&name)?;
        let now = Instant::now();
        if self.names.contains(&name) {
            return Err(Reason::Duplicate);
        }
        if !self.admitted.admit("name", &name, PLUGINS, now) {
            return Err(Reason::TooManyValues);
        }
        let labels = &[("plugin", name.as_str())];
        for (field, metric) in [
            ("cpu_percent", &series::PLUGIN_CPU_PERCENT),
            ("memory_mb", &series::PLUGIN_MEMORY_MB),
            ("uptime_seconds", &series::PLUGIN_UPTIME_SECONDS),
            ("event_count", &series::PLUGIN_EVENTS_TOTAL),
            ("crash_count", &series::PLUGIN_CRASHES_TOTAL),
        ] {
            if let Some(value) = fields.number(field, &mut self.dropped) {
                self.page.add(metric, labels, value);
            }
        }
        if let Some(runs) = runs {
            self.page.add(&series::PLUGIN_RUNNING, labels, f64::from(runs));
        }
        if let Some(version) = fields
            .text("version", &mut self.dropped)
            .filter(|text| !text.is_empty())
        {
            let passes = is_label(&version).and_then(|()| {
                let admitted = self.admitted.admit(("version", &name), &version, VERSIONS, now);
                if admitted { Ok(()) } else { Err(Reason::TooManyValues) }
            });
            match passes {
                Ok(()) => {
                    let labels = &[("plugin", name.as_str()), ("version", version.as_str())];
                    self.page.add(&series::PLUGIN_INFO, labels, 1.0);
                }
                Err(reason) => self.dropped.count(reason),
            }
        }
        self.names.insert(name);
        Ok(())
    }
}

fn is_label(text: &str) -> Result<(), Reason> {
    if text.is_empty() || text.contains('\0') {
        Err(Reason::Invalid)
    } else if text.len() > PLUGIN_BYTES {
        Err(Reason::TooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins(uptime: bool) -> Plugins {
        let endpoint = Endpoint {
            port: 8080,
            path: "/api/metrics".into(),
            timeout_seconds: 2.0,
        };
        Plugins::new(&Bot::at("127.0.0.1"), &endpoint, uptime)
    }

    fn samples(reading: &Reading) -> Vec<String> {
        let page = reading.page.text();
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.trim_start_matches("rosey_").to_owned())
            .collect()
    }

    fn dropped(reading: &Reading) -> Vec<(&'static str, u64)> {
        reading.dropped.by_reason().filter(|(_, number)| *number > 0).collect()
    }

    const DOCUMENT: &str = r#"{"timestamp": "2025-12-01T10:30:00Z",
        "plugins": [
            {"name": "dice-roller", "version": "1.0", "pid": 12345, "state": "RUNNING", "uptime_seconds": 3600,
             "cpu_percent": 1.2, "memory_mb": 45.3, "event_count": 1234, "crash_count": 0},
            {"name": "quotes", "state": "crashed", "crash_count": 3}],
        "system": {"bot_uptime_seconds": 86400, "bot_uptime_human": "1d 0h", "total_plugins": 3, "plugins_running": 2,
                   "plugins_crashed": 1, "total_events": 5000}}"#;

    #[test]
    fn every_plugin_has_the_series_that_it_speaks_of() {
        let reading = plugins(false).read_document(DOCUMENT.into());
        assert_eq!(
            samples(&reading),
            [
                r#"plugin_cpu_percent{plugin="dice-roller"} 1.2"#,
                r#"plugin_crashes_total{plugin="dice-roller"} 0"#,
                r#"plugin_crashes_total{plugin="quotes"} 3"#,
                r#"plugin_events_total{plugin="dice-roller"} 1234"#,
                r#"plugin_info{plugin="dice-roller",version="1.0"} 1"#,
                r#"plugin_memory_mb{plugin="dice-roller"} 45.3"#,
                r#"plugin_running{plugin="dice-roller"} 1"#,
                r#"plugin_running{plugin="quotes"} 0"#,
                r#"plugin_uptime_seconds{plugin="dice-roller"} 3600"#,
                "plugins_running 2",
                "total_plugins 3",
            ]
        );
        assert_eq!((reading.problem.as_ref(), dropped(&reading)), (None, vec![]));
    }

    #[test]
    fn the_bots_uptime_is_told_only_where_no_health_document_tells_it() {
        let uptime = |source: &Plugins| {
            let samples = samples(&source.read_document(DOCUMENT.into()));
            let told = samples.contains(&"bot_uptime_seconds 86400".to_owned());
            let names = source.families().iter().map(|family| family.name).collect::<Vec<_>>();
            assert_eq!(names.contains(&"rosey_bot_uptime_seconds"), told);
            told
        };
        assert!(uptime(&plugins(true)));
        assert!(!uptime(&plugins(false)));
    }

    #[test]
    fn what_the_system_does_not_say_is_counted_in_the_list() {
        let reading = plugins(true).read_document(
            br#"{"plugins": [{"name": "a", "state": "Running"}, {"state": "RUNNING"}, {"name": "c"}], "system": {"plugins_running": "all"}}"#
                .into(),
        );
        let samples = samples(&reading);
        assert_eq!(
            samples,
            ["plugin_running{plugin=\"a\"} 1", "plugins_running 2", "total_plugins 3"]
        );
        assert_eq!(dropped(&reading), [("invalid", 2)]);
    }

    #[test]
    fn a_field_of_a_wrong_type_costs_itself_and_a_nameless_plugin_its_series() {
        let reading = plugins(true).read_document(
            br#"{"plugins": [{"name": "a", "cpu_percent": "1", "memory_mb": NaN, "event_count": -1, "crash_count": 1e400,
                 "uptime_seconds": 5, "state": 1, "version": 2},
                 {"name": ""}, {"name": 5}, 5, null, {"name": "a", "uptime_seconds": 6}, {"name": "x\u0000"}], "system": []}"#
                .into(),
        );
        assert_eq!(
            samples(&reading),
            [
                "plugin_uptime_seconds{plugin=\"a\"} 5",
                "plugins_running 0",
                "total_plugins 7"
            ]
        );
        assert_eq!(dropped(&reading), [("invalid", 11), ("duplicate", 1)]);
    }

    #[test]
    fn the_first_plugins_keep_their_places_among_very_many() {
        let source = plugins(true);
        let document = |numbers: &mut dyn Iterator<Item = u32>| {
            let list: Vec<_> = numbers
                .map(|i| format!("{{\"name\": \"p{i}\", \"state\": \"running\"}}"))
                .collect();
            format!("{{\"plugins\": [{}]}}", list.join(",")).into_bytes()
        };
        let first = source.read_document(document(&mut (0..1_000)));
        let again = source.read_document(document(&mut (0..1_000).rev()));
        let sorted = |reading: &Reading| {
            let mut samples = samples(reading);
            samples.sort_unstable();
            samples
        };
        assert_eq!(sorted(&first), sorted(&again));
        assert_eq!(sorted(&first).len(), PLUGINS + 2);
        assert_eq!(dropped(&first), [("too_many_values", 1_000 - PLUGINS as u64)]);
    }

    #[test]
    fn what_is_no_plugins_document_is_a_problem() {
        for document in ["", "<html>", "[]", "{\"plugins\": [1", "{\"plugins\": {}}", "{}"] {
            let reading = plugins(true).read_document(document.into());
            assert!(reading.problem.is_some(), "{document}");
            assert!(samples(&reading).is_empty(), "{document}");
        }
    }
}
