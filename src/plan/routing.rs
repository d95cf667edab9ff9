//! `AlertmanagerConfig`s: one a channel with the routes that use it, and one with the inhibitions.
//!
//! One a channel, because prometheus-operator drops a whole object when one Secret is missing: a broken channel must not take
//! the others with it.

use serde_json::{Value, json};

use super::receivers;
use super::validate::Valid;
use crate::api::notifications::{Channel, Notifications, Route};
use crate::catalogue;
use crate::monitoring::alertmanager_config::{
    AlertmanagerConfigInhibitRules as InhibitRule, AlertmanagerConfigInhibitRulesSourceMatch as SourceMatch,
    AlertmanagerConfigInhibitRulesSourceMatchMatchType as SourceMatchType,
    AlertmanagerConfigInhibitRulesTargetMatch as TargetMatch,
    AlertmanagerConfigInhibitRulesTargetMatchMatchType as TargetMatchType, AlertmanagerConfigRoute as AmRoute,
    AlertmanagerConfigRouteMatchers as Matcher, AlertmanagerConfigRouteMatchersMatchType as MatchType,
    AlertmanagerConfigSpec,
};
use crate::plan::Platform;

/// Receiver of the first route, which nothing should stay at: it tells nobody.
pub const NOBODY: &str = "none";

/// The spec of a channel's `AlertmanagerConfig`; `None` where no route uses the channel.
pub fn channel(
    monitor: &Valid<'_>,
    notifications: &Notifications,
    channel: &Channel,
    platform: &Platform,
) -> Option<Value> {
    let routes: Vec<&Route> = notifications
        .routes
        .iter()
        .filter(|route| route.channels.contains(&channel.name))
        .collect();
    if routes.is_empty() {
        return None;
    }
    let mut children = Vec::new();
    let mut told = vec![receivers::nobody(NOBODY)];
    for route in routes {
        let receiver = format!("{}-{}", channel.name, route.name);
        let mention = route.mention.as_deref();
        told.push(receivers::receiver(
            &receiver,
            channel,
            mention,
            notifications.send_resolved,
            platform,
        ));
        children.push(child(route, notifications, receiver));
    }
    let root = AmRoute {
        receiver: Some(NOBODY.into()),
        // prometheus-operator forces `continue: true` on this route (#5019) and, with matcher strategy None, adds no matcher:
        // without ours the route would take every alert of the cluster.
        matchers: Some(vec![
            matcher("namespace", MatchType::Equal, monitor.namespace),
            matcher("rosey_monitor", MatchType::Equal, monitor.name),
        ]),
        group_by: Some(notifications.group_by.clone()),
        ..AmRoute::default()
    };
    let spec = AlertmanagerConfigSpec {
        receivers: Some(told),
        route: Some(root),
        ..AlertmanagerConfigSpec::default()
    };
    let mut spec = json!(spec);
    // The CRD leaves child routes untyped, and so do the generated types.
    spec["route"]["routes"] = json!(children);
    Some(spec)
}

/// A child takes what its route asks for and ends there: a channel hears of an alert once, by its first route.
fn child(route: &Route, notifications: &Notifications, receiver: String) -> AmRoute {
    let mut matchers = Vec::new();
    if !route.severities.is_empty() {
        let severities: Vec<_> = route.severities.iter().map(|s| s.as_str()).collect();
        matchers.push(matcher("severity", MatchType::Match, &severities.join("|")));
    }
    if !route.alerts.is_empty() {
        matchers.push(matcher("alertname", MatchType::Match, &route.alerts.join("|")));
    }
    AmRoute {
        receiver: Some(receiver),
        matchers: (!matchers.is_empty()).then_some(matchers),
        group_by: Some(notifications.group_by.clone()),
        group_wait: Some(
            route
                .group_wait
                .as_ref()
                .unwrap_or(&notifications.group_wait)
                .to_string(),
        ),
        group_interval: Some(
            route
                .group_interval
                .as_ref()
                .unwrap_or(&notifications.group_interval)
                .to_string(),
        ),
        repeat_interval: Some(
            route
                .repeat_interval
                .as_ref()
                .unwrap_or(&notifications.repeat_interval)
                .to_string(),
        ),
        ..AmRoute::default()
    }
}

