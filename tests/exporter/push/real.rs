//! The real Pushgateway, built by tools/pushgateway/build.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use super::pushing;
use crate::processes::{FakeBot, PATIENCE, Page, Process, answers_always, eventually};

/// Group labels as the gateway prints them.
fn labels() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    format!("environment=\"prod\",instance=\"{}\",job=\"rosey-bot\"", host.trim())
}

struct Pushgateway {
    process: Process,
    address: String,
    authorization: Option<&'static str>,
}

impl Pushgateway {
    fn start(more: &[&str]) -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let path = Command::new(format!("{root}/tools/pushgateway/build"))
            .arg("path")
            .output()
            .unwrap();
        let program = format!("{}/pushgateway", String::from_utf8(path.stdout).unwrap().trim());
        assert!(
            std::path::Path::new(&program).exists(),
            "{program} is missing; run: make tools"
        );
        let flags = [&["--web.listen-address=127.0.0.1:0"], more].concat();
        let process = Process::start(&program, &flags, &[]);
        let line = process.line_with("Listening on");
        let address = line.rsplit("address=").next().unwrap().trim().to_owned();
        Self {
            process,
            address,
            authorization: None,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn page(&self) -> Page {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let authorization = self.authorization.map(|value| format!("Authorization: {value}\r\n"));
        // To HTTP/1.0 nothing is answered in chunks.
        let head = format!("GET /metrics HTTP/1.0\r\n{}\r\n", authorization.unwrap_or_default());
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
        Page(answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// The gateway says that it will delete, and then does.
    fn until_empty(&self) -> Page {
        eventually("nothing is left", || {
            let page = self.page();
            (page.series("rosey_").is_empty() && page.series("push_").is_empty()).then_some(page)
        })
    }

    fn until(&self, series: &str, value: f64) -> Page {
        eventually(series, || {
            let page = self.page();
            (page.value(series) == Some(value)).then_some(page)
        })
    }
}

#[test]
fn the_real_gateway_shows_what_is_pushed_and_nothing_after_the_end() {
    let bot = FakeBot::start(&[]);
    let gateway = Pushgateway::start(&[]);
    let labels = labels();
    let mut exporter = pushing(bot.port, &gateway.url(), &["--push-label", "team=chat/ops"]);
    let team = format!("{labels},team=\"chat/ops\"");
    let page = gateway.until(&format!("rosey_bot_up{{{team}}}"), 1.0);
    for series in [
        format!("rosey_bot_info{{channel=\"rosey\",{team},version=\"1.0.0\"}}"),
        format!("rosey_exporter_source_up{{{labels},source=\"health\",team=\"chat/ops\"}}"),
    ] {
        assert_eq!(page.value(&series), Some(1.0), "{series} in\n{}", page.0);
    }
    assert_eq!(page.value(&format!("push_failure_time_seconds{{{team}}}")), Some(0.0));
    bot.breaks("not-running");
    gateway.until(&format!("rosey_bot_up{{{team}}}"), 0.0);

    exporter.process.terminate();
    let page = gateway.until_empty();
    assert!(!page.series("pushgateway_").is_empty(), "{}", page.0);
}

#[test]
fn the_real_gateway_is_given_the_password_that_it_asks_for() {
    let bot = FakeBot::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let (web, password) = (folder.path().join("web.yml"), folder.path().join("password"));
    let hash = bcrypt::hash("right", 4).unwrap();
    std::fs::write(&web, format!("basic_auth_users: {{rosey: '{hash}'}}")).unwrap();
    std::fs::write(&password, "wrong").unwrap();
    let mut gateway = Pushgateway::start(&["--web.config.file", web.to_str().unwrap()]);
    gateway.authorization = Some("Basic cm9zZXk6cmlnaHQ=");
    let flags = [
        "--push-username",
        "rosey",
        "--push-password-file",
        password.to_str().unwrap(),
    ];
    let mut exporter = pushing(bot.port, &gateway.url(), &flags);
    exporter.process.line_with("answered 401: Unauthorized");
    std::fs::write(&password, "right").unwrap();
    gateway.until(&format!("rosey_bot_up{{{}}}", labels()), 1.0);
    exporter.process.terminate();
    gateway.until_empty();
}

#[test]
fn the_real_gateway_gets_our_series_where_it_refuses_those_of_the_bot() {
    // A type that is not the one of the gateway's own family, and series that differ by a label of the group alone.
    for odd in [
        "# TYPE go_goroutines counter\ngo_goroutines 1\n",
        "odd{instance=\"a\"} 1\nodd{instance=\"b\"} 2\n",
    ] {
        let bot = answers_always(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{odd}"));
        let gateway = Pushgateway::start(&[]);
        let exporter = pushing(bot, &gateway.url(), &[]);
        let line = exporter.process.line_with("pushing without the bot's own metrics");
        assert!(
            line.contains("answered 400: pushed metrics are invalid or inconsistent"),
            "{line}"
        );
        gateway.until(&format!("rosey_bot_up{{{}}}", labels()), 0.0);
        drop(exporter);
        drop(gateway.process);
    }
}
