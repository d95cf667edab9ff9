//! Flags and environment variables.

mod push;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;

use super::configuration::{self, Configuration};
use super::sources::below;
use super::sources::fetch::Bot;
use crate::sidecar::config::{
    BACKUPS_PATTERN, Backups, Config, Disk, Endpoint, HEALTH_PATH, Logs, METRICS_PATH, PLUGINS_PATH, TIMEOUT_SECONDS,
};
use crate::sidecar::{DEFAULT_PORT, ENV_BOT_HOST, ENV_LISTEN, ENV_ROOTFS};

const EXAMPLES: &str = "\
Examples:
  # In a pod: all from one file, which is read again when it changes
  rosey-exporter --config /etc/rosey/exporter.yaml

  # On a plain host: health of the bot at 127.0.0.1:8000, deployments recorded
  ENVIRONMENT=prod rosey-exporter

  # The same with the bot's own metrics, its disk and its backups
  ENVIRONMENT=prod rosey-exporter --metrics-port 8000 --disk root=/ --backups /opt/rosey-bot/backups/prod

  # Also its plugins and its log, and counters that outlive a restart
  ENVIRONMENT=prod rosey-exporter --plugins-port 8080 --log /var/log/rosey/rosey.log --state /var/lib/rosey-exporter

  # Push to a Pushgateway as well
  ENVIRONMENT=prod PUSHGATEWAY_URL=http://pushgateway:9091 rosey-exporter --push-label team=chat

  # Look whether a file can be used, before it is
  rosey-exporter --check exporter.yaml

  # Tell it of a deployment
  curl -d environment=prod -d status=success -d duration=42 http://localhost:9100/record_deployment

Environment variables (a flag goes first; a value that can't be read is reported and ignored,
except for ROSEY_LISTEN, which becomes 127.0.0.1):
  METRICS_PORT     as --port
  PUSHGATEWAY_URL  as --push-url; http unless it says https
  ENVIRONMENT      as --environment
  ROSEY_LISTEN     as --listen
  ROSEY_BOT_HOST   as --bot-host
  ROSEY_ROOTFS     as --path.rootfs
  ROSEY_WEB_CONFIG_FILE  as --web.config.file
  RUST_LOG         what is logged: error, warn, info (default), debug";

/// Watches a chat bot for Prometheus: reads its health, metrics, disk and backups whenever it is scraped.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "rosey-exporter", version, after_help = EXAMPLES)]
pub struct Options {
    /// Configuration file; the flags from --environment on describe a bot on a plain host and are not used with it
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Say whether this configuration file can be used, and if not which field is wrong; serve nothing (exit code 0 or 1)
    #[arg(long, value_name = "FILE", exclusive = true)]
    check: Option<PathBuf>,
    /// Port to serve on; default: that of the configuration file, or 9100; 0: any that is free, and the log says which
    #[arg(long)]
    port: Option<u16>,
    /// Address to serve on; default: all of them
    #[arg(long, value_name = "IP")]
    listen: Option<IpAddr>,
    /// Host at which the bot answers; default 127.0.0.1
    #[arg(long, value_name = "HOST")]
    bot_host: Option<String>,
    /// Folder below which every absolute path is read
    #[arg(long = "path.rootfs", value_name = "FOLDER")]
    rootfs: Option<PathBuf>,
    /// File with TLS, users and limits of the pages served here, as exporter-toolkit has it; it is read again before every request
    #[arg(long = "web.config.file", value_name = "FILE")]
    web_config_file: Option<String>,

    /// Label `environment` of the bot's series
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    environment: Option<String>,
    /// Port of the bot's health document; default 8000, in the environment test 8001
    #[arg(long, value_name = "PORT", conflicts_with = "config")]
    health_port: Option<u16>,
    /// Path of the bot's health document
    #[arg(long, value_name = "PATH", default_value = HEALTH_PATH, conflicts_with = "config")]
    health_path: String,
    /// Port of the bot's own metrics; without it they are not read
    #[arg(long, value_name = "PORT", conflicts_with = "config")]
    metrics_port: Option<u16>,
    /// Path of the bot's own metrics
    #[arg(long, value_name = "PATH", default_value = METRICS_PATH, conflicts_with = "config")]
    metrics_path: String,
    /// Port of the bot's plugins, as a JSON document; without it they are not read
    #[arg(long, value_name = "PORT", conflicts_with = "config")]
    plugins_port: Option<u16>,
    /// Path of the bot's plugins
    #[arg(long, value_name = "PATH", default_value = PLUGINS_PATH, conflicts_with = "config")]
    plugins_path: String,
    /// Seconds that the bot may take for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT_SECONDS, conflicts_with = "config")]
    timeout: f64,
    /// The bot's log, JSON documents in lines; followed as it grows
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    log: Option<String>,
    /// Folder whose file system is reported, with its label; may be repeated
    #[arg(long, value_name = "LABEL=FOLDER", value_parser = disk, conflicts_with = "config")]
    disk: Vec<Disk>,
    /// Folder that holds the bot's backups
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    backups: Option<String>,
    /// Which names in it are backups: * stands for any characters, ? for one
    #[arg(long, value_name = "PATTERN", default_value = BACKUPS_PATTERN, conflicts_with = "config")]
    backups_pattern: String,
    /// Folder that outlives the exporter: counts of deployments and of the log go on after a restart
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    state: Option<String>,
    #[command(flatten)]
    push: push::PushFlags,
}

