//! Channels that prometheus-operator refuses. It says so by an Event on the `AlertmanagerConfig`, and nowhere else.
//!
//! Whoever may create Events in a namespace may create such ones, so only those of monitors that exist are kept, and few of each.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::events::v1::Event as ClusterEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;

use super::key::{Key, Queue};
use super::monitors::Monitors;
use super::owned::{Owned, parse_version};
use crate::api::status::RefusedChannel;
use crate::plan::{Kind, Object};

/// Which Events are watched.
pub const FIELDS: &str = "reason=InvalidConfiguration,regarding.kind=AlertmanagerConfig";
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

/// The refusals of a monitor by the name of the object.
type Refused = HashMap<Box<str>, Vec<Refusal>>;
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

    /// Takes in what the watch says. The monitors have to be listed before.
    pub fn observe(&self, event: Event<ClusterEvent>) {
        match event {
            Event::Init => lock(&self.listed).clear(),
            Event::InitApply(event) => {
                if let Some((key, object, refusal)) = self.read(event) {
                    keep(lock(&self.listed).entry(key).or_default(), object, refusal);
                }
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut *lock(&self.listed));
                let mut all = lock(&self.all);
                let before = std::mem::replace(&mut *all, listed);
                let keys: HashSet<&Key> = before.keys().chain(all.keys()).collect();
                for key in keys.into_iter().filter(|key| before.get(*key) != all.get(*key)) {
                    self.queue.push(key);
                }
            }
            Event::Apply(event) => {
                if let Some((key, object, refusal)) = self.read(event) {
                    keep(lock(&self.all).entry(key.clone()).or_default(), object, refusal);
                    self.queue.push(&key);
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
                self.queue.push(&key);
            }
        }
    }

    /// Forgets a monitor that is gone.
    pub fn forget(&self, key: &Key) {
        lock(&self.all).remove(key);
    }

    /// What an Event says of a monitor that exists.
    fn read(&self, event: ClusterEvent) -> Option<(Key, Box<str>, Refusal)> {
        read(event).filter(|(key, ..)| self.monitors.get(key).is_some())
    }

    /// The channels of a monitor that are refused as they stand now.
    #[must_use]
    pub fn of(&self, key: &Key, objects: &[Object], owned: &Owned) -> Vec<RefusedChannel> {
        let all = lock(&self.all);
        let Some(of) = all.get(key) else { return Vec::new() };
        let routes = objects.iter().filter(|object| object.kind == Kind::AlertmanagerConfig);
        let mut refused: Vec<_> = routes
            .filter_map(|object| {
                let version = owned.version(key, object.kind, &object.name)?;
                let latest = of
                    .get(object.name.as_str())?
                    .iter()
                    .filter(|refusal| refusal.version == version)
                    .max_by_key(|refusal| moment(refusal))?;
                let channel = object.name.split_once('.').map_or("inhibit", |(_, channel)| channel);
                Some(RefusedChannel {
                    channel: channel.into(),
                    message: latest.message.clone(),
                    time: latest.time.clone(),
                })
            })
            .collect();
        refused.sort_by(|a, b| a.channel.cmp(&b.channel));
        refused
    }
}

