//! How much a bot may say: limits of length and number, and the memory that makes the same series pass each time.
//!
//! The container may use 32 MiB by default, so all of it together stays below 24, whatever a bot says and however many read it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::{Duration, Instant};

/// Bytes of the page of the bot's own metrics.
pub(crate) const PAGE_BYTES: usize = 1 << 20;
/// Bytes of the health document; read as JSON it may take forty times as much.
pub(crate) const DOCUMENT_BYTES: usize = 64 << 10;
/// Bytes of a metric's name.
pub(crate) const NAME_BYTES: usize = 128;
/// Bytes of a label's name.
pub(crate) const LABEL_BYTES: usize = 64;
/// Bytes of a label's value.
pub(crate) const VALUE_BYTES: usize = 256;
/// Bytes of a help text; what is longer is cut.
pub(crate) const HELP_BYTES: usize = 512;
/// Labels of one sample.
pub(crate) const LABELS: usize = 16;
/// Series of the bot's own metrics that pass.
pub(crate) const SERIES: usize = 5_000;
/// Families of the bot's own metrics that pass.
pub(crate) const FAMILIES: usize = 1_000;
/// Different values of one label of one family that pass.
pub(crate) const VALUES: usize = 200;
/// Different values of all labels of one rank together, about half a megabyte of memory.
const VALUES_IN_ALL: usize = 20_000;
/// A place that nothing has used for this long is given to the next in the queue.
const KEPT: Duration = Duration::from_secs(3600);

/// Why a sample was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Not in the format, or not a value of its kind.
    Invalid,
    /// Name or label longer than allowed, or more labels than allowed.
    TooLong,
    /// More series than allowed.
    TooManySeries,
    /// More values of one label than allowed.
    TooManyValues,
    /// The same series a second time.
    Duplicate,
    /// A name that is ours or Prometheus's own.
    Reserved,
}

impl Reason {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Invalid, "invalid"),
        (Self::TooLong, "too_long"),
        (Self::TooManySeries, "too_many_series"),
        (Self::TooManyValues, "too_many_values"),
        (Self::Duplicate, "duplicate"),
        (Self::Reserved, "reserved"),
    ];
}

/// How many samples were left out, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped([u64; Reason::ALL.len()]);

impl Dropped {
    pub fn count(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    pub fn count_many(&mut self, reason: Reason, number: u64) {
        self.0[reason as usize] += number;
    }

    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours += theirs;
        }
    }

    /// Every reason with its number, those that did not happen too.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL
            .into_iter()
            .map(|(reason, word)| (word, self.0[reason as usize]))
    }
}

/// Remembers what passed, so that a bot that shuffles its series does not make Prometheus store all of them in turn.
#[derive(Default)]
pub(crate) struct Admitted {
    groups: HashMap<u64, HashMap<u64, Instant>>,
    values: usize,
    hasher: RandomState,
}

impl Admitted {
    /// Gives up the places that were not used for an hour; called once a reading.
    pub fn forget(&mut self, now: Instant) {
        self.groups.retain(|_, items| {
            items.retain(|_, used| now.duration_since(*used) < KEPT);
            !items.is_empty()
        });
        self.values = self.groups.values().map(HashMap::len).sum();
    }

    /// Whether `item` has, or now gets, one of the `limit` places of `group`.
    pub fn admit(&mut self, group: impl Hash, item: impl Hash, limit: usize, now: Instant) -> bool {
        let full = self.values >= VALUES_IN_ALL;
        let items = self.groups.entry(self.hasher.hash_one(group)).or_default();
        let item = self.hasher.hash_one(item);
        if let Some(used) = items.get_mut(&item) {
            *used = now;
            return true;
        }
        if full || items.len() >= limit {
            return false;
        }
        items.insert(item, now);
        self.values += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_keep_their_places_until_an_hour_passes_without_them() {
        let (mut admitted, start) = (Admitted::default(), Instant::now());
        assert!(admitted.admit("command", "play", 2, start));
        assert!(admitted.admit("command", "skip", 2, start));
        assert!(!admitted.admit("command", "vote", 2, start));
        assert!(admitted.admit("error", "vote", 2, start));

        let later = start + Duration::from_secs(1800);
        admitted.forget(later);
        assert!(admitted.admit("command", "play", 2, later));
        assert!(!admitted.admit("command", "vote", 2, later));

        let much_later = start + Duration::from_secs(3700);
        admitted.forget(much_later);
        assert!(admitted.admit("command", "vote", 2, much_later));
        assert!(admitted.admit("command", "play", 2, much_later));
        assert!(!admitted.admit("command", "skip", 2, much_later));
    }

    #[test]
    fn the_number_of_values_is_bounded_over_all_labels() {
        let (mut admitted, now) = (Admitted::default(), Instant::now());
        let passed = (0..200_000)
            .filter(|i| admitted.admit(i / VALUES, i, VALUES, now))
            .count();
        assert_eq!(passed, VALUES_IN_ALL);
    }
}
