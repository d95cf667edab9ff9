//! A monitor changes, breaks, rests and goes.

use std::time::Instant;

use anyhow::{Result, ensure};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiGroup, Discovery, Scope};
use lab::condition;
use serde_json::{Value, json};

use crate::stage::{
    BOTS, COLLECTED, MONITOR, OBJECTS, POD_MONITOR, ROUTES, RULE, SOON, Stage, content, message, says, stage, version,
};

async fn versions(stage: &Stage, name: &str) -> Result<Vec<String>> {
    let mut versions = Vec::new();
    for (kind, suffix) in OBJECTS {
        versions.push(version(&stage.object(kind, BOTS, &format!("{name}{suffix}")).await?));
    }
    Ok(versions)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_channel_goes_and_an_invalid_or_paused_monitor_leaves_everything_in_place() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    // Without webhooks an invalid update reaches the operator.
    let _operator = stage.operator("operator", &["--no-injection"]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    let before = versions(&stage, "rosey").await?;

    // Invalid, in two ways at once.
    let wrong = json!({"spec": {
        "scrape": {"interval": "5s", "timeout": "10s"},
        "alerts": {"overrides": [{"alert": "HighMemoryUsage", "levels": [{"severity": "warning", "threshold": "3 bananas"}]}]},
    }});
    stage.patch(MONITOR, BOTS, "rosey", wrong).await?;
    let monitor = stage
        .status(BOTS, "rosey", "Invalid", |monitor| {
            says(monitor, "Ready", "False", "Invalid")
        })
        .await?;
    ensure!(says(&monitor, "Valid", "False", "Invalid") && says(&monitor, "Stalled", "True", "Invalid"));
    let problems = message(&monitor, "Valid");
    let lines: Vec<_> = problems.lines().collect();
    let [scrape, threshold] = lines[..] else {
        panic!("{problems}")
    };
    ensure!(scrape.starts_with("spec.scrape.timeout: "), "{scrape}");
    ensure!(
        threshold.starts_with("spec.alerts.overrides[0].levels[0].threshold: \"3 bananas\""),
        "{threshold}"
    );
    ensure!(
        message(&monitor, "Ready") == format!("{scrape} (and 1 more)"),
        "{}",
        message(&monitor, "Ready")
    );
    for kind in ["Ready", "Valid", "Stalled"] {
        ensure!(condition(&monitor, kind).unwrap()["observedGeneration"] == json!(monitor.metadata.generation));
    }
    assert_eq!(versions(&stage, "rosey").await?, before, "the last good objects stay");

    let right = json!({"spec": {"scrape": {"interval": "1s", "timeout": "1s"}, "alerts": {"overrides": null}}});
    stage.patch(MONITOR, BOTS, "rosey", right).await?;
    let monitor = stage.ready(BOTS, "rosey").await?;
    ensure!(says(&monitor, "Valid", "True", "Valid") && condition(&monitor, "Stalled").is_none());
    assert_eq!(versions(&stage, "rosey").await?, before, "nothing had to be written");

    // Paused: a change of the spec and somebody's edit stay without effect.
    stage
        .patch(
            MONITOR,
            BOTS,
            "rosey",
            json!({"spec": {"paused": true, "scrape": {"interval": "7s"}}}),
        )
        .await?;
    let paused = |monitor: &_| says(monitor, "Ready", "True", "Paused");
    stage.status(BOTS, "rosey", "Paused", paused).await?;
    stage
        .patch(RULE, BOTS, "rosey", json!({"spec": {"groups": []}}))
        .await?;
    stage
        .api(POD_MONITOR, BOTS)
        .delete("rosey", &DeleteParams::default())
        .await?;
    // The status follows a paused monitor: once it speaks of a later change, the edits had their chance.
    stage
        .patch(MONITOR, BOTS, "rosey", json!({"spec": {"scrape": {"interval": "8s"}}}))
        .await?;
    stage.status(BOTS, "rosey", "Paused", paused).await?;
    ensure!(stage.object(RULE, BOTS, "rosey").await?.data["spec"]["groups"] == json!([]));
    ensure!(stage.get(POD_MONITOR, BOTS, "rosey").await?.is_none());
    stage
        .patch(MONITOR, BOTS, "rosey", json!({"spec": {"paused": false}}))
        .await?;
    stage.ready(BOTS, "rosey").await?;
    ensure!(stage.object(RULE, BOTS, "rosey").await?.data["spec"]["groups"] != json!([]));
    let endpoints = content(&stage.object(POD_MONITOR, BOTS, "rosey").await?)["spec"]["podMetricsEndpoints"].clone();
    ensure!(endpoints[0]["interval"] == "8s", "{endpoints}");

    // A channel goes, with its routes.
    let mut without = stage.example(BOTS, "rosey", |_| {})?;
    let notifications = &mut without["spec"]["notifications"];
    let keep = |list: &mut Value, of: &dyn Fn(&Value) -> bool| list.as_array_mut().unwrap().retain(|item| !of(item));
    keep(&mut notifications["channels"], &|channel| {
        channel["name"] == "ops-discord"
    });
    for route in notifications["routes"].as_array_mut().unwrap() {
        keep(&mut route["channels"], &|name| name == "ops-discord");
    }
    let asked = Instant::now();
    stage.apply(&without.to_string()).await?;
    stage.until_gone(SOON, ROUTES, BOTS, "rosey.ops-discord").await?;
    println!("the removed channel's object is gone after {:?}", asked.elapsed());
    stage.ready(BOTS, "rosey").await?;
    stage.object(ROUTES, BOTS, "rosey.ops-slack").await?;

    // And a new one comes.
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    stage.object(ROUTES, BOTS, "rosey.ops-discord").await?;
    stage.nothing_was_forbidden().await
}

/// Objects in the namespace of the bots that say that they are ours.
async fn left(stage: &Stage) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for kind in [crate::stage::CONFIG_MAP, POD_MONITOR, RULE, ROUTES] {
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=rosey-operator");
        let found = stage.api(kind, BOTS).list(&ours).await?.items;
        left.extend(
            found
                .into_iter()
                .map(|object| format!("{kind} {}", object.metadata.name.unwrap_or_default())),
        );
    }
    Ok(left)
}