/// Keeps a refusal in place of an earlier telling of it, or of the oldest.
fn keep(refused: &mut Refused, object: Box<str>, refusal: Refusal) {
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
fn read(event: ClusterEvent) -> Option<(Key, Box<str>, Refusal)> {
    let regarding = event.regarding?;
    if event.reason.as_deref() != Some("InvalidConfiguration")
        || regarding.kind.as_deref() != Some("AlertmanagerConfig")
    {
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
    Some((key, object.into(), refusal))
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::monitors;
    use crate::operator::owned::Written;

    fn world() -> (Refusals, Owned) {
        let (queue, (monitors, mut feed)) = (Queue::default(), monitors::pair());
        let monitor = serde_json::from_value(json!({
            "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": {"namespace": "bots", "name": "rosey"},
            "spec": {"environment": "test", "selector": {}},
        }))
        .unwrap();
        feed.apply_watcher_event(&Event::Apply(monitor));
        (Refusals::new(monitors, queue.clone()), Owned::new(queue))
    }

    fn event(version: &str, note: &str) -> ClusterEvent {
        serde_json::from_value(json!({
            "metadata": {"name": "e", "namespace": "bots"}, "eventTime": "2026-01-01T00:00:00.123456Z",
            "reason": "InvalidConfiguration", "note": note,
            "regarding": {"kind": "AlertmanagerConfig", "namespace": "bots", "name": "rosey.ops", "resourceVersion": version},
        }))
        .unwrap()
    }

    #[test]
    fn a_refusal_holds_for_the_version_that_was_refused_and_as_long_as_its_event() {
        let ((refusals, owned), key) = (world(), Key::new("bots", "rosey"));
        let objects = [Object {
            kind: Kind::AlertmanagerConfig,
            name: "rosey.ops".into(),
            json: json!({}),
        }];
        let wrote = |version| {
            owned.record(
                &key,
                "m",
                Kind::AlertmanagerConfig,
                "rosey.ops",
                Written {
                    uid: "u".into(),
                    version,
                    hash: 1,
                },
            );
        };
        refusals.observe(Event::Apply(event(
            "7",
            "x was rejected due to invalid configuration: key \"a\" not found",
        )));
        wrote(7);
        let refused = refusals.of(&key, &objects, &owned);
        assert_eq!(
            (refused[0].channel.as_str(), refused[0].message.as_str()),
            ("ops", "key \"a\" not found")
        );
        assert_eq!(refused[0].time.as_ref().unwrap().0.to_string(), "2026-01-01T00:00:00Z");
        wrote(8);
        assert!(refusals.of(&key, &objects, &owned).is_empty());
        wrote(7);
        refusals.observe(Event::Delete(event("7", "")));
        assert!(refusals.of(&key, &objects, &owned).is_empty());
    }

    #[test]
    fn events_are_kept_of_monitors_that_exist_and_no_more_than_the_latest() {
        let (refusals, _) = world();
        let of = |monitor: &str, object: usize, n: usize| {
            let mut event = event("7", "no");
            event.metadata.name = Some(format!("{object}-{n}"));
            event.event_time =
                serde_json::from_value(json!(format!("2026-01-01T00:{object:02}:{n:02}.000000Z"))).unwrap();
            event.regarding.as_mut().unwrap().name = Some(format!("{monitor}.{object}"));
            event
        };
        let kept = || {
            let all = lock(&refusals.all);
            let objects = all.values().flat_map(HashMap::values);
            (all.len(), objects.clone().count(), objects.map(Vec::len).sum::<usize>())
        };
        refusals.observe(Event::Apply(of("stranger", 1, 1)));
        let mut elsewhere = of("rosey", 1, 1);
        elsewhere.metadata.namespace = Some("default".into());
        refusals.observe(Event::Apply(elsewhere));
        assert_eq!(kept(), (0, 0, 0));
        for n in 0..60 {
            refusals.observe(Event::Apply(of("rosey", 0, n)));
        }
        assert_eq!(kept(), (1, 1, EVENTS));
        let key = Key::new("bots", "rosey");
        let names: Vec<_> = lock(&refusals.all)[&key]["rosey.0"]
            .iter()
            .map(|refusal| refusal.event.clone())
            .collect();
        assert_eq!(names, ["0-56", "0-57", "0-58", "0-59"].map(Box::from));
        for object in 0..100 {
            refusals.observe(Event::Apply(of("rosey", object % 60, 0)));
            let mut other = of("rosey", 0, 0);
            other.regarding.as_mut().unwrap().name = Some(format!("rosey.x{object}"));
            refusals.observe(Event::Apply(other));
        }
        assert!(kept().1 <= OBJECTS, "{:?}", kept());
        refusals.forget(&key);
        assert_eq!(kept(), (0, 0, 0));
    }

    #[test]
    fn what_may_be_a_secret_is_left_out() {
        for (message, clean) in [
            (
                "key \"discord\" in secret \"rosey-channels\" not found",
                "key \"discord\" in secret \"rosey-channels\" not found",
            ),
            (
                "discord[0]: parse \"abcdef\": invalid URI for request",
                "discord[0]: parse …: invalid URI for request",
            ),
            ("bad URL https://h/s3cret here", "bad URL … here"),
            ("bad \"https://h/s3cret\"", "bad …"),
        ] {
            assert_eq!(without_secrets(message), clean);
        }
    }
}
