use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::operator::monitors;
use crate::plan::platform::Version;

/// A landscape with one monitor in it, and the monitors that become due.
fn world() -> (Landscape, UnboundedReceiver<Key>) {
    let (monitors, mut writer) = monitors::pair();
    let monitor = serde_json::from_value(json!({
        "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor",
        "metadata": {"namespace": "bots", "name": "rosey", "uid": "m"},
        "spec": {"environment": "test", "selector": {}},
    }))
    .unwrap();
    writer.apply_watcher_event(&Event::Apply(monitor));
    let queue = Queue::default();
    let due = queue.open();
    let landscape = Landscape::new(Platform::default(), Info::default(), monitors, queue);
    (landscape, due)
}

fn alertmanager(version: &str) -> Alertmanager {
    serde_json::from_value(json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "Alertmanager",
        "metadata": {"namespace": "monitoring", "name": "main"}, "spec": {"version": version},
    }))
    .unwrap()
}

fn definition(version: &str) -> PartialObjectMeta<CustomResourceDefinition> {
    serde_json::from_value(json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {
            "name": "alertmanagers.monitoring.coreos.com", "annotations": {VERSION_ANNOTATION: version},
        },
    }))
    .unwrap()
}

fn due(receiver: &mut UnboundedReceiver<Key>) -> usize {
    std::iter::from_fn(|| receiver.try_recv().ok()).count()
}

#[test]
fn a_relist_changes_nothing_before_it_is_complete() {
    let (landscape, mut queue) = world();
    landscape.definitions(Some(Event::Apply(definition("0.93.1"))));
    landscape.alertmanagers(Some(Event::Apply(alertmanager("0.27.0"))));
    landscape.kind_served(Kind::PodMonitor);
    let platform = landscape.platform().borrow().clone();
    assert_eq!(platform.prometheus_operator, Some(Version(0, 93, 1)));
    assert_eq!(platform.alertmanager, Some(Version(0, 27, 0)));
    assert!(due(&mut queue) > 0);

    landscape.definitions(Some(Event::Init));
    landscape.alertmanagers(Some(Event::Init));
    landscape.kind_served(Kind::PodMonitor);
    assert_eq!(**landscape.platform().borrow(), *platform);
    landscape.definitions(Some(Event::InitApply(definition("0.93.1"))));
    landscape.alertmanagers(Some(Event::InitApply(alertmanager("0.27.0"))));
    landscape.definitions(Some(Event::InitDone));
    landscape.alertmanagers(Some(Event::InitDone));
    assert_eq!(**landscape.platform().borrow(), *platform);
    assert_eq!(due(&mut queue), 0);
}

#[test]
fn a_relist_that_misses_the_alertmanager_makes_its_version_unknown() {
    let (landscape, mut queue) = world();
    landscape.alertmanagers(Some(Event::Apply(alertmanager("0.27.0"))));
    due(&mut queue);
    landscape.alertmanagers(Some(Event::Init));
    landscape.alertmanagers(Some(Event::InitDone));
    assert_eq!(landscape.platform().borrow().alertmanager, None);
    assert_eq!(due(&mut queue), 1);
}

#[test]
fn a_kind_that_is_gone_takes_its_versions_with_it() {
    let (landscape, _queue) = world();
    landscape.alertmanagers(Some(Event::Apply(alertmanager("0.27.0"))));
    landscape.kind_gone("alertmanagers");
    assert_eq!(landscape.platform().borrow().alertmanager, None);
}

#[test]
fn definitions_that_may_no_longer_be_read_count_as_installed_and_keep_their_version() {
    let (landscape, _queue) = world();
    landscape.definitions(Some(Event::Apply(definition("0.93.1"))));
    landscape.definitions(None);
    assert_eq!(
        landscape.platform().borrow().prometheus_operator,
        Some(Version(0, 93, 1))
    );
    assert_eq!(landscape.served().borrow().as_ref().map(BTreeSet::len), Some(5));
}
