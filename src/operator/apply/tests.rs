use std::collections::VecDeque;

use http_body_util::BodyExt;
use kube::client::Body;
use tower_test::mock;

use serde_json::{Value, json};

use super::*;
use crate::operator::FIELD_MANAGER;
use crate::operator::area::Area;
use crate::operator::key::Queue;
use crate::plan::{Object, Report};

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

fn planned(names: &[&str]) -> Plan {
    let object = |&name: &&str| Object {
        kind: Kind::ConfigMap,
        name: name.into(),
        json: json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "bots"}, "data": {"a": "1"}}),
    };
    Plan {
        objects: names.iter().map(object).collect(),
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
        asks: &["force=true", "\"uid\":\"object-uid\"", "\"resourceVersion\":\"7\""],
        lacks: &[],
        answer,
    }
}

/// Applies the plan of `x` so many times against an API server that expects exactly these requests.
async fn applied(steps: Vec<Step>, owned: &Owned, leads: bool, times: usize) -> Result<(), Error> {
    applied_plans(steps, owned, leads, &vec![planned(&["x"]); times]).await
}

/// Applies one plan after the other against an API server that expects exactly these requests.
async fn applied_plans(steps: Vec<Step>, owned: &Owned, leads: bool, plans: &[Plan]) -> Result<(), Error> {
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
    for plan in plans {
        let again = result.is_err();
        let applier = Applier {
            client: &client,
            leadership: &leadership,
            owned,
            metrics: &metrics,
            again,
        };
        result = applier.apply(&monitor(), plan, &BTreeSet::new()).await;
    }
    drop(client);
    server.await.unwrap();
    result
}

