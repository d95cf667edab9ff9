//! Pushes what a scrape reads to a Pushgateway, for a bot that no Prometheus can scrape.
//!
//! What is pushed stays there until somebody deletes it, so the exporter takes its group away when it ends, and when the
//! configuration names another group or none.

mod access;
mod group;
mod request;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use futures::FutureExt;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::Method;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::page::Page;
use super::scrape::Exporter;
use super::sources::fetch::Names;
use crate::catalogue::metrics::{EXPORTER_PUSH_LAST_SUCCESS_TIMESTAMP_SECONDS, EXPORTER_PUSHES_TOTAL};
use access::{Access, AccessError, Files};
use group::Target;
use request::RequestError;

/// How long the gateway may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the sources may take for what is pushed.
const READING: Duration = Duration::from_secs(10);
/// How long it may take to delete a group; what is pushed elsewhere, and the end, wait for it.
const LEAVING: Duration = Duration::from_secs(2);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Groups that may be at gateways and are to be deleted: one for each change of the configuration while nothing answers.
const LEFT: usize = 16;
/// How long the bot's own metrics are left out after the gateway refused them.
const WITHOUT_THE_BOT: Duration = Duration::from_secs(300);

/// Why a push, or the deletion of its group, came to nothing.
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("{host} did not answer within {} s", limit.as_secs())]
    Late { host: String, limit: Duration },
}

impl PushError {
    fn status(&self) -> Option<u16> {
        match self {
            Self::Request(error) => error.status(),
            _ => None,
        }
    }
}

/// What is known of the pushes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    succeeded: u32,
    failed: u32,
    /// Seconds since 1970.
    last_success: Option<f64>,
    /// What was last wrong.
    problem: Option<String>,
}

impl Tally {
    /// Notes what became of a push, and logs it where that is new.
    fn note(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.succeeded = self.succeeded.saturating_add(1);
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                self.last_success = now.ok().map(|since| since.as_secs_f64());
                if self.problem.take().is_some() {
                    tracing::info!("the Pushgateway takes the series again");
                }
            }
            Err(problem) => {
                self.failed = self.failed.saturating_add(1);
                if self.problem.is_none() {
                    tracing::warn!(problem, "can't push; trying again, at last every five minutes");
                }
                self.problem = Some(problem);
            }
        }
    }

    /// What is wrong with the pushes.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// `to_gateway` leaves out what the gateway knows better: it adds `push_time_seconds` to each group.
    pub fn print(&self, page: &mut Page, to_gateway: bool) {
        for (outcome, number) in [("success", self.succeeded), ("failed", self.failed)] {
            page.add(&EXPORTER_PUSHES_TOTAL, &[("outcome", outcome)], number.into());
        }
        if let Some(time) = self.last_success.filter(|_| !to_gateway) {
            page.add(&EXPORTER_PUSH_LAST_SUCCESS_TIMESTAMP_SECONDS, &[], time);
        }
    }
}

/// Pushes whenever the configuration asks for it, until `end`; then takes back what was pushed, within [`LEAVING`].
pub(super) async fn run(exporter: Arc<Exporter>, rootfs: PathBuf, end: impl Future<Output = ()>) {
    let end = end.shared();
    let mut pusher = Pusher::new(exporter, Files::new(rootfs));
    let all = async {
        pusher.work(end.clone()).await;
        pusher.leave().await;
    };
    let too_late = async {
        end.clone().await;
        sleep(LEAVING).await;
    };
    tokio::select! {
        () = all => return,
        () = too_late => {}
    }
    for left in &pusher.left {
        tracing::warn!(
            url = left.url,
            "the Pushgateway does not answer; what was pushed stays there; DELETE this address by hand"
        );
    }
}

struct Pusher {
    exporter: Arc<Exporter>,
    files: Files,
    names: Names,
    host: String,
    target: Option<Target>,
    /// What may be at a gateway, until it was deleted there.
    left: Vec<Target>,
    next: Instant,
    failures: u32,
    /// When the next group is deleted that is the target's no longer.
    next_deletion: Instant,
    failed_deletions: u32,
    /// Until when the bot's own metrics are left out.
    without_the_bot: Option<Instant>,
    random: RandomState,
}

