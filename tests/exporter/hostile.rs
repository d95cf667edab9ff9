//! Bots that say whatever they like: a table of them, against exporters that read everything there is to read.

mod bot;
mod logs;
mod table;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
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
    let cases = table::cases();
    assert!(cases.len() >= 75, "{}", cases.len());
    play_all(cases, |case| case.name, play);
}

/// What is well while a case is played, and the file of its exporter.
struct Stage<'a> {
    exporter: &'a Exporter,
    file: PathBuf,
    good: &'a FakeBot,
    folder: &'a Path,
}

/// Plays cases, of which each says what was not as it should be.
fn play_all<C: Send>(cases: Vec<C>, name: fn(&C) -> &'static str, play: fn(&Stage<'_>, C) -> Vec<String>) {
    let good = FakeBot::start(&[]);
    good.set(r#"{"user_count": 7}"#);
    let folder = tempfile::tempdir().unwrap();
    for backup in ["backup_1", "backup_2"] {
        std::fs::write(folder.path().join(backup), "x").unwrap();
    }
    let (cases, complaints) = (Mutex::new(cases.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..EXPORTERS {
            let (good, folder, cases, complaints) = (&good, folder.path(), &cases, &complaints);
            scope.spawn(move || {
                let file = folder.join(format!("exporter-{number}.yaml"));
                std::fs::write(&file, "").unwrap();
                let exporter = Exporter::start(&["--config", file.to_str().unwrap()], &[]);
                let peak = exporter.process.peak();
                let stage = Stage {
                    exporter: &exporter,
                    file,
                    good,
                    folder,
                };
                loop {
                    let Some(case) = cases.lock().unwrap().next() else {
                        break;
                    };
                    let name = name(&case);
                    let found = play(&stage, case);
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

impl Stage<'_> {
    /// Gives the exporter every source: `source` as `hostile` says, or at its port, and all others well.
    fn configure(&self, source: Source, hostile: &Hostile) {
        let mut config = format!(
            "disk: [{{label: x, path: {0}}}]\nbackups: {{path: {0}}}\n",
            self.folder.display()
        );
        if let Hostile::Log(path) = hostile {
            let _ = writeln!(config, "logs: {{path: {}}}", path.display());
        }
        for (other, path) in [
            (Source::Health, "/api/health"),
            (Source::Metrics, "/metrics"),
            (Source::Plugins, "/api/metrics"),
        ] {
            let port = match hostile {
                Hostile::Port(port) if other == source => *port,
                _ => self.good.port,
            };
            let name = other.name();
            // The source would wait for longer than anybody here does: only the deadline of the scrape can end it.
            let _ = writeln!(config, "{name}: {{port: {port}, path: {path}, timeoutSeconds: 60}}");
        }
        std::fs::write(&self.file, config).unwrap();
        self.exporter.look_again();
        eventually("the configuration is in force", || {
            let health = self.exporter.get("/health").body;
            health.contains("\"configuration\":\"ok\"").then_some(())
        });
    }

    /// Scrapes; complains where the source is not done with in time.
    fn scrape(&self, source: Source, deadline: f64, complaints: &mut Vec<String>) -> Page {
        let page = self.exporter.scrape_within(deadline);
        let took = page.value(&format!(
            "rosey_exporter_source_duration_seconds{{source=\"{}\"}}",
            source.name()
        ));
        if !took.is_some_and(|took| took < deadline) {
            complaints.push(format!("the source took {took:?} s of {deadline}"));
        }
        page
    }

    /// What `/health` says of a source.
    fn told(&self, source: Source) -> String {
        let health: serde_json::Value = serde_json::from_str(&self.exporter.get("/health").body).unwrap();
        health["sources"][source.name()].as_str().unwrap_or_default().to_owned()
    }
}

/// Where a source is hostile.
enum Hostile {
    Port(u16),
    Log(PathBuf),
}

/// Scrapes an exporter beside the bot of one case; what was not as it should be.
fn play(stage: &Stage<'_>, case: Case) -> Vec<String> {
    let deadline = DEADLINES[usize::from(!case.bot.is_endless())];
    let turns = case.bot.turns();
    stage.configure(case.source, &Hostile::Port(case.bot.start()));
    let mut complaints = Vec::new();
    let mut page = stage.scrape(case.source, deadline, &mut complaints);
    for _ in 1..turns {
        page = stage.scrape(case.source, deadline, &mut complaints);
    }
    judge(stage, &page, case.source, &case.shows, &mut complaints);
    complaints
}

/// Complains about what is not on a page as it should be.
fn judge(stage: &Stage<'_>, page: &Page, hostile: Source, shows: &[Shows], complaints: &mut Vec<String>) {
    page.is_accepted_by_promtool();
    let source = hostile.name();

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
        // Where there is a log, errors are counted there.
        let (series, wanted) = match other {
            "metrics" if hostile == Source::Logs => ("rosey_exporter_samples_dropped{reason=\"reserved\"}", 7.0),
            _ => (series, wanted),
        };
        let up = format!("rosey_exporter_source_up{{source=\"{other}\"}}");
        expect(&up, value(&up), Some(1.0));
        expect(series, value(series), Some(wanted));
    }
    let down = shows.iter().any(|shows| matches!(shows, Shows::Down(_)));
    let up = format!("rosey_exporter_source_up{{source=\"{source}\"}}");
    expect(&up, value(&up), Some(f64::from(!down)));
    if hostile == Source::Health && down {
        expect("rosey_bot_up", value("rosey_bot_up"), Some(0.0));
    }
    for shows in shows {
        match shows {
            Shows::Down(why) => {
                let told = stage.told(hostile);
                expect(
                    &format!("/health says {told:?}, so {why:?}"),
                    told.find(why).map(|_| 1.0),
                    Some(1.0),
                );
                stage.exporter.process.line_with(why);
            }
            Shows::Value(series, wanted) => expect(series, value(series), Some(*wanted)),
            Shows::Absent(series) => expect(series, page.series(series).first().map(|_| 1.0), None),
            Shows::Series(prefix, wanted) => expect(prefix, Some(count(page, prefix)), Some(*wanted)),
            Shows::Dropped(reason, wanted) => {
                let series = format!("rosey_exporter_samples_dropped{{reason=\"{reason}\"}}");
                expect(&series, value(&series), Some(*wanted));
            }
        }
    }
}

fn count(page: &Page, prefix: &str) -> f64 {
    f64::from(u32::try_from(page.series(prefix).len()).unwrap())
}
