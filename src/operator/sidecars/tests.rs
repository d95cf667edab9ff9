use kube::runtime::reflector::store::Writer;
use serde_json::{Value, json};

use super::record::packed;
use super::*;
use crate::api::{INJECTED_ANNOTATION, SKIPPED_ANNOTATION};
use crate::operator::monitors;
use crate::sidecar::CONTAINER;

mod abandoned;
mod areas;

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

type Due = tokio::sync::mpsc::UnboundedReceiver<Key>;

fn world(pods: Vec<Pod>) -> (Pods, Due, RoseyMonitor) {
    let (all, _, due, monitor) = cluster(pods);
    (all, due, monitor)
}

fn cluster(pods: Vec<Pod>) -> (Pods, Writer<RoseyMonitor>, Due, RoseyMonitor) {
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
    all.observe(&Area::Cluster, Event::Init);
    for pod in pods {
        all.observe(&Area::Cluster, Event::InitApply(pod));
    }
    all.observe(&Area::Cluster, Event::InitDone);
    (all, feed, due, monitor)
}

fn sidecars(pods: Vec<Pod>) -> Sidecars {
    let (all, _, monitor) = world(pods);
    all.of(&monitor, &Platform::default(), Hindrance::default())
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
    let (status, reason, message) = verdict(vec![running("a"), carrying("b", &json!({}))]);
    assert_eq!((status, reason), ("Unknown", "Starting"));
    assert_eq!(message, "the exporter does not run yet in 1 of 2 pods");
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
    assert_eq!(
        message,
        "1 of 1 pods have no exporter, for example pod a: port 9100 is taken; once that is mended, run: \
         kubectl rollout restart deployment/rosey -n bots"
    );
}

#[test]
fn a_pod_with_the_exporter_of_another_monitor_is_not_to_be_restarted_while_that_one_selects_it() {
    let foreign = || {
        let mut pod = running("a");
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INJECTED_ANNOTATION.into(), "other@1".into());
        pod
    };
    let (all, mut feed, mut due, monitor) = cluster(vec![foreign(), pod("b", &json!({}))]);
    let said = || {
        let injected = all.of(&monitor, &Platform::default(), Hindrance::default()).injected;
        (injected.reason, injected.message)
    };
    assert_eq!(said().0, "PodsMissing", "whoever injected it is gone");

    let mut other = monitor.clone();
    other.metadata.name = Some("other".into());
    feed.apply_watcher_event(&Event::Apply(other.clone()));
    let message = "1 of 2 pods carry the exporter of monitor other; change spec.selector of one of the two";
    assert_eq!(said(), ("OtherMonitor", message.into()));

    while due.try_recv().is_ok() {}
    other.spec.selector.match_labels = Some([("app".into(), "else".into())].into());
    feed.apply_watcher_event(&Event::Apply(other.clone()));
    all.released(&Key::of(&other));
    assert_eq!(due.try_recv().unwrap(), Key::of(&monitor));
    assert_eq!(said().0, "PodsMissing");
}

#[test]
fn where_nothing_is_injected_nobody_is_told_to_restart() {
    let excluded = Injecting::AllBut(["bots".to_owned()].into());
    assert_eq!(excluded.off("elsewhere"), None);
    let skipped = pod("a", &json!({"metadata": {"annotations": {SKIPPED_ANNOTATION: "why"}}}));
    let (all, .., monitor) = cluster(vec![skipped, pod("b", &json!({})), running("c")]);
    for injecting in [Injecting::Nowhere, excluded] {
        let off = Hindrance {
            refused: None,
            off: injecting.off("bots"),
            ..Hindrance::default()
        };
        let said = all.of(&monitor, &Platform::default(), off).injected;
        assert_eq!((said.status, said.reason), ("False", "InjectionOff"));
        let expected = format!("2 of 3 pods have no exporter: {}", off.off.unwrap());
        assert_eq!(said.message, expected);
    }
    let (all, .., monitor) = cluster(vec![running("c")]);
    let off = Hindrance {
        refused: None,
        off: Some("off"),
        ..Hindrance::default()
    };
    assert_eq!(all.of(&monitor, &Platform::default(), off).injected.status, "True");
}

#[test]
fn a_pod_that_only_changes_elsewhere_moves_nothing() {
    let (all, mut due, _) = world(vec![running("a")]);
    all.queue.pass();
    while due.try_recv().is_ok() {}
    for n in 0..1000 {
        let mut same = running("a");
        same.metadata.resource_version = Some(n.to_string());
        same.metadata
            .annotations
            .get_or_insert_default()
            .insert("churn".into(), n.to_string());
        all.observe(&Area::Cluster, Event::Apply(same));
    }
    assert!(!all.queue.pass() && due.try_recv().is_err());
    all.observe(&Area::Cluster, Event::Delete(running("a")));
    assert!(all.queue.pass());
    assert_eq!(due.try_recv().unwrap(), Key::new("bots", "rosey"));
}

