//! The product itself, installed by Helm as `docs/install.md` says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::api::{DynamicObject, ListParams};
use serde_json::json;

use crate::images::{Archive, Images, archive, repository, tag};
use crate::stack::LABEL;
use crate::stage::{POD, SOON, Stage};

/// The operator's namespace.
pub const SYSTEM: &str = "rosey-system";
/// The release's name, as in the documents.
pub const RELEASE: &str = "rosey-monitor";
/// What selects the operator's replicas.
pub const OPERATORS: &str = "app.kubernetes.io/component=operator";
/// What calls the operator for pods, and what calls it for monitors: kind and name.
pub const INJECTOR: (&str, &str) = (
    "admissionregistration.k8s.io/v1/MutatingWebhookConfiguration",
    "rosey-monitor-injector",
);
pub const VALIDATOR: (&str, &str) = (
    "admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration",
    "rosey-monitor-validator",
);
pub const REGISTRATIONS: [(&str, &str); 2] = [INJECTOR, VALIDATOR];
const CHART: &str = "charts/rosey-monitor";

/// A chart, and the images that go with it.
#[derive(Clone, Debug)]
pub struct Version {
    /// A folder or a file.
    pub chart: String,
    pub operator: String,
    pub exporter: String,
}

impl Version {
    /// That of this checkout.
    #[must_use]
    pub fn current(images: &Images) -> Self {
        Self {
            chart: CHART.to_owned(),
            operator: images.operator.image.clone(),
            exporter: images.exporter.image.clone(),
        }
    }
}

/// A folder as `make release` fills it.
pub struct Release {
    chart: PathBuf,
    images: [Archive; 2],
}

impl Release {
    /// # Errors
    /// When something is missing.
    pub async fn find(folder: &Path) -> Result<Self> {
        let files = std::fs::read_dir(folder).with_context(|| format!("--from {}", folder.display()))?;
        let chart = files
            .flatten()
            .map(|file| file.path())
            .find(|file| file.extension().is_some_and(|end| end == "tgz"));
        Ok(Self {
            chart: chart
                .with_context(|| format!("--from {}: there is no chart (rosey-monitor-….tgz)", folder.display()))?,
            images: [
                archive(folder, "rosey-operator").await?,
                archive(folder, "rosey-exporter").await?,
            ],
        })
    }

    /// Puts its images into every node, under names that no other version has.
    ///
    /// # Errors
    /// When they can't be loaded.
    pub async fn load(&self, stage: &Stage) -> Result<Version> {
        let [operator, exporter] = self
            .images
            .each_ref()
            .map(|archive| format!("{}:from", repository(&archive.image)));
        stage.cluster.load(&self.images).await?;
        for (archive, name) in self.images.iter().zip([&operator, &exporter]) {
            stage.cluster.name_again(&archive.image, name).await?;
        }
        Ok(Version {
            chart: self.chart.display().to_string(),
            operator,
            exporter,
        })
    }
}

/// The values that let the operator write the bots' pods.
pub const WRITES_PODS: &[&str] = &["exporter.updateInPlace=true", "exporter.repair=true"];

/// Installs a chart, or upgrades the release to it, and waits until the operator is ready. `more` are values over those of the stage.
///
/// # Errors
/// When helm fails, or the operator does not become ready.
pub async fn install(stage: &Stage, version: &Version, more: &[&str]) -> Result<String> {
    stage.namespace(SYSTEM).await?;
    let Version {
        chart,
        operator,
        exporter,
    } = version;
    let values = [
        format!("image.repository={}", repository(operator)),
        format!("image.tag={}", tag(operator)),
        format!("exporter.image.repository={}", repository(exporter)),
        format!("exporter.image.tag={}", tag(exporter)),
        format!("defaultObjectLabels.{}={}", LABEL.0, LABEL.1),
        "podMonitor.interval=5s".to_owned(),
    ];
    let mut arguments = vec![
        "upgrade",
        "--install",
        RELEASE,
        chart,
        "--namespace",
        SYSTEM,
        "--wait",
        "--timeout",
        "180s",
    ];
    for value in values.iter().map(String::as_str).chain(more.iter().copied()) {
        arguments.extend(["--set", value]);
    }
    stage.cluster.helm(&arguments).await
}

/// `helm test`, as the documents have it.
///
/// # Errors
/// When it fails.
pub async fn test(stage: &Stage) -> Result<String> {
    stage
        .cluster
        .helm(&["test", RELEASE, "--namespace", SYSTEM, "--timeout", "120s"])
        .await
}

/// `helm uninstall`.
///
/// # Errors
/// When it fails.
pub async fn uninstall(stage: &Stage) -> Result<String> {
    stage
        .cluster
        .helm(&[
            "uninstall",
            RELEASE,
            "--namespace",
            SYSTEM,
            "--wait",
            "--timeout",
            "120s",
        ])
        .await
}

/// How many replicas the operator is to have; waits until it is so.
///
/// # Errors
/// When it is not in time.
pub async fn scale(stage: &Stage, replicas: usize) -> Result<()> {
    let count = format!("--replicas={replicas}");
    stage
        .cluster
        .kubectl(&["scale", "deployment/rosey-operator", "-n", SYSTEM, &count])
        .await?;
    stage
        .manifests
        .until(SOON, "apps/v1/Deployment", SYSTEM, "rosey-operator", |deployment| {
            let status = &deployment.data["status"];
            let is = |field: &str| status[field].as_u64().unwrap_or(0) == replicas as u64;
            is("replicas")
                && is("readyReplicas")
                && status["observedGeneration"] == json!(deployment.metadata.generation)
        })
        .await?;
    if replicas > 0 {
        return Ok(());
    }
    // What was asked to end serves on for some seconds.
    lab::until(SOON, "the operator's pods to be gone", async || {
        Ok(self::replicas(stage).await?.is_empty())
    })
    .await
}

/// Whether every replica of the operator is taken for ready.
///
/// # Errors
/// When the API server does not answer.
pub async fn are_ready(stage: &Stage) -> Result<bool> {
    Ok(replicas(stage)
        .await?
        .iter()
        .all(|pod| lab::has_condition(pod, "Ready")))
}

/// The operator's two replicas, once they are ready and no earlier one is left, which would serve on for some seconds.
///
/// # Errors
/// When that is not so in time.
pub async fn settled(stage: &Stage) -> Result<Vec<DynamicObject>> {
    lab::eventually(SOON, "two ready replicas of the operator and no other", async || {
        let pods = replicas(stage).await?;
        let stays = |pod: &DynamicObject| pod.metadata.deletion_timestamp.is_none() && lab::has_condition(pod, "Ready");
        Ok((pods.len() == 2 && pods.iter().all(stays)).then_some(pods))
    })
    .await
}

/// The operator's pods, also those that are about to end.
async fn replicas(stage: &Stage) -> Result<Vec<DynamicObject>> {
    Ok(stage
        .api(POD, "pods", SYSTEM)
        .list(&ListParams::default().labels(OPERATORS))
        .await?
        .items)
}
