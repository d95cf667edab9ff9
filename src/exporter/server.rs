//! The HTTP side: a listener that is tried until it works, and bounded connections.

mod connections;
mod conversation;
mod gate;
mod pages;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;

use connections::Connections;
use gate::Gate;

use super::scrape::Exporter;
use super::web_config::Web;
use crate::sidecar::DEFAULT_PORT;

/// Bytes that the kernel keeps of a connection in each direction; they count as memory of the container.
const SOCKET_BUFFER: u32 = 64 << 10;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 128;
/// Pause between two attempts to listen.
const RETRY: Duration = Duration::from_secs(1);

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Caller {
    peer: SocketAddr,
    /// Whether a password or a certificate said who it is.
    authenticated: bool,
}

/// Serves for ever, on the port of the configuration or on `port`, which goes first.
pub(super) async fn serve(exporter: Arc<Exporter>, web: Arc<Web>, listen: Option<IpAddr>, port: Option<u16>) {
    let connections = Arc::new(Connections::default());
    let mut setup = exporter.setup();
    let app = TowerToHyperService::new(pages::router(exporter));
    // Nothing in the clear, and nothing to everybody, as long as nobody knows who may ask.
    while web.rules().is_none() {
        sleep(RETRY).await;
        web.refresh().await;
    }
    let gate = Arc::new(Gate { web, app });
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
            () = accept(listen, current, &gate, &connections) => {}
        }
    }
}

async fn accept(listen: Option<IpAddr>, port: u16, gate: &Arc<Gate>, connections: &Arc<Connections>) {
    let listener = bind(listen, port).await;
    if let Ok(address) = listener.local_addr() {
        let encrypted = gate.web.rules().is_some_and(|rules| rules.tls.is_some());
        let scheme = if encrypted { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{address}");
    }
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let gate = gate.clone();
                connections.admit(peer.ip().to_canonical(), |place| {
                    tokio::spawn(conversation::converse(stream, peer, gate, place)).abort_handle()
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
