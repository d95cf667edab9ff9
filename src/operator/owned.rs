//! What is known about the objects of the monitors: their metadata as the watches see it, and what our own last writes were.
//!
//! An event whose version is not newer than our last write of the object is the echo of that write and moves nothing. Any
//! other event makes the object unknown again, and its monitor due.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::area::Area;
use super::key::{Key, Queue};
use crate::api::MONITOR_LABEL;
use crate::plan::Kind;

mod book;

use book::{Book, Group, Id, Last, Place};

/// What one of our writes, or a read that found everything in place, left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Uid of the object.
    pub uid: Box<str>,
    /// Version of the object.
    pub version: u64,
    /// Hash of what was planned for it.
    pub hash: u64,
}

/// What is known before an object is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is as planned, and nobody has touched it since.
    Settled,
    /// Nobody has touched it since our last write, which was of another plan.
    Ours {
        /// Its uid.
        uid: Box<str>,
        /// The version that we left.
        version: u64,
    },
    /// It exists, or existed a moment ago; it has to be read.
    Unknown,
    /// No watch has seen it.
    Unseen,
}

/// An object that the plan no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// Its version.
    pub version: u64,
}

/// The objects of all monitors.
#[derive(Debug)]
pub struct Owned {
    book: Mutex<Book>,
    queue: Queue,
    /// Namespaces in which the exporter of at least one monitor finds its configuration.
    configured: watch::Sender<BTreeSet<String>>,
}

impl Owned {
    /// Knows nothing yet, and tells `queue` which monitors become due.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self {
            book: Mutex::default(),
            queue,
            configured: watch::Sender::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the namespaces whose pods find an exporter's configuration.
    #[must_use]
    pub fn configured(&self) -> watch::Receiver<BTreeSet<String>> {
        self.configured.subscribe()
    }

    /// What is known about an object for which the monitor with the uid `owner` has planned what `hash` stands for.
    #[must_use]
    pub fn standing(&self, key: &Key, owner: &str, kind: Kind, name: &str, hash: u64) -> Standing {
        let book = self.lock();
        let Some(entry) = book.entry(kind, key, name) else {
            return Standing::Unseen;
        };
        match &entry.written {
            Some(written) if written.version >= entry.seen && written.hash == hash => Standing::Settled,
            Some(written) if written.version >= entry.seen && entry.owner.as_deref() == Some(owner) => Standing::Ours {
                uid: entry.uid.clone(),
                version: written.version,
            },
            None if !entry.present => Standing::Unseen,
            _ => Standing::Unknown,
        }
    }

    /// Whether the monitor has no object of this name so far.
    #[must_use]
    pub fn is_absent(&self, key: &Key, kind: Kind, name: &str) -> bool {
        let book = self.lock();
        let entry = book.entry(kind, key, name);
        entry.is_none_or(|entry| !entry.present && entry.written.is_none())
    }

    /// Remembers a write for the monitor with the uid `owner`, or a read that found everything in place.
    pub fn record(&self, key: &Key, owner: &str, kind: Kind, name: &str, written: Written) {
        let mut book = self.lock();
        let owner = book.shared(key, owner);
        let entry = book.entry_mut(key, kind, name);
        if written.version >= entry.seen {
            entry.uid = written.uid;
            entry.owner = Some(owner);
        }
        entry.written = Some(Last {
            version: written.version,
            hash: written.hash,
        });
        self.configure(&mut book, kind, key);
    }

    /// Version of an object, while nobody has touched it since our last write or read.
    #[must_use]
    pub fn version(&self, key: &Key, kind: Kind, name: &str) -> Option<u64> {
        let book = self.lock();
        let entry = book.entry(kind, key, name)?;
        Some(
            entry
                .seen
                .max(entry.written.as_ref().map_or(0, |written| written.version)),
        )
    }

    /// The objects that belong to the monitor with this uid and are not planned.
    #[must_use]
    pub fn leftovers(&self, key: &Key, uid: &str, planned: &BTreeSet<(Kind, &str)>) -> Vec<Leftover> {
        let book = self.lock();
        let objects = book.objects(key);
        let left = objects.filter(|(kind, name)| !planned.contains(&(*kind, &**name)));
        left.filter_map(|(kind, name)| {
            let entry = book.entry(*kind, key, name)?;
            let version = match &entry.written {
                _ if entry.owner.as_deref() != Some(uid) => return None,
                // The watch may be behind our own last write, or not know the object yet.
                Some(written) if written.version >= entry.seen => written.version,
                _ if entry.present => entry.seen,
                _ => return None,
            };
            Some(Leftover {
                kind: *kind,
                name: Arc::clone(name),
                uid: entry.uid.clone(),
                version,
            })
        })
        .collect()
    }

    /// Forgets our last write of an object: it has been removed since, or does not hold what was planned.
    pub fn forget(&self, key: &Key, kind: Kind, name: &str) {
        if let Some(entry) = self.lock().known_mut(&book::id(kind, key, name)) {
            entry.written = None;
        }
    }

    /// Forgets our own writes: a new leader reads every object before it trusts it.
    pub fn distrust(&self) {
        for entry in self.lock().all_mut() {
            entry.written = None;
        }
    }

    /// A monitor exists.
    pub fn monitor_exists(&self, key: &Key) {
        self.mark(&mut self.lock(), key, |group| group.exists = true);
    }

