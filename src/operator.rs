//! The operator: what runs in the cluster and turns monitors into objects.
//!
//! ```text
//! watches ─► caches (monitors, owned, sidecars, landscape, refusals, refused pods) ─► queue of monitors that are due
//!                                                                                          │ while this replica leads
//!                                                    plan ◄── controller ─► apply ─► status ◄┘
//! ```
//!
//! Every replica keeps its caches warm and serves the webhooks; the leader alone reconciles and writes.

pub mod check;
pub mod injector;

mod apply;
mod area;
mod backoff;
mod caches;
mod compare;
mod controller;
mod events;
mod key;
mod landscape;
mod last_good;
mod leader;
mod metrics;
mod monitors;
mod owned;
mod refusals;
mod refused_pods;
mod selection;
mod served;
mod server;
mod sidecars;
mod status;
mod upkeep;
mod watched;
mod watches;

#[cfg(test)]
mod world;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::api::RoseyMonitor;
use crate::cluster::client::{RequestError, answered};
use crate::plan::Platform;
use area::Area;
use controller::Context;
use injector::Injector;
use key::{Key, Queue};
use landscape::Landscape;
use leader::{Elector, Leadership};
use metrics::Metrics;
use monitors::Feed;
use owned::Owned;
use refusals::Refusals;
use refused_pods::RefusedPods;
use sidecars::{Injecting, Pods};

pub use upkeep::Settings as Upkeep;

/// The operator's name as a field manager, in Events and in labels.
const FIELD_MANAGER: &str = "rosey-operator";

/// How the operator is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub listen: SocketAddr,
    /// Monitors that are reconciled at once.
    pub concurrency: u16,
    /// Namespaces whose monitors it looks after, and outside of which it asks for its webhooks alone; of none, all.
    pub watched: BTreeSet<String>,
    /// The operator's own namespace: its Lease is there.
    pub namespace: String,
    /// Name of the Lease.
    pub lease_name: String,
    /// How long a leader may be silent before another replica takes over.
    pub lease_duration: Duration,
    /// Name of this replica; no other one has it.
    pub identity: String,
    /// What the operator's flags say of the platform; the cluster completes it.
    pub platform: Platform,
    /// The webhooks; `None` leaves pods alone.
    pub injector: Option<injector::Settings>,
    /// What it may do to pods that run.
    pub upkeep: Upkeep,
}

