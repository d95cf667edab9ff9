use serde_json::{Value, json};

use super::record::packed;
use super::*;
use crate::api::{INJECTED_ANNOTATION, SKIPPED_ANNOTATION};
use crate::operator::monitors;
use crate::sidecar::CONTAINER;

fn pod(name: &str, with: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {
            "namespace": "bots", "name": name, "labels": {"app": "rosey", "pod-template-hash": "5f6d"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rosey-5f6d", "uid": "r", "controller": true}],
        },
        "spec": {"containers": [{"name": "bot", "image": "bot"}]},
        "status": {"phase": "Running"},
    });
    json_patch::merge(&mut pod, with);
    serde_json::from_value(pod).unwrap()
}

fn carrying(name: &str, state: &Value) -> Pod {
    pod(
        name,
        &json!({
            "metadata": {"annotations": {INJECTED_ANNOTATION: "rosey@1"}},
            "spec": {"containers": [{"name": "bot", "image": "bot"}, {"name": CONTAINER, "image": Platform::default().exporter_image}]},
            "status": {"containerStatuses": [{"name": CONTAINER, "state": state}]},
        }),
    )
}

fn running(name: &str) -> Pod {
    carrying(name, &json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}))
}

fn world(pods: Vec<Pod>) -> (Pods, tokio::sync::mpsc::UnboundedReceiver<Key>, RoseyMonitor) {
    let monitor: RoseyMonitor = serde_json::from_value(json!({
        "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": {"namespace": "bots", "name": "rosey"},
        "spec": {"environment": "test", "selector": {"matchLabels": {"app": "rosey"}}},
    }))
    .unwrap();
    let (monitors, mut feed) = monitors::pair();
    feed.apply_watcher_event(&Event::Init);
    feed.apply_watcher_event(&Event::InitApply(monitor.clone()));
    feed.apply_watcher_event(&Event::InitDone);
    monitors.index(&monitor);
    let queue = Queue::default();
    let due = queue.open();
    let all = Pods::new(monitors, queue);
    all.observe(Event::Init);
    for pod in pods {
        all.observe(Event::InitApply(pod));
    }
    all.observe(Event::InitDone);
    (all, due, monitor)
}

fn sidecars(pods: Vec<Pod>) -> Sidecars {
    let (all, _, monitor) = world(pods);
    all.of(&monitor, &Platform::default(), None)
}

fn verdict(pods: Vec<Pod>) -> (&'static str, &'static str, String) {
    let Injected {
        status,
        reason,
        message,
    } = sidecars(pods).injected;
    (status, reason, message)
}

#[test]
fn pods_are_counted_by_what_they_carry() {
    let old = pod(
        "c",
        &json!({
            "metadata": {"annotations": {INJECTED_ANNOTATION: "rosey@1"}},
            "spec": {"initContainers": [{"name": CONTAINER, "image": "rosey-monitor/rosey-exporter:0"}]},
        }),
    );
    let ended = pod("d", &json!({"status": {"phase": "Succeeded"}}));
    let leaving = pod("e", &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let foreign = pod("f", &json!({"metadata": {"labels": {"app": "other"}}}));
    let counts = sidecars(vec![running("a"), pod("b", &json!({})), old, ended, leaving, foreign]).counts;
    assert_eq!(
        counts,
        SidecarCounts {
            pods: 3,
            injected: 2,
            outdated: 1,
            missing: 1,
            summary: "2/3".into()
        }
    );
}

#[test]
fn all_exporters_running_is_good_and_no_pod_at_all_is_unknown() {
    assert_eq!(verdict(vec![running("a")]).0, "True");
    assert_eq!(verdict(vec![]).1, "NoPods");
    assert_eq!(
        verdict(vec![carrying(
            "a",
            &json!({"waiting": {"reason": "ContainerCreating"}})
        )])
        .1,
        "Starting"
    );
    assert_eq!(verdict(vec![running("a"), carrying("b", &json!({}))]).0, "True");
}

#[test]
fn pods_that_are_older_than_the_monitor_come_with_the_command_that_mends_them() {
    let (status, reason, message) = verdict(vec![running("a"), pod("b", &json!({}))]);
    assert_eq!((status, reason), ("False", "PodsMissing"));
    assert_eq!(
        message,
        "1 of 2 pods started before the monitor; run: kubectl rollout restart deployment/rosey -n bots"
    );

    let stateful =
        json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "rosey", "uid": "r", "controller": true}]);
    let (.., message) = verdict(vec![pod("b-0", &json!({"metadata": {"ownerReferences": stateful}}))]);
    assert!(
        message.ends_with("kubectl rollout restart statefulset/rosey -n bots"),
        "{message}"
    );

    let (.., message) = verdict(vec![pod("bare", &json!({"metadata": {"ownerReferences": []}}))]);
    assert!(
        message.ends_with("kubectl delete pod/bare -n bots, and create it again"),
        "{message}"
    );
}

