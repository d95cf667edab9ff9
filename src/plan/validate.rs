//! The first step of a plan: what a monitor asks for, checked and made explicit. Only what comes out of here is built.
//!
//! The schema has refused what it can; this is the rest, and the meaning of the schema's CEL rules once more, because a file
//! on somebody's disk has seen no API server. All problems are collected.

mod alerts;
mod exporter;
mod labels;
mod notifications;
mod scrape;

pub use alerts::{ResolvedAlert, ResolvedLevel};
pub(in crate::plan) use exporter::is_enough_memory;

use super::{Platform, Problem, Problems};
use crate::api::forms::is_dns_label;
use crate::api::status::Skipped;
use crate::api::{Duration, MAX_NAME, RoseyMonitor, RoseyMonitorSpec};

/// A monitor that can be built.
#[derive(Debug)]
pub struct Valid<'a> {
    /// The monitor's name.
    pub name: &'a str,
    /// The monitor's namespace.
    pub namespace: &'a str,
    /// What its user wrote.
    pub spec: &'a RoseyMonitorSpec,
    /// The alerts in force, in the catalogue's order.
    pub alerts: Vec<ResolvedAlert>,
    /// The alerts that are left out.
    pub skipped: Vec<Skipped>,
    /// What is legal but odd.
    pub warnings: Vec<String>,
}

/// Problems and warnings as they are found.
#[derive(Debug, Default)]
struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Findings {
    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(field, message));
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Checks that a duration is one, and longer than nothing; answers its seconds.
    fn positive(&mut self, field: &str, duration: &Duration) -> Option<u64> {
        let seconds = self.duration(field, duration)?;
        if seconds == 0 {
            self.problem(
                field,
                format!("\"{duration}\" must be longer than 0s; write a duration such as 30s"),
            );
            return None;
        }
        Some(seconds)
    }

    /// Checks that a duration is one; answers its seconds.
    fn duration(&mut self, field: &str, duration: &Duration) -> Option<u64> {
        let seconds = duration.seconds();
        if seconds.is_none() {
            self.problem(
                field,
                format!(
                    "{:?} is not a duration; write hours, minutes and seconds such as 1h30m or 30s",
                    duration.0
                ),
            );
        }
        seconds
    }
}

/// What is wrong with the sidecar's container, of a monitor that may have been valid for an earlier operator or never was.
///
/// Other problems are no reason to leave a pod alone: the last good objects are in place, and speak of its exporter.
#[must_use]
pub fn problem_of_container(monitor: &RoseyMonitor, platform: &Platform) -> Option<Problem> {
    let mut found = Findings::default();
    check_name(&mut found, monitor.metadata.name.as_deref().unwrap_or_default());
    exporter::check_container(&mut found, &monitor.spec, platform);
    found.problems.into_iter().next()
}

fn check_name(found: &mut Findings, name: &str) {
    if !is_dns_label(name, MAX_NAME) {
        found.problem(
            "metadata.name",
            format!("{name:?} must be a DNS label (a-z, 0-9, -) of at most {MAX_NAME} characters: it becomes a label value and a prefix of names"),
        );
    }
}

/// Checks a monitor.
///
/// # Errors
/// Everything that is wrong with it.
pub fn validate<'a>(monitor: &'a RoseyMonitor, platform: &Platform) -> Result<Valid<'a>, Problems> {
    let mut found = Findings::default();
    let name = monitor.metadata.name.as_deref().unwrap_or_default();
    let namespace = monitor.metadata.namespace.as_deref().unwrap_or("default");
    let spec = &monitor.spec;

    check_name(&mut found, name);
    if !is_dns_label(namespace, 63) {
        found.problem(
            "metadata.namespace",
            format!("{namespace:?} is not a namespace; write a DNS label (a-z, 0-9, -)"),
        );
    }
    labels::selector(&mut found, "spec.selector", &spec.selector);
    labels::object_labels(&mut found, "spec.objectLabels", &spec.object_labels);
    if let Some(health) = &spec.bot.health {
        found.positive("spec.bot.health.timeout", &health.timeout);
    }
    exporter::check(&mut found, name, namespace, spec, platform);
    scrape::check(&mut found, spec);
    let (alerts, skipped) = alerts::resolve(&mut found, spec);
    if let Some(notifications) = &spec.notifications {
        notifications::check(&mut found, notifications, &alerts);
    }

    if found.problems.is_empty() {
        Ok(Valid {
            name,
            namespace,
            spec,
            alerts,
            skipped,
            warnings: found.warnings,
        })
    } else {
        Err(Problems(found.problems))
    }
}
