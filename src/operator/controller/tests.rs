use std::sync::Mutex;
use std::time::Duration;

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::error::{LATE, wait};
use super::*;
use crate::api::{INJECTED_ANNOTATION, UPDATE_ANNOTATION};
use crate::operator::area::Area;
use crate::operator::leader::NotLeader;
use crate::operator::refused_pods;
use crate::operator::world::{World, asked, carrying, failure, monitor};
use crate::plan::Kind;

#[test]
fn a_failure_shows_once_it_has_lasted_for_longer_than_such_failures_do() {
    let (kind, name) = (Kind::ConfigMap, String::from("rosey-exporter"));
    let taken = apply::Error::NameTaken {
        kind,
        name: name.clone(),
    };
    let leaving = apply::Error::Leaving {
        kind,
        name: name.clone(),
    };
    let doing = "applied";
    let silent = apply::Error::Timeout { kind, name, doing };
    let first = |error: &apply::Error| (0..100).find(|&failures| tells(error, failures));
    assert_eq!(first(&taken), Some(0));
    assert_eq!(first(&silent), Some(3));
    assert_eq!(first(&leaving), Some(20));
    assert_eq!(first(&NotLeader.into()), None);
}

#[tokio::test]
async fn a_monitor_whose_turn_came_while_the_lease_was_overdue_has_another_one() {
    let mut world = World::new(Leadership::fixed(false), |_| unreachable!("nothing is written"));
    let monitor = world.seen(&monitor("m", 1));
    let context = Arc::clone(&world.context);
    let error = tracked(Arc::clone(&monitor), context).await.unwrap_err();
    assert_eq!(error.error.category(), "not_leader");
    let text = world.context.metrics.text().unwrap();
    for counted in [
        r#"rosey_operator_reconciles_total{outcome="postponed"} 1"#,
        r#"rosey_operator_reconciles_total{outcome="error"} 0"#,
        r#"rosey_operator_errors_total{category="not_leader"} 1"#,
    ] {
        assert!(text.contains(counted), "{counted} is not in\n{text}");
    }
    let next = retry(monitor, &error, Arc::clone(&world.context));
    assert_eq!(next, Action::requeue(LATE));
}

#[test]
fn only_what_failed_counts_as_a_failure() {
    let changed = Error::Status(status::Error::Changed);
    assert!(changed.is_late());
    let refused = refused_pods::Error::Timeout {
        workload: "replicaset/rosey".into(),
    };
    let leaving = apply::Error::Leaving {
        kind: Kind::ConfigMap,
        name: "rosey-exporter".into(),
    };
    assert!(!Error::from(refused).is_late() && !Error::from(leaving).is_late());
}

const UPDATES: upkeep::Settings = upkeep::Settings {
    update: true,
    repair: false,
};

/// A pod whose exporter runs, but not for long enough yet to say that its new image is good.
fn on_trial() -> Value {
    let trial = json!({"from": "1", "to": Platform::default().exporter_image, "container": "before", "ran": true,
        "at": k8s_openapi::jiff::Timestamp::now().as_second()});
    let mut pod = carrying(&Platform::default().exporter_image);
    pod["metadata"]["annotations"][UPDATE_ANNOTATION] = json!(trial.to_string());
    pod
}

#[tokio::test]
async fn a_monitor_that_is_being_deleted_gives_its_turn_to_the_next() {
    let mut world = World::that_keeps(UPDATES, Leadership::fixed(true), |text| {
        unreachable!("nothing is asked: {text}")
    });
    let named = |mut object: Value, name: &str| {
        object["metadata"]["name"] = json!(name);
        let labels = if object["kind"] == "Pod" {
            object["metadata"]["annotations"][INJECTED_ANNOTATION] = json!(format!("{name}@1"));
            &mut object["metadata"]["labels"]
        } else {
            &mut object["spec"]["selector"]["matchLabels"]
        };
        *labels = json!({"app": name});
        object
    };
    let platform = Platform::default();
    for name in ["a", "b", "c", "d", "e", "waits"] {
        let seen = world.seen(&named(monitor("m", 1), name));
        let pod = if name == "waits" { carrying("old") } else { on_trial() };
        world.shown(&named(pod, name));
        let upkeep = &world.context.upkeep;
        upkeep
            .keep(&seen, &platform, Hindrance::default(), true, &world.context)
            .await;
    }
    let mut leaving = named(monitor("m", 2), "a");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let leaving = world.seen(&leaving);
    let mut due = world.context.queue.open();
    assert_eq!(
        reconcile(&leaving, &world.context).await.unwrap(),
        Action::await_change()
    );
    assert_eq!(due.try_recv().unwrap(), Key::new("bots", "waits"));
}

const STATUS: &str = "PATCH /apis/rosey.dev/v1alpha1/namespaces/bots/roseymonitors/rosey/status";
const CONFIG_MAP: &str = "PATCH /api/v1/namespaces/bots/configmaps/rosey-exporter";

