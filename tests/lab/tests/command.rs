//! The command, and what becomes of a lab whose process ends, in whichever way.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(60);

/// A lab that is up, and its folder.
fn up() -> Result<(Child, String)> {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["up", "--without-stack"])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(lab.stdout.take().context("its output")?).lines();
    // Its last line is read, too: writing to a pipe that nobody reads any more would end it.
    let told: Vec<_> = lines
        .map_while(Result::ok)
        .take_while(|line| line != "Ctrl-C ends it.")
        .collect();
    let kubeconfig = told
        .iter()
        .find_map(|line| line.strip_prefix("export KUBECONFIG="))
        .context("it prints no KUBECONFIG")?;
    let folder = kubeconfig
        .split("/control-plane/")
        .next()
        .context("its folder")?
        .to_owned();
    let users = users_of(&folder)?;
    assert!(users.len() >= 3, "{users:?}");
    Ok((lab, folder))
}

#[tokio::test]
async fn a_lab_whose_process_is_killed_leaves_nothing_behind() -> Result<()> {
    let (mut lab, folder) = up()?;
    lab.kill()?;
    lab.wait()?;
    lab::until(SOON, "its processes to end", async || Ok(users_of(&folder)?.is_empty())).await?;
    lab::until(SOON, "its folder to go", async || {
        Ok(!std::path::Path::new(&folder).exists())
    })
    .await
}

#[tokio::test]
async fn a_lab_that_is_ended_by_ctrl_c_has_torn_everything_down_before_it_goes() -> Result<()> {
    let (mut lab, folder) = up()?;
    kill_process(Pid::from_raw(lab.id().cast_signed()).context("its id")?, Signal::INT)?;
    let ended = lab.wait()?;
    assert!(ended.success(), "{ended}");
    assert_eq!(users_of(&folder)?, Vec::<String>::new());
    assert!(!std::path::Path::new(&folder).exists(), "{folder} is left");
    Ok(())
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
