use std::fs::{self, File, OpenOptions};
use std::io::Write;

use proptest::prelude::*;

use super::world::{Step, World, play};
use super::*;

#[test]
fn what_was_there_before_is_not_counted_and_what_comes_is() {
    let mut world = World::new();
    world.append(5);
    world.append_half();
    world.settle();
    assert_eq!(world.lines(), 0);
    world.append(3);
    world.settle();
    assert_eq!((world.lines(), world.invalid()), (3, 0));
}

#[test]
fn a_file_that_appears_later_is_read_from_its_start() {
    let mut world = World::new();
    assert!(world.look().more);
    assert!(world.look().missing);
    world.append(3);
    world.settle();
    assert_eq!(world.lines(), 3);
    assert_eq!(locked(&world.tally).rotations, 0);
}

#[test]
fn a_half_written_line_waits_for_its_rest() {
    let mut world = World::new();
    world.append(1);
    world.settle();
    for _ in 0..3 {
        world.append_half();
        world.settle();
    }
    assert_eq!((world.lines(), world.invalid()), (2, 0));
    assert!(world.look().unread > 0);
    world.complete();
    world.settle();
    assert_eq!((world.lines(), world.invalid(), world.look().unread), (3, 0, 0));
}

#[test]
fn a_half_written_line_is_counted_once_when_it_was_rotated_so() {
    let mut world = World::new();
    world.append(1);
    world.settle();
    world.append_half();
    world.rest.clear();
    world.rename();
    world.reopen();
    world.append(1);
    world.settle();
    assert_eq!(world.invalid(), 0);
    for _ in 0..3 {
        world.wait(QUIET);
        world.settle();
        assert_eq!((world.lines(), world.invalid()), (2, 1));
    }
    world.rename();
    world.reopen();
    world.save();
    world.restart();
    world.settle();
    assert_eq!((world.lines(), world.invalid()), (2, 1));
}

#[test]
fn what_a_writer_still_appends_to_a_renamed_file_is_read() {
    let mut world = World::new();
    world.append(1);
    world.settle();
    world.rename();
    world.append(2);
    world.settle();
    assert_eq!(world.lines(), 2, "while there is no other file");
    File::create(world.path(0)).unwrap();
    world.wait(QUIET * 10);
    world.settle();
    world.append(2);
    world.settle();
    assert_eq!(world.lines(), 4, "while the other file is empty");
    world.reopen();
    world.append(1);
    world.settle();
    assert_eq!(world.lines(), 5);
    world.wait(QUIET);
    world.settle();
    assert!(world.follower.rotated.is_empty());
}

#[test]
fn a_rotated_file_that_grows_after_it_was_done_with_is_found_at_the_next_rotation() {
    let mut world = World::new();
    world.append(1);
    world.settle();
    world.rename();
    world.reopen();
    world.append(1);
    world.settle();
    world.wait(QUIET);
    world.settle();
    let late = world.line();
    OpenOptions::new()
        .append(true)
        .open(world.path(1))
        .unwrap()
        .write_all(late.as_bytes())
        .unwrap();
    world.rename();
    world.reopen();
    world.settle();
    assert_eq!(world.lines(), 2);
}

#[test]
fn truncation_to_any_size_is_noticed() {
    for lines in [0, 1, 40] {
        let mut world = World::new();
        world.append(1);
        world.settle();
        world.append(20);
        world.settle();
        world.writer().set_len(0).unwrap();
        world.append(lines);
        world.settle();
        assert_eq!(world.lines(), 20 + lines, "{lines}");
        assert_eq!(locked(&world.tally).truncations, 1, "{lines}");
    }
}

#[test]
fn a_writer_that_goes_on_behind_the_cut_leaves_a_hole_that_is_no_line() {
    let mut world = World::new();
    world.append(1);
    world.settle();
    let path = world.path(0);
    let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
    writer.set_len(0).unwrap();
    std::io::Seek::seek(&mut writer, std::io::SeekFrom::Start(3_000_000)).unwrap();
    let (first, second) = (world.line(), world.line());
    writer.write_all((first + &second).as_bytes()).unwrap();
    world.settle();
    let tally = locked(&world.tally).clone();
    assert_eq!(
        (tally.lines(), tally.unparsed.invalid, tally.unparsed.too_long),
        (2, 0, 0)
    );
}

#[test]
fn a_line_that_is_too_long_is_counted_once_and_not_held() {
    let mut world = World::new();
    world.append(1);
    world.settle();
    for length in [65_536, 65_537, 300_000] {
        let text = format!("{{\"m\": \"{}\"}}", "x".repeat(length - 9));
        assert_eq!(text.len(), length);
        for piece in text.as_bytes().chunks(70_000) {
            world.writer().write_all(piece).unwrap();
            world.settle();
        }
        world.write("\n");
        world.settle();
    }
    let tally = locked(&world.tally).clone();
    assert_eq!(
        (tally.lines(), tally.unparsed.invalid, tally.unparsed.too_long),
        (3, 0, 2)
    );
}

#[test]
fn a_link_that_swings_to_the_file_of_the_next_day_is_followed() {
    let mut world = World::new();
    let day = |world: &World, day: u32| world.folder.path().join(format!("rosey-2026-01-0{day}.log"));
    let swing = |world: &World, to: &Path| {
        let link = world.folder.path().join("new");
        std::os::unix::fs::symlink(to, &link).unwrap();
        fs::rename(&link, world.path(0)).unwrap();
    };
    let (first, second) = (day(&world, 1), day(&world, 2));
    fs::write(&first, "").unwrap();
    swing(&world, &first);
    world.settle();
    world.append(2);
    world.settle();
    world.save();
    world.append(3);
    fs::write(&second, "").unwrap();
    swing(&world, &second);
    world.reopen();
    world.append(4);
    world.restart();
    world.settle();
    assert_eq!(world.lines(), 9);
}

