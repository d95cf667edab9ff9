//! Pods on their way in: what Pod Security says, while the operator is replaced, and while there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::json;

use crate::bots::{idle_pod, watched};
use crate::release::{self, SYSTEM};
use crate::stage::{EXPORTER, POD, Stage, is_injected};

/// Creates a pod that no node runs; the answer, and how long it took.
pub async fn create(stage: &Stage, pods: &Api<DynamicObject>, name: &str) -> Result<(DynamicObject, Duration)> {
    let pod = serde_json::from_value(idle_pod(stage, name, "rosey"))?;
    let start = Instant::now();
    let made = pods
        .create(&PostParams::default(), &pod)
        .await
        .with_context(|| format!("create pod {name}"))?;
    Ok((made, start.elapsed()))
}

pub async fn clear(pods: &Api<DynamicObject>) -> Result<()> {
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default())
        .await?;
    Ok(())
}

pub async fn a_restricted_namespace_admits_the_exporter(stage: &Stage) -> Result<String> {
    let place = "restricted";
    watched(stage, place, |_| {}).await?;
    let pods = stage.api(POD, "pods", place);
    let (admitted, _) = create(stage, &pods, "within").await?;
    ensure!(is_injected(&admitted), "the pod has no exporter");
    let mut against = idle_pod(stage, "against", "rosey");
    against["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let refused = pods
        .create(&PostParams::default(), &serde_json::from_value(against)?)
        .await;
    let Err(kube::Error::Api(status)) = refused else {
        anyhow::bail!("a privileged pod was admitted");
    };
    ensure!(
        status.code == 403 && status.message.contains("restricted"),
        "{status:?}"
    );
    ensure!(
        status.message.contains("\"bot\"") && !status.message.contains(EXPORTER),
        "{}",
        status.message
    );
    clear(&pods).await?;
    Ok(String::new())
}

/// Creates pods one after the other until it is done; every one has to be injected.
async fn stream(stage: &Stage, pods: &Api<DynamicObject>, done: &AtomicBool) -> Result<String> {
    let (mut bare, mut slowest, mut count) = (Vec::new(), Duration::ZERO, 0);
    while !done.load(Ordering::Relaxed) {
        let name = format!("pod-{count}");
        let (pod, time) = create(stage, pods, &name).await?;
        slowest = slowest.max(time);
        count += 1;
        if !is_injected(&pod) {
            bare.push(name.clone());
        }
        // Few at a time, so that no more than the stream is measured.
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(
        bare.is_empty(),
        "{} of {count} pods were not injected: {bare:?}",
        bare.len()
    );
    Ok(format!(
        "{count} pods, the slowest {:.0} ms",
        slowest.as_secs_f64() * 1e3
    ))
}

/// Creates pods while `change` goes on. Each of both comes to its end whatever becomes of the other: half a drain would leave a node that
/// takes no pods. A change may look at what it is given, and begin nothing more when it is true.
pub async fn streamed(
    stage: &Stage,
    pods: &Api<DynamicObject>,
    change: impl AsyncFnOnce(&AtomicBool) -> Result<()>,
) -> Result<String> {
    let done = AtomicBool::new(false);
    let streams = async {
        let figures = stream(stage, pods, &done).await;
        done.store(true, Ordering::Relaxed);
        figures
    };
    let change = async {
        let came = change(&done).await;
        done.store(true, Ordering::Relaxed);
        came
    };
    let (figures, came) = tokio::join!(streams, change);
    match (figures, came) {
        (Err(of_pods), Err(of_change)) => Err(of_pods.context(format!("{of_change:#}; and"))),
        (figures, came) => came.and(figures),
    }
}

pub async fn a_rollout_of_the_operator_misses_no_pod(stage: &Stage) -> Result<String> {
    let place = "rollout";
    watched(stage, place, |_| {}).await?;
    let pods = stage.api(POD, "pods", place);
    let deployment = "deployment/rosey-operator";
    let figures = streamed(stage, &pods, async |_| {
        let restart = ["rollout", "restart", deployment, "-n", SYSTEM];
        stage.cluster.kubectl(&restart).await?;
        let status = ["rollout", "status", deployment, "-n", SYSTEM, "--timeout=180s"];
        stage.cluster.kubectl(&status).await?;
        release::settled(stage).await.map(drop)
    });
    let figures = figures.await?;
    clear(&pods).await?;
    Ok(figures)
}

/// Creates so many pods, none of which can be injected; how long each took, the shortest first.
async fn bare(stage: &Stage, pods: &Api<DynamicObject>, count: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for n in 0..count {
        let (pod, time) = create(stage, pods, &format!("pod-{n}")).await?;
        ensure!(!is_injected(&pod), "pod-{n} was injected by nobody");
        times.push(time);
    }
    times.sort();
    Ok(times)
}

pub async fn without_an_operator_no_pod_is_refused(stage: &Stage) -> Result<String> {
    let place = "away";
    watched(stage, place, |_| {}).await?;
    let pods = stage.api(POD, "pods", place);
    let created = async {
        release::scale(stage, 0).await?;
        bare(stage, &pods, 20).await
    };
    let created = created.await;
    // Also after a failure: the next scenarios need it.
    release::scale(stage, 2).await?;
    let times = created?;
    clear(&pods).await?;
    stage.until_registered(place, "rosey").await?;
    let (median, longest) = (
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3,
    );
    Ok(format!("a pod takes {median:.1} ms, at most {longest:.1} ms"))
}

/// Sends the operator's processes a signal, in whichever nodes they are; how many got it.
async fn signal(stage: &Stage, signal: &str) -> Result<usize> {
    // Its name in the kernel, which is cut after 15 bytes; a process that has ended meanwhile has none.
    let script = format!(
        "for process in /proc/[0-9]*; do \
           [ \"$(cat $process/comm 2>/dev/null)\" = rosey-operator ] && kill -{signal} ${{process#/proc/}} && echo one; \
         done; true"
    );
    let mut processes = 0;
    for node in stage.cluster.nodes().await? {
        let said = stage.cluster.in_node(&node, &["sh", "-c", &script]).await?;
        processes += said.lines().count();
    }
    Ok(processes)
}

pub async fn a_hung_operator_refuses_no_pod(stage: &Stage) -> Result<String> {
    let place = "hung";
    watched(stage, place, |_| {}).await?;
    release::settled(stage).await?;
    let pods = stage.api(POD, "pods", place);
    let created = async {
        let stopped = signal(stage, "STOP").await?;
        ensure!(stopped == 2, "{stopped} processes of the operator were stopped, not 2");
        let (first, time) = create(stage, &pods, "first").await?;
        ensure!(!is_injected(&first), "the first pod was injected by nobody");
        let asked = release::are_ready(stage).await?;
        ensure!(asked, "the operator was no longer ready, and so perhaps not asked");
        // After some seconds without an answer it is no longer asked, and then nobody waits.
        Ok((time, bare(stage, &pods, 10).await?))
    };
    let created = created.await;
    let resumed = signal(stage, "CONT").await?;
    let (first, times) = created?;
    ensure!(resumed == 2, "{resumed} processes of the operator were resumed, not 2");
    clear(&pods).await?;
    release::settled(stage).await?;
    stage.until_registered(place, "rosey").await?;
    let (pod, _) = create(stage, &pods, "after").await?;
    ensure!(
        is_injected(&pod),
        "the operator answers again, and the pod has no exporter"
    );
    clear(&pods).await?;
    let [first, longest] = [first, times[times.len() - 1]].map(|time| time.as_secs_f64());
    Ok(format!(
        "the first pod takes {first:.1} s, later ones at most {longest:.1} s"
    ))
}