/// Objects of whatever kind, labelled or not, that this monitor owns.
async fn owned_by(stage: &Stage, uid: &str) -> Result<Vec<String>> {
    let served = Discovery::new(stage.client()).run_aggregated().await?;
    let kinds = served.groups().flat_map(ApiGroup::resources_by_stability);
    let mut owned = Vec::new();
    for (kind, can) in kinds {
        if can.scope != Scope::Namespaced || !can.supports_operation("list") {
            continue;
        }
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::namespaced_with(stage.client(), BOTS, &kind);
        let objects = api.list_metadata(&ListParams::default()).await?;
        let theirs = objects.into_iter().filter(|object| {
            let owners = object.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == uid)
        });
        owned.extend(theirs.map(|object| format!("{} {}", kind.kind, object.metadata.name.unwrap_or_default())));
    }
    Ok(owned)
}

async fn nothing_is_left(stage: &Stage, monitor: &DynamicObject) -> Result<()> {
    let uid = monitor.metadata.uid.as_deref().unwrap_or_default();
    lab::until(COLLECTED, "nothing to be left of the monitor", async || {
        let left = left(stage).await?;
        ensure!(left.is_empty(), "left: {left:?}");
        let owned = owned_by(stage, uid).await?;
        ensure!(owned.is_empty(), "left: {owned:?}");
        Ok(true)
    })
    .await
}

/// Waits until pods of the bots' namespace are sent to the operator, or are no longer.
async fn until_registered(stage: &Stage, wanted: bool) -> Result<()> {
    lab::until(SOON, "the registration to follow the monitors", async || {
        let kind = "admissionregistration.k8s.io/v1/MutatingWebhookConfiguration";
        let registration = stage.get(kind, "", "rosey-monitor-injector").await?;
        let text = registration.map_or_else(String::new, |found| found.data["webhooks"].to_string());
        let named = text.contains(&format!("\"{BOTS}\""));
        ensure!(named == wanted, "webhooks: {text}");
        Ok(true)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_monitor_leaves_nothing_and_its_successor_starts_at_once_and_adopts_orphans() -> Result<()> {
    let stage = stage(|builder| builder).await?;
    let operator = stage.operator("operator", &[]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    let monitor = stage.ready(BOTS, "rosey").await?;
    until_registered(&stage, true).await?;
    let owned = owned_by(&stage, monitor.metadata.uid.as_deref().unwrap_or_default()).await?;
    ensure!(owned.len() == OBJECTS.len(), "{owned:?}");
    stage
        .api(MONITOR, BOTS)
        .delete("rosey", &DeleteParams::background())
        .await?;
    nothing_is_left(&stage, &monitor).await?;
    until_registered(&stage, false).await?;

    // Foreground deletion waits for the objects, which must not be written again meanwhile.
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    let monitor = stage.ready(BOTS, "rosey").await?;
    stage
        .api(MONITOR, BOTS)
        .delete("rosey", &DeleteParams::foreground())
        .await?;
    stage.until_gone(SOON, MONITOR, BOTS, "rosey").await?;
    nothing_is_left(&stage, &monitor).await?;

    // A successor right behind it, while the objects of the old one are still there.
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    let old = stage.object(RULE, BOTS, "rosey").await?;
    stage
        .api(MONITOR, BOTS)
        .delete("rosey", &DeleteParams::background())
        .await?;
    let recreated = Instant::now();
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    let monitor = stage.ready(BOTS, "rosey").await?;
    println!("recreated at once: Ready after {:?}", recreated.elapsed());
    let new = stage.object(RULE, BOTS, "rosey").await?;
    ensure!(new.metadata.uid != old.metadata.uid);
    let owners = new.metadata.owner_references.clone().unwrap_or_default();
    ensure!(Some(&owners[0].uid) == monitor.metadata.uid.as_ref());
    // The garbage collector, which follows the old owner, leaves the new objects alone.
    lab::until(SOON, "all objects to be the new monitor's", async || {
        Ok(left(&stage).await?.len() == OBJECTS.len())
    })
    .await?;

    // Orphans stay, and the next monitor of the name adopts them.
    stage
        .kubectl(&["delete", "rmon", "rosey", "-n", BOTS, "--cascade=orphan"])
        .await?;
    stage.until_gone(SOON, MONITOR, BOTS, "rosey").await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    let monitor = stage.ready(BOTS, "rosey").await?;
    let adopted = stage.object(RULE, BOTS, "rosey").await?;
    ensure!(adopted.metadata.uid == new.metadata.uid);
    let owners = adopted.metadata.owner_references.unwrap_or_default();
    ensure!(Some(&owners[0].uid) == monitor.metadata.uid.as_ref());

    // With the operator down.
    operator.process.terminate()?;
    ensure!(operator.process.exited(SOON).await?.success());
    stage
        .api(MONITOR, BOTS)
        .delete("rosey", &DeleteParams::background())
        .await?;
    nothing_is_left(&stage, &monitor).await?;
    stage.nothing_was_forbidden().await
}
