//! Events on monitors: warnings alone, and each only when it is news.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tracing::debug;

use super::FIELD_MANAGER;
use crate::api::RoseyMonitor;
use crate::api::status::MonitorStatus;
use crate::api::status::condition::{INJECTED, READY};

/// Longest note that the API server takes.
const LONGEST: usize = 1000;

/// Publishes Events.
pub struct Announcer(Recorder);

impl Announcer {
    /// Publishes as the replica `instance`.
    #[must_use]
    pub fn new(client: Client, instance: &str) -> Self {
        Self(Recorder::new(
            client,
            Reporter {
                controller: FIELD_MANAGER.into(),
                instance: Some(instance.into()),
            },
        ))
    }

    /// Publishes what has become worth a warning. An Event that can't be published is no reason to fail.
    pub async fn announce(&self, monitor: &RoseyMonitor, before: &MonitorStatus, now: &MonitorStatus) {
        for (action, reason, message) in news(before, now) {
            let note = message
                .char_indices()
                .nth(LONGEST)
                .map_or(message, |(end, _)| &message[..end]);
            let event = Event {
                type_: EventType::Warning,
                reason: reason.into(),
                note: Some(note.into()),
                action: action.into(),
                secondary: None,
            };
            if let Err(error) = self.0.publish(&event, &monitor.object_ref(&())).await {
                debug!(%error, reason, "the Event could not be published");
            }
        }
    }
}

/// Action, reason and message of what has become worth a warning.
fn news<'a>(before: &MonitorStatus, now: &'a MonitorStatus) -> Vec<(&'static str, &'a str, &'a str)> {
    let told = [
        (READY, "Reconcile", &["Invalid", "NameTaken"][..]),
        (INJECTED, "Inject", &["Skipped", "PodsRefused"][..]),
    ];
    let said = |status: &MonitorStatus, kind: &str, reason: &str, message: &str| {
        status
            .conditions
            .iter()
            .any(|c| c.type_ == kind && c.reason == reason && c.message == message)
    };
    let conditions = now.conditions.iter().filter_map(|c| {
        let (_, action, _) = told
            .iter()
            .find(|(kind, _, reasons)| c.type_ == *kind && reasons.contains(&c.reason.as_str()))?;
        (!said(before, &c.type_, &c.reason, &c.message)).then_some((*action, c.reason.as_str(), c.message.as_str()))
    });
    conditions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(kind: &str, reason: &str, message: &str) -> MonitorStatus {
        serde_json::from_value(serde_json::json!({"conditions": [{
            "type": kind, "status": "False", "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}))
        .unwrap()
    }

    #[test]
    fn only_news_is_announced_and_success_never() {
        let (nothing, bad) = (MonitorStatus::default(), status(READY, "Invalid", "a"));
        assert_eq!(news(&nothing, &bad), [("Reconcile", "Invalid", "a")]);
        assert!(news(&bad, &bad).is_empty());
        assert_eq!(news(&bad, &status(READY, "Invalid", "b")).len(), 1);
        assert_eq!(
            news(&nothing, &status(INJECTED, "Skipped", "a")),
            [("Inject", "Skipped", "a")]
        );
        for (kind, reason) in [(READY, "Applied"), (READY, "ApplyFailed"), (INJECTED, "PodsMissing")] {
            assert!(news(&nothing, &status(kind, reason, "a")).is_empty());
        }
    }
}
