//! From one version to the next and back, away and again: what a user would look at after each step.

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, DynamicObject};
use lab::{DiscordMessage, Notification};
use serde_json::{Value, json};

use super::UPGRADE;
use super::installed::monitors;
use super::rights::nothing_was_forbidden;
use super::story::{announced, breaks, recovers, watched_bot};
use super::webhook::create;
use crate::bots::{received, running, watched};
use crate::release::{self, RELEASE, SYSTEM, Version};
use crate::stage::{EXPORTER, MONITOR, POD, SOON, Stage, is_injected, name, untouched};

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
async fn pod_of(stage: &Stage, place: &str) -> Result<Value> {
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

/// Monitors of two namespaces across changes of the version: one whose bot is well, and one whose alert fires.
struct Across<'a> {
    stage: &'a Stage,
    /// The namespace whose bot is well, and its pod as it was at first.
    place: &'a str,
    bot: String,
    before: Value,
    /// The namespace whose bot is broken, when its alert began, and how many messages had arrived by then.
    broken: &'a str,
    since: f64,
    told: usize,
}

/// When the alert of a namespace began, as Prometheus has it. It is another time when the alert was lost, and came again.
async fn began(stage: &Stage, place: &str) -> Result<f64> {
    let firing = format!("namespace=\"{place}\",alertname=\"BotDown\"");
    let query = format!("max (ALERTS_FOR_STATE{{{firing}}}) and on () ALERTS{{{firing},alertstate=\"firing\"}}");
    let found = stage.prometheus.query(&query).await?;
    let began = found
        .first()
        .with_context(|| format!("the alert of {place} does not fire"))?;
    Ok(began.value)
}

impl<'a> Across<'a> {
    async fn begin(stage: &'a Stage, place: &'a str, broken: &'a str) -> Result<Self> {
        let (bot, sick) = tokio::try_join!(watched_bot(stage, place), watched_bot(stage, broken))?;
        works(stage, place, &bot, "before the upgrade").await?;
        breaks(stage, broken, &sick, 0).await?;
        Ok(Self {
            stage,
            place,
            before: pod_of(stage, place).await?,
            bot,
            broken,
            since: began(stage, broken).await?,
            told: received(stage, broken).await?.len(),
        })
    }

    /// Changes the version, which no monitor may notice; then does what users do.
    async fn step(&self, when: &str, version: &Version, change: impl Future<Output = Result<()>>) -> Result<()> {
        let were = monitors(self.stage).await?;
        ensure!(were.len() > 1, "there are no two monitors: {were:?}");
        change.await.with_context(|| when.to_owned())?;
        let are = monitors(self.stage).await?;
        ensure!(are == were, "{when}, the monitors are {are:?}, and were {were:?}");
        works(self.stage, self.place, &self.bot, when).await?;
        self.injects(version).await.with_context(|| when.to_owned())?;
        self.obeys().await.with_context(|| when.to_owned())?;
        let pod = pod_of(self.stage, self.place).await?;
        ensure!(
            pod == self.before,
            "{when}, the bot's pod is {pod}, and was {}",
            self.before
        );
        let since = began(self.stage, self.broken).await.with_context(|| when.to_owned())?;
        let (was, is) = (self.since, since);
        ensure!(
            (was - is).abs() < 0.5,
            "{when}, the alert that fires began at {is}, and before at {was}"
        );
        Ok(())
    }

    /// A new pod gets the exporter of this version.
    async fn injects(&self, version: &Version) -> Result<()> {
        self.stage.until_registered(self.place, "rosey").await?;
        let pods = self.stage.api(POD, "pods", self.place);
        let (pod, _) = create(self.stage, &pods, "new").await?;
        pods.delete("new", &DeleteParams::default().grace_period(0)).await?;
        ensure!(is_injected(&pod), "a new pod has no exporter");
        let images = pod.data["spec"]["containers"].as_array().into_iter().flatten();
        let image = images
            .filter(|container| container["name"] == EXPORTER)
            .map(|container| &container["image"]);
        let image: Vec<_> = image.collect();
        ensure!(
            image == [&version.exporter],
            "a new pod has the exporters {image:?}, not {}",
            version.exporter
        );
        Ok(())
    }

