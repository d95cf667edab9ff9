//! A page of samples, and how it is written in the Prometheus text format 0.0.4.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use crate::catalogue::metrics::{Kind, Metric};

/// What the answer's `Content-Type` says.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names and values of a sample's labels, in the order of printing.
pub(crate) type Labels = Vec<(Cow<'static, str>, String)>;

/// Families by name; their order in the output is that of the alphabet, which keeps `x` before `x_sum`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    families: BTreeMap<Cow<'static, str>, Family>,
}

/// All samples of one name.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    pub kind: FamilyKind,
    pub help: Option<Cow<'static, str>>,
    pub samples: Vec<Sample>,
}

/// The types that the text format knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
}

/// One line of the output.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// What follows the family's name: nothing, `_bucket`, `_sum` or `_count`.
    pub suffix: &'static str,
    pub labels: Labels,
    pub value: f64,
}

impl FamilyKind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }
}

impl From<Kind> for FamilyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter,
            Kind::Gauge => Self::Gauge,
            Kind::Histogram => Self::Histogram,
        }
    }
}

impl Page {
    /// Adds a sample of one of our own families.
    pub fn add(&mut self, metric: &Metric, labels: &[(&'static str, &str)], value: f64) {
        self.add_part(metric, "", labels, value);
    }

    /// Adds `_bucket`, `_sum` or `_count` of one of our own histograms.
    pub fn add_part(&mut self, metric: &Metric, suffix: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels
            .iter()
            .map(|&(name, text)| (name.into(), text.to_owned()))
            .collect();
        self.own(metric).samples.push(Sample { suffix, labels, value });
    }

    fn own(&mut self, metric: &Metric) -> &mut Family {
        self.families.entry(metric.name.into()).or_insert_with(|| Family {
            kind: metric.kind.into(),
            help: Some(metric.help.into()),
            samples: Vec::new(),
        })
    }

    /// Adds a whole family that the bot said; a family of that name that is there already stays alone.
    pub fn insert(&mut self, name: String, family: Family) {
        self.families.entry(name.into()).or_insert(family);
    }

    /// Adds all of `other`, whose families are told apart from ours by their names.
    pub fn merge(&mut self, other: &Self) {
        for (name, family) in &other.families {
            match self.families.get_mut(name) {
                Some(ours) => ours.samples.extend_from_slice(&family.samples),
                None => {
                    self.families.insert(name.clone(), family.clone());
                }
            }
        }
    }

    /// Puts `label` with `value` on every sample of the families that `wanted` picks, where it is not there yet.
    pub fn label(&mut self, label: &'static str, value: &str, wanted: impl Fn(&str) -> bool) {
        for (_, family) in self.families.iter_mut().filter(|(name, _)| wanted(name)) {
            for sample in &mut family.samples {
                if sample.labels.iter().all(|(name, _)| name != label) {
                    sample.labels.push((label.into(), value.to_owned()));
                }
            }
        }
    }

    /// The page in the text format 0.0.4; families without samples are left out.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(4096);
        for (name, family) in self.families.iter().filter(|(_, family)| !family.samples.is_empty()) {
            if let Some(help) = &family.help {
                let help = help.replace('\\', "\\\\").replace('\n', "\\n");
                let _ = writeln!(out, "# HELP {name} {help}");
            }
            let _ = writeln!(out, "# TYPE {name} {}", family.kind.word());
            for sample in &family.samples {
                out.push_str(name);
                out.push_str(sample.suffix);
                for (i, (label, text)) in sample.labels.iter().enumerate() {
                    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    let _ = write!(out, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
                }
                if !sample.labels.is_empty() {
                    out.push('}');
                }
                let _ = writeln!(out, " {}", Value(sample.value));
            }
        }
        out
    }
}

/// A value as the format spells it, which differs from Rust's spelling for infinity.
pub(crate) struct Value(pub f64);

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            value if value.is_nan() => f.write_str("NaN"),
            value if value.is_infinite() => f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
            // Beyond this, the plain spelling is a row of zeros.
            value if value.abs() >= 1e17 => write!(f, "{value:e}"),
            value => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::metrics;

    #[test]
    fn a_page_is_printed_family_by_family_with_everything_escaped() {
        let mut page = Page::default();
        page.add(&metrics::DISK_FREE_BYTES, &[("path", "a\"b\\c\nd")], 1.5);
        page.add(&metrics::BOT_UP, &[], 1.0);
        page.add(&metrics::DISK_FREE_BYTES, &[("path", "data:/")], f64::INFINITY);
        page.label("environment", "prod", |name| name == "rosey_bot_up");
        assert_eq!(
            page.encode(),
            "# HELP rosey_bot_up Whether the bot says that it runs (1) or not, or does not answer (0).\n\
             # TYPE rosey_bot_up gauge\n\
             rosey_bot_up{environment=\"prod\"} 1\n\
             # HELP rosey_disk_free_bytes Bytes free to the bot on the file system of the path.\n\
             # TYPE rosey_disk_free_bytes gauge\n\
             rosey_disk_free_bytes{path=\"a\\\"b\\\\c\\nd\"} 1.5\n\
             rosey_disk_free_bytes{path=\"data:/\"} +Inf\n"
        );
    }

    #[test]
    fn a_value_is_spelled_as_prometheus_reads_it() {
        let spelled: Vec<_> = [0.0, 0.1, 17e9, 1e300, f64::NAN, f64::NEG_INFINITY]
            .map(|v| Value(v).to_string())
            .into();
        assert_eq!(spelled, ["0", "0.1", "17000000000", "1e300", "NaN", "-Inf"]);
    }
}
