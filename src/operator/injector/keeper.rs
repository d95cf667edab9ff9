//! Keeps the Secret with the certificates: every replica follows it, the leader makes and renews what is in it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::certificates::{CertificateError, Certificates, Due, Lives};
use super::metrics::Metrics;
use super::owner::{Owner, OwnerError};
use super::{FIELD_MANAGER, changed};
use crate::cluster::client::{RequestError, answered};
use crate::operator::leader::{Leadership, NotLeader};
use crate::plan::{MANAGED_BY, MANAGED_BY_LABEL};

/// How long the API servers get to notice a new bundle before a leaf is served that needs it.
const SETTLING: Duration = Duration::from_secs(5);
/// How long until a failed write is tried again, unless the Secret changes earlier.
const RETRY: Duration = Duration::from_secs(5);
/// Shortest time from one write to the next.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
/// Longest sleep; a clock that was set is noticed after it.
const LONGEST_SLEEP: Duration = Duration::from_secs(3_600);

/// A bundle that every registration carries, and since when.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub bundle: String,
    pub since: Instant,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error(transparent)]
    Api(#[from] RequestError),
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    #[error(
        "Secret {0} has data and no label {MANAGED_BY_LABEL}: {MANAGED_BY}, so it is somebody else's; delete it, or name another one with --webhook-secret"
    )]
    Foreign(String),
}

pub(super) struct Keeper {
    pub secrets: Api<Secret>,
    pub name: String,
    pub names: Vec<String>,
    pub lives: Lives,
    pub owner: Arc<Owner>,
    pub metrics: Metrics,
    pub leader: watch::Receiver<bool>,
    pub leadership: Leadership,
    pub published: watch::Receiver<Option<Published>>,
    pub loaded: watch::Sender<Option<Arc<Certificates>>>,
}

