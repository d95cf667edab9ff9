//! The `PrometheusRule`: the alerts in force, group by group.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::template::{PATH, POD, fill, literal};
use super::validate::{ResolvedAlert, ResolvedLevel, Valid};
use crate::catalogue::alert::{Group, Source, Subject};
use crate::monitoring::prometheus_rule::{PrometheusRuleGroups, PrometheusRuleGroupsRules, PrometheusRuleSpec};

pub fn rule(monitor: &Valid<'_>) -> PrometheusRuleSpec {
    let mut groups: BTreeMap<Group, Vec<PrometheusRuleGroupsRules>> = BTreeMap::new();
    for resolved in &monitor.alerts {
        let rules = groups.entry(resolved.alert.group).or_default();
        rules.extend(
            resolved
                .levels
                .iter()
                .map(|level| alerting_rule(monitor, resolved, level)),
        );
    }
    let interval = monitor.spec.alerts.interval.as_ref().map(ToString::to_string);
    let groups = groups.into_iter().map(|(group, rules)| {
        let (name, own_interval) = group.name_and_interval();
        PrometheusRuleGroups {
            name: name.into(),
            interval: Some(interval.clone().unwrap_or_else(|| own_interval.into())),
            rules: Some(rules),
            ..PrometheusRuleGroups::default()
        }
    });
    PrometheusRuleSpec {
        groups: Some(groups.collect()),
    }
}

fn alerting_rule(monitor: &Valid<'_>, resolved: &ResolvedAlert, level: &ResolvedLevel) -> PrometheusRuleGroupsRules {
    let alert = resolved.alert;
    let subject = Subject {
        scope: scope(monitor),
        threshold: level.threshold.clone(),
        scrape_interval: monitor.spec.scrape.interval.seconds().unwrap_or(15),
        sources: Source::ALL
            .into_iter()
            .filter(|source| source.is_read(monitor.spec))
            .collect(),
    };
    let labels = [
        ("namespace", monitor.namespace),
        ("rosey_monitor", monitor.name),
        ("environment", &monitor.spec.environment),
        ("severity", level.severity.as_str()),
        ("component", alert.component),
    ];
    let (environment, threshold) = (literal(&monitor.spec.environment), literal(&level.shown));
    let values = [
        ("environment", environment.as_str()),
        ("monitor", monitor.name),
        ("path", PATH),
        ("pod", POD),
        ("value", alert.unit.shown()),
        ("threshold", &threshold),
        ("for", &level.hold.0),
    ];
    let runbook = monitor.spec.alerts.runbook_url.as_ref();
    let runbook = runbook.map(|url| ("runbook_url", literal(&url.replace("{alert}", alert.name))));
    let annotations = [
        ("summary", fill(alert.summary, &values)),
        ("description", fill(alert.description, &values)),
    ];
    let annotations = annotations.into_iter().chain(runbook);
    PrometheusRuleGroupsRules {
        alert: Some(alert.name.into()),
        expr: IntOrString::String((alert.expr)(&subject)),
        r#for: (level.hold.seconds() != Some(0)).then(|| level.hold.to_string()),
        labels: Some(labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect()),
        annotations: Some(annotations.map(|(k, v)| (k.into(), v)).collect()),
        ..PrometheusRuleGroupsRules::default()
    }
}

/// The matchers that every selector of a monitor carries. Both values are DNS labels: nothing in them needs quoting.
fn scope(monitor: &Valid<'_>) -> String {
    format!("namespace=\"{}\",rosey_monitor=\"{}\"", monitor.namespace, monitor.name)
}
