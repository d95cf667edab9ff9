//! The workload that wanted pods which were refused.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::Value;
use tracing::warn;

use super::refusal::Refusal;
use super::{Error, TIMEOUT};
use crate::api::RoseyMonitor;
use crate::sidecar::CONTAINER;

/// What is known of a workload whose pods were refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// It could not be read when it was refused at this time.
    Unknown(i64),
    /// It was read.
    Known {
        /// As the pods' records name it.
        owner: Box<str>,
        /// Its pods' labels.
        labels: BTreeMap<String, String>,
        /// Resources of this monitor's exporter in its pods; none if they would get no exporter.
        exporter: Option<(Who, Option<Value>)>,
    },
}

/// Name, uid and generation of a monitor.
pub type Who = (Option<String>, Option<String>, Option<i64>);

/// Which monitor, and which of its versions.
pub fn who(monitor: &RoseyMonitor) -> Who {
    let metadata = &monitor.metadata;
    (metadata.name.clone(), metadata.uid.clone(), metadata.generation)
}

/// The exporter's resources among the operations that inject it.
pub fn resources(operations: &[Value]) -> Option<Value> {
    let values = operations.iter().map(|operation| &operation["value"]);
    let mut containers = values.flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
    let container = containers.find(|value| value["name"] == CONTAINER && value["resources"].is_object())?;
    Some(container["resources"].clone())
}

/// As the pods' records name it: a Deployment stands for all of its `ReplicaSets`.
pub fn owner(refusal: &Refusal, owners: &[OwnerReference]) -> Box<str> {
    let deployment = owners
        .iter()
        .find(|owner| owner.controller == Some(true) && owner.kind == "Deployment");
    match deployment {
        Some(deployment) if refusal.kind == "ReplicaSet" => format!("deployment/{}", deployment.name),
        _ => format!("{}/{}", refusal.kind.to_lowercase(), refusal.name),
    }
    .into()
}

/// The workload, if it is still the one that was refused and may be read.
pub async fn get(client: &Client, namespace: &str, refusal: &Refusal) -> Result<Option<DynamicObject>, Error> {
    let group = if refusal.kind == "Job" { "batch" } else { "apps" };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", refusal.kind));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let workload = || format!("{}/{}", refusal.kind.to_lowercase(), refusal.name);
    let answer = tokio::time::timeout(TIMEOUT, api.get_opt(&refusal.name))
        .await
        .map_err(|_| Error::Timeout { workload: workload() })?;
    match answer {
        Ok(found) => Ok(found.filter(|object| object.metadata.uid.as_deref() == Some(&*refusal.uid))),
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            warn!(namespace, workload = workload(), error = %status, "the operator may not read who wanted pods that were refused; grant it the rights of its ClusterRole");
            Ok(None)
        }
        Err(source) => Err(Error::Read {
            workload: workload(),
            source: Box::new(source),
        }),
    }
}
