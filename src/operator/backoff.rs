//! How long a monitor waits after it failed: for each monitor on its own, and from the start again after a success.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::key::Key;

const FIRST: Duration = Duration::from_millis(500);

/// The failures in a row of each monitor.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<Key, u32>>);

impl Backoff {
    /// Counts a failure and returns how many there were in a row.
    pub fn failed(&self, key: &Key) -> u32 {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Forgets the failures of a monitor: it succeeded, or it is gone.
    pub fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self, key: &Key) -> u32 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .copied()
            .unwrap_or_default()
    }
}

/// How long to wait after so many failures in a row, at most `cap`: twice as long each time, somewhere in the upper half, so
/// that monitors which failed together do not come back together.
#[must_use]
pub fn delay(failures: u32, cap: Duration) -> Duration {
    let full = FIRST
        .saturating_mul(1u32 << failures.saturating_sub(1).min(16))
        .min(cap);
    // A fresh RandomState is the standard library's only source of chance.
    let chance = RandomState::new().build_hasher().finish() % 1024;
    full / 2 + full / 2 * u32::try_from(chance).unwrap_or_default() / 1024
}

/// How long a watch waits before it starts again. Short at the longest: what happens meanwhile is seen late, and the few
/// watches of an operator are no burden for an API server that comes back.
#[derive(Debug, Default)]
pub struct Pause(u32);

impl Pause {
    const LONGEST: Duration = Duration::from_secs(2);
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0 = self.0.saturating_add(1);
        Some(delay(self.0, Self::LONGEST))
    }
}

impl kube::runtime::utils::Backoff for Pause {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_the_cap_and_never_halves_below_it() {
        let cap = Duration::from_secs(60);
        for (failures, full) in [(1, 500), (2, 1000), (5, 8000), (30, 60_000), (u32::MAX, 60_000)] {
            let full = Duration::from_millis(full);
            for _ in 0..50 {
                let delay = delay(failures, cap);
                assert!(delay >= full / 2 && delay <= full, "{failures}: {delay:?}");
            }
        }
    }

    #[test]
    fn a_success_resets_one_monitor_and_no_other() {
        let (a, b) = (Key::new("bots", "a"), Key::new("bots", "b"));
        let backoff = Backoff::default();
        backoff.failed(&a);
        assert_eq!(backoff.failed(&a), 2);
        backoff.failed(&b);
        backoff.forget(&a);
        assert_eq!((backoff.failures(&a), backoff.failures(&b)), (0, 1));
        assert_eq!(backoff.failed(&a), 1);
    }
}
