//! The condition Injected: what the pods of a monitor say, in one sentence with the mend in it.

use std::collections::BTreeSet;

use super::Selected;
use super::record::{Exporter, State};

/// How many names a message lists before it says "and n more".
const NAMED: usize = 3;

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

/// Judges the pods that a monitor selects. What keeps an exporter from running comes first, then pods that are refused because
/// of it (`refused` says how), then pods without one.
#[must_use]
pub fn injected(monitor: &str, namespace: &str, pods: &[Selected], refused: Option<&str>) -> Injected {
    let total = pods.len();
    if total == 0 && refused.is_none() {
        return unknown("NoPods", "no pod matches spec.selector".into());
    }
    let ours = pods.iter().filter_map(|pod| match &pod.exporter {
        Exporter::Injected {
            monitor: by,
            image,
            state,
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
    if let Some(refused) = refused {
        return bad("PodsRefused", refused.to_owned());
    }
    let skipped: Vec<_> = pods
        .iter()
        .filter_map(|pod| match &pod.exporter {
            Exporter::Skipped(why) => Some((pod, &**why)),
            _ => None,
        })
        .collect();
    let missing: Vec<_> = pods
        .iter()
        .filter(|pod| match &pod.exporter {
            Exporter::Missing => true,
            Exporter::Injected { monitor: by, .. } => **by != *monitor,
            Exporter::Skipped(_) => false,
        })
        .collect();
    if !missing.is_empty() {
        let owners: BTreeSet<&str> = missing.iter().map(|pod| &*pod.owner).collect();
        return bad(
            "PodsMissing",
            format!(
                "{} of {total} pods started before the monitor; run: {}",
                missing.len(),
                mend(&owners, namespace)
            ),
        );
    }
    if let Some((pod, why)) = skipped.first() {
        return bad(
            "Skipped",
            format!(
                "{} of {total} pods have no exporter, for example pod {}: {why}",
                skipped.len(),
                pod.pod
            ),
        );
    }
    if ours.clone().all(|(.., state)| *state == State::Starting) {
        return unknown("Starting", starting(total));
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

fn starting(pods: usize) -> String {
    if pods == 1 {
        "the exporter of the pod is starting".into()
    } else {
        format!("the exporters of {pods} pods are starting")
    }
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
