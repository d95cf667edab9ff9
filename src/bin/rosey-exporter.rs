//! Watches a chat bot for Prometheus, from beside it.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use rosey_monitor::exporter::{self, Options};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some(verdict) = options.checked() {
        return Ok(tell(verdict));
    }
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
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
        exporter::run(options, end).await;
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
