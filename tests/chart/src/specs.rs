//! JSON schemas of objects, for kubeconform: from the API of a Kubernetes, and from the definitions of custom resources.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

/// The Kubernetes versions whose API is at hand, such as `1.34`, with the file.
///
/// # Errors
/// When `make chart-tools` has not fetched them.
pub fn versions() -> Result<BTreeMap<String, std::path::PathBuf>> {
    let folder = crate::built("tools/packaging/build", "specs")?;
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(name, path);
        }
    }
    ensure!(
        found.len() > 1,
        "only {} versions of Kubernetes are at hand",
        found.len()
    );
    Ok(found)
}

/// The name under which kubeconform looks a kind up: `deployment-apps-v1`, `service-v1`.
#[must_use]
pub fn name(api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let group = group.split('.').next().unwrap_or_default();
    let parts = [kind.to_lowercase(), group.to_owned(), version.to_owned()];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// Writes the schemas of these kinds (`apiVersion`, `kind`) as `swagger`, the API of a Kubernetes, describes them. A kind that it does not know
/// is left out.
///
/// # Errors
/// When a file can't be read or written.
pub fn write_kinds(swagger: &Path, kinds: &[(String, String)], folder: &Path) -> Result<()> {
    let api: Value = serde_json::from_slice(&std::fs::read(swagger)?).with_context(|| swagger.display().to_string())?;
    let definitions = api["definitions"].as_object().context("no definitions")?;
    for (api_version, kind) in kinds {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let meant = json!([{"group": group, "kind": kind, "version": version}]);
        let Some((key, _)) = definitions
            .iter()
            .find(|(_, definition)| definition["x-kubernetes-group-version-kind"] == meant)
        else {
            continue;
        };
        let mut used = BTreeMap::new();
        collect(definitions, key, &mut used);
        let schema = json!({"$ref": format!("#/definitions/{key}"), "definitions": used});
        std::fs::write(
            folder.join(format!("{}.json", name(api_version, kind))),
            schema.to_string(),
        )?;
    }
    Ok(())
}

/// Writes the schemas of a custom resource's versions.
///
/// # Errors
/// When it is no definition, or a file can't be written.
pub fn write_custom(definition: &Value, folder: &Path) -> Result<()> {
    let (group, kind) = (&definition["spec"]["group"], &definition["spec"]["names"]["kind"]);
    let (Some(group), Some(kind)) = (group.as_str(), kind.as_str()) else {
        anyhow::bail!("a definition without group and kind")
    };
    for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
        let name = name(
            &format!("{group}/{}", version["name"].as_str().unwrap_or_default()),
            kind,
        );
        let mut schema = strict(&version["schema"]["openAPIV3Schema"]);
        schema["properties"]["metadata"] = json!({"type": "object"});
        std::fs::write(folder.join(format!("{name}.json")), schema.to_string())?;
    }
    Ok(())
}

/// A definition and all that it refers to.
fn collect(definitions: &Map<String, Value>, key: &str, used: &mut BTreeMap<String, Value>) {
    if used.contains_key(key) {
        return;
    }
    let definition = match key.rsplit('.').next() {
        // "4" and 4 are both meant.
        Some("Quantity" | "IntOrString") => json!({"type": ["string", "number"]}),
        _ => strict(&definitions[key]),
    };
    used.insert(key.to_owned(), definition.clone());
    for reference in references(&definition) {
        collect(definitions, &reference, used);
    }
}

fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(path)) => path
                    .strip_prefix("#/definitions/")
                    .map(str::to_owned)
                    .into_iter()
                    .collect(),
                _ => references(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// The schema with nothing allowed that is not described, and without the words that JSON schemas do not know.
fn strict(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return json!({"type": ["string", "integer"]});
    }
    let mut out = Map::new();
    for (key, value) in fields {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => properties
                .iter()
                .map(|(name, schema)| (name.clone(), strict(schema)))
                .collect::<Map<_, _>>()
                .into(),
            ("items" | "additionalProperties", value) => strict(value),
            ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => all.iter().map(strict).collect::<Vec<_>>().into(),
            // Go's formats and patterns of other engines: the API server's business.
            ("format" | "pattern" | "description" | "default" | "nullable", _) => continue,
            (key, _) if key.starts_with("x-") => continue,
            (_, value) => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    let open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if out.contains_key("properties") && !out.contains_key("additionalProperties") && !open {
        out.insert("additionalProperties".into(), false.into());
    }
    out.into()
}
