//! Tells the API server to call us: a mutating webhook for pods, a validating one for monitors.
//!
//! Only the leader writes here; two writers with different content would fight for ever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DynamicObject, PartialObjectMeta, Patch, PatchParams};
use kube::core::ApiResource;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::watch_object;
use kube::{Client, Resource};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::certificates::Certificates;
use super::keeper::Published;
use super::owner::{Owner, OwnerError};
use super::{Endpoint, FIELD_MANAGER, changed};
use crate::api::RoseyMonitor;
use crate::cluster::client::{RequestError, answered};
use crate::operator::leader::{Leadership, NotLeader};

mod webhooks;

use webhooks::{mutating, validating};

/// Name of the `MutatingWebhookConfiguration`.
pub const INJECTOR: &str = "rosey-monitor-injector";
/// Name of the `ValidatingWebhookConfiguration`.
pub const VALIDATOR: &str = "rosey-monitor-validator";

const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Watches tell of every change; this is for the one that they might miss.
const REVIEW: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
enum RegistrationError {
    #[error("{name} can't be written: {source}")]
    Api { name: &'static str, source: RequestError },
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error("{0} keeps webhooks that are not ours")]
    Foreign(&'static str),
    #[error("{0} is being deleted")]
    Deleting(&'static str),
    #[error("a registration can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

pub(super) struct Registrar {
    pub client: Client,
    pub endpoint: Endpoint,
    /// Namespaces whose monitors are judged; of none, all.
    pub watched: BTreeSet<String>,
    /// Namespaces that are never registered.
    pub excluded: BTreeSet<String>,
    pub owner: Arc<Owner>,
    pub leader: watch::Receiver<bool>,
    pub leadership: Leadership,
    pub namespaces: watch::Receiver<BTreeSet<String>>,
    pub monitors: Store<RoseyMonitor>,
    pub loaded: watch::Receiver<Option<Arc<Certificates>>>,
    /// Told in which namespaces pods are asked for.
    pub registered: watch::Sender<BTreeSet<String>>,
    pub published: watch::Sender<Option<Published>>,
}

impl Registrar {
    /// Keeps both registrations as they have to be, until dropped.
    pub async fn run(mut self) {
        let mutating: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(self.client.clone());
        let validating: Api<PartialObjectMeta<ValidatingWebhookConfiguration>> = Api::all(self.client.clone());
        let mutating = watch_object(mutating, INJECTOR)
            .default_backoff()
            .map(|event| event.map(|_| ()));
        let validating = watch_object(validating, VALIDATOR)
            .default_backoff()
            .map(|event| event.map(|_| ()));
        let mut events = std::pin::pin!(futures::stream::select(mutating, validating));
        let mut retry = Duration::from_secs(1);
        // Before all monitors are known, every registered namespace would look deserted.
        if self.monitors.wait_until_ready().await.is_err() {
            return;
        }
        loop {
            let leads = *self.leader.borrow_and_update();
            let namespaces = self.namespaces.borrow_and_update().clone();
            let certificates = self.loaded.borrow_and_update().clone();
            let mut pause = REVIEW;
            if let Some(certificates) = certificates.filter(|_| leads) {
                match self.register(&namespaces, certificates.bundle()).await {
                    Ok(settled) => {
                        retry = Duration::from_secs(1);
                        pause = if settled { REVIEW } else { LONGEST_RETRY };
                    }
                    Err(error) => {
                        warn!(%error, "the webhooks could not be registered");
                        pause = retry;
                        retry = (retry * 2).min(LONGEST_RETRY);
                    }
                }
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(())) => {}
                    Some(Err(error)) => warn!(%error, "the webhook registrations can't be watched"),
                    None => return,
                },
                () = changed(&mut self.leader) => {}
                () = changed(&mut self.namespaces) => {}
                () = changed(&mut self.loaded) => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Answers whether exactly `configured` is registered.
    async fn register(&self, configured: &BTreeSet<String>, bundle: &str) -> Result<bool, RegistrationError> {
        // Where it is not known that pods are asked for, none is evicted. The monitors' registration has no part in that.
        let unknown = || drop(self.registered.send_replace(BTreeSet::new()));
        let owner = self.owner.reference().await.inspect_err(|_| unknown())?;
        let (mut settled, mut asked) = (true, BTreeSet::new());
        let pods = |live: Option<&DynamicObject>| {
            let namespaces = namespaces(configured, live, &inhabited(&self.monitors));
            settled = namespaces == *configured;
            let namespaces: BTreeSet<_> = namespaces.difference(&self.excluded).cloned().collect();
            let webhooks = mutating(&self.endpoint, namespaces.iter().cloned().collect(), bundle);
            asked = namespaces;
            serde_json::to_value(webhooks)
        };
        self.converge::<MutatingWebhookConfiguration>(INJECTOR, pods, owner.as_ref())
            .await
            .inspect_err(|_| unknown())?;
        self.registered.send_replace(asked);
        let monitors =
            |_: Option<&DynamicObject>| serde_json::to_value([validating(&self.endpoint, &self.watched, bundle)]);
        self.converge::<ValidatingWebhookConfiguration>(VALIDATOR, monitors, owner.as_ref())
            .await?;
        self.published.send_if_modified(|published| {
            let new = published.as_ref().is_none_or(|published| published.bundle != bundle);
            if new {
                *published = Some(Published {
                    bundle: bundle.to_owned(),
                    since: Instant::now(),
                });
            }
            new
        });
        Ok(settled)
    }

    /// Writes a registration where it differs. It is read anew each time: the watch that woke us may lag behind our own write.
    async fn converge<K: Resource<DynamicType = ()>>(
        &self,
        name: &'static str,
        webhooks: impl FnOnce(Option<&DynamicObject>) -> serde_json::Result<Value>,
        owner: Option<&OwnerReference>,
    ) -> Result<(), RegistrationError> {
        let failed = |source| RegistrationError::Api { name, source };
        let kind = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let live = answered(api.get_opt(name)).await.map_err(failed)?;
        let webhooks = webhooks(live.as_ref())?;
        match live {
            None if webhooks == json!([]) => return Ok(()),
            Some(live) if stands(&live, &webhooks, owner) => return Ok(()),
            Some(live) if live.metadata.deletion_timestamp.is_some() => return Err(RegistrationError::Deleting(name)),
            _ => {}
        }
        let body = body(&kind, name, &webhooks, owner);
        let (params, patch) = (PatchParams::apply(FIELD_MANAGER).force(), Patch::Apply(&body));
        self.leadership.check()?;
        let applied = answered(api.patch(name, &params, &patch)).await.map_err(failed)?;
        info!(registration = name, "registered the webhooks");
        if stands(&applied, &webhooks, owner) {
            return Ok(());
        }
        // Somebody else owns part of a list, which server-side apply leaves alone: replace it.
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({ "webhooks": webhooks }));
        self.leadership.check()?;
        let replaced = answered(api.patch(name, &params, &patch)).await.map_err(failed)?;
        if stands(&replaced, &webhooks, owner) {
            Ok(())
        } else {
            Err(RegistrationError::Foreign(name))
        }
    }
}

/// Namespaces with a monitor that is not being deleted.
fn inhabited(monitors: &Store<RoseyMonitor>) -> BTreeSet<String> {
    let monitors = monitors.state();
    let staying = monitors
        .iter()
        .filter(|monitor| monitor.metadata.deletion_timestamp.is_none());
    staying
        .filter_map(|monitor| monitor.metadata.namespace.clone())
        .collect()
}

/// The namespaces whose pods are to be asked for: the configured ones, and those that are registered already and have a
/// monitor. An operator that has just started has not seen every `ConfigMap` yet, and must not turn pods away meanwhile.
fn namespaces(
    configured: &BTreeSet<String>,
    live: Option<&DynamicObject>,
    inhabited: &BTreeSet<String>,
) -> BTreeSet<String> {
    let registered = live.and_then(|live| {
        live.data
            .pointer("/webhooks/0/namespaceSelector/matchExpressions/0/values")
    });
    let registered = registered
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    registered
        .map(str::to_owned)
        .filter(|namespace| inhabited.contains(namespace))
        .chain(configured.clone())
        .collect()
}

fn stands(live: &DynamicObject, webhooks: &Value, owner: Option<&OwnerReference>) -> bool {
    let none = json!([]);
    let labelled = live
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGED_BY.0))
        .map(String::as_str);
    labelled == Some(MANAGED_BY.1)
        && live.data.get("webhooks").unwrap_or(&none) == webhooks
        && owner.is_none_or(|owner| {
            live.metadata
                .owner_references
                .iter()
                .flatten()
                .any(|live| live.uid == owner.uid)
        })
}

const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "rosey-operator");

fn body(kind: &ApiResource, name: &str, webhooks: &Value, owner: Option<&OwnerReference>) -> Value {
    let mut metadata = json!({ "name": name, "labels": { MANAGED_BY.0: MANAGED_BY.1 } });
    if let Some(owner) = owner {
        metadata["ownerReferences"] = json!([owner]);
    }
    json!({ "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "webhooks": webhooks })
}

#[cfg(test)]
mod tests;
