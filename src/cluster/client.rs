//! The client of the API server.

use kube::config::{InferConfigError, KubeConfigOptions};
use kube::{Client, Config};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a service account was found.
    #[error("no cluster to talk to: {0}")]
    Infer(#[from] Box<InferConfigError>),
    /// The kubeconfig can't be read.
    #[error("the kubeconfig is unusable: {0}")]
    Kubeconfig(#[from] Box<kube::config::KubeconfigError>),
    /// The client can't be made of it.
    #[error("the configuration makes no client: {0}")]
    Client(#[from] Box<kube::Error>),
}

/// Installs the one TLS provider of the process. The first thing that `main` does; later calls change nothing.
pub fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client from the kubeconfig (`context`, if given) or, in a pod, from its service account.
///
/// It never repeats a request by itself: whoever writes has to decide again whether it still may.
///
/// # Errors
/// No cluster is configured, or its configuration is unusable.
pub async fn connect(context: Option<&str>) -> Result<Client, Error> {
    let mut config = match context {
        Some(context) => {
            let options = KubeConfigOptions {
                context: Some(context.into()),
                ..KubeConfigOptions::default()
            };
            Config::from_kubeconfig(&options).await.map_err(Box::new)?
        }
        None => Config::infer().await.map_err(Box::new)?,
    };
    config.default_retry = false;
    Ok(Client::try_from(config).map_err(Box::new)?)
}

/// What the API server said, in its own words: kube's text repeats the whole answer in Rust's debug form.
#[must_use]
pub fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}
