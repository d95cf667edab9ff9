//! A chat bot that only pretends, for tests and demonstrations.

use clap::Parser;
use rosey_monitor::fake_bot::{self, Options};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            ended = fake_bot::run(options) => ended?,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
