//! prometheus-operator, and the Prometheus and Alertmanager that run by the configuration which it generates.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, answers};
use crate::process::{Process, Supervisor};
use crate::tools::Tools;
use crate::{Tasks, wait};

/// The namespace of the lab's Prometheus and Alertmanager.
pub const MONITORING_NAMESPACE: &str = "monitoring";

/// The name of the Prometheus object and of the Alertmanager object.
const NAME: &str = "lab";
pub(crate) const OPERATOR_PORT: u16 = 21_080;
pub(crate) const PROMETHEUS_PORT: u16 = 21_090;
pub(crate) const ALERTMANAGER_PORT: u16 = 21_093;

/// The API server refuses endpoints on loopback, so the Alertmanager pod claims this address, which nothing else in the lab has;
/// the Prometheus object relabels it to the one where Alertmanager listens. All other pods have their real addresses.
const ALERTMANAGER_POD_IP: &str = "10.255.0.93";

/// Which alerts reach the routes of an `AlertmanagerConfig`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatcherStrategy {
    /// Those whose label `namespace` is the object's namespace: prometheus-operator's default.
    #[default]
    OnNamespace,
    /// All.
    None,
}

/// How the stack is set up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) matcher_strategy: MatcherStrategy,
    pub(crate) interval: String,
    /// Labels that rules, monitors and `AlertmanagerConfigs` must carry to be selected.
    pub(crate) selector: BTreeMap<String, String>,
}

/// True for the pods that prometheus-operator makes: the lab runs their programs itself.
pub(crate) fn runs_elsewhere(pod: &Pod) -> bool {
    pod.labels()
        .get("app.kubernetes.io/managed-by")
        .is_some_and(|manager| manager == "prometheus-operator")
}

/// The address that the pod's status shows.
pub(crate) fn address_of(pod: &Pod, ip: Ipv4Addr) -> String {
    let is_ours = pod.labels().get("alertmanager").is_some_and(|name| name == NAME);
    if is_ours && runs_elsewhere(pod) {
        ALERTMANAGER_POD_IP.to_owned()
    } else {
        ip.to_string()
    }
}

pub(crate) struct Start<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) supervisor: &'a Supervisor,
    pub(crate) control_plane: &'a ControlPlane,
    pub(crate) manifests: &'a crate::manifest::Manifests,
    pub(crate) tasks: &'a Tasks,
    pub(crate) client: Client,
    pub(crate) http: reqwest::Client,
    pub(crate) host: Ipv4Addr,
    pub(crate) folder: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) settings: &'a Settings,
}

