//! The checks themselves, on made-up sources.

use crate::*;

#[test]
fn an_import_against_the_direction_is_found_wherever_it_stands() {
    for (file, source, line, target) in [
        ("src/plan/rules.rs", "use crate::operator::Apply;", 1, "operator"),
        (
            "src/plan/rules.rs",
            "\nuse crate::{api::Duration, cluster::{Reads}};",
            2,
            "cluster",
        ),
        ("src/plan/rules.rs", "use super::super::cli::render;", 1, "cli"),
        ("src/plan.rs", "use super::exporter;", 1, "exporter"),
        (
            "src/plan.rs",
            "mod tests {\n    use super::super::cli::Cli;\n}",
            2,
            "cli",
        ),
        (
            "src/plan.rs",
            "fn f() -> u8 {\n    crate::exporter::scrape(1)\n}",
            2,
            "exporter",
        ),
        (
            "src/plan.rs",
            "fn f() -> String {\n    format!(\"{}\", crate::cli::NAME)\n}",
            2,
            "cli",
        ),
        ("src/api/alerts.rs", "pub use crate::plan::*;", 1, "plan"),
        ("src/catalogue/metrics.rs", "use super::alert::Alert;", 1, "catalogue"),
        (
            "src/exporter/scrape.rs",
            "use crate::catalogue::{alerts, metrics};",
            1,
            "catalogue",
        ),
        ("src/operator/owned.rs", "use crate::catalogue::Alert;", 1, "catalogue"),
    ] {
        let wrong = wrong_imports(file, source);
        let [wrong] = wrong.as_slice() else {
            panic!("{source}: {wrong:?}")
        };
        assert!(
            wrong.starts_with(&format!("{file}:{line}: ")) && wrong.contains(&format!("may not import {target} (")),
            "{wrong}"
        );
    }
}

#[test]
fn imports_in_the_direction_are_fine_and_so_is_what_only_looks_like_one() {
    for (file, source) in [
        (
            "src/plan/rules.rs",
            "use crate::api::Duration; use super::validate::Valid; use crate::catalogue::metrics::ALL;",
        ),
        (
            "src/plan/rules.rs",
            "// use crate::cli;\n/// See [`crate::operator::apply`].\nconst A: &str = \"crate::operator::apply\";",
        ),
        ("src/catalogue/metrics.rs", "mod tests { use crate::*; }"),
        ("src/catalogue/bot.rs", "use super::{alert::Alert, metrics};"),
        (
            "src/exporter/scrape.rs",
            "use crate::catalogue::metrics::{self, ALL}; use crate::sidecar::Config;",
        ),
        (
            "src/operator/owned.rs",
            "use crate::cluster::Reads; use crate::operator::key::Key;",
        ),
        (
            "src/cli/record.rs",
            "use super::cluster::Cluster; use crate::cli::cluster::chain;",
        ),
        (
            "src/bin/rosey-operator.rs",
            "use rosey_monitor::operator; use crate::flags; fn f() { rosey_monitor::cli::run() }",
        ),
        ("src/lib.rs", "pub mod api; pub use crate::plan::plan;"),
    ] {
        assert_eq!(wrong_imports(file, source), Vec::<String>::new(), "{source}");
    }
}

#[test]
fn a_plan_that_names_a_client_a_clock_or_a_file_is_found() {
    for source in [
        "use kube::{Api, core::ApiResource};",
        "use kube::Client;",
        "fn f() { std::fs::read(\"x\"); }",
        "use std::time::{Duration, SystemTime};",
        "fn f() { let _ = jiff::Timestamp::now(); }",
        "#[tokio::test] async fn f() {}",
    ] {
        let wrong = wrong_imports("src/plan/rules.rs", source);
        assert!(
            wrong.len() == 1 && wrong[0].starts_with("src/plan/rules.rs:1: plan may not name "),
            "{source}: {wrong:?}"
        );
        assert_eq!(wrong_imports("src/operator/owned.rs", source), Vec::<String>::new());
    }
    assert_eq!(
        wrong_imports(
            "src/plan/object.rs",
            "use kube::core::ApiResource; use std::time::Duration;"
        ),
        Vec::<String>::new()
    );
}

#[test]
fn a_room_that_is_not_on_the_map_is_found() {
    assert!(wrong_imports("src/attic.rs", "")[0].contains("attic is no room"));
    assert!(wrong_imports("src/plan.rs", "use crate::attic::Box;")[0].contains("may not import attic"));
}

#[test]
fn a_lint_silenced_without_reason_is_found() {
    let wrong = "#![allow(missing_docs)]\n#[cfg_attr(test, expect(dead_code))]\nfn f() {}\n#[allow(unused)] fn g() {}";
    let lines: Vec<_> = silenced_without_reason("a.rs", wrong)
        .iter()
        .map(|w| w[..7].to_owned())
        .collect();
    assert_eq!(lines, ["a.rs:1:", "a.rs:2:", "a.rs:4:"]);
    let right = "#[allow(unused, reason = \"x\")] fn f() { a.expect(\"b\"); allow(c); }";
    assert_eq!(silenced_without_reason("a.rs", right), Vec::<String>::new());
}

#[test]
fn an_empty_name_and_a_long_file_are_found() {
    for file in ["src/plan/utils.rs", "tests/common/main.rs", "src/rule-helpers.rs"] {
        assert_eq!(empty_names(file, "").len(), 1, "{file}");
    }
    assert_eq!(empty_names("src/a.rs", "struct RuleManager; mod helpers {}").len(), 2);
    assert_eq!(
        empty_names(
            "src/alertmanager.rs",
            "struct Alertmanager; struct Commonly; fn field_manager() {}"
        )
        .len(),
        0
    );
    assert!(too_long("src/a.rs", &"\n".repeat(MAX_LINES)).is_none());
    assert!(too_long("src/a.rs", &"\n".repeat(MAX_LINES + 1)).is_some());
}
