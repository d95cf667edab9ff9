//! Deployments and rollbacks that were told to the exporter.

mod ledger;
mod record;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::catalogue::metrics::{
    DEPLOYMENT_DURATION_SECONDS, DEPLOYMENT_LAST_FAILURE_TIMESTAMP, DEPLOYMENT_LAST_SUCCESS_TIMESTAMP,
    DEPLOYMENT_STATUSES, DEPLOYMENT_TOTAL, DURATION_BUCKETS, ROLLBACK_DURATION_SECONDS, ROLLBACK_TOTAL,
};
use crate::exporter::histogram::Histogram;
use crate::exporter::page::Page;

pub(crate) use ledger::{CONCERN, Ledger};
pub(crate) use record::{Refusal, deployment, form, json, rollback};

/// What was recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deployments {
    /// By the places of [`DEPLOYMENT_STATUSES`].
    by_status: [u64; DEPLOYMENT_STATUSES.len()],
    /// When the last one of each status ended, in milliseconds since 1970.
    last: [Option<u64>; DEPLOYMENT_STATUSES.len()],
    durations: Histogram,
    rollbacks: Histogram,
}

/// Something that happened to the bot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// A deployment, with the place of its status in [`DEPLOYMENT_STATUSES`] and its seconds.
    Deployment { status: usize, seconds: f64 },
    /// A rollback, with its seconds.
    Rollback { seconds: f64 },
}

impl Default for Deployments {
    fn default() -> Self {
        Self {
            by_status: [0; DEPLOYMENT_STATUSES.len()],
            last: [None; DEPLOYMENT_STATUSES.len()],
            durations: Histogram::new(&DURATION_BUCKETS),
            rollbacks: Histogram::new(&DURATION_BUCKETS),
        }
    }
}

impl Deployments {
    /// Whether one that was saved can be gone on with.
    fn is_sensible(&self) -> bool {
        self.durations.fits(&DURATION_BUCKETS) && self.rollbacks.fits(&DURATION_BUCKETS)
    }

    pub fn record(&mut self, event: Event, now: SystemTime) {
        match event {
            Event::Deployment { status, seconds } => {
                self.by_status[status] = self.by_status[status].saturating_add(1);
                self.durations.observe(&DURATION_BUCKETS, seconds);
                let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH);
                self.last[status] = since_1970.ok().and_then(|since| u64::try_from(since.as_millis()).ok());
            }
            Event::Rollback { seconds } => self.rollbacks.observe(&DURATION_BUCKETS, seconds),
        }
    }

    /// Adds what was recorded before.
    fn add(&mut self, earlier: &Self) {
        for (ours, theirs) in self.by_status.iter_mut().zip(earlier.by_status) {
            *ours = ours.saturating_add(theirs);
        }
        for (ours, theirs) in self.last.iter_mut().zip(earlier.last) {
            *ours = ours.or(theirs);
        }
        self.durations.add(&earlier.durations);
        self.rollbacks.add(&earlier.rollbacks);
    }

    /// Every label set, from 0 on; the time of something that never happened is left out.
    #[expect(clippy::cast_precision_loss, reason = "a sample is a double")]
    pub fn page(&self) -> Page {
        let mut page = Page::default();
        for (status, count) in DEPLOYMENT_STATUSES.iter().zip(self.by_status) {
            page.add(&DEPLOYMENT_TOTAL, &[("status", status)], count as f64);
        }
        for (metric, time) in [&DEPLOYMENT_LAST_SUCCESS_TIMESTAMP, &DEPLOYMENT_LAST_FAILURE_TIMESTAMP]
            .into_iter()
            .zip(self.last)
        {
            if let Some(time) = time {
                page.add(metric, &[], time as f64 / 1e3);
            }
        }
        page.add(&ROLLBACK_TOTAL, &[], self.rollbacks.count() as f64);
        self.durations
            .print(&mut page, &DEPLOYMENT_DURATION_SECONDS, &DURATION_BUCKETS);
        self.rollbacks
            .print(&mut page, &ROLLBACK_DURATION_SECONDS, &DURATION_BUCKETS);
        page
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_label_set_is_there_from_the_start() {
        let page = Deployments::default().page().text();
        for line in [
            "rosey_deployment_total{status=\"success\"} 0",
            "rosey_deployment_total{status=\"failed\"} 0",
            "rosey_rollback_total 0",
            "rosey_deployment_duration_seconds_bucket{le=\"5\"} 0",
            "rosey_deployment_duration_seconds_bucket{le=\"+Inf\"} 0",
            "rosey_rollback_duration_seconds_count 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert!(!page.contains("timestamp"));
    }

    #[test]
    fn a_recorded_deployment_is_counted_and_timed() {
        let mut deployments = Deployments::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        deployments.record(
            deployment(form(b"environment=prod&status=failed&duration=90"), Some("prod")).unwrap(),
            now,
        );
        deployments.record(
            rollback(json(br#"{"duration": 4.5}"#).unwrap(), Some("prod")).unwrap(),
            now,
        );
        let page = deployments.page().text();
        for line in [
            "rosey_deployment_total{status=\"success\"} 0",
            "rosey_deployment_total{status=\"failed\"} 1",
            "rosey_deployment_last_failure_timestamp 1700000000.5",
            "rosey_deployment_duration_seconds_bucket{le=\"60\"} 0",
            "rosey_deployment_duration_seconds_bucket{le=\"120\"} 1",
            "rosey_deployment_duration_seconds_sum 90",
            "rosey_rollback_total 1",
            "rosey_rollback_duration_seconds_bucket{le=\"5\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert!(!page.contains("rosey_deployment_last_success_timestamp "));
    }
}
