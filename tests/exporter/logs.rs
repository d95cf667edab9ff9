//! The bot's log, followed while it is written and rotated, and what outlives the exporter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::processes::{Exporter, FakeBot, Page, eventually};

/// A bot with a log, and the folders of log and state.
struct Scene {
    bot: FakeBot,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        let log = folder.path().join("rosey.log");
        let bot = FakeBot::start(&["--log", log.to_str().unwrap()]);
        Self { bot, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An exporter that reads the log, and has counted what there is of it.
    fn exporter(&self, state: bool) -> Exporter {
        let logs = format!("logs: {{path: {}}}\n", self.path("rosey.log").display());
        let state = state.then(|| format!("state: {}\n", self.path("state").display()));
        start(&self.path("exporter.yaml"), &(logs + &state.unwrap_or_default()))
    }

    fn writes(&self, lines_per_second: u32) {
        self.bot
            .set(&format!("{{\"log\": {{\"lines_per_second\": {lines_per_second}}}}}"));
    }

    fn rotates(&self, how: &str) {
        self.bot.set(&format!("{{\"rotate\": \"{how}\"}}"));
    }

    fn written(&self) -> Value {
        self.bot.state()["log"]["written"].clone()
    }

    /// Waits until the bot has written so many lines more.
    fn goes_on(&self, lines: u64) {
        let written = || self.written()["lines"].as_u64().unwrap();
        let goal = written() + lines;
        eventually("the bot writes", || (written() >= goal).then_some(()));
    }
}

fn start(file: &Path, config: &str) -> Exporter {
    std::fs::write(file, config).unwrap();
    let exporter = Exporter::start(&["--config", file.to_str().unwrap()], &[]);
    eventually("the log is read", || is_up(&exporter.scrape()).then_some(()));
    exporter
}

fn is_up(page: &Page) -> bool {
    page.value("rosey_exporter_source_up{source=\"logs\"}") == Some(1.0)
}

/// Every counter of lines and executions, as the bot or as the exporter has it.
type Counts = BTreeMap<String, u64>;

fn expected(written: &Value) -> Counts {
    let mut counts: Counts = ["debug", "info", "warning", "error", "critical"]
        .map(|level| {
            let lines = written["levels"][level.to_uppercase()].as_u64();
            (
                format!("rosey_bot_log_lines_total{{level=\"{level}\"}}"),
                lines.unwrap_or(0),
            )
        })
        .into();
    for (reason, field) in [("invalid", "garbage"), ("too_long", "too_long")] {
        let series = format!("rosey_exporter_log_lines_unparsed_total{{reason=\"{reason}\"}}");
        counts.insert(series, written[field].as_u64().unwrap());
    }
    for (command, both) in written["commands"].as_object().unwrap() {
        for (success, place) in [("true", 0), ("false", 1)] {
            let series = format!("bot_commands_total{{command=\"{command}\",success=\"{success}\"}}");
            counts.insert(series, both[place].as_u64().unwrap());
        }
    }
    counts
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters of a test"
)]
fn counted(page: &Page, expected: &Counts) -> Counts {
    let value = |series: &String| page.value(series).unwrap_or(0.0) as u64;
    expected.keys().map(|series| (series.clone(), value(series))).collect()
}

/// Lines of all kinds.
fn lines(page: &Page) -> u64 {
    let kinds = ["rosey_bot_log_lines_total", "rosey_exporter_log_lines_unparsed_total"];
    let series = kinds.into_iter().flat_map(|kind| page.series(kind));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters of a test"
    )]
    series.map(|series| page.value(series).unwrap() as u64).sum()
}

/// Waits until the exporter has counted exactly what the bot wrote, and makes sure that it stays so.
fn counts_exactly(scene: &Scene, exporter: &Exporter) {
    let expected = expected(&scene.written());
    let mut last = Counts::new();
    let start = std::time::Instant::now();
    while last != expected {
        assert!(
            start.elapsed() < super::processes::PATIENCE,
            "{last:#?} are not {expected:#?}"
        );
        std::thread::sleep(Duration::from_millis(50));
        last = counted(&exporter.scrape(), &expected);
    }
    // Twice the time between two of its looks: a line that is counted again would be by then.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(counted(&exporter.scrape(), &expected), expected);
}

