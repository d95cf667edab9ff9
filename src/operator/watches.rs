//! Which watches there are, and which cache each one fills.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use k8s_openapi::api::core::v1::{Namespace, Pod as FullPod};
use k8s_openapi::api::events::v1::Event as ClusterEvent;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DynamicObject;
use kube::core::{ApiResource, DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use super::Error;
use super::area::Area;
use super::caches::{Caches, Told, Watch, follow, paged, while_served};
use super::controller::Context;
use super::monitors::Feed;
use super::refusals;
use super::refused_pods;
use super::served::served;
use super::sidecars::Pod;
use super::watched::{Watched, opened};
use crate::api::RoseyMonitor;
use crate::cluster::stack::{self, Alertmanager, Prometheus};
use crate::plan::{Kind, MANAGED_BY, MANAGED_BY_LABEL};

/// Name of what the injector fills: it serves with a certificate.
pub const WEBHOOKS: &str = "webhooks";
const DEFINITIONS: &str = "definitions";
const NAMESPACES: &str = "namespaces";
const MONITORS: &str = "roseymonitors";
const PODS: &str = "pods";
const EVENTS: &str = "events";
const REFUSED_PODS: &str = "refusedpods";
const CONFIG_MAPS: &str = "configmaps";
const PROMETHEUSES: &str = "prometheuses";
const ALERTMANAGERS: &str = "alertmanagers";
/// Kinds of prometheus-operator that a plan has.
const PLANNED: [(Kind, &str); 3] = [
    (Kind::PodMonitor, "podmonitors"),
    (Kind::PrometheusRule, "prometheusrules"),
    (Kind::AlertmanagerConfig, "alertmanagerconfigs"),
];
/// Caches of kinds without a namespace.
const WHOLE: [&str; 2] = [DEFINITIONS, NAMESPACES];
/// Caches that each area fills its part of.
const EACH: [&str; 10] = [
    MONITORS,
    PODS,
    EVENTS,
    REFUSED_PODS,
    CONFIG_MAPS,
    PLANNED[0].1,
    PLANNED[1].1,
    PLANNED[2].1,
    PROMETHEUSES,
    ALERTMANAGERS,
];

/// When the API server is asked again which kinds it serves.
const LOOK: Duration = Duration::from_secs(30);

/// What is watched.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Where the monitors and all that belongs to them are.
    pub areas: Vec<Area>,
    /// Whether the kinds without a namespace are, too: definitions and namespaces.
    pub whole: bool,
}

impl Layout {
    /// For an operator of these namespaces; of none, the whole cluster. One of named namespaces asks for nothing outside of them:
    /// its roles would refuse it.
    #[must_use]
    pub fn of(namespaces: &BTreeSet<String>) -> Self {
        Self {
            areas: Area::of(namespaces),
            whole: namespaces.is_empty(),
        }
    }

    /// Everything that readiness waits for, and nothing of it is there yet.
    #[must_use]
    pub fn caches(&self) -> Caches {
        Caches::new(&[DEFINITIONS, NAMESPACES, WEBHOOKS], &EACH, &self.areas)
    }
}

/// Waits until everything that is watched has been listed once.
pub async fn full(caches: &Caches) {
    let names: Vec<_> = WHOLE.into_iter().chain(EACH).collect();
    caches.full(&names).await;
}

/// Starts every watch.
pub fn start(
    parts: &mut JoinSet<Result<(), Error>>,
    context: &Arc<Context>,
    feed: Feed,
    layout: &Layout,
    caches: &Caches,
) {
    let mut forever = |name: &'static str, watch: Pin<Box<dyn Future<Output = ()> + Send>>| {
        parts.spawn(async move {
            watch.await;
            Err(Error::Ended(name))
        });
    };
    let of = |area: &Area| Watches {
        client: context.client.clone(),
        context: Arc::clone(context),
        caches: caches.clone(),
        area: area.clone(),
        whole: layout.whole,
    };
    let all = of(&Area::Cluster);
    forever(DEFINITIONS, Box::pin(all.clone().definitions()));
    forever(NAMESPACES, Box::pin(all.namespaces()));
    let limited = !layout.areas.contains(&Area::Cluster);
    let feed = Arc::new(Mutex::new(if limited { feed.without_a_list() } else { feed }));
    for area in &layout.areas {
        let here = of(area);
        forever(MONITORS, Box::pin(here.clone().monitors(Arc::clone(&feed))));
        forever(PODS, Box::pin(here.clone().pods()));
        forever(EVENTS, Box::pin(here.clone().events()));
        forever(REFUSED_PODS, Box::pin(here.clone().refused_pods()));
        forever(CONFIG_MAPS, Box::pin(here.clone().owned(Kind::ConfigMap, CONFIG_MAPS)));
        for (kind, name) in PLANNED {
            let here = here.clone();
            let follow = async move {
                let gone = || here.withdrawn(kind);
                here.while_served(name, || here.clone().owned(kind, name), gone).await;
            };
            forever(name, Box::pin(follow));
        }
        for name in [PROMETHEUSES, ALERTMANAGERS] {
            let here = here.clone();
            let follow = async move {
                let gone = || here.context.landscape.kind_gone(name);
                here.while_served(name, || here.clone().consumers(name), gone).await;
            };
            forever(name, Box::pin(follow));
        }
    }
}

