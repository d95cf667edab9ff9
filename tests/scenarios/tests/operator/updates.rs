//! Exporters of pods that run: their configuration and their image change, and nothing else of the pod.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, ListParams};
use lab::Image;
use lab::rosey::EXPORTER_IMAGE;
use serde_json::{Value, json};

use crate::pods::injected_namespace;
use crate::quiet::settled;
use crate::rights::{done_to_pods, may_write_pods, rights_used};
use crate::stage::{BOTS, MONITOR, SOON, Stage, message, says, stage};

const POD: &str = "v1/Pod";
/// Name of the exporter's container.
const EXPORTER: &str = rosey_monitor::sidecar::CONTAINER;
const UPDATE: &str = "--update-exporters-in-place";
/// kubelet takes up to about 75 s to show a changed configuration; the lab is faster.
const SHOWN: Duration = Duration::from_secs(90);
/// Each pod's new exporter has to run for some seconds before the next pod's turn.
const ALL: Duration = Duration::from_secs(90);

fn exporter_of(pod: &DynamicObject) -> (Value, Value) {
    let find = |lists: [&Value; 2]| {
        let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
        all.find(|item| item["name"] == EXPORTER).cloned().unwrap_or_default()
    };
    let (spec, status) = (&pod.data["spec"], &pod.data["status"]);
    (
        find([&spec["containers"], &spec["initContainers"]]),
        find([&status["containerStatuses"], &status["initContainerStatuses"]]),
    )
}

/// The pods of the bot by name.
pub async fn pods(stage: &Stage) -> Result<BTreeMap<String, DynamicObject>> {
    let pods = stage
        .api(POD, BOTS)
        .list(&ListParams::default().labels("app=rosey"))
        .await?;
    let pods = pods.items.into_iter();
    Ok(pods
        .map(|pod| (pod.metadata.name.clone().unwrap_or_default(), pod))
        .collect())
}

fn annotation<'a>(pod: &'a DynamicObject, key: &str) -> &'a str {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(key)).map_or("", String::as_str)
}

/// What of a pod an exporter's change must leave alone.
fn rest(pod: &DynamicObject) -> Value {
    let bot = pod.data["status"]["containerStatuses"].as_array().into_iter().flatten();
    let bot = bot
        .into_iter()
        .find(|status| status["name"] == "bot")
        .cloned()
        .unwrap_or_default();
    json!({
        "uid": pod.metadata.uid, "created": pod.metadata.creation_timestamp, "started": pod.data["status"]["startTime"],
        "bot": [bot["containerID"], bot["restartCount"], bot["state"]["running"]["startedAt"]],
    })
}

/// The bot of the examples with a volume in which there are one backup and two dumps.
fn bot_with_backups(replicas: usize) -> Result<String> {
    let mut bot: Value = serde_saphyr::from_str(&lab::rosey::text("examples/rosey-bot.yaml")?)?;
    bot["spec"]["replicas"] = json!(replicas);
    let spec = &mut bot["spec"]["template"]["spec"];
    spec["initContainers"] = json!([{
        "name": "backups", "image": "busybox", "command": ["sh", "-c", "cd $ROSEY_ROOTFS/data && touch backup_1 dump_1 dump_2"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }]);
    Ok(bot.to_string())
}

/// A pod that ends, some day: its exporter is a native sidecar.
fn job() -> Value {
    let bot = json!({"name": "bot", "image": "busybox", "command": ["sleep", "1000"]});
    let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [bot], "volumes": [{"name": "data", "emptyDir": {}}]});
    let template = json!({"metadata": {"labels": {"app": "rosey"}}, "spec": spec});
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "task", "namespace": BOTS}, "spec": {"template": template},
    })
}

async fn image(stage: &Stage, tag: &str) -> Result<String> {
    let image = format!("{EXPORTER_IMAGE}:{tag}");
    let patch = json!({"spec": {"exporter": {"image": image}}});
    stage.patch(MONITOR, BOTS, "rosey", patch).await?;
    Ok(image)
}

