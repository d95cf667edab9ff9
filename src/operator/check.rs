//! What a user would do first, as a question: does the API server answer, would it store a monitor, and is a wrong one refused
//! with a word about it? Nothing is stored. `helm test` asks it from a pod of the cluster.

use std::time::Duration;

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::ApiResource;
use kube::{Client, Resource as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::RoseyMonitor;
use crate::cluster::client::{RequestError, answered};

/// The registration of the webhooks follows the operator's readiness by a moment.
const PAUSE: Duration = Duration::from_secs(1);
/// The name by which the API server calls the webhook that judges monitors.
const WEBHOOK: &str = "validate.rosey.dev";
/// An alert that nobody has: the schema allows it, and only the webhook knows better.
const NO_ALERT: &str = "NoSuchAlert";

/// What is checked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The namespace in which monitors are created in a dry run; the right to create them there is needed.
    pub namespace: String,
    /// Whether the webhooks are expected to refuse what the schema can't; else the schema is asked alone.
    pub webhooks: bool,
    /// How long to wait for the webhooks.
    pub patience: Duration,
}

/// What is wrong with the installation.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// The API server does not answer.
    #[error("the API server does not answer: {0}")]
    Server(RequestError),
    /// A good monitor would not be stored.
    #[error(
        "a monitor in namespace {0} would not be stored: {1}; are the definition of RoseyMonitor and the right to create one there?"
    )]
    Refused(String, RequestError),
    /// A wrong monitor would be stored.
    #[error(
        "a monitor in namespace {namespace} with spec.alerts.overrides[0].alert: {NO_ALERT} would be stored after {seconds} s; the API server did not \
         ask the webhook {WEBHOOK}: see the operator's log, and whether the API server reaches its Service"
    )]
    Unjudged {
        /// Where.
        namespace: String,
        /// How long it was asked.
        seconds: u64,
    },
    /// A monitor against the schema would be stored.
    #[error(
        "a monitor in namespace {0} without spec.selector would be stored; the definition of RoseyMonitor is not that of this release"
    )]
    Unchecked(String),
}

/// Asks; what is fine is told to `fine` as it is found.
///
/// # Errors
/// The first thing that is wrong.
pub async fn check(client: Client, question: &Question, mut fine: impl FnMut(String)) -> Result<(), Wrong> {
    let version = answered(client.apiserver_version()).await.map_err(Wrong::Server)?;
    fine(format!("the API server answers: {}", version.git_version));
    let kind = ApiResource::erase::<RoseyMonitor>(&());
    let monitors: Api<DynamicObject> = Api::namespaced_with(client, &question.namespace, &kind);
    let namespace = || question.namespace.clone();

    let deadline = Instant::now() + question.patience;
    dry_run(&monitors, &monitor(&json!({})))
        .await
        .map_err(|error| Wrong::Refused(namespace(), error))?;
    fine(format!("a monitor in namespace {} would be stored", question.namespace));

    if !question.webhooks {
        let mut wrong = monitor(&json!({}));
        if let Some(spec) = wrong["spec"].as_object_mut() {
            spec.remove("selector");
        }
        return match dry_run(&monitors, &wrong).await {
            Ok(()) => Err(Wrong::Unchecked(namespace())),
            Err(error) if is_invalid(&error) => {
                fine(format!("a wrong one is refused: {error}"));
                Ok(())
            }
            Err(error) => Err(Wrong::Refused(namespace(), error)),
        };
    }
    let wrong = monitor(&json!({"overrides": [{"alert": NO_ALERT}]}));
    loop {
        match dry_run(&monitors, &wrong).await {
            Err(error) if error.to_string().contains(WEBHOOK) => {
                fine(format!("a wrong one is refused: {error}"));
                return Ok(());
            }
            Err(error) => return Err(Wrong::Refused(namespace(), error)),
            Ok(()) if Instant::now() >= deadline => {
                let seconds = question.patience.as_secs();
                return Err(Wrong::Unjudged {
                    namespace: namespace(),
                    seconds,
                });
            }
            Ok(()) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn dry_run(monitors: &Api<DynamicObject>, monitor: &Value) -> Result<(), RequestError> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let object = serde_json::from_value(monitor.clone())
        .map_err(|error| RequestError::from(Box::new(kube::Error::SerdeError(error))))?;
    answered(monitors.create(&params, &object)).await.map(drop)
}

fn is_invalid(error: &RequestError) -> bool {
    matches!(error, RequestError::Refused(error) if matches!(&**error, kube::Error::Api(status) if status.code == 422))
}

/// A small monitor with these alerts.
fn monitor(alerts: &Value) -> Value {
    json!({
        "apiVersion": RoseyMonitor::api_version(&()),
        "kind": RoseyMonitor::kind(&()),
        "metadata": {"name": "rosey-operator-check"},
        "spec": {
            "environment": "check",
            "selector": {"matchLabels": {"app": "rosey-operator-check"}},
            "bot": {"health": {"port": 8000}},
            "alerts": alerts,
            "notifications": {"channels": [{"name": "ci", "webhook": {"urlSecretRef": {"name": "rosey-channels", "key": "ci"}}}]},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Platform, plan};

    #[test]
    fn the_monitors_are_a_good_one_and_one_that_only_the_plan_refuses() {
        let planned = |alerts: &Value| {
            let monitor: RoseyMonitor = serde_json::from_value(monitor(alerts)).unwrap();
            plan(&monitor, &Platform::default()).map(drop)
        };
        assert!(planned(&json!({})).is_ok());
        let problems = planned(&json!({"overrides": [{"alert": NO_ALERT}]}))
            .unwrap_err()
            .to_string();
        assert!(problems.contains(NO_ALERT), "{problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
    }
}
