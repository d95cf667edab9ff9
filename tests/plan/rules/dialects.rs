//! The alerts of a monitor that reads its bot elsewhere than in a health document: the same times and thresholds, other series.

use serde_json::json;

use super::table::{BEGIN, Row, STEP};
use super::{case, promtool_with, row};
use crate::{example, planned, with_spec};

/// A row with other series.
fn with(alert: &str, bad: &'static [&'static str], fine: &'static [&'static str]) -> Row {
    Row {
        bad,
        fine,
        ..*row(alert)
    }
}

/// Fires at its time, not a step before, and not at its threshold.
fn cases(rows: &[Row]) -> Vec<serde_json::Value> {
    let fires = |row: &Row| {
        let at = BEGIN + row.fires_after;
        case(
            "fires",
            row,
            row.bad,
            &[(BEGIN - STEP, false), (at - STEP, false), (at, true)],
        )
    };
    let fine = |row: &Row| case("at its threshold", row, row.fine, &[(BEGIN, false), (1185, false)]);
    rows.iter().flat_map(|row| [fires(row), fine(row)]).collect()
}

#[test]
fn a_bot_with_nothing_but_metrics_of_its_own_gets_its_alerts_in_its_own_words() {
    let plan = planned(&example("s1-metrics.yaml"));
    promtool_with(
        &plan,
        &cases(&[
            with(
                "BotDown",
                &["rosey_exporter_source_up{source=\"metrics\"} 1x20 0x60", "up 1x80"],
                &["rosey_exporter_source_up{source=\"metrics\"} 1x80", "up 1x80"],
            ),
            with("BotDisconnected", &["bot_connected 1x20 0x60"], &["bot_connected 1x80"]),
            with("NoUsersInChannel", &["bot_users 5x20 0x80"], &["bot_users 5x20 1x80"]),
            with(
                "NoUsersInChannel",
                &["bot_active_users 5x20 0x80"],
                &["bot_active_users 5x20 1x80"],
            ),
            with(
                "HighErrorRate",
                &["bot_errors_total 0x20 1.51+1.51x80"],
                &["bot_errors_total 0x20 1.49+1.49x80"],
            ),
        ]),
    );
}

#[test]
fn a_bot_may_print_our_names_itself() {
    let plan = planned(&example("s1-metrics.yaml"));
    let ours = ["NoUsersInChannel", "HighErrorRate", "CriticalError"].map(|alert| row(alert).clone());
    let connected = with(
        "BotDisconnected",
        &["rosey_bot_connected 1x20 0x60"],
        &["rosey_bot_connected 1x80"],
    );
    promtool_with(&plan, &cases(&[&ours[..], &[connected]].concat()));
}

#[test]
fn where_health_and_metrics_both_speak_health_is_believed_and_where_it_is_silent_the_metrics_are() {
    let plan = planned(&example("s0-rosey.yaml"));
    let health = "rosey_bot_up 1x80";
    let disconnected = |fine| {
        with(
            "BotDisconnected",
            &["bot_connected 1x20 0x60", "rosey_bot_up 1x80"],
            fine,
        )
    };
    promtool_with(
        &plan,
        &cases(&[
            disconnected(&["bot_connected 0x80", "rosey_bot_connected 1x80", "rosey_bot_up 1x80"]),
            disconnected(&[
                "bot_connected{shard=\"1\"} 0x80",
                "rosey_bot_connected 1x80",
                "rosey_bot_up 1x80",
            ]),
            disconnected(&["bot_connected{shard=\"1\"} 0x80", "rosey_bot_up 0x80"]),
            with(
                "NoUsersInChannel",
                &["bot_users 5x20 0x80"],
                &["bot_users{channel=\"quiet\"} 0x100", "rosey_bot_user_count 1x100"],
            ),
            with(
                "HighErrorRate",
                &["bot_errors_total 0x20 1.51+1.51x80"],
                &[
                    "bot_errors_total{shard=\"1\"} 0x20 1.51+1.51x80",
                    "rosey_bot_error_count_total{error_type=\"timeout\"} 0x20 1.49+1.49x80",
                ],
            ),
        ]),
    );
    let row = with("BotDisconnected", &[], &[]);
    let at = BEGIN + row.fires_after;
    let label = Row {
        labels: ",pod=\"rosey-0\",shard=\"1\"",
        ..row
    };
    let shard = "bot_connected{shard=\"1\"} 1x20 0x60";
    let told = [(at - STEP, false), (at, true)];
    // What one pod says in our words does not silence what another says in its own.
    let mut beside = case("one shard beside another pod", &label, &[shard, health], &told);
    let other = "rosey_bot_connected{namespace=\"bots\",rosey_monitor=\"rosey\",environment=\"prod\",pod=\"rosey-1\"}";
    let inputs = beside["input_series"].as_array_mut().unwrap();
    inputs.push(json!({ "series": other, "values": "1x80" }));
    promtool_with(&plan, &[case("one shard", &label, &[shard, health], &told), beside]);
}

#[test]
fn errors_of_the_log_are_told_as_those_of_metrics_are() {
    let plan = planned(&example("s3-logs.yaml"));
    let critical = "rosey_bot_error_count_total{error_type=\"critical\"} 3x20 4x60";
    promtool_with(
        &plan,
        &cases(&[
            row("HighErrorRate").clone(),
            with(
                "CriticalError",
                &[
                    "rosey_bot_error_count_total{error_type=\"critical\"} 3x20 4x60",
                    "rosey_exporter_source_up{source=\"logs\"} 1x80",
                ],
                &[
                    "rosey_bot_error_count_total{error_type=\"critical\"} 3x80",
                    "rosey_exporter_source_up{source=\"logs\"} 1x80",
                ],
            ),
        ]),
    );
    // A log that is read for the first time has its errors behind it.
    let row = row("CriticalError");
    let new = "rosey_bot_error_count_total{error_type=\"critical\"} _x21 3x60";
    let read = "rosey_exporter_source_up{source=\"logs\"} _x21 1x60";
    promtool_with(
        &plan,
        &[case(
            "old log",
            row,
            &[new, read],
            &[(BEGIN, false), (BEGIN + 300, false)],
        )],
    );
    let both = planned(&with_spec(
        "environment: prod\nselector: {matchLabels: {app: rosey}}\nbot: {metrics: {port: 8000}, logs: {volume: logs, path: rosey.log}}",
    ));
    let sources = ["metrics", "logs"].map(|source| format!("rosey_exporter_source_up{{source=\"{source}\"}} 1x80"));
    let told = [(BEGIN - STEP, false), (BEGIN, true)];
    let either = sources.iter().map(|read| case("either", row, &[critical, read], &told));
    promtool_with(&both, &either.collect::<Vec<_>>());
}
