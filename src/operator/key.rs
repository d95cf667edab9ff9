//! Which monitor: its namespace and name, and the queue of those that are due.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Notify, mpsc};

use crate::api::RoseyMonitor;

/// Namespace and name of a monitor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Key {
    /// The monitor `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of a monitor.
    #[must_use]
    pub fn of(monitor: &RoseyMonitor) -> Self {
        Self::new(
            monitor.metadata.namespace.as_deref().unwrap_or_default(),
            &monitor.name_any(),
        )
    }

    /// As caches know it.
    #[must_use]
    pub fn reference(&self) -> ObjectRef<RoseyMonitor> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Least time between two looks at what was gathered.
const APART: Duration = Duration::from_millis(500);

/// Where caches say which monitors have to be looked at again. Open while this replica leads; otherwise what is said is
/// dropped, because a new leader looks at every monitor anyway.
///
/// What a monitor's owner does is pushed, and looked at at once. What others do in streams, as pods and Events, is gathered: each
/// look may cost a write of the status.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    open: Mutex<Option<Open>>,
    news: Notify,
}

#[derive(Debug)]
struct Open {
    due: mpsc::UnboundedSender<Key>,
    gathered: BTreeSet<Key>,
}

impl Queue {
    /// Has a monitor looked at.
    pub fn push(&self, key: &Key) {
        if let Some(open) = &*self.lock() {
            let _ = open.due.send(key.clone());
        }
    }

    /// Has a monitor looked at soon, once for all that is gathered of it until then.
    pub fn gather(&self, key: &Key) {
        if let Some(open) = &mut *self.lock()
            && open.gathered.insert(key.clone())
        {
            self.0.news.notify_one();
        }
    }

    /// Passes on what is gathered, the first after a quiet time at once, until dropped.
    pub async fn pass_on(&self) {
        loop {
            // What is gathered during the sleep leaves its permit here.
            self.0.news.notified().await;
            if self.pass() {
                tokio::time::sleep(APART).await;
            }
        }
    }

    /// Passes on what is gathered by now; whether there was any.
    pub fn pass(&self) -> bool {
        let mut open = self.lock();
        let Some(Open { due, gathered }) = &mut *open else {
            return false;
        };
        let any = !gathered.is_empty();
        for key in std::mem::take(gathered) {
            let _ = due.send(key);
        }
        any
    }

    /// Whether somebody looks at what is pushed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Opens the queue; an earlier opening ends, and what it has gathered goes with it.
    #[must_use]
    pub fn open(&self) -> mpsc::UnboundedReceiver<Key> {
        let (due, receiver) = mpsc::unbounded_channel();
        *self.lock() = Some(Open {
            due,
            gathered: BTreeSet::new(),
        });
        receiver
    }

    /// Closes the queue.
    pub fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep, sleep_until};

    use super::*;

    type Seen = Arc<Mutex<Vec<(Duration, Key)>>>;

    /// An open queue that passes on, and which keys came out of it when.
    fn passing() -> (Queue, Seen) {
        let (queue, seen, start) = (Queue::default(), Seen::default(), Instant::now());
        let (mut due, passes, notes) = (queue.open(), queue.clone(), Arc::clone(&seen));
        tokio::spawn(async move { passes.pass_on().await });
        tokio::spawn(async move {
            while let Some(key) = due.recv().await {
                notes.lock().unwrap().push((start.elapsed(), key));
            }
        });
        (queue, seen)
    }

    fn times(seen: &Seen, key: &Key) -> Vec<u128> {
        let seen = seen.lock().unwrap();
        let times = seen.iter().filter(|(_, other)| other == key);
        times.map(|(at, _)| at.as_millis()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_makes_a_monitor_due_twice_a_second_and_at_once_when_it_begins() {
        let ((queue, seen), start) = (passing(), Instant::now());
        let [streamed, edited, last] = ["streamed", "edited", "last"].map(|name| Key::new("bots", name));
        for n in 0..1000 {
            sleep_until(start + Duration::from_millis(2 * n)).await;
            queue.gather(&streamed);
            if n == 600 {
                queue.push(&edited);
            }
        }
        queue.gather(&last);
        sleep(APART * 2).await;
        assert_eq!(times(&seen, &streamed), [0, 500, 1000, 1500, 2000]);
        assert_eq!(times(&seen, &edited), [1200]);
        assert_eq!(times(&seen, &last), [2000], "nothing stays behind");
        queue.gather(&streamed);
        sleep(APART / 2).await;
        assert_eq!(times(&seen, &streamed).last(), Some(&2998), "it was quiet before");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_gathered_in_an_earlier_term_is_not_passed_on_and_what_follows_is() {
        let (queue, key) = (Queue::default(), Key::new("bots", "rosey"));
        queue.gather(&key);
        let _before = queue.open();
        queue.gather(&key);
        queue.close();
        queue.gather(&key);
        let mut due = queue.open();
        let passes = queue.clone();
        tokio::spawn(async move { passes.pass_on().await });
        sleep(APART * 2).await;
        assert!(due.try_recv().is_err());
        queue.gather(&key);
        assert_eq!(due.recv().await, Some(key));
    }
}
