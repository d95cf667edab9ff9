//! The cluster of a run: made, filled with images, and deleted at the end, however the run ends.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::images::Archive;

/// What is logged of the requests: those of the product's own service accounts, without bodies. Whatever else the API server is
/// asked would be most of a log that nobody reads.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, userGroups: ['system:serviceaccounts:rosey-system']}
  - {level: None}
";
const AUDIT_LOG: &str = "/var/log/kubernetes/audit.log";
/// Where etcd keeps a cluster that is deleted at the end: in memory, since kind mounts a tmpfs there (provision.go of its providers).
/// What a disk takes to sync is nobody's time here, and the clusters of a pipeline often share a slow one.
const ETCD: &str = "/tmp/etcd";

/// Where the commands are that a run starts.
#[derive(Clone, Debug)]
pub struct Commands {
    pub kind: PathBuf,
    pub kubectl: PathBuf,
    pub helm: PathBuf,
    pub rosey: PathBuf,
}

impl Commands {
    /// # Errors
    /// When something is not built, or there is no Docker.
    pub async fn find() -> Result<Self> {
        let docker = Command::new("docker")
            .args(["info", "--format", "{{.ServerVersion}}"])
            .output()
            .await;
        match docker {
            Ok(said) if said.status.success() => {}
            Ok(said) => bail!(
                "kind needs a Docker engine, and none answers: {}\nstart Docker, or set DOCKER_HOST to where it listens",
                String::from_utf8_lossy(&said.stderr).trim()
            ),
            Err(error) => bail!(
                "kind needs Docker, and there is no command docker ({error}); install it: https://docs.docker.com/get-docker/"
            ),
        }
        let folder = async |script: &str| -> Result<PathBuf> {
            let said = run(Command::new(lab::rosey::file(script)).arg("path")).await?;
            Ok(PathBuf::from(said))
        };
        let found = Self {
            kind: folder("tools/kind/build").await?.join("kind"),
            kubectl: folder("tools/build").await?.join("kubectl"),
            helm: folder("tools/packaging/build").await?.join("helm"),
            rosey: lab::rosey::binary("kubectl-rosey")?,
        };
        for (command, target) in [
            (&found.kind, "kind-images"),
            (&found.kubectl, "tools"),
            (&found.helm, "chart-tools"),
        ] {
            ensure!(command.exists(), "{} is missing; run: make {target}", command.display());
        }
        Ok(found)
    }
}

/// Runs a command to its end; what it printed, if it succeeds.
///
/// # Errors
/// When it fails, with what it said.
pub async fn run(command: &mut Command) -> Result<String> {
    let shown = {
        let command = command.as_std();
        let name = Path::new(command.get_program()).file_name().unwrap_or_default();
        let words: Vec<_> = std::iter::once(name)
            .chain(command.get_args())
            .map(OsStr::to_string_lossy)
            .collect();
        words.join(" ")
    };
    // A group of its own: Ctrl-C is for us, who then have a cluster to delete.
    let said = command
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .output()
        .await;
    let said = said.with_context(|| format!("run {shown}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    ensure!(
        said.status.success(),
        "{shown}: {}\n{}{}",
        said.status,
        text(&said.stderr),
        text(&said.stdout)
    );
    Ok(text(&said.stdout))
}

/// A cluster that runs.
pub struct Cluster {
    pub name: String,
    pub client: Client,
    pub commands: Commands,
    /// What `kubectl proxy` serves: the API server, and through it pods and services.
    pub proxy: String,
    folder: PathBuf,
    _proxy: Child,
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    /// Where the files of the run are.
    pub folder: PathBuf,
    /// The image of its nodes; kind's own, where there is none.
    pub image: Option<String>,
    /// How many nodes, the control plane included.
    pub nodes: usize,
    /// Whether it stays, and so has to outlive a restart of its nodes.
    pub stays: bool,
}

impl Plan {
    /// The configuration for kind. It has to work with the official image, too.
    fn configuration(&self, policy: &Path) -> Value {
        let flag = |name: &str, value: &str| json!({"name": name, "value": value});
        let mounts = json!([
            {"name": "audit-policy", "hostPath": "/etc/kubernetes/audit-policy.yaml", "mountPath": "/etc/kubernetes/audit-policy.yaml",
             "readOnly": true, "pathType": "File"},
            {"name": "audit-log", "hostPath": "/var/log/kubernetes", "mountPath": "/var/log/kubernetes", "readOnly": false,
             "pathType": "DirectoryOrCreate"},
        ]);
        let flags = [
            ("audit-policy-file", "/etc/kubernetes/audit-policy.yaml"),
            ("audit-log-path", AUDIT_LOG),
            ("audit-log-maxsize", "500"),
            // Some clusters have it, and then an owner that blocks a deletion needs a right of its own.
            (
                "enable-admission-plugins",
                "NodeRestriction,OwnerReferencesPermissionEnforcement",
            ),
        ];
        // kind applies a patch to documents of its own version only, and which version kubeadm is given depends on Kubernetes'. The newer
        // one has lists where the older one has maps.
        let list: Vec<_> = flags.iter().map(|(name, value)| flag(name, value)).collect();
        let map: serde_json::Map<_, _> = flags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let patch = |version: &str, arguments: Value| {
            let mut patch = json!({
                "apiVersion": format!("kubeadm.k8s.io/{version}"), "kind": "ClusterConfiguration",
                "apiServer": {"extraArgs": arguments, "extraVolumes": mounts},
            });
            if !self.stays {
                patch["etcd"] = json!({"local": {"dataDir": ETCD}});
            }
            patch.to_string()
        };
        let patches = json!([patch("v1beta3", json!(map)), patch("v1beta4", json!(list))]);
        let mut nodes = vec![json!({
            "role": "control-plane", "kubeadmConfigPatches": patches,
            "extraMounts": [{"hostPath": policy, "containerPath": "/etc/kubernetes/audit-policy.yaml", "readOnly": true}],
        })];
        nodes.resize(self.nodes.max(1), json!({"role": "worker"}));
        json!({"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": nodes})
    }

    /// Creates it. What was made of it before an error, or before this is dropped, [`delete`] takes away.
    ///
    /// # Errors
    /// When kind fails.
    pub async fn create(&self, commands: &Commands) -> Result<Cluster> {
        let [policy, configuration, kubeconfig] =
            ["audit-policy.yaml", "kind.yaml", "kubeconfig"].map(|name| self.folder.join(name));
        std::fs::write(&policy, AUDIT_POLICY)?;
        std::fs::write(&configuration, self.configuration(&policy).to_string())?;
        let mut kind = Command::new(&commands.kind);
        kind.args(["create", "cluster", "--wait", "180s", "--name", &self.name]);
        kind.arg("--config")
            .arg(&configuration)
            .arg("--kubeconfig")
            .arg(&kubeconfig);
        if let Some(image) = &self.image {
            kind.args(["--image", image]);
        }
        run(&mut kind).await.context(
            "create the cluster; where the node image can't be pulled, name one that is there: KIND_NODE_IMAGE=… or --image",
        )?;
        let read = Kubeconfig::read_from(&kubeconfig)?;
        let mut config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        // What is refused is to be seen, not asked again until it is not.
        config.default_retry = false;
        let port = lab::free_port()?;
        let mut proxy = Command::new(&commands.kubectl);
        proxy
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(["proxy", "--port", &port.to_string()]);
        let proxy = proxy
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        lab::until(lab::PATIENCE, "kubectl proxy to listen", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(true)
        })
        .await?;
        Ok(Cluster {
            name: self.name.clone(),
            client: Client::try_from(config)?,
            commands: commands.clone(),
            proxy: format!("http://127.0.0.1:{port}"),
            folder: self.folder.clone(),
            _proxy: proxy,
        })
    }
}

