//! The bot's log: JSON documents, one a line, counted as they are written.
//!
//! ```text
//! siblings ─► follower ─► tail ─► line ─► tally ─► a scrape
//!                │                          │
//!                └────────── saved together ┘
//! ```
//!
//! A thread of its own follows the file, so that a file system that hangs holds up this thread and nothing else.

mod follower;
mod line;
mod siblings;
mod tail;
mod tally;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Mount, Reading, Source, below};
use crate::catalogue::metrics::{
    BOT_COMMAND_COUNT_TOTAL, BOT_ERROR_COUNT_TOTAL, COMMAND_LATENCY_SECONDS, COMMANDS_TOTAL,
    EXPORTER_LOG_LINES_UNPARSED_TOTAL, EXPORTER_LOG_ROTATIONS_TOTAL, EXPORTER_LOG_TRUNCATIONS_TOTAL,
    EXPORTER_LOG_UNREAD_BYTES, LOG_LINES_TOTAL, Metric,
};
use crate::exporter::locked;
use crate::exporter::page::Page;
use crate::exporter::state::{Folder, INTERVAL};
use crate::sidecar::config;
use follower::{Follower, Look, Position};
use tally::Tally;

/// How often the file is looked at while nothing is in it.
const POLL: Duration = Duration::from_millis(250);
/// How long the file system may leave a look unanswered, and how long a rotation may take, until something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the first scrape waits for what was written while the exporter was away.
const START: Duration = Duration::from_millis(200);
/// Bytes of the thread's stack; the deepest call needs a tenth of it.
const STACK: usize = 256 << 10;
/// The name of the file that outlives the process.
const CONCERN: &str = "logs";

pub(crate) const FAMILIES: [&Metric; 9] = [
    &LOG_LINES_TOTAL,
    &BOT_COMMAND_COUNT_TOTAL,
    &BOT_ERROR_COUNT_TOTAL,
    &COMMANDS_TOTAL,
    &COMMAND_LATENCY_SECONDS,
    &EXPORTER_LOG_LINES_UNPARSED_TOTAL,
    &EXPORTER_LOG_ROTATIONS_TOTAL,
    &EXPORTER_LOG_TRUNCATIONS_TOTAL,
    &EXPORTER_LOG_UNREAD_BYTES,
];

/// The log, and the thread that follows it for as long as this exists.
pub(crate) struct Logs {
    path: PathBuf,
    shared: Arc<Shared>,
    /// Whether the thread has once reached the end of what was there.
    caught_up: watch::Receiver<bool>,
    /// Its end is the thread's.
    _thread: Sender<Infallible>,
}

struct Shared {
    tally: Mutex<Tally>,
    seen: Mutex<Seen>,
}

/// What the last look came to.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    unread: u64,
    standing: Standing,
}

#[derive(Clone, Debug)]
enum Standing {
    /// What was written while the exporter was away is still being read.
    CatchingUp,
    Following,
    /// There is no file: nothing was written, and the counters are right.
    Missing,
    /// The volume is not mounted in this pod: nothing is known.
    Unmounted,
    Failing(String),
}

/// What outlives the process. Together, so that no line is counted twice or left out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    path: PathBuf,
    position: Position,
    tally: Tally,
}

impl Logs {
    /// Begins to follow, at the end of the file, or where `folder` says that an exporter before this one stopped.
    pub fn new(rootfs: &Path, logs: &config::Logs, folder: Option<Arc<Folder>>) -> Self {
        let path = below(rootfs, &logs.path);
        let seen = Seen {
            at: Instant::now(),
            unread: 0,
            standing: Standing::CatchingUp,
        };
        let shared = Arc::new(Shared {
            tally: Mutex::default(),
            seen: Mutex::new(seen),
        });
        let (end, ended) = channel();
        let (catches_up, caught_up) = watch::channel(false);
        let thread = Thread {
            path: path.clone(),
            mount: Mount::of(rootfs, &logs.path),
            folder,
            shared: shared.clone(),
            caught_up: catches_up,
            missing: None,
        };
        let started = std::thread::Builder::new()
            .name("logs".into())
            .stack_size(STACK)
            .spawn(move || thread.follow(&ended));
        if let Err(error) = started {
            locked(&shared.seen).standing = Standing::Failing(format!("can't start a thread: {error}"));
        }
        Self {
            path,
            shared,
            caught_up,
            _thread: end,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a sample is a double")]
    fn reading(&self, now: Instant) -> Reading {
        let Seen { at, unread, standing } = locked(&self.shared.seen).clone();
        let mut page = Page::default();
        let failed = |page, problem: String| Reading::failed(page, format!("{}: {problem}", self.path.display()));
        let waited = now.saturating_duration_since(at);
        if let Standing::Failing(problem) = standing {
            return failed(page, problem);
        }
        if waited >= PATIENCE {
            let problem = format!("the file system has not answered for {} s", waited.as_secs());
            return failed(page, problem);
        }
        if matches!(standing, Standing::Unmounted) {
            return Reading::of(page);
        }
        page.add(&EXPORTER_LOG_UNREAD_BYTES, &[], unread as f64);
        if matches!(standing, Standing::CatchingUp) {
            // Counters that are behind those of the last process would look like a restart of the bot.
            let problem = format!("still reads what was written while the exporter was away; {unread} bytes are left");
            return failed(page, problem);
        }
        let dropped = locked(&self.shared.tally).print(&mut page);
        let problem = matches!(standing, Standing::Missing).then(|| format!("{}: is not there", self.path.display()));
        Reading {
            dropped,
            problem,
            ..Reading::of(page)
        }
    }
}

impl Source for Logs {
    fn name(&self) -> &'static str {
        "logs"
    }

    fn timeout(&self) -> Duration {
        // Nothing here waits for longer than START.
        Duration::from_secs(1)
    }

    fn families(&self) -> &'static [&'static Metric] {
        &FAMILIES
    }

    fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
        Box::pin(async move {
            let mut caught_up = self.caught_up.clone();
            // Either way: what is known says whether it is enough.
            let _ = tokio::time::timeout(START, caught_up.wait_for(|caught_up| *caught_up)).await;
            self.reading(Instant::now())
        })
    }
}

/// What the thread has.
struct Thread {
    path: PathBuf,
    mount: Option<Mount>,
    folder: Option<Arc<Folder>>,
    shared: Arc<Shared>,
    caught_up: watch::Sender<bool>,
    /// Since when there is no file.
    missing: Option<Instant>,
}

impl Thread {
    fn follow(mut self, ended: &Receiver<Infallible>) {
        let mut follower = self.resume();
        let (mut changed, mut tried) = (true, None::<Instant>);
        loop {
            let now = Instant::now();
            let look = follower.look(&self.shared.tally, now);
            changed |= look.more;
            self.tell(&look, follower.has_file(), now);
            let due = tried.is_none_or(|tried| now.saturating_duration_since(tried) >= INTERVAL);
            if changed && due {
                changed = !self.save(&follower);
                tried = Some(now);
            }
            let pause = if look.more { Duration::ZERO } else { POLL };
            if ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn resume(&self) -> Follower {
        let kept = self.folder.as_ref().and_then(|folder| {
            let kept: Kept = folder.load(CONCERN, |kept: &Kept| kept.tally.is_sensible())?;
            // Of another log there is nothing to go on with.
            (kept.path == self.path).then_some(kept)
        });
        let Some(Kept { position, tally, .. }) = kept else {
            return Follower::new(&self.path, None);
        };
        tracing::info!(path = %self.path.display(), "goes on where the last exporter stopped reading the log");
        *locked(&self.shared.tally) = tally;
        Follower::new(&self.path, Some(position))
    }

    fn tell(&mut self, look: &Look, has_file: bool, now: Instant) {
        let missing_for = if look.missing {
            now.saturating_duration_since(*self.missing.get_or_insert(now))
        } else {
            self.missing = None;
            Duration::ZERO
        };
        let caught_up = *self.caught_up.borrow() || !look.more;
        let standing = if let Some(problem) = &look.problem {
            Standing::Failing(problem.clone())
        } else if look.missing && !has_file && self.is_unmounted() {
            Standing::Unmounted
        } else if !caught_up {
            Standing::CatchingUp
        } else if look.missing && (!has_file || missing_for >= PATIENCE) {
            Standing::Missing
        } else {
            Standing::Following
        };
        *locked(&self.shared.seen) = Seen {
            at: now,
            unread: look.unread,
            standing,
        };
        if caught_up {
            self.caught_up.send_replace(true);
        }
    }

    fn is_unmounted(&self) -> bool {
        self.mount
            .as_ref()
            .is_some_and(|mount| mount.is_missing().unwrap_or(false))
    }

    /// Says whether there is nothing left to save.
    fn save(&self, follower: &Follower) -> bool {
        let Some(folder) = &self.folder else { return true };
        let kept = Kept {
            path: self.path.clone(),
            position: follower.position(),
            tally: locked(&self.shared.tally).clone(),
        };
        folder.save(CONCERN, &kept)
    }
}

/// What the lines of `data` come to: as they were counted, and as the next process goes on with it. None if it would not.
#[cfg(any(fuzzing, test))]
pub(crate) fn count(data: &[u8]) -> Option<[(Page, crate::exporter::bounds::Dropped); 2]> {
    let mut tally = Tally::default();
    for line in data.split(|&byte| byte == b'\n') {
        tally.line(line, Instant::now());
    }
    let kept: Tally = serde_json::from_str(&serde_json::to_string(&tally).ok()?).ok()?;
    kept.is_sensible().then(|| {
        [tally, kept].map(|tally| {
            let mut page = Page::default();
            let dropped = tally.print(&mut page);
            (page, dropped)
        })
    })
}
