//! What the documents promise is held: every alert has a runbook whose queries and settings work, every condition a paragraph on what to
//! do, and the README's example is part of a file that is tested.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what the checks read is there, or they fail"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use proc_macro2::{TokenStream, TokenTree};
use rosey_monitor::api::RoseyMonitor;
use rosey_monitor::api::status::condition;
use rosey_monitor::catalogue;
use rosey_monitor::plan::{Kind, Plan, Platform, plan};
use serde_json::{Value, json};

fn read(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of a document that are marked as `language`.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let blocks = text.split(&opening).skip(1);
    blocks
        .map(|rest| rest.split_once("```").expect("a block ends").0.to_owned())
        .collect()
}

/// The fullest example, with other overrides; `None` leaves its own.
fn planned(overrides: Option<&Value>) -> Plan {
    let mut monitor: Value = serde_saphyr::from_str(&read("examples/s0-rosey.yaml")).unwrap();
    if let Some(overrides) = overrides {
        monitor["spec"]["alerts"]["overrides"] = overrides.clone();
    }
    let monitor: RoseyMonitor = serde_json::from_value(monitor).unwrap();
    plan(&monitor, &Platform::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The rules of one alert, of all groups.
fn rules(plan: &Plan, alert: &str) -> Vec<Value> {
    let rule = plan
        .objects
        .iter()
        .find(|object| object.kind == Kind::PrometheusRule)
        .unwrap();
    let groups = rule.json["spec"]["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules.filter(|rule| rule["alert"] == alert).cloned().collect()
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let mut alerts: Vec<_> = catalogue::alerts().map(|alert| format!("{}.md", alert.name)).collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    // The folder `operator` is for alerts on the operator itself, which the chart has.
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().unwrap().is_file());
    let mut files: Vec<_> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
    alerts.sort();
    files.sort();
    assert_eq!(files, alerts);
    for alert in catalogue::alerts() {
        let runbook = read(&format!("docs/runbooks/{}.md", alert.name));
        assert_eq!(runbook.lines().next(), Some(format!("# {}", alert.name).as_str()));
    }
}

#[test]
fn every_query_of_a_runbook_is_promql_over_series_of_the_monitor() {
    for alert in catalogue::alerts() {
        let queries = blocks(&read(&format!("docs/runbooks/{}.md", alert.name)), "promql");
        assert!(!queries.is_empty(), "{} has no query", alert.name);
        for query in queries {
            promql_parser::parser::parse(&query).unwrap_or_else(|error| panic!("{}: {error}: {query}", alert.name));
            for name in query
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .filter(|word| word.starts_with("rosey_"))
            {
                let known = name == "rosey_monitor" || catalogue::metrics::ALL.iter().any(|metric| metric.name == name);
                assert!(known, "{}: {name} is no series of the catalogue", alert.name);
            }
        }
    }
}

#[test]
fn every_override_of_a_runbook_is_accepted_and_changes_its_alert() {
    let before = planned(None);
    for alert in catalogue::alerts() {
        let blocks = blocks(&read(&format!("docs/runbooks/{}.md", alert.name)), "yaml");
        let [block] = blocks.as_slice() else {
            panic!("{} has {} blocks of YAML", alert.name, blocks.len())
        };
        let shown: Value = serde_saphyr::from_str(block).unwrap();
        let overrides = &shown["spec"]["alerts"]["overrides"];
        assert_eq!(overrides[0]["alert"], json!(alert.name));
        let after = planned(Some(overrides));
        assert!(!rules(&after, alert.name).is_empty(), "{} is gone", alert.name);
        assert_ne!(
            rules(&before, alert.name),
            rules(&after, alert.name),
            "the override of {} changes nothing",
            alert.name
        );
    }
}

/// What stands below a heading of the second level: the headings of the third.
fn headings<'a>(document: &'a str, section: &str) -> BTreeSet<&'a str> {
    let below = document
        .split("\n## ")
        .find(|part| part.lines().next() == Some(section));
    let below = below.unwrap_or_else(|| panic!("there is no section {section}"));
    below.lines().filter_map(|line| line.strip_prefix("### ")).collect()
}

/// The texts of a source that look like a condition's reason.
fn reasons(file: &str) -> BTreeSet<String> {
    let source = read(file);
    let source = source.split("#[cfg(test)]").next().unwrap();
    let tokens: TokenStream = source.parse().unwrap();
    let mut found = BTreeSet::new();
    collect(tokens, &mut found);
    // The other words of one capital letter or more.
    for other in [
        "True",
        "False",
        "Unknown",
        "Prometheus",
        "Alertmanager",
        "Exists",
        "DoesNotExist",
        "NotIn",
    ] {
        found.remove(other);
    }
    found
}

fn collect(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect(group.stream(), found),
            TokenTree::Literal(literal) => {
                let literal = literal.to_string();
                let text = literal.trim_matches('"');
                let word = text.starts_with(|c: char| c.is_ascii_uppercase())
                    && text.chars().all(|c| c.is_ascii_alphanumeric());
                if word && text.len() < literal.len() {
                    found.insert(text.to_owned());
                }
            }
            _ => {}
        }
    }
}

