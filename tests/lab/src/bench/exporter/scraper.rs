//! Scrapes as Prometheus makes them, over connections that are kept: plain blocking sockets, a thread each.
//!
//! What the load itself costs must be small beside what it measures. So a scrape is one write and mostly one read of bytes that are only
//! kept; they are unpacked and checked when the round is over and its clock has stopped.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::answer;

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is scraped.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub path: String,
    /// How to speak TLS, where it is spoken.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whether a page is the right one.
    pub check: fn(&str) -> Result<()>,
}

impl Target {
    /// What Prometheus 3 sends.
    fn request(&self) -> Vec<u8> {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Prometheus/3.5.0\r\nAccept: application/openmetrics-text;version=1.0.0;\
             escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
             escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\nAccept-Encoding: gzip\r\n\
             X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n",
            self.path, self.address
        )
        .into_bytes()
    }

    fn connect(&self) -> Result<Box<dyn Duplex>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let client = ClientConnection::new(config.clone(), ServerName::from(self.address.ip()))?;
                Box::new(StreamOwned::new(client, stream))
            }
        })
    }
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// One connection, and what it was answered in this round.
pub struct Scraper {
    target: Target,
    request: Vec<u8>,
    stream: Option<Box<dyn Duplex>>,
    buffer: Box<[u8]>,
    answers: Vec<u8>,
    ends: Vec<usize>,
    milliseconds: Vec<f64>,
    /// How often the other side had ended the connection.
    reopened: usize,
}

/// What scrapes came to.
#[derive(Default)]
pub struct Outcome {
    /// How long each of them took.
    pub milliseconds: Vec<f64>,
    /// How often the other side had ended a connection.
    pub reopened: usize,
}

impl Scraper {
    pub fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            request: target.request(),
            stream: None,
            buffer: vec![0; 64 << 10].into_boxed_slice(),
            answers: Vec::new(),
            ends: Vec::new(),
            milliseconds: Vec::new(),
            reopened: 0,
        }
    }

    /// One scrape that is not measured; its page.
    pub fn page(&mut self) -> Result<String> {
        self.scrape()?;
        let page = answer::page(&self.answers)?;
        self.check()?;
        self.milliseconds.clear();
        Ok(page)
    }

    fn scrape(&mut self) -> Result<()> {
        let begin = self.answers.len();
        // A server may end an idle connection whenever it likes; Prometheus then connects anew, too.
        for again in [false, true] {
            self.reopened += usize::from(again);
            if again || self.stream.is_none() {
                self.stream = Some(self.target.connect()?);
            }
            let start = Instant::now();
            let Some(close) = self.exchange(begin)? else { continue };
            self.milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
            self.ends.push(self.answers.len());
            if close {
                self.stream = None;
            }
            return Ok(());
        }
        bail!("{} ended two connections in a row", self.target.address);
    }

    /// Asks once; none where the connection had ended before. Otherwise whether it ends now.
    fn exchange(&mut self, begin: usize) -> Result<Option<bool>> {
        let stream = self.stream.as_mut().context("a connection")?;
        let ended = |kind| {
            matches!(
                kind,
                ErrorKind::BrokenPipe
                    | ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::UnexpectedEof
            )
        };
        match stream.write_all(&self.request).and_then(|()| stream.flush()) {
            Err(error) if ended(error.kind()) => return Ok(None),
            outcome => outcome?,
        }
        loop {
            let read = match stream.read(&mut self.buffer) {
                Err(error) if ended(error.kind()) => 0,
                outcome => outcome.with_context(|| format!("an answer from {}", self.target.address))?,
            };
            if read == 0 {
                if self.answers.len() > begin {
                    bail!("{} broke off its answer", self.target.address);
                }
                return Ok(None);
            }
            self.answers.extend_from_slice(&self.buffer[..read]);
            if let Some(close) = answer::whole(&self.answers[begin..])? {
                return Ok(Some(close));
            }
        }
    }

    /// Checks every answer of the round and forgets them.
    fn check(&mut self) -> Result<()> {
        let mut begin = 0;
        for end in self.ends.drain(..) {
            let page = answer::page(&self.answers[begin..end])?;
            (self.target.check)(&page)
                .with_context(|| format!("a wrong page from {}:\n{page}", self.target.address))?;
            begin = end;
        }
        self.answers.clear();
        Ok(())
    }
}

/// Lets every scraper scrape `each` times, all at once; answers how long that took.
pub fn round(scrapers: &mut [Scraper], each: usize) -> Result<Duration> {
    let barrier = Barrier::new(scrapers.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = scrapers
            .iter_mut()
            .map(|scraper| {
                scope.spawn(|| {
                    barrier.wait();
                    (0..each).try_for_each(|_| scraper.scrape())
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a scraper panicked"))??;
        }
        Ok(start.elapsed())
    })
}

/// Checks what the scrapers were answered since the last time.
pub fn check(scrapers: &mut [Scraper]) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for scraper in scrapers {
        scraper.check()?;
        outcome.milliseconds.append(&mut scraper.milliseconds);
        outcome.reopened += std::mem::take(&mut scraper.reopened);
    }
    Ok(outcome)
}
