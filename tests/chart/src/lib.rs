//! The Helm chart: rendered by the real Helm, and what is written from it (the table of its README, the plain manifests).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub mod manifests;
pub mod readme;
pub mod schema;
pub mod specs;

/// The chart's folder in the repository.
pub const CHART: &str = "charts/rosey-monitor";
/// Name of the release that the chart is rendered as.
pub const RELEASE: &str = "rosey-monitor";
/// Namespace that the chart is rendered for.
pub const NAMESPACE: &str = "rosey-system";

/// A file of the repository.
#[must_use]
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Text of a file of the repository.
///
/// # Errors
/// When it can't be read.
pub fn text(path: &str) -> Result<String> {
    std::fs::read_to_string(file(path)).with_context(|| format!("read {path}"))
}

/// The files below a folder of the repository whose names end so, in order.
///
/// # Errors
/// When the folder can't be read, or has none.
pub fn files(folder: &str, end: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(file(folder)).with_context(|| format!("read {folder}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(end) {
            found.push(format!("{folder}/{name}"));
        }
    }
    ensure!(!found.is_empty(), "{folder} has no *{end}");
    found.sort();
    Ok(found)
}

/// The examples of values, and none at all.
///
/// # Errors
/// When there are no examples.
pub fn value_files() -> Result<Vec<Option<String>>> {
    let examples = files(&format!("{CHART}/examples"), "-values.yaml")?;
    Ok(std::iter::once(None).chain(examples.into_iter().map(Some)).collect())
}

/// A folder or command that one of the build scripts in `tools` names.
///
/// # Errors
/// When the script fails.
pub fn built(script: &str, what: &str) -> Result<PathBuf> {
    let output = Command::new(file(script))
        .arg(what)
        .output()
        .with_context(|| format!("run {script} {what}"))?;
    ensure!(output.status.success(), "{script} {what}: {output:?}");
    let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    ensure!(
        path.exists(),
        "{} is not there; run: make tools chart-tools",
        path.display()
    );
    Ok(path)
}

/// Which Helm renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helm {
    /// The current one.
    Four,
    /// The one before.
    Three,
}

/// What a command says; fails with what it says if it fails.
///
/// # Errors
/// It can't be started, or ends with an error.
pub fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A command of the chart's tools.
///
/// # Errors
/// When it is not built.
pub fn tool(name: &str) -> Result<Command> {
    Ok(Command::new(built("tools/packaging/build", "path")?.join(name)))
}

/// A command of the lab's tools.
///
/// # Errors
/// When it is not built.
pub fn lab_tool(name: &str) -> Result<Command> {
    Ok(Command::new(built("tools/build", "path")?.join(name)))
}

/// The chart as text, with a file of values and more flags.
///
/// # Errors
/// When Helm refuses it.
pub fn rendered(helm: Helm, values: Option<&str>, more: &[&str]) -> Result<String> {
    let mut command = tool(if helm == Helm::Four { "helm" } else { "helm3" })?;
    command
        .args(["template", RELEASE])
        .arg(file(CHART))
        .args(["--namespace", NAMESPACE]);
    if let Some(values) = values {
        command.arg("--values").arg(file(values));
    }
    said(command.args(more))
}

/// The documents of a text of YAML, without empty ones.
///
/// # Errors
/// When it is no YAML.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

/// Which object a document is: kind, namespace (empty for the cluster's own) and name.
#[must_use]
pub fn identity(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"]),
    )
}

/// The objects of a text by their identity.
///
/// # Errors
/// When it is no YAML, or has an object twice.
pub fn objects(text: &str) -> Result<BTreeMap<(String, String, String), Value>> {
    let mut all = BTreeMap::new();
    for object in documents(text)? {
        let identity = identity(&object);
        ensure!(
            all.insert(identity.clone(), object).is_none(),
            "{identity:?} is there twice"
        );
    }
    Ok(all)
}
