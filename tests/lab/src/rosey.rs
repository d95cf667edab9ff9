//! The product in the lab: its definition and rights installed, its operator started, a bot with channels to tell.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Builder, Lab, Mark, Process, eventually};

/// The operator's user in the lab; it has the rights of its roles, and no others.
pub const OPERATOR: &str = "rosey-operator";
/// The operator's namespace.
pub const OPERATOR_NAMESPACE: &str = "rosey-system";
/// Where the operator's roles are.
pub const RIGHTS: &str = "deploy/rbac";
/// What it may do outside of namespaces.
pub const WHOLE_RIGHTS: &str = "deploy/rbac/operator-clusterrole.yaml";
/// What it may do where monitors are.
pub const WATCHED_RIGHTS: &str = "deploy/rbac/operator-watched-clusterrole.yaml";
/// What it may do in its own namespace.
pub const OWN_RIGHTS: &str = "deploy/rbac/operator-role.yaml";
/// Image of the exporter, as the operator names it by default.
pub const EXPORTER_IMAGE: &str = "rosey-monitor/rosey-exporter";
/// Image of the fake bot.
pub const BOT_IMAGE: &str = "rosey-monitor/fake-bot";
/// Port at which the bots of [`Lab::bot`] are controlled.
pub const CONTROL_PORT: u16 = 8001;

const START: Duration = Duration::from_secs(60);

/// A binary of the workspace, from the folder that this program was built into.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("where this program is")?;
    let found = this
        .ancestors()
        .skip(1)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built beside {}; run: cargo build --bins", this.display()))
}

/// A file of the repository.
#[must_use]
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Text of a file of the repository.
///
/// # Errors
/// When it can't be read.
pub fn text(path: &str) -> Result<String> {
    std::fs::read_to_string(file(path)).with_context(|| format!("read {path}"))
}

impl Builder {
    /// A lab that knows the operator's user and the images of exporter and bot.
    ///
    /// # Errors
    /// When a binary has not been built.
    pub fn rosey(self) -> Result<Self> {
        Ok(self
            .user(OPERATOR)
            .image(EXPORTER_IMAGE, binary("rosey-exporter")?)
            .image(BOT_IMAGE, binary("fake-bot")?))
    }
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    /// Its process.
    pub process: Process,
    /// How it was started, as one would type it.
    pub command: String,
    /// Where its metrics and its health are, `http://address:port`.
    pub url: String,
}

impl Operator {
    /// Its metrics, as Prometheus text.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(reqwest::get(format!("{}/metrics", self.url))
            .await?
            .error_for_status()?
            .text()
            .await?)
    }

    /// Whether `/readyz` says yes.
    pub async fn is_ready(&self) -> bool {
        matches!(reqwest::get(format!("{}/readyz", self.url)).await, Ok(answer) if answer.status().is_success())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the end of its log is in the message.
    pub async fn until_ready(&self) -> Result<()> {
        let ready = eventually(START, "the operator is ready", async || {
            Ok(self.is_ready().await.then_some(()))
        })
        .await;
        ready.with_context(|| {
            let log = self.process.log();
            let tail: Vec<_> = log.lines().rev().take(15).collect();
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        })
    }
}

