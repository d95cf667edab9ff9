//! etcd, kube-apiserver and kube-controller-manager, and who may talk to them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::process::{Process, Supervisor};
use crate::tools::Tools;
use crate::wait;

pub(crate) const ETCD_PORT: u16 = 21_379;
pub(crate) const ETCD_PEER_PORT: u16 = 21_380;
pub(crate) const API_PORT: u16 = 21_443;

/// How much of each request the audit log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditLevel {
    /// Who did what to which object, with which outcome.
    #[default]
    Metadata,
    /// The bodies of request and response as well.
    RequestResponse,
}

/// What the control plane is started with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Users beside `admin`, each with their groups.
    pub(crate) users: BTreeMap<String, Vec<String>>,
    pub(crate) audit: AuditLevel,
    pub(crate) service_accounts: bool,
    pub(crate) api_server_flags: Vec<String>,
}

/// The running control plane.
pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    pub(crate) ca_file: PathBuf,
    pub(crate) audit_log: PathBuf,
    folder: PathBuf,
    tokens: BTreeMap<String, String>,
    ca_pem: String,
    api_server: Process,
}

impl ControlPlane {
    pub(crate) async fn start(
        tools: &Tools,
        supervisor: &Supervisor,
        host: Ipv4Addr,
        folder: &Path,
        logs: &Path,
        settings: &Settings,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder.join("kubeconfig"))?;
        let etcd_url = format!("http://{host}:{ETCD_PORT}");
        let peer_url = format!("http://{host}:{ETCD_PEER_PORT}");
        let mut etcd = Command::new(tools.command("etcd"));
        etcd.args(["--data-dir", &folder.join("etcd").display().to_string()])
            .args(["--listen-client-urls", &etcd_url, "--advertise-client-urls", &etcd_url])
            .args([
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
            ])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .args(["--unsafe-no-fsync", "--log-level", "warn"]);
        let etcd = supervisor.spawn("etcd", &mut etcd, &logs.join("etcd.log"))?;

        let ca_pem = write_certificates(folder, host)?;
        let tokens = write_users(folder, settings)?;
        let audit_log = logs.join("audit.jsonl");
        std::fs::write(
            folder.join("audit-policy.json"),
            audit_policy(settings.audit).to_string(),
        )?;
        // The API server's own client of etcd waits a second before its second attempt: it must not need one.
        answers(&etcd, SocketAddr::from((host, ETCD_PORT))).await?;

        let path = |name: &str| folder.join(name).display().to_string();
        let mut api_server = Command::new(tools.command("kube-apiserver"));
        api_server
            .args(["--etcd-servers", &etcd_url])
            .args([
                "--bind-address",
                &host.to_string(),
                "--secure-port",
                &API_PORT.to_string(),
            ])
            .args([
                "--tls-cert-file",
                &path("tls.crt"),
                "--tls-private-key-file",
                &path("tls.key"),
            ])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .args([
                "--service-account-key-file",
                &path("sa.pub"),
                "--service-account-signing-key-file",
                &path("sa.key"),
            ])
            .args(["--token-auth-file", &path("tokens.csv"), "--authorization-mode", "RBAC"])
            .args(["--service-cluster-ip-range", "10.0.0.0/16", "--allow-privileged"])
            .args(["--audit-policy-file", &path("audit-policy.json")])
            // Never rotated: the log of a lab is read from its first line to its last.
            .args([
                "--audit-log-path",
                &audit_log.display().to_string(),
                "--audit-log-maxsize",
                "1000000",
            ])
            .args(if settings.service_accounts {
                None
            } else {
                Some("--disable-admission-plugins=ServiceAccount")
            })
            .args(&settings.api_server_flags);
        let api_server = supervisor.spawn("kube-apiserver", &mut api_server, &logs.join("kube-apiserver.log"))?;

        let this = Self {
            address: SocketAddr::from((host, API_PORT)),
            ca_file: folder.join("ca.crt"),
            audit_log,
            folder: folder.to_owned(),
            tokens,
            ca_pem,
            api_server,
        };
        for user in this.tokens.keys() {
            this.write_kubeconfig(&this.kubeconfig_path(user), user, this.address)?;
        }
        this.ready().await?;

