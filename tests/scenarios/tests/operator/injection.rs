//! Pods get their exporter when they are created.

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, ListParams};
use lab::Calls;
use serde_json::{Value, json};

use crate::pods::{injected_namespace, namespaces_are_injected};
use crate::stage::{BOTS, SOON, Stage, message, says, stage};

const POD: &str = "v1/Pod";
/// Name of the exporter's container.
const EXPORTER: &str = rosey_monitor::sidecar::CONTAINER;

/// A container that restricted Pod Security takes.
fn restricted(command: &[&str]) -> Value {
    json!({
        "name": "bot", "image": "busybox", "command": command,
        "securityContext": {
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 1000,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

fn pod(name: &str, annotations: &Value, spec: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": BOTS, "labels": {"app": "rosey"}, "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn workload(api_version: &str, kind: &str, name: &str, labels: &Value, spec: Value, pod: &Value) -> Value {
    let mut spec = spec;
    spec["template"] = json!({"metadata": {"labels": labels}, "spec": pod});
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": BOTS}, "spec": spec})
}

fn names(pod: &DynamicObject, list: &str) -> Vec<String> {
    let containers = pod.data["spec"][list].as_array().into_iter().flatten();
    containers
        .filter_map(|container| container["name"].as_str().map(str::to_owned))
        .collect()
}

fn annotation<'a>(pod: &'a DynamicObject, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The one pod with this label.
async fn pod_of(stage: &Stage, label: &str) -> Result<DynamicObject> {
    let found = async || {
        Ok(stage
            .api(POD, BOTS)
            .list(&ListParams::default().labels(label))
            .await?
            .items
            .pop())
    };
    lab::eventually(SOON, &format!("a pod with {label}"), found).await
}

/// Waits until a container of a pod runs.
async fn runs(stage: &Stage, pod: &DynamicObject, container: &str) -> Result<()> {
    let running = |pod: &DynamicObject| {
        let all = ["containerStatuses", "initContainerStatuses"].map(|list| pod.data["status"][list].clone());
        let mut all = all.iter().filter_map(Value::as_array).flatten();
        all.any(|status| status["name"] == container && !status["state"]["running"].is_null())
    };
    let name = pod.metadata.name.as_deref().context("a pod without a name")?;
    stage.until_object(SOON, POD, BOTS, name, running).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_every_kind_get_their_exporter_under_restricted_pod_security_and_a_job_completes() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    let enforce = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    stage
        .kubectl(&["patch", "namespace", BOTS, "--type=merge", "-p", &enforce.to_string()])
        .await?;
    let _operator = stage.operator("operator", &[]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    injected_namespace(&stage).await?;

    // The admission plugin is awake.
    let lax = json!({"containers": [{"name": "bot", "image": "busybox", "command": ["sleep", "1000"]}]});
    let refused = stage
        .apply(&pod("lax", &json!({}), &lax).to_string())
        .await
        .unwrap_err();
    ensure!(
        format!("{refused:#}").contains("violates PodSecurity \"restricted"),
        "{refused:#}"
    );

    let lasting = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [restricted(&["sleep", "1000"])],
        "volumes": [{"name": "data", "emptyDir": {}}],
    });
    let select = |name: &str| json!({"app": "rosey", "is": name});
    stage.apply(&pod("bare", &json!({}), &lasting).to_string()).await?;
    for (kind, name) in [("Deployment", "deployment"), ("StatefulSet", "stateful")] {
        let spec = json!({"replicas": 1, "selector": {"matchLabels": select(name)}, "serviceName": name});
        let mut object = workload("apps/v1", kind, name, &select(name), spec, &lasting);
        if kind == "Deployment" {
            object["spec"].as_object_mut().unwrap().remove("serviceName");
        }
        stage.apply(&object.to_string()).await?;
    }
    for pod in [
        stage.object(POD, BOTS, "bare").await?,
        pod_of(&stage, "is=deployment").await?,
        pod_of(&stage, "is=stateful").await?,
    ] {
        ensure!(
            names(&pod, "containers") == ["bot", EXPORTER],
            "{:?}",
            pod.metadata.name
        );
        ensure!(annotation(&pod, "rosey.dev/injected").is_some_and(|said| said.starts_with("rosey@")));
        runs(&stage, &pod, "bot").await?;
        runs(&stage, &pod, EXPORTER).await?;
    }
    let injected = |monitor: &_| says(monitor, "Injected", "True", "Injected");
    let monitor = stage.status(BOTS, "rosey", "injected", injected).await?;
    ensure!(
        monitor.data["status"]["sidecars"]["summary"] == "3/3",
        "{}",
        monitor.data["status"]["sidecars"]
    );

    // A Job must be able to end: its exporter is a native sidecar.
    let ending = json!({"restartPolicy": "Never", "containers": [restricted(&["sleep", "1"])]});
    let job = workload(
        "batch/v1",
        "Job",
        "job",
        &select("job"),
        json!({"backoffLimit": 0}),
        &ending,
    );
    stage.apply(&job.to_string()).await?;
    let of_job = pod_of(&stage, "is=job").await?;
    ensure!(names(&of_job, "containers") == ["bot"] && names(&of_job, "initContainers") == [EXPORTER]);
    ensure!(of_job.data["spec"]["initContainers"][0]["restartPolicy"] == "Always");
    stage
        .until_condition(SOON, "batch/v1/Job", BOTS, "job", "Complete")
        .await?;

    // Who asks to be left alone is.
    stage
        .apply(&pod("alone", &json!({"rosey.dev/inject": "false"}), &lasting).to_string())
        .await?;
    let alone = stage.object(POD, BOTS, "alone").await?;
    ensure!(names(&alone, "containers") == ["bot"]);
    ensure!(annotation(&alone, "rosey.dev/skipped") == Some("the pod says rosey.dev/inject: \"false\""));

    // A namespace without a monitor is none of our business.
    stage.namespace("elsewhere").await?;
    let mut elsewhere = pod("bare", &json!({}), &lasting);
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    stage.apply(&elsewhere.to_string()).await?;
    let elsewhere = stage.object(POD, "elsewhere", "bare").await?;
    ensure!(names(&elsewhere, "containers") == ["bot"] && annotation(&elsewhere, "rosey.dev/skipped").is_none());
    stage.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_two_monitors_is_left_alone_with_an_event_and_no_exporter_holds_the_bots_token() -> Result<()> {
    let stage = stage(lab::Builder::service_accounts).await?;
    let operator = stage.operator("operator", &[]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    stage
        .until_object(SOON, "v1/ServiceAccount", BOTS, "default", |_| true)
        .await?;
    namespaces_are_injected(&stage, &[BOTS]).await?;

    let lasting = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [restricted(&["sleep", "1000"])],
        "volumes": [{"name": "data", "emptyDir": {}}],
    });
    stage.apply(&pod("one", &json!({}), &lasting).to_string()).await?;
    let one = stage.object(POD, BOTS, "one").await?;
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mount = |container: &str| {
        let containers = one.data["spec"]["containers"].as_array().into_iter().flatten();
        let found = containers
            .into_iter()
            .find(|c| c["name"] == container)
            .cloned()
            .unwrap_or_default();
        let mounts = found["volumeMounts"].as_array().cloned().unwrap_or_default();
        mounts
            .into_iter()
            .filter(|m| m["mountPath"] == token)
            .map(|m| m["name"].clone())
            .collect::<Vec<_>>()
    };
    let [bots] = &mount("bot")[..] else {
        panic!("the bot has no token: {}", one.data["spec"])
    };
    ensure!(
        bots.as_str().is_some_and(|name| name.starts_with("kube-api-access-")),
        "{bots}"
    );
    ensure!(
        mount(EXPORTER) == [json!(rosey_monitor::sidecar::CONFIG_VOLUME)],
        "{:?}",
        mount(EXPORTER)
    );

    stage.watch_bot(BOTS, "other", |_| {}).await?;
    stage.ready(BOTS, "other").await?;
    let reason = "more than one monitor selects this pod: ";
    // The webhook answers from its cache, which has the new monitor a moment later.
    let two = lab::eventually(SOON, "a pod of two monitors to be skipped", async || {
        stage
            .kubectl(&["delete", "pod", "two", "-n", BOTS, "--ignore-not-found", "--now"])
            .await?;
        stage.apply(&pod("two", &json!({}), &lasting).to_string()).await?;
        let two = stage.object(POD, BOTS, "two").await?;
        Ok((names(&two, "containers") == ["bot"]).then_some(two))
    })
    .await?;
    let skipped = annotation(&two, "rosey.dev/skipped").unwrap_or_default();
    ensure!(
        skipped.starts_with(reason) && skipped.contains("rosey") && skipped.contains("other"),
        "{skipped}"
    );
    let monitor = stage
        .status(BOTS, "rosey", "a pod skipped", |monitor| {
            says(monitor, "Injected", "False", "Skipped")
        })
        .await?;
    let said = message(&monitor, "Injected");
    ensure!(
        said.starts_with("1 of 2 pods have no exporter, for example pod two: more than one monitor"),
        "{said}"
    );
    let event = lab::eventually(SOON, "an Event about the skipped pod", async || {
        let events = stage
            .api("events.k8s.io/v1/Event", BOTS)
            .list(&ListParams::default())
            .await?
            .items;
        Ok(events.into_iter().find(|event| event.data["reason"] == "Skipped"))
    })
    .await
    .with_context(|| operator.process.log())?;
    ensure!(event.data["regarding"]["kind"] == "RoseyMonitor" && event.data["type"] == "Warning");
    ensure!(
        event.data["note"].as_str().is_some_and(|note| note.contains(reason)),
        "{}",
        event.data["note"]
    );
    stage.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_changed_after_us_is_asked_for_again_and_has_one_exporter() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    let _operator = stage.operator("operator", &[]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    injected_namespace(&stage).await?;
    let calls = async || Calls::for_pods(&stage.client()).await;
    let lasting = json!({"containers": [restricted(&["sleep", "1000"])]});

    let before = calls().await?;
    stage.apply(&pod("alone", &json!({}), &lasting).to_string()).await?;
    let alone = (calls().await? - before).count;
    ensure!((alone - 1.0).abs() < 0.1, "{alone} calls for a pod that nobody changes");

    // The API server's own admission gives our container what it lacks.
    let limits = json!([{"type": "Container", "default": {"cpu": "250m"}}]);
    let metadata = json!({"name": "cpu", "namespace": BOTS});
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": limits}});
    stage.apply(&range.to_string()).await?;
    let changed = lab::eventually(SOON, "a pod that was changed after us", async || {
        stage
            .kubectl(&["delete", "pod", "changed", "-n", BOTS, "--ignore-not-found", "--now"])
            .await?;
        let before = calls().await?;
        stage.apply(&pod("changed", &json!({}), &lasting).to_string()).await?;
        let changed = stage.object(POD, BOTS, "changed").await?;
        let limited = changed.data["spec"]["containers"][1]["resources"]["limits"]["cpu"] == "250m";
        Ok(limited.then_some((changed, calls().await? - before)))
    });
    let (changed, again) = changed.await?;
    ensure!(
        (again.count - 2.0).abs() < 0.1,
        "{again} for a pod that was changed after us"
    );
    ensure!(names(&changed, "containers") == ["bot", EXPORTER]);
    ensure!(annotation(&changed, "rosey.dev/injected").is_some_and(|said| said.starts_with("rosey@")));
    stage.nothing_was_forbidden().await
}
