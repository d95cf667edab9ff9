//! Pods that a quota or a limit range refuses because of the exporter. Nobody says so but the Event of the workload that wanted
//! them, and that doesn't name the monitor: the workload's template does, by its labels.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::events::v1::Event as ClusterEvent;
use kube::Client;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::json;

use super::area::Area;
use super::key::{Key, Queue};
use super::monitors::Monitors;
use super::sidecars::Pods;
use crate::api::RoseyMonitor;
use crate::plan::Platform;
use crate::plan::injection::{Injection, inject, selects};

mod refusal;
mod workload;

use refusal::{Refusal, read};
use workload::{Workload, get, owner, resources, who};

/// Which Events are watched.
pub const FIELDS: &str = "reason=FailedCreate";
/// Refusals that are kept of a namespace: the latest.
const KEPT: usize = 32;
/// How long a refusal holds that isn't repeated, in seconds. Controllers try again after 1000 s at the latest.
const HOLDS: i64 = 1200;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why it can't be said whether pods are refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server's answer.
    #[error("{workload} could not be read: {source}")]
    Read {
        /// Kind and name.
        workload: String,
        /// The API server's answer.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("{workload} could not be read in {} s", TIMEOUT.as_secs())]
    Timeout {
        /// Kind and name.
        workload: String,
    },
}

/// What is to be said to a monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// One line.
    pub message: String,
    /// How long it holds unless it is repeated.
    pub holds: Duration,
}

#[derive(Debug, Default)]
struct Refused {
    /// By the name of the Event.
    events: HashMap<Box<str>, Refusal>,
    /// By uid.
    workloads: HashMap<Box<str>, Workload>,
}

impl Refused {
    fn insert(&mut self, event: &str, refusal: Refusal) {
        self.events.insert(event.into(), refusal);
        if self.events.len() > KEPT {
            let oldest = self.events.iter().min_by_key(|(_, refusal)| refusal.seen);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.events.remove(&oldest);
            }
        }
    }

    /// Forgets workloads without a refusal.
    fn prune(&mut self) {
        let Self { events, workloads } = self;
        workloads.retain(|uid, _| events.values().any(|refusal| refusal.uid == *uid));
    }

    /// The latest refusal of each workload that still holds, in the order of their names.
    fn latest(&self, now: i64) -> Vec<Refusal> {
        let mut latest: HashMap<&str, &Refusal> = HashMap::new();
        for refusal in self.events.values().filter(|refusal| refusal.seen + HOLDS > now) {
            let of = latest.entry(&refusal.uid).or_insert(refusal);
            if refusal.seen > of.seen {
                *of = refusal;
            }
        }
        let mut latest: Vec<_> = latest.into_values().cloned().collect();
        latest.sort_by(|a, b| (a.kind, &a.name, &a.uid).cmp(&(b.kind, &b.name, &b.uid)));
        latest
    }
}

type All = HashMap<Box<str>, Refused>;

/// Workloads whose pods were refused, in the namespaces that have monitors.
#[derive(Debug)]
pub struct RefusedPods {
    all: Mutex<All>,
    listed: Mutex<All>,
    monitors: Monitors,
    queue: Queue,
}

impl RefusedPods {
    /// Knows none yet, and tells `queue` which monitors a refusal may concern.
    #[must_use]
    pub fn new(monitors: Monitors, queue: Queue) -> Self {
        Self {
            all: Mutex::default(),
            listed: Mutex::default(),
            monitors,
            queue,
        }
    }

