//! The webhooks of the operator: pods get their exporter, monitors are judged before they are stored.
//!
//! Transport only. Whether and how a pod gets its exporter is [`crate::plan::injection`]'s, what is wrong with a monitor is
//! [`crate::plan::plan`]'s. Every replica serves; the leader alone writes the certificates and the registrations:
//!
//! ```text
//! keeper ── Secret ──► loaded ──► server (TLS) ──► admission ──► plan
//!    ▲                   │
//!    └── published ◄── registrar ──► webhook configurations
//! ```

mod admission;
mod certificates;
mod keeper;
mod metrics;
mod owner;
mod registration;
mod server;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use kube::{Api, Client};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::leader::Leadership;
use super::monitors::Monitors;
use crate::plan::Platform;

pub use certificates::Lives;
pub use registration::{INJECTOR, VALIDATOR};

use certificates::Certificates;
use keeper::Keeper;
use metrics::Metrics;
use owner::Owner;
use registration::Registrar;

const FIELD_MANAGER: &str = "rosey-operator-injector";
const INJECT_PATH: &str = "/inject";
const VALIDATE_PATH: &str = "/validate";

/// Where the API server reaches the webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Through a Service of the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// At a URL without a path, for an operator outside the cluster. Example: `https://127.0.0.1:9443`.
    Url(String),
}

impl Endpoint {
    /// The names by which the API server calls, which the certificate has to carry.
    fn names(&self) -> Result<Vec<String>, Error> {
        let base = match self {
            Self::Service { namespace, name, .. } => {
                return Ok(vec![
                    format!("{name}.{namespace}.svc"),
                    format!("{name}.{namespace}.svc.cluster.local"),
                ]);
            }
            Self::Url(base) => base,
        };
        let url: axum::http::Uri = base.parse().map_err(|_| Error::Url(base.clone()))?;
        let host = url
            .host()
            .filter(|_| url.scheme_str() == Some("https") && matches!(url.path(), "" | "/"));
        let host = host.ok_or_else(|| Error::Url(base.clone()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // An address has many spellings, and a certificate carries its bytes: it has to come back as it was asked for.
        let address = host.parse::<IpAddr>().map(|address| address.to_string());
        Ok(vec![address.unwrap_or_else(|_| host.to_owned())])
    }
}

/// How the injector is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Where the API server reaches it.
    pub endpoint: Endpoint,
    /// Namespaces whose monitors are judged; of none, all.
    pub watched: BTreeSet<String>,
    /// The operator's own namespace: the Secret is there, and its pods are never touched.
    pub namespace: String,
    /// Name of the Secret with the certificates.
    pub secret_name: String,
    /// Name of the `ClusterRole` that owns registrations and Secret; without it they have no owner.
    pub cluster_role: String,
    /// How long certificates live.
    pub lives: Lives,
}

impl Settings {
    /// Namespaces whose pods are never touched.
    #[must_use]
    pub fn excluded(&self) -> BTreeSet<String> {
        BTreeSet::from(["kube-system".to_owned(), self.namespace.clone()])
    }
}

/// Why the injector can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL of the webhooks is unusable.
    #[error("webhook URL {0:?} is not of the form https://host:port")]
    Url(String),
    /// Its metrics are registered already.
    #[error("the injector's metrics can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The TLS provider has no usable versions.
    #[error("the injector's TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The address can't be listened on.
    #[error("the injector can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The webhooks, ready to be run.
pub struct Injector {
    settings: Settings,
    client: Client,
    names: Vec<String>,
    excluded: BTreeSet<String>,
    service: Arc<server::Service>,
    namespaces: watch::Receiver<BTreeSet<String>>,
    leadership: Leadership,
    registered: watch::Sender<BTreeSet<String>>,
    loaded: watch::Sender<Option<Arc<Certificates>>>,
    serving: watch::Sender<bool>,
}

impl Injector {
    /// Sets the webhooks up. `monitors` are those of all namespaces; pods are asked for in `registered_namespaces`, where the
    /// exporters find their configuration, while this replica leads.
    ///
    /// # Errors
    /// An unusable URL, or metrics that are registered already.
    pub fn new(
        client: Client,
        settings: Settings,
        monitors: Monitors,
        platform: watch::Receiver<Arc<Platform>>,
        registered_namespaces: watch::Receiver<BTreeSet<String>>,
        leadership: Leadership,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let names = settings.endpoint.names()?;
        let excluded = settings.excluded();
        let facts = admission::Facts {
            monitors,
            platform,
            excluded: excluded.clone(),
        };
        let service = Arc::new(server::Service {
            facts,
            metrics: Metrics::new(registry)?,
        });
        Ok(Self {
            settings,
            client,
            names,
            excluded,
            service,
            namespaces: registered_namespaces,
            leadership,
            registered: watch::Sender::default(),
            loaded: watch::Sender::new(None),
            serving: watch::Sender::new(false),
        })
    }

    /// Tells `registered` in which namespaces pods are asked for.
    #[must_use]
    pub fn telling(self, registered: watch::Sender<BTreeSet<String>>) -> Self {
        Self { registered, ..self }
    }

    /// The two webhooks without TLS: `POST /inject` and `POST /validate`.
    pub fn router(&self) -> Router {
        server::router(Arc::clone(&self.service))
    }

    /// Becomes true once the injector listens and has a certificate; a replica is ready no earlier.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }

    /// Serves until 8 seconds after `shutdown`; certificates and registrations are kept until `shutdown`.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let router = self.router();
        let address = self.settings.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen { address, source })?;
        let tls = server::acceptor(self.loaded.subscribe())?;
        info!(%address, "the injector listens");

        let owner = Arc::new(Owner::new(self.client.clone(), self.settings.cluster_role));
        let published = watch::Sender::new(None);
        let mut first = self.loaded.subscribe();
        let registrar = Registrar {
            client: self.client.clone(),
            endpoint: self.settings.endpoint,
            watched: self.settings.watched,
            excluded: self.excluded,
            owner: Arc::clone(&owner),
            leader: self.leadership.subscribe(),
            leadership: self.leadership.clone(),
            namespaces: self.namespaces,
            monitors: self.service.facts.monitors.store(),
            loaded: self.loaded.subscribe(),
            registered: self.registered,
            published: published.clone(),
        };
        let keeper = Keeper {
            secrets: Api::namespaced(self.client, &self.settings.namespace),
            name: self.settings.secret_name,
            names: self.names,
            lives: self.settings.lives,
            owner,
            metrics: self.service.metrics.clone(),
            leader: self.leadership.subscribe(),
            leadership: self.leadership,
            published: published.subscribe(),
            loaded: self.loaded,
        };
        let announced = async {
            if first.wait_for(Option::is_some).await.is_ok() {
                self.serving.send_replace(true);
            }
        };
        let kept = shutdown.run_until_cancelled(async { tokio::join!(keeper.run(), registrar.run(), announced) });
        tokio::join!(server::serve(listener, tls, router, shutdown.clone()), kept);
        Ok(())
    }
}

/// Waits for a change; for ever if whoever could make one is gone.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
