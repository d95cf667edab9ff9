//! From a monitor to the objects that watch its bot: pure, the same for operator, command line and tests.
//!
//! Two steps: [`validate`](validate::validate) makes explicit what the monitor asks for, or says everything that is wrong with
//! it; then one file per emitted thing builds from that, and cannot fail for a reason that the user could mend.

pub mod injection;
pub mod object;
pub mod platform;
pub mod problem;
pub mod validate;

mod exporter_config;
mod receivers;
mod routing;
mod rules;
mod scrape;
mod template;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::status::Skipped;
use crate::api::{MONITOR_LABEL, RoseyMonitor};
use crate::sidecar::CONFIG_FILE;
use validate::Valid;

pub use object::{Kind, Object};
pub use platform::Platform;
pub use problem::{Problem, Problems};
pub use routing::NOBODY;

/// The label by which the operator finds its objects.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "rosey-operator";

/// Everything that is made for one monitor.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The objects, in the order in which they are applied.
    pub objects: Vec<Object>,
    /// What is worth saying about them.
    pub report: Report,
}

/// What is worth saying about a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Alerting rules in force.
    pub alerts: i32,
    /// Groups they stand in.
    pub groups: i32,
    /// Alerts of the chosen packs that are left out, with the reason.
    pub skipped: Vec<Skipped>,
    /// What is legal but odd, such as a severity that no route takes; one line each.
    pub warnings: Vec<String>,
}

/// Makes the plan of a monitor.
///
/// # Errors
/// Everything that is wrong with the monitor.
pub fn plan(monitor: &RoseyMonitor, platform: &Platform) -> Result<Plan, Problems> {
    let valid = validate::validate(monitor, platform)?;
    let rule = rules::rule(&valid);
    let groups = rule.groups.as_deref().unwrap_or_default();
    let report = Report {
        alerts: count(
            groups
                .iter()
                .map(|group| group.rules.as_ref().map_or(0, Vec::len))
                .sum(),
        ),
        groups: count(groups.len()),
        skipped: valid.skipped.clone(),
        warnings: valid
            .warnings
            .iter()
            .cloned()
            .chain(lost_mentions(&valid, platform))
            .chain(scrape::lost_tls_versions(&valid, platform))
            .collect(),
    };
    let config = serde_saphyr::to_string(&exporter_config::config(valid.name, valid.namespace, valid.spec));
    let config = config.map_err(|error| Problems(vec![Problem::new("spec", error.to_string())]))?;

    let name = valid.name;
    let object = |kind, name: String, content: Value| object(&valid, platform, kind, name, content);
    let mut objects = vec![
        object(
            Kind::ConfigMap,
            exporter_config_map(name),
            json!({ "data": { CONFIG_FILE: config } }),
        ),
        object(
            Kind::PodMonitor,
            name.into(),
            json!({ "spec": scrape::pod_monitor(&valid, platform) }),
        ),
        object(Kind::PrometheusRule, name.into(), json!({ "spec": rule })),
    ];
    let notifications = valid.spec.notifications.as_ref();
    if let Some(spec) = routing::inhibitions(&valid, notifications) {
        objects.push(object(Kind::AlertmanagerConfig, name.into(), json!({ "spec": spec })));
    }
    if let Some(notifications) = notifications {
        for channel in &notifications.channels {
            if let Some(spec) = routing::channel(&valid, notifications, channel, platform) {
                objects.push(object(
                    Kind::AlertmanagerConfig,
                    format!("{name}.{}", channel.name),
                    json!({ "spec": spec }),
                ));
            }
        }
    }
    Ok(Plan { objects, report })
}

/// Name of the `ConfigMap` with the exporter's configuration.
#[must_use]
pub fn exporter_config_map(monitor: &str) -> String {
    format!("{monitor}-exporter")
}

fn object(monitor: &Valid<'_>, platform: &Platform, kind: Kind, name: String, content: Value) -> Object {
    let mut labels = BTreeMap::new();
    if kind != Kind::ConfigMap {
        labels.extend(
            platform
                .default_object_labels
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str())),
        );
        labels.extend(
            monitor
                .spec
                .object_labels
                .iter()
                .map(|(k, v)| (k.as_str(), v.0.as_str())),
        );
    }
    labels.extend([(MANAGED_BY_LABEL, MANAGED_BY), (MONITOR_LABEL, monitor.name)]);
    let resource = kind.api_resource();
    let mut json = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": name, "namespace": monitor.namespace, "labels": labels },
    });
    if let (Value::Object(json), Value::Object(content)) = (&mut json, content) {
        json.extend(content);
    }
    Object { kind, name, json }
}

/// Mentions that this platform would drop without a word.
fn lost_mentions(monitor: &Valid<'_>, platform: &Platform) -> Vec<String> {
    let notifications = monitor.spec.notifications.iter();
    let mentioned = notifications.flat_map(|n| {
        n.channels.iter().filter(|c| {
            n.routes
                .iter()
                .any(|route| route.mention.is_some() && route.channels.contains(&c.name))
        })
    });
    mentioned
        .filter_map(|channel| receivers::lost_mention(channel, platform))
        .collect()
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
