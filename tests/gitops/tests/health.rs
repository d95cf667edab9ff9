//! Whether Argo CD, Flux and Helm take a monitor for healthy when it is: their own engines judge documents whose statuses a test of the
//! operator compares with what it writes. `gitops-judge` has the engines; tools/gitops/build makes it.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what the checks read is there, or they fail"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// What the health check expressions for Flux and what kstatus, which Helm waits by, say of each document.
const VERDICTS: &[(&str, &str, &str)] = &[
    ("created", "InProgress", "InProgress"),
    ("changed", "InProgress", "InProgress"),
    ("ready", "Current", "Current"),
    ("pods-missing", "Current", "Current"),
    ("paused", "Current", "Current"),
    // kstatus knows no pause: nothing has been applied, and so it waits.
    ("paused-when-created", "Current", "InProgress"),
    ("invalid", "Failed", "Failed"),
    ("name-taken", "Failed", "Failed"),
    // These mend themselves when the cluster does.
    ("prometheus-operator-missing", "InProgress", "InProgress"),
    ("apply-failed", "InProgress", "InProgress"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn gitops() -> PathBuf {
    root().join("deploy/gitops")
}

fn customization() -> PathBuf {
    gitops().join("argocd/resource_customizations/rosey.dev/RoseyMonitor")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// The documents by the names of their files, without the ending.
fn documents() -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(customization().join("testdata")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .map(|file| (file.file_stem().unwrap().to_str().unwrap().to_owned(), file))
        .collect()
}

/// A document that is not in the tree.
fn made(name: &str, document: &Value) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    fs::write(&file, document.to_string()).unwrap();
    file
}

/// Status and message of each document, in the order in which they are named.
fn judged<'a>(by: &[&str], documents: impl IntoIterator<Item = &'a PathBuf>) -> Vec<(String, String)> {
    let path = Command::new(root().join("tools/gitops/build"))
        .arg("path")
        .output()
        .unwrap();
    let judge = Path::new(String::from_utf8(path.stdout).unwrap().trim()).join("gitops-judge");
    assert!(judge.exists(), "{} is missing; run: make tools", judge.display());
    let documents: Vec<_> = documents.into_iter().collect();
    let output = Command::new(judge).args(by).args(&documents).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let verdict = |line: &str| {
        let said: Value = serde_json::from_str(line).unwrap();
        assert!(said["error"].is_null(), "{said}");
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("message"))
    };
    let verdicts: Vec<_> = lines.lines().map(verdict).collect();
    assert_eq!(verdicts.len(), documents.len());
    verdicts
}

fn script() -> String {
    customization().join("health.lua").to_str().unwrap().to_owned()
}

