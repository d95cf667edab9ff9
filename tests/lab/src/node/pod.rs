//! One pod's life: bound, initialised, run, ended or deleted.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::container::{self, Role, Running};
use super::environment::Surroundings;
use super::image::Image;
use super::status::{self, Facts};
use super::volumes::Folders;
use super::{Ground, NODE_NAME};
use crate::stack;

/// What the containers of one pod share.
pub(crate) struct Place {
    pub(crate) ground: Arc<Ground>,
    pub(crate) object: watch::Receiver<Option<Pod>>,
    pub(crate) folders: Folders,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Where its processes listen.
    pub(crate) ip: Ipv4Addr,
    statuses: Mutex<BTreeMap<String, ContainerStatus>>,
    changed: Notify,
    init_failed: AtomicBool,
    finished: AtomicBool,
    start_time: Time,
}

/// Runs one pod from its first sight to its end.
pub(crate) async fn run(ground: Arc<Ground>, mut object: watch::Receiver<Option<Pod>>) {
    let Some(pod) = bound(&ground.client, &mut object).await else {
        return;
    };
    let (Some(namespace), Some(uid)) = (pod.namespace(), pod.uid()) else {
        return;
    };
    if pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| phase != "Pending")
    {
        return;
    }
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
    let ip = if host_network {
        Ok(ground.network.host())
    } else {
        ground.network.pod()
    };
    let ip = match ip {
        Ok(ip) => ip,
        Err(error) => return tracing::error!(%error, pod = pod.name_any(), "the pod does not start"),
    };
    let place = Arc::new(Place {
        folders: Folders {
            pod: ground.folder.join(&uid),
        },
        namespace,
        name: pod.name_any(),
        uid,
        ip,
        statuses: Mutex::default(),
        changed: Notify::new(),
        init_failed: AtomicBool::new(false),
        finished: AtomicBool::new(false),
        start_time: status::now(),
        ground,
        object,
    });
    tokio::select! {
        () = place.live() => {}
        () = place.report_changes() => {}
        () = place.refresh_volumes() => {}
    }
}

/// Binds the pod to the node, as a scheduler would, once nothing holds it back.
async fn bound(client: &Client, object: &mut watch::Receiver<Option<Pod>>) -> Option<Pod> {
    loop {
        let pod = object.borrow_and_update().clone()?;
        let spec = pod.spec.as_ref()?;
        match spec.node_name.as_deref() {
            Some(NODE_NAME) => return Some(pod),
            Some(_) => return None,
            None if spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
                && pod.metadata.deletion_timestamp.is_none() =>
            {
                let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace()?);
                let name = pod.name_any();
                let binding = json!({
                    "apiVersion": "v1", "kind": "Binding",
                    "metadata": {"name": name, "uid": pod.uid()},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": NODE_NAME},
                });
                let bound: kube::Result<Value> = api
                    .create_subresource("binding", &name, &PostParams::default(), &binding)
                    .await;
                match bound {
                    // What follows is the same whether the watch has shown the binding or not.
                    Ok(_) => return Some(pod),
                    Err(error) => {
                        tracing::debug!(%error, name, "not bound");
                        tokio::select! {
                            changed = object.changed() => changed.ok()?,
                            () = tokio::time::sleep(Duration::from_millis(500)) => {}
                        }
                    }
                }
            }
            None => object.changed().await.ok()?,
        }
    }
}

impl Place {
    /// The pod as it is now; the last that was seen if it is gone.
    pub(crate) fn pod(&self) -> Option<Pod> {
        self.object.borrow().clone()
    }

    /// A container as the pod's spec has it now.
    pub(crate) fn container(&self, name: &str) -> Option<Container> {
        let object = self.object.borrow();
        let spec = object.as_ref()?.spec.as_ref()?;
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .find(|container| container.name == name)
            .cloned()
    }

    pub(crate) fn restart_policy(&self) -> String {
        let object = self.object.borrow();
        let spec = object.as_ref().and_then(|pod| pod.spec.as_ref());
        spec.and_then(|spec| spec.restart_policy.clone())
            .unwrap_or_else(|| "Always".to_owned())
    }

    /// The image that stands for `container`.
    pub(crate) fn image(&self, container: &Container) -> Image {
        let object = self.object.borrow();
        if object.as_ref().is_some_and(stack::runs_elsewhere) {
            return Image::NoProcess;
        }
        self.ground.images.find(container.image.as_deref().unwrap_or_default())
    }

    /// Changes what is reported of a container.
    pub(crate) fn record(&self, container: &Container, change: impl FnOnce(&mut ContainerStatus)) {
        let mut statuses = self.statuses();
        let status = statuses
            .entry(container.name.clone())
            .or_insert_with(|| status::fresh(container, "ContainerCreating"));
        change(status);
        drop(statuses);
        self.changed.notify_one();
    }

