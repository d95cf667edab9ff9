use std::pin::pin;
use std::sync::{Arc, Mutex};

use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde_json::Value;
use tokio::time::Instant;

use super::*;
use crate::operator::area::Area;
use crate::operator::controller;
use crate::operator::key::Key;
use crate::operator::leader::Leadership;
use crate::operator::upkeep::tests::{UPDATES, old, on_trial};
use crate::operator::world::{World, asked, carrying, failure, monitor};

type Log = Arc<Mutex<Vec<String>>>;

const POD: &str = "/api/v1/namespaces/bots/pods/rosey-1";

/// An operator that sees a pod on trial and its monitor.
fn world(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> World {
    let mut world = World::that_keeps(UPDATES, Leadership::fixed(true), answer);
    // A controller begins, and ends, when the monitors have been listed.
    world.feed.observe(&Area::Cluster, Event::Init);
    world.feed.observe(&Area::Cluster, Event::InitDone);
    world.seen(&monitor("m", 1));
    world.shown(&on_trial());
    let clock = Timestamp::now().as_second();
    assert!(world.context.pods.abandoned(clock).is_empty(), "it is looked after");
    world
}

fn deleted(world: &mut World) {
    let gone = serde_json::from_value(monitor("m", 1)).unwrap();
    let gone = Event::Delete(DeserializeGuard(Ok(gone)));
    world.feed.observe(&Area::Cluster, gone);
}

/// An API server that has the pod, and what it was asked.
fn api_server() -> (Log, impl Fn(&str) -> (u16, Value) + Send + 'static) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&log);
    let answer = move |text: &str| {
        let mut heard = heard.lock().unwrap();
        heard.push(text.to_owned());
        if !text.contains(POD) {
            return failure(404, "NotFound");
        }
        // The watch has not shown the change yet, and the pod itself does.
        let changed = heard.iter().any(|text| text.starts_with("PATCH "));
        (200, if changed { carrying(&old()) } else { on_trial() })
    };
    (log, answer)
}

async fn counted(world: &World, result: &str, times: usize) {
    let line = format!("rosey_operator_image_changes_total{{result=\"{result}\"}} {times}\n");
    let counted = async {
        while !world.context.metrics.text().unwrap().contains(&line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(10), counted).await;
    assert!(counted.is_ok(), "{line}");
}

/// The pod was patched once: it has its old image again, and nothing says that anybody found the new one bad.
fn is_put_back(log: &Mutex<Vec<String>>) {
    let patches = asked(log, &format!("PATCH {POD}"));
    let [patch] = &*patches else { panic!("{patches:?}") };
    let image = format!(
        r#"{{"op":"replace","path":"/spec/containers/1/image","value":"{}"}}"#,
        old()
    );
    let note = r#"{"op":"remove","path":"/metadata/annotations/rosey.dev~1update"}"#;
    assert!(patch.contains(&image) && patch.contains(note), "{patch}");
}

#[tokio::test]
async fn an_image_whose_monitor_was_deleted_before_this_replica_led_is_put_back() {
    let (log, answer) = api_server();
    let mut world = world(answer);
    deleted(&mut world);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(controller::run(Arc::clone(&world.context), 1, shutdown.clone()));
    counted(&world, "put_back", 1).await;
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    ended.unwrap().unwrap();
    is_put_back(&log);
}

#[tokio::test]
async fn an_image_whose_monitor_is_deleted_while_this_replica_leads_is_put_back() {
    let (log, answer) = api_server();
    let mut world = world(answer);
    let context = Arc::clone(&world.context);
    let shutdown = CancellationToken::new();
    let mut looking = pin!(abandoned(&context, &shutdown));
    // What has been shown until now was asked for, and looked at; then it waits to be told.
    assert!(futures::poll!(&mut looking).is_pending());
    assert!(log.lock().unwrap().is_empty());
    deleted(&mut world);
    tokio::select! {
        () = looking => panic!("it ends at the shutdown"),
        () = counted(&world, "put_back", 1) => {}
    }
    is_put_back(&log);
}

#[tokio::test]
async fn a_pod_that_has_been_read_is_put_back_although_the_operator_is_told_to_end() {
    let (log, answer) = api_server();
    let shutdown = CancellationToken::new();
    let end = shutdown.clone();
    let mut world = world(move |text| {
        end.cancel();
        answer(text)
    });
    deleted(&mut world);
    let running = controller::run(Arc::clone(&world.context), 1, shutdown);
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    ended.unwrap();
    counted(&world, "put_back", 1).await;
    is_put_back(&log);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_tried_again_and_sooner_than_a_lack_of_rights() {
    for (code, reason, wait) in [(403, "Forbidden", RIGHTS), (500, "InternalError", AGAIN)] {
        let times = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&times);
        let mut world = world(move |_| {
            asked.lock().unwrap().push(Instant::now());
            failure(code, reason)
        });
        deleted(&mut world);
        let shutdown = CancellationToken::new();
        let looking = abandoned(&world.context, &shutdown);
        let ended = tokio::time::timeout(3 * wait + wait / 2, looking).await;
        assert!(ended.is_err(), "{code}: it goes on");
        // A look that was asked for before the first one follows that at once.
        let mut times = times.lock().unwrap().clone();
        times.dedup();
        let waits: Vec<_> = times.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
        assert_eq!(waits, [wait.as_secs(); 3], "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_api_server_does_not_want_changed_is_tried_once() {
    let (log, answer) = api_server();
    let mut world = world(move |text| {
        if text.starts_with("PATCH ") {
            answer(text);
            return failure(422, "Invalid");
        }
        answer(text)
    });
    deleted(&mut world);
    let (context, shutdown) = (Arc::clone(&world.context), CancellationToken::new());
    let mut looking = pin!(abandoned(&context, &shutdown));
    tokio::select! {
        () = &mut looking => panic!("it ends at the shutdown"),
        () = counted(&world, "stuck", 1) => {}
    }
    // Whatever asks for another look, and however late.
    world.context.pods.released(&Key::new("bots", "rosey"));
    let hour = Duration::from_secs(3_600);
    assert!(tokio::time::timeout(hour, &mut looking).await.is_err());
    assert_eq!(log.lock().unwrap().len(), 2, "read and patched");

    // Another pod of that name is another try.
    let mut other = on_trial();
    other["metadata"]["uid"] = "q".into();
    world.shown(&other);
    assert!(tokio::time::timeout(hour, &mut looking).await.is_err());
    assert_eq!(asked(&log, "GET ").len(), 2);
}
