//! The product as it is installed: by the plain manifests, by kustomize, by Helm; upgraded, removed, installed again. The lab runs no
//! containers of the operator, so it is started beside the cluster: with the rights of its service account, and the flags of its pod.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, ListParams};
use lab::rosey::{OPERATOR_NAMESPACE, Operator, binary, file, text};
use serde_json::Value;

use crate::pods::injected_namespace;
use crate::stage::{BOTS, COLLECTED, MONITOR, OBJECTS, SOON, Stage, empty_stage};

/// The users that the API server makes of the service accounts.
const ACCOUNT: &str = "system:serviceaccount:rosey-system:rosey-operator";
const CHECK: &str = "system:serviceaccount:rosey-system:rosey-operator-check";
const DEFINITION: &str = "apiextensions.k8s.io/v1/CustomResourceDefinition";
const REGISTRATIONS: [&str; 2] = [
    "mutatingwebhookconfiguration/rosey-monitor-injector",
    "validatingwebhookconfiguration/rosey-monitor-validator",
];

pub async fn uninstalled() -> Result<Stage> {
    empty_stage(|builder| builder.user(ACCOUNT).user(CHECK)).await
}

/// What a command says; its errors are ours.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command:?}: {told}{errors}");
    Ok(told.into_owned())
}

/// One of the Helms that `make tools` built, for this lab.
pub fn helm(stage: &Stage, name: &str, arguments: &[&str]) -> Result<String> {
    let folder = said(Command::new(file("tools/packaging/build")).arg("path"))?;
    let mut command = Command::new(std::path::Path::new(folder.trim()).join(name));
    for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(home, stage.logs_dir().join(name));
    }
    command.env("KUBECONFIG", stage.kubeconfig());
    said(command.args(arguments).args(["--namespace", OPERATOR_NAMESPACE]))
}

/// The arguments of the one container of a Deployment or Pod, but for the addresses: the lab has its own.
fn arguments(pod: &Value) -> Vec<String> {
    let all = pod["spec"]["containers"][0]["args"].as_array().into_iter().flatten();
    let all = all.filter_map(Value::as_str).map(str::to_owned);
    all.filter(|argument| !argument.contains("listen=")).collect()
}

/// The kubeconfig of a service account, at a path that KUBECONFIG takes: a colon there separates files.
fn kubeconfig(stage: &Stage, user: &str) -> Result<std::path::PathBuf> {
    let path = stage.logs_dir().join(format!("{}.kubeconfig", user.replace(':', "-")));
    std::fs::copy(stage.kubeconfig_of(user)?, &path).with_context(|| format!("copy the kubeconfig of {user}"))?;
    Ok(path)
}

/// Starts an operator as the Deployment says, by its service account.
pub async fn operator(stage: &Stage, name: &str) -> Result<Operator> {
    let deployment = stage
        .object("apps/v1/Deployment", OPERATOR_NAMESPACE, "rosey-operator")
        .await?;
    let flags = arguments(&deployment.data["spec"]["template"]);
    ensure!(!flags.is_empty(), "the Deployment starts an operator without flags");
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let operator = stage.operator_by(name, &kubeconfig(stage, ACCOUNT)?, &flags)?;
    operator.until_ready().await?;
    Ok(operator)
}

/// The operator's own check, as a user.
fn check(stage: &Stage, user: &str, arguments: &[String]) -> Result<String> {
    let mut command = Command::new(binary("rosey-operator")?);
    said(command.env("KUBECONFIG", kubeconfig(stage, user)?).args(arguments))
}

/// The pods of the Deployment were let in: its namespace enforces what it can.
pub async fn pods_are_let_in(stage: &Stage) -> Result<()> {
    lab::eventually(SOON, "both replicas' pods", async || {
        let labels = ListParams::default().labels("app.kubernetes.io/component=operator");
        let pods = stage.api("v1/Pod", OPERATOR_NAMESPACE).list(&labels).await?;
        Ok((pods.items.len() >= 2).then_some(()))
    })
    .await
}

