//! Channels that prometheus-operator refuses. It says so by an Event on the `AlertmanagerConfig`, and nowhere else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::events::v1::Event as ClusterEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;

use super::key::{Key, Queue};
use super::owned::{Owned, parse_version};
use crate::api::status::RefusedChannel;
use crate::plan::{Kind, Object};

/// Which Events are watched.
pub const FIELDS: &str = "reason=InvalidConfiguration,regarding.kind=AlertmanagerConfig";
const LONGEST: usize = 512;

#[derive(Clone, Debug, PartialEq)]
struct Refusal {
    /// Version of the object that was refused; a later one may be fine.
    version: u64,
    message: String,
    time: Option<Time>,
}

/// Namespace and name of an `AlertmanagerConfig`.
type Place = (String, String);
/// By object, then by the name of the Event.
type All = HashMap<Place, HashMap<String, Refusal>>;

/// What prometheus-operator has refused.
#[derive(Debug)]
pub struct Refusals {
    all: Mutex<All>,
    listed: Mutex<All>,
    queue: Queue,
}

impl Refusals {
    /// Knows none yet, and tells `queue` which monitors a refusal concerns.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self {
            all: Mutex::default(),
            listed: Mutex::default(),
            queue,
        }
    }

    /// Takes in what the watch says.
    pub fn observe(&self, event: Event<ClusterEvent>) {
        match event {
            Event::Init => lock(&self.listed).clear(),
            Event::InitApply(event) => {
                if let Some((place, name, refusal)) = read(event) {
                    lock(&self.listed).entry(place).or_default().insert(name, refusal);
                }
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut *lock(&self.listed));
                let before = std::mem::replace(&mut *lock(&self.all), listed.clone());
                for place in before
                    .keys()
                    .chain(listed.keys())
                    .filter(|place| before.get(*place) != listed.get(*place))
                {
                    self.announce(place);
                }
            }
            Event::Apply(event) => {
                if let Some((place, name, refusal)) = read(event) {
                    lock(&self.all).entry(place.clone()).or_default().insert(name, refusal);
                    self.announce(&place);
                }
            }
            Event::Delete(event) => {
                let Some((place, name, _)) = read(event) else { return };
                let mut all = lock(&self.all);
                if let Some(of) = all.get_mut(&place) {
                    of.remove(&name);
                    if of.is_empty() {
                        all.remove(&place);
                    }
                }
                drop(all);
                self.announce(&place);
            }
        }
    }

    /// The channels of a monitor that are refused as they stand now.
    #[must_use]
    pub fn of(&self, key: &Key, objects: &[Object], owned: &Owned) -> Vec<RefusedChannel> {
        let all = lock(&self.all);
        let routes = objects.iter().filter(|object| object.kind == Kind::AlertmanagerConfig);
        let mut refused: Vec<_> = routes
            .filter_map(|object| {
                let version = owned.version(key, object.kind, &object.name)?;
                let of = all.get(&(key.namespace.to_string(), object.name.clone()))?.values();
                let latest = of
                    .filter(|refusal| refusal.version == version)
                    .max_by_key(|refusal| refusal.time.as_ref().map(|time| time.0))?;
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

    /// The monitor's name is what stands before the first dot of the object's.
    fn announce(&self, (namespace, name): &Place) {
        self.queue
            .push(&Key::new(namespace, name.split('.').next().unwrap_or_default()));
    }
}

fn lock(all: &Mutex<All>) -> MutexGuard<'_, All> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(event: ClusterEvent) -> Option<(Place, String, Refusal)> {
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
    let refusal = Refusal {
        version: parse_version(regarding.resource_version.as_deref()),
        message: without_secrets(&event.note.unwrap_or_default()),
        time: time
            .and_then(|time| Timestamp::from_second(time.as_second()).ok())
            .map(Time),
    };
    Some(((regarding.namespace?, regarding.name?), event.metadata.name?, refusal))
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
    use crate::operator::owned::Written;

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
        let queue = Queue::default();
        let refusals = Refusals::new(queue.clone());
        let (owned, key) = (Owned::new(queue), Key::new("bots", "rosey"));
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
