//! What is said of a run: a line as each scenario ends, a table at the end, and of a failure what somebody would look at.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::release::SYSTEM;
use crate::scenarios::{NotShown, SCENARIOS, Scenario};
use crate::stage::Stage;

enum Verdict {
    /// With what it measured.
    Passed(String),
    /// With why it could show nothing.
    NotShown(String),
    /// With why.
    Failed(String),
}

/// A scenario that was played.
pub struct Row {
    scenario: &'static Scenario,
    time: Duration,
    verdict: Verdict,
}

impl Row {
    fn failure(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Failed(why) => Some(why),
            Verdict::Passed(_) | Verdict::NotShown(_) => None,
        }
    }
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

    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Scenarios that are not played, and why.
    pub fn left_out(&mut self, scenarios: impl IntoIterator<Item = &'static Scenario>, why: &'static str) {
        self.left_out
            .extend(scenarios.into_iter().map(|scenario| (scenario, why)));
    }

    /// Those of the scenarios that have not come to an end.
    pub fn unended(&self, scenarios: &[&'static Scenario]) -> Vec<&'static Scenario> {
        let ended = |scenario: &&Scenario| self.rows.iter().any(|row| row.scenario.name == scenario.name);
        scenarios.iter().copied().filter(|scenario| !ended(scenario)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether no scenario failed.
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.failure().is_none())
    }

    /// In one line.
    fn sum(&self) -> String {
        let names = |fits: fn(&Row) -> bool| -> Vec<_> {
            let fitting = self.in_order().into_iter().filter(|row| fits(row));
            fitting.map(|row| row.scenario.name).collect()
        };
        let failed = names(|row| matches!(row.verdict, Verdict::Failed(_)));
        let not_shown = names(|row| matches!(row.verdict, Verdict::NotShown(_)));
        let all = self.rows.len();
        let sum = match failed.len() {
            0 if all == 0 => "no scenario was played".to_owned(),
            0 if all == 1 && not_shown.is_empty() => "the scenario passed".to_owned(),
            0 if not_shown.is_empty() => format!("all {all} scenarios passed"),
            0 => format!("{} of {all} scenarios passed", all - not_shown.len()),
            some => format!("{some} of {all} scenarios FAILED: {}", failed.join(", ")),
        };
        if not_shown.is_empty() {
            return sum;
        }
        format!("{sum}; NOT SHOWN: {}", not_shown.join(", "))
    }

    /// The rows as the scenarios are listed, in whatever order they have ended.
    fn in_order(&self) -> Vec<&Row> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|row| SCENARIOS.iter().position(|scenario| scenario.name == row.scenario.name));
        rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| scenario | what | time | verdict |\n|---|---|---|---|")?;
        for (name, time) in &self.steps {
            writeln!(f, "| – | {name} | {:.1} s | done |", time.as_secs_f64())?;
        }
        for Row {
            scenario: Scenario { name, sentence, .. },
            time,
            verdict,
        } in self.in_order()
        {
            let verdict = match verdict {
                Verdict::Passed(figures) if figures.is_empty() => "passed".to_owned(),
                Verdict::Passed(figures) => format!("passed: {figures}"),
                Verdict::NotShown(why) => format!("**NOT SHOWN**: {why}"),
                Verdict::Failed(_) => "**FAILED**".to_owned(),
            };
            writeln!(f, "| {name} | {sentence} | {:.1} s | {verdict} |", time.as_secs_f64())?;
        }
        for (Scenario { name, sentence, .. }, why) in &self.left_out {
            writeln!(f, "| {name} | {sentence} | – | NOT PLAYED: {why} |")?;
        }
        for (row, why) in self
            .in_order()
            .into_iter()
            .filter_map(|row| Some((row, row.failure()?)))
        {
            writeln!(f, "\nFAILED {}: {why}", row.scenario.name)?;
        }
        write!(
            f,
            "\n{}, after {:.0} s in all",
            self.sum(),
            self.start.elapsed().as_secs_f64()
        )
    }
}

/// Plays a scenario; of one that fails, prints what there is to see in its namespace.
pub async fn play(stage: &Stage, scenario: &'static Scenario) -> Row {
    let start = Instant::now();
    let played = (scenario.play)(stage).await;
    let time = start.elapsed();
    let line = |verdict: &str, more: &str| println!("{verdict} {} ({:.1} s) {more}", scenario.name, time.as_secs_f64());
    let verdict = match played {
        Ok(figures) => {
            line("passed", &figures);
            Verdict::Passed(figures)
        }
        Err(error) if error.is::<NotShown>() => {
            let why = error.to_string();
            line("NOT SHOWN", &why);
            Verdict::NotShown(why)
        }
        Err(error) => {
            let why = format!("{error:#}");
            line("FAILED", &why);
            for namespace in [scenario.name, SYSTEM] {
                look_at(stage, namespace).await;
            }
            Verdict::Failed(why)
        }
    };
    Row {
        scenario,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(verdicts: impl IntoIterator<Item = Verdict>) -> Report {
        let mut report = Report::new();
        // As they end, which is not as they are listed.
        let rows: Vec<_> = SCENARIOS.iter().zip(verdicts).collect();
        for (scenario, verdict) in rows.into_iter().rev() {
            report.row(Row {
                scenario,
                time: Duration::ZERO,
                verdict,
            });
        }
        report
    }

    #[test]
    fn what_was_not_shown_has_not_passed_and_has_not_failed() {
        let report = of([Verdict::Passed(String::new()), Verdict::NotShown("too busy".to_owned())]);
        assert!(report.passed());
        let text = report.to_string();
        assert!(text.contains("| **NOT SHOWN**: too busy |"), "{text}");
        assert!(text.contains("1 of 2 scenarios passed; NOT SHOWN: story"), "{text}");
    }

    #[test]
    fn why_a_scenario_failed_stands_below_the_table() {
        let report = of([Verdict::Failed("no bot".to_owned()), Verdict::Passed(String::new())]);
        assert!(!report.passed());
        let text = report.to_string();
        let places = [
            "| install |",
            "| story |",
            "FAILED install: no bot",
            "1 of 2 scenarios FAILED: install",
        ];
        assert!(
            places
                .map(|place| text.find(place))
                .is_sorted_by(|a, b| a.is_some() && a < b),
            "{text}"
        );
    }

    #[test]
    fn a_scenario_that_has_no_row_has_not_ended() {
        let all: Vec<_> = SCENARIOS.iter().take(2).collect();
        let unended = of([Verdict::Passed(String::new())]).unended(&all);
        assert_eq!(
            unended.iter().map(|scenario| scenario.name).collect::<Vec<_>>(),
            ["story"]
        );
    }
}
