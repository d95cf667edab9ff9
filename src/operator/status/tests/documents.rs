//! The documents by which Argo CD's health check and the other waiting tools are tested have the statuses that are really written.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::api::{INJECTED_ANNOTATION, RoseyMonitor};
use crate::operator::area::Area;
use crate::operator::key::Queue;
use crate::operator::landscape::{Access, View};
use crate::operator::monitors;
use crate::operator::selection::{Home, selection};
use crate::operator::sidecars::{Hindrance, Pods};
use crate::plan::Platform;
use crate::sidecar::CONTAINER;

const TESTDATA: &str = "deploy/gitops/argocd/resource_customizations/rosey.dev/RoseyMonitor/testdata";

/// What happened to the monitor of a document.
enum Story {
    /// Nobody has looked at it.
    Created,
    /// Its objects are in place.
    Applied,
    /// The same, and then its spec was changed.
    Changed,
    /// Its objects can't be made.
    Failed(apply::Error),
    /// Its objects were in place when it was paused.
    Paused,
    /// It was paused from the beginning.
    NeverApplied,
    /// It is wrong.
    Invalid,
}

fn story(document: &str) -> (Story, Vec<Value>) {
    let injected = || vec![pod(true)];
    match document {
        "created" => (Story::Created, vec![]),
        "ready" => (Story::Applied, injected()),
        "pods-missing" => (Story::Applied, vec![pod(false)]),
        "changed" => (Story::Changed, injected()),
        "paused" => (Story::Paused, injected()),
        "paused-when-created" => (Story::NeverApplied, vec![]),
        "invalid" => (Story::Invalid, vec![]),
        "name-taken" => {
            let (kind, name) = (Kind::ConfigMap, "rosey-exporter".into());
            (Story::Failed(apply::Error::NameTaken { kind, name }), vec![])
        }
        "prometheus-operator-missing" => {
            let kinds = [Kind::PrometheusRule, Kind::PodMonitor, Kind::AlertmanagerConfig];
            (Story::Failed(apply::Error::Missing(BTreeSet::from(kinds))), vec![])
        }
        "apply-failed" => {
            let (kind, name, doing) = (Kind::PrometheusRule, "rosey".into(), "applied");
            (Story::Failed(apply::Error::Timeout { kind, name, doing }), injected())
        }
        other => panic!("{other}.yaml has no story"),
    }
}

fn pod(injected: bool) -> Value {
    let mut pod = json!({
        "metadata": {
            "namespace": "bots", "name": "rosey-5f6d-x2x4v", "labels": {"app": "rosey", "pod-template-hash": "5f6d"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rosey-5f6d", "uid": "r", "controller": true}],
        },
        "spec": {"containers": [{"name": "bot", "image": "bot"}]},
        "status": {"phase": "Running"},
    });
    if injected {
        let exporter = json!({"name": CONTAINER, "image": Platform::default().exporter_image});
        pod["metadata"]["annotations"] = json!({INJECTED_ANNOTATION: "rosey@1"});
        pod["spec"]["containers"] = json!([{"name": "bot", "image": "bot"}, exporter]);
        pod["status"]["containerStatuses"] = json!([{"name": CONTAINER, "state": {"running": {}}}]);
    }
    pod
}

fn sidecars(monitor: &RoseyMonitor, pods: Vec<Value>) -> Sidecars {
    let (monitors, mut feed) = monitors::pair();
    feed.apply_watcher_event(&Event::Apply(monitor.clone()));
    let all = Pods::new(monitors, Queue::default());
    for pod in pods {
        all.observe(&Area::Cluster, Event::Apply(serde_json::from_value(pod).unwrap()));
    }
    all.of(monitor, &Platform::default(), Hindrance::default())
}

/// A stack that selects everything, or none.
fn selected(plan: &Plan, installed: bool) -> Selection {
    let place = |name: &str| ("monitoring".to_owned(), name.to_owned());
    let everything =
        |fields: &[&str]| -> Value { fields.iter().map(|field| ((*field).to_owned(), json!({}))).collect() };
    let view = if installed {
        let prometheus = everything(&[
            "ruleSelector",
            "ruleNamespaceSelector",
            "podMonitorSelector",
            "podMonitorNamespaceSelector",
        ]);
        let alertmanager = everything(&["alertmanagerConfigSelector", "alertmanagerConfigNamespaceSelector"]);
        View {
            only: Vec::new(),
            prometheuses: Access::Known([(place("main"), serde_json::from_value(prometheus).unwrap())].into()),
            alertmanagers: Access::Known([(place("main"), serde_json::from_value(alertmanager).unwrap())].into()),
        }
    } else {
        View {
            only: Vec::new(),
            prometheuses: Access::Absent,
            alertmanagers: Access::Absent,
        }
    };
    let home = Home {
        namespace: "bots",
        labels: None,
    };
    selection(&view, home, &plan.objects)
}

/// The status that the operator writes for the monitor of a document.
fn written(document: &str, monitor: &RoseyMonitor, at: Timestamp) -> MonitorStatus {
    let (story, pods) = story(document);
    let plan = plan(monitor, &Platform::default());
    let generation = monitor.metadata.generation;
    let installed = !matches!(story, Story::Failed(apply::Error::Missing(_)));
    let say = |applied: &Applied, generation: Option<i64>, before: &MonitorStatus| {
        let observation = Observation {
            generation,
            plan: plan.as_ref(),
            applied,
            sidecars: sidecars(monitor, pods.clone()),
            selection: plan.as_ref().ok().map(|plan| selected(plan, installed)),
            refused: Some(Vec::new()),
        };
        status(observation, before, at)
    };
    let new = crate::api::crd()
        .spec
        .versions
        .remove(0)
        .schema
        .unwrap()
        .open_api_v3_schema
        .unwrap();
    let new = new.properties.unwrap().remove("status").unwrap().default.unwrap();
    let new: MonitorStatus = serde_json::from_value(new.0).unwrap();
    match story {
        Story::Created => new,
        Story::Applied => say(&Applied::Done, generation, &new),
        Story::Changed => say(&Applied::Done, generation.map(|generation| generation - 1), &new),
        Story::Failed(error) => say(&Applied::Failed(error), generation, &new),
        Story::Paused => {
            let before = say(&Applied::Done, generation.map(|generation| generation - 1), &new);
            say(&Applied::Paused, generation, &before)
        }
        Story::NeverApplied => say(&Applied::Paused, generation, &new),
        Story::Invalid => say(&Applied::Invalid, generation, &new),
    }
}

#[test]
fn the_documents_of_the_health_checks_have_the_statuses_that_are_really_written() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(TESTDATA);
    let (mut seen, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let document: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let monitor: RoseyMonitor = serde_json::from_value(document.clone()).unwrap();
        let times = document["status"]["conditions"][0]["lastTransitionTime"].as_str();
        let at = times.map_or(at(0), |time| time.parse().unwrap());
        let name = path.file_stem().unwrap().to_str().unwrap();
        let wanted = serde_json::to_value(written(name, &monitor, at)).unwrap();
        if document["status"] != wanted {
            let wanted = serde_json::to_string_pretty(&wanted).unwrap();
            wrong.push(format!("{name}.yaml should have the status\n{wanted}"));
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "in {TESTDATA}:\n{}", wrong.join("\n"));
    assert_eq!(seen, 10, "documents in {TESTDATA}");
}
