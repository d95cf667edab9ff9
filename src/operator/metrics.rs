//! What the operator tells Prometheus about itself, and about the deployments of the bots.
//!
//! The series of the monitors carry the labels `namespace` and `rosey_monitor` of the monitor they speak of, not of the
//! operator: whoever scrapes them sets `honorLabels: true`. Only the leader has them, so that nothing counts twice.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use super::key::Key;
use super::leader::Leadership;
use super::monitors::Monitors;
use crate::plan::{Kind, NOBODY, Plan};

mod fleet;
mod upkeep;

pub use upkeep::{Eviction, ImageChange};

use fleet::Fleet;
use upkeep::Upkeep;

/// How a reconcile ended, with the category of what kept it from its end.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Everything is done.
    Success,
    /// Nothing failed, and the rest is done a moment later.
    Postponed(&'static str),
    /// Something failed.
    Error(&'static str),
}

/// The operator's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    durations: Histogram,
    errors: IntCounterVec,
    writes: IntCounterVec,
    upkeep: Upkeep,
    receivers: IntGauge,
    receivers_of: Mutex<HashMap<Key, i64>>,
}

impl Metrics {
    /// Registers everything but what speaks of the monitors.
    ///
    /// # Errors
    /// A name is taken or malformed.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let reconciles = counter(
            "rosey_operator_reconciles_total",
            "Reconciles of monitors by outcome.",
            &["outcome"],
        )?;
        let errors = counter(
            "rosey_operator_errors_total",
            "What went wrong, by category.",
            &["category"],
        )?;
        let writes = counter(
            "rosey_operator_writes_total",
            "Objects that were written, by kind and verb.",
            &["kind", "verb"],
        )?;
        let durations = HistogramOpts::new(
            "rosey_operator_reconcile_duration_seconds",
            "How long reconciles took, in seconds.",
        )
        .buckets(vec![
            0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ]);
        let durations = Histogram::with_opts(durations)?;
        registry.register(Box::new(durations.clone()))?;
        let receivers = IntGauge::new(
            "rosey_operator_receivers",
            "Receivers of all monitors, one for each channel of each route. prometheus-operator puts those of an Alertmanager into one Secret; docs/limits.md says how many it holds.",
        )?;
        registry.register(Box::new(receivers.clone()))?;
        for outcome in ["success", "postponed", "error"] {
            reconciles.with_label_values(&[outcome]);
        }
        let upkeep = Upkeep::new(&registry)?;
        Ok(Self {
            registry,
            reconciles,
            durations,
            errors,
            writes,
            upkeep,
            receivers,
            receivers_of: Mutex::default(),
        })
    }

    /// Registers what speaks of the monitors.
    ///
    /// # Errors
    /// A name is taken.
    pub fn watch(&self, monitors: Monitors, leadership: Leadership) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(Fleet::new(monitors, leadership)?))
    }

    /// Where others register theirs.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything in the text format.
    ///
    /// # Errors
    /// A collector made something that can't be written.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// An object was written.
    pub fn wrote(&self, kind: Kind, verb: &str) {
        self.writes
            .with_label_values(&[kind.api_resource().kind.as_str(), verb])
            .inc();
    }

    /// A status was written.
    pub fn wrote_status(&self) {
        self.writes.with_label_values(&["RoseyMonitor", "status"]).inc();
    }

    /// The image of an exporter that runs was changed, or was to be.
    pub fn changed_image(&self, result: ImageChange) {
        self.upkeep.image(result);
    }

    /// A pod without an exporter was evicted, or was to be.
    pub fn evicted(&self, result: Eviction) {
        self.upkeep.eviction(result);
    }

    /// Something went wrong. The categories are few and fixed.
    pub fn failed(&self, category: &str) {
        self.errors.with_label_values(&[category]).inc();
    }

    /// A reconcile ended.
    pub fn reconciled(&self, took: Duration, outcome: Outcome) {
        self.durations.observe(took.as_secs_f64());
        let (word, category) = match outcome {
            Outcome::Success => ("success", None),
            Outcome::Postponed(category) => ("postponed", Some(category)),
            Outcome::Error(category) => ("error", Some(category)),
        };
        self.reconciles.with_label_values(&[word]).inc();
        if let Some(category) = category {
            self.failed(category);
        }
    }

    /// Counts the receivers of a monitor; `None` when it is gone.
    pub fn planned(&self, key: &Key, plan: Option<&Plan>) {
        let mut of = self.receivers_of.lock().unwrap_or_else(PoisonError::into_inner);
        match plan {
            Some(plan) => {
                let routes = plan
                    .objects
                    .iter()
                    .filter(|object| object.kind == Kind::AlertmanagerConfig);
                let receivers =
                    routes.flat_map(|object| object.json["spec"]["receivers"].as_array().into_iter().flatten());
                let receivers = receivers.filter(|receiver| receiver["name"] != NOBODY).count();
                of.insert(key.clone(), i64::try_from(receivers).unwrap_or(i64::MAX));
            }
            None => {
                of.remove(key);
            }
        }
        self.receivers.set(of.values().sum());
    }

    /// This replica leads no longer: what it counted is another one's to tell.
    pub fn rest(&self) {
        self.receivers_of.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.receivers.set(0);
    }
}