/// Deletes a cluster, or what there is of it.
///
/// # Errors
/// When kind fails.
pub async fn delete(commands: &Commands, name: &str) -> Result<()> {
    // Without a kubeconfig of its own, kind would look into the user's.
    let none = tempfile::NamedTempFile::new()?;
    let mut kind = Command::new(&commands.kind);
    kind.args(["delete", "cluster", "--name", name])
        .arg("--kubeconfig")
        .arg(none.path());
    run(&mut kind).await.map(drop)
}

impl Cluster {
    /// The file that kind wrote; the user's own is left alone.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// # Errors
    /// When kubectl fails, with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(&self.commands.kubectl)
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig()))
        .await
    }

    /// `kubectl rosey`.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn rosey(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(&self.commands.rosey)
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig()))
        .await
    }

    /// # Errors
    /// When helm fails, with what it said.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut helm = Command::new(&self.commands.helm);
        helm.args(arguments).env("KUBECONFIG", self.kubeconfig());
        // Nothing of the user's own repositories and plugins.
        for (variable, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            helm.env(variable, self.folder.join("helm").join(folder));
        }
        run(helm.current_dir(lab::rosey::file("."))).await
    }

    /// The nodes' names, which are those of their containers.
    ///
    /// # Errors
    /// When kind fails.
    pub async fn nodes(&self) -> Result<Vec<String>> {
        let said = run(Command::new(&self.commands.kind).args(["get", "nodes", "--name", &self.name])).await?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// Runs a command in a node.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn in_node(&self, node: &str, command: &[&str]) -> Result<String> {
        run(Command::new("docker").args(["exec", node]).args(command)).await
    }

    /// Puts images into every node.
    ///
    /// # Errors
    /// When kind fails.
    pub async fn load(&self, archives: &[Archive]) -> Result<()> {
        // One after the other: each is bound by the same disk.
        for archive in archives {
            let mut kind = Command::new(&self.commands.kind);
            run(kind
                .args(["load", "image-archive", "--name", &self.name])
                .arg(&archive.path))
            .await?;
        }
        Ok(())
    }

    /// Gives an image of every node another name.
    ///
    /// # Errors
    /// When a node does not have it.
    pub async fn name_again(&self, image: &str, again: &str) -> Result<()> {
        // Without a registry's name, containerd knows images by that of the public one.
        let [image, again] = [image, again].map(|name| format!("docker.io/{name}"));
        for node in self.nodes().await? {
            self.in_node(
                &node,
                &["ctr", "-n", "k8s.io", "images", "tag", "--force", &image, &again],
            )
            .await?;
        }
        Ok(())
    }

    /// The requests of the product's service accounts so far.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn audit(&self) -> Result<Vec<lab::Request>> {
        let node = format!("{}-control-plane", self.name);
        let log = self.in_node(&node, &["cat", AUDIT_LOG]).await?;
        let requests = log
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
        requests.collect()
    }
}
