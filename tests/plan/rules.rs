//! Each alert in the real promtool: fires at its time, not a moment before, not at its threshold, not without its subject.
//!
//! The table is written by hand from the specification of the fifteen alerts. It repeats thresholds, durations, severities and
//! components on purpose: a change of any of them in the catalogue fails here.

mod dialects;
mod table;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rosey_monitor::plan::{Kind, Plan};
use serde_json::json;

use crate::{example, objects, planned};
use table::{BEGIN, POD, Row, STEP, TABLE};

fn row(alert: &str) -> &'static Row {
    TABLE.iter().find(|row| row.alert == alert).unwrap()
}

/// `name{labels} values` becomes an input series that carries the labels of a scrape (or, of deployments, the operator's).
fn series(line: &str) -> serde_json::Value {
    let (name, values) = line.split_once(' ').unwrap();
    let (name, labels) = name.split_once('{').map_or((name, String::new()), |(n, l)| {
        (n, format!(",{}", l.trim_end_matches('}')))
    });
    let source = if name.starts_with("rosey_deployment") || name.starts_with("rosey_rollback") {
        "pod=\"rosey-operator-1\",instance=\"10.0.0.1:8080\""
    } else {
        "pod=\"rosey-0\",instance=\"rosey-0\",container=\"rosey-exporter\",job=\"bots/rosey\""
    };
    json!({ "series": format!("{name}{{namespace=\"bots\",rosey_monitor=\"rosey\",environment=\"prod\",{source}{labels}}}"), "values": values })
}

/// What the firing alert's own series is called, less `container`, `instance` and `job`, which the queries leave out.
fn firing(row: &Row) -> String {
    let Row {
        alert,
        severity,
        component,
        labels,
        ..
    } = row;
    format!(
        "{{alertname=\"{alert}\",component=\"{component}\",environment=\"prod\",namespace=\"bots\",rosey_monitor=\"rosey\",severity=\"{severity}\"{labels}}}"
    )
}

fn case(name: &str, row: &Row, input: &[&str], expectations: &[(u64, bool)]) -> serde_json::Value {
    let query = format!(
        "count without (instance, container, job, alertstate) (ALERTS{{alertname=\"{}\",alertstate=\"firing\"}})",
        row.alert
    );
    // promtool wants them in the order of time.
    let mut expectations = expectations.to_vec();
    expectations.sort_unstable();
    let tests: Vec<_> = expectations
        .iter()
        .map(|(at, fires)| {
            let samples = if *fires {
                vec![json!({ "labels": firing(row), "value": 1 })]
            } else {
                Vec::new()
            };
            json!({ "expr": query, "eval_time": format!("{at}s"), "exp_samples": samples })
        })
        .collect();
    json!({ "name": format!("{} {name}", row.alert), "interval": "15s", "input_series": input.iter().map(|s| series(s)).collect::<Vec<_>>(), "promql_expr_test": tests })
}

/// The path of a command that `make tools` built.
fn tool(name: &str) -> PathBuf {
    let build = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/build");
    let folder = Command::new(build).arg("path").output().unwrap().stdout;
    let command = Path::new(String::from_utf8(folder).unwrap().trim()).join(name);
    assert!(command.exists(), "{} is missing; run: make tools", command.display());
    command
}

/// Runs the cases over the rules of the severity matrix.
fn promtool(cases: &[serde_json::Value]) {
    promtool_with(&planned(&example("s0-rosey.yaml")), cases);
}

