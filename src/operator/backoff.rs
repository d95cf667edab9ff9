//! How long a monitor waits after it failed: for each monitor on its own, and from the start again after a success.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::key::Key;

const FIRST: Duration = Duration::from_millis(500);

/// The failures in a row of each monitor.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<Key, Failures>>);

#[derive(Debug)]
struct Failures {
    count: u32,
    /// When the next try is due.
    due: Instant,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How many there were in a row.
    pub failures: u32,
    /// How long the next try waits.
    pub wait: Duration,
}

impl Backoff {
    /// Counts a failure, after which the next try waits at most `cap`. A monitor that came before that is due, for the sake of its
    /// pods or of an event, has not tried in vain once more: else what comes every second would make the wait the longest.
    pub fn failed(&self, key: &Key, cap: Duration, now: Instant) -> Retry {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = all.entry(key.clone()).or_insert(Failures { count: 0, due: now });
        if now >= failures.due {
            failures.count = failures.count.saturating_add(1);
            failures.due = now + delay(failures.count, cap);
        } else {
            // It may fail for another reason now, which is looked at again sooner.
            failures.due = failures.due.min(now + cap);
        }
        Retry {
            failures: failures.count,
            wait: failures.due - now,
        }
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
            .map_or(0, |failures| failures.count)
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
        let (backoff, cap) = (Backoff::default(), Duration::from_secs(60));
        let mut now = Instant::now();
        let mut fails = |key: &Key| {
            now += cap;
            backoff.failed(key, cap, now).failures
        };
        fails(&a);
        assert_eq!(fails(&a), 2);
        fails(&b);
        backoff.forget(&a);
        assert_eq!((backoff.failures(&a), backoff.failures(&b)), (0, 1));
        assert_eq!(fails(&a), 1);
    }

    #[test]
    fn a_try_before_its_time_is_no_further_failure_and_changes_nothing_about_the_next() {
        let (key, cap, begun) = (Key::new("bots", "a"), Duration::from_secs(60), Instant::now());
        let backoff = Backoff::default();
        let first = backoff.failed(&key, cap, begun);
        assert_eq!(first.failures, 1);
        let early = Duration::from_millis(100);
        for n in 1..3 {
            let passed = early * n;
            let again = backoff.failed(&key, cap, begun + passed);
            assert_eq!((again.failures, again.wait + passed), (1, first.wait));
        }
        let due = begun + first.wait;
        assert_eq!(backoff.failed(&key, cap, due).failures, 2);
        // Another reason, for which nothing is gained by waiting as long.
        let soon = Duration::from_millis(10);
        let sooner = backoff.failed(&key, soon, due);
        assert_eq!(
            sooner,
            Retry {
                failures: 2,
                wait: soon
            }
        );
    }
}
