//! The plan, judged by snapshots, by the laws of what is emitted, and by the real promtool.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod injection;
mod laws;
mod problems;
mod rules;
mod snapshots;
mod update;

use rosey_monitor::api::RoseyMonitor;
use rosey_monitor::plan::{Kind, Plan, Platform, plan};
use serde_json::Value;

/// The first document of an example.
fn example(name: &str) -> RoseyMonitor {
    let path = format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    monitor(&text)
}

fn monitor(text: &str) -> RoseyMonitor {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A monitor with this spec, named rosey in namespace bots.
fn with_spec(spec: &str) -> RoseyMonitor {
    let spec = spec.lines().fold(String::new(), |text, line| text + "  " + line + "\n");
    monitor(&format!(
        "apiVersion: rosey.dev/v1alpha1\nkind: RoseyMonitor\nmetadata: {{name: rosey, namespace: bots}}\nspec:\n{spec}"
    ))
}

fn planned(monitor: &RoseyMonitor) -> Plan {
    plan(monitor, &Platform::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The objects of a kind, as JSON.
fn objects(plan: &Plan, kind: Kind) -> Vec<&Value> {
    plan.objects
        .iter()
        .filter(|object| object.kind == kind)
        .map(|object| &object.json)
        .collect()
}
