//! What of the bot's page passes, put together family by family while the page arrives.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::time::Instant;

use super::line::{self, Line};
use super::memory::Memory;
use super::rank::{Rank, declared};
use crate::exporter::bounds::{Dropped, FAMILIES, HELP_BYTES, HELPS_BYTES, LINE_BYTES, Reason};
use crate::exporter::page::{self, FamilyKind, Value};
use crate::exporter::text::Draft;

/// One reading of the page.
pub(super) struct Passage<'m> {
    reserved: &'m BTreeSet<&'static str>,
    memory: &'m mut Memory,
    /// The label `environment`, as it is printed.
    environment: Option<&'m str>,
    /// Places in `families`.
    names: HashMap<Box<str>, usize>,
    families: Vec<Family>,
    /// Families that the catalogue does not know.
    strange: usize,
    /// Bytes of all help texts.
    helps: usize,
    /// Where the samples of this name go, since the next is likely to have the same.
    last: Option<(String, Target)>,
    /// The beginning of a line whose end has not arrived.
    begun: Vec<u8>,
    /// Where a sample is written before it is known to pass.
    text: String,
    dropped: Dropped,
    samples: usize,
}

struct Family {
    name: Box<str>,
    kind: FamilyKind,
    rank: Rank,
    takes_environment: bool,
    help: Option<Box<str>>,
    text: Draft,
    samples: usize,
}

#[derive(Clone, Copy)]
struct Target {
    family: usize,
    /// What of the sample's name is not the family's: nothing, or one of [`PARTS`].
    part: &'static str,
}

/// Endings that belong to a family of another name.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Labels whose values are numbers.
const BOUNDS: [&str; 2] = ["le", "quantile"];

/// What a value takes at most, with the blank before it and the end of the line after it.
const PRINTED_VALUE: usize = 26;

impl<'m> Passage<'m> {
    /// `environment` is the label of that name on the series of the catalogue, as it is printed.
    pub fn new(
        reserved: &'m BTreeSet<&'static str>,
        memory: &'m mut Memory,
        environment: Option<&'m str>,
        now: Instant,
    ) -> Self {
        memory.begin(now);
        Self {
            reserved,
            memory,
            environment,
            names: HashMap::new(),
            families: Vec::new(),
            strange: 0,
            helps: 0,
            last: None,
            begun: Vec::new(),
            text: String::new(),
            dropped: Dropped::default(),
            samples: 0,
        }
    }

