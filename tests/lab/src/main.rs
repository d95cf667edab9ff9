//! `lab up`: a lab to play with. `lab demo`: a bot being watched. `lab soak`: a day in minutes.

mod bench;
mod demo;
mod soak;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::{AuditLevel, Lab};

#[derive(Parser)]
#[command(
    about = "The real control plane and Prometheus stack as plain processes on loopback",
    after_help = "Examples:\n  cargo run -p lab -- up                       everything, until Ctrl-C\n  \
                  cargo run -p lab -- up --without-stack       etcd, API server and controllers alone\n  \
                  cargo run -p lab -- up --image bot=./my-bot  pods with image `bot` run ./my-bot\n  \
                  cargo run -p lab -- demo --keep              the story, and then everything stays up\n  \
                  ROSEY_LAB_KEEP=1 cargo run -p lab -- up      leave files and logs behind"
)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Brings a lab up, prints its addresses and stays until Ctrl-C
    Up {
        /// Leave prometheus-operator, Prometheus and Alertmanager out
        #[arg(long)]
        without_stack: bool,
        /// What runs for an image; may be given several times
        #[arg(long, value_name = "IMAGE=PATH", value_parser = image)]
        image: Vec<(String, String)>,
        /// One more user beside `admin`, without rights; may be given several times
        #[arg(long, value_name = "NAME")]
        user: Vec<String>,
        /// Log the bodies of requests and responses, too
        #[arg(long)]
        audit_bodies: bool,
    },
    /// Tells the story of a bot that is watched, on the real components, and ends by itself
    Demo {
        /// Leave everything up at the end, and print the addresses
        #[arg(long)]
        keep: bool,
    },
    /// Measures the operator at 1,000 monitors and prints a table; in a release build
    Bench(bench::Size),
    /// Lets the exporter live through a day in minutes, and ends with an error if it grows or misses a line of the log
    Soak(soak::Options),
    /// Measures rosey-exporter beside a general one on the same health document and prints a table; in a release build
    BenchExporter(bench::exporter::Size),
    /// Keeps a processor awake while others are measured, until it is killed
    #[command(hide = true)]
    Awake,
}

fn image(text: &str) -> Result<(String, String), String> {
    let (image, path) = text.split_once('=').ok_or("write IMAGE=PATH")?;
    let path = std::fs::canonicalize(path).map_err(|error| format!("{path}: {error}"))?;
    Ok((image.to_owned(), path.display().to_string()))
}

#[tokio::main]
async fn main() -> Result<()> {
    // The client logs every attempt to reach an API server that is still starting.
    let quiet = || "warn,kube_client=off".into();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| quiet()))
        .with_writer(std::io::stderr)
        .init();
    let (without_stack, image, user, audit_bodies) = match Arguments::parse().command {
        Subcommands::Up {
            without_stack,
            image,
            user,
            audit_bodies,
        } => (without_stack, image, user, audit_bodies),
        Subcommands::Demo { keep } => return demo::run(keep).await,
        Subcommands::Bench(size) => return bench::run(size).await,
        Subcommands::Soak(options) => return soak::run(options).await,
        Subcommands::BenchExporter(size) => return bench::exporter::run(&size),
        Subcommands::Awake => bench::exporter::stay_awake(),
    };
    let mut builder = Lab::builder();
    if without_stack {
        builder = builder.without_stack();
    }
    if audit_bodies {
        builder = builder.audit(AuditLevel::RequestResponse);
    }
    for (image, path) in image {
        builder = builder.image(&image, path.as_str());
    }
    for user in &user {
        builder = builder.user(user);
    }

    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let start = std::time::Instant::now();
    let lab = tokio::select! {
        lab = builder.start() => lab?,
        _ = &mut interrupt => return Ok(()),
    };
    println!("The lab is up after {:.1} s.\n", start.elapsed().as_secs_f64());
    println!("  API server    {}", lab.api_server());
    if !without_stack {
        println!("  Prometheus    {}", lab.prometheus().url());
        println!("  Alertmanager  {}", lab.alertmanager().url());
    }
    println!(
        "  receivers     {} (also /slack/…, /webhook/…)",
        lab.discord_url("NAME")
    );
    println!("  mail          {}", lab.smtp());
    println!("  logs          {}", lab.logs_dir().display());
    println!("\nexport KUBECONFIG={}", lab.kubeconfig().display());
    for user in &user {
        println!("  as {user}: {}", lab.kubeconfig_of(user)?.display());
    }
    println!("\nCtrl-C ends it.");
    interrupt.await?;
    drop(lab);
    Ok(())
}
