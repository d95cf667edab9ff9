//! The operator's own alerts: each fires when it should and not otherwise, and has a page that says what to do. The dashboard asks
//! for series that there are.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use chart::{CHART, file, lab_tool, said, text};
use serde_json::{Value, json};

use crate::{object, objects};

const JOB: &str = r#"job="rosey-system/rosey-operator""#;

/// An alert, a series with the values of each minute, and others with which it is silent. `J` stands for the job.
type Row = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str)],
);

const ROWS: &[Row] = &[
    ("RoseyOperatorDown", &[("up{J}", "0x200")], &[("up{J}", "1x200")]),
    (
        "RoseyOperatorNoLeader",
        &[
            ("rosey_operator_leader{J,pod=\"a\"}", "0x200"),
            ("rosey_operator_leader{J,pod=\"b\"}", "0x200"),
        ],
        &[
            ("rosey_operator_leader{J,pod=\"a\"}", "0x200"),
            ("rosey_operator_leader{J,pod=\"b\"}", "1x200"),
        ],
    ),
    (
        "RoseyOperatorReconcileErrors",
        &[("rosey_operator_reconciles_total{J,outcome=\"error\"}", "0+1x200")],
        &[
            ("rosey_operator_reconciles_total{J,outcome=\"error\"}", "7x200"),
            ("rosey_operator_reconciles_total{J,outcome=\"success\"}", "0+9x200"),
        ],
    ),
    (
        "RoseyOperatorWatchErrors",
        &[("rosey_operator_errors_total{J,category=\"watch\"}", "0+1x200")],
        &[
            ("rosey_operator_errors_total{J,category=\"watch\"}", "1x200"),
            ("rosey_operator_errors_total{J,category=\"other\"}", "0+1x200"),
        ],
    ),
    (
        "RoseyMonitorNotReady",
        &[(
            "rosey_operator_monitors{J,condition=\"Ready\",status=\"False\"}",
            "2x200",
        )],
        &[
            (
                "rosey_operator_monitors{J,condition=\"Ready\",status=\"False\"}",
                "0x200",
            ),
            (
                "rosey_operator_monitors{J,condition=\"Ready\",status=\"True\"}",
                "2x200",
            ),
        ],
    ),
    (
        "RoseyMonitorNotSelected",
        &[(
            "rosey_operator_monitors{J,condition=\"Selected\",status=\"False\"}",
            "1x200",
        )],
        &[(
            "rosey_operator_monitors{J,condition=\"Selected\",status=\"Unknown\"}",
            "1x200",
        )],
    ),
    (
        "RoseyExportersMissing",
        &[("rosey_operator_pods{J,state=\"missing\"}", "1x200")],
        &[
            ("rosey_operator_pods{J,state=\"missing\"}", "0x200"),
            ("rosey_operator_pods{J,state=\"outdated\"}", "3x200"),
        ],
    ),
    (
        "RoseyInjectorErrors",
        &[(
            "rosey_injector_requests_total{J,webhook=\"inject\",outcome=\"error\"}",
            "0+1x200",
        )],
        &[(
            "rosey_injector_requests_total{J,webhook=\"inject\",outcome=\"injected\"}",
            "0+1x200",
        )],
    ),
    (
        "RoseyInjectorCertificateExpiring",
        &[("rosey_injector_certificate_expiry_timestamp_seconds{J}", "500000x200")],
        // Before there is one it is 0.
        &[
            (
                "rosey_injector_certificate_expiry_timestamp_seconds{J,pod=\"a\"}",
                "900000x200",
            ),
            (
                "rosey_injector_certificate_expiry_timestamp_seconds{J,pod=\"b\"}",
                "0x200",
            ),
        ],
    ),
    (
        "RoseyReceiversNearLimit",
        &[("rosey_operator_receivers{J}", "10001x200")],
        &[("rosey_operator_receivers{J}", "10000x200")],
    ),
];

/// The groups of rules, as Prometheus reads them.
fn groups() -> Result<Value> {
    let objects = objects(None, &[])?;
    Ok(json!({"groups": object(&objects, "PrometheusRule", "rosey-operator")["spec"]["groups"]}))
}

