//! What arrives at a Pushgateway: one that the test plays itself, and the real one.

mod gateway;
mod real;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::processes::{Exporter, FakeBot, Page, answers_always, eventually};
use gateway::{Gateway, Received};

const FAILED: &str = "rosey_exporter_pushes_total{outcome=\"failed\"}";
const SUCCEEDED: &str = "rosey_exporter_pushes_total{outcome=\"success\"}";
const LAST: &str = "rosey_exporter_push_last_success_timestamp_seconds";

/// An exporter on a plain host that pushes every second.
fn pushing(bot: u16, url: &str, more: &[&str]) -> Exporter {
    let bot = bot.to_string();
    let flags = [
        "--health-port",
        &bot,
        "--metrics-port",
        &bot,
        "--push-url",
        url,
        "--push-interval",
        "1",
    ];
    Exporter::start(&[&flags, more].concat(), &[("ENVIRONMENT", "prod")])
}

fn path(more: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    format!("/metrics/job/rosey-bot/environment/prod/instance/{}{more}", host.trim())
}

#[test]
fn a_push_is_what_a_scrape_reads_and_the_end_deletes_it() {
    let bot = FakeBot::start(&[]);
    let gateway = Gateway::start(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
    let mut exporter = pushing(bot.port, &gateway.url(), &["--push-label", "team=a/b"]);
    let first = gateway.next();
    assert_eq!(first.method, "PUT");
    assert_eq!(first.path, path("/team@base64/YS9i"));
    assert_eq!(
        first.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert_eq!(
        first.header("content-length"),
        Some(first.body.len().to_string().as_str())
    );
    assert_eq!(first.header("authorization"), None);
    assert!(first.body.ends_with('\n'));

    let scraped = eventually("a push is counted", || {
        let page = exporter.scrape();
        (page.value(SUCCEEDED) >= Some(1.0)).then_some(page)
    });
    assert!(scraped.value(LAST).unwrap() > 1.7e9);
    let second = Page(gateway.next().body);
    assert!(second.value(SUCCEEDED).unwrap() >= 1.0);
    // All the rest is the same, without what the gateway says itself.
    let series = |page: &Page| -> Vec<String> {
        page.series("")
            .iter()
            .filter(|s| !s.starts_with('#'))
            .map(ToString::to_string)
            .collect()
    };
    let mut expected = series(&scraped);
    expected.retain(|series| series != LAST);
    assert_eq!(series(&second), expected);
    assert_eq!(second.value("rosey_bot_up{environment=\"prod\"}"), Some(1.0));
    second.is_accepted_by_promtool();

    exporter.process.terminate();
    let mut rest = gateway.so_far();
    let last = rest.pop().unwrap();
    assert_eq!((last.method.as_str(), &last.path), ("DELETE", &first.path));
    assert!(rest.iter().all(|request| request.method == "PUT"));
}

#[test]
fn a_gateway_that_fails_is_told_of_once_without_secrets_and_tried_again() {
    let bot = FakeBot::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    let (word, right) = ("Basic cm9zZXk6aHVudGVyMg==", "Basic cm9zZXk6cmlnaHQ=");
    let gateway = Gateway::start(move |request| {
        if request.header("authorization") == Some(right) {
            return "HTTP/1.1 202 Accepted\r\n\r\n".into();
        }
        let text = format!("not {word} = rosey:hunter2\x1b[2J\nmore");
        format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
    });
    let flags = [
        "--push-username",
        "rosey",
        "--push-password-file",
        password.to_str().unwrap(),
    ];
    let exporter = pushing(bot.port, &gateway.url(), &flags);
    for _ in 0..3 {
        assert_eq!(gateway.next().header("authorization"), Some(word));
    }
    let page = exporter.scrape();
    assert_eq!((page.value(SUCCEEDED), page.value(LAST)), (Some(0.0), None));
    assert!(page.value(FAILED).unwrap() >= 2.0);
    let problem = format!("{} answered 503: not Basic *** = rosey:*** [2J", gateway.address);
    let health: serde_json::Value = serde_json::from_str(&exporter.get("/health").body).unwrap();
    assert_eq!(
        (&health["status"], &health["pushgateway"]),
        (&"degraded".into(), &problem.clone().into())
    );

    // The password is read anew for each push.
    std::fs::write(&password, "right\n").unwrap();
    let lines = exporter.process.lines_until("takes the series again");
    let told = lines.iter().filter(|line| line.contains("can't push")).count();
    assert!(
        told == 1 && lines.iter().any(|line| line.contains("answered 503: not Basic")),
        "{lines:#?}"
    );
    assert!(
        !lines
            .iter()
            .any(|line| line.contains("hunter2") || line.contains('\x1b')),
        "{lines:#?}"
    );
    let health: serde_json::Value = serde_json::from_str(&exporter.get("/health").body).unwrap();
    assert_eq!(
        (&health["status"], &health["pushgateway"]),
        (&"ok".into(), &"ok".into())
    );
}

#[test]
fn an_answer_that_is_none_costs_the_push_alone() {
    let bot = FakeBot::start(&[]);
    let elsewhere = Gateway::start(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {}/metrics/job/x\r\nContent-Length: 0\r\n\r\n",
        elsewhere.url()
    );
    let endless = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 9999999999\r\n\r\n{}",
        "x".repeat(100_000)
    );
    for (answer, problem) in [
        (redirect, "answered 307".to_owned()),
        (endless, format!("answered 400: {}\"", "x".repeat(200))),
        ("SMTP ready\r\n".into(), "did not answer in HTTP".to_owned()),
        (
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Filler: 1\r\n".repeat(20_000)),
            "did not answer in HTTP".to_owned(),
        ),
    ] {
        let gateway = format!("http://127.0.0.1:{}", answers_always(answer));
        let exporter = Exporter::start(&["--health-port", &bot.port.to_string(), "--push-url", &gateway], &[]);
        eventually(&problem, || {
            exporter.get("/health").body.contains(&problem).then_some(())
        });
        assert_eq!(exporter.scrape().value("rosey_bot_up"), Some(1.0), "{problem}");
    }
    assert!(elsewhere.so_far().is_empty(), "the redirect was followed");
}

#[test]
fn a_gateway_that_never_answers_holds_up_neither_scrapes_nor_the_end() {
    let bot = FakeBot::start(&[]);
    // The kernel accepts for it, and nothing is ever read.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut exporter = pushing(bot.port, &format!("http://{}", silent.local_addr().unwrap()), &[]);
    let _push = silent.accept().unwrap();
    assert_eq!(exporter.scrape().value("rosey_bot_up{environment=\"prod\"}"), Some(1.0));
    exporter.process.terminate();
    exporter
        .process
        .line_with("the Pushgateway does not answer; what was pushed stays there; DELETE this address by hand");
}

fn configure(file: &Path, pushgateway: &str) {
    let next = file.with_extension("next");
    std::fs::write(&next, format!("environment: prod\npushgateway: {pushgateway}\n")).unwrap();
    std::fs::rename(&next, file).unwrap();
}

#[test]
fn a_group_that_the_configuration_leaves_is_deleted() {
    let gateway = Gateway::start(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exporter.yaml");
    let url = gateway.url();
    let until = |method: &str, path: &str| {
        let found = eventually("the request", || {
            gateway
                .so_far()
                .into_iter()
                .find(|r| r.method == method && r.path == path)
        });
        found.path
    };
    configure(
        &file,
        &format!("{{url: '{url}', labels: {{instance: one}}, intervalSeconds: 1}}"),
    );
    let exporter = Exporter::start(&["--config", file.to_str().unwrap()], &[]);
    let one = until("PUT", "/metrics/job/rosey-bot/environment/prod/instance/one");

    configure(
        &file,
        &format!("{{url: '{url}', labels: {{instance: two}}, intervalSeconds: 1}}"),
    );
    exporter.scrape();
    until("DELETE", &one);
    let two = until("PUT", "/metrics/job/rosey-bot/environment/prod/instance/two");

    // Another interval is the same group; a file that can't be used changes nothing.
    configure(
        &file,
        &format!("{{url: '{url}', labels: {{instance: two}}, intervalSeconds: 2}}"),
    );
    exporter.scrape();
    configure(&file, "{url: nowhere}");
    exporter.scrape();
    until("PUT", &two);
    assert!(!gateway.so_far().iter().any(|request| request.method == "DELETE"));

    configure(&file, "");
    exporter.scrape();
    until("DELETE", &two);
    assert_eq!(exporter.scrape().value(SUCCEEDED), None);
}

#[test]
fn a_group_that_can_not_be_deleted_is_tried_again_and_once_more_at_the_end() {
    let deletions = Arc::new(AtomicUsize::new(0));
    let counted = deletions.clone();
    // The first two of the group one are refused, and all of the group two but the one at the end.
    let ends = Arc::new(AtomicBool::new(false));
    let ending = ends.clone();
    let gateway = Gateway::start(move |request| {
        let refused = match (request.method.as_str(), request.path.ends_with("/one")) {
            ("DELETE", true) => counted.fetch_add(1, Ordering::SeqCst) < 2,
            ("DELETE", false) => !ending.load(Ordering::SeqCst),
            _ => false,
        };
        let status = if refused { "503 Not Now" } else { "202 Accepted" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exporter.yaml");
    let name = |instance: &str| {
        let url = gateway.url();
        configure(
            &file,
            &format!("{{url: '{url}', labels: {{instance: {instance}}}, intervalSeconds: 1}}"),
        );
    };
    let until = |method: &str, instance: &str| {
        let path = format!("/metrics/job/rosey-bot/environment/prod/instance/{instance}");
        loop {
            let next = gateway.next();
            if next.method == method && next.path == path {
                return;
            }
        }
    };
    name("one");
    let mut exporter = Exporter::start(&["--config", file.to_str().unwrap()], &[]);
    until("PUT", "one");
    name("two");
    exporter.scrape();
    for _ in 0..3 {
        until("DELETE", "one");
        until("PUT", "two");
    }
    let lines = exporter.process.lines_until("deleted what was pushed");
    let told = lines.iter().filter(|line| line.contains("can't delete")).count();
    assert_eq!(told, 1, "{lines:#?}");

    name("three");
    exporter.scrape();
    until("DELETE", "two");
    until("PUT", "three");
    ends.store(true, Ordering::SeqCst);
    exporter.process.terminate();
    let last = gateway.so_far();
    for group in ["two", "three"] {
        let deleted = |request: &&Received| request.method == "DELETE" && request.path.ends_with(group);
        assert!(last.iter().any(|request| deleted(&request)), "{group}");
    }
    assert_eq!(deletions.load(Ordering::SeqCst), 3);
}

#[test]
fn a_gateway_that_was_left_and_never_answers_is_told_of_and_costs_the_next_one_nothing() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exporter.yaml");
    configure(
        &file,
        &format!(
            "{{url: 'http://{}', intervalSeconds: 60}}",
            silent.local_addr().unwrap()
        ),
    );
    let mut exporter = Exporter::start(&["--config", file.to_str().unwrap()], &[]);
    // The push is taken, as far as the exporter can tell, and nothing after it.
    let (mut push, _) = silent.accept().unwrap();
    std::io::Write::write_all(&mut push, b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").unwrap();
    let gateway = Gateway::start(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
    configure(&file, &format!("{{url: '{}', intervalSeconds: 1}}", gateway.url()));
    exporter.scrape();
    let told = exporter.process.line_with("can't delete what was pushed");
    assert!(told.contains("did not answer within 2 s"), "{told}");
    assert_eq!(gateway.next().method, "PUT");
    exporter.process.terminate();
    exporter.process.line_with("DELETE this address by hand");
    assert_eq!(gateway.so_far().last().unwrap().method, "DELETE");
}

#[test]
fn what_the_gateway_refuses_of_the_bot_does_not_cost_the_rest() {
    let bot = answers_always("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n# TYPE odd counter\nodd 1\n");
    let refuses = |request: &Received| {
        let odd = request.body.contains("odd 1");
        let status = if odd { "400 Bad Request" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 7\r\n\r\nodd: no")
    };
    let gateway = Gateway::start(refuses);
    let exporter = pushing(bot, &gateway.url(), &[]);
    assert!(gateway.next().body.contains("\nodd 1\n"));
    for _ in 0..3 {
        let without = Page(gateway.next().body);
        assert_eq!(without.value("odd"), None);
        assert_eq!(without.value("rosey_bot_up{environment=\"prod\"}"), Some(0.0));
    }
    exporter.process.line_with("pushing without the bot's own metrics");
    assert_eq!(exporter.scrape().value("odd"), Some(1.0));
}

#[test]
fn over_tls_a_gateway_is_believed_by_the_file_of_certificates_alone() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let gateway = Gateway::start_tls(&signed, |_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, signed.cert.pem()).unwrap();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{}", gateway.address.replace("127.0.0.1", host));
        let _exporter = pushing(1, &url, &["--push-ca-file", ca.to_str().unwrap()]);
        let request = gateway.next();
        assert_eq!((request.method.as_str(), request.path), ("PUT", path("")));
    }
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&ca, stranger.cert.pem()).unwrap();
    let gateway = Gateway::start_tls(&signed, |_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
    let exporter = pushing(1, &gateway.url(), &["--push-ca-file", ca.to_str().unwrap()]);
    exporter.process.line_with("is not believed");
    assert!(gateway.so_far().is_empty(), "it was told all the same");
    // Without the file: those of the system, and where there are none it says so.
    let exporter = Exporter::start(
        &["--push-url", &gateway.url()],
        &[("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")],
    );
    exporter
        .process
        .line_with("pushgateway.caFile: no certificates of the system were found");
}
