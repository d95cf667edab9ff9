//! Bots that say very much, and very many who ask.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::processes::{Exporter, Page, answers_always, eventually};

/// The most that a bot may say: as many series as pass, with as much text as passes, beside as many of each kind that alerts read.
pub fn costly_page() -> String {
    let mut page = String::new();
    for number in 0..10_000 {
        let (family, series) = (number % 20, number / 20);
        let _ = write!(page, "s{family}{{a=\"{}\"", series / 20);
        for label in 1..9 {
            let _ = write!(page, ",a{label}=\"va-{:02}\"", series % 20);
        }
        let _ = writeln!(page, "}} 1e16");
    }
    for number in 0..4_000 {
        let (command, more) = (number % 200, number / 200);
        let _ = writeln!(
            page,
            "rosey_bot_command_count_total{{command=\"{command:0>30}\",m=\"{more}\"}} 1"
        );
    }
    for number in 0..200 {
        let _ = writeln!(page, "rosey_bot_error_count_total{{error_type=\"{number:0>200}\"}} 1");
    }
    page
}

/// As costly as a page can be made: families in turn, the longest help, and no value twice.
fn hostile_page() -> String {
    let mut page = String::new();
    for family in 0..1_000 {
        let _ = writeln!(page, "# HELP f{family} {}\n# TYPE f{family} gauge", "\\".repeat(250));
    }
    let mut random = 1_u64;
    while page.len() < (4 << 20) - 1_000 {
        let _ = write!(page, "f{}{{", page.len() % 1_000);
        for label in 0..10 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let _ = write!(page, "l{label}=\"{random:x}\",");
        }
        let _ = writeln!(page, "}} 1.2345678e-300");
    }
    page
}

/// A health document that would take very much more memory than bytes as a tree of values.
fn costly_document() -> String {
    let nothing = "[0],".repeat(16_000);
    format!("{{\"status\": \"running\", \"x\": [{nothing}0]}}")
}

/// Plugins whose series take as much text as they can.
fn costly_plugins() -> String {
    let plugin = |number: u32| {
        format!(
            "{{\"name\": \"{number:0>128}\", \"version\": \"{number:0>128}\", \"state\": \"RUNNING\", \"cpu_percent\": 1,\
             \"memory_mb\": 1, \"uptime_seconds\": 1, \"event_count\": 1, \"crash_count\": 1}}"
        )
    };
    let plugins: Vec<_> = (0..600).map(plugin).collect();
    format!("{{\"plugins\": [{}]}}", plugins.join(","))
}

pub fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A connection that sends this, and reads nothing.
fn silent(exporter: &Exporter, sends: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&exporter.address).unwrap();
    stream.write_all(sends.as_bytes()).unwrap();
    stream
}

/// The most memory that an exporter with every source took beyond what it had at first, in KiB, while scrapers came and some of them did not read.
fn memory_beside(page: &str, judge: impl Fn(&Page) + Sync) -> u64 {
    let [health, metrics, plugins] = [&costly_document(), page, &costly_plugins()].map(|body| answers_always(ok(body)));
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let endpoint = |port: u16| format!("{{port: {port}, path: /, timeoutSeconds: 20}}");
    let (health, metrics, plugins) = (endpoint(health), endpoint(metrics), endpoint(plugins));
    let config = format!(
        "environment: production\nhealth: {health}\nmetrics: {metrics}\nplugins: {plugins}\n\
         disk: [{{label: x, path: {place}}}]\nbackups: {{path: {place}}}\ndeployments: true\n"
    );
    let file = folder.path().join("exporter.yaml");
    std::fs::write(&file, config).unwrap();
    let exporter = Exporter::start(&["--config", file.to_str().unwrap()], &[]);
    let idle = exporter.process.memory("RssAnon");
    let peak = exporter.process.peak();
    let mut stuck = Vec::new();
    let unfinished = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(30_000));
    for round in 0..24 {
        let coding = ["identity", "gzip"][round % 2];
        let asks = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {coding}\r\n\r\n");
        stuck.push(silent(&exporter, &asks));
        if round % 8 == 0 {
            stuck.push(silent(&exporter, &unfinished));
        }
        if round % 3 == 0 {
            judge(&exporter.scrape_within(30.0));
        }
    }
    std::thread::scope(|scope| {
        for scrape in [0; 4].map(|_| scope.spawn(|| exporter.scrape_within(30.0))) {
            judge(&scrape.join().unwrap());
        }
    });
    peak.most() - idle
}

/// What is left of 16 MiB beside what a release build has at first, which is six.
pub const ENOUGH: u64 = 10 << 10;

#[test]
fn the_most_that_a_bot_may_say_takes_little_memory_whoever_reads_it() {
    let most = memory_beside(&costly_page(), |page| {
        for source in ["health", "metrics", "plugins", "disk", "backups"] {
            let up = page.value(&format!("rosey_exporter_source_up{{source=\"{source}\"}}"));
            assert_eq!(up, Some(1.0), "{source}");
        }
        assert!(page.series("s").len() > 8_000, "{}", page.series("s").len());
        assert_eq!(page.series("rosey_bot_command_count_total").len(), 4_000);
        assert_eq!(page.series("rosey_bot_error_count_total").len(), 200);
        assert_eq!(page.series("rosey_plugin_info").len(), 256);
    });
    assert!(most < ENOUGH, "{most} KiB");
}

#[test]
fn more_than_a_bot_may_say_takes_no_more_memory() {
    let most = memory_beside(&hostile_page(), |page| {
        assert_eq!(page.value("rosey_exporter_source_up{source=\"metrics\"}"), Some(1.0));
        let dropped = |reason: &str| page.value(&format!("rosey_exporter_samples_dropped{{reason=\"{reason}\"}}"));
        assert!(dropped("too_many_series").unwrap() + dropped("too_many_values").unwrap() > 1_000.0);
    });
    assert!(most < ENOUGH, "{most} KiB");
}

#[test]
fn a_crowd_that_says_nothing_keeps_nobody_from_scraping() {
    let exporter = Exporter::start(&["--health-port", "1"], &[]);
    let unfinished = "POST /record_rollback HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nduration";
    let mut crowd = Vec::new();
    for sends in ["", "GET /metr", unfinished] {
        crowd.extend((0..60).map(|_| silent(&exporter, sends)));
        assert_eq!(exporter.scrape().value("rosey_bot_up"), Some(0.0), "{sends:?}");
    }
    // All of it, and not only what has to make room for others: who asks for nothing is not waited for.
    let closed = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        match stream.read(&mut [0; 1024]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    };
    eventually("the crowd is gone", || {
        crowd.retain(|stream| !closed(stream));
        crowd.is_empty().then_some(())
    });
}
