//! The node agent: plays kubelet and scheduler for the one node of the lab, with containers as local processes.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;

use crate::Tasks;
use crate::address::Network;
use crate::process::Supervisor;

mod container;
mod environment;
pub(crate) mod image;
mod pod;
mod probe;
mod status;
mod volumes;

use image::Images;

/// The node's name, as pods carry it in `spec.nodeName`.
pub const NODE_NAME: &str = "lab";

/// What every pod of the node shares.
pub(crate) struct Ground {
    pub(crate) client: Client,
    pub(crate) supervisor: Supervisor,
    pub(crate) network: Arc<Network>,
    pub(crate) images: Images,
    pub(crate) objects: Objects,
    pub(crate) tasks: Tasks,
    pub(crate) folder: PathBuf,
    pub(crate) logs: PathBuf,
    /// The pause before the second restart of a container in a row; doubles up to 30 times itself.
    pub(crate) back_off: Duration,
}

/// The `ConfigMap`s and Secrets of the cluster, always up to date.
pub(crate) struct Objects {
    config_maps: Store<ConfigMap>,
    secrets: Store<Secret>,
    /// Changes whenever one of them does.
    pub(crate) changed: watch::Receiver<()>,
}

impl Objects {
    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let object = self.config_maps.get(&ObjectRef::new(name).within(namespace))?;
        let text = object
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        let binary = object
            .binary_data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.0.clone()));
        Some(text.chain(binary).collect())
    }

    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let object = self.secrets.get(&ObjectRef::new(name).within(namespace))?;
        Some(
            object
                .data
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.0.clone()))
                .collect(),
        )
    }
}

/// Everything that the node is started with.
pub(crate) struct Start {
    pub(crate) client: Client,
    pub(crate) supervisor: Supervisor,
    pub(crate) network: Arc<Network>,
    pub(crate) images: Images,
    pub(crate) tasks: Tasks,
    pub(crate) folder: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) back_off: Duration,
}

/// Registers the node and runs its pods from now on.
pub(crate) async fn start(start: Start) -> Result<()> {
    let Start {
        client,
        supervisor,
        network,
        images,
        tasks,
        folder,
        logs,
        back_off,
    } = start;
    register(&client, network.host()).await?;

    let (tell, changed) = watch::channel(());
    let (config_maps, writer) = reflector::store();
    let stream = watcher(Api::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    tasks.spawn(drain(stream, tell.clone()));
    let (secrets, writer) = reflector::store();
    let stream = watcher(Api::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    tasks.spawn(drain(stream, tell));
    config_maps.wait_until_ready().await?;
    secrets.wait_until_ready().await?;

    let objects = Objects {
        config_maps,
        secrets,
        changed,
    };
    let ground = Ground {
        client,
        supervisor,
        network,
        images,
        objects,
        tasks: tasks.clone(),
        folder,
        logs,
        back_off,
    };
    tasks.spawn(run_pods(Arc::new(ground)));
    Ok(())
}

async fn drain<K>(stream: impl Stream<Item = watcher::Result<Event<K>>>, changes: watch::Sender<()>) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        if event.is_ok() {
            changes.send_replace(());
        }
    }
}

/// Hands every change of a pod to the task that runs it.
async fn run_pods(ground: Arc<Ground>) {
    let mut running: HashMap<String, watch::Sender<Option<Pod>>> = HashMap::new();
    let mut listed: Vec<String> = Vec::new();
    let pods: Api<Pod> = Api::all(ground.client.clone());
    let mut events = std::pin::pin!(watcher(pods, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.extend(pod.uid());
                seen(&ground, &mut running, pod);
            }
            Ok(Event::InitDone) => running.retain(|uid, pod| {
                let exists = listed.contains(uid);
                if !exists {
                    pod.send_replace(None);
                }
                exists
            }),
            Ok(Event::Apply(pod)) => seen(&ground, &mut running, pod),
            Ok(Event::Delete(pod)) => {
                if let Some(pod) = pod.uid().and_then(|uid| running.remove(&uid)) {
                    pod.send_replace(None);
                }
            }
            Err(error) => tracing::debug!(%error, "the watch of pods starts again"),
        }
    }
}

fn seen(ground: &Arc<Ground>, running: &mut HashMap<String, watch::Sender<Option<Pod>>>, pod: Pod) {
    let Some(uid) = pod.uid() else { return };
    if let Some(known) = running.get(&uid) {
        known.send_replace(Some(pod));
        return;
    }
    let (sender, receiver) = watch::channel(Some(pod));
    running.insert(uid, sender);
    ground.tasks.spawn(pod::run(ground.clone(), receiver));
}

async fn register(client: &Client, host: Ipv4Addr) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {
            "name": NODE_NAME,
            "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": NODE_NAME},
        },
    }))?;
    nodes
        .create(&kube::api::PostParams::default(), &node)
        .await
        .context("register the node")?;
    let room = json!({"cpu": "1000", "memory": "1000Gi", "pods": "60000", "ephemeral-storage": "1000Gi"});
    let now = status::now();
    let status = json!({"status": {
        "capacity": room,
        "allocatable": room,
        "addresses": [{"type": "InternalIP", "address": host.to_string()}, {"type": "Hostname", "address": NODE_NAME}],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the lab's node agent runs pods",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
        "nodeInfo": {
            "kubeletVersion": "v1.34.9", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            "containerRuntimeVersion": "lab://1", "osImage": "", "kernelVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
        },
    }});
    let params = kube::api::PatchParams::default();
    nodes
        .patch_status(NODE_NAME, &params, &kube::api::Patch::Merge(status))
        .await
        .context("report the node ready")?;
    // Admission of the API server taints a new node until a controller has seen it; the lab runs no such controller.
    let untaint = json!({"spec": {"taints": null}});
    nodes
        .patch(NODE_NAME, &params, &kube::api::Patch::Merge(untaint))
        .await
        .context("untaint the node")?;
    Ok(())
}
