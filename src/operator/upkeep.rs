//! Keeps the exporters of pods that run current and present, where the operator may: their image is changed in place, and pods
//! without one are evicted, so that they come back with one.
//!
//! Whose turn it is, [`super::sidecars`] decides; what is written, [`crate::plan::injection::update`]. Here is the talking: a pod
//! is read before it is written, because the caches keep little of it and may be late.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tracing::warn;

use super::controller::Context;
use super::key::Key;
use super::metrics::Eviction;
use super::sidecars::{Hindrance, Remedies, Repair, Selected, Update, repair, update};
use crate::api::RoseyMonitor;
use crate::api::exporter;
use crate::plan::Platform;
use crate::plan::injection::image;
use crate::plan::injection::update::{back, update as planned};

mod abandoned;
mod outcome;
mod slots;
mod turn;

pub use abandoned::abandoned;

use outcome::{evicted, put_back, updated};
use slots::Slots;
use turn::Turn;

/// When a pod is tried again that could not be read or written for a reason that passes.
const AGAIN: Duration = Duration::from_secs(10);
/// When the next pod is looked at, after one that is left as it is or is gone.
const NEXT: Duration = Duration::from_millis(100);
/// When it is asked again whether the operator has got its rights.
const RIGHTS: Duration = Duration::from_secs(60);

/// What the operator may do to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Change the exporter's image in place.
    pub update: bool,
    /// Evict pods without an exporter, where their monitor asks for it.
    pub repair: bool,
}

impl Settings {
    /// Whether it may do anything.
    #[must_use]
    pub fn any(self) -> bool {
        self.update || self.repair
    }
}

/// What was done for one monitor's pods, and is to be said of it.
#[derive(Debug, Default)]
pub struct Kept {
    update: Option<Updates>,
    repair: Option<Repairs>,
    /// When it is to be looked at again.
    pub again: Option<Duration>,
    share: Share,
}

/// Whether a monitor has one of the turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Share {
    /// It needs none.
    #[default]
    None,
    /// It waits for one.
    Waits,
    /// It has one.
    Has,
}

#[derive(Debug)]
enum Updates {
    On,
    Left(String),
    Failed(String),
}

#[derive(Debug)]
enum Repairs {
    NotAllowed,
    On(Option<String>),
    Stopped(String),
}

impl Kept {
    /// What is to be said.
    #[must_use]
    pub fn remedies(&self) -> Remedies<'_> {
        Remedies {
            update: match &self.update {
                None => Update::Off,
                Some(Updates::On) => Update::On,
                Some(Updates::Left(why)) => Update::Left(why),
                Some(Updates::Failed(why)) => Update::Failed(why),
            },
            repair: match &self.repair {
                None => Repair::NotAsked,
                Some(Repairs::NotAllowed) => Repair::NotAllowed,
                Some(Repairs::On(waits)) => Repair::On(waits.as_deref()),
                Some(Repairs::Stopped(why)) => Repair::Stopped(why),
            },
        }
    }

    fn wait(&mut self, duration: Duration) {
        self.again = Some(self.again.map_or(duration, |again| again.min(duration)));
    }
}

/// One monitor at one moment.
struct Round<'a> {
    turn: Turn<'a>,
    monitor: &'a RoseyMonitor,
    /// Its pods.
    pods: Vec<Selected>,
    /// Whether anything new may begin.
    begins: bool,
}

#[derive(Debug, Default)]
struct Memory {
    update: update::Memory,
    repair: repair::Memory,
}

/// Keeps exporters current and present.
#[derive(Debug)]
pub struct Upkeep {
    settings: Settings,
    registered: watch::Sender<BTreeSet<String>>,
    memories: Mutex<HashMap<Key, Memory>>,
    slots: Slots,
}

