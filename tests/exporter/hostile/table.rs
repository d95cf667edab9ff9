//! The table: what a bot says, and what is to be seen of it.

mod documents;
mod pages;

use super::bot::{Bot, answer};

/// A bot of which one source is hostile, while all others are well.
pub struct Case {
    pub name: &'static str,
    pub source: Source,
    pub bot: Bot,
    pub shows: Vec<Shows>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Source {
    Health,
    Metrics,
    Plugins,
    Logs,
}

/// Without [`Shows::Down`] the source is up.
pub enum Shows {
    /// The source is down, and both `/health` and the log say why.
    Down(&'static str),
    Value(&'static str, f64),
    /// No series starts so.
    Absent(&'static str),
    /// So many series start so.
    Series(&'static str, f64),
    /// So many samples were left out for this reason.
    Dropped(&'static str, f64),
}

use Shows::Down;

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Plugins => "plugins",
            Self::Logs => "logs",
        }
    }
}

pub fn cases() -> Vec<Case> {
    let case = |source| {
        move |(name, bot, shows)| Case {
            name,
            source,
            bot,
            shows,
        }
    };
    let connections = connections().into_iter().map(case(Source::Health));
    let documents = documents::health()
        .into_iter()
        .chain(documents::texts())
        .map(case(Source::Health));
    let pages = pages::pages()
        .into_iter()
        .chain(pages::lines())
        .chain(pages::large())
        .chain(pages::endless())
        .map(case(Source::Metrics));
    let plugins = documents::plugins().into_iter().map(case(Source::Plugins));
    connections.chain(documents).chain(pages).chain(plugins).collect()
}

type Row = (&'static str, Bot, Vec<Shows>);

const RUNNING: &str = r#"{"status": "running"}"#;
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// What goes wrong before there is anything to read.
fn connections() -> Vec<Row> {
    let http = "did not answer in HTTP";
    vec![
        (
            "never answers",
            Bot::GoesOn(vec![], vec![]),
            vec![Down("no answer within")],
        ),
        (
            "stops after the headers",
            Bot::GoesOn(CHUNKED.into(), vec![]),
            vec![Down("no answer within")],
        ),
        (
            "drips a byte a second",
            Bot::Drips(answer("200 OK", "", RUNNING)),
            vec![Down("no answer within")],
        ),
        (
            "an endless body",
            Bot::GoesOn(CHUNKED.into(), chunk(&" ".repeat(4096))),
            vec![Down("more than 65536 bytes")],
        ),
        (
            "endless headers",
            Bot::GoesOn("HTTP/1.1 200 OK\r\n".into(), b"X-Filler: 1\r\n".repeat(100)),
            vec![Down(http)],
        ),
        (
            "an endless header",
            Bot::GoesOn("HTTP/1.1 200 OK\r\nX: ".into(), b"x".repeat(4096)),
            vec![Down(http)],
        ),
        (
            "a bomb in gzip",
            Bot::Says(answer("200 OK", "Content-Encoding: gzip\r\n", bomb())),
            vec![Down("encoding that was not asked for")],
        ),
        (
            "sends us elsewhere",
            Bot::Says(answer("302 Found", "Location: http://169.254.169.254/\r\n", "")),
            vec![Down("answered 302")],
        ),
        (
            "sends us round",
            Bot::Says(answer("301 Moved", "Location: /api/health\r\n", "")),
            vec![Down("answered 301")],
        ),
        (
            "fails, and says that it runs",
            Bot::Says(answer("500 Oh", "", RUNNING)),
            vec![Down("answered 500")],
        ),
        (
            "has no content",
            Bot::Says(answer("204 No Content", "", "")),
            vec![Down("answered 204")],
        ),
        ("is not there", Bot::Closed, vec![Down("can't be reached")]),
        ("hangs up", Bot::Says(vec![]), vec![Down(http)]),
        (
            "speaks something else",
            Bot::Says("SSH-2.0-OpenSSH_9.6\r\n".into()),
            vec![Down(http)],
        ),
        ("speaks TLS", Bot::Says(vec![0x15, 3, 3, 0, 2, 2, 70]), vec![Down(http)]),
        (
            "breaks off",
            Bot::Says(format!("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{RUNNING}").into()),
            vec![Down("broke off its answer")],
        ),
        (
            "has a length beyond all numbers",
            Bot::Says(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{RUNNING}", "9".repeat(30)).into()),
            vec![Down(http)],
        ),
        (
            "has two lengths",
            Bot::Says(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 21\r\n\r\n{RUNNING}").into()),
            vec![Down(http)],
        ),
        (
            "has chunks that are none",
            Bot::Says(format!("{CHUNKED}zz\r\n{RUNNING}\r\n").into()),
            vec![Down("broke off its answer")],
        ),
    ]
}

/// Ten megabytes of nothing in ten kilobytes.
fn bomb() -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; 10 << 20]).unwrap();
    encoder.finish().unwrap()
}
