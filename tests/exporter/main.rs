//! The exporter beside a bot, as a scraper sees it: both are the real binaries.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]
#![allow(clippy::float_cmp, reason = "the values are written and read back, not computed")]
#![allow(missing_docs, reason = "a test has a name")]

mod processes;

use std::fmt::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use processes::{Exporter, FakeBot, Page, answers_always, eventually, listening, request};

/// An exporter on a plain host, which reads health and metrics of the bot.
fn beside(bot: &FakeBot, more: &[&str]) -> Exporter {
    let port = bot.port.to_string();
    let arguments = [&["--health-port", &port, "--metrics-port", &port], more].concat();
    Exporter::start(&arguments, &[("ENVIRONMENT", "prod")])
}

/// The bot's series that come from its health document.
fn bot_series(page: &Page) -> Vec<String> {
    page.series("rosey_bot_")
        .into_iter()
        .filter(|series| !series.contains("_count_total"))
        .map(|series| series.split('{').next().unwrap().replace("rosey_bot_", ""))
        .collect()
}

#[test]
fn a_healthy_bot_is_seen_whole() {
    let bot = FakeBot::start(&[]);
    bot.set(r#"{"memory_mb": 100, "user_count": 7, "response_time_ms": 40, "requests": 200, "errors": 10}"#);
    let backups = tempfile::tempdir().unwrap();
    std::fs::write(backups.path().join("backup_1"), "").unwrap();
    let exporter = beside(
        &bot,
        &["--disk", "root=/", "--backups", backups.path().to_str().unwrap()],
    );
    let page = exporter.scrape();
    for (series, value) in [
        ("rosey_bot_up{environment=\"prod\"}", 1.0),
        ("rosey_bot_connected{environment=\"prod\"}", 1.0),
        ("rosey_bot_memory_bytes{environment=\"prod\"}", 104_857_600.0),
        ("rosey_bot_response_time_ms{environment=\"prod\"}", 40.0),
        ("rosey_bot_user_count{environment=\"prod\"}", 7.0),
        ("rosey_bot_channel_users{channel=\"rosey\",environment=\"prod\"}", 7.0),
        ("rosey_bot_requests_total{environment=\"prod\"}", 200.0),
        ("rosey_bot_errors_total{environment=\"prod\"}", 10.0),
        ("rosey_bot_error_rate_percent{environment=\"prod\"}", 5.0),
        (
            "rosey_bot_info{version=\"1.0.0\",channel=\"rosey\",environment=\"prod\"}",
            1.0,
        ),
        (
            "rosey_bot_error_count_total{error_type=\"critical\",environment=\"prod\"}",
            0.0,
        ),
        ("rosey_backup_count{environment=\"prod\"}", 1.0),
        ("rosey_deployment_total{status=\"failed\",environment=\"prod\"}", 0.0),
        ("rosey_rollback_total{environment=\"prod\"}", 0.0),
        ("rosey_exporter_source_up{source=\"health\"}", 1.0),
        ("rosey_exporter_source_up{source=\"metrics\"}", 1.0),
        ("rosey_exporter_source_up{source=\"disk\"}", 1.0),
        ("rosey_exporter_source_up{source=\"backups\"}", 1.0),
        ("rosey_exporter_config_last_reload_successful", 1.0),
        ("rosey_exporter_samples_dropped{reason=\"invalid\"}", 0.0),
    ] {
        assert_eq!(page.value(series), Some(value), "{series} in\n{}", page.0);
    }
    assert!(
        page.value("rosey_disk_usage_bytes{path=\"root\",environment=\"prod\"}")
            .unwrap()
            > 0.0
    );
    assert!(page.value("rosey_backup_age_seconds{environment=\"prod\"}").unwrap() < 60.0);
    assert_eq!(page.series("rosey_bot_command_count_total{").len(), 4);
    page.is_accepted_by_promtool();
}

#[test]
fn each_fault_of_the_bot_shows_in_its_own_series_only() {
    let bot = FakeBot::start(&[]);
    let exporter = beside(&bot, &["--disk", "root=/"]);
    let healthy = bot_series(&exporter.scrape());
    let series = |name: &str| format!("rosey_bot_{name}{{environment=\"prod\"}}");
    for (fault, name, value) in [
        ("not-running", "up", 0.0),
        ("not-running", "connected", 0.0),
        ("disconnected", "up", 1.0),
        ("disconnected", "connected", 0.0),
        ("slow", "response_time_ms", 3500.0),
        ("memory-high", "memory_bytes", 900.0 * 1024.0 * 1024.0),
        ("no-users", "user_count", 0.0),
        ("errors", "up", 1.0),
    ] {
        bot.breaks(fault);
        let page = exporter.scrape();
        assert_eq!(page.value(&series(name)), Some(value), "{fault}\n{}", page.0);
        assert_eq!(bot_series(&page), healthy, "{fault}");
        assert_eq!(
            page.value("rosey_exporter_source_up{source=\"health\"}"),
            Some(1.0),
            "{fault}"
        );
    }
    for fault in ["error-500", "garbage", "huge-body", "closed-port", "hanging"] {
        bot.breaks(fault);
        let page = exporter.scrape_within(1.0);
        assert_eq!(bot_series(&page), ["connected", "up"], "{fault}");
        assert_eq!(page.value(&series("up")), Some(0.0), "{fault}");
        assert_eq!(page.value(&series("connected")), Some(0.0), "{fault}");
        for source in ["health", "metrics"] {
            let up = format!("rosey_exporter_source_up{{source=\"{source}\"}}");
            assert_eq!(page.value(&up), Some(0.0), "{fault}\n{}", page.0);
        }
        assert!(page.series("rosey_bot_message_count_total").is_empty(), "{fault}");
        assert_eq!(
            page.value("rosey_exporter_source_up{source=\"disk\"}"),
            Some(1.0),
            "{fault}"
        );
        page.is_accepted_by_promtool();
        let health: serde_json::Value = serde_json::from_str(&exporter.get("/health").body).unwrap();
        assert_eq!(health["status"], "degraded", "{fault}");
        assert_ne!(health["sources"]["health"], "ok", "{fault}");
    }
    bot.recovers();
    assert_eq!(
        bot_series(&eventually("the bot listens", || {
            let page = exporter.scrape();
            (page.value(&series("up")) == Some(1.0)).then_some(page)
        })),
        healthy
    );
    let health: serde_json::Value = serde_json::from_str(&exporter.get("/health").body).unwrap();
    assert_eq!(health["status"], "ok");
}

#[test]
fn errors_of_the_bot_are_passed_through_by_type() {
    let bot = FakeBot::start(&["--shape", "s0"]);
    let exporter = beside(&bot, &[]);
    bot.set(r#"{"fault": "errors", "error_type": "critical", "errors_per_second": 100}"#);
    let critical = "rosey_bot_error_count_total{error_type=\"critical\",environment=\"prod\"}";
    eventually("errors are counted", || {
        exporter.scrape().value(critical).filter(|count| *count > 0.0)
    });
    let page = exporter.scrape();
    assert_eq!(
        page.value("rosey_bot_error_count_total{error_type=\"timeout\",environment=\"prod\"}"),
        Some(0.0)
    );
    assert!(page.series("rosey_bot_errors_total").is_empty());
    assert!(page.series("rosey_bot_info").is_empty());
}

#[test]
fn a_bot_that_hangs_is_down_within_the_deadline_of_the_scrape() {
    let bot = FakeBot::start(&[]);
    let exporter = beside(&bot, &[]);
    bot.breaks("hanging");
    let start = Instant::now();
    let page = exporter.scrape_within(0.8);
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
    assert_eq!(page.value("rosey_bot_up{environment=\"prod\"}"), Some(0.0));
}

#[test]
fn scrapes_that_overlap_ask_the_bot_once() {
    let bot = FakeBot::start(&[]);
    let exporter = beside(&bot, &[]);
    bot.set(r#"{"delay_ms": 1500}"#);
    std::thread::scope(|scope| {
        for scrape in [0; 6].map(|_| scope.spawn(|| exporter.scrape())) {
            assert_eq!(
                scrape.join().unwrap().value("rosey_bot_up{environment=\"prod\"}"),
                Some(1.0)
            );
        }
    });
    assert_eq!(bot.health_reads(), 1);
    exporter.scrape();
    assert_eq!(bot.health_reads(), 2);
}

#[test]
fn whatever_a_bot_calls_metrics_comes_out_as_metrics() {
    let hostile = concat!(
        "# HELP a \\q Odd\\\\ help\n# TYPE a counter\na{x=\"1\"} 1 123\na{x=\"1\"} 2\nb 1\na{x=\"2\"} 3\n# TYPE a gauge\n",
        "rosey_bot_up 1\nup 0\nALERTS{alertname=\"BotDown\",alertstate=\"firing\"} 1\nrosey_deployment_total 5\n",
        "rosey_bot_message_count_total{environment=\"mine\"} 4\n# TYPE rosey_backup histogram\nrosey_backup_count 1\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 2\nh 3\n# TYPE h_sum gauge\nh_bucket{le=\"many\"} 1\n",
        "# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_count -1\n{\"quoted\"} 1\nc{d=\"\u{1F600}\\n\"} +Inf\nc{d=\"un\nclosed\n",
    );
    let metrics = answers_always(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{hostile}"));
    let exporter = Exporter::start(
        &[
            "--health-port",
            "1",
            "--metrics-port",
            &metrics.to_string(),
            "--backups",
            "/nonexistent",
        ],
        &[("ENVIRONMENT", "prod")],
    );
    let page = exporter.scrape();
    page.is_accepted_by_promtool();
    let theirs: Vec<_> = page
        .0
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("rosey_"))
        .collect();
    assert_eq!(
        theirs,
        [
            "a{x=\"1\"} 1",
            "a{x=\"2\"} 3",
            "b 1",
            "c{d=\"\u{1F600}\\n\"} +Inf",
            "h_bucket{le=\"1\"} 1",
            "h_sum 2",
            "s{quantile=\"0.5\"} NaN"
        ]
    );
    for (series, value) in [
        ("rosey_bot_up{environment=\"prod\"}", 0.0),
        ("rosey_bot_message_count_total{environment=\"mine\"}", 4.0),
        ("rosey_deployment_total{status=\"success\",environment=\"prod\"}", 0.0),
        ("rosey_backup_count{environment=\"prod\"}", 0.0),
        ("rosey_exporter_samples_dropped{reason=\"reserved\"}", 5.0),
        ("rosey_exporter_samples_dropped{reason=\"duplicate\"}", 1.0),
    ] {
        assert_eq!(page.value(series), Some(value), "{series} in\n{}", page.0);
    }
}

#[test]
fn a_bot_with_very_many_series_is_cut_to_bounds() {
    let bot = FakeBot::start(&[]);
    let exporter = beside(&bot, &[]);
    bot.breaks("many-series");
    let page = exporter.scrape();
    assert_eq!(page.series("fake_messages_total{").len(), 200);
    assert_eq!(
        page.value("rosey_exporter_samples_dropped{reason=\"too_many_values\"}"),
        Some(19_800.0)
    );
    assert_eq!(page.value("rosey_exporter_source_up{source=\"metrics\"}"), Some(1.0));
    page.is_accepted_by_promtool();
}

#[test]
fn an_answer_that_is_no_answer_is_not_believed() {
    let bot = FakeBot::start(&[]);
    let good = r#"{"status": "running"}"#;
    let elsewhere = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/api/health\r\nContent-Length: 0\r\n\r\n",
        bot.port
    );
    let mut endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for _ in 0..600 {
        let _ = write!(endless, "400\r\n{}\r\n", " ".repeat(1024));
    }
    for (what, answer) in [
        ("redirect", elsewhere),
        ("more than is allowed", endless),
        (
            "broken off",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{good}"),
        ),
        (
            "encoded",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{good}",
                good.len()
            ),
        ),
        ("no HTTP", good.to_owned()),
        (
            "many headers",
            format!("HTTP/1.1 200 OK\r\n{}\r\n{good}", "X-Filler: 1\r\n".repeat(20_000)),
        ),
    ] {
        let port = answers_always(answer).to_string();
        let page = Exporter::start(&["--health-port", &port], &[]).scrape();
        assert_eq!(page.value("rosey_bot_up"), Some(0.0), "{what}");
        assert_eq!(
            page.value("rosey_exporter_source_up{source=\"health\"}"),
            Some(0.0),
            "{what}"
        );
    }
    assert_eq!(bot.health_reads(), 0, "the redirect was followed");
}

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
    };
    publish("one", &format!("health: {{port: {}, path: /api/health}}", bot.port));
    std::os::unix::fs::symlink("..data/exporter.yaml", folder.join("exporter.yaml")).unwrap();
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

