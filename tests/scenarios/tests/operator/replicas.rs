//! Two operators: one writes, the other one is ready to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::rosey::{OPERATOR, OPERATOR_NAMESPACE, Operator};
use lab::{AuditLevel, Mark, Request};
use serde_json::json;

use crate::stage::{BOTS, CONFIG_MAP, MONITOR, OBJECTS, RULE, SOON, Stage, stage, tell};

/// Long enough to be renewed in time beside another lab on a machine with two processors.
const LEASE: Duration = Duration::from_secs(7);
const MONITORS: [&str; 2] = ["one", "two"];
const EDIT: &str = "example.org/edit";

/// Starts a replica. `webhooks` is the address under which all replicas register theirs, as they do behind a Service.
async fn start(stage: &Stage, name: &str, webhooks: &str) -> Result<Operator> {
    let lease = LEASE.as_secs().to_string();
    let flags = [
        "--identity",
        name,
        "--lease-duration",
        &lease,
        "--webhook-url",
        webhooks,
    ];
    stage.operator(name, &flags).await
}

async fn holder(stage: &Stage) -> Result<Option<String>> {
    let lease = stage
        .get("coordination.k8s.io/v1/Lease", OPERATOR_NAMESPACE, "rosey-operator")
        .await?;
    Ok(lease.and_then(|lease| lease.data["spec"]["holderIdentity"].as_str().map(str::to_owned)))
}

async fn leads(stage: &Stage, name: &str) -> Result<()> {
    lab::until(SOON, &format!("{name} to lead"), async || {
        Ok(holder(stage).await?.as_deref() == Some(name))
    })
    .await
}

