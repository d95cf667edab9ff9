//! Why a reconcile failed, and how long the next try may wait.

use std::time::Duration;

use crate::operator::{apply, refused_pods, status};

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

    /// The longest wait before the next try. What others have to mend is looked at again soon: it costs a read or nothing.
    pub(super) fn cap(&self) -> Duration {
        match self {
            Self::Apply(apply::Error::Leaving { .. }) => Duration::from_secs(2),
            Self::Apply(apply::Error::NameTaken { .. } | apply::Error::Missing(_)) => Duration::from_secs(15),
            _ => Duration::from_secs(300),
        }
    }
}
