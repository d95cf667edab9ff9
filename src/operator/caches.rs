//! The watches that fill the caches, and which of them are full.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;

use futures::{Stream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tracing::{debug, warn};

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
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                let full = matches!(event, watcher::Event::InitDone);
                take(Some(event));
                if full {
                    caches.filled(name);
                }
            }
            Err(error) if refused(&error) => {
                warn!(watch = name, %error, "the operator may not watch; grant it the rights of its ClusterRole");
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
