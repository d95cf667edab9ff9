use promql_parser::label::MatchOp;
use promql_parser::parser::{Expr, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use rosey_monitor::catalogue;
use rosey_monitor::plan::{Kind, Plan};
use serde_json::Value;

use crate::{example, objects, planned, with_spec};

fn rules(plan: &Plan) -> Vec<&Value> {
    let groups = objects(plan, Kind::PrometheusRule)[0]["spec"]["groups"]
        .as_array()
        .unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect()
}

/// Every selector of an expression.
struct Selectors(Vec<promql_parser::parser::VectorSelector>);

impl ExprVisitor for Selectors {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Self::Error> {
        match expr {
            Expr::VectorSelector(selector) => self.0.push(selector.clone()),
            Expr::MatrixSelector(selector) => self.0.push(selector.vs.clone()),
            _ => {}
        }
        Ok(true)
    }
}

#[test]
fn every_selector_of_every_alert_is_bound_to_its_monitor() {
    let plans = [("s0-rosey.yaml", 15), ("s1-metrics.yaml", 5), ("s3-logs.yaml", 3)].map(|(name, alerts)| {
        let plan = planned(&example(name));
        assert_eq!(rules(&plan).len(), alerts, "{name}");
        plan
    });
    for rule in plans.iter().flat_map(rules) {
        let expr = rule["expr"].as_str().unwrap();
        let parsed = parse(expr).unwrap_or_else(|error| panic!("{expr}: {error}"));
        let mut selectors = Selectors(Vec::new());
        walk_expr(&mut selectors, &parsed).unwrap();
        assert!(!selectors.0.is_empty(), "{expr}");
        for selector in selectors.0 {
            for (label, value) in [("namespace", "bots"), ("rosey_monitor", "rosey")] {
                let bound = selector
                    .matchers
                    .matchers
                    .iter()
                    .any(|m| m.name == label && m.value == value && m.op == MatchOp::Equal);
                assert!(bound, "{expr}: {selector} is not bound by {label}");
            }
        }
    }
}

#[test]
fn every_alert_carries_the_labels_that_routes_and_people_go_by() {
    let plan = planned(&example("s0-rosey.yaml"));
    for rule in rules(&plan) {
        let labels = rule["labels"].as_object().unwrap();
        let keys: Vec<_> = labels.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["component", "environment", "namespace", "rosey_monitor", "severity"],
            "{rule}"
        );
        assert!(
            rule["annotations"]["runbook_url"]
                .as_str()
                .unwrap()
                .ends_with(rule["alert"].as_str().unwrap())
        );
        for annotation in ["summary", "description"] {
            let text = rule["annotations"][annotation].as_str().unwrap();
            assert!(
                !text.contains("{path}")
                    && !text.contains("{value}")
                    && !text.contains("{threshold}")
                    && !text.contains("{for}"),
                "{text}"
            );
        }
    }
}

#[test]
fn no_route_and_no_inhibition_reaches_beyond_its_monitor() {
    let plan = planned(&example("s0-rosey.yaml"));
    let bound = |matchers: &Value| {
        let has = |name: &str, value: &str| {
            matchers
                .as_array()
                .unwrap()
                .iter()
                .any(|m| m["name"] == name && m["value"] == value && m["matchType"] == "=")
        };
        has("namespace", "bots") && has("rosey_monitor", "rosey")
    };
    let configs = objects(&plan, Kind::AlertmanagerConfig);
    assert_eq!(configs.len(), 5);
    for config in configs {
        if let Some(route) = config["spec"].get("route") {
            assert!(bound(&route["matchers"]), "{route}");
            assert_eq!(route["receiver"], "none");
        }
        for rule in config["spec"]["inhibitRules"].as_array().into_iter().flatten() {
            assert!(bound(&rule["sourceMatch"]) && bound(&rule["targetMatch"]), "{rule}");
        }
    }
}

#[test]
fn what_users_write_never_becomes_a_template() {
    let plan = planned(&with_spec(
        "environment: prod\nselector: {matchLabels: {app: rosey}}\n\
         alerts: {packs: [Bot], runbookURL: \"https://runbooks.example.org/{{query/{alert}\"}\n\
         notifications:\n\
         \x20 channels:\n\
         \x20 - {name: slack, slack: {webhookSecretRef: {name: a, key: b}, channel: \"#{{.ExternalURL}}\", username: \"{{.x}}\"}}\n\
         \x20 routes: [{name: all, channels: [slack]}]",
    ));
    for rule in rules(&plan) {
        let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(
            runbook.starts_with("https://runbooks.example.org/{{\"{{\"}}query/"),
            "{runbook}"
        );
    }
    let slack = &objects(&plan, Kind::AlertmanagerConfig)[1]["spec"]["receivers"][1]["slackConfigs"][0];
    assert_eq!(slack["channel"], "#{{\"{{\"}}.ExternalURL}}");
    assert_eq!(slack["username"], "{{\"{{\"}}.x}}");
}

#[test]
fn a_mention_stands_in_fixed_text_alone() {
    let plan = planned(&example("s0-rosey.yaml"));
    let text = serde_json::to_string(&objects(&plan, Kind::AlertmanagerConfig)).unwrap();
    assert_eq!(text.matches("@everyone").count(), 1);
    assert!(text.contains("firing\\\" }}@everyone {{ with .CommonLabels.alertname }}"));
    assert!(
        !text.contains("ExternalURL") && !text.contains("GeneratorURL"),
        "internal addresses must not be sent"
    );
}

#[test]
fn every_alert_has_a_runbook() {
    for alert in catalogue::alerts() {
        let path = format!("{}/docs/runbooks/{}.md", env!("CARGO_MANIFEST_DIR"), alert.name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(text.starts_with(&format!("# {}\n", alert.name)), "{path}");
    }
}
