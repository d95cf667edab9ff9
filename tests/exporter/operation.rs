//! How the exporter is configured, told of deployments, and ended.

use std::net::TcpListener;

use super::processes::{Exporter, FakeBot, PATIENCE, Process, eventually, listening, request};

#[test]
fn the_configuration_may_come_late_change_and_break() {
    let bot = FakeBot::start(&[]);
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("etc/rosey");
    std::fs::create_dir_all(&folder).unwrap();
    let variables = [
        ("ROSEY_LISTEN", "127.0.0.1"),
        ("ROSEY_ROOTFS", root.path().to_str().unwrap()),
    ];
    let exporter = Exporter::start(&["--config", "/etc/rosey/exporter.yaml"], &variables);
    let reloaded = "rosey_exporter_config_last_reload_successful";

    let ready = exporter.get("/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("exporter.yaml: is not there"), "{}", ready.body);
    assert_eq!(exporter.scrape().value(reloaded), Some(0.0));

    // As a mounted ConfigMap: the file is a link into a folder that is swapped.
    let publish = |version: &str, text: &str| {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("exporter.yaml"), text).unwrap();
        std::os::unix::fs::symlink(version, folder.join("next")).unwrap();
        std::fs::rename(folder.join("next"), folder.join("..data")).unwrap();
        exporter.look_again();
    };
    std::os::unix::fs::symlink("..data/exporter.yaml", folder.join("exporter.yaml")).unwrap();
    publish("one", &format!("health: {{port: {}, path: /api/health}}", bot.port));
    let page = exporter.scrape();
    assert_eq!(
        (page.value("rosey_bot_up"), page.value(reloaded)),
        (Some(1.0), Some(1.0))
    );
    assert_eq!(exporter.get("/ready").status, 200);

    std::fs::create_dir(root.path().join("data")).unwrap();
    publish(
        "two",
        &format!(
            "health: {{port: {}, path: /api/health}}\ndisk: [{{label: 'data:/', path: /data}}]",
            bot.port
        ),
    );
    let page = exporter.scrape();
    assert!(
        page.value("rosey_disk_size_bytes{path=\"data:/\"}").unwrap() > 0.0,
        "{}",
        page.0
    );

    publish("three", "health: {port: 1, path: /x}\nnonsense: true");
    let page = exporter.scrape();
    assert_eq!(
        (page.value("rosey_bot_up"), page.value(reloaded)),
        (Some(1.0), Some(0.0))
    );
    let health: serde_json::Value = serde_json::from_str(&exporter.get("/health").body).unwrap();
    assert_eq!(health["status"], "degraded");
    assert!(
        health["configuration"].as_str().unwrap().contains("nonsense"),
        "{health}"
    );

    publish("four", "environment: test");
    let page = exporter.scrape();
    assert_eq!((page.value("rosey_bot_up"), page.value(reloaded)), (None, Some(1.0)));
}

/// A port of `host` that was free a moment ago.
fn free_port(host: &str) -> u16 {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn the_port_follows_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exporter.yaml");
    let host = "127.0.0.1";
    let configure = |port| std::fs::write(&file, format!("port: {port}")).unwrap();
    configure(free_port(host));
    let arguments = ["--listen", host, "--config", file.to_str().unwrap()];
    let process = Process::start(env!("CARGO_BIN_EXE_rosey-exporter"), &arguments, &[]);
    process.line_with("listen");
    for _ in 0..2 {
        // Another process may be faster at a port; then the next one is tried, which is a change of configuration too.
        let address = (0..10).find_map(|_| {
            let port = free_port(host);
            configure(port);
            let address = format!("{host}:{port}");
            process.line_with("listen").ends_with(&address).then_some(address)
        });
        assert_eq!(request(&address.unwrap(), "GET", "/ready", &[], "").status, 200);
    }
}

#[test]
fn a_busy_port_is_tried_until_it_is_free() {
    // Connections that go out come from 127.0.0.1 and take ports there: on this address nobody is faster.
    let host = format!("127.201.{}.{}", std::process::id() >> 8 & 255, std::process::id() & 255);
    let busy = TcpListener::bind((host.as_str(), 0)).unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let port = busy.local_addr().unwrap().port().to_string();
    let variables = [("METRICS_PORT", port.as_str()), ("ROSEY_LISTEN", host.as_str())];
    let process = Process::start(env!("CARGO_BIN_EXE_rosey-exporter"), &[], &variables);
    process.line_with("can't listen");
    drop(busy);
    assert_eq!(listening(&process), address);
    assert_eq!(request(&address, "GET", "/health", &[], "").status, 200);
}

