//! The bots' pods and their exporters: a compact record of each pod, and what they say about a monitor.
//!
//! All pods of the cluster pass by here, so a record keeps only what the counting needs. Pods that have ended or are
//! being deleted are not kept at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Object;
use kube::runtime::watcher::Event;
use serde::Deserialize;

use super::key::{Key, Queue};
use super::monitors::Monitors;
use crate::api::status::SidecarCounts;
use crate::api::{INJECTED_ANNOTATION, RoseyMonitor, SKIPPED_ANNOTATION};
use crate::plan::Platform;
use crate::plan::injection::{image, selects};
use crate::sidecar::CONTAINER;

mod condition;

pub use condition::{Injected, injected};

/// A pod as far as it concerns us.
pub type Pod = Object<PodSpec, PodStatus>;

/// The part of a pod's spec that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    image: String,
}

/// The part of a pod's status that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    phase: String,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<serde::de::IgnoredAny>,
    waiting: Option<Reason>,
    terminated: Option<Reason>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    /// All labels in one text: a tenth of the memory of a map.
    labels: Box<str>,
    exporter: Exporter,
    /// What to restart for a new pod, as kubectl takes it.
    owner: Box<str>,
    /// When it was created, in seconds since 1970.
    created: i64,
}

/// The exporter of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exporter {
    Missing,
    Skipped(Box<str>),
    Injected {
        monitor: Box<str>,
        image: Box<str>,
        state: State,
    },
}

/// How the exporter's container does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Running,
    /// Its image can't be pulled, for this reason.
    NoImage(Box<str>),
    /// It waits to be restarted, or has ended, for this reason.
    Failing(Box<str>),
}

/// A pod that a monitor selects, as the condition needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Name of the pod.
    pub pod: String,
    owner: Box<str>,
    exporter: Exporter,
}

/// What the pods say about one monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecars {
    /// The counts.
    pub counts: SidecarCounts,
    /// The condition.
    pub injected: Injected,
}

type Records = HashMap<Box<str>, BTreeMap<Box<str>, Record>>;

