//! `kubectl rosey render`: the objects of a monitor's plan, without a cluster.

use clap::Args;
use serde_json::{Value, json};

use super::{Error, Format, Verdict, manifest, note, print};
use crate::plan::Platform;

/// Print the objects that the operator makes of a monitor. Needs no cluster.
///
/// The output is what the operator applies, but for the ownerReferences that it adds. The same input gives the same bytes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl rosey render examples/rosey.yaml
  helm template bot ./chart | kubectl rosey render -n bots -
  kubectl get roseymonitor rosey -o yaml | kubectl rosey render -o json --platform platform.yaml

Exit codes: 0 done; 1 refused or failed; 2 wrong usage.")]
pub(super) struct Render {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    place: Place,
    /// Format of the output: YAML documents, or a List in JSON.
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

/// The manifests to read.
#[derive(Debug, Args)]
pub(super) struct Files {
    /// Manifests in YAML or JSON, several documents or Lists too; `-` or none: the standard input.
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// The same as FILE; may be repeated.
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
}

impl Files {
    pub(super) fn all(&self) -> Vec<String> {
        self.files.iter().chain(&self.filename).cloned().collect()
    }
}

/// Where a monitor is thought to be.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Namespace of monitors that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// What is known about the cluster: a YAML file with prometheusOperator and alertmanager (versions), defaultObjectLabels,
    /// exporterImage, exporterImagePrefixes and nativeSidecars. Default: a current cluster.
    #[arg(long, value_name = "FILE")]
    platform: Option<String>,
}

impl Place {
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn platform(&self) -> Result<Platform, Error> {
        let Some(file) = &self.platform else {
            return Ok(Platform::default());
        };
        let text = std::fs::File::open(file)
            .map_err(|error| error.to_string())
            .and_then(manifest::text);
        let options = serde_saphyr::options! { with_snippet: false };
        text.and_then(|text| {
            serde_saphyr::from_str_with_options(&text, options).map_err(|error| error.without_snippet().to_string())
        })
        .map_err(|reason| Error::File {
            file: file.clone(),
            reason,
        })
    }
}

impl Render {
    pub(super) fn run(&self) -> Result<Verdict, Error> {
        let platform = self.place.platform()?;
        let found = manifest::read(&self.files.all())?;
        let (mut findings, mut objects) = (found.findings, Vec::new());
        if found.monitors.is_empty() && findings.is_empty() {
            return Err(Error::NoMonitor);
        }
        for monitor in &found.monitors {
            match monitor.plan(self.place.namespace(), &platform) {
                Ok((_, plan)) => {
                    plan.report
                        .warnings
                        .iter()
                        .for_each(|warning| note(&format!("{}: warning: {warning}", monitor.file)));
                    objects.extend(plan.objects.into_iter().map(|object| object.json));
                }
                Err(wrong) => findings.extend(wrong),
            }
        }
        for finding in &findings {
            note(&finding.to_string());
        }
        if !findings.is_empty() {
            return Ok(Verdict::Refused);
        }
        match self.output {
            Format::Yaml => print(&documents(&objects)?),
            Format::Json => print(&super::json(
                &json!({"apiVersion": "v1", "kind": "List", "items": objects}),
            )?),
        }
    }
}

fn documents(objects: &[Value]) -> Result<String, Error> {
    let documents: Result<Vec<_>, _> = objects.iter().map(super::yaml).collect();
    Ok(documents?.join("---\n"))
}
