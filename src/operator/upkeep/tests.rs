use serde_json::{Value, json};

use super::turn::Error;
use super::*;
use crate::api::UPDATE_ANNOTATION;
use crate::cluster::client::RequestError;
use crate::operator::leader::Leadership;
use crate::operator::world::{World, carrying, failure, monitor};

pub(super) const UPDATES: Settings = Settings {
    update: true,
    repair: false,
};

/// The same exporter, in an older version.
pub(super) fn old() -> String {
    let image = Platform::default().exporter_image;
    format!("{}:old", image.rsplit_once(':').unwrap().0)
}

/// A pod on trial with the wanted image, which can't be pulled.
pub(super) fn on_trial() -> Value {
    let wanted = Platform::default().exporter_image;
    let mut pod = carrying(&wanted);
    let note = json!({"from": old(), "to": wanted, "container": "1", "ran": true, "at": Timestamp::now().as_second()});
    pod["metadata"]["annotations"][UPDATE_ANNOTATION] = json!(note.to_string());
    pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
    pod
}

type Answer = (u16, Value);

async fn keep(world: &World, monitor: &RoseyMonitor) -> Kept {
    let context = &world.context;
    let (upkeep, platform) = (&context.upkeep, Platform::default());
    upkeep
        .keep(monitor, &platform, Hindrance::default(), true, context)
        .await
}

#[tokio::test]
async fn a_turn_in_vain_is_given_to_another_monitor_and_tried_again_later() {
    let pause = Duration::from_secs(4)..=Duration::from_secs(8);
    let refusals = RIGHTS..=RIGHTS;
    let changed = AGAIN..=AGAIN;
    let cases: [(&str, Value, Answer, Answer, _, bool); 5] = [
        (
            "read",
            carrying(&old()),
            failure(500, "InternalError"),
            failure(404, "NotFound"),
            pause.clone(),
            true,
        ),
        (
            "written",
            carrying(&old()),
            (200, carrying(&old())),
            failure(500, "InternalError"),
            pause.clone(),
            true,
        ),
        (
            "put back",
            on_trial(),
            (200, on_trial()),
            failure(500, "InternalError"),
            pause,
            true,
        ),
        (
            "without rights",
            carrying(&old()),
            failure(403, "Forbidden"),
            failure(403, "Forbidden"),
            refusals,
            true,
        ),
        (
            "changed",
            carrying(&old()),
            (200, carrying(&old())),
            (200, carrying(&old())),
            changed,
            false,
        ),
    ];
    for (what, pod, read, written, waits, frees) in cases {
        let mut world = World::that_keeps(UPDATES, Leadership::fixed(true), move |text| {
            if text.starts_with("GET ") {
                read.clone()
            } else {
                written.clone()
            }
        });
        let seen = world.seen(&monitor("m", 1));
        world.shown(&pod);
        let slots = &world.context.upkeep.slots;
        let mut others = (0..).map(|n| Key::new("bots", &format!("other-{n}")));
        // One turn is left.
        while slots.take(&others.next().unwrap()) {}
        let last = Key::new("bots", "other-0");
        slots.release(&last);
        let kept = keep(&world, &seen).await;
        assert!(
            kept.again.is_some_and(|again| waits.contains(&again)),
            "{what}: {:?}",
            kept.again
        );
        assert_eq!(slots.take(&last), frees, "{what}");
    }
}

#[tokio::test]
async fn a_pod_that_may_not_go_back_holds_its_turn_no_longer_than_until_the_next_look() {
    let mut pod = on_trial();
    let note = pod["metadata"]["annotations"][UPDATE_ANNOTATION].as_str().unwrap();
    let note = note.replace(&old(), "elsewhere.example/exporter:1");
    pod["metadata"]["annotations"][UPDATE_ANNOTATION] = json!(note);
    let live = pod.clone();
    let mut world = World::that_keeps(UPDATES, Leadership::fixed(true), move |text| {
        assert!(text.starts_with("GET "), "{text}");
        (200, live.clone())
    });
    let seen = world.seen(&monitor("m", 1));
    world.shown(&pod);
    assert_eq!(keep(&world, &seen).await.again, Some(NEXT));
    let slots = &world.context.upkeep.slots;
    let mut others = (0..).map(|n| Key::new("bots", &format!("other-{n}")));
    let waits = others.find(|other| !slots.take(other)).unwrap();
    assert_eq!(waits, Key::new("bots", "other-4"), "one turn is held");
    let mut due = world.context.queue.open();
    assert_eq!(keep(&world, &seen).await.again, None);
    assert_eq!(due.try_recv().unwrap(), waits, "it is free");
}

#[tokio::test]
async fn an_eviction_that_is_refused_gives_the_turn_back_and_is_tried_again_later() {
    let mut world = World::new(Leadership::fixed(true), |_| unreachable!("nothing is asked"));
    let seen = world.seen(&monitor("m", 1));
    world.shown(&carrying(&old()));
    let platform = Platform::default();
    let round = Round {
        turn: Turn {
            key: Key::of(&seen),
            platform: &platform,
            context: &world.context,
        },
        monitor: &seen,
        pods: world.context.pods.selected(&seen),
        begins: true,
    };
    for (code, result) in [(429, "budget"), (500, "failed")] {
        let mut status = kube::core::Status::failure("no", "no");
        status.code = code;
        let error = RequestError::Refused(Box::new(kube::Error::Api(Box::new(status))));
        let (mut memory, mut kept) = (repair::Memory::default(), Kept::default());
        kept.share = Share::Has;
        evicted(&round, &round.pods[0], Err(Error::Write(error)), &mut memory, &mut kept);
        assert_eq!(kept.share, Share::None, "{code}");
        let again = kept.again.unwrap();
        assert!((4..=8).contains(&again.as_secs()), "{code}: {again:?}");
        let counted = format!("rosey_operator_evictions_total{{result=\"{result}\"}} 1");
        assert!(world.context.metrics.text().unwrap().contains(&counted), "{counted}");
    }
}
