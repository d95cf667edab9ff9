//! Which watches there are, and which cache each one fills.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod as FullPod};
use k8s_openapi::api::events::v1::Event as ClusterEvent;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DynamicObject;
use kube::core::{ApiResource, DeserializeGuard, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::task::JoinSet;

use super::Error;
use super::caches::{Caches, follow, paged, while_served};
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
                let gone = || {
                    all.context.owned.kind_gone(kind);
                    all.context.landscape.kind_withdrawn(kind);
                };
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
    async fn definitions(self) {
        let api: Api<Watched<PartialObjectMeta<CustomResourceDefinition>>> = Api::all(self.client);
        // Definitions carry managed fields as large as their schemas.
        let stream = opened(watcher(api, paged().page_size(20)));
        follow(CACHES[0], true, self.caches, stream, |event| {
            self.context.landscape.definitions(event);
        })
        .await;
    }

    async fn monitors(self, mut feed: Feed) {
        let api: Api<Watched<DeserializeGuard<RoseyMonitor>>> = Api::all(self.client);
        // Monitors are the largest of what is read whole.
        let stream = opened(watcher(api, paged().page_size(20)));
        let take = |event| {
            if let Some(event) = event {
                feed.observe(event);
            }
        };
        follow(CACHES[1], false, self.caches, stream, take).await;
    }

    async fn pods(self) {
        let api: Api<Watched<Pod>> = Api::all_with(self.client, &ApiResource::erase::<FullPod>(&()));
        let take = |event| {
            if let Some(event) = event {
                self.context.pods.observe(event);
            }
        };
        follow(CACHES[2], false, self.caches, opened(watcher(api, paged())), take).await;
    }

    async fn namespaces(self) {
        let api: Api<Watched<PartialObjectMeta<Namespace>>> = Api::all(self.client);
        let stream = opened(watcher(api, paged()));
        follow(CACHES[3], true, self.caches, stream, |event| {
            self.context.landscape.namespaces(event);
        })
        .await;
    }

    async fn events(self) {
        let api: Api<ClusterEvent> = Api::all(self.client);
        let take = |event| {
            if let Some(event) = event {
                self.context.refusals.observe(event);
            }
        };
        follow(
            CACHES[4],
            true,
            self.caches,
            watcher(api, paged().fields(refusals::FIELDS)),
            take,
        )
        .await;
    }

    /// Of Events there are many: only those of namespaces with monitors are kept, and so these have to be known.
    async fn refused_pods(self) {
        self.caches.full(&[CACHES[1]]).await;
        let api: Api<ClusterEvent> = Api::all(self.client);
        let take = |event| {
            if let Some(event) = event {
                self.context.refused_pods.observe(event);
            }
        };
        let stream = watcher(api, paged().fields(refused_pods::FIELDS));
        follow(CACHES[11], true, self.caches, stream, take).await;
    }

    async fn owned(self, kind: Kind, name: &'static str) {
        let api: Api<Watched<PartialObjectMeta<DynamicObject>>> = Api::all_with(self.client, &kind.api_resource());
        let ours = paged().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let stream = opened(watcher(api, ours));
        let take = |event| {
            let Some(event) = event else { return };
            let listed = matches!(event, watcher::Event::InitDone);
            self.context.owned.observe(kind, event);
            if listed {
                self.context.landscape.kind_served(kind);
            }
        };
        follow(name, false, self.caches, stream, take).await;
    }

    async fn consumers(self, name: &'static str) {
        if name == CACHES[9] {
            let api: Api<Prometheus> = Api::all_with(self.client, &stack::kind("Prometheus", name));
            let take = |event| self.context.landscape.prometheuses(event);
            follow(name, true, self.caches, watcher(api, paged()), take).await;
        } else {
            let api: Api<Alertmanager> = Api::all_with(self.client, &stack::kind("Alertmanager", name));
            let take = |event| self.context.landscape.alertmanagers(event);
            follow(name, true, self.caches, watcher(api, paged()), take).await;
        }
    }
}
