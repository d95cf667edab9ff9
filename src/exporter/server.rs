//! The HTTP side: a listener that is tried until it works, bounded connections, and the few pages there are.

mod connections;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use connections::{Connections, Place};

use super::page::CONTENT_TYPE;
use super::scrape::Exporter;
use super::sources::deployments::{self, Event, Refusal};
use crate::sidecar::DEFAULT_PORT;

/// A connection is closed after its current request when it is this old, so that none is held for ever.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
/// How long a request, or the pause between two of them, may take.
const REQUEST_TIME: Duration = Duration::from_secs(75);
/// How long a new connection may wait with its first request, and a request with its body.
const SHORT_TIME: Duration = Duration::from_secs(10);
/// Bytes that the kernel keeps of a connection in each direction; they count as memory of the container.
const SOCKET_BUFFER: u32 = 32 << 10;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 128;
/// Pause between two attempts to listen.
const RETRY: Duration = Duration::from_secs(1);

/// Serves for ever, on the port of the configuration or on `port`, which goes first.
pub(super) async fn serve(exporter: Arc<Exporter>, listen: Option<IpAddr>, port: Option<u16>) {
    let connections = Arc::new(Connections::default());
    let app = router(exporter.clone());
    let mut setup = exporter.setup();
    loop {
        let wanted = |port: Option<u16>, configured: Option<u16>| port.or(configured).unwrap_or(DEFAULT_PORT);
        let configured = setup.borrow_and_update().config.as_ref().and_then(|config| config.port);
        let current = wanted(port, configured);
        let moved = async {
            let other = |configured| wanted(port, configured) != current;
            let _ = setup
                .wait_for(|setup| setup.config.as_ref().is_some_and(|config| other(config.port)))
                .await;
        };
        tokio::select! {
            () = moved => {}
            () = accept(listen, current, &app, &connections) => {}
        }
    }
}

async fn accept(listen: Option<IpAddr>, port: u16, app: &Router, connections: &Arc<Connections>) {
    let listener = bind(listen, port).await;
    if let Ok(address) = listener.local_addr() {
        tracing::info!("listening on http://{address}");
    }
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let service = app.clone().layer(Extension(peer));
                connections.admit(peer.ip().to_canonical(), |place| {
                    tokio::spawn(converse(stream, service, place)).abort_handle()
                });
            }
            Err(error) => {
                // Out of file descriptors, for example: it passes.
                tracing::warn!(%error, "can't accept a connection");
                sleep(RETRY).await;
            }
        }
    }
}

async fn bind(listen: Option<IpAddr>, port: u16) -> TcpListener {
    let mut told = false;
    loop {
        let bound = match listen {
            Some(address) => open(SocketAddr::from((address, port))),
            // Takes IPv4 as well; where there is no IPv6 at all, IPv4 alone.
            None => match open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
                Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
                    open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
                }
                bound => bound,
            },
        };
        match bound {
            Ok(listener) => return listener,
            Err(error) if !told => tracing::warn!(%error, port, "can't listen; trying again every second"),
            Err(_) => {}
        }
        told = true;
        sleep(RETRY).await;
    }
}

fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    // Connections have what their listener has.
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn converse(stream: TcpStream, service: Router, place: Place) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = TowerToHyperService::new(service);
    let answer = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        place.busy(true);
        let only_asks = matches!(*request.method(), Method::GET | Method::HEAD);
        let limit = if only_asks { REQUEST_TIME } else { SHORT_TIME };
        let answered = timeout(limit, service.call(request));
        let place = &place;
        async move {
            let answer = answered.await;
            place.busy(false);
            answer.unwrap_or_else(|_| Ok(StatusCode::REQUEST_TIMEOUT.into_response()))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(32 << 10)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    // Nobody who connects in order to ask something waits with it.
    if timeout(SHORT_TIME, connection.as_mut()).await.is_ok() || !place.was_asked() {
        return;
    }
    if timeout(CONNECTION_AGE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(REQUEST_TIME, connection).await;
    }
}

fn router(exporter: Arc<Exporter>) -> Router {
    Router::new()
        .route("/", get(landing))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/record_deployment", post(record_deployment))
        .route("/record_rollback", post(record_rollback))
        .layer(DefaultBodyLimit::max(8 << 10))
        .with_state(exporter)
}

async fn landing() -> Html<&'static str> {
    Html(concat!(
        "<!doctype html><html lang=\"en\"><title>Rosey exporter</title><h1>Rosey exporter ",
        env!("CARGO_PKG_VERSION"),
        "</h1><p>Watches a chat bot for Prometheus.<ul><li><a href=\"/metrics\">Metrics</a>",
        "<li><a href=\"/health\">Health</a><li><a href=\"/ready\">Ready</a></ul></html>\n"
    ))
}

