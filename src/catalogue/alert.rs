//! What an alert is: a row with everything about it side by side.

use super::metrics::Metric;
use crate::api::alerts::{Pack, Severity};
use crate::api::quantities::quantity;
use crate::api::{Duration, RoseyMonitorSpec, Threshold};

/// One alert of the catalogue.
#[derive(Debug)]
pub struct Alert {
    /// Its name, as it stands in `alertname`.
    pub name: &'static str,
    /// The pack it belongs to.
    pub pack: Pack,
    /// The group it is evaluated in.
    pub group: Group,
    /// Value of the label `component`.
    pub component: &'static str,
    /// Whether it exists only where the environment is `prod` or `production`.
    pub production_only: bool,
    /// What its threshold is measured in.
    pub unit: Unit,
    /// From when on it has which severity.
    pub levels: &'static [Level],
    /// What gives the alert's series: the monitor must read one of these. Empty where the scrape itself or the operator does.
    pub needs: &'static [Source],
    /// The expression, for a subject.
    pub expr: fn(&Subject) -> String,
    /// One line. `{environment}`, `{monitor}`, `{path}`, `{pod}`, `{value}`, `{threshold}` and `{for}` are filled in.
    pub summary: &'static str,
    /// A sentence or two, filled in likewise.
    pub description: &'static str,
}

/// A set of alerts that are evaluated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The bot's health.
    Bot,
    /// The bot's errors.
    Errors,
    /// Deployments and rollbacks.
    Deployments,
    /// Volumes and backups.
    Storage,
}

impl Group {
    /// Name of the group in the rule, and how often it is evaluated.
    #[must_use]
    pub const fn name_and_interval(self) -> (&'static str, &'static str) {
        match self {
            Self::Bot => ("rosey-bot", "30s"),
            Self::Errors => ("rosey-errors", "30s"),
            Self::Deployments => ("rosey-deployments", "1m"),
            Self::Storage => ("rosey-storage", "1m"),
        }
    }
}

/// From when on an alert has a severity.
#[derive(Debug)]
pub struct Level {
    /// The severity.
    pub severity: Severity,
    /// The threshold, as a user would write it; empty where the alert has none.
    pub threshold: &'static str,
    /// How long the condition has to hold; empty for at once.
    pub hold: &'static str,
}

/// What a monitor can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `spec.bot.health`.
    Health,
    /// `spec.bot.metrics`.
    BotMetrics,
    /// `spec.bot.plugins`.
    Plugins,
    /// `spec.bot.logs`.
    Logs,
    /// `spec.exporter.disk`.
    Disk,
    /// `spec.exporter.backups`.
    Backups,
}

impl Source {
    /// Every source there is.
    pub const ALL: [Self; 6] = [
        Self::Health,
        Self::BotMetrics,
        Self::Plugins,
        Self::Logs,
        Self::Disk,
        Self::Backups,
    ];

    /// The field of a monitor that names it.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Health => "spec.bot.health",
            Self::BotMetrics => "spec.bot.metrics",
            Self::Plugins => "spec.bot.plugins",
            Self::Logs => "spec.bot.logs",
            Self::Disk => "spec.exporter.disk",
            Self::Backups => "spec.exporter.backups",
        }
    }

    /// Its value of the exporter's label `source`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::BotMetrics => "metrics",
            Self::Plugins => "plugins",
            Self::Logs => "logs",
            Self::Disk => "disk",
            Self::Backups => "backups",
        }
    }

    /// Whether a monitor reads it.
    #[must_use]
    pub fn is_read(self, spec: &RoseyMonitorSpec) -> bool {
        match self {
            Self::Health => spec.bot.health.is_some(),
            Self::BotMetrics => spec.bot.metrics.is_some(),
            Self::Plugins => spec.bot.plugins.is_some(),
            Self::Logs => spec.bot.logs.is_some(),
            Self::Disk => !spec.exporter.disk.is_empty(),
            Self::Backups => spec.exporter.backups.is_some(),
        }
    }
}

/// Which alerts are silent while another one fires.
#[derive(Debug)]
pub struct Inhibition {
    /// The alert that silences.
    pub source: &'static str,
    /// The alerts that are silenced.
    pub targets: &'static [&'static str],
}

/// What an expression speaks of.
#[derive(Debug)]
pub struct Subject {
    /// Matchers on namespace and monitor, without braces; every selector carries them.
    pub scope: String,
    /// The threshold as a `PromQL` number; empty where the alert has none.
    pub threshold: String,
    /// Seconds between two scrapes.
    pub scrape_interval: u64,
    /// What the monitor reads.
    pub sources: Vec<Source>,
}

impl Subject {
    /// A range of at least `seconds` that holds four scrapes, so that a rate has something to compare.
    #[must_use]
    pub fn range(&self, seconds: u64) -> String {
        format!("{}s", seconds.max(4 * self.scrape_interval))
    }

    /// Whether the monitor reads this source.
    #[must_use]
    pub fn reads(&self, source: Source) -> bool {
        self.sources.contains(&source)
    }

    /// What `of` says of a metric, in the spelling that the monitor has: ours, and where the bot's own metrics are passed through,
    /// its own too. The first that is there counts: ours where the exporter makes it from something else, else the bot's.
    #[must_use]
    pub fn spelled(&self, metric: &Metric, of: impl Fn(&str) -> String) -> String {
        if !self.reads(Source::BotMetrics) || metric.dialects.is_empty() {
            return of(metric.name);
        }
        let mut names = metric.dialects.to_vec();
        let made = self.reads(Source::Health) || self.reads(Source::Logs);
        names.insert(if made { 0 } else { names.len() }, metric.name);
        let spellings: Vec<_> = names.into_iter().map(of).collect();
        // A plain `or` keeps every series of the right side that has a label more, such as the bot's `channel`.
        format!("({})", spellings.join(" or on (namespace, rosey_monitor, pod) "))
    }

