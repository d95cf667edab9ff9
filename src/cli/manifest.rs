//! Files of manifests: which monitors they hold, and on which line each field stands.

mod node;

use std::collections::HashSet;
use std::fmt;
use std::io::{IsTerminal, Read};

use serde::Serialize;

use super::{Error, note};
use crate::api::schema::admit;
use crate::api::{GROUP, RoseyMonitor};
use crate::plan::{Plan, Platform, plan};
pub(super) use node::whole;
use node::{Content, Node};

/// The version of the resource that is served.
pub(super) const VERSION: &str = "v1alpha1";
/// The kind of the resource.
pub(super) const KIND: &str = "RoseyMonitor";

/// Far more than any manifest that an API server would store.
const MAX_BYTES: u64 = 16 << 20;

/// As many as there can be in a file of that size, for `kubectl get -A -o yaml` of a large cluster.
const MAX_NODES: usize = 4 << 20;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The file as it was named, `<stdin>` for the standard input.
    pub file: String,
    /// Line, counted from 1.
    pub line: u64,
    /// Path of the field; empty where the whole document is meant.
    pub field: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A monitor as it stands in a file.
#[derive(Debug)]
pub(super) struct Manifest {
    pub file: String,
    node: Node,
}

/// What was found in the files.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The monitors, in the order of the files.
    pub monitors: Vec<Manifest>,
    /// What cannot be read at all, or is no manifest.
    pub findings: Vec<Finding>,
}

impl Manifest {
    /// Line on which it begins.
    pub fn line(&self) -> u64 {
        self.node.line
    }

    /// Its namespace and name.
    pub fn place(&self, namespace: &str) -> (String, String) {
        let document = self.node.to_json();
        let text = |field: &str| document["metadata"][field].as_str().unwrap_or_default().to_owned();
        let own = text("namespace");
        (if own.is_empty() { namespace.to_owned() } else { own }, text("name"))
    }

    /// That a monitor of the same name stands in this file already.
    pub fn double(&self, (namespace, name): &(String, String), line: u64) -> Finding {
        Finding {
            file: self.file.clone(),
            line: self.node.line_of("metadata.name"),
            field: "metadata.name".into(),
            message: format!("monitor {namespace}/{name} stands on line {line} already"),
        }
    }

    /// Judges the monitor as the API server and the operator would.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its lines.
    pub fn plan(&self, namespace: &str, platform: &Platform) -> Result<(RoseyMonitor, Plan), Vec<Finding>> {
        let admission = admit(&self.node.to_json());
        let mut wrong: Vec<(String, String)> = admission.violations.into_iter().map(|v| (v.field, v.message)).collect();
        if let Some(mut monitor) = admission.monitor {
            if monitor.metadata.namespace.as_deref().is_none_or(str::is_empty) {
                monitor.metadata.namespace = Some(namespace.to_owned());
            }
            match plan(&monitor, platform) {
                Ok(plan) if wrong.is_empty() => return Ok((monitor, plan)),
                Ok(_) => {}
                Err(problems) => {
                    // One word on each field is enough, and the schema's was first.
                    let said: HashSet<_> = wrong.iter().map(|(field, _)| field.clone()).collect();
                    let new = problems.0.into_iter().filter(|problem| !said.contains(&problem.field));
                    wrong.extend(new.map(|problem| (problem.field, problem.message)));
                }
            }
        }
        let mut findings: Vec<_> = wrong
            .into_iter()
            .map(|(field, message)| Finding {
                file: self.file.clone(),
                line: self.node.line_of(&field),
                field,
                message,
            })
            .collect();
        findings.sort_by_key(|finding| finding.line);
        Err(findings)
    }
}

/// Reads the files named, `-` or none for the standard input. Objects of other kinds are passed by with a note.
///
/// # Errors
/// A file that can't be read.
pub(super) fn read(files: &[String]) -> Result<Found, Error> {
    let mut found = Found::default();
    let stdin = [String::from("-")];
    if files.is_empty() && std::io::stdin().is_terminal() {
        return Err(Error::Usage("name a file, or pipe a manifest in".into()));
    }
    for file in if files.is_empty() { &stdin[..] } else { files } {
        let (name, text) = if file == "-" {
            ("<stdin>", text(std::io::stdin().lock()))
        } else {
            (
                file.as_str(),
                std::fs::File::open(file)
                    .map_err(|error| error.to_string())
                    .and_then(text),
            )
        };
        let text = text.map_err(|reason| Error::File {
            file: name.to_owned(),
            reason,
        })?;
        found.documents(name, &text);
    }
    Ok(found)
}

