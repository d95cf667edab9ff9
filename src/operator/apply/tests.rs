use std::collections::VecDeque;

use http_body_util::BodyExt;
use kube::client::Body;
use tower_test::mock;

use super::*;
use crate::operator::key::Queue;
use crate::plan::Report;

type Request = axum::http::Request<Body>;
type Response = axum::http::Response<Body>;

/// What the API server is asked, and what it answers.
struct Step {
    method: &'static str,
    /// Parts of the URL and the body that have to be there.
    asks: &'static [&'static str],
    lacks: &'static [&'static str],
    answer: (u16, Value),
}

fn monitor() -> RoseyMonitor {
    serde_json::from_value(json!({
        "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor",
        "metadata": {"namespace": "bots", "name": "rosey", "uid": "monitor-uid"},
        "spec": {"environment": "test", "selector": {}},
    }))
    .unwrap()
}

fn planned() -> Plan {
    let json = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "bots"}, "data": {"a": "1"}});
    Plan {
        objects: vec![Object {
            kind: Kind::ConfigMap,
            name: "x".into(),
            json,
        }],
        report: Report::default(),
    }
}

fn live(owner: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "namespace": "bots", "name": "x", "uid": "object-uid", "resourceVersion": "7",
            "ownerReferences": [{
                "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "name": "rosey", "uid": owner,
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "data": data,
    })
}

fn foreign() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "bots", "name": "x", "uid": "f", "resourceVersion": "7"}, "data": {"b": "2"}})
}

fn status(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason}),
    )
}

fn create(answer: (u16, Value)) -> Step {
    Step {
        method: "PATCH",
        asks: &[
            "fieldManager=rosey-operator",
            "\"resourceVersion\":\"1\"",
            "monitor-uid",
        ],
        lacks: &["force=true"],
        answer,
    }
}

fn read(answer: (u16, Value)) -> Step {
    Step {
        method: "GET",
        asks: &["/namespaces/bots/configmaps/x"],
        lacks: &[],
        answer,
    }
}

fn overwrite(answer: (u16, Value)) -> Step {
    Step {
        method: "PATCH",
        asks: &["force=true", "\"uid\":\"object-uid\""],
        lacks: &["\"resourceVersion\""],
        answer,
    }
}

/// Applies the plan `times` times against an API server that expects exactly these requests.
async fn applied(steps: Vec<Step>, owned: &Owned, leads: bool, times: usize) -> Result<(), Error> {
    let (service, mut handle) = mock::pair::<Request, Response>();
    let client = Client::new(service, "default");
    let server = tokio::spawn(async move {
        let mut steps = VecDeque::from(steps);
        while let Some(step) = steps.pop_front() {
            let (request, send) = handle.next_request().await.expect("a request is missing");
            let text = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = format!("{text} {}", String::from_utf8_lossy(&body));
            assert!(text.starts_with(step.method), "{text}");
            for part in step.asks {
                assert!(text.contains(part), "{part} is not in {text}");
            }
            for part in step.lacks {
                assert!(!text.contains(part), "{part} is in {text}");
            }
            let (code, body) = step.answer;
            send.send_response(
                axum::http::Response::builder()
                    .status(code)
                    .body(Body::from(body.to_string().into_bytes()))
                    .unwrap(),
            );
        }
        assert!(handle.next_request().await.is_none(), "one request too many");
    });
    let (leadership, metrics) = (Leadership::fixed(leads), Metrics::new().unwrap());
    let mut result = Ok(());
    for _ in 0..times {
        let applier = Applier {
            client: &client,
            leadership: &leadership,
            owned,
            metrics: &metrics,
        };
        result = applier.apply(&monitor(), &planned(), &BTreeSet::new()).await;
    }
    drop(client);
    server.await.unwrap();
    result
}

fn unknown() -> Owned {
    Owned::new(Queue::default())
}

#[tokio::test]
async fn an_object_that_nobody_has_is_created_once_and_left_alone_afterwards() {
    let steps = vec![create((201, live("monitor-uid", &json!({"a": "1"}))))];
    applied(steps, &unknown(), true, 3).await.unwrap();
}

#[tokio::test]
async fn a_foreign_object_of_the_same_name_stays_untouched() {
    let steps = vec![create(status(409, "Conflict")), read((200, foreign()))];
    let error = applied(steps, &unknown(), true, 1).await.unwrap_err();
    assert!(
        matches!(error, Error::NameTaken { kind: Kind::ConfigMap, ref name } if name == "x"),
        "{error}"
    );
}

#[tokio::test]
async fn an_object_of_a_deleted_monitor_is_waited_for() {
    let steps = vec![
        create(status(409, "Conflict")),
        read((200, live("older-uid", &json!({"a": "1"})))),
    ];
    assert!(matches!(
        applied(steps, &unknown(), true, 1).await,
        Err(Error::Leaving { .. })
    ));
}

#[tokio::test]
async fn an_object_that_is_as_planned_is_read_and_not_written() {
    let steps = vec![
        create(status(409, "Conflict")),
        read((200, live("monitor-uid", &json!({"a": "1"})))),
    ];
    applied(steps, &unknown(), true, 2).await.unwrap();
}

#[tokio::test]
async fn an_edited_object_of_ours_is_taken_back_by_force_and_by_its_uid() {
    let mended = || (200, live("monitor-uid", &json!({"a": "1"})));
    let steps = vec![
        create(status(409, "Conflict")),
        read((200, live("monitor-uid", &json!({"a": "2"})))),
        overwrite(mended()),
        read(mended()),
    ];
    applied(steps, &unknown(), true, 2).await.unwrap();
}

#[tokio::test]
async fn an_object_that_lost_its_owner_is_taken_back_if_we_have_applied_it() {
    let mut stripped = foreign();
    stripped["metadata"]["uid"] = json!("object-uid");
    stripped["data"] = json!({"a": "1"});
    stripped["metadata"]["managedFields"] = json!([{"manager": FIELD_MANAGER, "operation": "Apply"}]);
    let steps = vec![
        create(status(409, "Conflict")),
        read((200, stripped)),
        overwrite((200, live("monitor-uid", &json!({"a": "1"})))),
    ];
    applied(steps, &unknown(), true, 1).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_does_not_lead_asks_for_nothing() {
    assert!(matches!(
        applied(vec![], &unknown(), false, 1).await,
        Err(Error::NotLeader(_))
    ));
}
