//! The operator: flags in, [`rosey_monitor::operator::run`] out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use rosey_monitor::api::forms::{is_dns_label, is_label_key, is_label_value};
use rosey_monitor::cluster::client::{connect, install_tls_provider};
use rosey_monitor::operator::check::{Question, check};
use rosey_monitor::operator::injector::{self, Endpoint, Lives};
use rosey_monitor::operator::{Settings, Upkeep, run};
use rosey_monitor::plan::Platform;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// Turns `RoseyMonitor` resources into the rules, routes and scrape configuration of a Prometheus stack, and puts an exporter
/// beside each bot.
///
/// It talks to the cluster of the kubeconfig or, in a pod, of its service account. Several replicas may run; one of them
/// writes.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  # in the cluster: everything has a default
  rosey-operator --log-format json

  # on a workstation, with the API server calling back
  rosey-operator --namespace rosey-system --webhook-url https://127.0.0.1:9443 --webhook-listen 127.0.0.1:9443

  # for a Prometheus that selects by the label of its Helm release
  rosey-operator --default-object-labels release=kube-prometheus-stack"
)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,

    /// Namespace of the operator: its Lease and its certificate are there [default: that of the pod, else rosey-system]
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,

    /// Namespaces whose monitors and bots it looks after, separated by commas [default: all]. Then it needs no rights outside of
    /// them but those for its webhooks
    #[arg(long, env = "ROSEY_WATCH_NAMESPACES", value_delimiter = ',', value_parser = watched)]
    watch_namespaces: Vec<Watched>,

    /// Name of this replica [default: a random one]
    #[arg(long, env = "POD_NAME", hide_env_values = true)]
    identity: Option<String>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long)]
    context: Option<String>,

    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "ROSEY_LISTEN_HTTP", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,

    /// Address of the webhooks
    #[arg(long, env = "ROSEY_WEBHOOK_LISTEN", default_value = "0.0.0.0:9443")]
    webhook_listen: SocketAddr,

    /// Service by which the API server reaches the webhooks, in the operator's namespace, as name or name:port
    #[arg(
        long,
        env = "ROSEY_WEBHOOK_SERVICE",
        default_value = "rosey-operator-webhook",
        conflicts_with = "webhook_url"
    )]
    webhook_service: String,

    /// URL by which the API server reaches the webhooks, for an operator outside the cluster
    #[arg(long, env = "ROSEY_WEBHOOK_URL")]
    webhook_url: Option<String>,

    /// Secret with the certificates of the webhooks
    #[arg(long, env = "ROSEY_WEBHOOK_SECRET", default_value = "rosey-operator-webhook")]
    webhook_secret: String,

    /// Cluster role that owns the registrations: when it is deleted, they go
    #[arg(long, env = "ROSEY_CLUSTER_ROLE", default_value = "rosey-operator")]
    cluster_role: String,

    /// Registers no webhook: pods get no exporter, and monitors are judged by the schema alone when they are stored
    #[arg(long, env = "ROSEY_NO_INJECTION")]
    no_injection: bool,

    /// Changes the image of exporters that run, one pod of a monitor after the other, where it is not what a new pod would
    /// get; needs the rights of the cluster role rosey-operator-sidecars
    #[arg(long, env = "ROSEY_UPDATE_EXPORTERS_IN_PLACE")]
    update_exporters_in_place: bool,

    /// Evicts pods without an exporter, one of a monitor after the other, where spec.exporter.repair says Restart; needs the
    /// rights of the cluster role rosey-operator-sidecars
    #[arg(long, env = "ROSEY_REPAIR_EXPORTERS")]
    repair_exporters: bool,

    /// Labels for every generated object, below those of the monitor, as key=value,…
    #[arg(long, env = "ROSEY_DEFAULT_OBJECT_LABELS", value_delimiter = ',', value_parser = label)]
    default_object_labels: Vec<Label>,

    /// Image of the exporter where a monitor names none [default: that of this release]
    #[arg(long, env = "ROSEY_EXPORTER_IMAGE")]
    exporter_image: Option<String>,

    /// What the image that a monitor names must start with, separated by commas [default: where this release's image is]
    #[arg(long, env = "ROSEY_EXPORTER_IMAGE_PREFIXES", value_delimiter = ',')]
    exporter_image_prefixes: Option<Vec<String>>,

    /// Monitors that are reconciled at once
    #[arg(long, env = "ROSEY_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,

    /// Name of the Lease
    #[arg(long, env = "ROSEY_LEASE_NAME", default_value = "rosey-operator")]
    lease_name: String,

    /// Seconds after which another replica takes over from a silent leader
    #[arg(long, env = "ROSEY_LEASE_DURATION", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=300))]
    lease_duration: u64,

    /// How the log is written
    #[arg(long, env = "ROSEY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,

    /// What is logged: a level, or a filter such as info,kube=debug
    // The failures of watches are counted and told by the operator itself; kube would repeat each every two seconds.
    #[arg(long, env = "RUST_LOG", default_value = "info,kube_runtime::watcher=error")]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks whether this installation would take a monitor, and refuse a wrong one; stores nothing, and ends
    Check {
        /// Namespace in which monitors are created in a dry run
        #[arg(long = "in", value_name = "NAMESPACE")]
        namespace: String,

        /// The operator runs with --no-injection: the schema alone is asked
        #[arg(long)]
        without_webhooks: bool,

        /// Seconds to wait for the webhooks
        #[arg(long, default_value_t = 60)]
        patience: u64,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines to be read.
    Human,
    /// One JSON document a line.
    Json,
}

