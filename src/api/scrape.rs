//! How Prometheus reads the sidecar.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::SERVER_NAME;
use super::quantities::Duration;
use super::references::{SecretKeyRef, SecretOrConfigMap};

/// How Prometheus reads the sidecar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.tlsConfig) || self.scheme == 'https'").message("tlsConfig needs scheme: https"))]
pub struct Scrape {
    /// How often; at most 2m. Default: 15s.
    #[serde(default = "interval")]
    pub interval: Duration,
    /// How long one scrape may take; at most the interval. Default: 5s.
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// Whether Prometheus asks by TLS (`https`), as the file of `exporter.webConfigSecretRef` says. Pods that were created before
    /// the monitor had that field are asked in plain HTTP until they are restarted. Default: http.
    #[serde(default)]
    pub scheme: Scheme,
    /// What Prometheus believes the sidecar by, and shows to it; needs `scheme: https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<TlsConfig>,
    /// User and password that Prometheus shows to the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
}

impl Default for Scrape {
    fn default() -> Self {
        Self {
            interval: interval(),
            timeout: timeout(),
            scheme: Scheme::Http,
            tls_config: None,
            basic_auth: None,
        }
    }
}

/// How Prometheus asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP by TLS.
    Https,
}

/// What Prometheus believes the sidecar by, and shows to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.cert) == has(self.keySecret)").message("cert and keySecret go together"),
    validation = Rule::new("!has(self.minVersion) || !has(self.maxVersion) || self.minVersion <= self.maxVersion")
        .message("minVersion must not be above maxVersion")
)]
pub struct TlsConfig {
    /// The certificate (PEM) of who signed the sidecar's. Default: those that Prometheus knows already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretOrConfigMap>,
    /// The certificate (PEM) that Prometheus shows; goes with `keySecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<SecretOrConfigMap>,
    /// The Secret key that holds the private key (PEM) of `cert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret: Option<SecretKeyRef>,
    /// Name that the sidecar's certificate must be for: Prometheus asks each pod by its address. Example: `rosey-exporter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SERVER_NAME))]
    pub server_name: Option<String>,
    /// Whether any certificate is believed. Default: false.
    #[serde(default)]
    pub insecure_skip_verify: bool,
    /// The oldest TLS that Prometheus speaks; the sidecar speaks none before 1.2. Default: TLS12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The newest TLS that Prometheus speaks. Default: TLS13.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TlsVersion>,
}

/// A version of TLS that the sidecar speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "TLS12")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "TLS13")]
    Tls13,
}

/// User and password, both from Secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// The Secret key that holds the user's name.
    pub username: SecretKeyRef,
    /// The Secret key that holds the password.
    pub password: SecretKeyRef,
}

fn interval() -> Duration {
    "15s".into()
}

fn timeout() -> Duration {
    "5s".into()
}
