//! What is written down about each object, and about each monitor. All objects of a monitor share its texts.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::area::Area;
use super::super::key::Key;
use crate::plan::Kind;

/// Kind, namespace and name of an object.
pub type Id = (Kind, Arc<str>, Arc<str>);
/// Namespace and name.
pub type Place = (Arc<str>, Arc<str>);

/// Our last write of an object.
#[derive(Debug)]
pub struct Last {
    pub version: u64,
    pub hash: u64,
}

/// What is known of an object.
#[derive(Debug)]
pub struct Entry {
    pub monitor: Arc<Key>,
    /// Newest version that a watch has told of.
    pub seen: u64,
    /// Whether it exists as far as the watch knows.
    pub present: bool,
    /// Uid of its newest incarnation that is known.
    pub uid: Box<str>,
    /// Uid of the monitor that controls this incarnation.
    pub owner: Option<Arc<str>>,
    pub written: Option<Last>,
}

/// What is known of a monitor.
#[derive(Debug, Default)]
pub struct Group {
    pub exists: bool,
    /// Its exporter has had its configuration. One that is removed is back at once: no reason to leave pods alone.
    pub configured: bool,
    /// Uid of the monitor that controls its objects, as far as they share one.
    owner: Option<Arc<str>>,
    objects: BTreeSet<(Kind, Arc<str>)>,
}

impl Group {
    fn counts(&self) -> bool {
        self.exists && self.configured
    }
}

/// Everything that is written down.
#[derive(Debug, Default)]
pub struct Book {
    entries: HashMap<Id, Entry>,
    groups: HashMap<Arc<Key>, Group>,
    /// Objects that the relists in progress have shown, by kind.
    pub listed: HashMap<Kind, BTreeSet<Place>>,
    /// How many existing monitors of a namespace have had their configuration.
    configured: HashMap<Arc<str>, usize>,
}

impl Book {
    pub fn entry(&self, kind: Kind, monitor: &Key, name: &str) -> Option<&Entry> {
        self.entries.get(&id(kind, monitor, name))
    }

    pub fn known_mut(&mut self, id: &Id) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut()
    }

    /// What is known of an object, which belongs to `monitor` from now on.
    pub fn entry_mut(&mut self, monitor: &Key, kind: Kind, name: &str) -> &mut Entry {
        let monitor = self.key(monitor);
        let id = id(kind, &monitor, name);
        let before = self.entries.get(&id).map(|entry| Arc::clone(&entry.monitor));
        if let Some(before) = before.filter(|before| *before != monitor) {
            self.unlist(&before, &id);
        }
        let objects = &mut self.groups.entry(Arc::clone(&monitor)).or_default().objects;
        objects.insert((kind, Arc::clone(&id.2)));
        let entry = self.entries.entry(id).or_insert_with(|| Entry {
            monitor: Arc::clone(&monitor),
            seen: 0,
            present: false,
            uid: Box::default(),
            owner: None,
            written: None,
        });
        entry.monitor = monitor;
        entry
    }

    pub fn remove(&mut self, id: &Id) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.unlist(&entry.monitor, id);
        Some(entry)
    }

    /// The objects of a monitor.
    pub fn objects(&self, monitor: &Key) -> impl Iterator<Item = &(Kind, Arc<str>)> {
        self.groups.get(monitor).into_iter().flat_map(|group| &group.objects)
    }

    /// The objects of a kind in an area that are not among those listed.
    pub fn absent_but(&self, kind: Kind, area: &Area, listed: &BTreeSet<Place>) -> Vec<Id> {
        let of = self.entries.keys();
        let of = of.filter(|(of, namespace, _)| *of == kind && area.has(namespace));
        of.filter(|(_, namespace, name)| !listed.contains(&(Arc::clone(namespace), Arc::clone(name))))
            .cloned()
            .collect()
    }

    /// The monitor of an object that is known already, whatever it says of itself by now.
    pub fn monitor_of(&self, kind: Kind, namespace: &Arc<str>, name: &Arc<str>) -> Option<Key> {
        let entry = self.entries.get(&(kind, Arc::clone(namespace), Arc::clone(name)))?;
        (entry.present || entry.written.is_some()).then(|| Key::clone(&entry.monitor))
    }

    /// The uid of a monitor as its objects share it.
    pub fn shared(&mut self, monitor: &Key, uid: &str) -> Arc<str> {
        let group = self.groups.entry(self.key(monitor)).or_default();
        match &group.owner {
            Some(owner) if **owner == *uid => Arc::clone(owner),
            _ => Arc::clone(group.owner.insert(uid.into())),
        }
    }

    pub fn exists(&self, monitor: &Key) -> bool {
        self.groups.get(monitor).is_some_and(|group| group.exists)
    }

    /// Changes what is known of a monitor. Answers whether its namespace now has exporters with a configuration, if that
    /// changes with it.
    pub fn mark(&mut self, monitor: &Key, change: impl FnOnce(&mut Group)) -> Option<bool> {
        let monitor = self.key(monitor);
        let group = self.groups.entry(Arc::clone(&monitor)).or_default();
        let before = group.counts();
        change(group);
        let after = group.counts();
        self.drop_idle(&monitor);
        if before == after {
            return None;
        }
        let count = self.configured.entry(Arc::clone(&monitor.namespace)).or_default();
        if after {
            *count += 1;
            return (*count == 1).then_some(true);
        }
        *count = count.saturating_sub(1);
        if *count > 0 {
            return None;
        }
        self.configured.remove(&monitor.namespace);
        Some(false)
    }

    /// The key of a monitor as everything of it shares it.
    fn key(&self, monitor: &Key) -> Arc<Key> {
        match self.groups.get_key_value(monitor) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(monitor.clone()),
        }
    }

    fn unlist(&mut self, monitor: &Key, id: &Id) {
        if let Some(group) = self.groups.get_mut(monitor) {
            group.objects.remove(&(id.0, Arc::clone(&id.2)));
        }
        self.drop_idle(monitor);
    }

    fn drop_idle(&mut self, monitor: &Key) {
        let idle = |group: &Group| !group.exists && !group.configured && group.objects.is_empty();
        if self.groups.get(monitor).is_some_and(idle) {
            self.groups.remove(monitor);
        }
    }
}

pub fn id(kind: Kind, monitor: &Key, name: &str) -> Id {
    (kind, Arc::clone(&monitor.namespace), name.into())
}