    /// Takes the next part of the page, wherever it was cut.
    pub fn read(&mut self, mut part: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', part) {
            let (line, rest) = (&part[..end], &part[end + 1..]);
            if self.begun.is_empty() {
                self.line(line);
            } else {
                self.keep(line);
                self.end_line();
            }
            part = rest;
        }
        self.keep(part);
    }

    /// Keeps the part of a line until the rest arrives; of a line that is too long, only so much that this shows.
    fn keep(&mut self, part: &[u8]) {
        let room = (LINE_BYTES + 1).saturating_sub(self.begun.len());
        self.begun.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.begun);
        self.line(&line);
        line.clear();
        self.begun = line;
    }

    fn line(&mut self, line: &[u8]) {
        let taken = if line.len() > LINE_BYTES {
            // A comment may be as long as it likes.
            if line.starts_with(b"#") {
                Ok(())
            } else {
                Err(Reason::TooLong)
            }
        } else {
            match line::read(line) {
                Ok(Line::Sample { name, labels, value }) => self.sample(name, labels, value),
                Ok(Line::Nothing) => Ok(()),
                Ok(Line::Help { name, text }) => {
                    self.help(name, text);
                    Ok(())
                }
                Ok(Line::Type { name, word }) => {
                    self.declare(name, word);
                    Ok(())
                }
                Err(reason) => Err(reason),
            }
        };
        if let Err(reason) = taken {
            self.dropped.count(reason);
        }
    }

    /// The text, what was left out, and how many samples passed. Families are in the order of the alphabet, which keeps `x` before
    /// `x_sum`; one without samples is left out.
    pub fn finish(mut self) -> (Draft, Dropped, usize) {
        self.end_line();
        self.families.retain(|family| family.samples > 0);
        self.families.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut draft = Draft::default();
        for family in self.families {
            page::print_head(&mut draft, &family.name, family.kind, family.help.as_deref());
            draft.append(family.text);
        }
        (draft, self.dropped, self.samples)
    }

    fn help(&mut self, name: &str, text: &str) {
        if let Some(at) = self.family(name)
            && self.families[at].help.is_none()
            && !text.is_empty()
        {
            let end = (0..=HELP_BYTES.min(text.len()))
                .rev()
                .find(|&at| text.is_char_boundary(at))
                .unwrap_or(0);
            let text = text[..end].replace("\\\\", "\\").replace(['\0', '\r'], "");
            // Each of them becomes two again.
            let bytes = text.len() + text.matches('\\').count();
            if self.helps + bytes <= HELPS_BYTES {
                self.helps += bytes;
                self.families[at].help = Some(text.trim().into());
            }
        }
    }

    fn declare(&mut self, name: &str, word: &str) {
        // info, stateset, unknown and gaugehistogram are OpenMetrics's own; their samples pass without a type.
        let kind = match word {
            "counter" => FamilyKind::Counter,
            "gauge" => FamilyKind::Gauge,
            "histogram" => FamilyKind::Histogram,
            "summary" => FamilyKind::Summary,
            _ => FamilyKind::Untyped,
        };
        self.last = None;
        if self.whole(name).is_some() {
            return; // `x_sum` of a histogram `x` is no family of its own
        }
        let parted = matches!(kind, FamilyKind::Histogram | FamilyKind::Summary);
        let taken = |part: &str| {
            let part = format!("{name}{part}");
            self.reserved.contains(part.as_str()) || self.names.contains_key(part.as_str())
        };
        if parted && PARTS.into_iter().any(taken) {
            return;
        }
        if let Some(at) = self.family(name) {
            let family = &mut self.families[at];
            if family.samples == 0 && family.kind == FamilyKind::Untyped {
                family.kind = kind;
            }
        }
    }

    fn kind(&self, name: &str) -> Option<FamilyKind> {
        self.names.get(name).map(|&at| self.families[at].kind)
    }

    /// The histogram or summary that `name` is a part of, with the part.
    fn whole<'n>(&self, name: &'n str) -> Option<(&'n str, &'static str)> {
        PARTS.into_iter().find_map(|part| {
            let whole = name.strip_suffix(part)?;
            let kind = self.kind(whole)?;
            let fits = kind == FamilyKind::Histogram || (kind == FamilyKind::Summary && part != "_bucket");
            fits.then_some((whole, part))
        })
    }

    /// The place of the family of this name, which is made if there is none.
    fn family(&mut self, name: &str) -> Option<usize> {
        if let Some(&at) = self.names.get(name) {
            return Some(at);
        }
        if self.is_reserved(name) {
            return None;
        }
        if let Some(at) = self.counter(name) {
            return Some(at);
        }
        let rank = Rank::of(name);
        if rank == Rank::Rest {
            if self.strange >= FAMILIES {
                return None;
            }
            self.strange += 1;
        }
        let at = self.families.len();
        self.names.insert(name.into(), at);
        self.families.push(Family {
            name: name.into(),
            kind: FamilyKind::Untyped,
            rank,
            takes_environment: page::takes_environment(name),
            help: None,
            text: Draft::default(),
            samples: 0,
        });
        Some(at)
    }

    /// The counter that `OpenMetrics` declared as `x`, and whose samples are called `x_total`: in our format that is its name.
    fn counter(&mut self, name: &str) -> Option<usize> {
        let (base, &at) = self.names.get_key_value(declared(name)?)?;
        let family = &mut self.families[at];
        if family.kind != FamilyKind::Counter || family.samples > 0 {
            return None;
        }
        let base = base.clone();
        family.name = name.into();
        family.takes_environment = page::takes_environment(name);
        self.names.remove(&base);
        self.names.insert(name.into(), at);
        Some(at)
    }

    /// Whether it is the time at which a counter, histogram or summary was made, which our format does not have. One that is
    /// declared as a family of its own is that.
    fn is_time_of_creation(&self, name: &str) -> bool {
        let Some(base) = name.strip_suffix("_created").filter(|_| !self.names.contains_key(name)) else {
            return false;
        };
        let family = self.names.get(base).map(|&at| &self.families[at]);
        match family.map(|family| family.kind) {
            Some(FamilyKind::Histogram | FamilyKind::Summary) => true,
            Some(FamilyKind::Counter) if family.is_some_and(|family| family.samples == 0) => true,
            _ => self.kind(&format!("{base}_total")) == Some(FamilyKind::Counter),
        }
    }

    /// Names that are ours, and those that Prometheus itself writes beside what it scrapes: a bot must not speak for them.
    fn is_reserved(&self, name: &str) -> bool {
        let part_of_ours = PARTS.into_iter().any(|part| {
            name.strip_suffix(part)
                .is_some_and(|whole| self.reserved.contains(whole))
        });
        part_of_ours
            || self.reserved.contains(name)
            || matches!(name, "up" | "ALERTS" | "ALERTS_FOR_STATE")
            || name.starts_with("scrape_")
            || name.starts_with("rosey_exporter_")
    }

    /// Where samples of this name go; nowhere without a word if it is a time of creation.
    fn target(&mut self, name: &str) -> Result<Option<Target>, Reason> {
        if let Some((_, target)) = self.last.as_ref().filter(|(last, _)| last == name) {
            return Ok(Some(*target));
        }
        if self.is_reserved(name) {
            return Err(Reason::Reserved);
        }
        if self.is_time_of_creation(name) {
            return Ok(None);
        }
        let (whole, part) = self.whole(name).unwrap_or((name, ""));
        let family = self.family(whole).ok_or(Reason::TooManySeries)?;
        let target = Target { family, part };
        let last = self.last.get_or_insert_with(|| (String::new(), target));
        last.0.clear();
        last.0.push_str(name);
        last.1 = target;
        Ok(Some(target))
    }

    fn sample(&mut self, name: &str, labels: line::Labels<'_>, value: f64) -> Result<(), Reason> {
        let mut bounds = BOUNDS.map(|_| String::new());
        let mut labels = labels;
        let Some(Target { family, part }) = self.target(name)? else {
            return Ok(());
        };
        let family = &mut self.families[family];
        labels.retain(|(_, text)| !text.is_empty());
        check(family.kind, part, &labels, value)?;
        spell_alike(&mut labels, &mut bounds);

        if let Some(environment) = self.environment.filter(|_| family.takes_environment)
            && labels.iter().all(|(label, _)| *label != "environment")
        {
            labels.push(("environment", environment));
        }
        let text = &mut self.text;
        line::print(text, name, &labels);
        let rank = family.rank.with(&labels);
        let bytes = text.len() + PRINTED_VALUE;
        self.memory.admit(rank, name, &family.name, &labels, text, bytes)?;

        text.push_str(if text.len() > name.len() { "} " } else { " " });
        let _ = write!(text, "{}", Value(value));
        text.push('\n');
        family.text.push(text);
        family.samples += 1;
        self.samples += 1;
        Ok(())
    }
}