#[test]
fn files_that_are_no_part_of_the_log_are_not_read() {
    let mut world = World::new();
    world.append(1);
    world.settle();
    for name in [
        "rosey.log.1.gz",
        "rosey.log.bak",
        "rosey-2.log",
        "other.log",
        "rosey.log.swp",
    ] {
        fs::write(world.folder.path().join(name), "{}\n{}\n").unwrap();
    }
    fs::create_dir(world.folder.path().join("rosey.log.9")).unwrap();
    // A copy that somebody makes of the log, or of an older part of it, was counted under its other name.
    world.append(3);
    world.settle();
    fs::copy(world.path(0), world.path(7)).unwrap();
    world.rename();
    world.reopen();
    world.append(2);
    world.settle();
    fs::copy(world.path(2), world.path(30)).unwrap_or_default();
    fs::copy(world.path(1), world.path(31)).unwrap();
    world.rename();
    world.reopen();
    world.append(2);
    world.settle();
    world.save();
    world.restart();
    world.settle();
    assert_eq!(world.lines(), 7);
}

#[test]
fn what_can_not_be_opened_is_said_and_tried_again() {
    let mut world = World::new();
    fs::create_dir(world.path(0)).unwrap();
    let look = world.follower.look(&world.tally, world.now);
    assert_eq!(look.problem.as_deref(), Some("is not a file"));
    fs::remove_dir(world.path(0)).unwrap();
    world.settle();
    world.append(1);
    world.settle();
    assert_eq!(world.lines(), 1);
}

#[test]
fn many_rotations_between_two_looks_open_few_files_for_long() {
    let mut world = World::new();
    world.append(1);
    world.settle();
    for _ in 0..40 {
        world.append(2);
        world.rename();
        world.reopen();
    }
    world.append(2);
    world.settle();
    assert_eq!(world.lines(), 82);
    assert!(world.follower.rotated.len() <= OPEN);
    assert_eq!(locked(&world.tally).rotations, 40);
}

#[test]
fn a_copy_is_not_held_open_while_the_log_stays_empty() {
    let mut world = World::new();
    world.append(1);
    world.settle();
    world.append(3);
    world.copy_and_truncate(0);
    world.settle();
    assert_eq!((world.lines(), world.follower.rotated.len()), (3, 1));
    world.wait(QUIET);
    world.settle();
    assert!(world.follower.rotated.is_empty());
}

#[test]
fn files_that_come_and_go_beside_an_empty_log_keep_nobody_busy() {
    let mut world = World::new();
    world.writer();
    world.settle();
    for number in 0..5 {
        fs::write(world.folder.path().join(format!("journal-{number}")), "").unwrap();
        assert!(!world.look().more);
    }
}

#[test]
fn no_order_of_events_that_once_went_wrong_goes_wrong() {
    use Step::{Append, AppendHalf, CopyAndTruncate, Delete, Look, Rename, RenameAndReopen, Restart, Settle, Wait};
    for steps in [
        // A file that was empty is filled, copied and emptied between two looks.
        vec![Delete, Append(1), CopyAndTruncate(0), Look],
        // More files than are kept open, and the one that still grows is the newest.
        [vec![RenameAndReopen; 12], vec![Rename, AppendHalf, Settle]].concat(),
        // A copy gets the number of a file that was empty and is gone.
        vec![Delete, Restart, Append(1), Look, CopyAndTruncate(0)],
        vec![Delete, RenameAndReopen, Append(2), Restart, Look, CopyAndTruncate(0)],
        // The writer rests for long within a line, at a file that was renamed before it was seen.
        vec![
            Append(1),
            RenameAndReopen,
            Rename,
            AppendHalf,
            Look,
            Wait(10),
            Delete,
            Append(1),
        ],
        // The file goes on after several copies of it were made, none of which was seen.
        vec![
            Append(1),
            Look,
            CopyAndTruncate(0),
            Append(1),
            CopyAndTruncate(0),
            CopyAndTruncate(0),
        ],
    ] {
        let world = play(steps.clone());
        assert_eq!((world.lines(), world.invalid()), (world.written, 0), "{steps:?}");
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..30_u64).prop_map(Step::Append),
        2 => Just(Step::AppendHalf),
        2 => Just(Step::Rename),
        4 => Just(Step::RenameAndReopen),
        1 => Just(Step::Create),
        2 => Just(Step::Reopen),
        3 => (0..3_u64).prop_map(Step::CopyAndTruncate),
        1 => Just(Step::Delete),
        6 => Just(Step::Look),
        3 => Just(Step::Settle),
        3 => Just(Step::Save),
        2 => Just(Step::Restart),
        2 => (1..20_u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_line_is_counted_once_whatever_happens_to_the_files(steps in steps()) {
        let world = play(steps);
        prop_assert_eq!(world.invalid(), 0);
        prop_assert!(
            (world.written - world.lost..=world.written).contains(&world.lines()),
            "{} of {} lines were counted; {} were written between copy and truncation",
            world.lines(), world.written, world.lost
        );
    }
}
