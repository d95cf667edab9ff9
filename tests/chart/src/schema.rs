//! The schema of the chart's values: its leaves, and for each another value than the default.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// One value that can be set: its path, and its schema with references resolved.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The keys that lead to it.
    pub path: Vec<String>,
    /// What it may be.
    pub schema: Value,
}

impl Leaf {
    /// The path as one writes it.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.join(".")
    }

    /// Values with this leaf set to `value`.
    #[must_use]
    pub fn set(&self, value: &Value) -> Value {
        self.path.iter().rev().fold(value.clone(), |inner, key| {
            let mut outer = Map::new();
            outer.insert(key.clone(), inner);
            outer.into()
        })
    }
}

/// Every leaf of the schema. Maps of the user's own keys and lists are leaves.
///
/// # Errors
/// A reference leads nowhere.
pub fn leaves(schema: &Value) -> Result<Vec<Leaf>> {
    let mut found = Vec::new();
    walk(schema, schema, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// A schema with its reference followed.
///
/// # Errors
/// The reference leads nowhere.
pub fn resolved<'a>(root: &'a Value, schema: &'a Value) -> Result<&'a Value> {
    match schema["$ref"].as_str() {
        Some(path) => root
            .pointer(path.trim_start_matches('#'))
            .with_context(|| format!("{path} leads nowhere")),
        None => Ok(schema),
    }
}

fn walk(root: &Value, schema: &Value, path: &mut Vec<String>, found: &mut Vec<Leaf>) -> Result<()> {
    let schema = resolved(root, schema)?;
    let Some(properties) = schema["properties"].as_object() else {
        found.push(Leaf {
            path: path.clone(),
            schema: schema.clone(),
        });
        return Ok(());
    };
    for (key, inner) in properties {
        path.push(key.clone());
        walk(root, inner, path, found)?;
        path.pop();
    }
    Ok(())
}

/// Another value than `default` that the schema allows. Where a pattern decides, `known` has one.
///
/// # Errors
/// None is known.
pub fn another(root: &Value, leaf: &Leaf, default: &Value, known: &[(&str, Value)]) -> Result<Value> {
    let name = leaf.name();
    if let Some((_, value)) = known.iter().find(|(key, _)| *key == name) {
        return Ok(value.clone());
    }
    make(root, &leaf.schema, default)
        .with_context(|| format!("{name}: no other value is known; add one to the list in the test"))
}

fn make(root: &Value, schema: &Value, default: &Value) -> Result<Value> {
    let schema = resolved(root, schema)?;
    if let Some(choices) = schema["enum"].as_array() {
        return choices
            .iter()
            .find(|choice| *choice != default)
            .cloned()
            .context("one choice only");
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    Ok(match kind {
        Some("boolean") => json!(default != &json!(true)),
        Some("integer") => {
            let low = schema["minimum"].as_i64().unwrap_or(0);
            json!(if default == &json!(low) { low + 1 } else { low })
        }
        Some("string") if schema["pattern"].is_null() => json!("other"),
        Some("array") => json!([make(root, &schema["items"], &Value::Null)?]),
        Some("object") if schema["properties"].is_object() => {
            let mut made = Map::new();
            for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
                made.insert(key.clone(), make(root, inner, &Value::Null)?);
            }
            made.into()
        }
        Some("object") if schema["additionalProperties"]["type"] == "string" => json!({"added": "other"}),
        _ => bail!("a pattern decides"),
    })
}