/// Spells bounds in the one way of ours: Prometheus 3 takes `1`, `1.0` and `1.00` for one bucket, Prometheus 2 for three, and a bot
/// could spell it otherwise each time.
fn spell_alike<'t>(labels: &mut line::Labels<'t>, bounds: &'t mut [String; BOUNDS.len()]) {
    let of_bounds = labels.iter_mut().filter(|(label, _)| BOUNDS.contains(label));
    for ((_, text), bound) in of_bounds.zip(bounds) {
        if let Some(number) = line::number(text) {
            let _ = write!(bound, "{}", Value(number));
            *text = bound;
        }
    }
}

/// Whether a sample is one that its family's type allows.
fn check(kind: FamilyKind, part: &str, labels: &[(&str, &str)], value: f64) -> Result<(), Reason> {
    let has_bound = |name| {
        labels
            .iter()
            .any(|(label, text)| *label == name && line::number(text).is_some())
    };
    let counts = kind == FamilyKind::Counter || matches!(part, "_bucket" | "_count");
    let fits = match (kind, part) {
        (FamilyKind::Histogram, "") => false,
        (FamilyKind::Histogram, "_bucket") => has_bound("le"),
        (FamilyKind::Summary, "") => has_bound("quantile"),
        _ => true,
    };
    if fits && !(counts && (value.is_nan() || value < 0.0)) {
        Ok(())
    } else {
        Err(Reason::Invalid)
    }
}

#[cfg(test)]
mod tests;
