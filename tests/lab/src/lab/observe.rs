//! Pods, processes, the Prometheus stack, and what arrives at the receivers.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::Lab;
use crate::alertmanager::Alertmanager;
use crate::node::image::Image;
use crate::process::Process;
use crate::prometheus::Prometheus;
use crate::receivers::Inbox;
use crate::receivers::message::{DiscordMessage, Mail, SlackMessage, WebhookMessage};
use crate::stack;

impl Lab {
    /// Changes the table of images from now on: an image becomes available, or stops to be.
    pub fn set_image(&self, reference: &str, image: impl Into<Image>) {
        self.parts.images.set(reference, image.into());
    }

    /// What a container has written so far; of the newest pod, if there were several of that name.
    ///
    /// # Errors
    /// When no such container was ever started.
    pub fn pod_logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        let prefix = format!("{namespace}_{pod}_");
        let folders = std::fs::read_dir(self.logs_dir().join("pods")).context("no pod was started yet")?;
        let newest = folders
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path().join(format!("{container}.log")))
            .filter_map(|log| Some((std::fs::metadata(&log).ok()?.modified().ok()?, log)))
            .max();
        let (_, log) =
            newest.with_context(|| format!("container {container} of {namespace}/{pod} was never started"))?;
        Ok(String::from_utf8_lossy(&std::fs::read(log)?).into_owned())
    }

    /// Starts a process that ends with the lab at the latest; its output goes to `<name>.log` in [`Lab::logs_dir`].
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        self.guard
            .supervisor
            .spawn(name, command, &self.logs_dir().join(format!("{name}.log")))
    }

    /// A loopback address that belongs to this lab alone; every port of it that the lab does not use itself is free.
    ///
    /// # Errors
    /// When 65,000 were given out.
    pub fn address(&self) -> Result<std::net::Ipv4Addr> {
        self.parts.network.pod()
    }

    /// Where every component, pod and spawned process writes its log.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.guard.logs()
    }

    /// The lab's Prometheus.
    #[must_use]
    pub fn prometheus(&self) -> Prometheus {
        let url = format!("http://{}:{}", self.parts.network.host(), stack::PROMETHEUS_PORT);
        Prometheus {
            url,
            http: self.parts.http.clone(),
        }
    }

    /// The lab's Alertmanager.
    #[must_use]
    pub fn alertmanager(&self) -> Alertmanager {
        let url = format!("http://{}:{}", self.parts.network.host(), stack::ALERTMANAGER_PORT);
        Alertmanager {
            url,
            http: self.parts.http.clone(),
        }
    }

    /// What prometheus-operator says of itself, as Prometheus text: how many objects it selected, and how many it refused.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn prometheus_operator_metrics(&self) -> Result<String> {
        let url = format!("http://{}:{}/metrics", self.parts.network.host(), stack::OPERATOR_PORT);
        Ok(self
            .parts
            .http
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?)
    }

    /// What was posted to [`Lab::discord_url`].
    #[must_use]
    pub fn discord(&self) -> Inbox<DiscordMessage> {
        self.parts.inboxes.discord.clone()
    }

    /// What was posted to [`Lab::slack_url`].
    #[must_use]
    pub fn slack(&self) -> Inbox<SlackMessage> {
        self.parts.inboxes.slack.clone()
    }

    /// What was posted to [`Lab::webhook_url`].
    #[must_use]
    pub fn webhook(&self) -> Inbox<WebhookMessage> {
        self.parts.inboxes.webhook.clone()
    }

    /// What was mailed to either SMTP address.
    #[must_use]
    pub fn mail(&self) -> Inbox<Mail> {
        self.parts.mail.clone()
    }

    /// The URL to give to a Discord channel; `name` tells channels apart (`lab.discord().of(name)`).
    #[must_use]
    pub fn discord_url(&self, name: &str) -> String {
        format!("http://{}/discord/{name}", self.parts.receiver)
    }

    /// The URL to give to a Slack channel.
    #[must_use]
    pub fn slack_url(&self, name: &str) -> String {
        format!("http://{}/slack/{name}", self.parts.receiver)
    }

    /// The URL to give to a webhook channel.
    #[must_use]
    pub fn webhook_url(&self, name: &str) -> String {
        format!("http://{}/webhook/{name}", self.parts.receiver)
    }

    /// `host:port` of a mail server that asks for no login and offers no TLS (`requireTLS: false`).
    #[must_use]
    pub fn smtp(&self) -> String {
        self.parts.smtp.to_string()
    }

    /// `host:port` of a mail server that takes any user name and password, and no mail without them.
    #[must_use]
    pub fn smtp_with_login(&self) -> String {
        self.parts.smtp_with_login.to_string()
    }
}
