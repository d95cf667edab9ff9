//! The deployments, and the file in which they outlive the process.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::{Deployments, Event};
use crate::exporter::locked;
use crate::exporter::page::Page;
use crate::exporter::state::{Folder, INTERVAL};

/// How long an answer waits for its record to be saved.
const WAIT: Duration = Duration::from_secs(2);
/// Records that wait to be saved at a time; one saving does for all of them.
const WAITING: usize = 16;
/// Bytes of the stack of the thread that saves.
const STACK: usize = 256 << 10;
/// The name of the file.
pub(crate) const CONCERN: &str = "deployments";

/// Where deployments are recorded.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    book: Arc<Mutex<Book>>,
    keeper: Mutex<Option<Keeper>>,
}

#[derive(Debug, Default)]
struct Book {
    deployments: Deployments,
    /// Whether what an earlier process recorded is among them, or known to be none.
    complete: bool,
    /// Whether nothing of an earlier process may be added any more.
    restored: bool,
    /// The folders whose file is ours: what is in it is counted here.
    ours: BTreeSet<PathBuf>,
}

/// The thread that reads and writes the file: one that hangs holds this thread, and nobody else.
#[derive(Debug)]
struct Keeper {
    folder: Arc<Folder>,
    requests: SyncSender<oneshot::Sender<bool>>,
}

impl Ledger {
    /// Keeps the deployments in `folder` from now on, or in none. What an earlier process left there is added, once.
    pub fn keep_in(&self, folder: Option<&Arc<Folder>>) {
        let mut keeper = locked(&self.keeper);
        let Some(folder) = folder else {
            *keeper = None;
            let mut book = locked(&self.book);
            // Counted from 0 on: what a folder that is named later holds would come in one jump.
            (book.complete, book.restored) = (true, true);
            return;
        };
        if keeper
            .as_ref()
            .is_some_and(|keeper| Arc::ptr_eq(&keeper.folder, folder))
        {
            return;
        }
        let (requests, received) = sync_channel(WAITING);
        let (book, place) = (self.book.clone(), folder.clone());
        let started = std::thread::Builder::new()
            .name(CONCERN.into())
            .stack_size(STACK)
            .spawn(move || keep(&book, &place, &received));
        if let Err(error) = started {
            tracing::warn!("deployments can't be saved: can't start a thread: {error}");
            locked(&self.book).complete = true;
        }
        *keeper = Some(Keeper {
            folder: folder.clone(),
            requests,
        });
    }

    /// Records what happened, and says whether that outlives the process; nothing where nothing is meant to.
    pub async fn record(&self, event: Event) -> Option<bool> {
        locked(&self.book).deployments.record(event, SystemTime::now());
        let requests = locked(&self.keeper).as_ref()?.requests.clone();
        let (answer, answered) = oneshot::channel();
        if requests.try_send(answer).is_err() {
            return Some(false);
        }
        let saved = tokio::time::timeout(WAIT, answered).await;
        Some(saved.is_ok_and(|saved| saved.unwrap_or(false)))
    }

    /// Their series; nothing while those of an earlier process are still being read. Counters that began at 0 and then went on where
    /// they were would look like so many deployments in this moment.
    pub fn page(&self) -> Option<Page> {
        let book = locked(&self.book);
        book.complete.then(|| book.deployments.page())
    }
}

