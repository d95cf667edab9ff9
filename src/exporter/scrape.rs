//! One scrape: all sources at once, within the scraper's deadline, one reading shared by scrapes that overlap.

mod flight;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::bounds::Dropped;
use super::configuration::Configuration;
use super::locked;
use super::page::Page;
use super::push;
use super::sources::backups::Backups;
use super::sources::deployments::{self, Ledger};
use super::sources::disk::Disk;
use super::sources::fetch::Bot;
use super::sources::health::Health;
use super::sources::logs::{self, Logs};
use super::sources::metrics::Metrics;
use super::sources::plugins::Plugins;
use super::sources::{Source, below};
use super::state::Folder;
use super::text::{Alive, Answer, Draft};
use super::web_config::Web;
use crate::catalogue::metrics as series;
use crate::sidecar::config::{self, Config};
use flight::Line;

/// What is taken off the scraper's own time limit for the way back, where it is long enough.
const MARGIN: Duration = Duration::from_millis(500);
/// The time limit of a scraper that does not say its own: Prometheus's default.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a look at the configuration serves whoever comes next: several scrapers, or a crowd, need not wait for one each. No
/// Prometheus asks as often as that.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The exporter's state.
pub(super) struct Exporter {
    bot: Bot,
    rootfs: PathBuf,
    /// With the time of the last look at it.
    configuration: tokio::sync::Mutex<(Configuration, Option<Instant>)>,
    setup: watch::Sender<Setup>,
    deployments: Ledger,
    /// The folder of the state that the configuration names.
    folder: Mutex<Option<Arc<Folder>>>,
    /// What the sources said to those who still read it.
    alive: Arc<Mutex<Alive>>,
    /// What was last wrong with each source.
    problems: Mutex<BTreeMap<&'static str, Option<String>>>,
    web: Option<Arc<Web>>,
    pushes: Mutex<push::Tally>,
}

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// Whoever scrapes.
    Scraper,
    /// A Pushgateway, with or without what the bot itself calls metrics.
    Gateway { bot: bool },
}

/// What follows from the configuration in force.
#[derive(Clone, Default)]
pub(super) struct Setup {
    pub config: Option<Arc<Config>>,
    /// Why the configuration that was last seen is not in force.
    pub problem: Option<String>,
    lines: Vec<Arc<Line>>,
}

/// What a source is made of: two that are made of the same are the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Health(config::Endpoint),
    Metrics {
        endpoint: config::Endpoint,
        /// The families that the exporter itself answers for.
        reserved: BTreeSet<&'static str>,
    },
    Plugins {
        endpoint: config::Endpoint,
        /// Whether the bot's uptime is told from here.
        uptime: bool,
    },
    Disk(Vec<config::Disk>),
    Backups(config::Backups),
    Logs {
        logs: config::Logs,
        /// The folder that keeps how far it was read.
        state: Option<String>,
    },
}

impl Part {
    fn source(
        &self,
        bot: &Bot,
        rootfs: &Path,
        environment: Option<&str>,
        folder: Option<&Arc<Folder>>,
    ) -> Arc<dyn Source> {
        match self {
            Self::Health(endpoint) => Arc::new(Health::new(bot, endpoint)),
            Self::Metrics { endpoint, reserved } => {
                Arc::new(Metrics::new(bot, endpoint, reserved.clone(), environment))
            }
            Self::Plugins { endpoint, uptime } => Arc::new(Plugins::new(bot, endpoint, *uptime)),
            Self::Disk(folders) => Arc::new(Disk::new(rootfs, folders)),
            Self::Backups(backups) => Arc::new(Backups::new(rootfs, backups)),
            Self::Logs { logs, .. } => Arc::new(Logs::new(rootfs, logs, folder.cloned())),
        }
    }
}

impl Exporter {
    pub fn new(configuration: Configuration, bot: Bot, rootfs: PathBuf) -> Self {
        let exporter = Self {
            bot,
            rootfs,
            setup: watch::Sender::new(Setup::default()),
            deployments: Ledger::default(),
            folder: Mutex::default(),
            alive: Arc::default(),
            problems: Mutex::default(),
            web: None,
            pushes: Mutex::default(),
            configuration: tokio::sync::Mutex::const_new((configuration, None)),
        };
        if let Ok(configuration) = exporter.configuration.try_lock() {
            exporter.adopt(&configuration.0, true);
        }
        exporter
    }

