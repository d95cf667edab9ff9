//! Questions to the lab's Alertmanager.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::prometheus::Labels;
use crate::wait;

/// The running Alertmanager.
#[derive(Clone, Debug)]
pub struct Alertmanager {
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
}

/// An alert as Alertmanager holds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldAlert {
    /// All labels, `alertname` included.
    pub labels: Labels,
    /// Summary, description and so on.
    pub annotations: Labels,
    /// Whether it is silenced or inhibited.
    pub status: HeldStatus,
    /// The receivers that its routes name.
    #[serde(default)]
    pub receivers: Vec<Receiver>,
}

/// Whether an alert is notified.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldStatus {
    /// `active`, `suppressed` or `unprocessed`.
    pub state: String,
    /// Fingerprints of the alerts that inhibit it.
    #[serde(default)]
    pub inhibited_by: Vec<String>,
    /// The silences that match it.
    #[serde(default)]
    pub silenced_by: Vec<String>,
}

/// A receiver's name.
#[derive(Clone, Debug, Deserialize)]
pub struct Receiver {
    /// For example `bots/rosey.ops-discord/critical`.
    pub name: String,
}

impl HeldAlert {
    /// The alert's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }

    /// True if another alert inhibits it.
    #[must_use]
    pub fn is_inhibited(&self) -> bool {
        !self.status.inhibited_by.is_empty()
    }
}

impl Alertmanager {
    /// One that is no lab's own, such as one of a cluster behind a proxy.
    #[must_use]
    pub fn at(url: String, http: reqwest::Client) -> Self {
        Self { url, http }
    }

    /// Where it listens, for example `http://127.42.0.1:21093`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The alerts that it holds, silenced and inhibited ones included.
    ///
    /// # Errors
    /// When Alertmanager does not answer.
    pub async fn alerts(&self) -> Result<Vec<HeldAlert>> {
        Ok(self
            .http
            .get(format!("{}/api/v2/alerts", self.url))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    /// Waits until it holds alert `name`.
    ///
    /// # Errors
    /// When it does not within `deadline`; the message tells which it holds.
    pub async fn until_alert(&self, deadline: Duration, name: &str) -> Result<HeldAlert> {
        wait::eventually(deadline, &format!("Alertmanager to hold alert {name}"), async || {
            let alerts = self.alerts().await?;
            let names: Vec<String> = alerts.iter().map(|alert| alert.name().to_owned()).collect();
            let found = alerts.into_iter().find(|alert| alert.name() == name);
            found
                .map(Some)
                .with_context(|| format!("it holds [{}]", names.join(", ")))
        })
        .await
    }

    /// The configuration that is in force, as YAML text with secrets hidden.
    ///
    /// # Errors
    /// When Alertmanager does not answer.
    pub async fn config(&self) -> Result<String> {
        let status: Value = self
            .http
            .get(format!("{}/api/v2/status", self.url))
            .send()
            .await?
            .json()
            .await?;
        Ok(status
            .pointer("/config/original")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }

    /// Waits until the configuration in force contains `text`, for example `bots/rosey.ops-discord/`.
    ///
    /// # Errors
    /// When it does not within `deadline`.
    pub async fn until_config_contains(&self, deadline: Duration, text: &str) -> Result<()> {
        wait::until(
            deadline,
            &format!("Alertmanager's configuration to contain {text:?}"),
            async || Ok(self.config().await?.contains(text)),
        )
        .await
    }
}
