//! Monitors, pods and edits.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use lab::rosey::{OPERATOR, binary, text};
use lab::{Lab, has_condition};
use serde_json::{Value, json};

use super::{PATIENCE, Size, some};

const WITH: &str = "load";
const WITHOUT: &str = "elsewhere";
/// As many requests at once as the operator sends.
const CONCURRENCY: usize = 16;
/// Between one creation of a pod and the next.
const PAUSE: Duration = Duration::from_millis(20);

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

fn monitors() -> ApiResource {
    resource("rosey.dev", "v1alpha1", "RoseyMonitor")
}

async fn apply(client: &Client, namespace: &str, object: &Value) -> Result<DynamicObject> {
    let (group, version) = object["apiVersion"]
        .as_str()
        .and_then(|v| v.split_once('/'))
        .unwrap_or(("", "v1"));
    let resource = resource(group, version, object["kind"].as_str().context("kind")?);
    let name = object["metadata"]["name"].as_str().context("name")?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    Ok(api
        .patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(object))
        .await?)
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

    /// One monitor with its objects and its status.
    async fn written_bare(&self, operator: &Client, monitor: Value, objects: Vec<Value>) -> Result<()> {
        let monitor = apply(&self.lab.client(), "bare", &monitor).await?;
        let name = monitor.metadata.name.context("name")?;
        for mut object in objects {
            object["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "name": name, "uid": monitor.metadata.uid,
                "controller": true, "blockOwnerDeletion": true,
            }]);
            apply(operator, "bare", &object).await?;
        }
        let conditions: Vec<_> = ["Ready", "Valid", "Injected", "Selected"]
            .map(|kind| json!({ "type": kind, "status": "True", "reason": "Bench", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }))
            .into();
        let status = json!({ "status": { "observedGeneration": 1, "conditions": conditions } });
        let monitors: Api<DynamicObject> = Api::namespaced_with(operator.clone(), "bare", &monitors());
        monitors
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await?;
        Ok(())
    }

    /// Creates as many monitors elsewhere, and writes what the operator would write, as the operator's user and with nothing in
    /// between.
    pub async fn bare_client(&self) -> Result<Duration> {
        let operator = self.lab.client_as(OPERATOR).await?;
        let mut all = Vec::new();
        let template = rendered(self.monitors.first().context("a monitor")?)?;
        for (n, monitor) in self.monitors.iter().enumerate() {
            let mut monitor = monitor.clone();
            monitor["metadata"]["namespace"] = json!("bare");
            let text = serde_json::to_string(&template)?
                .replace("bot-0", &format!("bot-{n}"))
                .replace("\"load\"", "\"bare\"");
            let objects: Vec<Value> = serde_json::from_str(&text)?;
            all.push((monitor, objects));
        }
        let ready = self.ready_in("bare").await?;
        let start = Instant::now();
        let written = stream::iter(all)
            .map(|(monitor, objects)| self.written_bare(&operator, monitor, objects))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>();
        tokio::try_join!(written, ready)?;
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

    /// Creates the monitors and waits until every one is Ready.
    pub async fn monitors(&self) -> Result<Duration> {
        let ready = self.ready_in(WITH).await?;
        let start = Instant::now();
        let client = self.lab.client();
        let created = stream::iter(&self.monitors)
            .map(|monitor| apply(&client, WITH, monitor))
            .buffer_unordered(CONCURRENCY)
            .try_for_each(async |_| Ok(()));
        tokio::try_join!(created, ready)?;
        Ok(start.elapsed())
    }

    /// Follows the monitors of a namespace from now on, until all of them have been Ready. By a watch, with both writers alike:
    /// to list a thousand monitors over and over would cost the API server more than the writers do.
    async fn ready_in(&self, namespace: &str) -> Result<impl Future<Output = Result<()>>> {
        let api = self.api(namespace, &monitors());
        let now = api.list(&ListParams::default().limit(1)).await?.metadata;
        let version = now.resource_version.unwrap_or_default();
        let mut events = api.watch(&WatchParams::default(), &version).await?.boxed();
        let wanted = self.size.monitors;
        let all = async move {
            let mut ready = BTreeSet::new();
            while ready.len() < wanted {
                if let WatchEvent::Modified(monitor) = events.try_next().await?.context("the watch ended")?
                    && has_condition(&monitor, "Ready")
                {
                    ready.insert(monitor.metadata.name);
                }
            }
            Ok(())
        };
        Ok(async {
            tokio::time::timeout(PATIENCE, all)
                .await
                .context("not every monitor is Ready")?
        })
    }

    /// Milliseconds from sending an edit until it is answered, and until a watch shows the changed rule.
    pub async fn edits(&self, edits: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let monitors = self.api(WITH, &monitors());
        let rules = self.api(WITH, &resource("monitoring.coreos.com", "v1", "PrometheusRule"));
        let (mut answered, mut changed) = (Vec::new(), Vec::new());
        for n in 0..edits {
            let name = format!("bot-{}", n % self.size.monitors);
            let threshold = 600_000_000 + n;
            // From now on: a watch from the rule's own version would have to pass by all that came after it.
            let now = rules.list(&ListParams::default().limit(1)).await?.metadata;
            let version = now.resource_version.unwrap_or_default();
            let watch = WatchParams::default().fields(&format!("metadata.name={name}"));
            let mut events = rules.watch(&watch, &version).await?.boxed();
            // The watch took the client's idle connection; without another one a TLS handshake would be measured.
            monitors.get(&name).await?;
            let change = json!({ "spec": { "alerts": { "overrides": [
                { "alert": "HighMemoryUsage", "levels": [{ "severity": "warning", "threshold": threshold }] },
            ] } } });
            let start = Instant::now();
            monitors
                .patch(&name, &PatchParams::default(), &Patch::Merge(change))
                .await?;
            answered.push(start.elapsed().as_secs_f64() * 1e3);
            loop {
                let event = events.try_next().await?.context("the watch ended")?;
                if let WatchEvent::Modified(rule) = event
                    && rule.data.to_string().contains(&threshold.to_string())
                {
                    break;
                }
            }
            changed.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok((some(answered)?, some(changed)?))
    }

    /// Milliseconds that a client waits for a pod to be created with the registration, without it, and without it once more:
    /// how the last two differ is the noise of the measurement.
    pub async fn triples(&self, triples: usize) -> Result<[Vec<f64>; 3]> {
        let pods = resource("", "v1", "Pod");
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for n in 0..triples {
            for place in 0..3 {
                let which = (n + place) % 3;
                let namespace = if which == 0 { WITH } else { WITHOUT };
                let pod: DynamicObject = serde_json::from_value(Self::pod(&format!("pair-{n}-{which}"), "bot-0"))?;
                // What watches and garbage collector make of the last pod is not this one's time.
                tokio::time::sleep(PAUSE).await;
                let start = Instant::now();
                let made = self.api(namespace, &pods).create(&PostParams::default(), &pod).await?;
                times[which].push(start.elapsed().as_secs_f64() * 1e3);
                let injected = made
                    .metadata
                    .annotations
                    .is_some_and(|a| a.contains_key("rosey.dev/injected"));
                ensure!(
                    injected == (namespace == WITH),
                    "pod {n} in {namespace}: injected is {injected}"
                );
            }
        }
        ensure!(!times[0].is_empty(), "nothing was measured");
        Ok(times)
    }
}