    /// Takes in what the watch of an area says. The monitors have to be listed before.
    pub fn observe(&self, area: &Area, event: Event<ClusterEvent>) {
        match event {
            Event::Init => lock(&self.listed).retain(|namespace, _| !area.has(namespace)),
            Event::InitApply(event) => {
                if let Some((namespace, name)) = self.place(&event)
                    && let Some(refusal) = read(event)
                {
                    lock(&self.listed).entry(namespace).or_default().insert(&name, refusal);
                }
            }
            Event::InitDone => {
                let listed = area.take(&mut lock(&self.listed), |namespace| namespace);
                self.replace(area, listed);
            }
            Event::Apply(event) => {
                let Some((namespace, name)) = self.place(&event) else {
                    return;
                };
                match read(event) {
                    Some(refusal) => self.refuse(&namespace, &name, refusal),
                    None => self.forget(&namespace, &name),
                }
            }
            Event::Delete(event) => {
                if let (Some(namespace), Some(name)) = (event.metadata.namespace, event.metadata.name) {
                    self.forget(&namespace, &name);
                }
            }
        }
    }

    /// Namespace and name of an Event in a namespace with monitors.
    fn place(&self, event: &ClusterEvent) -> Option<(Box<str>, Box<str>)> {
        let (namespace, name) = (event.metadata.namespace.as_deref()?, event.metadata.name.as_deref()?);
        let mut any = false;
        self.monitors.each_in(namespace, |_| any = true);
        any.then(|| (namespace.into(), name.into()))
    }

    fn replace(&self, area: &Area, mut listed: All) {
        let mut all = lock(&self.all);
        let mut before = area.take(&mut all, |namespace| namespace);
        let mut due: Vec<(Box<str>, Option<Workload>)> = Vec::new();
        for (namespace, now) in &mut listed {
            let old = before.remove(namespace).unwrap_or_default();
            now.workloads = old.workloads;
            let gone = old
                .events
                .iter()
                .filter(|(name, refusal)| now.events.get(*name) != Some(refusal));
            let came = now
                .events
                .iter()
                .filter(|(name, refusal)| old.events.get(*name) != Some(refusal));
            for (_, refusal) in gone.chain(came) {
                due.push((namespace.clone(), now.workloads.get(&refusal.uid).cloned()));
            }
            now.prune();
        }
        all.extend(listed);
        for (namespace, mut old) in before {
            for refusal in old.events.values() {
                due.push((namespace.clone(), old.workloads.remove(&refusal.uid)));
            }
        }
        drop(all);
        for (namespace, workload) in due {
            self.announce(&namespace, workload.as_ref());
        }
    }

    fn refuse(&self, namespace: &str, event: &str, refusal: Refusal) {
        let mut all = lock(&self.all);
        let refused = all.entry(namespace.into()).or_default();
        if refused.events.get(event) == Some(&refusal) {
            return;
        }
        let workload = refused.workloads.get(&refusal.uid).cloned();
        refused.insert(event, refusal);
        refused.prune();
        drop(all);
        self.announce(namespace, workload.as_ref());
    }

    fn forget(&self, namespace: &str, event: &str) {
        let mut all = lock(&self.all);
        let Some(refused) = all.get_mut(namespace) else { return };
        let Some(refusal) = refused.events.remove(event) else {
            return;
        };
        let workload = refused.workloads.get(&refusal.uid).cloned();
        refused.prune();
        if refused.events.is_empty() {
            all.remove(namespace);
        }
        drop(all);
        self.announce(namespace, workload.as_ref());
    }

    /// Makes the monitors due that select a workload's pods; all of the namespace as long as its labels are not known.
    fn announce(&self, namespace: &str, workload: Option<&Workload>) {
        self.monitors.each_in(namespace, |monitor| {
            let other =
                matches!(workload, Some(Workload::Known { labels, .. }) if !selects(&monitor.spec.selector, labels));
            if !other {
                self.queue.gather(&Key::of(monitor));
            }
        });
    }

