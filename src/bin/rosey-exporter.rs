//! Watches a chat bot for Prometheus, from beside it.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use rosey_monitor::exporter::{self, Options};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some(verdict) = options.checked() {
        return Ok(tell(verdict));
    }
    // A level, and no filter by target: that would bring regular expressions, some 200 kB of code.
    let asked = std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty());
    let level = asked.as_deref().map_or(Ok(LevelFilter::INFO), str::parse);
    tracing_subscriber::fmt()
        .with_max_level(level.as_ref().copied().unwrap_or(LevelFilter::INFO))
        .with_ansi(false)
        .with_writer(std::io::stderr)
        // They would go to the same place with eprintln!, which panics where nobody takes them, as on a full disk.
        .log_internal_errors(false)
        .init();
    if level.is_err() {
        tracing::warn!(asked, "ignored RUST_LOG; write error, warn, info or debug");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        Box::pin(exporter::run(options, end)).await;
        Ok::<_, anyhow::Error>(())
    })?;
    // Without waiting for a file system that hangs.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// Where nobody reads what is said, the exit code says it.
fn tell(verdict: Result<String, String>) -> ExitCode {
    match verdict {
        Ok(praise) => {
            let _ = writeln!(std::io::stdout(), "{praise}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "{problem}");
            ExitCode::FAILURE
        }
    }
}
