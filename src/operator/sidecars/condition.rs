//! The condition Injected: what the pods of a monitor say, in one sentence with the mend in it.

use std::collections::BTreeSet;

use super::Selected;
use super::record::{Exporter, State};

/// How many names a message lists before it says "and n more".
const NAMED: usize = 3;

/// Reason of the condition while further pods are refused.
pub const PODS_REFUSED: &str = "PodsRefused";

/// The condition Injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// Reason of the condition.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// Where pods get their exporter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Injecting {
    /// Nowhere: the operator registers no webhook.
    #[default]
    Nowhere,
    /// In every namespace but these.
    AllBut(BTreeSet<String>),
}

impl Injecting {
    /// Why pods of a namespace get none.
    #[must_use]
    pub fn off(&self, namespace: &str) -> Option<&'static str> {
        match self {
            Self::Nowhere => Some("the operator runs with --no-injection"),
            Self::AllBut(excluded) if excluded.contains(namespace) => {
                Some("none is put into pods of this namespace; move the bot and its monitor to another one")
            }
            Self::AllBut(_) => None,
        }
    }
}

/// What keeps pods from having an exporter, whatever they say of themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hindrance<'a> {
    /// How further pods are refused because of it.
    pub refused: Option<&'a str>,
    /// Why no pod of the namespace gets one.
    pub off: Option<&'a str>,
}

/// Judges the pods that a monitor selects. What keeps an exporter from running comes first, then pods that are refused because
/// of it, then pods without one.
#[must_use]
pub fn injected(monitor: &str, namespace: &str, pods: &[Selected], hindrance: Hindrance<'_>) -> Injected {
    let total = pods.len();
    if total == 0 && hindrance.refused.is_none() {
        return unknown("NoPods", "no pod matches spec.selector".into());
    }
    let ours = pods.iter().filter_map(|pod| match &pod.exporter {
        Exporter::Injected {
            monitor: by,
            image,
            state,
            ..
        } if **by == *monitor => Some((pod, image, state)),
        _ => None,
    });
    let bad = |reason, message| Injected {
        status: "False",
        reason,
        message,
    };

    let unpullable: Vec<_> = ours
        .clone()
        .filter(|(.., state)| matches!(state, State::NoImage(_)))
        .collect();
    if let Some((pod, image, State::NoImage(why))) = unpullable.first() {
        let n = unpullable.len();
        return bad(
            "ImagePull",
            format!(
                "image {image} can't be pulled in {n} of {total} pods ({why}, for example pod {})",
                pod.pod
            ),
        );
    }
    let failing: Vec<_> = ours
        .clone()
        .filter(|(.., state)| matches!(state, State::Failing(_)))
        .collect();
    if let Some((pod, _, State::Failing(why))) = failing.first() {
        let n = failing.len();
        return bad(
            "NotRunning",
            format!(
                "the exporter does not run in {n} of {total} pods ({why}, for example pod {})",
                pod.pod
            ),
        );
    }
    if let Some(refused) = hindrance.refused {
        return bad(PODS_REFUSED, refused.to_owned());
    }
    if let Some((reason, message)) = lacking(monitor, namespace, pods, hindrance.off) {
        return bad(reason, message);
    }
    if let Some((reason, message)) = unread(monitor, namespace, pods, hindrance.off) {
        return bad(reason, message);
    }
    let n = ours.filter(|(.., state)| **state == State::Starting).count();
    if n > 0 {
        return unknown(
            "Starting",
            format!("the exporter does not run yet in {n} of {total} pods"),
        );
    }
    Injected {
        status: "True",
        reason: "Injected",
        message: format!("every matching pod carries the exporter ({total})"),
    }
}

fn unknown(reason: &'static str, message: String) -> Injected {
    Injected {
        status: "Unknown",
        reason,
        message,
    }
}

