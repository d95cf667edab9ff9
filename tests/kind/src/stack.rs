//! prometheus-operator with a Prometheus and an Alertmanager, installed as their own manuals say, in a restricted namespace.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::images::{repository, tag};
use crate::stage::{Stage, restricted, restricted_container};

/// Where the stack is.
pub const MONITORING: &str = "monitoring";
/// What the stack selects by, as kube-prometheus-stack does.
pub const LABEL: (&str, &str) = ("release", "stack");

const OPERATOR: &str = "prometheus-operator";
const PROMETHEUS: &str = "prometheus";
const START: Duration = Duration::from_secs(180);

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": MONITORING})
}

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name)})
}

fn role(name: &str, rules: &Value) -> [Value; 2] {
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    [
        json!({"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        json!({
            "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": MONITORING}],
        }),
    ]
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

/// The rights of prometheus-operator, from its own bundle.
fn operator_rules() -> Value {
    json!([
        rule(&["monitoring.coreos.com"], &["*"], &["*"]),
        rule(&["apps"], &["statefulsets", "daemonsets"], &["*"]),
        rule(&[""], &["configmaps", "secrets"], &["*"]),
        rule(&[""], &["pods"], &["list", "delete"]),
        rule(
            &[""],
            &["services", "services/finalizers"],
            &["get", "create", "update", "delete"]
        ),
        rule(&[""], &["nodes", "namespaces"], &["get", "list", "watch"]),
        rule(&["events.k8s.io", ""], &["events"], &["patch", "create"]),
        rule(&["networking.k8s.io"], &["ingresses"], &["get", "list", "watch"]),
        rule(&["storage.k8s.io"], &["storageclasses"], &["get"]),
        rule(&["discovery.k8s.io"], &["endpointslices"], &["*"]),
        rule(&[""], &["endpoints"], &["get", "create", "update", "delete"]),
    ])
}

fn operator(stage: &Stage) -> Value {
    let images = &stage.images;
    let labels = json!({"app.kubernetes.io/name": OPERATOR});
    let container = json!({
        "name": OPERATOR, "image": images.prometheus_operator.image, "imagePullPolicy": "IfNotPresent",
        "args": [
            format!("--prometheus-config-reloader={}", images.config_reloader.image),
            format!("--prometheus-default-base-image={}", repository(&images.prometheus.image)),
            format!("--alertmanager-default-base-image={}", repository(&images.alertmanager.image)),
        ],
        "ports": [{"name": "http", "containerPort": 8080}],
        "securityContext": restricted_container(),
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(OPERATOR),
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"serviceAccountName": OPERATOR, "securityContext": restricted(), "containers": [container]},
            },
        },
    })
}

fn prometheus(stage: &Stage) -> Value {
    let selector = json!({"matchLabels": {LABEL.0: LABEL.1}});
    let image = &stage.images.prometheus.image;
    let mut spec = json!({
        "replicas": 1, "image": image, "version": tag(image), "serviceAccountName": PROMETHEUS,
        "securityContext": restricted(), "imagePullPolicy": "IfNotPresent",
        "scrapeInterval": "5s", "evaluationInterval": "5s",
        "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}},
        "alerting": {"alertmanagers": [{"name": "alertmanager-operated", "namespace": MONITORING, "port": "web"}]},
    });
    for kind in ["rule", "podMonitor"] {
        spec[format!("{kind}Selector")] = selector.clone();
        spec[format!("{kind}NamespaceSelector")] = json!({});
    }
    json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": metadata("stack"), "spec": spec})
}

fn alertmanager(stage: &Stage) -> Value {
    let image = &stage.images.alertmanager.image;
    json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "Alertmanager", "metadata": metadata("stack"),
        "spec": {
            "replicas": 1, "image": image, "version": tag(image), "securityContext": restricted(),
            "imagePullPolicy": "IfNotPresent",
            "alertmanagerConfigSelector": {"matchLabels": {LABEL.0: LABEL.1}},
            "alertmanagerConfigNamespaceSelector": {},
        },
    })
}

/// The kinds of prometheus-operator, as the lab has them.
///
/// # Errors
/// When the API server refuses one.
pub async fn define(stage: &Stage) -> Result<()> {
    let folder = stage.cluster.commands.kubectl.with_file_name("crds");
    let files = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    // Its bundle has more beside them.
    let definitions: Vec<_> = files
        .into_iter()
        .filter(|file| file.to_string_lossy().contains("monitoring.coreos.com_"))
        .collect();
    stage.manifests.define(&definitions).await
}

/// Installs all of it, and does not wait until it runs.
///
/// # Errors
/// When the API server refuses something.
pub async fn install(stage: &Stage) -> Result<()> {
    stage.namespace(MONITORING).await?;
    let discovery = json!([
        rule(
            &[""],
            &["services", "endpoints", "pods", "namespaces"],
            &["get", "list", "watch"]
        ),
        rule(&["discovery.k8s.io"], &["endpointslices"], &["get", "list", "watch"]),
    ]);
    let mut objects = vec![account(OPERATOR), account(PROMETHEUS)];
    objects.extend(role(OPERATOR, &operator_rules()));
    objects.extend(role(PROMETHEUS, &discovery));
    objects.extend([operator(stage), prometheus(stage), alertmanager(stage)]);
    for object in &objects {
        stage.apply(object).await?;
    }
    Ok(())
}

/// Waits until Prometheus and Alertmanager run, and know each other.
///
/// # Errors
/// When they don't in time.
pub async fn until_ready(stage: &Stage) -> Result<()> {
    for kind in ["Prometheus", "Alertmanager"] {
        let kind = format!("monitoring.coreos.com/v1/{kind}");
        stage
            .manifests
            .until_condition(START, &kind, MONITORING, "stack", "Available")
            .await?;
    }
    lab::until(START, "Prometheus to discover Alertmanager", async || {
        let found: Value = stage.prometheus.get("alertmanagers", &[]).await?;
        Ok(found["activeAlertmanagers"]
            .as_array()
            .is_some_and(|found| !found.is_empty()))
    })
    .await
}
