use kube::client::Body;

use super::*;
use crate::api::status::SidecarCounts;
use crate::operator::sidecars::Injected;
use crate::plan::{Kind, Problem, plan};

fn made() -> Plan {
    let monitor = serde_json::from_value(serde_json::json!({
        "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": {"namespace": "bots", "name": "rosey"},
        "spec": {"environment": "prod", "selector": {"matchLabels": {"app": "rosey"}}, "bot": {"health": {"port": 8000}}},
    }))
    .unwrap();
    plan(&monitor, &crate::plan::Platform::default()).unwrap()
}

fn observation<'a>(plan: Result<&'a Plan, &'a Problems>, applied: &'a Applied) -> Observation<'a> {
    let good = |reason| Injected {
        status: "True",
        reason,
        message: "fine".into(),
    };
    Observation {
        generation: Some(2),
        plan,
        applied,
        sidecars: Sidecars {
            counts: SidecarCounts::default(),
            injected: good("Injected"),
        },
        selection: plan.is_ok().then(|| Selection {
            status: "True",
            reason: "Selected",
            message: "fine".into(),
        }),
        refused: Vec::new(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn of<'a>(status: &'a MonitorStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

#[test]
fn a_good_monitor_is_ready_and_says_why() {
    let plan = made();
    let status = status(observation(Ok(&plan), &Applied::Done), &MonitorStatus::default(), at(1));
    assert_eq!(status.reason.as_deref(), Some("Applied"));
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.status == "True" && condition.observed_generation == Some(2))
    );
    assert!(of(&status, STALLED).is_none());
}

#[test]
fn the_reason_is_that_of_the_first_condition_that_is_not_good() {
    let plan = made();
    let mut bad = observation(Ok(&plan), &Applied::Done);
    bad.sidecars.injected = Injected {
        status: "False",
        reason: "PodsMissing",
        message: "restart".into(),
    };
    bad.selection = Some(Selection {
        status: "False",
        reason: "NotSelected",
        message: "label".into(),
    });
    let status = status(bad, &MonitorStatus::default(), at(1));
    assert_eq!(
        (status.reason.as_deref(), status.message.as_deref()),
        (Some("PodsMissing"), Some("restart"))
    );
}

#[test]
fn a_transition_time_moves_only_when_the_status_flips() {
    let plan = made();
    let first = status(observation(Ok(&plan), &Applied::Done), &MonitorStatus::default(), at(1));
    let again = status(observation(Ok(&plan), &Applied::Done), &first, at(2));
    assert_eq!(first, again);
    let taken = Applied::Failed(apply::Error::NameTaken {
        kind: Kind::ConfigMap,
        name: "x".into(),
    });
    let flipped = status(observation(Ok(&plan), &taken), &again, at(3));
    assert_eq!(of(&flipped, READY).unwrap().last_transition_time.0, at(3));
    assert_eq!(of(&flipped, VALID).unwrap().last_transition_time.0, at(1));
    assert_eq!(of(&flipped, STALLED).unwrap().reason, "NameTaken");
    assert!(of(&flipped, READY).unwrap().message.contains("ConfigMap x"));
}

#[test]
fn an_invalid_update_says_every_problem_and_keeps_what_is_known_of_the_last_good_objects() {
    let plan = made();
    let good = status(observation(Ok(&plan), &Applied::Done), &MonitorStatus::default(), at(1));
    let problems = Problems(vec![
        Problem::new("spec.a", "is wrong"),
        Problem::new("spec.b", "is wrong too"),
    ]);
    let bad = status(observation(Err(&problems), &Applied::Invalid), &good, at(2));
    assert_eq!(
        of(&bad, VALID).unwrap().message,
        "spec.a: is wrong\nspec.b: is wrong too"
    );
    assert_eq!(of(&bad, READY).unwrap().reason, "Invalid");
    assert_eq!(of(&bad, STALLED).unwrap().status, "True");
    assert_eq!(of(&bad, SELECTED).unwrap().status, "True");
    assert_eq!(bad.rules, good.rules);
}

#[test]
fn a_paused_monitor_keeps_its_ready() {
    let plan = made();
    let good = status(observation(Ok(&plan), &Applied::Done), &MonitorStatus::default(), at(1));
    let paused = status(observation(Ok(&plan), &Applied::Paused), &good, at(2));
    let ready = of(&paused, READY).unwrap();
    assert_eq!(
        (
            ready.status.as_str(),
            ready.reason.as_str(),
            ready.last_transition_time.0
        ),
        ("True", "Paused", at(1))
    );
}

#[tokio::test]
async fn the_status_of_a_monitor_that_is_gone_is_nobodys() {
    let monitor = |uid: &str| {
        json!({
            "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor",
            "metadata": {"namespace": "bots", "name": "rosey", "uid": uid, "resourceVersion": "7"},
            "spec": {"environment": "test", "selector": {}},
        })
    };
    let refused = |code: u16, reason: &str, field: &str| {
        json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "m",
            "details": {"causes": [{"reason": "r", "message": "m", "field": field}]},
        })
    };
    for (code, answer, written) in [
        (200, monitor("m"), Some(true)),
        (200, monitor("successor"), Some(false)),
        (404, refused(404, "NotFound", ""), Some(false)),
        (422, refused(422, "Invalid", "metadata.uid"), Some(false)),
        (422, refused(422, "Invalid", "status.reason"), None),
        (409, refused(409, "Conflict", ""), None),
    ] {
        let (service, mut handle) = tower_test::mock::pair::<axum::http::Request<Body>, axum::http::Response<Body>>();
        let server = tokio::spawn(async move {
            let (_, send) = handle.next_request().await.unwrap();
            let answer = Body::from(answer.to_string().into_bytes());
            send.send_response(axum::http::Response::builder().status(code).body(answer).unwrap());
        });
        let (reports, client) = (Reports::default(), Client::new(service, "default"));
        let monitor: RoseyMonitor = serde_json::from_value(monitor("m")).unwrap();
        let status = MonitorStatus::default();
        let result = reports.write(&client, &Leadership::fixed(true), &monitor, status).await;
        assert_eq!(result.ok(), written, "{code}");
        assert_eq!(
            reports.0.lock().unwrap().len(),
            usize::from(written == Some(true)),
            "{code}"
        );
        server.await.unwrap();
    }
}
