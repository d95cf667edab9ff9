//! The watches that fill the caches, and which of them are full.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::future::Future;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::area::Area;
use super::backoff::Pause;
use super::metrics::Metrics;

/// Which caches are still to be filled, and from where.
#[derive(Clone, Debug)]
pub struct Caches(watch::Sender<BTreeSet<(&'static str, Area)>>);

impl Caches {
    /// None of these is full: those of the whole cluster, and those of each area.
    #[must_use]
    pub fn new(whole: &[&'static str], each: &[&'static str], areas: &[Area]) -> Self {
        let whole = whole.iter().map(|name| (*name, Area::Cluster));
        let each = each
            .iter()
            .flat_map(|name| areas.iter().map(|area| (*name, area.clone())));
        Self(watch::Sender::new(whole.chain(each).collect()))
    }

    /// This one has all of an area, or never will.
    pub fn filled(&self, name: &'static str, area: &Area) {
        self.0.send_if_modified(|pending| pending.remove(&(name, area.clone())));
    }

    /// What is still to come.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        let pending = self.0.borrow();
        pending.iter().map(|(name, area)| format!("{name}{area}")).collect()
    }

    /// Waits until none of these is still to come.
    pub async fn full(&self, names: &[&str]) {
        let _ = self
            .0
            .subscribe()
            .wait_for(|pending| !pending.iter().any(|(name, _)| names.contains(name)))
            .await;
    }
}

/// How every watch is set up: bookmarks, and pages small enough that reading 10,000 objects leaves no mark.
#[must_use]
pub fn paged() -> watcher::Config {
    watcher::Config::default().page_size(100)
}

/// What a watch tells.
#[derive(Debug)]
pub enum Told<K> {
    /// What the API server says.
    Event(Event<K>),
    /// The operator may not watch.
    Refused,
    /// The kind is not installed.
    Missing,
}

/// One watch.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Which cache it fills.
    pub name: &'static str,
    /// From where.
    pub area: Area,
}

/// As it stands in the log.
impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.area)
    }
}

/// Follows a watch for ever, with a pause after each failure, and counts the failures. `take` gets what it tells, and answers
/// whether the operator can go on without what is refused or missing; then the cache counts as filled.
pub async fn follow<K: Debug, S: Stream<Item = watcher::Result<Event<K>>>>(
    of: Watch,
    caches: Caches,
    metrics: &Metrics,
    begin: impl Fn() -> S,
    mut take: impl FnMut(Told<K>) -> bool,
) {
    let mut stream = Box::pin(begin());
    let mut pause = Pause::default();
    let mut lack = Lacking::default();
    let (mut refusal, mut trouble) = (Said::every(REMINDER), Said::every(Duration::from_secs(60)));
    while let Some(event) = stream.next().await {
        let error = match event {
            Ok(event) => {
                // A list begins before the API server has answered.
                if !matches!(event, Event::Init) {
                    pause.reset();
                    lack.ended();
                    if refusal.over() {
                        info!(watch = %of, "the operator may watch again");
                    }
                }
                let full = matches!(event, Event::InitDone);
                take(Told::Event(event));
                if full {
                    lack.filled = true;
                    caches.filled(of.name, &of.area);
                }
                continue;
            }
            Err(error) => error,
        };
        let code = code(&error);
        if code == Some(GONE) {
            // The ordinary life of a watch.
            debug!(watch = %of, %error, "the watch starts again");
        } else {
            metrics.failed("watch");
            if code == Some(FORBIDDEN) {
                if refusal.is_news() {
                    warn!(watch = %of, %error, "the operator may not watch; grant it the rights in deploy/rbac");
                }
            } else if trouble.is_news() {
                warn!(watch = %of, %error, "the watch is broken, and tried again");
            }
        }
        let bearable = match code.filter(|&code| lack.is_certain(code)) {
            Some(FORBIDDEN) => take(Told::Refused),
            Some(_) => take(Told::Missing),
            None => false,
        };
        if bearable {
            caches.filled(of.name, &of.area);
            // A watch that goes on where it was is silent until something changes; a new one tells what there is.
            stream = Box::pin(begin());
        }
        tokio::time::sleep(pause.next().unwrap_or_default()).await;
    }
}

const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
const GONE: u16 = 410;
/// The watch is tried again every few seconds; who reads the log wants to know once, and not to forget.
const REMINDER: Duration = Duration::from_secs(600);

/// Whether the operator has to do without a cache. API servers refuse for a moment while they load their rules, and know nothing
/// of a kind while they start: what was seen before holds until that has lasted.
#[derive(Debug, Default)]
struct Lacking {
    filled: bool,
    run: Option<Run>,
}

/// The same answer, again and again.
#[derive(Debug)]
struct Run {
    code: u16,
    since: Instant,
    last: Instant,
    told: bool,
}

impl Lacking {
    const LASTING: Duration = Duration::from_secs(30);
    /// Longer than any pause. A watch that is let in again says nothing, so silence means that.
    const APART: Duration = Duration::from_secs(10);

    /// Whether an answer that came now is to be believed, and was not yet.
    fn is_certain(&mut self, code: u16) -> bool {
        if !matches!(code, FORBIDDEN | NOT_FOUND) {
            return false;
        }
        let now = Instant::now();
        let run = self
            .run
            .take_if(|run| run.code == code && (run.told || now - run.last <= Self::APART));
        let mut run = run.unwrap_or(Run {
            code,
            since: now,
            last: now,
            told: false,
        });
        run.last = now;
        // Nothing is known that could hold on: a refusal at the start is the last word until there is another.
        let certain = now - run.since >= Self::LASTING || code == FORBIDDEN && !self.filled;
        let news = certain && !run.told;
        run.told |= certain;
        self.run = Some(run);
        news
    }

    fn ended(&mut self) {
        self.run = None;
    }
}

/// When something was last said that is not to be said all the time.
#[derive(Debug)]
struct Said {
    every: Duration,
    last: Option<Instant>,
}

impl Said {
    fn every(every: Duration) -> Self {
        Self { every, last: None }
    }

    /// Whether what happens now is to be said.
    fn is_news(&mut self) -> bool {
        let news = self.last.is_none_or(|said| said.elapsed() >= self.every);
        if news {
            self.last = Some(Instant::now());
        }
        news
    }

    /// It has ended. Whether it was said before.
    fn over(&mut self) -> bool {
        self.last.take().is_some()
    }
}

/// The API server's answer, if there was one.
fn code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => Some(status.code),
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => None,
    }
}

/// Follows a watch of a kind while that is installed. `gone` is called when it no longer is.
pub async fn while_served<F: Future<Output = ()>>(
    plural: &'static str,
    area: &Area,
    caches: Caches,
    mut served: watch::Receiver<Option<BTreeSet<String>>>,
    follow: impl Fn() -> F,
    gone: impl Fn(),
) {
    let has = |served: &Option<BTreeSet<String>>| served.as_ref().map(|served| served.contains(plural));
    loop {
        let Ok(now) = served.wait_for(Option::is_some).await.map(|served| has(&served)) else {
            return;
        };
        let changed = async |to: bool| served.clone().wait_for(|served| has(served) == Some(to)).await.is_err();
        let over = if now == Some(true) {
            tokio::select! {
                () = follow() => false,
                over = changed(false) => over,
            }
        } else {
            caches.filled(plural, area);
            gone();
            changed(true).await
        };
        if over {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
