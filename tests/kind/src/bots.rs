//! Bots of every kind of workload, monitors for them, and the receiver of their alerts.

use anyhow::{Context, Result};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, container, name, restricted, restricted_container};

/// Port of the bot.
pub const PORT: u16 = 8000;
/// Port at which it is told what to do.
pub const CONTROL: u16 = 8001;
/// Where alerts arrive: namespace and name of a fake bot that keeps what is posted and mailed to it.
pub const RECEIVER: &str = "receiver";
/// Port of its mail.
const MAIL: u16 = 2525;

/// The container of a bot.
#[must_use]
pub fn bot(stage: &Stage) -> Value {
    json!({
        "name": "bot", "image": stage.images.bot.image, "imagePullPolicy": "IfNotPresent",
        "args": ["--listen", "0.0.0.0", "--port", PORT.to_string(), "--control-port", CONTROL.to_string()],
        "ports": [{"name": "http", "containerPort": PORT}],
        "securityContext": restricted_container(),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    })
}

fn pod_spec(container: &Value) -> Value {
    json!({
        "terminationGracePeriodSeconds": 2, "securityContext": restricted(), "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    })
}

/// A workload of this kind with one replica, whose pods have the label `app: <name>`; `change` gets the pods' spec.
#[must_use]
pub fn workload(
    stage: &Stage,
    kind: &str,
    (namespace, name): (&str, &str),
    app: &str,
    change: impl FnOnce(&mut Value),
) -> Value {
    let labels = json!({"app": app, "workload": name});
    let mut pod = pod_spec(&bot(stage));
    let mut spec = json!({});
    let api_version = if kind == "Job" {
        pod["restartPolicy"] = json!("Never");
        spec["backoffLimit"] = json!(0);
        "batch/v1"
    } else {
        spec["selector"] = json!({"matchLabels": labels});
        "apps/v1"
    };
    change(&mut pod);
    spec["template"] = json!({"metadata": {"labels": labels}, "spec": pod});
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

/// A pod of a bot that no node runs, because no scheduler knows of it: for what only the API server shows.
#[must_use]
pub fn idle_pod(stage: &Stage, name: &str, app: &str) -> Value {
    let mut spec = pod_spec(&bot(stage));
    spec["schedulerName"] = json!("nobody");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}}, "spec": spec})
}