#[test]
fn a_log_that_can_not_be_written_ends_nothing() {
    let host = format!("127.202.{}.{}", std::process::id() >> 8 & 255, std::process::id() & 255);
    let port = free_port(&host).to_string();
    let silenced = "exec \"$0\" \"$@\" 2>/dev/full";
    let exporter = env!("CARGO_BIN_EXE_rosey-exporter");
    let arguments = ["-c", silenced, exporter, "--listen", &host, "--port", &port];
    let _process = Process::start("/bin/sh", &arguments, &[]);
    let address = format!("{host}:{port}");
    eventually("it listens", || std::net::TcpStream::connect(&address).ok());
    // The bot that is not there is one more thing to log.
    for _ in 0..2 {
        assert_eq!(request(&address, "GET", "/metrics", &[], "").status, 200);
    }
}

#[test]
fn deployments_and_rollbacks_are_recorded() {
    let exporter = Exporter::start(&["--health-port", "1"], &[("ENVIRONMENT", "prod")]);
    let form = "application/x-www-form-urlencoded";
    let post = |path, kind, body| exporter.post(path, kind, body).status;
    assert_eq!(
        post(
            "/record_deployment",
            form,
            "environment=prod&status=success&duration=42"
        ),
        200
    );
    assert_eq!(
        post(
            "/record_deployment",
            "application/json",
            r#"{"status": "failed", "duration": 7.5}"#
        ),
        200
    );
    assert_eq!(post("/record_rollback", form, "environment=prod&duration=3"), 200);

    let refused = exporter.post("/record_deployment", form, "environment=test&status=failed&duration=1");
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.contains("\"test\" is not the environment"),
        "{}",
        refused.body
    );
    assert_eq!(post("/record_deployment", form, "status=failed"), 400);
    assert_eq!(post("/record_deployment", form, "status=soso&duration=1"), 400);
    assert_eq!(
        post("/record_deployment", "text/plain", "status=failed&duration=1"),
        415
    );
    assert_eq!(post("/record_rollback", form, &"x".repeat(10_000)), 413);
    assert_eq!(exporter.get("/record_deployment").status, 405);

    let page = exporter.scrape();
    for (series, value) in [
        ("rosey_deployment_total{status=\"success\",environment=\"prod\"}", 1.0),
        ("rosey_deployment_total{status=\"failed\",environment=\"prod\"}", 1.0),
        ("rosey_deployment_duration_seconds_sum{environment=\"prod\"}", 49.5),
        (
            "rosey_deployment_duration_seconds_bucket{le=\"15\",environment=\"prod\"}",
            1.0,
        ),
        ("rosey_rollback_total{environment=\"prod\"}", 1.0),
        ("rosey_rollback_duration_seconds_count{environment=\"prod\"}", 1.0),
    ] {
        assert_eq!(page.value(series), Some(value), "{series} in\n{}", page.0);
    }
    assert!(
        page.value("rosey_deployment_last_success_timestamp{environment=\"prod\"}")
            .unwrap()
            > 1.7e9
    );
    page.is_accepted_by_promtool();
}

#[test]
fn in_a_cluster_deployments_are_not_taken() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "port: 9100").unwrap();
    let exporter = Exporter::start(&["--config", file.path().to_str().unwrap()], &[]);
    let refused = exporter.post("/record_rollback", "application/json", r#"{"duration": 1}"#);
    assert_eq!(refused.status, 404);
    assert!(refused.body.contains("kubectl rosey record"), "{}", refused.body);
    assert!(exporter.scrape().series("rosey_rollback").is_empty());
}

#[test]
fn the_pages_of_the_exporter_are_there() {
    let exporter = Exporter::start(&["--health-port", "1"], &[]);
    let landing = exporter.get("/");
    assert_eq!(landing.status, 200);
    assert!(landing.body.contains("href=\"/metrics\""));
    let head = request(&exporter.address, "HEAD", "/metrics", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(
        head.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert_eq!(exporter.get("/elsewhere").status, 404);
    assert_eq!(exporter.post("/metrics", "text/plain", "").status, 405);
}

#[test]
fn it_ends_at_once_when_told_to_even_while_it_waits_for_the_bot() {
    let bot = FakeBot::start(&[]);
    bot.breaks("hanging");
    let port = bot.port.to_string();
    let mut exporter = Exporter::start(&["--health-port", &port, "--timeout", "60"], &[]);
    let address = exporter.address.clone();
    let scrape = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        std::io::Read::read(&mut stream, &mut [0; 16]).unwrap_or_default()
    });
    eventually("the bot is asked", || (bot.health_reads() > 0).then_some(()));
    assert!(exporter.process.terminate() < PATIENCE);
    assert_eq!(scrape.join().unwrap(), 0);
}

#[test]
fn flags_that_describe_nothing_leave_it_up_and_explaining() {
    let exporter = Exporter::start(
        &["--disk", "data=relative/path"],
        &[("METRICS_PORT", "tcp://10.96.0.7:80")],
    );
    let ready = exporter.get("/ready");
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (503, "disk[0].path: is not an absolute path\n")
    );
    assert_eq!(
        exporter.scrape().value("rosey_exporter_config_last_reload_successful"),
        Some(0.0)
    );
}