fn keep(book: &Mutex<Book>, folder: &Folder, requests: &Receiver<oneshot::Sender<bool>>) {
    let save = || {
        if !restore(book, folder) {
            return false;
        }
        if !locked(book).ours.contains(folder.path()) {
            if !folder.put_aside(CONCERN) {
                return false;
            }
            locked(book).ours.insert(folder.path().to_owned());
        }
        let deployments = locked(book).deployments.clone();
        folder.save(CONCERN, &deployments)
    };
    // Now already, so that a folder that can't be written to is known before there is something to lose.
    save();
    loop {
        match requests.recv_timeout(INTERVAL) {
            Ok(first) => {
                let waiting: Vec<_> = std::iter::once(first).chain(requests.try_iter()).collect();
                let saved = save();
                for answer in waiting {
                    // Who waited too long is gone.
                    let _ = answer.send(saved);
                }
            }
            // What could not be saved is tried again; what is saved is not written again.
            Err(RecvTimeoutError::Timeout) => {
                save();
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Adds what an earlier process left in `folder`, where that may still be added. Says whether that is settled.
fn restore(book: &Mutex<Book>, folder: &Folder) -> bool {
    let may_restore = |book: &Book| !book.restored && !book.ours.contains(folder.path());
    if !may_restore(&locked(book)) {
        return true;
    }
    let Ok(earlier) = folder.load::<Deployments>(CONCERN, Deployments::is_sensible) else {
        return false;
    };
    let mut book = locked(book);
    // Meanwhile another folder may have been named, and read.
    if may_restore(&book) {
        if let Some(earlier) = earlier {
            book.deployments.add(&earlier);
            book.restored = true;
        }
        book.ours.insert(folder.path().to_owned());
    }
    book.complete = true;
    true
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FAILED: Event = Event::Deployment {
        status: 1,
        seconds: 90.0,
    };

    fn failures(ledger: &Ledger) -> u64 {
        locked(&ledger.book).deployments.by_status[1]
    }

    async fn complete(ledger: &Ledger) -> String {
        loop {
            if let Some(page) = ledger.page() {
                return page.text();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_was_recorded_is_there_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::new(place.path().to_owned()));
        let ledger = Ledger::default();
        ledger.keep_in(Some(&folder));
        assert_eq!(ledger.record(FAILED).await, Some(true));
        assert_eq!(ledger.record(Event::Rollback { seconds: 4.5 }).await, Some(true));
        let before = complete(&ledger).await;
        drop(ledger);

        let next = Ledger::default();
        next.keep_in(Some(&Arc::new(Folder::new(place.path().to_owned()))));
        assert_eq!(complete(&next).await, before);
        assert_eq!(next.record(FAILED).await, Some(true));
        assert_eq!(failures(&next), 2);
    }

    #[tokio::test]
    async fn a_folder_that_can_not_be_written_to_costs_the_saving_only() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("missing");
        let ledger = Ledger::default();
        ledger.keep_in(Some(&Arc::new(Folder::new(path.clone()))));
        assert_eq!(ledger.record(FAILED).await, Some(false));
        assert_eq!(failures(&ledger), 1);
        std::fs::create_dir(path).unwrap();
        assert_eq!(ledger.record(FAILED).await, Some(true));
    }

    #[tokio::test]
    async fn a_file_that_can_not_be_read_for_a_while_is_gone_on_with_later() {
        let place = tempfile::tempdir().unwrap();
        let folder = || Arc::new(Folder::new(place.path().to_owned()));
        let earlier = Ledger::default();
        earlier.keep_in(Some(&folder()));
        assert_eq!(earlier.record(FAILED).await, Some(true));
        drop(earlier);

        let (file, away) = (place.path().join("deployments.json"), place.path().join("away"));
        std::fs::rename(&file, &away).unwrap();
        std::os::unix::fs::symlink(&file, &file).unwrap();
        let ledger = Ledger::default();
        ledger.keep_in(Some(&folder()));
        assert_eq!(ledger.record(FAILED).await, Some(false));
        assert!(ledger.page().is_none());

        std::fs::rename(&away, &file).unwrap();
        assert_eq!(ledger.record(FAILED).await, Some(true));
        assert_eq!(failures(&ledger), 3);
        assert_eq!(saved_failures(place.path()), [3]);
    }

    #[tokio::test]
    async fn without_a_folder_nothing_is_said_of_saving() {
        let ledger = Ledger::default();
        assert!(ledger.page().is_none(), "the configuration is not known yet");
        ledger.keep_in(None);
        assert_eq!(ledger.record(FAILED).await, None);
        assert!(
            complete(&ledger)
                .await
                .contains("rosey_deployment_total{status=\"failed\"} 1")
        );
    }

    #[tokio::test]
    async fn another_folder_gets_what_is_known_and_adds_nothing_twice() {
        let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = places
            .each_ref()
            .map(|place| Arc::new(Folder::new(place.path().to_owned())));
        assert!(first.save(CONCERN, &{
            let mut earlier = Deployments::default();
            earlier.record(FAILED, SystemTime::now());
            earlier
        }));
        let ledger = Ledger::default();
        ledger.keep_in(Some(&first));
        complete(&ledger).await;
        ledger.keep_in(Some(&second));
        assert_eq!(ledger.record(FAILED).await, Some(true));
        ledger.keep_in(Some(&first));
        assert_eq!(ledger.record(FAILED).await, Some(true));
        assert_eq!(failures(&ledger), 3);
        let [first, second] = [first, second].map(|folder| {
            let saved = folder.load::<Deployments>(CONCERN, |_| true).unwrap();
            saved.unwrap()
        });
        assert_eq!([first.by_status[1], second.by_status[1]], [3, 2]);
    }

    /// What all files in `place` have of failures, smallest first.
    fn saved_failures(place: &Path) -> Vec<u64> {
        let mut failures: Vec<_> = std::fs::read_dir(place)
            .unwrap()
            .map(|entry| {
                let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
                let saved: serde_json::Value = serde_json::from_str(&text).unwrap();
                saved["content"]["by_status"][1].as_u64().unwrap()
            })
            .collect();
        failures.sort_unstable();
        failures
    }

    #[tokio::test]
    async fn what_is_in_a_folder_that_is_named_late_is_put_aside_once_and_not_lost() {
        let place = tempfile::tempdir().unwrap();
        let folder = || Arc::new(Folder::new(place.path().to_owned()));
        let earlier = Ledger::default();
        earlier.keep_in(Some(&folder()));
        for _ in 0..3 {
            assert_eq!(earlier.record(FAILED).await, Some(true));
        }
        drop(earlier);

        let ledger = Ledger::default();
        ledger.keep_in(None);
        assert_eq!(ledger.record(FAILED).await, None);
        for _ in 0..2 {
            ledger.keep_in(Some(&folder()));
            assert_eq!(ledger.record(FAILED).await, Some(true));
            ledger.keep_in(None);
        }
        assert_eq!(failures(&ledger), 3);
        assert_eq!(saved_failures(place.path()), [3, 3]);
    }

    #[tokio::test]
    async fn a_folder_that_is_named_again_adds_nothing_of_our_own() {
        let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let folders = places
            .each_ref()
            .map(|place| Arc::new(Folder::new(place.path().to_owned())));
        let ledger = Ledger::default();
        for folder in [&folders[0], &folders[1], &folders[0]] {
            ledger.keep_in(Some(folder));
            assert_eq!(ledger.record(FAILED).await, Some(true));
        }
        assert_eq!(failures(&ledger), 3);
        assert_eq!(places.map(|place| saved_failures(place.path())), [vec![3], vec![2]]);
    }
}
