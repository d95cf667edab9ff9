use rosey_monitor::api::scrape::TlsVersion;
use rosey_monitor::plan::{Kind, Object, Platform, plan};

use crate::{example, planned, with_spec};

fn yaml(plan: &rosey_monitor::plan::Plan) -> String {
    let documents: Vec<_> = plan
        .objects
        .iter()
        .map(|object| serde_saphyr::to_string(&object.json).unwrap())
        .collect();
    documents.join("---\n")
}

#[test]
fn the_first_example_makes_these_objects() {
    insta::assert_snapshot!(yaml(&planned(&example("rosey.yaml"))));
}

#[test]
fn the_severity_matrix_makes_these_objects() {
    insta::assert_snapshot!(yaml(&planned(&example("s0-rosey.yaml"))));
}

#[test]
fn a_monitor_that_says_only_who_its_pods_are_gets_what_can_be_known_of_them() {
    let plan = planned(&with_spec("environment: test\nselector: {matchLabels: {app: rosey}}"));
    insta::assert_snapshot!(yaml(&plan));
    insta::assert_debug_snapshot!(plan.report);
}

#[test]
fn an_older_stack_gets_no_mention_and_its_user_is_told() {
    let platform = Platform {
        alertmanager: Some("0.27.0".parse().unwrap()),
        ..Platform::default()
    };
    let plan = plan(&example("rosey.yaml"), &platform).unwrap();
    assert!(!yaml(&plan).contains("@everyone"));
    insta::assert_debug_snapshot!(plan.report.warnings);
}