#[test]
fn an_image_that_cannot_be_pulled_is_named() {
    let (status, reason, message) = verdict(vec![
        carrying("a", &json!({"waiting": {"reason": "ImagePullBackOff"}})),
        pod("b", &json!({})),
    ]);
    assert_eq!((status, reason), ("False", "ImagePull"));
    assert!(message.contains(&Platform::default().exporter_image), "{message}");
}

#[test]
fn an_exporter_that_crashes_and_a_pod_that_was_skipped_are_said() {
    assert_eq!(
        verdict(vec![carrying("a", &json!({"waiting": {"reason": "CrashLoopBackOff"}}))]).1,
        "NotRunning"
    );
    let skipped = pod(
        "a",
        &json!({"metadata": {"annotations": {SKIPPED_ANNOTATION: "port 9100 is taken"}}}),
    );
    let (_, reason, message) = verdict(vec![skipped]);
    assert_eq!(reason, "Skipped");
    assert!(message.ends_with("port 9100 is taken"), "{message}");
}

#[test]
fn a_pod_that_only_changes_elsewhere_moves_nothing() {
    let (all, mut due, _) = world(vec![running("a")]);
    while due.try_recv().is_ok() {}
    for n in 0..1000 {
        let mut same = running("a");
        same.metadata.resource_version = Some(n.to_string());
        same.metadata
            .annotations
            .get_or_insert_default()
            .insert("churn".into(), n.to_string());
        all.observe(Event::Apply(same));
    }
    assert!(due.try_recv().is_err());
    all.observe(Event::Delete(running("a")));
    assert_eq!(due.try_recv().unwrap(), Key::new("bots", "rosey"));
}

#[test]
fn labels_survive_the_compact_record() {
    for labels in [
        vec![],
        vec![("a", "b")],
        vec![("a", ""), ("b", "c")],
        vec![("a", "b"), ("c", ""), ("d", "e")],
    ] {
        let labels: BTreeMap<String, String> = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(unpacked(&packed(&labels)), labels);
    }
}

#[test]
fn pods_that_are_refused_stand_before_those_that_are_missing_and_before_none_at_all() {
    for pods in [vec![], vec![pod("b", &json!({}))], vec![running("a")]] {
        let (all, _, monitor) = world(pods);
        let said = all.of(&monitor, &Platform::default(), Some("full")).injected;
        assert_eq!(
            (said.status, said.reason, said.message.as_str()),
            ("False", "PodsRefused", "full")
        );
    }
}

#[test]
fn the_latest_pod_of_a_deployment_is_found_by_its_name() {
    let at = |name, second| {
        pod(
            name,
            &json!({"metadata": {"creationTimestamp": format!("2026-01-01T00:00:0{second}Z")}}),
        )
    };
    let (all, ..) = world(vec![at("a", 1), at("b", 3), at("c", 2)]);
    let first = all.latest_of("bots", "deployment/rosey").unwrap();
    all.observe(Event::Delete(at("b", 3)));
    assert_eq!(first - all.latest_of("bots", "deployment/rosey").unwrap(), 1);
    assert_eq!(all.latest_of("bots", "deployment/other"), None);
}

#[test]
fn pods_that_say_the_same_keep_it_once() {
    let (all, ..) = world(vec![running("rosey-5f6d-a"), running("rosey-5f6d-c")]);
    all.observe(Event::Apply(running("rosey-5f6d-b")));
    let records = lock(&all.records);
    let kept: Vec<_> = records["bots"].values().collect();
    assert_eq!(kept.len(), 3);
    for pair in kept.windows(2) {
        assert!(Arc::ptr_eq(&pair[0].labels, &pair[1].labels));
        assert!(Arc::ptr_eq(&pair[0].owner, &pair[1].owner));
    }
}
