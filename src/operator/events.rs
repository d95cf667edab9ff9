//! Events on monitors: warnings alone, and each only when it is news.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tracing::debug;

use super::FIELD_MANAGER;
use crate::api::RoseyMonitor;
use crate::api::status::MonitorStatus;
use crate::api::status::condition::{INJECTED, READY};
use crate::cluster::client::answered;

/// Longest note that the API server takes, in bytes.
const LONGEST: usize = 1024;

/// Publishes Events.
pub struct Announcer {
    client: Client,
    reporter: Reporter,
}

impl Announcer {
    /// Publishes as the replica `instance`.
    #[must_use]
    pub fn new(client: Client, instance: &str) -> Self {
        Self {
            client,
            reporter: Reporter {
                controller: FIELD_MANAGER.into(),
                instance: Some(instance.into()),
            },
        }
    }

    /// Publishes what has become worth a warning. An Event that can't be published is no reason to fail.
    pub async fn announce(&self, monitor: &RoseyMonitor, before: &MonitorStatus, now: &MonitorStatus) {
        for (action, reason, message) in news(before, now) {
            let event = Event {
                type_: EventType::Warning,
                reason: reason.into(),
                note: Some(cut(message).into()),
                action: action.into(),
                secondary: None,
            };
            // A recorder counts what it takes for repetitions and goes by everything but the note, so that a second message
            // would show the words of the first. Only news come here, so each gets a recorder that remembers nothing.
            let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            if let Err(error) = answered(recorder.publish(&event, &monitor.object_ref(&()))).await {
                debug!(%error, reason, "the Event could not be published");
            }
        }
    }
}

/// As much of a message as fits into a note.
fn cut(message: &str) -> &str {
    let end = (0..=LONGEST.min(message.len())).rfind(|&end| message.is_char_boundary(end));
    &message[..end.unwrap_or_default()]
}

/// Action, reason and message of what has become worth a warning.
fn news<'a>(before: &MonitorStatus, now: &'a MonitorStatus) -> Vec<(&'static str, &'a str, &'a str)> {
    let told = [
        (READY, "Reconcile", &["Invalid", "NameTaken"][..]),
        (
            INJECTED,
            "Inject",
            &["Skipped", "PodsRefused", "UpdateFailed", "RepairStopped"][..],
        ),
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
    fn a_note_is_cut_where_the_api_server_would_refuse_it_and_never_within_a_character() {
        assert_eq!(cut("taken"), "taken");
        assert_eq!(cut(&"a".repeat(1025)).len(), 1024);
        let signs = "€".repeat(400);
        assert_eq!(cut(&signs), "€".repeat(341));
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
