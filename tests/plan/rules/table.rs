//! The fifteen alerts as they were specified, with series that make each fire and series that just don't.

/// Series are scraped, and rules evaluated, every 15 seconds.
pub const STEP: u64 = 15;
/// When what the alert waits for begins: after twenty steps in which all was well.
pub const BEGIN: u64 = 21 * STEP;

#[derive(Clone)]
pub struct Row {
    pub alert: &'static str,
    pub severity: &'static str,
    pub component: &'static str,
    /// Seconds from [`BEGIN`] to the first moment at which the alert fires.
    pub fires_after: u64,
    /// Seconds that it may go on when its series have ended: its window.
    pub lasts: u64,
    /// Labels of the firing alert besides those that all have.
    pub labels: &'static str,
    /// Input series that make it fire.
    pub bad: &'static [&'static str],
    /// Input series at the threshold, which don't.
    pub fine: &'static [&'static str],
}

pub const POD: &str = ",pod=\"rosey-0\"";

pub const TABLE: &[Row] = &[
    Row {
        alert: "BotDown",
        severity: "critical",
        component: "bot",
        fires_after: 120,
        lasts: 0,
        labels: POD,
        bad: &["rosey_bot_up 1x20 0x60", "up 1x80"],
        fine: &["rosey_bot_up 1x80", "up 1x80"],
    },
    Row {
        alert: "BotDisconnected",
        severity: "warning",
        component: "bot",
        fires_after: 60,
        lasts: 0,
        labels: POD,
        bad: &["rosey_bot_connected 1x20 0x60", "rosey_bot_up 1x80"],
        fine: &["rosey_bot_connected 1x20 0x60", "rosey_bot_up 1x20 0x60"],
    },
    Row {
        alert: "HighResponseTime",
        severity: "warning",
        component: "bot",
        fires_after: 300,
        lasts: 0,
        labels: POD,
        bad: &["rosey_bot_response_time_ms 50x20 2001x60"],
        fine: &["rosey_bot_response_time_ms 50x20 2000x60"],
    },
    Row {
        alert: "HighMemoryUsage",
        severity: "warning",
        component: "bot",
        fires_after: 600,
        lasts: 0,
        labels: POD,
        bad: &["rosey_bot_memory_bytes 1x20 524288001x60"],
        fine: &["rosey_bot_memory_bytes 1x20 524288000x60"],
    },
    Row {
        alert: "NoUsersInChannel",
        severity: "warning",
        component: "bot",
        fires_after: 900,
        lasts: 0,
        labels: POD,
        bad: &["rosey_bot_user_count 5x20 0x80"],
        fine: &["rosey_bot_user_count 5x20 1x80"],
    },
    Row {
        alert: "HighErrorRate",
        severity: "warning",
        component: "bot",
        // The rate over five minutes is above a tenth a second after five minutes of little more, and stays for five.
        fires_after: 600 - STEP,
        lasts: 300,
        labels: POD,
        bad: &["rosey_bot_error_count_total{error_type=\"timeout\"} 0x20 1.51+1.51x80"],
        fine: &["rosey_bot_error_count_total{error_type=\"timeout\"} 0x20 1.49+1.49x80"],
    },
    Row {
        alert: "CriticalError",
        severity: "critical",
        component: "bot",
        fires_after: 0,
        lasts: 60,
        labels: ",error_type=\"critical\",pod=\"rosey-0\"",
        bad: &[
            "rosey_bot_error_count_total{error_type=\"critical\"} 3x20 4x60",
            "rosey_exporter_source_up{source=\"metrics\"} 1x80",
        ],
        fine: &[
            "rosey_bot_error_count_total{error_type=\"critical\"} 3x80",
            "rosey_bot_error_count_total{error_type=\"timeout\"} 0x20 4x60",
            "rosey_exporter_source_up{source=\"metrics\"} 1x80",
        ],
    },
    Row {
        alert: "DeploymentFailed",
        severity: "warning",
        component: "deployment",
        fires_after: 0,
        lasts: 0,
        labels: "",
        bad: &["rosey_deployment_total{status=\"failed\"} 0x20 1x60"],
        fine: &[
            "rosey_deployment_total{status=\"success\"} 0x20 1x60",
            "rosey_deployment_total{status=\"failed\"} 7x80",
        ],
    },
    Row {
        alert: "MultipleDeploymentFailures",
        severity: "critical",
        component: "deployment",
        fires_after: 0,
        lasts: 0,
        labels: "",
        bad: &["rosey_deployment_total{status=\"failed\"} 0x10 2x9 3x60"],
        fine: &["rosey_deployment_total{status=\"failed\"} 0x10 1x9 2x60"],
    },
    Row {
        alert: "RollbackOccurred",
        severity: "warning",
        component: "deployment",
        fires_after: 0,
        lasts: 0,
        labels: "",
        bad: &["rosey_rollback_total 4x20 5x60"],
        fine: &["rosey_rollback_total 4x80"],
    },
    Row {
        alert: "FrequentRollbacks",
        severity: "critical",
        component: "deployment",
        fires_after: 0,
        lasts: 0,
        labels: "",
        bad: &["rosey_rollback_total 0x10 2x9 3x60"],
        fine: &["rosey_rollback_total 0x10 1x9 2x60"],
    },
    Row {
        alert: "NoRecentDeployment",
        severity: "info",
        component: "deployment",
        fires_after: 0,
        lasts: 0,
        labels: "",
        // Time begins at 0 in promtool, so the last success lies a day before the moment at which it should fire.
        bad: &["rosey_deployment_last_success_timestamp -86086x80"],
        fine: &["rosey_deployment_last_success_timestamp -84000x80"],
    },
    Row {
        alert: "DiskSpaceLow",
        severity: "warning",
        component: "system",
        fires_after: 300,
        lasts: 0,
        labels: ",path=\"data:/\",pod=\"rosey-0\"",
        bad: &["rosey_disk_usage_bytes{path=\"data:/\"} 1x20 85899345921x60"],
        fine: &["rosey_disk_usage_bytes{path=\"data:/\"} 1x20 85899345920x60"],
    },
    Row {
        alert: "NoRecentBackup",
        severity: "warning",
        component: "system",
        fires_after: 0,
        lasts: 0,
        labels: POD,
        bad: &["rosey_backup_age_seconds 1x20 172801x60", "rosey_backup_count 5x80"],
        fine: &["rosey_backup_age_seconds 1x20 172800x60", "rosey_backup_count 5x80"],
    },
    Row {
        alert: "LowBackupCount",
        severity: "info",
        component: "system",
        fires_after: 0,
        lasts: 0,
        labels: POD,
        bad: &["rosey_backup_count 5x20 2x60"],
        fine: &["rosey_backup_count 5x20 3x60"],
    },
];