fn promtool_with(plan: &Plan, cases: &[serde_json::Value]) {
    let folder = tempfile::tempdir().unwrap();
    let groups = &objects(plan, Kind::PrometheusRule)[0]["spec"];
    std::fs::write(
        folder.path().join("rules.yaml"),
        serde_saphyr::to_string(groups).unwrap(),
    )
    .unwrap();
    let tests = json!({ "rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": cases });
    std::fs::write(
        folder.path().join("tests.yaml"),
        serde_saphyr::to_string(&tests).unwrap(),
    )
    .unwrap();
    let output = Command::new(tool("promtool"))
        .args(["test", "rules", "tests.yaml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    let _ = write!(said, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

#[test]
fn every_alert_fires_at_its_time_and_not_a_step_before() {
    assert_eq!(TABLE.len(), 15);
    let cases: Vec<_> = TABLE
        .iter()
        .map(|row| {
            let at = BEGIN + row.fires_after;
            case(
                "fires",
                row,
                row.bad,
                &[(BEGIN - STEP, false), (at - STEP, false), (at, true)],
            )
        })
        .collect();
    promtool(&cases);
}

#[test]
fn no_alert_fires_at_its_threshold() {
    let cases: Vec<_> = TABLE
        .iter()
        .map(|row| {
            // Where a window must not see the event for ever, it sees it at once or never.
            let times = [BEGIN, BEGIN + STEP, BEGIN + row.fires_after, 1185];
            case("at its threshold", row, row.fine, &times.map(|at| (at, false)))
        })
        .collect();
    promtool(&cases);
}

/// The series with its last values until `at`, and then its end.
fn ending_after(series: &str, at: u64) -> String {
    let (start, last) = series.rsplit_once(' ').unwrap();
    let (value, _) = last.rsplit_once('x').unwrap();
    // `1x4` is five values; what came before takes 21 steps.
    let steps = if start.contains(' ') {
        (at - BEGIN) / STEP
    } else {
        at / STEP
    };
    format!("{start} {value}x{steps} stale")
}

#[test]
fn no_alert_but_bot_down_speaks_of_what_is_gone_and_none_of_what_never_was() {
    let mut cases = Vec::new();
    for row in TABLE {
        cases.push(case("never was", row, &[], &[(1185, false)]));
        if row.alert != "BotDown" {
            // It holds until the alert fires, and then all series end: so does the alert, once its window has passed.
            let at = BEGIN + row.fires_after;
            let gone: Vec<String> = row.bad.iter().map(|series| ending_after(series, at)).collect();
            let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
            let later = at + row.lasts + 2 * STEP;
            cases.push(case(
                "its subject gone",
                row,
                &gone,
                &[(at - STEP, false), (at, true), (later, false)],
            ));
        }
    }
    promtool(&cases);
}

#[test]
fn a_bot_is_down_when_it_does_not_answer_or_its_exporter_does_not() {
    let row = &TABLE[0];
    let at = BEGIN + 120;
    promtool(&[
        case(
            "exporter gone",
            row,
            &["up 1x20 0x60", "rosey_bot_up 1x20 stale"],
            &[(at - STEP, false), (at, true)],
        ),
        case(
            "replaced in time",
            row,
            &["up 1x20 0x6 stale", "rosey_bot_up 1x20 stale"],
            &[(at, false), (at + 60, false)],
        ),
    ]);
}

#[test]
fn a_bot_whose_pods_are_all_gone_is_down_without_a_pod_for_longer_than_a_day() {
    let without_pod = Row { labels: "", ..TABLE[0] };
    let case = case(
        "all pods gone",
        &without_pod,
        &["up 1x20 stale"],
        &[(BEGIN + 120, true), (2 * 86_400, true)],
    );
    promtool(&[case]);
}

#[test]
fn the_first_backup_that_is_missing_is_told() {
    let row = row("NoRecentBackup");
    promtool(&[case(
        "none at all",
        row,
        &["rosey_backup_count 3x20 0x60"],
        &[(BEGIN - STEP, false), (BEGIN, true)],
    )]);
}

#[test]
fn an_error_type_that_is_seen_for_the_first_time_counts_unless_nobody_looked_before() {
    let row = row("CriticalError");
    let new = "rosey_bot_error_count_total{error_type=\"critical\"} _x21 1x60";
    let read = "rosey_exporter_source_up{source=\"metrics\"} 1x80";
    let back = BEGIN + 261 * STEP;
    promtool(&[
        case(
            "first of its kind",
            row,
            &[new, read],
            &[(BEGIN - STEP, false), (BEGIN, true), (BEGIN + 300, false)],
        ),
        case(
            "bot restarted",
            row,
            &[
                "rosey_bot_error_count_total{error_type=\"critical\"} 3x19 stale 1x60",
                read,
            ],
            &[(BEGIN - STEP, false), (BEGIN, true), (BEGIN + 300, false)],
        ),
        case(
            "bot was away for minutes and met another",
            row,
            &[
                "rosey_bot_error_count_total{error_type=\"critical\"} 3x19 stale _x40 4x60",
                "rosey_exporter_source_up{source=\"metrics\"} 1x19 0x40 1x60",
            ],
            &[(BEGIN + 39 * STEP, false), (BEGIN + 40 * STEP, true)],
        ),
        case(
            "old when the exporter came",
            row,
            &[new, "rosey_exporter_source_up{source=\"metrics\"} _x21 1x60"],
            &[(BEGIN, false), (BEGIN + 60, false), (BEGIN + 300, false)],
        ),
        case(
            "old when spec.bot.metrics was added to a running bot's monitor",
            row,
            &[
                "rosey_bot_error_count_total{error_type=\"critical\"} _x21 3x60",
                "rosey_exporter_source_up{source=\"metrics\"} _x21 1x60",
                "up 1x80",
            ],
            &[
                (BEGIN, false),
                (BEGIN + 60, false),
                (BEGIN + 75, false),
                (BEGIN + 300, false),
            ],
        ),
        case(
            "old when the bot's metrics came back after more than an hour",
            row,
            &[
                "rosey_bot_error_count_total{error_type=\"critical\"} 3x20 stale _x260 3x60",
                "rosey_exporter_source_up{source=\"metrics\"} 1x20 0x260 1x60",
                "up 1x400",
            ],
            &[
                (back, false),
                (back + 60, false),
                (back + 75, false),
                (back + 300, false),
            ],
        ),
    ]);
}

#[test]
fn events_are_counted_over_an_hour_and_told_for_five_minutes() {
    let mut cases = Vec::new();
    for (alert, series) in [
        (
            "MultipleDeploymentFailures",
            "rosey_deployment_total{status=\"failed\"}",
        ),
        ("FrequentRollbacks", "rosey_rollback_total"),
    ] {
        // One at BEGIN, and two more 25 minutes apart, or 35.
        let within = format!("{series} 0x20 1x99 2x99 3x300");
        let (third, hour) = (BEGIN + 200 * STEP, BEGIN + 3600);
        cases.push(case(
            "three in 50 minutes",
            row(alert),
            &[&within],
            &[
                (third - STEP, false),
                (third, true),
                (hour - 2 * STEP, true),
                (hour + STEP, false),
            ],
        ));
        let beyond = format!("{series} 0x20 1x139 2x139 3x300");
        let third = BEGIN + 280 * STEP;
        cases.push(case(
            "three in 70 minutes",
            row(alert),
            &[&beyond],
            &[third - STEP, third, third + STEP, third + 600].map(|at| (at, false)),
        ));
    }
    for (alert, series) in [
        ("DeploymentFailed", "rosey_deployment_total{status=\"failed\"}"),
        ("RollbackOccurred", "rosey_rollback_total"),
    ] {
        let once = format!("{series} 0x20 1x80");
        cases.push(case(
            "told for five minutes",
            row(alert),
            &[&once],
            &[
                (BEGIN, true),
                (BEGIN + 300 - 2 * STEP, true),
                (BEGIN + 300 + STEP, false),
            ],
        ));
    }
    promtool(&cases);
}

#[test]
fn errors_of_all_types_are_added_up() {
    let slow = |kind: &str| format!("rosey_bot_error_count_total{{error_type=\"{kind}\"}} 0x20 0.9+0.9x80");
    let (one, other) = (slow("timeout"), slow("connection"));
    let row = row("HighErrorRate");
    promtool(&[
        case(
            "two types",
            row,
            &[&one, &other],
            &[(BEGIN, false), (BEGIN + 600, true)],
        ),
        case("one type", row, &[&one], &[(BEGIN + 600, false), (1185, false)]),
    ]);
}

#[test]
fn what_can_not_be_read_for_minutes_is_told_and_a_single_failure_is_not() {
    let unreadable = |source: &str| format!("rosey_exporter_source_up{{source=\"{source}\"}} 1x20 0x60");
    let once = |source: &str| format!("rosey_exporter_source_up{{source=\"{source}\"}} 1x20 0 1x60");
    let new = |source: &str| format!("rosey_exporter_source_up{{source=\"{source}\"}} _x21 0 1x60");
    let disk = Row {
        labels: POD,
        ..*row("DiskSpaceLow")
    };
    let mut cases = Vec::new();
    for (row, source, after) in [(row("NoRecentBackup"), "backups", 300), (&disk, "disk", 600)] {
        let at = BEGIN + after;
        cases.push(case(
            "can't be read",
            row,
            &[&unreadable(source)],
            &[(BEGIN, false), (at - STEP, false), (at, true)],
        ));
        for series in [once(source), new(source)] {
            cases.push(case(
                "failed once",
                row,
                &[&series],
                &[BEGIN, BEGIN + 300, BEGIN + 315, at, at + STEP].map(|at| (at, false)),
            ));
        }
    }
    promtool(&cases);
}

#[test]
fn deployments_are_counted_across_restarts_of_the_operator() {
    let row = row("MultipleDeploymentFailures");
    let made_anew = "rosey_deployment_total{status=\"failed\"} 9x20 0x60";
    promtool(&[case(
        "monitor made anew",
        row,
        &[made_anew],
        &[(BEGIN, false), (BEGIN + 60, false)],
    )]);
}
