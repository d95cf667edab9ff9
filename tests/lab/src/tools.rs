//! Where the real components' commands are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const COMMANDS: [&str; 9] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kubectl",
    "prometheus-operator",
    "prometheus",
    "promtool",
    "alertmanager",
    "amtool",
];

/// The folder of the commands that `make tools` built.
#[derive(Clone, Debug)]
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Looks in `ROSEY_LAB_TOOLS`, else in the folder that `tools/build path` names.
    ///
    /// # Errors
    /// When something is missing; the message says how to build it.
    pub fn find() -> Result<Self> {
        let folder = if let Some(folder) = std::env::var_os("ROSEY_LAB_TOOLS") {
            PathBuf::from(folder)
        } else {
            let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/build");
            let output = Command::new(&build)
                .arg("path")
                .output()
                .with_context(|| format!("run {} path", build.display()))?;
            PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
        };
        let tools = Self { folder };
        let missing: Vec<&str> = COMMANDS
            .into_iter()
            .chain(["crds"])
            .filter(|name| !tools.command(name).exists())
            .collect();
        if !missing.is_empty() {
            bail!(
                "run: make tools ({} has no {})",
                tools.folder.display(),
                missing.join(", ")
            );
        }
        Ok(tools)
    }

    /// The path of one command, for example `promtool`.
    #[must_use]
    pub fn command(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder with prometheus-operator's CRDs, one YAML file each.
    #[must_use]
    pub fn crds(&self) -> PathBuf {
        self.folder.join("crds")
    }
}