fn matcher(name: &str, match_type: MatchType, value: &str) -> Matcher {
    Matcher {
        name: name.into(),
        match_type: Some(match_type),
        value: Some(value.into()),
        regex: None,
    }
}

/// The spec of the `AlertmanagerConfig` with the inhibitions; `None` where there are none. It needs no route.
pub fn inhibitions(monitor: &Valid<'_>, notifications: Option<&Notifications>) -> Option<Value> {
    let mut rules = Vec::new();
    if notifications.is_none_or(|n| n.inherit_inhibitions) {
        for inhibition in catalogue::INHIBITIONS {
            rules.extend(inhibition_rules(
                monitor,
                inhibition.source,
                &inhibition.targets.join("|"),
            ));
        }
    }
    for inhibition in notifications.iter().flat_map(|n| &n.inhibit) {
        rules.extend(inhibition_rules(
            monitor,
            &inhibition.source,
            &inhibition.targets.join("|"),
        ));
    }
    if monitor.alerts.iter().any(|alert| alert.levels.len() > 1) {
        rules.extend(level_rules(monitor));
    }
    (!rules.is_empty()).then(|| {
        json!(AlertmanagerConfigSpec {
            inhibit_rules: Some(rules),
            ..AlertmanagerConfigSpec::default()
        })
    })
}

/// A source silences its targets on the same pod; a source without a pod (all are gone) silences them on every pod.
fn inhibition_rules(monitor: &Valid<'_>, source: &str, targets: &str) -> [InhibitRule; 2] {
    let rule = |source_labels: &[(&str, &str)], equal: &[&str]| {
        inhibit(
            monitor,
            source_labels,
            &[("alertname", TargetMatchType::Match, targets)],
            equal,
        )
    };
    [
        rule(&[("alertname", source)], &["namespace", "rosey_monitor", "pod"]),
        rule(&[("alertname", source), ("pod", "")], &["namespace", "rosey_monitor"]),
    ]
}

/// Of an alert's levels only the most urgent one speaks.
fn level_rules(monitor: &Valid<'_>) -> [InhibitRule; 2] {
    [("critical", "warning|info"), ("warning", "info")].map(|(above, below)| {
        let below = [("severity", TargetMatchType::Match, below)];
        inhibit(
            monitor,
            &[("severity", above)],
            &below,
            &["namespace", "rosey_monitor", "alertname", "pod", "path"],
        )
    })
}

/// Both sides match namespace and monitor themselves: with matcher strategy None nobody else adds it.
fn inhibit(
    monitor: &Valid<'_>,
    source: &[(&str, &str)],
    target: &[(&str, TargetMatchType, &str)],
    equal: &[&str],
) -> InhibitRule {
    let own = [("namespace", monitor.namespace), ("rosey_monitor", monitor.name)];
    let source_match = own.iter().chain(source).map(|(name, value)| SourceMatch {
        name: (*name).into(),
        match_type: Some(SourceMatchType::Equal),
        value: Some((*value).into()),
        regex: None,
    });
    let own_target = own.map(|(name, value)| (name, TargetMatchType::Equal, value));
    let target_match = own_target
        .iter()
        .chain(target)
        .map(|(name, match_type, value)| TargetMatch {
            name: (*name).into(),
            match_type: Some(match_type.clone()),
            value: Some((*value).into()),
            regex: None,
        });
    InhibitRule {
        source_match: Some(source_match.collect()),
        target_match: Some(target_match.collect()),
        equal: Some(equal.iter().map(|label| (*label).into()).collect()),
    }
}