impl Pusher {
    fn new(exporter: Arc<Exporter>, files: Files) -> Self {
        Self {
            exporter,
            files,
            names: Names::new(),
            host: host(),
            target: None,
            left: Vec::new(),
            next: Instant::now(),
            failures: 0,
            next_deletion: Instant::now(),
            failed_deletions: 0,
            without_the_bot: None,
            random: RandomState::new(),
        }
    }

    async fn work(&mut self, mut end: impl Future<Output = ()> + Clone + Unpin) {
        let mut setup = self.exporter.setup();
        loop {
            let config = setup.borrow_and_update().config.clone();
            self.aim(config.and_then(|config| Target::of(&config, &self.host)));
            let abandoned = self.abandoned();
            let deletion = async {
                match abandoned {
                    Some(_) => sleep_until(self.next_deletion).await,
                    None => std::future::pending().await,
                }
            };
            let due = async {
                match &self.target {
                    Some(_) => sleep_until(self.next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut end => return,
                _ = setup.changed() => continue,
                () = deletion => {
                    // What is not deleted when the end comes is deleted then.
                    tokio::select! {
                        () = &mut end => return,
                        () = self.delete(abandoned) => continue,
                    }
                }
                () = due => {}
            }
            // A push under way is waited for: one that the gateway takes after the deletion would stay there for ever.
            self.push(&mut end).await;
        }
    }

    /// Turns to another target.
    fn aim(&mut self, target: Option<Target>) {
        if self.target == target {
            return;
        }
        self.exporter.pushes().problem = None;
        self.target = target;
        self.next = Instant::now();
        self.failures = 0;
        (self.next_deletion, self.failed_deletions) = (Instant::now(), 0);
        self.without_the_bot = None;
    }

    /// The first group that may be at a gateway and is not the target's.
    fn abandoned(&self) -> Option<usize> {
        let target = self.target.as_ref().map(|target| &target.url);
        self.left.iter().position(|left| Some(&left.url) != target)
    }

    /// Notes that something may be at a gateway.
    fn may_leave(&mut self, target: &Target) {
        self.left.retain(|left| left.url != target.url);
        if self.left.len() >= LEFT {
            let left = self.left.remove(0);
            tracing::warn!(
                url = left.url,
                "what was pushed stays there; DELETE this address by hand"
            );
        }
        self.left.push(target.clone());
    }

    /// Tries to delete a group that is the target's no longer; if that fails, the next one has its turn first.
    async fn delete(&mut self, at: Option<usize>) {
        let Some(left) = at.and_then(|at| self.left.get(at)).cloned() else {
            return;
        };
        let outcome = self.send(Method::DELETE, &left, Body::empty(), LEAVING).await;
        self.left.retain(|other| other.url != left.url);
        match outcome {
            Ok(()) => {
                tracing::info!(url = left.url, "deleted what was pushed");
                (self.next_deletion, self.failed_deletions) = (Instant::now(), 0);
            }
            Err(error) => {
                if self.failed_deletions == 0 {
                    tracing::warn!(url = left.url, %error, "can't delete what was pushed; trying again, at last every five minutes");
                }
                self.failed_deletions = self.failed_deletions.saturating_add(1);
                let random = self.random.hash_one(self.failed_deletions);
                self.next_deletion = Instant::now() + pause(self.failed_deletions, random);
                self.left.push(left);
            }
        }
    }

    async fn push(&mut self, end: &mut (impl Future<Output = ()> + Unpin)) {
        let Some(target) = self.target.clone() else { return };
        let begun = Instant::now();
        let interval = Duration::from_secs_f64(target.gateway.interval_seconds);
        let mut bot = self.without_the_bot.is_none_or(|until| until <= begun);
        let outcome = loop {
            let page = tokio::select! {
                () = &mut *end => return,
                page = self.exporter.pushed(interval.min(READING), bot) => page,
            };
            self.may_leave(&target);
            let outcome = self.send(Method::PUT, &target, Body::new(page), TIMEOUT).await;
            match outcome.map_err(|error| (error.status(), error.to_string())) {
                // The gateway takes all or nothing: one family of the bot that it knows by another type, or two series that differ
                // by a label of the group alone, must not cost everything else.
                Err((Some(400), problem)) if bot && target.passes_metrics => {
                    if self.without_the_bot.is_none() {
                        tracing::warn!(
                            problem,
                            "pushing without the bot's own metrics, which the Pushgateway may have refused"
                        );
                    }
                    self.without_the_bot = Some(begun + WITHOUT_THE_BOT);
                    bot = false;
                }
                outcome => break outcome.map_err(|(_, problem)| problem),
            }
        };
        if bot && outcome.is_ok() {
            self.without_the_bot = None;
        }
        self.failures = if outcome.is_ok() {
            0
        } else {
            self.failures.saturating_add(1)
        };
        self.next = match self.failures {
            0 => begun + interval,
            failures => Instant::now() + pause(failures, self.random.hash_one(failures)),
        };
        self.exporter.pushes().note(outcome);
    }

    /// Deletes all that may be at gateways, each whatever becomes of the others.
    async fn leave(&mut self) {
        let names = &self.names;
        let mut deletions = FuturesUnordered::new();
        for left in self.left.clone().into_iter().rev() {
            let access = self.files.access(&left).await;
            deletions.push(async move {
                let outcome = match access {
                    Ok(access) => send(names, Method::DELETE, &left, &access, Body::empty(), LEAVING).await,
                    Err(error) => Err(error.into()),
                };
                match outcome {
                    Ok(()) => tracing::info!(url = left.url, "deleted what was pushed"),
                    Err(error) => {
                        tracing::warn!(url = left.url, %error, "what was pushed stays there; DELETE this address by hand");
                    }
                }
                left
            });
        }
        while let Some(told) = deletions.next().await {
            self.left.retain(|left| *left != told);
        }
    }

    async fn send(&mut self, method: Method, target: &Target, body: Body, limit: Duration) -> Result<(), PushError> {
        let access = self.files.access(target).await?;
        send(&self.names, method, target, &access, body, limit).await
    }
}

async fn send(
    names: &Names,
    method: Method,
    target: &Target,
    access: &Access,
    body: Body,
    limit: Duration,
) -> Result<(), PushError> {
    let sent = timeout(limit, request::send(names, method, &target.url, access, body)).await;
    let late = |_| PushError::Late {
        host: target.gateway.url.clone(),
        limit,
    };
    Ok(sent.map_err(late)??)
}

/// 1, 2, 4 … seconds, and each time up to half of it less: many exporters that lost one gateway must not come back at once.
fn pause(failures: u32, random: u64) -> Duration {
    let seconds = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    let longest = Duration::from_secs(seconds).min(LONGEST_PAUSE);
    let [random, ..] = random.to_le_bytes();
    longest.mul_f64(1.0 - f64::from(random) / 512.0)
}

/// The host's name; in a pod, the pod's.
fn host() -> String {
    let name = rustix::system::uname();
    match name.nodename().to_str() {
        Ok(name) if !name.is_empty() => name.to_owned(),
        _ => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_differ() {
        for (failures, longest) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (8, 128),
            (9, 256),
            (10, 300),
            (11, 300),
            (200, 300),
        ] {
            let longest = Duration::from_secs(longest);
            assert_eq!(pause(failures, 0), longest);
            let least = pause(failures, 255);
            assert!(longest / 2 < least && least < longest * 51 / 100, "{least:?}");
        }
    }

    #[test]
    fn both_outcomes_are_counted_from_zero_and_the_gateway_keeps_the_time_itself() {
        let text = |tally: &Tally, to_gateway| {
            let mut page = Page::default();
            tally.print(&mut page, to_gateway);
            page.text()
        };
        let mut tally = Tally::default();
        assert!(text(&tally, false).contains("{outcome=\"success\"} 0\n"));
        assert!(text(&tally, false).contains("{outcome=\"failed\"} 0\n"));
        assert!(!text(&tally, false).contains("timestamp"));
        tally.note(Ok(()));
        tally.note(Err("no".into()));
        assert!(text(&tally, false).contains("rosey_exporter_push_last_success_timestamp_seconds 1"));
        assert!(!text(&tally, true).contains("timestamp"));
        assert!(text(&tally, true).contains("{outcome=\"success\"} 1\n"));
        assert_eq!(tally.problem(), Some("no"));
    }
}
