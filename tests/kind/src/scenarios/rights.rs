//! The operator's rights on a real cluster: everything that it ever does, and then what the audit log has of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, Patch, PatchParams};
use lab::rights::{Right, granted, leftover, used};
use serde_json::json;

use crate::bots::{monitor, namespace, running, watched, workload};
use crate::images::repository;
use crate::release::{REGISTRATIONS, SYSTEM, settled};
use crate::stage::{SOON, Stage, is_injected, name, says};

/// Who asks.
const ACCOUNT: &str = "system:serviceaccount:rosey-system:rosey-operator";

/// What is no longer planned goes, and what is edited is read and mended.
async fn objects(stage: &Stage, place: &str) -> Result<()> {
    let monitor = stage
        .until_monitor(SOON, place, "rosey", |monitor| lab::has_condition(monitor, "Ready"))
        .await?;
    for (kind, plural, name) in [
        ("v1/ConfigMap", "configmaps", "rosey-exporter"),
        ("monitoring.coreos.com/v1/PodMonitor", "podmonitors", "rosey"),
        ("monitoring.coreos.com/v1/PrometheusRule", "prometheusrules", "rosey"),
        (
            "monitoring.coreos.com/v1alpha1/AlertmanagerConfig",
            "alertmanagerconfigs",
            "rosey",
        ),
    ] {
        stage.apply(&leftover(kind, &monitor)).await?;
        lab::until(SOON, &format!("a leftover {kind} to be gone"), async || {
            Ok(stage.manifests.get(kind, place, "rosey-old").await?.is_none())
        })
        .await?;
        let edit = json!({"metadata": {"labels": {"rosey.dev/monitor": "other"}}});
        stage
            .api(kind, plural, place)
            .patch(name, &PatchParams::default(), &Patch::Merge(edit))
            .await?;
        let ours = |object: &DynamicObject| {
            let labels = object.metadata.labels.as_ref();
            labels
                .and_then(|labels| labels.get("rosey.dev/monitor"))
                .is_some_and(|monitor| monitor == "rosey")
        };
        stage.manifests.until(SOON, kind, place, name, ours).await?;
    }
    // A name that somebody else has: an Event says so.
    let metadata = json!({"name": "taken-exporter", "namespace": place});
    stage
        .apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}))
        .await?;
    stage.apply(&self::monitor(place, "taken", |_| {})?).await?;
    stage
        .until_monitor(SOON, place, "taken", |monitor| {
            says(monitor, "Ready", "False", "NameTaken")
        })
        .await
        .map(drop)
}

/// Pods of each kind of workload that a quota refuses: whose exporter it is, the workload's template says.
async fn refused_pods(stage: &Stage) -> Result<()> {
    let place = "rights-quota";
    namespace(stage, place).await?;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "cpu", "namespace": place},
        "spec": {"hard": {"limits.cpu": "1"}},
    });
    stage.apply(&quota).await?;
    stage
        .manifests
        .until(SOON, "v1/ResourceQuota", place, "cpu", |quota| {
            !quota.data["status"]["hard"].is_null()
        })
        .await?;
    let kinds = ["Deployment", "StatefulSet", "DaemonSet", "Job"];
    for kind in kinds {
        let name = kind.to_lowercase();
        stage.apply(&monitor(place, &name, |_| {})?).await?;
        stage
            .until_monitor(SOON, place, &name, |monitor| lab::has_condition(monitor, "Ready"))
            .await?;
    }
    stage.until_registered_in(place).await?;
    for kind in kinds {
        let name = kind.to_lowercase();
        // Alone the bot fits; an exporter without a limit does not.
        let limits = json!({"limits": {"cpu": "100m"}});
        let bot = workload(stage, kind, (place, &name), &name, |pod| {
            pod["containers"][0]["resources"] = limits;
        });
        stage.apply(&bot).await?;
    }
    for kind in kinds {
        let refused = |monitor: &DynamicObject| says(monitor, "Injected", "False", "PodsRefused");
        stage.until_monitor(SOON, place, &kind.to_lowercase(), refused).await?;
    }
    Ok(())
}

/// A pod that was there before its monitor, which says that such pods are to be replaced.
async fn repaired(stage: &Stage) -> Result<()> {
    let place = "rights-repair";
    namespace(stage, place).await?;
    stage
        .apply(&workload(stage, "Deployment", (place, "bot"), "rosey", |_| {}))
        .await?;
    let pods = running(stage, place, "bot", 1).await?;
    ensure!(!pods.iter().any(is_injected), "a pod without a monitor was injected");
    stage
        .apply(&monitor(place, "rosey", |monitor| {
            monitor["spec"]["exporter"]["repair"] = json!("Restart");
        })?)
        .await?;
    stage.until_injected(place, "rosey", 1).await?;
    // And then it gets another image.
    let image = &stage.images.exporter.image;
    let another = format!("{}:another", repository(image));
    stage.cluster.name_again(image, &another).await?;
    stage
        .patch_monitor(place, "rosey", &json!({"spec": {"exporter": {"image": another}}}))
        .await?;
    stage.until_injected(place, "rosey", 1).await.map(drop)
}

