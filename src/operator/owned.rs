//! What is known about the objects of the monitors: their metadata as the watches see it, and what our own last writes were.
//!
//! An event whose version is not newer than our last write of the object is the echo of that write and moves nothing. Any
//! other event makes the object unknown again, and its monitor due.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::key::{Key, Queue};
use crate::api::MONITOR_LABEL;
use crate::plan::Kind;

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

#[derive(Debug)]
struct Entry {
    monitor: Key,
    /// Newest version that a watch has told of.
    seen: u64,
    /// Uid and controlling monitor's uid, while the object exists as far as the watch knows.
    present: Option<(Box<str>, Option<Box<str>>)>,
    written: Option<Written>,
}

type Id = (Kind, Arc<str>, Arc<str>);
/// Namespace and name.
type Place = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Id, Entry>,
    of: HashMap<Key, BTreeSet<(Kind, Arc<str>)>>,
    /// Objects that the relist in progress has shown, by kind.
    listed: HashMap<Kind, BTreeSet<Place>>,
    /// Monitors that exist.
    monitors: BTreeSet<Key>,
    /// Monitors whose exporter has had its configuration. One that is removed is back at once: no reason to leave pods alone.
    configured: BTreeSet<Key>,
}

/// The objects of all monitors.
#[derive(Debug)]
pub struct Owned {
    inner: Mutex<Inner>,
    queue: Queue,
    /// Namespaces in which the exporter of at least one monitor finds its configuration.
    configured: watch::Sender<BTreeSet<String>>,
}

impl Owned {
    /// Knows nothing yet, and tells `queue` which monitors become due.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self {
            inner: Mutex::default(),
            queue,
            configured: watch::Sender::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the namespaces whose pods find an exporter's configuration.
    #[must_use]
    pub fn configured(&self) -> watch::Receiver<BTreeSet<String>> {
        self.configured.subscribe()
    }

    /// What is known about an object for which `hash` is planned.
    #[must_use]
    pub fn standing(&self, key: &Key, kind: Kind, name: &str, hash: u64) -> Standing {
        let inner = self.lock();
        let Some(entry) = inner.entries.get(&id(kind, key, name)) else {
            return Standing::Unseen;
        };
        match &entry.written {
            Some(written) if written.version >= entry.seen && written.hash == hash => Standing::Settled,
            Some(written) if written.version >= entry.seen => Standing::Ours {
                uid: written.uid.clone(),
            },
            _ if entry.present.is_some() => Standing::Unknown,
            _ => Standing::Unseen,
        }
    }

    /// Remembers a write of ours, or a read that found everything in place.
    pub fn record(&self, key: &Key, kind: Kind, name: &str, written: Written) {
        let mut inner = self.lock();
        inner.entry(key, kind, name).written = Some(written);
        self.configure(&mut inner, kind, key);
    }

    /// Version of an object, while nobody has touched it since our last write or read.
    #[must_use]
    pub fn version(&self, key: &Key, kind: Kind, name: &str) -> Option<u64> {
        let inner = self.lock();
        let entry = inner.entries.get(&id(kind, key, name))?;
        Some(
            entry
                .seen
                .max(entry.written.as_ref().map_or(0, |written| written.version)),
        )
    }

    /// The objects that belong to the monitor with this uid and are not planned.
    #[must_use]
    pub fn leftovers(&self, key: &Key, uid: &str, planned: &BTreeSet<(Kind, &str)>) -> Vec<Leftover> {
        let inner = self.lock();
        let names = inner
            .of
            .get(key)
            .into_iter()
            .flatten()
            .filter(|(kind, name)| !planned.contains(&(*kind, &**name)));
        names
            .filter_map(|(kind, name)| {
                let entry = inner
                    .entries
                    .get(&(*kind, Arc::clone(&key.namespace), Arc::clone(name)))?;
                let (object, version) = match (&entry.written, &entry.present) {
                    // The watch may be behind our own last write, or not know the object yet.
                    (Some(written), _) if written.version >= entry.seen => (written.uid.clone(), written.version),
                    (_, Some((object, owner))) if owner.as_deref() == Some(uid) => (object.clone(), entry.seen),
                    _ => return None,
                };
                Some(Leftover {
                    kind: *kind,
                    name: Arc::clone(name),
                    uid: object,
                    version,
                })
            })
            .collect()
    }

    /// Forgets our last write of an object: it has been removed since, or does not hold what was planned.
    pub fn forget(&self, key: &Key, kind: Kind, name: &str) {
        if let Some(entry) = self.lock().entries.get_mut(&id(kind, key, name)) {
            entry.written = None;
        }
    }

    /// Forgets our own writes: a new leader reads every object before it trusts it.
    pub fn distrust(&self) {
        for entry in self.lock().entries.values_mut() {
            entry.written = None;
        }
    }

    /// A monitor exists.
    pub fn monitor_exists(&self, key: &Key) {
        let mut inner = self.lock();
        if inner.monitors.insert(key.clone()) {
            self.publish(&inner);
        }
    }

    /// A monitor is gone; the garbage collector takes its objects.
    pub fn monitor_gone(&self, key: &Key) {
        let mut inner = self.lock();
        inner.monitors.remove(key);
        inner.configured.remove(key);
        let absent: Vec<Id> = inner
            .of
            .get(key)
            .into_iter()
            .flatten()
            .map(|(kind, name)| id(*kind, key, name))
            .collect();
        for id in absent {
            if inner.entries.get(&id).is_some_and(|entry| entry.present.is_none()) {
                inner.remove(&id);
            }
        }
        self.publish(&inner);
    }

