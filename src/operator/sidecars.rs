//! The bots' pods and their exporters: a compact record of each pod, and what they say about a monitor.
//!
//! All pods of the cluster pass by here, so a record keeps only what the counting needs. Pods that have ended or are
//! being deleted are not kept at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use tokio::sync::Notify;

use super::area::Area;
use super::key::{Key, Queue};
use super::monitors::Monitors;
use crate::api::RoseyMonitor;
use crate::api::status::SidecarCounts;
use crate::plan::Platform;
use crate::plan::injection::{image, mounted, selects};

pub mod repair;
pub mod update;

mod condition;
mod record;

pub use condition::{Hindrance, Injected, Injecting, PODS_REFUSED, Remedies, Repair, Update};
pub use record::{Pod, PodSpec, PodStatus};

use condition::injected;
use record::{Exporter, Life, Record, Records, keep, pack, record, unpacked};

/// A pod that a monitor selects, as the condition needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    pod: String,
    owner: Arc<str>,
    exporter: Exporter,
    unread: Unread,
    life: Life,
}

impl Selected {
    /// Name of the pod.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.pod
    }

    /// The uid of the pod; empty where pods are not looked at closely.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.life.uid
    }
}

/// Volumes that the monitor's exporter should read, and that of a pod can't.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unread {
    /// A new pod's exporter would.
    late: Vec<Box<str>>,
    /// A new pod's exporter would not either, for this reason.
    left_out: Option<Arc<str>>,
}

/// What the pods say about one monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecars {
    /// The counts.
    pub counts: SidecarCounts,
    /// The condition.
    pub injected: Injected,
}

type All = HashMap<Box<str>, Records>;

/// All pods that live.
#[derive(Debug)]
pub struct Pods {
    records: Mutex<All>,
    listed: Mutex<All>,
    monitors: Monitors,
    queue: Queue,
    closely: bool,
    undone: Notify,
}

impl Pods {
    /// Knows no pod yet; tells `queue` which monitors a change concerns.
    #[must_use]
    pub fn new(monitors: Monitors, queue: Queue) -> Self {
        Self {
            records: Mutex::default(),
            listed: Mutex::default(),
            monitors,
            queue,
            closely: false,
            undone: Notify::new(),
        }
    }

    /// Whether pods are looked at as closely as an operator has to that changes them; each costs some more memory.
    #[must_use]
    pub fn closely(self, closely: bool) -> Self {
        Self { closely, ..self }
    }

    /// Takes in what the watch of an area says.
    pub fn observe(&self, area: &Area, event: Event<Pod>) {
        match event {
            Event::Init => lock(&self.listed).retain(|namespace, _| !area.has(namespace)),
            Event::InitApply(pod) => {
                if let (Some((namespace, name)), Some(record)) = (place(&pod), record(&pod, self.closely)) {
                    keep(lock(&self.listed).entry(namespace.into()).or_default(), name, record);
                }
            }
            Event::InitDone => {
                let listed = area.take(&mut lock(&self.listed), |namespace| namespace);
                let mut records = lock(&self.records);
                let before = area.take(&mut records, |namespace| namespace);
                records.extend(listed);
                drop(records);
                self.compare(area, &before);
            }
            Event::Apply(pod) => self.replace(&pod, record(&pod, self.closely)),
            Event::Delete(pod) => self.replace(&pod, None),
        }
    }

    fn replace(&self, pod: &Pod, new: Option<Record>) {
        let Some((namespace, name)) = place(pod) else { return };
        let mut records = lock(&self.records);
        if records.get(namespace).and_then(|pods| pods.get(name)) == new.as_ref() {
            return;
        }
        if new
            .as_ref()
            .is_some_and(|new| is_undone(new, Timestamp::now().as_second()))
        {
            self.undone.notify_one();
        }
        let labels: Vec<Arc<str>> = {
            let pods = records.entry(namespace.into()).or_default();
            let labels = new.as_ref().map(|new| new.labels.clone());
            let old = match new {
                Some(new) => keep(pods, name, new),
                None => pods.remove(name),
            };
            labels.into_iter().chain(old.map(|old| old.labels)).collect()
        };
        if records.get(namespace).is_some_and(BTreeMap::is_empty) {
            records.remove(namespace);
        }
        drop(records);
        self.announce(namespace, &labels, Queue::gather);
    }

