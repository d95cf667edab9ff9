//! The choices before the start, and the start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Extent, Guard, Lab, PORTS, Parts, RECEIVER_PORT};
use crate::address::Network;
use crate::control_plane::{self, AuditLevel, ControlPlane};
use crate::manifest::Manifests;
use crate::node::image::{Image, Images};
use crate::process::Supervisor;
use crate::receivers::http::Inboxes;
use crate::receivers::smtp::Login;
use crate::receivers::{self, Inbox};
use crate::stack::{self, MatcherStrategy};
use crate::tools::Tools;
use crate::{Tasks, node, wait};

/// What a lab is made of. Every method has a default that suits most scenarios: the whole stack, with intervals of 1 s.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    extent: Extent,
    control_plane: control_plane::Settings,
    stack: stack::Settings,
    images: BTreeMap<String, Image>,
    back_off: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            extent: Extent::Stack,
            control_plane: control_plane::Settings::default(),
            stack: stack::Settings {
                matcher_strategy: MatcherStrategy::default(),
                interval: "1s".to_owned(),
                selector: BTreeMap::new(),
            },
            images: BTreeMap::new(),
            back_off: Duration::from_secs(1),
        }
    }
}

impl Builder {
    /// Leaves prometheus-operator, Prometheus and Alertmanager out; the definitions of their kinds are there.
    /// [`Lab::start_stack`] starts them later.
    pub fn without_stack(mut self) -> Self {
        self.extent = self.extent.min(Extent::Definitions);
        self
    }

    /// Leaves the definitions of prometheus-operator's kinds out as well. [`Lab::install_definitions`] brings them later.
    pub fn without_definitions(mut self) -> Self {
        self.extent = Extent::ControlPlane;
        self
    }

    /// One more user, with a token and no rights: RBAC objects give them. See [`Lab::kubeconfig_of`].
    pub fn user(self, name: &str) -> Self {
        self.user_in(name, &[])
    }

    /// One more user, in these groups.
    pub fn user_in(mut self, name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        self.control_plane.users.insert(name.to_owned(), groups);
        self
    }

    /// What runs for an image, found by its repository (`ghcr.io/x/bot`) or the whole reference (`ghcr.io/x/bot:broken`).
    /// `busybox` and `pause` are known already; an image that is not in the table can't be pulled.
    pub fn image(mut self, reference: &str, image: impl Into<Image>) -> Self {
        self.images.insert(reference.to_owned(), image.into());
        self
    }

    /// Which alerts reach an `AlertmanagerConfig`'s routes. Default: those of its namespace.
    pub fn matcher_strategy(mut self, strategy: MatcherStrategy) -> Self {
        self.stack.matcher_strategy = strategy;
        self
    }

    /// How often Prometheus scrapes and evaluates where an object does not say it itself. Default: `1s`.
    pub fn interval(mut self, interval: &str) -> Self {
        interval.clone_into(&mut self.stack.interval);
        self
    }

    /// Rules, monitors and `AlertmanagerConfigs` are selected only with this label. Default: all are selected.
    pub fn selector_label(mut self, key: &str, value: &str) -> Self {
        self.stack.selector.insert(key.to_owned(), value.to_owned());
        self
    }

    /// How much the audit log holds of each request. Default: no bodies.
    pub fn audit(mut self, level: AuditLevel) -> Self {
        self.control_plane.audit = level;
        self
    }

    /// Keeps the admission plugin `ServiceAccount`, which gives each pod a token volume. Off by default.
    pub fn service_accounts(mut self) -> Self {
        self.control_plane.service_accounts = true;
        self
    }

    /// One more flag of kube-apiserver, for example `--feature-gates=X=true`.
    pub fn api_server_flag(mut self, flag: &str) -> Self {
        self.control_plane.api_server_flags.push(flag.to_owned());
        self
    }

    /// The pause before a container's second restart in a row, doubled each time up to 30 times itself. Default: 1 s
    /// (kubelet: 10 s, up to 5 min). The first restart comes at once.
    pub fn restart_back_off(mut self, pause: Duration) -> Self {
        self.back_off = pause;
        self
    }

    /// Brings everything up; comes back when it answers.
    ///
    /// # Errors
    /// When a component is missing or does not come up; the message has the tail of its log.
    pub async fn start(self) -> Result<Lab> {
        // Somebody else in the process may have done it already, with the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tools = Tools::find()?;
        let folder = tempfile::Builder::new()
            .prefix("rosey-lab-")
            .tempdir()
            .context("make the lab's folder")?
            .keep();
        let keep = std::env::var_os("ROSEY_LAB_KEEP").is_some();
        let supervisor = Supervisor::start((!keep).then_some(folder.as_path()))?;
        let guard = Guard {
            folder: folder.clone(),
            supervisor: supervisor.clone(),
            tasks: Tasks::new(),
            keep,
        };
        let logs = guard.logs();
        std::fs::create_dir_all(&logs)?;
        match self.bring_up(tools, &guard, &logs).await {
            Ok(parts) => Ok(Lab { parts, guard }),
            Err(error) => {
                wait::note_failure();
                Err(error.context(format!("the lab did not come up (logs: {})", logs.display())))
            }
        }
    }

    async fn bring_up(self, tools: Tools, guard: &Guard, logs: &Path) -> Result<Parts> {
        let network = Arc::new(Network::claim(&PORTS)?);
        let host = network.host();
        let (supervisor, tasks) = (&guard.supervisor, &guard.tasks);
        let folder = guard.folder.join("control-plane");
        let control_plane = ControlPlane::start(&tools, supervisor, host, &folder, logs, &self.control_plane).await?;
        let client = control_plane.client("admin").await?;

        let images = Images::new(self.images.clone());
        let node = node::Start {
            client: control_plane.client("lab-node").await?,
            supervisor: supervisor.clone(),
            network: network.clone(),
            images: images.clone(),
            tasks: tasks.clone(),
            folder: guard.folder.join("pods"),
            logs: logs.join("pods"),
            back_off: self.back_off,
        };
        node::start(node).await?;

        let inboxes = Inboxes {
            discord: Inbox::new("Discord", logs.to_owned()),
            slack: Inbox::new("Slack", logs.to_owned()),
            webhook: Inbox::new("the webhook", logs.to_owned()),
        };
        let receiver = SocketAddr::from((host, RECEIVER_PORT));
        tasks.adopt(receivers::http::serve(receiver, inboxes.clone()).await?);
        let mail = Inbox::new("the mailbox", logs.to_owned());
        let (smtp, serving) = receivers::smtp::serve(mail.clone(), Login::None).await?;
        tasks.adopt(serving);
        let (smtp_with_login, serving) = receivers::smtp::serve(mail.clone(), Login::Required).await?;
        tasks.adopt(serving);

        let parts = Parts {
            tools,
            network,
            manifests: Manifests::new(client.clone()),
            client,
            control_plane,
            images,
            inboxes,
            mail,
            receiver,
            smtp,
            smtp_with_login,
            http: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
            extent: self.extent,
            stack: self.stack,
        };
        if parts.extent >= Extent::Definitions {
            parts.install_definitions().await?;
        }
        if parts.extent >= Extent::Stack {
            parts.start_stack(guard).await?;
        }
        Ok(parts)
    }
}
