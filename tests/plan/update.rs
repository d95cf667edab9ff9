use json_patch::{Patch, PatchErrorKind};
use rosey_monitor::api::RoseyMonitor;
use rosey_monitor::plan::Platform;
use rosey_monitor::plan::injection::update::{Change, Note, back, replacement, undone, update};
use rosey_monitor::plan::injection::{Injection, inject};
use serde_json::{Value, json};

use crate::with_spec;

const NOW: i64 = 1_763_740_800;

fn monitor(version: &str) -> RoseyMonitor {
    with_spec(&format!(
        "environment: prod\nselector: {{matchLabels: {{app: rosey}}}}\nexporter:\n  image: rosey-monitor/rosey-exporter:{version}\n  disk: [{{volume: data}}]"
    ))
}

fn bare(restart_policy: &str) -> Value {
    json!({
        "metadata": {"name": "rosey-1", "namespace": "bots", "uid": "u-1", "labels": {"app": "rosey"}},
        "spec": {
            "initContainers": [{"name": "first", "image": "busybox"}],
            "containers": [{"name": "bot", "image": "rosey:1.4"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "restartPolicy": restart_policy,
        },
    })
}

fn apply(pod: &Value, operations: &[Value]) -> Result<Value, PatchErrorKind> {
    let patch: Patch = serde_json::from_value(Value::Array(operations.to_vec())).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).map_err(|error| error.kind)?;
    Ok(pod)
}

fn created(pod: &Value, monitor: &RoseyMonitor) -> Value {
    match inject(pod, [monitor], &Platform::default()) {
        Injection::Patch { operations, .. } => apply(pod, &operations).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A pod that runs with its exporter, with what the API server and kubelet add.
fn running(restart_policy: &str) -> Value {
    let mut pod = created(&bare(restart_policy), &monitor("1"));
    let list = list(&pod);
    pod["spec"][list][1]["terminationMessagePath"] = json!("/dev/termination-log");
    pod["spec"][list][1]["terminationMessagePolicy"] = json!("File");
    let status = json!({"name": "rosey-exporter", "containerID": "containerd://1", "state": {"running": {}}});
    let statuses = if list == "containers" {
        "containerStatuses"
    } else {
        "initContainerStatuses"
    };
    pod["status"][statuses] = json!([{"name": "bot"}, status]);
    pod
}

fn list(pod: &Value) -> &'static str {
    if pod["spec"]["restartPolicy"] == "Always" {
        "containers"
    } else {
        "initContainers"
    }
}

fn updated(pod: &Value) -> Change {
    let monitor = monitor("2");
    update(pod, &monitor, [&monitor], &Platform::default(), NOW)
}

fn operations(change: Change) -> Vec<Value> {
    match change {
        Change::Patch(operations) => operations,
        other => panic!("{other:?}"),
    }
}

fn annotation<'a>(pod: &'a Value, key: &str) -> &'a str {
    pod["metadata"]["annotations"][key].as_str().unwrap_or_default()
}

#[test]
fn an_exporter_with_volumes_of_its_own_is_updated_as_any_other() {
    let rich = |version: &str| {
        with_spec(&format!(
            "environment: prod\nselector: {{matchLabels: {{app: rosey}}}}\nbot: {{logs: {{volume: data, path: bot.log}}}}\nexporter:\n  \
             image: rosey-monitor/rosey-exporter:{version}\n  webConfigSecretRef: {{name: web}}\n  pushgateway:\n    url: http://push:9091\n    \
             basicAuth: {{username: rosey, passwordSecretRef: {{name: push, key: password}}}}"
        ))
    };
    let pod = created(&bare("Always"), &rich("1"));
    let names = |pod: &Value| pod["spec"]["volumes"].as_array().unwrap().len();
    assert_eq!(names(&pod), names(&bare("Always")) + 4);
    let next = rich("2");
    let change = update(&pod, &next, [&next], &Platform::default(), NOW);
    assert!(matches!(change, Change::Patch(_)), "{change:?}");
}

#[test]
fn an_update_leaves_the_pod_as_a_new_one_would_be_but_for_a_note_of_what_was() {
    for restart_policy in ["Always", "Never"] {
        let before = running(restart_policy);
        let after = apply(&before, &operations(updated(&before))).unwrap();
        let new = created(&bare(restart_policy), &monitor("2"));
        assert_eq!(
            annotation(&after, "rosey.dev/injected"),
            annotation(&new, "rosey.dev/injected")
        );
        assert_ne!(
            annotation(&after, "rosey.dev/injected"),
            annotation(&before, "rosey.dev/injected")
        );
        let note = Note::read(annotation(&after, "rosey.dev/update")).unwrap();
        assert_eq!(
            note,
            Note {
                from: "rosey-monitor/rosey-exporter:1".into(),
                to: "rosey-monitor/rosey-exporter:2".into(),
                container: "containerd://1".into(),
                ran: true,
                at: NOW,
                failed: None,
            }
        );
        // Kubernetes lets nothing else be changed.
        let mut expected = before.clone();
        expected["spec"][list(&before)][1]["image"] = json!("rosey-monitor/rosey-exporter:2");
        assert_eq!(after["spec"], expected["spec"]);
    }
}

#[test]
fn an_update_is_refused_by_a_pod_that_is_not_what_was_read() {
    let before = running("Always");
    let operations = operations(updated(&before));
    let changes: [fn(&mut Value); 3] = [
        |pod| pod["metadata"]["uid"] = json!("u-2"),
        |pod| pod["spec"]["containers"][1]["image"] = json!("rosey-monitor/rosey-exporter:1.1"),
        |pod| pod["spec"]["containers"].as_array_mut().unwrap().reverse(),
    ];
    for change in changes {
        let mut other = before.clone();
        change(&mut other);
        assert!(matches!(apply(&other, &operations), Err(PatchErrorKind::TestFailed)));
    }
}

