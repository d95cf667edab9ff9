//! `kubectl rosey validate`: what is wrong with a monitor, before anybody applies it.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::render::{Files, Place};
use super::{Error, Verdict, manifest, note, print};

/// Say what is wrong with monitors: file, line, field, and what to write instead. Needs no cluster.
///
/// What passes here is accepted by the API server and planned by the operator.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl rosey validate monitors/*.yaml
  helm template bot ./chart | kubectl rosey validate -
  kubectl rosey validate -o json rosey.yaml | jq -r '.problems[].message'

Exit codes: 0 done; 1 refused or failed; 2 wrong usage.")]
pub(super) struct Validate {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    place: Place,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
    Yaml,
}

impl Validate {
    pub(super) fn run(&self) -> Result<Verdict, Error> {
        let platform = self.place.platform()?;
        let found = manifest::read(&self.files.all())?;
        let (mut problems, mut warnings) = (found.findings, Vec::new());
        if found.monitors.is_empty() && problems.is_empty() {
            return Err(Error::NoMonitor);
        }
        let mut places = BTreeMap::new();
        for monitor in &found.monitors {
            // Two files may be for two clusters; of what stands in one, only one could be applied.
            let place = monitor.place(self.place.namespace());
            if let Some(line) = places.insert((monitor.file.clone(), place.clone()), monitor.line()) {
                problems.push(monitor.double(&place, line));
            }
            match monitor.plan(self.place.namespace(), &platform) {
                Ok((_, plan)) => warnings.extend(
                    plan.report
                        .warnings
                        .into_iter()
                        .map(|message| json!({"file": monitor.file, "message": message})),
                ),
                Err(wrong) => problems.extend(wrong),
            }
        }
        // Files keep the order in which they were named.
        problems.sort_by_key(|problem| (self.position(&problem.file), problem.line));

        let report = json!({"valid": problems.is_empty(), "problems": problems, "warnings": warnings});
        match self.output {
            Output::Json => print(&super::json(&report)?)?,
            Output::Yaml => print(&super::yaml(&report)?)?,
            Output::Text => {
                for warning in &warnings {
                    note(&format!(
                        "{}: warning: {}",
                        text(&warning["file"]),
                        text(&warning["message"])
                    ));
                }
                let lines: Vec<_> = problems.iter().map(|problem| format!("{problem}\n")).collect();
                print(&lines.concat())?
            }
        };
        Ok(if problems.is_empty() {
            Verdict::Done
        } else {
            Verdict::Refused
        })
    }

    /// Where a file stands among those named.
    fn position(&self, file: &str) -> usize {
        let files = self.files.all();
        files.iter().position(|named| named == file).unwrap_or_default()
    }
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
