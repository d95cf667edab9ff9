//! Bots that say whatever they like: a table of them, against exporters that read everything there is to read.

mod bot;
mod table;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use super::processes::{Exporter, FakeBot, Page, eventually};
use bot::Bot;
use table::{Case, Shows, Source};

/// Exporters that share the table; each goes through its part of it in one life.
const EXPORTERS: usize = 3;
/// The most memory that any of them may have taken besides the pages of its program, in KiB: with those of a release build, which are
/// less than six, it is 16 MiB.
const ENOUGH: u64 = 10 << 10;
/// Seconds that a scrape may take where the bot never comes to an end, and otherwise. Half a second is for the way back; the good
/// sources need what is left of the rest on a busy machine.
const DEADLINES: [f64; 2] = [3.0, 15.0];

/// What is read beside the source that a case is about, and has to stay right.
const OTHERS: [(&str, &str, f64); 5] = [
    ("health", "rosey_bot_user_count", 7.0),
    ("metrics", "rosey_bot_error_count_total{error_type=\"critical\"}", 0.0),
    ("plugins", "rosey_plugins_running", 3.0),
    ("disk", "rosey_exporter_source_up{source=\"disk\"}", 1.0),
    ("backups", "rosey_backup_count", 2.0),
];

#[test]
fn whatever_a_bot_says_it_harms_its_own_series_only() {
    let good = FakeBot::start(&[]);
    good.set(r#"{"user_count": 7}"#);
    let folder = tempfile::tempdir().unwrap();
    for backup in ["backup_1", "backup_2"] {
        std::fs::write(folder.path().join(backup), "x").unwrap();
    }
    let cases = table::cases();
    assert!(cases.len() >= 70, "{}", cases.len());
    let (cases, complaints) = (Mutex::new(cases.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..EXPORTERS {
            let (good, folder, cases, complaints) = (&good, folder.path(), &cases, &complaints);
            scope.spawn(move || {
                let file = folder.join(format!("exporter-{number}.yaml"));
                std::fs::write(&file, "").unwrap();
                let exporter = Exporter::start(&["--config", file.to_str().unwrap()], &[]);
                let peak = exporter.process.peak();
                loop {
                    let Some(case) = cases.lock().unwrap().next() else {
                        break;
                    };
                    let name = case.name;
                    let found = play(&exporter, &file, good, folder, case);
                    let found = found.into_iter().map(|complaint| format!("{name}: {complaint}"));
                    complaints.lock().unwrap().extend(found);
                }
                let most = peak.most();
                if most > ENOUGH {
                    complaints.lock().unwrap().push(format!("an exporter took {most} KiB"));
                }
            });
        }
    });
    let complaints = complaints.into_inner().unwrap();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The answers of the bots that say one thing and come to an end, with the names of their cases.
pub fn pages_that_end() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    table::cases().into_iter().filter_map(|case| match case.bot {
        Bot::Says(answer) if case.source == Source::Metrics && answer.len() < 10_000 => Some((case.name, answer)),
        _ => None,
    })
}

/// Scrapes an exporter beside the bot of one case; what was not as it should be.
fn play(exporter: &Exporter, file: &Path, good: &FakeBot, folder: &Path, case: Case) -> Vec<String> {
    let source = case.source.name();
    let deadline = DEADLINES[usize::from(!case.bot.is_endless())];
    let turns = case.bot.turns();
    let hostile = case.bot.start();
    let mut config = format!(
        "disk: [{{label: x, path: {0}}}]\nbackups: {{path: {0}}}\n",
        folder.display()
    );
    for (name, path) in [
        ("health", "/api/health"),
        ("metrics", "/metrics"),
        ("plugins", "/api/metrics"),
    ] {
        let port = if name == source { hostile } else { good.port };
        // The source would wait for longer than anybody here does: only the deadline of the scrape can end it.
        let _ = writeln!(config, "{name}: {{port: {port}, path: {path}, timeoutSeconds: 60}}");
    }
    std::fs::write(file, config).unwrap();
    // On a busy machine a look at the file may have begun before; the one after that sees what is in it now.
    exporter.get("/ready");
    eventually("the configuration is in force", || {
        exporter
            .get("/health")
            .body
            .contains("\"configuration\":\"ok\"")
            .then_some(())
    });
    let mut complaints = Vec::new();
    let mut page = exporter.scrape_within(deadline);
    for turn in 0..turns {
        if turn > 0 {
            page = exporter.scrape_within(deadline);
        }
        let took = page.value(&format!(
            "rosey_exporter_source_duration_seconds{{source=\"{source}\"}}"
        ));
        if !took.is_some_and(|took| took < deadline) {
            complaints.push(format!("the source took {took:?} s of {deadline}"));
        }
    }
    page.is_accepted_by_promtool();

    let value = |series: &str| page.value(series);
    let mut expect = |what: &str, found: Option<f64>, wanted: Option<f64>| {
        if found != wanted {
            complaints.push(format!("{what} is {found:?} and not {wanted:?}"));
        }
    };
    expect(
        "the configuration",
        value("rosey_exporter_config_last_reload_successful"),
        Some(1.0),
    );
    for (other, series, wanted) in OTHERS.into_iter().filter(|(other, ..)| *other != source) {
        let up = format!("rosey_exporter_source_up{{source=\"{other}\"}}");
        expect(&up, value(&up), Some(1.0));
        expect(series, value(series), Some(wanted));
    }
    let down = case.shows.iter().any(|shows| matches!(shows, Shows::Down(_)));
    let up = format!("rosey_exporter_source_up{{source=\"{source}\"}}");
    expect(&up, value(&up), Some(f64::from(!down)));
    if case.source == Source::Health && down {
        expect("rosey_bot_up", value("rosey_bot_up"), Some(0.0));
    }
    for shows in &case.shows {
        match shows {
            Shows::Down(why) => {
                let health: serde_json::Value = serde_json::from_str(&exporter.get("/health").body).unwrap();
                let told = health["sources"][source].as_str().unwrap_or_default();
                expect(
                    &format!("/health says {told:?}, so {why:?}"),
                    told.find(why).map(|_| 1.0),
                    Some(1.0),
                );
                exporter.process.line_with(why);
            }
            Shows::Value(series, wanted) => expect(series, value(series), Some(*wanted)),
            Shows::Absent(series) => expect(series, page.series(series).first().map(|_| 1.0), None),
            Shows::Series(prefix, wanted) => expect(prefix, Some(count(&page, prefix)), Some(*wanted)),
            Shows::Dropped(reason, wanted) => {
                let series = format!("rosey_exporter_samples_dropped{{reason=\"{reason}\"}}");
                expect(&series, value(&series), Some(*wanted));
            }
        }
    }
    complaints
}

fn count(page: &Page, prefix: &str) -> f64 {
    f64::from(u32::try_from(page.series(prefix).len()).unwrap())
}
