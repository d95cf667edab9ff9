//! The way to the API server for the few commands that need one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::Error;

/// Which cluster, as kubectl takes it.
#[derive(Debug, Args)]
pub(super) struct Cluster {
    /// Namespace of the monitor. Default: that of the kubeconfig's context.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long)]
    context: Option<String>,
    /// Kubeconfig file. Default: KUBECONFIG, else ~/.kube/config, else the service account of the pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Cluster {
    /// Whether any of the flags is given.
    pub(super) fn is_given(&self) -> bool {
        self.namespace.is_some() || self.context.is_some() || self.kubeconfig.is_some()
    }

    /// A client, and the namespace that is meant.
    ///
    /// # Errors
    /// No usable kubeconfig.
    pub async fn connect(&self) -> Result<(Client, String), Error> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(Duration::from_secs(10));
        config.read_timeout = Some(Duration::from_secs(30));
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Error::Kubeconfig(error.to_string()))?;
        Ok((client, namespace))
    }

    async fn config(&self) -> Result<Config, Error> {
        let unusable = |error: &dyn std::error::Error| Error::Kubeconfig(error.to_string());
        if self.kubeconfig.is_none() && self.context.is_none() {
            return Config::infer().await.map_err(|error| unusable(&error));
        }
        let file = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        Config::from_custom_kubeconfig(file.map_err(|error| unusable(&error))?, &options)
            .await
            .map_err(|error| unusable(&error))
    }
}

/// An answer of the API server, said to the person who asked: what it was about, and which right is missing.
pub(super) fn api_error(what: &str, right: &str, error: &kube::Error) -> Error {
    let reason = match error {
        kube::Error::Api(status) if status.is_not_found() => "not found".to_owned(),
        kube::Error::Api(status) if status.is_forbidden() => format!("you may not {right}"),
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    };
    Error::Api {
        what: what.to_owned(),
        reason,
    }
}

/// An error with its causes: the outermost alone often says no more than that something failed.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
