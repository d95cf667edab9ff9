//! The exporter's container, fitted to the pod that it goes into.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::pod::Pod;
use crate::api::RoseyMonitor;
use crate::plan::validate::is_enough_memory;
use crate::plan::{Platform, exporter_config_map};
use crate::sidecar::{CONFIG_DIR, CONFIG_FILE, CONFIG_VOLUME, CONTAINER, PORT_NAME, VOLUMES_DIR};

/// The user and group that the exporter runs as where nothing speaks for another.
const NOBODY: i64 = 65532;

/// Where the `ServiceAccount` admission plugin would mount the bot's token. It leaves a path alone that is mounted already,
/// so our configuration goes there too: the exporter never holds the bot's token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The volumes that the monitor's sources name.
#[must_use]
pub fn volumes(monitor: &RoseyMonitor) -> BTreeSet<&str> {
    let spec = &monitor.spec.exporter;
    let disk = spec.disk.iter().map(|disk| disk.volume.as_str());
    disk.chain(spec.backups.iter().map(|backups| backups.volume.as_str()))
        .collect()
}

/// Why a volume is left out: its mount would make the pod invalid.
pub fn why_not_mounted(pod: &Pod<'_>, volume: &str) -> Option<&'static str> {
    if pod.volume(volume).is_none() {
        Some("is not in the pod")
    } else if pod.is_block(volume) {
        Some("is used as a block device")
    } else {
        None
    }
}

pub fn exporter(pod: &Pod<'_>, monitor: &RoseyMonitor, platform: &Platform) -> Value {
    let spec = &monitor.spec.exporter;
    let volumes: Vec<_> = volumes(monitor)
        .into_iter()
        .filter(|volume| why_not_mounted(pod, volume).is_none())
        .collect();

    let mut mounts = vec![
        json!({ "name": CONFIG_VOLUME, "mountPath": CONFIG_DIR, "readOnly": true }),
        json!({ "name": CONFIG_VOLUME, "mountPath": TOKEN_DIR, "readOnly": true }),
    ];
    mounts.extend(
        volumes
            .iter()
            .map(|volume| json!({ "name": volume, "mountPath": format!("{VOLUMES_DIR}/{volume}"), "readOnly": true })),
    );

    // Files of the bot are often readable by its own user alone.
    let id = |field| {
        if volumes.is_empty() {
            NOBODY
        } else {
            pod.numeric_id(field).unwrap_or(NOBODY)
        }
    };
    let mut container = json!({
        "name": CONTAINER,
        "image": super::image(monitor, platform),
        "imagePullPolicy": "IfNotPresent",
        "args": ["--config", format!("{CONFIG_DIR}/{CONFIG_FILE}")],
        // The configuration may reach the pod a minute after its start, the port is fixed now.
        "env": [{ "name": "METRICS_PORT", "value": spec.port.to_string() }],
        "ports": [{ "name": PORT_NAME, "containerPort": spec.port, "protocol": "TCP" }],
        "resources": resources(pod, monitor),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsGroup": id("runAsGroup"),
            "runAsNonRoot": true,
            "runAsUser": id("runAsUser"),
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": mounts,
    });
    if !pod.runs_for_ever() {
        container["restartPolicy"] = json!("Always");
    }
    container
}

/// The volume with the exporter's configuration. Optional: a pod must start without it.
pub fn config_volume(monitor: &str) -> Value {
    json!({ "name": CONFIG_VOLUME, "configMap": { "name": exporter_config_map(monitor), "optional": true } })
}

/// Resources that leave the pod's class as it is.
fn resources(pod: &Pod<'_>, monitor: &RoseyMonitor) -> Value {
    let own = monitor.spec.exporter.resources.as_ref();
    let requests = own.map_or_else(
        || json!({ "cpu": "5m", "memory": "8Mi" }),
        |own| json!(own.requests.clone().unwrap_or_default()),
    );
    let limits = own.map_or_else(
        || json!({ "memory": "32Mi" }),
        |own| json!(own.limits.clone().unwrap_or_default()),
    );
    if pod.has_own_resources() {
        // The containers' sum may not exceed what the pod says; and without any, a quota refuses the pod.
        let nothing = json!({ "cpu": "0", "memory": "0" });
        return json!({ "requests": nothing });
    }
    if pod.is_guaranteed() {
        let mut same = Map::new();
        for (name, fallback) in [("cpu", "5m"), ("memory", "32Mi")] {
            // A request may be less than the exporter starts with; as its limit it may not.
            let enough = |value: &&Value| name != "memory" || value.as_str().is_some_and(is_enough_memory);
            let request = Some(&requests[name]).filter(enough);
            let value = [Some(&limits[name]), request]
                .into_iter()
                .flatten()
                .find(|value| !value.is_null())
                .cloned();
            same.insert(name.into(), value.unwrap_or_else(|| json!(fallback)));
        }
        return json!({ "limits": same, "requests": same });
    }
    json!({ "limits": limits, "requests": requests })
}

/// The fields that [`exporter`] writes.
const WRITTEN: [&str; 10] = [
    "name",
    "image",
    "imagePullPolicy",
    "args",
    "env",
    "ports",
    "resources",
    "securityContext",
    "volumeMounts",
    "restartPolicy",
];

/// A container of a stored pod without what the API server has added, so that its hash is that of what was written.
pub fn written(container: &Value) -> Value {
    let fields = WRITTEN
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), container.get(*field)?.clone())));
    Value::Object(fields.collect())
}

/// Short hash of a container, so that a pod says which exporter it got.
pub fn hash(container: &Value) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, container.to_string().as_bytes());
    digest.as_ref().iter().take(5).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