#[derive(Clone)]
struct Watches {
    client: Client,
    context: Arc<Context>,
    caches: Caches,
    area: Area,
    whole: bool,
}

impl Watches {
    /// Follows a watch as [`follow`] does.
    async fn follow<K, S>(&self, name: &'static str, begin: impl Fn() -> S, take: impl FnMut(Told<K>) -> bool)
    where
        K: Debug,
        S: Stream<Item = watcher::Result<Event<K>>>,
    {
        let of = Watch {
            name,
            area: self.area.clone(),
        };
        follow(of, self.caches.clone(), &self.context.metrics, begin, take).await;
    }

    async fn while_served<F: Future<Output = ()>>(&self, name: &'static str, follow: impl Fn() -> F, gone: impl Fn()) {
        let served = self.context.landscape.served();
        while_served(name, &self.area, self.caches.clone(), served, follow, gone).await;
    }

    /// Where the definitions may not be read, the API server is asked what it serves.
    async fn definitions(self) {
        let unread = watch::Sender::new(!self.whole);
        let looking = self.look(unread.subscribe());
        let following = async {
            if !self.whole {
                return std::future::pending().await;
            }
            let api: Api<Watched<PartialObjectMeta<CustomResourceDefinition>>> = Api::all(self.client.clone());
            // Definitions carry managed fields as large as their schemas.
            let begin = || opened(watcher(api.clone(), paged().page_size(20)));
            let take = |told| match told {
                Told::Event(event) => {
                    // A list begins before the API server has answered.
                    if !matches!(event, Event::Init) {
                        unread.send_replace(false);
                    }
                    self.context.landscape.definitions(event);
                    false
                }
                Told::Refused | Told::Missing => {
                    unread.send_replace(true);
                    true
                }
            };
            self.follow(DEFINITIONS, begin, take).await;
        };
        tokio::join!(looking, following);
    }

    async fn look(&self, mut unread: watch::Receiver<bool>) {
        while unread.wait_for(|unread| *unread).await.is_ok() {
            match served(&self.client).await {
                Ok(plurals) => {
                    self.context.landscape.discovered(plurals);
                    self.caches.filled(DEFINITIONS, &Area::Cluster);
                }
                Err(error) => {
                    self.context.metrics.failed("watch");
                    warn!(%error, "the API server does not say which kinds of prometheus-operator it serves");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn monitors(self, feed: Arc<Mutex<Feed>>) {
        let api: Api<Watched<DeserializeGuard<RoseyMonitor>>> = self.area.api(self.client.clone());
        // Monitors are the largest of what is read whole.
        let begin = || opened(watcher(api.clone(), paged().page_size(20)));
        let take = |told| {
            needed(told, |event| {
                let mut feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
                feed.observe(&self.area, event);
            })
        };
        self.follow(MONITORS, begin, take).await;
    }

    async fn pods(self) {
        let kind = ApiResource::erase::<FullPod>(&());
        let api: Api<Watched<Pod>> = self.area.api_with(self.client.clone(), &kind);
        let begin = || opened(watcher(api.clone(), paged()));
        let take = |told| needed(told, |event| self.context.pods.observe(&self.area, event));
        self.follow(PODS, begin, take).await;
    }

    async fn namespaces(self) {
        if !self.whole {
            self.context.landscape.namespaces(None);
            self.caches.filled(NAMESPACES, &Area::Cluster);
            return std::future::pending().await;
        }
        let api: Api<Watched<PartialObjectMeta<Namespace>>> = Api::all(self.client.clone());
        let begin = || opened(watcher(api.clone(), paged()));
        let take = |told| readable(told, |event| self.context.landscape.namespaces(event), || {});
        self.follow(NAMESPACES, begin, take).await;
    }

    /// Only Events that speak of monitors are kept, and so these have to be known.
    async fn events(self) {
        self.caches.full(&[MONITORS]).await;
        let api: Api<ClusterEvent> = self.area.api(self.client.clone());
        let begin = || watcher(api.clone(), paged().fields(refusals::FIELDS));
        let take = |told| helpful(told, |event| self.context.refusals.observe(&self.area, event));
        self.follow(EVENTS, begin, take).await;
    }

    /// Of Events there are many: only those of namespaces with monitors are kept, and so these have to be known.
    async fn refused_pods(self) {
        self.caches.full(&[MONITORS]).await;
        let api: Api<ClusterEvent> = self.area.api(self.client.clone());
        let begin = || watcher(api.clone(), paged().fields(refused_pods::FIELDS));
        let take = |told| helpful(told, |event| self.context.refused_pods.observe(&self.area, event));
        self.follow(REFUSED_PODS, begin, take).await;
    }

    async fn owned(self, kind: Kind, name: &'static str) {
        let api: Api<Watched<PartialObjectMeta<DynamicObject>>> =
            self.area.api_with(self.client.clone(), &kind.api_resource());
        let ours = paged().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let begin = || opened(watcher(api.clone(), ours.clone()));
        let take = |told| match told {
            Told::Event(event) => {
                let listed = matches!(event, Event::InitDone);
                self.context.owned.observe(kind, &self.area, event);
                if listed {
                    self.context.landscape.kind_served(kind);
                }
                false
            }
            // Where the definitions may not be read, this tells first that the kind is not installed.
            Told::Missing if kind != Kind::ConfigMap => {
                self.withdrawn(kind);
                true
            }
            Told::Refused | Told::Missing => false,
        };
        self.follow(name, begin, take).await;
    }

    fn withdrawn(&self, kind: Kind) {
        self.context.owned.kind_gone(kind);
        self.context.landscape.kind_withdrawn(kind);
    }

    async fn consumers(self, name: &'static str) {
        let (landscape, area) = (&self.context.landscape, &self.area);
        let gone = || landscape.kind_gone(name);
        if name == PROMETHEUSES {
            let api: Api<Prometheus> = area.api_with(self.client.clone(), &stack::kind("Prometheus", name));
            let take = |told| readable(told, |event| landscape.prometheuses(area, event), gone);
            self.follow(name, || watcher(api.clone(), paged()), take).await;
        } else {
            let api: Api<Alertmanager> = area.api_with(self.client.clone(), &stack::kind("Alertmanager", name));
            let take = |told| readable(told, |event| landscape.alertmanagers(area, event), gone);
            self.follow(name, || watcher(api.clone(), paged()), take).await;
        }
    }
}

/// What the operator can't do without.
fn needed<K>(told: Told<K>, take: impl FnOnce(Event<K>)) -> bool {
    if let Told::Event(event) = told {
        take(event);
    }
    false
}

/// What the operator can do without.
fn helpful<K>(told: Told<K>, take: impl FnOnce(Event<K>)) -> bool {
    match told {
        Told::Event(event) => {
            take(event);
            false
        }
        Told::Refused | Told::Missing => true,
    }
}

/// What is told as `None` when it may not be read, and of a kind that may be missing.
fn readable<K>(told: Told<K>, take: impl FnOnce(Option<Event<K>>), missing: impl FnOnce()) -> bool {
    match told {
        Told::Event(event) => {
            take(Some(event));
            false
        }
        Told::Refused => {
            take(None);
            true
        }
        Told::Missing => {
            missing();
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_of_some_namespaces_watches_nothing_outside_of_them() {
        for (namespaces, whole, areas) in [
            (BTreeSet::new(), true, 1),
            (BTreeSet::from(["bots".to_owned(), "games".to_owned()]), false, 2),
        ] {
            let layout = Layout::of(&namespaces);
            assert_eq!((layout.whole, layout.areas.len()), (whole, areas));
            let pending = layout.caches().pending();
            assert_eq!(pending.len(), 3 + 10 * areas, "{pending:?}");
            assert_eq!(pending.contains(&"pods of games".to_owned()), areas == 2);
        }
    }
}
