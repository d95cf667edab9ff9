//! An operator of named namespaces, which has Roles in them and nothing else but, if it registers them, its webhooks.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use lab::rosey::{OPERATOR, OPERATOR_NAMESPACE, OWN_RIGHTS, WATCHED_RIGHTS, WHOLE_RIGHTS};
use lab::{Builder, Mark};
use serde_json::{Value, json};

use crate::pods::namespaces_are_injected;
use crate::stage::{BOTS, COLLECTED, CONFIG_MAP, MONITOR, SOON, Stage, empty_stage, message, says};

const GAMES: &str = "games";
/// Is not watched.
const OTHERS: &str = "others";
const WATCH: [&str; 2] = ["--watch-namespaces", "bots,games"];

/// The kinds without a namespace that an operator of the whole cluster reads, and one of named namespaces never asks for.
const OF_THE_CLUSTER: [&str; 2] = ["namespaces", "customresourcedefinitions"];
const REGISTRATIONS: [&str; 2] = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

/// The definition and the rights of an operator of two namespaces out of three.
async fn installed(injects: bool, change: impl FnOnce(Builder) -> Builder) -> Result<Stage> {
    let plugin = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement";
    let stage = empty_stage(|builder| change(builder.api_server_flag(plugin))).await?;
    stage
        .apply(&lab::rosey::text("crds/roseymonitors.rosey.dev.yaml")?)
        .await?;
    for namespace in [OPERATOR_NAMESPACE, BOTS, GAMES, OTHERS] {
        stage.namespace(namespace).await?;
    }
    let role = |file: &str| -> Result<Value> { Ok(serde_saphyr::from_str(&lab::rosey::text(file)?)?) };
    let bind = async |namespace: &str, mut role: Value, kind: &str| {
        role["kind"] = json!(kind);
        let name = role["metadata"]["name"].clone();
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR}],
        });
        for object in [role, binding] {
            stage.apply_in(namespace, &object.to_string()).await?;
        }
        anyhow::Ok(())
    };
    bind(OPERATOR_NAMESPACE, role(OWN_RIGHTS)?, "Role").await?;
    for namespace in [BOTS, GAMES] {
        bind(namespace, role(WATCHED_RIGHTS)?, "Role").await?;
    }
    if injects {
        let mut whole = role(WHOLE_RIGHTS)?;
        let rules = whole["rules"].as_array_mut().context("no rules")?;
        let of_the_cluster = |rule: &Value| OF_THE_CLUSTER.iter().any(|kind| rule["resources"] == json!([kind]));
        let before = rules.len();
        rules.retain(|rule| !of_the_cluster(rule));
        ensure!(rules.len() + OF_THE_CLUSTER.len() == before, "{rules:?}");
        bind("", whole, "ClusterRole").await?;
    }
    Ok(stage)
}

/// Monitors in all three namespaces: two are seen to, and nobody has heard of the third.
async fn watches_two_of_three(stage: &Stage) -> Result<()> {
    for namespace in [OTHERS, BOTS, GAMES] {
        stage.watch_bot(namespace, "rosey", |_| {}).await?;
    }
    for namespace in [BOTS, GAMES] {
        stage.ready(namespace, "rosey").await?;
        let unseen = |monitor: &DynamicObject| {
            says(monitor, "Selected", "Unknown", "NotReadable")
                && message(monitor, "Selected").contains("only into the namespaces that it watches (bots, games)")
        };
        stage.status(namespace, "rosey", "Selected is unknown", unseen).await?;
        let gone = json!({"metadata": {"labels": {"rosey.dev/monitor": "other"}}});
        stage.patch(CONFIG_MAP, namespace, "rosey-exporter", gone).await?;
        let mended = |object: &DynamicObject| {
            let labels = object.metadata.labels.as_ref();
            let label = labels.and_then(|labels| labels.get("rosey.dev/monitor"));
            ensure!(label.map(String::as_str) == Some("rosey"), "it is not mended");
            Ok(())
        };
        stage.mended(CONFIG_MAP, namespace, "rosey-exporter", mended).await?;
    }
    // A monitor that goes is noticed in one namespace as in all.
    stage.kubectl(&["delete", "roseymonitor", "rosey", "-n", GAMES]).await?;
    stage.until_gone(COLLECTED, CONFIG_MAP, GAMES, "rosey-exporter").await?;
    stage.watch_bot(GAMES, "rosey", |_| {}).await?;
    stage.ready(GAMES, "rosey").await?;
    Ok(())
}

