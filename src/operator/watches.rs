//! Which watches there are, and which cache each one fills.

use std::fmt::Debug;
use std::sync::Arc;

use futures::Stream;
use k8s_openapi::api::core::v1::{Namespace, Pod as FullPod};
use k8s_openapi::api::events::v1::Event as ClusterEvent;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DynamicObject;
use kube::core::{ApiResource, DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::task::JoinSet;

use super::Error;
use super::caches::{Caches, Told, follow, paged, while_served};
use super::controller::Context;
use super::monitors::Feed;
use super::refusals;
use super::refused_pods;
use super::sidecars::Pod;
use super::watched::{Watched, opened};
use crate::api::RoseyMonitor;
use crate::cluster::stack::{self, Alertmanager, Prometheus};
use crate::plan::{Kind, MANAGED_BY, MANAGED_BY_LABEL};

/// Name of what the injector fills: it serves with a certificate.
pub const WEBHOOKS: &str = "webhooks";
/// Names of all caches.
pub const CACHES: [&str; 12] = [
    "definitions",
    "roseymonitors",
    "pods",
    "namespaces",
    "events",
    "configmaps",
    "podmonitors",
    "prometheusrules",
    "alertmanagerconfigs",
    "prometheuses",
    "alertmanagers",
    "refusedpods",
];
/// Everything that readiness waits for.
pub const NAMES: [&str; 13] = [
    CACHES[0], CACHES[1], CACHES[2], CACHES[3], CACHES[4], CACHES[5], CACHES[6], CACHES[7], CACHES[8], CACHES[9],
    CACHES[10], CACHES[11], WEBHOOKS,
];

/// Starts every watch.
pub fn start(parts: &mut JoinSet<Result<(), Error>>, context: &Arc<Context>, feed: Feed, caches: &Caches) {
    let all = Watches {
        client: context.client.clone(),
        context: Arc::clone(context),
        caches: caches.clone(),
    };
    let forever = |parts: &mut JoinSet<Result<(), Error>>,
                   name: &'static str,
                   watch: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        parts.spawn(async move {
            watch.await;
            Err(Error::Ended(name))
        });
    };
    forever(parts, CACHES[0], Box::pin(all.clone().definitions()));
    forever(parts, CACHES[1], Box::pin(all.clone().monitors(feed)));
    forever(parts, CACHES[2], Box::pin(all.clone().pods()));
    forever(parts, CACHES[3], Box::pin(all.clone().namespaces()));
    forever(parts, CACHES[4], Box::pin(all.clone().events()));
    forever(parts, CACHES[11], Box::pin(all.clone().refused_pods()));
    forever(
        parts,
        CACHES[5],
        Box::pin(all.clone().owned(Kind::ConfigMap, CACHES[5])),
    );
    for (kind, name) in [
        (Kind::PodMonitor, CACHES[6]),
        (Kind::PrometheusRule, CACHES[7]),
        (Kind::AlertmanagerConfig, CACHES[8]),
    ] {
        let all = all.clone();
        let served = context.landscape.served();
        forever(
            parts,
            name,
            Box::pin(async move {
                let gone = || all.withdrawn(kind);
                while_served(
                    name,
                    name,
                    all.caches.clone(),
                    served,
                    || all.clone().owned(kind, name),
                    gone,
                )
                .await;
            }),
        );
    }
    for name in [CACHES[9], CACHES[10]] {
        let all = all.clone();
        let served = context.landscape.served();
        forever(
            parts,
            name,
            Box::pin(async move {
                let gone = || all.context.landscape.kind_gone(name);
                while_served(
                    name,
                    name,
                    all.caches.clone(),
                    served,
                    || all.clone().consumers(name),
                    gone,
                )
                .await;
            }),
        );
    }
}

#[derive(Clone)]
struct Watches {
    client: Client,
    context: Arc<Context>,
    caches: Caches,
}

