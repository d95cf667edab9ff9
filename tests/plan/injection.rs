mod volumes;

use json_patch::Patch;
use rosey_monitor::api::RoseyMonitor;
use rosey_monitor::plan::Platform;
use rosey_monitor::plan::injection::{Injection, inject};
use serde_json::{Value, json};

use crate::{example, with_spec};

fn bot_pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": "rosey-7d4b9c5f6-", "labels": { "app": "rosey", "pod-template-hash": "7d4b9c5f6" } },
        "spec": {
            "containers": [{
                "name": "bot",
                "image": "rosey:1.4",
                "ports": [{ "containerPort": 8000, "name": "http", "protocol": "TCP" }],
                "resources": {},
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                "securityContext": { "runAsUser": 1000, "runAsGroup": 1000 },
            }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "restartPolicy": "Always",
            "newField2037": { "kept": [1, 2.50, "three"] },
        },
    })
}

fn apply(pod: &Value, operations: &[Value]) -> Value {
    let patch: Patch = serde_json::from_value(Value::Array(operations.to_vec())).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn injected_by(pod: &Value, monitor: &RoseyMonitor) -> Value {
    match inject(pod, [monitor], &Platform::default()) {
        Injection::Patch { operations, .. } => apply(pod, &operations),
        other => panic!("{other:?}"),
    }
}

fn injected(pod: &Value) -> Value {
    injected_by(pod, &example("rosey.yaml"))
}

/// Why the pod is left alone, and the pod as it is then.
fn skipped(pod: &Value) -> (String, Value) {
    match inject(pod, [&example("rosey.yaml")], &Platform::default()) {
        Injection::Skipped { reason, operations, .. } => (reason, apply(pod, &operations)),
        other => panic!("{other:?}"),
    }
}

fn exporter(pod: &Value) -> &Value {
    let containers = pod["spec"]["containers"].as_array().unwrap();
    containers.iter().find(|c| c["name"] == "rosey-exporter").unwrap()
}

#[test]
fn a_bots_pod_gets_the_exporter_and_keeps_all_that_it_had() {
    let (before, after) = (bot_pod(), injected(&bot_pod()));
    insta::assert_snapshot!(serde_saphyr::to_string(&after).unwrap());
    assert_eq!(
        after["spec"]["newField2037"].to_string(),
        before["spec"]["newField2037"].to_string()
    );
    assert_eq!(after["spec"]["containers"][0], before["spec"]["containers"][0]);
}

#[test]
fn the_patch_only_adds() {
    let Injection::Patch { operations, .. } = inject(&bot_pod(), [&example("rosey.yaml")], &Platform::default()) else {
        panic!()
    };
    assert!(
        operations.iter().all(|operation| operation["op"] == "add"),
        "{operations:?}"
    );
}

#[test]
fn twice_injected_is_once_injected() {
    assert_eq!(
        inject(&injected(&bot_pod()), [&example("rosey.yaml")], &Platform::default()),
        Injection::Nothing
    );
    let mut opted_out = bot_pod();
    opted_out["metadata"]["annotations"] = json!({ "rosey.dev/inject": "false" });
    let (_, skipped) = skipped(&opted_out);
    assert_eq!(
        inject(&skipped, [&example("rosey.yaml")], &Platform::default()),
        Injection::Nothing
    );
}

#[test]
fn a_pod_of_nobody_is_left_alone() {
    let mut pod = bot_pod();
    pod["metadata"]["labels"]["app"] = json!("other");
    assert_eq!(
        inject(&pod, [&example("rosey.yaml")], &Platform::default()),
        Injection::Nothing
    );
    assert_eq!(
        inject(&json!({}), [&example("rosey.yaml")], &Platform::default()),
        Injection::Nothing
    );
}

#[test]
fn a_pod_that_ends_gets_a_native_sidecar_or_none() {
    let mut job = bot_pod();
    job["spec"]["restartPolicy"] = json!("Never");
    let after = injected(&job);
    assert_eq!(after["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(after["spec"]["initContainers"][0]["restartPolicy"], "Always");

    let old = Platform {
        native_sidecars: false,
        ..Platform::default()
    };
    assert!(matches!(
        inject(&job, [&example("rosey.yaml")], &old),
        Injection::Skipped { .. }
    ));
}

#[test]
fn the_exporter_runs_as_the_bot_only_where_it_reads_the_bots_files() {
    let user = |pod: &Value| exporter(pod)["securityContext"]["runAsUser"].as_i64().unwrap();
    assert_eq!(user(&injected(&bot_pod())), 1000);

    let mut root = bot_pod();
    root["spec"]["containers"][0]["securityContext"] = json!({ "runAsUser": 0 });
    assert_eq!(user(&injected(&root)), 65532);

    let mut of_pod = bot_pod();
    of_pod["spec"]["containers"][0]["securityContext"] = json!({});
    of_pod["spec"]["securityContext"] = json!({ "runAsUser": 2000 });
    assert_eq!(user(&injected(&of_pod)), 2000);

    let reads_nothing =
        with_spec("environment: prod\nselector: {matchLabels: {app: rosey}}\nbot: {health: {port: 8000}}");
    assert_eq!(user(&injected_by(&bot_pod(), &reads_nothing)), 65532);
}

#[test]
fn the_class_of_a_pod_stays_what_it_was() {
    let mut guaranteed = bot_pod();
    guaranteed["spec"]["containers"][0]["resources"] =
        json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1", "memory": "1Gi" } });
    let resources = &injected(&guaranteed);
    assert_eq!(
        exporter(resources)["resources"],
        json!({ "limits": { "cpu": "5m", "memory": "32Mi" }, "requests": { "cpu": "5m", "memory": "32Mi" } })
    );

    let mut own = bot_pod();
    own["spec"]["resources"] = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
    assert_eq!(
        exporter(&injected(&own))["resources"],
        json!({ "requests": { "cpu": "0", "memory": "0" } })
    );
}

#[test]
fn what_stands_in_the_way_is_said_on_the_pod() {
    let change = |path: &str, value: Value| {
        let mut pod = bot_pod();
        *pod.pointer_mut(path).unwrap() = value;
        pod
    };
    let cases = [
        (
            change("/spec/containers/0/name", json!("rosey-exporter")),
            "container rosey-exporter",
        ),
        (
            change("/spec/containers/0/ports/0/containerPort", json!(9100)),
            "port 9100 is taken by container bot",
        ),
        (
            change("/spec/containers/0/ports/0/name", json!("rosey-metrics")),
            "port named rosey-metrics",
        ),
        (
            change("/spec/volumes/0/name", json!("rosey-exporter-config")),
            "volume rosey-exporter-config",
        ),
        (
            change("/spec/newField2037", json!(null)).tap(|pod| pod["spec"]["os"] = json!({ "name": "windows" })),
            "Linux",
        ),
        (
            bot_pod().tap(|pod| {
                pod["spec"]["hostNetwork"] = json!(true);
                pod["spec"]["containers"][0]["ports"] = json!([]);
            }),
            "host network",
        ),
        (
            bot_pod().tap(|pod| pod["spec"]["hostNetwork"] = json!(true)),
            "set spec.exporter.port",
        ),
        (
            bot_pod().tap(|pod| pod["metadata"]["labels"]["rosey.dev/inject"] = json!("false")),
            "rosey.dev/inject",
        ),
    ];
    for (pod, word) in cases {
        let (reason, after) = skipped(&pod);
        assert!(reason.contains(word), "{reason}");
        assert_eq!(after["metadata"]["annotations"]["rosey.dev/skipped"], json!(reason));
        assert_eq!(after["spec"], pod["spec"]);
    }
}

#[test]
fn two_monitors_that_select_one_pod_are_both_named() {
    let (mut a, mut b) = (example("rosey.yaml"), example("rosey.yaml"));
    a.metadata.name = Some("one".into());
    b.metadata.name = Some("two".into());
    let Injection::Skipped { monitors, reason, .. } = inject(&bot_pod(), [&a, &b], &Platform::default()) else {
        panic!()
    };
    assert_eq!(monitors, ["one", "two"]);
    assert!(reason.contains("one, two"));
}

#[test]
fn a_static_pod_is_not_touched_at_all() {
    let mut pod = bot_pod();
    pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
    let (_, after) = skipped(&pod);
    assert_eq!(after, pod);
}

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Tap for Value {}

#[test]
fn a_block_device_is_never_mounted() {
    let mut pod = bot_pod();
    pod["spec"]["containers"][0]["volumeMounts"] = json!([]);
    pod["spec"]["containers"][0]["volumeDevices"] = json!([{ "name": "data", "devicePath": "/dev/xvda" }]);
    let after = injected(&pod);
    let mounts = exporter(&after)["volumeMounts"].to_string();
    assert!(!mounts.contains("\"data\""), "{mounts}");
}

#[test]
fn a_pod_on_the_host_network_gets_an_exporter_with_a_port_of_its_own() {
    let pod = bot_pod().tap(|pod| pod["spec"]["hostNetwork"] = json!(true));
    let monitor = with_spec("environment: prod\nselector: {matchLabels: {app: rosey}}\nexporter: {port: 9105}");
    let after = injected_by(&pod, &monitor);
    assert_eq!(exporter(&after)["ports"][0]["containerPort"], 9105);
}

#[test]
fn a_container_that_kubernetes_would_refuse_is_not_put_into_a_pod() {
    for (exporter, said) in [
        (
            "resources: {limits: {memory: 16Mi}, requests: {memory: 32Mi}}",
            "spec.exporter.resources.requests.memory",
        ),
        (
            "resources: {requests: {memory: -5Mi}}",
            "spec.exporter.resources.requests.memory",
        ),
        (
            "resources: {limits: {nvidia.com/gpu: \"1\"}}",
            "spec.exporter.resources.limits[nvidia.com/gpu]",
        ),
        (
            "resources: {limits: {memory: 32m}}",
            "spec.exporter.resources.limits.memory",
        ),
        ("resources: {claims: [{name: gpu}]}", "spec.exporter.resources.claims"),
        ("image: evil.example.org/miner", "spec.exporter.image"),
        ("port: 8000", "spec.exporter.port"),
    ] {
        let monitor = with_spec(&format!(
            "environment: prod\nselector: {{matchLabels: {{app: rosey}}}}\nbot: {{health: {{port: 8000}}}}\nexporter: {{{exporter}}}"
        ));
        let pod = bot_pod().tap(|pod| pod["spec"]["containers"][0]["ports"] = json!([]));
        let Injection::Skipped { reason, operations, .. } = inject(&pod, [&monitor], &Platform::default()) else {
            panic!("{exporter}")
        };
        assert!(
            reason.starts_with(&format!("the monitor is invalid: {said}: ")),
            "{reason}"
        );
        assert_eq!(apply(&pod, &operations)["spec"], pod["spec"]);
    }
}

#[test]
fn a_problem_elsewhere_in_the_monitor_leaves_no_pod_without_its_exporter() {
    let monitor = with_spec(
        "environment: prod\nselector: {matchLabels: {app: rosey}}\nalerts: {overrides: [{alert: BotDwon, enabled: false}]}",
    );
    assert!(rosey_monitor::plan::plan(&monitor, &Platform::default()).is_err());
    exporter(&injected_by(&bot_pod(), &monitor));
}

#[test]
fn a_volume_that_the_pod_lacks_is_told_on_the_pod() {
    let monitor = with_spec(
        "environment: prod\nselector: {matchLabels: {app: rosey}}\nexporter: {disk: [{volume: data}, {volume: dta}], backups: {volume: backups}}",
    );
    let after = injected_by(&bot_pod(), &monitor);
    assert_eq!(
        after["metadata"]["annotations"]["rosey.dev/skipped"],
        "volume backups is not in the pod, volume dta is not in the pod; the exporter can't read there"
    );
    assert!(after["metadata"]["annotations"]["rosey.dev/injected"].is_string());
    let mounts = exporter(&after)["volumeMounts"].to_string();
    assert!(
        mounts.contains("\"data\"") && !mounts.contains("dta") && !mounts.contains("backups"),
        "{mounts}"
    );
    assert_eq!(inject(&after, [&monitor], &Platform::default()), Injection::Nothing);
    let annotations = &injected(&bot_pod())["metadata"]["annotations"];
    assert!(annotations["rosey.dev/skipped"].is_null(), "{annotations}");
}

#[test]
fn a_pod_is_guaranteed_by_amounts_and_not_by_how_they_are_written() {
    let mut pod = bot_pod();
    pod["spec"]["containers"][0]["resources"] =
        json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1000m", "memory": "1073741824" } });
    assert_eq!(exporter(&injected(&pod))["resources"]["requests"]["memory"], "32Mi");
    pod["spec"]["containers"][0]["resources"]["requests"]["memory"] = json!("1Mi");
    assert_eq!(exporter(&injected(&pod))["resources"]["requests"]["memory"], "8Mi");
}

#[test]
fn a_request_too_small_for_a_limit_does_not_become_one() {
    let mut pod = bot_pod();
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
    let monitor = with_spec(
        "environment: prod\nselector: {matchLabels: {app: rosey}}\nexporter: {resources: {requests: {memory: 1Mi}}}",
    );
    let after = injected_by(&pod, &monitor);
    assert_eq!(exporter(&after)["resources"]["limits"]["memory"], "32Mi");
}

#[test]
fn the_bots_container_is_the_one_that_kubectl_takes() {
    let mut pod = bot_pod();
    pod["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/default-container": "bot" });
    let proxy = json!({ "name": "proxy", "image": "proxy:1", "securityContext": { "runAsUser": 1337 } });
    pod["spec"]["containers"].as_array_mut().unwrap().insert(0, proxy);
    assert_eq!(exporter(&injected(&pod))["securityContext"]["runAsUser"], 1000);
    pod["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/default-container": "nobody" });
    assert_eq!(exporter(&injected(&pod))["securityContext"]["runAsUser"], 1337);
}