impl Lab {
    /// Installs the resource's definition, the operator's namespace and its rights.
    ///
    /// # Errors
    /// When the API server refuses something.
    pub async fn install_rosey(&self) -> Result<()> {
        self.apply(&text("crds/roseymonitors.rosey.dev.yaml")?).await?;
        self.namespace(OPERATOR_NAMESPACE).await?;
        for role in [WHOLE_RIGHTS, WATCHED_RIGHTS, OWN_RIGHTS] {
            self.apply_in(OPERATOR_NAMESPACE, &text(role)?).await?;
        }
        let binding = |kind: &str, role: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": format!("{kind}Binding"),
                "metadata": { "name": role },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
                "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR }],
            })
        };
        for role in [OPERATOR, "rosey-operator-watched"] {
            self.apply(&binding("ClusterRole", role).to_string()).await?;
        }
        self.apply_in(OPERATOR_NAMESPACE, &binding("Role", OPERATOR).to_string())
            .await?;
        Ok(())
    }

    /// Starts an operator with its own rights, outside of the cluster: its webhooks are registered by URL.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn operator(&self, name: &str, more: &[&str]) -> Result<Operator> {
        let kubeconfig = self.kubeconfig_of(OPERATOR)?;
        let operator = self.operator_by(name, &kubeconfig, more)?;
        operator.until_ready().await?;
        Ok(operator)
    }

    /// Starts an operator that reaches the API server by this kubeconfig, for example a proxy's, and does not wait for it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn operator_by(&self, name: &str, kubeconfig: &Path, more: &[&str]) -> Result<Operator> {
        self.operator_at(&self.address()?.to_string(), name, kubeconfig, more)
    }

    /// As [`Lab::operator_by`], at an address of the caller's choice: a restarted operator has the webhooks of its
    /// predecessor there, as behind a Service.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn operator_at(&self, address: &str, name: &str, kubeconfig: &Path, more: &[&str]) -> Result<Operator> {
        let (listen, webhooks) = (format!("{address}:8080"), format!("{address}:9443"));
        let own = format!("https://{webhooks}");
        let mut arguments = vec!["--namespace", OPERATOR_NAMESPACE, "--listen", &listen];
        arguments.extend(["--webhook-listen", &webhooks]);
        // Replicas share an address, as behind a Service.
        if !more.contains(&"--webhook-url") {
            arguments.extend(["--webhook-url", &own]);
        }
        arguments.extend(more);
        let mut command = Command::new(binary("rosey-operator")?);
        command.env("KUBECONFIG", kubeconfig).args(&arguments);
        Ok(Operator {
            process: self.spawn(name, &mut command)?,
            command: format!(
                "KUBECONFIG={} rosey-operator {}",
                kubeconfig.display(),
                arguments.join(" ")
            ),
            url: format!("http://{listen}"),
        })
    }

    /// At the end of a scenario: the operators had every right that they needed.
    ///
    /// # Errors
    /// With every request that was answered with 403; or when no operator asked for anything.
    pub async fn nothing_was_forbidden(&self) -> Result<()> {
        let requests = self.audit().requests_by(OPERATOR, Mark::default()).await?;
        ensure!(!requests.is_empty(), "the operator asked for nothing");
        let refused: Vec<_> = requests
            .iter()
            .filter(|request| request.is_forbidden())
            .map(|request| format!("{request}: {}", request.response_status.message))
            .collect();
        ensure!(refused.is_empty(), "forbidden: {refused:#?}");
        Ok(())
    }

    /// Lets Prometheus scrape an operator, which exports the monitors' deployments: their labels win.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn scrape_operator(&self, operator: &Operator) -> Result<()> {
        let target = operator.url.trim_start_matches("http://");
        let scrape = json!({
            "apiVersion": "monitoring.coreos.com/v1alpha1",
            "kind": "ScrapeConfig",
            "metadata": { "name": OPERATOR },
            "spec": { "honorLabels": true, "scrapeInterval": "1s", "staticConfigs": [{ "targets": [target] }] },
        });
        self.apply_in(crate::MONITORING_NAMESPACE, &scrape.to_string())
            .await
            .map(drop)
    }

    /// The Secret `rosey-channels` of the examples, with the lab's own receivers: Discord and Slack by the name `ops`, a
    /// webhook named `ci`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn channels(&self, namespace: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": "rosey-channels" },
            "stringData": {
                "discord": self.discord_url("ops"),
                "slack": self.slack_url("ops"),
                "ci": self.webhook_url("ci"),
                "smtp": "password",
            },
        });
        self.apply_in(namespace, &secret.to_string()).await.map(drop)
    }

    /// The monitor of an example, with times for impatient people and the lab's mail server; `change` does the rest.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn monitor(&self, example: &str, change: impl FnOnce(&mut Value)) -> Result<Value> {
        let mut monitor: Value = serde_saphyr::from_str(&text(example)?).with_context(|| example.to_owned())?;
        let spec = &mut monitor["spec"];
        spec["scrape"] = json!({ "interval": "1s", "timeout": "1s" });
        spec["alerts"]["interval"] = json!("1s");
        let notifications = &mut spec["notifications"];
        for (field, time) in [("groupWait", "1s"), ("groupInterval", "1s"), ("repeatInterval", "1h")] {
            notifications[field] = json!(time);
        }
        for route in notifications["routes"].as_array_mut().into_iter().flatten() {
            for field in ["groupWait", "groupInterval", "repeatInterval"] {
                route.as_object_mut().map(|route| route.remove(field));
            }
        }
        for channel in notifications["channels"].as_array_mut().into_iter().flatten() {
            // Indexing a mutable value would put a null there.
            if let Some(email) = channel.get_mut("email").and_then(Value::as_object_mut) {
                email.insert("smarthost".into(), json!(self.smtp()));
                email.insert("requireTLS".into(), json!(false));
                email.remove("username");
                email.remove("passwordSecretRef");
            }
        }
        change(&mut monitor);
        Ok(monitor)
    }

    /// The bot of the examples, as a Deployment with its pod running.
    ///
    /// # Errors
    /// When no pod of it runs in time.
    pub async fn bot(&self, namespace: &str) -> Result<Bot> {
        let deployment =
            text("examples/rosey-bot.yaml")?.replace("namespace: bots", &format!("namespace: {namespace}"));
        self.apply(&deployment).await?;
        self.bot_of(namespace, "app=rosey").await
    }

    /// The one running bot that a label selector finds.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn bot_of(&self, namespace: &str, selector: &str) -> Result<Bot> {
        eventually(START, "a running bot", async || {
            let arguments = ["get", "pods", "-n", namespace, "-l", selector, "-o", "json"];
            let pods: Value = serde_json::from_str(&self.kubectl(&arguments).await?)?;
            let running = |pod: &&Value| {
                let containers = pod["status"]["containerStatuses"].as_array();
                pod["metadata"]["deletionTimestamp"].is_null()
                    && containers.is_some_and(|all| {
                        all.iter()
                            .any(|c| c["name"] == "bot" && !c["state"]["running"].is_null())
                    })
            };
            let Some(pod) = pods["items"].as_array().into_iter().flatten().find(running) else {
                return Ok(None);
            };
            let (Some(name), Some(ip)) = (pod["metadata"]["name"].as_str(), pod["status"]["podIP"].as_str()) else {
                return Ok(None);
            };
            let bot = Bot {
                pod: name.into(),
                ip: ip.into(),
                json: pod.clone(),
            };
            Ok(bot.control(&json!({})).await.is_ok().then_some(bot))
        })
        .await
    }
}