    /// The selector of a metric, spelled so.
    #[must_use]
    pub fn series(&self, metric: &Metric) -> String {
        self.spelled(metric, |name| format!("{name}{{{}}}", self.scope))
    }
}

/// What a threshold is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The alert has no threshold.
    None,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// A number of things.
    Count,
    /// Events per second.
    PerSecond,
}

impl Unit {
    /// The threshold as a `PromQL` number in the unit of the series.
    ///
    /// # Errors
    /// Why the text is no value of this unit, and what to write instead.
    pub fn number(self, threshold: &Threshold) -> Result<String, String> {
        let text = threshold.to_string();
        let value = match self {
            Self::None => return Err("the alert has no threshold; leave it out".into()),
            // A fraction of a byte is a slip: 5m is five thousandths.
            Self::Bytes => quantity(&text).filter(|bytes| *bytes == 0.0 || *bytes >= 1.0),
            Self::Milliseconds => decimal(&text).or_else(|| seconds(&text).map(|s| s * 1000.0)),
            Self::Seconds => decimal(&text).or_else(|| seconds(&text)),
            Self::Count | Self::PerSecond => decimal(&text),
        };
        match value {
            Some(value) if value.is_finite() => Ok(value.to_string()),
            _ => Err(format!("{text:?} is not {}", self.described())),
        }
    }

    const fn described(self) -> &'static str {
        match self {
            Self::None => "used",
            Self::Bytes => "an amount of memory or storage; write bytes or a quantity such as 500Mi",
            Self::Milliseconds => "a time in milliseconds; write a number such as 2000 or a duration such as 2s",
            Self::Seconds => "a length of time; write seconds or a duration such as 48h",
            Self::Count => "a number; write one such as 3",
            Self::PerSecond => "a rate; write events per second such as \"0.1\"",
        }
    }

    /// A threshold as people read it; `number` is what [`Unit::number`] made of `written`.
    #[must_use]
    pub fn described_threshold(self, written: &str, number: &str) -> String {
        match self {
            Self::Milliseconds => format!("{number} ms"),
            Self::Seconds if decimal(written).is_some() => format!("{written}s"),
            Self::Bytes if decimal(written).is_some() => format!("{written} bytes"),
            Self::Bytes | Self::Seconds | Self::None | Self::Count | Self::PerSecond => written.to_owned(),
        }
    }

    /// The template that shows a value of this unit to a person.
    #[must_use]
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Bytes => "{{ $value | humanize1024 }}B",
            Self::Milliseconds => "{{ $value | humanize }} ms",
            Self::Seconds => "{{ $value | humanizeDuration }}",
            Self::None | Self::Count => "{{ $value | humanize }}",
            Self::PerSecond => "{{ $value | humanize }}/s",
        }
    }
}

/// A plain decimal without sign or exponent.
fn decimal(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain && !text.starts_with('.') && !text.ends_with('.') {
        text.parse().ok()
    } else {
        None
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a duration of at most six digits an hour is far below 2^53"
)]
fn seconds(text: &str) -> Option<f64> {
    Duration(text.into()).seconds().map(|s| s as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Threshold {
        Threshold::Text(text.into())
    }

    #[test]
    fn a_threshold_is_read_in_the_unit_of_its_alert() {
        for (unit, threshold, number) in [
            (Unit::Bytes, text("500Mi"), "524288000"),
            (Unit::Bytes, text("1.5Gi"), "1610612736"),
            (Unit::Bytes, Threshold::Number(1), "1"),
            (Unit::Milliseconds, text("2s"), "2000"),
            (Unit::Milliseconds, Threshold::Number(1500), "1500"),
            (Unit::Seconds, text("48h"), "172800"),
            (Unit::Seconds, text("90"), "90"),
            (Unit::PerSecond, text("0.1"), "0.1"),
            (Unit::Count, Threshold::Number(3), "3"),
        ] {
            assert_eq!(
                unit.number(&threshold).as_deref(),
                Ok(number),
                "{threshold} as {unit:?}"
            );
        }
    }

    #[test]
    fn a_threshold_is_shown_with_its_unit_however_it_was_written() {
        for (unit, written, shown) in [
            (Unit::Milliseconds, "2s", "2000 ms"),
            (Unit::Milliseconds, "1500", "1500 ms"),
            (Unit::Seconds, "90", "90s"),
            (Unit::Seconds, "48h", "48h"),
            (Unit::Bytes, "500Mi", "500Mi"),
            (Unit::Bytes, "1024", "1024 bytes"),
            (Unit::Count, "3", "3"),
        ] {
            let number = unit.number(&text(written)).unwrap();
            assert_eq!(unit.described_threshold(written, &number), shown);
        }
    }

    #[test]
    fn a_threshold_of_another_unit_is_refused_with_the_unit() {
        for (unit, threshold, word) in [
            (Unit::Bytes, text("3 bananas"), "500Mi"),
            (Unit::Bytes, text("5m"), "500Mi"),
            (Unit::Milliseconds, text("2000ms"), "2s"),
            (Unit::Seconds, text("2d"), "48h"),
            (Unit::Count, text("80%"), "3"),
            (Unit::Count, Threshold::Number(-1), "3"),
            (Unit::PerSecond, text("1e400"), "0.1"),
            (Unit::PerSecond, text("NaN"), "0.1"),
            (Unit::Count, text("1.2.3"), "3"),
            (Unit::None, Threshold::Number(1), "leave it out"),
        ] {
            let refusal = unit.number(&threshold).unwrap_err();
            assert!(refusal.contains(word), "{refusal}");
        }
    }
}
