//! The plain manifests in `deploy/`: the chart as rendered, without what only Helm reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{CHART, Helm, NAMESPACE, file, files, objects, rendered};

/// What Helm alone reads.
const HELMS_OWN: [&str; 2] = ["helm.sh/chart:", "app.kubernetes.io/managed-by:"];
/// No annotation for Helm, and no hooks.
const PLAIN: [&str; 3] = ["--set", "crds.keep=false", "--skip-tests"];

/// The chart without what only Helm reads.
///
/// # Errors
/// When Helm refuses it.
pub fn plain(values: Option<&str>) -> Result<String> {
    let text = rendered(Helm::Four, values, &PLAIN)?;
    let lines = text.lines().filter(|line| {
        !line.starts_with("# Source: ") && !HELMS_OWN.iter().any(|own| line.trim_start().starts_with(own))
    });
    Ok(lines.map(|line| [line.trim_end(), "\n"].concat()).collect())
}

/// Every file that is made, by its path below the repository.
///
/// # Errors
/// When Helm refuses the chart.
pub fn all() -> Result<BTreeMap<String, String>> {
    const MADE: &str = "# Rendered from charts/rosey-monitor by `make manifests`.\n";
    let documents = plain(None)?;
    let is_definition = |document: &&str| document.contains("\nkind: CustomResourceDefinition\n");
    let (definitions, others): (Vec<_>, Vec<_>) = split(&documents).into_iter().partition(is_definition);
    let (definitions, others) = (joined(&definitions), joined(&others));
    let namespace = format!(
        "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n    \
         pod-security.kubernetes.io/enforce: restricted\n"
    );
    let mut made = BTreeMap::from([
        ("deploy/crds.yaml".to_owned(), format!("{MADE}{definitions}")),
        (
            "deploy/install.yaml".to_owned(),
            format!("{MADE}{namespace}{definitions}{others}"),
        ),
        ("deploy/base/crds.yaml".to_owned(), format!("{MADE}{definitions}")),
        ("deploy/base/namespace.yaml".to_owned(), format!("{MADE}{namespace}")),
        ("deploy/base/rosey-monitor.yaml".to_owned(), format!("{MADE}{others}")),
        (
            "deploy/base/kustomization.yaml".to_owned(),
            format!(
                "{MADE}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - namespace.yaml\n  - crds.yaml\n  \
                 - rosey-monitor.yaml\n"
            ),
        ),
    ]);
    for example in files(&format!("{CHART}/examples"), "-values.yaml")? {
        let name = Path::new(&example).file_name().unwrap_or_default().to_string_lossy();
        let folder = format!("deploy/overlays/{}", name.trim_end_matches("-values.yaml"));
        let (added, patches) = differences(&documents, &plain(Some(&example))?)?;
        // The first lines of the example say what it is for.
        let about: String = crate::text(&example)?
            .lines()
            .take_while(|line| line.starts_with('#'))
            .map(|line| [line, "\n"].concat())
            .collect();
        let mut kustomization = format!(
            "{MADE}{about}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - ../../base\n"
        );
        if !added.is_empty() {
            kustomization += "  - added.yaml\n";
            made.insert(format!("{folder}/added.yaml"), format!("{MADE}{added}"));
        }
        if !patches.is_empty() {
            kustomization += &["patches:\n", &patches].concat();
        }
        made.insert(format!("{folder}/kustomization.yaml"), kustomization);
    }
    Ok(made)
}

/// Writes them, and removes what is made no longer.
///
/// # Errors
/// When Helm refuses the chart, or a file can't be written.
pub fn write() -> Result<()> {
    let made = all()?;
    for folder in ["deploy/base", "deploy/overlays"] {
        let folder = file(folder);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
    }
    for (path, text) in made {
        let path = file(&path);
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The documents of a text, as text.
fn split(text: &str) -> Vec<&str> {
    let documents = text.split("---\n").map(str::trim_end);
    documents.filter(|document| !document.is_empty()).collect()
}

fn joined(documents: &[&str]) -> String {
    documents
        .iter()
        .map(|document| ["---\n", document, "\n"].concat())
        .collect()
}

/// What an overlay adds to the base, as text with its comments, and what it changes there.
fn differences(base: &str, overlay: &str) -> Result<(String, String)> {
    let (before, after) = (objects(base)?, objects(overlay)?);
    let mut added = Vec::new();
    for document in split(overlay) {
        let object: Value = serde_saphyr::from_str(document).map_err(|error| anyhow::anyhow!("{error}"))?;
        if !object.is_null() && !before.contains_key(&crate::identity(&object)) {
            added.push(document);
        }
    }
    let mut patches = String::new();
    for (identity, object) in &before {
        let (_, namespace, name) = identity;
        let mut metadata = json!({"name": name});
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        let (api_version, kind) = (&object["apiVersion"], &object["kind"]);
        let Some(other) = after.get(identity) else {
            let gone = json!({"$patch": "delete", "apiVersion": api_version, "kind": kind, "metadata": metadata});
            writeln!(patches, "  - patch: |-\n      {gone}")?;
            continue;
        };
        let mut operations = Vec::new();
        compare(object, other, "", &mut operations);
        if operations.is_empty() {
            continue;
        }
        let (group, version) = api_version
            .as_str()
            .and_then(|text| text.split_once('/'))
            .unwrap_or_default();
        let mut target = metadata;
        (target["group"], target["version"], target["kind"]) = (json!(group), json!(version), kind.clone());
        writeln!(patches, "  - target: {target}\n    patch: |-")?;
        for operation in operations {
            writeln!(patches, "      - {operation}")?;
        }
    }
    Ok((joined(&added), patches))
}

/// The operations of a JSON patch that make `after` of `before`. A list of another length is replaced as a whole.
fn compare(before: &Value, after: &Value, path: &str, operations: &mut Vec<Value>) {
    if let (Value::Array(old), Value::Array(new)) = (before, after)
        && old.len() == new.len()
    {
        for (number, (old, new)) in old.iter().zip(new).enumerate() {
            compare(old, new, &format!("{path}/{number}"), operations);
        }
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        if before != after {
            operations.push(json!({"op": "replace", "path": path, "value": after}));
        }
        return;
    };
    let at = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    for (key, value) in old {
        match new.get(key) {
            Some(other) => compare(value, other, &at(key), operations),
            None => operations.push(json!({"op": "remove", "path": at(key)})),
        }
    }
    for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        operations.push(json!({"op": "add", "path": at(key), "value": value}));
    }
}
