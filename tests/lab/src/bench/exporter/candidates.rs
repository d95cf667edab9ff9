//! What is measured: each exporter as a process of its own, in front of a bot.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{Process, Supervisor, free_port, rosey};
use rustls::{ClientConfig, RootCertStore};

use super::answer::value;
use super::heavy_bot;
use super::scraper::{Scraper, Target};
use crate::bench::measure::{Usage, usage};

/// How long a process may take to answer for the first time.
const START: Duration = Duration::from_secs(20);

/// The sources that read the heavy bot, as the exporter's configuration names them, with the paths at which it answers.
const HEAVY_SOURCES: [(&str, &str); 3] = [
    ("health", "/api/health"),
    ("metrics", "/metrics"),
    ("plugins", "/api/metrics"),
];

/// The peer's module: six fields of the health document.
const MODULE: &str = "\
modules:
  bot:
    metrics:
      - {name: rosey_bot_connected, path: '{ .connected }', help: Whether the bot is connected}
      - {name: rosey_bot_uptime_seconds, path: '{ .uptime }', help: Seconds since the bot started}
      - {name: rosey_bot_response_time_ms, path: '{ .response_time_ms }', help: Average response time}
      - {name: rosey_bot_memory_mb, path: '{ .memory_mb }', help: Memory}
      - {name: rosey_bot_user_count, path: '{ .user_count }', help: Users}
      - {name: rosey_bot_requests_total, path: '{ .requests }', help: Requests, valuetype: counter}
";

/// Which one it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Ours,
    OursTls,
    /// Ours, with as much to read as may pass.
    Heavy,
    JsonExporter,
    JsonExporterTls,
    /// The bot, asked for its health document by the scraper: nothing that reads it can be faster.
    Bot,
}

/// One that runs.
pub struct Candidate {
    pub kind: Kind,
    pub name: String,
    pub target: Target,
    pub process: Process,
    /// What it had used after its first answer.
    pub idle: Usage,
    /// Bytes of its binary.
    pub binary: u64,
    /// That first answer.
    pub page: String,
}

/// Where everything is started from.
pub struct Stand<'a> {
    pub supervisor: &'a Supervisor,
    pub folder: &'a Path,
    pub exporter: &'a Path,
    pub json_exporter: &'a Path,
}

/// The folder that `tools/peers` built into.
pub fn json_exporter() -> Result<PathBuf> {
    let output = Command::new(rosey::file("tools/peers"))
        .arg("path")
        .output()
        .context("run tools/peers path")?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("json_exporter");
    ensure!(path.exists(), "{} is not built; run: tools/peers", path.display());
    Ok(path)
}

/// What keeps the processors awake.
#[derive(Debug)]
pub struct Awake(Vec<Process>);

/// How far what keeps a processor awake counts before it asks whether anybody else wants to: some 30 µs.
const TURN: u32 = 100_000;

/// Keeps the processor awake that it runs on. If it only ran on, the scheduler would let it have a whole tick of 4 ms now and then,
/// however idle its class; and a processor that does nothing but yield wakes others late.
pub fn stay_awake() -> ! {
    loop {
        for turn in 0..TURN {
            std::hint::black_box(turn);
        }
        std::thread::yield_now();
    }
}

impl Awake {
    /// # Errors
    ///
    /// When one has ended, at the start or since: what was measured without it is not what the table says.
    pub fn still(&self) -> Result<()> {
        for process in &self.0 {
            ensure!(
                process.is_running(),
                "chrt, of util-linux, does not run{}",
                process.log_tail()
            );
        }
        Ok(())
    }
}

