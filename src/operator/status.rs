//! What the operator says about a monitor: the conditions, computed from what was observed, and written only when they differ.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::apply;
use super::leader::NotLeader;
use super::selection::Selection;
use super::sidecars::Sidecars;
use crate::api::status::condition::{INJECTED, READY, SELECTED, STALLED, VALID};
use crate::api::status::{MonitorStatus, RefusedChannel, RuleCounts};
use crate::cluster::client::RequestError;
use crate::plan::{Plan, Problems};

mod reports;

pub use reports::{Reports, Standing};

/// Why the status could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another replica may lead by now.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// Somebody has changed the monitor since it was read; what was observed may not hold any more.
    #[error("the monitor has changed since it was read")]
    Changed,
    /// The API server refused it, or did not answer.
    #[error("the status could not be written: {0}")]
    Request(#[from] RequestError),
}

/// What became of the objects.
#[derive(Debug)]
pub enum Applied {
    /// All are in place.
    Done,
    /// They were left as they are: the monitor is paused.
    Paused,
    /// They were left as they are: the monitor is invalid.
    Invalid,
    /// Not all are in place.
    Failed(apply::Error),
}

/// Everything that a status is made of.
#[derive(Debug)]
pub struct Observation<'a> {
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Its plan.
    pub plan: Result<&'a Plan, &'a Problems>,
    /// What became of it.
    pub applied: &'a Applied,
    /// What the pods say.
    pub sidecars: Sidecars,
    /// What the Prometheus stack says; `None` without a plan.
    pub selection: Option<Selection>,
    /// What prometheus-operator refused; `None` if nothing new is known of it.
    pub refused: Option<Vec<RefusedChannel>>,
}

struct Verdict {
    kind: &'static str,
    status: String,
    reason: String,
    message: String,
}

impl Verdict {
    fn new(kind: &'static str, status: &str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// The status that follows from an observation and the status before it. Pure; `now` stamps conditions that flip.
#[must_use]
pub fn status(observation: Observation<'_>, previous: &MonitorStatus, now: Timestamp) -> MonitorStatus {
    let before = |kind: &str| previous.conditions.iter().find(|condition| condition.type_ == kind);
    let mut verdicts = vec![ready(&observation, before(READY)), valid(&observation)];
    let injected = observation.sidecars.injected;
    verdicts.push(Verdict::new(
        INJECTED,
        injected.status,
        injected.reason,
        injected.message,
    ));
    verdicts.push(match (observation.selection, before(SELECTED)) {
        (Some(selection), _) => Verdict::new(SELECTED, selection.status, selection.reason, selection.message),
        // Nothing new was planned: what was said of the last good objects holds.
        (None, Some(last)) => Verdict::new(SELECTED, &last.status, &last.reason, last.message.clone()),
        (None, None) => Verdict::new(SELECTED, "Unknown", "Invalid", "there are no objects yet"),
    });
    let first = verdicts
        .iter()
        .find(|verdict| verdict.status != "True")
        .unwrap_or(&verdicts[0]);
    let (reason, message) = (first.reason.clone(), first.message.clone());
    verdicts.extend(stalled(observation.plan, observation.applied));

    let stamp = |verdict: Verdict| {
        let same = before(verdict.kind).filter(|condition| condition.status == verdict.status);
        let time = same.map_or_else(
            || Time(whole_seconds(now)),
            |condition| condition.last_transition_time.clone(),
        );
        Condition {
            type_: verdict.kind.into(),
            status: verdict.status,
            reason: verdict.reason,
            message: verdict.message,
            observed_generation: observation.generation,
            last_transition_time: time,
        }
    };
    MonitorStatus {
        observed_generation: observation.generation,
        reason: Some(reason),
        message: Some(message),
        conditions: verdicts.into_iter().map(stamp).collect(),
        sidecars: Some(observation.sidecars.counts),
        rules: match observation.plan {
            Ok(plan) => Some(RuleCounts {
                alerts: plan.report.alerts,
                groups: plan.report.groups,
                skipped: plan.report.skipped.clone(),
            }),
            Err(_) => previous.rules.clone(),
        },
        refused_channels: observation.refused.unwrap_or_else(|| previous.refused_channels.clone()),
        deployments: None,
    }
}

fn ready(observation: &Observation<'_>, before: Option<&Condition>) -> Verdict {
    match (observation.applied, observation.plan) {
        (Applied::Paused, _) => {
            let status = before.map_or("Unknown", |condition| condition.status.as_str());
            Verdict::new(
                READY,
                status,
                "Paused",
                "spec.paused is true: the objects are left as they are",
            )
        }
        (Applied::Failed(error), _) => Verdict::new(READY, "False", failure(error), error.to_string()),
        (Applied::Invalid | Applied::Done, Err(problems)) => {
            let more = match problems.0.len() {
                0 | 1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            let first = problems.0.first().map(ToString::to_string).unwrap_or_default();
            Verdict::new(READY, "False", "Invalid", format!("{first}{more}"))
        }
        (Applied::Done | Applied::Invalid, Ok(plan)) => Verdict::new(
            READY,
            "True",
            "Applied",
            format!("all {} objects are in place", plan.objects.len()),
        ),
    }
}

fn valid(observation: &Observation<'_>) -> Verdict {
    match observation.plan {
        Err(problems) => Verdict::new(VALID, "False", "Invalid", problems.to_string()),
        Ok(plan) if plan.report.warnings.is_empty() => Verdict::new(VALID, "True", "Valid", "no problem was found"),
        Ok(plan) => Verdict::new(VALID, "True", "Valid", plan.report.warnings.join("\n")),
    }
}

/// Only the user can mend it.
fn stalled(plan: Result<&Plan, &Problems>, applied: &Applied) -> Option<Verdict> {
    match (plan, applied) {
        (Err(problems), _) => Some(Verdict::new(STALLED, "True", "Invalid", problems.to_string())),
        (_, Applied::Failed(error @ apply::Error::NameTaken { .. })) => {
            Some(Verdict::new(STALLED, "True", "NameTaken", error.to_string()))
        }
        _ => None,
    }
}

fn failure(error: &apply::Error) -> &'static str {
    match error {
        apply::Error::NameTaken { .. } => "NameTaken",
        apply::Error::Missing(_) => "PrometheusOperatorMissing",
        _ => "ApplyFailed",
    }
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests;
