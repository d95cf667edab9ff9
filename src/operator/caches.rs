//! The watches that fill the caches, and which of them are full.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::backoff::Pause;

/// Which caches are still to be filled.
#[derive(Clone, Debug)]
pub struct Caches(watch::Sender<BTreeSet<&'static str>>);

impl Caches {
    /// None of these is full.
    #[must_use]
    pub fn new(names: &[&'static str]) -> Self {
        Self(watch::Sender::new(names.iter().copied().collect()))
    }

    /// This one is full, or will never be.
    pub fn filled(&self, name: &str) {
        self.0.send_if_modified(|pending| pending.remove(name));
    }

    /// What is still to come.
    #[must_use]
    pub fn pending(&self) -> Vec<&'static str> {
        self.0.borrow().iter().copied().collect()
    }

    /// Waits until none of these is still to come.
    pub async fn full(&self, names: &[&str]) {
        let _ = self
            .0
            .subscribe()
            .wait_for(|pending| !names.iter().any(|name| pending.contains(name)))
            .await;
    }
}

/// How every watch is set up: bookmarks, and pages small enough that reading 10,000 objects leaves no mark.
#[must_use]
pub fn paged() -> watcher::Config {
    watcher::Config::default().page_size(100)
}

/// Follows a watch for ever, with a pause after each failure. `take` gets each event, and `None` each time that the API server
/// refuses the operator the right to watch; then the cache counts as filled if it is `optional`.
pub async fn follow<K: Debug>(
    name: &'static str,
    optional: bool,
    caches: Caches,
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    mut take: impl FnMut(Option<watcher::Event<K>>),
) {
    let mut stream = std::pin::pin!(stream.backoff(Pause::default()));
    let mut refusal = Refusal::default();
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                let full = matches!(event, watcher::Event::InitDone);
                // A list begins before the API server has answered.
                if !matches!(event, watcher::Event::Init) && refusal.ended() {
                    info!(watch = name, "the operator may watch again");
                }
                take(Some(event));
                if full {
                    caches.filled(name);
                }
            }
            Err(error) if refused(&error) => {
                if refusal.is_news() {
                    warn!(watch = name, %error, "the operator may not watch; grant it the rights of its ClusterRole");
                }
                if optional {
                    take(None);
                    caches.filled(name);
                }
            }
            // Versions that the API server has forgotten, and connections that end, are the ordinary life of a watch.
            Err(error) => debug!(watch = name, %error, "the watch starts again"),
        }
    }
}

/// Since when the operator may not watch, as far as the log has said.
#[derive(Debug, Default)]
struct Refusal(Option<Instant>);

impl Refusal {
    /// The watch is tried again every few seconds; who reads the log wants to know once, and not to forget.
    const REMINDER: Duration = Duration::from_secs(600);

    /// Whether a refusal that came now is to be said.
    fn is_news(&mut self) -> bool {
        let news = self.0.is_none_or(|said| said.elapsed() >= Self::REMINDER);
        if news {
            self.0 = Some(Instant::now());
        }
        news
    }

    /// There is an answer. Whether there was a refusal before.
    fn ended(&mut self) -> bool {
        self.0.take().is_some()
    }
}

fn refused(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    let status = match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => match error {
            kube::Error::Api(status) => status,
            _ => return false,
        },
        WatchError(status) => status,
        watcher::Error::NoResourceVersion => return false,
    };
    status.is_forbidden()
}

/// Follows a watch of a kind while that is installed. `gone` is called when it no longer is.
pub async fn while_served<F: Future<Output = ()>>(
    name: &'static str,
    plural: &'static str,
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
            caches.filled(name);
            gone();
            changed(true).await
        };
        if over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_said_when_it_begins_and_every_ten_minutes() {
        let mut refusal = Refusal::default();
        assert!(!refusal.ended());
        let mut said = Vec::new();
        for second in (0..1_300).step_by(2) {
            if refusal.is_news() {
                said.push(second);
            }
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        assert_eq!(said, [0, 600, 1_200]);
        assert!(refusal.ended() && !refusal.ended());
        assert!(refusal.is_news());
    }
}
