//! Name, type and help of every series that we emit. A leaf: plain data, read by exporter, operator, plan and docs.
//!
//! The names that start with `rosey_bot_`, `rosey_deployment_`, `rosey_rollback_`, `rosey_disk_` and `rosey_backup_` are
//! older than this project and stay as they are, even where the Prometheus conventions would name them otherwise.

use std::time::Duration;

/// How a series behaves, in the words of the exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, until its process restarts.
    Counter,
    /// Cumulative buckets with sum and count.
    Histogram,
}

/// One family of series.
#[derive(Debug)]
pub struct Metric {
    /// Full name, unit included.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// One sentence, printed as `# HELP`.
    pub help: &'static str,
    /// Names of the labels that tell its series apart, besides `environment` and those of the scrape.
    pub labels: &'static [&'static str],
    /// What bots call it in metrics of their own, which are passed through under these names.
    pub dialects: &'static [&'static str],
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal $(or $dialect:literal)* [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            help: $help,
            labels: &[$($label),*],
            dialects: &[$($dialect),*],
        };)*
        /// Every family there is, in the order of this file.
        pub const ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    BOT_UP = Gauge "rosey_bot_up" [] "Whether the bot says that it runs (1) or not, or does not answer (0).";
    BOT_CONNECTED = Gauge "rosey_bot_connected" or "bot_connected" [] "Whether the bot is connected to its chat server (1) or not (0).";
    BOT_UPTIME_SECONDS = Gauge "rosey_bot_uptime_seconds" or "bot_uptime_seconds" [] "Seconds since the bot started, as it says.";
    BOT_RESPONSE_TIME_MS = Gauge "rosey_bot_response_time_ms" [] "Average response time of the bot in milliseconds, as it says.";
    BOT_MEMORY_BYTES = Gauge "rosey_bot_memory_bytes" [] "Memory used by the bot in bytes (its megabytes are taken as 1024 * 1024).";
    BOT_USER_COUNT = Gauge "rosey_bot_user_count" or "bot_users" or "bot_active_users" [] "Users in the bot's channel.";
    BOT_MESSAGE_COUNT_TOTAL = Counter "rosey_bot_message_count_total" [] "Messages that the bot processed.";
    BOT_COMMAND_COUNT_TOTAL = Counter "rosey_bot_command_count_total" ["command"] "Commands that the bot executed.";
    BOT_ERROR_COUNT_TOTAL = Counter "rosey_bot_error_count_total" or "bot_errors_total" ["error_type"] "Errors that the bot met.";
    BOT_CHANNEL_USERS = Gauge "rosey_bot_channel_users" ["channel"] "Users in the named channel.";
    BOT_REQUESTS_TOTAL = Counter "rosey_bot_requests_total" or "bot_requests_total" [] "Requests that the bot handled.";
    BOT_ERRORS_TOTAL = Counter "rosey_bot_errors_total" [] "Errors that the bot counted in its health document.";
    BOT_ERROR_RATE_PERCENT = Gauge "rosey_bot_error_rate_percent" [] "Errors per hundred requests since the bot started.";
    BOT_SCRAPE_TIMESTAMP_MS = Gauge "rosey_bot_scrape_timestamp_ms" [] "When the health document was last read, in milliseconds since 1970.";
    BOT_INFO = Gauge "rosey_bot_info" ["version", "channel"] "Always 1; its labels say which version of the bot runs where.";
    DEPLOYMENT_TOTAL = Counter "rosey_deployment_total" ["status"] "Deployments of the bot by outcome.";
    DEPLOYMENT_DURATION_SECONDS = Histogram "rosey_deployment_duration_seconds" [] "How long deployments took, in seconds.";
    DEPLOYMENT_LAST_SUCCESS_TIMESTAMP = Gauge "rosey_deployment_last_success_timestamp" [] "When a deployment last succeeded, in seconds since 1970.";
    DEPLOYMENT_LAST_FAILURE_TIMESTAMP = Gauge "rosey_deployment_last_failure_timestamp" [] "When a deployment last failed, in seconds since 1970.";
    ROLLBACK_TOTAL = Counter "rosey_rollback_total" [] "Rollbacks of the bot.";
    ROLLBACK_DURATION_SECONDS = Histogram "rosey_rollback_duration_seconds" [] "How long rollbacks took, in seconds.";
    DISK_USAGE_BYTES = Gauge "rosey_disk_usage_bytes" ["path"] "Bytes used on the file system of the path.";
    DISK_SIZE_BYTES = Gauge "rosey_disk_size_bytes" ["path"] "Size of the file system of the path, in bytes.";
    PLUGIN_CPU_PERCENT = Gauge "rosey_plugin_cpu_percent" ["plugin"] "CPU used by the plugin in percent of one core, as the bot says.";
    PLUGIN_MEMORY_MB = Gauge "rosey_plugin_memory_mb" ["plugin"] "Memory used by the plugin in megabytes, as the bot says.";
    PLUGIN_UPTIME_SECONDS = Gauge "rosey_plugin_uptime_seconds" ["plugin"] "Seconds since the plugin started, as the bot says.";
    PLUGIN_EVENTS_TOTAL = Counter "rosey_plugin_events_total" ["plugin"] "Events that the plugin handled.";
    PLUGIN_CRASHES_TOTAL = Counter "rosey_plugin_crashes_total" ["plugin"] "Crashes of the plugin.";
    PLUGIN_RUNNING = Gauge "rosey_plugin_running" ["plugin"] "Whether the bot says that the plugin runs (1) or not (0).";
    PLUGIN_INFO = Gauge "rosey_plugin_info" ["plugin", "version"] "Always 1; its label says which version of the plugin it is.";
    TOTAL_PLUGINS = Gauge "rosey_total_plugins" [] "Plugins that the bot knows.";
    PLUGINS_RUNNING = Gauge "rosey_plugins_running" [] "Plugins that run.";
    COMMANDS_TOTAL = Counter "bot_commands_total" ["command", "success"] "Commands that the bot's log tells of, by whether they succeeded.";
    COMMAND_LATENCY_SECONDS = Histogram "bot_command_latency_seconds" [] "How long the commands took that the bot's log tells of, in seconds.";
    LOG_LINES_TOTAL = Counter "rosey_bot_log_lines_total" ["level"] "Lines of the bot's log by level.";
    DISK_FREE_BYTES = Gauge "rosey_disk_free_bytes" ["path"] "Bytes free to the bot on the file system of the path.";
    DISK_INODES = Gauge "rosey_disk_inodes" ["path"] "Inodes of the file system of the path; none where it has no fixed number.";
    DISK_INODES_FREE = Gauge "rosey_disk_inodes_free" ["path"] "Inodes free on the file system of the path; none where it has no fixed number.";
    BACKUP_COUNT = Gauge "rosey_backup_count" [] "Backups there are.";
    BACKUP_AGE_SECONDS = Gauge "rosey_backup_age_seconds" [] "Age of the newest backup in seconds.";
    BACKUP_SIZE_BYTES = Gauge "rosey_backup_size_bytes" [] "Size of the newest backup in bytes; of a folder, that of the files in it.";
    EXPORTER_BUILD_INFO = Gauge "rosey_exporter_build_info" ["version"] "Always 1; its label says which exporter this is.";
    EXPORTER_SOURCE_UP = Gauge "rosey_exporter_source_up" ["source"] "Whether the source answered this scrape (1) or not (0).";
    EXPORTER_SOURCE_DURATION_SECONDS = Gauge "rosey_exporter_source_duration_seconds" ["source"] "How long the source took in this scrape, in seconds.";
    EXPORTER_CONFIG_LAST_RELOAD_SUCCESSFUL = Gauge "rosey_exporter_config_last_reload_successful" [] "Whether the configuration file was understood when it was last read (1) or an older one is in force (0).";
    EXPORTER_WEB_CONFIG_LAST_RELOAD_SUCCESSFUL = Gauge "rosey_exporter_web_config_last_reload_successful" [] "Whether the web configuration file was understood when it was last read (1) or not (0).";
    EXPORTER_LOG_LINES_UNPARSED_TOTAL = Counter "rosey_exporter_log_lines_unparsed_total" ["reason"] "Lines of the bot's log that could not be read, by reason.";
    EXPORTER_LOG_COMMANDS_DROPPED_TOTAL = Counter "rosey_exporter_log_commands_dropped_total" ["reason"] "Executions in the bot's log that the series by command leave out, by reason.";
    EXPORTER_LOG_ROTATIONS_TOTAL = Counter "rosey_exporter_log_rotations_total" [] "How often the bot's log went on in another file.";
    EXPORTER_LOG_TRUNCATIONS_TOTAL = Counter "rosey_exporter_log_truncations_total" [] "How often the bot's log was cut to a shorter one; what was written shortly before may be missing.";
    EXPORTER_LOG_UNREAD_BYTES = Gauge "rosey_exporter_log_unread_bytes" [] "Bytes of the bot's log that are still to be read.";
    EXPORTER_STATE_SAVED = Gauge "rosey_exporter_state_saved" [] "Whether what outlives the exporter's process could be saved when it was last tried (1) or not (0).";
    EXPORTER_PUSHES_TOTAL = Counter "rosey_exporter_pushes_total" ["outcome"] "Pushes to the Pushgateway by outcome.";
    EXPORTER_PUSH_LAST_SUCCESS_TIMESTAMP_SECONDS = Gauge "rosey_exporter_push_last_success_timestamp_seconds" [] "When a push last succeeded, in seconds since 1970.";
    EXPORTER_SAMPLES_DROPPED = Gauge "rosey_exporter_samples_dropped" ["reason"] "Samples of the bot that this scrape left out, by reason.";
}

