//! Pack Storage: volumes and backups.

use super::alert::{Alert, Group, Level, Source, Subject, Unit};
use super::metrics;
use crate::api::alerts::{Pack, Severity};

/// Where the exporter could not read a source for five minutes: what it would say is not known, and silence is no good news.
///
/// One scrape is not enough, nor are the first ones of a pod. Without the label `source`, so that the alert stays the same one.
fn unreadable(source: &str, s: &Subject) -> String {
    let series = format!(
        "{}{{{},source=\"{source}\"}}",
        metrics::EXPORTER_SOURCE_UP.name,
        s.scope
    );
    let range = s.range(300);
    format!("max without (source) (max_over_time({series}[{range}]) == 0 and {series} offset {range} == 0)")
}

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
        needs: &[Source::Disk],
        // A volume that can't be read has no series, and may be full.
        expr: |s| {
            let usage = metrics::DISK_USAGE_BYTES.name;
            format!("{usage}{{{}}} > {} or {}", s.scope, s.threshold, unreadable("disk", s))
        },
        summary: "Volume {path} of bot {monitor} fills up ({environment})",
        description: "More than {threshold} of {path} have been in use for {for}, or it can't be read; it is {value} on {pod}.",
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
        needs: &[Source::Backups],
        // A folder without backups has no age, and no backup at all is no better than an old one.
        expr: |s| {
            let (age, count, scope) = (metrics::BACKUP_AGE_SECONDS.name, metrics::BACKUP_COUNT.name, &s.scope);
            format!(
                "{age}{{{scope}}} > {} or {count}{{{scope}}} == 0 or {}",
                s.threshold,
                unreadable("backups", s)
            )
        },
        summary: "Bot {monitor} has no recent backup ({environment})",
        description: "The newest backup is older than {threshold}, or there is none, or none can be read, says {pod}.",
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
        needs: &[Source::Backups],
        expr: |s| format!("{}{{{}}} < {}", metrics::BACKUP_COUNT.name, s.scope, s.threshold),
        summary: "Bot {monitor} has few backups ({environment})",
        description: "There are {value} backups, fewer than {threshold}, says {pod}.",
    },
];
