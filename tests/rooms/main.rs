//! What keeps the house in order and no compiler checks: imports between rooms point one way, a plan is pure, names say
//! something, files stay short. Judged from the tokens of the sources, so neither comments nor text count.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what the checks read is there, or they fail"
)]

mod checks;
mod paths;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::TokenTree;

use paths::{Named, paths, search, tokens};

/// Every room, and which others it may import; itself always. `src/lib.rs` is the map and belongs to none.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "bin",
        &[
            "fake_bot",
            "operator",
            "cli",
            "exporter",
            "cluster",
            "plan",
            "catalogue",
            "catalogue::metrics",
            "monitoring",
            "sidecar",
            "api",
        ],
    ),
    ("operator", &["cluster", "plan", "catalogue::metrics", "sidecar", "api"]),
    (
        "cli",
        &["cluster", "plan", "catalogue", "catalogue::metrics", "sidecar", "api"],
    ),
    ("exporter", &["sidecar", "catalogue::metrics"]),
    ("cluster", &["plan", "api"]),
    (
        "plan",
        &["catalogue", "catalogue::metrics", "monitoring", "sidecar", "api"],
    ),
    ("catalogue", &["catalogue::metrics", "api"]),
    ("catalogue::metrics", &[]),
    ("fake_bot", &[]),
    ("monitoring", &[]),
    ("sidecar", &[]),
    ("api", &[]),
];

/// The rooms without clock, network and files: what they answer depends on what they are given.
const PURE: &[&str] = &["plan", "catalogue", "catalogue::metrics", "sidecar", "api"];

/// What a pure room may not name.
const IMPURE: &[&[&str]] = &[
    &["kube", "Api"],
    &["kube", "Client"],
    &["kube", "api", "Api"],
    &["kube", "client"],
    &["kube", "runtime"],
    &["tokio"],
    &["reqwest"],
    &["hyper"],
    &["axum"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["jiff", "Timestamp", "now"],
    &["jiff", "Zoned", "now"],
];

/// Names that say nothing of what is in the thing.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "helper", "helpers", "common", "manager", "managers", "misc",
];

/// Lines from which on a file wants to be two, and a tenth more for who is about to split it.
const MAX_LINES: usize = 400 + 400 / 10;

#[test]
fn imports_between_rooms_point_one_way_and_a_plan_is_pure() {
    let files = rust_files("src");
    let crossings: usize = files.iter().map(|(_, source)| paths(source).from_root).sum();
    assert!(
        files.len() > 20 && crossings > 50,
        "only {} files and {crossings} imports were found in src/",
        files.len()
    );
    report(files.iter().flat_map(|(file, source)| wrong_imports(file, source)));
}

#[test]
fn every_lint_that_is_silenced_carries_its_reason() {
    let ours = ["src", "tests", "examples"].into_iter().flat_map(rust_files);
    report(ours.flat_map(|(file, source)| silenced_without_reason(&file, &source)));
}

#[test]
fn no_file_and_no_type_has_an_empty_name() {
    let ours = ["src", "tests", "examples"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|(file, _)| !is_generated(file));
    report(ours.flat_map(|(file, source)| empty_names(&file, &source)));
}

#[test]
fn no_source_file_is_longer_than_one_wants_to_read() {
    let ours = ["src", "tests", "examples"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|(file, _)| !is_generated(file));
    report(ours.filter_map(|(file, source)| too_long(&file, &source)));
}

/// prometheus-operator's types, from its own definitions.
fn is_generated(file: &str) -> bool {
    file.starts_with("src/monitoring/")
}

fn report(wrong: impl Iterator<Item = String>) {
    let wrong: Vec<_> = wrong.collect();
    assert!(
        wrong.is_empty(),
        "\n{}\n(the rules stand at the top of tests/rooms/main.rs)",
        wrong.join("\n")
    );
}

/// The Rust files below a folder of the repository, with their text.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// What a file imports or names that its room may not.
fn wrong_imports(file: &str, source: &str) -> Vec<String> {
    let module = module(file);
    let Some(own) = room(&module) else { return Vec::new() };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == own) else {
        return vec![format!(
            "{file}: {own} is no room that is known here; add it to ROOMS with what it may import"
        )];
    };
    let mut wrong = BTreeSet::new();
    for Named {
        line,
        path,
        module: inner,
    } in paths(source).named
    {
        let shown = path.join("::");
        let within: Vec<_> = module.iter().cloned().chain(inner).collect();
        match resolve(&path, &within, &own) {
            Some(target) => {
                let target = room(&target).unwrap_or_default();
                if target != own && !target.is_empty() && !allowed.contains(&target.as_str()) {
                    let allowed = if allowed.is_empty() {
                        "no other room".into()
                    } else {
                        allowed.join(", ")
                    };
                    wrong.insert((line, format!(
                        "{file}:{line}: {own} may not import {target} ({shown}); it may import {allowed}. Take the thing in as a value, or move \
                         it to a room that both may import"
                    )));
                }
            }
            None if PURE.contains(&own.as_str()) && IMPURE.iter().any(|impure| starts_with(&path, impure)) => {
                wrong.insert((line, format!(
                    "{file}:{line}: {own} may not name {shown}: it has no clock, no network and no files. Do it in operator, cli or cluster, and \
                     hand the outcome in as a value"
                )));
            }
            None => {}
        }
    }
    wrong.into_iter().map(|(_, message)| message).collect()
}

