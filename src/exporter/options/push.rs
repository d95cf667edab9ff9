//! Flags of a Pushgateway.

use std::collections::BTreeMap;

use crate::sidecar::config::{Config, PUSH_INTERVAL_SECONDS, PUSH_JOB, Pushgateway};

/// Where the series are pushed to.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PushFlags {
    /// Address of a Pushgateway, http or https, that gets the series as well
    #[arg(long = "push-url", value_name = "URL", conflicts_with = "config")]
    url: Option<String>,
    /// Seconds between two pushes
    #[arg(long = "push-interval", value_name = "SECONDS", default_value_t = PUSH_INTERVAL_SECONDS, conflicts_with = "config")]
    interval: f64,
    /// Label job of what is pushed
    #[arg(long = "push-job", value_name = "NAME", default_value = PUSH_JOB, conflicts_with = "config")]
    job: String,
    /// Another label of what is pushed; instance, the host's name, and environment are there by themselves; may be repeated
    #[arg(long = "push-label", value_name = "NAME=VALUE", value_parser = label, conflicts_with = "config")]
    labels: Vec<(String, String)>,
    /// User that the Pushgateway asks for
    #[arg(
        long = "push-username",
        value_name = "NAME",
        requires = "password_file",
        conflicts_with = "config"
    )]
    username: Option<String>,
    /// File with that user's password; read anew for each push
    #[arg(
        long = "push-password-file",
        value_name = "FILE",
        requires = "username",
        conflicts_with = "config"
    )]
    password_file: Option<String>,
    /// File with the certificates (PEM) that an https address is believed by; default: those of the system
    #[arg(long = "push-ca-file", value_name = "FILE", conflicts_with = "config")]
    ca_file: Option<String>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write NAME=VALUE, for example team=chat".into()),
    }
}

impl PushFlags {
    /// The gateway, whose address `variable` may give as well. A variable that can't be read is reported and ignored.
    pub(super) fn gateway(self, variable: Option<String>) -> Option<Pushgateway> {
        let url = self.url.or_else(|| variable.and_then(address));
        let Some(url) = url else {
            if !self.labels.is_empty() || self.username.is_some() || self.ca_file.is_some() {
                tracing::warn!("nothing is pushed: write --push-url as well, or set PUSHGATEWAY_URL");
            }
            return None;
        };
        Some(Pushgateway {
            url,
            interval_seconds: self.interval,
            job: self.job,
            labels: self.labels.into_iter().collect(),
            username: self.username,
            password_file: self.password_file,
            ca_file: self.ca_file,
        })
    }
}

/// The address in a variable. As the clients of Python and Go take it, without a scheme it is http.
fn address(value: String) -> Option<String> {
    let url = if value.contains("://") {
        value
    } else {
        format!("http://{value}")
    };
    let config = Config {
        pushgateway: Some(Pushgateway {
            url: url.clone(),
            interval_seconds: PUSH_INTERVAL_SECONDS,
            job: PUSH_JOB.to_owned(),
            labels: BTreeMap::new(),
            username: None,
            password_file: None,
            ca_file: None,
        }),
        ..Config::default()
    };
    match config.check() {
        Ok(()) => Some(url),
        Err((_, reason)) => {
            // Not its value: an address that is refused may have a password in it.
            tracing::warn!(
                variable = "PUSHGATEWAY_URL",
                reason,
                "ignored an environment variable that can't be read"
            );
            None
        }
    }
}