impl Watches {
    /// Follows a watch as [`follow`] does.
    async fn follow<K, S>(&self, name: &'static str, begin: impl Fn() -> S, take: impl FnMut(Told<K>) -> bool)
    where
        K: Debug,
        S: Stream<Item = watcher::Result<Event<K>>>,
    {
        follow(name, self.caches.clone(), &self.context.metrics, begin, take).await;
    }

    async fn definitions(self) {
        let api: Api<Watched<PartialObjectMeta<CustomResourceDefinition>>> = Api::all(self.client.clone());
        // Definitions carry managed fields as large as their schemas.
        let begin = || opened(watcher(api.clone(), paged().page_size(20)));
        let take = |told| readable(told, |event| self.context.landscape.definitions(event));
        self.follow(CACHES[0], begin, take).await;
    }

    async fn monitors(self, mut feed: Feed) {
        let api: Api<Watched<DeserializeGuard<RoseyMonitor>>> = Api::all(self.client.clone());
        // Monitors are the largest of what is read whole.
        let begin = || opened(watcher(api.clone(), paged().page_size(20)));
        let take = |told| needed(told, |event| feed.observe(event));
        self.follow(CACHES[1], begin, take).await;
    }

    async fn pods(self) {
        let api: Api<Watched<Pod>> = Api::all_with(self.client.clone(), &ApiResource::erase::<FullPod>(&()));
        let begin = || opened(watcher(api.clone(), paged()));
        let take = |told| needed(told, |event| self.context.pods.observe(event));
        self.follow(CACHES[2], begin, take).await;
    }

    async fn namespaces(self) {
        let api: Api<Watched<PartialObjectMeta<Namespace>>> = Api::all(self.client.clone());
        let begin = || opened(watcher(api.clone(), paged()));
        let take = |told| readable(told, |event| self.context.landscape.namespaces(event));
        self.follow(CACHES[3], begin, take).await;
    }

    /// Only Events that speak of monitors are kept, and so these have to be known.
    async fn events(self) {
        self.caches.full(&[CACHES[1]]).await;
        let api: Api<ClusterEvent> = Api::all(self.client.clone());
        let begin = || watcher(api.clone(), paged().fields(refusals::FIELDS));
        let take = |told| helpful(told, |event| self.context.refusals.observe(event));
        self.follow(CACHES[4], begin, take).await;
    }

    /// Of Events there are many: only those of namespaces with monitors are kept, and so these have to be known.
    async fn refused_pods(self) {
        self.caches.full(&[CACHES[1]]).await;
        let api: Api<ClusterEvent> = Api::all(self.client.clone());
        let begin = || watcher(api.clone(), paged().fields(refused_pods::FIELDS));
        let take = |told| helpful(told, |event| self.context.refused_pods.observe(event));
        self.follow(CACHES[11], begin, take).await;
    }

    async fn owned(self, kind: Kind, name: &'static str) {
        let api: Api<Watched<PartialObjectMeta<DynamicObject>>> =
            Api::all_with(self.client.clone(), &kind.api_resource());
        let ours = paged().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let begin = || opened(watcher(api.clone(), ours.clone()));
        let take = |told| match told {
            Told::Event(event) => {
                let listed = matches!(event, Event::InitDone);
                self.context.owned.observe(kind, event);
                if listed {
                    self.context.landscape.kind_served(kind);
                }
                false
            }
            // Where the definitions may not be read, this alone tells that the kind is not installed.
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
        let landscape = &self.context.landscape;
        if name == CACHES[9] {
            let api: Api<Prometheus> = Api::all_with(self.client.clone(), &stack::kind("Prometheus", name));
            let take = |told| {
                installed(
                    told,
                    |event| landscape.prometheuses(event),
                    || landscape.kind_gone(name),
                )
            };
            self.follow(name, || watcher(api.clone(), paged()), take).await;
        } else {
            let api: Api<Alertmanager> = Api::all_with(self.client.clone(), &stack::kind("Alertmanager", name));
            let take = |told| {
                installed(
                    told,
                    |event| landscape.alertmanagers(event),
                    || landscape.kind_gone(name),
                )
            };
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

/// What is told as `None` when it may not be read.
fn readable<K>(told: Told<K>, take: impl FnOnce(Option<Event<K>>)) -> bool {
    installed(told, take, || {})
}

/// The same of a kind that may be missing.
fn installed<K>(told: Told<K>, take: impl FnOnce(Option<Event<K>>), missing: impl FnOnce()) -> bool {
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
