//! In which order exporters get another image, and when one gets its old one back. Pure: the clock comes in.
//!
//! kubelet kills the old container before it pulls the new image, so an image that can't be pulled leaves the pod not ready until
//! it is changed back. Hence one pod at a time, and the next one only when the new container runs. What is on trial, and what
//! failed, stands on the pods themselves: another leader reads it there, and only begins to count the seconds anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Selected;
use super::record::{Exporter, Life, State};
use crate::operator::backoff::delay;
use crate::plan::injection::update::Note;

/// How long a new container may take to start; its image is a few megabytes.
const STARTING: Duration = Duration::from_secs(60);
/// How long it has to run before the next pod's turn: one that crashes at once is started again at once, and waits only then.
const SETTLING: Duration = Duration::from_secs(5);
/// An exporter that fails so many seconds after its change fails for another reason.
const TRIAL: i64 = 600;
/// When the plan is asked again about a pod that it left as it is: a monitor, a flag or a label may have changed since.
const ASKED: Duration = Duration::from_secs(60);
/// How long the watch may take to show what was written.
const SHOWN: Duration = Duration::from_secs(30);
/// The longest pause after errors; a pod that waits for its old image is not ready meanwhile.
const LONGEST: Duration = Duration::from_secs(60);
/// Doublings that the first pause after an error skips: 8 s.
const SKIPPED: u32 = 4;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing, until something changes.
    Rest,
    /// A change is on trial: to be looked at again when a pod changes, and after this time.
    Wait(Duration),
    /// The last try failed for a reason that may pass: to be tried again after this time, while others have their turn.
    Pause(Duration),
    /// This pod's exporter gets the wanted image.
    Update(&'a Selected),
    /// This pod's exporter gets its old image back.
    Back {
        /// The pod.
        pod: &'a Selected,
        /// Why.
        why: String,
    },
}

/// What a leader remembers of a monitor's pods, by their uid.
#[derive(Debug, Default)]
pub struct Memory {
    trials: HashMap<Box<str>, Trial>,
    left: HashMap<Box<str>, Left>,
    written: Option<Written>,
    paused: Option<Paused>,
}

#[derive(Debug)]
struct Trial {
    image: Box<str>,
    begun: Instant,
    /// Which container runs, and since when that is known.
    runs: Option<(Box<str>, Instant)>,
    over: bool,
}

#[derive(Debug)]
struct Left {
    from: Arc<str>,
    to: Box<str>,
    why: String,
    /// When it is tried again, if ever.
    again: Option<Instant>,
}

/// Errors in a row that may pass.
#[derive(Debug)]
struct Paused {
    failures: u32,
    until: Instant,
}

#[derive(Debug)]
struct Written {
    uid: Box<str>,
    image: Box<str>,
    at: Instant,
}

impl Memory {
    /// This image was written to a pod; the watch will show it.
    pub fn wrote(&mut self, pod: &Selected, image: &str, at: Instant) {
        self.written = Some(Written {
            uid: pod.uid().into(),
            image: image.into(),
            at,
        });
    }

    /// The exporter of a pod can't be changed to this image, and it is no use to try again.
    pub fn leave(&mut self, pod: &Selected, to: &str, why: String) {
        self.leaves_until(pod, to, why, None);
    }

    /// The plan does not want the exporter of a pod changed to this image as things are.
    pub fn leave_for_now(&mut self, pod: &Selected, to: &str, why: String, now: Instant) {
        self.leaves_until(pod, to, why, Some(now + ASKED));
    }

    fn leaves_until(&mut self, pod: &Selected, to: &str, why: String, again: Option<Instant>) {
        if let Exporter::Injected { image, .. } = &pod.exporter {
            let (from, to) = (Arc::clone(image), to.into());
            self.left.insert(pod.uid().into(), Left { from, to, why, again });
        }
    }

    /// When the plan is to be asked again about a pod that was left.
    #[must_use]
    pub fn asks_again(&self, now: Instant) -> Option<Duration> {
        let again = self.left.values().filter_map(|left| left.again);
        again.filter(|again| *again > now).min().map(|again| again - now)
    }