/// The monitor of `examples/rosey.yaml` for bots with `app: <name>`, with times for impatient people, and mail to the receiver.
///
/// # Errors
/// When the example can't be read.
pub fn monitor(namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<Value> {
    let text = lab::rosey::text("examples/rosey.yaml")?;
    let mut monitor: Value = serde_saphyr::from_str(&text).context("examples/rosey.yaml")?;
    monitor["metadata"] = json!({"namespace": namespace, "name": name});
    let spec = &mut monitor["spec"];
    spec["selector"] = json!({"matchLabels": {"app": name}});
    spec["scrape"] = json!({"interval": "5s", "timeout": "4s"});
    let soon = json!({"alert": "BotDown", "levels": [{"severity": "critical", "for": "5s"}]});
    spec["alerts"] = json!({"interval": "5s", "overrides": [soon]});
    let mut channels = spec["notifications"]["channels"].take();
    let channels = channels.as_array_mut().context("examples/rosey.yaml has no channels")?;
    let mail = channels.iter_mut().find(|channel| !channel["email"].is_null());
    mail.context("examples/rosey.yaml has no channel for mail")?["email"] = json!({
        "to": [by_mail(namespace)], "from": "alerts@example.org", "requireTLS": false,
        "smarthost": format!("{RECEIVER}.{RECEIVER}.svc:{MAIL}"),
    });
    let names: Vec<_> = channels.iter().map(|channel| channel["name"].clone()).collect();
    let route = json!({"name": "all", "severities": ["critical", "warning"], "channels": names});
    spec["notifications"] = json!({
        "groupWait": "1s", "groupInterval": "2s", "repeatInterval": "1h", "channels": channels, "routes": [route],
    });
    change(&mut monitor);
    Ok(monitor)
}

/// The name under which the receiver hears what a namespace tells on Slack.
#[must_use]
pub fn on_slack(namespace: &str) -> String {
    format!("{namespace}-slack")
}

/// The address to which a namespace's mail goes.
#[must_use]
pub fn by_mail(namespace: &str) -> String {
    format!("{namespace}@example.org")
}

/// A namespace with the Secret of the examples; what is told there on Discord, is told to the receiver under the namespace's name,
/// what is told on Slack, under that of [`on_slack`], and mail, under the address of [`by_mail`].
///
/// # Errors
/// When the API server refuses something.
pub async fn namespace(stage: &Stage, namespace: &str) -> Result<()> {
    stage.namespace(namespace).await?;
    let inbox = |name: &str| format!("http://{RECEIVER}.{RECEIVER}.svc:{CONTROL}/inbox/{name}");
    let urls = json!({"discord": inbox(namespace), "slack": inbox(&on_slack(namespace))});
    let metadata = json!({"name": "rosey-channels", "namespace": namespace});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": urls});
    stage.apply(&secret).await.map(drop)
}

/// A namespace with a monitor `rosey` in force, whose next pods are injected.
///
/// # Errors
/// When the monitor does not become Ready, or the namespace is not registered in time.
pub async fn watched(stage: &Stage, place: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    namespace(stage, place).await?;
    stage.apply(&monitor(place, "rosey", change)?).await?;
    stage
        .until_monitor(SOON, place, "rosey", |monitor| lab::has_condition(monitor, "Ready"))
        .await?;
    stage.until_registered(place, "rosey").await
}

/// The receiver of alerts.
///
/// # Errors
/// When the API server refuses it.
pub async fn receiver(stage: &Stage) -> Result<()> {
    stage.namespace(RECEIVER).await?;
    let receiver = workload(stage, "Deployment", (RECEIVER, RECEIVER), RECEIVER, |pod| {
        pod["containers"][0]["env"] = json!([{"name": "FAKE_BOT_MAIL_PORT", "value": MAIL.to_string()}]);
    });
    stage.apply(&receiver).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": RECEIVER, "namespace": RECEIVER},
        "spec": {"selector": {"app": RECEIVER}, "ports": [{"name": "control", "port": CONTROL}, {"name": "mail", "port": MAIL}]},
    });
    stage.apply(&service).await.map(drop)
}

/// What has arrived under a name so far.
///
/// # Errors
/// When the receiver does not answer.
pub async fn received(stage: &Stage, channel: &str) -> Result<Vec<Value>> {
    let pods = stage.pods(RECEIVER, "app=receiver").await?;
    let pod = pods.first().context("no receiver runs")?;
    let said = stage
        .ask((RECEIVER, name(pod), CONTROL), &format!("/inbox/{channel}"), None)
        .await?;
    Ok(serde_json::from_str(&said)?)
}

/// The pods of a workload, once so many of them run with their bot.
///
/// # Errors
/// When they don't in time.
pub async fn running(stage: &Stage, namespace: &str, workload: &str, pods: usize) -> Result<Vec<DynamicObject>> {
    lab::eventually(
        SOON,
        &format!("{pods} running bots of {namespace}/{workload}"),
        async || {
            let found = stage.pods(namespace, &format!("workload={workload}")).await?;
            let running: Vec<_> = found
                .into_iter()
                .filter(|pod| container(pod, "bot")["state"]["running"].is_object())
                .collect();
            Ok((running.len() == pods).then_some(running))
        },
    )
    .await
}

/// Tells a bot how to behave; `fake-bot --help` has the list.
///
/// # Errors
/// When it does not answer.
pub async fn control(stage: &Stage, namespace: &str, pod: &str, change: &Value) -> Result<()> {
    stage
        .ask((namespace, pod, CONTROL), "/control", Some(change))
        .await
        .map(drop)
}
