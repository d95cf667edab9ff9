//! One refusal: what the Event of a workload's controller says, and whether the exporter has a part in it.

use std::collections::BTreeSet;

use k8s_openapi::api::events::v1::Event as ClusterEvent;
use serde_json::Value;

use crate::sidecar::CONTAINER;

/// How much of a refusal is kept, in characters.
const LONGEST: usize = 512;

/// What makes pods, and who says that it can't.
const CONTROLLERS: [(&str, &str); 4] = [
    ("ReplicaSet", "replicaset-controller"),
    ("StatefulSet", "statefulset-controller"),
    ("DaemonSet", "daemonset-controller"),
    ("Job", "job-controller"),
];

/// A workload whose pods were refused by a quota or a limit range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kind of the workload, one of four.
    pub kind: &'static str,
    /// Name of the workload.
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// When it happened last, in seconds since 1970.
    pub seen: i64,
    why: Box<str>,
}

/// Reads an Event. `None` unless a quota or a limit range refused pods of a workload.
#[must_use]
pub fn read(event: ClusterEvent) -> Option<Refusal> {
    let regarding = event.regarding?;
    let (kind, controller) = CONTROLLERS
        .into_iter()
        .find(|(kind, _)| regarding.kind.as_deref() == Some(kind))?;
    let source = event.deprecated_source.and_then(|source| source.component);
    let by_controller = [event.reporting_controller, source]
        .into_iter()
        .flatten()
        .any(|by| by == controller);
    if event.reason.as_deref() != Some("FailedCreate") || !by_controller {
        return None;
    }
    let times = [
        event.series.map(|series| series.last_observed_time.0),
        event.deprecated_last_timestamp.map(|time| time.0),
        event.event_time.map(|time| time.0),
    ];
    Some(Refusal {
        kind,
        name: regarding.name?.into(),
        uid: regarding.uid?.into(),
        seen: times.into_iter().flatten().max()?.as_second(),
        why: why(&event.note?)?,
    })
}

/// The cause, without what differs each time: the pod's name, and what else uses the quota.
fn why(note: &str) -> Option<Box<str>> {
    let (_, pod) = note.split_once("pods \"")?;
    let why = pod.split_once('"')?.1.strip_prefix(" is forbidden: ")?;
    let limits = ["exceeded quota: ", "failed quota: "]
        .iter()
        .any(|quota| why.starts_with(quota))
        || [" usage per ", " ratio per "].iter().any(|range| why.contains(range));
    if !limits {
        return None;
    }
    let steady = match why.split_once(", used: ") {
        Some((before, after)) => match after.find(", limited: ") {
            Some(limited) => format!("{before}{}", &after[limited..]),
            None => before.to_owned(),
        },
        None => why.to_owned(),
    };
    let line: String = steady.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some(match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]).into(),
        None => line.into(),
    })
}

impl Refusal {
    /// What to tell the monitor whose exporter would get these resources. `None` if the exporter has no part in it.
    #[must_use]
    pub fn message(&self, resources: &Value) -> Option<String> {
        let mend = if let Some(exceeded) = self.why.strip_prefix("exceeded quota: ") {
            let requested = exceeded
                .split_once(", requested: ")
                .map_or("", |(_, requested)| requested);
            let requested = requested.split(", limited: ").next().unwrap_or_default();
            let names = requested.split(',').filter_map(|amount| amount.split_once('='));
            let counted = counted(resources);
            if !names.into_iter().any(|(name, _)| counted.contains(name.trim())) {
                return None;
            }
            "raise the quota or set spec.exporter.resources"
        } else if self.why.starts_with("failed quota: ") {
            // Older API servers don't say which container lacks what the quota wants.
            if self.why.contains(" for: ") && !self.why.contains(CONTAINER) {
                return None;
            }
            "set spec.exporter.resources"
        } else {
            "change the limit range or set spec.exporter.resources"
        };
        let Self { kind, name, why, .. } = self;
        let kind = kind.to_lowercase();
        let asks = asks(resources).map(|asks| format!("; {asks}")).unwrap_or_default();
        Some(format!(
            "{kind}/{name}: pods \"{name}-\" is forbidden: {why}{asks}; {mend}"
        ))
    }
}

/// The amounts under `requests` or `limits`, but not those of nothing.
fn amounts<'a>(resources: &'a Value, of: &str) -> Vec<(&'a str, &'a str)> {
    let all = resources[of].as_object().into_iter().flatten();
    all.filter_map(|(name, amount)| Some((name.as_str(), amount.as_str()?)))
        .filter(|(_, amount)| *amount != "0")
        .collect()
}

/// What a quota counts of these resources, by its own names.
fn counted(resources: &Value) -> BTreeSet<String> {
    let (requests, limits) = (amounts(resources, "requests"), amounts(resources, "limits"));
    // A limit without a request is a request too.
    let requests = requests.iter().chain(&limits);
    let requests = requests.flat_map(|(name, _)| [(*name).to_owned(), format!("requests.{name}")]);
    requests
        .chain(limits.iter().map(|(name, _)| format!("limits.{name}")))
        .collect()
}

fn asks(resources: &Value) -> Option<String> {
    let listed = |of| {
        let amounts = amounts(resources, of).into_iter();
        let words: Vec<_> = amounts.map(|(name, amount)| format!("{name} {amount}")).collect();
        words.join(" and ")
    };
    match (listed("requests"), listed("limits")) {
        (requests, limits) if requests.is_empty() && limits.is_empty() => None,
        (requests, limits) if limits.is_empty() => Some(format!("with the exporter a pod asks for {requests} more")),
        (requests, limits) if requests.is_empty() => {
            Some(format!("with the exporter a pod is limited to {limits} more"))
        }
        (requests, limits) => Some(format!(
            "with the exporter a pod asks for {requests} more (limits: {limits})"
        )),
    }
}
