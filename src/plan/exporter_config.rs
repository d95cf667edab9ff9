//! The exporter's configuration, as the `ConfigMap` carries it.
//!
//! The port is not in it: the container's port is fixed when the pod is created, and the exporter learns it from there.

use super::validate::Valid;
use crate::sidecar::config::{Backups, Config, Disk, Endpoint};
use crate::sidecar::{CONFIG_FILE, VOLUMES_DIR};

/// Key and text of the configuration file.
///
/// # Errors
/// The reason why it can't be written as YAML.
pub fn file(monitor: &Valid<'_>) -> Result<(&'static str, String), String> {
    let spec = monitor.spec;
    let port = |port: i32| u16::try_from(port).map_err(|_| format!("port {port} is not from 1 to 65535"));
    let health = spec.bot.health.as_ref().map(|health| {
        let timeout_seconds = f64::from(u32::try_from(health.timeout.seconds().unwrap_or(2)).unwrap_or(u32::MAX));
        Ok::<_, String>(Endpoint {
            port: port(health.port)?,
            path: health.path.clone(),
            timeout_seconds,
        })
    });
    let metrics = spec.bot.metrics.as_ref().map(|metrics| {
        Ok::<_, String>(Endpoint {
            port: port(metrics.port)?,
            path: metrics.path.clone(),
            timeout_seconds: 2.0,
        })
    });
    let disk = spec.exporter.disk.iter().map(|disk| {
        let path = disk.path.trim_matches('/');
        Disk {
            label: format!("{}:/{path}", disk.volume),
            path: folder(&disk.volume, path),
        }
    });
    let backups = spec.exporter.backups.as_ref().map(|backups| Backups {
        path: folder(&backups.volume, backups.path.trim_matches('/')),
        pattern: backups.pattern.clone(),
    });
    let config = Config {
        health: health.transpose()?,
        metrics: metrics.transpose()?,
        disk: disk.collect(),
        backups,
        ..Config::default()
    };
    Ok((
        CONFIG_FILE,
        serde_saphyr::to_string(&config).map_err(|error| error.to_string())?,
    ))
}

fn folder(volume: &str, path: &str) -> String {
    if path.is_empty() {
        format!("{VOLUMES_DIR}/{volume}")
    } else {
        format!("{VOLUMES_DIR}/{volume}/{path}")
    }
}
