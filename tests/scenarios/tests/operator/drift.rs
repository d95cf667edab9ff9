//! Somebody deletes or edits what belongs to a monitor.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::{DeleteParams, DynamicObject};
use serde_json::{Value, json};

use crate::stage::{BOTS, CONFIG_MAP, OBJECTS, POD_MONITOR, ROUTES, RULE, content, message, stage, summary};

/// The contract says a second; a machine that is busy with other labs gets some more.
const AT_ONCE: Duration = Duration::from_secs(5);

/// An edit of what only the operator decides: one value changed, and one added that was never planned.
fn edits(kind: &str) -> Vec<(&'static str, Value)> {
    match kind {
        CONFIG_MAP => vec![
            ("its content edited", json!({"data": {"exporter.yaml": "broken"}})),
            ("a key added", json!({"data": {"stray": "text"}})),
            ("all emptied", json!({"data": null})),
        ],
        POD_MONITOR => vec![
            ("its endpoints removed", json!({"spec": {"podMetricsEndpoints": []}})),
            ("a field added", json!({"spec": {"sampleLimit": 1}})),
            (
                "its selector widened",
                json!({"spec": {"selector": {"matchLabels": null}}}),
            ),
        ],
        RULE => vec![
            ("its groups removed", json!({"spec": {"groups": []}})),
            (
                "a foreign group in place of its own",
                json!({"spec": {"groups": [{"name": "foreign", "rules": []}]}}),
            ),
        ],
        ROUTES => vec![
            (
                "its content replaced",
                json!({"spec": {"receivers": [{"name": "foreign"}], "inhibitRules": null}}),
            ),
            (
                "a field added",
                json!({"spec": {"muteTimeIntervals": [{"name": "never"}]}}),
            ),
        ],
        other => panic!("no edits are known for {other}"),
    }
}

fn strips(before: &DynamicObject) -> Vec<(&'static str, Value)> {
    let ours: BTreeMap<_, _> = before
        .metadata
        .labels
        .iter()
        .flatten()
        .map(|(key, _)| (key, Value::Null))
        .collect();
    let renamed = json!({"app.kubernetes.io/managed-by": "somebody", "rosey.dev/monitor": "other"});
    vec![
        ("its labels changed", json!({"metadata": {"labels": renamed}})),
        ("its labels stripped", json!({"metadata": {"labels": ours}})),
        ("its owner stripped", json!({"metadata": {"ownerReferences": null}})),
        (
            "labels and owner stripped",
            json!({"metadata": {"labels": ours, "ownerReferences": null}}),
        ),
    ]
}

/// Whether an object is as it was before, with what users have put beside ours.
fn as_before(before: &DynamicObject, users: bool) -> impl Fn(&DynamicObject) -> Result<()> {
    let before = before.clone();
    move |now| {
        ensure!(content(now) == content(&before), "its content is {}", content(now));
        ensure!(
            now.metadata.owner_references == before.metadata.owner_references,
            "its owner is missing"
        );
        let labels = now.metadata.labels.clone().unwrap_or_default();
        for (key, value) in before.metadata.labels.iter().flatten() {
            ensure!(labels.get(key) == Some(value), "label {key} is {:?}", labels.get(key));
        }
        if users {
            let annotations = now.metadata.annotations.clone().unwrap_or_default();
            ensure!(
                labels.get("example.org/team").map(String::as_str) == Some("bots"),
                "a user's label is gone"
            );
            ensure!(
                annotations.get("example.org/note").map(String::as_str) == Some("hi"),
                "a user's annotation is gone"
            );
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_deletes_or_edits_is_back_at_once_with_the_users_labels_kept() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    let operator = stage.operator("operator", &["--no-injection"]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;

    let (mut times, mut count) = (Vec::new(), 0);
    for (kind, suffix) in OBJECTS {
        let name = format!("rosey{suffix}");
        let before = stage.object(kind, BOTS, &name).await?;
        let users =
            json!({"metadata": {"labels": {"example.org/team": "bots"}, "annotations": {"example.org/note": "hi"}}});
        stage.patch(kind, BOTS, &name, users).await?;
        for (what, patch) in edits(kind).into_iter().chain(strips(&before)) {
            stage.patch(kind, BOTS, &name, patch).await?;
            let took = stage.mended(kind, BOTS, &name, as_before(&before, true)).await;
            let took = took.map_err(|error| error.context(format!("{what}\n{}", operator.process.log())))?;
            println!("{kind} {name}, {what}: back after {took:?}");
            ensure!(took < AT_ONCE, "{kind} {name}, {what}: {took:?}");
            times.push(took);
            count += 1;
        }
        stage.api(kind, BOTS).delete(&name, &DeleteParams::default()).await?;
        let took = stage.mended(kind, BOTS, &name, as_before(&before, false)).await?;
        println!("{kind} {name}, deleted: back after {took:?}");
        ensure!(took < AT_ONCE, "{kind} {name}, deleted: {took:?}");
        times.push(took);
    }
    println!(
        "{count} edits and {} deletions undone: {}",
        OBJECTS.len(),
        summary(&times)
    );
    let monitor = stage.ready(BOTS, "rosey").await?;
    assert_eq!(message(&monitor, "Ready"), "all 7 objects are in place");
    stage.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_while_no_operator_ran_is_undone_when_one_starts() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    let operator = stage.operator("operator", &["--no-injection"]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    operator.process.terminate()?;
    operator.process.exited(crate::stage::SOON).await?;

    let mut before = Vec::new();
    for (kind, suffix) in OBJECTS {
        before.push(stage.object(kind, BOTS, &format!("rosey{suffix}")).await?);
    }
    stage.api(RULE, BOTS).delete("rosey", &DeleteParams::default()).await?;
    stage
        .patch(CONFIG_MAP, BOTS, "rosey-exporter", json!({"data": {"stray": "text"}}))
        .await?;
    stage
        .patch(POD_MONITOR, BOTS, "rosey", strips(&before[1])[3].1.clone())
        .await?;
    stage
        .patch(ROUTES, BOTS, "rosey", json!({"spec": {"inhibitRules": null}}))
        .await?;
    let _operator = stage.operator("again", &["--no-injection"]).await?;
    for ((kind, suffix), before) in OBJECTS.into_iter().zip(&before) {
        stage
            .mended(kind, BOTS, &format!("rosey{suffix}"), as_before(before, false))
            .await?;
    }
    stage.nothing_was_forbidden().await
}
