//! Which fields the generated monitors set, beside those that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::generate::pointers;

/// Prints how many monitors set each field; every field of the definition is set by some, and a switch in both ways.
pub fn every_field_is_set(monitors: &[Value]) -> Result<()> {
    let mut counts = BTreeMap::<String, usize>::new();
    for monitor in monitors {
        let mut leaves = Vec::new();
        pointers(&monitor["spec"], &mut String::new(), &mut leaves);
        for field in leaves.iter().map(|leaf| field(leaf)).collect::<BTreeSet<_>>() {
            *counts.entry(field).or_default() += 1;
        }
    }
    // Not println!, of which nobody sees anything in a test that passes.
    let mut out = std::io::stdout();
    writeln!(out, "monitors that set a field:")?;
    for (field, count) in &counts {
        writeln!(out, "  {count:5}  spec{field}")?;
    }

    let definition: Value = serde_saphyr::from_str(&lab::rosey::text("crds/roseymonitors.rosey.dev.yaml")?)?;
    let mut defined = Vec::new();
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    leaves(definition.pointer(schema).unwrap_or(&Value::Null), "", &mut defined);
    ensure!(defined.len() > 50, "only these fields are defined: {defined:?}");
    let is_set = |field: &&String| {
        counts
            .keys()
            .any(|set| set == *field || set.starts_with(&format!("{field}.")))
    };
    let unset: Vec<_> = defined.iter().filter(|field| !is_set(field)).collect();
    ensure!(unset.is_empty(), "no generated monitor sets {unset:?}");
    for paused in [true, false] {
        ensure!(
            monitors.iter().any(|monitor| monitor["spec"]["paused"] == paused),
            "no generated monitor has paused: {paused}"
        );
    }
    Ok(())
}

/// A JSON pointer as a field, with a star for each index.
fn field(pointer: &str) -> String {
    let parts = pointer.split('/');
    let starred = parts.map(|part| if part.parse::<usize>().is_ok() { "*" } else { part });
    starred.collect::<Vec<_>>().join(".")
}

/// The fields of a schema that hold a value, a map of the user's own keys included.
fn leaves(schema: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            leaves(property, &format!("{path}.{name}"), found);
        }
    } else if schema["type"] == "array" {
        leaves(&schema["items"], &format!("{path}.*"), found);
    } else {
        found.push(path.to_owned());
    }
}
