//! How much a bot may say: limits of length and number, and the memory that makes the same series pass each time.
//!
//! All of it together stays below 16 MiB, whatever a bot says and however many read it; the container may use 32 by default.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

/// Bytes of the page of the bot's own metrics. Nothing of it is kept but what passes.
pub(crate) const PAGE_BYTES: usize = 4 << 20;
/// Bytes of one line of that page; far more than the longest that passes.
pub(crate) const LINE_BYTES: usize = 16 << 10;
/// Bytes of the health document.
pub(crate) const DOCUMENT_BYTES: usize = 64 << 10;
/// Bytes of the plugins' document.
pub(crate) const PLUGINS_BYTES: usize = 256 << 10;
/// Plugins that have series.
pub(crate) const PLUGINS: usize = 256;
/// Bytes of a plugin's name and of its version, since each of its series says it again.
pub(crate) const PLUGIN_BYTES: usize = 128;
/// Bytes of a metric's name.
pub(crate) const NAME_BYTES: usize = 128;
/// Bytes of a label's name.
pub(crate) const LABEL_BYTES: usize = 64;
/// Bytes of a label's value.
pub(crate) const VALUE_BYTES: usize = 256;
/// Bytes of a help text; what is longer is cut.
pub(crate) const HELP_BYTES: usize = 256;
/// Bytes of all help texts of the bot's own metrics; families beyond that have none.
pub(crate) const HELPS_BYTES: usize = 192 << 10;
/// Labels of one sample.
pub(crate) const LABELS: usize = 16;
/// Families of the bot's own metrics that pass, besides those of the catalogue.
pub(crate) const FAMILIES: usize = 1_000;
/// Different values of one label of one family that pass.
pub(crate) const VALUES: usize = 200;
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

    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours = ours.saturating_add(theirs);
        }
    }

    /// Every reason with its number, those that did not happen too.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL
            .into_iter()
            .map(|(reason, word)| (word, self.0[reason as usize]))
    }
}

/// Remembers which values passed, so that a bot that always says others does not make Prometheus store all of them in turn.
pub(crate) struct Admitted {
    /// By hashes of group and item, which take a tenth of their memory. The whole 64 bits of them: with half of it, one in twenty
    /// bots that say a million values had one more than its places.
    places: HashMap<u64, Held, BuildHasherDefault<AsItIs>>,
    /// How many places each has, by half of a hash: two groups that share it share their places, which harms nobody.
    groups: HashMap<u32, u32>,
    in_all: usize,
    clock: Instant,
    /// Random for each process, though not proof against who studies one; a bot that finds two series of one hash loses one of its own.
    hasher: RandomState,
}

struct Held {
    group: u32,
    used: Clock,
}

/// Seconds since a memory was made.
type Clock = u32;

fn seconds_since(clock: Instant, now: Instant) -> Clock {
    u32::try_from(now.saturating_duration_since(clock).as_secs()).unwrap_or(u32::MAX)
}

fn is_kept(used: Clock, now: Clock) -> bool {
    u64::from(now.saturating_sub(used)) < KEPT.as_secs()
}

impl Admitted {
    /// One with so many places for all groups together.
    pub fn new(in_all: usize) -> Self {
        Self {
            places: HashMap::default(),
            groups: HashMap::new(),
            in_all,
            clock: Instant::now(),
            hasher: RandomState::default(),
        }
    }

    /// Gives up the places that were not used for an hour; called once a reading.
    pub fn forget(&mut self, now: Instant) {
        let now = seconds_since(self.clock, now);
        let groups = &mut self.groups;
        self.places.retain(|_, held| {
            let kept = is_kept(held.used, now);
            if !kept && let Some(number) = groups.get_mut(&held.group) {
                *number -= 1;
            }
            kept
        });
        groups.retain(|_, number| *number > 0);
    }

    /// Whether `item` has, or now gets, one of the `limit` places of `group`.
    pub fn admit(&mut self, group: impl Hash, item: impl Hash, limit: usize, now: Instant) -> bool {
        let now = seconds_since(self.clock, now);
        let group = self.hasher.hash_one(group);
        let place = self.hasher.hash_one((group, item));
        if let Some(held) = self.places.get_mut(&place) {
            held.used = now;
            return true;
        }
        if self.places.len() >= self.in_all {
            return false;
        }
        let group = (group >> 32) as u32;
        let number = self.groups.entry(group).or_default();
        if *number as usize >= limit {
            return false;
        }
        *number += 1;
        self.places.insert(place, Held { group, used: now });
        true
    }
}

/// Remembers which series passed, by their hashes: so many, and so many bytes of text, pass at each reading, and always the same.
pub(crate) struct Series {
    places: HashMap<u64, Place, BuildHasherDefault<AsItIs>>,
    most: usize,
    most_bytes: usize,
    bytes: usize,
    reading: u16,
    now: Minutes,
    clock: Instant,
}

struct Place {
    used: Minutes,
    /// When its values were last admitted.
    admitted: Minutes,
    /// The reading that last had it, so that nothing comes twice in one.
    reading: u16,
    bytes: u16,
}

