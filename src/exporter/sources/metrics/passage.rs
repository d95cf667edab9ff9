//! What of the bot's page passes, put together family by family.

use std::collections::{BTreeMap, HashSet};
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
    reserved: &'m HashSet<&'static str>,
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
    pub fn new(reserved: &'m HashSet<&'static str>, memory: &'m mut Memory, now: Instant) -> Self {
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exporter::page::Value;

    fn pass(text: &str) -> (String, BTreeMap<&'static str, u64>) {
        pass_with(text.as_bytes(), &mut Memory::default())
    }

    fn pass_with(text: &[u8], memory: &mut Memory) -> (String, BTreeMap<&'static str, u64>) {
        let reserved = HashSet::from([
            "rosey_bot_up",
            "rosey_backup_count",
            "rosey_deployment_duration_seconds",
        ]);
        let mut passage = Passage::new(&reserved, memory, Instant::now());
        passage.read(text);
        let (page, dropped, _) = passage.finish();
        (
            page.text(),
            dropped.by_reason().filter(|(_, number)| *number > 0).collect(),
        )
    }

    #[test]
    fn families_are_grouped_with_their_help_and_type() {
        let (page, dropped) = pass(
            "b 2\n# HELP a Many \\\\ things.\n# TYPE a counter\na{x=\"1\"} 1 1700000000000\nc 3\na{x=\"2\"} 2\n# TYPE c gauge\n",
        );
        assert_eq!(
            page,
            "# HELP a Many \\\\ things.\n# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2\n# TYPE b untyped\nb 2\n# TYPE c untyped\nc 3\n"
        );
        assert!(dropped.is_empty());
    }

    #[test]
    fn histograms_and_summaries_pass_whole() {
        let text = "# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1.5\nh_count 2\n\
                    # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 0\ns_count 0\n";
        assert_eq!(pass(text), (text.to_owned(), BTreeMap::new()));
    }

    #[test]
    fn a_part_of_a_histogram_can_not_be_declared_as_a_family_of_its_own() {
        let (page, dropped) = pass(
            "# TYPE h histogram\n# TYPE h_sum gauge\nh_sum 1\nh 7\nh_bucket 1\n# TYPE k_sum gauge\nk_sum 1\n# TYPE k histogram\nk 1\n",
        );
        assert_eq!(
            page,
            "# TYPE h histogram\nh_sum 1\n# TYPE k untyped\nk 1\n# TYPE k_sum gauge\nk_sum 1\n"
        );
        assert_eq!(dropped, BTreeMap::from([("invalid", 2)]));
    }

    #[test]
    fn a_bot_can_not_speak_for_the_exporter_nor_for_prometheus() {
        let (page, dropped) = pass(
            "rosey_bot_up 1\nup 0\nscrape_samples_scraped 1\nALERTS{alertname=\"BotDown\"} 1\nrosey_exporter_source_up 1\n\
             rosey_deployment_duration_seconds_sum 1\n# TYPE rosey_backup histogram\nrosey_backup_count 9\n\
             a{__name__=\"rosey_bot_up\"} 1\nrosey_bot_message_count_total 5\n",
        );
        assert_eq!(
            page,
            "# TYPE rosey_bot_message_count_total untyped\nrosey_bot_message_count_total 5\n"
        );
        assert_eq!(dropped, BTreeMap::from([("reserved", 8)]));
    }

    #[test]
    fn the_same_series_passes_once() {
        let (page, dropped) = pass(
            "a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\na{x=\"1\",y=\"2\",z=\"\"} 3\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 1\n",
        );
        assert_eq!(
            page,
            "# TYPE a untyped\na{x=\"1\",y=\"2\"} 1\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\n"
        );
        assert_eq!(dropped, BTreeMap::from([("duplicate", 3)]));
    }

    #[test]
    fn counters_that_count_backwards_are_left_out() {
        let (page, dropped) =
            pass("# TYPE a counter\na{x=\"1\"} -1\na NaN\n# TYPE g gauge\ng -1\n# TYPE o counter\no_total 1\n");
        assert_eq!(page, "# TYPE g gauge\ng -1\n# TYPE o_total counter\no_total 1\n");
        assert_eq!(dropped, BTreeMap::from([("invalid", 2)]));
    }

    #[test]
    fn very_many_values_make_two_hundred_series_and_the_same_ones_each_time() {
        let mut memory = Memory::default();
        let lines: Vec<_> = (0..100_000).map(|i| format!("a{{user=\"{i}\"}} 1\n")).collect();
        let (first, dropped) = pass_with(lines.concat().as_bytes(), &mut memory);
        assert_eq!(first.lines().count(), 1 + VALUES);
        assert_eq!(dropped, BTreeMap::from([("too_many_values", 100_000 - VALUES as u64)]));

        let backwards: String = lines.iter().rev().map(String::as_str).collect();
        let (second, _) = pass_with(backwards.as_bytes(), &mut memory);
        let sorted = |page: &str| {
            page.lines()
                .map(str::to_owned)
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(sorted(&first), sorted(&second));
    }

    #[test]
    fn the_number_of_series_and_of_families_is_bounded() {
        let series: String = (0..200)
            .flat_map(|x| (0..200).map(move |y| format!("a{{x=\"{x}\",y=\"{y}\"}} 1\n")))
            .collect();
        let (page, dropped) = pass(&series);
        assert_eq!(page.lines().count(), 1 + SERIES);
        assert_eq!(dropped, BTreeMap::from([("too_many_series", 40_000 - SERIES as u64)]));

        let families = (0..3_000)
            .map(|i| format!("# TYPE a{i} gauge\na{i} 1\n"))
            .collect::<Vec<_>>()
            .concat();
        let (page, dropped) = pass(&families);
        assert_eq!(page.lines().count(), 2 * FAMILIES);
        assert_eq!(dropped, BTreeMap::from([("too_many_series", 3_000 - FAMILIES as u64)]));
    }

    #[test]
    fn what_alerts_read_passes_however_much_else_the_bot_says() {
        let others: String = (0..200)
            .flat_map(|x| (0..200).map(move |y| format!("a{{x=\"{x}\",y=\"{y}\"}} 1\n")))
            .collect();
        let commands = others.replace("a{x", "rosey_bot_command_count_total{command");
        let errors: String = (0..300)
            .map(|i| format!("rosey_bot_error_count_total{{error_type=\"{i}\"}} 1\n"))
            .collect::<Vec<_>>()
            .concat();
        let families: String = (0..2_000)
            .map(|i| format!("# TYPE a{i} gauge\n"))
            .collect::<Vec<_>>()
            .concat();
        let critical = "rosey_bot_error_count_total{error_type=\"critical\"} 7\n";
        let declared = "# TYPE rosey_bot_error_count counter\n";

        let mut memory = Memory::default();
        let before = pass_with(
            (families.clone() + &others + &commands + &errors).as_bytes(),
            &mut memory,
        )
        .0;
        assert!(!before.contains(critical));
        let page = families + &others + &commands + declared + &errors + critical + "broken\n";
        let (page, dropped) = pass_with(page.as_bytes(), &mut memory);
        assert!(page.contains(critical));
        assert!(page.contains("# TYPE rosey_bot_error_count_total counter\n"));
        let samples = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(samples("rosey_bot_error_count_total{"), VALUES + 1);
        assert_eq!(samples("rosey_bot_command_count_total{"), SERIES - VALUES - 1);
        assert_eq!(
            dropped,
            BTreeMap::from([
                ("invalid", 1),
                ("too_many_series", 2 * 40_000 - (SERIES - VALUES - 1) as u64),
                ("too_many_values", 100)
            ])
        );
    }

    proptest! {
        #[test]
        fn what_passed_once_passes_again_unchanged(bytes in "([a-c#{}=\", \\\\n0-9.\n]|# TYPE |# HELP |histogram|_sum|_bucket|le=|é){0,120}") {
            let (once, _) = pass(&bytes);
            let (twice, dropped) = pass(&once);
            prop_assert_eq!(&once, &twice);
            prop_assert!(dropped.is_empty(), "{:?}", dropped);
        }

        #[test]
        fn any_value_is_read_back_as_it_was(value in proptest::num::f64::ANY) {
            let spelled = Value(value).to_string();
            let read = line::number(&spelled).unwrap();
            prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()));
        }
    }
}
