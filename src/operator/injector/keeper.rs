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
mod tests {
    use k8s_openapi::ByteString;
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    const DAY: i64 = 86_400;
    const START: i64 = 1_800_000_000;

    fn names() -> Vec<String> {
        vec!["rosey-operator.rosey-system.svc".into()]
    }

    fn fresh() -> Certificates {
        Certificates::issue(&names(), Lives::default(), START, None).unwrap()
    }

    fn step(
        stored: Option<&Certificates>,
        memory: Option<&Certificates>,
        day: i64,
        published: &str,
    ) -> Option<Certificates> {
        next(
            stored,
            memory,
            &names(),
            Lives::default(),
            START + day * DAY,
            Some(published),
        )
        .unwrap()
    }

    #[test]
    fn a_secret_with_data_of_somebody_else_is_left_alone() {
        let secret = |data: &[&str], label: Option<&str>| Secret {
            metadata: ObjectMeta {
                labels: label.map(|label| [(MANAGED_BY_LABEL.to_owned(), label.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(
                data.iter()
                    .map(|&key| (key.to_owned(), ByteString::default()))
                    .collect(),
            ),
            ..Secret::default()
        };
        assert!(is_foreign(&secret(&["password"], None)));
        assert!(is_foreign(&secret(&["tls.crt"], Some("Helm"))));
        assert!(
            !is_foreign(&secret(&["tls.crt"], Some(MANAGED_BY))),
            "ours, spoilt or not"
        );
        assert!(!is_foreign(&secret(&[], None)), "nothing is lost");
    }

    #[tokio::test]
    async fn nothing_is_written_over_a_foreign_secret_nor_by_a_replica_that_does_not_lead() {
        let (service, mut handle) = tower_test::mock::pair::<axum::http::Request<Body>, axum::http::Response<Body>>();
        let client = Client::new(service, "rosey-system");
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                asked.push(format!("{} {}", request.method(), request.uri().path()));
                let status = json!({"status": "Failure", "code": 404, "reason": "NotFound", "message": "none"});
                let answer = axum::http::Response::builder().status(404);
                send.send_response(answer.body(Body::from(status.to_string().into_bytes())).unwrap());
            }
            asked
        });
        let keeper = Keeper {
            secrets: Api::default_namespaced(client.clone()),
            name: "webhook".into(),
            names: names(),
            lives: Lives::default(),
            owner: Arc::new(Owner::new(client, "role".into())),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            leader: watch::channel(true).1,
            leadership: Leadership::fixed(false),
            published: watch::channel(None).1,
            loaded: watch::channel(None).0,
        };
        let foreign = Secret {
            data: Some([("password".to_owned(), ByteString::default())].into()),
            ..Secret::default()
        };
        let result = keeper.write(Some(&foreign), &fresh()).await;
        assert!(matches!(result, Err(KeepError::Foreign(_))), "{result:?}");
        let result = keeper.write(None, &fresh()).await;
        assert!(matches!(result, Err(KeepError::NotLeader(_))), "{result:?}");
        drop(keeper);
        let role = "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/role";
        assert_eq!(server.await.unwrap(), [role]);
    }

    #[test]
    fn other_owners_stay_and_an_earlier_one_of_our_name_goes() {
        let owner = |kind: &str, name: &str, uid: &str| OwnerReference {
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
            ..OwnerReference::default()
        };
        let mut owners = vec![
            owner("ClusterRole", "rosey-operator", "old"),
            owner("Application", "chat", "a"),
        ];
        adopt(&mut owners, owner("ClusterRole", "rosey-operator", "new"));
        let uids: Vec<_> = owners.iter().map(|owner| owner.uid.as_str()).collect();
        assert_eq!(uids, ["a", "new"]);
    }

    #[test]
    fn the_first_leader_makes_an_authority_and_a_leaf_and_then_rests() {
        let made = step(None, None, 0, "").unwrap();
        assert!(made.is_current());
        assert_eq!(step(Some(&made), Some(&made), 0, made.bundle()), None);
        assert_eq!(step(Some(&made), Some(&made), 19, made.bundle()), None);
    }

    #[test]
    fn a_leaf_is_renewed_at_two_thirds_of_its_life_by_the_same_authority() {
        let first = fresh();
        let second = step(Some(&first), Some(&first), 20, first.bundle()).unwrap();
        assert_eq!(second.bundle(), first.bundle());
        assert_eq!(second.leaf().until, START + 50 * DAY);
    }

    #[test]
    fn a_new_authority_is_trusted_before_a_leaf_of_it_is_served() {
        let first = fresh();
        let day = 250;
        let old = first
            .with_new_leaf(&names(), Lives::default(), START + 240 * DAY)
            .unwrap();
        let both = step(Some(&old), Some(&old), day, old.bundle()).unwrap();
        assert_eq!(both.served().cert, old.served().cert, "the old leaf goes on");
        assert!(both.bundle().ends_with(old.bundle()) && both.bundle().len() > old.bundle().len());
        assert_eq!(
            step(Some(&both), Some(&both), day, old.bundle()),
            None,
            "the API server trusts the old bundle only"
        );
        let new = step(Some(&both), Some(&both), day, both.bundle()).unwrap();
        assert!(new.is_current() && new.served().cert != old.served().cert);
        assert_eq!(new.bundle(), both.bundle());
        assert_eq!(step(Some(&new), Some(&new), day, new.bundle()), None);
    }

    #[test]
    fn a_deleted_secret_is_made_again_without_a_gap_for_the_api_server() {
        let served = fresh();
        let again = step(None, Some(&served), 1, served.bundle()).unwrap();
        assert_eq!(again.served().cert, served.served().cert);
        assert!(again.bundle().contains(served.bundle()));
    }

    #[test]
    fn after_a_long_sleep_everything_is_made_anew() {
        let first = fresh();
        let new = step(Some(&first), Some(&first), 400, first.bundle()).unwrap();
        assert!(new.is_current());
        assert!(
            !new.bundle().contains(first.bundle()),
            "an authority that has run out is not trusted any longer"
        );
    }
}