#[test]
fn the_port_follows_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exporter.yaml");
    // Both held at once, so that they differ; free again when the exporter asks for them.
    let ports = [
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    ]
    .map(|listener| listener.local_addr().unwrap().port());
    std::fs::write(&file, format!("port: {}", ports[0])).unwrap();
    let arguments = ["--listen", "127.0.0.1", "--config", file.to_str().unwrap()];
    let process = processes::Process::start(env!("CARGO_BIN_EXE_rosey-exporter"), &arguments, &[]);
    assert_eq!(listening(&process), format!("127.0.0.1:{}", ports[0]));
    std::fs::write(&file, format!("port: {}", ports[1])).unwrap();
    assert_eq!(listening(&process), format!("127.0.0.1:{}", ports[1]));
    assert_eq!(
        request(&format!("127.0.0.1:{}", ports[1]), "GET", "/ready", &[], "").status,
        200
    );
}

#[test]
fn a_busy_port_is_tried_until_it_is_free() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let port = busy.local_addr().unwrap().port().to_string();
    let variables = [("METRICS_PORT", port.as_str()), ("ROSEY_LISTEN", "127.0.0.1")];
    let process = processes::Process::start(env!("CARGO_BIN_EXE_rosey-exporter"), &[], &variables);
    process.line_with("can't listen");
    drop(busy);
    assert_eq!(listening(&process), address);
    assert_eq!(request(&address, "GET", "/health", &[], "").status, 200);
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
    assert!(exporter.process.terminate() < Duration::from_secs(1));
    assert_eq!(scrape.join().unwrap(), 0);
}
