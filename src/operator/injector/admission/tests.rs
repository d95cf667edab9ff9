use axum::body::{Body, to_bytes};
use axum::http::{Request as HttpRequest, StatusCode};
use json_patch::Patch;
use tower::ServiceExt as _;

use super::super::server::router;
use super::super::tests::{monitor as rosey, service};
use super::*;
use crate::api::{INJECTED_ANNOTATION, SCHEME_ANNOTATION, SKIPPED_ANNOTATION};
use crate::sidecar::CONTAINER;

/// A pod as a `ReplicaSet` creates it: no name yet, no namespace, and fields that no library knows.
fn of_a_deployment() -> Value {
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "generateName": "rosey-7d9c5b8f6d-",
            "creationTimestamp": null,
            "labels": {"app": "rosey", "pod-template-hash": "7d9c5b8f6d"},
            "annotations": {"example.org/a~b": "kept", "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rosey-7d9c5b8f6d",
                "uid": "0d8a4f0e-52f5-4b3c-9f0a-3f0a4c9f2b11", "controller": true, "blockOwnerDeletion": true,
            }],
            "aFieldOf2037": {"nested~/odd": [1, 18_446_744_073_709_551_615_u64, 0.1]},
        },
        "spec": {
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "rosey-data"}},
                {"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                ]}},
            ],
            "initContainers": [{"name": "migrate", "image": "registry.example.org/rosey:2.4.1", "newField2037": [null]}],
            "containers": [{
                "name": "bot",
                "image": "registry.example.org/rosey:2.4.1",
                "env": [{"name": "CHAT_TOKEN", "valueFrom": {"secretKeyRef": {"name": "rosey", "key": "token"}}}],
                "ports": [{"containerPort": 8000, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "newField2037": true,
            }],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "priority": 0,
            "enableServiceLinks": true,
        },
        "status": {},
    })
}

fn of_a_job() -> Value {
    let mut pod = of_a_deployment();
    pod["metadata"]["generateName"] = "rosey-import-".into();
    pod["metadata"]["labels"] =
        json!({"app": "rosey", "batch.kubernetes.io/job-name": "rosey-import", "job-name": "rosey-import"});
    pod["spec"]["restartPolicy"] = "Never".into();
    pod
}

/// The request for a pod in the namespace `bots`, as an API server 1.34 sends it.
fn review(object: &Value) -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "9b1e6c4e-5f0e-4c4e-8a39-6c3a1b0c2d4f",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "bots",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["system:authenticated"]},
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

fn review_of_monitor(operation: &str, object: &Value, old: &Value) -> Value {
    let mut review = review(object);
    review["request"]["operation"] = operation.into();
    review["request"]["oldObject"] = old.clone();
    review
}

async fn send(path: &str, body: impl Into<Body>, monitors: &[RoseyMonitor]) -> (StatusCode, Vec<u8>) {
    let request = HttpRequest::post(path)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap();
    let answer = router(service(monitors)).oneshot(request).await.unwrap();
    let status = answer.status();
    (status, to_bytes(answer.into_body(), usize::MAX).await.unwrap().to_vec())
}

async fn response(path: &str, review: &Value, monitors: &[RoseyMonitor]) -> Value {
    let (status, body) = send(path, review.to_string(), monitors).await;
    assert_eq!(status, StatusCode::OK);
    let mut answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].take()
}

/// The pod as the API server has it after our answer.
async fn admitted(pod: &Value, monitors: &[RoseyMonitor]) -> Value {
    let response = response("/inject", &review(pod), monitors).await;
    assert_eq!(response["allowed"], true);
    let mut pod = pod.clone();
    if !response["patch"].is_null() {
        assert_eq!(response["patchType"], "JSONPatch");
        let ByteString(patch) = serde_json::from_value(response["patch"].clone()).unwrap();
        json_patch::patch(&mut pod, &serde_json::from_slice::<Patch>(&patch).unwrap()).unwrap();
    }
    pod
}

fn monitors() -> Vec<RoseyMonitor> {
    vec![
        rosey("bots", "rosey", "rosey"),
        rosey("bots", "other", "other"),
        rosey("elsewhere", "rosey", "rosey"),
    ]
}

/// `pod` without what was added to it: our annotations, and the last of each list that grew.
fn without_what_was_added(mut pod: Value, before: &Value) -> Value {
    let annotations = pod["metadata"]["annotations"].as_object_mut().unwrap();
    for annotation in [INJECTED_ANNOTATION, SCHEME_ANNOTATION] {
        assert!(annotations.remove(annotation).is_some(), "{annotation}");
    }
    for list in ["containers", "initContainers", "volumes"] {
        match before["spec"][list].as_array() {
            Some(before) => pod["spec"][list].as_array_mut().unwrap().truncate(before.len()),
            None => drop(pod["spec"].as_object_mut().unwrap().remove(list)),
        }
    }
    pod
}

