//! `lab bench`: the operator at 1,000 monitors, in tables. Run it in a release build (`make bench`); the numbers of a debug build
//! say nothing.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and milliseconds that are printed with two digits"
)]

pub mod exporter;
mod load;
mod measure;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::rosey::{OPERATOR, Operator};
use lab::{Calls, Lab, Quantiles};

use load::Load;
use measure::usage;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// How large the run is.
#[derive(Clone, Debug, clap::Args)]
pub struct Size {
    /// Monitors that are created at once
    #[arg(long, default_value_t = 1000)]
    monitors: usize,
    /// Pods of each monitor
    #[arg(long, default_value_t = 3)]
    pods_each: usize,
    /// Pods of nobody
    #[arg(long, default_value_t = 10_000)]
    unrelated_pods: usize,
    /// Seconds during which nothing happens and nothing may be written
    #[arg(long, default_value_t = 300)]
    quiet: u64,
    /// Edits of a threshold, one after the other
    #[arg(long, default_value_t = 200)]
    edits: usize,
    /// Pairs of pods, one in a namespace with registration and one without
    #[arg(long, default_value_t = 500)]
    pairs: usize,
    /// Run prometheus-operator, Prometheus and Alertmanager beside it
    #[arg(long)]
    with_stack: bool,
}

/// Runs the benchmark and prints its table as Markdown.
///
/// # Errors
/// When something does not happen.
pub async fn run(size: Size) -> Result<()> {
    let builder = Lab::builder().rosey()?;
    let lab = if size.with_stack {
        builder.start().await?
    } else {
        builder.without_stack().start().await?
    };
    lab.install_rosey().await?;
    let load = Load::new(&lab, &size);
    eprintln!(
        "creating {} pods …",
        size.unrelated_pods + size.monitors * size.pods_each
    );
    load.pods().await?;

    eprintln!("the same writes by a bare client …");
    let bare = load.bare_client().await?;

    let operator = lab.operator("operator", &[]).await?;
    let idle = usage(&operator.process)?;
    let mark = lab.audit().mark().await?;
    eprintln!("creating {} monitors …", size.monitors);
    let ready = load.monitors().await?;
    let peak = usage(&operator.process)?;
    let writes = writes(&lab, mark).await?;
    let failed = writes.iter().filter(|(_, code)| *code >= 400).count();

    println!(
        "| {} monitors, {} pods of theirs, {} others{} | |",
        size.monitors,
        size.monitors * size.pods_each,
        size.unrelated_pods,
        if size.with_stack {
            ", prometheus-operator on"
        } else {
            ""
        }
    );
    println!("|---|---|");
    println!("| all Ready | {:.1} s |", ready.as_secs_f64());
    println!("| the same writes by a bare client | {:.1} s |", bare.as_secs_f64());
    println!("| ratio | {:.2} |", ready.as_secs_f64() / bare.as_secs_f64());
    println!(
        "| writes a monitor (of {} objects and a status) | {:.2} |",
        load.objects_each(),
        writes.len() as f64 / size.monitors as f64
    );
    println!("| writes that failed | {failed} |");
    println!("| resident before the monitors | {:.1} MB |", idle.resident / 1e6);
    println!("| resident at the peak | {:.1} MB |", peak.peak / 1e6);
    println!("| CPU until all Ready | {:.1} s |", peak.cpu - idle.cpu);

    quiet(&lab, &operator, &size).await?;
    eprintln!("{} edits …", size.edits);
    let (answered, changed) = load.edits(size.edits).await?;
    println!(
        "| edit to its answer, p50 / p99 ({} edits) | {} |",
        size.edits,
        Quantiles::of(answered)
    );
    handler(&operator, "validate").await?;
    println!("| edit to changed rule | {} |", Quantiles::of(changed));
    pairs(&lab, &load, &operator, &size).await?;
    Ok(())
}

async fn quiet(lab: &Lab, operator: &Operator, size: &Size) -> Result<()> {
    eprintln!("{} quiet seconds …", size.quiet);
    let (mark, before) = (lab.audit().mark().await?, usage(&operator.process)?);
    tokio::time::sleep(Duration::from_secs(size.quiet)).await;
    let after = usage(&operator.process)?;
    let writes = writes(lab, mark).await?.len();
    println!("| writes in {} quiet seconds | {writes} |", size.quiet);
    ensure!(writes == 0, "the operator wrote {writes} times while nothing happened");
    println!("| resident at rest | {:.1} MB |", after.resident / 1e6);
    println!(
        "| CPU at rest | {:.2} % of a core |",
        (after.cpu - before.cpu) * 100.0 / size.quiet as f64
    );
    Ok(())
}

async fn pairs(lab: &Lab, load: &Load<'_>, operator: &Operator, size: &Size) -> Result<()> {
    eprintln!("{} pairs of pods …", size.pairs);
    let before = Calls::for_pods(&lab.client()).await?;
    let [with, without, again] = load.triples(size.pairs).await?;
    let calls = Calls::for_pods(&lab.client()).await? - before;
    ensure!(calls.count > 0.0, "the API server says nothing of calls for pods");
    let difference = |these: &[f64], those: &[f64]| -> Vec<f64> {
        these.iter().zip(those).map(|(this, that)| this - that).collect()
    };
    println!(
        "| difference of two pods without registration (the noise) | {} |",
        Quantiles::of(difference(&again, &without))
    );
    println!(
        "| difference within a pair | {} |",
        Quantiles::of(difference(&with, &without))
    );
    println!(
        "| pod create without registration, p50 / p99 ({} pairs) | {} |",
        size.pairs,
        Quantiles::of(without)
    );
    println!("| pod create with registration | {} |", Quantiles::of(with));
    println!("| the API server's calls for it, with what it does to patch | {calls} |");
    handler(operator, "inject").await
}

async fn handler(operator: &Operator, webhook: &str) -> Result<()> {
    let metrics = operator.metrics().await?;
    let times = measure::handler(&metrics, webhook).with_context(|| format!("no histogram of {webhook}"))?;
    println!("| our handler of it ({webhook}), p50 / p99 | {times} |");
    Ok(())
}

/// Verb and status of what the operator wrote since, its Lease excepted.
async fn writes(lab: &Lab, mark: lab::Mark) -> Result<Vec<(String, u16)>> {
    let writes = lab.audit().writes_by(OPERATOR, mark).await?;
    let writes: Vec<_> = writes
        .into_iter()
        .filter(|write| write.object_ref.resource != "leases")
        .map(|write| (write.verb, write.response_status.code))
        .collect();
    Ok(writes)
}

/// Makes sure that a benchmark measures something.
fn some<T>(values: Vec<T>) -> Result<Vec<T>> {
    ensure!(!values.is_empty(), "nothing was measured");
    Ok(values)
}
