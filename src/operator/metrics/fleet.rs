//! The series of the monitors: their conditions, their pods, and the deployments that were recorded on them. Read from the
//! cache at each scrape, so there is nothing to keep in step.

use std::sync::Arc;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricType};

use super::{Collector, Desc, Family, Leadership, MetricFamily, Monitors};
use crate::api::RoseyMonitor;
use crate::api::status::condition::{INJECTED, READY, SELECTED, STALLED, VALID};
use crate::api::status::{Deployments, Durations};
use crate::catalogue::metrics::{
    DEPLOYMENT_DURATION_SECONDS, DEPLOYMENT_LAST_FAILURE_TIMESTAMP, DEPLOYMENT_LAST_SUCCESS_TIMESTAMP,
    DEPLOYMENT_STATUSES, DEPLOYMENT_TOTAL, DEPLOYMENTS, DURATION_BUCKETS, Kind, Metric as Known, ROLLBACK_TOTAL,
};

const LABELS: [&str; 3] = ["namespace", "rosey_monitor", "environment"];

/// Everything that speaks of the monitors.
pub struct Fleet {
    monitors: Monitors,
    leadership: Leadership,
    leader: Family,
    conditions: Family,
    pods: Family,
    deployments: Vec<(&'static Known, Family)>,
}

impl Fleet {
    pub fn new(monitors: Monitors, leadership: Leadership) -> Result<Self, prometheus::Error> {
        let family = |known: &'static Known| {
            let kind = match known.kind {
                Kind::Gauge => MetricType::GAUGE,
                Kind::Counter => MetricType::COUNTER,
                Kind::Histogram => MetricType::HISTOGRAM,
            };
            let labels: Vec<_> = LABELS.iter().chain(known.labels).copied().collect();
            Ok::<_, prometheus::Error>((known, Family::new(known.name, known.help, kind, &labels)?))
        };
        let gauge = |name, help, labels: &[&str]| Family::new(name, help, MetricType::GAUGE, labels);
        Ok(Self {
            monitors,
            leadership,
            leader: gauge(
                "rosey_operator_leader",
                "Whether this replica writes (1) or waits (0).",
                &[],
            )?,
            conditions: gauge(
                "rosey_operator_monitors",
                "Monitors by condition and status.",
                &["condition", "status"],
            )?,
            pods: gauge(
                "rosey_operator_pods",
                "Pods that monitors select, by the state of their exporter.",
                &["state"],
            )?,
            deployments: DEPLOYMENTS.into_iter().map(family).collect::<Result<_, _>>()?,
        })
    }
}

impl Collector for Fleet {
    fn desc(&self) -> Vec<&Desc> {
        let own = [&self.leader, &self.conditions, &self.pods];
        own.into_iter()
            .chain(self.deployments.iter().map(|(_, family)| family))
            .map(|family| &family.desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let leads = self.leadership.check().is_ok();
        let leader = self.leader.of(vec![gauge(&[], f64::from(u8::from(leads)))]);
        if !leads {
            return vec![leader];
        }
        let monitors = self.monitors.store().state();
        let mut families = vec![
            leader,
            self.conditions.of(conditions(&monitors)),
            self.pods.of(pods(&monitors)),
        ];
        for (known, family) in &self.deployments {
            let metrics: Vec<_> = monitors.iter().flat_map(|monitor| recorded(known, monitor)).collect();
            // A family without series is malformed.
            if !metrics.is_empty() {
                families.push(family.of(metrics));
            }
        }
        families
    }
}

fn conditions(monitors: &[Arc<RoseyMonitor>]) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for kind in [READY, VALID, INJECTED, SELECTED, STALLED] {
        for status in ["True", "False", "Unknown"] {
            let holds = |monitor: &&Arc<RoseyMonitor>| {
                let mut conditions = monitor.status.iter().flat_map(|status| &status.conditions);
                conditions.any(|condition| condition.type_ == kind && condition.status == status)
            };
            metrics.push(gauge(
                &[("condition", kind), ("status", status)],
                number(monitors.iter().filter(holds).count()),
            ));
        }
    }
    metrics
}

fn pods(monitors: &[Arc<RoseyMonitor>]) -> Vec<Metric> {
    let counts = || {
        monitors
            .iter()
            .filter_map(|monitor| monitor.status.as_ref()?.sidecars.as_ref())
    };
    [
        (
            "injected",
            counts().map(|counts| i64::from(counts.injected)).sum::<i64>(),
        ),
        ("outdated", counts().map(|counts| i64::from(counts.outdated)).sum()),
        ("missing", counts().map(|counts| i64::from(counts.missing)).sum()),
    ]
    .into_iter()
    .map(|(state, count)| gauge(&[("state", state)], float(count)))
    .collect()
}