/// The expressions for monitors in the example of a Kustomization.
fn expressions() -> String {
    let file = read(&gitops().join("flux/cluster.yaml"));
    let checks = file
        .split("\n---\n")
        .map(|document| yaml(document)["spec"]["healthCheckExprs"].clone());
    let mut checks: Vec<_> = checks
        .filter_map(|checks| checks.as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(checks.len(), 1, "{checks:?}");
    checks.remove(0).to_string()
}

#[test]
fn the_health_check_of_argo_cd_passes_its_tests_in_argo_cds_own_format() {
    let tests = yaml(&read(&customization().join("health_test.yaml")));
    let tests = tests["tests"].as_array().unwrap();
    let inputs = tests.iter().map(|test| test["inputPath"].as_str().unwrap());
    let inputs: Vec<_> = inputs.map(|input| customization().join(input)).collect();
    let mut named = inputs.clone();
    named.sort();
    let mut all: Vec<_> = documents().into_values().collect();
    all.sort();
    assert_eq!(named, all);
    for (test, (status, message)) in tests.iter().zip(judged(&["argocd", &script()], &inputs)) {
        let said = json!({"status": status, "message": message});
        assert_eq!(said, test["healthStatus"], "{}", test["inputPath"]);
    }
}

#[test]
fn the_config_map_for_argo_cd_has_the_tested_health_check() {
    let map = yaml(&read(&gitops().join("argocd/argocd-cm.yaml")));
    let key = "resource.customizations.health.rosey.dev_RoseyMonitor";
    assert_eq!(map["data"][key], read(&customization().join("health.lua")).as_str());
}

#[test]
fn flux_and_helm_wait_for_what_comes_and_give_up_on_what_only_a_user_can_mend() {
    let documents = documents();
    let named: Vec<_> = VERDICTS.iter().map(|(name, ..)| &documents[*name]).collect();
    assert_eq!(named.len(), documents.len());
    let flux = judged(&["flux", &expressions()], named.clone());
    let kstatus = judged(&["kstatus"], named);
    for ((name, by_flux, by_kstatus), (flux, kstatus)) in VERDICTS.iter().zip(flux.iter().zip(&kstatus)) {
        assert_eq!(
            (flux.0.as_str(), kstatus.0.as_str()),
            (*by_flux, *by_kstatus),
            "{name}: {kstatus:?}"
        );
    }
}

#[test]
fn argo_cd_and_kstatus_agree_but_where_one_of_them_has_no_word_for_it() {
    let documents = documents();
    let argo_cd = judged(&["argocd", &script()], documents.values());
    let kstatus = judged(&["kstatus"], documents.values());
    let same = [
        ("Progressing", "InProgress"),
        ("Healthy", "Current"),
        ("Degraded", "Failed"),
    ];
    let verdicts = documents.keys().zip(argo_cd.iter().zip(&kstatus));
    let differ: Vec<_> = verdicts
        .map(|(name, (argo_cd, kstatus))| (name.as_str(), argo_cd.0.as_str(), kstatus.0.as_str()))
        .filter(|(_, argo_cd, kstatus)| !same.contains(&(*argo_cd, *kstatus)))
        .collect();
    let expected = [
        // kstatus gives up at Failed, and the operator does not: it tries again. Argo CD looks again after Degraded.
        ("apply-failed", "Degraded", "InProgress"),
        ("paused", "Suspended", "Current"),
        ("paused-when-created", "Suspended", "InProgress"),
    ];
    assert_eq!(differ, expected);
}

#[test]
fn a_monitor_that_is_being_deleted_is_waited_for_until_it_is_gone() {
    let mut leaving = yaml(&read(&documents()["ready"]));
    leaving["metadata"]["deletionTimestamp"] = json!("2026-11-20T09:00:00Z");
    leaving["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    let leaving = made("leaving", &leaving);
    assert_eq!(judged(&["kstatus"], [&leaving])[0].0, "Terminating");
}

#[test]
fn a_status_without_what_is_looked_for_is_one_that_is_waited_for() {
    let ready = yaml(&read(&documents()["ready"]));
    let conditions = &ready["status"]["conditions"];
    let others: Vec<_> = conditions
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["type"] != "Ready")
        .collect();
    let statuses = [
        ("status-null", Value::Null),
        ("status-empty", json!({})),
        ("conditions-only", json!({"conditions": conditions})),
        ("conditions-empty", json!({"observedGeneration": 1, "conditions": []})),
        ("without-ready", json!({"observedGeneration": 1, "conditions": others})),
        (
            "counts-only",
            json!({"observedGeneration": -1, "deployments": {"failed": 0, "rollbacks": 0, "succeeded": 1}}),
        ),
    ];
    let files = statuses.map(|(name, status)| {
        let mut document = ready.clone();
        document["status"] = status;
        made(name, &document)
    });
    for (file, (status, message)) in files.iter().zip(judged(&["argocd", &script()], &files)) {
        assert_eq!(status, "Progressing", "{}: {message}", file.display());
        assert!(!message.is_empty());
    }
    // What `kubectl rosey record` writes before the operator has seen a monitor is no reason to take it for done.
    let counts = [&files[5]];
    assert_eq!(judged(&["kstatus"], counts)[0].0, "InProgress");
    assert_eq!(judged(&["flux", &expressions()], counts)[0].0, "InProgress");
}
