//! The chart is what it promises to be: rendered by both Helms alike, refused where it is set wrongly, valid for every Kubernetes that it is
//! for, and what is written from it is what it renders today.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod alerts;
mod consumers;
mod leaves;
mod ports;
mod rights;
mod written;

use anyhow::Result;
use chart::{Helm, rendered};
use serde_json::Value;

/// The objects that values make, without Helm's tests.
fn objects(values: Option<&str>, more: &[&str]) -> Result<Vec<Value>> {
    chart::documents(&rendered(Helm::Four, values, &[&["--skip-tests"], more].concat())?)
}

/// The one object of a kind and name.
fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The arguments of the operator.
fn arguments(objects: &[Value]) -> Vec<String> {
    let container = &object(objects, "Deployment", "rosey-operator")["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap().iter();
    arguments
        .map(|argument| argument.as_str().unwrap().to_owned())
        .collect()
}
