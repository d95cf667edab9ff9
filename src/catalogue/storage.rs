//! Pack Storage: volumes and backups.

use super::alert::{Alert, Group, Level, Needs, Unit};
use super::metrics;
use crate::api::alerts::{Pack, Severity};

pub const ALERTS: &[Alert] = &[
    Alert {
        name: "DiskSpaceLow",
        pack: Pack::Storage,
        group: Group::Storage,
        component: "system",
        production_only: false,
        unit: Unit::Bytes,
        levels: &[Level {
            severity: Severity::Warning,
            threshold: "80Gi",
            hold: "5m",
        }],
        needs: Needs::Disk,
        expr: |s| format!("{}{{{}}} > {}", metrics::DISK_USAGE_BYTES.name, s.scope, s.threshold),
        summary: "Volume {path} of bot {monitor} fills up ({environment})",
        description: "More than {threshold} of {path} have been in use for {for}; it is {value} on {pod}.",
    },
    Alert {
        name: "NoRecentBackup",
        pack: Pack::Storage,
        group: Group::Storage,
        component: "system",
        production_only: false,
        unit: Unit::Seconds,
        levels: &[Level {
            severity: Severity::Warning,
            threshold: "48h",
            hold: "",
        }],
        needs: Needs::Backups,
        // A folder without backups has no age, and no backup at all is no better than an old one.
        expr: |s| {
            let (age, count, scope) = (metrics::BACKUP_AGE_SECONDS.name, metrics::BACKUP_COUNT.name, &s.scope);
            format!("{age}{{{scope}}} > {} or {count}{{{scope}}} == 0", s.threshold)
        },
        summary: "Bot {monitor} has no recent backup ({environment})",
        description: "The newest backup is older than {threshold}, or there is none, says {pod}.",
    },
    Alert {
        name: "LowBackupCount",
        pack: Pack::Storage,
        group: Group::Storage,
        component: "system",
        production_only: false,
        unit: Unit::Count,
        levels: &[Level {
            severity: Severity::Info,
            threshold: "3",
            hold: "",
        }],
        needs: Needs::Backups,
        expr: |s| format!("{}{{{}}} < {}", metrics::BACKUP_COUNT.name, s.scope, s.threshold),
        summary: "Bot {monitor} has few backups ({environment})",
        description: "There are {value} backups, fewer than {threshold}, says {pod}.",
    },
];