fn main() -> anyhow::Result<()> {
    install_tls_provider();
    let flags = Flags::parse();
    log(&flags)?;
    // Two threads: the work is waiting, and each thread keeps memory of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = connect(flags.context.as_deref()).await?;
        if let Some(Command::Check {
            namespace,
            without_webhooks,
            patience,
        }) = flags.command
        {
            let question = Question {
                namespace,
                webhooks: !without_webhooks,
                patience: Duration::from_secs(patience),
            };
            return Ok(check(client, &question, |fine| println!("ok: {fine}")).await?);
        }
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let asked = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.cancel();
        });
        run(client, settings(flags)?, shutdown).await.context("rosey-operator")
    })
}

fn settings(flags: Flags) -> anyhow::Result<Settings> {
    let namespace = flags
        .namespace
        .or_else(own_namespace)
        .unwrap_or_else(|| "rosey-system".into());
    let mut platform = Platform {
        default_object_labels: flags
            .default_object_labels
            .into_iter()
            .filter_map(|label| label.0)
            .collect::<BTreeMap<_, _>>(),
        ..Platform::default()
    };
    if let Some(image) = flags.exporter_image {
        platform.exporter_image = image;
    }
    if let Some(prefixes) = flags.exporter_image_prefixes {
        platform.exporter_image_prefixes = prefixes.into_iter().filter(|prefix| !prefix.is_empty()).collect();
    }
    let watched: BTreeSet<String> = flags.watch_namespaces.into_iter().filter_map(|name| name.0).collect();
    let injector = if flags.no_injection {
        None
    } else {
        Some(injector::Settings {
            listen: flags.webhook_listen,
            endpoint: match flags.webhook_url {
                Some(url) => Endpoint::Url(url),
                None => service(&namespace, &flags.webhook_service)?,
            },
            watched: watched.clone(),
            namespace: namespace.clone(),
            secret_name: flags.webhook_secret,
            cluster_role: flags.cluster_role,
            lives: Lives::default(),
        })
    };
    Ok(Settings {
        listen: flags.listen,
        concurrency: flags.concurrency,
        watched,
        namespace,
        lease_name: flags.lease_name,
        lease_duration: Duration::from_secs(flags.lease_duration),
        identity: flags.identity.unwrap_or_else(random_identity),
        platform,
        injector,
        upkeep: Upkeep {
            update: flags.update_exporters_in_place,
            repair: flags.repair_exporters,
        },
    })
}

fn service(namespace: &str, service: &str) -> anyhow::Result<Endpoint> {
    let (name, port) = service.split_once(':').unwrap_or((service, "443"));
    let port = port
        .parse()
        .with_context(|| format!("--webhook-service: {port:?} is not a port"))?;
    Ok(Endpoint::Service {
        namespace: namespace.into(),
        name: name.into(),
        port,
    })
}

