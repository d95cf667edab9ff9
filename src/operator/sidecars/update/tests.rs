use super::*;
use crate::operator::sidecars::Unread;
use crate::operator::sidecars::record::Life;
use crate::plan::injection::update::Note;

const CLOCK: i64 = 1_763_740_800;

/// A pod whose exporter has the image `image` and the container `image` of it.
fn pod(name: &str, image: &str, state: State) -> Selected {
    Selected {
        pod: name.into(),
        owner: "deployment/rosey".into(),
        exporter: Exporter::Injected {
            monitor: "rosey".into(),
            image: image.into(),
            volumes: "".into(),
            left_out: None,
            state,
        },
        unread: Unread::default(),
        life: Life {
            uid: format!("uid-{name}").into(),
            container: image.into(),
            ready: true,
            ..Life::default()
        },
    }
}

fn running(name: &str, image: &str) -> Selected {
    pod(name, image, State::Running)
}

/// A pod whose exporter was changed from image 1 to image 2; the status shows the container of `shows`.
fn changed(name: &str, shows: &str, state: State) -> Selected {
    let mut pod = pod(name, "2", state);
    pod.life.container = shows.into();
    pod.life.update = Some(Note {
        from: "1".into(),
        to: "2".into(),
        container: "1".into(),
        ran: true,
        at: CLOCK,
        failed: None,
    });
    pod
}

fn put_back(name: &str) -> Selected {
    let mut pod = running(name, "1");
    pod.life.update = changed(name, "2", State::Running).life.update.map(|note| Note {
        failed: Some("ImagePullBackOff".into()),
        ..note
    });
    pod
}

struct Leader {
    memory: Memory,
    now: Instant,
}