/// The operator had every right that it needed.
pub async fn nothing_was_forbidden(stage: &Stage) -> Result<()> {
    let requests = stage.audit().requests_by(ACCOUNT, lab::Mark::default()).await?;
    ensure!(!requests.is_empty(), "the operator asked for nothing");
    let refused: Vec<_> = requests
        .iter()
        .filter(|request| request.is_forbidden())
        .map(ToString::to_string)
        .collect();
    ensure!(refused.is_empty(), "forbidden: {refused:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_manifests_install_an_operator_that_works_in_a_restricted_namespace() -> Result<()> {
    let stage = uninstalled().await?;
    stage.apply(&text("deploy/install.yaml")?).await?;
    pods_are_let_in(&stage).await?;
    let _operator = operator(&stage, "operator").await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    injected_namespace(&stage).await?;
    nothing_was_forbidden(&stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kustomize_installs_an_operator_that_works_and_an_overlay_leaves_the_webhooks_out() -> Result<()> {
    let stage = uninstalled().await?;
    for (folder, webhooks) in [("deploy/overlays/no-injection", false), ("deploy/base", true)] {
        let path = file(folder);
        let path = path.to_str().context("a path of text")?;
        stage
            .kubectl(&["apply", "--server-side", "--force-conflicts", "-k", path])
            .await?;
        pods_are_let_in(&stage).await?;
        let operator = operator(&stage, if webhooks { "with" } else { "without" }).await?;
        stage.watch_bot(BOTS, "rosey", |_| {}).await?;
        stage.ready(BOTS, "rosey").await?;
        if webhooks {
            injected_namespace(&stage).await?;
        }
        nothing_was_forbidden(&stage).await?;
        operator.process.terminate()?;
        operator.process.exited(SOON).await?;
        for registration in REGISTRATIONS {
            let found = stage
                .kubectl(&["get", registration, "--ignore-not-found", "-o", "name"])
                .await?;
            ensure!(found.is_empty() != webhooks, "{folder}: {registration}: {found:?}");
        }
    }
    Ok(())
}

/// Installs by Helm, plays what a user does, and removes it again; what is there already is found again.
async fn by_helm(stage: &Stage, name: &str) -> Result<()> {
    let chart = file("charts/rosey-monitor");
    let chart = chart.to_str().context("a path of text")?;
    let told = helm(stage, name, &["install", "rosey-monitor", chart, "--create-namespace"])?;
    ensure!(told.contains("kubectl get roseymonitors"), "{told}");
    let first = operator(stage, &format!("{name}-installed")).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    let monitor = stage.ready(BOTS, "rosey").await?;
    injected_namespace(stage).await?;

    // What `helm test` would do, with its own rights and its own arguments.
    let hooks: Vec<Value> = serde_saphyr::from_multiple(&helm(stage, name, &["get", "hooks", "rosey-monitor"])?)?;
    let mut questions = 0;
    for hook in hooks.iter().filter(|hook| !hook.is_null()) {
        if hook["kind"] == "Pod" {
            let told = check(stage, CHECK, &arguments(hook))?;
            ensure!(
                told.lines().count() == 3 && told.lines().all(|line| line.starts_with("ok: ")),
                "{told}"
            );
            ensure!(told.contains("validate.rosey.dev"), "{told}");
            questions += 1;
        } else {
            stage.apply(&hook.to_string()).await?;
        }
    }
    ensure!(questions == 1, "{questions} pods ask");
    let stored = stage
        .api(MONITOR, OPERATOR_NAMESPACE)
        .list(&ListParams::default())
        .await?;
    ensure!(stored.items.is_empty(), "the check stored a monitor");

    helm(
        stage,
        name,
        &[
            "upgrade",
            "rosey-monitor",
            chart,
            "--set",
            "concurrency=8,exporter.updateInPlace=true",
        ],
    )?;
    first.process.terminate()?;
    first.process.exited(SOON).await?;
    let second = operator(stage, &format!("{name}-upgraded")).await?;
    ensure!(second.command.contains("--concurrency=8"), "{}", second.command);
    helm(stage, name, &["rollback", "rosey-monitor", "1"])?;
    let same = stage.ready(BOTS, "rosey").await?;
    ensure!(same.metadata.uid == monitor.metadata.uid);
    nothing_was_forbidden(stage).await?;

    helm(stage, name, &["uninstall", "rosey-monitor"])?;
    second.process.terminate()?;
    second.process.exited(SOON).await?;
    // The role that owns the registrations is gone, and so are they; the definition, the monitor and all that was made of it stay.
    lab::eventually(COLLECTED, "the registrations to go", async || {
        let found = stage
            .kubectl(&[&["get"], &REGISTRATIONS[..], &["--ignore-not-found", "-o", "name"]].concat())
            .await?;
        Ok(found.is_empty().then_some(()))
    })
    .await?;
    let stays = |object: &DynamicObject| object.metadata.deletion_timestamp.is_none();
    ensure!(stays(&stage.object(MONITOR, BOTS, "rosey").await?));
    for (kind, suffix) in OBJECTS {
        ensure!(stays(&stage.object(kind, BOTS, &format!("rosey{suffix}")).await?));
    }
    let definition = stage.get(DEFINITION, "", "roseymonitors.rosey.dev").await;
    ensure!(definition?.is_some_and(|definition| stays(&definition)));

    helm(stage, name, &["install", "rosey-monitor", chart])?;
    let third = operator(stage, &format!("{name}-again")).await?;
    let found = stage.ready(BOTS, "rosey").await?;
    ensure!(found.metadata.uid == monitor.metadata.uid);
    injected_namespace(stage).await?;
    helm(stage, name, &["uninstall", "rosey-monitor"])?;
    third.process.terminate()?;
    third.process.exited(SOON).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_4_installs_upgrades_removes_and_finds_everything_again() -> Result<()> {
    by_helm(&uninstalled().await?, "helm").await
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_3_installs_upgrades_removes_and_finds_everything_again() -> Result<()> {
    by_helm(&uninstalled().await?, "helm3").await
}