/// A fake bot in a pod.
#[derive(Clone, Debug)]
pub struct Bot {
    /// Name of its pod.
    pub pod: String,
    /// Address of its pod.
    pub ip: String,
    /// The pod as it was when the bot was found.
    pub json: Value,
}

impl Bot {
    /// Changes what the bot answers, for example `{"fault": "not-running"}`; `fake-bot --help` has the list.
    ///
    /// # Errors
    /// When it does not answer or does not know the change.
    pub async fn control(&self, change: &Value) -> Result<()> {
        let url = format!("http://{}:{CONTROL_PORT}/control", self.ip);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        let answer = client.post(url).json(change).send().await?;
        let (status, said) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{status}: {said}");
        Ok(())
    }

    /// Breaks the bot in one of its ways.
    ///
    /// # Errors
    /// When it does not answer or does not know the fault.
    pub async fn breaks(&self, fault: &str) -> Result<()> {
        self.control(&json!({ "fault": fault })).await
    }

    /// Mends it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn recovers(&self) -> Result<()> {
        self.control(&json!({ "fault": "none" })).await
    }

    /// The exporter beside it, as Prometheus text.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(reqwest::get(format!("http://{}:9100/metrics", self.ip))
            .await?
            .error_for_status()?
            .text()
            .await?)
    }
}
