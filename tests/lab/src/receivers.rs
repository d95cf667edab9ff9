//! Receivers that record what arrives: where a monitor's channels point to.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::watch;

use crate::wait::{self, PATIENCE};

pub(crate) mod http;
pub(crate) mod message;
pub(crate) mod smtp;

/// What can arrive.
pub trait Notification: Clone + Debug + Send + 'static {
    /// The name at the end of the URL, or a recipient: which channel it came through.
    fn is_for(&self, channel: &str) -> bool;
    /// True if it tells that an alert is over.
    fn is_resolved(&self) -> bool;
    /// True if it tells of an alert that goes on.
    fn is_firing(&self) -> bool {
        !self.is_resolved()
    }
    /// One line for messages.
    fn summary(&self) -> String;
}

/// Everything that arrived at one kind of receiver, in order. Clones look at the same messages.
#[derive(Clone)]
pub struct Inbox<T> {
    kind: &'static str,
    logs: PathBuf,
    channel: Option<String>,
    messages: Arc<watch::Sender<Vec<(Instant, T)>>>,
    taken: Arc<Mutex<BTreeSet<usize>>>,
}

impl<T: Notification> Inbox<T> {
    pub(crate) fn new(kind: &'static str, logs: PathBuf) -> Self {
        Self {
            kind,
            logs,
            channel: None,
            messages: Arc::new(watch::channel(Vec::new()).0),
            taken: Arc::default(),
        }
    }

    pub(crate) fn put(&self, message: T) {
        self.messages
            .send_modify(|messages| messages.push((Instant::now(), message)));
    }

    /// Only what comes for `channel`: the `<name>` of `/discord/<name>`, or a mail's recipient.
    #[must_use]
    pub fn of(&self, channel: &str) -> Self {
        Self {
            channel: Some(channel.to_owned()),
            ..self.clone()
        }
    }

    /// Everything so far, whether it was looked at or not.
    #[must_use]
    pub fn received(&self) -> Vec<T> {
        self.messages
            .borrow()
            .iter()
            .map(|(_, message)| message)
            .filter(|message| self.wants(message))
            .cloned()
            .collect()
    }

    /// The first message that no `next` has returned yet; waits up to a minute for it.
    ///
    /// # Errors
    /// When nothing arrives; the message tells what did arrive before, and where the logs are.
    pub async fn next(&self) -> Result<T> {
        self.next_within(PATIENCE).await
    }

    /// As [`Inbox::next`], with a deadline of its own.
    ///
    /// # Errors
    /// When nothing arrives by then.
    pub async fn next_within(&self, deadline: Duration) -> Result<T> {
        self.next_where(deadline, "a message", |_| true).await
    }

    /// The first message that no `next` has returned yet and that `wanted` accepts; others stay for later.
    ///
    /// # Errors
    /// When none arrives by then.
    pub async fn next_where(&self, deadline: Duration, what: &str, wanted: impl Fn(&T) -> bool) -> Result<T> {
        let mut arrivals = self.messages.subscribe();
        let search = async {
            loop {
                if let Some(found) = self.take(&arrivals.borrow_and_update(), &wanted) {
                    return found;
                }
                if arrivals.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if let Ok(found) = tokio::time::timeout(deadline, search).await {
            return Ok(found);
        }
        wait::note_failure();
        bail!(
            "waited {deadline:?} for {what} at {}, in vain; {}",
            self.name(),
            self.so_far()
        )
    }

    /// Passes if nothing arrives for the whole of `time`, counted from now. What came before does not matter.
    ///
    /// # Errors
    /// As soon as something arrives.
    pub async fn stays_silent_for(&self, time: Duration) -> Result<()> {
        let before = self.received().len();
        let mut arrivals = self.messages.subscribe();
        let noise =
            arrivals.wait_for(|messages| messages.iter().filter(|(_, message)| self.wants(message)).count() > before);
        if tokio::time::timeout(time, noise).await.is_err() {
            return Ok(());
        }
        wait::note_failure();
        bail!("{} was to stay silent for {time:?}; {}", self.name(), self.so_far())
    }

    /// Marks everything so far as seen, so that `next` waits for something new.
    pub fn forget(&self) {
        let count = self.messages.borrow().len();
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(0..count);
    }

    fn take(&self, messages: &[(Instant, T)], wanted: impl Fn(&T) -> bool) -> Option<T> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, (_, found)) = messages
            .iter()
            .enumerate()
            .find(|(index, (_, message))| !taken.contains(index) && self.wants(message) && wanted(message))?;
        taken.insert(index);
        Some(found.clone())
    }

    fn wants(&self, message: &T) -> bool {
        self.channel.as_deref().is_none_or(|channel| message.is_for(channel))
    }

    fn name(&self) -> String {
        self.channel
            .as_ref()
            .map_or_else(|| self.kind.to_owned(), |channel| format!("{} {channel}", self.kind))
    }

    fn so_far(&self) -> String {
        let messages = self.messages.borrow();
        let lines: Vec<String> = messages
            .iter()
            .map(|(at, message)| format!("\n  {:.1} s ago: {}", at.elapsed().as_secs_f64(), message.summary()))
            .collect();
        let what = if lines.is_empty() {
            "nothing arrived at all".to_owned()
        } else {
            format!("arrived so far:{}", lines.concat())
        };
        format!("{what}\n  (logs: {})", self.logs.display())
    }
}
