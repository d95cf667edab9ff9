//! The demo tells its story to its end, and stays for whoever wants to play with it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::test]
async fn the_demo_tells_every_step_leaves_its_addresses_and_ends_with_ctrl_c() -> Result<()> {
    let mut demo = tokio::process::Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["demo", "--keep"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(demo.stdout.take().context("its output")?).lines();
    let mut told = Vec::new();
    while let Some(line) = lines.next_line().await? {
        told.push(line);
        if told.last().is_some_and(|line| line.starts_with("export KUBECONFIG=")) {
            break;
        }
    }
    let text = told.join("\n");
    let after = |start: &str| {
        let rest = told.iter().find_map(|line| line.trim_start().strip_prefix(start));
        rest.map(str::trim)
            .with_context(|| format!("{start:?} is not in\n{text}"))
    };
    for step in 1..=12 {
        ensure!(
            text.contains(&format!("\u{1b}[1m{step}. ")),
            "no step {step} in\n{text}"
        );
    }
    after("That was it: 12 steps in ")?;
    ensure!(Path::new(after("export KUBECONFIG=")?).is_file(), "{text}");
    // Somebody else in the process may have done it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for page in [
        format!("{}/-/ready", after("Prometheus  ")?),
        format!("{}/-/ready", after("Alertmanager  ")?),
        after("operator  ")?.to_owned(),
        after("exporter  ")?.to_owned(),
    ] {
        reqwest::get(&page).await?.error_for_status()?;
    }
    let logs = Path::new(after("logs  ")?).to_owned();
    ensure!(logs.is_dir(), "{}", logs.display());

    let id = demo.id().context("it runs no more")?;
    kill_process(Pid::from_raw(id.cast_signed()).context("its id")?, Signal::INT)?;
    let ended = demo.wait().await?;
    ensure!(ended.success(), "{ended}\n{text}");
    ensure!(!logs.exists(), "{} is left", logs.display());
    Ok(())
}

#[test]
fn a_demo_that_cant_begin_says_why_and_fails() -> Result<()> {
    let nowhere = tempfile::tempdir()?;
    let demo = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("demo")
        .env("ROSEY_LAB_TOOLS", nowhere.path())
        .output()?;
    let said = String::from_utf8_lossy(&demo.stderr);
    ensure!(demo.status.code() == Some(1), "{}", demo.status);
    ensure!(said.contains("run: make tools"), "{said}");
    Ok(())
}
