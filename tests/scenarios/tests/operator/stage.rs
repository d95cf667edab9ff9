//! A lab with the product installed, and what the scenarios ask of it.

use std::ops::Deref;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use lab::{Builder, Lab, condition};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Longer than anything takes; used up by a failure only.
pub const SOON: Duration = Duration::from_secs(30);
/// For the garbage collector, which learns of new kinds every 30 s only.
pub const COLLECTED: Duration = Duration::from_secs(90);
pub const BOTS: &str = "bots";
pub const MONITOR: &str = "rosey.dev/v1alpha1/RoseyMonitor";
pub const CONFIG_MAP: &str = "v1/ConfigMap";
pub const POD_MONITOR: &str = "monitoring.coreos.com/v1/PodMonitor";
pub const RULE: &str = "monitoring.coreos.com/v1/PrometheusRule";
pub const ROUTES: &str = "monitoring.coreos.com/v1alpha1/AlertmanagerConfig";

/// The objects of the monitor of `examples/rosey.yaml`: kind, and what stands after its name.
pub const OBJECTS: [(&str, &str); 7] = [
    (CONFIG_MAP, "-exporter"),
    (POD_MONITOR, ""),
    (RULE, ""),
    (ROUTES, ""),
    (ROUTES, ".ops-discord"),
    (ROUTES, ".ops-slack"),
    (ROUTES, ".on-call"),
];

/// More labs at once than this starve each other on a small machine.
const LABS: u32 = 2;
static TURNS: Semaphore = Semaphore::const_new(LABS as usize);

pub struct Stage {
    lab: Lab,
    _turn: SemaphorePermit<'static>,
}

impl Deref for Stage {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// A lab without stack, with the product's definition and rights, and the namespace of the bots.
pub async fn stage(change: impl FnOnce(Builder) -> Builder) -> Result<Stage> {
    build(TURNS.acquire().await?, change).await
}

/// As [`stage`], with no other lab beside it: for what is measured.
pub async fn stage_alone(change: impl FnOnce(Builder) -> Builder) -> Result<Stage> {
    build(TURNS.acquire_many(LABS).await?, change).await
}

/// As [`stage`], before anything of the product is installed.
pub async fn empty_stage(change: impl FnOnce(Builder) -> Builder) -> Result<Stage> {
    let turn = TURNS.acquire().await?;
    let lab = change(Lab::builder().without_stack().rosey()?).start().await?;
    lab.namespace(BOTS).await?;
    Ok(Stage { lab, _turn: turn })
}

async fn build(turn: SemaphorePermit<'static>, change: impl FnOnce(Builder) -> Builder) -> Result<Stage> {
    let lab = change(Lab::builder().without_stack().rosey()?).start().await?;
    lab.install_rosey().await?;
    lab.namespace(BOTS).await?;
    Ok(Stage { lab, _turn: turn })
}

impl Stage {
    pub fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (api_version, kind) = kind.rsplit_once('/').unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client(), namespace, &resource)
    }

    /// A JSON merge patch, as `kubectl patch --type merge` sends it.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, patch: Value) -> Result<DynamicObject> {
        let api = self.api(kind, namespace);
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.with_context(|| format!("patch {kind} {namespace}/{name}"))
    }

    /// An object that must exist.
    pub async fn object(&self, kind: &str, namespace: &str, name: &str) -> Result<DynamicObject> {
        self.api(kind, namespace)
            .get(name)
            .await
            .with_context(|| format!("read {kind} {namespace}/{name}"))
    }

    /// The monitor of `examples/rosey.yaml` under another name and namespace, as JSON.
    pub fn example(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<Value> {
        self.monitor("examples/rosey.yaml", |monitor| {
            monitor["metadata"] = json!({"name": name, "namespace": namespace});
            change(monitor);
        })
    }

    /// Applies the monitor of `examples/rosey.yaml` under another name and namespace.
    pub async fn watch_bot(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.apply(&self.example(namespace, name, change)?.to_string())
            .await
            .map(drop)
    }

    /// Waits for a status that speaks of the current generation and that `accept` says yes to.
    pub async fn status(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        accept: impl Fn(&DynamicObject) -> bool,
    ) -> Result<DynamicObject> {
        let of_this_generation = |monitor: &DynamicObject| {
            monitor.data["status"]["observedGeneration"] == json!(monitor.metadata.generation)
        };
        self.until_object(SOON, MONITOR, namespace, name, |monitor| {
            of_this_generation(monitor) && accept(monitor)
        })
        .await
        .with_context(|| format!("{name}: {what}"))
    }

    pub async fn ready(&self, namespace: &str, name: &str) -> Result<DynamicObject> {
        self.status(namespace, name, "Ready", |monitor| {
            says(monitor, "Ready", "True", "Applied")
        })
        .await
    }

    /// Polls an object until `accept` says yes, and how long that took. `None` is an object that is not there.
    pub async fn mended(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        accept: impl Fn(&DynamicObject) -> Result<()>,
    ) -> Result<Duration> {
        let (api, started) = (self.api(kind, namespace), Instant::now());
        loop {
            let judged = match api.get_opt(name).await? {
                Some(object) => accept(&object),
                None => Err(anyhow::anyhow!("it is not there")),
            };
            match judged {
                Ok(()) => return Ok(started.elapsed()),
                Err(why) => ensure!(started.elapsed() < SOON, "{kind} {name} is not as before: {why:#}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether a condition has this status and reason.
pub fn says(object: &DynamicObject, kind: &str, status: &str, reason: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == status && condition["reason"] == reason)
}

/// The message of a condition; empty without one.
pub fn message(object: &DynamicObject, kind: &str) -> String {
    condition(object, kind)
        .and_then(|condition| condition["message"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// An object of this kind with the least that makes one, all of it called `word`, as nobody makes it for a monitor.
pub fn least(kind: &str, namespace: &str, name: &str, word: &str) -> Value {
    let (api_version, short) = kind.rsplit_once('/').unwrap();
    let (part, content) = match kind {
        CONFIG_MAP => ("data", json!({word: "yes"})),
        POD_MONITOR => ("spec", json!({"selector": {}, "podMetricsEndpoints": [{"port": word}]})),
        RULE => (
            "spec",
            json!({"groups": [{"name": word, "rules": [{"alert": "Some", "expr": "vector(1)"}]}]}),
        ),
        ROUTES => (
            "spec",
            json!({"receivers": [{"name": word}], "route": {"receiver": word}}),
        ),
        other => panic!("no {other} belongs to a monitor"),
    };
    json!({"apiVersion": api_version, "kind": short, "metadata": {"name": name, "namespace": namespace}, part: content})
}

/// Says something that stands in the output of a test that passes, too; `println!` is seen of those that fail only.
pub fn tell(line: &str) -> Result<()> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// What the operator alone decides of an object: `spec` or `data`.
pub fn content(object: &DynamicObject) -> Value {
    json!({"spec": object.data["spec"], "data": object.data["data"]})
}

pub fn version(object: &DynamicObject) -> String {
    object.metadata.resource_version.clone().unwrap_or_default()
}

/// The median and the longest of some times, for a line of the test's output.
pub fn summary(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    format!(
        "median {:?}, longest {:?} of {}",
        times[times.len() / 2],
        times[times.len() - 1],
        times.len()
    )
}