/// Edits the monitors again and again, each time to something that was never there before. The number of the last edit.
async fn edit_until(stage: &Stage, from: u64, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<u64> {
    let mut edit = from;
    loop {
        edit += 1;
        for name in MONITORS {
            // A label that every object carries but the exporter's ConfigMap.
            let labels = json!({"spec": {"objectLabels": {EDIT: edit.to_string()}}});
            stage.patch(MONITOR, BOTS, name, labels).await?;
        }
        if done().await? {
            return Ok(edit);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Edits for a while, takes the lead away from who has it, and goes on to edit until the other one leads. The last edit.
async fn passes(stage: &Stage, from: u64, (old, take): (&str, impl Fn() -> Result<()>), new: &str) -> Result<u64> {
    let started = Instant::now();
    let in_the_middle = async || Ok(started.elapsed() > Duration::from_millis(700));
    let edit = edit_until(stage, from, in_the_middle).await?;
    let leader = holder(stage).await?;
    ensure!(leader.as_deref() == Some(old), "{leader:?} leads, not {old}");
    take()?;
    let taken = Instant::now();
    let edit = edit_until(stage, edit, async || Ok(holder(stage).await?.as_deref() == Some(new))).await?;
    tell(&format!(
        "{new} leads {:?} after {old} stopped (lease: {LEASE:?})",
        taken.elapsed()
    ))?;
    Ok(edit)
}

/// Waits until the objects are those of the last edit.
async fn arrived(stage: &Stage, edit: u64) -> Result<()> {
    for name in MONITORS {
        stage.ready(BOTS, name).await?;
        let rule = stage.object(RULE, BOTS, name).await?;
        let label = rule.metadata.labels.as_ref().and_then(|labels| labels.get(EDIT));
        ensure!(label == Some(&edit.to_string()), "{name}: {label:?} is not edit {edit}");
    }
    Ok(())
}

/// What the operators wrote, but for their Lease: no write changed nothing, and no object got the same content twice.
async fn no_write_came_twice(stage: &Stage, mark: Mark) -> Result<usize> {
    let writes = stage.audit().writes_by(OPERATOR, mark).await?;
    let done = |request: &&Request| {
        (200..300).contains(&request.response_status.code) && request.object_ref.resource != "leases"
    };
    let mut versions: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut contents: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut count = 0;
    for write in writes.iter().filter(done) {
        count += 1;
        let of = &write.object_ref;
        let object = format!("{}/{} {} {}", of.resource, of.subresource, of.namespace, of.name);
        let version = write.response_object["metadata"]["resourceVersion"]
            .as_str()
            .context("a response without a version")?;
        let when = format!("{} {write}", write.request_received_timestamp);
        // An apply that changes nothing answers with the version that was there.
        if let Some(before) = versions.insert((object.clone(), version.to_owned()), when.clone()) {
            anyhow::bail!("{when} changed nothing since {before}");
        }
        let mut content = write.request_object.clone();
        if let Some(metadata) = content["metadata"].as_object_mut() {
            metadata.remove("uid");
            metadata.remove("resourceVersion");
        }
        if let Some(before) = contents.insert((object, content.to_string()), when.clone()) {
            anyhow::bail!("{when} wrote what was written before: {before}: {content}");
        }
    }
    Ok(count)
}

/// How many writes of this resource there were among those that were compared.
async fn written(stage: &Stage, mark: Mark, resource: &str) -> Result<usize> {
    let writes = stage.audit().writes_by(OPERATOR, mark).await?;
    let of = |write: &&Request| write.object_ref.resource == resource && write.response_status.code < 300;
    Ok(writes.iter().filter(of).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_leader_is_killed_or_frozen_another_takes_over_and_no_object_gets_the_same_write_twice() -> Result<()> {
    let stage = stage(|builder| builder.audit(AuditLevel::RequestResponse)).await?;
    let mark = stage.audit().mark().await?;
    // Nobody listens there: what the API server would ask is not this story.
    let webhooks = format!("https://{}:9443", stage.address()?);
    let first = start(&stage, "first", &webhooks).await?;
    leads(&stage, "first").await?;
    let second = start(&stage, "second", &webhooks).await?;
    for name in MONITORS {
        stage.watch_bot(BOTS, name, |_| {}).await?;
    }

    // Killed in the middle of edits.
    let mut edit = edit_until(&stage, 0, async || {
        Ok(stage.get(CONFIG_MAP, BOTS, "two-exporter").await?.is_some())
    })
    .await?;
    edit = passes(&stage, edit, ("first", || first.process.kill()), "second").await?;
    edit = edit_until(&stage, edit, async || Ok(true)).await?;
    arrived(&stage, edit).await?;
    first.process.exited(SOON).await?;

    // Frozen past the lease in the middle of edits, then awake again.
    let third = start(&stage, "third", &webhooks).await?;
    edit = passes(&stage, edit, ("second", || second.process.pause()), "third").await?;
    second.process.resume()?;
    let awake = Instant::now();
    edit = edit_until(&stage, edit, async || Ok(awake.elapsed() > LEASE)).await?;
    arrived(&stage, edit).await?;
    ensure!(
        holder(&stage).await?.as_deref() == Some("third"),
        "who wakes up does not take the lease back"
    );
    ensure!(second.is_ready().await);

    // A leader that ends in order gives its lease back, and nobody waits until it runs out.
    third.process.terminate()?;
    let ended = Instant::now();
    leads(&stage, "second").await?;
    ensure!(ended.elapsed() < LEASE, "{:?}", ended.elapsed());
    edit = edit_until(&stage, edit, async || Ok(true)).await?;
    arrived(&stage, edit).await?;

    let count = no_write_came_twice(&stage, mark).await?;
    tell(&format!(
        "{edit} edits of {} monitors: {count} writes, none twice",
        MONITORS.len()
    ))?;
    for resource in [
        "secrets",
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ] {
        let written = written(&stage, mark, resource).await?;
        ensure!(written > 0, "no replica wrote {resource}: what was compared lacks them");
    }
    ensure!(count >= MONITORS.len() * (OBJECTS.len() + 1), "{count}");
    stage.nothing_was_forbidden().await
}
