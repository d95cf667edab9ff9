//! The webhooks as they are registered. Every field that the API server would default is written out, so that what comes back
//! can be compared.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, RuleWithOperations, ServiceReference, ValidatingWebhook, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::super::{Endpoint, INJECT_PATH, VALIDATE_PATH};
use crate::api::GROUP;

/// A status has no part in the plan, and whoever is being deleted can't be mended.
const SPEC_CHANGED: &str =
    "!has(object.metadata.deletionTimestamp) && (request.operation == 'CREATE' || object.spec != oldObject.spec)";

/// The webhook for pods in `namespaces`; none where there are no namespaces.
pub(super) fn mutating(endpoint: &Endpoint, namespaces: Vec<String>, bundle: &str) -> Vec<MutatingWebhook> {
    if namespaces.is_empty() {
        return Vec::new();
    }
    vec![MutatingWebhook {
        name: "inject.rosey.dev".into(),
        admission_review_versions: vec!["v1".into()],
        client_config: client_config(endpoint, INJECT_PATH, bundle),
        failure_policy: Some("Ignore".into()),
        // Conditions would be evaluated twice for each pod that we patch, 0.3 ms each. The second call that they could spare comes only
        // where something changes the pod after us: another webhook, or a LimitRange's defaults.
        match_conditions: None,
        match_policy: Some("Equivalent".into()),
        namespace_selector: Some(named(namespaces)),
        object_selector: Some(LabelSelector::default()),
        reinvocation_policy: Some("IfNeeded".into()),
        rules: Some(vec![rule("", "v1", "pods", &["CREATE"])]),
        side_effects: "None".into(),
        timeout_seconds: Some(2),
    }]
}

/// The webhook for monitors in the namespaces that are `watched`; of none, in all.
pub(super) fn validating(endpoint: &Endpoint, watched: &BTreeSet<String>, bundle: &str) -> ValidatingWebhook {
    let selector = if watched.is_empty() {
        LabelSelector::default()
    } else {
        named(watched.iter().cloned().collect())
    };
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
        namespace_selector: Some(selector),
        object_selector: Some(LabelSelector::default()),
        rules: Some(vec![rule(GROUP, "v1alpha1", "roseymonitors", &["CREATE", "UPDATE"])]),
        side_effects: "None".into(),
        timeout_seconds: Some(5),
    }
}

/// Namespaces by their names, which the API server sets as a label on each.
fn named(namespaces: Vec<String>) -> LabelSelector {
    LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: "kubernetes.io/metadata.name".into(),
            operator: "In".into(),
            values: Some(namespaces),
        }]),
        match_labels: None,
    }
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