/// Somebody spoils what the webhooks live from.
async fn spoiled(stage: &Stage, place: &str) -> Result<()> {
    let secrets = stage.api("v1/Secret", "secrets", SYSTEM);
    let spoiled = json!({"data": {"tls.crt": "c3BvaWxlZA==", "ca.crt": null}});
    secrets
        .patch(
            "rosey-operator-webhook",
            &PatchParams::default(),
            &Patch::Merge(spoiled),
        )
        .await?;
    stage
        .manifests
        .until(SOON, "v1/Secret", SYSTEM, "rosey-operator-webhook", |secret| {
            secret.data["data"]["tls.crt"] != "c3BvaWxlZA=="
        })
        .await?;
    let mut deleted = Vec::new();
    for (kind, registration) in REGISTRATIONS {
        let object = stage.manifests.get(kind, "", registration).await?;
        let object = object.with_context(|| format!("there is no {registration}"))?;
        let (api_version, short) = kind.rsplit_once('/').unwrap_or(("v1", kind));
        let named = json!({"apiVersion": api_version, "kind": short, "metadata": {"name": registration}});
        stage.manifests.delete(&named, "").await?;
        deleted.push((kind, registration, object.metadata.uid));
    }
    // Not by what pods get alone: the API server calls by the deleted one for another moment.
    for (kind, registration, uid) in deleted {
        let another = |object: &DynamicObject| object.metadata.uid != uid;
        stage.manifests.until(SOON, kind, "", registration, another).await?;
    }
    stage.until_registered(place, "rosey").await
}

/// What the product's roles grant, as the API server has them: those of the whole cluster, and those of the operator's namespace.
/// The ones that are for users are not the operator's.
async fn all_granted(stage: &Stage) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for kind in ["ClusterRole", "Role"] {
        for name in ["rosey-operator", "rosey-operator-sidecars"] {
            let kind = format!("rbac.authorization.k8s.io/v1/{kind}");
            if let Some(role) = stage.manifests.get(&kind, SYSTEM, name).await? {
                rights.extend(granted(&role.data));
            }
        }
    }
    Ok(rights)
}

pub async fn the_operator_is_refused_nothing_and_uses_every_right(stage: &Stage) -> Result<String> {
    let place = "rights";
    watched(stage, place, |_| {}).await?;
    tokio::try_join!(objects(stage, place), refused_pods(stage), repaired(stage))?;
    spoiled(stage, place).await?;
    let requests = requests(stage).await?;
    refuse_forbidden(&requests)?;
    let used: BTreeSet<Right> = requests.iter().flat_map(used).collect();
    let mut granted = all_granted(stage).await?;
    // Asked by an admission plugin on the operator's behalf, which leaves no request: without this right, the plugin that this cluster
    // has switched on would have refused every object with a monitor as its owner.
    let asked_for_us = (
        "update".to_owned(),
        "rosey.dev".to_owned(),
        "roseymonitors/finalizers".to_owned(),
    );
    ensure!(granted.remove(&asked_for_us), "{asked_for_us:?} is not granted");
    let unused: Vec<_> = granted.difference(&used).collect();
    ensure!(unused.is_empty(), "granted and never used: {unused:#?}");
    granted.first().context("no right was granted")?;
    Ok(format!("{} rights, {} requests", granted.len(), requests.len()))
}

/// What the operator has asked for so far.
async fn requests(stage: &Stage) -> Result<Vec<lab::Request>> {
    let mut requests = stage.cluster.audit().await?;
    requests.retain(|request| request.user.username == ACCOUNT);
    ensure!(!requests.is_empty(), "the audit log has nothing of {ACCOUNT}");
    Ok(requests)
}

fn refuse_forbidden(requests: &[lab::Request]) -> Result<()> {
    let refused = requests.iter().filter(|request| request.is_forbidden());
    let refused: Vec<_> = refused
        .map(|request| format!("{request}: {}", request.response_status.message))
        .collect();
    ensure!(refused.is_empty(), "forbidden: {refused:#?}");
    Ok(())
}

/// Whether the operator's replicas of now had every right that they needed, from their first request on. Those of an earlier
/// installation lose their rights before they end.
///
/// # Errors
/// With every request that was answered with 403, and when a replica has asked for nothing.
pub async fn nothing_was_forbidden(stage: &Stage) -> Result<()> {
    let replicas = settled(stage).await?;
    let requests = requests(stage).await?;
    for replica in &replicas {
        let of_it = |request: &&lab::Request| request.user.pod() == Some(name(replica));
        let of_it: Vec<_> = requests.iter().filter(of_it).cloned().collect();
        ensure!(!of_it.is_empty(), "{} has asked for nothing", name(replica));
        refuse_forbidden(&of_it)?;
    }
    Ok(())
}
