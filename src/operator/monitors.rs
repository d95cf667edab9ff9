//! The monitors of the cluster, as the last watch event left them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tracing::error;

use super::area::Area;
use super::key::{Key, Queue};
use super::metrics::Metrics;
use super::owned::Owned;
use crate::api::RoseyMonitor;

/// All monitors, readable from everywhere.
#[derive(Clone, Debug)]
pub struct Monitors {
    store: Store<RoseyMonitor>,
    /// Those of the store by namespace and name: a pod's creation asks for a whole namespace.
    placed: Arc<RwLock<HashMap<String, Names>>>,
}

type Names = BTreeMap<String, Arc<RoseyMonitor>>;

/// The monitors, and what fills them.
#[must_use]
pub fn pair() -> (Monitors, Writer<RoseyMonitor>) {
    let (store, writer) = reflector::store();
    (
        Monitors {
            store,
            placed: Arc::default(),
        },
        writer,
    )
}

impl Monitors {
    /// The cache itself.
    #[must_use]
    pub fn store(&self) -> Store<RoseyMonitor> {
        self.store.clone()
    }

    /// A monitor, if there is one.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<RoseyMonitor>> {
        self.store.get(&key.reference())
    }

    /// Visits each monitor of a namespace.
    pub fn each_in(&self, namespace: &str, mut visit: impl FnMut(&RoseyMonitor)) {
        let placed = self.placed.read().unwrap_or_else(PoisonError::into_inner);
        placed
            .get(namespace)
            .into_iter()
            .flat_map(BTreeMap::values)
            .for_each(|monitor| visit(monitor));
    }

    /// All monitors of a namespace.
    #[must_use]
    pub fn all_in(&self, namespace: &str) -> Vec<Arc<RoseyMonitor>> {
        let placed = self.placed.read().unwrap_or_else(PoisonError::into_inner);
        let monitors = placed.get(namespace).into_iter().flat_map(BTreeMap::values);
        monitors.cloned().collect()
    }

    /// Finds a monitor, which the store has by now, by its namespace from now on.
    pub fn index(&self, monitor: &RoseyMonitor) {
        let Some(kept) = self.get(&Key::of(monitor)) else {
            return;
        };
        let mut placed = self.placed.write().unwrap_or_else(PoisonError::into_inner);
        placed
            .entry(monitor.namespace().unwrap_or_default())
            .or_default()
            .insert(monitor.name_any(), kept);
    }

    fn forget(&self, key: &Key) {
        let mut placed = self.placed.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = placed.get_mut(&*key.namespace) {
            of.remove(&*key.name);
            if of.is_empty() {
                placed.remove(&*key.namespace);
            }
        }
    }
}

/// Is told of a monitor, and of what the cache had of it before.
pub type Told = dyn Fn(&RoseyMonitor, Option<&Arc<RoseyMonitor>>) + Send;

/// Takes in what the watch of the monitors says, and tells who has to know.
pub struct Feed {
    /// What is filled.
    pub monitors: Monitors,
    /// What fills it.
    pub writer: Writer<RoseyMonitor>,
    /// Told which monitors exist.
    pub owned: Arc<Owned>,
    /// Told which monitors are due.
    pub queue: Queue,
    /// Told of monitors that can't be read.
    pub metrics: Arc<Metrics>,
    /// Told of monitors that are there, and of what the cache had of them before.
    pub told: Box<Told>,
    /// Told of monitors that are gone.
    pub gone: Box<dyn Fn(&Key) + Send>,
    /// Monitors that the relists in progress have shown.
    pub listed: BTreeSet<Key>,
}

impl Feed {
    /// Takes in one event of an area.
    pub fn observe(&mut self, area: &Area, event: Event<DeserializeGuard<RoseyMonitor>>) {
        match (area, event) {
            // The store takes a list as all that there is.
            (Area::Namespace(_), Event::Init) => self.listed.retain(|key| !area.has(&key.namespace)),
            (Area::Namespace(_), Event::InitApply(guard)) => {
                self.listed.insert(key(&guard));
                self.observe_all(Event::Apply(guard));
            }
            (Area::Namespace(_), Event::InitDone) => {
                let known = self.monitors.store.state();
                let here = known.iter().filter(|monitor| area.has(&Key::of(monitor).namespace));
                for gone in here.filter(|monitor| !self.listed.contains(&Key::of(monitor))) {
                    self.writer.apply_watcher_event(&Event::Delete((**gone).clone()));
                    self.depart(&Key::of(gone));
                }
                self.listed.retain(|key| !area.has(&key.namespace));
            }
            (Area::Cluster | Area::Namespace(_), event) => self.observe_all(event),
        }
    }

    /// For an operator that watches single namespaces. Who reads the store waits until it knows of a complete list, which it never
    /// does from those; whether they are complete, the caches know.
    pub fn without_a_list(mut self) -> Self {
        self.writer.apply_watcher_event(&Event::Init);
        self.writer.apply_watcher_event(&Event::InitDone);
        self
    }

