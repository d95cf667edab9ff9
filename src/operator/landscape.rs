//! What stands around the monitors: prometheus-operator's definitions, its Prometheus and Alertmanager objects, the labels of
//! the namespaces, and the platform that follows from them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::area::Area;
use super::key::{Key, Queue};
use super::monitors::Monitors;
use crate::cluster::platform::{VERSION_ANNOTATION, discovered};
use crate::cluster::stack::{Alertmanager, AlertmanagerSpec, Prometheus, PrometheusSpec};
use crate::plan::{Kind, Platform};

const GROUP: &str = ".monitoring.coreos.com";

/// Namespace and name.
pub type Place = (String, String);
type Labels = BTreeMap<String, String>;

/// Something that is watched, and may not be readable.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Access<T> {
    /// Not read yet, or its kind does not exist.
    #[default]
    Absent,
    /// The operator may not read it.
    Refused,
    /// As it was last seen.
    Known(T),
}

/// Everything that decides about the condition Selected.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The namespaces whose objects are seen; none where all are.
    pub only: Vec<String>,
    /// All Prometheus objects.
    pub prometheuses: Access<BTreeMap<Place, PrometheusSpec>>,
    /// All Alertmanager objects.
    pub alertmanagers: Access<BTreeMap<Place, AlertmanagerSpec>>,
}

#[derive(Debug, Default)]
struct Inner {
    view: Arc<View>,
    namespaces: Access<HashMap<String, Labels>>,
    /// Versions of prometheus-operator's definitions by plural name.
    definitions: BTreeMap<String, Option<String>>,
    prometheuses: BTreeMap<Place, PrometheusSpec>,
    alertmanagers: BTreeMap<Place, AlertmanagerSpec>,
    // What the relists in progress have shown. Until one is complete, what was known before it holds.
    listed_definitions: BTreeMap<String, Option<String>>,
    listed_prometheuses: BTreeMap<Place, PrometheusSpec>,
    listed_alertmanagers: BTreeMap<Place, AlertmanagerSpec>,
    listed_namespaces: HashMap<String, Labels>,
    /// Kinds whose objects could be listed, so that the API server serves them by now.
    listed: BTreeSet<Kind>,
}

/// What stands around the monitors.
#[derive(Debug)]
pub struct Landscape {
    inner: Mutex<Inner>,
    base: Platform,
    server: Info,
    monitors: Monitors,
    queue: Queue,
    platform: watch::Sender<Arc<Platform>>,
    /// Plural names of prometheus-operator's kinds that are installed; `None` until that is known.
    served: watch::Sender<Option<BTreeSet<String>>>,
}

impl Landscape {
    /// Knows nothing but the operator's settings and the version of the API server.
    #[must_use]
    pub fn new(base: Platform, server: Info, monitors: Monitors, queue: Queue) -> Self {
        let platform = watch::Sender::new(Arc::new(discovered(&base, &server, None, [].iter())));
        Self {
            inner: Mutex::default(),
            base,
            server,
            monitors,
            queue,
            platform,
            served: watch::Sender::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the platform.
    #[must_use]
    pub fn platform(&self) -> watch::Receiver<Arc<Platform>> {
        self.platform.subscribe()
    }

    /// Follows which kinds of prometheus-operator are installed, by plural name.
    #[must_use]
    pub fn served(&self) -> watch::Receiver<Option<BTreeSet<String>>> {
        self.served.subscribe()
    }

    /// The kinds of a plan that the API server does not serve: not installed, or only just.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<Kind> {
        let inner = self.lock();
        let absent = |kind: &Kind| *kind != Kind::ConfigMap && !inner.listed.contains(kind);
        Kind::ALL.into_iter().filter(absent).collect()
    }

    /// The objects of a kind could be listed, so the API server serves it.
    pub fn kind_served(&self, kind: Kind) {
        let mut inner = self.lock();
        let came = inner.listed.insert(kind);
        self.settle(inner, came);
    }

    /// A kind of a plan is no longer installed.
    pub fn kind_withdrawn(&self, kind: Kind) {
        let mut inner = self.lock();
        let went = inner.listed.remove(&kind);
        self.settle(inner, went);
    }

    /// What decides about the condition Selected.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.lock().view)
    }

