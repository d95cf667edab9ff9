//! The HTTP side: a listener that is tried until it works, and bounded connections.

mod connections;
mod pages;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use connections::{Connections, Place};

use super::scrape::Exporter;
use crate::sidecar::DEFAULT_PORT;

/// A connection is closed after its current request when it is this old, so that none is held for ever.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
/// How long a request, or the pause between two of them, may take.
const REQUEST_TIME: Duration = Duration::from_secs(75);
/// How long a new connection may wait with its first request, and a request with its body.
const SHORT_TIME: Duration = Duration::from_secs(10);
/// Bytes that the kernel keeps of a connection in each direction; they count as memory of the container.
const SOCKET_BUFFER: u32 = 64 << 10;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 128;
/// Pause between two attempts to listen.
const RETRY: Duration = Duration::from_secs(1);

/// Serves for ever, on the port of the configuration or on `port`, which goes first.
pub(super) async fn serve(exporter: Arc<Exporter>, listen: Option<IpAddr>, port: Option<u16>) {
    let connections = Arc::new(Connections::default());
    let app = pages::router(exporter.clone());
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
        // Of each connection that is stuck, this much stays: of what it sends, and of what it is sent.
        .max_buf_size(16 << 10)
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
