//! Containers as a kubelet runs them: images that can't be pulled, restarts, Jobs.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::bots::{PORT, control, running, watched, workload};
use crate::images::repository;
use crate::stage::{EXPORTER, POD, PROPAGATED, SOON, Stage, container, is_injected, name, says, untouched};

pub async fn a_bot_starts_although_its_exporter_can_not_be_pulled(stage: &Stage) -> Result<String> {
    let place = "unpullable";
    let absent = format!("{}:absent", repository(&stage.images.exporter.image));
    watched(stage, place, |monitor| {
        monitor["spec"]["exporter"]["image"] = json!(absent);
    })
    .await?;
    stage
        .apply(&workload(stage, "Deployment", (place, "bot"), "rosey", |_| {}))
        .await?;
    let pods = running(stage, place, "bot", 1).await?;
    let pod = name(pods.first().context("no bot")?);
    // It works.
    control(stage, place, pod, &json!({})).await?;
    let waits = |pod: &kube::api::DynamicObject| {
        let reason = &container(pod, EXPORTER)["state"]["waiting"]["reason"];
        reason == "ErrImagePull" || reason == "ImagePullBackOff"
    };
    let before = stage.manifests.until(SOON, POD, place, pod, waits).await?;
    let monitor = stage
        .until_monitor(SOON, place, "rosey", |monitor| {
            says(monitor, "Injected", "False", "ImagePull")
        })
        .await?;
    // Pods never gate it.
    ensure!(lab::has_condition(&monitor, "Ready"), "{}", monitor.data["status"]);

    // The operator may change images in place: with one that is there, the same pod is mended.
    let mended = json!({"spec": {"exporter": {"image": stage.images.exporter.image}}});
    stage.patch_monitor(place, "rosey", &mended).await?;
    stage.until_injected(place, "rosey", 1).await?;
    let after = stage.manifests.until_condition(SOON, POD, place, pod, "Ready").await?;
    ensure!(
        untouched(&after, "bot") == untouched(&before, "bot"),
        "{}",
        after.data["status"]
    );
    Ok(String::new())
}

pub async fn a_bot_restarts_and_its_exporter_runs_on(stage: &Stage) -> Result<String> {
    let place = "restart";
    watched(stage, place, |_| {}).await?;
    let probe = json!({"httpGet": {"path": "/api/health", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 2});
    let bot = workload(stage, "Deployment", (place, "bot"), "rosey", |pod| {
        pod["containers"][0]["livenessProbe"] = probe;
    });
    stage.apply(&bot).await?;
    stage.until_injected(place, "rosey", 1).await?;
    let pods = running(stage, place, "bot", 1).await?;
    let before = pods.first().context("no bot")?;
    let pod = name(before);
    let series = format!("rosey_bot_up{{namespace=\"{place}\",pod=\"{pod}\"}}");
    stage.prometheus.until(PROPAGATED, &format!("{series} == 1")).await?;

    // The kubelet ends it, and a new one has no fault.
    control(stage, place, pod, &json!({"fault": "error-500"})).await?;
    let restarts = container(before, "bot")["restartCount"].as_u64();
    let again = |pod: &kube::api::DynamicObject| {
        let bot = container(pod, "bot");
        bot["restartCount"].as_u64() > restarts && bot["state"]["running"].is_object() && bot["ready"] == true
    };
    let after = stage.manifests.until(SOON, POD, place, pod, again).await?;
    ensure!(
        container(&after, "bot")["containerID"] != container(before, "bot")["containerID"],
        "{}",
        after.data["status"]
    );
    ensure!(
        untouched(&after, EXPORTER) == untouched(before, EXPORTER),
        "{}",
        after.data["status"]
    );
    // A sample of before the fault is still the newest one for a while.
    let started = &container(&after, "bot")["state"]["running"]["startedAt"];
    let started: jiff::Timestamp = started.as_str().context("the bot was never started")?.parse()?;
    let seen_again = format!(
        "{series} == 1 and on (pod) timestamp({series}) > {} and on (pod) up{{namespace=\"{place}\",pod=\"{pod}\"}} == 1",
        started.as_second()
    );
    stage.prometheus.until(SOON, &seen_again).await?;
    Ok(String::new())
}

pub async fn a_job_with_an_exporter_ends(stage: &Stage) -> Result<String> {
    let place = "jobs";
    watched(stage, place, |_| {}).await?;
    // What ends by itself.
    let job = workload(stage, "Job", (place, "task"), "rosey", |pod| {
        pod["containers"][0]["args"] = json!(["--version"]);
    });
    stage.apply(&job).await?;
    stage
        .manifests
        .until_condition(SOON, "batch/v1/Job", place, "task", "Complete")
        .await?;
    let pods = stage.pods(place, "workload=task").await?;
    let pod = pods.first().context("the Job has no pod")?;
    ensure!(is_injected(pod), "the Job's pod has no exporter");
    let sidecar = pod.data["spec"]["initContainers"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["name"] == EXPORTER);
    let sidecar = sidecar.context("the exporter of a Job is no native sidecar")?;
    ensure!(sidecar["restartPolicy"] == "Always", "{sidecar}");
    ensure!(pod.data["status"]["phase"] == "Succeeded", "{}", pod.data["status"]);
    let ended = &container(pod, EXPORTER)["state"]["terminated"];
    ensure!(ended["exitCode"] == 0, "the exporter has ended with {ended}");
    Ok(String::new())
}
