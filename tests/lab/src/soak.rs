//! `lab soak`: a day of the exporter's life in minutes. Scrapes by many, some of whom don't read on; the bot's log at a high rate
//! and rotated in every way; faults of the bot; changes of the configuration, bad ones too. Memory and file descriptors must stay
//! as they are, and no line of the log may be missing.

#![allow(clippy::cast_precision_loss, reason = "counts that are printed, and shares of them")]

mod kinds;
mod load;
mod measure;
mod scene;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{eventually, until};

use load::Load;
use measure::{Sample, Series};
use scene::{Compared, Scene};

/// How much the median of anonymous memory may grow from the second quarter of the time to the last one, in KiB.
const GROWTH: i64 = 512;
/// How much that of the file descriptors may; a rotated log is held open for ten seconds, connections come and go.
const MORE_FILES: i64 = 4;
/// The most anonymous memory at any time, in KiB: the container's bound is for everything, so the program's pages are left out.
const MEMORY: u64 = 16 << 10;
/// How long the same rotations go on, until the lines are compared.
const EPOCH: Duration = Duration::from_secs(20);
/// How long everything that was written may take to be counted.
const CATCH_UP: Duration = Duration::from_secs(30);
/// What is read all the time.
const SOURCES: [&str; 4] = ["health", "metrics", "plugins", "logs"];
/// Rotations of a day with a log that is rotated every hour.
const ROTATIONS_A_DAY: u64 = 24;
/// Scrapes of a day by two Prometheus servers, every 15 seconds.
const SCRAPES_A_DAY: u64 = 11_520;

/// How long, and of what.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Minutes that it takes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The exporter to be judged; default: the one that was built beside this program
    #[arg(long, value_name = "FILE")]
    exporter: Option<PathBuf>,
    /// Lines that the bot writes to its log each second
    #[arg(long, default_value_t = 2_000)]
    lines: u32,
}

/// What happened to the lines of the log.
#[derive(Debug, Default)]
struct Lines {
    written: u64,
    missed: u64,
    between: u64,
}

/// Runs the soak and prints its table as Markdown.
///
/// # Errors
/// When something is not as it should be.
pub async fn run(options: Options) -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let scene = Arc::new(Scene::start(options.exporter.as_deref()).await?);
    until(CATCH_UP, "the log to be read", async || {
        Ok(scene.scrape().await?.is_up())
    })
    .await?;
    let files_before = scene.sample()?.files;
    let begun = Instant::now();
    let time = Duration::from_secs_f64(options.minutes.max(0.1) * 60.0);

    let load = Load::start(&scene);
    let (mut renamed, mut truncated, mut samples) = (Lines::default(), Lines::default(), Vec::new());
    let mut epoch = 0;
    while begun.elapsed() < time {
        let left = time.saturating_sub(begun.elapsed()).min(EPOCH);
        let (kinds, lines): (&[&str], _) = if epoch % 2 == 0 {
            (&["rename", "create", "rapid"], &mut renamed)
        } else {
            (&["copy-truncate"], &mut truncated)
        };
        write(&scene, options.lines, kinds, left, &mut samples).await?;
        compare(&scene, lines).await?;
        ensure!(load.goes_on(), "a part of the load has ended");
        epoch += 1;
    }
    let done = load.stop().await;
    scene.recover().await?;
    // What is not needed any more is closed: rotated logs ten seconds after their writer has gone over to the next, connections when
    // nobody asks.
    scene.bot_writes(1).await?;
    let files_after = eventually(Duration::from_secs(60), "all files to be closed", async || {
        let files = scene.sample()?.files;
        Ok((files <= files_before + 1).then_some(files))
    })
    .await?;
    let last = eventually(CATCH_UP, "every source to be read again", async || {
        let page = scene.scrape().await?;
        Ok(SOURCES.iter().all(|source| page.reads(source)).then_some(page))
    })
    .await?;

    let series = Series::of(&samples);
    println!("| {} minutes | |\n|---|---|", options.minutes);
    println!(
        "| scrapes | {} ({:.1} days of two scrapers) |",
        done.scrapes,
        done.scrapes as f64 / SCRAPES_A_DAY as f64
    );
    let why = done.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    println!("| scrapes that failed | {}{why} |", done.failed);
    println!("| connections that did not read on, or broke off | {} |", done.rude);
    println!("| changes of the configuration | {} |", done.reloads);
    println!("| faults of the bot | {} |", done.faults);
    let rotations =
        last.value("rosey_exporter_log_rotations_total") + last.value("rosey_exporter_log_truncations_total");
    println!(
        "| rotations of its log | {rotations} ({:.1} days) |",
        rotations / ROTATIONS_A_DAY as f64
    );
    println!(
        "| lines over rotations by rename and create | {}, {} missed |",
        renamed.written, renamed.missed
    );
    println!(
        "| lines over copying and truncation | {}, {} missed of {} written between the two |",
        truncated.written, truncated.missed, truncated.between
    );
    println!("| resident at rest, in the middle, at the end | {} |", series.resident);
    println!("| of which anonymous | {} |", series.anonymous);
    println!(
        "| file descriptors at the start, in the middle, at the end, and at rest | {files_before}, {}, {files_after} |",
        series.files
    );
    println!("| CPU | {:.1} s |", scene.sample()?.cpu);
    judge(&done, rotations, &series)
}