/// Minutes since a memory was made, as far as they fit.
type Minutes = u16;

/// How long the values of a series that passes at each reading keep their places unasked: short enough beside [`KEPT`].
const ASKED_AGAIN: Minutes = 10;

/// How a series that may pass stands with its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Values {
    /// They were admitted lately.
    Admitted,
    /// They have to be admitted.
    Asked,
}

impl Series {
    pub fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            places: HashMap::default(),
            most,
            most_bytes,
            bytes: 0,
            reading: 0,
            now: 0,
            clock: Instant::now(),
        }
    }

    /// Begins a reading, and gives up the places that were not used for an hour.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only differences matter, and they are short"
    )]
    pub fn begin(&mut self, now: Instant) {
        self.reading = self.reading.wrapping_add(1);
        self.now = (now.saturating_duration_since(self.clock).as_secs() / 60) as Minutes;
        let (now, bytes) = (self.now, &mut self.bytes);
        self.places.retain(|_, place| {
            let kept = u64::from(now.wrapping_sub(place.used)) < KEPT.as_secs() / 60;
            if !kept {
                *bytes -= usize::from(place.bytes);
            }
            kept
        });
    }

    /// Whether a series may pass that takes so many bytes of text.
    ///
    /// # Errors
    /// That it was there before in this reading, or that there is no place for it.
    pub fn check(&self, series: u64, bytes: usize) -> Result<Values, Reason> {
        match self.places.get(&series) {
            Some(place) if place.reading == self.reading => Err(Reason::Duplicate),
            Some(place) if self.now.wrapping_sub(place.admitted) < ASKED_AGAIN => Ok(Values::Admitted),
            Some(_) => Ok(Values::Asked),
            None if self.places.len() < self.most && self.bytes + bytes <= self.most_bytes => Ok(Values::Asked),
            None => Err(Reason::TooManySeries),
        }
    }

    /// Gives a place to a series for which [`Self::check`] found one, or keeps its place for it.
    pub fn enter(&mut self, series: u64, bytes: usize, values: Values) {
        let (now, reading) = (self.now, self.reading);
        let place = self.places.entry(series).or_insert_with(|| {
            let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
            self.bytes += usize::from(bytes);
            Place {
                used: now,
                admitted: now,
                reading,
                bytes,
            }
        });
        (place.used, place.reading) = (now, reading);
        if values == Values::Asked {
            place.admitted = now;
        }
    }
}

/// Takes a hash for what it is.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = self.0.rotate_left(8) ^ hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_keep_their_places_until_an_hour_passes_without_them() {
        let (mut admitted, start) = (Admitted::new(100), Instant::now());
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
    fn of_a_million_values_exactly_the_first_ones_have_a_place() {
        // With 32 bits for the value, 950,000 others meet one of these places 11 times on average, and never once in 60,000 runs.
        const PLACES: usize = 50_000;
        let (mut admitted, now) = (Admitted::new(60_000), Instant::now());
        let passed = (0..1_000_000).filter(|i| admitted.admit("le", i, PLACES, now)).count();
        assert_eq!(passed, PLACES);
    }

    #[test]
    fn the_number_of_values_is_bounded_over_all_labels() {
        const IN_ALL: usize = 20_000;
        let (mut admitted, now) = (Admitted::new(IN_ALL), Instant::now());
        let passed = (0..200_000)
            .filter(|i| admitted.admit(i / VALUES, i, VALUES, now))
            .count();
        assert_eq!(passed, IN_ALL);
    }

    #[test]
    fn the_first_series_keep_their_places_by_number_and_by_bytes() {
        let (mut series, start) = (Series::new(3, 100), Instant::now());
        let pass = |series: &mut Series, key, bytes| {
            let values = series.check(key, bytes)?;
            series.enter(key, bytes, values);
            Ok(values)
        };
        series.begin(start);
        assert_eq!(pass(&mut series, 1, 60), Ok(Values::Asked));
        assert_eq!(pass(&mut series, 1, 60), Err(Reason::Duplicate));
        assert_eq!(pass(&mut series, 2, 50), Err(Reason::TooManySeries));
        assert_eq!(pass(&mut series, 3, 20), Ok(Values::Asked));
        assert_eq!(pass(&mut series, 4, 20), Ok(Values::Asked));
        assert_eq!(pass(&mut series, 5, 0), Err(Reason::TooManySeries));

        let later = start + Duration::from_secs(1800);
        series.begin(start + Duration::from_secs(300));
        assert_eq!(pass(&mut series, 3, 20), Ok(Values::Admitted));
        series.begin(later);
        assert_eq!(pass(&mut series, 5, 0), Err(Reason::TooManySeries));
        assert_eq!(pass(&mut series, 3, 20), Ok(Values::Asked));

        let much_later = start + Duration::from_secs(3700);
        series.begin(much_later);
        assert_eq!(pass(&mut series, 2, 80), Ok(Values::Asked));
        assert_eq!(pass(&mut series, 1, 10), Err(Reason::TooManySeries));
        assert_eq!(pass(&mut series, 3, 20), Ok(Values::Asked));
    }
}
