//! Durations in buckets, as a histogram prints them, in numbers that a file gives back exactly.

use serde::{Deserialize, Serialize};

use super::page::{Page, Value};
use crate::catalogue::metrics::Metric;

/// Durations that were observed. The bounds of the buckets stand where the metric is, and go with each call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Histogram {
    /// How many fell between each bound and the one before it, and last how many lie above all of them.
    buckets: Vec<u64>,
    /// Their sum. Whole microseconds: a sum of fractions may come back from a file one digit smaller, and a counter that shrinks
    /// counts as a restart of everything.
    microseconds: u64,
}

impl Histogram {
    pub fn new(bounds: &[f64]) -> Self {
        Self {
            buckets: vec![0; bounds.len() + 1],
            microseconds: 0,
        }
    }

    /// Whether it was made with as many bounds.
    pub fn fits(&self, bounds: &[f64]) -> bool {
        self.buckets.len() == bounds.len() + 1
    }

    /// Takes in a duration in seconds, which is neither negative nor longer than years.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is cut to what fits, and callers bound it"
    )]
    pub fn observe(&mut self, bounds: &[f64], seconds: f64) {
        let place = bounds.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get_mut(place) {
            *bucket = bucket.saturating_add(1);
        }
        self.microseconds = self.microseconds.saturating_add((seconds * 1e6).round() as u64);
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(*bucket))
    }

    /// Adds what another one with the same bounds observed.
    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *ours = ours.saturating_add(*theirs);
        }
        self.microseconds = self.microseconds.saturating_add(other.microseconds);
    }

    #[expect(clippy::cast_precision_loss, reason = "a sample is a double")]
    pub fn print(&self, page: &mut Page, metric: &Metric, bounds: &[f64]) {
        let mut so_far = 0_u64;
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            so_far = so_far.saturating_add(*bucket);
            page.add_part(metric, "_bucket", &[("le", &Value(*bound).to_string())], so_far as f64);
        }
        let count = self.count() as f64;
        page.add_part(metric, "_bucket", &[("le", "+Inf")], count);
        page.add_part(metric, "_sum", &[], self.microseconds as f64 / 1e6);
        page.add_part(metric, "_count", &[], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::metrics::COMMAND_LATENCY_SECONDS;

    #[test]
    fn buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() {
        let bounds = [1.0, 3.0];
        let mut histogram = Histogram::new(&bounds);
        for seconds in [0.0, 1.0, 1.1, 3.0, 4.0] {
            histogram.observe(&bounds, seconds);
        }
        let mut twice = histogram.clone();
        twice.add(&histogram);
        let mut page = Page::default();
        twice.print(&mut page, &COMMAND_LATENCY_SECONDS, &bounds);
        let text = page.text();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "bot_command_latency_seconds_bucket{le=\"1\"} 4",
                "bot_command_latency_seconds_bucket{le=\"3\"} 8",
                "bot_command_latency_seconds_bucket{le=\"+Inf\"} 10",
                "bot_command_latency_seconds_sum 18.2",
                "bot_command_latency_seconds_count 10",
            ]
        );
    }
}
