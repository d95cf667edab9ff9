//! Tells the API server to call us: a mutating webhook for pods, a validating one for monitors.
//!
//! Only the leader writes here; two writers with different content would fight for ever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
    ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, OwnerReference};
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
use super::{Endpoint, FIELD_MANAGER, INJECT_PATH, VALIDATE_PATH, changed};
use crate::api::{GROUP, INJECTED_ANNOTATION, RoseyMonitor};
use crate::cluster::client::{RequestError, answered};
use crate::operator::leader::{Leadership, NotLeader};
use crate::sidecar::CONTAINER;

/// Name of the `MutatingWebhookConfiguration`.
pub const INJECTOR: &str = "rosey-monitor-injector";
/// Name of the `ValidatingWebhookConfiguration`.
pub const VALIDATOR: &str = "rosey-monitor-validator";

/// Pods that the kubelet mirrors can't carry more than their file says, and a pod that carries its exporter needs no second
/// call: our own patch makes the API server ask again (`reinvocationPolicy: IfNeeded`).
const NOT_MIRRORED: &str =
    "!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)";
/// A status has no part in the plan, and whoever is being deleted can't be mended.
const SPEC_CHANGED: &str =
    "!has(object.metadata.deletionTimestamp) && (request.operation == 'CREATE' || object.spec != oldObject.spec)";

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
    /// Namespaces that are never registered.
    pub excluded: BTreeSet<String>,
    pub owner: Arc<Owner>,
    pub leader: watch::Receiver<bool>,
    pub leadership: Leadership,
    pub namespaces: watch::Receiver<BTreeSet<String>>,
    pub monitors: Store<RoseyMonitor>,
    pub loaded: watch::Receiver<Option<Arc<Certificates>>>,
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
        let owner = self.owner.reference().await?;
        let mut settled = true;
        let pods = |live: Option<&DynamicObject>| {
            let namespaces = namespaces(configured, live, &inhabited(&self.monitors));
            settled = namespaces == *configured;
            let namespaces = namespaces.difference(&self.excluded).cloned().collect();
            serde_json::to_value(mutating(&self.endpoint, namespaces, bundle))
        };
        self.converge::<MutatingWebhookConfiguration>(INJECTOR, pods, owner.as_ref())
            .await?;
        let monitors = |_: Option<&DynamicObject>| serde_json::to_value([validating(&self.endpoint, bundle)]);
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

/// The webhook for pods in `namespaces`; none where there are no namespaces. Every field that the API server would default is
/// written out, so that what comes back can be compared.
fn mutating(endpoint: &Endpoint, namespaces: Vec<String>, bundle: &str) -> Vec<MutatingWebhook> {
    if namespaces.is_empty() {
        return Vec::new();
    }
    vec![MutatingWebhook {
        name: "inject.rosey.dev".into(),
        admission_review_versions: vec!["v1".into()],
        client_config: client_config(endpoint, INJECT_PATH, bundle),
        failure_policy: Some("Ignore".into()),
        match_conditions: Some(vec![
            MatchCondition {
                name: "not-a-mirror-pod".into(),
                expression: NOT_MIRRORED.into(),
            },
            MatchCondition {
                name: "not-yet-injected".into(),
                expression: not_injected(),
            },
        ]),
        match_policy: Some("Equivalent".into()),
        namespace_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "kubernetes.io/metadata.name".into(),
                operator: "In".into(),
                values: Some(namespaces),
            }]),
            match_labels: None,
        }),
        object_selector: Some(LabelSelector::default()),
        reinvocation_policy: Some("IfNeeded".into()),
        rules: Some(vec![rule("", "v1", "pods", &["CREATE"])]),
        side_effects: "None".into(),
        timeout_seconds: Some(2),
    }]
}

fn validating(endpoint: &Endpoint, bundle: &str) -> ValidatingWebhook {
    ValidatingWebhook {
        name: "validate.rosey.dev".into(),
        admission_review_versions: vec!["v1".into()],
        client_config: client_config(endpoint, VALIDATE_PATH, bundle),
        failure_policy: Some("Ignore".into()),
        match_conditions: Some(vec![MatchCondition {
            name: "spec-changed".into(),
            expression: SPEC_CHANGED.into(),
        }]),
        match_policy: Some("Equivalent".into()),
        namespace_selector: Some(LabelSelector::default()),
        object_selector: Some(LabelSelector::default()),
        rules: Some(vec![rule(GROUP, "v1alpha1", "roseymonitors", &["CREATE", "UPDATE"])]),
        side_effects: "None".into(),
        timeout_seconds: Some(5),
    }
}

fn not_injected() -> String {
    format!(
        "!has(object.metadata.annotations) || !('{INJECTED_ANNOTATION}' in object.metadata.annotations) || \
         !(object.spec.containers.exists(c, c.name == '{CONTAINER}') || \
         (has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == '{CONTAINER}')))"
    )
}

