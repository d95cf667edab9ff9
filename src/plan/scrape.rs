//! The `PodMonitor`: which pods are scraped, and what their series are called.

use super::validate::Valid;
use crate::monitoring::pod_monitor::{
    PodMonitorPodMetricsEndpoints as Endpoint, PodMonitorPodMetricsEndpointsRelabelings as Relabeling,
    PodMonitorPodMetricsEndpointsRelabelingsAction as Action, PodMonitorSelector, PodMonitorSelectorMatchExpressions,
    PodMonitorSpec,
};
use crate::sidecar;

/// The annotation [`crate::api::INJECTED_ANNOTATION`] as service discovery names it.
const INJECTED: &str = "__meta_kubernetes_pod_annotation_rosey_dev_injected";

pub fn pod_monitor(monitor: &Valid<'_>) -> PodMonitorSpec {
    let selector = &monitor.spec.selector;
    let expressions = selector.match_expressions.as_ref().map(|expressions| {
        let expression = |e: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement| {
            PodMonitorSelectorMatchExpressions {
                key: e.key.clone(),
                operator: e.operator.clone(),
                values: e.values.clone(),
            }
        };
        expressions.iter().map(expression).collect()
    });
    let set = |label: &str, value: &str| Relabeling {
        target_label: Some(label.into()),
        replacement: Some(value.into()),
        ..Relabeling::default()
    };
    let relabelings = vec![
        // A pod that another monitor's exporter was put into, or none, is not ours.
        Relabeling {
            action: Some(Action::Keep),
            source_labels: Some(vec![INJECTED.into()]),
            regex: Some(format!("{}@.+", monitor.name)),
            ..Relabeling::default()
        },
        set("rosey_monitor", monitor.name),
        set("environment", &monitor.spec.environment),
        // The default is the pod's address, which would stand in messages.
        Relabeling {
            source_labels: Some(vec!["__meta_kubernetes_pod_name".into()]),
            target_label: Some("instance".into()),
            ..Relabeling::default()
        },
    ];
    PodMonitorSpec {
        selector: PodMonitorSelector {
            match_labels: selector.match_labels.clone(),
            match_expressions: expressions,
        },
        pod_metrics_endpoints: Some(vec![Endpoint {
            port: Some(sidecar::PORT_NAME.into()),
            path: Some("/metrics".into()),
            interval: Some(monitor.spec.scrape.interval.to_string()),
            scrape_timeout: Some(monitor.spec.scrape.timeout.to_string()),
            honor_labels: Some(false),
            relabelings: Some(relabelings),
            ..Endpoint::default()
        }]),
        ..PodMonitorSpec::default()
    }
}
