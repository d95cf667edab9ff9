//! The condition Injected: what the pods of a monitor say, in one sentence with the mend in it.

use std::collections::BTreeSet;
use std::fmt::Write;

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
    /// What the operator does about pods itself.
    pub remedies: Remedies<'a>,
}

/// What the operator does about pods itself, and what became of that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Remedies<'a> {
    /// About those whose exporter has an old image.
    pub update: Update<'a>,
    /// About those that have none.
    pub repair: Repair<'a>,
}

/// What the operator does about exporters with an old image.
#[derive(Clone, Copy, Debug, Default)]
pub enum Update<'a> {
    /// Nothing: it runs without `--update-exporters-in-place`.
    #[default]
    Off,
    /// It changes the image in one pod after the other.
    On,
    /// It can't change a pod, for this reason.
    Left(&'a str),
    /// It has changed a pod back and stopped, for this reason.
    Failed(&'a str),
}

/// What the operator does about pods without an exporter.
#[derive(Clone, Copy, Debug, Default)]
pub enum Repair<'a> {
    /// Nothing: the monitor does not ask for it.
    #[default]
    NotAsked,
    /// Nothing: it runs without `--repair-exporters`.
    NotAllowed,
    /// It replaces one pod after the other, and waits for this.
    On(Option<&'a str>),
    /// It has stopped, for this reason.
    Stopped(&'a str),
}

/// Judges the pods that a monitor selects. What keeps an exporter from running comes first, then pods that are refused because
/// of it, then pods without one.
#[must_use]
pub fn injected(monitor: &str, namespace: &str, image: &str, pods: &[Selected], hindrance: Hindrance<'_>) -> Injected {
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
    if let Some((reason, message)) = lacking(monitor, namespace, pods, hindrance) {
        return bad(reason, message);
    }
    if let Some((reason, message)) = unread(monitor, namespace, pods, hindrance.off) {
        return bad(reason, message);
    }
    let old: Vec<_> = ours.clone().filter(|(_, has, _)| ***has != *image).collect();
    let owners = || mend(&old.iter().map(|(pod, ..)| &*pod.owner).collect(), namespace);
    if let (false, Update::Failed(why)) = (old.is_empty(), hindrance.remedies.update) {
        let message = format!(
            "{} of {total} pods have an exporter of another image than a new pod would get: {why}; once that is mended, run: {}",
            old.len(),
            owners()
        );
        return bad("UpdateFailed", message);
    }
    let n = ours.filter(|(.., state)| **state == State::Starting).count();
    if n > 0 {
        return unknown(
            "Starting",
            format!("the exporter does not run yet in {n} of {total} pods"),
        );
    }
    let mut good = Injected {
        status: "True",
        reason: "Injected",
        message: format!("every matching pod carries the exporter ({total})"),
    };
    // Where nothing is injected, a new pod would have no exporter at all.
    if !old.is_empty() && hindrance.off.is_none() {
        good.reason = "Outdated";
        let mend = match hindrance.remedies.update {
            Update::On => "; the operator changes one pod after the other".to_owned(),
            Update::Left(why) | Update::Failed(why) => format!(": {why}; run: {}", owners()),
            Update::Off => format!(
                "; run: {}, or start the operator with --update-exporters-in-place",
                owners()
            ),
        };
        let _ = write!(
            good.message,
            ", {} of them with another image than a new pod would get{mend}",
            old.len()
        );
    }
    good
}

fn unknown(reason: &'static str, message: String) -> Injected {
    Injected {
        status: "Unknown",
        reason,
        message,
    }
}

/// What is to be said of the pods that carry no exporter of this monitor.
fn lacking(
    monitor: &str,
    namespace: &str,
    pods: &[Selected],
    hindrance: Hindrance<'_>,
) -> Option<(&'static str, String)> {
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
    if let Some(why) = hindrance.off.filter(|_| lacking > 0) {
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
        let run = || format!("run: {}", mend(&owners, namespace));
        let replaceable = missing.iter().any(|pod| pod.life.replaceable);
        let n = missing.len();
        let mend = match hindrance.remedies.repair {
            Repair::Stopped(why) => {
                let message = format!(
                    "{n} of {total} pods have no exporter: {why}; once that is mended, {}",
                    run()
                );
                return Some(("RepairStopped", message));
            }
            Repair::NotAllowed => format!(
                "spec.exporter.repair is Restart, but the operator runs without --repair-exporters; {}",
                run()
            ),
            Repair::On(waits) if replaceable => {
                let waits = waits.map(|waits| format!(", and {waits}")).unwrap_or_default();
                format!("the operator replaces one after the other{waits}")
            }
            Repair::On(_) | Repair::NotAsked => run(),
        };
        return Some((
            "PodsMissing",
            format!("{n} of {total} pods started before the monitor; {mend}"),
        ));
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

#[cfg(test)]
mod tests;