/// What the exporter starts with.
pub(super) struct Start {
    pub configuration: Configuration,
    pub bot: Bot,
    pub rootfs: PathBuf,
    pub web_config_file: Option<PathBuf>,
    pub listen: Option<IpAddr>,
    /// A port that goes before the configuration's.
    pub port: Option<u16>,
}

fn disk(text: &str) -> Result<Disk, String> {
    match text.split_once('=') {
        Some((label, path)) if !label.is_empty() && !path.is_empty() => Ok(Disk {
            label: label.into(),
            path: path.into(),
        }),
        _ => Err("write LABEL=FOLDER, for example root=/".into()),
    }
}

impl Options {
    /// What `--check` comes to, where it is given: what there is to say, and whether the file can be used.
    #[must_use]
    pub fn checked(&self) -> Option<Result<String, String>> {
        let path = self.check.as_deref()?;
        let verdict = configuration::check(path);
        Some(verdict.map(|()| format!("{} can be used", path.display())))
    }

    /// Puts flags and environment variables together. Kubernetes gives pods variables for each Service, and one named `metrics`
    /// makes `METRICS_PORT=tcp://10.0.0.1:80`: so a variable that can't be read must not stop anything.
    pub(super) fn resolve(self, variable: impl Fn(&str) -> Option<String>) -> Start {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let rootfs = self
            .rootfs
            .or_else(|| given(ENV_ROOTFS).map(PathBuf::from))
            .unwrap_or_else(|| "/".into());
        let bot_host = self.bot_host.or_else(|| given(ENV_BOT_HOST));
        let bot = Bot::at(bot_host.unwrap_or_else(|| "127.0.0.1".into()));
        let web_config_file = self
            .web_config_file
            .filter(|file| !file.is_empty())
            .or_else(|| given("ROSEY_WEB_CONFIG_FILE"))
            .map(|file| {
                if file.starts_with('/') {
                    below(&rootfs, &file)
                } else {
                    file.into()
                }
            });
        let listen = self.listen.or_else(|| {
            let address = given(ENV_LISTEN)?;
            // Whoever wrote it wanted fewer than all.
            Some(address.parse().unwrap_or_else(|_| {
                tracing::warn!(
                    variable = ENV_LISTEN,
                    address,
                    "is not an IP address; listening on 127.0.0.1 alone"
                );
                Ipv4Addr::LOCALHOST.into()
            }))
        });
        let port = self
            .port
            .or_else(|| read("METRICS_PORT", given("METRICS_PORT")).map(NonZeroU16::get));
        let configuration = if let Some(file) = &self.config {
            Configuration::file(below(&rootfs, file))
        } else {
            let environment = self.environment.or_else(|| given("ENVIRONMENT"));
            let health_port = if environment.as_deref() == Some("test") {
                8001
            } else {
                8000
            };
            let endpoint = |port, path| Endpoint {
                port,
                path,
                timeout_seconds: self.timeout,
            };
            Configuration::fixed(Config {
                environment,
                port: Some(DEFAULT_PORT),
                health: Some(endpoint(self.health_port.unwrap_or(health_port), self.health_path)),
                metrics: self.metrics_port.map(|port| endpoint(port, self.metrics_path)),
                plugins: self.plugins_port.map(|port| endpoint(port, self.plugins_path)),
                logs: self.log.map(|path| Logs { path }),
                disk: self.disk,
                backups: self.backups.map(|path| Backups {
                    path,
                    pattern: self.backups_pattern,
                }),
                deployments: true,
                state: self.state,
                pushgateway: self.push.gateway(given("PUSHGATEWAY_URL")),
            })
        };
        Start {
            configuration,
            bot,
            rootfs,
            web_config_file,
            listen,
            port,
        }
    }
}