    /// Takes in what a watch of `kind` says.
    pub fn observe(&self, kind: Kind, event: Event<PartialObjectMeta<DynamicObject>>) {
        let mut inner = self.lock();
        match event {
            Event::Init => {
                inner.listed.insert(kind, BTreeSet::new());
            }
            Event::InitApply(object) => {
                if let Some(place) = place(&object) {
                    inner.listed.entry(kind).or_default().insert(place);
                }
                self.appeared(&mut inner, kind, &object);
            }
            Event::InitDone => {
                let listed = inner.listed.remove(&kind).unwrap_or_default();
                self.absent_but(&mut inner, kind, &listed);
            }
            Event::Apply(object) => self.appeared(&mut inner, kind, &object),
            Event::Delete(object) => self.vanished(&mut inner, kind, &object),
        }
    }

    /// The kind is no longer served: none of its objects exist.
    pub fn kind_gone(&self, kind: Kind) {
        let mut inner = self.lock();
        self.absent_but(&mut inner, kind, &BTreeSet::new());
    }

    fn appeared(&self, inner: &mut Inner, kind: Kind, object: &PartialObjectMeta<DynamicObject>) {
        let Some((namespace, name)) = place(object) else { return };
        // Whose it was before an edit comes first: it is that monitor which has to mend it.
        let known = inner.monitor_of(kind, &namespace, &name);
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
        let owner = owner.map(|owner| owner.uid.as_str().into());
        let entry = inner.entry(&monitor, kind, &name);
        if entry.written.as_ref().is_none_or(|written| version > written.version) && version > entry.seen {
            self.queue.push(&monitor);
        }
        entry.seen = entry.seen.max(version);
        entry.present = Some((object.metadata.uid.as_deref().unwrap_or_default().into(), owner));
        self.configure(inner, kind, &monitor);
    }

    fn vanished(&self, inner: &mut Inner, kind: Kind, object: &PartialObjectMeta<DynamicObject>) {
        let Some((namespace, name)) = place(object) else { return };
        let id = (kind, namespace, name);
        let Some(entry) = inner.entries.get_mut(&id) else {
            return;
        };
        let version = version(object);
        // A later incarnation of ours is there already: this is the end of the one before it.
        if entry.written.as_ref().is_some_and(|written| written.version > version) {
            return;
        }
        entry.seen = entry.seen.max(version);
        entry.present = None;
        entry.written = None;
        self.queue.push(&entry.monitor);
        let monitor = entry.monitor.clone();
        if !inner.monitors.contains(&monitor) {
            inner.configured.remove(&monitor);
            inner.remove(&id);
        }
    }

    fn absent_but(&self, inner: &mut Inner, kind: Kind, listed: &BTreeSet<Place>) {
        let gone: Vec<Id> = inner
            .entries
            .keys()
            .filter(|(k, namespace, name)| *k == kind && !listed.contains(&(Arc::clone(namespace), Arc::clone(name))))
            .cloned()
            .collect();
        for id in gone {
            if let Some(entry) = inner.remove(&id) {
                self.queue.push(&entry.monitor);
            }
        }
    }

    fn configure(&self, inner: &mut Inner, kind: Kind, monitor: &Key) {
        if kind == Kind::ConfigMap && inner.configured.insert(monitor.clone()) {
            self.publish(inner);
        }
    }

    fn publish(&self, inner: &Inner) {
        let configured = inner.configured.intersection(&inner.monitors);
        let configured: BTreeSet<String> = configured.map(|monitor| monitor.namespace.to_string()).collect();
        self.configured.send_if_modified(|now| {
            let changed = *now != configured;
            if changed {
                *now = configured;
            }
            changed
        });
    }
}

impl Inner {
    /// What is known of an object, which belongs to `monitor` from now on.
    fn entry(&mut self, monitor: &Key, kind: Kind, name: &str) -> &mut Entry {
        let id = id(kind, monitor, name);
        let before = self.entries.get(&id).map(|entry| entry.monitor.clone());
        if let Some(before) = before.filter(|before| before != monitor) {
            self.unlist(&before, &id);
        }
        self.of
            .entry(monitor.clone())
            .or_default()
            .insert((kind, Arc::clone(&id.2)));
        let entry = self.entries.entry(id).or_insert_with(|| Entry {
            monitor: monitor.clone(),
            seen: 0,
            present: None,
            written: None,
        });
        entry.monitor.clone_from(monitor);
        entry
    }

    fn remove(&mut self, id: &Id) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.unlist(&entry.monitor, id);
        Some(entry)
    }

    fn unlist(&mut self, monitor: &Key, id: &Id) {
        if let Some(of) = self.of.get_mut(monitor) {
            of.remove(&(id.0, Arc::clone(&id.2)));
            if of.is_empty() {
                self.of.remove(monitor);
            }
        }
    }

    /// The monitor of an object that is known already, whatever it says of itself by now.
    fn monitor_of(&self, kind: Kind, namespace: &Arc<str>, name: &Arc<str>) -> Option<Key> {
        self.entries
            .get(&(kind, Arc::clone(namespace), Arc::clone(name)))
            .filter(|entry| entry.present.is_some() || entry.written.is_some())
            .map(|entry| entry.monitor.clone())
    }
}

fn id(kind: Kind, key: &Key, name: &str) -> Id {
    (kind, Arc::clone(&key.namespace), name.into())
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