    /// Makes the monitors due that a relist of an area concerns.
    fn compare(&self, area: &Area, before: &All) {
        let after = lock(&self.records);
        let nothing = BTreeMap::new();
        let mut changed: Vec<(Box<str>, Vec<Arc<str>>)> = Vec::new();
        let here = after.keys().filter(|namespace| area.has(namespace));
        for namespace in before.keys().chain(here).collect::<BTreeSet<_>>() {
            let (old, new) = (
                before.get(namespace).unwrap_or(&nothing),
                after.get(namespace).unwrap_or(&nothing),
            );
            let gone = old.iter().filter(|(name, record)| new.get(*name) != Some(record));
            let came = new.iter().filter(|(name, record)| old.get(*name) != Some(record));
            let labels: Vec<_> = gone.chain(came).map(|(_, record)| record.labels.clone()).collect();
            if !labels.is_empty() {
                changed.push((namespace.clone(), labels));
            }
        }
        drop(after);
        self.undone.notify_one();
        for (namespace, labels) in changed {
            self.announce(&namespace, &labels, Queue::gather);
        }
    }

    fn announce(&self, namespace: &str, labels: &[Arc<str>], tell: fn(&Queue, &Key)) {
        self.monitors.each_in(namespace, |monitor| {
            let wanted = Wanted::of(monitor);
            if labels.iter().any(|labels| wanted.selects(labels)) {
                tell(&self.queue, &Key::of(monitor));
            }
        });
    }

    /// When the latest pod of `owner` was created, in seconds since 1970. A `ReplicaSet` goes by the name of its Deployment.
    #[must_use]
    pub fn latest_of(&self, namespace: &str, owner: &str) -> Option<i64> {
        let records = lock(&self.records);
        let pods = records.get(namespace)?.values();
        pods.filter(|record| *record.owner == *owner)
            .map(|record| record.created)
            .max()
    }

    /// Makes the monitors due that select pods with the exporter of this one: it is gone, or selects others.
    pub fn released(&self, by: &Key) {
        self.undone.notify_one();
        let records = lock(&self.records);
        let pods = records.get(&*by.namespace).into_iter().flat_map(BTreeMap::values);
        let carrying = pods
            .filter(|record| matches!(&record.exporter, Exporter::Injected { monitor, .. } if **monitor == *by.name));
        let labels: Vec<_> = carrying.map(|record| record.labels.clone()).collect();
        drop(records);
        // Somebody has edited it, and looks at what comes of that.
        self.announce(&by.namespace, &labels, Queue::push);
    }

    /// The exporter of a pod that `key` selects; that of another monitor which does not select it any more is none.
    fn exporter_of(&self, key: &Key, record: &Record) -> Exporter {
        if let Exporter::Injected { monitor: by, .. } = &record.exporter
            && **by != *key.name
        {
            let other = self.monitors.get(&Key::new(&key.namespace, by));
            if !other.is_some_and(|other| Wanted::of(&other).selects(&record.labels)) {
                return Exporter::Missing;
            }
        }
        record.exporter.clone()
    }

    /// The pods that a monitor selects, in the order of their names.
    #[must_use]
    pub fn selected(&self, monitor: &RoseyMonitor) -> Vec<Selected> {
        let key = Key::of(monitor);
        let namespace = monitor.metadata.namespace.as_deref().unwrap_or_default();
        let wanted = Wanted::of(monitor);
        let volumes = mounted(monitor);
        let records = lock(&self.records);
        let pods = records
            .get(namespace)
            .into_iter()
            .flatten()
            .filter(|(_, record)| wanted.selects(&record.labels));
        pods.map(|(name, record)| Selected {
            pod: name.to_string(),
            owner: record.owner.clone(),
            exporter: self.exporter_of(&key, record),
            unread: unread(&record.exporter, &volumes),
            life: record.life.as_deref().cloned().unwrap_or_default(),
        })
        .collect()
    }