    /// Whether pods are refused because of this monitor's exporter at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// When a workload that was refused can't be read.
    pub async fn of(
        &self,
        client: &Client,
        monitor: &RoseyMonitor,
        platform: &Platform,
        pods: &Pods,
        now: i64,
    ) -> Result<Option<Told>, Error> {
        let namespace = monitor.metadata.namespace.as_deref().unwrap_or_default();
        let latest = lock(&self.all).get(namespace).map(|refused| refused.latest(now));
        for refusal in latest.unwrap_or_default() {
            let Workload::Known {
                owner,
                labels,
                exporter,
            } = self.workload(client, monitor, platform, &refusal).await?
            else {
                continue;
            };
            if !selects(&monitor.spec.selector, &labels) {
                continue;
            }
            // Both times are whole seconds. A pod of the same second counts as later: what is still refused is tried again soon,
            // and said again then.
            if pods
                .latest_of(namespace, &owner)
                .is_some_and(|latest| latest >= refusal.seen)
            {
                self.settle(namespace, &refusal);
                continue;
            }
            let exporter = exporter.filter(|(of, _)| *of == who(monitor));
            if let Some(message) = exporter.and_then(|(_, resources)| refusal.message(&resources?)) {
                let left = (refusal.seen + HOLDS - now).clamp(1, HOLDS);
                return Ok(Some(Told {
                    message,
                    holds: Duration::from_secs(left.unsigned_abs()),
                }));
            }
        }
        Ok(None)
    }

    /// Forgets the refusals of a workload up to this one: it has got pods since.
    fn settle(&self, namespace: &str, over: &Refusal) {
        let mut all = lock(&self.all);
        if let Some(refused) = all.get_mut(namespace) {
            refused
                .events
                .retain(|_, refusal| refusal.uid != over.uid || refusal.seen > over.seen);
            refused.prune();
            if refused.events.is_empty() {
                all.remove(namespace);
            }
        }
    }

    /// What is known of the workload, read once for each monitor that selects its pods.
    async fn workload(
        &self,
        client: &Client,
        monitor: &RoseyMonitor,
        platform: &Platform,
        refusal: &Refusal,
    ) -> Result<Workload, Error> {
        let namespace = monitor.metadata.namespace.as_deref().unwrap_or_default();
        let known = lock(&self.all)
            .get(namespace)
            .and_then(|refused| refused.workloads.get(&refusal.uid).cloned());
        match known {
            Some(Workload::Unknown(at)) if at == refusal.seen => return Ok(Workload::Unknown(at)),
            Some(Workload::Known {
                owner,
                labels,
                exporter,
            }) if exporter.as_ref().is_some_and(|(of, _)| *of == who(monitor))
                || !selects(&monitor.spec.selector, &labels) =>
            {
                return Ok(Workload::Known {
                    owner,
                    labels,
                    exporter,
                });
            }
            _ => {}
        }
        let workload = match get(client, namespace, refusal).await? {
            Some(object) => self.judge(&object, monitor, platform, refusal),
            None => Workload::Unknown(refusal.seen),
        };
        if let Some(refused) = lock(&self.all).get_mut(namespace) {
            refused.workloads.insert(refusal.uid.clone(), workload.clone());
            refused.prune();
        }
        Ok(workload)
    }

    /// Does with the workload's template what the webhook does with its pods.
    fn judge(
        &self,
        object: &DynamicObject,
        monitor: &RoseyMonitor,
        platform: &Platform,
        refusal: &Refusal,
    ) -> Workload {
        let template = &object.data["spec"]["template"];
        let labels = serde_json::from_value(template["metadata"]["labels"].clone()).unwrap_or_default();
        let mut selecting = Vec::new();
        let namespace = monitor.metadata.namespace.as_deref().unwrap_or_default();
        self.monitors.each_in(namespace, |monitor| {
            if selects(&monitor.spec.selector, &labels) {
                selecting.push(monitor.clone());
            }
        });
        let pod = json!({"metadata": template["metadata"], "spec": template["spec"]});
        // That there would be no exporter is remembered too.
        let exporter = selects(&monitor.spec.selector, &labels).then(|| {
            let resources = match inject(&pod, &selecting, platform) {
                Injection::Patch { operations, .. } => resources(&operations),
                Injection::Nothing | Injection::Skipped { .. } => None,
            };
            (who(monitor), resources)
        });
        Workload::Known {
            owner: owner(refusal, object.metadata.owner_references.as_deref().unwrap_or_default()),
            labels,
            exporter,
        }
    }
}

fn lock(all: &Mutex<All>) -> MutexGuard<'_, All> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