#[tokio::test]
async fn what_was_begun_with_a_pod_is_gone_on_with_however_long_the_rest_waits_after_its_failures() {
    let mut world = World::that_keeps(UPDATES, Leadership::fixed(true), |text| {
        if text.starts_with(STATUS) {
            return (200, monitor("m", 2));
        }
        if text.starts_with("GET /api/v1/namespaces/bots/configmaps/") {
            let foreign =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rosey-exporter", "uid": "f"}});
            return (200, foreign);
        }
        failure(409, "Conflict")
    });
    let seen = world.seen(&monitor("m", 1));
    world.shown(&on_trial());
    let key = Key::of(&seen);
    let backoff = &world.context.backoff;
    for _ in 0..30 {
        backoff.failed(&key, Duration::ZERO, Instant::now());
    }
    let mut failed = reconcile(&seen, &world.context).await.unwrap_err();
    assert_eq!(failed.error.category(), "name_taken");
    // The new container has to run for so long before the next pod's turn.
    for _ in 0..3 {
        let next = retry(Arc::clone(&seen), &failed, Arc::clone(&world.context));
        assert_eq!(next, Action::requeue(Duration::from_secs(5)));
    }
    assert_eq!(
        backoff.failures(&key),
        31,
        "what comes for the pod's sake is no try of the rest"
    );
    failed.again = None;
    assert!(wait(&key, &failed, &world.context) > Some(Duration::from_secs(5)));
}

#[tokio::test]
async fn what_is_wrong_with_the_objects_is_said_although_nobody_can_tell_whether_pods_are_refused() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&log);
    let mut world = World::new(Leadership::fixed(true), move |text| {
        heard.lock().unwrap().push(text.to_owned());
        if text.starts_with(STATUS) {
            return (200, monitor("m", 2));
        }
        if text.starts_with("GET /api/v1/namespaces/bots/configmaps/") {
            let foreign =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rosey-exporter", "uid": "f"}});
            return (200, foreign);
        }
        if text.contains("/replicasets/") {
            return failure(500, "InternalError");
        }
        failure(409, "Conflict")
    });
    let seen = world.seen(&monitor("m", 1));
    let event = json!({
        "metadata": {"namespace": "bots", "name": "e"}, "reason": "FailedCreate", "type": "Warning",
        "reportingController": "replicaset-controller", "eventTime": k8s_openapi::jiff::Timestamp::now().to_string(),
        "regarding": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "namespace": "bots", "name": "rosey-5f6d", "uid": "r"},
        "note": "Error creating: pods \"rosey-5f6d-x\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1",
    });
    let event = Event::Apply(serde_json::from_value(event).unwrap());
    world.context.refused_pods.observe(&Area::Cluster, event);
    let error = reconcile(&seen, &world.context).await.unwrap_err();
    assert_eq!(error.error.category(), "name_taken");
    assert_eq!(asked(&log, "GET /apis/apps/v1/namespaces/bots/replicasets/").len(), 1);
    let told = asked(&log, STATUS);
    assert!(matches!(&*told, [told] if told.contains("NameTaken")), "{told:?}");
}

#[tokio::test]
async fn the_objects_of_a_monitor_that_became_invalid_are_kept_as_its_last_valid_spec_wants_them() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&log);
    let mut world = World::new(Leadership::fixed(true), move |text| {
        heard.lock().unwrap().push(text.to_owned());
        if text.starts_with(STATUS) {
            let version = heard.lock().unwrap().len() + 100;
            let mut written = monitor("m", 1);
            written["metadata"]["resourceVersion"] = json!(version.to_string());
            return (200, written);
        }
        if text.starts_with("PATCH ") {
            let written = json!({"apiVersion": "v1", "kind": "Any", "metadata": {"name": "any", "uid": "o", "resourceVersion": "5"}});
            return (200, written);
        }
        failure(404, "NotFound")
    });
    let _due = world.context.queue.open();
    for kind in Kind::ALL {
        world.context.landscape.kind_served(kind);
    }
    let seen = world.seen(&monitor("m", 1));
    reconcile(&seen, &world.context).await.unwrap();
    let first = asked(&log, CONFIG_MAP);
    assert_eq!(first.len(), 1);

    for generation in [2, 3] {
        let mut invalid = monitor("m", generation);
        invalid["spec"]["alerts"] = json!({"overrides": [{"alert": "NoSuchAlert", "enabled": false}]});
        let seen = world.seen(&invalid);
        reconcile(&seen, &world.context).await.unwrap();
        assert!(asked(&log, STATUS).last().unwrap().contains("NoSuchAlert"));
    }
    assert_eq!(asked(&log, CONFIG_MAP).len(), 1, "nothing has changed");

    let removed = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "bots", "name": "rosey-exporter", "uid": "o", "resourceVersion": "9"},
    });
    let removed = Event::Delete(serde_json::from_value(removed).unwrap());
    world.context.owned.observe(Kind::ConfigMap, &Area::Cluster, removed);
    let seen = world.context.monitors.get(&Key::new("bots", "rosey")).unwrap();
    reconcile(&seen, &world.context).await.unwrap();
    let again = asked(&log, CONFIG_MAP);
    assert_eq!(again.len(), 2);
    assert_eq!(again[0], again[1]);

    let seen = world.seen(&monitor("m", 4));
    reconcile(&seen, &world.context).await.unwrap();
    assert!(world.context.last_good.of(&Key::of(&seen), &seen).is_none());
}