/// All pods that live.
#[derive(Debug)]
pub struct Pods {
    records: Mutex<Records>,
    listed: Mutex<Records>,
    monitors: Monitors,
    queue: Queue,
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
        }
    }

    /// Takes in what the watch says.
    pub fn observe(&self, event: Event<Pod>) {
        match event {
            Event::Init => lock(&self.listed).clear(),
            Event::InitApply(pod) => {
                if let (Some((namespace, name)), Some(record)) = (place(&pod), record(&pod)) {
                    lock(&self.listed)
                        .entry(namespace.into())
                        .or_default()
                        .insert(name.into(), record);
                }
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut *lock(&self.listed));
                let before = std::mem::replace(&mut *lock(&self.records), listed);
                self.compare(&before);
            }
            Event::Apply(pod) => self.replace(&pod, record(&pod)),
            Event::Delete(pod) => self.replace(&pod, None),
        }
    }

    fn replace(&self, pod: &Pod, new: Option<Record>) {
        let Some((namespace, name)) = place(pod) else { return };
        let mut records = lock(&self.records);
        if records.get(namespace).and_then(|pods| pods.get(name)) == new.as_ref() {
            return;
        }
        let labels: Vec<Box<str>> = {
            let pods = records.entry(namespace.into()).or_default();
            let labels = new.as_ref().map(|new| new.labels.clone());
            let old = match new {
                Some(new) => pods.insert(name.into(), new),
                None => pods.remove(name),
            };
            labels.into_iter().chain(old.map(|old| old.labels)).collect()
        };
        if records.get(namespace).is_some_and(BTreeMap::is_empty) {
            records.remove(namespace);
        }
        drop(records);
        self.announce(namespace, &labels);
    }

    /// Makes the monitors due that a relist concerns.
    fn compare(&self, before: &Records) {
        let after = lock(&self.records);
        let nothing = BTreeMap::new();
        let mut changed: Vec<(Box<str>, Vec<Box<str>>)> = Vec::new();
        for namespace in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
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
        for (namespace, labels) in changed {
            self.announce(&namespace, &labels);
        }
    }

    fn announce(&self, namespace: &str, labels: &[Box<str>]) {
        self.monitors.each_in(namespace, |monitor| {
            let wanted = Wanted::of(monitor);
            if labels.iter().any(|labels| wanted.selects(labels)) {
                self.queue.push(&Key::of(monitor));
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

    /// What the pods say about a monitor; `refused` is what keeps further ones from being created.
    #[must_use]
    pub fn of(&self, monitor: &RoseyMonitor, platform: &Platform, refused: Option<&str>) -> Sidecars {
        let namespace = monitor.metadata.namespace.as_deref().unwrap_or_default();
        let wanted = Wanted::of(monitor);
        let records = lock(&self.records);
        let pods = records
            .get(namespace)
            .into_iter()
            .flatten()
            .filter(|(_, record)| wanted.selects(&record.labels));
        let pods: Vec<_> = pods
            .map(|(name, record)| Selected {
                pod: name.to_string(),
                owner: record.owner.clone(),
                exporter: record.exporter.clone(),
            })
            .collect();
        drop(records);
        judge(
            monitor.metadata.name.as_deref().unwrap_or_default(),
            namespace,
            image(monitor, platform),
            &pods,
            refused,
        )
    }
}

/// Counts the pods that a monitor selects.
fn judge(monitor: &str, namespace: &str, image: &str, pods: &[Selected], refused: Option<&str>) -> Sidecars {
    let ours = |pod: &&Selected| matches!(&pod.exporter, Exporter::Injected { monitor: by, .. } if **by == *monitor);
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let carrying = pods.iter().filter(ours).count();
    let outdated = pods.iter().filter(ours);
    let outdated = outdated
        .filter(|pod| matches!(&pod.exporter, Exporter::Injected { image: has, .. } if **has != *image))
        .count();
    let counts = SidecarCounts {
        pods: count(pods.len()),
        injected: count(carrying),
        outdated: count(outdated),
        missing: count(pods.len() - carrying),
        summary: format!("{carrying}/{}", pods.len()),
    };
    Sidecars {
        injected: injected(monitor, namespace, pods, refused),
        counts,
    }
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

/// One label; no key and no value has these characters in it.
fn pack(key: &str, value: &str) -> String {
    format!("\u{1}{key}\u{2}{value}\u{3}")
}

fn packed(labels: &BTreeMap<String, String>) -> Box<str> {
    labels
        .iter()
        .map(|(key, value)| pack(key, value))
        .collect::<String>()
        .into()
}

fn unpacked(labels: &str) -> BTreeMap<String, String> {
    let pairs = labels
        .split('\u{3}')
        .filter_map(|pair| pair.strip_prefix('\u{1}')?.split_once('\u{2}'));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn place(pod: &Pod) -> Option<(&str, &str)> {
    Some((pod.metadata.namespace.as_deref()?, pod.metadata.name.as_deref()?))
}

fn record(pod: &Pod) -> Option<Record> {
    let status = pod.status.as_ref();
    let ended = status.is_some_and(|status| matches!(status.phase.as_str(), "Succeeded" | "Failed"));
    if ended || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let labels = pod.metadata.labels.as_ref().map(packed).unwrap_or_default();
    Some(Record {
        labels,
        exporter: exporter(pod),
        owner: owner(pod).into(),
        created: pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
    })
}

fn exporter(pod: &Pod) -> Exporter {
    let annotation = |key| pod.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let container = containers.clone().find(|container| container.name == CONTAINER);
    match (
        annotation(INJECTED_ANNOTATION),
        container,
        annotation(SKIPPED_ANNOTATION),
    ) {
        (Some(injected), Some(container), _) => Exporter::Injected {
            monitor: injected.split('@').next().unwrap_or_default().into(),
            image: container.image.as_str().into(),
            state: state(pod),
        },
        (_, _, Some(reason)) => Exporter::Skipped(reason.into()),
        _ => Exporter::Missing,
    }
}

fn state(pod: &Pod) -> State {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses));
    let Some(ContainerStatus { state, .. }) = statuses.into_iter().find(|status| status.name == CONTAINER) else {
        return State::Starting;
    };
    match (&state.running, &state.waiting, &state.terminated) {
        (Some(_), ..) => State::Running,
        (_, Some(Reason { reason }), _) => match reason.as_str() {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable" => State::NoImage(reason.as_str().into()),
            "" | "ContainerCreating" | "PodInitializing" => State::Starting,
            other => State::Failing(other.into()),
        },
        (.., Some(Reason { reason })) => State::Failing(reason.as_str().into()),
        _ => State::Starting,
    }
}

/// What makes new pods in place of this one: `deployment/x`, `statefulset/x`, `daemonset/x`, else `pod/x`.
fn owner(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let controller = metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let hash = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get("pod-template-hash"));
    match controller {
        Some(owner) if owner.kind == "ReplicaSet" => {
            match hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')) {
                Some(deployment) => format!("deployment/{deployment}"),
                None => format!("replicaset/{}", owner.name),
            }
        }
        Some(owner) => format!("{}/{}", owner.kind.to_lowercase(), owner.name),
        None => format!("pod/{}", metadata.name.as_deref().unwrap_or_default()),
    }
}

fn lock(records: &Mutex<Records>) -> MutexGuard<'_, Records> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
