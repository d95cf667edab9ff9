//! Why a reconcile failed, and how long the next try may wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::controller::Action;
use tracing::warn;

use super::Context;
use crate::api::RoseyMonitor;
use crate::operator::backoff::Retry;
use crate::operator::key::Key;
use crate::operator::{apply, refused_pods, status};

/// When a monitor is tried again whose turn came while the lease was overdue, or whose status somebody else wrote first.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// A reconcile that failed, and what goes on all the same.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Why it failed.
    pub error: Error,
    /// When its pods are to be looked at again, if they are.
    pub again: Option<Duration>,
}

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its objects are not all in place.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// Its status is not written.
    #[error(transparent)]
    Status(#[from] status::Error),
    /// It is not known whether pods are refused.
    #[error(transparent)]
    RefusedPods(#[from] refused_pods::Error),
}

impl Error {
    /// What kind of failure it is, for a metric: few and fixed.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Apply(apply::Error::NameTaken { .. }) => "name_taken",
            Self::Apply(apply::Error::Leaving { .. }) => "leaving",
            Self::Apply(apply::Error::Missing(_)) => "prometheus_operator_missing",
            Self::Apply(apply::Error::Timeout { .. }) => "timeout",
            Self::Apply(apply::Error::NotLeader(_)) | Self::Status(status::Error::NotLeader(_)) => "not_leader",
            Self::Apply(error) if error.is_final() => "refused",
            Self::Apply(_) => "apply",
            Self::Status(status::Error::Changed) => "changed",
            Self::Status(_) => "status",
            Self::RefusedPods(_) => "refused_pods",
        }
    }

    /// Whether nothing failed: the lease was overdue, or somebody else wrote the status first.
    pub(super) fn is_late(&self) -> bool {
        matches!(
            self,
            Self::Apply(apply::Error::NotLeader(_))
                | Self::Status(status::Error::NotLeader(_) | status::Error::Changed)
        )
    }

    /// The longest wait before the next try. What others have to mend is looked at again soon: it costs a read or nothing.
    pub(super) fn cap(&self) -> Duration {
        match self {
            Self::Apply(apply::Error::Leaving { .. }) => Duration::from_secs(2),
            Self::Apply(apply::Error::NameTaken { .. } | apply::Error::Missing(_)) => Duration::from_secs(15),
            _ => Duration::from_secs(300),
        }
    }
}

/// When a monitor that failed is tried again.
#[allow(clippy::needless_pass_by_value, reason = "the shape that kube asks for")]
pub(super) fn retry(monitor: Arc<RoseyMonitor>, failed: &Failed, context: Arc<Context>) -> Action {
    let key = Key::of(&monitor);
    if context.monitors.get(&key).is_none() {
        context.forget(&key);
        return Action::await_change();
    }
    wait(&key, failed, &context).map_or_else(Action::await_change, Action::requeue)
}

/// How long a monitor waits after this failure; nothing if it becomes due by itself. Its pods may want it sooner.
pub(super) fn wait(key: &Key, failed: &Failed, context: &Context) -> Option<Duration> {
    let Failed { error, again } = failed;
    let sooner = |wait: Duration| Some(again.map_or(wait, |again| again.min(wait)));
    if error.is_late() {
        // The lease may have been renewed late, without a new term that looks at every monitor. A term that ends drops this.
        return sooner(LATE);
    }
    if matches!(error, Error::Apply(apply::Error::Missing(_))) && !context.landscape.missing().is_empty() {
        // The definitions are watched, or asked for again and again: every monitor becomes due when they come.
        return *again;
    }
    let Retry { failures, wait } = context.backoff.failed(key, error.cap(), Instant::now());
    let wait = sooner(wait);
    warn!(monitor = %key, %error, failures, retry_in = ?wait, "reconcile failed");
    wait
}
