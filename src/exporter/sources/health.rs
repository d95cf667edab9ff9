//! The bot's health document: JSON with whichever of the known fields the bot has.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::document::{Fields, without_nan};
use super::fetch::{Bot, Fetch};
use super::{Reading, Source};
use crate::catalogue::metrics::{self as series, Metric};
use crate::exporter::bounds::{Admitted, DOCUMENT_BYTES, Dropped, Reason, VALUE_BYTES};
use crate::exporter::locked;
use crate::exporter::page::Page;
use crate::sidecar::config::Endpoint;

/// Different channels, and different versions, that pass within an hour.
const VALUES: usize = 20;

const FIELDS: [&str; 10] = [
    "status",
    "connected",
    "uptime",
    "response_time_ms",
    "memory_mb",
    "user_count",
    "requests",
    "errors",
    "channel",
    "version",
];

/// The bot's health endpoint.
pub(crate) struct Health {
    fetch: Fetch,
    admitted: Mutex<Admitted>,
}

impl Health {
    pub fn new(bot: &Bot, endpoint: &Endpoint) -> Self {
        Self {
            fetch: Fetch::new(bot, endpoint, "application/json", DOCUMENT_BYTES),
            admitted: Mutex::new(Admitted::new(2 * VALUES)),
        }
    }

    pub(crate) fn read_document(&self, body: Vec<u8>, now: SystemTime) -> Reading {
        let body = without_nan(body);
        let fields = match Fields::of(&body, &FIELDS) {
            Ok(fields) => fields,
            Err(error) => return Reading::failed(self.unanswered(), format!("the health document {error}")),
        };
        let (mut page, mut dropped) = (Page::default(), Dropped::default());

        let status = fields.text("status", &mut dropped);
        let up = status.as_deref().is_some_and(|status| {
            ["running", "ok", "healthy"]
                .iter()
                .any(|good| status.eq_ignore_ascii_case(good))
        });
        page.add(&series::BOT_UP, &[], f64::from(up));
        let connected = match fields.raw("connected") {
            Some(_) => fields.flag("connected", &mut dropped),
            None => Some(up),
        };
        if let Some(connected) = connected {
            page.add(&series::BOT_CONNECTED, &[], f64::from(connected));
        }
        let mut number = |field, metric, scale| {
            let value = fields.scaled(field, scale, &mut dropped)?;
            page.add(metric, &[], value);
            Some(value)
        };
        number("uptime", &series::BOT_UPTIME_SECONDS, 1.0);
        number("response_time_ms", &series::BOT_RESPONSE_TIME_MS, 1.0);
        number("memory_mb", &series::BOT_MEMORY_BYTES, 1024.0 * 1024.0);
        let users = number("user_count", &series::BOT_USER_COUNT, 1.0);
        let requests = number("requests", &series::BOT_REQUESTS_TOTAL, 1.0);
        let errors = number("errors", &series::BOT_ERRORS_TOTAL, 1.0);
        if let (Some(requests), Some(errors)) = (requests, errors)
            && let Some(percent) = percentage(errors, requests)
        {
            page.add(&series::BOT_ERROR_RATE_PERCENT, &[], percent);
        }
        let channel = self.label("channel", fields.text("channel", &mut dropped), &mut dropped);
        if let (Some(channel), Some(users)) = (&channel, users) {
            page.add(&series::BOT_CHANNEL_USERS, &[("channel", channel)], users);
        }
        let version = self.label("version", fields.text("version", &mut dropped), &mut dropped);
        let info: Vec<_> = [("version", version.as_deref()), ("channel", channel.as_deref())]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        if !info.is_empty() {
            page.add(&series::BOT_INFO, &info, 1.0);
        }
        if let Ok(since) = now.duration_since(SystemTime::UNIX_EPOCH) {
            page.add(
                &series::BOT_SCRAPE_TIMESTAMP_MS,
                &[],
                (since.as_secs_f64() * 1000.0).floor(),
            );
        }
        let problem = status
            .is_none()
            .then(|| "the health document has no \"status\" that is a text".to_owned());
        Reading {
            dropped,
            problem,
            ..Reading::of(page)
        }
    }

    /// A text that becomes a label: short, and one of few.
    fn label(&self, field: &str, text: Option<String>, dropped: &mut Dropped) -> Option<String> {
        let text = text.filter(|text| !text.is_empty())?;
        let refused = if text.len() > VALUE_BYTES {
            Some(Reason::TooLong)
        } else if text.contains('\0') {
            Some(Reason::Invalid)
        } else {
            let now = Instant::now();
            let mut admitted = locked(&self.admitted);
            admitted.forget(now);
            (!admitted.admit(field, &text, VALUES, now)).then_some(Reason::TooManyValues)
        };
        match refused {
            Some(reason) => {
                dropped.count(reason);
                None
            }
            None => Some(text),
        }
    }
}

impl Source for Health {
    fn name(&self) -> &'static str {
        "health"
    }

    fn timeout(&self) -> Duration {
        self.fetch.timeout()
    }

    fn families(&self) -> &'static [&'static Metric] {
        &[
            &series::BOT_UP,
            &series::BOT_CONNECTED,
            &series::BOT_UPTIME_SECONDS,
            &series::BOT_RESPONSE_TIME_MS,
            &series::BOT_MEMORY_BYTES,
            &series::BOT_USER_COUNT,
            &series::BOT_CHANNEL_USERS,
            &series::BOT_REQUESTS_TOTAL,
            &series::BOT_ERRORS_TOTAL,
            &series::BOT_ERROR_RATE_PERCENT,
            &series::BOT_SCRAPE_TIMESTAMP_MS,
            &series::BOT_INFO,
        ]
    }

    fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
        Box::pin(async move {
            match self.fetch.get().await {
                Ok(body) => self.read_document(body, SystemTime::now()),
                Err(error) => Reading::failed(self.unanswered(), error.to_string()),
            }
        })
    }

    fn unanswered(&self) -> Page {
        let mut page = Page::default();
        page.add(&series::BOT_UP, &[], 0.0);
        page
    }
}

