//! What is in a binary, in the format of `CycloneDX`: every crate that the compiler reported while it was built, the C library that is linked
//! in, and the certificates beside it. The list is held against what `cargo tree` resolves, so that neither can hide a crate.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// Whose binaries these are.
const PACKAGE: &str = "rosey-monitor";

/// A name and a version.
type Crate = (String, String);

/// A crate of a build: whether it is in the binary, or only helped to make it (a macro, a build script and what they need).
pub(crate) type Crates = BTreeMap<Crate, bool>;

#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    #[serde(default)]
    filenames: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
}

/// What is known of crates beyond their names.
pub(crate) struct Known {
    /// By the identifier that cargo gives a package.
    names: BTreeMap<String, Crate>,
    licenses: BTreeMap<Crate, String>,
    checksums: BTreeMap<Crate, String>,
}

impl Known {
    /// Asks cargo, and reads `Cargo.lock` in the current folder.
    pub(crate) fn read() -> Result<Self> {
        let metadata = cargo(&["metadata", "--locked", "--format-version", "1"])?;
        let lock = std::fs::read_to_string("Cargo.lock").context("Cargo.lock can't be read")?;
        Self::of(&metadata, &lock)
    }

    fn of(metadata: &str, lock: &str) -> Result<Self> {
        let metadata: Metadata = serde_json::from_str(metadata).context("cargo metadata answers in no known form")?;
        let (mut names, mut licenses) = (BTreeMap::new(), BTreeMap::new());
        for package in metadata.packages {
            let name = (package.name, package.version);
            if let Some(license) = package.license {
                // Some crates still write the slash that cargo took for OR.
                licenses.insert(
                    name.clone(),
                    license.split('/').map(str::trim).collect::<Vec<_>>().join(" OR "),
                );
            }
            names.insert(package.id, name);
        }
        Ok(Self {
            names,
            licenses,
            checksums: checksums(lock),
        })
    }

    /// The crates that a build's messages name; what lies in the folder of `target` was made for the binary.
    pub(crate) fn built(&self, messages: &str, target: &str) -> Result<Crates> {
        let mut crates = Crates::new();
        for line in messages.lines().filter(|line| !line.trim().is_empty()) {
            let message: Message = serde_json::from_str(line).context("a message of the build is no JSON")?;
            let (Some(id), "compiler-artifact") = (message.package_id, message.reason.as_str()) else {
                continue;
            };
            let name = self
                .names
                .get(&id)
                .with_context(|| format!("{id} was built and is not in Cargo.lock"))?;
            let linked = message
                .filenames
                .iter()
                .any(|file| file.split('/').any(|part| part == target));
            *crates.entry(name.clone()).or_default() |= linked;
        }
        ensure!(
            crates.values().any(|linked| *linked),
            "the messages name no crate that was built for {target}"
        );
        Ok(crates)
    }

    fn component(&self, kind: &str, name: &Crate, linked: bool) -> Value {
        let purl = format!("pkg:cargo/{}@{}", name.0, name.1);
        let mut component = json!({
            "type": kind, "bom-ref": purl, "name": name.0, "version": name.1, "purl": purl,
            "scope": if linked { "required" } else { "excluded" },
        });
        if let Some(license) = self.licenses.get(name) {
            component["licenses"] = json!([{"expression": license}]);
        }
        if let Some(checksum) = self.checksums.get(name) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        component
    }

    /// The component of a crate whose data lies beside the binary.
    pub(crate) fn data(&self, name: &str) -> Result<Value> {
        let mut crates = self.names.values();
        let found = crates
            .find(|(known, _)| known == name)
            .with_context(|| format!("{name} is not in Cargo.lock"))?;
        Ok(self.component("data", found, true))
    }

    /// The document of the image `binary`; `others` are components that are no crates of the build.
    pub(crate) fn document(&self, binary: &str, crates: &Crates, others: &[Value], created: &str) -> Result<Value> {
        let root = crates.keys().find(|(name, _)| name == PACKAGE);
        let root = root.context("the build did not build the package itself")?;
        let components = crates.iter().filter(|(name, _)| *name != root);
        let components = components.map(|(name, linked)| self.component("library", name, *linked));
        Ok(json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "timestamp": created,
                "component": {"type": "container", "bom-ref": binary, "name": binary, "version": root.1},
            },
            "components": components.chain(others.iter().cloned()).collect::<Vec<_>>(),
        }))
    }
}

