use serde_json::json;

use super::*;
use crate::cluster::stack::{AlertmanagerSpec, PrometheusSpec};

fn object(kind: Kind, name: &str) -> Object {
    Object {
        kind,
        name: name.into(),
        json: json!({"metadata": {"labels": {"release": "stack"}}}),
    }
}

fn objects() -> Vec<Object> {
    vec![
        object(Kind::PodMonitor, "rosey"),
        object(Kind::PrometheusRule, "rosey"),
        object(Kind::AlertmanagerConfig, "rosey.ops"),
    ]
}

fn known<S>(spec: S) -> Access<BTreeMap<Place, S>> {
    Access::Known(BTreeMap::from([(("monitoring".to_owned(), "main".to_owned()), spec)]))
}

fn prometheus(selector: &Value, namespaces: &Value) -> PrometheusSpec {
    serde_json::from_value(json!({
        "ruleSelector": selector, "podMonitorSelector": selector,
        "ruleNamespaceSelector": namespaces, "podMonitorNamespaceSelector": namespaces,
    }))
    .unwrap()
}

fn alertmanager(selector: &Value, namespaces: &Value) -> AlertmanagerSpec {
    serde_json::from_value(json!({
        "alertmanagerConfigSelector": selector, "alertmanagerConfigNamespaceSelector": namespaces,
    }))
    .unwrap()
}

fn verdict(prometheus: PrometheusSpec, alertmanager: AlertmanagerSpec) -> (&'static str, String) {
    let view = View {
        only: Vec::new(),
        prometheuses: known(prometheus),
        alertmanagers: known(alertmanager),
    };
    let labels = BTreeMap::from([("team".to_owned(), "bots".to_owned())]);
    let verdict = selection(
        &view,
        Home {
            namespace: "bots",
            labels: Some(&labels),
        },
        &objects(),
    );
    (verdict.status, verdict.message)
}

fn all() -> AlertmanagerSpec {
    alertmanager(&json!({}), &json!({}))
}

#[test]
fn whoever_selects_everything_selects_us() {
    let (status, message) = verdict(prometheus(&json!({}), &json!({})), all());
    assert_eq!(
        (status, message.as_str()),
        (
            "True",
            "selected by Prometheus monitoring/main and Alertmanager monitoring/main"
        )
    );
    let (status, _) = verdict(
        prometheus(
            &json!({"matchLabels": {"release": "stack"}}),
            &json!({"matchLabels": {"team": "bots"}}),
        ),
        all(),
    );
    assert_eq!(status, "True");
}

#[test]
fn what_is_selected_and_then_refused_is_not_taken_up() {
    let of = |status| Selection {
        status,
        reason: "any",
        message: "before".into(),
    };
    let when = Time("2026-01-01T00:00:00Z".parse().unwrap());
    let refused = Some(("key \"user\" in secret \"web\" not found".to_owned(), Some(when)));
    let verdict = of("True").unless_refused(refused.clone());
    assert_eq!((verdict.status, verdict.reason), ("False", "ScrapeRefused"));
    let said = "refused the PodMonitor at 2026-01-01T00:00:00Z: key \"user\" in secret \"web\" not found; correct";
    assert!(verdict.message.contains(said), "{}", verdict.message);
    assert_eq!(of("Unknown").unless_refused(refused), of("Unknown"));
    assert_eq!(of("True").unless_refused(None), of("True"));
}