const TWO_CHANNELS: &str = "environment: prod
selector: {matchLabels: {app: rosey}}
bot: {health: {port: 8000}}
notifications:
  channels:
    - {name: ci, webhook: {urlSecretRef: {name: rosey-channels, key: ci}}}
    - {name: ops, slack: {webhookSecretRef: {name: rosey-channels, key: slack}, channel: \"#ops\"}}
  routes: [{name: all, channels: [ci, ops]}]
";

#[test]
fn a_webhook_gets_alertmanagers_own_json_from_an_address_in_a_secret() {
    let plan = planned(&with_spec(TWO_CHANNELS));
    let ci = plan.objects.iter().find(|object| object.name == "rosey.ci").unwrap();
    insta::assert_yaml_snapshot!(ci.json["spec"]);
}

#[test]
fn labels_of_the_monitor_and_of_the_operator_are_on_every_monitoring_object_and_the_monitors_win() {
    let defaults = [("release", "default"), ("team", "platform")];
    let platform = Platform {
        default_object_labels: defaults.map(|(key, value)| (key.into(), value.into())).into(),
        ..Platform::default()
    };
    let monitor = with_spec(&format!("{TWO_CHANNELS}objectLabels: {{release: stack, cost: bots}}\n"));
    let plan = plan(&monitor, &platform).unwrap();
    let monitoring = plan.objects.iter().filter(|object| object.kind != Kind::ConfigMap);
    let mut seen = 0;
    for object in monitoring {
        let labels = &object.json["metadata"]["labels"];
        for (key, value) in [("release", "stack"), ("team", "platform"), ("cost", "bots")] {
            assert_eq!(labels[key], value, "{} {key}", object.name);
        }
        seen += 1;
    }
    assert_eq!(seen, 5, "rule, PodMonitor, inhibitions and two channels");
}

#[test]
fn without_the_catalogues_inhibitions_only_the_users_own_are_left() {
    let inhibitions = |more: &str| {
        let spec = TWO_CHANNELS.replace("notifications:\n", &format!("notifications:\n{more}"));
        let plan = planned(&with_spec(&spec));
        let own = |object: &&Object| object.kind == Kind::AlertmanagerConfig && object.name == "rosey";
        let rules = plan
            .objects
            .iter()
            .find(own)
            .map(|object| object.json["spec"]["inhibitRules"].to_string());
        rules.unwrap_or_default()
    };
    let says = |rules: &str| ["HighResponseTime", "BotDisconnected"].map(|target| rules.contains(target));
    assert_eq!(says(&inhibitions("")), [true, true]);
    assert_eq!(inhibitions("  inheritInhibitions: false\n"), "");
    let own = "  inheritInhibitions: false\n  inhibit: [{source: BotDown, targets: [HighResponseTime]}]\n";
    assert_eq!(says(&inhibitions(own)), [true, false]);
}

#[test]
fn nothing_is_said_of_an_alert_that_is_over_where_the_user_wants_none_of_it() {
    for wanted in [true, false] {
        let spec = TWO_CHANNELS.replace(
            "notifications:\n",
            &format!("notifications:\n  sendResolved: {wanted}\n"),
        );
        let plan = planned(&with_spec(&spec));
        let mut seen = 0;
        for object in plan.objects.iter().filter(|object| object.name.starts_with("rosey.")) {
            for receiver in object.json["spec"]["receivers"].as_array().unwrap() {
                for (kind, configs) in receiver.as_object().unwrap().iter().filter(|(key, _)| *key != "name") {
                    assert_eq!(configs[0]["sendResolved"], wanted, "{} {kind}", object.name);
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 2);
    }
}

#[test]
fn a_monitor_that_reads_logs_and_is_read_by_tls_makes_these_objects() {
    insta::assert_snapshot!(yaml(&planned(&example("s3-logs.yaml"))));
}

#[test]
fn a_bot_with_metrics_of_its_own_alone_is_asked_in_its_own_words() {
    let plan = planned(&example("s1-metrics.yaml"));
    let groups = &plan
        .objects
        .iter()
        .find(|object| object.kind == Kind::PrometheusRule)
        .unwrap()
        .json["spec"]["groups"];
    let rules = groups
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let lines: Vec<_> = rules
        .map(|rule| {
            format!(
                "{}: {}",
                rule["alert"].as_str().unwrap(),
                rule["expr"].as_str().unwrap()
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
    insta::assert_debug_snapshot!(plan.report.skipped);
}

#[test]
fn the_exporter_is_told_of_plugins_and_of_a_gateway_with_the_labels_of_a_scrape() {
    let mut monitor = example("s2-plugins.yaml");
    monitor.spec.exporter.pushgateway = serde_json::from_value(serde_json::json!({
        "url": "https://pushgateway.example.org/bots", "interval": "1m",
        "basicAuth": {"username": "rosey", "passwordSecretRef": {"name": "push", "key": "secret"}},
    }))
    .unwrap();
    let plan = planned(&monitor);
    insta::assert_snapshot!(plan.objects[0].json["data"]["exporter.yaml"].as_str().unwrap());
}

#[test]
fn pods_from_before_the_web_configuration_are_asked_without_what_is_meant_for_the_others() {
    let endpoints = |scrape: serde_json::Value| {
        let mut monitor = example("s3-logs.yaml");
        monitor.spec.scrape = serde_json::from_value(scrape).unwrap();
        let plan = planned(&monitor);
        let scrape = plan
            .objects
            .iter()
            .find(|object| object.kind == Kind::PodMonitor)
            .unwrap();
        scrape.json["spec"]["podMetricsEndpoints"].as_array().unwrap().clone()
    };
    let plain = endpoints(serde_json::json!({}));
    let auth =
        serde_json::json!({"username": {"name": "web", "key": "user"}, "password": {"name": "web", "key": "pass"}});
    for asked in [
        serde_json::json!({"scheme": "https"}),
        serde_json::json!({"basicAuth": auth}),
        serde_json::json!({"scheme": "https", "basicAuth": auth, "tlsConfig": {"serverName": "rosey"}}),
    ] {
        let both = endpoints(asked.clone());
        assert_eq!((plain.len(), both.len()), (1, 2), "{asked}");
        let narrowed = |endpoint: &serde_json::Value| {
            let mut endpoint = endpoint.clone();
            let by = endpoint["relabelings"].as_array_mut().unwrap().remove(1);
            assert_eq!(
                by["sourceLabels"][0],
                "__meta_kubernetes_pod_annotation_rosey_dev_scheme"
            );
            assert_eq!(by["regex"], "http");
            (by["action"].as_str().unwrap().to_owned(), endpoint)
        };
        let ((first, mut with), (second, without)) = (narrowed(&both[1]), narrowed(&both[0]));
        assert_eq!((&*first, &*second), ("drop", "keep"), "{asked}");
        assert_eq!(without, plain[0], "{asked}");
        for (field, value) in asked.as_object().unwrap() {
            assert_eq!(
                with.as_object_mut().unwrap().remove(field).as_ref(),
                Some(value),
                "{asked}"
            );
        }
        assert_eq!(with, plain[0], "{asked}");
    }
}

#[test]
fn an_older_prometheus_operator_gets_no_versions_of_tls_and_its_user_is_told() {
    let mut monitor = example("s3-logs.yaml");
    let tls = monitor.spec.scrape.tls_config.as_mut().unwrap();
    (tls.min_version, tls.max_version) = (Some(TlsVersion::Tls12), Some(TlsVersion::Tls13));
    let asked = |platform: &Platform| {
        let plan = plan(&monitor, platform).unwrap();
        let scrape = plan
            .objects
            .iter()
            .find(|object| object.kind == Kind::PodMonitor)
            .unwrap();
        let tls = scrape.json["spec"]["podMetricsEndpoints"][1]["tlsConfig"].clone();
        (
            tls["minVersion"].clone(),
            tls["maxVersion"].clone(),
            plan.report.warnings,
        )
    };
    let (least, most, warnings) = asked(&Platform::default());
    assert_eq!((least, most, warnings), ("TLS12".into(), "TLS13".into(), Vec::new()));
    let older = Platform {
        prometheus_operator: Some("0.75.2".parse().unwrap()),
        ..Platform::default()
    };
    let (least, most, warnings) = asked(&older);
    assert!(least.is_null() && most.is_null(), "{least} {most}");
    assert_eq!(
        warnings,
        ["spec.scrape.tlsConfig: minVersion and maxVersion need prometheus-operator 0.76; they are left out"]
    );
}