fn judge(done: &load::Done, rotations: f64, series: &Series) -> Result<()> {
    let mut wrong = Vec::new();
    for (what, happened) in [
        ("a fault of the bot", done.faults > 0),
        ("a change of the configuration", done.reloads > 0),
        ("a rotation of the log", rotations > 0.0),
    ] {
        if !happened {
            wrong.push(format!("there was not even {what}"));
        }
    }
    let growth = series.anonymous.growth();
    if growth > GROWTH {
        wrong.push(format!("memory grew by {growth} KiB, more than {GROWTH}"));
    }
    if series.anonymous.most > MEMORY {
        wrong.push(format!(
            "memory reached {} KiB, more than {MEMORY}",
            series.anonymous.most
        ));
    }
    let more = series.files.growth();
    if more > MORE_FILES {
        wrong.push(format!("{more} file descriptors more are open, more than {MORE_FILES}"));
    }
    if done.failed * 100 > done.scrapes {
        wrong.push(format!("{} of {} scrapes failed", done.failed, done.scrapes));
    }
    if done.backwards > 0 {
        wrong.push(format!("the counter of lines went back {} times", done.backwards));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    println!("\nMemory and file descriptors stayed as they were, and no line is missing.");
    Ok(())
}

/// Lets the bot write and rotate its log for a while.
async fn write(scene: &Scene, lines: u32, kinds: &[&str], time: Duration, samples: &mut Vec<Sample>) -> Result<()> {
    let begun = Instant::now();
    scene.bot_writes(lines).await?;
    let mut turn = 0;
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        scene.bot_rotates(kinds[turn % kinds.len()]).await?;
        samples.push(scene.sample()?);
        turn += 1;
    }
    scene.bot_writes(0).await
}

/// Waits until all is counted that was written, and adds what was missed since the last time.
async fn compare(scene: &Scene, lines: &mut Lines) -> Result<()> {
    let (written, between) = scene.written().await?;
    let before = scene.compared();
    let now = written.since(&before.written)?;
    let between_now = between
        .checked_sub(before.between)
        .context("the bot counts backwards")?;
    // The last of it may be what was lost, so there is a least and a most; beyond the least, it has to come to rest.
    let caught_up = eventually(CATCH_UP, "the lines to be counted", async || {
        let counted = scene.counted().await?.since(&before.counted)?;
        let missed = now.missed(&counted);
        Ok(missed.is_ok_and(|missed| missed <= between_now).then_some(()))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counted = scene.counted().await?;
    let counted_now = counted.since(&before.counted)?;
    let missed = now.missed(&counted_now)?;
    caught_up.map_err(|error| error.context(format!("{} of {} lines were counted", counted_now.sum(), now.sum())))?;
    lines.written += now.sum();
    lines.missed += missed;
    lines.between += between_now;
    scene.remember(Compared {
        written,
        between,
        counted,
    });
    Ok(())
}
