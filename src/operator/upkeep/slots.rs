//! How many monitors have a pod changed or replaced at the same time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::operator::key::Key;

/// A new image that is bad everywhere is found out by so many pods.
const AT_ONCE: usize = 5;

/// Who has a turn, and who waits for one.
#[derive(Debug, Default)]
pub struct Slots(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    busy: BTreeSet<Key>,
    waiting: VecDeque<Key>,
}

impl Slots {
    /// Takes a turn, or waits for one: then a [`release`](Self::release) names this monitor.
    pub fn take(&self, key: &Key) -> bool {
        let mut turns = self.lock();
        let free = turns.busy.contains(key) || turns.busy.len() < AT_ONCE;
        turns.waiting.retain(|waiting| waiting != key);
        if free {
            turns.busy.insert(key.clone());
        } else {
            turns.waiting.push_back(key.clone());
        }
        free
    }

    /// Has a turn, whoever began it.
    pub fn hold(&self, key: &Key) {
        self.lock().busy.insert(key.clone());
    }

    /// Gives its turn back, or waits no longer; returns who is to be looked at now.
    pub fn release(&self, key: &Key) -> Option<Key> {
        let mut turns = self.lock();
        turns.busy.remove(key);
        turns.waiting.retain(|waiting| waiting != key);
        if turns.busy.len() < AT_ONCE {
            turns.waiting.pop_front()
        } else {
            None
        }
    }

    /// Forgets everybody.
    pub fn clear(&self) {
        *self.lock() = Turns::default();
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        Key::new("bots", &n.to_string())
    }

    #[test]
    fn no_more_monitors_than_that_are_busy_at_once_and_those_that_wait_get_their_turn_in_order() {
        let slots = Slots::default();
        for n in 0..AT_ONCE {
            assert!(slots.take(&key(n)));
        }
        assert!(slots.take(&key(0)), "who has a turn keeps it");
        assert!(!slots.take(&key(10)) && !slots.take(&key(11)) && !slots.take(&key(12)));
        assert_eq!(slots.release(&key(11)), None, "who waits no longer frees nothing");
        assert_eq!(slots.release(&key(0)), Some(key(10)));
        assert!(slots.take(&key(10)));
        assert!(!slots.take(&key(13)));
        assert_eq!(slots.release(&key(1)), Some(key(12)));
        // It is gone by now: the next one is told.
        assert_eq!(slots.release(&key(12)), Some(key(13)));
    }

    #[test]
    fn what_another_leader_has_begun_counts_even_beyond_the_bound() {
        let slots = Slots::default();
        for n in 0..=AT_ONCE {
            slots.hold(&key(n));
        }
        assert!(!slots.take(&key(10)));
        assert_eq!(slots.release(&key(0)), None);
        assert_eq!(slots.release(&key(1)), Some(key(10)));
        slots.clear();
        assert!(slots.take(&key(11)));
    }
}
