//! Thousands of monitors: the command line, the API server and the operator agree on each of them, and what the operator makes of
//! those that are accepted is taken up by prometheus-operator, promtool and amtool without exception.

mod generate;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
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
    print_fields(&monitors);
    let accepted = |range: std::ops::Range<usize>| range.filter(|n| !refused.contains_key(n)).count();
    println!(
        "accepted: {} of {EACH} arbitrary monitors, {} of {EACH} valid ones",
        accepted(0..EACH),
        accepted(EACH..2 * EACH)
    );
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
    // Without its webhook, so that what the schema lets through reaches the operator.
    let operator = lab.operator("operator", &["--no-injection"]).await?;
    for (n, batch) in monitors.chunks(BATCH).enumerate() {
        let first = n * BATCH;
        judged_by_the_cluster(&lab, first, batch, &refused)
            .await
            .with_context(|| format!("monitors {first} and following"))?;
        println!(
            "{} of {} monitors judged and consumed after {:.0} s",
            first + batch.len(),
            monitors.len(),
            start.elapsed().as_secs_f64()
        );
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

/// What `kubectl rosey validate` says, by the number of the monitor. One monitor a line: problems come with their lines.
fn refused_by_the_command_line(monitors: &[Value]) -> Result<BTreeMap<usize, Vec<String>>> {
    let mut validate = Command::new(binary("kubectl-rosey")?)
        .args(["validate", "-o", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = validate.stdin.take().context("standard input")?;
    let text = monitors
        .iter()
        .fold(String::new(), |text, monitor| text + &monitor.to_string() + "\n---\n");
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = validate.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("writing failed"))??;
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

fn print_fields(monitors: &[Value]) {
    let mut counts = BTreeMap::<String, usize>::new();
    for monitor in monitors {
        let mut leaves = Vec::new();
        generate::pointers(&monitor["spec"], &mut String::new(), &mut leaves);
        let field = |leaf: &String| {
            leaf.split('/')
                .map(|part| if part.parse::<usize>().is_ok() { "*" } else { part })
                .collect::<Vec<_>>()
                .join(".")
        };
        for field in leaves.iter().map(field).collect::<BTreeSet<_>>() {
            *counts.entry(field).or_default() += 1;
        }
    }
    println!("monitors that set a field:");
    for (field, count) in counts {
        println!("  {count:5}  spec{field}");
    }
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
    let judged = eventually(PATIENCE, "every monitor has a status", async || {
        let list = api(lab).list(&ListParams::default()).await?;
        let judged = |monitor: &DynamicObject| {
            monitor.data["status"]["observedGeneration"] == json!(monitor.metadata.generation)
        };
        Ok((list.items.len() == stored.len() && list.items.iter().all(judged)).then_some(list.items))
    })
    .await?;
    let mut made = 0;
    for monitor in &judged {
        let n: usize = monitor.metadata.name.as_deref().unwrap_or_default()[1..].parse()?;
        let valid = condition(monitor, "Valid")
            .map(|c| c["status"] == "True")
            .with_context(|| format!("monitor {n} has no condition Valid"))?;
        ensure!(
            valid != refused.contains_key(&n),
            "monitor {n}: condition Valid is {valid}, the command line says {:?}\n{}",
            refused.get(&n),
            monitor.data
        );
        made += usize::from(valid);
    }
    consumed(lab, made).await?;
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

/// The consumers have taken everything up, and refused nothing.
async fn consumed(lab: &Lab, monitors: usize) -> Result<()> {
    let configs = lab
        .kubectl(&["get", "alertmanagerconfigs", "-n", NAMESPACE, "-o", "name"])
        .await?
        .lines()
        .count();
    let expected = [
        ("PrometheusRule", monitors),
        ("PodMonitor", monitors),
        ("AlertmanagerConfig", configs),
    ];
    eventually(PATIENCE, "prometheus-operator takes everything up", async || {
        let metrics = lab.prometheus_operator_metrics().await?;
        let count = |kind: &str, state: &str| -> Option<usize> {
            let line = metrics.lines().find(|line| {
                line.starts_with("prometheus_operator_managed_resources")
                    && line.contains(&format!("resource=\"{kind}\""))
                    && line.contains(&format!("state=\"{state}\""))
            })?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small count that is printed as a float"
            )]
            line.rsplit_once(' ')?.1.parse::<f64>().ok().map(|count| count as usize)
        };
        let said: Vec<_> = expected
            .iter()
            .map(|(kind, _)| (*kind, count(kind, "selected"), count(kind, "rejected")))
            .collect();
        let all = expected
            .iter()
            .zip(&said)
            .all(|((_, n), (_, selected, rejected))| selected == &Some(*n) && rejected.unwrap_or_default() == 0);
        ensure!(
            all,
            "expected {expected:?}, prometheus-operator says (kind, selected, rejected) {said:?}"
        );
        Ok(Some(()))
    })
    .await?;

    rules_are_accepted(lab, monitors).await?;
    routes_are_accepted(lab).await
}

/// promtool accepts every rule file that prometheus-operator made, one a monitor.
async fn rules_are_accepted(lab: &Lab, monitors: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let maps: Value = serde_json::from_str(
        &lab.kubectl(&[
            "get",
            "configmaps",
            "-n",
            lab::MONITORING_NAMESPACE,
            "-l",
            "prometheus-name",
            "-o",
            "json",
        ])
        .await?,
    )?;
    let mut files = Vec::new();
    for (name, text) in maps["items"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|map| map["data"].as_object().into_iter().flatten())
    {
        let file = folder.path().join(name);
        std::fs::write(&file, text.as_str().unwrap_or_default())?;
        files.push(file);
    }
    ensure!(
        files.len() == monitors,
        "{} rule files for {monitors} monitors",
        files.len()
    );
    let rules = Command::new(lab.tools().command("promtool"))
        .args(["check", "rules"])
        .args(&files)
        .output()?;
    ensure!(
        rules.status.success(),
        "promtool: {}",
        String::from_utf8_lossy(&rules.stderr)
    );
    Ok(())
}

/// amtool accepts the configuration that prometheus-operator made.
async fn routes_are_accepted(lab: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("alertmanager.yaml.gz");
    let secret = lab
        .kubectl(&[
            "get",
            "secret",
            "alertmanager-lab-generated",
            "-n",
            lab::MONITORING_NAMESPACE,
            "-o",
            "jsonpath={.data.alertmanager\\.yaml\\.gz}",
        ])
        .await?;
    let check = format!(
        "base64 -d | gunzip > {0}.yaml && {1} check-config {0}.yaml",
        config.display(),
        lab.tools().command("amtool").display()
    );
    let mut amtool = Command::new("sh")
        .args(["-c", &check])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    amtool
        .stdin
        .take()
        .context("standard input")?
        .write_all(secret.as_bytes())?;
    let amtool = amtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&amtool.stdout);
    ensure!(
        amtool.status.success(),
        "amtool: {said}{}",
        String::from_utf8_lossy(&amtool.stderr)
    );
    ensure!(said.contains("receivers"), "amtool checked nothing: {said}");
    Ok(())
}
