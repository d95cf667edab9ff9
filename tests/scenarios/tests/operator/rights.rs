//! The operator's rights: all that it needs, and nothing that it does not.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, DynamicObject};
use lab::Mark;
use lab::rights::{Right, leftover, used};
use lab::rosey::{OPERATOR, OPERATOR_NAMESPACE, OWN_RIGHTS, WATCHED_RIGHTS, WHOLE_RIGHTS};
use serde_json::{Value, json};

use crate::pods::{injected_namespace, namespaces_are_injected};
use crate::stage::{BOTS, CONFIG_MAP, MONITOR, POD_MONITOR, ROUTES, RULE, SOON, Stage, says, stage, tell};

/// The role for pods, which an operator gets only where it may write them.
const SIDECARS: &str = "deploy/rbac/operator-sidecars-clusterrole.yaml";

/// What the roles of a file grant, one right each.
fn granted(file: &str) -> Result<BTreeSet<Right>> {
    let roles = serde_saphyr::from_multiple::<Value>(&lab::rosey::text(file)?)?;
    Ok(roles.iter().flat_map(lab::rights::granted).collect())
}

/// A monitor that needs a name which somebody else has: an Event says so.
async fn an_event(stage: &Stage) -> Result<()> {
    let metadata = json!({"name": "taken-exporter", "namespace": BOTS});
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}).to_string();
    let other = |monitor: &mut Value| monitor["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    stage.apply(&foreign).await?;
    stage.watch_bot(BOTS, "taken", other).await?;
    let taken = |monitor: &DynamicObject| says(monitor, "Ready", "False", "NameTaken");
    stage.status(BOTS, "taken", "NameTaken", taken).await?;
    stage.delete(&foreign).await?;
    stage.ready(BOTS, "taken").await?;
    Ok(())
}

/// Pods of each kind of workload that a quota refuses: whose exporter it is, the workload's template says.
async fn refused_pods(stage: &Stage) -> Result<()> {
    const REFUSED: &str = "refused";
    stage.namespace(REFUSED).await?;
    stage.watch_bot(REFUSED, "rosey", |_| {}).await?;
    stage.ready(REFUSED, "rosey").await?;
    namespaces_are_injected(stage, &[REFUSED]).await?;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "cpu", "namespace": REFUSED},
        "spec": {"hard": {"limits.cpu": "1"}},
    });
    stage.apply(&quota.to_string()).await?;
    let counted = |quota: &DynamicObject| !quota.data["status"]["hard"].is_null();
    stage
        .until_object(SOON, "v1/ResourceQuota", REFUSED, "cpu", counted)
        .await?;
    for (api_version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("batch/v1", "Job"),
    ] {
        let name = kind.to_lowercase();
        let labels = json!({"app": name});
        stage
            .watch_bot(REFUSED, &name, |monitor| {
                monitor["spec"]["selector"] = json!({"matchLabels": labels});
            })
            .await?;
        stage.ready(REFUSED, &name).await?;
        // Alone the bot fits; an exporter without a limit does not.
        let bot = json!({"name": "bot", "image": "pause", "resources": {"limits": {"cpu": "100m"}}});
        let mut spec = json!({"template": {"metadata": {"labels": labels}, "spec": {"containers": [bot]}}});
        if kind == "Job" {
            spec["template"]["spec"]["restartPolicy"] = json!("Never");
        } else {
            spec["selector"] = json!({"matchLabels": labels});
        }
        let workload = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": REFUSED}, "spec": spec});
        stage.apply(&workload.to_string()).await?;
        let refused = |monitor: &DynamicObject| says(monitor, "Injected", "False", "PodsRefused");
        stage.status(REFUSED, &name, "PodsRefused", refused).await?;
    }
    Ok(())
}

