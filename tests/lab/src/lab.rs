//! The lab itself: what is built, and what scenarios ask of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use kube::Client;

use crate::address::Network;
use crate::control_plane::{self, ControlPlane};
use crate::manifest::Manifests;
use crate::node::image::Images;
use crate::process::Supervisor;
use crate::receivers::Inbox;
use crate::receivers::http::Inboxes;
use crate::receivers::message::Mail;
use crate::tools::Tools;
use crate::{Tasks, rosey, stack, wait};

mod builder;
mod cluster;
mod observe;

pub use builder::Builder;

const RECEIVER_PORT: u16 = 21_800;

/// Where something listens in a lab, each on an address that no other lab has: its own components, then the operator with its
/// webhooks, the exporter, and the examples' bot with its control.
const PORTS: [u16; 12] = [
    control_plane::ETCD_PORT,
    control_plane::ETCD_PEER_PORT,
    control_plane::API_PORT,
    stack::OPERATOR_PORT,
    stack::PROMETHEUS_PORT,
    stack::ALERTMANAGER_PORT,
    RECEIVER_PORT,
    8080,
    9443,
    9100,
    8000,
    rosey::CONTROL_PORT,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    ControlPlane,
    Definitions,
    Stack,
}

/// A running lab. Dropping it ends every process that it started.
pub struct Lab {
    parts: Parts,
    guard: Guard,
}

struct Parts {
    tools: Tools,
    network: Arc<Network>,
    control_plane: ControlPlane,
    client: Client,
    manifests: Manifests,
    images: Images,
    inboxes: Inboxes,
    mail: Inbox<Mail>,
    receiver: SocketAddr,
    smtp: SocketAddr,
    smtp_with_login: SocketAddr,
    http: reqwest::Client,
    extent: Extent,
    stack: stack::Settings,
}

impl Parts {
    async fn install_definitions(&self) -> Result<()> {
        let files = std::fs::read_dir(self.tools.crds())?
            .flatten()
            .map(|entry| entry.path());
        let files: Vec<PathBuf> = files
            .filter(|file| file.extension().is_some_and(|kind| kind == "yaml"))
            .collect();
        self.manifests.define(&files).await
    }

    async fn start_stack(&self, guard: &Guard) -> Result<()> {
        let start = stack::Start {
            tools: &self.tools,
            supervisor: &guard.supervisor,
            control_plane: &self.control_plane,
            manifests: &self.manifests,
            tasks: &guard.tasks,
            client: self.client.clone(),
            http: self.http.clone(),
            host: self.network.host(),
            folder: guard.folder.join("stack"),
            logs: guard.logs(),
            settings: &self.stack,
        };
        start.start().await
    }
}

/// Ends everything when it goes, in whichever way.
struct Guard {
    folder: PathBuf,
    supervisor: Supervisor,
    tasks: Tasks,
    keep: bool,
}

impl Guard {
    fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.tasks.end();
        self.supervisor.shut_down();
        if self.keep {
            eprintln!("lab: everything is kept in {}", self.folder.display());
        } else if std::thread::panicking() || wait::something_failed() {
            for part in ["control-plane", "pods", "stack"] {
                let _ = std::fs::remove_dir_all(self.folder.join(part));
            }
            eprintln!("lab: the logs are kept in {}", self.logs().display());
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

impl Lab {
    /// Choices before the start.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The whole stack with every default.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }
}
