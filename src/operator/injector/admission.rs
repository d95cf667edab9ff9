//! What the API server asks, and what it is answered: `AdmissionReview` in, `AdmissionReview` out.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::metrics::Outcome;
use crate::api::RoseyMonitor;
use crate::operator::monitors::Monitors;
use crate::plan::injection::{Injection, inject};
use crate::plan::{Platform, plan};

/// The API server cuts longer ones off.
const MAX_WARNING: usize = 240;
const MAX_WARNINGS: usize = 16;
/// Enough for every problem of the largest monitor that a person would write.
const MAX_MESSAGE: usize = 32 * 1024;

#[derive(Deserialize)]
struct Review {
    request: Request,
}

/// The pod stays raw JSON: a typed one would lose the fields of a later Kubernetes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

/// What the answers depend on.
pub(super) struct Facts {
    pub monitors: Monitors,
    pub platform: watch::Receiver<Arc<Platform>>,
    /// Namespaces whose pods are never touched.
    pub excluded: BTreeSet<String>,
}

/// An answer, and what to count.
pub(super) struct Answer {
    pub review: Value,
    pub outcome: Outcome,
}

impl Answer {
    fn new(outcome: Outcome, response: Value) -> Self {
        let mut review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
        review["response"] = response;
        Self { review, outcome }
    }

    fn allowed(outcome: Outcome, uid: &str) -> Self {
        Self::new(outcome, json!({"uid": uid, "allowed": true}))
    }

    fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        let warnings: Vec<String> = warnings
            .into_iter()
            .take(MAX_WARNINGS)
            .map(|text| cut(text, MAX_WARNING))
            .collect();
        if !warnings.is_empty() {
            self.review["response"]["warnings"] = warnings.into();
        }
        self
    }
}

/// Answers for a pod that is about to be created. Whatever happens, the pod is allowed.
pub(super) fn pod(body: &[u8], facts: &Facts) -> Answer {
    let request = match serde_json::from_slice::<Review>(body) {
        Ok(review) => review.request,
        Err(error) => {
            return Answer::allowed(Outcome::Error, "").with_warnings([format!(
                "rosey-operator did not understand the admission request: {error}"
            )]);
        }
    };
    if request.operation != "CREATE" || !request.object.is_object() || facts.excluded.contains(&request.namespace) {
        return Answer::allowed(Outcome::Nothing, &request.uid);
    }
    let monitors: Vec<Arc<RoseyMonitor>> = facts
        .monitors
        .all_in(&request.namespace)
        .into_iter()
        .filter(|monitor| monitor.metadata.deletion_timestamp.is_none())
        .collect();
    let platform = Arc::clone(&facts.platform.borrow());
    let (outcome, operations) = match inject(&request.object, monitors.iter().map(Arc::as_ref), &platform) {
        Injection::Nothing => return Answer::allowed(Outcome::Nothing, &request.uid),
        Injection::Patch { operations, .. } => (Outcome::Injected, operations),
        Injection::Skipped { operations, .. } => (Outcome::Skipped, operations),
    };
    let mut answer = Answer::allowed(outcome, &request.uid);
    if !operations.is_empty() {
        answer.review["response"]["patchType"] = "JSONPatch".into();
        answer.review["response"]["patch"] = json!(ByteString(Value::from(operations).to_string().into_bytes()));
    }
    answer
}

/// Answers for a monitor that is about to be created or changed; `None` where the request is none.
pub(super) fn monitor(body: &[u8], facts: &Facts) -> Option<Answer> {
    let request = serde_json::from_slice::<Review>(body).ok()?.request;
    let deleting = !request.object["metadata"]["deletionTimestamp"].is_null();
    let same = request.operation == "UPDATE" && request.object["spec"] == request.old_object["spec"];
    if deleting || same || !matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
        return Some(Answer::allowed(Outcome::Allowed, &request.uid));
    }
    let monitor = match RoseyMonitor::deserialize(&request.object) {
        Ok(monitor) => monitor,
        Err(error) => return Some(denied(&request.uid, format!("spec: {error}"))),
    };
    let platform = Arc::clone(&facts.platform.borrow());
    Some(match plan(&monitor, &platform) {
        Ok(plan) => Answer::allowed(Outcome::Allowed, &request.uid).with_warnings(plan.report.warnings),
        Err(problems) => denied(&request.uid, problems.to_string()),
    })
}

fn denied(uid: &str, message: String) -> Answer {
    let status = json!({"status": "Failure", "code": 422, "reason": "Invalid", "message": cut(message, MAX_MESSAGE)});
    Answer::new(Outcome::Denied, json!({"uid": uid, "allowed": false, "status": status}))
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most - '…'.len_utf8())
            .rev()
            .find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
