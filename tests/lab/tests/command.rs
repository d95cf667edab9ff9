//! The command, and what becomes of a lab whose process is killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_lab_whose_process_is_killed_leaves_nothing_behind() -> Result<()> {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["up", "--without-stack"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(lab.stdout.take().context("its output")?).lines();
    let kubeconfig = lines
        .find_map(|line| line.ok()?.strip_prefix("export KUBECONFIG=").map(String::from))
        .context("it prints no KUBECONFIG")?;
    let folder = kubeconfig
        .split("/control-plane/")
        .next()
        .context("its folder")?
        .to_owned();
    let users = users_of(&folder)?;
    assert!(users.len() >= 3, "{users:?}");

    lab.kill()?;
    lab.wait()?;
    lab::until(SOON, "its processes to end", async || Ok(users_of(&folder)?.is_empty())).await?;
    lab::until(SOON, "its folder to go", async || {
        Ok(!std::path::Path::new(&folder).exists())
    })
    .await
}

/// The command lines that name the folder.
fn users_of(folder: &str) -> Result<Vec<String>> {
    let processes = std::fs::read_dir("/proc")?.flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    Ok(lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(folder))
        .collect())
}
