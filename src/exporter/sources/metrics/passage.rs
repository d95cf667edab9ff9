//! What of the bot's page passes, put together family by family.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use super::line::{self, Line};
use super::rank::{Rank, declared};
use crate::exporter::bounds::{Admitted, Dropped, FAMILIES, HELP_BYTES, Reason, SERIES, VALUES};
use crate::exporter::page::{Family, FamilyKind, Labels, Page, Sample};

/// Which series and which values of labels passed lately, by rank: none takes the places of one before it.
#[derive(Default)]
pub(super) struct Memory {
    places: [Places; Rank::ALL.len()],
    hasher: RandomState,
}

#[derive(Default)]
struct Places {
    series: Admitted,
    values: Admitted,
}

/// One reading of the page.
pub(super) struct Passage<'m> {
    reserved: &'m BTreeSet<&'static str>,
    memory: &'m mut Memory,
    now: Instant,
    families: BTreeMap<String, Family>,
    /// Hashes of what passed already: the labels themselves would be as large as the page.
    seen: HashSet<u64>,
    dropped: Dropped,
}

/// Endings that belong to a family of another name.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

impl<'m> Passage<'m> {
    pub fn new(reserved: &'m BTreeSet<&'static str>, memory: &'m mut Memory, now: Instant) -> Self {
        for places in &mut memory.places {
            places.series.forget(now);
            places.values.forget(now);
        }
        Self {
            reserved,
            memory,
            now,
            families: BTreeMap::new(),
            seen: HashSet::new(),
            dropped: Dropped::default(),
        }
    }

    /// Reads the bot's page, rank by rank. It is looked through anew for each: a list of its lines may be larger than itself.
    pub fn read(&mut self, page: &[u8]) {
        for rank in Rank::ALL {
            for line in page.split(|&byte| byte == b'\n') {
                let first = Rank::of(line::name(line));
                if first == rank || (first.is_of_errors() && rank.is_of_errors()) {
                    self.line(line, rank);
                }
            }
        }
    }

    fn line(&mut self, line: &[u8], rank: Rank) {
        let taken = match line::read(line) {
            Ok(Line::Sample { ref labels, .. }) if rank.passes_over(labels) => Ok(()),
            Ok(Line::Sample { name, labels, value }) => self.sample(name, labels, value, rank),
            // The lines of errors come by twice, and these were seen the first time.
            _ if rank == Rank::Errors => Ok(()),
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
        };
        if let Err(reason) = taken {
            self.dropped.count(reason);
        }
    }

    /// The page, what was left out, and how many samples passed.
    pub fn finish(self) -> (Page, Dropped, usize) {
        let mut page = Page::default();
        for (name, family) in self.families {
            page.insert(name, family);
        }
        (page, self.dropped, self.seen.len())
    }

    fn help(&mut self, name: &str, text: &str) {
        if let Some(family) = self.family(name)
            && family.help.is_none()
            && !text.is_empty()
        {
            let end = (0..=HELP_BYTES.min(text.len()))
                .rev()
                .find(|&at| text.is_char_boundary(at))
                .unwrap_or(0);
            let text = text[..end].replace("\\\\", "\\").replace(['\0', '\r'], "");
            let text = text.trim().to_owned();
            family.help = Some(text.into());
        }
    }

    fn declare(&mut self, name: &str, word: &str) {
        let kind = match word {
            "counter" => FamilyKind::Counter,
            "gauge" => FamilyKind::Gauge,
            "histogram" => FamilyKind::Histogram,
            "summary" => FamilyKind::Summary,
            _ => FamilyKind::Untyped,
        };
        if self.whole(name).is_some() {
            return; // `x_sum` of a histogram `x` is no family of its own
        }
        let parted = matches!(kind, FamilyKind::Histogram | FamilyKind::Summary);
        let taken = |part: &str| {
            let part = format!("{name}{part}");
            self.reserved.contains(part.as_str()) || self.families.contains_key(&part)
        };
        if parted && PARTS.into_iter().any(taken) {
            return;
        }
        if let Some(family) = self.family(name)
            && family.samples.is_empty()
            && family.kind == FamilyKind::Untyped
        {
            family.kind = kind;
        }
    }

