//! Channels and scrapes that prometheus-operator refuses. It says so by an Event on the `AlertmanagerConfig` or `PodMonitor`, and
//! nowhere else.
//!
//! Whoever may create Events in a namespace may create such ones, so only those of monitors that exist are kept, and few of each.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::events::v1::Event as ClusterEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;

use super::area::Area;
use super::key::{Key, Queue};
use super::monitors::Monitors;
use super::owned::{Owned, parse_version};
use crate::api::status::RefusedChannel;
use crate::plan::{Kind, Object};

/// Which Events are watched. A selector can't name two kinds.
pub const FIELDS: &str = "reason=InvalidConfiguration";
const LONGEST: usize = 512;

/// Events that are kept of an object: the latest.
const EVENTS: usize = 4;
/// Objects that are kept of a monitor: more than it may have channels.
const OBJECTS: usize = 64;

#[derive(Clone, Debug, PartialEq)]
struct Refusal {
    /// Name of the Event.
    event: Box<str>,
    /// Version of the object that was refused; a later one may be fine.
    version: u64,
    message: String,
    time: Option<Time>,
}

/// An object by kind and name: a monitor's `PodMonitor` is called as one of its `AlertmanagerConfigs` is.
type Named = (Kind, Box<str>);
/// The refusals of a monitor by its objects.
type Refused = HashMap<Named, Vec<Refusal>>;
type All = HashMap<Key, Refused>;

/// What prometheus-operator has refused.
#[derive(Debug)]
pub struct Refusals {
    all: Mutex<All>,
    listed: Mutex<All>,
    monitors: Monitors,
    queue: Queue,
}

impl Refusals {
    /// Knows none yet, and tells `queue` which monitors a refusal concerns.
    #[must_use]
    pub fn new(monitors: Monitors, queue: Queue) -> Self {
        Self {
            all: Mutex::default(),
            listed: Mutex::default(),
            monitors,
            queue,
        }
    }

    /// Takes in what the watch of an area says. The monitors have to be listed before.
    pub fn observe(&self, area: &Area, event: Event<ClusterEvent>) {
        match event {
            Event::Init => lock(&self.listed).retain(|key, _| !area.has(&key.namespace)),
            Event::InitApply(event) => {
                if let Some((key, object, refusal)) = self.read(event) {
                    keep(lock(&self.listed).entry(key).or_default(), object, refusal);
                }
            }
            Event::InitDone => {
                let listed = area.take(&mut lock(&self.listed), |key| &key.namespace);
                let mut all = lock(&self.all);
                let before = area.take(&mut all, |key| &key.namespace);
                all.extend(listed);
                let here = all.keys().filter(|key| area.has(&key.namespace));
                let keys: HashSet<&Key> = before.keys().chain(here).collect();
                for key in keys.into_iter().filter(|key| before.get(*key) != all.get(*key)) {
                    self.queue.gather(key);
                }
            }
            Event::Apply(event) => {
                if let Some((key, object, refusal)) = self.read(event) {
                    keep(lock(&self.all).entry(key.clone()).or_default(), object, refusal);
                    self.queue.gather(&key);
                }
            }
            Event::Delete(event) => {
                let Some((key, object, refusal)) = read(event) else {
                    return;
                };
                let mut all = lock(&self.all);
                let Some(refused) = all.get_mut(&key) else { return };
                if let Some(of) = refused.get_mut(&object) {
                    of.retain(|other| other.event != refusal.event);
                }
                refused.retain(|_, of| !of.is_empty());
                if refused.is_empty() {
                    all.remove(&key);
                }
                drop(all);
                self.queue.gather(&key);
            }
        }
    }

    /// Forgets a monitor that is gone.
    pub fn forget(&self, key: &Key) {
        lock(&self.all).remove(key);
    }

    /// What an Event says of a monitor that exists.
    fn read(&self, event: ClusterEvent) -> Option<(Key, Named, Refusal)> {
        read(event).filter(|(key, ..)| self.monitors.get(key).is_some())
    }

    /// The channels of a monitor that are refused as they stand now.
    #[must_use]
    pub fn of(&self, key: &Key, objects: &[Object], owned: &Owned) -> Vec<RefusedChannel> {
        let mut refused: Vec<_> = self
            .standing(key, Kind::AlertmanagerConfig, objects, owned)
            .into_iter()
            .map(|(name, latest)| RefusedChannel {
                channel: name.split_once('.').map_or("inhibit", |(_, channel)| channel).into(),
                message: latest.message,
                time: latest.time,
            })
            .collect();
        refused.sort_by(|a, b| a.channel.cmp(&b.channel));
        refused
    }

