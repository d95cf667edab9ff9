//! Plain HTTP: `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::caches::Caches;
use super::metrics::Metrics;

/// What the pages are made of.
#[derive(Clone)]
pub struct Pages {
    /// What is not ready yet.
    pub caches: Caches,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the process is to end: it is not ready any more.
    pub shutdown: CancellationToken,
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
    match pages.metrics.text() {
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
    axum::serve(listener, router(pages))
        .with_graceful_shutdown(end.cancelled_owned())
        .await
}
