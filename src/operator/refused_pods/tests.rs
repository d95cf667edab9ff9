use serde_json::{Value, json};

use super::*;
use crate::operator::monitors;

const WANTS: &str = "failed quota: cpu: must specify limits.cpu for: rosey-exporter";

fn event(name: &str, second: u8, why: &str, with: &Value) -> ClusterEvent {
    let mut event = json!({
        "metadata": {"namespace": "bots", "name": name}, "eventTime": null, "reason": "FailedCreate",
        "deprecatedLastTimestamp": format!("2026-01-01T00:00:{second:02}Z"), "reportingController": "replicaset-controller",
        "regarding": {"kind": "ReplicaSet", "namespace": "bots", "name": "rosey-5f6d", "uid": "r"},
        "note": format!("Error creating: pods \"rosey-5f6d-x{second}\" is forbidden: {why}"),
    });
    json_patch::merge(&mut event, with);
    serde_json::from_value(event).unwrap()
}

fn message(why: &str, resources: &Value) -> Option<String> {
    read(event("e", 1, why, &json!({})))?.message(resources)
}

fn default() -> Value {
    json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}})
}

fn world() -> (RefusedPods, tokio::sync::mpsc::UnboundedReceiver<Key>, RoseyMonitor) {
    let monitor: RoseyMonitor = serde_json::from_value(json!({
        "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": {"namespace": "bots", "name": "rosey", "generation": 1},
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
    (RefusedPods::new(monitors, queue), due, monitor)
}

fn kept(refused: &RefusedPods) -> usize {
    lock(&refused.all).values().map(|refused| refused.events.len()).sum()
}

#[test]
fn a_full_quota_is_told_with_what_the_exporter_adds_and_without_what_changes_each_time() {
    let why = |used| {
        format!(
            "exceeded quota: q, requested: requests.cpu=105m,limits.memory=1Gi, used: requests.cpu={used},limits.memory=2Gi, limited: requests.cpu=1,limits.memory=2Gi"
        )
    };
    let said = message(&why("1"), &default()).unwrap();
    assert_eq!(
        said,
        "replicaset/rosey-5f6d: pods \"rosey-5f6d-\" is forbidden: exceeded quota: q, requested: requests.cpu=105m,limits.memory=1Gi, \
         limited: requests.cpu=1,limits.memory=2Gi; with the exporter a pod asks for cpu 5m and memory 8Mi more (limits: memory 32Mi); \
         raise the quota or set spec.exporter.resources"
    );
    let first = read(event("e", 1, &why("1"), &json!({}))).unwrap();
    let later = read(event("e", 9, &why("900m"), &json!({}))).unwrap();
    assert_eq!(first.message(&default()), later.message(&default()));
    assert_eq!(later.seen - first.seen, 8);
}

#[test]
fn what_the_exporter_has_no_part_in_is_not_told() {
    for why in [
        "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3",
        "exceeded quota: q, requested: limits.cpu=1, used: limits.cpu=1, limited: limits.cpu=1",
        "failed quota: q: must specify limits.memory for: bot",
        "violates PodSecurity \"restricted:latest\": host namespaces",
        "error looking up service account bots/rosey: serviceaccount \"rosey\" not found",
    ] {
        assert_eq!(message(why, &default()), None, "{why}");
    }
    // Of nothing, nothing is asked: a pod with resources of its own level, or one that is skipped.
    let requested = "exceeded quota: q, requested: cpu=1, used: cpu=1, limited: cpu=1";
    assert!(message(requested, &default()).is_some());
    assert_eq!(
        message(requested, &json!({"requests": {"cpu": "0", "memory": "0"}})),
        None
    );
}

#[test]
fn limits_that_are_missing_or_out_of_range_are_told() {
    let said = message(WANTS, &default()).unwrap();
    assert!(said.ends_with("; set spec.exporter.resources"), "{said}");
    let said = message("minimum cpu usage per Container is 100m, but request is 5m", &default()).unwrap();
    assert!(
        said.ends_with("; change the limit range or set spec.exporter.resources"),
        "{said}"
    );
}

#[test]
fn a_message_is_one_line_of_bounded_length() {
    let said = message(
        &format!("failed quota: rosey-exporter\n{}", "ä".repeat(5000)),
        &default(),
    )
    .unwrap();
    assert!(!said.contains('\n') && said.chars().count() < 800, "{said}");
}

#[test]
fn only_the_controllers_of_workloads_are_believed() {
    let refused = |with| read(event("e", 1, WANTS, &with)).is_some();
    assert!(refused(json!({})));
    assert!(refused(
        json!({"reportingController": "", "deprecatedSource": {"component": "replicaset-controller"}})
    ));
    assert!(!refused(json!({"reportingController": "job-controller"})));
    assert!(!refused(json!({"regarding": {"kind": "CronJob"}})));
    assert!(!refused(json!({"reason": "FailedMount"})));
}

#[test]
fn refusals_are_kept_where_monitors_are_and_no_more_than_the_latest() {
    let (refused, mut due, _) = world();
    refused.observe(
        &Area::Cluster,
        Event::Apply(event("e", 1, WANTS, &json!({"metadata": {"namespace": "other"}}))),
    );
    assert_eq!(kept(&refused), 0);
    assert!(!refused.queue.pass() && due.try_recv().is_err());
    for n in 0..50 {
        let other = json!({"regarding": {"uid": format!("u{n}")}});
        refused.observe(&Area::Cluster, Event::Apply(event(&format!("e{n}"), n, WANTS, &other)));
    }
    assert_eq!(kept(&refused), KEPT);
    assert!(!lock(&refused.all)["bots"].events.contains_key("e0"));
    refused.observe(&Area::Cluster, Event::Init);
    refused.observe(&Area::Cluster, Event::InitDone);
    assert_eq!(kept(&refused), 0);
}

#[test]
fn an_event_makes_its_monitor_due_when_it_comes_and_when_it_goes() {
    let (refused, mut due, _) = world();
    let event = || event("e", 1, WANTS, &json!({}));
    refused.observe(&Area::Cluster, Event::Apply(event()));
    assert!(due.try_recv().is_err(), "Events are gathered");
    assert!(refused.queue.pass());
    assert_eq!(due.try_recv().unwrap(), Key::new("bots", "rosey"));
    refused.observe(&Area::Cluster, Event::Apply(event()));
    assert!(!refused.queue.pass());
    refused.observe(&Area::Cluster, Event::Delete(event()));
    assert!(refused.queue.pass());
    assert_eq!(due.try_recv().unwrap(), Key::new("bots", "rosey"));
    assert!(lock(&refused.all).is_empty());
}

#[test]
fn the_latest_event_of_a_workload_counts_until_it_is_old() {
    let mut refused = Refused::default();
    for (name, second) in [("a", 1), ("b", 9), ("c", 5)] {
        refused.insert(name, read(event(name, second, WANTS, &json!({}))).unwrap());
    }
    let last = refused.events["b"].clone();
    assert_eq!(refused.latest(last.seen), std::slice::from_ref(&last));
    assert!(refused.latest(last.seen + HOLDS).is_empty());
}

#[test]
fn a_workload_is_judged_by_its_template_as_the_webhook_judges_its_pods() {
    let (refused, _, monitor) = world();
    let refusal = read(event("e", 1, WANTS, &json!({}))).unwrap();
    let judge = |template: Value| {
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "rosey", "uid": "d", "controller": true}]);
        let object =
            json!({"metadata": {"name": "rosey-5f6d", "ownerReferences": owner}, "spec": {"template": template}});
        let object = serde_json::from_value(object).unwrap();
        match refused.judge(&object, &monitor, &Platform::default(), &refusal) {
            Workload::Known { owner, exporter, .. } => (owner, exporter.map(|(_, resources)| resources)),
            Workload::Unknown(_) => panic!("it was read"),
        }
    };
    let spec = json!({"containers": [{"name": "bot", "image": "bot"}]});
    let ours = json!({"metadata": {"labels": {"app": "rosey"}}, "spec": spec});
    assert_eq!(judge(ours), ("deployment/rosey".into(), Some(Some(default()))));
    let foreign = json!({"metadata": {"labels": {"app": "other"}}, "spec": spec});
    assert_eq!(judge(foreign).1, None);
    let out = json!({"metadata": {"labels": {"app": "rosey"}, "annotations": {crate::api::INJECT_ANNOTATION: "false"}}, "spec": spec});
    assert_eq!(judge(out).1, Some(None));
}

#[test]
fn a_namespace_that_is_listed_anew_leaves_the_refused_pods_of_the_others() {
    let (refused, _due, _) = world();
    let [bots, games] = ["bots", "games"].map(|name| Area::Namespace(name.into()));
    let list = |area: &Area| {
        refused.observe(area, Event::Init);
        refused.observe(area, Event::InitDone);
    };
    refused.observe(&bots, Event::Init);
    refused.observe(&bots, Event::InitApply(event("e", 1, WANTS, &json!({}))));
    list(&games);
    refused.observe(&bots, Event::InitDone);
    list(&games);
    assert_eq!(kept(&refused), 1);
    list(&bots);
    assert_eq!(kept(&refused), 0);
}
