//! Somebody else's object has the name of one of ours.

use std::time::Instant;

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::stage::{MONITOR, OBJECTS, ROUTES, RULE, Stage, least, message, says, stage, version};

/// An object of this kind and name that nobody has made for a monitor.
fn foreign(kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = least(kind, namespace, name, "mine");
    // Even with our labels it is not ours: anybody can write a label.
    let labels = json!({"app.kubernetes.io/managed-by": "rosey-operator", "rosey.dev/monitor": "rosey"});
    if name.contains('.') {
        object["metadata"]["labels"] = labels;
    }
    object
}

async fn stays_untouched(stage: &Stage, kind: &str, suffix: &str) -> Result<()> {
    let name = format!("rosey{suffix}");
    let short = kind.rsplit('/').next().unwrap();
    let namespace = format!("{short}{}", suffix.replace('.', "-")).to_lowercase();
    stage.namespace(&namespace).await?;
    stage.apply(&foreign(kind, &namespace, &name).to_string()).await?;
    let before = stage.object(kind, &namespace, &name).await?;

    stage.watch_bot(&namespace, "rosey", |_| {}).await?;
    let taken =
        |monitor: &_| says(monitor, "Ready", "False", "NameTaken") && says(monitor, "Stalled", "True", "NameTaken");
    let monitor = stage.status(&namespace, "rosey", "NameTaken", taken).await?;
    let said = message(&monitor, "Ready");
    ensure!(
        said.starts_with(&format!("{short} {name} exists and is not this monitor's")),
        "{said}"
    );
    ensure!(monitor.data["status"]["reason"] == "NameTaken");
    ensure!(says(&monitor, "Valid", "True", "Valid"));

    let after = stage.object(kind, &namespace, &name).await?;
    ensure!(
        version(&after) == version(&before),
        "{kind} was written: {}",
        json!(after)
    );

    let gone = Instant::now();
    stage
        .api(kind, &namespace)
        .delete(&name, &DeleteParams::default())
        .await?;
    let monitor = stage.ready(&namespace, "rosey").await?;
    println!(
        "{kind} {name}: Ready {:?} after the foreign object went",
        gone.elapsed()
    );
    ensure!(lab::condition(&monitor, "Stalled").is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_object_of_the_same_name_stays_untouched_and_is_named() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    let _operator = stage.operator("operator", &["--no-injection"]).await?;
    let all = OBJECTS[..5]
        .iter()
        .map(|(kind, suffix)| stays_untouched(&stage, kind, suffix));
    futures::future::try_join_all(all).await?;
    stage.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_another_controller_owns_is_foreign_even_with_our_name_and_labels() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    let _operator = stage.operator("operator", &["--no-injection"]).await?;
    stage.namespace("bots").await?;
    let owner = stage
        .apply_in("bots", "{apiVersion: v1, kind: ConfigMap, metadata: {name: owner}}")
        .await?;
    let mut object = foreign(ROUTES, "bots", "rosey.ops-slack");
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner[0].metadata.uid, "controller": true,
    }]);
    stage.apply(&object.to_string()).await?;
    let before = stage.object(ROUTES, "bots", "rosey.ops-slack").await?;
    stage.watch_bot("bots", "rosey", |_| {}).await?;
    stage
        .status("bots", "rosey", "NameTaken", |monitor| {
            says(monitor, "Ready", "False", "NameTaken")
        })
        .await?;
    // Deleting the monitor does not take it along.
    stage
        .api(MONITOR, "bots")
        .delete("rosey", &DeleteParams::default())
        .await?;
    stage.until_gone(crate::stage::COLLECTED, RULE, "bots", "rosey").await?;
    let after = stage.object(ROUTES, "bots", "rosey.ops-slack").await?;
    ensure!(version(&after) == version(&before));
    stage.nothing_was_forbidden().await
}
