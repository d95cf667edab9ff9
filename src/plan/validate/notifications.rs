//! Channels, routes and inhibitions. Child routes are raw JSON in the CRD of prometheus-operator: nobody else checks them.

use std::collections::BTreeSet;

use super::Findings;
use super::alerts::{ResolvedAlert, unknown};
use crate::api::alerts::Severity;
use crate::api::notifications::{Channel, Notifications, Route};
use crate::catalogue;

pub fn check(found: &mut Findings, notifications: &Notifications, alerts: &[ResolvedAlert]) {
    let field = "spec.notifications";
    unique(
        found,
        &format!("{field}.groupBy"),
        notifications.group_by.iter().map(String::as_str),
    );
    found.duration(&format!("{field}.groupWait"), &notifications.group_wait);
    found.positive(&format!("{field}.groupInterval"), &notifications.group_interval);
    found.positive(&format!("{field}.repeatInterval"), &notifications.repeat_interval);

    unique(
        found,
        &format!("{field}.channels"),
        notifications.channels.iter().map(|c| c.name.as_str()),
    );
    for (n, channel) in notifications.channels.iter().enumerate() {
        check_channel(found, &format!("{field}.channels[{n}]"), channel);
    }
    unique(
        found,
        &format!("{field}.routes"),
        notifications.routes.iter().map(|r| r.name.as_str()),
    );
    for (n, route) in notifications.routes.iter().enumerate() {
        check_route(found, &format!("{field}.routes[{n}]"), route, notifications);
    }
    for (n, inhibition) in notifications.inhibit.iter().enumerate() {
        let field = format!("{field}.inhibit[{n}]");
        check_alert(found, &format!("{field}.source"), &inhibition.source);
        for (m, target) in inhibition.targets.iter().enumerate() {
            check_alert(found, &format!("{field}.targets[{m}]"), target);
            if *target == inhibition.source {
                found.problem(
                    format!("{field}.targets[{m}]"),
                    format!("{target} can't silence itself"),
                );
            }
        }
    }
    check_mutual(found, notifications);
    warn_of_silence(found, notifications, alerts);
}

fn check_channel(found: &mut Findings, field: &str, channel: &Channel) {
    let kinds = [
        channel.discord.is_some(),
        channel.slack.is_some(),
        channel.email.is_some(),
        channel.webhook.is_some(),
    ];
    if kinds.iter().filter(|set| **set).count() != 1 {
        found.problem(
            field,
            format!(
                "channel {} must have exactly one of discord, slack, email, webhook",
                channel.name
            ),
        );
    }
    if let Some(email) = &channel.email {
        if email.username.is_some() != email.password_secret_ref.is_some() {
            found.problem(format!("{field}.email"), "username and passwordSecretRef go together");
        }
        let port = email
            .smarthost
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            found.problem(
                format!("{field}.email.smarthost"),
                format!("{:?} must be host:port, with a port from 1 to 65535", email.smarthost),
            );
        }
    }
}

fn check_route(found: &mut Findings, field: &str, route: &Route, notifications: &Notifications) {
    for (n, name) in route.channels.iter().enumerate() {
        if !notifications.channels.iter().any(|channel| channel.name == *name) {
            let known: Vec<_> = notifications
                .channels
                .iter()
                .map(|channel| channel.name.as_str())
                .collect();
            let known = if known.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            };
            found.problem(
                format!("{field}.channels[{n}]"),
                format!("{name:?} is no channel of spec.notifications.channels; {known}"),
            );
        }
    }
    unique(
        found,
        &format!("{field}.channels"),
        route.channels.iter().map(String::as_str),
    );
    unique(
        found,
        &format!("{field}.severities"),
        route.severities.iter().map(|s| s.as_str()),
    );
    unique(
        found,
        &format!("{field}.alerts"),
        route.alerts.iter().map(String::as_str),
    );
    for (n, alert) in route.alerts.iter().enumerate() {
        check_alert(found, &format!("{field}.alerts[{n}]"), alert);
    }
    if let Some(wait) = &route.group_wait {
        found.duration(&format!("{field}.groupWait"), wait);
    }
    if let Some(interval) = &route.group_interval {
        found.positive(&format!("{field}.groupInterval"), interval);
    }
    if let Some(interval) = &route.repeat_interval {
        found.positive(&format!("{field}.repeatInterval"), interval);
    }
    let mentions = |name: &String| {
        notifications
            .channels
            .iter()
            .any(|c| c.name == *name && (c.discord.is_some() || c.slack.is_some()))
    };
    if route.mention.is_some() && !route.channels.iter().any(mentions) {
        found.warn(format!(
            "{field}.mention: none of the route's channels knows mentions; only discord and slack do"
        ));
    }
}

