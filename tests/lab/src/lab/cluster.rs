//! What scenarios ask of the cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::Client;
use kube::api::DynamicObject;
use serde_json::json;

use super::Lab;
use crate::audit::Audit;
use crate::proxy::Proxy;
use crate::tools::Tools;
use crate::{control_plane, manifest, wait};

impl Lab {
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
        self.parts
            .manifests
            .until(deadline, kind, namespace, name, accept)
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
        let manifests = &self.parts.manifests;
        manifests
            .until_condition(deadline, kind, namespace, name, condition)
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
}
