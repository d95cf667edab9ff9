//! Plain HTTP: `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::caches::Caches;
use super::metrics::Metrics;

/// Connections at once: some probes, and a few Prometheus servers.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to ask, and how long a connection may idle.
const HEADERS: Duration = Duration::from_secs(10);
/// How long a connection may live, however busy: whoever reads slowly frees its place.
const LIFE: Duration = Duration::from_secs(60);

/// What the pages are made of.
#[derive(Clone)]
pub struct Pages {
    /// What is not ready yet.
    pub caches: Caches,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the process is to end: it is not ready any more.
    pub shutdown: CancellationToken,
    /// The metrics as they were last written.
    pub written: Written,
}

/// A text and when it was made. Whoever asks soon after gets the same: readers cost one text a second, however many they are
/// and however slowly they read.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Mutex<Option<(Instant, Bytes)>>>);

impl Written {
    const FRESH: Duration = Duration::from_secs(1);

    /// What was written a moment ago, else what `write` makes.
    fn or_else<E>(&self, write: impl FnOnce() -> Result<String, E>) -> Result<Bytes, E> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, text)) if at.elapsed() < Self::FRESH => Ok(text.clone()),
            _ => {
                let text = Bytes::from(write()?);
                *last = Some((Instant::now(), text.clone()));
                Ok(text)
            }
        }
    }
}

/// The pages.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages)
}

async fn ready(State(pages): State<Pages>) -> Response {
    if pages.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    let pending = pages.caches.pending();
    if pending.is_empty() {
        return "ok\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("waiting for {}\n", pending.join(", ")),
    )
        .into_response()
}

async fn metrics(State(pages): State<Pages>) -> Response {
    match pages.written.or_else(|| pages.metrics.text()) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Serves the pages until `end`.
///
/// # Errors
/// The address can't be listened on.
pub async fn serve(address: SocketAddr, pages: Pages, end: CancellationToken) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    accept(listener, router(pages), end).await;
    Ok(())
}

async fn accept(listener: TcpListener, router: Router, end: CancellationToken) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped at the end, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let next = next_connection(&listener, &limit);
        tokio::select! {
            (stream, place) = next => {
                let connection = connection(stream, router.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Some(_) = connections.join_next() => {}
            () = end.cancelled() => return,
        }
    }
}

/// The next connection, once there is a place for it, and its place.
pub(super) async fn next_connection(listener: &TcpListener, limit: &Arc<Semaphore>) -> (TcpStream, Place) {
    let place = Arc::clone(limit).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to be free.
                warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A place among the connections; none if there is no limit any more.
pub(super) type Place = Option<OwnedSemaphorePermit>;

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = tokio::time::sleep(LIFE) => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(HEADERS, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection ended badly");
    }
}

#[cfg(test)]
mod tests;
