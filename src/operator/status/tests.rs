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
        refused: Some(Vec::new()),
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

#[test]
fn channels_stay_refused_while_nothing_new_is_known_of_them() {
    let plan = made();
    let mut refusing = observation(Ok(&plan), &Applied::Done);
    refusing.refused = Some(vec![RefusedChannel {
        channel: "ops".into(),
        message: "no key".into(),
        time: None,
    }]);
    let refused = status(refusing, &MonitorStatus::default(), at(1));
    let problems = Problems(vec![Problem::new("spec.a", "is wrong")]);
    let mut invalid = observation(Err(&problems), &Applied::Invalid);
    invalid.refused = None;
    let invalid = status(invalid, &refused, at(2));
    assert_eq!(invalid.refused_channels.len(), 1);
    let mended = status(observation(Ok(&plan), &Applied::Done), &invalid, at(3));
    assert!(mended.refused_channels.is_empty());
}

mod documents;
