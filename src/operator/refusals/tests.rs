use serde_json::json;

use super::*;
use crate::operator::monitors;
use crate::operator::owned::Written;

fn world() -> (Refusals, Owned) {
    let (queue, (monitors, mut feed)) = (Queue::default(), monitors::pair());
    let monitor = serde_json::from_value(json!({
        "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": {"namespace": "bots", "name": "rosey"},
        "spec": {"environment": "test", "selector": {}},
    }))
    .unwrap();
    feed.apply_watcher_event(&Event::Apply(monitor));
    (Refusals::new(monitors, queue.clone()), Owned::new(queue))
}

fn event(version: &str, note: &str) -> ClusterEvent {
    serde_json::from_value(json!({
        "metadata": {"name": "e", "namespace": "bots"}, "eventTime": "2026-01-01T00:00:00.123456Z",
        "reason": "InvalidConfiguration", "note": note,
        "regarding": {"kind": "AlertmanagerConfig", "namespace": "bots", "name": "rosey.ops", "resourceVersion": version},
    }))
    .unwrap()
}

#[test]
fn a_refusal_holds_for_the_version_that_was_refused_and_as_long_as_its_event() {
    let ((refusals, owned), key) = (world(), Key::new("bots", "rosey"));
    let objects = [Object {
        kind: Kind::AlertmanagerConfig,
        name: "rosey.ops".into(),
        json: json!({}),
    }];
    let wrote = |version| {
        owned.record(
            &key,
            "m",
            Kind::AlertmanagerConfig,
            "rosey.ops",
            Written {
                uid: "u".into(),
                version,
                hash: 1,
            },
        );
    };
    refusals.observe(
        &Area::Cluster,
        Event::Apply(event(
            "7",
            "x was rejected due to invalid configuration: key \"a\" not found",
        )),
    );
    wrote(7);
    let refused = refusals.of(&key, &objects, &owned);
    assert_eq!(
        (refused[0].channel.as_str(), refused[0].message.as_str()),
        ("ops", "key \"a\" not found")
    );
    assert_eq!(refused[0].time.as_ref().unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    wrote(8);
    assert!(refusals.of(&key, &objects, &owned).is_empty());
    wrote(7);
    refusals.observe(&Area::Cluster, Event::Delete(event("7", "")));
    assert!(refusals.of(&key, &objects, &owned).is_empty());
}

#[test]
fn a_refused_scrape_is_not_taken_for_a_refused_channel_of_the_same_name() {
    let ((refusals, owned), key) = (world(), Key::new("bots", "rosey"));
    let objects = [Kind::PodMonitor, Kind::AlertmanagerConfig].map(|kind| Object {
        kind,
        name: "rosey".into(),
        json: json!({}),
    });
    for Object { kind, name, .. } in &objects {
        let written = Written {
            uid: "u".into(),
            version: 7,
            hash: 1,
        };
        owned.record(&key, "m", *kind, name, written);
    }
    let note = "\"bots/rosey\" was rejected due to invalid configuration: endpoint[0]: basicAuth: key \"user\" in secret \"web\" not found";
    let mut refused = event("7", note);
    refused.regarding.as_mut().unwrap().kind = Some("PodMonitor".into());
    refused.regarding.as_mut().unwrap().name = Some("rosey".into());
    refusals.observe(&Area::Cluster, Event::Apply(refused.clone()));
    let (why, when) = refusals.of_scrape(&key, &objects, &owned).unwrap();
    assert_eq!(why, "endpoint[0]: basicAuth: key \"user\" in secret \"web\" not found");
    assert_eq!(when.unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(refusals.of(&key, &objects, &owned), []);
    refused.regarding.as_mut().unwrap().kind = Some("ServiceMonitor".into());
    refusals.observe(&Area::Cluster, Event::Delete(refused.clone()));
    assert!(refusals.of_scrape(&key, &objects, &owned).is_some());
    refused.regarding.as_mut().unwrap().kind = Some("PodMonitor".into());
    refusals.observe(&Area::Cluster, Event::Delete(refused));
    assert_eq!(refusals.of_scrape(&key, &objects, &owned), None);
}

#[test]
fn events_are_kept_of_monitors_that_exist_and_no_more_than_the_latest() {
    let (refusals, _) = world();
    let of = |monitor: &str, object: usize, n: usize| {
        let mut event = event("7", "no");
        event.metadata.name = Some(format!("{object}-{n}"));
        event.event_time = serde_json::from_value(json!(format!("2026-01-01T00:{object:02}:{n:02}.000000Z"))).unwrap();
        event.regarding.as_mut().unwrap().name = Some(format!("{monitor}.{object}"));
        event
    };
    let kept = || {
        let all = lock(&refusals.all);
        let objects = all.values().flat_map(HashMap::values);
        (all.len(), objects.clone().count(), objects.map(Vec::len).sum::<usize>())
    };
    refusals.observe(&Area::Cluster, Event::Apply(of("stranger", 1, 1)));
    let mut elsewhere = of("rosey", 1, 1);
    elsewhere.metadata.namespace = Some("default".into());
    refusals.observe(&Area::Cluster, Event::Apply(elsewhere));
    assert_eq!(kept(), (0, 0, 0));
    for n in 0..60 {
        refusals.observe(&Area::Cluster, Event::Apply(of("rosey", 0, n)));
    }
    assert_eq!(kept(), (1, 1, EVENTS));
    let key = Key::new("bots", "rosey");
    let object = (Kind::AlertmanagerConfig, "rosey.0".into());
    let names: Vec<_> = lock(&refusals.all)[&key][&object]
        .iter()
        .map(|refusal| refusal.event.clone())
        .collect();
    assert_eq!(names, ["0-56", "0-57", "0-58", "0-59"].map(Box::from));
    for object in 0..100 {
        refusals.observe(&Area::Cluster, Event::Apply(of("rosey", object % 60, 0)));
        let mut other = of("rosey", 0, 0);
        other.regarding.as_mut().unwrap().name = Some(format!("rosey.x{object}"));
        refusals.observe(&Area::Cluster, Event::Apply(other));
    }
    assert!(kept().1 <= OBJECTS, "{:?}", kept());
    refusals.forget(&key);
    assert_eq!(kept(), (0, 0, 0));
}

#[test]
fn the_events_of_a_monitor_are_gathered_for_one_look() {
    let (refusals, _) = world();
    let mut due = refusals.queue.open();
    let mut one_look = |what: &str| {
        assert!(due.try_recv().is_err(), "{what}");
        assert!(refusals.queue.pass(), "{what}");
        assert_eq!(due.try_recv().unwrap(), Key::new("bots", "rosey"), "{what}");
        assert!(due.try_recv().is_err(), "{what}");
    };
    for version in ["7", "8", "9"] {
        refusals.observe(&Area::Cluster, Event::Apply(event(version, "no")));
    }
    one_look("they come");
    refusals.observe(&Area::Cluster, Event::Delete(event("9", "")));
    one_look("one goes");
    refusals.observe(&Area::Cluster, Event::Init);
    refusals.observe(&Area::Cluster, Event::InitApply(event("7", "no")));
    refusals.observe(&Area::Cluster, Event::InitDone);
    one_look("they are listed");
}

#[test]
fn what_may_be_a_secret_is_left_out() {
    for (message, clean) in [
        (
            "key \"discord\" in secret \"rosey-channels\" not found",
            "key \"discord\" in secret \"rosey-channels\" not found",
        ),
        (
            "discord[0]: parse \"abcdef\": invalid URI for request",
            "discord[0]: parse …: invalid URI for request",
        ),
        ("bad URL https://h/s3cret here", "bad URL … here"),
        ("bad \"https://h/s3cret\"", "bad …"),
    ] {
        assert_eq!(without_secrets(message), clean);
    }
}

#[test]
fn a_namespace_that_is_listed_anew_leaves_the_refusals_of_the_others() {
    let (refusals, _) = world();
    let [bots, games] = ["bots", "games"].map(|name| Area::Namespace(name.into()));
    let list = |area: &Area| {
        refusals.observe(area, Event::Init);
        refusals.observe(area, Event::InitDone);
    };
    refusals.observe(&bots, Event::Init);
    refusals.observe(&bots, Event::InitApply(event("7", "no")));
    list(&games);
    refusals.observe(&bots, Event::InitDone);
    list(&games);
    assert_eq!(lock(&refusals.all).len(), 1);
    list(&bots);
    assert!(lock(&refusals.all).is_empty());
}
