//! Thousands of monitors: the command line, the API server and the operator agree on each of them, and what the operator makes of
//! those that are accepted is taken up by prometheus-operator, promtool and amtool without exception.

mod consumers;
mod fields;
mod generate;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use lab::rosey::binary;
use lab::{Lab, condition, eventually};
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

const EACH: usize = 1000;
const BATCH: usize = 100;
const NAMESPACE: &str = "bots";
/// Name of the Secret and of the `ConfigMap` with what Prometheus shows and believes.
const TLS: &str = "tls";
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn command_line_api_server_and_operator_agree_and_no_consumer_refuses_what_is_made() -> Result<()> {
    let arbitrary = specs(&generate::arbitrary(), 1)?;
    let valid = specs(&generate::valid(), 2)?;
    let monitors: Vec<Value> = arbitrary
        .into_iter()
        .chain(valid)
        .enumerate()
        .map(|(n, spec)| monitor(n, &spec))
        .collect();
    let refused = refused_by_the_command_line(&monitors)?;
    fields::every_field_is_set(&monitors)?;
    let accepted = |range: std::ops::Range<usize>| range.filter(|n| !refused.contains_key(n)).count();
    writeln!(
        std::io::stdout(),
        "accepted: {} of {EACH} arbitrary monitors, {} of {EACH} valid ones",
        accepted(0..EACH),
        accepted(EACH..2 * EACH)
    )?;
    ensure!(
        accepted(0..EACH) * 10 >= EACH * 7,
        "fewer than 70% of the arbitrary monitors are accepted"
    );
    let wrongly = (EACH..2 * EACH).find_map(|n| Some((&monitors[n], refused.get(&n)?)));
    ensure!(
        wrongly.is_none(),
        "valid by construction and refused all the same: {wrongly:?}"
    );

    let start = std::time::Instant::now();
    let lab = Lab::builder().rosey()?.interval("1h").start().await?;
    lab.install_rosey().await?;
    lab.namespace(NAMESPACE).await?;
    lab.channels(NAMESPACE).await?;
    credentials(&lab).await?;
    // Without its webhook, so that what the schema lets through reaches the operator.
    let operator = lab.operator("operator", &["--no-injection"]).await?;
    for (n, batch) in monitors.chunks(BATCH).enumerate() {
        let first = n * BATCH;
        judged_by_the_cluster(&lab, first, batch, &refused)
            .await
            .with_context(|| format!("monitors {first} and following"))?;
        writeln!(
            std::io::stdout(),
            "{} of {} monitors judged and consumed after {:.0} s",
            first + batch.len(),
            monitors.len(),
            start.elapsed().as_secs_f64()
        )?;
    }
    operator.process.terminate()?;
    operator.process.exited(PATIENCE).await?;

    // With its webhook the API server refuses exactly what the command line refuses.
    let operator = lab.operator("operator-with-webhooks", &[]).await?;
    let probe = json!({ "environment": "prod", "selector": { "matchLabels": { "app": "a" } }, "scrape": { "interval": "1s", "timeout": "2s" } });
    eventually(PATIENCE, "the validating webhook refuses", async || {
        Ok(create(&lab, &monitor(0, &probe), true).await.is_err().then_some(()))
    })
    .await?;
    let answers = stream::iter(monitors.iter().map(|monitor| create(&lab, monitor, true)))
        .buffered(8)
        .collect::<Vec<_>>()
        .await;
    for (n, answer) in answers.into_iter().enumerate() {
        let said = answer.as_ref().err().map(ToString::to_string);
        ensure!(
            answer.is_ok() != refused.contains_key(&n),
            "monitor {n}: the API server says {said:?}, the command line {:?}\n{}",
            refused.get(&n),
            monitors[n]
        );
    }
    drop(operator);
    lab.nothing_was_forbidden().await
}

async fn credentials(lab: &Lab) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["rosey".to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let public = json!({ "ca.crt": certificate, "tls.crt": certificate });
    let mut all = public.clone();
    for (name, value) in [
        ("tls.key", key.as_str()),
        ("username", "prometheus"),
        ("password", "secret"),
    ] {
        all[name] = json!(value);
    }
    let metadata = json!({ "name": TLS });
    for object in [
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": all }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": public }),
    ] {
        lab.apply_in(NAMESPACE, &object.to_string()).await?;
    }
    Ok(())
}

/// The same specs in every run; `ROSEY_SEED` gives others.
fn specs(strategy: &BoxedStrategy<Value>, which: u8) -> Result<Vec<Value>> {
    let mut seed = [which; 32];
    if let Ok(text) = std::env::var("ROSEY_SEED") {
        seed[..8].copy_from_slice(&text.parse::<u64>().context("ROSEY_SEED is a number")?.to_le_bytes());
    }
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let spec = |_| {
        strategy
            .new_tree(&mut runner)
            .map(|tree| tree.current())
            .map_err(|reason| anyhow::anyhow!("{reason}"))
    };
    (0..EACH).map(spec).collect()
}

fn monitor(n: usize, spec: &Value) -> Value {
    json!({ "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": { "name": format!("m{n}"), "namespace": NAMESPACE }, "spec": spec })
}