    fn observe_all(&mut self, event: Event<DeserializeGuard<RoseyMonitor>>) {
        match event {
            Event::Init => {
                self.listed.clear();
                self.writer.apply_watcher_event(&Event::Init);
            }
            Event::InitApply(guard) => {
                let key = key(&guard);
                // Listed, readable or not: a monitor that can't be read keeps its objects.
                self.listed.insert(key.clone());
                match self.read(guard) {
                    Some(monitor) => self.writer.apply_watcher_event(&Event::InitApply(monitor)),
                    None => {
                        if let Some(last) = self.monitors.get(&key) {
                            self.writer.apply_watcher_event(&Event::InitApply((*last).clone()));
                        }
                    }
                }
            }
            Event::InitDone => {
                let before: Vec<_> = self.monitors.store.state();
                self.writer.apply_watcher_event(&Event::InitDone);
                for old in &before {
                    let key = Key::of(old);
                    if !self.listed.contains(&key) {
                        self.depart(&key);
                    }
                }
                let before: HashMap<_, _> = before.into_iter().map(|old| (Key::of(&old), old)).collect();
                for monitor in self.monitors.store.state() {
                    self.arrive(&monitor, before.get(&Key::of(&monitor)));
                }
                self.listed.clear();
            }
            Event::Apply(guard) => {
                if let Some(monitor) = self.read(guard) {
                    let before = self.monitors.get(&Key::of(&monitor));
                    self.writer.apply_watcher_event(&Event::Apply(monitor.clone()));
                    self.arrive(&monitor, before.as_ref());
                }
            }
            Event::Delete(guard) => {
                let key = key(&guard);
                if let Some(last) = self.monitors.get(&key) {
                    self.writer.apply_watcher_event(&Event::Delete((*last).clone()));
                }
                self.depart(&key);
            }
        }
    }

    fn read(&self, guard: DeserializeGuard<RoseyMonitor>) -> Option<RoseyMonitor> {
        match guard.0 {
            Ok(monitor) => Some(monitor),
            Err(invalid) => {
                let (namespace, name) = (invalid.metadata.namespace.as_deref(), invalid.metadata.name.as_deref());
                error!(
                    namespace,
                    name,
                    error = invalid.error,
                    "a monitor can't be read; its objects stay as they are"
                );
                self.metrics.failed("unreadable");
                None
            }
        }
    }

    fn arrive(&self, monitor: &RoseyMonitor, before: Option<&Arc<RoseyMonitor>>) {
        let key = Key::of(monitor);
        self.monitors.index(monitor);
        self.owned.monitor_exists(&key);
        (self.told)(monitor, before);
        if is_due(before.map(|before| signature(before)).as_ref(), &signature(monitor)) {
            self.queue.push(&key);
        }
    }

    fn depart(&self, key: &Key) {
        self.monitors.forget(key);
        self.owned.monitor_gone(key);
        (self.gone)(key);
    }
}

/// What can make a monitor due: who it is, what it asks for, and whether it has a status.
type Signature = (Option<String>, Option<i64>, bool);

fn signature(monitor: &RoseyMonitor) -> Signature {
    let told = monitor
        .status
        .as_ref()
        .is_some_and(|status| !status.conditions.is_empty());
    (monitor.metadata.uid.clone(), monitor.metadata.generation, told)
}

/// Whether a change makes a monitor due. A status that is wiped does, but none that comes: that is ours.
fn is_due(before: Option<&Signature>, now: &Signature) -> bool {
    before.is_none_or(|before| (&before.0, before.1) != (&now.0, now.1) || before.2 && !now.2)
}

fn key(guard: &DeserializeGuard<RoseyMonitor>) -> Key {
    Key::new(
        guard.meta().namespace.as_deref().unwrap_or_default(),
        guard.meta().name.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::leader::Leadership;
    use crate::operator::world::{World, monitor};

    #[tokio::test]
    async fn monitors_of_single_namespaces_come_and_go_with_the_lists_of_their_own() {
        let World { context, feed } = World::new(Leadership::fixed(false), |_| unreachable!("nothing is asked"));
        let mut feed = feed.without_a_list();
        context.monitors.store().wait_until_ready().await.unwrap();
        let [bots, games] = ["bots", "games"].map(|name| Area::Namespace(name.into()));
        let of = |namespace: &str, name: &str| {
            let mut monitor = monitor(name, 1);
            monitor["metadata"]["namespace"] = namespace.into();
            monitor["metadata"]["name"] = name.into();
            DeserializeGuard(Ok(serde_json::from_value(monitor).unwrap()))
        };
        let names = || {
            let all = context.monitors.store().state();
            all.iter()
                .map(|monitor| Key::of(monitor).to_string())
                .collect::<BTreeSet<_>>()
        };
        let mut list = |area: &Area, monitors: &[(&str, &str)]| {
            feed.observe(area, Event::Init);
            for (namespace, name) in monitors {
                feed.observe(area, Event::InitApply(of(namespace, name)));
            }
            feed.observe(area, Event::InitDone);
        };
        list(&bots, &[("bots", "a"), ("bots", "b")]);
        list(&games, &[("games", "c")]);
        assert_eq!(names(), ["bots/a", "bots/b", "games/c"].map(str::to_owned).into());
        list(&bots, &[("bots", "b")]);
        assert_eq!(names(), ["bots/b", "games/c"].map(str::to_owned).into());
        assert_eq!(context.monitors.all_in("bots").len(), 1);
        list(&games, &[]);
        assert_eq!(names(), ["bots/b".to_owned()].into());
        feed.observe(&bots, Event::Delete(of("bots", "b")));
        assert!(names().is_empty());
    }

    #[test]
    fn a_monitor_is_due_when_it_is_new_asks_for_something_else_or_lost_its_status() {
        let seen = |uid: &str, generation, told| (Some(uid.to_owned()), Some(generation), told);
        let (fresh, told) = (seen("a", 1, false), seen("a", 1, true));
        assert!(is_due(None, &fresh));
        assert!(!is_due(Some(&fresh), &told), "our own first status");
        assert!(!is_due(Some(&told), &told));
        assert!(is_due(Some(&told), &fresh), "a wiped status");
        assert!(is_due(Some(&told), &seen("a", 2, true)));
        assert!(is_due(Some(&told), &seen("b", 1, true)));
    }
}