fn starts_with(path: &[String], prefix: &[&str]) -> bool {
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(a, b)| a == b)
}

/// The module that a file is: `src/plan/rules.rs` is `plan::rules`.
fn module(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    if path == "lib" {
        Vec::new()
    } else {
        path.split('/').map(Into::into).collect()
    }
}

/// The room that a module belongs to; none for the crate itself.
fn room(module: &[String]) -> Option<String> {
    match module {
        [first, second, ..] if first == "catalogue" && second == "metrics" => Some("catalogue::metrics".into()),
        [first, ..] => Some(first.clone()),
        [] => None,
    }
}

/// Where in the house a path leads that stands in `module`; `None` for a path out of the house or to something near.
fn resolve(path: &[String], module: &[String], room: &str) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "rosey_monitor" => Some(rest.to_vec()),
        // Each command is a crate of its own.
        "crate" if room != "bin" => Some(rest.to_vec()),
        "super" if room != "bin" => {
            let ups = path.iter().take_while(|segment| *segment == "super").count();
            let base = &module[..module.len().saturating_sub(ups)];
            Some(base.iter().chain(&path[ups..]).cloned().collect())
        }
        _ => None,
    }
}

/// `allow` and `expect` attributes without a reason.
fn silenced_without_reason(file: &str, source: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    search(&tokens(source), &mut |here| {
        let attribute = match here {
            [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] if hash.as_char() == '#' => attribute,
            [
                TokenTree::Punct(hash),
                TokenTree::Punct(bang),
                TokenTree::Group(attribute),
                ..,
            ] if hash.as_char() == '#' && bang.as_char() == '!' => attribute,
            _ => return,
        };
        search(&attribute.stream().into_iter().collect::<Vec<_>>(), &mut |here| {
            let [TokenTree::Ident(word), TokenTree::Group(lints), ..] = here else {
                return;
            };
            let has_reason = || {
                lints
                    .stream()
                    .into_iter()
                    .any(|token| matches!(token, TokenTree::Ident(word) if word == "reason"))
            };
            if (word == "allow" || word == "expect") && !has_reason() {
                wrong.push(format!(
                    "{file}:{}: #[{word}{lints}] says no reason; add `reason = \"…\"`",
                    word.span().start().line
                ));
            }
        });
    });
    wrong
}

/// The file, and the modules and types in it, whose names say nothing.
fn empty_names(file: &str, source: &str) -> Vec<String> {
    let advice = "says nothing; name it after what it does";
    let mut wrong = Vec::new();
    for part in file
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| is_empty_name(part))
    {
        wrong.push(format!("{file}: the name {part} {advice}"));
    }
    search(&tokens(source), &mut |here| {
        let [TokenTree::Ident(item), TokenTree::Ident(name), ..] = here else {
            return;
        };
        if ["mod", "struct", "enum", "trait", "type"]
            .iter()
            .any(|word| item == word)
            && is_empty_name(&name.to_string())
        {
            wrong.push(format!("{file}:{}: the name {name} {advice}", name.span().start().line));
        }
    });
    wrong
}

/// Whether one of a name's words is empty: those of `config_utils`, `config-utils` and `ConfigUtils` are `config` and `utils`.
fn is_empty_name(name: &str) -> bool {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter.is_uppercase() || !letter.is_alphanumeric() {
            words.push(String::new());
        }
        words
            .last_mut()
            .unwrap()
            .extend(letter.to_lowercase().filter(|letter| letter.is_alphanumeric()));
    }
    words.iter().any(|word| EMPTY_NAMES.contains(&word.as_str()))
}

fn too_long(file: &str, source: &str) -> Option<String> {
    let lines = source.lines().count();
    (lines > MAX_LINES).then(|| {
        format!("{file}: {lines} lines, more than {MAX_LINES}; it speaks of more than one thing, give each a file")
    })
}
