//! At rest nothing is written.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use lab::rosey::{BOT_IMAGE, EXPORTER_IMAGE, OPERATOR, Operator};
use lab::{Image, Mark};
use serde_json::{Value, json};

use crate::pods::namespaces_are_injected;
use crate::stage::{SOON, Stage, says, stage};

const NAMESPACES: [&str; 3] = ["bots", "more-bots", "other-bots"];
const UPDATES: usize = 1_000;
const CUT_WATCHES: usize = 50;
/// Fewer than an operator holds, more than half of them.
const WATCHES: usize = 10;

/// What the operator has written since, but for its Lease.
async fn writes(stage: &Stage, mark: Mark) -> Result<Vec<String>> {
    let writes = stage.audit().writes_by(OPERATOR, mark).await?;
    Ok(writes
        .iter()
        .filter(|write| write.object_ref.resource != "leases")
        .map(ToString::to_string)
        .collect())
}

/// Waits until an operator leads and has had the time to write whatever it would.
pub async fn settled(stage: &Stage, operator: &Operator) -> Result<()> {
    operator.until_ready().await?;
    // Two renewals of the Lease are seconds; what there is to be done takes milliseconds.
    let mark = stage.audit().mark().await?;
    lab::until(SOON, "the lease to be renewed", async || {
        let writes = stage.audit().writes_by(OPERATOR, mark).await?;
        Ok(writes
            .iter()
            .filter(|write| write.object_ref.resource == "leases")
            .count()
            >= 2)
    })
    .await
}

/// How many of the operator's watches have come to this stage since.
async fn watches(stage: &Stage, mark: Mark, at: &str) -> Result<usize> {
    let requests = stage.audit().requests_by(OPERATOR, mark).await?;
    Ok(requests
        .iter()
        .filter(|request| request.verb == "watch" && request.stage == at)
        .count())
}

/// Breaks every connection of the operator until enough watches have ended.
async fn cut_watches(stage: &Stage, proxy: &lab::Proxy) -> Result<()> {
    let (mut cuts, mut ended, started, before) = (0, 0, Instant::now(), stage.audit().mark().await?);
    while ended < CUT_WATCHES {
        let cut = stage.audit().mark().await?;
        proxy.cut_all();
        cuts += 1;
        lab::until(SOON, "the watches to be back", async || {
            Ok(watches(stage, cut, "ResponseStarted").await? >= WATCHES)
        })
        .await?;
        ended = watches(stage, before, "ResponseComplete").await?;
    }
    println!("{ended} watches ended by {cuts} cuts within {:?}", started.elapsed());
    Ok(())
}

async fn pods(stage: &Stage) -> Result<Vec<(String, String)>> {
    let list: Value = serde_json::from_str(
        &stage
            .kubectl(&["get", "pods", "-A", "-l", "app=rosey", "-o", "json"])
            .await?,
    )?;
    let items = list["items"].as_array().into_iter().flatten();
    let names = items.filter_map(|pod| {
        Some((
            pod["metadata"]["namespace"].as_str()?.into(),
            pod["metadata"]["name"].as_str()?.into(),
        ))
    });
    Ok(names.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_a_restart_a_thousand_pod_updates_and_fifty_cut_watches_cause_no_write() -> Result<()> {
    let stage = stage(|builder| {
        builder
            .image(EXPORTER_IMAGE, Image::NoProcess)
            .image(BOT_IMAGE, Image::NoProcess)
    })
    .await?;
    let operator = stage.operator("operator", &[]).await?;
    for namespace in NAMESPACES {
        stage.namespace(namespace).await?;
        stage.watch_bot(namespace, "rosey", |_| {}).await?;
        stage
            .watch_bot(namespace, "idle", |monitor| {
                monitor["spec"]["selector"] = json!({"matchLabels": {"app": "idle"}});
            })
            .await?;
    }
    for namespace in NAMESPACES {
        stage.ready(namespace, "rosey").await?;
        stage.ready(namespace, "idle").await?;
    }
    namespaces_are_injected(&stage, &NAMESPACES).await?;
    let bot = lab::rosey::text("examples/rosey-bot.yaml")?.replace("replicas: 1", "replicas: 3");
    for namespace in NAMESPACES {
        stage
            .apply(&bot.replace("namespace: bots", &format!("namespace: {namespace}")))
            .await?;
    }
    for namespace in NAMESPACES {
        let all = |monitor: &_| {
            says(monitor, "Injected", "True", "Injected") && monitor.data["status"]["sidecars"]["summary"] == "3/3"
        };
        stage.status(namespace, "rosey", "3 pods injected", all).await?;
    }
    settled(&stage, &operator).await?;

    // A restart.
    let mark = stage.audit().mark().await?;
    operator.process.terminate()?;
    operator.process.exited(SOON).await?;
    let proxy = stage.proxy(OPERATOR).await?;
    let host = operator.url.trim_start_matches("http://").trim_end_matches(":8080");
    let again = stage.operator_at(host, "again", proxy.kubeconfig(), &[])?;
    settled(&stage, &again).await?;
    ensure!(
        writes(&stage, mark).await?.is_empty(),
        "after a restart: {:#?}",
        writes(&stage, mark).await?
    );

    // Pods that say something new about themselves all the time.
    let (pods, started) = (pods(&stage).await?, Instant::now());
    ensure!(pods.len() == 9, "{pods:?}");
    let updates = futures::stream::iter(0..UPDATES).map(|n| {
        let (namespace, name) = &pods[n % pods.len()];
        let api = stage.api("v1/Pod", namespace);
        let tick = json!({"type": "example.org/tick", "status": "True", "message": n.to_string()});
        let patch = Patch::Strategic(json!({"status": {"conditions": [tick]}}));
        async move { api.patch_status(name, &PatchParams::default(), &patch).await }
    });
    let done: Vec<_> = updates.buffer_unordered(8).collect().await;
    for update in done {
        update?;
    }
    println!(
        "{UPDATES} status updates of {} pods in {:?}",
        pods.len(),
        started.elapsed()
    );
    settled(&stage, &again).await?;
    ensure!(
        writes(&stage, mark).await?.is_empty(),
        "after pod updates: {:#?}",
        writes(&stage, mark).await?
    );

    cut_watches(&stage, &proxy).await?;
    settled(&stage, &again).await?;
    ensure!(
        writes(&stage, mark).await?.is_empty(),
        "after cut watches: {:#?}",
        writes(&stage, mark).await?
    );

    // The watches are really back: an edit of a monitor is still answered, and a deleted object still mended.
    let rule = stage.object(crate::stage::RULE, "bots", "rosey").await?;
    stage
        .api(crate::stage::RULE, "bots")
        .delete("rosey", &kube::api::DeleteParams::default())
        .await?;
    let took = stage
        .mended(crate::stage::RULE, "bots", "rosey", |now| {
            ensure!(now.metadata.uid != rule.metadata.uid);
            Ok(())
        })
        .await?;
    println!("afterwards a deleted rule is back after {took:?}");
    ensure!(took < Duration::from_secs(10), "{took:?}");
    stage.nothing_was_forbidden().await
}