async fn injected(stage: &Stage, pods: usize) -> Result<DynamicObject> {
    let summary = format!("{pods}/{pods}");
    let all = |monitor: &DynamicObject| {
        says(monitor, "Injected", "True", "Injected") && monitor.data["status"]["sidecars"]["summary"] == json!(summary)
    };
    let monitor = stage.until_object(ALL, MONITOR, BOTS, "rosey", all).await?;
    ensure!(
        monitor.data["status"]["sidecars"]["outdated"] == 0,
        "{}",
        monitor.data["status"]
    );
    Ok(monitor)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_reaches_the_series_of_a_running_pod_and_a_new_image_replaces_its_sidecar_alone_one_pod_first()
-> Result<()> {
    let stage = stage(|builder| builder).await?;
    may_write_pods(&stage).await?;
    let operator = stage.operator("operator", &[UPDATE]).await?;
    let backups = |monitor: &mut Value| monitor["spec"]["exporter"]["backups"] = json!({"volume": "data"});
    stage.watch_bot(BOTS, "rosey", backups).await?;
    stage.ready(BOTS, "rosey").await?;
    injected_namespace(&stage).await?;
    stage.apply(&bot_with_backups(2)?).await?;
    stage.apply(&job().to_string()).await?;
    let bot = stage.bot_of(BOTS, "app=rosey,pod-template-hash").await?;
    injected(&stage, 3).await?;
    let before = pods(&stage).await?;

    // Another pattern.
    let counts = async |count: &str| {
        let what = format!("rosey_backup_count {count}");
        lab::until(SHOWN, &what, async || {
            Ok(bot.metrics().await?.lines().any(|line| line == what))
        })
        .await
    };
    counts("1").await?;
    let pattern = json!({"spec": {"exporter": {"backups": {"pattern": "dump_*"}}}});
    stage.patch(MONITOR, BOTS, "rosey", pattern).await?;
    counts("2").await?;
    for (name, pod) in pods(&stage).await? {
        ensure!(
            rest(&pod) == rest(&before[&name]) && exporter_of(&pod) == exporter_of(&before[&name]),
            "{name} has changed"
        );
    }

    // Another image.
    let mark = stage.audit().mark().await?;
    let other = image(&stage, "other").await?;
    let after = lab::eventually(ALL, "every exporter to have the other image", async || {
        let now = pods(&stage).await?;
        let (mut open, mut done) = (Vec::new(), 0);
        for (name, pod) in &now {
            let ((container, status), (_, old)) = (exporter_of(pod), exporter_of(&before[name]));
            if container["image"] == json!(other) {
                if status["containerID"] != old["containerID"] && status["state"]["running"].is_object() {
                    done += 1;
                } else {
                    open.push(name.clone());
                }
            }
        }
        assert!(open.len() <= 1, "more than one pod at once: {open:?}");
        Ok((done == 3).then_some(now))
    })
    .await
    .with_context(|| operator.process.log())?;
    injected(&stage, 3).await?;
    for (name, pod) in &after {
        let before = &before[name];
        ensure!(rest(pod) == rest(before), "{name}: {} was {}", rest(pod), rest(before));
        let (now, then) = (
            annotation(pod, "rosey.dev/injected"),
            annotation(before, "rosey.dev/injected"),
        );
        ensure!(now != then && now.starts_with("rosey@"), "{now}, {then}");
    }
    counts("2").await?;
    let done = done_to_pods(&stage, mark).await?;
    ensure!(
        done == vec![("patch".to_owned(), "pods".to_owned(), 200); 3],
        "{done:?}"
    );

    // A new pod would look the same.
    let running = &after[&bot.pod];
    stage.kubectl(&["delete", "pod", &bot.pod, "-n", BOTS, "--now"]).await?;
    let new = lab::eventually(SOON, "a new pod", async || {
        Ok(pods(&stage)
            .await?
            .into_iter()
            .find(|(name, _)| !after.contains_key(name)))
    });
    let (_, new) = new.await?;
    ensure!(annotation(&new, "rosey.dev/injected") == annotation(running, "rosey.dev/injected"));
    injected(&stage, 3).await?;

    // At rest nothing is written, by a new leader neither.
    let mark = stage.audit().mark().await?;
    operator.process.terminate()?;
    operator.process.exited(SOON).await?;
    let again = stage.operator("again", &[UPDATE]).await?;
    settled(&stage, &again).await?;
    ensure!(done_to_pods(&stage, mark).await?.is_empty());
    rights_used(&stage, &[("get", "pods"), ("patch", "pods")]).await?;
    stage.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_run_is_put_back_told_and_given_to_no_other_pod() -> Result<()> {
    let stage = stage(|builder| {
        builder
            .image(EXPORTER_IMAGE, Image::NoProcess)
            .image("rosey-monitor/rosey-exporter:gone", Image::Missing)
            .restart_back_off(Duration::from_millis(500))
    })
    .await?;
    stage.set_image("rosey-monitor/rosey-exporter:crashes", "/bin/false");
    may_write_pods(&stage).await?;
    let operator = stage.operator("operator", &[UPDATE]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    injected_namespace(&stage).await?;
    stage.apply(&bot_with_backups(2)?).await?;
    injected(&stage, 2).await?;
    let before = pods(&stage).await?;
    let old = exporter_of(before.values().next().context("no pod")?).0["image"].clone();

    for (tag, why) in [
        ("gone", &["ErrImagePull", "ImagePullBackOff"][..]),
        ("crashes", &["CrashLoopBackOff"][..]),
    ] {
        let mark = stage.audit().mark().await?;
        let bad = image(&stage, tag).await?;
        let failed = |monitor: &DynamicObject| {
            says(monitor, "Injected", "False", "UpdateFailed") && message(monitor, "Injected").contains(&bad)
        };
        let monitor = stage.status(BOTS, "rosey", "the update failed", failed).await;
        let monitor = monitor.with_context(|| operator.process.log())?;
        let said = message(&monitor, "Injected");
        ensure!(
            said.starts_with("2 of 2 pods have an exporter of another image")
                && why.iter().any(|why| said.contains(why)),
            "{said}"
        );
        ensure!(
            said.ends_with("run: kubectl rollout restart deployment/rosey -n bots"),
            "{said}"
        );
        settled(&stage, &operator).await?;
        let after = pods(&stage).await?;
        for (name, pod) in &after {
            ensure!(rest(pod) == rest(&before[name]), "{name}");
            ensure!(exporter_of(pod).0["image"] == old, "{name}: {}", exporter_of(pod).0);
            ensure!(annotation(pod, "rosey.dev/injected") == annotation(&before[name], "rosey.dev/injected"));
            stage.until_condition(SOON, POD, BOTS, name, "Ready").await?;
        }
        let tried = after
            .values()
            .filter(|pod| annotation(pod, "rosey.dev/update").contains(&bad));
        ensure!(tried.count() == 1);
        // There and back, and never again.
        let done = done_to_pods(&stage, mark).await?;
        ensure!(
            done == vec![("patch".to_owned(), "pods".to_owned(), 200); 2],
            "{done:?}"
        );
        let event = lab::eventually(SOON, "an Event about it", async || {
            let events = stage
                .api("events.k8s.io/v1/Event", BOTS)
                .list(&ListParams::default())
                .await?
                .items;
            let ours = |event: &DynamicObject| event.data["note"].as_str().is_some_and(|note| note.contains(&bad));
            Ok(events
                .into_iter()
                .find(|event| event.data["reason"] == "UpdateFailed" && ours(event)))
        })
        .await?;
        ensure!(event.data["regarding"]["kind"] == "RoseyMonitor" && event.data["type"] == "Warning");
    }
    what_a_leader_left(&stage, operator, &old).await?;
    stage.nothing_was_forbidden().await
}

/// A leader dies while an image that can't be pulled is on trial: the next one puts it back, also where its monitor has gone
/// meanwhile.
async fn what_a_leader_left(stage: &Stage, operator: lab::rosey::Operator, old: &Value) -> Result<()> {
    let mark = stage.audit().mark().await?;
    let name = killed_during_a_trial(stage, operator).await?;
    let again = stage.operator("again", &[UPDATE]).await?;
    let has = |image: &Value, pod: &DynamicObject| exporter_of(pod).0["image"] == *image;
    stage
        .until_object(ALL, POD, BOTS, &name, |pod| has(old, pod))
        .await
        .with_context(|| again.process.log())?;
    stage.until_condition(SOON, POD, BOTS, &name, "Ready").await?;
    settled(stage, &again).await?;
    let done = done_to_pods(stage, mark).await?;
    ensure!(
        done.iter().filter(|(verb, ..)| verb == "patch").count() <= 3,
        "{done:?}"
    );
    // An image that runs reaches every pod.
    let mended = json!(image(stage, "mended").await?);
    injected(stage, 2).await?;

    let name = killed_during_a_trial(stage, again).await?;
    stage.kubectl(&["delete", "roseymonitor", "rosey", "-n", BOTS]).await?;
    let last = stage.operator("last", &[UPDATE]).await?;
    stage
        .until_object(ALL, POD, BOTS, &name, |pod| has(&mended, pod))
        .await
        .with_context(|| last.process.log())?;
    stage.until_condition(SOON, POD, BOTS, &name, "Ready").await?;
    Ok(())
}

/// Kills a leader, and leaves a pod as its last write but one left it: with an image that can't be pulled. Returns the name of
/// the pod.
async fn killed_during_a_trial(stage: &Stage, operator: lab::rosey::Operator) -> Result<String> {
    let bad = image(stage, "gone").await?;
    let told = |monitor: &DynamicObject| message(monitor, "Injected").contains(&bad);
    stage.status(BOTS, "rosey", "the image was tried", told).await?;
    settled(stage, &operator).await?;
    operator.process.kill()?;
    operator.process.exited(SOON).await?;
    let (name, pod) = pods(stage)
        .await?
        .into_iter()
        .find(|(_, pod)| annotation(pod, "rosey.dev/update").contains(&bad))
        .context("no pod was tried")?;
    let mut note: Value = serde_json::from_str(annotation(&pod, "rosey.dev/update"))?;
    ensure!(note["failed"].is_string(), "{note}");
    note.as_object_mut().context("no note")?.remove("failed");
    note["container"] = exporter_of(&pod).1["containerID"].clone();
    let containers = pod.data["spec"]["containers"].as_array().into_iter().flatten();
    let images = containers.map(
        |c| json!({"name": c["name"], "image": if c["name"] == EXPORTER { json!(bad) } else { c["image"].clone() }}),
    );
    let trial = json!({
        "metadata": {"annotations": {"rosey.dev/update": note.to_string()}},
        "spec": {"containers": images.collect::<Vec<_>>()},
    });
    stage
        .kubectl(&["patch", "pod", &name, "-n", BOTS, "-p", &trial.to_string()])
        .await?;
    let held_up = |pod: &DynamicObject| exporter_of(pod).1["state"]["waiting"]["reason"] == "ImagePullBackOff";
    stage.until_object(SOON, POD, BOTS, &name, held_up).await?;
    Ok(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_flag_outdated_pods_are_counted_and_without_the_rights_told_and_nothing_is_written() -> Result<()> {
    let stage = stage(|builder| builder.image(EXPORTER_IMAGE, Image::NoProcess)).await?;
    let operator = stage.operator("operator", &[]).await?;
    stage.watch_bot(BOTS, "rosey", |_| {}).await?;
    stage.ready(BOTS, "rosey").await?;
    injected_namespace(&stage).await?;
    stage.apply(&bot_with_backups(1)?).await?;
    injected(&stage, 1).await?;
    let mark = stage.audit().mark().await?;
    image(&stage, "other").await?;
    let outdated = |monitor: &DynamicObject| says(monitor, "Injected", "True", "Outdated");
    let monitor = stage.status(BOTS, "rosey", "outdated", outdated).await?;
    ensure!(
        message(&monitor, "Injected")
            == "every matching pod carries the exporter (1), 1 of them with another image than a new pod would get; run: \
                kubectl rollout restart deployment/rosey -n bots, or start the operator with --update-exporters-in-place",
        "{}",
        message(&monitor, "Injected")
    );
    ensure!(monitor.data["status"]["sidecars"]["outdated"] == 1);

    operator.process.terminate()?;
    operator.process.exited(SOON).await?;
    let _operator = stage.operator("again", &[UPDATE]).await?;
    let lacking = |monitor: &DynamicObject| {
        message(monitor, "Injected").contains("lacks the rights of ClusterRole rosey-operator-sidecars")
    };
    stage.status(BOTS, "rosey", "the rights are lacking", lacking).await?;
    ensure!(done_to_pods(&stage, mark).await?.is_empty());
    Ok(())
}