/// Alertmanager mutes by an active source even when that source is muted itself: alerts that silence each other, directly or
/// in a round, leave nobody told.
fn check_mutual(found: &mut Findings, notifications: &Notifications) {
    let inherited = catalogue::INHIBITIONS
        .iter()
        .filter(|_| notifications.inherit_inhibitions);
    let inherited = inherited.flat_map(|i| i.targets.iter().map(|target| (i.source, *target)));
    let own = notifications
        .inhibit
        .iter()
        .flat_map(|i| i.targets.iter().map(|target| (i.source.as_str(), target.as_str())));
    let edges: Vec<(&str, &str)> = inherited.chain(own).collect();
    for (n, inhibition) in notifications.inhibit.iter().enumerate() {
        for (m, target) in inhibition
            .targets
            .iter()
            .enumerate()
            .filter(|(_, target)| **target != inhibition.source)
        {
            let mut reached = BTreeSet::from([target.as_str()]);
            while let Some((_, next)) = edges
                .iter()
                .find(|(source, next)| reached.contains(source) && !reached.contains(next))
            {
                reached.insert(next);
            }
            if reached.contains(inhibition.source.as_str()) {
                let message = format!(
                    "{} and {target} would silence each other, and nobody would be told; remove one",
                    inhibition.source
                );
                found.problem(format!("spec.notifications.inhibit[{n}].targets[{m}]"), message);
            }
        }
    }
}

fn check_alert(found: &mut Findings, field: &str, name: &str) {
    if !catalogue::alerts().any(|alert| alert.name == name) {
        found.problem(field, unknown(name));
    }
}

/// The API server refuses a second equal element of a set or map; a file may have one.
fn unique<'a>(found: &mut Findings, field: &str, names: impl Iterator<Item = &'a str>) {
    let mut seen = BTreeSet::new();
    for (n, name) in names.enumerate() {
        if !seen.insert(name) {
            found.problem(format!("{field}[{n}]"), format!("{name:?} stands in the list already"));
        }
    }
}

fn warn_of_silence(found: &mut Findings, notifications: &Notifications, alerts: &[ResolvedAlert]) {
    if notifications.channels.is_empty() {
        return;
    }
    for severity in [Severity::Critical, Severity::Warning, Severity::Info] {
        let of_severity = alerts
            .iter()
            .filter(|alert| alert.levels.iter().any(|level| level.severity == severity));
        let (taken, lost): (Vec<_>, Vec<_>) = of_severity.map(|resolved| resolved.alert.name).partition(|name| {
            notifications.routes.iter().any(|route| {
                (route.severities.is_empty() || route.severities.contains(&severity))
                    && (route.alerts.is_empty() || route.alerts.iter().any(|alert| alert == name))
            })
        });
        let field = "spec.notifications.routes";
        match (taken.is_empty(), lost.is_empty()) {
            (_, true) => {}
            (true, false) => found.warn(format!(
                "{field}: no route takes severity {}; such alerts tell nobody",
                severity.as_str()
            )),
            (false, false) => found.warn(format!(
                "{field}: no route takes {} of severity {}",
                lost.join(", "),
                severity.as_str()
            )),
        }
    }
    for (n, route) in notifications.routes.iter().enumerate() {
        for (m, channel) in route.channels.iter().enumerate() {
            let mut earlier = notifications.routes[..n].iter();
            if let Some(first) = earlier.find(|first| first.channels.contains(channel) && covers(first, route)) {
                found.warn(format!(
                    "spec.notifications.routes[{n}].channels[{m}]: route {} takes all that route {} would tell {channel}; \
                     put the more special one first",
                    first.name, route.name
                ));
            }
        }
    }
    for channel in &notifications.channels {
        if !notifications
            .routes
            .iter()
            .any(|route| route.channels.contains(&channel.name))
        {
            found.warn(format!(
                "spec.notifications.channels: no route uses channel {}",
                channel.name
            ));
        }
    }
}

/// Whether every alert that takes the route `other` takes this one too.
fn covers(route: &Route, other: &Route) -> bool {
    let all = [Severity::Critical, Severity::Warning, Severity::Info];
    let severities = if other.severities.is_empty() {
        &all[..]
    } else {
        other.severities.as_slice()
    };
    let of_severity =
        route.severities.is_empty() || severities.iter().all(|severity| route.severities.contains(severity));
    let of_name = route.alerts.is_empty()
        || (!other.alerts.is_empty() && other.alerts.iter().all(|alert| route.alerts.contains(alert)));
    of_severity && of_name
}
