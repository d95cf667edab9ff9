//! Which monitor: its namespace and name, and the queue of those that are due.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

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

/// Where caches say which monitors have to be looked at again. Open while this replica leads; otherwise what is said is
/// dropped, because a new leader looks at every monitor anyway.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<Mutex<Option<mpsc::UnboundedSender<Key>>>>);

impl Queue {
    /// Has a monitor looked at.
    pub fn push(&self, key: &Key) {
        if let Some(open) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = open.send(key.clone());
        }
    }

    /// Whether somebody looks at what is pushed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Opens the queue; an earlier opening ends.
    #[must_use]
    pub fn open(&self) -> mpsc::UnboundedReceiver<Key> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Closes the queue.
    pub fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
