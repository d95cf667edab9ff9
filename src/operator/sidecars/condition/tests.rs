use super::super::record::Life;
use super::super::{Selected, Unread};
use super::*;

fn missing(name: &str, replaceable: bool) -> Selected {
    Selected {
        pod: name.into(),
        owner: "deployment/rosey".into(),
        exporter: Exporter::Missing,
        unread: Unread::default(),
        life: Life {
            replaceable,
            ..Life::default()
        },
    }
}

fn carrying(name: &str, image: &str) -> Selected {
    Selected {
        exporter: Exporter::Injected {
            monitor: "rosey".into(),
            image: image.into(),
            volumes: "".into(),
            left_out: None,
            state: State::Running,
        },
        ..missing(name, true)
    }
}

fn said(pods: &[Selected], remedies: Remedies<'_>) -> (&'static str, &'static str, String) {
    let hindrance = Hindrance {
        remedies,
        ..Hindrance::default()
    };
    let said = injected("rosey", "bots", "2", pods, hindrance);
    (said.status, said.reason, said.message)
}

#[test]
fn an_old_image_comes_with_what_is_done_about_it_or_to_be_done() {
    let pods = [carrying("a", "1"), carrying("b", "2")];
    let run = "run: kubectl rollout restart deployment/rosey -n bots";
    let with = |update| {
        let repair = Repair::default();
        said(&pods, Remedies { update, repair })
    };
    let outdated = "every matching pod carries the exporter (2), 1 of them with another image than a new pod would get";
    for (update, rest) in [
        (
            Update::Off,
            format!("; {run}, or start the operator with --update-exporters-in-place"),
        ),
        (Update::On, "; the operator changes one pod after the other".into()),
        (Update::Left("forbidden"), format!(": forbidden; {run}")),
    ] {
        assert_eq!(with(update), ("True", "Outdated", format!("{outdated}{rest}")));
    }
    let message = format!(
        "1 of 2 pods have an exporter of another image than a new pod would get: it crashed; once that is mended, {run}"
    );
    assert_eq!(with(Update::Failed("it crashed")), ("False", "UpdateFailed", message));

    let current = [carrying("b", "2")];
    let failed = Remedies {
        update: Update::Failed("it crashed"),
        ..Remedies::default()
    };
    assert_eq!(said(&current, failed).1, "Injected", "what failed elsewhere is over");
}

#[test]
fn missing_pods_come_with_what_is_done_about_them_or_to_be_done() {
    let run = "run: kubectl rollout restart deployment/rosey -n bots";
    let with = |repair, replaceable| {
        let pods = [missing("a", replaceable), carrying("b", "2")];
        let update = Update::default();
        said(&pods, Remedies { update, repair })
    };
    for (repair, replaceable, rest) in [
        (Repair::NotAsked, true, run.to_owned()),
        (
            Repair::NotAllowed,
            true,
            format!("spec.exporter.repair is Restart, but the operator runs without --repair-exporters; {run}"),
        ),
        (
            Repair::On(None),
            true,
            "the operator replaces one after the other".into(),
        ),
        (
            Repair::On(Some("waits for the one in place of pod c")),
            true,
            "the operator replaces one after the other, and waits for the one in place of pod c".into(),
        ),
        (Repair::On(None), false, run.to_owned()),
    ] {
        let message = format!("1 of 2 pods started before the monitor; {rest}");
        assert_eq!(with(repair, replaceable), ("False", "PodsMissing", message));
    }
    let message = format!("1 of 2 pods have no exporter: in vain; once that is mended, {run}");
    assert_eq!(
        with(Repair::Stopped("in vain"), true),
        ("False", "RepairStopped", message)
    );
}
