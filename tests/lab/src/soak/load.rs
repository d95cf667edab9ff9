//! Everybody who asks the exporter something, and everything that changes around it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::scene::Scene;

/// Scrapers with a connection that stays, and the pause between two of their scrapes.
const SCRAPERS: usize = 6;
const PAUSE: Duration = Duration::from_millis(5);
/// What goes wrong with the bot, in turn; each lasts a moment.
const FAULTS: [&str; 9] = [
    "not-running",
    "error-500",
    "garbage",
    "many-series",
    "huge-body",
    "closed-port",
    "hanging",
    "errors",
    "none",
];

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    pub scrapes: u64,
    pub failed: u64,
    /// Why the first of them failed.
    pub why: Option<String>,
    /// How often the counter of lines was smaller than before.
    pub backwards: u64,
    pub rude: u64,
    pub reloads: u64,
    pub faults: u64,
}

#[derive(Default)]
struct Counts {
    scrapes: AtomicU64,
    failed: AtomicU64,
    why: OnceLock<String>,
    backwards: AtomicU64,
    rude: AtomicU64,
    reloads: AtomicU64,
    faults: AtomicU64,
    over: AtomicBool,
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// The load, until it is stopped.
pub struct Load {
    tasks: JoinSet<Result<()>>,
    number: usize,
    counts: Arc<Counts>,
}

impl Load {
    pub fn start(scene: &Arc<Scene>) -> Self {
        let (mut tasks, counts) = (JoinSet::new(), Arc::<Counts>::default());
        for _ in 0..SCRAPERS {
            tasks.spawn(scrape(scene.clone(), counts.clone()));
        }
        tasks.spawn(read_slowly(scene.clone(), counts.clone()));
        tasks.spawn(break_off(scene.clone(), counts.clone()));
        tasks.spawn(reload(scene.clone(), counts.clone()));
        tasks.spawn(fail(scene.clone(), counts.clone()));
        Self {
            number: tasks.len(),
            tasks,
            counts,
        }
    }

    /// Whether all of it is still there.
    pub fn goes_on(&self) -> bool {
        !self.counts.over.load(Ordering::Relaxed) && self.tasks.len() == self.number
    }

    pub async fn stop(mut self) -> Done {
        self.tasks.shutdown().await;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Done {
            scrapes: read(&self.counts.scrapes),
            failed: read(&self.counts.failed),
            why: self.counts.why.get().cloned(),
            backwards: read(&self.counts.backwards),
            rude: read(&self.counts.rude),
            reloads: read(&self.counts.reloads),
            faults: read(&self.counts.faults),
        }
    }
}

/// Tells that a part of the load has ended, which it never should.
struct Ends(Arc<Counts>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

async fn scrape(scene: Arc<Scene>, counts: Arc<Counts>) -> Result<()> {
    let _ends = Ends(counts.clone());
    let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
    let mut before = 0;
    loop {
        one_more(&counts.scrapes);
        match scene.scrape_by(&client).await {
            Ok(page) if page.is_up() => {
                let lines = page.kinds().sum();
                if lines < before {
                    one_more(&counts.backwards);
                }
                before = lines;
            }
            other => {
                one_more(&counts.failed);
                counts.why.get_or_init(|| match other {
                    Ok(page) => {
                        let seconds = page.value("rosey_exporter_source_duration_seconds{source=\"logs\"}");
                        format!("the log was not read, after {seconds} s")
                    }
                    Err(error) => format!("{error:#}"),
                });
            }
        }
        sleep(PAUSE).await;
    }
}

/// Asks, and reads a little at a time.
async fn read_slowly(scene: Arc<Scene>, counts: Arc<Counts>) -> Result<()> {
    let _ends = Ends(counts.clone());
    loop {
        one_more(&counts.rude);
        if let Ok(mut stream) = TcpStream::connect(&scene.address).await {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let mut some = [0; 100];
            for _ in 0..20 {
                sleep(Duration::from_millis(50)).await;
                if !matches!(stream.read(&mut some).await, Ok(1..)) {
                    break;
                }
            }
        }
    }
}

/// Connects and goes: at once, within the request, after it.
async fn break_off(scene: Arc<Scene>, counts: Arc<Counts>) -> Result<()> {
    let _ends = Ends(counts.clone());
    for turn in 0_usize.. {
        one_more(&counts.rude);
        if let Ok(mut stream) = TcpStream::connect(&scene.address).await {
            let says: &[u8] = [&b""[..], b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"][turn % 3];
            let _ = stream.write_all(says).await;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn reload(scene: Arc<Scene>, counts: Arc<Counts>) -> Result<()> {
    let _ends = Ends(counts.clone());
    for turn in 1.. {
        sleep(Duration::from_secs(1)).await;
        scene.reconfigure(turn)?;
        one_more(&counts.reloads);
    }
    Ok(())
}

async fn fail(scene: Arc<Scene>, counts: Arc<Counts>) -> Result<()> {
    let _ends = Ends(counts.clone());
    for turn in 0_usize.. {
        sleep(Duration::from_millis(1_300)).await;
        scene.bot_breaks(FAULTS[turn % FAULTS.len()]).await?;
        one_more(&counts.faults);
    }
    Ok(())
}