/// Errors per hundred requests; none where nothing can be divided, or the outcome is beyond all numbers.
fn percentage(errors: f64, requests: f64) -> Option<f64> {
    match (errors, requests) {
        (errors, requests) if requests > 0.0 => Some(errors / requests * 100.0).filter(|percent| percent.is_finite()),
        (0.0, _) => Some(0.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        let endpoint = Endpoint {
            port: 8000,
            path: "/api/health".into(),
            timeout_seconds: 2.0,
        };
        Health::new(&Bot::at("127.0.0.1"), &endpoint)
    }

    fn read(document: &str) -> (Vec<String>, Option<String>) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let reading = health().read_document(document.into(), now);
        let page = reading.page.text();
        (
            page.lines()
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned)
                .collect(),
            reading.problem,
        )
    }

    #[test]
    fn a_document_with_the_plain_fields_is_read() {
        let (page, problem) =
            read(r#"{"status": "running", "uptime": 12.5, "response_time_ms": 40, "memory_mb": 100, "user_count": 7}"#);
        assert_eq!(
            page,
            [
                "rosey_bot_connected 1",
                "rosey_bot_memory_bytes 104857600",
                "rosey_bot_response_time_ms 40",
                "rosey_bot_scrape_timestamp_ms 1700000000123",
                "rosey_bot_up 1",
                "rosey_bot_uptime_seconds 12.5",
                "rosey_bot_user_count 7",
            ]
        );
        assert_eq!(problem, None);
    }

    #[test]
    fn a_document_with_channel_version_and_counters_is_read() {
        let (page, _) = read(
            r#"{"status": "Healthy", "connected": false, "channel": "ro\"sey", "uptime": 12345, "version": "1.0.0",
                "user_count": 42, "requests": 1000, "errors": 5}"#,
        );
        assert_eq!(
            page,
            [
                r#"rosey_bot_channel_users{channel="ro\"sey"} 42"#,
                "rosey_bot_connected 0",
                "rosey_bot_error_rate_percent 0.5",
                "rosey_bot_errors_total 5",
                r#"rosey_bot_info{version="1.0.0",channel="ro\"sey"} 1"#,
                "rosey_bot_requests_total 1000",
                "rosey_bot_scrape_timestamp_ms 1700000000123",
                "rosey_bot_up 1",
                "rosey_bot_uptime_seconds 12345",
                "rosey_bot_user_count 42",
            ]
        );
    }

    #[test]
    fn a_field_that_is_missing_or_nonsense_is_left_out_and_never_zero() {
        let (page, problem) = read(
            r#"{"status": "stopped", "connected": "yes", "uptime": "12", "response_time_ms": NaN, "memory_mb": -Infinity,
                "user_count": -1, "requests": null, "errors": [1], "channel": 5, "note": "NaN \" Infinity"}"#,
        );
        assert_eq!(page, ["rosey_bot_scrape_timestamp_ms 1700000000123", "rosey_bot_up 0"]);
        assert_eq!(problem, None);
    }

    #[test]
    fn what_is_no_health_document_means_down_and_nothing_else() {
        for document in [
            "",
            "<html>",
            "[1]",
            "3",
            "{\"status\": \"running\"",
            "NaN",
            "\u{feff}{}",
        ] {
            let (page, problem) = read(document);
            assert_eq!(page, ["rosey_bot_up 0"], "{document}");
            assert!(problem.is_some(), "{document}");
        }
        let (page, problem) = read("{}");
        assert!(page.contains(&"rosey_bot_up 0".to_owned()));
        assert!(problem.is_some());
    }

    #[test]
    fn a_number_that_becomes_infinite_on_the_way_is_left_out() {
        let (page, _) = read(r#"{"status": "ok", "memory_mb": 1e305, "errors": 1e308, "requests": 1e-10}"#);
        assert!(
            !page.concat().contains("Inf") && !page.concat().contains("rate"),
            "{page:?}"
        );
        assert!(page.contains(&"rosey_bot_errors_total 1e308".to_owned()), "{page:?}");
    }

    #[test]
    fn left_out_fields_are_counted_once() {
        let document = br#"{"status": "ok", "requests": "many", "errors": 1, "user_count": false, "channel": "x"}"#;
        let dropped = health().read_document(document.to_vec(), SystemTime::now()).dropped;
        assert_eq!(
            dropped.by_reason().find(|(reason, _)| *reason == "invalid"),
            Some(("invalid", 2))
        );
    }

    #[test]
    fn a_channel_that_changes_all_the_time_makes_few_series() {
        let health = health();
        let mut pages = String::new();
        for channel in 0..100 {
            let document = format!(r#"{{"status": "ok", "channel": "c{channel}", "user_count": 1}}"#);
            pages += &health.read_document(document.into(), SystemTime::now()).page.text();
        }
        assert_eq!(pages.matches("rosey_bot_channel_users{").count(), VALUES);
        let long = format!(r#"{{"status": "ok", "version": "{}"}}"#, "v".repeat(VALUE_BYTES + 1));
        assert!(
            !health
                .read_document(long.into(), SystemTime::now())
                .page
                .text()
                .contains("vv")
        );
    }
}
