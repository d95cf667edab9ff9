//! What the documents tell the owner of a plain host is so: flags, fields, files and labels.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn run(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rosey-exporter"))
        .args(flags)
        .env_clear()
        .output()
        .unwrap()
}

/// What is there between backticks, quotes and spaces.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "`'\"()[],;".contains(c))
}

#[test]
fn every_flag_and_variable_that_is_written_about_exists() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let known: Vec<_> = words(&help).collect();
    let mut seen = 0;
    for file in [
        "docs/plain-host.md",
        "docs/exporter.md",
        "deploy/systemd/rosey-exporter.service",
    ] {
        let text = read(file);
        // The flags of other commands.
        let lines = text.lines().filter(|line| {
            !["kubectl", "systemctl", "install ", "cargo"]
                .iter()
                .any(|other| line.contains(other))
        });
        for word in lines.flat_map(words) {
            let word = word.strip_prefix("FLAGS=").unwrap_or(word);
            let (flag, variable) = (
                word.split('=').next().unwrap_or_default(),
                word.split_once('=').map(|(name, _)| name),
            );
            let is_variable =
                variable.is_some_and(|name| name.len() > 4 && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
            if (flag.starts_with("--") && flag.len() > 2) || is_variable {
                assert!(
                    known.contains(&flag),
                    "{file} writes of {flag}, which the exporter does not know"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 15, "only {seen} were found");
}

#[test]
fn every_field_of_the_file_is_explained_and_has_its_default() {
    fn fields(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        for branch in schema["anyOf"].as_array().into_iter().flatten() {
            fields(branch, path, found);
        }
        if let Some(items) = schema.get("items") {
            fields(items, &format!("{path}[]"), found);
        }
        let needed = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let default = if needed.contains(&name.as_str().into()) {
                "*".into()
            } else {
                field["default"].clone()
            };
            found.push((path.clone(), default));
            fields(field, &path, found);
        }
    }
    let (page, mut found) = (read("docs/exporter.md"), Vec::new());
    let schema: Value = serde_json::from_str(&read("docs/exporter.schema.json")).unwrap();
    fields(&schema, "", &mut found);
    assert!(found.len() > 25, "{found:?}");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), found.len());
    for (field, default) in found {
        let row = rows
            .iter()
            .find(|row| row.starts_with(&format!("| `{field}` ")))
            .unwrap_or_else(|| panic!("no row of {field}"));
        let written = match &default {
            Value::String(text) if text == "*" => format!("| `{field}` * | | "),
            Value::String(text) => format!("| `{field}` | `{text}` | "),
            Value::Number(number) => format!("| `{field}` | {} | ", number.as_f64().unwrap()),
            _ => continue,
        };
        assert!(row.starts_with(&written), "{row}\n{written}");
    }
}

#[test]
fn the_file_in_the_page_can_be_used_and_says_all_there_is() {
    let page = read("docs/exporter.md");
    let text = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let output = run(&["--check", path]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{path} can be used\n")
    );
    let schema: Value = serde_json::from_str(&read("docs/exporter.schema.json")).unwrap();
    let parts = schema["properties"].as_object().unwrap().keys();
    for part in parts.filter(|part| *part != "port") {
        assert!(text.contains(&format!("\n{part}:")), "{part} is not in the example");
    }

    for (content, problem) in [
        ("health: {port: 0, path: /x}", "health.port: 0 is not a port\n"),
        ("prot: 1", "prot"),
        (
            "pushgateway: {url: 'http://g', labels: {source: x}}",
            "pushgateway.labels.source: is a label",
        ),
    ] {
        std::fs::write(file.path(), content).unwrap();
        let output = run(&["--check", path]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.starts_with(&format!("{path}: ")) && said.contains(problem),
            "{said}"
        );
    }
    assert_eq!(run(&["--check", "/nonexistent"]).status.code(), Some(1));
    assert_eq!(run(&["--check", path, "--port", "1"]).status.code(), Some(2));
}
