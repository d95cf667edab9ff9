//! The bot and the exporter, as processes, and what they say.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::kinds::Kinds;
use super::measure::{Sample, sample};

/// Both processes; they end with this value.
pub struct Scene {
    folder: tempfile::TempDir,
    _bot: Child,
    _exporter: Child,
    exporter_id: u32,
    bot_port: u16,
    control: String,
    pub address: String,
    pub http: reqwest::Client,
    compared: Mutex<Compared>,
}

/// What was written and counted when both were last compared.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    pub written: Kinds,
    pub between: u64,
    pub counted: Kinds,
}

/// What a scrape was answered.
pub struct Page(String);

impl Page {
    /// The value of a series; 0 if it is not there.
    pub fn value(&self, series: &str) -> f64 {
        let line = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// Lines of the log that were counted.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
    pub fn kinds(&self) -> Kinds {
        let counts = |line: &&str| {
            line.starts_with("rosey_bot_log_lines_total{")
                || line.starts_with("rosey_exporter_log_lines_unparsed_total{")
        };
        let counters = self.0.lines().filter(counts).filter_map(|line| line.rsplit_once(' '));
        counters
            .map(|(series, value)| (series.to_owned(), value.parse::<f64>().unwrap_or_default() as u64))
            .collect()
    }

    /// Whether the log is read.
    pub fn is_up(&self) -> bool {
        self.reads("logs")
    }

    pub fn reads(&self, source: &str) -> bool {
        self.value(&format!("rosey_exporter_source_up{{source=\"{source}\"}}")) > 0.0
    }
}

impl Scene {
    /// Starts both.
    pub async fn start(exporter: Option<&Path>) -> Result<Self> {
        let exporter = exporter.map_or_else(|| lab::rosey::binary("rosey-exporter"), |path| Ok(path.to_owned()))?;
        let folder = tempfile::tempdir().context("a folder for log and state")?;
        std::fs::create_dir(folder.path().join("state"))?;
        let bot_says = folder.path().join("bot.out");
        let bot = Command::new(lab::rosey::binary("fake-bot")?)
            .args(["--port", "0", "--control-port", "0", "--drift", "--log"])
            .arg(folder.path().join("rosey.log"))
            .stdout(std::fs::File::create(&bot_says)?)
            .kill_on_drop(true)
            .spawn()
            .context("start the fake bot")?;
        let addresses = said(&bot_says, "bot on http://").await?;
        let (bot_address, control) = addresses
            .split_once(" control on http://")
            .context("two addresses of the bot")?;
        let bot_port = bot_address.rsplit(':').next().unwrap_or_default().parse()?;
        let control = control.trim_end_matches("/control").to_owned();

        let config = folder.path().join("exporter.yaml");
        std::fs::write(&config, configuration(folder.path(), bot_port, 0))?;
        let exporter_says = folder.path().join("exporter.err");
        let exporter = Command::new(&exporter)
            .args(["--listen", "127.0.0.1", "--port", "0", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&exporter_says)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", exporter.display()))?;
        let address = said(&exporter_says, "listening on http://").await?;
        Ok(Self {
            exporter_id: exporter.id().context("the exporter has ended")?,
            _bot: bot,
            _exporter: exporter,
            bot_port,
            control,
            address,
            // A connection each: those that stay idle may be closed at the moment in which they are used again.
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(20))
                .pool_max_idle_per_host(0)
                .build()?,
            compared: Mutex::default(),
            folder,
        })
    }

    pub fn sample(&self) -> Result<Sample> {
        sample(self.exporter_id)
    }

    /// A whole answer: one that is given up for the sake of newer ones is asked for again.
    pub async fn scrape(&self) -> Result<Page> {
        eventually(PATIENCE, "an answer", async || {
            self.scrape_by(&self.http).await.map(Some)
        })
        .await
    }

    pub async fn scrape_by(&self, client: &reqwest::Client) -> Result<Page> {
        let asked = client
            .get(format!("http://{}/metrics", self.address))
            .header("X-Prometheus-Scrape-Timeout-Seconds", "2");
        Ok(Page(asked.send().await?.error_for_status()?.text().await?))
    }

    /// The lines that were counted. While the log can't be read, its counters are not there.
    pub async fn counted(&self) -> Result<Kinds> {
        let page = eventually(PATIENCE, "the log to be read", async || {
            let page = self.scrape().await?;
            Ok(page.is_up().then_some(page))
        });
        Ok(page.await?.kinds())
    }

