//! What is remembered from one reading of the bot's page to the next.

use std::hash::BuildHasher;
use std::time::Instant;

use foldhash::quality::RandomState;

use super::line::{self, Labels};
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
            hasher: RandomState::default(),
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

    /// Gives a series its place, or keeps it; its labels are those of a sample `name` in `family`, `text` is [`line::print`] of both, and
    /// `bytes` are what its line takes.
    ///
    /// # Errors
    /// When it was there before in this reading, or there is no place for it or for a value of its labels.
    pub fn admit(
        &mut self,
        rank: Rank,
        name: &str,
        family: &str,
        labels: &Labels<'_>,
        text: &str,
        bytes: usize,
    ) -> Result<(), Reason> {
        let places = &mut self.places[rank as usize];
        let key = key(&self.hasher, name, labels, text);
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

/// A hash of what makes a series, whatever the order of its labels; `text` has them in theirs.
fn key(hasher: &RandomState, name: &str, labels: &[(&str, &str)], text: &str) -> u64 {
    if labels.is_sorted() {
        return hasher.hash_one(text);
    }
    let (mut sorted, mut text) = (labels.to_vec(), String::new());
    sorted.sort_unstable();
    line::print(&mut text, name, &sorted);
    hasher.hash_one(text)
}
