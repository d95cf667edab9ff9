//! What the scenarios play on: the cluster, with ways to ask it and to wait for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use lab::{Alertmanager, Manifests, Prometheus, condition};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::images::Images;
use crate::release::{INJECTOR, Version};
use crate::stack::MONITORING;

/// Longer than anything takes that does not wait for a kubelet's next look at a configuration; used up by failures only.
pub const SOON: Duration = Duration::from_secs(90);
/// A kubelet reads a configuration again within some 75 seconds, and Prometheus gets its rules and targets by one.
pub const PROPAGATED: Duration = Duration::from_secs(180);
/// The kinds, as [`lab::Manifests`] names them.
pub const MONITOR: &str = "rosey.dev/v1alpha1/RoseyMonitor";
pub const POD: &str = "v1/Pod";
/// The container that is injected.
pub const EXPORTER: &str = "rosey-exporter";

/// What Pod Security `restricted` wants of a pod.
#[must_use]
pub fn restricted() -> Value {
    json!({"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}})
}

/// What it wants of a container.
#[must_use]
pub fn restricted_container() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
}

/// The cluster, the images in it, and what answers there.
pub struct Stage {
    pub cluster: Cluster,
    pub images: Images,
    /// The version that is tested.
    pub current: Version,
    /// An earlier one, to upgrade from.
    pub from: Option<Version>,
    pub manifests: Manifests,
    pub prometheus: Prometheus,
    pub alertmanager: Alertmanager,
    pub http: reqwest::Client,
}

impl Stage {
    /// # Errors
    /// When no client can be made.
    pub fn new(cluster: Cluster, images: Images) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?;
        let service = |name: &str| {
            format!(
                "{}/api/v1/namespaces/{MONITORING}/services/{name}:web/proxy",
                cluster.proxy
            )
        };
        Ok(Self {
            manifests: Manifests::new(cluster.client.clone()),
            prometheus: Prometheus::at(service("prometheus-operated"), http.clone()),
            alertmanager: Alertmanager::at(service("alertmanager-operated"), http.clone()),
            current: Version::current(&images),
            from: None,
            images,
            http,
            cluster,
        })
    }

    /// Applies an object, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, object: &Value) -> Result<DynamicObject> {
        let applied = self.manifests.apply("kind-test", object, "default").await;
        applied.with_context(|| format!("apply {} {}", object["kind"], object["metadata"]["name"]))
    }

    /// A namespace that enforces Pod Security `restricted`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.apply(&namespace).await.map(drop)
    }

    /// The objects of a kind in a namespace.
    #[must_use]
    pub fn api(&self, kind: &str, plural: &str, namespace: &str) -> Api<DynamicObject> {
        let (api_version, kind) = kind.rsplit_once('/').unwrap_or(("v1", kind));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Api::namespaced_with(self.cluster.client.clone(), namespace, &resource)
    }

    /// A merge patch of a monitor.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn patch_monitor(&self, namespace: &str, name: &str, patch: &Value) -> Result<DynamicObject> {
        let api = self.api(MONITOR, "roseymonitors", namespace);
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.with_context(|| format!("patch monitor {namespace}/{name} with {patch}"))
    }

    /// Waits until the status of a monitor speaks of what it says now, and is as wanted.
    ///
    /// # Errors
    /// As [`Manifests::until`].
    pub async fn until_monitor(
        &self,
        deadline: Duration,
        namespace: &str,
        name: &str,
        accept: impl Fn(&DynamicObject) -> bool,
    ) -> Result<DynamicObject> {
        self.manifests
            .until(deadline, MONITOR, namespace, name, |monitor| {
                monitor.data["status"]["observedGeneration"] == json!(monitor.metadata.generation) && accept(monitor)
            })
            .await
    }

    /// Waits until every pod of a monitor carries an exporter that runs and is none of an older image.
    ///
    /// # Errors
    /// As [`Manifests::until`].
    pub async fn until_injected(&self, namespace: &str, name: &str, pods: usize) -> Result<DynamicObject> {
        let summary = json!(format!("{pods}/{pods}"));
        self.until_monitor(SOON, namespace, name, |monitor| {
            let sidecars = &monitor.data["status"]["sidecars"];
            says(monitor, "Injected", "True", "Injected") && sidecars["summary"] == summary && sidecars["outdated"] == 0
        })
        .await
    }

    /// The pods that a label selector finds, without those that are about to end.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<DynamicObject>> {
        let pods = self
            .api(POD, "pods", namespace)
            .list(&ListParams::default().labels(selector))
            .await?;
        Ok(pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect())
    }

    /// Waits until a pod of this app that is only tried comes back with an exporter.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until_registered(&self, namespace: &str, app: &str) -> Result<()> {
        let pod = serde_json::from_value(crate::bots::idle_pod(self, "try", app))?;
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        lab::until(SOON, &format!("pods of {namespace} to be injected"), async || {
            Ok(is_injected(&self.api(POD, "pods", namespace).create(&dry, &pod).await?))
        })
        .await
    }

    /// Waits until the registration of the injector names a namespace.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until_registered_in(&self, namespace: &str) -> Result<()> {
        let (kind, name) = INJECTOR;
        let quoted = format!("{namespace:?}");
        self.manifests
            .until(SOON, kind, "", name, |registration| {
                registration.data["webhooks"].to_string().contains(&quoted)
            })
            .await
            .map(drop)
    }

    /// Posts to, or reads from, a port of a pod.
    ///
    /// # Errors
    /// When it does not answer, or with an error.
    pub async fn ask(&self, pod: (&str, &str, u16), path: &str, body: Option<&Value>) -> Result<String> {
        let (namespace, name, port) = pod;
        let url = format!(
            "{}/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy{path}",
            self.cluster.proxy
        );
        let request = body.map_or_else(|| self.http.get(&url), |body| self.http.post(&url).json(body));
        let asked = || format!("ask {namespace}/{name}:{port}{path}");
        let answer = request.send().await.with_context(asked)?;
        let (status, said) = (answer.status(), answer.text().await.with_context(asked)?);
        ensure!(status.is_success(), "{}: {status}: {said}", asked());
        Ok(said)
    }
}

/// Whether a condition has this status and reason.
#[must_use]
pub fn says(object: &DynamicObject, kind: &str, status: &str, reason: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == status && condition["reason"] == reason)
}

/// Whether a pod carries an exporter.
#[must_use]
pub fn is_injected(pod: &DynamicObject) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key("rosey.dev/injected"))
        && ["containers", "initContainers"]
            .into_iter()
            .any(|list| named(&pod.data["spec"][list], EXPORTER).is_some())
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item["name"] == name)
}

/// The status of a container, whether it is one that comes first or not; null where the kubelet has told of none.
#[must_use]
pub fn container<'a>(pod: &'a DynamicObject, name: &str) -> &'a Value {
    let status = &pod.data["status"];
    let lists = ["containerStatuses", "initContainerStatuses"];
    lists
        .into_iter()
        .find_map(|list| named(&status[list], name))
        .unwrap_or(&Value::Null)
}

/// What of a container must not change while it is left alone.
#[must_use]
pub fn untouched(pod: &DynamicObject, name: &str) -> Value {
    let of = container(pod, name);
    json!([
        of["containerID"],
        of["restartCount"],
        of["state"]["running"]["startedAt"],
        pod.data["status"]["startTime"],
        pod.metadata.uid
    ])
}

/// A pod's name.
#[must_use]
pub fn name(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}
