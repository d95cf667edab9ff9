//! Logs that say whatever they like, and files that are none.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::table::Shows::{self, Absent, Down, Series, Value};
use super::table::Source;
use super::{DEADLINES, Hostile, Stage, judge, play_all};
use crate::processes::eventually;

/// A log that is hostile, while all other sources are well.
struct Case {
    name: &'static str,
    log: Log,
    shows: Vec<Shows>,
}

/// What is done with the log.
enum Log {
    /// These are written, each when it is seen that the one before was read.
    Says(Vec<(Vec<u8>, Shows)>),
    /// Something else stands in its place.
    Is(fn(&Path)),
    /// It is there, and then it is not.
    Vanishes,
}

#[test]
fn whatever_a_log_says_it_harms_its_own_series_only() {
    let cases = [texts(), commands(), files()].into_iter().flatten();
    let cases = cases.map(|(name, log, shows)| Case { name, log, shows });
    play_all(cases.collect(), |case| case.name, play);
}

type Row = (&'static str, Log, Vec<Shows>);

const ERRORS: &str = "rosey_bot_error_count_total{error_type=\"error\"}";
const LINES: &str = "rosey_bot_log_lines_total{level=\"other\"}";
const INVALID: &str = "rosey_exporter_log_lines_unparsed_total{reason=\"invalid\"}";
const TOO_LONG: &str = "rosey_exporter_log_lines_unparsed_total{reason=\"too_long\"}";
/// What comes last in a log, and is counted whatever came before.
const END: &[u8] = b"{\"level\": \"CRITICAL\"}\n";
const ENDS: &str = "rosey_bot_error_count_total{error_type=\"critical\"}";

/// These bytes, and then a line like any other.
fn ends(bytes: impl AsRef<[u8]>) -> Log {
    Log::Says(vec![([bytes.as_ref(), END].concat(), Value(ENDS, 1.0))])
}

/// Lines that are not like others.
fn texts() -> Vec<Row> {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let garbage = garbage();
    let lines = garbage.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.trim_ascii().is_empty()).count();
    let lines = f64::from(u32::try_from(lines).unwrap());
    vec![
        (
            "a line that ends after sixteen megabytes",
            ends([vec![b'x'; 16 << 20], b"\n".to_vec()].concat()),
            vec![Value(TOO_LONG, 1.0), Value(INVALID, 0.0)],
        ),
        (
            "a line without an end",
            Log::Says(vec![
                (vec![b'x'; 16 << 20], Value(TOO_LONG, 1.0)),
                (END.into(), Value("rosey_exporter_log_unread_bytes", 0.0)),
            ]),
            vec![Value(ENDS, 0.0), Value(INVALID, 0.0), Value(TOO_LONG, 1.0)],
        ),
        (
            "bytes that are no text",
            ends([&garbage[..], b"\n"].concat()),
            vec![Value(INVALID, lines), Value(TOO_LONG, 0.0)],
        ),
        (
            "nothing but ends of lines",
            ends(b"\n".repeat(1 << 20)),
            vec![Value(ERRORS, 0.0), Value(INVALID, 0.0)],
        ),
        (
            "deep JSON beside what is known",
            ends(format!("{{\"x\": {}, \"level\": \"ERROR\"}}\n", nested(30_000))),
            vec![Value(ERRORS, 1.0), Value(INVALID, 0.0)],
        ),
        (
            "deep JSON instead of a command",
            ends(format!("{{\"command\": {}, \"level\": \"ERROR\"}}\n", nested(30_000))),
            vec![Value(ERRORS, 1.0), Absent("rosey_bot_command_count_total")],
        ),
        (
            "deep JSON that does not end",
            ends("[".repeat(60_000) + "\n"),
            vec![Value(INVALID, 1.0)],
        ),
        (
            "JSON that is no line of a log",
            ends("null\n5\n\"ERROR\"\n[]\n{}{}\n"),
            vec![Value(ERRORS, 0.0), Value(INVALID, 5.0)],
        ),
    ]
}

/// A megabyte that means nothing, and is the same each time.
fn garbage() -> Vec<u8> {
    let mut random = 1_u64;
    let mut byte = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random.to_be_bytes()[0]
    };
    (0..1 << 20).map(|_| byte()).collect()
}

