//! `kind-test`: the product on a kind cluster with real kubelets, installed as its users do. Prints a table of scenarios.

mod bots;
mod cluster;
mod images;
mod release;
mod report;
mod scenarios;
mod stack;
mod stage;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::signal::unix::{SignalKind, signal};

use cluster::{Commands, Plan};
use images::Images;
use release::Release;
use report::Report;
use scenarios::{Act, SCENARIOS, Scenario, UPGRADE};
use stage::Stage;

/// Creates a kind cluster, installs the product and a Prometheus stack, plays every scenario, and deletes the cluster
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  make kind-test                               with the official node image\n  \
                  KIND_NODE_IMAGE=kindest/node:v1.33.4 make kind-test\n  \
                  cargo run -p kind-test -- --only story --keep  one scenario, and the cluster stays\n  \
                  cargo run -p kind-test -- --list               what there is\n\n\
                  The archives of the images come from: make images kind-images"
)]
struct Options {
    /// Image of the nodes. Default: the one that this version of kind was made for
    #[arg(long, env = "KIND_NODE_IMAGE", value_name = "IMAGE")]
    image: Option<String>,
    /// Nodes, the control plane included. Default: 1, and 3 where a scenario of the second set is played
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Option<u8>,
    /// Folder with the archives of the images. Default: target/images
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Plays this scenario; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Plays the second set: what takes longer, or needs several nodes
    #[arg(long)]
    full: bool,
    /// Folder with the release to upgrade from, as `make release` writes it: rosey-operator.tar, rosey-exporter.tar, and the chart
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// Leaves the cluster up at the end
    #[arg(long)]
    keep: bool,
    /// Says which scenarios there are
    #[arg(long)]
    list: bool,
}

impl Options {
    fn scenarios(&self) -> Result<Vec<&'static Scenario>> {
        if self.only.is_empty() {
            return Ok(SCENARIOS.iter().filter(|scenario| scenario.full == self.full).collect());
        }
        let find = |name: &String| {
            let names = || {
                SCENARIOS
                    .iter()
                    .map(|scenario| scenario.name)
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            SCENARIOS
                .iter()
                .find(|scenario| scenario.name == name)
                .with_context(|| format!("--only {name}: there is no such scenario; write one of {}", names()))
        };
        for name in &self.only {
            find(name)?;
        }
        // In their own order, which later ones rely on.
        Ok(SCENARIOS
            .iter()
            .filter(|scenario| self.only.iter().any(|name| name == scenario.name))
            .collect())
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if options.list {
        for scenario in SCENARIOS {
            println!(
                "{:<14} {}{}",
                scenario.name,
                scenario.sentence,
                if scenario.full { " (--full)" } else { "" }
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut scenarios = options.scenarios()?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = options.images.clone().unwrap_or_else(|| {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| lab::rosey::file("target"), PathBuf::from)
            .join("images")
    });
    let images = Images::find(&folder).await?;
    // Before minutes go by.
    let from = match &options.from {
        Some(folder) => Some(Release::find(folder).await?),
        None if options.only.iter().any(|name| name == UPGRADE) => {
            bail!("--only {UPGRADE}: which version to upgrade from? name the folder of a release: --from FOLDER")
        }
        None => None,
    };
    let commands = Commands::find().await?;
    let folder = tempfile::Builder::new().prefix("rosey-kind-").tempdir()?;
    let full = scenarios.iter().any(|scenario| scenario.full);
    let plan = Plan {
        name: format!("rosey-{}", std::process::id()),
        folder: folder.path().to_owned(),
        image: options.image.clone().filter(|image| !image.is_empty()),
        nodes: options.nodes.map_or(if full { 3 } else { 1 }, usize::from),
        stays: options.keep,
    };
    let mut report = Report::new();
    if from.is_none() {
        let (left_out, played): (Vec<_>, _) = scenarios.into_iter().partition(|scenario| scenario.name == UPGRADE);
        report.left_out(left_out, "without --from FOLDER there is no version to upgrade from");
        scenarios = played;
    }
    // Whatever happens, there is a cluster to delete.
    let played = tokio::select! {
        played = AssertUnwindSafe(play(&plan, &commands, (images, from), &scenarios, &mut report)).catch_unwind() => played.unwrap_or_else(|_| Err(anyhow::anyhow!("a scenario panicked"))),
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    report.left_out(report.unended(&scenarios), "the run ended before it did");
    // Before the cluster is deleted, which may fail, or be interrupted.
    println!("\n{report}");
    if options.keep {
        let folder = folder.keep();
        println!(
            "\nThe cluster stays. export KUBECONFIG={}",
            folder.join("kubeconfig").display()
        );
        println!(
            "Delete it with: {} delete cluster --name {}",
            commands.kind.display(),
            plan.name
        );
    } else {
        cluster::delete(&commands, &plan.name).await?;
    }
    if let Err(error) = played {
        eprintln!("kind-test: {error:#}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Ctrl-C, or what ends a job of a pipeline.
async fn interrupted() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

async fn play(
    plan: &Plan,
    commands: &Commands,
    (images, from): (Images, Option<Release>),
    scenarios: &[&'static Scenario],
    report: &mut Report,
) -> Result<()> {
    report.note(&format!(
        "cluster {} with {} node{}",
        plan.name,
        plan.nodes,
        if plan.nodes == 1 { "" } else { "s" }
    ));
    let cluster = report.step("a cluster", plan.create(commands)).await?;
    let mut stage = Stage::new(cluster, images)?;
    let archives = stage.images.all();
    let loaded = async {
        // The earlier version first: it may have the names of the current one.
        let from = match from {
            Some(release) => Some(release.load(&stage).await?),
            None => None,
        };
        stage.cluster.load(&archives).await?;
        Ok(from)
    };
    let defined = async { tokio::try_join!(loaded, stack::define(&stage)) };
    (stage.from, ()) = report.step("the images in it", defined).await?;
    if let Err(error) = report.step("stack and chart", Box::pin(install(&stage))).await {
        for namespace in [stack::MONITORING, release::SYSTEM] {
            report::look_at(&stage, namespace).await;
        }
        return Err(error);
    }
    let of = |act: Act| scenarios.iter().filter(move |scenario| scenario.act == act);
    let beside = of(Act::Beside).map(|scenario| report::play(&stage, scenario));
    let mut beside: FuturesUnordered<_> = beside.collect();
    while let Some(row) = beside.next().await {
        report.row(row);
    }
    for scenario in of(Act::Alone) {
        let row = report::play(&stage, scenario).await;
        report.row(row);
    }
    ensure!(!report.is_empty(), "no scenario was played");
    if !report.passed() {
        bail!("a scenario failed");
    }
    Ok(())
}

async fn install(stage: &Stage) -> Result<()> {
    let chart = release::install(stage, &stage.current, release::WRITES_PODS);
    tokio::try_join!(stack::install(stage), bots::receiver(stage), chart)?;
    stack::until_ready(stage).await
}
