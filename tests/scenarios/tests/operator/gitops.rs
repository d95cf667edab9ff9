//! No diff: what Argo CD and Flux ask the API server about each object in Git, and what they have to be told. Both send it as a
//! server-side apply that is not stored, and compare the answer with what is there.

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use lab::rosey::{OPERATOR_NAMESPACE, file, text};
use serde_json::{Value, json};

use crate::installed::{helm, nothing_was_forbidden, operator, pods_are_let_in, uninstalled};
use crate::pods::injected_namespace;
use crate::stage::{BOTS, MONITOR, OBJECTS, SOON, Stage, says, version};

const SECRET: &str = "v1/Secret";
const REGISTRATION: &str = "admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration";

/// A tool with what it has applied.
struct Tool<'a> {
    stage: &'a Stage,
    manager: &'static str,
    /// The labels and annotations by which it knows its objects.
    marks: Value,
    applied: Vec<Applied>,
}

struct Applied {
    /// As it stands in Git, with the marks.
    desired: Value,
    name: String,
    api: Api<DynamicObject>,
}

impl<'a> Tool<'a> {
    /// Argo CD with both of its ways to mark what it tracks: by default it has one of them.
    fn argo_cd(stage: &'a Stage) -> Self {
        let marks = json!({
            "labels": {"app.kubernetes.io/instance": "bots-in-git"},
            "annotations": {"argocd.argoproj.io/tracking-id": "bots-in-git:a/b:c/d"},
        });
        Self {
            stage,
            manager: "argocd-controller",
            marks,
            applied: Vec::new(),
        }
    }

    fn flux(stage: &'a Stage) -> Self {
        let marks = json!({"labels": {
            "kustomize.toolkit.fluxcd.io/name": "bots-in-git",
            "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
        }});
        Self {
            stage,
            manager: "kustomize-controller",
            marks,
            applied: Vec::new(),
        }
    }

    /// A sync: with force, as both do.
    async fn sync(&mut self, manifests: &str) -> Result<()> {
        for mut desired in serde_saphyr::from_multiple::<Value>(manifests)? {
            if desired.is_null() {
                continue;
            }
            for (part, marks) in self.marks.as_object().into_iter().flatten() {
                for (key, value) in marks.as_object().into_iter().flatten() {
                    desired["metadata"][part][key] = value.clone();
                }
            }
            let object = desired.to_string();
            for live in self.stage.apply_as(self.manager, OPERATOR_NAMESPACE, &object).await? {
                let types = live.types.as_ref().context("an object without a kind")?;
                let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
                let api = match &live.metadata.namespace {
                    Some(namespace) => Api::namespaced_with(self.stage.client(), namespace, &resource),
                    None => Api::all_with(self.stage.client(), &resource),
                };
                let name = live.metadata.name.context("an object without a name")?;
                let desired = desired.clone();
                self.applied.push(Applied { desired, name, api });
            }
        }
        Ok(())
    }

    /// What the tool would show as out of sync, a line for each object.
    async fn differences(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for applied in &self.applied {
            let what = format!("{}/{}", applied.desired["kind"].as_str().unwrap_or("?"), applied.name);
            let difference = applied.difference(self.manager).await.context(what.clone())?;
            found.extend(difference.map(|difference| format!("{what}: {difference}")));
        }
        Ok(found)
    }

    async fn shows_no_diff(&self, moment: &str) -> Result<()> {
        let found = self.differences().await?;
        ensure!(found.is_empty(), "{moment}: {found:#?}");
        Ok(())
    }
}

impl Applied {
    /// What an apply would change. It is sent without force, so that whoever has taken a field from the tool is told, too. With
    /// nothing to change the API server answers with what is there to the last time in managedFields.
    async fn difference(&self, manager: &str) -> Result<Option<String>> {
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::apply(manager)
        };
        lab::eventually(SOON, "an object that nobody writes", async || {
            let live = self.api.get(&self.name).await?;
            let foretold = match self.api.patch(&self.name, &params, &Patch::Apply(&self.desired)).await {
                Err(kube::Error::Api(refusal)) if refusal.code == 409 => return Ok(Some(Some(refusal.message))),
                answer => answer?,
            };
            // Somebody wrote a status between the two; a dry run alone changes no version.
            if version(&live) != version(&foretold) {
                return Ok(None);
            }
            let mut paths = Vec::new();
            changed(
                "",
                &serde_json::to_value(live)?,
                &serde_json::to_value(foretold)?,
                &mut paths,
            );
            Ok(Some((!paths.is_empty()).then(|| paths.join(", "))))
        })
        .await
    }
}

/// Where two documents differ.
fn changed(path: &str, one: &Value, other: &Value, paths: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
                changed(&format!("{path}/{key}"), &one[key], &other[key], paths);
            }
        }
        _ if one != other => paths.push(path.to_owned()),
        _ => {}
    }
}

/// What the API server trusts, and what the operator shows it.
async fn certificates(stage: &Stage) -> Result<[Value; 2]> {
    let registration = stage.get(REGISTRATION, "", "rosey-monitor-validator").await?;
    let registration = registration.context("the validator is not registered")?;
    let secret = stage
        .object(SECRET, OPERATOR_NAMESPACE, "rosey-operator-webhook")
        .await?;
    let both = [
        registration.data["webhooks"][0]["clientConfig"]["caBundle"].clone(),
        secret.data["data"]["tls.crt"].clone(),
    ];
    ensure!(both.iter().all(Value::is_string), "{both:?}");
    Ok(both)
}

