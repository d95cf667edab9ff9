//! The archives that `make images kind-images` writes, and the names of the images in them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::cluster::run;

/// One image as a file.
#[derive(Clone, Debug)]
pub struct Archive {
    pub path: PathBuf,
    /// Its name with the tag, as nodes know it once it is loaded.
    pub image: String,
}

/// All that a run needs.
#[derive(Clone, Debug)]
pub struct Images {
    pub operator: Archive,
    pub exporter: Archive,
    pub bot: Archive,
    pub prometheus_operator: Archive,
    pub config_reloader: Archive,
    pub prometheus: Archive,
    pub alertmanager: Archive,
}

impl Images {
    /// # Errors
    /// When an archive is missing, or is none.
    pub async fn find(folder: &Path) -> Result<Self> {
        Ok(Self {
            operator: archive(folder, "rosey-operator").await?,
            exporter: archive(folder, "rosey-exporter").await?,
            bot: archive(folder, "fake-bot").await?,
            prometheus_operator: archive(folder, "prometheus-operator").await?,
            config_reloader: archive(folder, "prometheus-config-reloader").await?,
            prometheus: archive(folder, "prometheus").await?,
            alertmanager: archive(folder, "alertmanager").await?,
        })
    }

    #[must_use]
    pub fn all(&self) -> Vec<Archive> {
        let Self {
            operator,
            exporter,
            bot,
            prometheus_operator,
            config_reloader,
            prometheus,
            alertmanager,
        } = self.clone();
        vec![
            prometheus_operator,
            config_reloader,
            prometheus,
            alertmanager,
            operator,
            exporter,
            bot,
        ]
    }
}

/// The archive `name.tar` of a folder.
///
/// # Errors
/// When it is missing, or is none.
pub async fn archive(folder: &Path, name: &str) -> Result<Archive> {
    let path = folder.join(format!("{name}.tar"));
    ensure!(
        path.exists(),
        "{} is missing; run: make images kind-images, or name their folder with --images",
        path.display()
    );
    let manifest = run(Command::new("tar").arg("-xOf").arg(&path).arg("manifest.json")).await?;
    let manifest: Value =
        serde_json::from_str(&manifest).with_context(|| format!("manifest.json in {}", path.display()))?;
    let image = manifest[0]["RepoTags"][0]
        .as_str()
        .with_context(|| format!("{} names no image", path.display()))?;
    Ok(Archive {
        image: image.to_owned(),
        path,
    })
}

/// The tag of an image.
#[must_use]
pub fn tag(image: &str) -> &str {
    image.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}

/// An image without its tag.
#[must_use]
pub fn repository(image: &str) -> &str {
    image.rsplit_once(':').map_or(image, |(repository, _)| repository)
}