fn alerts(groups: &Value) -> Vec<String> {
    let rules = groups["groups"][0]["rules"].as_array().unwrap().iter();
    rules.map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_alert_fires_when_it_should_and_is_silent_otherwise() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let groups = groups()?;
    std::fs::write(folder.path().join("rules.json"), groups.to_string())?;
    let rows: Vec<_> = ROWS.iter().map(|row| row.0).collect();
    assert_eq!(alerts(&groups), rows, "every alert has a row, in the same order");
    let mut tests = Vec::new();
    for (alert, firing, silent) in ROWS {
        for (series, fires) in [(firing, true), (silent, false)] {
            let input: Vec<_> = series
                .iter()
                .map(|(series, values)| json!({"series": series.replace('J', JOB), "values": values}))
                .collect();
            // Rather than repeat an alert's words, ask for the series that Prometheus keeps of it.
            let expr = format!("count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}) or vector(0)");
            let expected = json!([{"labels": "{}", "value": u8::from(fires)}]);
            tests.push(json!({
                "name": format!("{alert} fires: {fires}"), "interval": "1m", "input_series": input,
                "promql_expr_test": [{"expr": expr, "eval_time": "2h", "exp_samples": expected}],
            }));
        }
    }
    let tests = json!({"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": tests});
    std::fs::write(folder.path().join("tests.json"), tests.to_string())?;
    said(
        lab_tool("promtool")?
            .args(["check", "rules", "--lint=all", "--lint-fatal", "rules.json"])
            .current_dir(&folder),
    )?;
    said(
        lab_tool("promtool")?
            .args(["test", "rules", "tests.json"])
            .current_dir(&folder),
    )?;
    Ok(())
}

#[test]
fn every_alert_has_a_page_and_every_page_an_alert() -> Result<()> {
    let mut alerts = alerts(&groups()?);
    alerts.sort();
    let pages = chart::files("docs/runbooks/operator", ".md")?;
    let names: Vec<_> = pages
        .iter()
        .map(|page| {
            page.rsplit('/')
                .next()
                .unwrap_or_default()
                .trim_end_matches(".md")
                .to_owned()
        })
        .collect();
    assert_eq!(names, alerts);
    for (page, name) in pages.iter().zip(names) {
        let page = text(page)?;
        ensure!(
            page.starts_with(&format!("# {name}\n")),
            "the page of {name} has another title"
        );
        for part in ["## Meaning", "## Likely causes", "## Diagnosis", "## Mitigation"] {
            ensure!(page.contains(part), "the page of {name} lacks {part}");
        }
    }
    let objects = objects(
        None,
        &[
            "--set",
            "prometheusRule.runbookURL=https://runbooks.example.org/{alert}",
        ],
    )?;
    let rule = &object(&objects, "PrometheusRule", "rosey-operator")["spec"]["groups"][0]["rules"][0];
    assert_eq!(
        rule["annotations"]["runbook_url"],
        "https://runbooks.example.org/RoseyOperatorDown"
    );
    Ok(())
}

/// The words of an expression that are names of series of ours.
fn series(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("rosey_") && *word != "rosey_monitor")
}

#[test]
fn alerts_and_dashboard_ask_for_series_that_the_operator_has() -> Result<()> {
    let dashboard: Value = serde_json::from_str(&text(&format!("{CHART}/files/dashboard.json"))?)?;
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().context("no targets")? {
            expressions.push(target["expr"].as_str().context("no expression")?.to_owned());
        }
    }
    // Prometheus reads every one of them.
    let rules: Vec<_> = expressions
        .iter()
        .enumerate()
        .map(|(number, expr)| json!({"record": format!("panel:{number}"), "expr": expr.replace("$__rate_interval", "5m")}))
        .collect();
    let folder = tempfile::tempdir()?;
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(folder.path().join("rules.json"), rules.to_string())?;
    said(
        lab_tool("promtool")?
            .args(["check", "rules", "rules.json"])
            .current_dir(&folder),
    )?;

    let groups = groups()?;
    let rules = groups["groups"][0]["rules"].as_array().context("no rules")?;
    expressions.extend(rules.iter().filter_map(|rule| rule["expr"].as_str().map(str::to_owned)));
    let sources = said(
        std::process::Command::new("cat").args(
            [
                "src/operator/metrics.rs",
                "src/operator/metrics/fleet.rs",
                "src/operator/injector/metrics.rs",
            ]
            .map(file),
        ),
    )?;
    let mut asked = BTreeSet::new();
    for name in expressions.iter().flat_map(|expression| series(expression)) {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        ensure!(
            sources.contains(&format!("\"{family}\"")),
            "the operator has no series {name}"
        );
        asked.insert(family);
    }
    ensure!(asked.len() > 8, "only {asked:?} are asked for");
    Ok(())
}
