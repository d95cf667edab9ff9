//! Changes that reach pods that run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::bots::{CONTROL, PORT, bot, running, watched, workload};
use crate::images::repository;
use crate::stage::{EXPORTER, PROPAGATED, Stage, container, name, untouched};

/// Within which a change of a monitor is in force in every pod.
const IN_FORCE: Duration = Duration::from_secs(90);

pub async fn a_pattern_reaches_the_series_of_a_running_pod(stage: &Stage) -> Result<String> {
    let place = "propagation";
    let backups = json!({"volume": "data", "pattern": "backup_*"});
    watched(stage, place, |monitor| monitor["spec"]["exporter"]["backups"] = backups).await?;
    // Each of two containers makes a file.
    let workload = workload(stage, "Deployment", (place, "bot"), "rosey", |pod| {
        let containers = [("bot", 0, "backup_1"), ("other", 10, "dump_1")].map(|(name, further, file)| {
            let mut container = bot(stage);
            container["name"] = json!(name);
            container["args"] = json!([
                "--listen",
                "0.0.0.0",
                "--port",
                (PORT + further).to_string(),
                "--control-port",
                (CONTROL + further).to_string(),
                "--log",
                format!("/data/{file}"),
            ]);
            container["ports"] = json!([]);
            container
        });
        pod["containers"] = json!(containers);
    });
    stage.apply(&workload).await?;
    stage.until_injected(place, "rosey", 1).await?;
    let before = running(stage, place, "bot", 1).await?;
    let counts = |count: usize| format!("rosey_backup_count{{namespace=\"{place}\"}} == {count}");
    stage.prometheus.until(PROPAGATED, &counts(1)).await?;

    let changed = Instant::now();
    let other = json!({"spec": {"exporter": {"backups": {"pattern": "*_1"}}}});
    stage.patch_monitor(place, "rosey", &other).await?;
    stage.prometheus.until(IN_FORCE, &counts(2)).await?;
    let shown = changed.elapsed().as_secs_f64();
    let after = running(stage, place, "bot", 1).await?;
    for container in ["bot", "other", EXPORTER] {
        let of = |pods: &[DynamicObject]| pods.iter().map(|pod| untouched(pod, container)).collect::<Vec<_>>();
        ensure!(
            of(&after) == of(&before),
            "{container}: {:?} was {:?}",
            of(&after),
            of(&before)
        );
    }
    Ok(format!("shown after {shown:.0} s"))
}

fn by_name(pods: Vec<DynamicObject>) -> BTreeMap<String, DynamicObject> {
    pods.into_iter().map(|pod| (name(&pod).to_owned(), pod)).collect()
}

pub async fn another_image_replaces_the_exporter_and_not_the_bot(stage: &Stage) -> Result<String> {
    let place = "in-place";
    let image = &stage.images.exporter.image;
    let again = format!("{}:again", repository(image));
    stage.cluster.name_again(image, &again).await?;
    watched(stage, place, |_| {}).await?;
    let mut bots = workload(stage, "Deployment", (place, "bot"), "rosey", |_| {});
    bots["spec"]["replicas"] = json!(2);
    stage.apply(&bots).await?;
    stage.until_injected(place, "rosey", 2).await?;
    let before = by_name(running(stage, place, "bot", 2).await?);

    let changed = Instant::now();
    stage
        .patch_monitor(place, "rosey", &json!({"spec": {"exporter": {"image": again}}}))
        .await?;
    let after = lab::eventually(PROPAGATED, "every exporter to run the other image", async || {
        let pods = by_name(running(stage, place, "bot", 2).await?);
        let done = |pod: &DynamicObject, was: &DynamicObject| {
            let (now, then) = (container(pod, EXPORTER), container(was, EXPORTER));
            let spec = pod.data["spec"]["containers"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|c| c["name"] == EXPORTER);
            spec.is_some_and(|spec: &Value| spec["image"] == json!(again))
                && now["containerID"] != then["containerID"]
                && now["state"]["running"].is_object()
        };
        let all = pods
            .iter()
            .all(|(name, pod)| before.get(name).is_some_and(|was| done(pod, was)));
        Ok(all.then_some(pods))
    })
    .await?;
    let time = changed.elapsed().as_secs_f64();
    stage.until_injected(place, "rosey", 2).await?;
    for (name, pod) in &after {
        let was = before.get(name).with_context(|| format!("{name} is new"))?;
        ensure!(
            untouched(pod, "bot") == untouched(was, "bot"),
            "{name}: {}",
            pod.data["status"]
        );
    }
    Ok(format!("2 pods in {time:.0} s"))
}