impl Start<'_> {
    /// Comes back when Prometheus runs with Alertmanager discovered.
    pub(crate) async fn start(self) -> Result<()> {
        let mut operator = Command::new(self.tools.command("prometheus-operator"));
        operator
            .arg(format!("--web.listen-address={}:{OPERATOR_PORT}", self.host))
            .env("KUBECONFIG", self.control_plane.kubeconfig_path("prometheus-operator"));
        let operator = self.supervisor.spawn(
            "prometheus-operator",
            &mut operator,
            &self.logs.join("prometheus-operator.log"),
        )?;

        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": MONITORING_NAMESPACE}});
        for object in [namespace, self.prometheus_object()?, self.alertmanager_object()] {
            self.manifests.apply("lab", &object, MONITORING_NAMESPACE).await?;
        }
        let prometheus = Files::new("prometheus", self.folder.join("prometheus"), self.client.clone());
        let alertmanager = Files::new("alertmanager", self.folder.join("alertmanager"), self.client.clone());
        for files in [&prometheus, &alertmanager] {
            let what = format!("prometheus-operator to configure {}", files.program);
            let written = wait::until(wait::PATIENCE, &what, async || files.write().await);
            operator.while_running(written).await?;
        }

        let (prometheus_address, alertmanager_address) = (
            SocketAddr::from((self.host, PROMETHEUS_PORT)),
            SocketAddr::from((self.host, ALERTMANAGER_PORT)),
        );
        let started = [
            self.run(
                &prometheus,
                prometheus_address,
                &["--storage.tsdb.path", "--web.enable-lifecycle"],
            )?,
            self.run(
                &alertmanager,
                alertmanager_address,
                &["--storage.path", "--cluster.listen-address="],
            )?,
        ];
        for (process, address) in started.iter().zip([prometheus_address, alertmanager_address]) {
            answers(process, address).await?;
            let name = process.name();
            wait::until(wait::PATIENCE, &format!("{name} to be ready"), async || {
                let answer = self.http.get(format!("http://{address}/-/ready")).send().await?;
                Ok(answer.status().is_success())
            })
            .await?;
        }
        self.tasks
            .spawn(prometheus.keep_in_step(prometheus_address, self.http.clone()));
        self.tasks
            .spawn(alertmanager.keep_in_step(alertmanager_address, self.http.clone()));

        let api = crate::Prometheus {
            url: format!("http://{prometheus_address}"),
            http: self.http.clone(),
        };
        wait::until(wait::PATIENCE, "Prometheus to discover Alertmanager", async || {
            let found: Value = api.get("alertmanagers", &[]).await?;
            Ok(found["activeAlertmanagers"]
                .as_array()
                .is_some_and(|found| !found.is_empty()))
        })
        .await
    }

    fn run(&self, files: &Files, address: SocketAddr, flags: &[&str]) -> Result<Process> {
        let (storage, others) = flags.split_first().context("the first flag names the storage")?;
        let mut command = Command::new(self.tools.command(files.program));
        command
            .args(["--config.file", &files.config().display().to_string()])
            .args([
                *storage,
                &self
                    .folder
                    .join(format!("{}-data", files.program))
                    .display()
                    .to_string(),
            ])
            .args(["--web.listen-address", &address.to_string()])
            .args(others);
        self.supervisor.spawn(
            files.program,
            &mut command,
            &self.logs.join(format!("{}.log", files.program)),
        )
    }

    fn prometheus_object(&self) -> Result<Value> {
        let kubeconfig = std::fs::read_to_string(self.control_plane.kubeconfig_path("prometheus"))?;
        let token = kubeconfig
            .split("token: ")
            .nth(1)
            .and_then(|rest| rest.split('}').next())
            .context("no token")?;
        let selector = json!({"matchLabels": self.settings.selector});
        let mut spec = json!({
            "replicas": 1,
            "scrapeInterval": self.settings.interval,
            "evaluationInterval": self.settings.interval,
            "apiserverConfig": {
                "host": format!("https://{}", self.control_plane.address),
                "bearerToken": token,
                "tlsConfig": {"caFile": self.control_plane.ca_file},
            },
            "alerting": {"alertmanagers": [{
                "name": "alertmanager-operated", "namespace": MONITORING_NAMESPACE, "port": "web",
                "relabelings": [{
                    "sourceLabels": ["__address__"], "targetLabel": "__address__",
                    "regex": format!("{}:.*", ALERTMANAGER_POD_IP.replace('.', "\\.")),
                    "replacement": format!("{}:{ALERTMANAGER_PORT}", self.host),
                }],
            }]},
        });
        for kind in ["rule", "podMonitor", "serviceMonitor", "probe", "scrapeConfig"] {
            spec[format!("{kind}Selector")] = selector.clone();
            spec[format!("{kind}NamespaceSelector")] = json!({});
        }
        Ok(json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus",
            "metadata": {"name": NAME, "namespace": MONITORING_NAMESPACE}, "spec": spec,
        }))
    }

    fn alertmanager_object(&self) -> Value {
        let strategy = match self.settings.matcher_strategy {
            MatcherStrategy::OnNamespace => "OnNamespace",
            MatcherStrategy::None => "None",
        };
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "Alertmanager",
            "metadata": {"name": NAME, "namespace": MONITORING_NAMESPACE},
            "spec": {
                "replicas": 1,
                "alertmanagerConfigSelector": {"matchLabels": self.settings.selector},
                "alertmanagerConfigNamespaceSelector": {},
                "alertmanagerConfigMatcherStrategy": {"type": strategy},
            },
        })
    }
}

/// The files that a program of the stack reads, as its pod would find them.
struct Files {
    program: &'static str,
    folder: PathBuf,
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
}

impl Files {
    fn new(program: &'static str, folder: PathBuf, client: Client) -> Self {
        Self {
            program,
            folder,
            secrets: Api::namespaced(client.clone(), MONITORING_NAMESPACE),
            config_maps: Api::namespaced(client, MONITORING_NAMESPACE),
        }
    }

    fn config(&self) -> PathBuf {
        self.folder.join(format!("{}.yaml", self.program))
    }

