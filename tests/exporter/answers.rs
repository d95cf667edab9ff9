//! In which forms a page of metrics is answered.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::processes::{Answer, Exporter, Page, answers_always, get_bytes, request};

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An exporter beside a bot with so many series.
fn beside(series: u32) -> Exporter {
    let mut page = String::new();
    for number in 0..series {
        let _ = writeln!(page, "a{}{{b=\"{}\"}} {number}", number % 50, number / 50);
    }
    let metrics = answers_always(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{page}"));
    Exporter::start(&["--health-port", "1", "--metrics-port", &metrics.to_string()], &[])
}

fn unzipped(body: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_large_page_is_compressed_for_those_who_take_it() {
    let exporter = beside(5_000);
    for (headers, compressed) in [
        ("Accept-Encoding: gzip\r\n", true),
        ("Accept-Encoding: deflate, gzip;q=0.5\r\n", true),
        ("Accept-Encoding: gzip;q=0\r\n", false),
        ("Accept-Encoding: identity\r\n", false),
        ("", false),
    ] {
        let (head, body) = get_bytes(&exporter.address, "/metrics", headers);
        assert!(head.contains("vary: accept-encoding"), "{head}");
        assert!(head.contains(&format!("content-type: {FORMAT}")), "{head}");
        assert_eq!(head.contains("content-encoding: gzip"), compressed, "{headers}{head}");
        let text = if compressed {
            unzipped(&body)
        } else {
            String::from_utf8(body).unwrap()
        };
        let page = Page(text);
        assert_eq!(page.series("a").len(), 5_000, "{headers}");
        assert_eq!(page.value("a49{b=\"99\"}"), Some(4_999.0));
        page.is_accepted_by_promtool();
    }
}

#[test]
fn a_small_page_is_not_compressed_for_anybody() {
    let (head, body) = get_bytes(&beside(1).address, "/metrics", "Accept-Encoding: gzip\r\n");
    assert!(!head.contains("content-encoding"), "{head}");
    assert!(head.contains("vary: accept-encoding"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("a0{b=\"0\"} 0\n"));
}

#[test]
fn those_who_do_not_read_their_compressed_answers_keep_nobody_from_his() {
    let exporter = beside(10_000);
    let mut stuck = Vec::new();
    for _ in 0..12 {
        let mut stream = TcpStream::connect(&exporter.address).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n")
            .unwrap();
        // The head of the answer, and no more.
        let _ = stream.read(&mut [0; 16]).unwrap();
        stuck.push(stream);
    }
    let (head, body) = get_bytes(&exporter.address, "/metrics", "Accept-Encoding: gzip\r\n");
    let text = if head.contains("content-encoding: gzip") {
        unzipped(&body)
    } else {
        String::from_utf8(body).unwrap()
    };
    assert_eq!(Page(text).series("a").len(), 10_000);
}

#[test]
fn whatever_format_is_asked_for_the_answer_is_the_one_that_everybody_reads() {
    let exporter = beside(1);
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                      text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    for accept in [
        prometheus,
        "text/plain;version=1.0.0;escaping=allow-utf-8",
        "application/openmetrics-text;version=1.0.0",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
        "text/html",
        "nonsense;;q=x",
        "",
    ] {
        let answer = request(&exporter.address, "GET", "/metrics", &[("Accept", accept)], "");
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(FORMAT)),
            "{accept}"
        );
        assert_eq!(Page(answer.body).value("a0{b=\"0\"}"), Some(0.0), "{accept}");
    }
}

#[test]
fn who_asks_for_the_head_gets_it_without_a_word_to_the_bot() {
    let bot = super::FakeBot::start(&[]);
    let exporter = super::beside(&bot, &[]);
    let head = request(&exporter.address, "HEAD", "/metrics", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for (header, value) in [("content-type", FORMAT), ("vary", "accept-encoding")] {
        assert_eq!(head.header(header), Some(value));
    }
    // GET has another length, and it is not known before the bot was asked.
    assert_eq!(head.header("content-length"), None);
    assert_eq!(bot.health_reads(), 0);
}

#[test]
fn other_methods_hear_which_there_are() {
    let exporter = beside(1);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let refused: Answer = request(&exporter.address, method, "/metrics", &[], "");
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, Some("GET,HEAD")),
            "{method}"
        );
    }
    for path in ["/metrics/", "/metrics/x", "//metrics", "/%6Detrics"] {
        assert_eq!(exporter.get(path).status, 404, "{path}");
    }
}
