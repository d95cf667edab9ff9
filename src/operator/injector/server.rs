//! The HTTPS server: TLS by whatever certificate is loaded, HTTP/1.1 (all that API servers speak to webhooks), bounds on
//! everything, and a shutdown that loses no pod.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::admission::{self, Facts};
use super::certificates::{Certificates, provider};
use super::metrics::Metrics;
use super::{INJECT_PATH, VALIDATE_PATH};
use crate::operator::server::next_connection;

/// Largest request in bytes. An object is at most 1.5 MiB, and an update carries the old one too.
const MAX_BODY: usize = 3 * 1024 * 1024 + 64 * 1024;
/// Connections at once; an API server opens one for each request that runs at the same time.
const MAX_CONNECTIONS: usize = 512;
/// Bodies in memory at once, in KiB.
const BODIES_KIB: u32 = 48 * 1024;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Also how long a connection may idle, so it has to be longer than the 90 s after which the API server closes an idle one: who
/// closes first must not be us, or a pod's request meets a closed connection.
const HEADERS: Duration = Duration::from_secs(120);
/// The API server waits 2 s for pods and 5 s for monitors.
const REQUEST: Duration = Duration::from_secs(5);
/// After the signal to end, API servers go on calling us until they have noticed.
const LINGERING: Duration = Duration::from_secs(8);
const DRAINING: Duration = Duration::from_secs(5);

pub(super) struct Service {
    pub facts: Facts,
    pub metrics: Metrics,
}

/// The two webhooks, without TLS.
pub(super) fn router(service: Arc<Service>) -> Router {
    let bodies = Arc::new(Semaphore::new(BODIES_KIB as usize));
    Router::new()
        .route(INJECT_PATH, post(inject))
        .route(VALIDATE_PATH, post(validate))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(bodies, bound))
        .with_state(service)
}

async fn inject(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let start = Instant::now();
    let answer = admission::pod(&body, &service.facts);
    service.metrics.answered("inject", answer.outcome, start.elapsed());
    Json(answer.review).into_response()
}

async fn validate(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let start = Instant::now();
    let answer = admission::monitor(&body, &service.facts);
    let outcome = answer
        .as_ref()
        .map_or(super::metrics::Outcome::Error, |answer| answer.outcome);
    service.metrics.answered("validate", outcome, start.elapsed());
    match answer {
        Some(answer) => Json(answer.review).into_response(),
        None => (StatusCode::BAD_REQUEST, "not an AdmissionReview of admission.k8s.io/v1").into_response(),
    }
}

/// Lets only so many bytes of bodies be in memory, and a request take only so long.
async fn bound(State(bodies): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let length = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let length = length.unwrap_or(MAX_BODY).min(MAX_BODY);
    let permits = u32::try_from(length / 1024 + 1).unwrap_or(BODIES_KIB);
    let answer = async {
        let _permit = bodies.acquire_many(permits).await;
        next.run(request).await
    };
    tokio::time::timeout(REQUEST, answer)
        .await
        .unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response())
}

/// Serves whatever certificate is loaded at the moment of the handshake; none, and the handshake fails.
struct Resolver(watch::Receiver<Option<Arc<Certificates>>>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|certificates| certificates.served())
    }
}

pub(super) fn acceptor(loaded: watch::Receiver<Option<Arc<Certificates>>>) -> Result<TlsAcceptor, rustls::Error> {
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()?;
    let mut config = config
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(loaded)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until a while after `shutdown`, then lets running requests end.
pub(super) async fn serve(listener: TcpListener, tls: TlsAcceptor, router: Router, shutdown: CancellationToken) {
    let leaving = shutdown.clone();
    // A connection that is kept alive goes on coming to us after our address was taken out of the Service.
    let router = router.layer(from_fn(move |request: Request, next: Next| {
        let leaving = leaving.clone();
        async move {
            let mut response = next.run(request).await;
            if leaving.is_cancelled() {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    }));
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let draining = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut end = std::pin::pin!(async {
        shutdown.cancelled().await;
        info!("the injector serves on for {} s", LINGERING.as_secs());
        tokio::time::sleep(LINGERING).await;
    });
    loop {
        tokio::select! {
            (stream, place) = next_connection(&listener, &limit) => {
                let connection = connection(stream, tls.clone(), router.clone(), draining.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Some(_) = connections.join_next() => {}
            () = &mut end => break,
        }
    }
    drop(listener);
    draining.cancel();
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAINING, drained).await.is_err() {
        warn!("the injector ends with requests unanswered");
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, router: Router, draining: CancellationToken) {
    // Head and body of an answer are two writes; without this the second waits for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "a TLS handshake failed"),
        Err(_) => return debug!("a TLS handshake took too long"),
    };
    let service = TowerToHyperService::new(router);
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = draining.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection ended badly");
    }
}

#[cfg(test)]
mod tests;
