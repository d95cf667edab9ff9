//! prometheus-operator, Prometheus and Alertmanager take up what is made of monitors, all of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::{Lab, eventually};
use serde_json::Value;

use crate::{NAMESPACE, PATIENCE, rosey};

/// What `kubectl rosey render` says that is made of some monitors: nothing of it is asked of the cluster.
pub struct Expected {
    rules: usize,
    pod_monitors: Vec<String>,
    routes: usize,
    /// As Alertmanager's configuration names them.
    receivers: Vec<String>,
}

impl Expected {
    pub fn of(monitors: &[&Value]) -> Result<Self> {
        let output = rosey(&["render", "-o", "json", "-"], monitors.iter().copied())?;
        ensure!(
            output.status.success(),
            "render: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let list: Value = serde_json::from_slice(&output.stdout)?;
        let items = list["items"].as_array().context("a list")?;
        let of = |kind: &'static str| items.iter().filter(move |item| item["kind"] == kind);
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let receivers = of("AlertmanagerConfig").flat_map(|config| {
            let own = config["spec"]["receivers"].as_array().into_iter().flatten();
            let config = name(config);
            own.filter_map(move |own| Some(format!("{NAMESPACE}/{config}/{}", own["name"].as_str()?)))
        });
        let expected = Self {
            rules: of("PrometheusRule").count(),
            pod_monitors: of("PodMonitor").map(name).collect(),
            routes: of("AlertmanagerConfig").count(),
            receivers: receivers.collect(),
        };
        let enough = expected.rules == monitors.len() && expected.pod_monitors.len() == monitors.len();
        ensure!(
            enough && !expected.receivers.is_empty(),
            "{} monitors, and rendered are {list}",
            monitors.len()
        );
        Ok(expected)
    }
}

/// The consumers have taken everything up, and refused nothing.
pub async fn take_up(lab: &Lab, expected: &Expected) -> Result<()> {
    let counts = [
        ("PrometheusRule", expected.rules),
        ("PodMonitor", expected.pod_monitors.len()),
        ("AlertmanagerConfig", expected.routes),
    ];
    eventually(PATIENCE, "prometheus-operator takes everything up", async || {
        let metrics = lab.prometheus_operator_metrics().await?;
        for (kind, wanted) in counts {
            let selected = managed(&metrics, kind, "selected")?;
            let rejected = managed(&metrics, kind, "rejected")?;
            ensure!(
                (selected, rejected) == (wanted, 0),
                "{kind}: {wanted} are expected, {selected} selected, {rejected} rejected"
            );
        }
        Ok(Some(()))
    })
    .await?;
    rules_are_accepted(lab, expected.rules).await?;
    let jobs = expected.pod_monitors.iter();
    let jobs: Vec<_> = jobs.map(|name| format!("podMonitor/{NAMESPACE}/{name}/0")).collect();
    let scraping = lab.prometheus();
    in_force("Prometheus", &jobs, async || scraping.config().await).await?;
    loaded(scraping.url(), "prometheus_config_last_reload_successful").await?;
    routes_are_accepted(lab, &expected.receivers).await?;
    let routing = lab.alertmanager();
    in_force("Alertmanager", &expected.receivers, async || routing.config().await).await?;
    loaded(routing.url(), "alertmanager_config_last_reload_successful").await
}

/// How many objects of a kind prometheus-operator has in this state; it must say so.
fn managed(metrics: &str, kind: &str, state: &str) -> Result<usize> {
    let line = metrics.lines().find(|line| {
        line.starts_with("prometheus_operator_managed_resources")
            && line.contains(&format!("resource=\"{kind}\""))
            && line.contains(&format!("state=\"{state}\""))
    });
    let line = line.with_context(|| format!("prometheus-operator does not say how many {kind} are {state}"))?;
    let (_, count) = line.rsplit_once(' ').context("a value")?;
    count.parse().with_context(|| line.to_owned())
}

/// Waits until the configuration that runs names all of these: a program that refuses a configuration goes on with the old one.
async fn in_force(program: &str, names: &[String], config: impl AsyncFn() -> Result<String>) -> Result<()> {
    eventually(PATIENCE, &format!("{program} runs with everything"), async || {
        let config = config().await?;
        let missing: Vec<_> = names.iter().filter(|name| !config.contains(name.as_str())).collect();
        ensure!(missing.is_empty(), "{} are missing: {missing:?}", missing.len());
        Ok(Some(()))
    })
    .await
}

/// The last configuration that a program was given was good.
async fn loaded(url: &str, metric: &str) -> Result<()> {
    let page = reqwest::get(format!("{url}/metrics"))
        .await?
        .error_for_status()?
        .text()
        .await?;
    let line = page.lines().find(|line| line.starts_with(metric));
    ensure!(line == Some(format!("{metric} 1").as_str()), "{metric}: {line:?}");
    Ok(())
}

/// promtool accepts every rule file that prometheus-operator made, one a monitor.
async fn rules_are_accepted(lab: &Lab, monitors: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let maps = get(lab, &["configmaps", "-l", "prometheus-name", "-o", "json"]).await?;
    let maps: Value = serde_json::from_str(&maps)?;
    let maps = maps["items"].as_array().into_iter().flatten();
    let mut files = Vec::new();
    for (name, text) in maps.flat_map(|map| map["data"].as_object().into_iter().flatten()) {
        let file = folder.path().join(name);
        std::fs::write(&file, text.as_str().unwrap_or_default())?;
        files.push(file);
    }
    ensure!(
        files.len() == monitors,
        "{} rule files for {monitors} monitors",
        files.len()
    );
    let rules = Command::new(lab.tools().command("promtool"))
        .args(["check", "rules"])
        .args(&files)
        .output()?;
    ensure!(
        rules.status.success(),
        "promtool: {}",
        String::from_utf8_lossy(&rules.stderr)
    );
    Ok(())
}

/// amtool accepts the configuration that prometheus-operator made of these receivers.
async fn routes_are_accepted(lab: &Lab, receivers: &[String]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("alertmanager.yaml");
    in_force("prometheus-operator", receivers, async || {
        generated_routes(lab, &config).await
    })
    .await?;
    let amtool = Command::new(lab.tools().command("amtool"))
        .arg("check-config")
        .arg(&config)
        .output()?;
    let said = String::from_utf8_lossy(&amtool.stdout);
    ensure!(
        amtool.status.success(),
        "amtool: {said}{}",
        String::from_utf8_lossy(&amtool.stderr)
    );
    // One of prometheus-operator's own stands for whoever wants to hear nothing.
    let counted = format!(" - {} receivers", receivers.len() + 1);
    ensure!(said.contains(&counted), "{counted:?} is not said by amtool: {said}");
    Ok(())
}

/// The text of the configuration that prometheus-operator has made, written to a file, too.
async fn generated_routes(lab: &Lab, file: &Path) -> Result<String> {
    let path = "jsonpath={.data.alertmanager\\.yaml\\.gz}";
    let secret = get(lab, &["secret", "alertmanager-lab-generated", "-o", path]).await?;
    let zipped = file.with_extension("gz.base64");
    std::fs::write(&zipped, secret)?;
    let unzip = Command::new("sh")
        .args(["-c", "base64 -d <\"$0\" | gunzip >\"$1\""])
        .args([&zipped, &file.to_owned()])
        .output()?;
    ensure!(
        unzip.status.success(),
        "gunzip: {}",
        String::from_utf8_lossy(&unzip.stderr)
    );
    Ok(std::fs::read_to_string(file)?)
}

async fn get(lab: &Lab, what: &[&str]) -> Result<String> {
    lab.kubectl(&[&["get", "-n", lab::MONITORING_NAMESPACE], what].concat())
        .await
}