/// Why the operator can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server does not answer.
    #[error("the API server does not answer: {0}")]
    Server(#[from] RequestError),
    /// The metrics can't be set up.
    #[error("the metrics can't be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The address can't be listened on.
    #[error("{address} can't be listened on: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The webhooks can't be served.
    #[error(transparent)]
    Injector(#[from] injector::Error),
    /// A part of the operator that runs for ever has ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs the operator until `shutdown`: then it is no longer ready, finishes what it has begun, and gives its Lease back.
///
/// # Errors
/// What keeps it from running at all.
pub async fn run(client: Client, settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::new()?);
    let layout = watches::Layout::of(&settings.watched);
    let caches = layout.caches();
    if settings.injector.is_none() {
        caches.filled(watches::WEBHOOKS, &Area::Cluster);
    }
    // Ends last: whoever probes is answered until everything else has ended.
    let end = CancellationToken::new();
    let _ended = end.clone().drop_guard();
    let mut parts: JoinSet<Result<(), Error>> = JoinSet::new();
    let pages = server::Pages {
        caches: caches.clone(),
        metrics: Arc::clone(&metrics),
        shutdown: shutdown.clone(),
        written: server::Written::default(),
    };
    let address = settings.listen;
    let serving = server::serve(address, pages, end.clone());
    parts.spawn(async move { serving.await.map_err(|source| Error::Listen { address, source }) });

    let server = match shutdown.run_until_cancelled(answered(client.apiserver_version())).await {
        Some(server) => server?,
        None => return Ok(()),
    };
    let leadership = Leadership::default();
    let (context, feed) = context(&client, &settings, server, leadership.clone(), Arc::clone(&metrics))?;
    watches::start(&mut parts, &context, feed, &layout, &caches);

    let lease = leader::Settings {
        namespace: settings.namespace,
        name: settings.lease_name,
        identity: settings.identity,
        duration: settings.lease_duration,
    };
    let elector = Elector::new(client.clone(), lease, leadership.clone());
    let full = watches::full(&caches);
    let filled = tokio::select! {
        () = full => true,
        () = shutdown.cancelled() => false,
        ended = ended(&mut parts) => return ended,
    };
    if !filled {
        return Ok(());
    }
    info!("the caches are full");
    let drained = CancellationToken::new();
    let mut closing: JoinSet<Result<(), Error>> = JoinSet::new();
    if let Some(settings) = settings.injector {
        let monitors = context.monitors.clone();
        let (platform, configured) = (context.landscape.platform(), context.owned.configured());
        let injector = Injector::new(
            client,
            settings,
            monitors,
            platform,
            configured,
            leadership,
            metrics.registry(),
        )?
        .telling(context.upkeep.registered());
        let (mut serving, caches) = (injector.serving(), caches.clone());
        parts.spawn(async move {
            if serving.wait_for(|serving| *serving).await.is_ok() {
                caches.filled(watches::WEBHOOKS, &Area::Cluster);
            }
            std::future::pending().await
        });
        let shutdown = shutdown.clone();
        closing.spawn(async move { Ok(Box::pin(injector.run(shutdown)).await?) });
    }
    let controller = controller::run(context, settings.concurrency, shutdown.clone());
    let release = drained.clone();
    closing.spawn(async move {
        tokio::join!(elector.run(release), async {
            controller.await;
            drained.cancel();
        });
        Ok(())
    });
    tokio::select! {
        () = shutdown.cancelled() => info!("shutting down"),
        ended = ended(&mut parts) => return ended,
        ended = ended(&mut closing) => return ended,
    }
    while let Some(closed) = closing.join_next().await {
        closed.map_err(|_| Error::Ended("a part of the operator"))??;
    }
    Ok(())
}

/// The first of these parts to end, none of which should.
async fn ended(parts: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
    match parts.join_next().await {
        Some(Ok(Err(error))) => Err(error),
        Some(_) => Err(Error::Ended("a part of the operator")),
        None => std::future::pending().await,
    }
}

fn context(
    client: &Client,
    settings: &Settings,
    server: k8s_openapi::apimachinery::pkg::version::Info,
    leadership: Leadership,
    metrics: Arc<Metrics>,
) -> Result<(Arc<Context>, Feed), Error> {
    let queue = Queue::default();
    let owned = Arc::new(Owned::new(queue.clone()));
    let (monitors, writer) = monitors::pair();
    metrics.watch(monitors.clone(), leadership.clone())?;
    let context = Arc::new(Context {
        client: client.clone(),
        leadership,
        pods: Pods::new(monitors.clone(), queue.clone()).closely(settings.upkeep.any()),
        upkeep: upkeep::Upkeep::new(settings.upkeep),
        landscape: Landscape::new(settings.platform.clone(), server, monitors.clone(), queue.clone())
            .seeing(settings.watched.iter().cloned()),
        refusals: Refusals::new(monitors.clone(), queue.clone()),
        refused_pods: RefusedPods::new(monitors.clone(), queue.clone()),
        reports: status::Reports::new(monitors.clone()),
        last_good: last_good::LastGood::default(),
        injecting: settings
            .injector
            .as_ref()
            .map_or(Injecting::Nowhere, |injector| Injecting::AllBut(injector.excluded())),
        backoff: backoff::Backoff::default(),
        announcer: events::Announcer::new(client.clone(), &settings.identity),
        owned: Arc::clone(&owned),
        monitors: monitors.clone(),
        queue: queue.clone(),
        metrics: Arc::clone(&metrics),
    });
    let forgetting = Arc::clone(&context);
    let gone = Box::new(move |key: &Key| forgetting.left(key));
    let noting = Arc::clone(&context);
    let told =
        Box::new(move |monitor: &RoseyMonitor, before: Option<&Arc<RoseyMonitor>>| noting.arrived(monitor, before));
    let feed = Feed {
        monitors,
        writer,
        owned,
        queue,
        metrics,
        told,
        gone,
        listed: BTreeSet::new(),
    };
    Ok((context, feed))
}