    /// An edit of a monitor shows in its rules.
    async fn obeys(&self) -> Result<()> {
        let rules = |object: &DynamicObject| -> Vec<Value> {
            let groups = object.data["spec"]["groups"].as_array().into_iter().flatten();
            let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
            rules
                .filter(|rule| rule["alert"] == "BotDown")
                .map(|rule| rule["for"].clone())
                .collect()
        };
        for wanted in ["6s", "5s"] {
            let soon = json!({"alert": "BotDown", "levels": [{"severity": "critical", "for": wanted}]});
            let edit = json!({"spec": {"alerts": {"overrides": [soon]}}});
            self.stage.patch_monitor(self.place, "rosey", &edit).await?;
            let shows = |object: &DynamicObject| rules(object) == [json!(wanted)];
            let kind = "monitoring.coreos.com/v1/PrometheusRule";
            self.stage
                .manifests
                .until(SOON, kind, self.place, "rosey", shows)
                .await?;
        }
        Ok(())
    }

    /// The broken bot is mended: it is told then, and was not before.
    async fn end(&self) -> Result<()> {
        let sick = running(self.stage, self.broken, "bot", 1).await?;
        let sick = name(sick.first().context("no bot")?);
        let said = received(self.stage, self.broken).await?;
        let messages: Vec<DiscordMessage> = serde_json::from_value(json!(said))?;
        let resolved: Vec<_> = messages
            .iter()
            .skip(self.told)
            .filter(|message| message.is_resolved())
            .collect();
        ensure!(
            resolved.is_empty(),
            "the end of an alert was told that fires: {resolved:?}"
        );
        recovers(self.stage, self.broken, sick, self.told).await
    }
}

pub async fn an_upgrade_and_a_rollback_keep_every_monitor_working(stage: &Stage) -> Result<String> {
    let (place, broken) = (UPGRADE, "upgrade-broken");
    let from = stage.from.as_ref().context("there is no version to upgrade from")?;
    // As if the current version had never been here.
    release::uninstall(stage).await?;
    let definition = ["delete", "crd", "roseymonitors.rosey.dev"];
    stage.cluster.kubectl(&definition).await?;
    release::install(stage, from, &[]).await?;
    let across = Across::begin(stage, place, broken).await?;

    let upgrade = async {
        release::install(stage, &stage.current, &[]).await?;
        release::test(stage).await?;
        let outdated = |monitor: &DynamicObject| monitor.data["status"]["sidecars"]["outdated"] == 1;
        stage.until_monitor(SOON, place, "rosey", outdated).await.map(drop)
    };
    across.step("after the upgrade", &stage.current, upgrade).await?;

    let rollback = async {
        let rollback = ["rollback", RELEASE, "1", "-n", SYSTEM, "--wait", "--timeout", "180s"];
        stage.cluster.helm(&rollback).await?;
        stage.until_injected(place, "rosey", 1).await.map(drop)
    };
    across.step("after the rollback", from, rollback).await?;

    let again = async { release::install(stage, &stage.current, &[]).await.map(drop) };
    across.step("after the second upgrade", &stage.current, again).await?;
    across.end().await?;
    nothing_was_forbidden(stage).await?;
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
    let roles: Value = serde_json::from_str(&stage.cluster.kubectl(&roles).await?)?;
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
    release::test(stage).await?;
    let rights = of_the_cluster(stage).await?;
    let registrations = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
    let mut expected: Vec<_> = registrations
        .iter()
        .map(|kind| format!("admissionregistration.k8s.io/{kind}"))
        .collect();
    expected.push("rbac.authorization.k8s.io/clusterroles".to_owned());
    ensure!(rights == expected, "the cluster roles allow {rights:?}");
    // Long before a pod is tried there: an operator that did watch it would have registered it meanwhile.
    crate::bots::namespace(stage, elsewhere).await?;
    stage.apply(&crate::bots::monitor(elsewhere, "rosey", |_| {})?).await?;
    let pod = watched_bot(stage, place).await?;
    works(stage, place, &pod, "with a Role in its namespace").await?;
    let (idle, _) = create(stage, &stage.api(POD, "pods", elsewhere), "idle").await?;
    ensure!(
        !is_injected(&idle),
        "a pod of a namespace that is not watched was injected"
    );
    nothing_was_forbidden(stage).await?;

    // Nothing of the cluster's own scope.
    let bare = [&*named, "injection.enabled=false", "crds.install=false"];
    release::install(stage, &stage.current, &bare).await?;
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
        .get(MONITOR, elsewhere, "rosey")
        .await?
        .context("the other monitor is gone")?;
    let said = &other.data["status"]["conditions"];
    ensure!(said.is_null(), "a monitor that is not watched has conditions: {said}");
    nothing_was_forbidden(stage).await?;

    release::uninstall(stage).await?;
    release::install(stage, &stage.current, release::WRITES_PODS).await?;
    Ok(String::new())
}
