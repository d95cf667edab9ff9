//! Monitors, pods and edits.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use lab::rosey::{binary, text};
use lab::{Lab, has_condition};
use serde_json::{Value, json};

use super::{Size, some, until};

const WITH: &str = "load";
const WITHOUT: &str = "elsewhere";
/// As many requests at once as the operator sends.
const CONCURRENCY: usize = 16;

pub struct Load<'a> {
    lab: &'a Lab,
    size: &'a Size,
    monitors: Vec<Value>,
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    let api_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version,
        kind: kind.into(),
        plural: format!("{}s", kind.to_lowercase()),
    }
}

/// The objects of a monitor, as `kubectl rosey render` prints them.
fn rendered(monitor: &Value) -> Result<Vec<Value>> {
    let mut render = Command::new(binary("kubectl-rosey")?)
        .args(["render", "-o", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    serde_json::to_writer(render.stdin.take().context("standard input")?, monitor)?;
    let printed: Value = serde_json::from_slice(&render.wait_with_output()?.stdout)?;
    Ok(printed["items"].as_array().cloned().unwrap_or_else(|| vec![printed]))
}

impl<'a> Load<'a> {
    pub fn new(lab: &'a Lab, size: &'a Size) -> Self {
        let monitor = |n: usize| -> Value {
            let example: Value =
                serde_saphyr::from_str(&text("examples/s0-rosey.yaml").unwrap_or_default()).unwrap_or_default();
            let mut monitor = example;
            monitor["metadata"] = json!({ "name": format!("bot-{n}"), "namespace": WITH });
            monitor["spec"]["selector"] = json!({ "matchLabels": { "app": format!("bot-{n}") } });
            // All four kinds of channel: the webhook takes the place of Slack's second one.
            monitor["spec"]["notifications"]["channels"][2] = json!({ "name": "slack-info", "webhook": { "urlSecretRef": { "name": "rosey-channels", "key": "ci" } } });
            monitor
        };
        Self {
            lab,
            size,
            monitors: (0..size.monitors).map(monitor).collect(),
        }
    }

    pub fn objects_each(&self) -> usize {
        self.monitors
            .first()
            .and_then(|monitor| rendered(monitor).ok())
            .map_or(0, |objects| objects.len())
    }

    fn api(&self, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.lab.client(), namespace, resource)
    }

    fn pod(name: &str, app: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": app } },
            // A gate: nobody runs them.
            "spec": { "schedulingGates": [{ "name": "example.org/bench" }], "containers": [{ "name": "bot", "image": "bot:1" }] },
        })
    }

    /// The pods, before there is a monitor.
    pub async fn pods(&self) -> Result<()> {
        for namespace in [WITH, WITHOUT, "bare"] {
            self.lab.namespace(namespace).await?;
        }
        self.lab.channels(WITH).await?;
        self.lab.channels("bare").await?;
        let pods = resource("", "v1", "Pod");
        let own = (0..self.size.monitors * self.size.pods_each)
            .map(|n| (WITH, format!("pod-{n}"), format!("bot-{}", n % self.size.monitors)));
        let others = (0..self.size.unrelated_pods).map(|n| (WITHOUT, format!("pod-{n}"), "other".to_owned()));
        stream::iter(own.chain(others))
            .map(|(namespace, name, app)| {
                let api = self.api(namespace, &pods);
                async move {
                    let pod: DynamicObject = serde_json::from_value(Self::pod(&name, &app))?;
                    api.create(&PostParams::default(), &pod)
                        .await
                        .map(drop)
                        .map_err(anyhow::Error::from)
                }
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
    }

    async fn apply(&self, namespace: &str, objects: &[Value], status: bool) -> Result<()> {
        for object in objects {
            let (group, version) = object["apiVersion"]
                .as_str()
                .and_then(|v| v.split_once('/'))
                .unwrap_or(("", "v1"));
            let api = self.api(
                namespace,
                &resource(group, version, object["kind"].as_str().context("kind")?),
            );
            let name = object["metadata"]["name"].as_str().context("name")?;
            api.patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(object))
                .await?;
        }
        if status && let Some(object) = objects.first() {
            let api = self.api(namespace, &resource("rosey.dev", "v1alpha1", "RoseyMonitor"));
            let conditions: Vec<_> = ["Ready", "Valid", "Injected", "Selected"]
                .map(|kind| json!({ "type": kind, "status": "True", "reason": "Bench", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }))
                .into();
            let status = json!({ "status": { "observedGeneration": 1, "conditions": conditions } });
            let name = object["metadata"]["name"].as_str().context("name")?;
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
                .await?;
        }
        Ok(())
    }

    /// Creates as many monitors elsewhere, and writes what the operator would write, with nothing in between.
    pub async fn bare_client(&self) -> Result<Duration> {
        let mut all = Vec::new();
        let template = rendered(self.monitors.first().context("a monitor")?)?;
        for (n, monitor) in self.monitors.iter().enumerate() {
            let mut monitor = monitor.clone();
            monitor["metadata"]["namespace"] = json!("bare");
            let text = serde_json::to_string(&template)?
                .replace("bot-0", &format!("bot-{n}"))
                .replace("\"load\"", "\"bare\"");
            let mut objects: Vec<Value> = serde_json::from_str(&text)?;
            objects.insert(0, monitor);
            all.push(objects);
        }
        let start = Instant::now();
        stream::iter(&all)
            .map(|objects| self.apply("bare", objects, true))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await?;
        let time = start.elapsed();
        // Gone before the operator starts, which would take them for its own.
        for (group, version, kind) in [
            ("rosey.dev", "v1alpha1", "RoseyMonitor"),
            ("monitoring.coreos.com", "v1", "PrometheusRule"),
            ("monitoring.coreos.com", "v1", "PodMonitor"),
            ("monitoring.coreos.com", "v1alpha1", "AlertmanagerConfig"),
            ("", "v1", "ConfigMap"),
        ] {
            self.api("bare", &resource(group, version, kind))
                .delete_collection(&DeleteParams::default(), &ListParams::default())
                .await?;
        }
        Ok(time)
    }

    pub async fn monitors(&self) -> Result<()> {
        stream::iter(&self.monitors)
            .map(|monitor| self.apply(WITH, std::slice::from_ref(monitor), false))
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
    }

    pub async fn until_all_ready(&self) -> Result<()> {
        let api = self.api(WITH, &resource("rosey.dev", "v1alpha1", "RoseyMonitor"));
        until("every monitor is Ready", async || {
            let list = api.list(&ListParams::default()).await?;
            Ok(list.items.len() == self.size.monitors
                && list.items.iter().all(|monitor| has_condition(monitor, "Ready")))
        })
        .await
    }

    /// Milliseconds from sending an edit until a watch shows the changed rule.
    pub async fn edits(&self, edits: usize) -> Result<Vec<f64>> {
        let monitors = self.api(WITH, &resource("rosey.dev", "v1alpha1", "RoseyMonitor"));
        let rules = self.api(WITH, &resource("monitoring.coreos.com", "v1", "PrometheusRule"));
        let mut times = Vec::new();
        for n in 0..edits {
            let name = format!("bot-{}", n % self.size.monitors);
            let threshold = 600_000_000 + n;
            let version = rules.get(&name).await?.metadata.resource_version.unwrap_or_default();
            let watch = WatchParams::default().fields(&format!("metadata.name={name}"));
            let mut events = rules.watch(&watch, &version).await?.boxed();
            let change = json!({ "spec": { "alerts": { "overrides": [
                { "alert": "HighMemoryUsage", "levels": [{ "severity": "warning", "threshold": threshold }] },
            ] } } });
            let start = Instant::now();
            monitors
                .patch(&name, &PatchParams::default(), &Patch::Merge(change))
                .await?;
            loop {
                let event = events.try_next().await?.context("the watch ended")?;
                if let WatchEvent::Modified(rule) = event
                    && rule.data.to_string().contains(&threshold.to_string())
                {
                    break;
                }
            }
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        some(times)
    }

    /// Milliseconds that a client waits for a pod to be created with the registration, and without.
    pub async fn pairs(&self, pairs: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let pods = resource("", "v1", "Pod");
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for n in 0..pairs {
            let order = if n % 2 == 0 { [WITH, WITHOUT] } else { [WITHOUT, WITH] };
            for namespace in order {
                let pod: DynamicObject = serde_json::from_value(Self::pod(&format!("pair-{n}"), "bot-0"))?;
                let start = Instant::now();
                let made = self.api(namespace, &pods).create(&PostParams::default(), &pod).await?;
                let time = start.elapsed().as_secs_f64() * 1e3;
                let injected = made
                    .metadata
                    .annotations
                    .is_some_and(|a| a.contains_key("rosey.dev/injected"));
                anyhow::ensure!(
                    injected == (namespace == WITH),
                    "pod {n} in {namespace}: injected is {injected}"
                );
                if namespace == WITH {
                    with.push(time);
                } else {
                    without.push(time);
                }
            }
        }
        Ok((some(with)?, some(without)?))
    }
}
