//! Images on trial that nobody looks after any more.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::turn::{Changed, Error, Turn};
use super::{AGAIN, RIGHTS};
use crate::operator::controller::Context;
use crate::operator::metrics::ImageChange;
use crate::operator::sidecars::Selected;
use crate::plan::injection::update::undone;

/// Gives exporters their old image back whose new one was on trial when their monitor was deleted, or chose other pods: it has no
/// reconcile any more that would. What it works from stands on the pods, so it does not matter who led then. Goes on until
/// `shutdown`, and then brings the pod to its end that it has begun with: a request that is dropped may be done or not.
pub async fn abandoned(context: &Context, shutdown: &CancellationToken) {
    if !context.upkeep.settings.update {
        return;
    }
    let mut given_up = BTreeSet::new();
    loop {
        let pods = context.pods.abandoned(Timestamp::now().as_second());
        given_up.retain(|uid: &String| pods.iter().any(|(_, pod)| pod.uid() == uid));
        let platform = context.landscape.platform().borrow().clone();
        let mut again: Option<Duration> = None;
        for (key, pod) in pods {
            if shutdown.is_cancelled() {
                return;
            }
            if given_up.contains(pod.uid()) {
                continue;
            }
            let turn = Turn {
                key,
                platform: &platform,
                context,
            };
            match put_back(&turn, &pod).await {
                Next::Watch => {}
                Next::Never => {
                    given_up.insert(pod.uid().to_owned());
                }
                Next::After(wait) => again = Some(again.map_or(wait, |again| again.min(wait))),
            }
        }
        let wait = async {
            match again {
                Some(again) => tokio::time::sleep(again).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = context.pods.may_be_abandoned() => {}
            () = wait => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// When a pod is looked at again.
enum Next {
    /// When it changes.
    Watch,
    Never,
    After(Duration),
}

async fn put_back(turn: &Turn<'_>, pod: &Selected) -> Next {
    let counts = &turn.context.metrics;
    let error: Error = match turn.change(pod, |live| undone(live, turn.platform)).await {
        Ok(Changed::Done) => {
            counts.changed_image(ImageChange::PutBack);
            return Next::Watch;
        }
        Ok(Changed::Nothing | Changed::Gone) => return Next::Watch,
        Ok(Changed::Left(why)) => {
            counts.changed_image(ImageChange::Stuck);
            warn!(monitor = %turn.key, pod = pod.name(), why, "the exporter can't get its old image back");
            return Next::Never;
        }
        Err(error) => error,
    };
    warn!(monitor = %turn.key, pod = pod.name(), %error, "the exporter could not get its old image back");
    if error.is_final() {
        counts.changed_image(ImageChange::Stuck);
        return Next::Never;
    }
    counts.changed_image(ImageChange::Failed);
    Next::After(if error.lacks_rights() { RIGHTS } else { AGAIN })
}

#[cfg(test)]
mod tests;