/// Has the operator make another authority and another certificate.
async fn renew(stage: &Stage) -> Result<()> {
    let before = lab::eventually(SOON, "the webhooks to be registered", async || {
        certificates(stage).await.map(Some)
    })
    .await?;
    let secrets = stage.api(SECRET, OPERATOR_NAMESPACE);
    secrets
        .delete("rosey-operator-webhook", &DeleteParams::default())
        .await?;
    lab::until(SOON, "another authority and another certificate", async || {
        let now = certificates(stage).await?;
        Ok(now.iter().zip(&before).all(|(now, before)| now != before))
    })
    .await
}

/// What the operator made of a monitor must not look as if it were in Git: a tool would prune it.
async fn the_monitor_alone_is_marked(tool: &Tool<'_>) -> Result<()> {
    let marks_of = async |kind: &str, name: &str| {
        let metadata = serde_json::to_value(tool.stage.object(kind, BOTS, name).await?.metadata)?;
        let mut found = 0;
        for (part, marks) in tool.marks.as_object().into_iter().flatten() {
            let marks = marks.as_object().into_iter().flatten();
            found += marks.filter(|(key, value)| metadata[part][key] == **value).count();
        }
        anyhow::Ok(found)
    };
    ensure!(marks_of(MONITOR, "rosey").await? == 2, "the monitor is not marked");
    for (kind, suffix) in OBJECTS {
        let marks = marks_of(kind, &format!("rosey{suffix}")).await?;
        ensure!(marks == 0, "{kind} rosey{suffix} has {marks} marks of the monitor");
    }
    Ok(())
}

/// The check is worth something: it sees a field that somebody took, and one that somebody removed.
async fn edits_are_seen(tool: &Tool<'_>) -> Result<()> {
    let stage = tool.stage;
    let deployment = ("apps/v1/Deployment", OPERATOR_NAMESPACE, "rosey-operator");
    let edits = [
        (json!({"spec": {"replicas": 3}}), ".spec.replicas"),
        (
            json!({"metadata": {"labels": {"app.kubernetes.io/version": null}}}),
            "/metadata/labels/app.kubernetes.io/version",
        ),
    ];
    for (edit, path) in edits {
        let (kind, namespace, name) = deployment;
        stage.patch(kind, namespace, name, edit).await?;
        let found = tool.differences().await?;
        let [one] = found.as_slice() else {
            anyhow::bail!("{path} was edited, and seen are {found:#?}")
        };
        ensure!(
            one.starts_with("Deployment/rosey-operator: ") && one.contains(path),
            "{one}"
        );
        let applied = tool
            .applied
            .iter()
            .find(|applied| applied.name == name && applied.desired["kind"] == "Deployment");
        let desired = &applied.context("no Deployment was applied")?.desired;
        stage.apply_as(tool.manager, namespace, &desired.to_string()).await?;
        tool.shows_no_diff("after the edit was taken back").await?;
    }
    Ok(())
}

/// Installs the operator, renews its certificates, and adds a bot with its monitor as their users wrote them.
async fn no_diff_is_shown(mut tool: Tool<'_>, manifests: &str) -> Result<()> {
    let stage = tool.stage;
    tool.sync(manifests).await?;
    pods_are_let_in(stage).await?;
    let _operator = operator(stage, "operator").await?;
    tool.shows_no_diff("after the installation").await?;

    renew(stage).await?;
    tool.shows_no_diff("after the renewal of the certificates").await?;

    tool.sync(&text("examples/rosey.yaml")?).await?;
    stage.ready(BOTS, "rosey").await?;
    injected_namespace(stage).await?;
    tool.sync(&text("examples/rosey-bot.yaml")?).await?;
    let bot = stage.bot_of(BOTS, "app=rosey").await?;
    let containers = bot.json["spec"]["containers"].as_array().map(Vec::len);
    ensure!(containers == Some(2), "the pod has no exporter: {containers:?}");
    let injected = |monitor: &DynamicObject| says(monitor, "Injected", "True", "Injected");
    stage.status(BOTS, "rosey", "injected", injected).await?;
    tool.shows_no_diff("after the injection").await?;
    the_monitor_alone_is_marked(&tool).await?;

    edits_are_seen(&tool).await?;
    nothing_was_forbidden(stage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_sees_no_diff_in_the_plain_manifests_after_installation_renewal_and_injection() -> Result<()> {
    let stage = uninstalled().await?;
    no_diff_is_shown(Tool::flux(&stage), &text("deploy/install.yaml")?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_sees_no_diff_in_the_rendered_chart_after_installation_renewal_and_injection() -> Result<()> {
    let stage = uninstalled().await?;
    stage.namespace(OPERATOR_NAMESPACE).await?;
    let chart = file("charts/rosey-monitor");
    let chart = chart.to_str().context("a path of text")?;
    // Argo CD leaves out the hooks of `helm test`, the only ones that there are.
    let arguments = ["template", "rosey-monitor", chart, "--include-crds", "--no-hooks"];
    let rendered = helm(&stage, "helm", &arguments)?;
    no_diff_is_shown(Tool::argo_cd(&stage), &rendered).await
}