    /// A monitor is gone; the garbage collector takes its objects.
    pub fn monitor_gone(&self, key: &Key) {
        let mut book = self.lock();
        let objects: Vec<Id> = book
            .objects(key)
            .map(|(kind, name)| book::id(*kind, key, name))
            .collect();
        for id in objects {
            match book.known_mut(&id) {
                // Not the next monitor's of this name, which has to look at it.
                Some(entry) if entry.present => entry.written = None,
                _ => _ = book.remove(&id),
            }
        }
        self.mark(&mut book, key, |group| {
            (group.exists, group.configured) = (false, false);
        });
    }

    /// Takes in what a watch of `kind` in an area says.
    pub fn observe(&self, kind: Kind, area: &Area, event: Event<PartialObjectMeta<DynamicObject>>) {
        let mut book = self.lock();
        match event {
            Event::Init => {
                let listed = book.listed.entry(kind).or_default();
                listed.retain(|(namespace, _)| !area.has(namespace));
            }
            Event::InitApply(object) => {
                if let Some(place) = place(&object) {
                    book.listed.entry(kind).or_default().insert(place);
                }
                self.appeared(&mut book, kind, &object);
            }
            Event::InitDone => {
                let listed = book.listed.remove(&kind).unwrap_or_default();
                let (here, others) = listed.into_iter().partition(|(namespace, _)| area.has(namespace));
                book.listed.insert(kind, others);
                self.absent_but(&mut book, kind, area, &here);
            }
            Event::Apply(object) => self.appeared(&mut book, kind, &object),
            Event::Delete(object) => self.vanished(&mut book, kind, &object),
        }
    }

    /// The kind is no longer served: none of its objects exist.
    pub fn kind_gone(&self, kind: Kind) {
        let mut book = self.lock();
        self.absent_but(&mut book, kind, &Area::Cluster, &BTreeSet::new());
    }

    fn appeared(&self, book: &mut Book, kind: Kind, object: &PartialObjectMeta<DynamicObject>) {
        let Some((namespace, name)) = place(object) else { return };
        // Whose it was before an edit comes first: it is that monitor which has to mend it.
        let known = book.monitor_of(kind, &namespace, &name);
        let Some(monitor) = known.or_else(|| monitor(object)) else {
            return;
        };
        let version = version(object);
        let owner = object
            .metadata
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.controller == Some(true));
        let owner = owner.map(|owner| book.shared(&monitor, &owner.uid));
        let entry = book.entry_mut(&monitor, kind, &name);
        let last = entry.written.as_ref().map_or(0, |written| written.version);
        if version > last && version > entry.seen {
            self.queue.push(&monitor);
        }
        if version >= last && version >= entry.seen {
            entry.uid = object.metadata.uid.as_deref().unwrap_or_default().into();
            entry.owner = owner;
        }
        entry.seen = entry.seen.max(version);
        entry.present = true;
        self.configure(book, kind, &monitor);
    }

    fn vanished(&self, book: &mut Book, kind: Kind, object: &PartialObjectMeta<DynamicObject>) {
        let Some((namespace, name)) = place(object) else { return };
        let id = (kind, namespace, name);
        let Some(entry) = book.known_mut(&id) else {
            return;
        };
        let version = version(object);
        // A later incarnation of ours is there already: this is the end of the one before it.
        if entry.written.as_ref().is_some_and(|written| written.version > version) {
            return;
        }
        entry.seen = entry.seen.max(version);
        entry.present = false;
        entry.written = None;
        let monitor = Arc::clone(&entry.monitor);
        self.queue.push(&monitor);
        if !book.exists(&monitor) {
            self.mark(book, &monitor, |group| group.configured = false);
            book.remove(&id);
        }
    }

    fn absent_but(&self, book: &mut Book, kind: Kind, area: &Area, listed: &BTreeSet<Place>) {
        for id in book.absent_but(kind, area, listed) {
            if let Some(entry) = book.remove(&id) {
                self.queue.push(&entry.monitor);
            }
        }
    }

    fn configure(&self, book: &mut Book, kind: Kind, monitor: &Key) {
        if kind == Kind::ConfigMap {
            self.mark(book, monitor, |group| group.configured = true);
        }
    }

    /// Changes what is known of a monitor, and tells whether its namespace has pods to be given an exporter.
    fn mark(&self, book: &mut Book, monitor: &Key, change: impl FnOnce(&mut Group)) {
        let namespace = &monitor.namespace;
        match book.mark(monitor, change) {
            Some(true) => self.configured.send_modify(|all| _ = all.insert(namespace.to_string())),
            Some(false) => self.configured.send_modify(|all| _ = all.remove(&**namespace)),
            None => {}
        }
    }
}

fn place(object: &PartialObjectMeta<DynamicObject>) -> Option<Place> {
    Some((
        object.metadata.namespace.as_deref()?.into(),
        object.metadata.name.as_deref()?.into(),
    ))
}

/// The monitor that an object says it belongs to: its owner, else its label.
fn monitor(object: &PartialObjectMeta<DynamicObject>) -> Option<Key> {
    let metadata = &object.metadata;
    let mut owners = metadata.owner_references.iter().flatten();
    let owner = owners
        .find(|owner| owner.kind == "RoseyMonitor")
        .map(|owner| owner.name.as_str());
    let label = || metadata.labels.as_ref()?.get(MONITOR_LABEL).map(String::as_str);
    Some(Key::new(metadata.namespace.as_deref()?, owner.or_else(label)?))
}

fn version(object: &PartialObjectMeta<DynamicObject>) -> u64 {
    parse_version(object.metadata.resource_version.as_deref())
}

/// A resource version as a number. Kubernetes promises that they are, and that a later one is greater.
#[must_use]
pub fn parse_version(version: Option<&str>) -> u64 {
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
