//! From one version to the next and back, away and again: what a user would look at after each step.

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use serde_json::json;

use super::rights::{from_now_on, nothing_was_forbidden};
use super::story::{announced, watched_bot};
use crate::bots::{running, watched};
use crate::release::{self, RELEASE, SYSTEM, Version};
use crate::stage::{EXPORTER, SOON, Stage, is_injected, untouched};

/// What `kubectl get roseymonitors` says, and that an alert still arrives.
async fn works(stage: &Stage, place: &str, pod: &str, when: &str) -> Result<()> {
    let table = stage.cluster.kubectl(&["get", "roseymonitors", "-n", place]).await?;
    ensure!(
        table.contains("rosey") && table.contains("True") && table.contains("1/1"),
        "{when}, kubectl get roseymonitors says:\n{table}"
    );
    announced(stage, place, pod).await.with_context(|| when.to_owned())?;
    Ok(())
}

/// The bot's pod, by what would change if anybody touched it.
async fn pod_of(stage: &Stage, place: &str) -> Result<serde_json::Value> {
    let pods = running(stage, place, "bot", 1).await?;
    let pod = pods.first().context("no bot")?;
    Ok(json!([untouched(pod, "bot"), untouched(pod, EXPORTER)]))
}

pub async fn a_removal_and_a_new_installation_find_everything_as_it_was(stage: &Stage) -> Result<String> {
    let place = "reinstall";
    let pod = watched_bot(stage, place).await?;
    let before = pod_of(stage, place).await?;
    release::uninstall(stage).await?;
    works(stage, place, &pod, "without the operator").await?;
    release::install(stage, &stage.current, release::WRITES_PODS).await?;
    stage.until_injected(place, "rosey", 1).await?;
    works(stage, place, &pod, "after it was installed again").await?;
    ensure!(
        pod_of(stage, place).await? == before,
        "the bot's pod is not what it was"
    );
    watched(stage, "reinstall-new", |_| {}).await?;
    Ok(String::new())
}

pub async fn an_upgrade_and_a_rollback_keep_every_monitor_working(stage: &Stage) -> Result<String> {
    let place = "upgrade";
    let from = stage
        .from
        .as_ref()
        .context("which version to upgrade from? name its folder: --from FOLDER")?;
    // As if the current version had never been here.
    release::uninstall(stage).await?;
    stage
        .cluster
        .kubectl(&["delete", "crd", "roseymonitors.rosey.dev"])
        .await?;
    release::install(stage, from, &[]).await?;
    let pod = watched_bot(stage, place).await?;
    works(stage, place, &pod, "before the upgrade").await?;
    let before = pod_of(stage, place).await?;

    release::install(stage, &stage.current, &[]).await?;
    release::test(stage).await?;
    let outdated = |monitor: &DynamicObject| monitor.data["status"]["sidecars"]["outdated"] == 1;
    stage.until_monitor(SOON, place, "rosey", outdated).await?;
    works(stage, place, &pod, "after the upgrade").await?;
    ensure!(
        pod_of(stage, place).await? == before,
        "the upgrade touched the bot's pod"
    );

    stage
        .cluster
        .helm(&["rollback", RELEASE, "1", "-n", SYSTEM, "--wait", "--timeout", "180s"])
        .await?;
    stage.until_injected(place, "rosey", 1).await?;
    works(stage, place, &pod, "after the rollback").await?;
    ensure!(
        pod_of(stage, place).await? == before,
        "the rollback touched the bot's pod"
    );

    release::install(stage, &stage.current, &[]).await?;
    let since = from_now_on(stage).await?;
    works(stage, place, &pod, "after the second upgrade").await?;
    nothing_was_forbidden(stage, &since).await?;
    Ok(String::new())
}

/// What our cluster roles allow, as `group/resource`.
async fn of_the_cluster(stage: &Stage) -> Result<Vec<String>> {
    let roles = [
        "get",
        "clusterroles",
        "-l",
        "app.kubernetes.io/name=rosey-monitor",
        "-o",
        "json",
    ];
    let roles: serde_json::Value = serde_json::from_str(&stage.cluster.kubectl(&roles).await?)?;
    let roles = roles["items"].as_array().into_iter().flatten();
    let mut rights: Vec<_> = roles
        .flat_map(lab::rights::granted)
        .map(|(_, group, resource)| format!("{group}/{resource}"))
        .collect();
    rights.sort();
    rights.dedup();
    Ok(rights)
}