/// Commands that nobody would have.
fn commands() -> Vec<Row> {
    let part = |from: u32| {
        let mut lines = String::new();
        for number in from..from + 50_000 {
            let _ = writeln!(lines, "{{\"command\": \"c{number}\"}}");
        }
        lines.into_bytes()
    };
    let left_out = |reason: &str| format!("rosey_exporter_log_commands_dropped_total{{reason=\"{reason}\"}}").leak();
    vec![
        (
            "a million names of commands",
            Log::Says(
                (0..20)
                    .map(|number| (part(number * 50_000), Value(LINES, f64::from(number + 1) * 5e4)))
                    .collect(),
            ),
            vec![
                Series("rosey_bot_command_count_total{", 200.0),
                Series("bot_commands_total{", 400.0),
                Value(left_out("too_many_values"), 999_800.0),
            ],
        ),
        (
            "a name without an end",
            ends(format!("{{\"command\": \"{}\"}}\n", "c".repeat(60_000))),
            vec![Value(left_out("too_long"), 1.0)],
        ),
        (
            "a name that would end the line",
            ends("{\"command\": \"x\\\"} 1\\nrosey_bot_up 0\\n\"}\n"),
            vec![
                Value("rosey_bot_up", 1.0),
                Value(
                    "rosey_bot_command_count_total{command=\"x\\\"} 1\\nrosey_bot_up 0\\n\"}",
                    1.0,
                ),
            ],
        ),
        (
            "a name with a zero in it",
            ends("{\"command\": \"a\\u0000b\"}\n"),
            vec![Value(left_out("invalid"), 1.0)],
        ),
        (
            "times that are none",
            ends(
                ["1e400", "-1", "NaN", "1e300", "\"5\"", "[5]"]
                    .map(|time| format!("{{\"command\": \"a\", \"execution_time_ms\": {time}}}\n"))
                    .concat(),
            ),
            vec![
                Value("rosey_bot_command_count_total{command=\"a\"}", 6.0),
                Value("bot_command_latency_seconds_count", 0.0),
            ],
        ),
    ]
}

/// What is no log at all.
fn files() -> Vec<Row> {
    let pipe = |path: &Path| {
        let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, path, fifo, mode, 0).unwrap();
    };
    let link = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    let circle = |path: &Path| std::os::unix::fs::symlink(path, path).unwrap();
    let folder = |path: &Path| std::fs::create_dir(path).unwrap();
    let nothing = || Absent("rosey_bot_log_lines_total");
    vec![
        ("a pipe", Log::Is(pipe), vec![Down("is not a file"), nothing()]),
        ("a folder", Log::Is(folder), vec![Down("is not a file"), nothing()]),
        (
            "a device without an end",
            Log::Is(link),
            vec![Down("is not a file"), nothing()],
        ),
        (
            "a link to itself",
            Log::Is(circle),
            vec![Down("symbolic links"), nothing()],
        ),
        (
            "a log that vanishes",
            Log::Vanishes,
            vec![Down("is not there"), Value(ENDS, 1.0)],
        ),
    ]
}

/// Scrapes an exporter beside the log of one case; what was not as it should be.
fn play(stage: &Stage<'_>, case: Case) -> Vec<String> {
    let Case { name, log, shows } = case;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rosey.log");
    match log {
        Log::Is(something) => something(&path),
        _ => drop(File::create(&path).unwrap()),
    }
    stage.configure(Source::Logs, &Hostile::Log(path.clone()));
    let mut complaints = Vec::new();
    let mut until = |what: &str, shows: &Shows| {
        eventually(&format!("{name}: {what}"), || {
            let page = stage.scrape(Source::Logs, DEADLINES[1], &mut complaints);
            let seen = match shows {
                Value(series, wanted) => page.value(series) == Some(*wanted),
                Down(why) => stage.told(Source::Logs).contains(why),
                _ => panic!("{what} can't be waited for"),
            };
            seen.then_some(page)
        })
    };
    let says = |bytes: &[u8]| {
        let log = OpenOptions::new().append(true).open(&path);
        log.unwrap().write_all(bytes).unwrap();
    };
    if !matches!(log, Log::Is(_)) {
        // What stands there before is not counted.
        until("the log is followed", &Value(ERRORS, 0.0));
    }
    match log {
        Log::Says(parts) => {
            for (bytes, seen) in parts {
                says(&bytes);
                until("it is read", &seen);
            }
        }
        Log::Vanishes => {
            says(END);
            until("it is read", &Value(ENDS, 1.0));
            std::fs::remove_file(&path).unwrap();
        }
        Log::Is(_) => {}
    }
    // Only what the source is, up or down, takes its time.
    let page = match &shows[0] {
        down @ Down(_) => until("it is told", down),
        _ => stage.scrape(Source::Logs, DEADLINES[1], &mut complaints),
    };
    judge(stage, &page, Source::Logs, &shows, &mut complaints);
    complaints
}
