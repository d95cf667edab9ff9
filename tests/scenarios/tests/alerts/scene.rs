//! A lab with the product in it, and bots that are watched.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::core::DynamicObject;
use lab::rosey::{Bot, Operator, binary, text};
use lab::{Builder, Lab, condition, eventually, has_condition};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long anything may take before a scenario fails; used up by failures only.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than five group intervals and five evaluations of the monitors here.
pub const A_WHILE: Duration = Duration::from_secs(5);
/// The resource, as the lab names kinds.
pub const MONITOR: &str = "rosey.dev/v1alpha1/RoseyMonitor";

/// A lab is a dozen processes; more of them at once than processors make each other late.
static TURNS: Semaphore = Semaphore::const_new(2);

/// The right to run a lab, until it is dropped; [`Scene`] has one.
pub async fn turn() -> Result<SemaphorePermit<'static>> {
    Ok(TURNS.acquire().await?)
}

/// A lab with a running operator.
pub struct Scene {
    pub lab: Lab,
    pub operator: Operator,
    _turn: SemaphorePermit<'static>,
}

impl Scene {
    /// The whole stack with every default.
    pub async fn start() -> Result<Self> {
        Self::of(Lab::builder()).await
    }

    pub async fn of(builder: Builder) -> Result<Self> {
        let turn = turn().await?;
        let lab = builder.rosey()?.start().await?;
        lab.install_rosey().await?;
        let operator = lab.operator("operator", &[]).await?;
        Ok(Self {
            lab,
            operator,
            _turn: turn,
        })
    }