#[tokio::test]
async fn a_pod_of_a_deployment_gets_its_exporter_as_a_plain_container_and_loses_nothing() {
    let before = of_a_deployment();
    let after = admitted(&before, &monitors()).await;
    assert_eq!(after["spec"]["containers"][1]["name"], CONTAINER);
    assert!(
        after["metadata"]["annotations"][INJECTED_ANNOTATION]
            .as_str()
            .unwrap()
            .starts_with("rosey@")
    );
    assert_eq!(without_what_was_added(after, &before).to_string(), before.to_string());
}

#[tokio::test]
async fn a_pod_of_a_job_gets_a_native_sidecar_so_that_the_job_can_end() {
    let before = of_a_job();
    let after = admitted(&before, &monitors()).await;
    assert_eq!(after["spec"]["initContainers"][1]["name"], CONTAINER);
    assert_eq!(after["spec"]["initContainers"][1]["restartPolicy"], "Always");
    assert_eq!(after["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(without_what_was_added(after, &before).to_string(), before.to_string());
}

#[tokio::test]
async fn twice_injected_is_once_injected() {
    for pod in [of_a_deployment(), of_a_job()] {
        let once = admitted(&pod, &monitors()).await;
        assert_ne!(once, pod);
        assert_eq!(admitted(&once, &monitors()).await, once);
    }
}

#[tokio::test]
async fn a_second_call_and_a_mirror_pod_change_nothing_and_are_counted_as_what_they_are() {
    let service = service(&monitors());
    let answer = |object: &Value| pod(review(object).to_string().as_bytes(), &service.facts);
    let once = admitted(&of_a_deployment(), &monitors()).await;
    let mut mirror = of_a_deployment();
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "8a1f".into();
    for (object, outcome) in [(once, Outcome::Nothing), (mirror, Outcome::Skipped)] {
        let answer = answer(&object);
        assert_eq!(answer.outcome, outcome, "{object}");
        assert_eq!(answer.review["response"]["allowed"], true);
        assert!(answer.review["response"]["patch"].is_null(), "{}", answer.review);
    }
}

#[tokio::test]
async fn a_pod_that_opts_out_says_why_it_has_no_exporter() {
    let mut pod = of_a_deployment();
    pod["metadata"]["annotations"] = json!({"rosey.dev/inject": "false"});
    let after = admitted(&pod, &monitors()).await;
    assert_eq!(after["spec"], pod["spec"]);
    assert!(
        after["metadata"]["annotations"][SKIPPED_ANNOTATION]
            .as_str()
            .unwrap()
            .contains("rosey.dev/inject")
    );
    assert_eq!(admitted(&after, &monitors()).await, after);
}

#[tokio::test]
async fn pods_of_nobody_s_bot_or_of_another_namespace_or_a_deleted_monitor_stay_as_they_are() {
    let pod = of_a_deployment();
    assert_eq!(admitted(&pod, &[]).await, pod);
    assert_eq!(
        admitted(
            &pod,
            &[rosey("elsewhere", "rosey", "rosey"), rosey("bots", "other", "other")]
        )
        .await,
        pod
    );
    let mut deleted = serde_json::to_value(rosey("bots", "rosey", "rosey")).unwrap();
    deleted["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z".into();
    assert_eq!(admitted(&pod, &[serde_json::from_value(deleted).unwrap()]).await, pod);
}

#[tokio::test]
async fn the_system_s_and_our_own_pods_are_never_touched() {
    for namespace in ["kube-system", "rosey-system"] {
        let mut review = review(&of_a_deployment());
        review["request"]["namespace"] = namespace.into();
        let response = response("/inject", &review, &[rosey(namespace, "rosey", "rosey")]).await;
        assert_eq!(response, json!({"uid": review["request"]["uid"], "allowed": true}));
    }
}

#[tokio::test]
async fn no_pod_is_ever_refused_whatever_arrives() {
    let deep = "[".repeat(100_000);
    for body in [
        "",
        "garbage",
        "{}",
        "[]",
        r#"{"request":{}}"#,
        r#"{"request":{"uid":7}}"#,
        "\u{0}",
        deep.as_str(),
    ] {
        let (status, answer) = send("/inject", body.to_owned(), &monitors()).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(
            (status, &answer["response"]["allowed"]),
            (StatusCode::OK, &json!(true)),
            "{body:.40}"
        );
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(
            warning.starts_with("rosey-operator did not understand") && warning.len() <= MAX_WARNING,
            "{warning}"
        );
    }
    for object in [
        json!(null),
        json!(7),
        json!({}),
        json!({"metadata": 1, "spec": []}),
        json!({"spec": {"containers": "x"}}),
    ] {
        assert_eq!(
            response("/inject", &review(&object), &monitors()).await["allowed"],
            true,
            "{object}"
        );
    }
}

#[tokio::test]
async fn a_body_that_no_api_server_sends_is_not_read() {
    let (status, _) = send("/inject", vec![b' '; 4 * 1024 * 1024], &monitors()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_invalid_monitor_is_refused_with_every_problem_on_a_line_of_its_own() {
    let mut object = serde_json::to_value(rosey("bots", "rosey", "rosey")).unwrap();
    object["spec"]["scrape"] = json!({"interval": "15 bananas"});
    object["spec"]["alerts"] = json!({"overrides": [{"alert": "NoSuchAlert"}]});
    let response = response("/validate", &review_of_monitor("CREATE", &object, &Value::Null), &[]).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(
        (&response["status"]["code"], &response["status"]["reason"]),
        (&json!(422), &json!("Invalid"))
    );
    let message = response["status"]["message"].as_str().unwrap();
    let problems = plan(&serde_json::from_value(object).unwrap(), &Platform::default()).unwrap_err();
    assert_eq!(message, problems.to_string());
    for field in ["spec.scrape.interval: ", "spec.alerts.overrides[0]"] {
        assert!(
            message.lines().any(|line| line.starts_with(field)),
            "{field} in {message}"
        );
    }
}

#[tokio::test]
async fn a_monitor_that_is_legal_but_odd_is_let_in_with_a_warning() {
    let mut object = serde_json::to_value(rosey("bots", "rosey", "rosey")).unwrap();
    object["spec"]["notifications"] = json!({
        "channels": [{"name": "ops", "webhook": {"urlSecretRef": {"name": "channels", "key": "ops"}}}],
        "routes": [{"name": "critical", "severities": ["critical"], "channels": ["ops"]}],
    });
    let response = response("/validate", &review_of_monitor("CREATE", &object, &Value::Null), &[]).await;
    assert_eq!(response["allowed"], true);
    let warnings = response["warnings"].as_array().unwrap();
    assert!(
        warnings
            .iter()
            .any(|warning| warning.as_str().unwrap().contains("warning")),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn whoever_cannot_mend_a_monitor_now_is_not_held_up_by_it() {
    let mut object = serde_json::to_value(rosey("bots", "rosey", "rosey")).unwrap();
    object["spec"]["scrape"] = json!({"interval": "15 bananas"});
    let mut labelled = object.clone();
    labelled["metadata"]["labels"] = json!({"team": "chat"});
    let same_spec = review_of_monitor("UPDATE", &labelled, &object);
    assert_eq!(response("/validate", &same_spec, &[]).await["allowed"], true);

    let mut deleting = object.clone();
    deleting["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z".into();
    let finalizer = review_of_monitor("UPDATE", &deleting, &json!({"spec": {}}));
    assert_eq!(response("/validate", &finalizer, &[]).await["allowed"], true);
    assert_eq!(
        response("/validate", &review_of_monitor("DELETE", &Value::Null, &object), &[]).await["allowed"],
        true
    );

    let changed = review_of_monitor("UPDATE", &object, &json!({"spec": {}}));
    assert_eq!(response("/validate", &changed, &[]).await["allowed"], false);
}

#[tokio::test]
async fn what_is_no_review_is_not_judged() {
    let (status, _) = send("/validate", "garbage", &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let shapeless = review_of_monitor(
        "CREATE",
        &json!({"metadata": {"name": "x"}, "spec": {"environment": 7}}),
        &Value::Null,
    );
    let refused = response("/validate", &shapeless, &[]).await;
    assert_eq!(refused["allowed"], false);
}

#[tokio::test]
async fn every_answer_is_counted_by_its_outcome() {
    let registry = prometheus::Registry::new();
    let metrics = super::super::metrics::Metrics::new(&registry).unwrap();
    metrics.answered("inject", Outcome::Injected, std::time::Duration::from_micros(60));
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    for line in [
        r#"rosey_injector_requests_total{outcome="injected",webhook="inject"} 1"#,
        r#"rosey_injector_requests_total{outcome="denied",webhook="validate"} 0"#,
        r#"rosey_injector_request_duration_seconds_bucket{webhook="inject",le="0.00005"} 0"#,
        r#"rosey_injector_request_duration_seconds_bucket{webhook="inject",le="0.0001"} 1"#,
        "rosey_injector_certificate_expiry_timestamp_seconds 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