    /// The labels of a namespace; `None` if the operator may not read them.
    #[must_use]
    pub fn labels_of(&self, namespace: &str) -> Option<Labels> {
        match &self.lock().namespaces {
            Access::Known(namespaces) => Some(namespaces.get(namespace).cloned().unwrap_or_default()),
            Access::Absent | Access::Refused => None,
        }
    }

    /// Sees the Prometheus and Alertmanager objects of these namespaces only; of none, all.
    #[must_use]
    pub fn seeing(self, namespaces: impl IntoIterator<Item = String>) -> Self {
        Arc::make_mut(&mut self.lock().view).only = namespaces.into_iter().collect();
        self
    }

    /// Takes in which kinds of prometheus-operator the API server says that it serves, by plural name. Their version is not
    /// known by that; one that was read before is the best that there is.
    pub fn discovered(&self, plurals: BTreeSet<String>) {
        let mut inner = self.lock();
        let mut before = std::mem::take(&mut inner.definitions);
        let now = plurals.into_iter().map(|plural| {
            let version = before.remove(&plural).flatten();
            (plural, version)
        });
        inner.definitions = now.collect();
        self.serve(inner);
    }

    /// Takes in what the watch of the definitions says.
    pub fn definitions(&self, event: Event<PartialObjectMeta<CustomResourceDefinition>>) {
        let mut inner = self.lock();
        let plural = |metadata: &ObjectMeta| metadata.name.as_deref()?.strip_suffix(GROUP).map(str::to_owned);
        match event {
            Event::Init => {
                inner.listed_definitions.clear();
                return;
            }
            Event::InitApply(definition) => {
                let plural = plural(&definition.metadata);
                install(&mut inner.listed_definitions, plural, &definition.metadata);
                return;
            }
            Event::Apply(definition) => {
                let plural = plural(&definition.metadata);
                install(&mut inner.definitions, plural, &definition.metadata);
            }
            Event::Delete(definition) => {
                if let Some(plural) = plural(&definition.metadata) {
                    inner.definitions.remove(&plural);
                }
            }
            Event::InitDone => inner.definitions = std::mem::take(&mut inner.listed_definitions),
        }
        self.serve(inner);
    }

    /// Tells which kinds are installed.
    fn serve(&self, inner: MutexGuard<'_, Inner>) {
        let served: BTreeSet<String> = inner.definitions.keys().cloned().collect();
        let changed = self.served.send_if_modified(|now| {
            let changed = now.as_ref() != Some(&served);
            *now = Some(served);
            changed
        });
        self.settle(inner, changed);
    }

    /// Takes in what the watch of the Prometheus objects of an area says; `None` means that it is refused.
    pub fn prometheuses(&self, area: &Area, event: Option<Event<Prometheus>>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (all, listed) = (&mut inner.prometheuses, &mut inner.listed_prometheuses);
        let access = take(all, listed, area, event, |object| (object.metadata, object.spec));
        let Some(access) = access else { return };
        let changed = inner.view.prometheuses != access;
        if changed {
            Arc::make_mut(&mut inner.view).prometheuses = access;
        }
        self.settle(guard, changed);
    }

    /// Takes in what the watch of the Alertmanager objects of an area says; `None` means that it is refused.
    pub fn alertmanagers(&self, area: &Area, event: Option<Event<Alertmanager>>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (all, listed) = (&mut inner.alertmanagers, &mut inner.listed_alertmanagers);
        let access = take(all, listed, area, event, |object| (object.metadata, object.spec));
        let Some(access) = access else { return };
        let changed = inner.view.alertmanagers != access;
        if changed {
            Arc::make_mut(&mut inner.view).alertmanagers = access;
        }
        self.settle(guard, changed);
    }

