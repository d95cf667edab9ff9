//! The last valid specs of monitors that are invalid now: their objects are kept as they were.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::Key;
use crate::api::RoseyMonitor;

/// What monitors were before they changed, for as long as what they are now is not known to be valid.
#[derive(Debug, Default)]
pub struct LastGood(Mutex<HashMap<Key, Arc<RoseyMonitor>>>);

impl LastGood {
    /// A monitor has changed. What it was before the first of several changes stays: only that has been applied.
    pub fn changed(&self, before: &Arc<RoseyMonitor>) {
        self.lock().entry(Key::of(before)).or_insert_with(|| Arc::clone(before));
    }

    /// A monitor is valid: what was before it is of no use.
    pub fn settled(&self, key: &Key, monitor: &RoseyMonitor) {
        let mut all = self.lock();
        // It may have changed again since it was read.
        if all
            .get(key)
            .is_some_and(|last| !is_same(last, monitor) || last.metadata.generation != monitor.metadata.generation)
        {
            all.remove(key);
        }
    }

    /// What a monitor was before it changed.
    #[must_use]
    pub fn of(&self, key: &Key, monitor: &RoseyMonitor) -> Option<Arc<RoseyMonitor>> {
        self.lock().get(key).filter(|last| is_same(last, monitor)).cloned()
    }

    /// Forgets a monitor.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Forgets everything: another replica may have applied others since.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<RoseyMonitor>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_same(last: &RoseyMonitor, monitor: &RoseyMonitor) -> bool {
    last.metadata.uid == monitor.metadata.uid
}