#[test]
fn what_is_missing_is_named_with_the_mend() {
    let cases = [
        (
            prometheus(&json!({"matchLabels": {"release": "kps"}}), &json!({})),
            all(),
            "it wants label release=kps; add it to spec.objectLabels",
        ),
        (
            prometheus(&Value::Null, &json!({})),
            all(),
            "selects nothing; set its spec.ruleSelector",
        ),
        (
            prometheus(&json!({}), &Value::Null),
            all(),
            "it looks into its own, monitoring, only; set its namespace selector",
        ),
        (
            prometheus(&json!({}), &json!({"matchLabels": {"m": "on"}})),
            all(),
            "it wants label m=on; label namespace bots",
        ),
        (
            prometheus(&json!({}), &json!({})),
            alertmanager(&json!({}), &Value::Null),
            "Alertmanager monitoring/main does not look into this namespace",
        ),
        (
            prometheus(&json!({}), &json!({})),
            alertmanager(
                &json!({"matchExpressions": [{"key": "team", "operator": "Exists"}]}),
                &json!({}),
            ),
            "Alertmanager monitoring/main does not select AlertmanagerConfig rosey.ops: it wants label team",
        ),
    ];
    for (prometheus, alertmanager, expected) in cases {
        let (status, message) = verdict(prometheus, alertmanager);
        assert_eq!(status, "False", "{expected}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn rule_and_pod_monitor_have_to_meet_in_one_prometheus() {
    let half = |rule: Value, pod: Value| -> PrometheusSpec {
        serde_json::from_value(json!({
            "ruleSelector": rule, "podMonitorSelector": pod, "ruleNamespaceSelector": {}, "podMonitorNamespaceSelector": {},
        }))
        .unwrap()
    };
    let place = |name: &str| ("monitoring".to_owned(), name.to_owned());
    let halves = [
        (place("a"), half(json!({}), Value::Null)),
        (place("b"), half(Value::Null, json!({}))),
    ];
    let view = View {
        only: Vec::new(),
        prometheuses: Access::Known(halves.into()),
        alertmanagers: known(all()),
    };
    assert_eq!(
        selection(
            &view,
            Home {
                namespace: "bots",
                labels: None
            },
            &objects()
        )
        .status,
        "False"
    );
}

#[test]
fn what_cannot_be_read_is_unknown_and_nothing_at_all_is_bad() {
    let home = Home {
        namespace: "bots",
        labels: None,
    };
    let refused = View {
        only: Vec::new(),
        prometheuses: Access::Refused,
        alertmanagers: known(all()),
    };
    assert_eq!(selection(&refused, home, &objects()).reason, "NotReadable");
    let absent = View::default();
    assert_eq!(selection(&absent, home, &objects()).reason, "PrometheusOperatorMissing");
    let empty = View {
        only: Vec::new(),
        prometheuses: Access::Known(BTreeMap::new()),
        alertmanagers: known(all()),
    };
    assert_eq!(selection(&empty, home, &objects()).status, "False");
    let unlabelled = View {
        only: Vec::new(),
        prometheuses: known(prometheus(&json!({}), &json!({"matchLabels": {"a": "b"}}))),
        alertmanagers: known(all()),
    };
    assert_eq!(selection(&unlabelled, home, &objects()).status, "Unknown");
}

#[test]
fn without_routes_no_alertmanager_is_asked_for() {
    let view = View {
        only: Vec::new(),
        prometheuses: known(prometheus(&json!({}), &json!({}))),
        alertmanagers: Access::Known(BTreeMap::new()),
    };
    let verdict = selection(
        &view,
        Home {
            namespace: "bots",
            labels: None,
        },
        &objects()[..2],
    );
    assert_eq!(
        (verdict.status, verdict.message.as_str()),
        ("True", "selected by Prometheus monitoring/main")
    );
}

#[test]
fn where_not_all_are_seen_none_that_selects_is_no_verdict() {
    let seen = |view: &View| {
        let home = Home {
            namespace: "bots",
            labels: None,
        };
        let verdict = selection(view, home, &objects());
        (verdict.status, verdict.reason, verdict.message)
    };
    let mut view = View {
        only: vec!["bots".into(), "games".into()],
        prometheuses: known(prometheus(&json!({}), &json!({}))),
        alertmanagers: known(all()),
    };
    assert_eq!(seen(&view).0, "True");
    view.alertmanagers = Access::Known(BTreeMap::new());
    let (status, reason, message) = seen(&view);
    assert_eq!((status, reason), ("Unknown", "NotReadable"));
    assert_eq!(
        message,
        "the operator looks only into the namespaces that it watches (bots, games), and there it found: there is no Alertmanager \
         object; create one"
    );
    view.only.clear();
    assert_eq!(seen(&view).0, "False");
}
