//! `kubectl rosey schema`: the JSON schema of the exporter's configuration file.

use clap::Args;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Error, Verdict, json, print};
use crate::sidecar::Config;

/// Print the JSON schema of the configuration file of rosey-exporter, for editors and pipelines.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl rosey schema > exporter.schema.json
  kubectl rosey schema | jq .properties.pushgateway

The first line of a file tells editors that speak to the YAML language server:
  # yaml-language-server: $schema=exporter.schema.json

What no schema can say, such as a label that is there twice, `rosey-exporter --check FILE` says.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage.")]
pub(super) struct Schema {}

impl Schema {
    #[expect(clippy::unused_self, reason = "as every command")]
    pub(super) fn run(&self) -> Result<Verdict, Error> {
        print(&json(&schema())?)
    }
}

fn schema() -> Value {
    // Without references: each field stands where it is looked for.
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    schema.insert("title".into(), "Configuration of rosey-exporter".into());
    schema.into()
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    /// Whether a document is as the schema says. It knows the words that the schema uses, and fails on any other.
    fn fits(document: &Value, schema: &Value) -> bool {
        let schema = schema.as_object().unwrap();
        schema.iter().all(|(word, rule)| match word.as_str() {
            "title" | "description" | "default" | "format" | "$schema" => true,
            "type" => {
                let is = |kind: &Value| match kind.as_str().unwrap() {
                    "object" => document.is_object(),
                    "array" => document.is_array(),
                    "string" => document.is_string(),
                    "boolean" => document.is_boolean(),
                    "integer" => document.is_u64(),
                    "number" => document.is_number(),
                    "null" => document.is_null(),
                    other => panic!("unknown type {other}"),
                };
                rule.as_array().map_or_else(|| is(rule), |kinds| kinds.iter().any(is))
            }
            "anyOf" => rule.as_array().unwrap().iter().any(|branch| fits(document, branch)),
            "required" => {
                { rule.as_array().unwrap().iter() }.all(|name| document.get(name.as_str().unwrap()).is_some())
            }
            "properties" => { rule.as_object().unwrap().iter() }
                .all(|(name, rule)| document.get(name).is_none_or(|field| fits(field, rule))),
            "additionalProperties" => document.as_object().is_none_or(|fields| {
                let known = |name: &String| schema.get("properties").is_some_and(|known| known.get(name).is_some());
                { fields.iter() }.all(|(name, field)| known(name) || (rule.is_object() && fits(field, rule)))
            }),
            "items" => document
                .as_array()
                .is_none_or(|items| items.iter().all(|item| fits(item, rule))),
            "minimum" => document.as_f64().is_none_or(|value| value >= rule.as_f64().unwrap()),
            "maximum" => document.as_f64().is_none_or(|value| value <= rule.as_f64().unwrap()),
            "minLength" => {
                { document.as_str() }.is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap())
            }
            "maxLength" => {
                { document.as_str() }.is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().unwrap())
            }
            "pattern" => {
                { document.as_str() }.is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text))
            }
            other => panic!("unknown word {other}"),
        })
    }

    fn accepted(document: &str) -> bool {
        serde_saphyr::from_str::<Config>(document).is_ok_and(|config| config.check().is_ok())
    }

    #[test]
    fn the_schema_takes_what_the_exporter_takes() {
        let schema = schema();
        for (document, good) in [
            ("{}", true),
            ("environment: prod", true),
            ("environment:", true),
            ("environment: ''", false),
            ("port: 9100", true),
            ("port: 0", false),
            ("port: 65536", false),
            ("port: -1", false),
            ("port: 9.5", false),
            ("prot: 9100", false),
            ("health: {port: 8000, path: /api/health}", true),
            ("health: {port: 8000, path: '/x?y=%20&z', timeoutSeconds: 0.5}", true),
            ("health: {port: 8000, path: /x, timeoutSeconds: 60}", true),
            ("health: {port: 8000, path: /x, timeoutSeconds: 61}", false),
            ("health: {port: 8000, path: /x, timeoutSeconds: 0}", false),
            ("health: {port: 8000, path: /x, timeout: 2}", false),
            ("health: {port: 8000}", false),
            ("health: {path: /x}", false),
            ("metrics: {port: 1, path: 'x'}", false),
            ("metrics: {port: 1, path: '/a b'}", false),
            ("plugins: {port: 0, path: '/a'}", false),
            ("plugins: {port: 1, path: '/a'}", true),
            ("logs: {path: /var/log/rosey.log}", true),
            ("logs: {path: /var/log/}", false),
            ("logs: {path: rosey.log}", false),
            ("logs: /var/log/rosey.log", false),
            ("disk: []", true),
            ("disk: [{label: root, path: /}]", true),
            ("disk: [{label: root}]", false),
            ("disk: [{label: '', path: /}]", false),
            ("disk: [{label: root, path: data}]", false),
            ("disk: {label: root, path: /}", false),
            ("backups: {path: /b}", true),
            ("backups: {path: /b, pattern: ''}", false),
            ("backups: {path: b}", false),
            ("deployments: true", true),
            ("deployments: many", false),
            ("state: /var/lib/rosey", true),
            ("state: rosey", false),
            ("pushgateway: {url: 'http://g:9091'}", true),
            (
                "pushgateway: {url: 'https://[::1]/x', intervalSeconds: 1, job: j, labels: {a: b}, caFile: /c}",
                true,
            ),
            ("pushgateway: {url: 'http://g', username: u, passwordFile: /p}", true),
            ("pushgateway: {url: 'http://g', labels: [a]}", false),
            ("pushgateway: {url: 'g:9091'}", false),
            ("pushgateway: {url: 'http://g', intervalSeconds: 0.5}", false),
            ("pushgateway: {url: 'http://g', intervalSeconds: 241}", false),
            ("pushgateway: {url: 'http://g', job: ''}", false),
            ("pushgateway: {url: 'http://g', caFile: ca.pem}", false),
            ("pushgateway: {}", false),
        ] {
            let json: Value = serde_saphyr::from_str(document).unwrap();
            assert_eq!((fits(&json, &schema), accepted(document)), (good, good), "{document}");
        }
        // The exporter takes any word for text; an editor asks for quotes, which keep 1.10 from being a number.
        for document in ["environment: 1", "pushgateway: {url: 'http://g', labels: {a: 1}}"] {
            let json: Value = serde_saphyr::from_str(document).unwrap();
            assert_eq!((fits(&json, &schema), accepted(document)), (false, true), "{document}");
        }
        // What one field means for another no schema says.
        for document in [
            "disk: [{label: a, path: /}, {label: a, path: /b}]",
            "disk: [{label: a, path: /a/../b}]",
            "pushgateway: {url: 'http://g', username: u}",
            "pushgateway: {url: 'http://user:password@g'}",
            "pushgateway: {url: 'http://g', labels: {job: x}}",
        ] {
            let json: Value = serde_saphyr::from_str(document).unwrap();
            assert_eq!((fits(&json, &schema), accepted(document)), (true, false), "{document}");
        }
    }

    #[test]
    fn every_field_is_described_and_no_other_is_taken() {
        fn look(schema: &Value, path: &str) -> usize {
            let branches = schema["anyOf"].as_array().map_or(&[][..], Vec::as_slice);
            let mut fields: usize = branches.iter().map(|branch| look(branch, path)).sum();
            fields += schema.get("items").map_or(0, |items| look(items, path));
            if let Some(properties) = schema["properties"].as_object() {
                assert_eq!(schema["additionalProperties"], false, "{path}");
                for (name, field) in properties {
                    let path = format!("{path}.{name}");
                    let description = field["description"].as_str().unwrap_or_default();
                    assert!(
                        description.ends_with('.') && !description.contains("::"),
                        "{path}: {description:?}"
                    );
                    fields += 1 + look(field, &path);
                }
            }
            fields
        }
        assert!(look(&schema(), "") > 25);
    }
}