    fn statuses(&self) -> MutexGuard<'_, BTreeMap<String, ContainerStatus>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn surroundings<'a>(&'a self, pod: &'a Pod) -> Surroundings<'a> {
        Surroundings {
            pod,
            pod_ip: IpAddr::V4(self.ip),
            host_ip: IpAddr::V4(self.ground.network.host()),
            objects: &self.ground.objects,
        }
    }

    async fn live(self: &Arc<Self>) {
        let running: Mutex<Vec<Arc<Running>>> = Mutex::default();
        let deleted = tokio::select! {
            () = self.work(&running) => false,
            () = self.deletion() => true,
        };
        let grace = self.grace();
        let running = running.into_inner().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + grace;
        let (sidecars, others): (Vec<_>, Vec<_>) = running.iter().partition(|running| running.role == Role::Sidecar);
        join_all(others.iter().map(|running| running.stop(deadline))).await;
        for sidecar in sidecars.iter().rev() {
            sidecar.stop(deadline).await;
        }
        if !deleted {
            self.finished.store(true, Ordering::Relaxed);
            self.report().await;
            self.deletion().await;
        } else if self.pod().is_some() {
            self.report().await;
        }
        self.remove().await;
    }

    /// Starts the containers in their order and comes back when the pod has nothing left to do.
    async fn work(self: &Arc<Self>, running: &Mutex<Vec<Arc<Running>>>) {
        let Some(spec) = self.pod().and_then(|pod| pod.spec) else {
            return;
        };
        self.changed.notify_one();
        self.volumes_ready().await;
        let start = |container: &Container, role: Role| {
            let started = container::start(self.clone(), container, role);
            running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(started.clone());
            started
        };
        for container in spec.init_containers.iter().flatten() {
            if status::is_sidecar(container) {
                start(container, Role::Sidecar).started().await;
            } else if !start(container, Role::Init).finished().await {
                self.init_failed.store(true, Ordering::Relaxed);
                return;
            }
        }
        let mains: Vec<_> = spec
            .containers
            .iter()
            .map(|container| start(container, Role::Main))
            .collect();
        join_all(mains.iter().map(|main| main.finished())).await;
    }

    /// True if no process of the pod will ever look into a volume.
    fn needs_no_volumes(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return true };
        spec.volumes.as_ref().is_none_or(Vec::is_empty)
            || spec
                .init_containers
                .iter()
                .flatten()
                .chain(&spec.containers)
                .all(|c| self.image(c) == Image::NoProcess)
    }

    async fn volumes_ready(&self) {
        let mut changed = self.ground.objects.changed.clone();
        loop {
            changed.borrow_and_update();
            let Some(pod) = self.pod() else { return };
            if self.needs_no_volumes(&pod) {
                return;
            }
            let Err(error) = self.folders.refresh(&pod, &self.ground.objects) else {
                return;
            };
            for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
                self.record(container, |status| {
                    status.state = Some(status::waiting("ContainerCreating", format!("{error:#}")));
                });
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Carries later changes of `ConfigMap`s and Secrets into the volumes.
    async fn refresh_volumes(&self) {
        let mut changed = self.ground.objects.changed.clone();
        while changed.changed().await.is_ok() {
            let Some(pod) = self.pod() else { break };
            if self.needs_no_volumes(&pod) {
                break;
            }
            if let Err(error) = self.folders.refresh(&pod, &self.ground.objects) {
                tracing::debug!(
                    error = format!("{error:#}"),
                    pod = self.name,
                    "volumes stay as they are"
                );
            }
        }
        std::future::pending::<()>().await;
    }

    /// Comes back when somebody has asked for the pod's deletion, or it is gone already.
    async fn deletion(&self) {
        let mut object = self.object.clone();
        let asked = |pod: &Option<Pod>| pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
        let _ = object.wait_for(asked).await;
    }

    fn grace(&self) -> Duration {
        let seconds = match self.pod() {
            // Gone without a word: nothing is left to be polite to.
            None => 0,
            Some(pod) => pod
                .metadata
                .deletion_grace_period_seconds
                .or_else(|| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds))
                .unwrap_or(30),
        };
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    async fn remove(&self) {
        let preconditions = Preconditions {
            uid: Some(self.uid.clone()),
            resource_version: None,
        };
        let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
        if self.pod().is_some()
            && let Err(error) = self.api().delete(&self.name, &params).await
        {
            tracing::debug!(%error, pod = self.name, "not removed");
        }
        let _ = std::fs::remove_dir_all(&self.folders.pod);
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.ground.client.clone(), &self.namespace)
    }

    async fn report_changes(&self) {
        loop {
            self.changed.notified().await;
            self.report().await;
        }
    }

    async fn report(&self) {
        let Some(pod) = self.pod() else { return };
        let status = Facts {
            pod: &pod,
            containers: &self.statuses(),
            address: Some(stack::address_of(&pod, self.ip)),
            host: self.ground.network.host().to_string(),
            start_time: Some(self.start_time.clone()),
            init_failed: self.init_failed.load(Ordering::Relaxed),
            finished: self.finished.load(Ordering::Relaxed),
        }
        .status();
        // Strategic: conditions are merged by their type, so that those of others (PodScheduled) stay.
        let patch = Patch::Strategic(json!({"metadata": {"uid": self.uid}, "status": status}));
        for _ in 0..5 {
            match self
                .api()
                .patch_status(&self.name, &PatchParams::default(), &patch)
                .await
            {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(error) => {
                    tracing::debug!(%error, pod = self.name, "the status was not taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
