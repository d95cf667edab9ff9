use std::cell::RefCell;
use std::collections::VecDeque;
use std::iter::repeat_with;
use std::task::Poll;

use kube::core::Status;

use super::*;

type Answer = watcher::Result<Event<u8>>;

fn failed(code: u16) -> Answer {
    let status = Status::failure("no", "No").with_code(code);
    Err(watcher::Error::WatchStartFailed(kube::Error::Api(status.boxed())))
}

fn listed() -> Vec<Answer> {
    vec![Ok(Event::Init), Ok(Event::InitApply(1)), Ok(Event::InitDone)]
}

#[derive(Debug, Default)]
struct Followed {
    refused: usize,
    missing: usize,
    events: usize,
    begun: usize,
    filled: bool,
    metrics: String,
}

/// Follows a watch that is answered so until there are no more answers. The operator can go on without what it watches.
async fn followed(answers: impl IntoIterator<Item = Answer>) -> Followed {
    let of = Watch {
        name: "pods",
        area: Area::Cluster,
    };
    let (metrics, caches) = (
        Metrics::new().unwrap(),
        Caches::new(&[], &["pods"], std::slice::from_ref(&of.area)),
    );
    let answers = RefCell::new(answers.into_iter().collect::<VecDeque<_>>());
    let followed = RefCell::new(Followed::default());
    let begin = || {
        followed.borrow_mut().begun += 1;
        futures::stream::poll_fn(|_| Poll::Ready(answers.borrow_mut().pop_front()))
    };
    let take = |told| {
        let mut followed = followed.borrow_mut();
        match told {
            Told::Event(_) => followed.events += 1,
            Told::Refused => followed.refused += 1,
            Told::Missing => followed.missing += 1,
        }
        true
    };
    follow(of, caches.clone(), &metrics, begin, take).await;
    Followed {
        filled: caches.pending().is_empty(),
        metrics: metrics.text().unwrap(),
        ..followed.into_inner()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_holds_through_a_short_refusal() {
    // At most 2 s apart.
    let short = repeat_with(|| failed(FORBIDDEN)).take(10);
    let followed = followed(listed().into_iter().chain(short).chain([Ok(Event::Apply(2))])).await;
    assert_eq!((followed.refused, followed.events, followed.begun), (0, 4, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_lasts_is_told_once_and_the_watch_begins_anew() {
    let long = repeat_with(|| failed(FORBIDDEN)).take(100);
    let followed = followed(listed().into_iter().chain(long).chain(listed())).await;
    assert_eq!((followed.refused, followed.begun, followed.events), (1, 2, 6));
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_may_not_watch_from_the_start_does_not_wait() {
    let followed = followed([Ok(Event::Init), failed(FORBIDDEN)]).await;
    assert_eq!(followed.refused, 1);
    assert!(followed.filled);
}

#[tokio::test]
async fn a_cache_is_full_when_each_namespace_has_filled_its_part() {
    let [bots, games] = ["bots", "games"].map(|name| Area::Namespace(name.into()));
    let caches = Caches::new(&["webhooks"], &["pods"], &[bots.clone(), games.clone()]);
    assert_eq!(caches.pending(), ["pods of bots", "pods of games", "webhooks"]);
    caches.filled("pods", &bots);
    let mut full = std::pin::pin!(caches.full(&["pods"]));
    assert!(futures::poll!(&mut full).is_pending());
    caches.filled("pods", &games);
    full.await;
    assert_eq!(caches.pending(), ["webhooks"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_stays_missing_is_not_waited_for() {
    let missing = |n| repeat_with(|| [Ok(Event::Init), failed(NOT_FOUND)]).take(n).flatten();
    let soon = followed(missing(10)).await;
    assert!(!soon.filled && soon.missing == 0, "{soon:?}");
    let late = followed(missing(100)).await;
    assert!(late.filled && late.missing == 1, "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn refusals_with_silence_between_them_do_not_add_up() {
    let mut lack = Lacking {
        filled: true,
        run: None,
    };
    for _ in 0..10 {
        assert!(!lack.is_certain(FORBIDDEN));
        tokio::time::advance(Duration::from_secs(11)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_but_for_versions_that_the_api_server_has_forgotten() {
    let followed = followed([failed(500), failed(GONE), failed(FORBIDDEN), failed(503)]).await;
    let counted = r#"rosey_operator_errors_total{category="watch"} 3"#;
    assert!(followed.metrics.contains(counted), "{}", followed.metrics);
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_is_said_when_it_begins_and_every_so_often() {
    let mut refusal = Said::every(REMINDER);
    assert!(!refusal.over());
    let mut said = Vec::new();
    for second in (0..1_300).step_by(2) {
        if refusal.is_news() {
            said.push(second);
        }
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert_eq!(said, [0, 600, 1_200]);
    assert!(refusal.over() && !refusal.over());
    assert!(refusal.is_news());
}