impl Keeper {
    /// Follows the Secret until dropped.
    pub async fn run(mut self) {
        let mut secrets = std::pin::pin!(watch_object(self.secrets.clone(), &self.name).default_backoff());
        // None until the first answer: whether there is a Secret is not known before.
        let mut stored: Option<Option<Secret>> = None;
        loop {
            let mut pause = LONGEST_SLEEP;
            if let Some(secret) = &stored
                && *self.leader.borrow_and_update()
            {
                match self.keep(secret.as_ref()).await {
                    Ok(Kept::Written(secret)) => {
                        self.take(&secret);
                        stored = Some(Some(*secret));
                        // Whatever is due at once again is not mended by writing faster.
                        tokio::time::sleep(BETWEEN_WRITES).await;
                        continue;
                    }
                    Ok(Kept::For(duration)) => pause = duration.min(LONGEST_SLEEP),
                    Err(error) => {
                        warn!(secret = self.name, %error, "the injector's certificates could not be written");
                        pause = RETRY;
                    }
                }
            }
            tokio::select! {
                event = secrets.next() => match event {
                    Some(Ok(secret)) => {
                        if let Some(secret) = &secret {
                            self.take(secret);
                        }
                        stored = Some(secret);
                    }
                    Some(Err(error)) => warn!(secret = self.name, %error, "the injector's Secret can't be watched"),
                    None => return,
                },
                () = changed(&mut self.leader) => {}
                () = changed(&mut self.published) => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Serves from now on what the Secret holds. What can't be served is left to the leader, and the last good goes on.
    fn take(&self, secret: &Secret) {
        match Certificates::read(&secret.data.clone().unwrap_or_default()) {
            Ok(certificates) => {
                self.loaded.send_if_modified(|loaded| {
                    if loaded.as_deref() == Some(&certificates) {
                        return false;
                    }
                    info!(
                        secret = self.name,
                        until = certificates.leaf().until,
                        "the injector serves a certificate"
                    );
                    self.metrics.expiry(certificates.leaf().until);
                    *loaded = Some(Arc::new(certificates));
                    true
                });
            }
            Err(error) => warn!(secret = self.name, %error, "the injector's Secret can't be used"),
        }
    }

    async fn keep(&self, secret: Option<&Secret>) -> Result<Kept, KeepError> {
        let now = now();
        let stored = secret.and_then(|secret| Certificates::read(secret.data.as_ref()?).ok());
        let memory = self.loaded.borrow().clone();
        let published = self.published.borrow().clone();
        let settled = published
            .as_ref()
            .is_some_and(|published| published.since.elapsed() >= SETTLING);
        let bundle = published
            .as_ref()
            .filter(|_| settled)
            .map(|published| published.bundle.as_str());
        let Some(certificates) = next(stored.as_ref(), memory.as_deref(), &self.names, self.lives, now, bundle)? else {
            let due = stored.as_ref().map_or(now, Certificates::next_due);
            let wait = Duration::from_secs(u64::try_from(due - now).unwrap_or_default().max(1));
            let unsettled = stored.is_some_and(|stored| !stored.is_current());
            return Ok(Kept::For(if unsettled { SETTLING } else { wait }));
        };
        let written = self.write(secret, &certificates).await?;
        info!(
            secret = self.name,
            ?certificates,
            "the injector's certificates were renewed"
        );
        Ok(Kept::Written(Box::new(written)))
    }

    /// Writes only over the version that was read, so that of two leaders one fails and then follows the other.
    async fn write(&self, secret: Option<&Secret>, certificates: &Certificates) -> Result<Secret, KeepError> {
        if secret.is_some_and(is_foreign) {
            return Err(KeepError::Foreign(self.name.clone()));
        }
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let mut next = secret.cloned().unwrap_or_else(|| Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".into()),
            ..Secret::default()
        });
        let labels = next.metadata.labels.get_or_insert_default();
        labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
        if let Some(owner) = self.owner.reference().await? {
            adopt(next.metadata.owner_references.get_or_insert_default(), owner);
        }
        next.metadata.managed_fields = None;
        next.data = Some(certificates.data());
        self.leadership.check()?;
        Ok(match secret {
            Some(_) => answered(self.secrets.replace(&self.name, &params, &next)).await?,
            None => answered(self.secrets.create(&params, &next)).await?,
        })
    }
}

/// Whether a Secret holds what somebody else has put there.
fn is_foreign(secret: &Secret) -> bool {
    let label = secret
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGED_BY_LABEL));
    secret.data.as_ref().is_some_and(|data| !data.is_empty()) && label.map(String::as_str) != Some(MANAGED_BY)
}

/// Adds an owner, in place of an earlier one of the same name.
fn adopt(owners: &mut Vec<OwnerReference>, owner: OwnerReference) {
    owners.retain(|other| (&other.kind, &other.name) != (&owner.kind, &owner.name));
    owners.push(owner);
}

enum Kept {
    Written(Box<Secret>),
    For(Duration),
}

/// What the Secret has to hold instead of `stored`, if anything. `memory` is what is being served, `published` the bundle
/// that the API server trusts.
fn next(
    stored: Option<&Certificates>,
    memory: Option<&Certificates>,
    names: &[String],
    lives: Lives,
    now: i64,
    published: Option<&str>,
) -> Result<Option<Certificates>, CertificateError> {
    let alive = |certificates: &&Certificates| certificates.leaf().until > now;
    let Some(stored) = stored else {
        // Gone or spoilt. What is being served goes on until the new authority is trusted.
        return match memory.filter(alive) {
            Some(memory) => memory.with_new_authority(lives, now).map(Some),
            None => Certificates::issue(names, lives, now, None).map(Some),
        };
    };
    if !alive(&stored) {
        return Certificates::issue(names, lives, now, Some(stored)).map(Some);
    }
    match stored.due(names, now) {
        Due::Authority => stored.with_new_authority(lives, now).map(Some),
        Due::Leaf if stored.is_current() || published == Some(stored.bundle()) => {
            stored.with_new_leaf(names, lives, now).map(Some)
        }
        Due::Leaf | Due::Nothing => Ok(None),
    }
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
