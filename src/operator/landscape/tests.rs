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
    landscape.definitions(Event::Apply(definition("0.93.1")));
    landscape.alertmanagers(&Area::Cluster, Some(Event::Apply(alertmanager("0.27.0"))));
    landscape.kind_served(Kind::PodMonitor);
    let platform = landscape.platform().borrow().clone();
    assert_eq!(platform.prometheus_operator, Some(Version(0, 93, 1)));
    assert_eq!(platform.alertmanager, Some(Version(0, 27, 0)));
    assert!(due(&mut queue) > 0);

    landscape.definitions(Event::Init);
    landscape.alertmanagers(&Area::Cluster, Some(Event::Init));
    landscape.kind_served(Kind::PodMonitor);
    assert_eq!(**landscape.platform().borrow(), *platform);
    landscape.definitions(Event::InitApply(definition("0.93.1")));
    landscape.alertmanagers(&Area::Cluster, Some(Event::InitApply(alertmanager("0.27.0"))));
    landscape.definitions(Event::InitDone);
    landscape.alertmanagers(&Area::Cluster, Some(Event::InitDone));
    assert_eq!(**landscape.platform().borrow(), *platform);
    assert_eq!(due(&mut queue), 0);
}

#[test]
fn a_relist_that_misses_the_alertmanager_makes_its_version_unknown() {
    let (landscape, mut queue) = world();
    landscape.alertmanagers(&Area::Cluster, Some(Event::Apply(alertmanager("0.27.0"))));
    due(&mut queue);
    landscape.alertmanagers(&Area::Cluster, Some(Event::Init));
    landscape.alertmanagers(&Area::Cluster, Some(Event::InitDone));
    assert_eq!(landscape.platform().borrow().alertmanager, None);
    assert_eq!(due(&mut queue), 1);
}

#[test]
fn a_kind_that_is_gone_takes_its_versions_with_it() {
    let (landscape, _queue) = world();
    landscape.alertmanagers(&Area::Cluster, Some(Event::Apply(alertmanager("0.27.0"))));
    landscape.kind_gone("alertmanagers");
    assert_eq!(landscape.platform().borrow().alertmanager, None);
}

#[test]
fn kinds_that_are_served_where_the_definitions_may_not_be_read_keep_their_version() {
    let (landscape, mut queue) = world();
    landscape.definitions(Event::Apply(definition("0.93.1")));
    due(&mut queue);
    let served = |names: &[&str]| landscape.discovered(names.iter().map(ToString::to_string).collect());
    served(&["alertmanagers", "prometheuses"]);
    let version = || landscape.platform().borrow().prometheus_operator;
    assert_eq!(version(), Some(Version(0, 93, 1)));
    assert_eq!(landscape.served().borrow().as_ref().map(BTreeSet::len), Some(2));
    assert_eq!(due(&mut queue), 1);
    served(&["alertmanagers", "prometheuses"]);
    assert_eq!(due(&mut queue), 0, "nothing has changed");
    served(&[]);
    assert_eq!(version(), None);
    assert_eq!(landscape.served().borrow().as_ref().map(BTreeSet::len), Some(0));
}

#[test]
fn a_namespace_that_is_listed_anew_or_may_not_be_read_any_more_leaves_the_others_alone() {
    let (landscape, _queue) = world();
    let (here, there) = (Area::Namespace("monitoring".into()), Area::Namespace("games".into()));
    let other = |version: &str| {
        let mut other = alertmanager(version);
        other.metadata.namespace = Some("games".into());
        other
    };
    let list = |area: &Area, one: Option<Alertmanager>| {
        landscape.alertmanagers(area, Some(Event::Init));
        if let Some(one) = one {
            landscape.alertmanagers(area, Some(Event::InitApply(one)));
        }
        landscape.alertmanagers(area, Some(Event::InitDone));
    };
    let oldest = || landscape.platform().borrow().alertmanager;
    list(&here, Some(alertmanager("0.28.0")));
    // Both at the same time.
    landscape.alertmanagers(&here, Some(Event::Init));
    landscape.alertmanagers(&here, Some(Event::InitApply(alertmanager("0.28.0"))));
    list(&there, Some(other("0.27.0")));
    landscape.alertmanagers(&here, Some(Event::InitDone));
    assert_eq!(oldest(), Some(Version(0, 27, 0)));
    landscape.alertmanagers(&there, None);
    assert_eq!(oldest(), Some(Version(0, 28, 0)));
    assert!(matches!(landscape.view().alertmanagers, Access::Known(_)));
    list(&here, None);
    assert_eq!(oldest(), None);
}
