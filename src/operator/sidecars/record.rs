//! What is read of a pod, and the compact record that is kept of it.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::Object;
use serde::Deserialize;

use crate::api::{INJECTED_ANNOTATION, SKIPPED_ANNOTATION, UNREPAIRED_ANNOTATION, UPDATE_ANNOTATION};
use crate::plan::injection::update::Note;
use crate::sidecar::{CONFIG_VOLUME, CONTAINER};

/// A pod as far as it concerns us.
pub type Pod = Object<PodSpec, PodStatus>;

/// The part of a pod's spec that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    restart_policy: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    image: String,
    volume_mounts: Vec<Mount>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Mount {
    name: String,
}

/// The part of a pod's status that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    phase: String,
    conditions: Vec<PodCondition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: String,
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
pub struct Record {
    /// All labels in one text: a tenth of the memory of a map.
    pub labels: Arc<str>,
    pub exporter: Exporter,
    /// What to restart for a new pod, as kubectl takes it.
    pub owner: Arc<str>,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Kept only by an operator that changes pods.
    pub life: Option<Box<Life>>,
}

/// What has to be known of a pod whose exporter is changed in place, or that is replaced for its lack of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "facts of a pod of which none follows from another"
)]
pub struct Life {
    pub uid: Box<str>,
    /// ID of the exporter's container, the old one for about a second after its image was changed.
    pub container: Box<str>,
    /// Whether that container has ended, and no more is said.
    pub ended: bool,
    pub ready: bool,
    /// Whether a new pod comes in its place and nothing that it does is lost: never a Job's, or another one's that ends.
    pub replaceable: bool,
    pub update: Option<Note>,
    pub unrepaired: bool,
}

/// The exporter of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exporter {
    /// It has none.
    Missing,
    /// It has none, for this reason.
    Skipped(Box<str>),
    /// It has one.
    Injected {
        monitor: Arc<str>,
        image: Arc<str>,
        /// The pod's volumes that it can read, with commas between them; no name has one.
        volumes: Arc<str>,
        /// What was left out when it was put there.
        left_out: Option<Arc<str>>,
        state: State,
    },
}

/// How the exporter's container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not started yet.
    Starting,
    /// It runs.
    Running,
    /// Its image can't be pulled, for this reason.
    NoImage(Box<str>),
    /// It waits to be restarted, or has ended, for this reason.
    Failing(Box<str>),
}

/// The pods of a namespace by name.
pub type Records = BTreeMap<Box<str>, Record>;

/// Keeps a record. The pods of a workload stand side by side in the order of their names and say the same: once is enough.
pub fn keep(pods: &mut Records, name: &str, mut record: Record) -> Option<Record> {
    let before = pods.range::<str, _>((Unbounded, Excluded(name))).next_back();
    let after = pods.range::<str, _>((Excluded(name), Unbounded)).next();
    for (_, neighbour) in before.into_iter().chain(after) {
        record.share(neighbour);
    }
    pods.insert(name.into(), record)
}

impl Record {
    fn share(&mut self, other: &Self) {
        share(&mut self.labels, &other.labels);
        share(&mut self.owner, &other.owner);
        if let (
            Exporter::Injected {
                monitor,
                image,
                volumes,
                left_out,
                ..
            },
            Exporter::Injected {
                monitor: by,
                image: has,
                volumes: reads,
                left_out: lacks,
                ..
            },
        ) = (&mut self.exporter, &other.exporter)
        {
            share(monitor, by);
            share(image, has);
            share(volumes, reads);
            if let (Some(left_out), Some(lacks)) = (left_out, lacks) {
                share(left_out, lacks);
            }
        }
    }
}

fn share(own: &mut Arc<str>, other: &Arc<str>) {
    if own == other {
        own.clone_from(other);
    }
}

/// One label; no key and no value has these characters in it.
pub fn pack(key: &str, value: &str) -> String {
    format!("\u{1}{key}\u{2}{value}\u{3}")
}

pub fn packed(labels: &BTreeMap<String, String>) -> Arc<str> {
    labels
        .iter()
        .map(|(key, value)| pack(key, value))
        .collect::<String>()
        .into()
}

