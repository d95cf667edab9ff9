//! The exporter's configuration, as the `ConfigMap` carries it.
//!
//! The port is not in it: the container's port is fixed when the pod is created, and the exporter learns it from there.

use std::collections::BTreeMap;

use crate::api::exporter::Pushgateway;
use crate::api::{Duration, RoseyMonitorSpec};
use crate::sidecar::config::{self, Backups, Config, Disk, Endpoint, Logs};
use crate::sidecar::{PUSH_DIR, PUSH_PASSWORD, STATE_DIR, VOLUMES_DIR};

/// The configuration that a monitor asks for. Whether the exporter takes it, [`Config::check`] says.
pub fn config(name: &str, namespace: &str, spec: &RoseyMonitorSpec) -> Config {
    let endpoint = |port: i32, path: &str, timeout_seconds: f64| Endpoint {
        port: u16::try_from(port).unwrap_or_default(),
        path: path.to_owned(),
        timeout_seconds,
    };
    let (bot, exporter) = (&spec.bot, &spec.exporter);
    Config {
        health: bot
            .health
            .as_ref()
            .map(|health| endpoint(health.port, &health.path, seconds(&health.timeout))),
        metrics: bot
            .metrics
            .as_ref()
            .map(|metrics| endpoint(metrics.port, &metrics.path, 2.0)),
        plugins: bot
            .plugins
            .as_ref()
            .map(|plugins| endpoint(plugins.port, &plugins.path, 2.0)),
        logs: bot.logs.as_ref().map(|logs| Logs {
            path: below(&logs.volume, &logs.path),
        }),
        state: bot.logs.as_ref().map(|_| STATE_DIR.into()),
        disk: exporter
            .disk
            .iter()
            .map(|disk| {
                let path = disk.path.trim_matches('/');
                Disk {
                    label: format!("{}:/{path}", disk.volume),
                    path: below(&disk.volume, path),
                }
            })
            .collect(),
        backups: exporter.backups.as_ref().map(|backups| Backups {
            path: below(&backups.volume, backups.path.trim_matches('/')),
            pattern: backups.pattern.clone(),
        }),
        pushgateway: exporter
            .pushgateway
            .as_ref()
            .map(|gateway| pushgateway(gateway, name, namespace, &spec.environment)),
        ..Config::default()
    }
}

/// A push carries the labels that a scrape would add. Only the exporter knows the pod's name, and adds it as `instance` and `pod`.
fn pushgateway(gateway: &Pushgateway, name: &str, namespace: &str, environment: &str) -> config::Pushgateway {
    let labels = [
        ("namespace", namespace),
        ("environment", environment),
        ("rosey_monitor", name),
    ];
    let auth = gateway.basic_auth.as_ref();
    config::Pushgateway {
        url: gateway.url.clone(),
        interval_seconds: seconds(&gateway.interval),
        job: "rosey-bot".into(),
        labels: BTreeMap::from(labels.map(|(label, value)| (label.into(), value.into()))),
        username: auth.map(|auth| auth.username.clone()),
        password_file: auth.map(|_| format!("{PUSH_DIR}/{PUSH_PASSWORD}")),
        ca_file: None,
    }
}

fn seconds(duration: &Duration) -> f64 {
    f64::from(u32::try_from(duration.seconds().unwrap_or_default()).unwrap_or(u32::MAX))
}

fn below(volume: &str, path: &str) -> String {
    if path.is_empty() {
        format!("{VOLUMES_DIR}/{volume}")
    } else {
        format!("{VOLUMES_DIR}/{volume}/{path}")
    }
}