    /// The pods whose exporter is to get its old image back because nobody looks after it any more: the new one was on trial
    /// when its monitor went, or chose other pods. Each with the name of that monitor. `clock` is in seconds since 1970.
    #[must_use]
    pub fn abandoned(&self, clock: i64) -> Vec<(Key, Selected)> {
        let records = lock(&self.records);
        let all = records
            .iter()
            .flat_map(|(namespace, pods)| pods.iter().map(move |pod| (namespace, pod)));
        let abandoned = all.filter_map(|(namespace, (name, record))| {
            let (Exporter::Injected { monitor, .. }, Some(life)) = (&record.exporter, &record.life) else {
                return None;
            };
            if !is_undone(record, clock) {
                return None;
            }
            let by = Key::new(namespace, monitor);
            let keeps =
                |by: &RoseyMonitor| by.metadata.deletion_timestamp.is_none() && Wanted::of(by).selects(&record.labels);
            if self.monitors.get(&by).is_some_and(|by| keeps(&by)) {
                return None;
            }
            let pod = Selected {
                pod: name.to_string(),
                owner: record.owner.clone(),
                exporter: record.exporter.clone(),
                unread: Unread::default(),
                life: (**life).clone(),
            };
            Some((by, pod))
        });
        abandoned.collect()
    }

    /// Waits until another look at [`abandoned`](Self::abandoned) may show something else.
    pub async fn may_be_abandoned(&self) {
        self.undone.notified().await;
    }

    /// What the pods say about a monitor.
    #[must_use]
    pub fn of(&self, monitor: &RoseyMonitor, platform: &Platform, hindrance: Hindrance<'_>) -> Sidecars {
        judge(
            monitor.metadata.name.as_deref().unwrap_or_default(),
            monitor.metadata.namespace.as_deref().unwrap_or_default(),
            image(monitor, platform),
            &self.selected(monitor),
            hindrance,
        )
    }
}

/// Counts the pods that a monitor selects.
fn judge(monitor: &str, namespace: &str, image: &str, pods: &[Selected], hindrance: Hindrance<'_>) -> Sidecars {
    let ours = |pod: &&Selected| matches!(&pod.exporter, Exporter::Injected { monitor: by, .. } if **by == *monitor);
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let carrying = pods.iter().filter(ours).count();
    let outdated = pods.iter().filter(ours);
    let outdated = outdated
        .filter(|pod| {
            matches!(&pod.exporter, Exporter::Injected { image: has, .. } if **has != *image)
                || !pod.unread.late.is_empty()
        })
        .count();
    let counts = SidecarCounts {
        pods: count(pods.len()),
        injected: count(carrying),
        outdated: count(outdated),
        missing: count(pods.len() - carrying),
        summary: format!("{carrying}/{}", pods.len()),
    };
    Sidecars {
        injected: injected(monitor, namespace, image, pods, hindrance),
        counts,
    }
}

fn unread(exporter: &Exporter, wanted: &BTreeSet<&str>) -> Unread {
    let mut unread = Unread::default();
    let Exporter::Injected { volumes, left_out, .. } = exporter else {
        return unread;
    };
    for volume in wanted {
        if volumes.split(',').any(|has| has == *volume) {
            continue;
        }
        // The note is as old as the pod, and may be about a volume that the monitor no longer names.
        match left_out {
            Some(why) if why.contains(&format!("volume {volume} ")) => unread.left_out = Some(Arc::clone(why)),
            _ => unread.late.push((*volume).into()),
        }
    }
    unread
}

/// What a monitor looks for among the labels of many pods.
struct Wanted<'a> {
    selector: &'a LabelSelector,
    packed: Vec<String>,
}

impl<'a> Wanted<'a> {
    fn of(monitor: &'a RoseyMonitor) -> Self {
        let selector = &monitor.spec.selector;
        let equal = selector.match_labels.iter().flatten();
        Self {
            selector,
            packed: equal.map(|(key, value)| pack(key, value)).collect(),
        }
    }

    fn selects(&self, labels: &str) -> bool {
        // Most pods belong to somebody else: a look into the text saves building their maps.
        let may = self.packed.iter().all(|label| labels.contains(label.as_str()));
        may && selects(self.selector, &unpacked(labels))
    }
}

/// Whether the image of a pod's exporter would be taken back if nobody looked after it any more.
fn is_undone(record: &Record, clock: i64) -> bool {
    match (&record.exporter, &record.life) {
        (Exporter::Injected { image, state, .. }, Some(life)) => update::is_undone(life, image, state, clock),
        _ => false,
    }
}

fn place(pod: &Pod) -> Option<(&str, &str)> {
    Some((pod.metadata.namespace.as_deref()?, pod.metadata.name.as_deref()?))
}

fn lock(records: &Mutex<All>) -> MutexGuard<'_, All> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