fn own_namespace() -> Option<String> {
    let text = std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok()?;
    Some(text.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}

fn random_identity() -> String {
    use std::hash::{BuildHasher, Hasher};
    let chance = std::hash::RandomState::new().build_hasher().finish();
    format!("rosey-operator-{}-{chance:016x}", std::process::id())
}

/// One of `--watch-namespaces`; none for the empty text that an empty variable leaves.
#[derive(Clone, Debug)]
struct Watched(Option<String>);

fn watched(text: &str) -> Result<Watched, String> {
    match text.trim() {
        "" => Ok(Watched(None)),
        name if is_dns_label(name, 63) => Ok(Watched(Some(name.into()))),
        name => Err(format!(
            "{name:?} is not the name of a namespace: at most 63 lower case letters, digits and dashes"
        )),
    }
}

/// One of `--default-object-labels`; none for the empty text that an empty variable leaves.
#[derive(Clone, Debug)]
struct Label(Option<(String, String)>);

fn label(text: &str) -> Result<Label, String> {
    match text.split_once('=') {
        None if text.is_empty() => Ok(Label(None)),
        Some((key, _)) if !is_label_key(key) => Err(format!("{key:?} is not the key of a label")),
        Some((_, value)) if !is_label_value(value) => Err(format!(
            "{value:?} is not the value of a label: at most 63 letters, digits, dots, dashes and underscores"
        )),
        Some((key, value)) => Ok(Label(Some((key.into(), value.into())))),
        None => Err(format!("{text:?} is not of the form key=value")),
    }
}

fn log(flags: &Flags) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&flags.log_level).context("--log-level")?;
    match flags.log_format {
        LogFormat::Human => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            // They would go to the same place with eprintln!, which panics where nobody takes them, as on a full disk.
            .log_internal_errors(false)
            .init(),
        LogFormat::Json => json_log(filter, std::io::stderr).init(),
    }
    Ok(())
}

/// One JSON document a line.
fn json_log<W>(filter: EnvFilter, writer: W) -> impl SubscriberInitExt
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // As above.
        .log_internal_errors(false)
        .json()
        .flatten_event(true)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespaces_that_are_watched_are_named_once_and_by_names() {
        let flags = |value: &str| Flags::try_parse_from(["rosey-operator", "--watch-namespaces", value]);
        let of = |value: &str| settings(flags(value).unwrap()).unwrap();
        let (some, all) = (of("bots, games,,bots"), of(""));
        assert_eq!(some.watched, BTreeSet::from(["bots".to_owned(), "games".to_owned()]));
        assert_eq!(some.injector.unwrap().watched, some.watched);
        assert!(all.watched.is_empty());
        let refused = flags("bots,Games").unwrap_err().to_string();
        assert!(
            refused.contains("\"Games\" is not the name of a namespace"),
            "{refused}"
        );
    }

    #[test]
    fn default_object_labels_are_labels() {
        let of = |text: &str| label(text).map(|label| label.0);
        let pair = |key: &str, value: &str| Ok(Some((key.to_owned(), value.to_owned())));
        assert_eq!(of("release=stack"), pair("release", "stack"));
        assert_eq!(of("example.org/team="), pair("example.org/team", ""));
        assert_eq!(of(""), Ok(None));
        for wrong in ["release=a b", "release=-a", "a b=c", "=c", "release", "a=b=c"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_line_of_a_json_log_is_a_document() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = json_log(EnvFilter::new("info"), file.reopen().unwrap());
        tracing::dispatcher::with_default(&log.into(), || {
            tracing::info!(monitor = "bots/rosey", "two\nlines and \"quotes\"");
            tracing::warn!(error = %anyhow::anyhow!("no"), "a failure");
        });
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "two\nlines and \"quotes\"");
        assert_eq!(
            (&lines[0]["level"], &lines[0]["monitor"]),
            (&"INFO".into(), &"bots/rosey".into())
        );
        assert_eq!(lines[1]["error"], "no");
    }
}
