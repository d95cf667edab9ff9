//! Two operators: one writes, the other one is ready to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::rosey::{OPERATOR, OPERATOR_NAMESPACE, Operator};
use lab::{AuditLevel, Mark, Request};
use serde_json::json;

use crate::stage::{BOTS, CONFIG_MAP, MONITOR, OBJECTS, RULE, SOON, Stage, stage};

const LEASE: Duration = Duration::from_secs(3);
const MONITORS: [&str; 2] = ["one", "two"];

async fn start(stage: &Stage, name: &str) -> Result<Operator> {
    stage
        .operator(
            name,
            &[
                "--no-injection",
                "--identity",
                name,
                "--lease-duration",
                &LEASE.as_secs().to_string(),
            ],
        )
        .await
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
            let interval = json!({"spec": {"scrape": {"interval": format!("{edit}s")}, "alerts": {"interval": format!("{edit}s")}}});
            stage.patch(MONITOR, BOTS, name, interval).await?;
        }
        if done().await? {
            return Ok(edit);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the objects are those of the last edit.
async fn arrived(stage: &Stage, edit: u64) -> Result<()> {
    for name in MONITORS {
        stage.ready(BOTS, name).await?;
        let rule = stage.object(RULE, BOTS, name).await?;
        let groups = rule.data["spec"]["groups"].as_array().context("no groups")?;
        ensure!(
            groups
                .iter()
                .all(|group| group["interval"] == json!(format!("{edit}s"))),
            "{name}: not of edit {edit}"
        );
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

#[tokio::test(flavor = "multi_thread")]
async fn when_a_leader_is_killed_or_frozen_another_takes_over_and_no_object_gets_the_same_write_twice() -> Result<()> {
    let stage = stage(|builder| builder.audit(AuditLevel::RequestResponse)).await?;
    let mark = stage.audit().mark().await?;
    let first = start(&stage, "first").await?;
    leads(&stage, "first").await?;
    let second = start(&stage, "second").await?;
    for name in MONITORS {
        stage.watch_bot(BOTS, name, |_| {}).await?;
    }

    // Killed in the middle of edits.
    let mut edit = edit_until(&stage, 0, async || {
        Ok(stage.get(CONFIG_MAP, BOTS, "two-exporter").await?.is_some())
    })
    .await?;
    let started = Instant::now();
    edit = edit_until(
        &stage,
        edit,
        async || Ok(started.elapsed() > Duration::from_millis(700)),
    )
    .await?;
    first.process.kill()?;
    let killed = Instant::now();
    edit = edit_until(&stage, edit, async || {
        Ok(holder(&stage).await?.as_deref() == Some("second"))
    })
    .await?;
    println!(
        "the second leads {:?} after the first was killed (lease: {LEASE:?})",
        killed.elapsed()
    );
    ensure!(killed.elapsed() < LEASE * 3, "{:?}", killed.elapsed());
    edit = edit_until(&stage, edit, async || Ok(true)).await?;
    arrived(&stage, edit).await?;
    first.process.exited(SOON).await?;

    // Frozen past the lease in the middle of edits, then awake again.
    let third = start(&stage, "third").await?;
    let started = Instant::now();
    edit = edit_until(
        &stage,
        edit,
        async || Ok(started.elapsed() > Duration::from_millis(700)),
    )
    .await?;
    second.process.pause()?;
    let frozen = Instant::now();
    edit = edit_until(&stage, edit, async || {
        Ok(holder(&stage).await?.as_deref() == Some("third"))
    })
    .await?;
    println!("the third leads {:?} after the second was frozen", frozen.elapsed());
    second.process.resume()?;
    let awake = Instant::now();
    edit = edit_until(&stage, edit, async || Ok(awake.elapsed() > LEASE)).await?;
    arrived(&stage, edit).await?;
    ensure!(
        holder(&stage).await?.as_deref() == Some("third"),
        "who wakes up does not take the lease back"
    );
    ensure!(second.is_ready().await);

    // A leader that ends in order gives its lease back at once.
    third.process.terminate()?;
    let ended = Instant::now();
    leads(&stage, "second").await?;
    println!("the second leads {:?} after the third ended", ended.elapsed());
    ensure!(ended.elapsed() < LEASE, "{:?}", ended.elapsed());
    edit = edit_until(&stage, edit, async || Ok(true)).await?;
    arrived(&stage, edit).await?;

    let count = no_write_came_twice(&stage, mark).await?;
    println!(
        "{edit} edits of {} monitors: {count} writes, none twice",
        MONITORS.len()
    );
    ensure!(count >= MONITORS.len() * (OBJECTS.len() + 1), "{count}");
    stage.nothing_was_forbidden().await
}