/// What is to be said of the pods that carry no exporter of this monitor.
fn lacking(monitor: &str, namespace: &str, pods: &[Selected], off: Option<&str>) -> Option<(&'static str, String)> {
    let total = pods.len();
    let (mut skipped, mut missing, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for pod in pods {
        match &pod.exporter {
            Exporter::Skipped(why) => skipped.push((pod, why)),
            Exporter::Missing => missing.push(pod),
            Exporter::Injected { monitor: by, .. } if **by != *monitor => others.push(by),
            Exporter::Injected { .. } => {}
        }
    }
    let lacking = skipped.len() + missing.len() + others.len();
    if let Some(why) = off.filter(|_| lacking > 0) {
        let message = format!("{lacking} of {total} pods have no exporter: {why}");
        return Some(("InjectionOff", message));
    }
    // A new pod would be skipped, because two monitors select it, so there is nothing to restart yet.
    if let Some(other) = others.first() {
        let message = format!(
            "{} of {total} pods carry the exporter of monitor {other}; change spec.selector of one of the two",
            others.len()
        );
        return Some(("OtherMonitor", message));
    }
    if !missing.is_empty() {
        let owners = missing.iter().map(|pod| &*pod.owner).collect();
        let message = format!(
            "{} of {total} pods started before the monitor; run: {}",
            missing.len(),
            mend(&owners, namespace)
        );
        return Some(("PodsMissing", message));
    }
    let (pod, why) = skipped.first()?;
    let owners = skipped.iter().map(|(pod, _)| &*pod.owner).collect();
    let message = format!(
        "{} of {total} pods have no exporter, for example pod {}: {why}; once that is mended, run: {}",
        skipped.len(),
        pod.pod,
        mend(&owners, namespace)
    );
    Some(("Skipped", message))
}

/// What is to be said of the pods whose exporter can't read what the monitor names: their mounts are as old as they are.
fn unread(monitor: &str, namespace: &str, pods: &[Selected], off: Option<&str>) -> Option<(&'static str, String)> {
    let total = pods.len();
    let ours = |pod: &&Selected| matches!(&pod.exporter, Exporter::Injected { monitor: by, .. } if **by == *monitor);
    let late: Vec<_> = pods
        .iter()
        .filter(ours)
        .filter(|pod| !pod.unread.late.is_empty())
        .collect();
    if let Some(pod) = late.first() {
        let volumes = pod.unread.late.join(", ");
        let owners = late.iter().map(|pod| &*pod.owner).collect();
        let mend = off.map_or_else(
            || format!("run: {}", mend(&owners, namespace)),
            |off| format!("new pods would have no exporter at all: {off}"),
        );
        let n = late.len();
        return Some((
            "VolumesMissing",
            format!("{n} of {total} pods started before their exporter was to read volume {volumes}; {mend}"),
        ));
    }
    let left_out = || pods.iter().filter(ours).filter(|pod| pod.unread.left_out.is_some());
    let pod = left_out().next()?;
    let (n, why) = (left_out().count(), pod.unread.left_out.as_deref()?);
    let message = format!(
        "{n} of {total} pods lack what the exporter should read, for example pod {}: {why}; \
         change the pod's template or the monitor",
        pod.pod
    );
    Some(("VolumesMissing", message))
}

/// What to run so that pods with an exporter take the place of those without.
fn mend(owners: &BTreeSet<&str>, namespace: &str) -> String {
    let restartable = |owner: &&&str| {
        ["deployment/", "statefulset/", "daemonset/"]
            .iter()
            .any(|kind| owner.starts_with(kind))
    };
    let restart: Vec<_> = owners.iter().filter(restartable).copied().collect();
    let pods: Vec<_> = owners
        .iter()
        .filter(|owner| owner.starts_with("pod/"))
        .copied()
        .collect();
    let others: Vec<_> = owners
        .iter()
        .filter(|owner| !restart.contains(owner) && !pods.contains(owner))
        .copied()
        .collect();
    if !restart.is_empty() {
        let more = restart.len().saturating_sub(NAMED);
        let more = if more == 0 {
            String::new()
        } else {
            format!(" (and {more} more)")
        };
        return format!(
            "kubectl rollout restart {} -n {namespace}{more}",
            restart[..restart.len().min(NAMED)].join(" ")
        );
    }
    let named = if pods.is_empty() { others } else { pods };
    format!(
        "kubectl delete {} -n {namespace}, and create it again",
        named[..named.len().min(NAMED)].join(" ")
    )
}
