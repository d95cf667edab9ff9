//! What is sent to be recorded, and why it is refused.

use serde_json::Value;

use super::Event;
use crate::catalogue::metrics::{DEPLOYMENT_STATUSES, LONGEST_DEPLOYMENT};

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
    use super::*;

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
