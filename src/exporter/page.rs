//! A page of samples, and how it is written in the Prometheus text format 0.0.4.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use crate::catalogue::metrics::{self, Kind, Metric};

/// What the answer's `Content-Type` says.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A sample's labels as they are printed. As text they take a tenth of the memory that names and values of their own would.
#[derive(Debug, Default)]
struct Labels {
    text: Box<str>,
    has_environment: bool,
}

impl Labels {
    fn new(labels: &[(&str, &str)]) -> Self {
        let (mut text, mut has_environment) = (String::new(), false);
        for (name, value) in labels {
            let between = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{between}{name}=\"{}\"", escaped(value));
            has_environment |= *name == "environment";
        }
        Self {
            text: text.into(),
            has_environment,
        }
    }
}

/// Families by name; their order in the output is that of the alphabet, which keeps `x` before `x_sum`.
#[derive(Debug, Default)]
pub(crate) struct Page {
    families: BTreeMap<&'static str, Family>,
}

/// All samples of one name.
#[derive(Debug)]
struct Family {
    kind: FamilyKind,
    help: &'static str,
    samples: Vec<Sample>,
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
#[derive(Debug)]
struct Sample {
    /// What follows the family's name: nothing, `_bucket`, `_sum` or `_count`.
    suffix: &'static str,
    labels: Labels,
    value: f64,
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
        let labels = Labels::new(labels);
        self.own(metric).samples.push(Sample { suffix, labels, value });
    }

    fn own(&mut self, metric: &Metric) -> &mut Family {
        self.families.entry(metric.name).or_insert_with(|| Family {
            kind: metric.kind.into(),
            help: metric.help,
            samples: Vec::new(),
        })
    }

    /// Writes the page in the text format 0.0.4, with `environment` as a label of the bot's series, unless they have one.
    /// Families without samples are left out.
    pub fn print(&self, out: &mut impl Write, environment: Option<&str>) {
        for (name, family) in self.families.iter().filter(|(_, family)| !family.samples.is_empty()) {
            print_head(out, name, family.kind, Some(family.help));
            let environment = environment.filter(|_| takes_environment(name)).map(escaped);
            let environment = environment.as_deref();
            for sample in &family.samples {
                let Labels { text, has_environment } = &sample.labels;
                let _ = write!(out, "{name}{}", sample.suffix);
                let _ = match environment.filter(|_| !has_environment) {
                    Some(environment) if text.is_empty() => write!(out, "{{environment=\"{environment}\"}}"),
                    Some(environment) => write!(out, "{{{text},environment=\"{environment}\"}}"),
                    None if text.is_empty() => Ok(()),
                    None => write!(out, "{{{text}}}"),
                };
                let _ = writeln!(out, " {}", Value(sample.value));
            }
        }
    }

    #[cfg(test)]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.print(&mut out, None);
        out
    }
}

/// Writes what stands before the samples of a family.
pub(crate) fn print_head(out: &mut impl Write, name: &str, kind: FamilyKind, help: Option<&str>) {
    if let Some(help) = help {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(out, "# HELP {name} {help}");
    }
    let _ = writeln!(out, "# TYPE {name} {}", kind.word());
}

/// The series of the bot that we know, whoever counts them; those about the exporter itself speak of no environment.
pub(crate) fn takes_environment(name: &str) -> bool {
    !name.starts_with("rosey_exporter_") && metrics::ALL.iter().any(|metric| metric.name == name)
}

/// A label's value as it stands between the quotes.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if memchr::memchr3(b'\\', b'"', b'\n', text.as_bytes()).is_some() {
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
            .into()
    } else {
        text.into()
    }
}

/// A value as the format spells it, which differs from Rust's spelling for infinity.
pub(crate) struct Value(pub f64);

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            // Most values are counts, and a float takes four times as long to spell.
            #[expect(clippy::cast_possible_truncation, reason = "checked before")]
            value if value.abs() < 1e15 && value.fract() == 0.0 && (value != 0.0 || value.is_sign_positive()) => {
                f.write_str(itoa::Buffer::new().format(value as i64))
            }
            value if value.is_nan() => f.write_str("NaN"),
            value if value.is_infinite() => f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
            // Beyond these, the plain spelling is a row of zeros.
            value if value.abs() >= 1e17 || (value != 0.0 && value.abs() < 1e-5) => write!(f, "{value:e}"),
            value => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_printed_family_by_family_with_everything_escaped() {
        let mut page = Page::default();
        page.add(&metrics::DISK_FREE_BYTES, &[("path", "a\"b\\c\nd")], 1.5);
        page.add(&metrics::BOT_UP, &[], 1.0);
        page.add(&metrics::DISK_FREE_BYTES, &[("path", "data:/")], f64::INFINITY);
        page.add(&metrics::EXPORTER_BUILD_INFO, &[("version", "1")], 1.0);
        let mut out = String::new();
        page.print(&mut out, Some("prod"));
        assert_eq!(
            out,
            "# HELP rosey_bot_up Whether the bot says that it runs (1) or not, or does not answer (0).\n\
             # TYPE rosey_bot_up gauge\n\
             rosey_bot_up{environment=\"prod\"} 1\n\
             # HELP rosey_disk_free_bytes Bytes free to the bot on the file system of the path.\n\
             # TYPE rosey_disk_free_bytes gauge\n\
             rosey_disk_free_bytes{path=\"a\\\"b\\\\c\\nd\",environment=\"prod\"} 1.5\n\
             rosey_disk_free_bytes{path=\"data:/\",environment=\"prod\"} +Inf\n\
             # HELP rosey_exporter_build_info Always 1; its label says which exporter this is.\n\
             # TYPE rosey_exporter_build_info gauge\n\
             rosey_exporter_build_info{version=\"1\"} 1\n"
        );
    }

    #[test]
    fn each_of_the_three_characters_is_escaped_by_itself() {
        for (text, as_it_stands) in [
            ("a\"b", "a\\\"b"),
            ("\\", "\\\\"),
            ("b\n", "b\\n"),
            ("a'b", "a'b"),
            ("", ""),
        ] {
            assert_eq!(escaped(text), as_it_stands);
        }
    }

    #[test]
    fn a_value_is_spelled_as_prometheus_reads_it() {
        let spelled: Vec<_> = [0.0, 0.1, 17e9, 1e300, -5e-324, f64::NAN, f64::NEG_INFINITY]
            .map(|v| Value(v).to_string())
            .into();
        assert_eq!(spelled, ["0", "0.1", "17000000000", "1e300", "-5e-324", "NaN", "-Inf"]);
    }
}
