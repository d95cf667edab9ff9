//! What becomes of an update, a way back and an eviction: what is remembered, counted and said, and when the monitor is looked at
//! again.

use std::time::Instant;

use tracing::warn;

use super::turn::{Changed, Error, Evicted};
use super::{AGAIN, Kept, NEXT, RIGHTS, Round, Share, Updates};
use crate::operator::metrics::{Eviction, ImageChange};
use crate::operator::sidecars::{Selected, repair, update};

/// Takes in what became of an update.
pub fn updated(
    round: &Round<'_>,
    pod: &Selected,
    wanted: &str,
    changed: Result<Changed, Error>,
    memory: &mut update::Memory,
    kept: &mut Kept,
) {
    if changed.is_ok() {
        memory.go_on();
    }
    let counts = &round.turn.context.metrics;
    match changed {
        // Nothing is to be done to a pod that has the image already: the watch is late.
        Ok(done @ (Changed::Done | Changed::Nothing)) => {
            if matches!(done, Changed::Done) {
                counts.changed_image(ImageChange::Changed);
            }
            memory.wrote(pod, wanted, Instant::now());
            kept.wait(AGAIN);
        }
        Ok(Changed::Gone) => kept.wait(NEXT),
        Ok(Changed::Left(why)) => {
            counts.changed_image(ImageChange::Left);
            memory.leave_for_now(pod, wanted, why, Instant::now());
            kept.wait(NEXT);
        }
        Err(error) if error.lacks_rights() => {
            counts.changed_image(ImageChange::Failed);
            kept.share = Share::None;
            kept.update = Some(Updates::Left(error.to_string()));
            kept.wait(RIGHTS);
        }
        Err(error) if error.is_final() => {
            counts.changed_image(ImageChange::Left);
            warn!(monitor = %round.turn.key, pod = pod.name(), %error, "the exporter can't be updated in place");
            memory.leave(pod, wanted, error.to_string());
            kept.wait(NEXT);
        }
        Err(error) => {
            counts.changed_image(ImageChange::Failed);
            warn!(monitor = %round.turn.key, pod = pod.name(), %error, "the exporter could not be updated in place");
            kept.share = Share::None;
            kept.wait(memory.pause(Instant::now()));
        }
    }
}

/// Takes in what became of a way back.
pub fn put_back(
    round: &Round<'_>,
    pod: &Selected,
    changed: Result<Changed, Error>,
    memory: &mut update::Memory,
    kept: &mut Kept,
) {
    if changed.is_ok() {
        memory.go_on();
    }
    let counts = &round.turn.context.metrics;
    match changed {
        Ok(done @ (Changed::Done | Changed::Nothing | Changed::Gone)) => {
            if matches!(done, Changed::Done) {
                counts.changed_image(ImageChange::PutBack);
            }
            kept.wait(AGAIN);
        }
        Ok(Changed::Left(why)) => {
            counts.changed_image(ImageChange::Stuck);
            warn!(monitor = %round.turn.key, pod = pod.name(), why, "the exporter can't get its old image back");
            memory.give_up(pod);
            kept.wait(NEXT);
        }
        Err(error) => {
            warn!(monitor = %round.turn.key, pod = pod.name(), %error, "the exporter could not get its old image back");
            if error.is_final() {
                counts.changed_image(ImageChange::Stuck);
                memory.give_up(pod);
                kept.wait(NEXT);
            } else {
                counts.changed_image(ImageChange::Failed);
                kept.share = Share::None;
                kept.wait(memory.pause(Instant::now()));
            }
        }
    }
}

/// Takes in what became of an eviction.
pub fn evicted(
    round: &Round<'_>,
    pod: &Selected,
    evicted: Result<Evicted, Error>,
    memory: &mut repair::Memory,
    kept: &mut Kept,
) {
    let now = Instant::now();
    let counts = &round.turn.context.metrics;
    match evicted {
        Ok(Evicted::Done) => {
            counts.evicted(Eviction::Evicted);
            memory.evicted(pod, &round.pods, now);
            kept.wait(AGAIN);
        }
        Ok(Evicted::Gone) => kept.wait(NEXT),
        Ok(Evicted::Left(why)) => {
            counts.evicted(Eviction::Left);
            memory.leave(pod, why, now);
            kept.wait(NEXT);
        }
        Err(error) => {
            if error.is_for_now() {
                // A disruption budget that does not allow it now is daily life.
                counts.evicted(Eviction::Budget);
            } else {
                counts.evicted(Eviction::Failed);
                warn!(monitor = %round.turn.key, pod = pod.name(), %error, "the pod could not be evicted");
            }
            kept.share = Share::None;
            kept.wait(memory.refused(pod, error.to_string(), now));
        }
    }
}