    /// A pod can't be changed back, and it is no use to try again.
    pub fn give_up(&mut self, pod: &Selected) {
        if let Some(trial) = self.trials.get_mut(pod.uid()) {
            trial.over = true;
        }
    }

    /// A change failed for a reason that may pass; how long to wait.
    pub fn pause(&mut self, now: Instant) -> Duration {
        let failures = self.paused.as_ref().map_or(0, |paused| paused.failures);
        let failures = failures.saturating_add(1);
        let wait = delay(failures.saturating_add(SKIPPED), LONGEST);
        self.paused = Some(Paused {
            failures,
            until: now + wait,
        });
        wait
    }

    /// A change came to its end, so the next error is the first.
    pub fn go_on(&mut self) {
        self.paused = None;
    }

    fn paused(&self, now: Instant) -> Option<Duration> {
        let until = self.paused.as_ref()?.until;
        (until > now).then(|| until - now)
    }

    fn leaves(&self, exporter: &Carried<'_>, wanted: &str) -> Option<&Left> {
        let left = self.left.get(&exporter.pod.life.uid)?;
        (*left.from == *exporter.image && *left.to == *wanted).then_some(left)
    }

    /// What is to be done next so that all exporters of `monitor` have the `wanted` image. `clock` is in seconds since 1970.
    pub fn next<'a>(
        &mut self,
        monitor: &'a str,
        pods: &'a [Selected],
        wanted: &str,
        now: Instant,
        clock: i64,
    ) -> Step<'a> {
        let lives = |uid: &str| pods.iter().any(|pod| *pod.life.uid == *uid);
        self.trials.retain(|uid, _| lives(uid));
        self.left.retain(|uid, _| lives(uid));
        if let Some(wait) = self.shown(monitor, pods, now) {
            return Step::Wait(wait);
        }
        let mut waits = None;
        for exporter in carried(monitor, pods) {
            match self.trial(&exporter, now, clock) {
                Some(Verdict::Failed(why)) => {
                    let pod = exporter.pod;
                    return self.paused(now).map_or(Step::Back { pod, why }, Step::Pause);
                }
                Some(Verdict::Open(wait)) => waits = Some(waits.map_or(wait, |least: Duration| least.min(wait))),
                None => {}
            }
        }
        if let Some(wait) = waits {
            return Step::Wait(wait);
        }
        let mut exporters = carried(monitor, pods);
        // A new pod with the image says as much about it as one that was changed.
        if exporters.any(|exporter| exporter.image == wanted && *exporter.state != State::Running)
            || failed(monitor, pods, wanted).is_some()
        {
            return Step::Rest;
        }
        let leaves = |e: &Carried<'_>| {
            let left = self.leaves(e, wanted);
            left.is_some_and(|left| left.again.is_none_or(|again| again > now))
        };
        // A pod that waits for a node or a volume would let the image fail for it. One that runs says most about the image.
        let next = carried(monitor, pods)
            .filter(|e| e.image != wanted && *e.state != State::Starting && !leaves(e))
            .min_by_key(|e| *e.state != State::Running);
        let Some(next) = next else { return Step::Rest };
        self.paused(now).map_or(Step::Update(next.pod), Step::Pause)
    }

    /// How long to wait for the watch to show what was written; nothing if it has, or never will.
    fn shown(&mut self, monitor: &str, pods: &[Selected], now: Instant) -> Option<Duration> {
        let written = self.written.take()?;
        let seen = carried(monitor, pods).find(|exporter| exporter.pod.life.uid == written.uid);
        let seen = seen.filter(|exporter| *exporter.image != *written.image)?;
        let left = SHOWN.saturating_sub(now.saturating_duration_since(written.at));
        if left.is_zero() {
            // The API server took it, so a webhook has made another image of it, and would again.
            let why = format!("something changes the image back to {}", seen.image);
            self.leave(seen.pod, &written.image, why);
            return None;
        }
        self.written = Some(written);
        Some(left)
    }

    /// How a change of this exporter does; nothing if there is none, or it is done.
    fn trial(&mut self, exporter: &Carried<'_>, now: Instant, clock: i64) -> Option<Verdict> {
        let life = &exporter.pod.life;
        let note = life
            .update
            .as_ref()
            .filter(|note| is_open(note, exporter.image, clock))?;
        let begun = || Trial {
            image: exporter.image.into(),
            begun: now,
            runs: None,
            over: false,
        };
        let trial = self.trials.entry(life.uid.clone()).or_insert_with(begun);
        if *trial.image != *exporter.image {
            *trial = begun();
        }
        if trial.over {
            return None;
        }
        let replaced = is_replaced(life, note);
        if replaced && *exporter.state == State::Running {
            let since = match &trial.runs {
                Some((container, since)) if *container == life.container => *since,
                _ => now,
            };
            trial.runs = Some((life.container.clone(), since));
            let left = SETTLING.saturating_sub(now.saturating_duration_since(since));
            if left.is_zero() {
                trial.over = true;
                return None;
            }
            return Some(Verdict::Open(left));
        }
        trial.runs = None;
        let left = STARTING.saturating_sub(now.saturating_duration_since(trial.begun));
        match exporter.state {
            // An exporter that did not run before says nothing by not running for a moment longer; and one that has ended is
            // the old one, or is about to be started again.
            State::NoImage(why) | State::Failing(why) if (note.ran || replaced) && !life.ended => {
                Some(Verdict::Failed(why.to_string()))
            }
            _ if left.is_zero() => Some(Verdict::Failed(format!("not running after {} s", STARTING.as_secs()))),
            _ => Some(Verdict::Open(left)),
        }
    }

    /// Why pods stay as they are: the first that can't be changed.
    #[must_use]
    pub fn left(&self, monitor: &str, pods: &[Selected], wanted: &str) -> Option<String> {
        carried(monitor, pods).find_map(|exporter| {
            let left = self.leaves(&exporter, wanted)?;
            Some(format!(
                "pod {} can't be changed in place ({})",
                exporter.pod.pod, left.why
            ))
        })
    }
}

