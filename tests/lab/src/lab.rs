//! The lab itself: what is built, and what scenarios ask of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::Client;
use kube::api::DynamicObject;
use serde_json::json;

use crate::address::Network;
use crate::alertmanager::Alertmanager;
use crate::audit::Audit;
use crate::control_plane::{self, AuditLevel, ControlPlane};
use crate::manifest::{self, Manifests};
use crate::node::image::{Image, Images};
use crate::process::{Process, Supervisor};
use crate::prometheus::Prometheus;
use crate::proxy::Proxy;
use crate::receivers::http::Inboxes;
use crate::receivers::message::{DiscordMessage, Mail, SlackMessage, WebhookMessage};
use crate::receivers::smtp::Login;
use crate::receivers::{self, Inbox};
use crate::stack::{self, MatcherStrategy};
use crate::tools::Tools;
use crate::{Tasks, node, wait};

const RECEIVER_PORT: u16 = 21_800;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    ControlPlane,
    Definitions,
    Stack,
}

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
        let network = Arc::new(Network::claim()?);
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
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.tools.crds())?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        let mut definitions = Vec::new();
        for file in files
            .iter()
            .filter(|file| file.extension().is_some_and(|extension| extension == "yaml"))
        {
            definitions.extend(manifest::read(&file.display().to_string())?);
        }
        futures::future::try_join_all(definitions.iter().map(|object| self.manifests.apply("lab", object, ""))).await?;
        Ok(())
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

    // ---- the cluster ----

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.parts.client.clone()
    }

    /// A client of a user that the builder was given.
    ///
    /// # Errors
    /// When there is no such user.
    pub async fn client_as(&self, user: &str) -> Result<Client> {
        control_plane::client_of(&self.kubeconfig_of(user)?).await
    }

    /// The kubeconfig of the user that may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.parts.control_plane.kubeconfig_path("admin")
    }

    /// The kubeconfig of a user that the builder was given.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn kubeconfig_of(&self, user: &str) -> Result<PathBuf> {
        if !self.parts.control_plane.knows(user) {
            bail!("the lab has no user {user:?}; give it to Lab::builder().user(…)");
        }
        Ok(self.parts.control_plane.kubeconfig_path(user))
    }

    /// `https://` and the API server's address.
    #[must_use]
    pub fn api_server(&self) -> String {
        format!("https://{}", self.parts.control_plane.address)
    }

    /// The file with the certificate authority of the API server.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.parts.control_plane.ca_file
    }

    /// Applies YAML, given as text or as the path of a file: server-side, with force, as field manager `lab`. Objects
    /// without a namespace land in `default`. A definition of new kinds is waited for.
    ///
    /// # Errors
    /// When the YAML can't be read or the API server refuses an object.
    pub async fn apply(&self, source: &str) -> Result<Vec<DynamicObject>> {
        self.apply_as("lab", "default", source).await
    }

    /// As [`Lab::apply`], with objects without a namespace landing in `namespace`.
    ///
    /// # Errors
    /// As [`Lab::apply`].
    pub async fn apply_in(&self, namespace: &str, source: &str) -> Result<Vec<DynamicObject>> {
        self.apply_as("lab", namespace, source).await
    }

    /// As [`Lab::apply_in`], as another field manager.
    ///
    /// # Errors
    /// As [`Lab::apply`].
    pub async fn apply_as(&self, manager: &str, namespace: &str, source: &str) -> Result<Vec<DynamicObject>> {
        let mut applied = Vec::new();
        for object in manifest::read(source)? {
            let name = format!(
                "{} {}",
                object["kind"].as_str().unwrap_or("?"),
                object["metadata"]["name"].as_str().unwrap_or("?")
            );
            let done = self.parts.manifests.apply(manager, &object, namespace).await;
            applied.push(done.with_context(|| format!("apply {name}"))?);
        }
        Ok(applied)
    }

    /// Deletes what the YAML names; what is not there is passed over. Dependents follow in the background.
    ///
    /// # Errors
    /// When the YAML can't be read or the API server refuses.
    pub async fn delete(&self, source: &str) -> Result<()> {
        for object in manifest::read(source)? {
            self.parts.manifests.delete(&object, "default").await?;
        }
        Ok(())
    }

    /// An object of any kind, given as `apiVersion/Kind` (`v1/Pod`, `rosey.dev/v1alpha1/RoseyMonitor`); `None` if there is none.
    ///
    /// # Errors
    /// When the API server does not serve the kind or does not answer.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<DynamicObject>> {
        self.parts.manifests.get(kind, namespace, name).await
    }

    /// Waits until an object exists and `accept` says yes to it.
    ///
    /// # Errors
    /// When it does not within `deadline`; the message has the object's status as it was last.
    pub async fn until_object(
        &self,
        deadline: Duration,
        kind: &str,
        namespace: &str,
        name: &str,
        accept: impl Fn(&DynamicObject) -> bool,
    ) -> Result<DynamicObject> {
        wait::eventually(
            deadline,
            &format!("{kind} {namespace}/{name} to be as wanted"),
            async || {
                let object = self.get(kind, namespace, name).await?.context("it does not exist")?;
                if !accept(&object) {
                    bail!("{}: status {}", manifest::describe(&object), object.data["status"]);
                }
                Ok(Some(object))
            },
        )
        .await
    }

    /// Waits until the object's status has condition `condition` True.
    ///
    /// # Errors
    /// As [`Lab::until_object`].
    pub async fn until_condition(
        &self,
        deadline: Duration,
        kind: &str,
        namespace: &str,
        name: &str,
        condition: &str,
    ) -> Result<DynamicObject> {
        self.until_object(deadline, kind, namespace, name, |object| {
            manifest::has_condition(object, condition)
        })
        .await
    }

    /// Waits until there is no such object any more.
    ///
    /// # Errors
    /// When it is still there after `deadline`.
    pub async fn until_gone(&self, deadline: Duration, kind: &str, namespace: &str, name: &str) -> Result<()> {
        wait::until(deadline, &format!("{kind} {namespace}/{name} to be gone"), async || {
            Ok(self.get(kind, namespace, name).await?.is_none())
        })
        .await
    }

    /// Creates a namespace, or makes sure that it is there.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.parts.manifests.apply("lab", &namespace, "").await?;
        Ok(())
    }

    /// Runs the real kubectl as the user that may do everything; its output if it succeeds.
    ///
    /// # Errors
    /// When it fails; the message is what it wrote.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(&self.kubeconfig(), args).await
    }

    /// Runs the real kubectl with another kubeconfig.
    ///
    /// # Errors
    /// As [`Lab::kubectl`].
    pub async fn kubectl_with(&self, kubeconfig: &Path, args: &[&str]) -> Result<String> {
        let output = tokio::process::Command::new(self.parts.tools.command("kubectl"))
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            .kill_on_drop(true)
            .output()
            .await
            .context("run kubectl")?;
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// The real components' commands, `promtool` and `amtool` among them.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.parts.tools
    }

    /// The API server's audit log.
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit {
            log: self.parts.control_plane.audit_log.clone(),
            client: self.client(),
        }
    }

    /// A way to the API server for `user` that can be cut.
    ///
    /// # Errors
    /// When there is no such user.
    pub async fn proxy(&self, user: &str) -> Result<Proxy> {
        let listen = SocketAddr::from((self.parts.network.host(), 0));
        let (proxy, address) = Proxy::start(listen, self.parts.control_plane.address).await?;
        let kubeconfig = self.guard.folder.join(format!(
            "control-plane/kubeconfig/{user}-by-proxy-{}.yaml",
            address.port()
        ));
        self.parts.control_plane.write_kubeconfig(&kubeconfig, user, address)?;
        Ok(proxy.with_kubeconfig(kubeconfig))
    }

    /// Installs the definitions of prometheus-operator's kinds, where the builder left them out.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn install_definitions(&self) -> Result<()> {
        self.parts.install_definitions().await
    }

    /// Starts prometheus-operator, Prometheus and Alertmanager, where the builder left them out.
    ///
    /// # Errors
    /// When they don't come up.
    pub async fn start_stack(&self) -> Result<()> {
        self.parts.start_stack(&self.guard).await
    }

    // ---- pods and processes ----

    /// Changes the table of images from now on: an image becomes available, or stops to be.
    pub fn set_image(&self, reference: &str, image: impl Into<Image>) {
        self.parts.images.set(reference, image.into());
    }

    /// What a container has written so far; of the newest pod, if there were several of that name.
    ///
    /// # Errors
    /// When no such container was ever started.
    pub fn pod_logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        let prefix = format!("{namespace}_{pod}_");
        let folders = std::fs::read_dir(self.logs_dir().join("pods")).context("no pod was started yet")?;
        let newest = folders
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path().join(format!("{container}.log")))
            .filter_map(|log| Some((std::fs::metadata(&log).ok()?.modified().ok()?, log)))
            .max();
        let (_, log) =
            newest.with_context(|| format!("container {container} of {namespace}/{pod} was never started"))?;
        Ok(String::from_utf8_lossy(&std::fs::read(log)?).into_owned())
    }

    /// Starts a process that ends with the lab at the latest; its output goes to `<name>.log` in [`Lab::logs_dir`].
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        self.guard
            .supervisor
            .spawn(name, command, &self.logs_dir().join(format!("{name}.log")))
    }

    /// A loopback address that belongs to this lab alone; every port of it that the lab does not use itself is free.
    ///
    /// # Errors
    /// When 65,000 were given out.
    pub fn address(&self) -> Result<std::net::Ipv4Addr> {
        self.parts.network.pod()
    }

    /// Where every component, pod and spawned process writes its log.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.guard.logs()
    }

    // ---- the Prometheus stack and the receivers ----

    /// The lab's Prometheus.
    #[must_use]
    pub fn prometheus(&self) -> Prometheus {
        let url = format!("http://{}:{}", self.parts.network.host(), stack::PROMETHEUS_PORT);
        Prometheus {
            url,
            http: self.parts.http.clone(),
        }
    }

    /// The lab's Alertmanager.
    #[must_use]
    pub fn alertmanager(&self) -> Alertmanager {
        let url = format!("http://{}:{}", self.parts.network.host(), stack::ALERTMANAGER_PORT);
        Alertmanager {
            url,
            http: self.parts.http.clone(),
        }
    }

    /// What was posted to [`Lab::discord_url`].
    #[must_use]
    pub fn discord(&self) -> Inbox<DiscordMessage> {
        self.parts.inboxes.discord.clone()
    }

    /// What was posted to [`Lab::slack_url`].
    #[must_use]
    pub fn slack(&self) -> Inbox<SlackMessage> {
        self.parts.inboxes.slack.clone()
    }

    /// What was posted to [`Lab::webhook_url`].
    #[must_use]
    pub fn webhook(&self) -> Inbox<WebhookMessage> {
        self.parts.inboxes.webhook.clone()
    }

    /// What was mailed to either SMTP address.
    #[must_use]
    pub fn mail(&self) -> Inbox<Mail> {
        self.parts.mail.clone()
    }

    /// The URL to give to a Discord channel; `name` tells channels apart (`lab.discord().of(name)`).
    #[must_use]
    pub fn discord_url(&self, name: &str) -> String {
        format!("http://{}/discord/{name}", self.parts.receiver)
    }

    /// The URL to give to a Slack channel.
    #[must_use]
    pub fn slack_url(&self, name: &str) -> String {
        format!("http://{}/slack/{name}", self.parts.receiver)
    }

    /// The URL to give to a webhook channel.
    #[must_use]
    pub fn webhook_url(&self, name: &str) -> String {
        format!("http://{}/webhook/{name}", self.parts.receiver)
    }

    /// `host:port` of a mail server that asks for no login and offers no TLS (`requireTLS: false`).
    #[must_use]
    pub fn smtp(&self) -> String {
        self.parts.smtp.to_string()
    }

    /// `host:port` of a mail server that takes any user name and password, and no mail without them.
    #[must_use]
    pub fn smtp_with_login(&self) -> String {
        self.parts.smtp_with_login.to_string()
    }
}