/// A watch has shown `x` as it stands at version 7.
fn heard() -> Owned {
    let owned = unknown();
    let seen = serde_json::from_value(live("monitor-uid", &json!({}))).unwrap();
    owned.observe(
        Kind::ConfigMap,
        &Area::Cluster,
        kube::runtime::watcher::Event::Apply(seen),
    );
    owned
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
    // As long as it stands there it is looked at and not tried again.
    let steps = vec![
        create(status(409, "Conflict")),
        read((200, foreign())),
        read((200, foreign())),
    ];
    let error = applied(steps, &unknown(), true, 2).await.unwrap_err();
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

#[tokio::test]
async fn a_refused_object_keeps_no_other_one_from_being_created() {
    let mut second = live("monitor-uid", &json!({"a": "1"}));
    second["metadata"]["name"] = json!("y");
    let created = Step {
        asks: &["/configmaps/y"],
        ..create((201, second))
    };
    let steps = vec![create(status(409, "Conflict")), read((200, foreign())), created];
    let result = applied_plans(steps, &unknown(), true, &[planned(&["x", "y"])]).await;
    assert!(
        matches!(result, Err(Error::NameTaken { ref name, .. }) if name == "x"),
        "{result:?}"
    );
}

#[tokio::test]
async fn what_is_planned_no_longer_is_removed_before_any_watch_has_shown_it_and_only_once() {
    let removed = |answer| Step {
        method: "DELETE",
        asks: &["/configmaps/x", "\"uid\":\"object-uid\"", "\"resourceVersion\":\"7\""],
        lacks: &[],
        answer,
    };
    let plans = [planned(&["x"]), planned(&[]), planned(&[])];
    for answer in [
        (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
        status(404, "NotFound"),
    ] {
        let steps = vec![create((201, live("monitor-uid", &json!({"a": "1"})))), removed(answer)];
        applied_plans(steps, &unknown(), true, &plans).await.unwrap();
    }
}

#[tokio::test]
async fn what_somebody_added_is_removed_unless_the_object_was_written_since() {
    let added = || (200, live("monitor-uid", &json!({"a": "1", "b": "2"})));
    let clean = || (200, live("monitor-uid", &json!({"a": "1"})));
    let swept = |answer| Step {
        method: "PATCH",
        asks: &[
            "\"op\":\"add\"",
            "\"path\":\"/metadata/resourceVersion\",\"value\":\"7\"",
            "\"path\":\"/data\",\"value\":{\"a\":\"1\"}",
        ],
        lacks: &["\"op\":\"test\""],
        answer,
    };
    let found = || {
        vec![
            create(status(409, "Conflict")),
            read(added()),
            overwrite(added()),
            read(added()),
        ]
    };
    let mut steps = found();
    steps.push(swept(clean()));
    applied(steps, &unknown(), true, 2).await.unwrap();

    let mut steps = found();
    steps.extend([swept(status(409, "Conflict")), read(clean())]);
    applied(steps, &unknown(), true, 2).await.unwrap();
}

#[tokio::test]
async fn what_somebody_added_is_looked_for_again_if_it_could_not_be_removed() {
    let added = || (200, live("monitor-uid", &json!({"a": "1", "b": "2"})));
    let failure = || status(500, "InternalError");
    let swept = |answer| Step {
        method: "PATCH",
        asks: &["\"path\":\"/data\""],
        lacks: &[],
        answer,
    };
    for broken in [vec![read(failure())], vec![read(added()), swept(failure())]] {
        let mut steps = vec![read(added()), overwrite(added())];
        steps.extend(broken);
        steps.extend([
            read(added()),
            overwrite(added()),
            read(added()),
            swept((200, live("monitor-uid", &json!({"a": "1"})))),
        ]);
        applied(steps, &heard(), true, 3).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_edited_between_our_writes_is_read_again_even_if_its_event_came_first() {
    let clean = || (200, live("monitor-uid", &json!({"a": "1"})));
    let added = || (200, live("monitor-uid", &json!({"a": "1", "b": "2"})));
    let swept = |answer| Step {
        method: "PATCH",
        asks: &["\"path\":\"/data\""],
        lacks: &[],
        answer,
    };
    // Somebody strips the object of its owner before what was added to it is removed, or has removed that as well.
    let stripped = |(code, mut object): (u16, Value)| {
        let applied = json!([{"manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1"}]);
        object["metadata"]["ownerReferences"] = json!(null);
        object["metadata"]["managedFields"] = applied;
        (code, object)
    };
    for begun in [
        vec![read(stripped(clean()))],
        vec![read(stripped(added())), swept(stripped(clean()))],
    ] {
        let mut steps = vec![read(added()), overwrite(added())];
        steps.extend(begun);
        steps.extend([read(stripped(clean())), overwrite(clean())]);
        applied(steps, &heard(), true, 3).await.unwrap();
    }
}

#[tokio::test]
async fn an_edit_between_read_and_write_is_a_conflict_and_is_read() {
    let edited = || (200, live("monitor-uid", &json!({"a": "2"})));
    let clean = || (200, live("monitor-uid", &json!({"a": "1"})));
    let steps = vec![
        read(edited()),
        overwrite(status(409, "Conflict")),
        read(edited()),
        overwrite(clean()),
        read(clean()),
    ];
    applied(steps, &heard(), true, 2).await.unwrap();
}

#[tokio::test]
async fn a_renamed_object_goes_when_the_new_one_is_there_and_not_before() {
    let created = |answer| Step {
        asks: &["/configmaps/y"],
        ..create(answer)
    };
    let removed = Step {
        method: "DELETE",
        asks: &["/configmaps/x"],
        lacks: &[],
        answer: (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
    };
    let absent = Step {
        asks: &["/configmaps/y"],
        ..read(status(404, "NotFound"))
    };
    let mut second = live("monitor-uid", &json!({"a": "1"}));
    second["metadata"]["name"] = json!("y");
    let steps = vec![
        create((201, live("monitor-uid", &json!({"a": "1"})))),
        created(status(422, "Invalid")),
        absent,
        created((201, second)),
        removed,
    ];
    let plans = [planned(&["x"]), planned(&["y"]), planned(&["y"])];
    applied_plans(steps, &unknown(), true, &plans).await.unwrap();
}

#[tokio::test]
async fn an_object_that_was_deleted_and_made_again_by_somebody_else_stays_untouched() {
    let mut other = planned(&["x"]);
    other.objects[0].json["data"] = json!({"a": "2"});
    let (code, mut immutable) = status(422, "Invalid");
    immutable["details"] =
        json!({"causes": [{"reason": "FieldValueInvalid", "message": "immutable", "field": "metadata.uid"}]});
    let steps = vec![
        create((201, live("monitor-uid", &json!({"a": "1"})))),
        overwrite((code, immutable)),
        read((200, foreign())),
    ];
    let result = applied_plans(steps, &unknown(), true, &[planned(&["x"]), other]).await;
    assert!(matches!(result, Err(Error::NameTaken { .. })), "{result:?}");
}
