//! The operator's command where there is no cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

/// The operator, with an API server that refuses connections, and a log of everything.
fn operator(format: &str, stderr: Stdio) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = r"{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
        users: [{name: u, user: {}}], clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}";
    std::fs::write(&kubeconfig, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_rosey-operator"))
        .args([
            "--no-injection",
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "trace",
            "--log-format",
            format,
        ])
        .env("KUBECONFIG", kubeconfig)
        .stderr(stderr)
        .output()
        .unwrap()
}

#[test]
fn a_log_that_can_not_be_written_ends_nothing() {
    for format in ["human", "json"] {
        let output = operator(format, Stdio::piped());
        assert_eq!(output.status.code(), Some(1));
        let log = String::from_utf8_lossy(&output.stderr);
        let before = log.split("the API server does not answer").next().unwrap();
        assert!(before.contains("TRACE"), "nothing is logged before the end: {log}");

        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        // A panic is 101.
        assert_eq!(operator(format, full.into()).status.code(), Some(1), "{format}");
    }
}