    /// A namespace with the Secret of the examples. Discord and Slack are known by the namespace's name, so that each
    /// namespace has receivers of its own.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.lab.namespace(name).await?;
        let urls =
            json!({ "discord": self.lab.discord_url(name), "slack": self.lab.slack_url(name), "smtp": "password" });
        self.secret(name, "rosey-channels", &urls).await
    }

    pub async fn secret(&self, namespace: &str, name: &str, data: &Value) -> Result<()> {
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data });
        self.lab.apply_in(namespace, &secret.to_string()).await.map(drop)
    }

    /// The example's monitor for a bot `name`, with alerts that do not wait for minutes. Mail goes to `<namespace>@example.org`.
    pub fn monitor(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<Value> {
        self.lab.monitor("examples/rosey.yaml", |monitor| {
            monitor["metadata"] = json!({ "namespace": namespace, "name": name });
            monitor["spec"]["selector"] = json!({ "matchLabels": { "app": name } });
            monitor["spec"]["alerts"]["runbookURL"] = json!("https://runbooks.example.org/{alert}");
            // HighResponseTime comes later than BotDown, as it does with the usual times.
            monitor["spec"]["alerts"]["overrides"] = json!([
                held("BotDown", "critical", "3s"),
                held("HighResponseTime", "warning", "6s"),
                held("BotDisconnected", "warning", "1s"),
                held("HighMemoryUsage", "warning", "1s"),
            ]);
            for channel in monitor["spec"]["notifications"]["channels"]
                .as_array_mut()
                .into_iter()
                .flatten()
            {
                if let Some(email) = channel.get_mut("email") {
                    email["to"] = json!([format!("{namespace}@example.org")]);
                }
            }
            change(monitor);
        })
    }

    /// Applies a monitor and waits until it is in force: its rules are evaluated and its routes are live.
    pub async fn put_in_force(&self, monitor: &Value) -> Result<()> {
        let (namespace, name) = place(monitor)?;
        let stored = self.lab.apply(&monitor.to_string()).await?;
        let generation = stored.first().and_then(|monitor| monitor.metadata.generation);
        let ready = |monitor: &DynamicObject| {
            has_condition(monitor, "Ready") && monitor.data["status"]["observedGeneration"] == json!(generation)
        };
        self.lab.until_object(PATIENCE, MONITOR, namespace, name, ready).await?;
        let rules = format!("the rules of {namespace}/{name} to be evaluated");
        lab::until(PATIENCE, &rules, async || {
            let mut rules = self.lab.prometheus().rules().await?;
            let is =
                |labels: &lab::Labels, label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
            rules.retain(|rule| is(&rule.labels, "namespace", namespace) && is(&rule.labels, "rosey_monitor", name));
            Ok(!rules.is_empty() && rules.iter().all(|rule| rule.health == "ok"))
        })
        .await?;
        for channel in monitor["spec"]["notifications"]["channels"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let receiver = format!("{namespace}/{name}.{}/", channel["name"].as_str().unwrap_or_default());
            self.lab
                .alertmanager()
                .until_config_contains(PATIENCE, &receiver)
                .await?;
        }
        Ok(())
    }

    /// The Deployment of the examples under another name, with `app: <name>` on its pods.
    pub fn deployment(namespace: &str, name: &str) -> Result<Value> {
        let mut deployment: Value = serde_saphyr::from_str(&text("examples/rosey-bot.yaml")?)?;
        deployment["metadata"] = json!({ "namespace": namespace, "name": name });
        deployment["spec"]["selector"]["matchLabels"] = json!({ "app": name });
        deployment["spec"]["template"]["metadata"]["labels"] = json!({ "app": name });
        Ok(deployment)
    }

    /// The bot of a Deployment, once Prometheus has its series.
    pub async fn deploy(&self, deployment: &Value) -> Result<Bot> {
        let (namespace, name) = place(deployment)?;
        self.lab.apply(&deployment.to_string()).await?;
        let bot = self.lab.bot_of(namespace, &format!("app={name}")).await?;
        self.until_scraped(namespace, name, &bot).await?;
        Ok(bot)
    }

    pub async fn until_scraped(&self, namespace: &str, name: &str, bot: &Bot) -> Result<()> {
        let series = format!(
            "{{namespace=\"{namespace}\",rosey_monitor=\"{name}\",pod=\"{}\"}}",
            bot.pod
        );
        let query = format!("rosey_bot_up{series} == 1 and up{series} == 1");
        self.lab.prometheus().until(PATIENCE, &query).await.map(drop)
    }

    /// A namespace with a monitor named rosey in force, and then its bot.
    pub async fn watched_bot(&self, namespace: &str, change: impl FnOnce(&mut Value)) -> Result<Bot> {
        self.namespace(namespace).await?;
        self.put_in_force(&self.monitor(namespace, "rosey", change)?).await?;
        self.deploy(&Self::deployment(namespace, "rosey")?).await
    }

    /// A condition of a monitor once it has this status: its reason and its message.
    pub async fn condition(&self, namespace: &str, name: &str, kind: &str, status: &str) -> Result<(String, String)> {
        let wanted = |monitor: &DynamicObject| condition(monitor, kind).is_some_and(|found| found["status"] == status);
        let monitor = self
            .lab
            .until_object(PATIENCE, MONITOR, namespace, name, wanted)
            .await?;
        let found = condition(&monitor, kind).context("it was there a moment ago")?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Ok((text("reason"), text("message")))
    }

    /// Waits until an alert of a namespace fires; its labels.
    pub async fn until_firing(&self, namespace: &str, alert: &str) -> Result<lab::Labels> {
        eventually(PATIENCE, &format!("{alert} of {namespace} to fire"), async || {
            let alerts = self.lab.prometheus().alerts().await?;
            let seen: Vec<_> = alerts.iter().map(|a| format!("{:?} {}", a.labels, a.state)).collect();
            let mut firing = alerts.into_iter().filter(|a| a.state == "firing").map(|a| a.labels);
            let found = firing.find(|labels| labels["alertname"] == alert && labels["namespace"] == namespace);
            found.map(Some).with_context(|| seen.join("\n"))
        })
        .await
    }

    /// Runs `kubectl rosey` as the user who may do everything; its output if it succeeds.
    pub async fn rosey(&self, arguments: &[&str]) -> Result<String> {
        let output = rosey(&self.lab, arguments, &[]).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "kubectl rosey {}: {said}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Runs `kubectl rosey`, however it ends, with nothing in its environment but the kubeconfig and what is given.
pub async fn rosey(lab: &Lab, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    tokio::process::Command::new(binary("kubectl-rosey")?)
        .args(arguments)
        .env_clear()
        .env("KUBECONFIG", lab.kubeconfig())
        .envs(environment.iter().copied())
        .current_dir(lab::rosey::file("."))
        .kill_on_drop(true)
        .output()
        .await
        .context("run kubectl-rosey")
}

/// An override that shortens (or lengthens) how long a condition must hold.
pub fn held(alert: &str, severity: &str, hold: &str) -> Value {
    json!({ "alert": alert, "levels": [{ "severity": severity, "for": hold }] })
}

fn place(object: &Value) -> Result<(&str, &str)> {
    let text = |field: &str| {
        object["metadata"][field]
            .as_str()
            .with_context(|| format!("no metadata.{field}"))
    };
    Ok((text("namespace")?, text("name")?))
}
