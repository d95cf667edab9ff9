//! Bots that say very much, and very many who ask.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::processes::{Exporter, Page, answers_always, eventually};

/// Very many series, each with this many labels.
fn costly_page(labels: usize) -> String {
    let mut page = String::new();
    for number in 0..5_000 {
        let (family, series) = (number % 20, number / 20);
        let _ = write!(page, "s{family}{{a=\"{}\"", series / 20);
        for label in 1..labels {
            let _ = write!(page, ",a{label}=\"va-{:02}\"", series % 20);
        }
        let _ = writeln!(page, "}} 1e16");
    }
    page
}

/// A health document that takes very much more memory than bytes.
fn costly_document(length: usize) -> String {
    let nothing = "[0],".repeat(length / 4);
    format!("{{\"status\": \"running\", \"x\": [{nothing}0]}}")
}

fn ok(body: &str) -> String {
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

/// The most memory that an exporter of such a bot took, in KiB, while scrapers came and some of them did not read.
fn memory_beside(document: &str, page: &str, judge: impl Fn(&Page) + Sync) -> u64 {
    let [health, metrics] = [document, page].map(|body| answers_always(ok(body)).to_string());
    let exporter = Exporter::start(
        &["--health-port", &health, "--metrics-port", &metrics, "--timeout", "20"],
        &[],
    );
    let mut stuck = Vec::new();
    for _ in 0..20 {
        stuck.push(silent(&exporter, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        judge(&exporter.scrape());
    }
    std::thread::scope(|scope| {
        for scrape in [0; 2].map(|_| scope.spawn(|| exporter.scrape())) {
            judge(&scrape.join().unwrap());
        }
    });
    // Pages of the program itself can be given back; a release build has few of them.
    exporter.process.memory("VmHWM") - exporter.process.memory("RssFile")
}

#[test]
fn whatever_a_bot_says_and_whoever_reads_it_the_container_has_enough_memory() {
    const ENOUGH: u64 = 16 << 10;
    let up = |page: &Page| {
        let up = |source| page.value(&format!("rosey_exporter_source_up{{source=\"{source}\"}}"));
        (up("health"), up("metrics"))
    };
    let most = memory_beside(&costly_document(64_000), &costly_page(16), |page| {
        assert_eq!(up(page), (Some(1.0), Some(1.0)));
        assert_eq!(page.series("s").len(), 5_000);
    });
    assert!(most < ENOUGH, "{most} KiB for what is just allowed");
    let more = memory_beside(&costly_document(256_000), &costly_page(32), |page| {
        assert_eq!(up(page), (Some(0.0), Some(0.0)));
    });
    assert!(more < ENOUGH, "{more} KiB for what is too much");
}

#[test]
fn a_crowd_that_says_nothing_keeps_nobody_from_scraping() {
    let exporter = Exporter::start(&["--health-port", "1"], &[]);
    let unfinished = "POST /record_rollback HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nduration";
    let mut crowd = Vec::new();
    for sends in ["", "GET /metr", unfinished] {
        crowd.extend((0..40).map(|_| silent(&exporter, sends)));
        assert_eq!(exporter.scrape().value("rosey_bot_up"), Some(0.0), "{sends:?}");
    }
    eventually("the crowd has shrunk", || {
        let closed = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            match stream.read(&mut [0; 16]) {
                Ok(read) => read == 0,
                Err(error) => error.kind() == ErrorKind::ConnectionReset,
            }
        };
        (crowd.iter().filter(|stream| closed(stream)).count() >= 80).then_some(())
    });
}
