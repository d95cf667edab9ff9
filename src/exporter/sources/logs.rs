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
    EXPORTER_LOG_COMMANDS_DROPPED_TOTAL, EXPORTER_LOG_LINES_UNPARSED_TOTAL, EXPORTER_LOG_ROTATIONS_TOTAL,
    EXPORTER_LOG_TRUNCATIONS_TOTAL, EXPORTER_LOG_UNREAD_BYTES, LOG_LINES_TOTAL, Metric,
};
use crate::exporter::locked;
use crate::exporter::page::Page;
use crate::exporter::state::{Folder, INTERVAL, Unread};
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
pub(crate) const CONCERN: &str = "logs";

/// What comes from the log, and from nowhere else where there is one.
pub(crate) const FAMILIES: [&Metric; 10] = [
    &LOG_LINES_TOTAL,
    &BOT_COMMAND_COUNT_TOTAL,
    &BOT_ERROR_COUNT_TOTAL,
    &COMMANDS_TOTAL,
    &COMMAND_LATENCY_SECONDS,
    &EXPORTER_LOG_LINES_UNPARSED_TOTAL,
    &EXPORTER_LOG_COMMANDS_DROPPED_TOTAL,
    &EXPORTER_LOG_ROTATIONS_TOTAL,
    &EXPORTER_LOG_TRUNCATIONS_TOTAL,
    &EXPORTER_LOG_UNREAD_BYTES,
];

/// The log, and the thread that follows it for as long as this exists.
pub(crate) struct Logs {
    path: PathBuf,
    /// Whether the log's volume is one of this pod's. If not, nothing is known, and what the bot itself counts stands.
    mounted: bool,
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
        // Asked once: mounts are fixed when the pod is created, and these families must not change hands between two scrapes.
        let mounted = !Mount::of(rootfs, &logs.path).is_some_and(|mount| mount.is_missing().unwrap_or(false));
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
            folder,
            shared: shared.clone(),
            caught_up: catches_up,
            missing: None,
        };
        if mounted {
            let started = std::thread::Builder::new()
                .name("logs".into())
                .stack_size(STACK)
                .spawn(move || thread.follow(&ended));
            if let Err(error) = started {
                locked(&shared.seen).standing = Standing::Failing(format!("can't start a thread: {error}"));
            }
        }
        Self {
            path,
            mounted,
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
        page.add(&EXPORTER_LOG_UNREAD_BYTES, &[], unread as f64);
        if matches!(standing, Standing::CatchingUp) {
            // Counters that are behind those of the last process would look like a restart of the bot.
            let problem = format!("still reads what was written while the exporter was away; {unread} bytes are left");
            return failed(page, problem);
        }
        locked(&self.shared.tally).print(&mut page);
        let problem = matches!(standing, Standing::Missing).then(|| format!("{}: is not there", self.path.display()));
        Reading {
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
        if self.mounted { &FAMILIES } else { &[] }
    }

    fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
        Box::pin(async move {
            if !self.mounted {
                return Reading::default();
            }
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
    folder: Option<Arc<Folder>>,
    shared: Arc<Shared>,
    caught_up: watch::Sender<bool>,
    /// Since when there is no file.
    missing: Option<Instant>,
}

impl Thread {
    fn follow(mut self, ended: &Receiver<Infallible>) {
        let Some(mut follower) = self.begin(ended) else { return };
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

    /// The follower, once it is known where it begins; none if the end came first.
    fn begin(&self, ended: &Receiver<Infallible>) -> Option<Follower> {
        loop {
            let resumed = self.resume();
            let (standing, follower) = match resumed {
                Ok(follower) => (Standing::CatchingUp, Some(follower)),
                Err(unread) => (
                    Standing::Failing(format!("how far it was read is not known: {unread}")),
                    None,
                ),
            };
            *locked(&self.shared.seen) = Seen {
                at: Instant::now(),
                unread: 0,
                standing,
            };
            if follower.is_some() || ended.recv_timeout(POLL) != Err(RecvTimeoutError::Timeout) {
                return follower;
            }
        }
    }

    fn resume(&self) -> Result<Follower, Unread> {
        let kept = match &self.folder {
            Some(folder) => folder.load::<Kept>(CONCERN, |kept| kept.tally.is_sensible())?,
            None => None,
        };
        // Of another log there is nothing to go on with.
        let Some(Kept { position, tally, .. }) = kept.filter(|kept| kept.path == self.path) else {
            return Ok(Follower::new(&self.path, None));
        };
        tracing::info!(path = %self.path.display(), "goes on where the last exporter stopped reading the log");
        *locked(&self.shared.tally) = tally;
        Ok(Follower::new(&self.path, Some(position)))
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
pub(crate) fn count(data: &[u8]) -> Option<[Page; 2]> {
    let mut tally = Tally::default();
    for line in data.split(|&byte| byte == b'\n') {
        tally.line(line, Instant::now());
    }
    let kept: Tally = serde_json::from_str(&serde_json::to_string(&tally).ok()?).ok()?;
    kept.is_sensible().then(|| {
        [tally, kept].map(|tally| {
            let mut page = Page::default();
            tally.print(&mut page);
            page
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::VOLUMES_DIR;

    #[tokio::test]
    async fn a_log_whose_volume_is_not_in_this_pod_takes_no_family_from_the_bot() {
        let pod = tempfile::tempdir().unwrap();
        let config = config::Logs {
            path: format!("{VOLUMES_DIR}/data/rosey.log"),
        };
        let logs = Arc::new(Logs::new(pod.path(), &config, None));
        assert!(logs.families().is_empty());
        let reading = logs.clone().read().await;
        assert_eq!((reading.page.text().as_str(), reading.problem), ("", None));

        // Where it is, the log counts, and one that comes later does not change what was said to the bot.
        std::fs::create_dir_all(below(pod.path(), VOLUMES_DIR).join("data")).unwrap();
        assert!(logs.families().is_empty());
        let mounted = Arc::new(Logs::new(pod.path(), &config, None));
        assert!(
            mounted
                .families()
                .iter()
                .any(|family| family.name == COMMANDS_TOTAL.name)
        );
        assert!(mounted.read().await.problem.is_some());
    }

    #[tokio::test]
    async fn a_state_that_can_not_be_read_now_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let (log, state) = (place.path().join("rosey.log"), place.path().join("logs.json"));
        std::fs::write(&log, "{}\n").unwrap();
        std::os::unix::fs::symlink(&state, &state).unwrap();
        let config = config::Logs {
            path: log.to_str().unwrap().to_owned(),
        };
        let folder = Arc::new(Folder::new(place.path().to_owned()));
        let logs = Arc::new(Logs::new(Path::new("/"), &config, Some(folder.clone())));
        // Until the thread has looked.
        let told = |problem: &String| problem.contains("logs.json: can't be read: ");
        while !logs.clone().read().await.problem.as_ref().is_some_and(told) {}
        assert!(state.is_symlink());

        std::fs::remove_file(&state).unwrap();
        while logs.clone().read().await.problem.is_some() || folder.saved(|_| true) != Some(true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(state.is_file());
    }
}