#[test]
fn no_line_is_missed_or_doubled_over_rotations_by_rename_create_and_removal() {
    let scene = Scene::new();
    let exporter = scene.exporter(false);
    scene
        .bot
        .set(r#"{"log": {"lines_per_second": 5000, "garbage_per_mille": 20, "long_per_mille": 1}}"#);
    scene.goes_on(2_000);
    for how in [
        "rename", "create", "rapid", "create", "rename", "rapid", "rapid", "create",
    ] {
        scene.rotates(how);
        scene.goes_on(1_500);
    }
    scene.writes(0);
    counts_exactly(&scene, &exporter);
    // What nobody has looked at can't be found again once it is removed.
    for _ in 0..3 {
        scene.rotates("delete");
        scene.bot.set(r#"{"log": {"lines_per_second": 5000}}"#);
        scene.goes_on(500);
        scene.writes(0);
        counts_exactly(&scene, &exporter);
    }
    let page = exporter.scrape();
    assert_eq!(page.value("rosey_exporter_log_rotations_total"), Some(17.0));
    assert_eq!(page.value("rosey_exporter_log_truncations_total"), Some(0.0));
    assert_eq!(page.value("rosey_exporter_log_unread_bytes"), Some(0.0));
    assert!(!page.0.contains("user_id") && !page.0.contains("guild"), "{}", page.0);
    page.is_accepted_by_promtool();
}

#[test]
fn copy_and_truncate_costs_at_most_the_lines_between_the_two() {
    let scene = Scene::new();
    let exporter = scene.exporter(false);
    scene.writes(5_000);
    scene.goes_on(1_000);
    for _ in 0..8 {
        scene.rotates("copy-truncate");
        scene.goes_on(700);
    }
    scene.writes(0);
    let written = scene.written();
    let (all, between) = (
        written["lines"].as_u64().unwrap(),
        written["between_copy_and_truncation"].as_u64().unwrap(),
    );
    assert_eq!(between, 24);
    eventually("the log is counted", || {
        (lines(&exporter.scrape()) + between >= all).then_some(())
    });
    std::thread::sleep(Duration::from_millis(600));
    let page = exporter.scrape();
    assert!(
        (all - between..=all).contains(&lines(&page)),
        "{} of {all}",
        lines(&page)
    );
    // Two of them between two looks can't be told from a rotation.
    let count = |what: &str| page.value(&format!("rosey_exporter_log_{what}_total")).unwrap();
    assert!(count("truncations") > 0.0, "{}", page.0);
    assert_eq!(count("truncations") + count("rotations"), 8.0);
    assert_eq!(
        page.value("rosey_exporter_log_lines_unparsed_total{reason=\"invalid\"}"),
        Some(0.0)
    );
}

#[test]
fn a_killed_exporter_goes_on_without_a_line_missing_or_doubled() {
    let scene = Scene::new();
    let mut exporter = scene.exporter(true);
    scene.writes(3_000);
    for how in ["create", "rename", "rapid"] {
        scene.goes_on(500);
        // Killed without a warning, at any moment between two savings.
        drop(exporter);
        scene.rotates(how);
        scene.goes_on(500);
        exporter = scene.exporter(true);
        scene.goes_on(500);
        scene.rotates(how);
    }
    scene.writes(0);
    counts_exactly(&scene, &exporter);
    let before = exporter.scrape();
    drop(exporter);
    let exporter = scene.exporter(true);
    let page = exporter.scrape();
    assert_eq!(lines(&page), lines(&before), "at the very first scrape");
    assert_eq!(page.value("rosey_exporter_state_saved"), Some(1.0));

    // Without its state it begins at the end.
    std::fs::remove_file(scene.path("state/logs.json")).unwrap();
    drop(exporter);
    assert_eq!(lines(&scene.exporter(true).scrape()), 0);
}

#[test]
fn a_state_that_is_of_no_use_is_put_aside_and_one_that_can_not_be_saved_is_said() {
    let scene = Scene::new();
    std::fs::write(scene.path("state/logs.json"), "{\"rosey_exporter\": \"logs\", \"vers").unwrap();
    let exporter = scene.exporter(true);
    assert_eq!(exporter.scrape().value("rosey_exporter_state_saved"), Some(1.0));
    assert!(scene.path("state/logs.json.unusable").exists());
    drop(exporter);

    std::fs::remove_dir_all(scene.path("state")).unwrap();
    let exporter = scene.exporter(true);
    assert_eq!(exporter.scrape().value("rosey_exporter_state_saved"), Some(0.0));
    scene.writes(1_000);
    scene.goes_on(100);
    scene.writes(0);
    counts_exactly(&scene, &exporter);
}

#[test]
fn deployments_outlive_the_exporter_where_it_has_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let config = folder.path().join("exporter.yaml");
    let text = format!("deployments: true\nstate: {}\n", state.display());
    std::fs::write(&config, text).unwrap();
    let exporter = || Exporter::start(&["--config", config.to_str().unwrap()], &[]);
    let failures = |exporter: &Exporter| {
        let series = "rosey_deployment_total{status=\"failed\"}";
        eventually("the deployments are read", || exporter.scrape().value(series))
    };
    let record = |exporter: &Exporter| {
        let form = "application/x-www-form-urlencoded";
        let answer = exporter.post("/record_deployment", form, "status=failed&duration=1.5");
        assert_eq!(answer.status, 200);
        serde_json::from_str::<Value>(&answer.body).unwrap()["saved"].clone()
    };
    let first = exporter();
    assert_eq!(record(&first), false, "there is no folder");
    std::fs::create_dir(&state).unwrap();
    assert_eq!(record(&first), true);
    drop(first);

    let second = exporter();
    assert_eq!(failures(&second), 2.0);
    assert_eq!(record(&second), true);
    let page = second.scrape();
    assert_eq!(page.value("rosey_deployment_duration_seconds_sum"), Some(4.5));
    assert!(page.value("rosey_deployment_last_failure_timestamp").unwrap() > 1.7e9);
    assert_eq!(page.value("rosey_exporter_state_saved"), Some(1.0));
    page.is_accepted_by_promtool();
}

#[test]
fn a_log_that_is_not_there_is_said_and_found_later() {
    let folder = tempfile::tempdir().unwrap();
    let (log, config) = (folder.path().join("later.log"), folder.path().join("exporter.yaml"));
    std::fs::write(&config, format!("logs: {{path: {}}}\n", log.display())).unwrap();
    let exporter = Exporter::start(&["--config", config.to_str().unwrap()], &[]);
    let page = exporter.scrape();
    assert!(!is_up(&page));
    // Nothing was written, and the first error is to be seen as an increase.
    let errors = "rosey_bot_error_count_total{error_type=\"error\"}";
    assert_eq!(page.value(errors), Some(0.0));
    let health = exporter.get("/health").body;
    assert!(health.contains("later.log: is not there"), "{health}");

    std::fs::create_dir(&log).unwrap();
    eventually("a folder is seen to be none", || {
        exporter.scrape();
        exporter
            .get("/health")
            .body
            .contains("later.log: is not a file")
            .then_some(())
    });
    std::fs::remove_dir(&log).unwrap();
    std::fs::write(&log, "{\"level\": \"ERROR\"}\n").unwrap();
    eventually("the log is read", || {
        (exporter.scrape().value(errors) == Some(1.0)).then_some(())
    });
    assert!(is_up(&exporter.scrape()));
}

#[test]
fn a_change_elsewhere_in_the_configuration_leaves_the_log_as_it_is() {
    let scene = Scene::new();
    let exporter = scene.exporter(false);
    scene.writes(1_000);
    scene.goes_on(200);
    let config = format!(
        "logs: {{path: {}}}\nbackups: {{path: /nonexistent}}\n",
        scene.path("rosey.log").display()
    );
    std::fs::write(scene.path("exporter.yaml"), config).unwrap();
    eventually("the configuration is read", || {
        exporter.scrape().value("rosey_backup_count")
    });
    scene.writes(0);
    counts_exactly(&scene, &exporter);
}

#[test]
fn a_log_that_is_not_read_any_more_has_no_say_in_whether_all_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let (log, config) = (folder.path().join("rosey.log"), folder.path().join("exporter.yaml"));
    let state = folder.path().join("logs.json");
    std::os::unix::fs::symlink(&state, &state).unwrap();
    let others = format!("deployments: true\nstate: {}\n", folder.path().display());
    std::fs::write(&config, format!("logs: {{path: {}}}\n{others}", log.display())).unwrap();
    let exporter = Exporter::start(&["--config", config.to_str().unwrap()], &[]);
    let saved = |is: f64| (exporter.scrape().value("rosey_exporter_state_saved") == Some(is)).then_some(());
    eventually("the log's state is told", || saved(0.0));
    std::fs::write(&config, others).unwrap();
    eventually("the deployments are saved", || saved(1.0));
}

#[test]
fn whatever_the_log_says_memory_is_bounded() {
    let scene = Scene::new();
    let exporter = scene.exporter(true);
    let peak = exporter.process.peak();
    let commands: Vec<String> = (0..5_000).map(|number| format!("{number:0250}")).collect();
    let log = serde_json::json!({"log": {
        "lines_per_second": 20_000, "commands": commands, "garbage_per_mille": 100, "long_per_mille": 20,
    }});
    scene.bot.set(&log.to_string());
    for how in ["rapid", "copy-truncate", "create", "rapid"] {
        scene.goes_on(4_000);
        scene.rotates(how);
        let page = exporter.scrape();
        assert!(page.series("rosey_bot_command_count_total{").len() <= 200);
    }
    scene.writes(0);
    let page = exporter.scrape();
    assert!(
        page.value("rosey_exporter_log_commands_dropped_total{reason=\"too_many_values\"}")
            .unwrap()
            > 1_000.0
    );
    let most = peak.most();
    assert!(most < 12 << 10, "{most} KiB");
    page.is_accepted_by_promtool();
}