impl Stand<'_> {
    /// The fake bot, to be read by the others and to be measured itself.
    pub fn fake_bot(&self, binary: &Path) -> Result<Candidate> {
        let control = free_port()?;
        let mut command = Command::new(binary);
        command.args(["--control-port", &control.to_string()]);
        let listens = |command: &mut Command, port: u16| {
            command.args(["--port", &port.to_string()]);
        };
        let path = "/api/health".into();
        self.start(Kind::Bot, "(the bot itself)", command, listens, path, None, |page| {
            ensure!(page.contains("\"running\""), "the bot does not run");
            Ok(())
        })
    }

    /// Has every processor busy with what gives way to anything else. One that sleeps takes a virtual machine 50 µs and more
    /// to wake, a scrape wakes one four times, and that is not the exporters' doing.
    pub fn keep_awake(&self) -> Result<Awake> {
        let this = std::env::current_exe()?;
        let start = |processor| {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(&this).arg("awake");
            let name = format!("awake-{processor}");
            let log = self.folder.join(format!("{name}.log"));
            self.supervisor.spawn(&name, &mut command, &log)
        };
        let awake = Awake(
            (0..std::thread::available_parallelism()?.get())
                .map(start)
                .collect::<Result<_>>()?,
        );
        awake.still()?;
        Ok(awake)
    }

    /// Our exporter in front of a bot, as in a pod: its configuration is a file that is looked at again.
    pub fn ours(&self, bot: SocketAddr) -> Result<Candidate> {
        self.rosey_exporter(Kind::Ours, "rosey-exporter", bot, &HEAVY_SOURCES[..1], None)
    }

    /// The same, with TLS.
    pub fn ours_with_tls(&self, bot: SocketAddr, web: &Web) -> Result<Candidate> {
        self.rosey_exporter(
            Kind::OursTls,
            "rosey-exporter, TLS",
            bot,
            &HEAVY_SOURCES[..1],
            Some(web),
        )
    }

    /// Our exporter in front of a bot that says as much as may pass.
    pub fn heavy(&self) -> Result<Candidate> {
        let bot = heavy_bot::serve()?;
        let mut candidate = self.rosey_exporter(Kind::Heavy, "", bot, &HEAVY_SOURCES, None)?;
        let count = |prefix: &str| candidate.page.lines().filter(|line| line.starts_with(prefix)).count();
        let (series, plugins) = (count(heavy_bot::PREFIX), count("rosey_plugin_uptime_seconds"));
        candidate.name = format!("rosey-exporter, {series} series and {plugins} plugins");
        Ok(candidate)
    }

    fn rosey_exporter(
        &self,
        kind: Kind,
        name: &str,
        bot: SocketAddr,
        sources: &[(&str, &str)],
        web: Option<&Web>,
    ) -> Result<Candidate> {
        let config = self.folder.join(format!("{kind:?}.yaml"));
        let port = bot.port();
        let source = |(source, path): &(&str, &str)| format!("{source}: {{port: {port}, path: {path}}}\n");
        std::fs::write(&config, sources.iter().map(source).collect::<String>())?;
        let mut command = Command::new(self.exporter);
        command.arg("--config").arg(config).args(["--listen", "127.0.0.1"]);
        if let Some(web) = web {
            command.arg("--web.config.file").arg(&web.file);
        }
        let listens = |command: &mut Command, port: u16| {
            command.args(["--port", &port.to_string()]);
        };
        self.start(kind, name, command, listens, "/metrics".into(), web, |page| {
            ensure!(value(page, "rosey_bot_up") == Some(1.0), "rosey_bot_up is not 1");
            let down = page.lines().find(|line| {
                line.starts_with("rosey_exporter_source_up{") && value(line, "rosey_exporter_source_up") != Some(1.0)
            });
            ensure!(down.is_none(), "a source can't be read: {down:?}");
            Ok(())
        })
    }

    /// The peer in front of a bot.
    pub fn json_exporter(&self, bot: SocketAddr, web: Option<&Web>) -> Result<Candidate> {
        let output = Command::new(self.json_exporter)
            .arg("--version")
            .output()
            .context("run json_exporter --version")?;
        // It says so on standard error.
        let said = String::from_utf8_lossy(&output.stderr);
        let version = said.split_whitespace().nth(2).context("json_exporter's version")?;
        let (kind, name) = match web {
            None => (Kind::JsonExporter, format!("json_exporter {version}")),
            Some(_) => (Kind::JsonExporterTls, format!("json_exporter {version}, TLS")),
        };
        let module = self.folder.join("module.yml");
        std::fs::write(&module, MODULE)?;
        let mut command = Command::new(self.json_exporter);
        command.arg("--config.file").arg(module);
        if let Some(web) = web {
            command.arg("--web.config.file").arg(&web.file);
        }
        let listens = |command: &mut Command, port: u16| {
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        };
        let path = format!("/probe?module=bot&target=http://{bot}/api/health");
        self.start(kind, &name, command, listens, path, web, |page| {
            for (field, expected) in [("connected", 1.0), ("user_count", 12.0), ("memory_mb", 180.0)] {
                let series = format!("rosey_bot_{field}");
                ensure!(value(page, &series) == Some(expected), "{series} is not {expected}");
            }
            Ok(())
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing in which two exporters differ"
    )]
    fn start(
        &self,
        kind: Kind,
        name: &str,
        mut command: Command,
        listens: impl Fn(&mut Command, u16),
        path: String,
        web: Option<&Web>,
        check: fn(&str) -> Result<()>,
    ) -> Result<Candidate> {
        let port = free_port()?;
        listens(&mut command, port);
        let log = self.folder.join(format!("{kind:?}.log"));
        let target = Target {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            path,
            tls: web.map(|web| web.client.clone()),
            check,
        };
        let binary = std::fs::metadata(command.get_program())
            .context("the size of the binary")?
            .len();
        let process = self.supervisor.spawn(&format!("{kind:?}"), &mut command, &log)?;
        let page = answered(&process, &target)?;
        let idle = usage(&process)?;
        Ok(Candidate {
            kind,
            name: name.to_owned(),
            target,
            process,
            idle,
            binary,
            page,
        })
    }
}

/// The first right page.
fn answered(process: &Process, target: &Target) -> Result<String> {
    let start = Instant::now();
    loop {
        match Scraper::new(target).page() {
            Ok(page) => return Ok(page),
            Err(_) if start.elapsed() < START && process.is_running() => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => bail!("{error:#}{}", process.log_tail()),
        }
    }
}

/// A certificate of our own: exporter-toolkit's file for a server, and what a client trusts.
pub struct Web {
    file: PathBuf,
    client: Arc<ClientConfig>,
}

impl Web {
    pub fn new(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        std::fs::write(folder.join("cert.pem"), made.cert.pem())?;
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
        let file = folder.join("web.yml");
        std::fs::write(&file, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n")?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            file,
            client: Arc::new(client),
        })
    }
}