/// The C library and Rust's own, which no crate stands for.
pub(crate) fn toolchain() -> Result<Vec<Value>> {
    let library = |name: &str, version: &str| {
        let purl = format!("pkg:generic/{name}@{version}");
        json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "scope": "required"})
    };
    let (libc, rust) = (
        output("getconf", &["GNU_LIBC_VERSION"])?,
        output("rustc", &["--version"])?,
    );
    let (name, version) = libc
        .trim()
        .split_once(' ')
        .context("getconf names no version of the C library")?;
    let rust = rust.split(' ').nth(1).context("rustc names no version")?;
    Ok(vec![library(name, version), library("rust-std", rust)])
}

/// What is in the binary, by `cargo tree`.
pub(crate) const LINKED: &str = "normal,no-proc-macro";
/// All that the build may ask for, by `cargo tree`.
pub(crate) const ASKED_FOR: &str = "normal,build";

/// What `cargo tree` resolves for the binary along `edges`.
pub(crate) fn tree(feature: &str, target: &str, edges: &str) -> Result<BTreeSet<Crate>> {
    let tree = cargo(&[
        "tree",
        "--locked",
        "--package",
        PACKAGE,
        "--no-default-features",
        "--features",
        feature,
        "--target",
        target,
        "--edges",
        edges,
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?;
    Ok(resolved(&tree))
}

fn resolved(tree: &str) -> BTreeSet<Crate> {
    let lines = tree.lines().filter_map(|line| line.split_once(" v"));
    lines
        .map(|(name, rest)| (name.into(), rest.split(' ').next().unwrap_or_default().into()))
        .collect()
}

/// Fails where the build and the resolution disagree. What was asked for and not built is added as not in the binary: a crate may name what
/// its build script needs and have no build script.
pub(crate) fn complete(crates: &mut Crates, linked: &BTreeSet<Crate>, asked_for: &BTreeSet<Crate>) -> Result<()> {
    let names = |crates: Vec<&Crate>| {
        let names = crates.iter().map(|(name, version)| format!("{name} {version}"));
        names.collect::<Vec<_>>().join(", ")
    };
    let unasked = names(crates.keys().filter(|name| !asked_for.contains(name)).collect());
    let absent = names(linked.iter().filter(|name| crates.get(name) != Some(&true)).collect());
    ensure!(
        unasked.is_empty() && absent.is_empty(),
        "the build and cargo tree disagree; built and not in the tree: {unasked}; in the tree and not linked: {absent}"
    );
    for name in asked_for {
        crates.entry(name.clone()).or_insert(false);
    }
    Ok(())
}

/// `Cargo.lock` gives each package's fields in a fixed order, a line each.
fn checksums(lock: &str) -> BTreeMap<Crate, String> {
    let packages = lock.split("[[package]]").skip(1).filter_map(|package| {
        let field = |name: &str| {
            let prefix = format!("{name} = \"");
            let line = package.lines().find_map(|line| line.strip_prefix(&prefix))?;
            Some(line.trim_end_matches('"').to_owned())
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    });
    packages.collect()
}

fn cargo(arguments: &[&str]) -> Result<String> {
    output("cargo", arguments)
}

fn output(command: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(command)
        .args(arguments)
        .output()
        .with_context(|| format!("{command} can't be started"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command} {} failed: {errors}",
        arguments.join(" ")
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages": [
        {"id": "path+file:///src#rosey-monitor@0.1.0", "name": "rosey-monitor", "version": "0.1.0", "license": "Apache-2.0"},
        {"id": "registry+x#ring@0.17.14", "name": "ring", "version": "0.17.14", "license": "MIT / ISC"},
        {"id": "registry+x#cc@1.2.0", "name": "cc", "version": "1.2.0", "license": null}
    ]}"#;
    const LOCK: &str =
        "version = 4\n[[package]]\nname = \"ring\"\nversion = \"0.17.14\"\nsource = \"x\"\nchecksum = \"a4\"\n";
    const MESSAGES: &str = r#"
        {"reason": "compiler-artifact", "package_id": "registry+x#cc@1.2.0", "filenames": ["/t/release/deps/libcc.rlib"]}
        {"reason": "build-script-executed", "package_id": "registry+x#ring@0.17.14"}
        {"reason": "compiler-artifact", "package_id": "registry+x#ring@0.17.14", "filenames": ["/t/release/build/ring/build"]}
        {"reason": "compiler-artifact", "package_id": "registry+x#ring@0.17.14", "filenames": ["/t/x86/release/libring.rlib"]}
        {"reason": "compiler-artifact", "package_id": "path+file:///src#rosey-monitor@0.1.0", "filenames": ["/t/x86/release/bot"]}
        {"reason": "build-finished", "success": true}"#;

    #[test]
    fn a_document_names_every_crate_that_was_built_and_says_which_are_in_the_binary() {
        let known = Known::of(METADATA, LOCK).unwrap();
        let crates = known.built(MESSAGES, "x86").unwrap();
        let document = known
            .document("bot", &crates, &[json!({"name": "glibc"})], "2001-09-09T01:46:40Z")
            .unwrap();
        assert_eq!(document["metadata"]["component"]["version"], "0.1.0");
        assert_eq!(
            document["components"],
            json!([
                {"type": "library", "bom-ref": "pkg:cargo/cc@1.2.0", "name": "cc", "version": "1.2.0", "purl": "pkg:cargo/cc@1.2.0",
                    "scope": "excluded"},
                {"type": "library", "bom-ref": "pkg:cargo/ring@0.17.14", "name": "ring", "version": "0.17.14",
                    "purl": "pkg:cargo/ring@0.17.14", "scope": "required", "licenses": [{"expression": "MIT OR ISC"}],
                    "hashes": [{"alg": "SHA-256", "content": "a4"}]},
                {"name": "glibc"},
            ])
        );
    }

    #[test]
    fn a_crate_whose_data_is_in_the_image_is_described_like_the_others() {
        let ring = Known::of(METADATA, LOCK).unwrap().data("ring").unwrap();
        assert_eq!(ring["type"], "data");
        assert_eq!(ring["licenses"], json!([{"expression": "MIT OR ISC"}]));
        assert_eq!(ring["hashes"], json!([{"alg": "SHA-256", "content": "a4"}]));
    }

    #[test]
    fn a_crate_that_only_one_side_knows_is_named() {
        let known = Known::of(METADATA, LOCK).unwrap();
        let built = known.built(MESSAGES, "x86").unwrap();
        let linked = resolved("rosey-monitor v0.1.0 (/src)\nring v0.17.14\n");
        let asked_for = "rosey-monitor v0.1.0 (/src)\nring v0.17.14\ncc v1.2.0 (*)\n";
        let mut crates = built.clone();
        complete(&mut crates, &linked, &resolved(&format!("{asked_for}semver v1.0.28\n"))).unwrap();
        assert_eq!(crates.get(&("semver".into(), "1.0.28".into())), Some(&false));
        assert_eq!(crates.len(), built.len() + 1);

        let other = resolved(&asked_for.replace("cc v1.2.0", "cc v1.2.1"));
        let error = complete(&mut built.clone(), &linked, &other).unwrap_err().to_string();
        assert!(error.contains("not in the tree: cc 1.2.0;"), "{error}");
        // It was built, for the machine that builds.
        let error = complete(&mut built.clone(), &resolved("cc v1.2.0"), &resolved(asked_for))
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("not linked: cc 1.2.0"), "{error}");
    }

    #[test]
    fn a_build_of_something_else_is_refused() {
        let known = Known::of(METADATA, LOCK).unwrap();
        assert!(known.built(MESSAGES, "arm64").is_err());
        let stranger = r#"{"reason": "compiler-artifact", "package_id": "registry+x#serde@1.0.0", "filenames": []}"#;
        assert!(
            known
                .built(stranger, "x86")
                .unwrap_err()
                .to_string()
                .contains("serde@1.0.0")
        );
    }
}
