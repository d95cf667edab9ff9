use futures::FutureExt;

use super::*;
use crate::api::UPDATE_ANNOTATION;

/// A pod whose exporter was changed from image 1 to image 2 at `CLOCK`.
fn on_trial(with: &Value) -> Pod {
    let note = json!({"from": "1", "to": "2", "container": "old", "ran": true, "at": CLOCK}).to_string();
    let mut on_trial = json!({
        "metadata": {"uid": "p", "annotations": {INJECTED_ANNOTATION: "rosey@1", UPDATE_ANNOTATION: note}},
        "spec": {"containers": [{"name": CONTAINER, "image": "2"}]},
        "status": {"containerStatuses": [{"name": CONTAINER, "containerID": "new", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
    });
    json_patch::merge(&mut on_trial, with);
    pod("a", &on_trial)
}

const CLOCK: i64 = 1_763_740_800;

#[test]
fn a_change_is_undone_where_no_monitor_looks_after_it_until_its_container_runs() {
    let running = |container: &str| {
        let status = json!([{"name": CONTAINER, "containerID": container, "state": {"running": {}}}]);
        json!({"status": {"containerStatuses": status}})
    };
    let failed = json!({"from": "1", "to": "2", "at": CLOCK, "failed": "ErrImagePull"}).to_string();
    let other_image = json!({"spec": {"containers": [{"name": CONTAINER, "image": "3"}]}});
    for (what, pod, clock, undone) in [
        ("it can't be pulled", on_trial(&json!({})), CLOCK, true),
        (
            "the old container is still shown",
            on_trial(&running("old")),
            CLOCK,
            true,
        ),
        ("the new one runs", on_trial(&running("new")), CLOCK, false),
        ("it was long ago", on_trial(&json!({})), CLOCK + 601, false),
        (
            "it is undone",
            on_trial(&json!({"metadata": {"annotations": {UPDATE_ANNOTATION: failed}}})),
            CLOCK,
            false,
        ),
        ("somebody has changed it since", on_trial(&other_image), CLOCK, false),
    ] {
        let (all, mut feed, _due, monitor) = cluster(vec![]);
        let all = all.closely(true);
        all.observe(&Area::Cluster, Event::Apply(pod));
        let abandoned = || {
            all.abandoned(clock)
                .into_iter()
                .map(|(by, pod)| (by, pod.pod))
                .collect::<Vec<_>>()
        };
        assert_eq!(abandoned(), [], "{what}, and it is looked after");
        let expected = if undone {
            vec![(Key::new("bots", "rosey"), "a".to_owned())]
        } else {
            vec![]
        };

        let mut others = monitor.clone();
        others.spec.selector.match_labels = Some([("app".to_owned(), "other".to_owned())].into());
        let mut leaves = monitor.clone();
        leaves.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        ));
        for changed in [others, leaves] {
            feed.apply_watcher_event(&Event::Apply(changed));
            assert_eq!(abandoned(), expected, "{what}");
        }
        feed.apply_watcher_event(&Event::Delete(monitor));
        assert_eq!(abandoned(), expected, "{what}");
    }
}

#[test]
fn a_pod_asks_for_a_look_only_while_its_change_may_have_to_be_undone() {
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    let note = |at: i64| {
        let note = json!({"from": "1", "to": "2", "container": "old", "ran": true, "at": at}).to_string();
        json!({"metadata": {"annotations": {UPDATE_ANNOTATION: note}}})
    };
    let with = |mut change: Value, other: &Value| {
        json_patch::merge(&mut change, other);
        on_trial(&change)
    };
    let runs = json!([{"name": CONTAINER, "containerID": "new", "state": {"running": {}}}]);
    let runs = json!({"status": {"containerStatuses": runs}});
    let failed = json!({"from": "1", "to": "2", "at": now, "failed": "ErrImagePull"}).to_string();
    let failed = json!({"metadata": {"annotations": {UPDATE_ANNOTATION: failed}}});
    for (what, pod, asks) in [
        ("it can't be pulled", with(note(now), &json!({})), true),
        ("it runs", with(note(now), &runs), false),
        ("it was long ago", with(note(CLOCK - 3600), &json!({})), false),
        ("it is undone", with(failed, &json!({})), false),
    ] {
        let (all, _feed, _due, _monitor) = cluster(vec![]);
        let all = all.closely(true);
        let asked = || all.may_be_abandoned().now_or_never().is_some();
        // The list of the pods has asked.
        asked();
        all.observe(&Area::Cluster, Event::Apply(pod));
        assert_eq!(asked(), asks, "{what}");
    }
}