pub fn unpacked(labels: &str) -> BTreeMap<String, String> {
    let pairs = labels
        .split('\u{3}')
        .filter_map(|pair| pair.strip_prefix('\u{1}')?.split_once('\u{2}'));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What is kept of a pod, `closely` with its life; nothing of one that has ended or is being deleted.
pub fn record(pod: &Pod, closely: bool) -> Option<Record> {
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
        life: closely.then(|| Box::new(life(pod))),
    })
}

fn life(pod: &Pod) -> Life {
    let annotation = |key| pod.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let status = container_status(pod);
    let mut conditions = pod.status.iter().flat_map(|status| &status.conditions);
    Life {
        uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
        container: status.map_or("", |status| &status.container_id).into(),
        ended: status.is_some_and(|status| status.state.terminated.is_some()),
        ready: conditions.any(|condition| condition.kind == "Ready" && condition.status == "True"),
        replaceable: controller(pod).is_some_and(|controller| controller.kind != "Job")
            && matches!(pod.spec.restart_policy.as_str(), "" | "Always"),
        update: annotation(UPDATE_ANNOTATION).and_then(Note::read),
        unrepaired: annotation(UNREPAIRED_ANNOTATION).is_some(),
    }
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
        (Some(injected), Some(container), left_out) => Exporter::Injected {
            monitor: injected.split('@').next().unwrap_or_default().into(),
            image: container.image.as_str().into(),
            volumes: volumes(container).into(),
            left_out: left_out.map(Into::into),
            state: state(pod),
        },
        (_, _, Some(reason)) => Exporter::Skipped(reason.into()),
        _ => Exporter::Missing,
    }
}

fn volumes(container: &Container) -> String {
    let mounts = container.volume_mounts.iter().map(|mount| mount.name.as_str());
    let names: Vec<_> = mounts.filter(|name| *name != CONFIG_VOLUME).collect();
    names.join(",")
}

fn container_status(pod: &Pod) -> Option<&ContainerStatus> {
    let mut statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses));
    statuses.find(|status| status.name == CONTAINER)
}

fn state(pod: &Pod) -> State {
    let Some(ContainerStatus { state, .. }) = container_status(pod) else {
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

fn controller(pod: &Pod) -> Option<&OwnerReference> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

/// What makes new pods in place of this one: `deployment/x`, `statefulset/x`, `daemonset/x`, else `pod/x`.
fn owner(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let hash = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get("pod-template-hash"));
    match controller(pod) {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(with: &Value) -> Pod {
        let mut pod = json!({
            "metadata": {
                "namespace": "bots", "name": "rosey", "uid": "u",
                "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicaSet", "name": "rosey", "uid": "r", "controller": true}],
            },
            "spec": {"containers": [{"name": CONTAINER, "image": "1"}]},
            "status": {
                "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": "bot", "containerID": "0"}, {"name": CONTAINER, "containerID": "1", "state": {"terminated": {}}}],
            },
        });
        json_patch::merge(&mut pod, with);
        serde_json::from_value(pod).unwrap()
    }

    fn life(with: &Value) -> Life {
        *record(&pod(with), true).unwrap().life.unwrap()
    }

    #[test]
    fn the_life_of_a_pod_is_kept_only_where_pods_are_changed() {
        assert_eq!(record(&pod(&json!({})), false).unwrap().life, None);
        let expected = Life {
            uid: "u".into(),
            container: "1".into(),
            ended: true,
            ready: false,
            replaceable: true,
            update: None,
            unrepaired: false,
        };
        assert_eq!(life(&json!({})), expected);
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(life(&ready).ready);
        let marked = json!({"metadata": {"annotations": {UNREPAIRED_ANNOTATION: "why", UPDATE_ANNOTATION: "{}"}}});
        let marked = life(&marked);
        assert!(marked.unrepaired && marked.update.is_none(), "{marked:?}");
    }

    #[test]
    fn only_a_pod_in_whose_place_another_one_comes_and_goes_on_is_replaceable() {
        let owned_by = |kind: &str| json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "o", "controller": true}]}});
        for (with, replaceable) in [
            (owned_by("StatefulSet"), true),
            (owned_by("Job"), false),
            (json!({"metadata": {"ownerReferences": []}}), false),
            (json!({"spec": {"restartPolicy": "Always"}}), true),
            (json!({"spec": {"restartPolicy": "Never"}}), false),
            (json!({"spec": {"restartPolicy": "OnFailure"}}), false),
        ] {
            assert_eq!(life(&with).replaceable, replaceable, "{with}");
        }
    }
}
