//! What was counted in the bot's log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::line::{Level, Line};
use crate::catalogue::metrics::{
    BOT_COMMAND_COUNT_TOTAL, BOT_ERROR_COUNT_TOTAL, COMMAND_LATENCY_SECONDS, COMMANDS_TOTAL,
    EXPORTER_LOG_COMMANDS_DROPPED_TOTAL, EXPORTER_LOG_LINES_UNPARSED_TOTAL, EXPORTER_LOG_ROTATIONS_TOTAL,
    EXPORTER_LOG_TRUNCATIONS_TOTAL, LATENCY_BUCKETS, LOG_LINES_TOTAL,
};
use crate::exporter::bounds::{VALUE_BYTES, VALUES};
use crate::exporter::histogram::Histogram;
use crate::exporter::page::Page;

/// A command that was not executed for this long gives its place to a new one, if there is no other. Before, not even a flood of
/// made-up names takes it; and without a flood, one that is executed once a month keeps its counter.
const KEPT: Duration = Duration::from_secs(3600);
/// The longest execution that is believed, in milliseconds: a day. One line must not spoil the sum for ever.
const LONGEST: f64 = 86_400_000.0;

/// Counters, from the first line on, also those of a process before this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tally {
    /// By the places of [`Level::ALL`].
    levels: [u64; Level::ALL.len()],
    pub unparsed: Unparsed,
    /// At most [`VALUES`].
    commands: BTreeMap<String, Executions>,
    /// Executions of commands that have no series of their own.
    left_out: LeftOut,
    latency: Histogram,
    pub rotations: u64,
    pub truncations: u64,
}

/// Lines that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unparsed {
    pub invalid: u64,
    pub too_long: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftOut {
    /// Files of before do not have it.
    #[serde(default)]
    invalid: u64,
    too_long: u64,
    too_many_values: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Executions {
    succeeded: u64,
    failed: u64,
    #[serde(skip, default = "Instant::now")]
    last: Instant,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            levels: [0; Level::ALL.len()],
            unparsed: Unparsed::default(),
            commands: BTreeMap::new(),
            left_out: LeftOut::default(),
            latency: Histogram::new(&LATENCY_BUCKETS),
            rotations: 0,
            truncations: 0,
        }
    }
}

