//! Waiting for what will happen, by asking again and again, never by sleeping for a guessed time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long the lab's own waits take at most, unless told otherwise. Generous: it is only used up by a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Set by the first wait of this process that was in vain: from then on every lab keeps its logs.
static FAILED: AtomicBool = AtomicBool::new(false);

pub(crate) fn note_failure() {
    FAILED.store(true, Ordering::Relaxed);
}

pub(crate) fn something_failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Asks `probe` until it answers `Some`, at most for `deadline`. `what` completes the sentence "waited for …".
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(lab: lab::Lab) -> anyhow::Result<()> {
/// let image = lab::eventually(Duration::from_secs(10), "the pod's image", async || {
///     let pod = lab.kubectl(&["get", "pod", "bot", "-n", "bots", "-o", "jsonpath={.spec.containers[0].image}"]).await?;
///     Ok((!pod.is_empty()).then_some(pod))
/// }).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// When the deadline passes; the message tells the probe's last error.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        // A probe that hangs must not outlast the deadline either.
        let left = deadline.saturating_sub(start.elapsed()).max(Duration::from_millis(100));
        let last = match tokio::time::timeout(left, probe()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(anyhow!("the last attempt did not come back")),
        };
        if start.elapsed() >= deadline {
            note_failure();
            let waited = format!("waited {deadline:?} for {what}, in vain");
            return Err(match last {
                Some(error) => error.context(waited),
                None => anyhow!(waited),
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}

/// Asks `probe` until it says true, at most for `deadline`.
///
/// # Errors
/// When the deadline passes; the message tells the probe's last error.
pub async fn until(deadline: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    eventually(deadline, what, async || Ok(probe().await?.then_some(()))).await
}
