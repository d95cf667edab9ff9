//! One scrape: all sources at once, within the scraper's deadline, one reading shared by scrapes that overlap.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::{Shared, WeakShared, join_all};
use tokio::sync::watch;
use tokio::time::Instant;

use super::bounds::Dropped;
use super::configuration::Configuration;
use super::locked;
use super::page::Page;
use super::sources::backups::Backups;
use super::sources::deployments::{self, Deployments};
use super::sources::disk::Disk;
use super::sources::fetch::Bot;
use super::sources::health::Health;
use super::sources::metrics::Metrics;
use super::sources::{Reading, Source};
use crate::catalogue::metrics as series;
use crate::sidecar::config::Config;

/// What is taken off the scraper's own time limit for the way back, where it is long enough.
const MARGIN: Duration = Duration::from_millis(500);
/// The time limit of a scraper that does not say its own: Prometheus's default.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

type Flight = Pin<Box<dyn Future<Output = Arc<(Reading, Duration)>> + Send>>;

/// A source, and the reading of it that is on its way.
struct Line {
    source: Arc<dyn Source>,
    flight: Mutex<Option<WeakShared<Flight>>>,
}

impl Line {
    fn new(source: impl Source + 'static) -> Arc<Self> {
        Arc::new(Self {
            source: Arc::new(source),
            flight: Mutex::default(),
        })
    }

    /// Joins the reading on its way, or starts one. It ends when nobody waits for it any more.
    fn board(&self) -> Shared<Flight> {
        let mut flight = locked(&self.flight);
        // One that has arrived is over: scrapes that overlap in a chain would otherwise see its values for ever.
        if let Some(under_way) = flight
            .as_ref()
            .and_then(WeakShared::upgrade)
            .filter(|shared| shared.peek().is_none())
        {
            return under_way;
        }
        let source = self.source.clone();
        let started: Flight = Box::pin(async move {
            let start = Instant::now();
            let limit = source.timeout();
            let reading = tokio::time::timeout(limit, source.clone().read()).await;
            let reading = reading.unwrap_or_else(|_| late(&*source, limit));
            Arc::new((reading, start.elapsed()))
        });
        let shared = started.shared();
        *flight = shared.downgrade();
        shared
    }

    async fn read(&self, deadline: Instant) -> Arc<(Reading, Duration)> {
        let start = Instant::now();
        match tokio::time::timeout_at(deadline, self.board()).await {
            Ok(reading) => reading,
            Err(_) => Arc::new((late(&*self.source, start.elapsed()), start.elapsed())),
        }
    }
}

fn late(source: &dyn Source, after: Duration) -> Reading {
    Reading::failed(
        source.unanswered(),
        format!("no answer within {:.1} s", after.as_secs_f64()),
    )
}

/// The exporter's state.
pub(super) struct Exporter {
    bot: Bot,
    rootfs: PathBuf,
    configuration: tokio::sync::Mutex<Configuration>,
    setup: watch::Sender<Setup>,
    deployments: Mutex<Deployments>,
    /// What was last wrong with each source.
    problems: Mutex<BTreeMap<&'static str, Option<String>>>,
}

/// What follows from the configuration in force.
#[derive(Clone, Default)]
pub(super) struct Setup {
    pub config: Option<Arc<Config>>,
    /// Why the configuration that was last seen is not in force.
    pub problem: Option<String>,
    lines: Vec<Arc<Line>>,
}

impl Exporter {
    pub fn new(configuration: Configuration, bot: Bot, rootfs: PathBuf) -> Self {
        let exporter = Self {
            bot,
            rootfs,
            setup: watch::Sender::new(Setup::default()),
            deployments: Mutex::default(),
            problems: Mutex::default(),
            configuration: tokio::sync::Mutex::const_new(configuration),
        };
        if let Ok(configuration) = exporter.configuration.try_lock() {
            exporter.adopt(&configuration, true);
        }
        exporter
    }

