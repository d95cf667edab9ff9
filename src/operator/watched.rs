//! Objects as watches tell of them, without what nobody here reads of their metadata: `managedFields` alone is most of it, and
//! becomes several times as large in memory as it was on the wire.

use std::borrow::Cow;
use std::collections::BTreeMap;

use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, ObjectMeta, PartialObjectMeta, TypeMeta};
use kube::runtime::watcher::{self, Event};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::sidecars::{Pod, PodSpec, PodStatus};
use crate::api::RoseyMonitor;

/// What kubectl keeps of its own: the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The metadata that is read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    namespace: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    resource_version: Option<String>,
    uid: Option<String>,
}

impl From<Metadata> for ObjectMeta {
    fn from(mut read: Metadata) -> Self {
        if let Some(annotations) = &mut read.annotations {
            annotations.remove(LAST_APPLIED);
        }
        Self {
            annotations: read.annotations,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            generation: read.generation,
            labels: read.labels,
            name: read.name,
            namespace: read.namespace,
            owner_references: read.owner_references,
            resource_version: read.resource_version,
            uid: read.uid,
            ..Self::default()
        }
    }
}

/// An object as a watch tells of it.
#[derive(Clone, Debug)]
pub struct Watched<K>(pub K);

/// What a watch tells, with the objects themselves.
pub fn opened<K>(
    stream: impl Stream<Item = watcher::Result<Event<Watched<K>>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    stream.map(|event| {
        event.map(|event| match event {
            Event::Init => Event::Init,
            Event::InitApply(Watched(object)) => Event::InitApply(object),
            Event::InitDone => Event::InitDone,
            Event::Apply(Watched(object)) => Event::Apply(object),
            Event::Delete(Watched(object)) => Event::Delete(object),
        })
    })
}

impl<'de> Deserialize<'de> for Watched<Pod> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct Read {
            metadata: Metadata,
            spec: PodSpec,
            status: Option<PodStatus>,
        }
        let read = Read::deserialize(deserializer)?;
        Ok(Self(Pod {
            types: None,
            metadata: read.metadata.into(),
            spec: read.spec,
            status: read.status,
        }))
    }
}

impl<'de, K> Deserialize<'de> for Watched<PartialObjectMeta<K>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Read {
            #[serde(default)]
            metadata: Metadata,
        }
        Ok(Self(PartialObjectMeta {
            types: None::<TypeMeta>,
            metadata: Read::deserialize(deserializer)?.metadata.into(),
            _phantom: std::marker::PhantomData,
        }))
    }
}

/// One that can't be read costs the watch nothing but itself.
impl<'de> Deserialize<'de> for Watched<DeserializeGuard<RoseyMonitor>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Read {
            #[serde(default)]
            metadata: Metadata,
            #[serde(default)]
            spec: Value,
            #[serde(default)]
            status: Value,
        }
        let Read { metadata, spec, status } = Read::deserialize(deserializer)?;
        let metadata = ObjectMeta::from(metadata);
        let read = Deserialize::deserialize(spec)
            .map_err(|error: serde_json::Error| format!("spec: {error}"))
            .and_then(|spec| {
                let status = Deserialize::deserialize(status);
                Ok((
                    spec,
                    status.map_err(|error: serde_json::Error| format!("status: {error}"))?,
                ))
            });
        Ok(Self(DeserializeGuard(match read {
            Ok((spec, status)) => Ok(RoseyMonitor { metadata, spec, status }),
            Err(error) => Err(InvalidObject { error, metadata }),
        })))
    }
}

impl<K: Resource> Resource for Watched<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use serde_json::json;

    use super::*;

    fn metadata() -> Value {
        json!({
            "namespace": "bots", "name": "rosey", "uid": "u", "resourceVersion": "7", "generation": 2,
            "labels": {"managedFields": "a label of this name stays"}, "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-02T00:00:00Z",
            "annotations": {LAST_APPLIED: "{}", "kept": "yes"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "o", "controller": true}],
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        })
    }

    #[test]
    fn metadata_is_kept_but_for_what_nobody_reads() {
        let mut kept: ObjectMeta = serde_json::from_value(metadata()).unwrap();
        kept.managed_fields = None;
        kept.annotations = Some([("kept".to_owned(), "yes".to_owned())].into());
        let whole = json!({"metadata": metadata(), "spec": {"environment": "prod", "selector": {}}});
        let namespace: Watched<PartialObjectMeta<Namespace>> = serde_json::from_value(whole.clone()).unwrap();
        let pod: Watched<Pod> = serde_json::from_value(whole.clone()).unwrap();
        let monitor: Watched<DeserializeGuard<RoseyMonitor>> = serde_json::from_value(whole).unwrap();
        for read in [namespace.meta(), pod.meta(), monitor.meta()] {
            assert_eq!(*read, kept);
        }
        assert!(Watched::<PartialObjectMeta<Namespace>>::metadata_api());
        assert!(!Watched::<Pod>::metadata_api());
    }

    #[test]
    fn a_monitor_is_read_as_its_type_says_and_one_that_cannot_be_read_keeps_its_name() {
        let read = |spec: Value| -> Watched<DeserializeGuard<RoseyMonitor>> {
            let status = json!({"deployments": {"failed": 3}});
            serde_json::from_value(json!({"metadata": metadata(), "spec": spec, "status": status})).unwrap()
        };
        let monitor = read(json!({"environment": "prod", "selector": {}})).0.0.unwrap();
        assert_eq!(monitor.spec.environment, "prod");
        assert_eq!(monitor.status.unwrap().deployments.unwrap().failed, 3);
        let invalid = read(json!({"environment": 1})).0.0.unwrap_err();
        assert_eq!(invalid.metadata.name.as_deref(), Some("rosey"));
        assert!(invalid.error.starts_with("spec: "), "{}", invalid.error);
    }
}