async fn nobody_was_in_the_third(stage: &Stage) -> Result<()> {
    let monitor = stage.object(MONITOR, OTHERS, "rosey").await?;
    // What the definition says of a monitor that nobody has looked at.
    let unseen = json!({"observedGeneration": -1});
    ensure!(monitor.data["status"] == unseen, "{}", monitor.data["status"]);
    ensure!(stage.get(CONFIG_MAP, OTHERS, "rosey-exporter").await?.is_none());
    let requests = stage.audit().requests_by(OPERATOR, Mark::default()).await?;
    let there: Vec<_> = requests
        .iter()
        .filter(|request| request.object_ref.namespace == OTHERS)
        .map(ToString::to_string)
        .collect();
    ensure!(there.is_empty(), "{there:#?}");
    Ok(())
}

/// The kinds without a namespace that the operator has asked for. Of nothing that it asked for, anywhere, its roles have refused any.
async fn asked_outside(stage: &Stage) -> Result<BTreeSet<String>> {
    stage.nothing_was_forbidden().await?;
    let requests = stage.audit().requests_by(OPERATOR, Mark::default()).await?;
    let of = requests.into_iter().map(|request| request.object_ref);
    let outside = of.filter(|of| !of.resource.is_empty() && of.namespace.is_empty());
    Ok(outside.map(|of| of.resource).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_webhooks_an_operator_of_two_namespaces_lives_by_roles_and_asks_for_nothing_outside_of_them()
-> Result<()> {
    let stage = installed(false, Builder::without_definitions).await?;
    let operator = stage
        .operator("operator", &[&WATCH[..], &["--no-injection"]].concat())
        .await?;
    // Which kinds there are, the API server says to everybody.
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    let missing = |monitor: &_| says(monitor, "Ready", "False", "PrometheusOperatorMissing");
    stage
        .status(BOTS, "rosey", "PrometheusOperatorMissing", missing)
        .await?;
    stage.install_definitions().await?;
    let ready = |monitor: &DynamicObject| says(monitor, "Ready", "True", "Applied");
    stage.until_object(COLLECTED, MONITOR, BOTS, "rosey", ready).await?;

    watches_two_of_three(&stage).await?;
    nobody_was_in_the_third(&stage).await?;
    let asked = asked_outside(&stage).await?;
    ensure!(asked.is_empty(), "{asked:?}");
    ensure!(operator.process.is_running());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_webhooks_an_operator_of_two_namespaces_has_them_called_for_these_alone() -> Result<()> {
    let stage = installed(true, |builder| builder).await?;
    let operator = stage.operator("operator", &WATCH).await?;
    watches_two_of_three(&stage).await?;
    namespaces_are_injected(&stage, &[BOTS, GAMES]).await?;
    let bot = stage.bot(GAMES).await?;
    ensure!(
        bot.json["metadata"]["annotations"]["rosey.dev/injected"].is_string(),
        "{}",
        bot.json["metadata"]
    );
    let bot = stage.bot(OTHERS).await?;
    ensure!(bot.json["spec"]["containers"].as_array().map(Vec::len) == Some(1));

    // Monitors are judged before they are stored, where they are watched.
    let wrong = |namespace: &str| {
        stage.example(namespace, "wrong", |monitor| {
            monitor["spec"]["alerts"]["overrides"] = json!([{"alert": "BotDwon"}]);
        })
    };
    let refused = lab::eventually(SOON, "the monitor to be refused", async || {
        Ok(stage.apply(&wrong(GAMES)?.to_string()).await.err())
    })
    .await?;
    ensure!(
        format!("{refused:#}").contains("is no alert of the catalogue"),
        "{refused:#}"
    );
    stage.apply(&wrong(OTHERS)?.to_string()).await?;
    for (kind, name) in [
        ("MutatingWebhookConfiguration", "rosey-monitor-injector"),
        ("ValidatingWebhookConfiguration", "rosey-monitor-validator"),
    ] {
        let kind = format!("admissionregistration.k8s.io/v1/{kind}");
        let registration = stage.get(&kind, "", name).await?.context("it is not registered")?;
        let selector = &registration.data["webhooks"][0]["namespaceSelector"]["matchExpressions"][0];
        ensure!(selector["values"] == json!([BOTS, GAMES]), "{name}: {selector}");
    }

    nobody_was_in_the_third(&stage).await?;
    let asked = asked_outside(&stage).await?;
    let needed = [&REGISTRATIONS[..], &["clusterroles"]].concat();
    let needed: BTreeSet<_> = needed.iter().map(ToString::to_string).collect();
    ensure!(asked == needed, "{asked:?}");
    ensure!(operator.process.is_running());
    Ok(())
}
