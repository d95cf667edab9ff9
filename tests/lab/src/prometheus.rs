//! Questions to the lab's Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wait;

/// The running Prometheus.
#[derive(Clone, Debug)]
pub struct Prometheus {
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
}

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// One series of an instant query's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// All labels, `__name__` included.
    pub labels: Labels,
    /// The value now.
    pub value: f64,
}

/// An alert that is pending or firing.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// All labels, `alertname` included.
    pub labels: Labels,
    /// Summary, description and so on, with templates carried out.
    pub annotations: Labels,
    /// `pending` or `firing`.
    pub state: String,
    /// Since when, RFC 3339.
    #[serde(default)]
    pub active_at: String,
}

/// A rule as Prometheus has loaded it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The alert's or the record's name.
    pub name: String,
    /// `alerting` or `recording`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The expression as Prometheus prints it.
    pub query: String,
    /// How long it must hold, in seconds.
    #[serde(default)]
    pub duration: f64,
    /// Labels that the rule adds.
    #[serde(default)]
    pub labels: Labels,
    /// `ok`, `err` or `unknown` (not evaluated yet).
    pub health: String,
    /// Why the last evaluation failed, else empty.
    #[serde(default)]
    pub last_error: String,
    /// `inactive`, `pending` or `firing`; empty for a recording rule.
    #[serde(default)]
    pub state: String,
    /// The group's name.
    #[serde(skip)]
    pub group: String,
    /// The group's interval in seconds.
    #[serde(skip)]
    pub interval: f64,
}

/// A scrape target.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Labels as they stand on every series of the target.
    pub labels: Labels,
    /// For example `podMonitor/bots/rosey/0`.
    pub scrape_pool: String,
    /// What is scraped.
    pub scrape_url: String,
    /// `up`, `down` or `unknown`.
    pub health: String,
    /// Why the last scrape failed, else empty.
    #[serde(default)]
    pub last_error: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    interval: f64,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Alerts {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Vector {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: Labels,
    value: (f64, String),
}

impl Prometheus {
    /// One that is no lab's own, such as one of a cluster behind a proxy.
    #[must_use]
    pub fn at(url: String, http: reqwest::Client) -> Self {
        Self { url, http }
    }

    /// Where it listens, for example `http://127.42.0.1:21090`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The value of every series that `promql` selects now.
    ///
    /// # Errors
    /// When Prometheus refuses the expression or does not answer.
    pub async fn query(&self, promql: &str) -> Result<Vec<Sample>> {
        let vector: Vector = self
            .get("query", &[("query", promql)])
            .await
            .with_context(|| format!("query {promql}"))?;
        vector
            .result
            .into_iter()
            .map(|series| {
                Ok(Sample {
                    labels: series.metric,
                    value: series.value.1.parse()?,
                })
            })
            .collect()
    }

    /// Waits until `promql` selects something, and returns it. Most waits are written so: `up{pod="x"} == 0`.
    ///
    /// # Errors
    /// When it selects nothing within `deadline`.
    pub async fn until(&self, deadline: Duration, promql: &str) -> Result<Vec<Sample>> {
        wait::eventually(
            deadline,
            &format!("Prometheus to select something by {promql}"),
            async || {
                let samples = self.query(promql).await?;
                Ok((!samples.is_empty()).then_some(samples))
            },
        )
        .await
    }

    /// Every rule that is loaded.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn rules(&self) -> Result<Vec<Rule>> {
        let Groups { groups } = self.get("rules", &[]).await?;
        Ok(groups
            .into_iter()
            .flat_map(|Group { name, interval, rules }| {
                rules.into_iter().map(move |rule| Rule {
                    group: name.clone(),
                    interval,
                    ..rule
                })
            })
            .collect())
    }

    /// Waits until a rule of this name is loaded and was evaluated without an error.
    ///
    /// # Errors
    /// When it is not there within `deadline`; the message tells what Prometheus says of it.
    pub async fn until_rule(&self, deadline: Duration, name: &str) -> Result<Rule> {
        wait::eventually(deadline, &format!("rule {name} to be evaluated"), async || {
            let rule = self.rules().await?.into_iter().find(|rule| rule.name == name);
            let rule = rule.with_context(|| format!("no rule {name} is loaded"))?;
            if rule.health != "ok" {
                bail!("rule {name} is {}: {}", rule.health, rule.last_error);
            }
            Ok(Some(rule))
        })
        .await
    }

    /// The alerts that are pending or firing.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn alerts(&self) -> Result<Vec<Alert>> {
        Ok(self.get::<Alerts>("alerts", &[]).await?.alerts)
    }

    /// Waits until alert `name` is in `state` (`pending` or `firing`).
    ///
    /// # Errors
    /// When it is not within `deadline`; the message tells which alerts are.
    pub async fn until_alert(&self, deadline: Duration, name: &str, state: &str) -> Result<Alert> {
        wait::eventually(deadline, &format!("alert {name} to be {state}"), async || {
            let alerts = self.alerts().await?;
            let now: Vec<String> = alerts
                .iter()
                .map(|alert| format!("{} {}", alert.labels["alertname"], alert.state))
                .collect();
            let found = alerts
                .into_iter()
                .find(|alert| alert.labels["alertname"] == name && alert.state == state);
            found
                .map(Some)
                .with_context(|| format!("active alerts: [{}]", now.join(", ")))
        })
        .await
    }

    /// The targets that are scraped.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn targets(&self) -> Result<Vec<Target>> {
        Ok(self
            .get::<Targets>("targets", &[("state", "active")])
            .await?
            .active_targets)
    }

    /// Waits until a target whose scrape pool starts with `pool` (for example `podMonitor/bots/rosey/`) is up.
    ///
    /// # Errors
    /// When there is none within `deadline`; the message tells what hinders it.
    pub async fn until_scraped(&self, deadline: Duration, pool: &str) -> Result<Target> {
        wait::eventually(deadline, &format!("a target of {pool} to be up"), async || {
            let targets = self.targets().await?;
            let seen: Vec<String> = targets
                .iter()
                .map(|t| format!("{} {} {}", t.scrape_pool, t.health, t.last_error))
                .collect();
            let found = targets
                .into_iter()
                .find(|target| target.scrape_pool.starts_with(pool) && target.health == "up");
            found
                .map(Some)
                .with_context(|| format!("targets: [{}]", seen.join(", ")))
        })
        .await
    }

    /// The configuration that is in force, as YAML text.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn config(&self) -> Result<String> {
        let config: Value = self.get("status/config", &[]).await?;
        Ok(config["yaml"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the configuration in force contains `text`, for example `podMonitor/bots/rosey/1`.
    ///
    /// # Errors
    /// When it does not within `deadline`.
    pub async fn until_config_contains(&self, deadline: Duration, text: &str) -> Result<()> {
        let what = format!("Prometheus' configuration to contain {text:?}");
        wait::until(deadline, &what, async || Ok(self.config().await?.contains(text))).await
    }

    /// `data` of any path below `/api/v1/`.
    ///
    /// # Errors
    /// When Prometheus does not answer, or answers something else.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        let mut url = reqwest::Url::parse(&format!("{}/api/v1/{path}", self.url))?;
        url.query_pairs_mut().extend_pairs(query);
        let answer: Answer<T> = self.http.get(url).send().await?.json().await?;
        answer
            .data
            .with_context(|| format!("Prometheus answers: {}", answer.error))
    }
}