fn rule(group: &str, version: &str, resource: &str, operations: &[&str]) -> RuleWithOperations {
    RuleWithOperations {
        api_groups: Some(vec![group.into()]),
        api_versions: Some(vec![version.into()]),
        operations: Some(operations.iter().map(|&operation| operation.into()).collect()),
        resources: Some(vec![resource.into()]),
        scope: Some("Namespaced".into()),
    }
}

fn client_config(endpoint: &Endpoint, path: &str, bundle: &str) -> WebhookClientConfig {
    let ca_bundle = Some(ByteString(bundle.as_bytes().to_vec()));
    match endpoint {
        Endpoint::Service { namespace, name, port } => WebhookClientConfig {
            ca_bundle,
            service: Some(ServiceReference {
                namespace: namespace.clone(),
                name: name.clone(),
                path: Some(path.into()),
                port: Some((*port).into()),
            }),
            url: None,
        },
        Endpoint::Url(base) => WebhookClientConfig {
            ca_bundle,
            service: None,
            url: Some(format!("{}{path}", base.trim_end_matches('/'))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Endpoint {
        Endpoint::Service {
            namespace: "rosey-system".into(),
            name: "rosey-operator".into(),
            port: 443,
        }
    }

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference {
            api_version: "rbac.authorization.k8s.io/v1".into(),
            kind: "ClusterRole".into(),
            name: "rosey-operator".into(),
            uid: uid.into(),
            ..OwnerReference::default()
        }
    }

    fn live(webhooks: &Value, uid: &str) -> DynamicObject {
        let kind = ApiResource::erase::<MutatingWebhookConfiguration>(&());
        serde_json::from_value(body(&kind, INJECTOR, webhooks, Some(&owner(uid)))).unwrap()
    }

    #[test]
    fn the_registration_of_pods_looks_like_this() {
        let kind = ApiResource::erase::<MutatingWebhookConfiguration>(&());
        let webhooks = serde_json::to_value(mutating(&service(), vec!["bots".into(), "chat".into()], "PEM")).unwrap();
        insta::assert_yaml_snapshot!(body(&kind, INJECTOR, &webhooks, Some(&owner("5f0c"))));
    }

    #[test]
    fn the_registration_of_monitors_looks_like_this() {
        let kind = ApiResource::erase::<ValidatingWebhookConfiguration>(&());
        let endpoint = Endpoint::Url("https://127.0.0.1:9443/".into());
        let webhooks = serde_json::to_value([validating(&endpoint, "PEM")]).unwrap();
        insta::assert_yaml_snapshot!(body(&kind, VALIDATOR, &webhooks, None));
    }

    #[test]
    fn without_namespaces_no_pod_is_asked_for() {
        assert_eq!(mutating(&service(), Vec::new(), "PEM"), []);
    }

    #[test]
    fn an_operator_that_has_just_started_leaves_registered_namespaces_alone_as_long_as_they_have_a_monitor() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let webhooks = serde_json::to_value(mutating(&service(), vec!["bots".into(), "left".into()], "PEM")).unwrap();
        let live = live(&webhooks, "5f0c");
        let inhabited = set(&["bots", "chat", "new"]);
        assert_eq!(namespaces(&set(&[]), Some(&live), &inhabited), set(&["bots"]));
        assert_eq!(
            namespaces(&set(&["chat"]), Some(&live), &inhabited),
            set(&["bots", "chat"])
        );
        assert_eq!(namespaces(&set(&["chat"]), None, &inhabited), set(&["chat"]));
        assert_eq!(namespaces(&set(&[]), Some(&live), &set(&[])), set(&[]));
    }

    #[test]
    fn only_a_difference_that_matters_is_repaired() {
        let webhooks = serde_json::to_value(mutating(&service(), vec!["bots".into()], "PEM")).unwrap();
        let mut object = live(&webhooks, "5f0c");
        object
            .metadata
            .labels
            .get_or_insert_default()
            .insert("team".into(), "chat".into());
        assert!(
            stands(&object, &webhooks, Some(&owner("5f0c"))),
            "somebody's label stays"
        );
        assert!(stands(&object, &webhooks, None));
        assert!(
            !stands(&object, &webhooks, Some(&owner("77aa"))),
            "an owner that was made anew"
        );

        object.data["webhooks"][0]["timeoutSeconds"] = json!(30);
        assert!(!stands(&object, &webhooks, None), "an edit");
        let mut object = live(&webhooks, "5f0c");
        let conditions = object.data["webhooks"][0]["matchConditions"].as_array_mut().unwrap();
        conditions.push(json!({"name": "never", "expression": "false"}));
        assert!(!stands(&object, &webhooks, None), "an addition");
    }
}
