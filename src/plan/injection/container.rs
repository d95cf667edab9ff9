//! The exporter's container, fitted to the pod that it goes into.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::pod::Pod;
use crate::api::RoseyMonitor;
use crate::plan::validate::is_enough_memory;
use crate::plan::{Platform, exporter_config_map};
use crate::sidecar::{CONFIG_DIR, CONFIG_FILE, CONFIG_VOLUME, CONTAINER, PORT_NAME, VOLUMES_DIR};
use crate::sidecar::{PUSH_DIR, PUSH_PASSWORD, PUSH_VOLUME, STATE_DIR, STATE_VOLUME, WEB_DIR, WEB_FLAG, WEB_VOLUME};

/// The user and group that the exporter runs as where nothing speaks for another.
const NOBODY: i64 = 65532;

/// Where the `ServiceAccount` admission plugin would mount the bot's token. It leaves a path alone that is mounted already,
/// so our configuration goes there too: the exporter never holds the bot's token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The volumes of the pod that the monitor's sources name.
pub fn volumes(monitor: &RoseyMonitor) -> BTreeSet<&str> {
    let (bot, exporter) = (&monitor.spec.bot, &monitor.spec.exporter);
    let disk = exporter.disk.iter().map(|disk| disk.volume.as_str());
    disk.chain(exporter.backups.iter().map(|backups| backups.volume.as_str()))
        .chain(bot.logs.iter().map(|logs| logs.volume.as_str()))
        .collect()
}

/// The volumes that an exporter of this monitor mounts besides that of its configuration; what a pod lacks of them, it is too
/// old for.
#[must_use]
pub fn mounted(monitor: &RoseyMonitor) -> BTreeSet<&str> {
    let own: Vec<&'static str> = own_names(monitor).filter(|name| *name != CONFIG_VOLUME).collect();
    volumes(monitor).into_iter().chain(own).collect()
}

/// Names of the volumes that come into the pod with the exporter.
pub fn own_names(monitor: &RoseyMonitor) -> impl Iterator<Item = &'static str> {
    own(monitor).map(|own| own.name)
}

/// The volumes that come into the pod with the exporter.
pub fn own_volumes(monitor: &RoseyMonitor) -> Vec<Value> {
    let volume = |own: Own| {
        let mut volume = own.source;
        volume["name"] = own.name.into();
        volume
    };
    own(monitor).map(volume).collect()
}

/// A volume that comes into the pod with the exporter.
struct Own {
    name: &'static str,
    path: &'static str,
    read_only: bool,
    /// Where its content comes from, in the field of its kind.
    source: Value,
}

/// All of them are optional: a pod must start without them.
fn own(monitor: &RoseyMonitor) -> impl Iterator<Item = Own> {
    // Without fsGroup kubelet leaves the files of a volume to root, and the exporter is another user.
    const READABLE: i32 = 0o444;
    let (bot, exporter) = (&monitor.spec.bot, &monitor.spec.exporter);
    let config_map = exporter_config_map(monitor.metadata.name.as_deref().unwrap_or_default());
    let config = Own {
        name: CONFIG_VOLUME,
        path: CONFIG_DIR,
        read_only: true,
        source: json!({ "configMap": { "name": config_map, "optional": true } }),
    };
    let web = exporter.web_config_secret_ref.as_ref().map(|web| Own {
        name: WEB_VOLUME,
        path: WEB_DIR,
        read_only: true,
        // The whole of it: the file may name certificates beside it.
        source: json!({ "secret": { "secretName": web.name, "optional": true, "defaultMode": READABLE } }),
    });
    let gateway = exporter.pushgateway.as_ref();
    let push = gateway.and_then(|gateway| gateway.basic_auth.as_ref()).map(|auth| {
        let password = &auth.password_secret_ref;
        let items = [json!({ "key": password.key, "path": PUSH_PASSWORD })];
        Own {
            name: PUSH_VOLUME,
            path: PUSH_DIR,
            read_only: true,
            source: json!({ "secret": { "secretName": password.name, "items": items, "optional": true, "defaultMode": READABLE } }),
        }
    });
    // It outlives the container, so that a restart of the exporter counts no line twice. In memory, because cluster-autoscaler
    // keeps a node for a pod with an emptyDir on its disk (isLocalVolume in cluster-autoscaler/utils/drain/drain.go).
    let state = bot.logs.as_ref().map(|_| Own {
        name: STATE_VOLUME,
        path: STATE_DIR,
        read_only: false,
        source: json!({ "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
    });
    [Some(config), web, push, state].into_iter().flatten()
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

    let mut mounts: Vec<_> = own(monitor)
        .map(|own| json!({ "name": own.name, "mountPath": own.path, "readOnly": own.read_only }))
        .collect();
    mounts.insert(
        1,
        json!({ "name": CONFIG_VOLUME, "mountPath": TOKEN_DIR, "readOnly": true }),
    );
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
    let mut args = vec!["--config".to_owned(), format!("{CONFIG_DIR}/{CONFIG_FILE}")];
    args.extend(
        spec.web_config_secret_ref
            .as_ref()
            .map(|web| format!("{WEB_FLAG}={WEB_DIR}/{}", web.key)),
    );
    let mut container = json!({
        "name": CONTAINER,
        "image": super::image(monitor, platform),
        "imagePullPolicy": "IfNotPresent",
        "args": args,
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
