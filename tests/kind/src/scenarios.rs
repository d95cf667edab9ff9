//! What is shown, each as a story of its own in a namespace of its own.

mod changes;
mod containers;
mod drain;
mod encrypted;
mod installed;
mod latency;
mod recorded;
mod rights;
mod sources;
mod story;
mod versions;
mod webhook;

use std::fmt;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use crate::stage::Stage;

/// When a scenario is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Beside others: it disturbs none.
    Beside,
    /// After those, one after the other, in this order.
    Alone,
}

/// A story; what it returns stands in the table.
pub struct Scenario {
    /// Its name, and that of its namespace.
    pub name: &'static str,
    pub sentence: &'static str,
    pub act: Act,
    /// Whether it belongs to the second set.
    pub full: bool,
    pub play: for<'a> fn(&'a Stage) -> LocalBoxFuture<'a, Result<String>>,
}

/// How a scenario ends that could not show what it is about, through no fault of the product's: neither passed nor failed.
#[derive(Debug)]
pub struct NotShown(pub String);

impl fmt::Display for NotShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotShown {}

/// The one that needs an earlier release.
pub const UPGRADE: &str = "upgrade";

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "install",
        sentence: "helm test is green, and bots of a Deployment and of a StatefulSet are injected, scraped and seen",
        act: Act::Beside,
        full: false,
        play: |stage| {
            Box::pin(installed::every_bot_of_a_deployment_and_of_a_statefulset_is_injected_and_scraped(stage))
        },
    },
    Scenario {
        name: "story",
        sentence: "a bot breaks, the alert arrives on Discord, on Slack and by mail, and so does its end",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(story::a_bot_that_breaks_is_announced_and_so_is_its_recovery(stage)),
    },
    Scenario {
        name: "unpullable",
        sentence: "a bot starts although the exporter's image can't be pulled, and the status says so",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(containers::a_bot_starts_although_its_exporter_can_not_be_pulled(stage)),
    },
    Scenario {
        name: "restart",
        sentence: "a bot's container restarts, and its exporter runs on",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(containers::a_bot_restarts_and_its_exporter_runs_on(stage)),
    },
    Scenario {
        name: "jobs",
        sentence: "a Job ends although an exporter runs in its pod",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(containers::a_job_with_an_exporter_ends(stage)),
    },
    Scenario {
        name: "propagation",
        sentence: "another backups.pattern shows in the series within 90 s, and no pod restarts",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(changes::a_pattern_reaches_the_series_of_a_running_pod(stage)),
    },
    Scenario {
        name: "in-place",
        sentence: "another exporter image replaces the sidecars alone; the bots' containers are untouched",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(changes::another_image_replaces_the_exporter_and_not_the_bot(stage)),
    },
    Scenario {
        name: "restricted",
        sentence: "Pod Security `restricted` admits what is injected, and refuses a pod for the bot's reasons only",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(webhook::a_restricted_namespace_admits_the_exporter(stage)),
    },
    Scenario {
        name: "sources",
        sentence: "the examples' metrics, plugins and logs become series, and a monitor that makes no sense is refused by its field",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(sources::metrics_plugins_and_logs_become_series(stage)),
    },
    Scenario {
        name: "recorded",
        sentence: "a failed deployment is recorded by kubectl rosey, exported by the operator, and announced",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(recorded::a_failed_deployment_is_recorded_exported_and_announced(stage)),
    },
    Scenario {
        name: "encrypted",
        sentence: "a monitor turns to TLS and a password: its pod is scraped in plain HTTP until it is restarted, and then by TLS",
        act: Act::Beside,
        full: false,
        play: |stage| Box::pin(encrypted::a_pod_is_scraped_in_plain_http_until_it_is_restarted_and_then_by_tls(stage)),
    },
    Scenario {
        name: "rollout",
        sentence: "while the operator is rolled out, no pod is refused, and every one is injected",
        act: Act::Alone,
        full: false,
        play: |stage| Box::pin(webhook::a_rollout_of_the_operator_misses_no_pod(stage)),
    },
    Scenario {
        name: "away",
        sentence: "with no operator, no pod is refused",
        act: Act::Alone,
        full: false,
        play: |stage| Box::pin(webhook::without_an_operator_no_pod_is_refused(stage)),
    },
    Scenario {
        name: "hung",
        sentence: "with an operator that hangs, no pod is refused; once it answers again, new pods are injected",
        act: Act::Alone,
        full: false,
        play: |stage| Box::pin(webhook::a_hung_operator_refuses_no_pod(stage)),
    },
    Scenario {
        name: "rights",
        sentence: "the operator is refused nothing, and uses every right that it has",
        act: Act::Alone,
        full: false,
        play: |stage| Box::pin(rights::the_operator_is_refused_nothing_and_uses_every_right(stage)),
    },
    Scenario {
        name: "uninstall",
        sentence: "helm uninstall keeps definition and monitors, takes the webhooks, and leaves pods running",
        act: Act::Alone,
        full: false,
        play: |stage| Box::pin(installed::what_stays_and_what_goes_when_the_chart_is_uninstalled(stage)),
    },
    Scenario {
        name: "latency",
        sentence: "what the webhook costs whoever creates pods",
        act: Act::Alone,
        full: true,
        play: |stage| Box::pin(latency::a_registration_costs_a_pod_next_to_nothing(stage)),
    },
    Scenario {
        name: "drain",
        sentence: "a drain takes one replica at a time, no pod is refused, and every one is injected",
        act: Act::Alone,
        full: true,
        play: |stage| {
            Box::pin(drain::a_drain_takes_one_replica_at_a_time_and_no_pod_goes_without(
                stage,
            ))
        },
    },
    Scenario {
        name: "reinstall",
        sentence: "after an uninstall alerts still arrive; a new installation finds everything as it was",
        act: Act::Alone,
        full: true,
        play: |stage| {
            Box::pin(versions::a_removal_and_a_new_installation_find_everything_as_it_was(
                stage,
            ))
        },
    },
    Scenario {
        name: "namespaced",
        sentence: "an operator of one namespace works with Roles, and without webhooks with Roles only",
        act: Act::Alone,
        full: true,
        play: |stage| Box::pin(versions::an_operator_of_one_namespace_works_with_roles(stage)),
    },
    Scenario {
        name: UPGRADE,
        sentence: "an upgrade and a rollback keep every monitor working, and touch no pod",
        act: Act::Alone,
        full: true,
        play: |stage| Box::pin(versions::an_upgrade_and_a_rollback_keep_every_monitor_working(stage)),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own_that_can_be_a_namespace() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        let fits = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-') && name.len() < 40;
        assert_eq!(names.into_iter().find(|name| !fits(name)), None);
    }

    #[test]
    fn what_upgrades_and_what_uninstalls_comes_last() {
        let last = |full: bool| {
            SCENARIOS
                .iter()
                .rfind(|scenario| scenario.full == full)
                .map(|scenario| scenario.name)
        };
        assert_eq!((last(false), last(true)), (Some("uninstall"), Some(UPGRADE)));
    }
}