/// A file may say that a counter is at its end already.
pub(super) fn one_more(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

impl Tally {
    /// Whether one that was saved can be gone on with.
    pub fn is_sensible(&self) -> bool {
        self.latency.fits(&LATENCY_BUCKETS)
            && self.commands.len() <= VALUES
            && self
                .commands
                .keys()
                .all(|command| command.len() <= VALUE_BYTES && !command.contains('\0'))
    }

    /// Counts a line, which is not longer than allowed and without its line feed. An empty one is none.
    pub fn line(&mut self, line: &[u8], now: Instant) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        let Some(line) = Line::parse(line) else {
            one_more(&mut self.unparsed.invalid);
            return;
        };
        one_more(&mut self.levels[line.level as usize]);
        let Some(command) = line.command.as_deref() else {
            return;
        };
        if let Some(milliseconds) = line.milliseconds.filter(|time| (0.0..=LONGEST).contains(time)) {
            self.latency.observe(&LATENCY_BUCKETS, milliseconds / 1e3);
        }
        let succeeded = !line.level.is_failure() && line.success != Some(false);
        if let Some(executions) = self.executions(command, now) {
            executions.last = now;
            one_more(if succeeded {
                &mut executions.succeeded
            } else {
                &mut executions.failed
            });
        }
    }

    /// The counters of `command`, if it has or now gets a place.
    fn executions(&mut self, command: &str, now: Instant) -> Option<&mut Executions> {
        // The bot's own metrics can't say it either.
        if command.contains('\0') {
            one_more(&mut self.left_out.invalid);
            return None;
        }
        if command.len() > VALUE_BYTES {
            one_more(&mut self.left_out.too_long);
            return None;
        }
        if !self.commands.contains_key(command) {
            if self.commands.len() >= VALUES && !self.make_room(now) {
                one_more(&mut self.left_out.too_many_values);
                return None;
            }
            let none = Executions {
                succeeded: 0,
                failed: 0,
                last: now,
            };
            self.commands.insert(command.to_owned(), none);
        }
        self.commands.get_mut(command)
    }

    fn make_room(&mut self, now: Instant) -> bool {
        let idlest = self.commands.iter().min_by_key(|(_, executions)| executions.last);
        let idle = idlest.filter(|(_, executions)| now.saturating_duration_since(executions.last) >= KEPT);
        let Some(command) = idle.map(|(command, _)| command.clone()) else {
            return false;
        };
        self.commands.remove(&command);
        true
    }

    /// Every series.
    #[expect(clippy::cast_precision_loss, reason = "a sample is a double")]
    pub fn print(&self, page: &mut Page) {
        for ((level, word), lines) in Level::ALL.into_iter().zip(self.levels) {
            page.add(&LOG_LINES_TOTAL, &[("level", word)], lines as f64);
            if level.is_failure() {
                page.add(&BOT_ERROR_COUNT_TOTAL, &[("error_type", word)], lines as f64);
            }
        }
        for (command, Executions { succeeded, failed, .. }) in &self.commands {
            let both = succeeded.saturating_add(*failed);
            page.add(&BOT_COMMAND_COUNT_TOTAL, &[("command", command)], both as f64);
            for (success, count) in [("true", succeeded), ("false", failed)] {
                let labels = [("command", command.as_str()), ("success", success)];
                page.add(&COMMANDS_TOTAL, &labels, *count as f64);
            }
        }
        self.latency.print(page, &COMMAND_LATENCY_SECONDS, &LATENCY_BUCKETS);
        let Unparsed { invalid, too_long } = self.unparsed;
        for (reason, lines) in [("invalid", invalid), ("too_long", too_long)] {
            page.add(&EXPORTER_LOG_LINES_UNPARSED_TOTAL, &[("reason", reason)], lines as f64);
        }
        let LeftOut {
            invalid,
            too_long,
            too_many_values,
        } = self.left_out;
        for (reason, number) in [
            ("invalid", invalid),
            ("too_long", too_long),
            ("too_many_values", too_many_values),
        ] {
            page.add(
                &EXPORTER_LOG_COMMANDS_DROPPED_TOTAL,
                &[("reason", reason)],
                number as f64,
            );
        }
        page.add(&EXPORTER_LOG_ROTATIONS_TOTAL, &[], self.rotations as f64);
        page.add(&EXPORTER_LOG_TRUNCATIONS_TOTAL, &[], self.truncations as f64);
    }

    /// Lines of all kinds.
    #[cfg(test)]
    pub fn lines(&self) -> u64 {
        self.levels.iter().sum::<u64>() + self.unparsed.invalid + self.unparsed.too_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(tally: &Tally) -> Vec<String> {
        let mut page = Page::default();
        tally.print(&mut page);
        let text = page.text();
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
        samples.collect()
    }

    fn dropped(tally: &Tally, reason: &str) -> u64 {
        let series = format!("rosey_exporter_log_commands_dropped_total{{reason=\"{reason}\"}} ");
        let samples = samples(tally);
        let found = samples.iter().find_map(|line| line.strip_prefix(&series));
        found.unwrap().parse().unwrap()
    }

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.line(line.as_bytes(), Instant::now());
        }
        tally
    }

    #[test]
    fn every_label_set_that_is_known_is_there_from_the_start() {
        let samples = samples(&Tally::default());
        for line in [
            "rosey_bot_log_lines_total{level=\"debug\"} 0",
            "rosey_bot_log_lines_total{level=\"other\"} 0",
            "rosey_bot_error_count_total{error_type=\"error\"} 0",
            "rosey_bot_error_count_total{error_type=\"critical\"} 0",
            "bot_command_latency_seconds_bucket{le=\"3\"} 0",
            "bot_command_latency_seconds_count 0",
            "rosey_exporter_log_lines_unparsed_total{reason=\"invalid\"} 0",
            "rosey_exporter_log_lines_unparsed_total{reason=\"too_long\"} 0",
            "rosey_exporter_log_commands_dropped_total{reason=\"invalid\"} 0",
            "rosey_exporter_log_commands_dropped_total{reason=\"too_long\"} 0",
            "rosey_exporter_log_commands_dropped_total{reason=\"too_many_values\"} 0",
            "rosey_exporter_log_rotations_total 0",
            "rosey_exporter_log_truncations_total 0",
        ] {
            assert!(samples.iter().any(|found| found == line), "{line} in\n{samples:#?}");
        }
    }

    #[test]
    fn lines_are_counted_by_level_and_commands_by_success() {
        let tally = tally(&[
            r#"{"level": "INFO", "command": "play", "execution_time_ms": 2500, "user_id": "42"}"#,
            r#"{"level": "ERROR", "command": "play", "execution_time_ms": 0.5}"#,
            r#"{"level": "INFO", "command": "play", "success": false, "execution_time_ms": -1}"#,
            r#"{"level": "INFO", "command": "skip", "success": true, "execution_time_ms": 1e300}"#,
            r#"{"level": "CRITICAL", "message": "help"}"#,
            "",
            "  \r",
            "not json",
        ]);
        let samples = samples(&tally);
        for line in [
            "rosey_bot_log_lines_total{level=\"info\"} 3",
            "rosey_bot_log_lines_total{level=\"error\"} 1",
            "rosey_bot_error_count_total{error_type=\"error\"} 1",
            "rosey_bot_error_count_total{error_type=\"critical\"} 1",
            "rosey_bot_command_count_total{command=\"play\"} 3",
            "bot_commands_total{command=\"play\",success=\"true\"} 1",
            "bot_commands_total{command=\"play\",success=\"false\"} 2",
            "bot_commands_total{command=\"skip\",success=\"false\"} 0",
            "bot_command_latency_seconds_bucket{le=\"0.01\"} 1",
            "bot_command_latency_seconds_bucket{le=\"3\"} 2",
            "bot_command_latency_seconds_count 2",
            "bot_command_latency_seconds_sum 2.5005",
            "rosey_exporter_log_lines_unparsed_total{reason=\"invalid\"} 1",
        ] {
            assert!(samples.iter().any(|found| found == line), "{line} in\n{samples:#?}");
        }
        assert!(!samples.concat().contains("42"));
        assert_eq!(tally.lines(), 6);
    }

    #[test]
    fn a_flood_of_names_keeps_the_first_and_is_counted_without_them() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let execute = |tally: &mut Tally, command: &str, at| {
            let line = format!("{{\"level\": \"info\", \"command\": \"{command}\", \"execution_time_ms\": 1}}");
            tally.line(line.as_bytes(), at);
        };
        for number in 0..1_000 {
            execute(&mut tally, &format!("c{number}"), start);
        }
        execute(&mut tally, &"x".repeat(300), start);
        assert_eq!(tally.commands.len(), VALUES);
        assert!(tally.commands.contains_key("c0"));
        assert_eq!(dropped(&tally, "too_many_values"), 800);
        assert_eq!(dropped(&tally, "too_long"), 1);
        assert_eq!(tally.latency.count(), 1_001);
        assert_eq!(tally.lines(), 1_001);

        // Those that are still executed stay; the others make room, one each.
        let later = start + KEPT;
        execute(&mut tally, "c0", later);
        execute(&mut tally, "new", later);
        assert!(tally.commands.contains_key("c0") && tally.commands.contains_key("new"));
        assert_eq!(tally.commands.len(), VALUES);
    }

    #[test]
    fn a_command_with_a_byte_that_no_label_has_is_counted_without_its_name() {
        let tally = tally(&[r#"{"level": "ERROR", "command": "a\u0000b", "execution_time_ms": 1}"#]);
        let samples = samples(&tally);
        assert_eq!((tally.commands.len(), tally.latency.count()), (0, 1));
        assert_eq!(dropped(&tally, "invalid"), 1);
        assert!(!samples.concat().contains('\0'));

        // A file from before has no such count.
        let text = serde_json::to_string(&tally).unwrap();
        let before = text.replace("\"invalid\":1,\"too_long\":0,\"too_many", "\"too_long\":0,\"too_many");
        assert_ne!(before, text);
        assert!(serde_json::from_str::<Tally>(&before).unwrap().is_sensible());
        let odd = text.replace(
            "\"commands\":{}",
            r#""commands":{"a\u0000":{"succeeded":1,"failed":0}}"#,
        );
        assert!(!serde_json::from_str::<Tally>(&odd).unwrap().is_sensible());
    }

    #[test]
    fn a_tally_goes_on_as_it_was_saved() {
        let mut tally = tally(&[
            r#"{"level": "error", "command": "a\"b\\", "execution_time_ms": 0.1}"#,
            "x",
        ]);
        tally.rotations = 3;
        let text = serde_json::to_string(&tally).unwrap();
        let back: Tally = serde_json::from_str(&text).unwrap();
        assert!(back.is_sensible());
        assert_eq!(samples(&back), samples(&tally));

        let mut crowded = tally.clone();
        let one = tally.commands.values().next().unwrap();
        crowded.commands = (0..=VALUES).map(|number| (number.to_string(), one.clone())).collect();
        assert!(!crowded.is_sensible());
        let other = text.replace("\"buckets\":[", "\"buckets\":[0,");
        assert!(!serde_json::from_str::<Tally>(&other).unwrap().is_sensible());
    }
}