/// Everything that an operator ever does.
async fn everything(stage: &Stage) -> Result<()> {
    let operator = stage.operator("operator", &[]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    let monitor = stage.ready(BOTS, "rosey").await?;
    injected_namespace(stage).await?;
    stage.bot(BOTS).await?;
    stage
        .status(BOTS, "rosey", "injected", |monitor| {
            says(monitor, "Injected", "True", "Injected")
        })
        .await?;

    for kind in [CONFIG_MAP, POD_MONITOR, RULE, ROUTES] {
        // What is no longer planned goes, and what is edited is read and mended.
        stage.apply(&leftover(kind, &monitor).to_string()).await?;
        stage.until_gone(SOON, kind, BOTS, "rosey-old").await?;
        let name = if kind == CONFIG_MAP { "rosey-exporter" } else { "rosey" };
        stage
            .patch(
                kind,
                BOTS,
                name,
                json!({"metadata": {"labels": {"rosey.dev/monitor": "other"}}}),
            )
            .await?;
        let ours = |object: &DynamicObject| {
            let labels = object.metadata.labels.as_ref();
            ensure!(
                labels
                    .and_then(|labels| labels.get("rosey.dev/monitor"))
                    .map(String::as_str)
                    == Some("rosey")
            );
            Ok(())
        };
        stage.mended(kind, BOTS, name, ours).await?;
    }

    an_event(stage).await?;
    refused_pods(stage).await?;

    // Somebody spoils what the webhooks live from.
    let spoiled = json!({"data": {"tls.crt": "c3BvaWxlZA==", "ca.crt": null}});
    stage
        .patch("v1/Secret", OPERATOR_NAMESPACE, "rosey-operator-webhook", spoiled)
        .await?;
    let mended = |secret: &DynamicObject| {
        ensure!(
            secret.data["data"]["tls.crt"] != "c3BvaWxlZA==",
            "the certificate is spoiled"
        );
        Ok(())
    };
    stage
        .mended("v1/Secret", OPERATOR_NAMESPACE, "rosey-operator-webhook", mended)
        .await?;
    stage
        .kubectl(&["delete", "mutatingwebhookconfiguration", "rosey-monitor-injector"])
        .await?;
    stage
        .kubectl(&["delete", "validatingwebhookconfiguration", "rosey-monitor-validator"])
        .await?;
    injected_namespace(stage).await?;

    // Another operator takes over.
    operator.process.terminate()?;
    operator.process.exited(SOON).await?;
    stage.operator("again", &[]).await?;
    injected_namespace(stage).await?;
    stage
        .api(MONITOR, BOTS)
        .delete("rosey", &DeleteParams::foreground())
        .await?;
    stage.until_gone(SOON, MONITOR, BOTS, "rosey").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_refused_nothing_and_uses_every_right_that_it_has() -> Result<()> {
    let plugin = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement";
    let stage = stage(|builder| builder.api_server_flag(plugin)).await?;
    let mark = stage.audit().mark().await?;
    everything(&stage).await?;

    let requests = stage.audit().requests_by(OPERATOR, mark).await?;
    stage.nothing_was_forbidden().await?;

    let used: BTreeSet<Right> = requests.iter().flat_map(used).collect();
    let mut all = BTreeSet::new();
    for file in [WHOLE_RIGHTS, WATCHED_RIGHTS, OWN_RIGHTS] {
        all.extend(granted(file)?);
    }
    let mut granted = all;
    // Asked by the admission plugin on the operator's behalf, which leaves no request: without this right, the plugin that
    // this lab has switched on would have refused every object with a monitor as its owner.
    let asked_for_us = (
        "update".to_owned(),
        "rosey.dev".to_owned(),
        "roseymonitors/finalizers".to_owned(),
    );
    ensure!(granted.remove(&asked_for_us));
    let unused: Vec<_> = granted.difference(&used).collect();
    ensure!(unused.is_empty(), "granted and never used: {unused:#?}");
    granted.first().context("no right was granted")?;
    tell(&format!(
        "{} rights granted, each one used in {} requests",
        granted.len(),
        requests.len()
    ))
}

/// Lets the operator write the bots' pods.
pub async fn may_write_pods(stage: &Stage) -> Result<()> {
    stage.apply(&lab::rosey::text(SIDECARS)?).await?;
    let name = "rosey-operator-sidecars";
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR}],
    });
    stage.apply(&binding.to_string()).await.map(drop)
}

/// What the operator has done to pods since, as verb and resource, with the answer.
pub async fn done_to_pods(stage: &Stage, mark: Mark) -> Result<Vec<(String, String, u16)>> {
    let writes = stage.audit().writes_by(OPERATOR, mark).await?;
    let pods = writes.into_iter().filter(|write| write.object_ref.resource == "pods");
    let done = pods.map(|write| {
        let of = write.object_ref;
        let what = if of.subresource.is_empty() {
            of.resource
        } else {
            format!("{}/{}", of.resource, of.subresource)
        };
        (write.verb, what, write.response_status.code)
    });
    Ok(done.collect())
}

/// The rights of the role of its own that the operator has used.
pub async fn rights_used(stage: &Stage, wanted: &[(&str, &str)]) -> Result<()> {
    let right = |(verb, resource): &(&str, &str)| -> Right { ((*verb).into(), String::new(), (*resource).into()) };
    let requests = stage.audit().requests_by(OPERATOR, Mark::default()).await?;
    let used: Vec<_> = requests.iter().flat_map(used).collect();
    for wanted in wanted.iter().map(right) {
        ensure!(granted(SIDECARS)?.contains(&wanted), "{wanted:?} is not granted");
        ensure!(used.contains(&wanted), "{wanted:?} is never used");
    }
    Ok(())
}

#[test]
fn the_role_for_pods_grants_what_the_stories_use_and_no_more() -> Result<()> {
    let granted = granted(SIDECARS)?;
    let rights = granted
        .iter()
        .map(|(verb, group, resource)| (&**verb, &**group, &**resource));
    assert_eq!(
        rights.collect::<Vec<_>>(),
        [
            ("create", "", "pods/eviction"),
            ("get", "", "pods"),
            ("patch", "", "pods")
        ]
    );
    Ok(())
}