    /// The histogram or summary that `name` is a part of, with the part.
    fn whole(&self, name: &str) -> Option<(String, &'static str)> {
        PARTS.into_iter().find_map(|part| {
            let whole = name.strip_suffix(part)?;
            let kind = self.families.get(whole)?.kind;
            let fits = kind == FamilyKind::Histogram || (kind == FamilyKind::Summary && part != "_bucket");
            fits.then(|| (whole.to_owned(), part))
        })
    }

    fn family(&mut self, name: &str) -> Option<&mut Family> {
        if self.is_reserved(name) || (!self.families.contains_key(name) && self.families.len() >= FAMILIES) {
            return None;
        }
        Some(self.families.entry(name.to_owned()).or_insert_with(|| Family {
            kind: FamilyKind::Untyped,
            help: None,
            samples: Vec::new(),
        }))
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

    fn sample(&mut self, name: &str, mut labels: line::Labels<'_>, value: f64, rank: Rank) -> Result<(), Reason> {
        if self.is_reserved(name) {
            return Err(Reason::Reserved);
        }
        labels.retain(|(_, text)| !text.is_empty());
        let (whole, suffix) = self.whole(name).unwrap_or_else(|| (name.to_owned(), ""));
        let kind = self.kind_of(&whole);
        check(kind, suffix, &labels, value)?;

        let mut key: Vec<(String, String)> = labels
            .iter()
            .map(|(label, text)| ((*label).to_owned(), text.clone()))
            .collect();
        for (label, text) in &mut key {
            // Prometheus reads `1` and `1.0` as the same bucket.
            if matches!(label.as_str(), "le" | "quantile")
                && let Some(bound) = line::number(text)
            {
                *text = bound.to_string();
            }
        }
        key.sort_unstable();
        let key = self.memory.hasher.hash_one((name, key));
        if self.seen.contains(&key) {
            return Err(Reason::Duplicate);
        }
        if self.seen.len() >= SERIES {
            return Err(Reason::TooManySeries);
        }
        let places = &mut self.memory.places[rank as usize];
        for (label, text) in &labels {
            if !places.values.admit((&whole, label), text, VALUES, self.now) {
                return Err(Reason::TooManyValues);
            }
        }
        if !places.series.admit((), key, SERIES, self.now) {
            return Err(Reason::TooManySeries);
        }
        let labels = Labels::new(labels.iter().map(|(label, text)| (*label, text.as_str())));
        let family = self.family(&whole).ok_or(Reason::TooManySeries)?;
        family.kind = kind;
        family.samples.push(Sample { suffix, labels, value });
        self.seen.insert(key);
        Ok(())
    }

    fn kind_of(&self, name: &str) -> FamilyKind {
        if let Some(family) = self.families.get(name) {
            return family.kind;
        }
        match declared(name).and_then(|base| self.families.get(base)) {
            Some(base) if base.kind == FamilyKind::Counter => FamilyKind::Counter,
            _ => FamilyKind::Untyped,
        }
    }
}

/// Whether a sample is one that its family's type allows.
fn check(kind: FamilyKind, suffix: &str, labels: &[(&str, String)], value: f64) -> Result<(), Reason> {
    let bound = |name| {
        labels
            .iter()
            .find(|(label, _)| *label == name)
            .and_then(|(_, text)| line::number(text))
    };
    let counts = kind == FamilyKind::Counter || matches!(suffix, "_bucket" | "_count");
    let fits = match (kind, suffix) {
        (FamilyKind::Histogram, "") => false,
        (FamilyKind::Histogram, "_bucket") => bound("le").is_some(),
        (FamilyKind::Summary, "") => bound("quantile").is_some(),
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
