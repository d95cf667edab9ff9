//! The schema of the exporter's configuration file, and the defaults that it shares with the monitor and the flags, as the real
//! binaries print them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::process::Command;

use serde_json::Value;

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env_clear().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn rosey(arguments: &[&str]) -> String {
    said(env!("CARGO_BIN_EXE_kubectl-rosey"), arguments)
}

#[test]
fn the_schema_in_the_repository_is_the_one_of_the_types() {
    let printed = rosey(&["schema"]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/exporter.schema.json");
    let kept = std::fs::read_to_string(file).unwrap();
    assert!(
        kept == printed,
        "{file} is not what `kubectl rosey schema` prints; run: make crds"
    );
}

#[test]
fn a_monitor_the_flags_and_the_file_of_an_exporter_leave_out_the_same() {
    let json = |command: &[&str]| -> Value { serde_json::from_str(&rosey(command)).unwrap() };
    let crd = json(&["crd", "-o", "json"]);
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let monitor = |path: &str| {
        spec.pointer(path)
            .and_then(|field| field.get("default"))
            .unwrap_or(&Value::Null)
    };
    let schema = json(&["schema"]);
    let file = |path: &str| {
        let mut field = &schema;
        for name in path.split('.') {
            let branch = field["anyOf"].get(0).unwrap_or(field);
            field = &branch["properties"][name];
        }
        field["default"].to_string().trim_matches('"').to_owned()
    };
    let help = said(env!("CARGO_BIN_EXE_rosey-exporter"), &["--help"]);
    let flag = |name: &str| {
        let start = help.find(&format!("--{name} <")).unwrap();
        let text = help[start..].split_once("[default: ").unwrap().1;
        text.split(']').next().unwrap().to_owned()
    };
    let seconds = |value: &Value| value.as_str().unwrap().strip_suffix('s').unwrap().to_owned();

    assert_eq!(monitor("/exporter/properties/port"), 9100);
    assert!(help.contains("that of the configuration file, or 9100"));
    assert_eq!(*monitor("/bot/properties/health/properties/path"), *flag("health-path"));
    assert_eq!(
        *monitor("/bot/properties/metrics/properties/path"),
        *flag("metrics-path")
    );
    let timeout = seconds(monitor("/bot/properties/health/properties/timeout"));
    assert_eq!(
        [
            flag("timeout"),
            file("health.timeoutSeconds").trim_end_matches(".0").into()
        ],
        [timeout.clone(), timeout]
    );
    let pattern = monitor("/exporter/properties/backups/properties/pattern")
        .as_str()
        .unwrap();
    assert_eq!([flag("backups-pattern"), file("backups.pattern")], [pattern, pattern]);
    assert_eq!(
        flag("push-interval"),
        file("pushgateway.intervalSeconds").trim_end_matches(".0")
    );
    assert_eq!(flag("push-job"), file("pushgateway.job"));
}