    /// Reads the configuration again if it has changed.
    pub async fn refresh(&self) {
        let mut configuration = self.configuration.lock().await;
        let changed = configuration.refresh().await;
        self.adopt(&configuration, changed);
    }

    fn adopt(&self, configuration: &Configuration, changed: bool) {
        let problem = configuration.problem().map(str::to_owned);
        self.setup.send_if_modified(|setup| {
            let different = changed || setup.problem != problem;
            setup.problem = problem;
            if changed {
                setup.config = configuration.current().cloned().map(Arc::new);
                setup.lines = setup
                    .config
                    .as_ref()
                    .map(|config| self.lines(config))
                    .unwrap_or_default();
                locked(&self.problems).clear();
            }
            different
        });
    }

    fn lines(&self, config: &Config) -> Vec<Arc<Line>> {
        let mut lines = Vec::new();
        if let Some(endpoint) = &config.health {
            lines.push(Line::new(Health::new(&self.bot, endpoint)));
        }
        if !config.disk.is_empty() {
            lines.push(Line::new(Disk::new(&self.rootfs, &config.disk)));
        }
        if let Some(backups) = &config.backups {
            lines.push(Line::new(Backups::new(&self.rootfs, backups)));
        }
        if let Some(endpoint) = &config.metrics {
            // Reserved also where the operator speaks of deployments, and not this exporter: a bot must not.
            let ours = lines
                .iter()
                .flat_map(|line| line.source.families())
                .chain(&series::DEPLOYMENTS)
                .copied();
            let metrics = Metrics::new(&self.bot, endpoint, ours);
            lines.push(Line::new(metrics));
        }
        lines
    }

    /// The setup in force, and its changes.
    pub fn setup(&self) -> watch::Receiver<Setup> {
        self.setup.subscribe()
    }

    /// What happened to the bot.
    pub fn record(&self, event: deployments::Event) {
        locked(&self.deployments).record(event, SystemTime::now());
        tracing::info!(?event, "recorded");
    }

    /// What was last wrong, by source; nothing where all was well.
    pub fn problems(&self) -> BTreeMap<&'static str, Option<String>> {
        locked(&self.problems).clone()
    }

    /// What one scrape is answered, within `limit`.
    pub async fn scrape(&self, limit: Option<Duration>) -> String {
        let deadline = Instant::now() + budget(limit);
        self.refresh().await;
        let setup = self.setup.borrow().clone();
        let read = |line: Arc<Line>| async move { (line.source.name(), line.read(deadline).await) };
        let readings = join_all(setup.lines.iter().cloned().map(read)).await;

        let (mut page, mut dropped) = (Page::default(), Dropped::default());
        page.add(
            &series::EXPORTER_BUILD_INFO,
            &[("version", env!("CARGO_PKG_VERSION"))],
            1.0,
        );
        page.add(
            &series::EXPORTER_CONFIG_LAST_RELOAD_SUCCESSFUL,
            &[],
            f64::from(setup.problem.is_none()),
        );
        for (source, outcome) in &readings {
            let (reading, took) = &**outcome;
            self.note(source, reading.problem.as_deref());
            let labels = &[("source", *source)];
            page.add(
                &series::EXPORTER_SOURCE_UP,
                labels,
                f64::from(reading.problem.is_none()),
            );
            page.add(&series::EXPORTER_SOURCE_DURATION_SECONDS, labels, took.as_secs_f64());
            dropped.add(&reading.dropped);
        }
        for (reason, number) in dropped.by_reason() {
            #[expect(clippy::cast_precision_loss, reason = "a sample is a double")]
            page.add(&series::EXPORTER_SAMPLES_DROPPED, &[("reason", reason)], number as f64);
        }
        let config = setup.config.as_deref();
        let environment = config.and_then(|config| config.environment.as_deref());
        let mut out = String::with_capacity(8 << 10);
        page.print(&mut out, environment);
        // One after the other and not merged: no two sources have a family in common, and the bot's page may be large.
        for (_, outcome) in &readings {
            outcome.0.page.print(&mut out, environment);
        }
        if config.is_some_and(|config| config.deployments) {
            locked(&self.deployments).page().print(&mut out, environment);
        }
        out
    }

    /// Logs what has changed for a source, and remembers it.
    fn note(&self, source: &'static str, problem: Option<&str>) {
        let problem = problem.map(str::to_owned);
        let before = locked(&self.problems).insert(source, problem.clone());
        match (before.flatten(), problem) {
            (None, Some(problem)) => tracing::warn!(source, problem, "the source can't be read"),
            (Some(_), None) => tracing::info!(source, "the source can be read again"),
            _ => {}
        }
    }
}