    async fn control(&self, path: &str, change: Option<Value>) -> Result<Value> {
        let url = format!("http://{}{path}", self.control);
        let asked = match change {
            Some(change) => self.http.post(url).body(change.to_string()),
            None => self.http.get(url),
        };
        let answer = asked.send().await.context("the bot's control")?.error_for_status()?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }

    pub async fn bot_writes(&self, lines_per_second: u32) -> Result<()> {
        let log = json!({"lines_per_second": lines_per_second, "garbage_per_mille": 5, "long_per_mille": 1});
        self.control("/control", Some(json!({"log": log}))).await.map(drop)
    }

    pub async fn bot_rotates(&self, how: &str) -> Result<()> {
        self.control("/control", Some(json!({"rotate": how}))).await.map(drop)
    }

    pub async fn bot_breaks(&self, fault: &str) -> Result<()> {
        self.control("/control", Some(json!({"fault": fault}))).await.map(drop)
    }

    pub async fn recover(&self) -> Result<()> {
        self.control("/control/recover", Some(Value::Null)).await.map(drop)
    }

    /// All lines that the bot wrote, by the series that has to count them, and how many it wrote between copy and truncation.
    pub async fn written(&self) -> Result<(Kinds, u64)> {
        let state = self.control("/control", None).await?;
        let written = &state["log"]["written"];
        let count = |value: &Value, what: &str| value.as_u64().with_context(|| format!("{what} of the bot"));
        let levels = written["levels"].as_object().context("levels of the bot")?;
        let levels = levels.iter().map(|(level, lines)| {
            let series = format!("rosey_bot_log_lines_total{{level=\"{}\"}}", level.to_lowercase());
            Ok((series, count(lines, level)?))
        });
        let unread = [("invalid", "garbage"), ("too_long", "too_long")].map(|(reason, field)| {
            let series = format!("rosey_exporter_log_lines_unparsed_total{{reason=\"{reason}\"}}");
            Ok((series, count(&written[field], field)?))
        });
        let kinds: Kinds = levels.chain(unread).collect::<Result<_>>()?;
        let lines = count(&written["lines"], "lines")?;
        ensure!(
            kinds.sum() == lines,
            "the bot wrote {lines} lines, and {} of them by kind",
            kinds.sum()
        );
        let between = &written["between_copy_and_truncation"];
        Ok((kinds, count(between, "lines between copy and truncation")?))
    }

    pub fn compared(&self) -> Compared {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn remember(&self, compared: Compared) {
        *self.compared.lock().unwrap_or_else(PoisonError::into_inner) = compared;
    }

    /// Writes the configuration anew: another one each time, and one in seven that is none.
    pub fn reconfigure(&self, turn: usize) -> Result<()> {
        let text = configuration(self.folder.path(), self.bot_port, turn);
        let new = self.folder.path().join("exporter.yaml.new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(&new, self.folder.path().join("exporter.yaml"))?)
    }
}

/// The log stays as it is; what surrounds it changes.
fn configuration(folder: &Path, bot_port: u16, turn: usize) -> String {
    let folder = folder.display();
    let disk = if turn.is_multiple_of(2) {
        format!("disk: [{{label: all, path: {folder}}}]\n")
    } else {
        String::new()
    };
    let broken = if turn % 7 == 6 { "backups: [\n" } else { "" };
    format!(
        "health: {{port: {bot_port}, path: /api/health, timeoutSeconds: 0.5}}\n\
         metrics: {{port: {bot_port}, path: /metrics, timeoutSeconds: 0.5}}\n\
         plugins: {{port: {bot_port}, path: /api/metrics, timeoutSeconds: 0.5}}\n\
         logs: {{path: {folder}/rosey.log}}\nstate: {folder}/state\ndeployments: true\n\
         backups: {{path: {folder}, pattern: \"*{turn}\"}}\n{disk}{broken}"
    )
}

/// The rest of the first line with `begin` in it that a process writes to a file.
async fn said(file: &PathBuf, begin: &str) -> Result<String> {
    eventually(PATIENCE, begin, async || {
        let text = std::fs::read_to_string(file)?;
        let line = text.lines().find_map(|line| line.split_once(begin));
        // A line is whole once its line feed is there.
        Ok(line
            .filter(|_| text.ends_with('\n'))
            .map(|(_, rest)| rest.trim().to_owned()))
    })
    .await
}