    /// The same, of which `web` says who may ask.
    pub fn behind(self, web: Arc<Web>) -> Self {
        Self { web: Some(web), ..self }
    }

    /// Reads the configuration again if it has changed, unless somebody looked at it a moment ago.
    pub async fn refresh(&self) {
        let mut configuration = self.configuration.lock().await;
        let (configuration, looked) = &mut *configuration;
        if looked.is_some_and(|looked| looked.elapsed() < LOOK_INTERVAL) {
            return;
        }
        let changed = configuration.refresh().await;
        self.adopt(configuration, changed);
        *looked = Some(Instant::now());
    }

    fn adopt(&self, configuration: &Configuration, changed: bool) {
        let problem = configuration.problem().map(str::to_owned);
        self.setup.send_if_modified(|setup| {
            let different = changed || setup.problem != problem;
            setup.problem = problem;
            if changed {
                setup.config = configuration.current().cloned().map(Arc::new);
                let before = std::mem::take(&mut setup.lines);
                setup.lines = setup
                    .config
                    .as_ref()
                    .map(|config| self.lines(config, &before))
                    .unwrap_or_default();
                let stays = |line: &&Arc<Line>| before.iter().any(|other| Arc::ptr_eq(line, other));
                let stay: Vec<_> = setup
                    .lines
                    .iter()
                    .filter(stays)
                    .map(|line| line.source.name())
                    .collect();
                locked(&self.problems).retain(|source, _| stay.contains(source));
            }
            different
        });
    }

    /// The lines that a configuration asks for. Those that it leaves as they are go on: what they remember of the bot stays.
    fn lines(&self, config: &Config, before: &[Arc<Line>]) -> Vec<Arc<Line>> {
        let environment = config.environment.as_deref();
        let folder = self.folder(config);
        if config.deployments {
            self.deployments.keep_in(folder.as_ref());
        }
        let line = |part: Part| {
            let same = before.iter().find(|line| line.reads(&part, environment));
            same.cloned().unwrap_or_else(|| {
                Arc::new(Line::new(
                    part.clone(),
                    part.source(&self.bot, &self.rootfs, environment, folder.as_ref()),
                    environment,
                    self.alive.clone(),
                ))
            })
        };
        let parts = [
            config.health.clone().map(Part::Health),
            config.plugins.clone().map(|endpoint| Part::Plugins {
                endpoint,
                uptime: config.health.is_none(),
            }),
            (!config.disk.is_empty()).then(|| Part::Disk(config.disk.clone())),
            config.backups.clone().map(Part::Backups),
            config.logs.clone().map(|logs| Part::Logs {
                logs,
                state: config.state.clone(),
            }),
        ];
        let mut lines: Vec<_> = parts.into_iter().flatten().map(line).collect();
        if let Some(endpoint) = config.metrics.clone() {
            // Reserved also where the operator speaks of deployments, and not this exporter: a bot must not.
            let ours = lines
                .iter()
                .flat_map(|line| line.source.families())
                .chain(&series::DEPLOYMENTS);
            let reserved = ours.map(|metric| metric.name).collect();
            lines.push(line(Part::Metrics { endpoint, reserved }));
        }
        lines
    }

    /// The folder of the state, the same one for as long as its path is the same.
    fn folder(&self, config: &Config) -> Option<Arc<Folder>> {
        let path = config.state.as_ref().map(|path| below(&self.rootfs, path));
        let mut folder = locked(&self.folder);
        if folder.as_ref().map(|folder| folder.path()) != path.as_deref() {
            *folder = path.map(|path| Arc::new(Folder::new(path)));
        }
        folder.clone()
    }

    /// The setup in force, and its changes.
    pub fn setup(&self) -> watch::Receiver<Setup> {
        self.setup.subscribe()
    }

    /// Records what happened to the bot; says whether that outlives the exporter, where something is meant to.
    pub async fn record(&self, event: deployments::Event) -> Option<bool> {
        tracing::info!(?event, "recorded");
        self.deployments.record(event).await
    }