/// How long the sources may take.
fn budget(limit: Option<Duration>) -> Duration {
    let limit = limit.unwrap_or(DEFAULT_DEADLINE);
    limit.saturating_sub(MARGIN.min(limit / 2))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::catalogue::metrics::Metric;

    /// Takes its time, and counts how often it is read and how often to the end.
    struct Slow {
        takes: Duration,
        begun: AtomicU32,
        ended: AtomicU32,
    }

    impl Source for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }
        fn timeout(&self) -> Duration {
            Duration::from_secs(2)
        }
        fn families(&self) -> &'static [&'static Metric] {
            &[]
        }
        fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
            Box::pin(async move {
                self.begun.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(self.takes).await;
                self.ended.fetch_add(1, Ordering::Relaxed);
                Reading::default()
            })
        }
    }

    fn line(takes: Duration) -> (Arc<Slow>, Line) {
        let slow = Arc::new(Slow {
            takes,
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
        });
        (
            slow.clone(),
            Line {
                source: slow,
                flight: Mutex::default(),
            },
        )
    }

    fn counts(slow: &Slow) -> (u32, u32) {
        (slow.begun.load(Ordering::Relaxed), slow.ended.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn scrapes_that_overlap_share_a_reading_and_keep_their_own_deadlines() {
        let (slow, line) = line(Duration::from_secs(1));
        let now = Instant::now();
        let patient = line.read(now + Duration::from_secs(5));
        let hasty = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let reading = line.read(now + Duration::from_millis(300)).await;
            (reading, now.elapsed())
        };
        let (patient, (hasty, after)) = tokio::join!(patient, hasty);
        assert!(patient.0.problem.is_none());
        assert_eq!(hasty.0.problem.as_deref(), Some("no answer within 0.2 s"));
        assert_eq!(after.as_millis() / 10, 30);
        assert_eq!(counts(&slow), (1, 1));

        line.read(Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(counts(&slow), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_nobody_waits_for_ends() {
        let (slow, line) = line(Duration::from_secs(1));
        line.read(Instant::now() + Duration::from_millis(100)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(counts(&slow), (1, 0));
        assert!(
            line.read(Instant::now() + Duration::from_secs(5))
                .await
                .0
                .problem
                .is_none()
        );
        assert_eq!(counts(&slow), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_sources_own_timeout_ends_a_reading_before_a_late_deadline() {
        let (_, line) = line(Duration::from_secs(60));
        let start = Instant::now();
        let reading = line.read(start + Duration::from_secs(9)).await;
        assert_eq!(reading.0.problem.as_deref(), Some("no answer within 2.0 s"));
        assert_eq!(start.elapsed().as_secs(), 2);
    }

    #[test]
    fn the_way_back_gets_its_share_of_the_deadline() {
        let milliseconds = |limit: u64| budget(Some(Duration::from_millis(limit))).as_millis();
        assert_eq!([10_000, 1_000, 600, 0].map(milliseconds), [9_500, 500, 300, 0]);
        assert_eq!(budget(None).as_millis(), 9_500);
    }
}