pub async fn an_operator_of_one_namespace_works_with_roles(stage: &Stage) -> Result<String> {
    let (place, elsewhere) = ("namespaced", "namespaced-elsewhere");
    release::uninstall(stage).await?;
    stage.namespace(place).await?;
    let named = format!("watchNamespaces={{{place}}}");
    release::install(stage, &stage.current, &[&named]).await?;
    let since = from_now_on(stage).await?;
    release::test(stage).await?;
    let rights = of_the_cluster(stage).await?;
    let registrations = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
    let mut expected: Vec<_> = registrations
        .iter()
        .map(|kind| format!("admissionregistration.k8s.io/{kind}"))
        .collect();
    expected.push("rbac.authorization.k8s.io/clusterroles".to_owned());
    ensure!(rights == expected, "the cluster roles allow {rights:?}");
    let pod = watched_bot(stage, place).await?;
    works(stage, place, &pod, "with a Role in its namespace").await?;
    crate::bots::namespace(stage, elsewhere).await?;
    stage.apply(&crate::bots::monitor(elsewhere, "rosey", |_| {})?).await?;
    let idle: DynamicObject = serde_json::from_value(crate::bots::idle_pod(stage, "idle", "rosey"))?;
    let idle = stage
        .api(crate::stage::POD, "pods", elsewhere)
        .create(&kube::api::PostParams::default(), &idle)
        .await?;
    ensure!(
        !is_injected(&idle),
        "a pod of a namespace that is not watched was injected"
    );

    nothing_was_forbidden(stage, &since).await?;

    // Nothing of the cluster's own scope.
    let bare = [&*named, "injection.enabled=false", "crds.install=false"];
    release::install(stage, &stage.current, &bare).await?;
    let since = from_now_on(stage).await?;
    release::test(stage).await?;
    let rights = of_the_cluster(stage).await?;
    ensure!(rights.is_empty(), "the cluster roles allow {rights:?}");
    stage
        .patch_monitor(place, "rosey", &json!({"spec": {"environment": "test"}}))
        .await?;
    stage
        .until_monitor(SOON, place, "rosey", |monitor| lab::has_condition(monitor, "Ready"))
        .await?;
    works(stage, place, &pod, "with Roles only").await?;
    let other = stage
        .manifests
        .get(crate::stage::MONITOR, elsewhere, "rosey")
        .await?
        .context("the other monitor is gone")?;
    let said = &other.data["status"]["conditions"];
    ensure!(said.is_null(), "a monitor that is not watched has conditions: {said}");
    nothing_was_forbidden(stage, &since).await?;

    release::uninstall(stage).await?;
    release::install(stage, &stage.current, release::WRITES_PODS).await?;
    Ok(String::new())
}

/// The version in a folder as `make release` fills it, with its images in every node under names that no other version has.
///
/// # Errors
/// When something is missing, or can't be loaded.
pub async fn from(stage: &Stage, folder: &std::path::Path) -> Result<Version> {
    let charts = std::fs::read_dir(folder).with_context(|| format!("--from {}", folder.display()))?;
    let chart = charts
        .flatten()
        .map(|file| file.path())
        .find(|file| file.extension().is_some_and(|end| end == "tgz"));
    let chart =
        chart.with_context(|| format!("--from {}: there is no chart (rosey-monitor-….tgz)", folder.display()))?;
    let mut names = Vec::new();
    for image in ["rosey-operator", "rosey-exporter"] {
        let archive = crate::images::archive(folder, image).await?;
        let name = format!("{}:from", crate::images::repository(&archive.image));
        stage.cluster.load(std::slice::from_ref(&archive)).await?;
        stage.cluster.name_again(&archive.image, &name).await?;
        names.push(name);
    }
    let [operator, exporter] = <[String; 2]>::try_from(names).map_err(|names| anyhow::anyhow!("{names:?}"))?;
    Ok(Version {
        chart: chart.display().to_string(),
        operator,
        exporter,
    })
}
