//! A TCP proxy before the API server that can fail as networks do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use kube::Client;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::control_plane;

/// A way to the API server that can be cut and slowed down. It ends when it is dropped.
pub struct Proxy {
    kubeconfig: PathBuf,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    /// Counts the cuts; a connection ends when it changes.
    cuts: watch::Sender<u64>,
    delay_millis: AtomicU64,
    connections: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn start(listen: SocketAddr, target: SocketAddr) -> Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            cuts: watch::channel(0).0,
            delay_millis: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, target, shared.clone()));
        Ok((
            Self {
                kubeconfig: PathBuf::new(),
                shared,
                accepting,
            },
            address,
        ))
    }

    pub(crate) fn with_kubeconfig(mut self, kubeconfig: PathBuf) -> Self {
        self.kubeconfig = kubeconfig;
        self
    }

    /// A kubeconfig whose server is this proxy.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client that goes through this proxy.
    ///
    /// # Errors
    /// When the kubeconfig can't be read.
    pub async fn client(&self) -> Result<Client> {
        control_plane::client_of(&self.kubeconfig).await
    }

    /// Ends every connection that is open, watches included. New ones are taken at once.
    pub fn cut_all(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Holds every connection back by `delay` when it is opened.
    pub fn delay_connections(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.shared.delay_millis.store(millis, Ordering::Relaxed);
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, shared: Arc<Shared>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let shared = shared.clone();
        let mut cuts = shared.cuts.subscribe();
        tokio::spawn(async move {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            let carry = async {
                tokio::time::sleep(Duration::from_millis(shared.delay_millis.load(Ordering::Relaxed))).await;
                let mut server = TcpStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            };
            tokio::select! {
                _ = carry => {}
                _ = cuts.changed() => {}
            }
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
