//! Deployments and rollbacks that were told to the exporter. They are counted here for as long as it runs.

use std::time::SystemTime;

use serde_json::Value;

use crate::catalogue::metrics::{
    DEPLOYMENT_DURATION_SECONDS, DEPLOYMENT_LAST_FAILURE_TIMESTAMP, DEPLOYMENT_LAST_SUCCESS_TIMESTAMP,
    DEPLOYMENT_STATUSES, DEPLOYMENT_TOTAL, DURATION_BUCKETS, LONGEST_DEPLOYMENT, Metric, ROLLBACK_DURATION_SECONDS,
    ROLLBACK_TOTAL,
};
use crate::exporter::page::{Page, Value as Printed};

/// What was recorded since the exporter started.
#[derive(Debug, Default)]
pub(crate) struct Deployments {
    /// By the places of [`DEPLOYMENT_STATUSES`].
    by_status: [u32; 2],
    /// When the last one of each status ended, in seconds since 1970.
    last: [Option<f64>; 2],
    durations: Durations,
    rollbacks: Durations,
}

#[derive(Debug, Default)]
struct Durations {
    buckets: [u32; DURATION_BUCKETS.len()],
    sum: f64,
    count: u32,
}

impl Durations {
    fn observe(&mut self, seconds: f64) {
        for (bucket, _) in self
            .buckets
            .iter_mut()
            .zip(DURATION_BUCKETS)
            .filter(|(_, bound)| seconds <= *bound)
        {
            *bucket += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }

    fn print(&self, page: &mut Page, metric: &Metric) {
        for (bucket, bound) in self.buckets.iter().zip(DURATION_BUCKETS) {
            page.add_part(
                metric,
                "_bucket",
                &[("le", &Printed(bound).to_string())],
                f64::from(*bucket),
            );
        }
        page.add_part(metric, "_bucket", &[("le", "+Inf")], f64::from(self.count));
        page.add_part(metric, "_sum", &[], self.sum);
        page.add_part(metric, "_count", &[], f64::from(self.count));
    }
}

/// Something that happened to the bot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// A deployment, with the place of its status in [`DEPLOYMENT_STATUSES`] and its seconds.
    Deployment { status: usize, seconds: f64 },
    /// A rollback, with its seconds.
    Rollback { seconds: f64 },
}

/// Why a record is refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}: is missing")]
    Missing(&'static str),
    #[error("status: {0:?} is not one of success, failed")]
    Status(String),
    #[error("duration: {0:?} is not a number of seconds between 0 and {most}", most = LONGEST_DEPLOYMENT.as_secs())]
    Duration(String),
    #[error("{0}: unknown field; known are {1}")]
    Unknown(String, &'static str),
    #[error("{0}: given twice")]
    Twice(String),
    #[error("environment: {posted:?} is not the environment of this exporter, which is {configured:?}")]
    Environment { posted: String, configured: String },
    #[error("environment: this exporter has none; leave it out, or start the exporter with ENVIRONMENT={0}")]
    NoEnvironment(String),
    #[error("the body is not a JSON object of texts and numbers: {0}")]
    Body(String),
}

impl Deployments {
    pub fn record(&mut self, event: Event, now: SystemTime) {
        match event {
            Event::Deployment { status, seconds } => {
                self.by_status[status] += 1;
                self.durations.observe(seconds);
                self.last[status] = now
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .ok()
                    .map(|since| since.as_secs_f64());
            }
            Event::Rollback { seconds } => self.rollbacks.observe(seconds),
        }
    }

    /// Every label set, from 0 on; the time of something that never happened is left out.
    pub fn page(&self) -> Page {
        let mut page = Page::default();
        for (status, count) in DEPLOYMENT_STATUSES.iter().zip(self.by_status) {
            page.add(&DEPLOYMENT_TOTAL, &[("status", status)], f64::from(count));
        }
        for (metric, time) in [&DEPLOYMENT_LAST_SUCCESS_TIMESTAMP, &DEPLOYMENT_LAST_FAILURE_TIMESTAMP]
            .into_iter()
            .zip(self.last)
        {
            if let Some(time) = time {
                page.add(metric, &[], time);
            }
        }
        page.add(&ROLLBACK_TOTAL, &[], f64::from(self.rollbacks.count));
        self.durations.print(&mut page, &DEPLOYMENT_DURATION_SECONDS);
        self.rollbacks.print(&mut page, &ROLLBACK_DURATION_SECONDS);
        page
    }
}

/// Fields of a form, as sent by `curl -d`.
pub(crate) fn form(body: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(body).into_owned().collect()
}

/// Fields of a JSON object.
pub(crate) fn json(body: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    let object: serde_json::Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| Refusal::Body(error.to_string()))?;
    object
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Number(number) => Ok((name, number.to_string())),
            _ => Err(Refusal::Body(format!("{name} is neither"))),
        })
        .collect()
}

