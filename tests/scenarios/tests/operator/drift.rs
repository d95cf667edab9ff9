//! Somebody deletes or edits what belongs to a monitor.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use kube::api::{DeleteParams, DynamicObject};
use lab::rosey::OPERATOR;
use lab::{Mark, Request};
use serde_json::{Value, json};

use crate::stage::{
    BOTS, CONFIG_MAP, OBJECTS, POD_MONITOR, ROUTES, RULE, Stage, content, message, stage, stage_alone, summary, tell,
};

/// What the contract says of half of all cases at least: a machine that is busy with other labs may be late now and then.
const AT_ONCE: Duration = Duration::from_secs(1);

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
    let stage = stage_alone(|builder| builder).await?;
    let operator = stage.operator("operator", &["--no-injection"]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;

    let (mark, mut cases) = (stage.audit().mark().await?, Vec::new());
    for (kind, suffix) in OBJECTS {
        let name = format!("rosey{suffix}");
        let before = stage.object(kind, BOTS, &name).await?;
        let users =
            json!({"metadata": {"labels": {"example.org/team": "bots"}, "annotations": {"example.org/note": "hi"}}});
        stage.patch(kind, BOTS, &name, users).await?;
        for (what, patch) in edits(kind).into_iter().chain(strips(&before)) {
            stage.patch(kind, BOTS, &name, patch).await?;
            let mended = stage.mended(kind, BOTS, &name, as_before(&before, true)).await;
            mended.map_err(|error| error.context(format!("{what}\n{}", operator.process.log())))?;
            cases.push(format!("{kind} {name}, {what}"));
        }
        stage.api(kind, BOTS).delete(&name, &DeleteParams::default()).await?;
        stage.mended(kind, BOTS, &name, as_before(&before, false)).await?;
        cases.push(format!("{kind} {name}, deleted"));
    }
    let times = until_undone(&stage, mark).await?;
    for (case, took) in cases.iter().zip(&times) {
        tell(&format!("{case}: written again after {took:?}"))?;
    }
    tell(&format!("edits and deletions undone: {}", summary(&times)))?;
    ensure!(times.len() == cases.len(), "{times:?} of {cases:#?}");
    let mut sorted = times.clone();
    sorted.sort();
    ensure!(sorted[sorted.len() / 2] < AT_ONCE, "{}", summary(&times));
    let monitor = stage.ready(BOTS, "rosey").await?;
    assert_eq!(message(&monitor, "Ready"), "all 7 objects are in place");
    stage.nothing_was_forbidden().await
}

/// How long it took from each write of a user to the last one of the operator that answers it, by the API server's own clock.
/// A user's write that the operator does not answer is none that it has to undo.
async fn until_undone(stage: &Stage, mark: Mark) -> Result<Vec<Duration>> {
    let is_ours = |request: &Request| {
        let of = &request.object_ref;
        let kinds = ["configmaps", "podmonitors", "prometheusrules", "alertmanagerconfigs"];
        of.namespace == BOTS && of.subresource.is_empty() && kinds.contains(&&*of.resource)
    };
    let mut writes = stage.audit().since(mark).await?;
    writes.retain(|request| request.is_write() && request.response_status.code < 300 && is_ours(request));
    writes.sort_by(|a, b| a.request_received_timestamp.cmp(&b.request_received_timestamp));
    let mut times = Vec::new();
    let mut waiting: Option<(jiff::Timestamp, Option<Duration>)> = None;
    for write in &writes {
        let at: jiff::Timestamp = write.request_received_timestamp.parse()?;
        match (write.user.username == OPERATOR, &mut waiting) {
            (true, Some((since, undone))) => *undone = Some(at.duration_since(*since).unsigned_abs()),
            (true, None) => bail!("nobody had changed what this mends: {write}"),
            (false, _) => times.extend(waiting.replace((at, None)).and_then(|(_, undone)| undone)),
        }
    }
    times.extend(waiting.and_then(|(_, undone)| undone));
    Ok(times)
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