/// The series of one family for one monitor. Counters start at 0, so that `increase()` sees the first event.
fn recorded(known: &Known, monitor: &RoseyMonitor) -> Vec<Metric> {
    let none = Deployments::default();
    let of = monitor
        .status
        .as_ref()
        .and_then(|status| status.deployments.as_ref())
        .unwrap_or(&none);
    let labels = [
        (LABELS[0], monitor.metadata.namespace.as_deref().unwrap_or_default()),
        (LABELS[1], monitor.metadata.name.as_deref().unwrap_or_default()),
        (LABELS[2], monitor.spec.environment.as_str()),
    ];
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.iter()
            .map(|time| gauge(&labels, float(time.0.as_second())))
            .collect()
    };
    if known.name == DEPLOYMENT_TOTAL.name {
        let counts = DEPLOYMENT_STATUSES.iter().zip([of.succeeded, of.failed]);
        let with = |status: &'static str| [labels[0], labels[1], labels[2], ("status", status)];
        counts
            .map(|(status, count)| counter(&with(status), float(count)))
            .collect()
    } else if known.name == ROLLBACK_TOTAL.name {
        vec![counter(&labels, float(of.rollbacks))]
    } else if known.name == DEPLOYMENT_LAST_SUCCESS_TIMESTAMP.name {
        time(&of.last_success)
    } else if known.name == DEPLOYMENT_LAST_FAILURE_TIMESTAMP.name {
        time(&of.last_failure)
    } else if known.name == DEPLOYMENT_DURATION_SECONDS.name {
        vec![histogram(&labels, of.durations.as_ref())]
    } else {
        vec![histogram(&labels, of.rollback_durations.as_ref())]
    }
}

fn histogram(labels: &[(&str, &str)], durations: Option<&Durations>) -> Metric {
    let none = Durations::default();
    let durations = durations.unwrap_or(&none);
    let mut histogram = Histogram::default();
    histogram.set_sample_count(durations.count.max(0).unsigned_abs());
    histogram.set_sample_sum(float(durations.sum_milliseconds) / 1000.0);
    let buckets = DURATION_BUCKETS.iter().enumerate().map(|(n, bound)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(
            durations
                .buckets
                .get(n)
                .copied()
                .unwrap_or_default()
                .max(0)
                .unsigned_abs(),
        );
        bucket
    });
    histogram.set_bucket(buckets.collect());
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    metric
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = labelled(labels);
    metric.set_counter(counter);
    metric
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    });
    Metric::from_label(pairs.collect())
}

#[allow(clippy::cast_precision_loss, reason = "counts and seconds stay far below 2^52")]
fn float(value: i64) -> f64 {
    value as f64
}

fn number(count: usize) -> f64 {
    float(i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::operator::leader::Leadership;
    use crate::operator::metrics::Metrics;
    use crate::operator::monitors;

    fn text(status: &serde_json::Value, leads: bool) -> String {
        let monitor: RoseyMonitor = serde_json::from_value(json!({
            "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": {"namespace": "bots", "name": "rosey"},
            "spec": {"environment": "prod", "selector": {}}, "status": status,
        }))
        .unwrap();
        let (monitors, mut feed) = monitors::pair();
        feed.apply_watcher_event(&Event::Apply(monitor));
        let metrics = Metrics::new().unwrap();
        metrics.watch(monitors, Leadership::fixed(leads)).unwrap();
        metrics.text().unwrap()
    }

    #[test]
    fn every_series_of_a_monitor_that_has_recorded_nothing_starts_at_zero() {
        let text = text(&json!({}), true);
        for line in [
            r#"rosey_deployment_total{namespace="bots",rosey_monitor="rosey",environment="prod",status="success"} 0"#,
            r#"rosey_deployment_total{namespace="bots",rosey_monitor="rosey",environment="prod",status="failed"} 0"#,
            r#"rosey_deployment_duration_seconds_bucket{namespace="bots",rosey_monitor="rosey",environment="prod",le="3600"} 0"#,
            r#"rosey_rollback_total{namespace="bots",rosey_monitor="rosey",environment="prod"} 0"#,
            r#"rosey_rollback_duration_seconds_count{namespace="bots",rosey_monitor="rosey",environment="prod"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(
            !text.contains("last_success_timestamp{"),
            "a time that never was is left out"
        );
    }

    #[test]
    fn what_was_recorded_is_told() {
        let status = json!({"deployments": {
            "succeeded": 3, "failed": 1, "rollbacks": 1, "lastSuccess": "2026-01-01T00:00:00Z",
            "durations": {"buckets": [0, 0, 2, 4, 4, 4, 4, 4, 4], "sumMilliseconds": 90500, "count": 4},
        }});
        let text = text(&status, true);
        for part in [
            r#"status="success"} 3"#,
            r#"le="30"} 2"#,
            r#"le="60"} 4"#,
            r#"le="+Inf"} 4"#,
            "_sum{namespace=\"bots\",rosey_monitor=\"rosey\",environment=\"prod\"} 90.5",
            "} 1767225600",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_replica_that_does_not_lead_says_nothing_of_the_monitors() {
        let text = text(&json!({}), false);
        assert!(text.contains("rosey_operator_leader 0"));
        assert!(!text.contains("rosey_deployment_total"));
    }

    #[test]
    fn monitors_are_told_by_condition_and_their_pods_by_state() {
        let condition = |kind, status| json!({"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({
            "conditions": [condition("Ready", "True"), condition("Injected", "False"), condition("Selected", "Unknown")],
            "sidecars": {"pods": 7, "injected": 4, "outdated": 1, "missing": 3, "summary": "4/7"},
        });
        let text = text(&status, true);
        for line in [
            r#"rosey_operator_monitors{condition="Ready",status="True"} 1"#,
            r#"rosey_operator_monitors{condition="Ready",status="False"} 0"#,
            r#"rosey_operator_monitors{condition="Injected",status="False"} 1"#,
            r#"rosey_operator_monitors{condition="Selected",status="Unknown"} 1"#,
            r#"rosey_operator_monitors{condition="Stalled",status="True"} 0"#,
            r#"rosey_operator_pods{state="injected"} 4"#,
            r#"rosey_operator_pods{state="outdated"} 1"#,
            r#"rosey_operator_pods{state="missing"} 3"#,
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
    }
}
