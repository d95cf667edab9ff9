//! The exporter beside a bot, as a scraper sees it: both are the real binaries.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]
#![allow(clippy::float_cmp, reason = "the values are written and read back, not computed")]
#![allow(missing_docs, reason = "a test has a name")]

mod answers;
mod crowds;
mod hostile;
mod logs;
mod manual;
mod operation;
mod processes;
mod prometheus;
mod push;
mod reload;
mod web;

use std::fmt::Write;

use processes::{Exporter, FakeBot, Page, answers_always, eventually};

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
        assert_eq!(bot_series(&page), ["up"], "{fault}");
        assert_eq!(page.value(&series("up")), Some(0.0), "{fault}");
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
    // The bot may take longer than anybody here waits: only the scrape's own deadline can end it.
    let exporter = beside(&bot, &["--timeout", "60"]);
    bot.breaks("hanging");
    let page = exporter.scrape_within(3.0);
    assert_eq!(page.value("rosey_bot_up{environment=\"prod\"}"), Some(0.0));
    let took = page
        .value("rosey_exporter_source_duration_seconds{source=\"health\"}")
        .unwrap();
    assert!(took < 3.0, "{took}");
}

#[test]
fn scrapes_that_overlap_ask_the_bot_once() {
    let bot = FakeBot::start(&[]);
    let exporter = beside(&bot, &["--timeout", "20"]);
    bot.set(r#"{"delay_ms": 3000}"#);
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
        ("answered 302", elsewhere),
        ("more than 65536 bytes", endless),
        (
            "broke off its answer",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{good}"),
        ),
        (
            "encoding that was not asked for",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{good}",
                good.len()
            ),
        ),
        ("did not answer in HTTP", good.to_owned()),
        (
            "message head is too large",
            format!("HTTP/1.1 200 OK\r\n{}\r\n{good}", "X-Filler: 1\r\n".repeat(20_000)),
        ),
    ] {
        let port = answers_always(answer).to_string();
        let exporter = Exporter::start(&["--health-port", &port], &[]);
        let page = exporter.scrape();
        assert_eq!(page.value("rosey_bot_up"), Some(0.0), "{what}");
        assert_eq!(
            page.value("rosey_exporter_source_up{source=\"health\"}"),
            Some(0.0),
            "{what}"
        );
        let health = exporter.get("/health").body;
        assert!(health.contains(what), "{what}: {health}");
    }
    assert_eq!(bot.health_reads(), 0, "the redirect was followed");
}
