//! What comes into the pod beside the container, and how the container sees it.

use json_patch::Patch;
use rosey_monitor::api::RoseyMonitor;
use rosey_monitor::plan::Platform;
use rosey_monitor::plan::injection::{Injection, inject};
use serde_json::{Value, json};

use super::{Tap, apply, bot_pod, exporter, injected, injected_by};
use crate::with_spec;

/// A monitor that needs every volume there is.
fn reading_all() -> RoseyMonitor {
    with_spec(
        "environment: prod\n\
         selector: {matchLabels: {app: rosey}}\n\
         bot: {logs: {volume: data, path: logs/rosey.log}}\n\
         exporter:\n\
         \x20 webConfigSecretRef: {name: exporter-web, key: own.yml}\n\
         \x20 pushgateway:\n\
         \x20   url: http://pushgateway:9091\n\
         \x20   basicAuth: {username: rosey, passwordSecretRef: {name: push, key: secret}}",
    )
}

fn volume<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    volumes.iter().find(|volume| volume["name"] == name).unwrap()
}

fn mount(pod: &Value, name: &str) -> Value {
    let mounts = exporter(pod)["volumeMounts"].as_array().unwrap();
    mounts
        .iter()
        .find(|mount| mount["name"] == name)
        .cloned()
        .unwrap_or_default()
}

#[test]
fn secrets_and_state_come_into_the_pod_only_with_the_fields_that_need_them() {
    let own = ["rosey-exporter-web", "rosey-exporter-push", "rosey-exporter-state"];
    let after = injected_by(&bot_pod(), &reading_all());
    assert_eq!(
        own.map(|name| volume(&after, name).clone()),
        [
            json!({"name": own[0], "secret": {"secretName": "exporter-web", "optional": true, "defaultMode": 0o444}}),
            json!({"name": own[1], "secret": {"secretName": "push", "optional": true, "defaultMode": 0o444,
                "items": [{"key": "secret", "path": "password"}]}}),
            json!({"name": own[2], "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
        ]
    );
    assert_eq!(
        own.map(|name| mount(&after, name)),
        [
            json!({"name": own[0], "mountPath": "/etc/rosey-web", "readOnly": true}),
            json!({"name": own[1], "mountPath": "/etc/rosey-push", "readOnly": true}),
            json!({"name": own[2], "mountPath": "/var/lib/rosey/state", "readOnly": false}),
        ]
    );
    assert_eq!(
        exporter(&after)["args"],
        json!([
            "--config",
            "/etc/rosey/exporter.yaml",
            "--web.config.file=/etc/rosey-web/own.yml"
        ])
    );
    let less = injected(&bot_pod());
    for name in own {
        assert_eq!(mount(&less, name), Value::Null, "{name}");
        assert!(!less["spec"]["volumes"].to_string().contains(name), "{name}");
    }
    assert_eq!(exporter(&less)["args"], json!(["--config", "/etc/rosey/exporter.yaml"]));
}

#[test]
fn a_pod_says_that_its_exporter_speaks_plain_http_where_no_file_may_say_otherwise() {
    let scheme = |pod: &Value| pod["metadata"]["annotations"]["rosey.dev/scheme"].clone();
    assert_eq!(scheme(&injected(&bot_pod())), "http");
    assert_eq!(scheme(&injected_by(&bot_pod(), &reading_all())), Value::Null);
    // Copied with the template of a pod of before.
    let copied = json!({"rosey.dev/scheme": "http", "example.org/owner": "bots"});
    let copied = injected_by(
        &bot_pod().tap(|pod| pod["metadata"]["annotations"] = copied),
        &reading_all(),
    );
    assert_eq!(scheme(&copied), Value::Null);
    assert_eq!(copied["metadata"]["annotations"]["example.org/owner"], "bots");
}

#[test]
fn the_log_is_read_in_the_bots_own_volume_as_the_bots_user_and_never_written() {
    let after = injected_by(&bot_pod(), &reading_all());
    assert_eq!(
        mount(&after, "data"),
        json!({"name": "data", "mountPath": "/var/lib/rosey/volumes/data", "readOnly": true})
    );
    assert_eq!(exporter(&after)["securityContext"]["runAsUser"], 1000);
}

#[test]
fn a_pod_without_any_volume_gets_all_of_them() {
    let pod = bot_pod().tap(|pod| {
        pod["spec"].as_object_mut().unwrap().remove("volumes");
        pod["spec"]["containers"][0]["volumeMounts"] = json!([]);
    });
    let after = injected_by(&pod, &reading_all());
    assert_eq!(after["spec"]["volumes"].as_array().unwrap().len(), 4);
    assert_eq!(
        inject(&after, [&reading_all()], &Platform::default()),
        Injection::Nothing
    );
    let left_out = &after["metadata"]["annotations"]["rosey.dev/skipped"];
    assert_eq!(left_out, "volume data is not in the pod; the exporter can't read there");
}

#[test]
fn a_volume_of_one_of_our_names_is_an_obstacle_where_ours_is_needed() {
    for name in [
        "rosey-exporter-config",
        "rosey-exporter-web",
        "rosey-exporter-push",
        "rosey-exporter-state",
    ] {
        let pod = bot_pod().tap(|pod| {
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            volumes.push(json!({"name": name, "emptyDir": {}}));
        });
        let Injection::Skipped { reason, operations, .. } = inject(&pod, [&reading_all()], &Platform::default()) else {
            panic!("{name}")
        };
        assert_eq!(reason, format!("the pod has a volume {name} of its own"));
        assert_eq!(apply(&pod, &operations)["spec"], pod["spec"]);
        if name != "rosey-exporter-config" {
            exporter(&injected(&pod));
        }
    }
}

#[test]
fn the_patch_only_adds_with_every_volume_too() {
    let Injection::Patch { operations, .. } = inject(&bot_pod(), [&reading_all()], &Platform::default()) else {
        panic!()
    };
    let patch: Patch = serde_json::from_value(Value::Array(operations.clone())).unwrap();
    assert!(operations.iter().all(|operation| operation["op"] == "add"), "{patch:?}");
    let after = apply(&bot_pod(), &operations);
    assert_eq!(after["spec"]["volumes"][0], bot_pod()["spec"]["volumes"][0]);
    assert_eq!(after["spec"]["containers"][0], bot_pod()["spec"]["containers"][0]);
}
