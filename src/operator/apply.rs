//! Writes the objects of a plan: only what differs, only what is ours, and only while this replica leads.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, Preconditions};
use kube::{Api, Client, ResourceExt};
use tracing::info;

use super::key::Key;
use super::leader::{Leadership, NotLeader};
use super::metrics::Metrics;
use super::owned::{Leftover, Owned};
use crate::api::RoseyMonitor;
use crate::cluster::client::{is_other_object, said};
use crate::plan::{Kind, Plan};

mod one;

use one::One;

/// How long the API server may take for one request.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the objects of a monitor are not all in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else's object has the name.
    #[error("{} {name} exists and is not this monitor's; rename the monitor, or remove that object", kind_name(*.kind))]
    NameTaken {
        /// Kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The object belongs to an older monitor of the same name; the garbage collector removes it.
    #[error("{} {name} still belongs to a deleted monitor of this name; waiting for its removal", kind_name(*.kind))]
    Leaving {
        /// Kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The API server does not serve a kind of prometheus-operator.
    #[error("{} of prometheus-operator {} not installed; install its custom resource definitions",
        .0.iter().map(|kind| kind_name(*kind)).collect::<Vec<_>>().join(", "), if .0.len() == 1 { "is" } else { "are" })]
    Missing(BTreeSet<Kind>),
    /// The API server refused a request, or did not answer.
    #[error("{} {name} could not be {doing}: {}", kind_name(*.kind), said(source))]
    Request {
        /// Kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
        /// What was tried.
        doing: &'static str,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("{} {name} could not be {doing}: no answer within {} s", kind_name(*.kind), PATIENCE.as_secs())]
    Timeout {
        /// Kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
        /// What was tried.
        doing: &'static str,
    },
    /// Another replica may lead by now.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
}

impl Error {
    /// Whether the API server has decided, so that the same request fails again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::NameTaken { .. } | Self::Missing(_) => true,
            Self::Request { source, .. } => matches!(&**source, kube::Error::Api(status)
                if matches!(status.code, 400 | 403 | 413 | 422)),
            Self::Leaving { .. } | Self::Timeout { .. } | Self::NotLeader(_) => false,
        }
    }

    /// Whether the next object would fare no better.
    fn concerns_all(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::NotLeader(_))
    }
}

fn kind_name(kind: Kind) -> String {
    kind.api_resource().kind
}

/// Writes for one monitor at a time.
#[derive(Clone)]
pub struct Applier<'a> {
    /// Client of the API server.
    pub client: &'a Client,
    /// Asked before each write.
    pub leadership: &'a Leadership,
    /// What is known of the objects.
    pub owned: &'a Owned,
    /// Where writes are counted.
    pub metrics: &'a Metrics,
    /// Whether the last round failed: what may be somebody else's then is read before it is written.
    pub again: bool,
}

impl Applier<'_> {
    /// Brings the objects of the plan into the cluster and removes what the plan no longer has. Kinds that are `missing` in
    /// the cluster are left out, and named in the error.
    ///
    /// # Errors
    /// The first object that could not be written or removed. The others were seen to all the same, unless the API server did
    /// not answer or this replica does not lead.
    pub async fn apply(&self, monitor: &RoseyMonitor, plan: &Plan, missing: &BTreeSet<Kind>) -> Result<(), Error> {
        let (mut absent, mut failed) = (BTreeSet::new(), BTreeSet::new());
        let key = Key::of(monitor);
        let mut first = None;
        for object in &plan.objects {
            if missing.contains(&object.kind) {
                absent.insert(object.kind);
                continue;
            }
            let new = self.owned.is_absent(&key, object.kind, &object.name);
            match One::new(self, monitor, object).place().await {
                Err(Error::Request { kind, source, .. }) if kind_not_served(&source) => {
                    absent.insert(kind);
                }
                Err(error) if error.concerns_all() => return Err(error),
                Err(error) => {
                    if new {
                        failed.insert(object.kind);
                    }
                    first = first.or(Some(error));
                }
                Ok(()) => {}
            }
        }
        // A channel that was renamed goes on under its old name until it is there under the new one. What is there already, and
        // could only not be changed, is no successor of anything.
        let spared = &failed | &absent;
        let pruned = self.prune(monitor, plan, &spared).await;
        first.map_or(pruned, Err)?;
        if absent.is_empty() {
            Ok(())
        } else {
            Err(Error::Missing(absent))
        }
    }

    /// Removes what is no longer planned, but for the kinds that are `spared`.
    async fn prune(&self, monitor: &RoseyMonitor, plan: &Plan, spared: &BTreeSet<Kind>) -> Result<(), Error> {
        let planned: BTreeSet<_> = plan
            .objects
            .iter()
            .map(|object| (object.kind, object.name.as_str()))
            .collect();
        let (key, uid) = (Key::of(monitor), monitor.uid().unwrap_or_default());
        let mut first = None;
        for Leftover {
            kind,
            name,
            uid,
            version,
        } in self.owned.leftovers(&key, &uid, &planned)
        {
            if spared.contains(&kind) {
                continue;
            }
            let preconditions = Preconditions {
                uid: Some(uid.to_string()),
                resource_version: Some(version.to_string()),
            };
            let parameters = DeleteParams {
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            self.leadership.check()?;
            let api = self.api(monitor.metadata.namespace.as_deref().unwrap_or_default(), kind);
            match request(kind, &name, "removed", api.delete(&name, &parameters)).await {
                Ok(_) => {
                    self.owned.forget(&key, kind, &name);
                    self.metrics.wrote(kind, "delete");
                    info!(kind = kind_name(kind), %name, "removed what is no longer planned");
                }
                Err(Error::Request { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.is_not_found()) =>
                {
                    self.owned.forget(&key, kind, &name);
                }
                // Touched since the watch last told of it: its event makes the monitor due again.
                Err(error) if conflict(&error) => {}
                Err(error) if error.concerns_all() => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn api(&self, namespace: &str, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.api_resource())
    }
}

async fn request<T>(
    kind: Kind,
    name: &str,
    doing: &'static str,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    let name = || name.to_owned();
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Request {
            kind,
            name: name(),
            doing,
            source: Box::new(source),
        }),
        Err(_) => Err(Error::Timeout {
            kind,
            name: name(),
            doing,
        }),
    }
}

fn conflict(error: &Error) -> bool {
    let Error::Request { source, .. } = error else {
        return false;
    };
    matches!(&**source, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
        || is_other_object(source)
}

/// The API server knows no such kind (its 404 then names no object and no namespace), or is about to forget it.
fn kind_not_served(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.code == 404 && status.details.as_ref().is_none_or(|details| details.name.is_empty())
            || status.code == 403 && status.message.contains("custom resource definition is terminating"))
}

#[cfg(test)]
mod tests;
