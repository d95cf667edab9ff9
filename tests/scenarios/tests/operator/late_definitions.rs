//! prometheus-operator's definitions come after the operator.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::stage::{BOTS, CONFIG_MAP, OBJECTS, message, says, stage};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_definitions_of_prometheus_operator_the_condition_says_so_until_they_are_installed() -> Result<()> {
    let stage = stage(lab::Builder::without_definitions).await?;
    let operator = stage.operator("operator", &["--no-injection"]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    let missing = |monitor: &_| says(monitor, "Ready", "False", "PrometheusOperatorMissing");
    let monitor = stage
        .status(BOTS, "rosey", "PrometheusOperatorMissing", missing)
        .await?;
    let said = message(&monitor, "Ready");
    for kind in ["PodMonitor", "PrometheusRule", "AlertmanagerConfig"] {
        ensure!(said.contains(kind), "{said}");
    }
    ensure!(
        lab::condition(&monitor, "Stalled").is_none(),
        "it is not for the monitor's owner to mend"
    );
    // What needs no prometheus-operator is there: the exporter of a pod that starts now has its configuration.
    stage.object(CONFIG_MAP, BOTS, "rosey-exporter").await?;

    let installed = Instant::now();
    stage.install_definitions().await?;
    let (took, since) = (installed.elapsed(), Instant::now());
    stage.ready(BOTS, "rosey").await?;
    println!(
        "Ready {:?} after the definitions were installed, which took {took:?}",
        since.elapsed()
    );
    for (kind, suffix) in OBJECTS {
        stage.object(kind, BOTS, &format!("rosey{suffix}")).await?;
    }
    ensure!(operator.process.is_running());

    // A definition that is being deleted answers with 403 to whoever has every right: this is asked before.
    stage.nothing_was_forbidden().await?;

    // And they may go again.
    stage
        .kubectl(&["delete", "crd", "podmonitors.monitoring.coreos.com"])
        .await?;
    let monitor = stage
        .status(BOTS, "rosey", "PrometheusOperatorMissing", missing)
        .await?;
    let said = message(&monitor, "Ready");
    ensure!(
        said.starts_with("PodMonitor of prometheus-operator is not installed"),
        "{said}"
    );
    let definition = stage.tools().crds().join("monitoring.coreos.com_podmonitors.yaml");
    stage.apply(&definition.display().to_string()).await?;
    stage.ready(BOTS, "rosey").await?;
    Ok(())
}