#[test]
fn every_condition_and_reason_has_a_paragraph_on_what_to_do() {
    let document = read("docs/troubleshooting.md");
    let conditions = [
        condition::READY,
        condition::VALID,
        condition::STALLED,
        condition::INJECTED,
        condition::SELECTED,
    ];
    let sections: Vec<_> = document.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, conditions);
    let told = |sections: &[&str]| -> BTreeSet<_> {
        let sections = sections.iter();
        sections.flat_map(|section| headings(&document, section)).collect()
    };
    let mut all = BTreeSet::new();
    for (file, sections) in [
        ("src/operator/status.rs", &[condition::READY, condition::VALID][..]),
        ("src/operator/sidecars/condition.rs", &[condition::INJECTED]),
        ("src/operator/selection.rs", &[condition::SELECTED, condition::READY]),
    ] {
        let reasons = reasons(file);
        assert!(reasons.len() > 5, "{file}: only {reasons:?} were found");
        for reason in &reasons {
            assert!(
                told(sections).contains(reason.as_str()),
                "docs/troubleshooting.md has no paragraph for {reason} of {file}"
            );
        }
        all.extend(reasons);
    }
    for heading in told(&conditions) {
        assert!(
            all.contains(heading),
            "{heading} in docs/troubleshooting.md is no reason"
        );
    }
}

#[test]
fn the_example_of_the_readme_is_part_of_the_tested_one() {
    let readme = blocks(&read("README.md"), "yaml");
    let example = read("examples/rosey.yaml");
    assert!(!readme.is_empty(), "README.md has no example");
    for block in readme {
        assert!(
            example.contains(&block),
            "this part of README.md is not in examples/rosey.yaml:\n{block}"
        );
    }
}

#[test]
fn the_first_monitors_of_the_chart_are_planned_without_a_warning() {
    let chart: Value = serde_saphyr::from_str(&read("charts/rosey-monitor/Chart.yaml")).unwrap();
    let examples = chart["annotations"]["artifacthub.io/crdsExamples"].as_str().unwrap();
    let mut monitors: Vec<RoseyMonitor> = serde_saphyr::from_str(examples).unwrap();
    for block in blocks(&read("charts/rosey-monitor/README.md"), "yaml") {
        monitors.push(serde_saphyr::from_str(&block).unwrap());
    }
    assert!(monitors.len() > 1, "only {} monitors were found", monitors.len());
    for monitor in monitors {
        let plan = plan(&monitor, &Platform::default()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(plan.report.warnings, Vec::<String>::new());
    }
}

#[test]
fn the_plain_manifests_start_the_operator_by_flags_that_it_has_with_the_images_of_this_release() {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read("deploy/install.yaml")).unwrap();
    let deployment = documents
        .iter()
        .find(|document| document["kind"] == "Deployment")
        .unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let arguments: Vec<_> = container["args"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let help = Command::new(env!("CARGO_BIN_EXE_rosey-operator"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for argument in &arguments {
        let flag = argument.split('=').next().unwrap();
        assert!(
            help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
            "{flag} is no flag"
        );
    }
    let given = |flag: &str| {
        arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(flag))
            .unwrap()
    };
    let platform = Platform::default();
    assert_eq!(given("--exporter-image="), platform.exporter_image);
    assert_eq!(
        given("--exporter-image-prefixes="),
        platform.exporter_image_prefixes.join(",")
    );
    assert_eq!(
        container["image"].as_str().unwrap(),
        platform.exporter_image.replace("rosey-exporter", "rosey-operator")
    );
}

#[test]
fn every_file_that_the_documents_link_to_is_there() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![
        root.join("README.md"),
        root.join("CONTRIBUTING.md"),
        root.join("SECURITY.md"),
        root.join("CHANGELOG.md"),
        root.join("charts/rosey-monitor/README.md"),
        root.join("docs/exporter.md"),
        root.join("docs/gitops.md"),
        root.join("docs/install.md"),
        root.join("docs/plain-host.md"),
        root.join("docs/security.md"),
        root.join("docs/troubleshooting.md"),
        root.join("docs/upgrade.md"),
    ];
    for folder in ["docs/decisions", "docs/runbooks"] {
        documents.extend(
            fs::read_dir(root.join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_file()),
        );
    }
    let mut links = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap_or_else(|error| panic!("{}: {error}", document.display()));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !link.contains("://") && !file.is_empty() {
                links += 1;
                assert!(
                    document.parent().unwrap().join(file).exists(),
                    "{} links to {file}, which is not there",
                    document.display()
                );
            }
        }
    }
    assert!(links > 10, "only {links} links were found");
}

#[test]
fn every_path_that_the_documents_name_is_there() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut rooms: Vec<String> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    rooms.retain(|name| !name.starts_with('.') && root.join(name).is_dir() && name != "target");
    let mut named = 0;
    for document in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/exporter.md",
        "docs/gitops.md",
        "docs/install.md",
        "docs/plain-host.md",
        "docs/security.md",
        "docs/troubleshooting.md",
        "docs/upgrade.md",
        "tests/lab/README.md",
    ] {
        for word in read(document).split(|c: char| c.is_whitespace() || "`\"'()[],;:|<>{}".contains(c)) {
            let path = word.trim_end_matches(['.', '/']);
            // A pattern, such as monitors/*.yaml, names no file of ours.
            let is_path = path.contains('/') && rooms.iter().any(|room| path.starts_with(&format!("{room}/")));
            if is_path && !path.contains(['*', '…', '$']) {
                named += 1;
                assert!(root.join(path).exists(), "{document} names {path}, which is not there");
            }
        }
    }
    assert!(named > 30, "only {named} paths were found");
}