    /// Why the scrape of a monitor is refused as it stands now, and since when that is known.
    #[must_use]
    pub fn of_scrape(&self, key: &Key, objects: &[Object], owned: &Owned) -> Option<(String, Option<Time>)> {
        let refused = self.standing(key, Kind::PodMonitor, objects, owned);
        refused
            .into_iter()
            .next()
            .map(|(_, latest)| (latest.message, latest.time))
    }

    /// The latest refusal of each object of a kind, where it speaks of the object as it stands now.
    fn standing(&self, key: &Key, kind: Kind, objects: &[Object], owned: &Owned) -> Vec<(String, Refusal)> {
        let all = lock(&self.all);
        let Some(of) = all.get(key) else { return Vec::new() };
        let objects = objects.iter().filter(|object| object.kind == kind);
        let standing = objects.filter_map(|object| {
            let version = owned.version(key, kind, &object.name)?;
            let latest = of
                .get(&(kind, object.name.as_str().into()))?
                .iter()
                .filter(|refusal| refusal.version == version)
                .max_by_key(|refusal| moment(refusal))?;
            Some((object.name.clone(), latest.clone()))
        });
        standing.collect()
    }
}

/// Keeps a refusal in place of an earlier telling of it, or of the oldest.
fn keep(refused: &mut Refused, object: Named, refusal: Refusal) {
    let of = refused.entry(object).or_default();
    of.retain(|other| other.event != refusal.event);
    of.push(refusal);
    if of.len() > EVENTS {
        of.sort_by_key(moment);
        of.remove(0);
    }
    if refused.len() > OBJECTS {
        let last = |of: &[Refusal]| of.iter().map(moment).max();
        let oldest = refused.iter().min_by_key(|(_, of)| last(of));
        if let Some(oldest) = oldest.map(|(object, _)| object.clone()) {
            refused.remove(&oldest);
        }
    }
}

fn moment(refusal: &Refusal) -> Option<Timestamp> {
    refusal.time.as_ref().map(|time| time.0)
}

fn lock(all: &Mutex<All>) -> MutexGuard<'_, All> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The monitor's name is what stands before the first dot of the object's.
fn read(event: ClusterEvent) -> Option<(Key, Named, Refusal)> {
    let regarding = event.regarding?;
    let kind = [Kind::AlertmanagerConfig, Kind::PodMonitor]
        .into_iter()
        .find(|kind| regarding.kind.as_deref() == Some(kind.api_resource().kind.as_str()))?;
    if event.reason.as_deref() != Some("InvalidConfiguration") {
        return None;
    }
    let time = event
        .series
        .map(|series| series.last_observed_time.0)
        .or(event.event_time.map(|time| time.0));
    let (namespace, object) = (regarding.namespace?, regarding.name?);
    if event.metadata.namespace.as_deref() != Some(&*namespace) || object.len() > 253 {
        return None;
    }
    let key = Key::new(&namespace, object.split('.').next().unwrap_or_default());
    let refusal = Refusal {
        event: event.metadata.name?.into(),
        version: parse_version(regarding.resource_version.as_deref()),
        message: without_secrets(&event.note.unwrap_or_default()),
        time: time
            .and_then(|time| Timestamp::from_second(time.as_second()).ok())
            .map(Time),
    };
    Some((key, (kind, object.into()), refusal))
}

/// The message without what may come from a Secret: prometheus-operator quotes a URL that it can't parse, and such a URL
/// is the password of a channel.
fn without_secrets(message: &str) -> String {
    let message = message
        .split_once("invalid configuration: ")
        .map_or(message, |(_, cause)| cause);
    let mut clean = String::new();
    let mut parsed = false;
    for (n, part) in message.split('"').enumerate() {
        let quoted = n % 2 == 1;
        let name = part.len() <= 253 && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        match (quoted, name && !parsed) {
            (true, true) => clean.extend(["\"", part, "\""]),
            (true, false) => clean.push('…'),
            (false, _) => {
                let words = part
                    .split(' ')
                    .map(|word| if word.contains("://") { "…" } else { word });
                clean.push_str(&words.collect::<Vec<_>>().join(" "));
            }
        }
        parsed = !quoted && part.trim_end().ends_with("parse");
    }
    match clean.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

#[cfg(test)]
mod tests;
