//! In which order pods without an exporter are replaced, and when that has to stop. Pure: the clock comes in.
//!
//! A pod that is evicted comes back through the webhook. If it came back without an exporter, the next would too, and the bot
//! would restart for ever: so one pod at a time, the next only when the new one is ready with its exporter, and none any more
//! after one that is not. That one is marked, so that another leader stops as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Selected;
use super::record::Exporter;
use crate::operator::backoff::delay;

/// How long the same pods have to be there before one is evicted: a leader that has just begun does not know whether another one
/// has evicted a pod whose replacement is still to come.
const QUIET: Duration = Duration::from_secs(10);
/// The longest wait after a refusal: a disruption budget may allow it in an hour only.
const LONGEST: Duration = Duration::from_secs(300);
/// How long a replacement is what the operator is busy with; after that others may have their turn meanwhile.
const AWAITED: Duration = Duration::from_secs(120);
/// When no replacement comes any more: its owner was scaled down or deleted after the eviction.
const GIVEN_UP: Duration = Duration::from_secs(600);
/// When the plan is asked again about a pod in whose place none with an exporter would come: a monitor or a flag may have changed.
const ASKED: Duration = Duration::from_secs(60);
/// Doublings that the first wait after a refusal skips: 8 s.
const SKIPPED: u32 = 4;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing, until something changes.
    Rest,
    /// To be looked at again when a pod changes, and after this time.
    Wait(Option<Duration>),
    /// This pod is evicted.
    Evict(&'a Selected),
    /// This pod came without an exporter in place of one that was evicted: it says so from now on.
    Mark(&'a Selected),
}

/// What a leader remembers of a monitor's pods.
#[derive(Debug, Default)]
pub struct Memory {
    awaited: Option<Awaited>,
    quiet: Option<(BTreeSet<Box<str>>, Instant)>,
    refused: Option<Refused>,
    /// By uid, why a new pod would have no exporter either, and when that is asked again.
    left: BTreeMap<Box<str>, (String, Instant)>,
}

#[derive(Debug)]
struct Awaited {
    pod: String,
    owner: Arc<str>,
    /// The owner's pods when it was evicted.
    known: BTreeSet<Box<str>>,
    since: Instant,
}

#[derive(Debug)]
struct Refused {
    pod: String,
    why: String,
    failures: u32,
    until: Instant,
}

impl Memory {
    /// This pod of `pods` was evicted.
    pub fn evicted(&mut self, pod: &Selected, pods: &[Selected], now: Instant) {
        let same = pods.iter().filter(|other| other.owner == pod.owner);
        self.refused = None;
        self.awaited = Some(Awaited {
            pod: pod.pod.clone(),
            owner: Arc::clone(&pod.owner),
            known: same.map(|pod| pod.life.uid.clone()).collect(),
            since: now,
        });
    }

    /// The eviction of this pod was refused for now; how long to wait.
    pub fn refused(&mut self, pod: &Selected, why: String, now: Instant) -> Duration {
        let failures = self
            .refused
            .as_ref()
            .map_or(0, |refused| refused.failures)
            .saturating_add(1);
        let wait = delay(failures.saturating_add(SKIPPED), LONGEST);
        self.refused = Some(Refused {
            pod: pod.pod.clone(),
            why,
            failures,
            until: now + wait,
        });
        wait
    }

    /// A new pod in place of this one would have no exporter either, as things are.
    pub fn leave(&mut self, pod: &Selected, why: String, now: Instant) {
        self.left.insert(pod.uid().into(), (why, now + ASKED));
    }

    /// When the plan is to be asked again about a pod that was left.
    #[must_use]
    pub fn asks_again(&self, now: Instant) -> Option<Duration> {
        let again = self.left.values().map(|(_, again)| *again);
        again.filter(|again| *again > now).min().map(|again| again - now)
    }

    /// Whether the operator is busy with a replacement that is still to come.
    #[must_use]
    pub fn awaits_one(&self, now: Instant) -> bool {
        let since = self.awaited.as_ref().map(|awaited| awaited.since);
        since.is_some_and(|since| now.saturating_duration_since(since) < AWAITED)
    }

    /// What is to be done next so that all pods have the exporter of `monitor`.
    pub fn next<'a>(&mut self, monitor: &str, pods: &'a [Selected], now: Instant) -> Step<'a> {
        self.left.retain(|uid, _| pods.iter().any(|pod| pod.life.uid == *uid));
        if let Some(step) = self.awaits(monitor, pods, now) {
            return step;
        }
        if stopped(pods).is_some() {
            return Step::Rest;
        }
        let mut candidates: Vec<_> = pods.iter().filter(|pod| self.may_go(pod, now)).collect();
        // Whoever is not ready loses nothing.
        candidates.sort_by_key(|pod| pod.life.ready);
        let Some(first) = candidates.first() else {
            self.refused = None;
            return Step::Rest;
        };
        if pods.iter().any(|pod| carries(monitor, pod) && !pod.life.ready) {
            return Step::Wait(None);
        }
        if let Some(refused) = &self.refused
            && refused.until > now
        {
            return Step::Wait(Some(refused.until - now));
        }
        let uids: BTreeSet<_> = pods.iter().map(|pod| pod.life.uid.clone()).collect();
        let since = match &self.quiet {
            Some((same, since)) if *same == uids => *since,
            _ => now,
        };
        self.quiet = Some((uids, since));
        let left = QUIET.saturating_sub(now.saturating_duration_since(since));
        if !left.is_zero() {
            return Step::Wait(Some(left));
        }
        Step::Evict(first)
    }

    /// What the pod asks for that comes in place of an evicted one; nothing if none is awaited any more.
    fn awaits<'a>(&mut self, monitor: &str, pods: &'a [Selected], now: Instant) -> Option<Step<'a>> {
        let awaited = self.awaited.as_ref()?;
        let passed = now.saturating_duration_since(awaited.since);
        let ahead = |until: Duration| until.checked_sub(passed).filter(|left| !left.is_zero());
        let left = [AWAITED, GIVEN_UP].into_iter().find_map(ahead);
        let wait = || Some(Step::Wait(left));
        let mut new = pods
            .iter()
            .filter(|pod| pod.owner == awaited.owner && !awaited.known.contains(&pod.life.uid));
        let Some(new) = new.next() else {
            if left.is_none() {
                self.awaited = None;
                return None;
            }
            return wait();
        };
        if carries(monitor, new) && !new.life.ready {
            return wait();
        }
        let step = (!carries(monitor, new)).then_some(Step::Mark(new));
        // A pod that is to be marked is asked for again until it is.
        if step.is_none() || new.life.unrepaired {
            self.awaited = None;
            return None;
        }
        step
    }

    fn may_go(&self, pod: &Selected, now: Instant) -> bool {
        let left = self.left.get(&pod.life.uid);
        pod.exporter == Exporter::Missing && pod.life.replaceable && left.is_none_or(|(_, again)| *again <= now)
    }

    /// What the next replacement waits for.
    #[must_use]
    pub fn waits(&self, monitor: &str, pods: &[Selected]) -> Option<String> {
        if let Some(awaited) = &self.awaited {
            return Some(format!("waits for the one in place of pod {}", awaited.pod));
        }
        if let Some(pod) = pods.iter().find(|pod| carries(monitor, pod) && !pod.life.ready) {
            return Some(format!("waits for pod {} to be ready", pod.pod));
        }
        if let Some(refused) = &self.refused {
            return Some(format!("may not evict pod {} yet: {}", refused.pod, refused.why));
        }
        let left = |pod: &Selected| Some((pod.pod.clone(), self.left.get(&pod.life.uid)?));
        let (pod, (why, _)) = pods.iter().find_map(left)?;
        Some(format!(
            "leaves pod {pod}, because a new one would have none either: {why}"
        ))
    }
}

/// Why no further pod is replaced: one came without an exporter.
#[must_use]
pub fn stopped(pods: &[Selected]) -> Option<String> {
    let pod = pods
        .iter()
        .find(|pod| pod.life.unrepaired && !matches!(pod.exporter, Exporter::Injected { .. }))?;
    let why = match &pod.exporter {
        Exporter::Skipped(why) => format!(": {why}"),
        _ => ", so the API server does not reach the operator's webhook".to_owned(),
    };
    Some(format!(
        "pod {} came in place of one that the operator had evicted, without an exporter{why}",
        pod.pod
    ))
}

fn carries(monitor: &str, pod: &Selected) -> bool {
    matches!(&pod.exporter, Exporter::Injected { monitor: by, .. } if **by == *monitor)
}

#[cfg(test)]
mod tests;