/// Reads a whole file as text, as far as it is text and of a sensible size.
pub(super) fn text(source: impl Read) -> Result<String, String> {
    let mut text = String::new();
    let read = source
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if u64::try_from(read).is_ok_and(|read| read > MAX_BYTES) {
        return Err(format!("is larger than {} MiB; that is no manifest", MAX_BYTES >> 20));
    }
    Ok(text)
}

impl Found {
    fn documents(&mut self, file: &str, text: &str) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (mut document, mut first) = (String::new(), 0);
        for (n, line) in (0u64..).zip(text.split_inclusive('\n')) {
            if let Some(rest) = line.strip_prefix("---") {
                if !rest.trim_start().is_empty() && !rest.trim_start().starts_with('#') {
                    let message = "is not YAML as kubectl reads it: on the line of --- stands nothing but a comment";
                    self.refuse(file, n + 1, "", message.into());
                }
                self.document(file, &document, first);
                (document, first) = (format!("   {rest}"), n);
            } else {
                document += line;
            }
        }
        self.document(file, &document, first);
    }

    fn document(&mut self, file: &str, text: &str, first: u64) {
        let blank = |line: &str| line.is_empty() || line.starts_with(['#', '%']) || line == "...";
        if text.lines().all(|line| blank(line.trim())) {
            return;
        }
        // As kubectl reads YAML: `yes` is true and `010` is eight. Of a key that stands twice it takes the last, silently; that
        // is never meant. The budget fits the largest file that is read; its text is bounded already.
        let options = serde_saphyr::options! {
            legacy_octal_numbers: true,
            with_snippet: false,
            budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_events: 2 * MAX_NODES },
        };
        match serde_saphyr::from_str_with_options::<Node>(text, options) {
            Ok(mut node) => {
                node.read_words_as_kubectl(text);
                node.move_down(first);
                self.object(file, node);
            }
            Err(error) => {
                let line = error.location().map_or(1, |location| location.line().max(1)) + first;
                let message = match error.without_snippet() {
                    serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
                        format!("the key {key} stands here twice")
                    }
                    other => {
                        let text = other.to_string();
                        // The position is said already, counted from the file's beginning.
                        format!(
                            "is not YAML as kubectl reads it: {}",
                            text.split(" at line ").next().unwrap_or_default()
                        )
                    }
                };
                self.refuse(file, line, "", message);
            }
        }
    }

    fn object(&mut self, file: &str, node: Node) {
        let (kind, api_version) = (node.text("kind"), node.text("apiVersion"));
        let served = format!("{GROUP}/{VERSION}");
        match (kind, api_version) {
            (Some("List" | "RoseyMonitorList"), _) => {
                if let Content::Map(entries) = node.content
                    && let Some((
                        _,
                        Node {
                            content: Content::List(items),
                            ..
                        },
                    )) = entries.into_iter().find(|(key, _)| key.name == "items")
                {
                    for item in items {
                        self.object(file, item);
                    }
                }
            }
            (Some(KIND), Some(version)) if version == served => {
                self.monitors.push(Manifest {
                    file: file.to_owned(),
                    node,
                });
            }
            (Some(KIND), version) => {
                let version =
                    version.map_or_else(|| "is missing".into(), |version| format!("\"{version}\" is not served"));
                self.refuse(
                    file,
                    node.line_of("apiVersion"),
                    "apiVersion",
                    format!("{version}; write {served}"),
                );
            }
            (Some(kind), Some(version)) if version.split('/').next() == Some(GROUP) => {
                self.refuse(
                    file,
                    node.line_of("kind"),
                    "kind",
                    format!("\"{kind}\" is not served; write {KIND}"),
                );
            }
            (Some(kind), Some(_)) => note(&format!(
                "{file}:{}: {kind} passed by; only {KIND}s are read",
                node.line
            )),
            (None, _) => self.refuse(
                file,
                node.line,
                "kind",
                format!("is missing; a monitor has kind {KIND}"),
            ),
            (_, None) => self.refuse(file, node.line, "apiVersion", "is missing".into()),
        }
    }

    fn refuse(&mut self, file: &str, line: u64, field: &str, message: String) {
        self.findings.push(Finding {
            file: file.to_owned(),
            line,
            field: field.to_owned(),
            message,
        });
    }
}

#[cfg(test)]
mod tests;