/// The deployment that `fields` describe.
pub(crate) fn deployment(fields: Vec<(String, String)>, environment: Option<&str>) -> Result<Event, Refusal> {
    let mut fields = Record::new(fields, "environment, status, duration")?;
    fields.check_environment(environment)?;
    let status = fields.take("status").ok_or(Refusal::Missing("status"))?;
    let Some(place) = DEPLOYMENT_STATUSES.iter().position(|known| *known == status) else {
        return Err(Refusal::Status(status));
    };
    let seconds = fields.seconds()?;
    fields.end()?;
    Ok(Event::Deployment { status: place, seconds })
}

/// The rollback that `fields` describe.
pub(crate) fn rollback(fields: Vec<(String, String)>, environment: Option<&str>) -> Result<Event, Refusal> {
    let mut fields = Record::new(fields, "environment, duration")?;
    fields.check_environment(environment)?;
    let seconds = fields.seconds()?;
    fields.end()?;
    Ok(Event::Rollback { seconds })
}

struct Record {
    fields: Vec<(String, String)>,
    known: &'static str,
}

impl Record {
    fn new(fields: Vec<(String, String)>, known: &'static str) -> Result<Self, Refusal> {
        for (i, (name, _)) in fields.iter().enumerate() {
            if fields[..i].iter().any(|(other, _)| other == name) {
                return Err(Refusal::Twice(name.clone()));
            }
        }
        Ok(Self { fields, known })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.swap_remove(at).1)
    }

    fn seconds(&mut self) -> Result<f64, Refusal> {
        let text = self.take("duration").ok_or(Refusal::Missing("duration"))?;
        text.parse()
            .ok()
            .filter(|seconds| (0.0..=LONGEST_DEPLOYMENT.as_secs_f64()).contains(seconds))
            .ok_or(Refusal::Duration(text))
    }

    fn check_environment(&mut self, configured: Option<&str>) -> Result<(), Refusal> {
        match (self.take("environment").filter(|posted| !posted.is_empty()), configured) {
            (Some(posted), Some(configured)) if posted != configured => Err(Refusal::Environment {
                posted,
                configured: configured.to_owned(),
            }),
            (Some(posted), None) => Err(Refusal::NoEnvironment(posted)),
            _ => Ok(()),
        }
    }

    fn end(self) -> Result<(), Refusal> {
        match self.fields.into_iter().next() {
            Some((name, _)) => Err(Refusal::Unknown(name, self.known)),
            None => Ok(()),
        }
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

    #[test]
    fn a_record_that_makes_no_sense_is_refused_with_the_field_in_it() {
        let refusal = |body: &[u8]| deployment(form(body), Some("prod")).unwrap_err().to_string();
        assert_eq!(refusal(b"duration=1"), "status: is missing");
        assert_eq!(refusal(b"status=success"), "duration: is missing");
        assert_eq!(
            refusal(b"status=ok&duration=1"),
            "status: \"ok\" is not one of success, failed"
        );
        assert_eq!(
            refusal(b"status=success&status=failed&duration=1"),
            "status: given twice"
        );
        assert!(refusal(b"status=success&duration=1&x=1").starts_with("x: unknown field"));
        for duration in ["-1", "NaN", "inf", "1e99", "soon", ""] {
            let body = format!("status=success&duration={duration}");
            assert!(refusal(body.as_bytes()).starts_with("duration: "), "{duration}");
        }
        assert_eq!(
            refusal(b"environment=test&status=success&duration=1"),
            "environment: \"test\" is not the environment of this exporter, which is \"prod\""
        );
        let unknown = deployment(form(b"environment=test&status=success&duration=1"), None).unwrap_err();
        assert_eq!(unknown, Refusal::NoEnvironment("test".into()));
        assert!(json(b"[]").is_err());
        assert!(json(br#"{"duration": [1]}"#).is_err());
    }
}
