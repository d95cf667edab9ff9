use super::*;
use crate::operator::sidecars::Unread;
use crate::operator::sidecars::record::{Life, State};

/// A pod of a Deployment without an exporter.
fn missing(name: &str) -> Selected {
    Selected {
        pod: name.into(),
        owner: "deployment/rosey".into(),
        exporter: Exporter::Missing,
        unread: Unread::default(),
        life: Life {
            uid: format!("uid-{name}").into(),
            ready: true,
            replaceable: true,
            ..Life::default()
        },
    }
}

fn carrying(name: &str, ready: bool) -> Selected {
    let mut pod = missing(name);
    pod.exporter = Exporter::Injected {
        monitor: "rosey".into(),
        image: "1".into(),
        volumes: "".into(),
        left_out: None,
        state: State::Running,
    };
    pod.life.ready = ready;
    pod
}

struct Leader {
    memory: Memory,
    now: Instant,
}

impl Leader {
    /// One who has seen these pods for a while.
    fn knowing(pods: &[Selected]) -> Self {
        let mut leader = Self {
            memory: Memory::default(),
            now: Instant::now(),
        };
        leader.next(pods);
        leader.now += QUIET;
        leader
    }

    /// What is next, as a word and a pod.
    fn next(&mut self, pods: &[Selected]) -> String {
        match self.memory.next("rosey", pods, self.now) {
            Step::Rest => "rest".into(),
            Step::Wait(_) => "wait".into(),
            Step::Evict(pod) => format!("evict {}", pod.name()),
            Step::Mark(pod) => format!("mark {}", pod.name()),
        }
    }

    /// What is next once the same pods have been there for a while.
    fn later(&mut self, pods: &[Selected]) -> String {
        assert_eq!(self.next(pods), "wait");
        self.now += QUIET;
        self.next(pods)
    }
}

#[test]
fn the_next_pod_goes_only_when_the_one_in_place_of_the_first_is_ready_with_its_exporter() {
    let (a, b) = (missing("a"), missing("b"));
    let before = [a.clone(), b.clone()];
    let mut leader = Leader::knowing(&before);
    assert_eq!(leader.next(&before), "evict a");
    leader.memory.evicted(&a, &before, leader.now);
    assert_eq!(leader.next(&before), "wait", "the watch is late");
    assert_eq!(leader.next(std::slice::from_ref(&b)), "wait");
    assert_eq!(
        leader.memory.waits("rosey", &before).unwrap(),
        "waits for the one in place of pod a"
    );
    assert_eq!(leader.next(&[b.clone(), carrying("c", false)]), "wait");
    leader.now += AWAITED * 10;
    assert_eq!(
        leader.next(&[b.clone(), carrying("c", false)]),
        "wait",
        "for as long as it takes"
    );
    let one = [b.clone(), carrying("c", true)];
    assert_eq!(leader.later(&one), "evict b");
    leader.memory.evicted(&b, &one, leader.now);
    assert_eq!(leader.next(&[carrying("c", true), carrying("d", true)]), "rest");
    assert_eq!(leader.memory.waits("rosey", &[carrying("c", true)]), None);
}

#[test]
fn a_replacement_that_never_comes_is_given_up_after_ten_minutes() {
    let before = [missing("a"), missing("b")];
    let mut leader = Leader::knowing(&before);
    leader.memory.evicted(&before[0], &before, leader.now);
    let after = &before[1..];
    let mut passed = Duration::ZERO;
    while passed < GIVEN_UP {
        assert_eq!(leader.memory.awaits_one(leader.now), passed < AWAITED, "{passed:?}");
        let Step::Wait(Some(wait)) = leader.memory.next("rosey", after, leader.now) else {
            panic!("nothing asks for another look after {passed:?}");
        };
        leader.now += wait;
        passed += wait;
    }
    assert_eq!(passed, GIVEN_UP);
    assert_eq!(leader.later(after), "evict b");
}

