//! What is said of a run: a line as each scenario ends, a table at the end, and of a failure what somebody would look at.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::release::SYSTEM;
use crate::scenarios::Scenario;
use crate::stage::Stage;

/// A scenario that was played.
pub struct Row {
    name: &'static str,
    sentence: &'static str,
    time: Duration,
    /// What it measured, or why it failed.
    verdict: Result<String, String>,
}

/// All of a run.
pub struct Report {
    start: Instant,
    steps: Vec<(&'static str, Duration)>,
    rows: Vec<Row>,
    left_out: Vec<(&'static Scenario, &'static str)>,
}

impl Report {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            steps: Vec::new(),
            rows: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// A line for whoever waits.
    pub fn note(&self, line: &str) {
        println!("{:>6.1} s  {line}", self.start.elapsed().as_secs_f64());
    }

    /// One step of what comes before the scenarios.
    ///
    /// # Errors
    /// Those of the step.
    pub async fn step<T>(&mut self, name: &'static str, step: impl Future<Output = Result<T>>) -> Result<T> {
        let start = Instant::now();
        let done = step.await?;
        self.steps.push((name, start.elapsed()));
        self.note(&format!("{name}: {:.1} s", start.elapsed().as_secs_f64()));
        Ok(done)
    }

    pub fn rows(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.rows.extend(rows);
    }

    /// Scenarios that are not played, and why.
    pub fn left_out(&mut self, scenarios: Vec<&'static Scenario>, why: &'static str) {
        self.left_out
            .extend(scenarios.into_iter().map(|scenario| (scenario, why)));
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether every scenario did.
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.verdict.is_ok())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| scenario | what | time | verdict |\n|---|---|---|---|")?;
        for (name, time) in &self.steps {
            writeln!(f, "| – | {name} | {:.1} s | done |", time.as_secs_f64())?;
        }
        for Row {
            name,
            sentence,
            time,
            verdict,
        } in &self.rows
        {
            let verdict = match verdict {
                Ok(figures) if figures.is_empty() => "passed".to_owned(),
                Ok(figures) => format!("passed: {figures}"),
                Err(_) => "**FAILED**".to_owned(),
            };
            writeln!(f, "| {name} | {sentence} | {:.1} s | {verdict} |", time.as_secs_f64())?;
        }
        for (Scenario { name, sentence, .. }, why) in &self.left_out {
            writeln!(f, "| {name} | {sentence} | – | NOT PLAYED: {why} |")?;
        }
        let failed: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.verdict.is_err())
            .map(|row| row.name)
            .collect();
        let verdict = if failed.is_empty() && !self.rows.is_empty() {
            format!("all {} scenarios passed", self.rows.len())
        } else if failed.is_empty() {
            "no scenario was played".to_owned()
        } else {
            format!(
                "{} of {} scenarios FAILED: {}",
                failed.len(),
                self.rows.len(),
                failed.join(", ")
            )
        };
        write!(
            f,
            "\n{verdict}, after {:.0} s in all",
            self.start.elapsed().as_secs_f64()
        )
    }
}

/// Plays a scenario; of one that fails, prints what there is to see in its namespace.
pub async fn play(stage: &Stage, scenario: &Scenario) -> Row {
    let start = Instant::now();
    let played = (scenario.play)(stage).await;
    let time = start.elapsed();
    let verdict = match played {
        Ok(figures) => {
            println!("passed {} ({:.1} s) {figures}", scenario.name, time.as_secs_f64());
            Ok(figures)
        }
        Err(error) => {
            println!("FAILED {} ({:.1} s): {error:#}", scenario.name, time.as_secs_f64());
            for namespace in [scenario.name, SYSTEM] {
                look_at(stage, namespace).await;
            }
            Err(format!("{error:#}"))
        }
    };
    Row {
        name: scenario.name,
        sentence: scenario.sentence,
        time,
        verdict,
    }
}

/// What somebody would look at who is asked why it does not work there.
pub async fn look_at(stage: &Stage, namespace: &str) {
    println!("  in namespace {namespace}:");
    let monitors = "-o=jsonpath={range .items[*]}{.metadata.name}{\": \"}{.status}{\"\\n\"}{end}";
    let pods = "-o=jsonpath={range .items[*]}{.metadata.name}{\": \"}{.status.initContainerStatuses}{.status.containerStatuses}{\"\\n\"}{end}";
    for command in [
        &["get", "all", "-o", "wide"][..],
        &["get", "configmaps,podmonitors,prometheusrules,alertmanagerconfigs"],
        &["get", "roseymonitors", monitors],
        &["get", "pods", pods],
        &["get", "events", "--sort-by=.lastTimestamp"],
    ] {
        let mut arguments = command.to_vec();
        arguments.extend(["-n", namespace]);
        println!("  $ kubectl {}", arguments.join(" "));
        let said = stage
            .cluster
            .kubectl(&arguments)
            .await
            .unwrap_or_else(|error| format!("{error:#}"));
        print_end(&said, 40);
    }
    let pods = stage
        .cluster
        .kubectl(&["get", "pods", "-n", namespace, "-o", "name"])
        .await
        .unwrap_or_default();
    // The first ones; a scenario may have hundreds.
    for pod in pods.lines().take(8) {
        println!("  $ kubectl logs {pod} -n {namespace} --all-containers");
        let arguments = [
            "logs",
            pod,
            "-n",
            namespace,
            "--all-containers",
            "--prefix",
            "--tail=30",
        ];
        let said = stage
            .cluster
            .kubectl(&arguments)
            .await
            .unwrap_or_else(|error| format!("{error:#}"));
        print_end(&said, 30);
    }
}

fn print_end(text: &str, lines: usize) {
    let all: Vec<_> = text.lines().collect();
    for line in all.iter().skip(all.len().saturating_sub(lines)) {
        println!("    {}", line.chars().take(600).collect::<String>());
    }
}