/// What is told of deployments and rollbacks, by whoever counts them.
pub const DEPLOYMENTS: [&Metric; 6] = [
    &DEPLOYMENT_TOTAL,
    &DEPLOYMENT_DURATION_SECONDS,
    &DEPLOYMENT_LAST_SUCCESS_TIMESTAMP,
    &DEPLOYMENT_LAST_FAILURE_TIMESTAMP,
    &ROLLBACK_TOTAL,
    &ROLLBACK_DURATION_SECONDS,
];

/// Outcomes that `rosey_deployment_total{status}` knows; each starts at 0 so that `increase()` sees the first event.
pub const DEPLOYMENT_STATUSES: [&str; 2] = ["success", "failed"];

/// Upper bounds, in seconds, of the buckets of both duration histograms.
pub const DURATION_BUCKETS: [f64; 9] = [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Upper bounds, in seconds, of the buckets of the commands' latency; alerts ask for one and for three seconds.
pub const LATENCY_BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0];

/// The longest deployment or rollback that can be recorded; more is a mistake, milliseconds for seconds perhaps.
pub const LONGEST_DEPLOYMENT: Duration = Duration::from_secs(10 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_help_is_there_once_and_counters_end_in_total() {
        let mut names: Vec<_> = ALL
            .iter()
            .flat_map(|m| [m.name].into_iter().chain(m.dialects.iter().copied()))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        for metric in ALL {
            assert_eq!(
                metric.kind == Kind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
