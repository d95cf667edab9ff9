//! Pack Deployments: deployments and rollbacks, as `kubectl rosey record` keeps them on the monitor.
//!
//! The operator exports them, from whichever of its replicas leads; so the expressions look past pod and instance.

use super::alert::{Alert, Group, Level, Subject, Unit};
use super::metrics;
use crate::api::alerts::{Pack, Severity};

/// How many events the window has seen: the value now less the smallest in the window.
///
/// Not `increase()`: it extrapolates, so that two events would count as more than two; and it starts anew with each pod of the
/// operator. The smallest value is the one at the window's start, or 0 after the monitor was made anew.
fn events(counter: &str, matcher: &str, window: &str, s: &Subject) -> String {
    let by = "by (namespace, rosey_monitor, environment)";
    let series = format!("{counter}{{{}{matcher}}}", s.scope);
    format!(
        "max {by} ({series}) - min {by} (min_over_time({series}[{window}])) > {}",
        s.threshold
    )
}

const FAILED: &str = ",status=\"failed\"";

pub const ALERTS: &[Alert] = &[
    Alert {
        name: "DeploymentFailed",
        pack: Pack::Deployments,
        group: Group::Deployments,
        component: "deployment",
        production_only: false,
        unit: Unit::Count,
        levels: &[Level {
            severity: Severity::Warning,
            threshold: "0",
            hold: "",
        }],
        needs: &[],
        expr: |s| events(metrics::DEPLOYMENT_TOTAL.name, FAILED, "5m", s),
        summary: "A deployment of bot {monitor} failed ({environment})",
        description: "Failed deployments in the last five minutes: {value}.",
    },
    Alert {
        name: "MultipleDeploymentFailures",
        pack: Pack::Deployments,
        group: Group::Deployments,
        component: "deployment",
        production_only: false,
        unit: Unit::Count,
        levels: &[Level {
            severity: Severity::Critical,
            threshold: "2",
            hold: "",
        }],
        needs: &[],
        expr: |s| events(metrics::DEPLOYMENT_TOTAL.name, FAILED, "1h", s),
        summary: "Deployments of bot {monitor} keep failing ({environment})",
        description: "Failed deployments in the last hour: {value}, more than {threshold}.",
    },
    Alert {
        name: "RollbackOccurred",
        pack: Pack::Deployments,
        group: Group::Deployments,
        component: "deployment",
        production_only: false,
        unit: Unit::Count,
        levels: &[Level {
            severity: Severity::Warning,
            threshold: "0",
            hold: "",
        }],
        needs: &[],
        expr: |s| events(metrics::ROLLBACK_TOTAL.name, "", "5m", s),
        summary: "Bot {monitor} was rolled back ({environment})",
        description: "Rollbacks in the last five minutes: {value}.",
    },
    Alert {
        name: "FrequentRollbacks",
        pack: Pack::Deployments,
        group: Group::Deployments,
        component: "deployment",
        production_only: false,
        unit: Unit::Count,
        levels: &[Level {
            severity: Severity::Critical,
            threshold: "2",
            hold: "",
        }],
        needs: &[],
        expr: |s| events(metrics::ROLLBACK_TOTAL.name, "", "1h", s),
        summary: "Bot {monitor} is rolled back again and again ({environment})",
        description: "Rollbacks in the last hour: {value}, more than {threshold}.",
    },
    Alert {
        name: "NoRecentDeployment",
        pack: Pack::Deployments,
        group: Group::Deployments,
        component: "deployment",
        production_only: true,
        unit: Unit::Seconds,
        levels: &[Level {
            severity: Severity::Info,
            threshold: "24h",
            hold: "",
        }],
        needs: &[],
        // A bot whose deployments are not recorded has no such series, and no such alert.
        expr: |s| {
            let last = metrics::DEPLOYMENT_LAST_SUCCESS_TIMESTAMP.name;
            format!(
                "time() - max by (namespace, rosey_monitor, environment) ({last}{{{}}}) > {}",
                s.scope, s.threshold
            )
        },
        summary: "Bot {monitor} has not been deployed of late ({environment})",
        description: "The last successful deployment was {value} ago, longer than {threshold}.",
    },
];