/// A family made by hand.
struct Family {
    desc: Desc,
    kind: prometheus::proto::MetricType,
}

impl Family {
    fn new(
        name: &str,
        help: &str,
        kind: prometheus::proto::MetricType,
        labels: &[&str],
    ) -> Result<Self, prometheus::Error> {
        let labels = labels.iter().map(ToString::to_string).collect();
        Ok(Self {
            desc: Desc::new(name.into(), help.into(), labels, HashMap::new())?,
            kind,
        })
    }

    fn of(&self, metrics: Vec<prometheus::proto::Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        family.set_metric(metrics);
        family
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{Object, Report};

    #[test]
    fn receivers_are_counted_while_this_replica_leads() {
        let (metrics, key) = (Metrics::new().unwrap(), Key::new("bots", "rosey"));
        let object = Object {
            kind: Kind::AlertmanagerConfig,
            name: "rosey.ops".into(),
            json: json!({"spec": {"receivers": [{"name": NOBODY}, {"name": "a"}, {"name": "b"}]}}),
        };
        let plan = Plan {
            objects: vec![object],
            report: Report::default(),
        };
        metrics.planned(&key, Some(&plan));
        assert!(metrics.text().unwrap().contains("\nrosey_operator_receivers 2\n"));
        metrics.rest();
        assert!(metrics.text().unwrap().contains("\nrosey_operator_receivers 0\n"));
    }

    #[test]
    fn every_series_is_documented() {
        let page = include_str!("../../docs/operator.md");
        let metrics = Metrics::new().unwrap();
        // A counter without a series is not gathered.
        metrics.failed("watch");
        metrics.wrote_status();
        let fleet = Fleet::new(crate::operator::monitors::pair().0, Leadership::fixed(true)).unwrap();
        let fleet = fleet.desc().into_iter().map(|desc| desc.fq_name.clone());
        let own = metrics
            .registry
            .gather()
            .into_iter()
            .map(|family| family.name().to_owned());
        for name in own.chain(fleet).filter(|name| name.starts_with("rosey_operator_")) {
            assert!(page.contains(&format!("| `{name}` |")), "docs/operator.md lacks {name}");
        }
    }

    #[test]
    fn changes_of_pods_are_counted_by_result_and_begin_at_0() {
        let metrics = Metrics::new().unwrap();
        metrics.changed_image(ImageChange::PutBack);
        metrics.evicted(Eviction::InVain);
        let text = metrics.text().unwrap();
        let counted: Vec<_> = text.lines().filter(|line| line.contains("{result=")).collect();
        assert_eq!(
            counted,
            [
                r#"rosey_operator_evictions_total{result="budget"} 0"#,
                r#"rosey_operator_evictions_total{result="evicted"} 0"#,
                r#"rosey_operator_evictions_total{result="failed"} 0"#,
                r#"rosey_operator_evictions_total{result="in_vain"} 1"#,
                r#"rosey_operator_evictions_total{result="left"} 0"#,
                r#"rosey_operator_image_changes_total{result="changed"} 0"#,
                r#"rosey_operator_image_changes_total{result="failed"} 0"#,
                r#"rosey_operator_image_changes_total{result="left"} 0"#,
                r#"rosey_operator_image_changes_total{result="put_back"} 1"#,
                r#"rosey_operator_image_changes_total{result="stuck"} 0"#,
            ]
        );
    }

    #[test]
    fn reconciles_are_counted_by_outcome_with_their_time_and_failures_by_category() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciled(Duration::from_millis(20), Outcome::Success);
        metrics.reconciled(Duration::from_millis(300), Outcome::Postponed("changed"));
        metrics.reconciled(Duration::from_secs(20), Outcome::Error("timeout"));
        metrics.wrote(Kind::ConfigMap, "apply");
        metrics.wrote_status();
        let text = metrics.text().unwrap();
        for line in [
            r#"rosey_operator_reconciles_total{outcome="success"} 1"#,
            r#"rosey_operator_reconciles_total{outcome="postponed"} 1"#,
            r#"rosey_operator_reconciles_total{outcome="error"} 1"#,
            r#"rosey_operator_reconcile_duration_seconds_bucket{le="0.025"} 1"#,
            r#"rosey_operator_reconcile_duration_seconds_bucket{le="0.5"} 2"#,
            r#"rosey_operator_reconcile_duration_seconds_bucket{le="+Inf"} 3"#,
            "rosey_operator_reconcile_duration_seconds_sum 20.32",
            r#"rosey_operator_errors_total{category="timeout"} 1"#,
            r#"rosey_operator_errors_total{category="changed"} 1"#,
            r#"rosey_operator_writes_total{kind="ConfigMap",verb="apply"} 1"#,
            r#"rosey_operator_writes_total{kind="RoseyMonitor",verb="status"} 1"#,
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
    }
}