    /// What was last wrong, by source; nothing where all was well.
    pub fn problems(&self) -> BTreeMap<&'static str, Option<String>> {
        locked(&self.problems).clone()
    }

    /// What is wrong with the pushes, where there are any.
    pub fn pushing(&self) -> Option<Result<(), String>> {
        let setup = self.setup.borrow();
        let pushes = setup.config.as_ref().is_some_and(|config| config.pushgateway.is_some());
        pushes.then(|| {
            self.pushes()
                .problem()
                .map_or(Ok(()), |problem| Err(problem.to_owned()))
        })
    }

    /// What became of the pushes.
    pub fn pushes(&self) -> MutexGuard<'_, push::Tally> {
        locked(&self.pushes)
    }

    /// What one scrape is answered, within `limit`.
    pub async fn scrape(&self, limit: Option<Duration>) -> Answer {
        self.answer(limit, Reader::Scraper).await
    }

    /// What is pushed; `bot` says whether what the bot itself calls metrics is in it.
    pub async fn pushed(&self, limit: Duration, bot: bool) -> Answer {
        self.answer(Some(limit), Reader::Gateway { bot }).await
    }

    async fn answer(&self, limit: Option<Duration>, reader: Reader) -> Answer {
        let deadline = Instant::now() + budget(limit);
        self.refresh().await;
        let setup = self.setup.borrow().clone();
        let outcomes = flight::read_all(&setup.lines, deadline).await;

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
        if let Some(successful) = self.web.as_ref().and_then(|web| web.last_reload_successful()) {
            page.add(
                &series::EXPORTER_WEB_CONFIG_LAST_RELOAD_SUCCESSFUL,
                &[],
                f64::from(successful),
            );
        }
        for (line, outcome) in setup.lines.iter().zip(&outcomes) {
            self.note(line, outcome.problem.as_deref());
            let labels = &[("source", line.source.name())];
            page.add(
                &series::EXPORTER_SOURCE_UP,
                labels,
                f64::from(outcome.problem.is_none()),
            );
            page.add(
                &series::EXPORTER_SOURCE_DURATION_SECONDS,
                labels,
                outcome.took.as_secs_f64(),
            );
            dropped.add(&outcome.dropped);
        }
        for (reason, number) in dropped.by_reason() {
            #[expect(clippy::cast_precision_loss, reason = "a sample is a double")]
            page.add(&series::EXPORTER_SAMPLES_DROPPED, &[("reason", reason)], number as f64);
        }
        let config = setup.config.as_deref();
        let is_meant = |concern: &str| match concern {
            logs::CONCERN => config.is_some_and(|config| config.logs.is_some()),
            deployments::CONCERN => config.is_some_and(|config| config.deployments),
            _ => false,
        };
        if let Some(saved) = locked(&self.folder).as_ref().and_then(|folder| folder.saved(is_meant)) {
            page.add(&series::EXPORTER_STATE_SAVED, &[], f64::from(saved));
        }
        let environment = config.and_then(|config| config.environment.as_deref());
        if config.is_some_and(|config| config.pushgateway.is_some()) {
            self.pushes().print(&mut page, reader != Reader::Scraper);
        }
        let text = |page: &Page| {
            let mut draft = Draft::default();
            page.print(&mut draft, environment);
            draft.finish()
        };
        let mut answer = Answer::default();
        answer.push(text(&page));
        // One after the other and not merged: no two sources have a family in common, and the bot's page may be large.
        for (line, outcome) in setup.lines.iter().zip(&outcomes) {
            if reader != (Reader::Gateway { bot: false }) || !matches!(line.part, Part::Metrics { .. }) {
                answer.push(outcome.text.clone());
            }
        }
        if config.is_some_and(|config| config.deployments)
            && let Some(page) = self.deployments.page()
        {
            answer.push(text(&page));
        }
        answer
    }

    /// Logs what has changed for a source, and remembers it, unless the configuration dropped the source meanwhile.
    fn note(&self, line: &Arc<Line>, problem: Option<&str>) {
        let setup = self.setup.borrow();
        if !setup.lines.iter().any(|current| Arc::ptr_eq(current, line)) {
            return;
        }
        let (source, problem) = (line.source.name(), problem.map(str::to_owned));
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
mod tests;
