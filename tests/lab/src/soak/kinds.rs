//! Lines of the log by their kind, so that one that was counted twice can't hide one that was missed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// Lines by the series that counts them: one for each level, and one for each reason why a line could not be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kinds(BTreeMap<String, u64>);

impl FromIterator<(String, u64)> for Kinds {
    fn from_iter<T: IntoIterator<Item = (String, u64)>>(kinds: T) -> Self {
        Self(kinds.into_iter().collect())
    }
}

impl Kinds {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or_default()
    }

    /// Those that came since.
    ///
    /// # Errors
    /// When there were more of a kind before.
    pub fn since(&self, before: &Self) -> Result<Self> {
        let names = self.0.keys().chain(before.0.keys());
        let more = names.map(|kind| {
            let more = self.of(kind).checked_sub(before.of(kind));
            let more =
                more.with_context(|| format!("{kind} went back from {} to {}", before.of(kind), self.of(kind)))?;
            Ok((kind.clone(), more))
        });
        more.collect()
    }

    /// How many of them are not among those that were counted.
    ///
    /// # Errors
    /// When more of a kind were counted than there are.
    pub fn missed(&self, counted: &Self) -> Result<u64> {
        for (kind, lines) in &counted.0 {
            let written = self.of(kind);
            ensure!(
                *lines <= written,
                "{kind} counted {lines} lines, and {written} were written"
            );
        }
        Ok(self.sum() - counted.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(kinds: &[(&str, u64)]) -> Kinds {
        kinds.iter().map(|(kind, lines)| ((*kind).to_owned(), *lines)).collect()
    }

    #[test]
    fn a_line_that_was_counted_twice_does_not_hide_one_that_was_missed() {
        let written = kinds(&[("info", 10), ("error", 2)]);
        assert_eq!(written.missed(&kinds(&[("info", 9), ("error", 2)])).unwrap(), 1);
        assert_eq!(written.missed(&kinds(&[])).unwrap(), 12);
        for counted in [[("info", 9), ("error", 3)], [("info", 10), ("other", 1)]] {
            assert!(written.missed(&kinds(&counted)).is_err(), "{counted:?}");
        }
    }

    #[test]
    fn counters_that_went_back_or_are_gone_are_an_error() {
        let before = kinds(&[("info", 10)]);
        let later = kinds(&[("info", 12), ("error", 1)]);
        assert_eq!(later.since(&before).unwrap(), kinds(&[("info", 2), ("error", 1)]));
        assert!(before.since(&later).is_err());
        assert!(kinds(&[]).since(&before).is_err());
    }
}
