//! What the injector tells about itself.

use std::time::Duration;

use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Upper bounds in seconds: an answer takes tens of microseconds, and the API server gives up after two seconds.
const BUCKETS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0,
];

/// What an answer was; the value of the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pod got its exporter.
    Injected,
    /// The pod was left as it is.
    Nothing,
    /// The pod stays without exporter, and an annotation says why; but for a mirror pod, which can't carry one.
    Skipped,
    /// The monitor is fine, or there was nothing to judge.
    Allowed,
    /// The monitor was refused.
    Denied,
    /// The request could not be understood.
    Error,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Nothing => "nothing",
            Self::Skipped => "skipped",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

#[derive(Clone)]
pub(super) struct Metrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    expiry: Gauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "rosey_injector_requests_total",
                "Admission requests by webhook and outcome.",
            ),
            &["webhook", "outcome"],
        )?;
        let options = HistogramOpts::new(
            "rosey_injector_request_duration_seconds",
            "How long admission requests took from their last byte to the answer, in seconds.",
        );
        let durations = HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["webhook"])?;
        let expiry = Gauge::new(
            "rosey_injector_certificate_expiry_timestamp_seconds",
            "When the certificate that is served runs out, in seconds since 1970; 0 before there is one.",
        )?;
        for outcome in [Outcome::Injected, Outcome::Nothing, Outcome::Skipped, Outcome::Error] {
            requests.with_label_values(&["inject", outcome.as_str()]);
        }
        for outcome in [Outcome::Allowed, Outcome::Denied, Outcome::Error] {
            requests.with_label_values(&["validate", outcome.as_str()]);
        }
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(expiry.clone()))?;
        Ok(Self {
            requests,
            durations,
            expiry,
        })
    }

    pub fn answered(&self, webhook: &str, outcome: Outcome, took: Duration) {
        self.requests.with_label_values(&[webhook, outcome.as_str()]).inc();
        self.durations.with_label_values(&[webhook]).observe(took.as_secs_f64());
    }

    /// `until` in seconds since 1970.
    pub fn expiry(&self, until: i64) {
        // Exact for the next hundred million years.
        #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double")]
        self.expiry.set(until as f64);
    }
}
