//! What is remembered from one reading of the bot's page to the next.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Instant;

use super::line::Labels;
use super::rank::Rank;
use crate::exporter::bounds::{Admitted, Reason, Series, VALUES, Values};

/// Which series and which values of labels passed lately, by rank: none takes the places of another.
pub(super) struct Memory {
    places: [Places; Rank::ALL.len()],
    hasher: RandomState,
    now: Instant,
}

struct Places {
    series: Series,
    values: Admitted,
}

impl Default for Memory {
    fn default() -> Self {
        let places = Rank::ALL.map(|rank| Places {
            series: Series::new(rank.series(), rank.bytes()),
            values: Admitted::new(rank.values()),
        });
        Self {
            places,
            hasher: RandomState::new(),
            now: Instant::now(),
        }
    }
}

impl Memory {
    /// Begins a reading.
    pub fn begin(&mut self, now: Instant) {
        self.now = now;
        for places in &mut self.places {
            places.series.begin(now);
            places.values.forget(now);
        }
    }

    /// Gives a series its place, or keeps it; `bytes` are what its line takes, and its labels are those of a sample `name` in `family`.
    ///
    /// # Errors
    /// When it was there before in this reading, or there is no place for it or for a value of its labels.
    pub fn admit(
        &mut self,
        rank: Rank,
        name: &str,
        family: &str,
        labels: &Labels<'_>,
        bytes: usize,
    ) -> Result<(), Reason> {
        let places = &mut self.places[rank as usize];
        let key = key(&self.hasher, name, labels);
        let values = places.series.check(key, bytes)?;
        if values == Values::Asked {
            for (label, text) in labels {
                if !places.values.admit((family, label), text, VALUES, self.now) {
                    return Err(Reason::TooManyValues);
                }
            }
        }
        places.series.enter(key, bytes, values);
        Ok(())
    }
}

/// A hash of what makes a series, whatever the order of its labels.
fn key(hasher: &RandomState, name: &str, labels: &[(&str, &str)]) -> u64 {
    let mut key = hasher.build_hasher();
    key.write(name.as_bytes());
    let mut add = |label: &str, text: &str| {
        // No name and no value has these bytes in it.
        key.write(b"{");
        key.write(label.as_bytes());
        key.write(b"\"");
        key.write(text.as_bytes());
        key.write(b"\n");
    };
    if labels.is_sorted() {
        for (label, text) in labels {
            add(label, text);
        }
    } else {
        let mut sorted = labels.to_vec();
        sorted.sort_unstable();
        for (label, text) in sorted {
            add(label, text);
        }
    }
    key.finish()
}