/// Whether a change that nobody looks after any more is undone: it was begun not long ago, and its container is not seen to run.
#[must_use]
pub fn is_undone(life: &Life, image: &str, state: &State, clock: i64) -> bool {
    let note = life.update.as_ref().filter(|note| is_open(note, image, clock));
    note.is_some_and(|note| !is_replaced(life, note) || *state != State::Running)
}

/// Whether a pod's exporter was changed to the image that it has, so short a time ago that it may fail for that reason.
fn is_open(note: &Note, image: &str, clock: i64) -> bool {
    note.failed.is_none() && *note.to == *image && clock.saturating_sub(note.at).saturating_abs() <= TRIAL
}

fn is_replaced(life: &Life, note: &Note) -> bool {
    !life.container.is_empty() && life.container != note.container
}

/// Why the wanted image is given to no further pod: one of them did not run with it.
#[must_use]
pub fn failed(monitor: &str, pods: &[Selected], wanted: &str) -> Option<String> {
    carried(monitor, pods).find_map(|exporter| {
        let note = exporter.pod.life.update.as_ref()?;
        let why = note.failed.as_ref().filter(|_| *note.to == *wanted)?;
        Some(format!(
            "image {wanted} did not run in pod {} ({why}), which has got its old one back",
            exporter.pod.pod
        ))
    })
}

enum Verdict {
    Open(Duration),
    Failed(String),
}

/// A pod with the monitor's exporter.
struct Carried<'a> {
    pod: &'a Selected,
    image: &'a str,
    state: &'a State,
}

fn carried<'a>(monitor: &'a str, pods: &'a [Selected]) -> impl Iterator<Item = Carried<'a>> {
    pods.iter().filter_map(move |pod| match &pod.exporter {
        Exporter::Injected {
            monitor: by,
            image,
            state,
            ..
        } if **by == *monitor => Some(Carried { pod, image, state }),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