    /// The kind with this plural name is no longer installed.
    pub fn kind_gone(&self, plural: &str) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let view = Arc::make_mut(&mut inner.view);
        match plural {
            "prometheuses" => {
                view.prometheuses = Access::Absent;
                inner.prometheuses.clear();
            }
            "alertmanagers" => {
                view.alertmanagers = Access::Absent;
                inner.alertmanagers.clear();
            }
            _ => return,
        }
        self.settle(guard, true);
    }

    /// Takes in what the watch of the namespaces says; `None` means that it is refused.
    pub fn namespaces(&self, event: Option<Event<PartialObjectMeta<Namespace>>>) {
        let mut inner = self.lock();
        let entry = |namespace: PartialObjectMeta<Namespace>| {
            (
                namespace.metadata.name.unwrap_or_default(),
                namespace.metadata.labels.unwrap_or_default(),
            )
        };
        match event {
            None => inner.namespaces = Access::Refused,
            Some(Event::Init) => inner.listed_namespaces.clear(),
            Some(Event::InitApply(namespace)) => {
                let (name, labels) = entry(namespace);
                inner.listed_namespaces.insert(name, labels);
            }
            Some(Event::InitDone) => {
                let listed = std::mem::take(&mut inner.listed_namespaces);
                let before = std::mem::replace(&mut inner.namespaces, Access::Known(listed.clone()));
                drop(inner);
                let before = if let Access::Known(before) = before {
                    before
                } else {
                    HashMap::new()
                };
                for (name, _) in listed.iter().filter(|(name, labels)| before.get(*name) != Some(labels)) {
                    self.push_namespace(name);
                }
            }
            Some(Event::Apply(namespace)) => {
                let (name, labels) = entry(namespace);
                if let Access::Known(namespaces) = &mut inner.namespaces {
                    let before = namespaces.insert(name.clone(), labels.clone());
                    drop(inner);
                    if before.as_ref() != Some(&labels) {
                        self.push_namespace(&name);
                    }
                }
            }
            Some(Event::Delete(namespace)) => {
                if let Access::Known(namespaces) = &mut inner.namespaces {
                    namespaces.remove(&entry(namespace).0);
                }
            }
        }
    }

    /// Publishes the platform, and makes every monitor due if anything `changed`.
    fn settle(&self, inner: MutexGuard<'_, Inner>, changed: bool) {
        let version = inner.definitions.values().flatten().next().map(String::as_str);
        let platform = discovered(&self.base, &self.server, version, inner.alertmanagers.values());
        drop(inner);
        let renewed = self.platform.send_if_modified(|now| {
            let renewed = **now != platform;
            if renewed {
                *now = Arc::new(platform);
            }
            renewed
        });
        if changed || renewed {
            for monitor in self.monitors.store().state() {
                self.queue.push(&Key::of(&monitor));
            }
        }
    }

    fn push_namespace(&self, namespace: &str) {
        self.monitors
            .each_in(namespace, |monitor| self.queue.push(&Key::of(monitor)));
    }
}

fn install(definitions: &mut BTreeMap<String, Option<String>>, plural: Option<String>, metadata: &ObjectMeta) {
    let Some(plural) = plural else { return };
    if metadata.deletion_timestamp.is_some() {
        // The API server lets nobody create anything of a kind that is going.
        definitions.remove(&plural);
    } else {
        let version = metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(VERSION_ANNOTATION));
        definitions.insert(plural, version.cloned());
    }
}

/// Takes an event into `all`; answers what is now known, or `None` in the middle of a relist, which is `listed` until it is
/// complete.
fn take<K, S: Clone>(
    all: &mut BTreeMap<Place, S>,
    listed: &mut BTreeMap<Place, S>,
    area: &Area,
    event: Option<Event<K>>,
    open: impl Fn(K) -> (ObjectMeta, S),
) -> Option<Access<BTreeMap<Place, S>>> {
    let place = |metadata: ObjectMeta| {
        (
            metadata.namespace.unwrap_or_default(),
            metadata.name.unwrap_or_default(),
        )
    };
    match event {
        None if *area == Area::Cluster => return Some(Access::Refused),
        None => all.retain(|(namespace, _), _| !area.has(namespace)),
        Some(Event::Init) => {
            listed.retain(|(namespace, _), _| !area.has(namespace));
            return None;
        }
        Some(Event::InitApply(object)) => {
            let (metadata, spec) = open(object);
            listed.insert(place(metadata), spec);
            return None;
        }
        Some(Event::Apply(object)) => {
            let (metadata, spec) = open(object);
            all.insert(place(metadata), spec);
        }
        Some(Event::Delete(object)) => {
            all.remove(&place(open(object).0));
        }
        Some(Event::InitDone) => {
            all.retain(|(namespace, _), _| !area.has(namespace));
            let (here, others) = std::mem::take(listed)
                .into_iter()
                .partition::<BTreeMap<_, _>, _>(|((namespace, _), _)| area.has(namespace));
            *listed = others;
            all.extend(here);
        }
    }
    Some(Access::Known(all.clone()))
}

#[cfg(test)]
mod tests;