fn read<T: FromStr>(name: &str, value: Option<String>) -> Option<T> {
    let value = value?;
    let read = value.parse().ok();
    if read.is_none() {
        tracing::warn!(
            variable = name,
            value,
            "ignored an environment variable that can't be read"
        );
    }
    read
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn start(flags: &[&str], variables: &[(&str, &str)]) -> Start {
        let options = Options::try_parse_from(["rosey-exporter"].iter().chain(flags)).unwrap();
        options.resolve(|name| {
            variables
                .iter()
                .find(|(other, _)| *other == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn fixed(start: &Start) -> &Config {
        start.configuration.current().unwrap()
    }

    #[test]
    fn without_a_file_the_flags_describe_a_plain_host() {
        let plain = start(&[], &[]);
        let health = Endpoint {
            port: 8000,
            path: "/api/health".into(),
            timeout_seconds: 2.0,
        };
        assert_eq!(
            *fixed(&plain),
            Config {
                port: Some(9100),
                health: Some(health),
                deployments: true,
                ..Config::default()
            }
        );
        assert_eq!(
            (plain.bot.host.as_str(), plain.port, plain.listen),
            ("127.0.0.1", None, None)
        );

        let flags = [
            "--metrics-port",
            "8000",
            "--disk",
            "root=/",
            "--backups",
            "/b",
            "--timeout",
            "0.5",
            "--port",
            "9200",
        ];
        let rich = start(
            &flags,
            &[
                ("ENVIRONMENT", "test"),
                ("METRICS_PORT", "9300"),
                ("ROSEY_LISTEN", "127.0.0.9"),
            ],
        );
        let config = fixed(&rich);
        assert_eq!(config.health.as_ref().unwrap().port, 8001);
        assert!(config.metrics.as_ref().unwrap().timeout_seconds < 1.0);
        assert_eq!(
            config.disk,
            [Disk {
                label: "root".into(),
                path: "/".into()
            }]
        );
        assert_eq!(
            config.backups,
            Some(Backups {
                path: "/b".into(),
                pattern: "backup_*".into()
            })
        );
        assert_eq!(config.environment.as_deref(), Some("test"));
        assert_eq!(
            (rich.port, rich.listen),
            (Some(9200), Some("127.0.0.9".parse().unwrap()))
        );
    }

    #[test]
    fn all_that_a_file_says_can_be_said_in_flags() {
        let file = "
            environment: prod
            port: 9100
            health: {port: 1, path: /h, timeoutSeconds: 3}
            metrics: {port: 2, path: /m, timeoutSeconds: 3}
            plugins: {port: 3, path: /p, timeoutSeconds: 3}
            logs: {path: /log}
            disk: [{label: root, path: /}]
            backups: {path: /b, pattern: '*.gz'}
            deployments: true
            state: /state
            pushgateway:
              {url: 'https://g', intervalSeconds: 5, job: j, labels: {a: b, c: 'd=e'}, username: u, passwordFile: /f, caFile: /ca}
        ";
        let flags = "--environment=prod --health-port=1 --health-path=/h --metrics-port=2 --metrics-path=/m --plugins-port=3 \
            --plugins-path=/p --timeout=3 --log=/log --disk=root=/ --backups=/b --backups-pattern=*.gz --state=/state \
            --push-url=https://g --push-interval=5 --push-job=j --push-label=a=b --push-label=c=d=e --push-username=u \
            --push-password-file=/f --push-ca-file=/ca";
        let flags: Vec<_> = flags.split_whitespace().collect();
        let file: Config = serde_saphyr::from_str(file).unwrap();
        let whole = serde_json::to_value(&file).unwrap();
        assert_eq!(whole.as_object().unwrap().len(), 11, "a new field has no flag: {whole}");
        assert_eq!(*fixed(&start(&flags, &[])), file);
        for flag in flags {
            let both = ["rosey-exporter", "--config=/x", flag];
            let mut both = both.to_vec();
            // These two come together.
            both.extend(flag.contains("username").then_some("--push-password-file=/f"));
            both.extend(flag.contains("password-file").then_some("--push-username=u"));
            assert!(Options::try_parse_from(both).is_err(), "{flag} goes with --config");
        }
    }

    #[test]
    fn an_address_in_a_variable_is_taken_as_the_seeds_wrote_it_or_ignored() {
        let url = |value: &str, flags: &[&str]| {
            let start = start(flags, &[("PUSHGATEWAY_URL", value)]);
            fixed(&start).pushgateway.as_ref().map(|gateway| gateway.url.clone())
        };
        assert_eq!(url("localhost:9091", &[]).as_deref(), Some("http://localhost:9091"));
        assert_eq!(url("https://g/push", &[]).as_deref(), Some("https://g/push"));
        assert_eq!(url("a", &["--push-url", "http://b"]).as_deref(), Some("http://b"));
        for bad in [
            "",
            "tcp://10.0.0.1:9091",
            "http://user:secret@host",
            "http://",
            "http://host:port",
            "http://h:0",
        ] {
            assert_eq!(url(bad, &[]), None, "{bad}");
        }
    }

    #[test]
    fn a_variable_that_can_not_be_read_is_ignored_and_opens_nothing() {
        let odd = start(
            &[],
            &[
                ("METRICS_PORT", "tcp://10.96.0.7:80"),
                ("ROSEY_LISTEN", "everywhere"),
                ("ENVIRONMENT", ""),
            ],
        );
        assert_eq!((odd.port, odd.listen), (None, Some(Ipv4Addr::LOCALHOST.into())));
        assert_eq!(start(&[], &[("ROSEY_LISTEN", "")]).listen, None);
        assert_eq!(start(&[], &[("METRICS_PORT", "0")]).port, None);
        assert_eq!(fixed(&odd).environment, None);
    }

    #[test]
    fn flags_of_a_plain_host_do_not_go_with_a_file() {
        for flags in [
            ["--config", "/x", "--environment", "prod"],
            ["--config", "/x", "--disk", "a=/"],
        ] {
            assert!(Options::try_parse_from(["rosey-exporter"].iter().chain(&flags)).is_err());
        }
        assert!(Options::try_parse_from(["rosey-exporter", "--disk", "nothing"]).is_err());
    }
}
