//! `lab demo`: a bot being watched, told step by step, on the real components. A step that does not happen ends it with an error.

mod story;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::Lab;
use lab::rosey::{Bot, Operator, binary};
use serde_json::Value;

/// How long a step may take before the demo fails.
const PATIENCE: Duration = Duration::from_secs(40);
/// What the whole story is meant to take at most; a slow machine is no reason to fail.
const AIM: Duration = Duration::from_secs(120);

/// Runs the demo.
///
/// # Errors
/// The first step that did not happen.
pub async fn run(keep: bool) -> Result<()> {
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut teller = Teller::new();
    let told = async {
        let demo = story::tell(&mut teller).await?;
        if keep {
            story::stays(&mut teller, demo).await
        } else {
            Ok(demo)
        }
    };
    let demo = tokio::select! {
        demo = told => demo?,
        _ = &mut interrupt => bail!("interrupted"),
    };
    let took = teller.start.elapsed();
    println!(
        "\nThat was it: {} steps in {:.1} s, {} the {} s that it may take.",
        teller.steps,
        took.as_secs_f64(),
        if took <= AIM { "within" } else { "more than" },
        AIM.as_secs()
    );
    if keep {
        demo.addresses();
        interrupt.await?;
    }
    Ok(())
}

/// Says something about the present step.
fn say(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

/// Shows a command as a user would type it.
fn show(command: &str) {
    println!("   \x1b[36m$ {command}\x1b[0m");
}

/// What the demo has brought up.
struct Demo {
    lab: Lab,
    operator: Operator,
    bot: Bot,
}

impl Demo {
    fn addresses(&self) {
        let Self { lab, operator, bot } = self;
        println!("\nEverything stays up until Ctrl-C:");
        println!("  Prometheus      {}", lab.prometheus().url());
        println!("  Alertmanager    {}", lab.alertmanager().url());
        println!("  operator        {}/metrics", operator.url);
        println!("  exporter        http://{}:9100/metrics", bot.ip);
        println!(
            "  break the bot   curl -d '{{\"fault\": \"not-running\"}}' http://{}:8001/control",
            bot.ip
        );
        println!("  logs            {}", lab.logs_dir().display());
        println!(
            "  commands        export PATH={}:$PATH",
            path().map(|folders| folders.join(":")).unwrap_or_default()
        );
        println!("\nexport KUBECONFIG={}", lab.kubeconfig().display());
    }
}

/// Prints the story and counts its steps.
struct Teller {
    start: Instant,
    step: Instant,
    steps: u32,
}

impl Teller {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            step: Instant::now(),
            steps: 0,
        }
    }

    /// Begins a step.
    fn step(&mut self, title: &str) {
        self.steps += 1;
        self.step = Instant::now();
        println!("\n\x1b[1m{}. {title}\x1b[0m", self.steps);
    }

    /// Ends it.
    fn done(&self, what: &str) {
        println!(
            "   \x1b[32m✓\x1b[0m {what} ({:.1} s)",
            self.step.elapsed().as_secs_f64()
        );
    }
}

/// Folders of the commands that a user would have on the path: kubectl and its plugin.
fn path() -> Result<Vec<String>> {
    let plugin = binary("kubectl-rosey")?;
    let tools = lab::Tools::find()?.command("kubectl");
    let folder = |path: PathBuf| Some(path.parent()?.display().to_string());
    [folder(tools), folder(plugin)]
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .context("the commands have no folder")
}

/// Runs a command as a user would type it, shows it with its output, and answers the output and whether it succeeded.
async fn shell(lab: &Lab, command: &str) -> Result<(String, bool)> {
    show(command);
    let inherited = std::env::var("PATH").unwrap_or_default();
    let output = tokio::process::Command::new("sh")
        .args(["-c", &format!("{command} 2>&1")])
        .current_dir(lab::rosey::file("."))
        .env("KUBECONFIG", lab.kubeconfig())
        .env("PATH", format!("{}:{inherited}", path()?.join(":")))
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| command.to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    say(&text);
    Ok((text, output.status.success()))
}

/// As [`shell`], for a command that must succeed.
async fn run_shell(lab: &Lab, command: &str) -> Result<String> {
    let (text, success) = shell(lab, command).await?;
    if !success {
        bail!("failed: {command}\n{text}");
    }
    Ok(text)
}

/// Asks what this `curl` would ask, on a machine that need not have it; the answer, which must be a success.
async fn curl(url: &str, data: Option<&Value>) -> Result<String> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let request = match data {
        None => {
            show(&format!("curl --fail {url}"));
            client.get(url)
        }
        Some(data) => {
            show(&format!("curl --fail -d '{data}' {url}"));
            let form = "application/x-www-form-urlencoded";
            client.post(url).header("Content-Type", form).body(data.to_string())
        }
    };
    let answer = request.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    say(text.trim_end());
    if !status.is_success() {
        bail!("{url} answers {status}: {text}");
    }
    Ok(text)
}