#[test]
fn what_is_current_or_of_another_monitor_is_not_updated() {
    let same = monitor("1");
    let pod = running("Always");
    assert_eq!(update(&pod, &same, [&same], &Platform::default(), NOW), Change::Nothing);
    let mut foreign = pod.clone();
    foreign["metadata"]["annotations"]["rosey.dev/injected"] = json!("other@1");
    assert_eq!(updated(&foreign), Change::Nothing);
    assert_eq!(updated(&bare("Always")), Change::Nothing);
    assert_eq!(updated(&json!({})), Change::Nothing);
}

#[test]
fn where_a_new_pod_would_get_no_exporter_the_old_one_is_left_alone() {
    let mut pod = running("Always");
    pod["metadata"]["annotations"]["rosey.dev/inject"] = json!("false");
    assert_eq!(
        updated(&pod),
        Change::Left("the pod says rosey.dev/inject: \"false\"".into())
    );

    let (ours, mut other) = (monitor("2"), monitor("2"));
    other.metadata.name = Some("other".into());
    let change = update(&running("Always"), &ours, [&ours, &other], &Platform::default(), NOW);
    assert_eq!(
        change,
        Change::Left("more than one monitor selects this pod: rosey, other".into())
    );
}

#[test]
fn an_image_to_which_there_is_no_way_back_is_not_left() {
    let mut pod = running("Always");
    pod["spec"]["containers"][1]["image"] = json!("elsewhere/exporter:1");
    let Change::Left(reason) = updated(&pod) else { panic!() };
    assert!(
        reason.contains("elsewhere/exporter:1") && reason.contains("no way back"),
        "{reason}"
    );

    // Another version of the same image is a way back, wherever that is.
    let (mut ours, platform) = (
        monitor("2"),
        Platform {
            exporter_image: "mirror:5000/exporter:2".into(),
            ..Platform::default()
        },
    );
    ours.spec.exporter.image = None;
    pod["spec"]["containers"][1]["image"] = json!("mirror:5000/exporter@sha256:abc");
    assert!(matches!(update(&pod, &ours, [&ours], &platform, NOW), Change::Patch(_)));
}

#[test]
fn the_way_back_restores_the_pod_and_says_why() {
    let before = running("Always");
    let tried = apply(&before, &operations(updated(&before))).unwrap();
    let why = format!("ImagePullBackOff {}", "x".repeat(1000));
    let after = apply(&tried, &operations(back(&tried, &Platform::default(), &why))).unwrap();
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(
        annotation(&after, "rosey.dev/injected"),
        annotation(&before, "rosey.dev/injected")
    );
    let note = Note::read(annotation(&after, "rosey.dev/update")).unwrap();
    assert_eq!(&*note.to, "rosey-monitor/rosey-exporter:2");
    let failed = note.failed.unwrap();
    assert!(
        failed.starts_with("ImagePullBackOff x") && failed.len() == 128,
        "{failed}"
    );
    // Once is enough.
    assert_eq!(back(&after, &Platform::default(), "again"), Change::Nothing);
    assert_eq!(back(&before, &Platform::default(), "never"), Change::Nothing);
}

#[test]
fn an_image_that_nobody_has_judged_goes_without_a_trace() {
    for restart_policy in ["Always", "Never"] {
        let before = running(restart_policy);
        let tried = apply(&before, &operations(updated(&before))).unwrap();
        let after = apply(&tried, &operations(undone(&tried, &Platform::default()))).unwrap();
        assert_eq!(after, before);
        assert_eq!(undone(&after, &Platform::default()), Change::Nothing);
        // What was judged stays so.
        let failed = apply(&tried, &operations(back(&tried, &Platform::default(), "why"))).unwrap();
        assert_eq!(undone(&failed, &Platform::default()), Change::Nothing);
    }
}

#[test]
fn a_note_that_somebody_else_wrote_brings_no_image_of_theirs() {
    let mut pod = running("Always");
    let note = |from: &str| json!({"from": from, "to": "rosey-monitor/rosey-exporter:1", "at": 0}).to_string();
    pod["metadata"]["annotations"]["rosey.dev/update"] = json!(note("evil/miner:1"));
    assert!(matches!(back(&pod, &Platform::default(), "why"), Change::Left(_)));
    assert!(matches!(undone(&pod, &Platform::default()), Change::Left(_)));
    for hostile in ["", "{", "null", "[]", r#"{"from":1}"#, &note(&"a".repeat(3000))] {
        pod["metadata"]["annotations"]["rosey.dev/update"] = json!(hostile);
        assert_eq!(back(&pod, &Platform::default(), "why"), Change::Nothing, "{hostile}");
    }
}

#[test]
fn a_replacement_gets_the_exporter_unless_something_stands_in_the_way() {
    let ours = monitor("1");
    let would = |pod: &Value| replacement(pod, [&ours], &Platform::default());
    assert_eq!(would(&bare("Always")), Ok(()));
    assert_eq!(would(&running("Always")), Ok(()));
    let mut own = bare("Always");
    own["spec"]["containers"][0]["name"] = json!("rosey-exporter");
    assert_eq!(
        would(&own),
        Err("the pod has a container rosey-exporter of its own".into())
    );
    let mut nobodys = bare("Always");
    nobodys["metadata"]["labels"]["app"] = json!("other");
    assert_eq!(would(&nobodys), Err("no monitor selects this pod".into()));
}
