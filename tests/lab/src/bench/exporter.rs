//! `lab bench-exporter`: our exporter beside `json_exporter`, on the same health document, machine and minute. Run it in a release
//! build (`make bench-exporter`).

mod answer;
mod candidates;
mod heavy_bot;
mod report;
mod scraper;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Quantiles, Supervisor, rosey};

pub use self::candidates::stay_awake;
use self::candidates::{Candidate, Kind, Stand, Web};
use self::report::Row;
use self::scraper::Scraper;
use super::measure::{Usage, usage, usage_of};

const EXAMPLES: &str = "\
Examples:
  make bench-exporter
  make bench-exporter BENCH='--scrapes 10000 --crowded 5000'
  lab bench-exporter --exporter target/debug/rosey-exporter    what a debug build says is no measurement";

/// What is measured, and how long.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Size {
    /// Scrapes of each exporter over one connection
    #[arg(long, default_value_t = 100_000)]
    scrapes: usize,
    /// Connections at once in the second part
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Scrapes of each exporter over all these connections together
    #[arg(long, default_value_t = 50_000)]
    crowded: usize,
    /// Scrapes beside a bot with 10,000 series
    #[arg(long, default_value_t = 2_000)]
    heavy: usize,
    /// Rounds of each part; within each the exporters take turns, so that all of them see the same machine
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// The exporter; default: the one beside this program
    #[arg(long, value_name = "FILE")]
    exporter: Option<PathBuf>,
    /// The bot; default: the one beside this program
    #[arg(long, value_name = "FILE")]
    fake_bot: Option<PathBuf>,
    /// The exporter beside it; default: the one that tools/peers builds
    #[arg(long, value_name = "FILE")]
    json_exporter: Option<PathBuf>,
}

/// Runs the benchmark and prints its tables as Markdown.
///
/// # Errors
/// When something can't be started, or one of the scrapes failed or brought a wrong page.
pub fn run(size: &Size) -> Result<()> {
    ensure!(
        size.rounds > 0 && size.connections > 1 && size.scrapes >= 10 * size.rounds,
        "at least ten scrapes a round, one round and two connections are needed"
    );
    let folder = tempfile::tempdir()?;
    let guard = Guard(Supervisor::start(Some(folder.path()))?);
    let given = |path: &Option<PathBuf>, name| path.clone().map_or_else(|| rosey::binary(name), Ok);
    let (exporter, fake_bot) = (
        given(&size.exporter, "rosey-exporter")?,
        given(&size.fake_bot, "fake-bot")?,
    );
    let json_exporter = size.json_exporter.clone().map_or_else(candidates::json_exporter, Ok)?;
    let stand = Stand {
        supervisor: &guard.0,
        folder: folder.path(),
        exporter: &exporter,
        json_exporter: &json_exporter,
    };
    let web = Web::new(folder.path())?;
    let awake = stand.keep_awake()?;
    let fake_bot = stand.fake_bot(&fake_bot)?;
    let bot = fake_bot.target.address;
    let candidates = [
        stand.ours(bot)?,
        stand.json_exporter(bot, None)?,
        stand.ours_with_tls(bot, &web)?,
        stand.json_exporter(bot, Some(&web))?,
        fake_bot,
    ];

    eprintln!("{} scrapes of each over one connection …", size.scrapes);
    let mut load = Load::default();
    let mut rows = measure(&candidates, 1, size.scrapes, size.rounds, &mut load)?;

    eprintln!(
        "{} scrapes of each over {} connections …",
        size.crowded, size.connections
    );
    let plain: Vec<_> = candidates
        .into_iter()
        .filter(|one| matches!(one.kind, Kind::Ours | Kind::JsonExporter))
        .collect();
    let crowded = measure(&plain, size.connections, size.crowded, size.rounds, &mut load)?;

    eprintln!(
        "{} scrapes beside a bot with {} series …",
        size.heavy,
        heavy_bot::SERIES
    );
    let heavy = stand.heavy()?;
    let series = heavy
        .page
        .lines()
        .filter(|line| line.starts_with(heavy_bot::PREFIX))
        .count();
    // Not in `load`: the bot runs in this process.
    rows.extend(measure(&[heavy], 1, size.heavy, size.rounds, &mut Load::default())?);
    rows.extend(crowded);

    awake.still()?;
    report::table(&rows, size.scrapes);
    println!(
        "\n¹ after {} more over {} connections ² after {}\n",
        size.crowded, size.connections, size.heavy
    );
    report::aims(&rows, heavy_bot::SERIES, series);
    println!(
        "\nThe load itself took {:.0} µs of CPU a scrape. A connection was ended by the other side, and opened again, {} times.",
        load.cpu * 1e6 / load.scrapes as f64,
        load.reopened
    );
    Ok(())
}

/// Ends what was started.
struct Guard(Supervisor);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// What the scrapers themselves took.
#[derive(Default)]
struct Load {
    scrapes: usize,
    /// Seconds.
    cpu: f64,
    reopened: usize,
}

/// One candidate on its way through the rounds.
struct Course<'c> {
    candidate: &'c Candidate,
    scrapers: Vec<Scraper>,
    before: Usage,
    early: Option<f64>,
    milliseconds: Vec<f64>,
    wall: Duration,
}

fn measure(
    candidates: &[Candidate],
    connections: usize,
    total: usize,
    rounds: usize,
    load: &mut Load,
) -> Result<Vec<Row>> {
    let mut courses = Vec::new();
    for candidate in candidates {
        let mut scrapers: Vec<_> = (0..connections).map(|_| Scraper::new(&candidate.target)).collect();
        for scraper in &mut scrapers {
            scraper.page()?;
        }
        courses.push(Course {
            candidate,
            scrapers,
            before: usage(&candidate.process)?,
            early: None,
            milliseconds: Vec::new(),
            wall: Duration::ZERO,
        });
    }
    let each = total.div_ceil(rounds * connections);
    for round in 0..rounds {
        // Whoever is first has the caches that the others' checks left behind, so it is another one each time.
        let first = round % courses.len();
        courses.rotate_left(first);
        for course in &mut courses {
            course.round(each, load)?;
            if course.early.is_none() && round + 1 >= rounds.div_ceil(10) {
                course.early = Some(usage(&course.candidate.process)?.resident);
            }
        }
        courses.rotate_right(first);
    }
    courses.into_iter().map(Course::row).collect()
}

impl Course<'_> {
    fn round(&mut self, each: usize, load: &mut Load) -> Result<()> {
        let own = usage_of(std::process::id())?.cpu;
        self.wall += scraper::round(&mut self.scrapers, each)?;
        load.cpu += usage_of(std::process::id())?.cpu - own;
        let mut outcome = scraper::check(&mut self.scrapers)?;
        load.scrapes += outcome.milliseconds.len();
        load.reopened += outcome.reopened;
        self.milliseconds.append(&mut outcome.milliseconds);
        Ok(())
    }

    fn row(self) -> Result<Row> {
        let Candidate {
            kind,
            name,
            idle,
            binary,
            ..
        } = self.candidate;
        let after = usage(&self.candidate.process)?;
        let scrapes = self.milliseconds.len() as f64;
        Ok(Row {
            kind: *kind,
            name: name.clone(),
            connections: self.scrapers.len(),
            per_second: scrapes / self.wall.as_secs_f64(),
            cpu: (after.cpu - self.before.cpu) * 1e6 / scrapes,
            resident: [idle.resident, self.early.unwrap_or(after.resident), after.resident],
            binary: *binary,
            times: Quantiles::of(super::some(self.milliseconds)?),
        })
    }
}
