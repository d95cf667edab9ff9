//! A chat bot that only pretends: it answers as the real ones do, and breaks on demand.

mod inbox;
mod logs;
mod mail;
mod plugins;
mod state;
mod web;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

pub use state::Shape;

const HELP: &str = "\
On the bot's port:
  GET /api/health   the health document, in the shape that --shape names
  GET /metrics      the bot's own counters, in Prometheus text
  GET /api/metrics  its plugins, as JSON
On the control port, and on the bot's port too while it listens:
  GET  /control           the present state as JSON
  POST /control           change it, with a JSON object of any of these fields:
    fault             none, or one of the faults below; one at a time
    error_type        with fault errors: which counter goes up (timeout, connection, critical, …)
    errors_per_second with fault errors: how fast (default 2)
    delay_ms          each answer is that late
    status, connected, channel, version, user_count, memory_mb, response_time_ms, requests, errors
                      values of the health document
    log               with --log: an object of lines_per_second (0 at first), levels (a number for each, their shares),
                      commands (names), garbage_per_mille, long_per_mille
    rotate            with --log: rename, create, rapid, copy-truncate or delete, once
    plugins           how many there are
    plugin_cpu_percent, plugin_memory_mb
                      what each of them uses
    plugin_crashes    how often the first one crashed
  POST /control/recover   back to the first state; counters and uptime go on
  POST /inbox/NAME  keeps what is posted, such as alerts; GET returns it as a JSON list, the oldest first
On the port for mail:
  SMTP without TLS and login; GET /inbox/ADDRESS returns the mails to an address as they were sent

Faults:
  not-running    status is \"stopped\", and not connected     disconnected   connected is false
  slow           response_time_ms is 3500                   memory-high    memory_mb is 900
  no-users       user_count is 0                            errors         an error counter goes up
  hanging        no answer ever comes                       error-500      answers 500
  garbage        answers what is neither JSON nor metrics   huge-body      answers 8 MiB
  many-series    /metrics has 20000 values of one label     closed-port    stops listening on the bot's port
  plugin-crashed the first plugin does not run

Examples:
  fake-bot --drift
  fake-bot --port 8001 --shape s4
  curl -d '{\"fault\": \"not-running\"}' http://127.0.0.1:8010/control
  curl -d '{\"fault\": \"errors\", \"error_type\": \"critical\"}' http://127.0.0.1:8010/control
  curl -d '{\"memory_mb\": 700, \"user_count\": 3}' http://127.0.0.1:8010/control
  curl -d '{\"log\": {\"lines_per_second\": 100}, \"rotate\": \"create\"}' http://127.0.0.1:8010/control
  curl -X POST http://127.0.0.1:8010/control/recover
  fake-bot --mail-port 2525
  curl http://127.0.0.1:8010/inbox/oncall@example.org";

/// A chat bot that only pretends, for tests and demonstrations.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "fake-bot", version, after_help = HELP)]
pub struct Options {
    // Not FAKE_BOT_PORT: Kubernetes sets that to a URL in every pod beside a Service named fake-bot.
    /// Port of the bot; 0 takes a free one
    #[arg(long, env = "FAKE_BOT_HTTP_PORT", default_value_t = 8000)]
    port: u16,
    /// Port of the control; 0 takes a free one
    #[arg(long, env = "FAKE_BOT_CONTROL_PORT", default_value_t = 8010)]
    control_port: u16,
    /// Port to receive mail at; none without it
    #[arg(long, env = "FAKE_BOT_MAIL_PORT", value_name = "PORT")]
    mail_port: Option<u16>,
    /// Address to serve all of them on
    #[arg(long, env = "FAKE_BOT_LISTEN", value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Fields of the health document
    #[arg(long, env = "FAKE_BOT_SHAPE", value_enum, default_value_t = Shape::Both)]
    shape: Shape,
    /// Let users, memory and response time drift on their own
    #[arg(long, env = "FAKE_BOT_DRIFT")]
    drift: bool,
    /// File to write a log of JSON lines to
    #[arg(long, env = "FAKE_BOT_LOG", value_name = "FILE")]
    log: Option<PathBuf>,
}

/// Serves until its future is dropped.
///
/// # Errors
/// When it can't listen at the first attempt.
pub async fn run(options: Options) -> std::io::Result<()> {
    web::serve(options).await
}
