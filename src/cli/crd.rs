//! `kubectl rosey crd`: the custom resource definition.

use clap::Args;
use serde_json::Value;

use super::{Error, Format, Verdict, json, print, yaml};

/// Print the custom resource definition of RoseyMonitor.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl rosey crd | kubectl apply --server-side -f -
  kubectl rosey crd -o json | jq .spec.versions[0].name

Exit codes: 0 done; 1 refused or failed; 2 wrong usage.")]
pub(super) struct Crd {
    /// Format of the output.
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

impl Crd {
    pub(super) fn run(&self) -> Result<Verdict, Error> {
        let mut crd = serde_json::to_value(crate::api::crd()).map_err(|error| Error::Encoding(error.to_string()))?;
        whole_numbers(&mut crd);
        print(&match self.output {
            Format::Yaml => yaml(&crd)?,
            Format::Json => json(&crd)?,
        })
    }
}

/// The definition's types hold bounds as floating point; `65535.0` would be true, and odd to read.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(list) => list.iter_mut().for_each(whole_numbers),
        Value::Number(number) if !number.is_i64() => {
            if let Some(whole) = number.as_f64().and_then(super::manifest::whole) {
                *value = whole.into();
            }
        }
        _ => {}
    }
}