#[test]
fn a_pod_that_comes_back_without_an_exporter_ends_it_for_every_leader() {
    let (a, b) = (missing("a"), missing("b"));
    let before = [a.clone(), b.clone()];
    let skipped = Exporter::Skipped("port 9100 is taken".into());
    for (exporter, why) in [
        (
            Exporter::Missing,
            ", so the API server does not reach the operator's webhook",
        ),
        (skipped, ": port 9100 is taken"),
    ] {
        let mut leader = Leader::knowing(&before);
        leader.memory.evicted(&a, &before, leader.now);
        let mut back = missing("c");
        back.exporter = exporter;
        assert_eq!(leader.next(&[b.clone(), back.clone()]), "mark c");
        assert_eq!(leader.next(&[b.clone(), back.clone()]), "mark c", "until it is");
        back.life.unrepaired = true;
        let after = [b.clone(), back];
        assert_eq!(leader.next(&after), "rest");
        assert_eq!(Leader::knowing(&after).next(&after), "rest");
        let said = "pod c came in place of one that the operator had evicted, without an exporter";
        assert_eq!(stopped(&after).unwrap(), format!("{said}{why}"));
        // Somebody has mended it, and restarted that pod.
        let mended = [b.clone(), carrying("d", true)];
        assert_eq!(stopped(&mended), None);
        assert_eq!(leader.later(&mended), "evict b");
    }
}

#[test]
fn a_leader_that_has_just_begun_looks_on_for_a_while() {
    let pods = [missing("a"), missing("b")];
    let mut leader = Leader::knowing(&[]);
    assert_eq!(leader.next(&pods), "wait");
    leader.now += QUIET / 2;
    // The replacement of a pod that another leader has evicted comes.
    let more = [missing("a"), missing("b"), carrying("c", true)];
    assert_eq!(leader.next(&more), "wait");
    leader.now += QUIET / 2;
    assert_eq!(leader.next(&more), "wait");
    leader.now += QUIET / 2;
    assert_eq!(leader.next(&more), "evict a");
}

#[test]
fn who_is_not_replaced_by_anything_or_was_skipped_stays() {
    let mut bare = missing("a");
    bare.life.replaceable = false;
    let mut skipped = missing("b");
    skipped.exporter = Exporter::Skipped("the pod says rosey.dev/inject: \"false\"".into());
    let pods = [bare, skipped];
    assert_eq!(Leader::knowing(&pods).next(&pods), "rest");

    let pods = [missing("c")];
    let mut leader = Leader::knowing(&pods);
    leader.memory.leave(&pods[0], "port 9100 is taken".into(), leader.now);
    assert_eq!(leader.next(&pods), "rest");
    assert_eq!(leader.memory.asks_again(leader.now), Some(ASKED));
    leader.now += ASKED;
    assert_eq!(
        leader.memory.waits("rosey", &pods).unwrap(),
        "leaves pod c, because a new one would have none either: port 9100 is taken"
    );
    // What stood in the way may be gone.
    assert_eq!(leader.next(&pods), "evict c");
}

#[test]
fn nobody_is_evicted_while_an_exporters_pod_is_not_ready_and_who_is_not_ready_goes_first() {
    let pods = [missing("a"), carrying("b", false)];
    let mut leader = Leader::knowing(&pods);
    assert_eq!(leader.next(&pods), "wait");
    assert_eq!(
        leader.memory.waits("rosey", &pods).unwrap(),
        "waits for pod b to be ready"
    );
    let mut broken = missing("b");
    broken.life.ready = false;
    let pods = [missing("a"), broken];
    assert_eq!(Leader::knowing(&pods).next(&pods), "evict b");
}

#[test]
fn a_refusal_is_waited_for_longer_each_time_and_told() {
    let pods = [missing("a")];
    let mut leader = Leader::knowing(&pods);
    let mut before = Duration::ZERO;
    for _ in 0..10 {
        assert_eq!(leader.next(&pods), "evict a");
        let wait = leader.memory.refused(&pods[0], "disruption budget".into(), leader.now);
        assert!(wait >= before / 2 && wait <= LONGEST, "{wait:?} after {before:?}");
        assert_eq!(
            leader.memory.waits("rosey", &pods).unwrap(),
            "may not evict pod a yet: disruption budget"
        );
        leader.now += wait / 2;
        assert_eq!(leader.next(&pods), "wait");
        leader.now += wait / 2 + Duration::from_millis(1);
        before = wait;
    }
    assert!(before >= LONGEST / 2, "{before:?}");
}
