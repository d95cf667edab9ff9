//! `kubectl rosey`: the command line of Rosey Monitor.

use std::process::ExitCode;

use clap::Parser;
use rosey_monitor::cli::{self, Cli};

fn main() -> anyhow::Result<ExitCode> {
    // Two libraries speak TLS here; neither picks a provider by itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(cli::run(cli)))
}