/// Runs `kubectl rosey` with monitors as its standard input.
fn rosey<'a>(arguments: &[&str], monitors: impl IntoIterator<Item = &'a Value>) -> Result<Output> {
    let mut command = Command::new(binary("kubectl-rosey")?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = command.stdin.take().context("standard input")?;
    let documents = monitors.into_iter().map(|monitor| monitor.to_string() + "\n---\n");
    let text: String = documents.collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = command.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("writing failed"))??;
    Ok(output)
}

/// What `kubectl rosey validate` says, by the number of the monitor. One monitor a line: problems come with their lines.
fn refused_by_the_command_line(monitors: &[Value]) -> Result<BTreeMap<usize, Vec<String>>> {
    let output = rosey(&["validate", "-o", "json", "-"], monitors)?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let mut refused = BTreeMap::<usize, Vec<String>>::new();
    for problem in said["problems"].as_array().context("problems")? {
        let line = usize::try_from(problem["line"].as_u64().context("a line")?)?;
        ensure!(line % 2 == 1, "a problem between two monitors: {problem}");
        refused
            .entry(line / 2)
            .or_default()
            .push(format!("{}: {}", problem["field"], problem["message"]));
    }
    ensure!(
        output.status.success() == refused.is_empty(),
        "the exit code disagrees with the problems"
    );
    Ok(refused)
}

fn api(lab: &Lab) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "rosey.dev".into(),
        version: "v1alpha1".into(),
        api_version: "rosey.dev/v1alpha1".into(),
        kind: "RoseyMonitor".into(),
        plural: "roseymonitors".into(),
    };
    Api::namespaced_with(lab.client(), NAMESPACE, &resource)
}

/// Creates a monitor as strictly as kubectl does.
async fn create(lab: &Lab, monitor: &Value, dry_run: bool) -> Result<DynamicObject> {
    let name = monitor["metadata"]["name"].as_str().context("a name")?;
    let strict = PatchParams {
        dry_run,
        ..PatchParams::apply("scenarios").validation_strict()
    };
    Ok(api(lab).patch(name, &strict, &Patch::Apply(monitor)).await?)
}

/// The number in a monitor's name.
fn number(monitor: &DynamicObject) -> Result<usize> {
    Ok(monitor.metadata.name.as_deref().unwrap_or_default()[1..].parse()?)
}

fn is_paused(monitor: &Value) -> bool {
    monitor["spec"]["paused"] == true
}

async fn judged_by_the_cluster(
    lab: &Lab,
    first: usize,
    batch: &[Value],
    refused: &BTreeMap<usize, Vec<String>>,
) -> Result<()> {
    let created = stream::iter(batch.iter().map(|monitor| create(lab, monitor, false)))
        .buffered(8)
        .collect::<Vec<_>>()
        .await;
    for (n, answer) in created.iter().enumerate() {
        let offline = refused.get(&(first + n));
        ensure!(
            answer.is_ok() || offline.is_some(),
            "monitor {}: refused by the schema ({:?}) and not by the command line\n{}",
            first + n,
            answer,
            batch[n]
        );
    }
    let stored: BTreeSet<usize> = (0..batch.len()).filter(|n| created[*n].is_ok()).collect();
    let judged = eventually(PATIENCE, "every monitor has its status", async || {
        let list = api(lab).list(&ListParams::default()).await?;
        ensure!(list.items.len() == stored.len(), "{} monitors", list.items.len());
        for monitor in &list.items {
            let n = number(monitor)?;
            let generation = &monitor.data["status"]["observedGeneration"];
            ensure!(
                generation == &json!(monitor.metadata.generation),
                "monitor {n}: {generation}"
            );
            let expected = if is_paused(&batch[n - first]) {
                ("Unknown", "Paused")
            } else if refused.contains_key(&n) {
                ("False", "Invalid")
            } else {
                ("True", "Applied")
            };
            let ready = condition(monitor, "Ready").with_context(|| format!("monitor {n} has no Ready"))?;
            ensure!(
                (&ready["status"], &ready["reason"]) == (&json!(expected.0), &json!(expected.1)),
                "monitor {n}: expected {expected:?}, {ready}"
            );
        }
        Ok(Some(list.items))
    })
    .await?;
    for monitor in &judged {
        let n = number(monitor)?;
        let valid = condition(monitor, "Valid")
            .map(|c| c["status"] == "True")
            .with_context(|| format!("monitor {n} has no condition Valid"))?;
        ensure!(
            valid != refused.contains_key(&n),
            "monitor {n}: condition Valid is {valid}, the command line says {:?}\n{}",
            refused.get(&n),
            monitor.data
        );
    }
    let made = (first..)
        .zip(batch)
        .filter(|(n, monitor)| !refused.contains_key(n) && !is_paused(monitor));
    let made: Vec<_> = made.map(|(_, monitor)| monitor).collect();
    consumers::take_up(lab, &consumers::Expected::of(&made)?).await?;
    api(lab)
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    eventually(PATIENCE, "the batch and what was made of it is gone", async || {
        let rules = lab
            .kubectl(&[
                "get",
                "roseymonitors,prometheusrules,alertmanagerconfigs,podmonitors",
                "-n",
                NAMESPACE,
                "-o",
                "name",
            ])
            .await?;
        Ok(rules.is_empty().then_some(()))
    })
    .await
}