#[test]
fn a_stream_of_pods_is_gathered_for_each_monitor_that_it_concerns() {
    let (all, mut due, _) = world(vec![running("a")]);
    assert!(due.try_recv().is_err(), "a list is gathered too");
    for n in 0..100 {
        all.observe(&Area::Cluster, Event::Apply(running(&format!("new-{n}"))));
    }
    assert!(due.try_recv().is_err());
    all.queue.pass();
    assert_eq!(due.try_recv().unwrap(), Key::new("bots", "rosey"));
    assert!(due.try_recv().is_err());
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
        let full = Hindrance {
            refused: Some("full"),
            ..Hindrance::default()
        };
        let said = all.of(&monitor, &Platform::default(), full).injected;
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
    all.observe(&Area::Cluster, Event::Delete(at("b", 3)));
    assert_eq!(first - all.latest_of("bots", "deployment/rosey").unwrap(), 1);
    assert_eq!(all.latest_of("bots", "deployment/other"), None);
}

#[test]
fn pods_that_say_the_same_keep_it_once() {
    let (all, ..) = world(vec![running("rosey-5f6d-a"), running("rosey-5f6d-c")]);
    all.observe(&Area::Cluster, Event::Apply(running("rosey-5f6d-b")));
    let records = lock(&all.records);
    let kept: Vec<_> = records["bots"].values().collect();
    assert_eq!(kept.len(), 3);
    for pair in kept.windows(2) {
        assert!(Arc::ptr_eq(&pair[0].labels, &pair[1].labels));
        assert!(Arc::ptr_eq(&pair[0].owner, &pair[1].owner));
    }
}

#[test]
fn a_pod_that_is_older_than_what_its_exporter_should_read_is_outdated_and_says_what_to_run() {
    let mounting = |name: &str, annotations: &Value| {
        let mut annotations = annotations.clone();
        annotations[INJECTED_ANNOTATION] = json!("rosey@1");
        let exporter = json!({
            "name": CONTAINER, "image": Platform::default().exporter_image,
            "volumeMounts": [{"name": "rosey-exporter-config"}, {"name": "data"}],
        });
        pod(
            name,
            &json!({
                "metadata": {"annotations": annotations},
                "spec": {"containers": [{"name": "bot", "image": "bot"}, exporter]},
                "status": {"containerStatuses": [{"name": CONTAINER, "state": {"running": {}}}]},
            }),
        )
    };
    let said = |pods: Vec<Pod>, exporter: Value| {
        let (all, _, mut monitor) = world(pods);
        monitor.spec.exporter = serde_json::from_value(exporter).unwrap();
        all.of(&monitor, &Platform::default(), Hindrance::default())
    };
    let old = mounting("a", &json!({}));
    let fine = said(vec![old.clone()], json!({"disk": [{"volume": "data"}]}));
    assert_eq!((fine.injected.status, fine.counts.outdated), ("True", 0));

    let both = json!({"disk": [{"volume": "data"}], "backups": {"volume": "backups"}});
    let late = said(vec![old], both.clone());
    assert_eq!(late.counts.outdated, 1);
    assert_eq!(
        late.injected.message,
        "1 of 1 pods started before their exporter was to read volume backups; run: kubectl rollout restart deployment/rosey -n bots"
    );

    let why = "volume backups is not in the pod; the exporter can't read there";
    let lacking = said(vec![mounting("b", &json!({ SKIPPED_ANNOTATION: why }))], both);
    assert_eq!(
        (lacking.injected.status, lacking.injected.reason),
        ("False", "VolumesMissing")
    );
    assert_eq!(
        lacking.injected.message,
        format!(
            "1 of 1 pods lack what the exporter should read, for example pod b: {why}; change the pod's template or the monitor"
        )
    );

    // A Secret that came into the monitor later is in no older pod: it still speaks plain HTTP.
    let web = json!({"disk": [{"volume": "data"}], "webConfigSecretRef": {"name": "web"}});
    let plain = said(vec![mounting("d", &json!({}))], web);
    assert_eq!((plain.counts.outdated, plain.injected.status), (1, "False"));
    assert!(
        plain
            .injected
            .message
            .contains("was to read volume rosey-exporter-web; run"),
        "{}",
        plain.injected.message
    );

    // What was left out of the pod is no longer asked for.
    let mended = said(
        vec![mounting("c", &json!({ SKIPPED_ANNOTATION: why }))],
        json!({"disk": [{"volume": "back"}]}),
    );
    assert_eq!(mended.counts.outdated, 1);
    assert!(
        mended
            .injected
            .message
            .contains("volume back; run: kubectl rollout restart")
    );
}
