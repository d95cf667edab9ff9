mod scrape;

use rosey_monitor::plan::{Platform, plan};

use crate::{example, monitor, with_spec};

const BASE: &str = "environment: prod\nselector: {matchLabels: {app: rosey}}\n";

/// What is said of a monitor with the base and this.
fn problems_of(more: &str) -> String {
    let monitor = with_spec(&format!("{BASE}{more}"));
    plan(&monitor, &Platform::default()).map_or_else(|problems| problems.to_string(), |_| "none".into())
}

#[test]
fn every_problem_of_a_monitor_is_told_at_once() {
    let said = problems_of(
        "objectLabels: {rosey.dev/monitor: other}\n\
         bot: {health: {port: 9100, timeout: 0s}}\n\
         exporter: {image: evil.example.org/miner:1, disk: [{volume: data, path: a/../..}], resources: {limits: {memory: lots}, requests: {cpu: \"2\"}}}\n\
         scrape: {interval: 5s, timeout: 10s}\n\
         alerts:\n\
         \x20 overrides:\n\
         \x20 - {alert: HighMemoryUsage, levels: [{severity: warning, threshold: 3 bananas}]}\n\
         \x20 - {alert: BotDwon}\n\
         \x20 - {alert: BotDown, enabled: false, levels: [{severity: info}]}\n\
         notifications:\n\
         \x20 groupInterval: 0s\n\
         \x20 channels:\n\
         \x20 - {name: both, discord: {webhookSecretRef: {name: a, key: b}}, webhook: {urlSecretRef: {name: a, key: b}}}\n\
         \x20 - {name: mail, email: {to: [a@b], from: a@b, smarthost: \"mail:99999\", username: me}}\n\
         \x20 routes:\n\
         \x20 - {name: one, channels: [nowhere], alerts: [Nothing]}\n\
         \x20 inhibit:\n\
         \x20 - {source: BotDown, targets: [BotDown]}",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn a_name_that_is_no_label_is_refused() {
    for name in ["a".repeat(41), "Rosey".into(), "rosey.bot".into(), "-rosey".into()] {
        let mut monitor = example("rosey.yaml");
        monitor.metadata.name = Some(name.clone());
        let problems = plan(&monitor, &Platform::default()).unwrap_err();
        assert!(
            problems.to_string().starts_with("metadata.name: "),
            "{name}: {problems}"
        );
    }
}

#[test]
fn a_selector_that_prometheus_operator_would_refuse_is_refused_first() {
    for (selector, field) in [
        ("{}", "spec.selector: "),
        ("{matchLabels: {\"a b\": c}}", "spec.selector.matchLabels[a b]: "),
        ("{matchLabels: {app: \"not ok\"}}", "spec.selector.matchLabels.app: "),
        (
            "{matchExpressions: [{key: app, operator: Like, values: [a]}]}",
            "spec.selector.matchExpressions[0].operator: ",
        ),
        (
            "{matchExpressions: [{key: app, operator: In, values: [a, b c]}]}",
            "spec.selector.matchExpressions[0].values[1]: ",
        ),
        (
            "{matchExpressions: [{key: app, operator: In}]}",
            "spec.selector.matchExpressions[0].values: ",
        ),
        (
            "{matchExpressions: [{key: app, operator: Exists, values: [a]}]}",
            "spec.selector.matchExpressions[0].values: ",
        ),
    ] {
        let monitor = with_spec(&format!("environment: prod\nselector: {selector}"));
        let problems = plan(&monitor, &Platform::default()).unwrap_err();
        assert!(problems.to_string().starts_with(field), "{selector}: {problems}");
    }
}

#[test]
fn what_is_legal_but_odd_is_a_warning() {
    let monitor = with_spec(&format!(
        "{BASE}bot: {{health: {{port: 8000}}}}\n\
         alerts: {{packs: [Bot], overrides: [{{alert: LowBackupCount, enabled: true}}]}}\n\
         notifications:\n\
         \x20 channels:\n\
         \x20 - {{name: used, webhook: {{urlSecretRef: {{name: a, key: b}}}}}}\n\
         \x20 - {{name: unused, webhook: {{urlSecretRef: {{name: a, key: b}}}}}}\n\
         \x20 routes:\n\
         \x20 - {{name: one, channels: [used], severities: [warning], mention: everyone}}"
    ));
    insta::assert_debug_snapshot!(plan(&monitor, &Platform::default()).unwrap().report.warnings);
}

#[test]
fn an_override_without_threshold_or_duration_takes_the_catalogues() {
    let monitor = with_spec(&format!(
        "{BASE}bot: {{health: {{port: 8000}}}}\n\
         alerts:\n\
         \x20 packs: [Bot]\n\
         \x20 overrides:\n\
         \x20 - {{alert: HighMemoryUsage, levels: [{{severity: warning, for: 1m}}, {{severity: critical, threshold: 1Gi}}]}}"
    ));
    let valid = rosey_monitor::plan::validate::validate(&monitor, &Platform::default()).unwrap();
    let memory = valid.alerts.iter().find(|a| a.alert.name == "HighMemoryUsage").unwrap();
    let levels: Vec<_> = memory
        .levels
        .iter()
        .map(|l| (l.severity.as_str(), l.threshold.as_str(), l.hold.0.as_str()))
        .collect();
    assert_eq!(
        levels,
        [("warning", "524288000", "1m"), ("critical", "1073741824", "10m")]
    );
}

#[test]
fn what_the_environment_leaves_out_can_be_forced() {
    let skipped = |more: &str| -> Vec<String> {
        let text = format!(
            "apiVersion: rosey.dev/v1alpha1\nkind: RoseyMonitor\nmetadata: {{name: rosey, namespace: bots}}\n\
             spec: {{environment: test, selector: {{matchLabels: {{app: rosey}}}}, bot: {{health: {{port: 8000}}}}, alerts: {{packs: [Bot]{more}}}}}"
        );
        let plan = plan(&monitor(&text), &Platform::default()).unwrap();
        plan.report
            .skipped
            .into_iter()
            .map(|s| format!("{}: {}", s.alert, s.reason))
            .collect()
    };
    let without_metrics = [
        "HighErrorRate: none of spec.bot.metrics, spec.bot.logs is set",
        "CriticalError: none of spec.bot.metrics, spec.bot.logs is set",
    ];
    assert_eq!(skipped("")[0], "NoUsersInChannel: environment is not prod");
    assert_eq!(skipped("")[1..], without_metrics);
    assert_eq!(
        skipped(", overrides: [{alert: NoUsersInChannel, enabled: true}]"),
        without_metrics
    );
    assert_eq!(
        skipped(", overrides: [{alert: BotDown, enabled: false}]")[0],
        "BotDown: switched off by spec.alerts.overrides"
    );
}

#[test]
fn alerts_that_would_silence_each_other_are_refused() {
    let said = problems_of("notifications: {inhibit: [{source: HighResponseTime, targets: [BotDown]}]}");
    assert_eq!(
        said,
        "spec.notifications.inhibit[0].targets[0]: HighResponseTime and BotDown would silence each other, and nobody would be told; remove one"
    );
    let alone = "notifications: {inheritInhibitions: false, inhibit: [{source: HighResponseTime, targets: [BotDown]}]}";
    assert_eq!(problems_of(alone), "none");
}

#[test]
fn what_the_exporter_would_refuse_is_refused_first() {
    for (more, field) in [
        ("bot: {health: {port: 8000, timeout: 2m}}", "spec.bot.health.timeout: "),
        (
            "bot: {metrics: {port: 8000, path: \"/a<b\"}}",
            "spec.bot.metrics.path: ",
        ),
        (
            &format!("exporter: {{backups: {{volume: b, pattern: \"{}\"}}}}", "ü".repeat(129)),
            "spec.exporter.backups.pattern: ",
        ),
        (
            &format!("exporter: {{disk: [{{volume: b, path: \"{}\"}}]}}", "ü".repeat(128)),
            "spec.exporter.disk[0].path: ",
        ),
    ] {
        let said = problems_of(more);
        assert!(said.starts_with(field), "{more}: {said}");
    }
}

#[test]
fn resources_that_no_container_starts_with_are_refused() {
    let said = |resources: &str| problems_of(&format!("exporter: {{resources: {{{resources}}}}}"));
    for enough in [
        "limits: {memory: 8Mi}",
        "limits: {memory: \"8388608\", cpu: 1m}",
        "requests: {memory: 1Mi}",
    ] {
        assert_eq!(said(enough), "none", "{enough}");
    }
    for memory in ["32m", "32", "1Ki", "8388607"] {
        assert_eq!(
            said(&format!("limits: {{memory: \"{memory}\"}}")),
            format!(
                "spec.exporter.resources.limits.memory: \"{memory}\" is less than the sidecar starts with; write 8Mi or more"
            )
        );
    }
    assert_eq!(
        said("requests: {memory: -5Mi}"),
        "spec.exporter.resources.requests.memory: \"-5Mi\" is less than nothing; write it without the sign"
    );
}

#[test]
fn a_scrape_that_cuts_the_bots_time_short_is_a_warning() {
    let warnings = |more: &str| {
        let monitor = with_spec(&format!("{BASE}alerts: {{packs: [Bot]}}\n{more}"));
        plan(&monitor, &Platform::default()).unwrap().report.warnings
    };
    let health = |health: &str, scrape: &str| {
        warnings(&format!(
            "bot: {{health: {{port: 8000, timeout: {health}}}}}\nscrape: {{timeout: {scrape}}}"
        ))
    };
    assert_eq!(
        health("5s", "5s"),
        [
            "spec.bot.health.timeout: 5s is cut short half a second before spec.scrape.timeout, 5s; write a scrape timeout of at least 6s"
        ]
    );
    assert_eq!(health("4s", "5s"), [] as [&str; 0]);
    assert_eq!(health("2s", "1s"), [] as [&str; 0]);
}

#[test]
fn an_interval_at_which_prometheus_forgets_is_refused() {
    for field in ["scrape", "alerts"] {
        assert_eq!(problems_of(&format!("{field}: {{interval: 2m}}")), "none");
        let said = problems_of(&format!("{field}: {{interval: 121s}}"));
        assert!(
            said.starts_with(&format!("spec.{field}.interval: is longer than 2m")),
            "{said}"
        );
    }
}

#[test]
fn an_empty_prefix_allows_no_image() {
    let monitor = with_spec(&format!("{BASE}exporter: {{image: evil.example.org/miner:1}}"));
    let platform = Platform {
        exporter_image_prefixes: vec![String::new()],
        ..Platform::default()
    };
    assert!(plan(&monitor, &platform).is_err());
}

#[test]
fn a_namespace_that_is_none_is_refused() {
    let mut monitor = example("rosey.yaml");
    monitor.metadata.namespace = Some("a\",x=\"".into());
    let problems = plan(&monitor, &Platform::default()).unwrap_err();
    assert!(problems.to_string().starts_with("metadata.namespace: "), "{problems}");
}

#[test]
fn a_route_that_an_earlier_one_leaves_nothing_is_named() {
    let warnings = |routes: &str| {
        let channel = |name: &str| format!("{{name: {name}, webhook: {{urlSecretRef: {{name: a, key: b}}}}}}");
        let monitor = with_spec(&format!(
            "{BASE}alerts: {{packs: [Bot]}}\nnotifications:\n\x20 channels: [{}, {}]\n\x20 routes: [{{name: rest, channels: [a, b]}}]",
            channel("a"),
            channel("b")
        ).replace("[{name: rest, channels: [a, b]}]", routes));
        plan(&monitor, &Platform::default()).unwrap().report.warnings
    };
    assert_eq!(
        warnings(
            "[{name: all, channels: [a]}, {name: down, alerts: [BotDown], channels: [a, b]}, {name: rest, channels: [b]}]"
        ),
        [
            "spec.notifications.routes[1].channels[0]: route all takes all that route down would tell a; put the more special one first"
        ]
    );
    assert_eq!(
        warnings("[{name: down, alerts: [BotDown], channels: [a, b]}, {name: all, channels: [a, b]}]"),
        [] as [&str; 0]
    );
    assert_eq!(
        warnings("[{name: one, severities: [critical, warning, info], channels: [a, b]}, {name: two, channels: [b]}]")
            .len(),
        1
    );
    assert_eq!(
        warnings("[{name: one, severities: [critical], channels: [a, b]}, {name: two, channels: [a, b]}]"),
        [] as [&str; 0]
    );
}

#[test]
fn alerts_that_no_route_takes_are_named() {
    let monitor = with_spec(&format!(
        "{BASE}bot: {{health: {{port: 8000}}}}\n\
         alerts: {{packs: [Bot]}}\n\
         notifications:\n\
         \x20 channels: [{{name: c, webhook: {{urlSecretRef: {{name: a, key: b}}}}}}]\n\
         \x20 routes: [{{name: r, alerts: [HighMemoryUsage], channels: [c]}}]"
    ));
    let warnings = plan(&monitor, &Platform::default()).unwrap().report.warnings;
    assert_eq!(
        warnings,
        [
            "spec.notifications.routes: no route takes severity critical; such alerts tell nobody",
            "spec.notifications.routes: no route takes BotDisconnected, HighResponseTime, NoUsersInChannel of severity warning",
        ]
    );
}
