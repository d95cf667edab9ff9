//! The exporter's configuration, as the `ConfigMap` carries it.
//!
//! The port is not in it: the container's port is fixed when the pod is created, and the exporter learns it from there.

use crate::api::RoseyMonitorSpec;
use crate::sidecar::VOLUMES_DIR;
use crate::sidecar::config::{Backups, Config, Disk, Endpoint};

/// The configuration that a spec asks for. Whether the exporter takes it, [`Config::check`] says.
pub fn config(spec: &RoseyMonitorSpec) -> Config {
    let endpoint = |port: i32, path: &str, timeout_seconds: f64| Endpoint {
        port: u16::try_from(port).unwrap_or_default(),
        path: path.to_owned(),
        timeout_seconds,
    };
    Config {
        health: spec.bot.health.as_ref().map(|health| {
            let seconds = u32::try_from(health.timeout.seconds().unwrap_or_default()).unwrap_or(u32::MAX);
            endpoint(health.port, &health.path, f64::from(seconds))
        }),
        metrics: spec
            .bot
            .metrics
            .as_ref()
            .map(|metrics| endpoint(metrics.port, &metrics.path, 2.0)),
        disk: spec
            .exporter
            .disk
            .iter()
            .map(|disk| {
                let path = disk.path.trim_matches('/');
                Disk {
                    label: format!("{}:/{path}", disk.volume),
                    path: folder(&disk.volume, path),
                }
            })
            .collect(),
        backups: spec.exporter.backups.as_ref().map(|backups| Backups {
            path: folder(&backups.volume, backups.path.trim_matches('/')),
            pattern: backups.pattern.clone(),
        }),
        ..Config::default()
    }
}

fn folder(volume: &str, path: &str) -> String {
    if path.is_empty() {
        format!("{VOLUMES_DIR}/{volume}")
    } else {
        format!("{VOLUMES_DIR}/{volume}/{path}")
    }
}