async fn metrics(State(exporter): State<Arc<Exporter>>, headers: HeaderMap) -> impl IntoResponse {
    let limit = headers
        .get("x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .filter(|seconds| (0.001..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64);
    let answer = Body::new(exporter.scrape(limit).await);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], answer)
}

/// Always 200: the exporter lives. What is wrong stands in the document.
async fn health(State(exporter): State<Arc<Exporter>>) -> impl IntoResponse {
    exporter.refresh().await;
    let configuration = exporter.setup().borrow().problem.clone();
    let sources = exporter.problems();
    let well = configuration.is_none() && sources.values().all(Option::is_none);
    Json(json!({
        "status": if well { "ok" } else { "degraded" },
        "configuration": configuration.as_deref().unwrap_or("ok"),
        "sources": sources.iter().map(|(source, problem)| (*source, problem.as_deref().unwrap_or("ok"))).collect::<std::collections::BTreeMap<_, _>>(),
    }))
}

async fn ready(State(exporter): State<Arc<Exporter>>) -> Response {
    exporter.refresh().await;
    let setup = exporter.setup();
    let setup = setup.borrow();
    match (&setup.config, &setup.problem) {
        (Some(_), _) => "ready\n".into_response(),
        (None, problem) => {
            let problem = problem.as_deref().unwrap_or("no configuration");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response()
        }
    }
}

type Reader = fn(Vec<(String, String)>, Option<&str>) -> Result<Event, Refusal>;

async fn record_deployment(
    State(exporter): State<Arc<Exporter>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    record(&exporter, peer, &headers, &body, deployments::deployment)
}

async fn record_rollback(
    State(exporter): State<Arc<Exporter>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    record(&exporter, peer, &headers, &body, deployments::rollback)
}

fn record(exporter: &Exporter, peer: SocketAddr, headers: &HeaderMap, body: &[u8], read: Reader) -> Response {
    let refuse = |status: StatusCode, reason: String| (status, format!("{reason}\n")).into_response();
    if !peer.ip().to_canonical().is_loopback() {
        return refuse(StatusCode::FORBIDDEN, "records are taken from this host only".into());
    }
    // A browser on this host sends any page's form to localhost; it names the page, curl does not.
    if headers.contains_key(header::ORIGIN) {
        return refuse(StatusCode::FORBIDDEN, "records are not taken from web pages".into());
    }
    let config = exporter.setup().borrow().config.clone();
    let Some(config) = config.filter(|config| config.deployments) else {
        let elsewhere = "deployments are not recorded here; in a cluster use kubectl rosey record";
        return refuse(StatusCode::NOT_FOUND, elsewhere.into());
    };
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let fields = match kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "application/x-www-form-urlencoded" => Ok(deployments::form(body)),
        "application/json" => deployments::json(body),
        _ => {
            let known = "send a form (application/x-www-form-urlencoded) or JSON (application/json)";
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, known.into());
        }
    };
    match fields.and_then(|fields| read(fields, config.environment.as_deref())) {
        Ok(event) => {
            exporter.record(event);
            Json(json!({"status": "recorded"})).into_response()
        }
        Err(refusal) => refuse(StatusCode::BAD_REQUEST, refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::configuration::Configuration;
    use crate::exporter::sources::fetch::Bot;
    use crate::sidecar::Config;

    #[test]
    fn a_record_is_taken_from_this_host_only_and_not_from_web_pages() {
        let configuration = Configuration::fixed(Config {
            deployments: true,
            ..Config::default()
        });
        let exporter = Exporter::new(
            configuration,
            Bot {
                host: "127.0.0.1".into(),
            },
            "/".into(),
        );
        let form = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            "application/x-www-form-urlencoded".parse().unwrap(),
        )]);
        let mut page = form.clone();
        page.insert(header::ORIGIN, "http://evil.example".parse().unwrap());
        let status = |peer: &str, headers: &HeaderMap| {
            let peer = SocketAddr::from((peer.parse::<IpAddr>().unwrap(), 1234));
            record(&exporter, peer, headers, b"duration=1", deployments::rollback)
                .status()
                .as_u16()
        };
        assert_eq!(status("127.0.0.1", &form), 200);
        assert_eq!(status("::1", &form), 200);
        assert_eq!(status("::ffff:127.0.0.1", &form), 200);
        assert_eq!(status("10.0.0.1", &form), 403);
        assert_eq!(status("::ffff:10.0.0.1", &form), 403);
        assert_eq!(status("127.0.0.1", &page), 403);
        assert_eq!(status("127.0.0.1", &HeaderMap::new()), 415);
    }
}