impl Leader {
    fn new() -> Self {
        Self {
            memory: Memory::default(),
            now: Instant::now(),
        }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// What is next, as a word and a pod.
    fn next(&mut self, pods: &[Selected]) -> String {
        match self.memory.next("rosey", pods, "2", self.now, CLOCK) {
            Step::Rest => "rest".into(),
            Step::Wait(_) => "wait".into(),
            Step::Pause(_) => "pause".into(),
            Step::Update(pod) => format!("update {}", pod.name()),
            Step::Back { pod, why } => format!("back {}: {why}", pod.name()),
        }
    }
}

#[test]
fn one_pod_comes_first_and_the_next_when_its_new_container_has_run_for_a_while() {
    let (a, b) = (running("a", "1"), running("b", "1"));
    let mut leader = Leader::new();
    assert_eq!(leader.next(&[a.clone(), b.clone()]), "update a");
    leader.memory.wrote(&a, "2", leader.now);
    assert_eq!(leader.next(&[a, b.clone()]), "wait", "the watch is late");
    // The status shows the old container for a second.
    assert_eq!(leader.next(&[changed("a", "1", State::Running), b.clone()]), "wait");
    assert_eq!(
        leader
            .after(SETTLING * 2)
            .next(&[changed("a", "1", State::Running), b.clone()]),
        "wait"
    );
    let on_trial = [changed("a", "2", State::Running), b.clone()];
    assert_eq!(leader.next(&on_trial), "wait", "it runs, since just now");
    assert_eq!(leader.after(SETTLING).next(&on_trial), "update b");
    // It has passed, and what happens now is no longer the update's.
    let crashed = [changed("a", "2", State::Failing("CrashLoopBackOff".into())), b];
    assert_eq!(leader.next(&crashed), "rest");
    assert_eq!(
        leader.next(&[changed("a", "2", State::Running), running("b", "2")]),
        "rest"
    );
}

#[test]
fn an_image_that_does_not_run_is_put_back_and_given_to_nobody_else() {
    let b = running("b", "1");
    for (state, shows) in [
        (State::NoImage("ErrImagePull".into()), "1"),
        (State::Failing("RunContainerError".into()), "1"),
        (State::Failing("CrashLoopBackOff".into()), "2"),
    ] {
        let (State::NoImage(why) | State::Failing(why)) = &state else {
            unreachable!()
        };
        let expected = format!("back a: {why}");
        let mut leader = Leader::new();
        assert_eq!(leader.next(&[changed("a", shows, state.clone()), b.clone()]), expected);
        // Whoever leads next does the same.
        assert_eq!(
            Leader::new().next(&[changed("a", shows, state.clone()), b.clone()]),
            expected
        );
        let after = [put_back("a"), b.clone()];
        assert_eq!(leader.next(&after), "rest");
        assert_eq!(Leader::new().next(&after), "rest");
        assert_eq!(
            failed("rosey", &after, "2").unwrap(),
            "image 2 did not run in pod a (ImagePullBackOff), which has got its old one back"
        );
        // Another image is another matter.
        assert_eq!(failed("rosey", &after, "3"), None);
        let step = leader.memory.next("rosey", &after, "3", leader.now, CLOCK);
        assert_eq!(step, Step::Update(&after[0]));
    }
}

#[test]
fn the_end_of_the_old_container_is_no_failure_of_the_new_one() {
    let mut ended = changed("a", "1", State::Failing("Completed".into()));
    ended.life.ended = true;
    assert_eq!(Leader::new().next(&[ended]), "wait");
}

#[test]
fn what_never_starts_is_put_back_after_its_time() {
    let starting = [changed("a", "1", State::Starting)];
    let mut leader = Leader::new();
    assert_eq!(leader.next(&starting), "wait");
    assert_eq!(leader.after(STARTING / 2).next(&starting), "wait");
    assert_eq!(
        leader.after(STARTING / 2).next(&starting),
        "back a: not running after 60 s"
    );
    // An exporter that did not run before may take its time, too.
    let mut broken = changed("a", "1", State::NoImage("ImagePullBackOff".into()));
    if let Some(note) = &mut broken.life.update {
        note.ran = false;
    }
    let mut leader = Leader::new();
    assert_eq!(leader.next(&[broken.clone()]), "wait");
    assert_eq!(leader.after(STARTING).next(&[broken]), "back a: not running after 60 s");
}

#[test]
fn an_exporter_that_comes_and_goes_does_not_pass() {
    let mut leader = Leader::new();
    for n in 0..4 {
        let container = format!("2-{n}");
        assert_eq!(leader.next(&[changed("a", &container, State::Running)]), "wait");
        leader.after(SETTLING / 2);
        assert_eq!(leader.next(&[changed("a", &container, State::Running)]), "wait");
        leader.after(SETTLING / 4);
    }
}

#[test]
fn a_failure_long_after_the_update_puts_nothing_back() {
    // The annotation may say anything.
    for at in [CLOCK - TRIAL - 1, CLOCK + TRIAL + 1, i64::MIN, i64::MAX] {
        let mut pod = changed("a", "2", State::NoImage("ErrImagePull".into()));
        if let Some(note) = &mut pod.life.update {
            note.at = at;
        }
        assert_eq!(Leader::new().next(&[pod, running("b", "1")]), "rest", "{at}");
    }
}

#[test]
fn a_new_pod_with_the_image_holds_the_others_back_until_it_runs() {
    let old = running("a", "1");
    let waits = [old.clone(), pod("b", "2", State::NoImage("ErrImagePull".into()))];
    assert_eq!(Leader::new().next(&waits), "rest");
    assert_eq!(
        Leader::new().next(&[old.clone(), pod("b", "2", State::Starting)]),
        "rest"
    );
    assert_eq!(Leader::new().next(&[old, running("b", "2")]), "update a");
}

#[test]
fn a_pod_that_has_not_started_is_no_trial_and_one_that_runs_comes_first() {
    let pending = pod("a", "1", State::Starting);
    let broken = pod("b", "1", State::NoImage("ErrImagePull".into()));
    assert_eq!(Leader::new().next(std::slice::from_ref(&pending)), "rest");
    assert_eq!(Leader::new().next(&[pending.clone(), broken.clone()]), "update b");
    let all = [pending, broken, running("c", "1"), running("d", "1")];
    assert_eq!(Leader::new().next(&all), "update c");
}

#[test]
fn what_can_not_be_changed_is_tried_once_and_told() {
    let pods = [running("a", "1"), running("b", "1")];
    let mut leader = Leader::new();
    leader.memory.leave(&pods[0], "2", "forbidden".into());
    assert_eq!(leader.next(&pods), "update b");
    assert_eq!(
        leader.memory.left("rosey", &pods, "2").unwrap(),
        "pod a can't be changed in place (forbidden)"
    );
    leader.memory.leave(&pods[1], "2", "forbidden".into());
    assert_eq!(leader.next(&pods), "rest");
    // What stood in the way may be another thing with another image; and nothing is remembered of pods that are gone.
    assert_eq!(leader.memory.left("rosey", &pods, "3"), None);
    assert_eq!(leader.next(&[]), "rest");
    assert!(leader.memory.left.is_empty());
}

#[test]
fn what_the_plan_leaves_is_told_and_asked_again_after_a_minute() {
    let pods = [running("a", "1"), running("b", "1")];
    let mut leader = Leader::new();
    leader.memory.leave(&pods[1], "2", "forbidden".into());
    assert_eq!(leader.memory.asks_again(leader.now), None);
    for _ in 0..2 {
        assert_eq!(leader.next(&pods), "update a");
        leader
            .memory
            .leave_for_now(&pods[0], "2", "two monitors select it".into(), leader.now);
        assert_eq!(leader.after(ASKED / 2).next(&pods), "rest");
        assert_eq!(leader.memory.asks_again(leader.now), Some(ASKED / 2));
        leader.after(ASKED / 2);
        assert_eq!(
            leader.memory.left("rosey", &pods, "2").unwrap(),
            "pod a can't be changed in place (two monitors select it)",
            "until it is known better"
        );
    }
}

#[test]
fn an_image_that_does_not_stay_in_a_pod_is_written_once_and_told() {
    let pods = [running("a", "1"), running("b", "1")];
    let mut leader = Leader::new();
    assert_eq!(leader.next(&pods), "update a");
    leader.memory.wrote(&pods[0], "2", leader.now);
    assert_eq!(leader.after(SHOWN / 2).next(&pods), "wait", "the watch may be late");
    assert_eq!(leader.after(SHOWN).next(&pods), "update b");
    assert_eq!(
        leader.memory.left("rosey", &pods, "2").unwrap(),
        "pod a can't be changed in place (something changes the image back to 1)"
    );
    // The watch was only late.
    let late = [running("a", "2"), running("b", "2")];
    assert_eq!(leader.memory.left("rosey", &late, "2"), None);
}

#[test]
fn after_an_error_there_is_a_pause_for_both_ways_and_each_time_a_longer_one() {
    let old = [running("a", "1")];
    let failing = [changed("a", "1", State::NoImage("ErrImagePull".into()))];
    for (pods, step) in [(&old, "update a"), (&failing, "back a: ErrImagePull")] {
        let mut leader = Leader::new();
        let mut before = Duration::ZERO;
        for _ in 0..10 {
            assert_eq!(leader.next(pods), step);
            let wait = leader.memory.pause(leader.now);
            assert!(wait >= before / 2 && wait <= LONGEST, "{wait:?} after {before:?}");
            assert_eq!(leader.after(wait / 2).next(pods), "pause");
            leader.after(wait / 2 + Duration::from_millis(1));
            before = wait;
        }
        assert!(before >= LONGEST / 2, "{before:?}");
        leader.memory.go_on();
        assert!(leader.memory.pause(leader.now) <= Duration::from_secs(8));
    }
}

#[test]
fn a_way_back_that_is_refused_is_not_tried_again_and_nobody_else_gets_the_image() {
    let pods = [
        changed("a", "1", State::NoImage("ErrImagePull".into())),
        running("b", "1"),
    ];
    let mut leader = Leader::new();
    assert_eq!(leader.next(&pods), "back a: ErrImagePull");
    leader.memory.give_up(&pods[0]);
    assert_eq!(leader.next(&pods), "rest");
}

#[test]
fn pods_of_other_monitors_are_none_of_its_business() {
    let mut foreign = running("a", "1");
    if let Exporter::Injected { monitor, .. } = &mut foreign.exporter {
        *monitor = "other".into();
    }
    let mut missing = running("b", "1");
    missing.exporter = Exporter::Missing;
    assert_eq!(Leader::new().next(&[foreign, missing]), "rest");
}
