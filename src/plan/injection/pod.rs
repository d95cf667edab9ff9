//! What the decision reads of a pod, and where its additions go.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::add;
use crate::api::quantities::quantity;

/// A pod as it came, of whatever Kubernetes version.
pub struct Pod<'a>(pub &'a Value);

impl<'a> Pod<'a> {
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.0["metadata"]["labels"].as_object().into_iter().flatten();
        labels
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        self.0["metadata"]["annotations"][key].as_str()
    }

    /// All containers, native sidecars and other init containers included.
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = &self.0["spec"];
        ["containers", "initContainers"]
            .into_iter()
            .flat_map(move |list| spec[list].as_array().into_iter().flatten())
    }

    /// The containers that are there for as long as the pod: init containers that end leave their ports.
    fn lasting_containers(&self) -> impl Iterator<Item = &'a Value> {
        let native = |c: &&Value| c["restartPolicy"] == "Always";
        let init = self.0["spec"]["initContainers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(native);
        self.0["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .chain(init)
    }

    /// The container that the bot runs in: the one that kubectl takes, else the first one.
    pub fn bot(&self) -> &'a Value {
        let containers = &self.0["spec"]["containers"];
        let named = self
            .annotation("kubectl.kubernetes.io/default-container")
            .and_then(|name| {
                let mut all = containers.as_array()?.iter();
                all.find(|container| container["name"] == name)
            });
        named.unwrap_or(&containers[0])
    }

    pub fn container(&self, name: &str) -> Option<&'a Value> {
        self.containers().find(|container| container["name"] == name)
    }

    pub fn volume(&self, name: &str) -> Option<&'a Value> {
        self.0["spec"]["volumes"]
            .as_array()?
            .iter()
            .find(|volume| volume["name"] == name)
    }

    /// Whether the volume is used as a block device: kubelet refuses a pod that also mounts it.
    pub fn is_block(&self, volume: &str) -> bool {
        let devices = self
            .containers()
            .flat_map(|container| container["volumeDevices"].as_array().into_iter().flatten());
        devices.into_iter().any(|device| device["name"] == volume)
    }

    /// Name of the container that has this port already.
    pub fn container_with_port(&self, port: i64) -> Option<&'a str> {
        let has = |p: &Value| p["containerPort"] == port || p["hostPort"] == port;
        let taken = self.lasting_containers().find(|container| ports(container).any(has));
        taken.map(|container| container["name"].as_str().unwrap_or_default())
    }

    /// Name of the container that has a port of this name already.
    pub fn container_with_port_name(&self, name: &str) -> Option<&'a str> {
        let taken = self
            .containers()
            .find(|container| ports(container).any(|p| p["name"] == name));
        taken.map(|container| container["name"].as_str().unwrap_or_default())
    }

    pub fn has_ports(&self) -> bool {
        self.lasting_containers()
            .any(|container| ports(container).next().is_some())
    }

    pub fn is_mirror(&self) -> bool {
        self.annotation("kubernetes.io/config.mirror").is_some()
    }

    pub fn is_windows(&self) -> bool {
        let spec = &self.0["spec"];
        spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows"
    }

    pub fn is_on_host_network(&self) -> bool {
        self.0["spec"]["hostNetwork"] == true
    }

    /// Whether the pod is meant to run for ever, as a bot's is, or to end, as a Job's.
    pub fn runs_for_ever(&self) -> bool {
        matches!(self.0["spec"]["restartPolicy"].as_str(), None | Some("Always"))
    }

    /// Whether the pod says itself what it may use, instead of its containers.
    pub fn has_own_resources(&self) -> bool {
        self.0["spec"]["resources"]
            .as_object()
            .is_some_and(|resources| !resources.is_empty())
    }

    /// Whether every container has limits for CPU and memory, and requests as large.
    pub fn is_guaranteed(&self) -> bool {
        self.containers().all(|container| {
            ["cpu", "memory"].into_iter().all(|name| {
                let (limit, request) = (
                    &container["resources"]["limits"][name],
                    &container["resources"]["requests"][name],
                );
                !limit.is_null() && (request.is_null() || is_same_amount(request, limit))
            })
        })
    }

    /// User or group of the bot's container, where it is a number and not root's.
    pub fn numeric_id(&self, field: &str) -> Option<i64> {
        let of = |security: &Value| security[field].as_i64();
        of(&self.bot()["securityContext"])
            .or_else(|| of(&self.0["spec"]["securityContext"]))
            .filter(|id| *id > 0)
    }

    /// Operations that set an annotation.
    pub fn annotate(&self, key: &str, value: &str) -> Vec<Value> {
        let mut operations = Vec::new();
        if !self.0["metadata"]["annotations"].is_object() {
            operations.push(add("/metadata/annotations", &Value::Object(Map::new())));
        }
        operations.push(add(&path(key), &json!(value)));
        operations
    }

    /// The operation that removes an annotation, which the pod has.
    pub fn unannotate(key: &str) -> Value {
        json!({ "op": "remove", "path": path(key) })
    }

    /// Operations that append to a list of the spec, or begin it.
    pub fn append(&self, list: &str, items: Vec<Value>) -> Vec<Value> {
        if self.0["spec"][list].is_array() {
            let path = format!("/spec/{list}/-");
            items.iter().map(|item| add(&path, item)).collect()
        } else {
            vec![add(&format!("/spec/{list}"), &Value::Array(items))]
        }
    }
}

/// `1Gi` and `1073741824` are the same.
fn is_same_amount(one: &Value, other: &Value) -> bool {
    let amount = |value: &Value| quantity(value.as_str()?);
    let (a, b) = (amount(one), amount(other));
    one == other || a.zip(b).is_some_and(|(a, b)| a.total_cmp(&b).is_eq())
}

fn ports(container: &Value) -> impl Iterator<Item = &Value> {
    container["ports"].as_array().into_iter().flatten()
}

/// Where an annotation stands. RFC 6901: `/` in a name is `~1`.
fn path(annotation: &str) -> String {
    let name = annotation.replace('~', "~0").replace('/', "~1");
    format!("/metadata/annotations/{name}")
}
