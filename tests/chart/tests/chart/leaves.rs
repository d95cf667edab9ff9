//! Every value that can be set does something, and what can't be set is refused.

use anyhow::{Context, Result, ensure};
use chart::schema::{another, leaves};
use chart::{CHART, Helm, rendered};
use serde_json::{Value, json};

/// Values where a pattern decides what is allowed.
fn known() -> Vec<(&'static str, Value)> {
    let labels = || json!({"example.org/team": "chat"});
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    vec![
        ("imageRegistry", json!("mirror.example.org/hub")),
        ("image.repository", json!("other/operator")),
        ("image.tag", json!("1.2.3")),
        ("image.digest", json!(digest)),
        ("exporter.image.repository", json!("other/exporter")),
        ("exporter.image.tag", json!("1.2.3")),
        ("exporter.image.digest", json!(digest)),
        ("exporter.imagePrefixes", json!(["mirror.example.org/", "other/"])),
        ("watchNamespaces", json!(["bots", "games"])),
        ("serviceAccount.name", json!("other")),
        ("defaultObjectLabels", json!({"release": "stack"})),
        ("extraArgs", json!(["--lease-name=other"])),
        ("extraEnv", json!([{"name": "A", "value": "b"}])),
        ("resources.requests", json!({"cpu": "1"})),
        ("resources.limits", json!({"memory": "1Gi"})),
        (
            "affinity.nodeAffinity",
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}),
        ),
        (
            "affinity.podAffinity",
            json!({"preferredDuringSchedulingIgnoredDuringExecution": []}),
        ),
        (
            "affinity.podAntiAffinity",
            json!({"preferredDuringSchedulingIgnoredDuringExecution": []}),
        ),
        ("networkPolicy.webhookCIDRs", json!(["10.0.0.0/8"])),
        ("networkPolicy.apiServerCIDRs", json!(["10.0.0.1/32"])),
        ("networkPolicy.apiServerPorts", json!([8443])),
        ("podMonitor.interval", json!("1m")),
        ("prometheusRule.alertLabels", json!({"team": "chat"})),
        (
            "prometheusRule.runbookURL",
            json!("https://runbooks.example.org/{alert}"),
        ),
        ("nodeSelector", labels()),
        ("commonLabels", labels()),
        ("podLabels", labels()),
        ("podMonitor.labels", labels()),
        ("prometheusRule.labels", labels()),
        ("dashboard.labels", labels()),
        ("networkPolicy.prometheus.namespaceLabels", labels()),
        ("networkPolicy.prometheus.podLabels", labels()),
    ]
}

/// What Helm itself hands to a chart that is part of another one.
const HELMS: &str = "global";

fn schema() -> Result<Value> {
    Ok(serde_json::from_str(&chart::text(&format!(
        "{CHART}/values.schema.json"
    ))?)?)
}

#[test]
fn every_leaf_of_the_schema_has_a_default_and_changes_what_is_rendered() -> Result<()> {
    let root = schema()?;
    let defaults: Value = serde_saphyr::from_str(&chart::text(&format!("{CHART}/values.yaml"))?)?;
    // helm test's pod counts as well: it is part of what is installed.
    let usual = rendered(Helm::Four, None, &[])?;
    let folder = tempfile::tempdir()?;
    let (known, mut seen, mut idle) = (known(), 0, Vec::new());
    for leaf in leaves(&root)?.iter().filter(|leaf| leaf.path[0] != HELMS) {
        let pointer = format!("/{}", leaf.path.join("/"));
        let default = defaults.pointer(&pointer).cloned();
        // What is empty by default has its fields from the schema alone.
        let parent = defaults.pointer(&pointer[..pointer.rfind('/').unwrap()]);
        ensure!(
            default.is_some() || parent == Some(&json!({})),
            "{} has no default in values.yaml",
            leaf.name()
        );
        let other = another(&root, leaf, &default.unwrap_or_default(), &known)?;
        let file = folder.path().join("values.json");
        std::fs::write(&file, leaf.set(&other).to_string())?;
        let changed = rendered(Helm::Four, Some(file.to_str().context("a path of text")?), &[])
            .with_context(|| format!("{}: {other}", leaf.name()))?;
        if changed == usual {
            idle.push(leaf.name());
        }
        seen += 1;
    }
    ensure!(idle.is_empty(), "these values change no rendered line: {idle:?}");
    ensure!(seen > 60, "only {seen} leaves were found");
    for (name, _) in known {
        let pointer = format!("/properties/{}", name.replace('.', "/properties/"));
        ensure!(root.pointer(&pointer).is_some(), "{name} is no value of the schema");
    }
    Ok(())
}

/// Objects of a schema that would take any key.
fn open(schema: &Value, path: &str, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            let closed =
                |value: &Value| value == &json!(false) || value["type"].is_string() || value["type"].is_array();
            if fields.get("type") == Some(&json!("object")) && !fields.get("additionalProperties").is_some_and(closed) {
                found.push(path.to_owned());
            }
            for (key, inner) in fields {
                open(inner, &format!("{path}/{key}"), found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| open(item, path, found)),
        _ => {}
    }
}

#[test]
fn a_key_that_nobody_knows_is_refused_everywhere_but_in_kubernetes_own_types() -> Result<()> {
    let root = schema()?;
    let mut found = Vec::new();
    open(&root, "", &mut found);
    let affinities = ["nodeAffinity", "podAffinity", "podAntiAffinity"]
        .map(|kind| format!("/properties/affinity/properties/{kind}"));
    assert_eq!(found, [&affinities[..], &["/properties/global".to_owned()]].concat());

    for wrong in [
        "replica=2",
        "image.tagg=1",
        "replicas=two",
        "watchNamespaces={Bots}",
        "ports.http=80",
        "extraArgs={no-flag}",
        "prometheusRule.runbookURL=https://runbooks.example.org/",
        "prometheusRule.alertLabels.severity=none",
        "podMonitor.interval=often",
        "concurrency=0",
        "podLabels.app\\.kubernetes\\.io/name=other",
        "image.digest=sha256:12",
    ] {
        for helm in [Helm::Four, Helm::Three] {
            let refused = rendered(helm, None, &["--set", wrong]);
            ensure!(refused.is_err(), "{wrong} is taken by {helm:?}");
        }
    }
    Ok(())
}

#[test]
fn what_makes_no_sense_together_is_refused_in_words() {
    let more = ["--set", "exporter.repair=true,injection.enabled=false"];
    let refused = rendered(Helm::Four, None, &more).unwrap_err().to_string();
    assert!(
        refused.contains("exporter.repair: without injection.enabled"),
        "{refused}"
    );
}