    /// Writes what prometheus-operator has generated; false until it has.
    async fn write(&self) -> Result<bool> {
        Ok(self.write_changes().await?.is_some())
    }

    /// `None` if there is no configuration yet, else whether a file has changed.
    async fn write_changes(&self) -> Result<Option<bool>> {
        let is_prometheus = self.program == "prometheus";
        let name = if is_prometheus {
            format!("prometheus-{NAME}")
        } else {
            format!("alertmanager-{NAME}-generated")
        };
        let Some(secret) = self.secrets.get_opt(&name).await? else {
            return Ok(None);
        };
        let mut wanted: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        for (key, value) in secret.data.into_iter().flatten() {
            match key.strip_suffix(".gz") {
                Some(key) => wanted.insert(self.folder.join(key), self.localise(&unzip(&value.0)?)),
                None => wanted.insert(self.folder.join(key), value.0),
            };
        }
        if !wanted.contains_key(&self.config()) {
            return Ok(None);
        }
        if is_prometheus {
            let rules = ListParams::default().labels(&format!("prometheus-name={NAME}"));
            for map in self.config_maps.list(&rules).await? {
                let folder = self.folder.join("rules").join(map.name_any());
                let files = map.data.into_iter().flatten();
                wanted.extend(files.map(|(file, text)| (folder.join(file), text.into_bytes())));
            }
        }
        for assets in self.secrets.list(&ListParams::default()).await? {
            if assets
                .name_any()
                .starts_with(&format!("{}-{NAME}-tls-assets", self.program))
            {
                let files = assets.data.into_iter().flatten();
                wanted.extend(files.map(|(file, bytes)| (self.folder.join("certs").join(file), bytes.0)));
            }
        }
        let changed =
            write_exactly(&self.folder, &wanted).with_context(|| format!("write {}", self.folder.display()))?;
        Ok(Some(changed))
    }

    /// What the config reloader replaces in the pod, and the pod's folders by ours.
    fn localise(&self, config: &str) -> Vec<u8> {
        config
            .replace("$(POD_NAME)", &format!("{}-{NAME}-0", self.program))
            .replace("$(SHARD)", "0")
            .replace(
                &format!("/etc/{}/config/", self.program),
                &format!("{}/", self.folder.display()),
            )
            .replace(
                &format!("/etc/{}/", self.program),
                &format!("{}/", self.folder.display()),
            )
            .into_bytes()
    }

    async fn keep_in_step(self, address: SocketAddr, http: reqwest::Client) {
        let quiet = watcher::Config::default();
        let secrets = watcher(self.secrets.clone(), quiet.clone())
            .default_backoff()
            .map(|event| event.is_ok());
        let config_maps = watcher(self.config_maps.clone(), quiet)
            .default_backoff()
            .map(|event| event.is_ok());
        let mut events = std::pin::pin!(futures::stream::select(secrets, config_maps));
        let mut unloaded = false;
        loop {
            let event = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
            match event {
                Ok(None) => return,
                Ok(Some(false)) => continue,
                Err(_) if !unloaded => continue,
                Ok(Some(true)) | Err(_) => {}
            }
            match self.write_changes().await {
                Ok(Some(true)) => unloaded = true,
                Ok(_) => {}
                Err(error) => tracing::warn!(error = format!("{error:#}"), "{} keeps its configuration", self.program),
            }
            if unloaded {
                match reload(&http, address).await {
                    Ok(()) => unloaded = false,
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "{} did not reload", self.program),
                }
            }
        }
    }
}

async fn reload(http: &reqwest::Client, address: SocketAddr) -> Result<()> {
    let answer = http.post(format!("http://{address}/-/reload")).send().await?;
    if !answer.status().is_success() {
        bail!("{}", answer.text().await?);
    }
    Ok(())
}

fn unzip(bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .read_to_string(&mut text)
        .context("unzip a generated configuration")?;
    Ok(text)
}

/// Makes the files below `folder` exactly `wanted`; true if anything was changed.
fn write_exactly(folder: &Path, wanted: &BTreeMap<PathBuf, Vec<u8>>) -> Result<bool> {
    let mut changed = false;
    for (path, content) in wanted {
        if std::fs::read(path).is_ok_and(|now| now == *content) {
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, content)?;
        changed = true;
    }
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if !wanted.contains_key(&path) {
                std::fs::remove_file(path)?;
                changed = true;
            }
        }
    }
    Ok(changed)
}