        let mut controllers = Command::new(tools.command("kube-controller-manager"));
        controllers
            .args([
                "--kubeconfig",
                &this.kubeconfig_path("kube-controller-manager").display().to_string(),
            ])
            .args([
                "--service-account-private-key-file",
                &path("sa.key"),
                "--root-ca-file",
                &path("ca.crt"),
            ])
            .args([
                "--leader-elect=false",
                "--secure-port=0",
                "--kube-api-qps=500",
                "--kube-api-burst=1000",
            ])
            .arg("--controllers=*,-nodelifecycle,-nodeipam,-node-route-controller,-service-lb-controller");
        let log = logs.join("kube-controller-manager.log");
        supervisor.spawn("kube-controller-manager", &mut controllers, &log)?;
        Ok(this)
    }

    async fn ready(&self) -> Result<()> {
        let client = self.client("admin").await?;
        let ready = wait::until(wait::PATIENCE, "the API server to be ready", async || {
            let request = axum::http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await? == "ok")
        });
        self.api_server.while_running(ready).await
    }

    pub(crate) fn kubeconfig_path(&self, user: &str) -> PathBuf {
        self.folder.join("kubeconfig").join(format!("{user}.yaml"))
    }

    pub(crate) fn knows(&self, user: &str) -> bool {
        self.tokens.contains_key(user)
    }

    /// Writes a kubeconfig for `user` that talks to `address`: the API server or a proxy before it.
    pub(crate) fn write_kubeconfig(&self, path: &Path, user: &str, address: SocketAddr) -> Result<()> {
        let token = self.tokens.get(user).with_context(|| {
            let known: Vec<&str> = self.tokens.keys().map(String::as_str).collect();
            format!(
                "the lab has no user {user:?}; give it to Lab::builder().user(…) (known: {})",
                known.join(", ")
            )
        })?;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters:\n- name: lab\n  cluster: {{server: \"https://{address}\", certificate-authority-data: {ca}}}\n\
             users:\n- name: {user}\n  user: {{token: {token}}}\n\
             contexts:\n- name: lab\n  context: {{cluster: lab, user: {user}}}\n",
            ca = base64(self.ca_pem.as_bytes()),
        );
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    pub(crate) async fn client(&self, user: &str) -> Result<Client> {
        client_of(&self.kubeconfig_path(user)).await
    }
}

/// A client that takes everything it needs from one kubeconfig file.
pub(crate) async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Waits until something listens on `address`.
pub(crate) async fn answers(process: &Process, address: SocketAddr) -> Result<()> {
    let name = process.name();
    let what = format!("{name} to listen on {address}");
    let listens = wait::until(wait::PATIENCE, &what, async || {
        tokio::net::TcpStream::connect(address).await?;
        Ok(true)
    });
    process.while_running(listens).await
}

fn write_certificates(folder: &Path, host: Ipv4Addr) -> Result<String> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "lab");
    ca.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let names = [&host.to_string(), "127.0.0.1", "localhost", "kubernetes.default.svc"].map(String::from);
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    let leaf_key = KeyPair::generate()?;
    let leaf_pem = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key))?.pem();

    std::fs::write(folder.join("ca.crt"), &ca_pem)?;
    std::fs::write(folder.join("tls.crt"), leaf_pem)?;
    std::fs::write(folder.join("tls.key"), leaf_key.serialize_pem())?;
    let service_accounts = KeyPair::generate()?;
    std::fs::write(folder.join("sa.key"), service_accounts.serialize_pem())?;
    std::fs::write(folder.join("sa.pub"), service_accounts.public_key_pem())?;
    Ok(ca_pem)
}

/// The token file, and who has which token. Tokens of a lab guard nothing but loopback.
fn write_users(folder: &Path, settings: &Settings) -> Result<BTreeMap<String, String>> {
    use std::fmt::Write as _;

    let masters = vec!["system:masters".to_owned()];
    let mut users = settings.users.clone();
    for own in [
        "admin",
        "lab-node",
        "kube-controller-manager",
        "prometheus-operator",
        "prometheus",
    ] {
        users.entry(own.to_owned()).or_insert_with(|| masters.clone());
    }
    let mut file = String::new();
    let mut tokens = BTreeMap::new();
    for (user, groups) in users {
        let token = format!("{user}-{}", crate::random_hex());
        writeln!(file, "{token},{user},{user},\"{}\"", groups.join(","))?;
        tokens.insert(user, token);
    }
    std::fs::write(folder.join("tokens.csv"), file)?;
    Ok(tokens)
}

fn audit_policy(level: AuditLevel) -> serde_json::Value {
    let level = match level {
        AuditLevel::Metadata => "Metadata",
        AuditLevel::RequestResponse => "RequestResponse",
    };
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "None", "nonResourceURLs": ["/readyz*", "/healthz*", "/livez*"]}, {"level": level}],
    })
}

fn base64(bytes: &[u8]) -> String {
    serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec()))
        .ok()
        .and_then(|value| value.as_str().map(String::from))
        .unwrap_or_default()
}
