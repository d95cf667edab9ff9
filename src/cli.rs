//! `kubectl rosey`: one file per subcommand. What needs no cluster asks for none.

#![allow(
    clippy::doc_markdown,
    reason = "clap prints these comments as they stand; backticks would be printed too"
)]

mod cluster;
mod crd;
mod manifest;
mod record;
mod render;
mod schema;
mod send_alert;
mod validate;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage.";

/// Watch chat bots on Kubernetes: check and render monitors, record deployments, send alerts by hand.
///
/// Put the binary `kubectl-rosey` anywhere on the PATH, and kubectl finds it as `kubectl rosey`.
#[derive(Debug, Parser)]
#[command(name = "kubectl-rosey", bin_name = "kubectl rosey", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Render(render::Render),
    Validate(validate::Validate),
    Crd(crd::Crd),
    Schema(schema::Schema),
    Record(record::Record),
    SendAlert(send_alert::SendAlert),
    /// Print the version of this command and of the resource that it knows.
    Version,
}

/// A format that other programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Why a command ended without doing its work.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{file}: {reason}")]
    File { file: String, reason: String },
    #[error("no RoseyMonitor in what was read")]
    NoMonitor,
    #[error("no way to the API server: {0}")]
    Kubeconfig(String),
    #[error("{what}: {reason}")]
    Api { what: String, reason: String },
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    #[error("cannot write the output: {0}")]
    Encoding(String),
}

/// Whether a command that ran to its end is content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    /// What is wrong has been printed already.
    Refused,
}

/// Runs one command; what it has to say goes to the standard streams.
///
/// The process must have a default TLS provider by then.
pub async fn run(cli: Cli) -> ExitCode {
    let verdict = match cli.command {
        Command::Render(render) => render.run(),
        Command::Validate(validate) => validate.run(),
        Command::Crd(crd) => crd.run(),
        Command::Schema(schema) => schema.run(),
        Command::Record(record) => record.run().await,
        Command::SendAlert(alert) => alert.run().await,
        Command::Version => print(&format!(
            "kubectl-rosey {}, {}/{} {}\n",
            env!("CARGO_PKG_VERSION"),
            crate::api::GROUP,
            manifest::VERSION,
            manifest::KIND
        )),
    };
    match verdict {
        Ok(Verdict::Done) => ExitCode::SUCCESS,
        Ok(Verdict::Refused) => ExitCode::from(1),
        Err(error) => {
            note(&format!("error: {error}"));
            ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn print(text: &str) -> Result<Verdict, Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as in `kubectl rosey crd | head`; what was found stays the verdict.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Verdict::Done),
        written => Ok(written.map(|()| Verdict::Done)?),
    }
}

/// One line to the standard error stream; where that is closed, nobody wants it.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn yaml(value: &impl Serialize) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(|error| Error::Encoding(error.to_string()))
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Encoding(error.to_string()))?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_examples() {
        Cli::command().debug_assert();
        let all = Cli::command();
        let (record, others): (Vec<_>, Vec<_>) = all.get_subcommands().partition(|c| c.get_name() == "record");
        let recorded = record.iter().flat_map(|record| record.get_subcommands());
        for command in others.into_iter().filter(|c| c.get_name() != "version").chain(recorded) {
            let help = command.clone().render_long_help().to_string();
            assert!(
                help.contains("Examples:") && help.contains(EXIT_CODES),
                "{}: {help}",
                command.get_name()
            );
        }
    }
}