impl Upkeep {
    /// Has done nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            registered: watch::Sender::default(),
            memories: Mutex::default(),
            slots: Slots::default(),
        }
    }

    /// Where it is told whose namespaces' pods the API server sends to the webhook.
    #[must_use]
    pub fn registered(&self) -> watch::Sender<BTreeSet<String>> {
        self.registered.clone()
    }

    /// Forgets a monitor that is gone; returns who is to be looked at instead.
    pub fn forget(&self, key: &Key) -> Option<Key> {
        self.lock().remove(key);
        self.slots.release(key)
    }

    /// Forgets everything: another replica may have gone on since.
    pub fn clear(&self) {
        self.lock().clear();
        self.slots.clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the next thing for the pods of a monitor whose objects are all `in_place`.
    pub async fn keep(
        &self,
        monitor: &RoseyMonitor,
        platform: &Platform,
        hindrance: Hindrance<'_>,
        in_place: bool,
        context: &Context,
    ) -> Kept {
        let asked = monitor.spec.exporter.repair == exporter::Repair::Restart;
        let mut kept = Kept {
            update: self.settings.update.then_some(Updates::On),
            repair: match (asked, self.settings.repair) {
                (false, _) => None,
                (true, false) => Some(Repairs::NotAllowed),
                (true, true) => Some(Repairs::On(None)),
            },
            ..Kept::default()
        };
        if !self.settings.any() {
            return kept;
        }
        let key = Key::of(monitor);
        let round = Round {
            turn: Turn {
                key: key.clone(),
                platform,
                context,
            },
            monitor,
            pods: context.pods.selected(monitor),
            // Where nothing is injected, a new pod would have no exporter at all.
            begins: in_place && hindrance.off.is_none(),
        };
        // A monitor is reconciled by one task at a time.
        let mut memory = self.lock().remove(&key).unwrap_or_default();
        if self.settings.update {
            self.update(&round, &mut memory.update, &mut kept).await;
        }
        if asked && self.settings.repair && round.begins && kept.share == Share::None {
            self.repair(&round, &mut memory.repair, &mut kept, hindrance).await;
        }
        if context.monitors.get(&key).is_some() {
            self.lock().insert(key.clone(), memory);
        }
        match kept.share {
            Share::Has => self.slots.hold(&key),
            Share::Waits => {}
            Share::None => {
                if let Some(next) = self.slots.release(&key) {
                    context.queue.push(&next);
                }
            }
        }
        kept
    }

    fn take(&self, key: &Key) -> Share {
        if self.slots.take(key) { Share::Has } else { Share::Waits }
    }

    async fn update(&self, round: &Round<'_>, memory: &mut update::Memory, kept: &mut Kept) {
        let turn = &round.turn;
        let (name, wanted) = (&*turn.key.name, image(round.monitor, turn.platform));
        let clock = Timestamp::now().as_second();
        match memory.next(name, &round.pods, wanted, Instant::now(), clock) {
            update::Step::Rest => {}
            // What has begun is brought to its end all the same: a pod that is on trial may not be ready.
            update::Step::Update(_) if !round.begins => {}
            update::Step::Wait(duration) => {
                kept.share = Share::Has;
                kept.wait(duration);
            }
            update::Step::Pause(duration) => kept.wait(duration),
            update::Step::Update(pod) => {
                kept.share = self.take(&turn.key);
                if kept.share == Share::Has {
                    let monitors = turn.context.monitors.all_in(&turn.key.namespace);
                    let monitors = monitors.iter().map(|monitor| &**monitor);
                    let plan = |live: &_| planned(live, round.monitor, monitors, turn.platform, clock);
                    let changed = turn.change(pod, plan).await;
                    updated(round, pod, wanted, changed, memory, kept);
                }
            }
            update::Step::Back { pod, why } => {
                kept.share = Share::Has;
                warn!(monitor = %turn.key, pod = pod.name(), why, "the exporter does not run; it gets its old image back");
                let changed = turn.change(pod, |live| back(live, turn.platform, &why)).await;
                put_back(round, pod, changed, memory, kept);
            }
        }
        if let Some(why) = update::failed(name, &round.pods, wanted) {
            kept.update = Some(Updates::Failed(why));
        } else if let Some(why) = memory.left(name, &round.pods, wanted) {
            kept.update = Some(Updates::Left(why));
        }
        if let Some(duration) = memory.asks_again(Instant::now()) {
            kept.wait(duration);
        }
    }

    async fn repair(&self, round: &Round<'_>, memory: &mut repair::Memory, kept: &mut Kept, hindrance: Hindrance<'_>) {
        let turn = &round.turn;
        let name = &*turn.key.name;
        let mut waits = None;
        match memory.next(name, &round.pods, Instant::now()) {
            repair::Step::Rest | repair::Step::Wait(None) => {}
            repair::Step::Wait(Some(duration)) => {
                if memory.awaits_one(Instant::now()) {
                    kept.share = Share::Has;
                }
                kept.wait(duration);
            }
            repair::Step::Evict(_) if hindrance.refused.is_some() => {
                waits = Some("waits until new pods are no longer refused");
                kept.wait(AGAIN);
            }
            repair::Step::Evict(_) if !self.registered.borrow().contains(&*turn.key.namespace) => {
                waits = Some("waits until the webhook is registered");
                kept.wait(AGAIN);
            }
            repair::Step::Evict(pod) => {
                kept.share = self.take(&turn.key);
                if kept.share == Share::Has {
                    let evicted = turn.evict(pod).await;
                    self::evicted(round, pod, evicted, memory, kept);
                } else {
                    waits = Some("waits for its turn");
                }
            }
            repair::Step::Mark(pod) => {
                warn!(monitor = %turn.key, pod = pod.name(), "a pod came back without an exporter; no further one is evicted");
                if let Err(error) = turn.mark(pod).await {
                    warn!(monitor = %turn.key, pod = pod.name(), %error, "the pod could not be marked");
                    kept.wait(AGAIN);
                } else {
                    turn.context.metrics.evicted(Eviction::InVain);
                }
            }
        }
        if let Some(duration) = memory.asks_again(Instant::now()) {
            kept.wait(duration);
        }
        kept.repair = Some(match repair::stopped(&round.pods) {
            Some(why) => Repairs::Stopped(why),
            None => Repairs::On(waits.map(str::to_owned).or_else(|| memory.waits(name, &round.pods))),
        });
    }
}

#[cfg(test)]
mod tests;
