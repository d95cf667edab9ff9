//! The story itself.

use anyhow::{Context, Result, ensure};
use lab::rosey::{Bot, CONTROL_PORT, RIGHTS};
use lab::{Lab, Notification, eventually, has_condition};
use serde_json::{Value, json};

use super::{Demo, PATIENCE, Teller, curl, run_shell, say, shell, show};

const MONITOR: &str = "rosey.dev/v1alpha1/RoseyMonitor";

/// The times of the demo: each a documented field of the resource. And where the lab's mail server is.
fn impatience(smtp: &str) -> Value {
    json!({
        "apiVersion": "rosey.dev/v1alpha1",
        "kind": "RoseyMonitor",
        "metadata": { "name": "rosey", "namespace": "bots" },
        "spec": {
            "scrape": { "interval": "1s", "timeout": "1s" },
            "alerts": {
                "interval": "1s",
                "overrides": [
                    { "alert": "BotDown", "levels": [{ "severity": "critical", "for": "4s" }] },
                    { "alert": "HighResponseTime", "levels": [{ "severity": "warning", "for": "6s" }] },
                ],
            },
            "notifications": {
                "groupWait": "1s",
                "groupInterval": "1s",
                "channels": [{ "name": "on-call", "email": { "smarthost": smtp, "requireTLS": false } }],
                "routes": [{ "name": "critical", "groupWait": "1s" }],
            },
        },
    })
}

/// The command that lays this manifest over the monitor.
fn apply_of(lab: &Lab, name: &str, manifest: &Value) -> Result<String> {
    let file = lab.logs_dir().join(name);
    std::fs::write(&file, serde_saphyr::to_string(manifest)?)?;
    Ok(format!(
        "kubectl apply --server-side --force-conflicts --field-manager=demo -f {}",
        file.display()
    ))
}

/// Tells it, from nothing to a bot whose troubles are known.
pub async fn tell(teller: &mut Teller) -> Result<Demo> {
    let lab = control_plane(teller).await?;
    let operator = operator(teller, &lab).await?;
    monitor(teller, &lab).await?;
    let bot = bot(teller, &lab).await?;
    series(teller, &lab).await?;
    outage(teller, &lab, &bot).await?;
    recovery(teller, &lab, &bot).await?;
    lab.scrape_operator(&operator).await?;
    deployment(teller, &lab).await?;
    mistake(teller, &lab).await?;
    Ok(Demo { lab, operator, bot })
}

async fn control_plane(teller: &mut Teller) -> Result<Lab> {
    teller.step("A control plane and a Prometheus stack come up, as plain processes on this machine");
    let lab = Lab::builder().rosey()?.interval("1s").start().await?;
    run_shell(&lab, "kubectl version").await?;
    run_shell(&lab, "kubectl get prometheuses,alertmanagers -A").await?;
    teller.done("etcd, API server, controllers, prometheus-operator, Prometheus and Alertmanager are ready");
    Ok(lab)
}

async fn operator(teller: &mut Teller, lab: &Lab) -> Result<lab::rosey::Operator> {
    teller.step("The resource is defined and the operator started");
    lab.install_rosey().await?;
    run_shell(lab, "kubectl get crd roseymonitors.rosey.dev").await?;
    say(&format!(
        "It runs outside of the cluster, as a user with the rights in {RIGHTS}:"
    ));
    let operator = lab.operator("operator", &[]).await?;
    show(&operator.command);
    let answer = curl(&format!("{}/readyz", operator.url), None).await?;
    ensure!(answer.trim() == "ok", "the operator's /readyz says {answer:?}");
    teller.done("the operator is ready");
    Ok(operator)
}

async fn monitor(teller: &mut Teller, lab: &Lab) -> Result<()> {
    teller.step("A bot's owner says how the bot is watched, before the bot is there");
    lab.namespace("bots").await?;
    lab.channels("bots").await?;
    run_shell(lab, "kubectl apply --server-side -f examples/rosey.yaml").await?;
    run_shell(
        lab,
        "kubectl wait roseymonitor/rosey -n bots --for=condition=Ready --timeout=30s",
    )
    .await?;
    let objects =
        "kubectl get prometheusrules,alertmanagerconfigs,podmonitors,configmaps -n bots -l rosey.dev/monitor=rosey";
    let shown = run_shell(lab, objects).await?;
    for object in [
        "prometheusrule.monitoring.coreos.com/rosey ",
        "alertmanagerconfig.monitoring.coreos.com/rosey ",
        "alertmanagerconfig.monitoring.coreos.com/rosey.ops-discord ",
        "alertmanagerconfig.monitoring.coreos.com/rosey.ops-slack ",
        "alertmanagerconfig.monitoring.coreos.com/rosey.on-call ",
        "podmonitor.monitoring.coreos.com/rosey ",
        "configmap/rosey-exporter ",
    ] {
        ensure!(shown.contains(object), "there is no {object}");
    }
    teller.done("rules, routes, scraping and the exporter's configuration are there");

    teller.step("Nobody wants to wait for an alert's usual minutes here, so these fields are shortened");
    let impatience = impatience(&lab.smtp_with_login());
    say(&serde_saphyr::to_string(&impatience["spec"])?);
    let apply = apply_of(lab, "impatience.yaml", &impatience)?;
    run_shell(lab, &apply).await?;
    let current = |monitor: &kube::core::DynamicObject| {
        has_condition(monitor, "Ready")
            && monitor.data["status"]["observedGeneration"] == json!(monitor.metadata.generation)
    };
    lab.until_object(PATIENCE, MONITOR, "bots", "rosey", current).await?;
    teller.done("this generation is in force");
    Ok(())
}

async fn bot(teller: &mut Teller, lab: &Lab) -> Result<Bot> {
    teller.step("The bot itself is deployed; nothing in its manifest knows of monitoring");
    run_shell(lab, "kubectl apply -f examples/rosey-bot.yaml").await?;
    let bot = lab.bot_of("bots", "app=rosey").await?;
    let injected = |monitor: &kube::core::DynamicObject| has_condition(monitor, "Injected");
    lab.until_object(PATIENCE, MONITOR, "bots", "rosey", injected).await?;
    let columns = "-o custom-columns=POD:.metadata.name,CONTAINERS:.spec.containers[*].name,BY:.metadata.annotations.rosey\\\\.dev/injected";
    let pods = run_shell(lab, &format!("kubectl get pods -n bots -l app=rosey {columns}")).await?;
    ensure!(pods.contains("bot,rosey-exporter"), "the pod has no exporter:\n{pods}");
    run_shell(lab, "kubectl get roseymonitors -n bots").await?;
    teller.done("the pod carries its exporter");
    Ok(bot)
}

async fn series(teller: &mut Teller, lab: &Lab) -> Result<()> {
    teller.step("Prometheus scrapes it");
    lab.prometheus()
        .until(PATIENCE, "rosey_bot_up{rosey_monitor=\"rosey\"} == 1")
        .await?;
    for name in [
        "rosey_bot_up",
        "rosey_bot_response_time_ms",
        "rosey_bot_memory_bytes",
        "rosey_bot_message_count_total",
    ] {
        let query = format!("{name}{{rosey_monitor=\"rosey\"}}");
        for sample in lab.prometheus().until(PATIENCE, &query).await? {
            let labels: Vec<_> = ["environment", "namespace", "pod", "rosey_monitor"]
                .into_iter()
                .filter_map(|name| Some(format!("{name}=\"{}\"", sample.labels.get(name)?)))
                .collect();
            ensure!(labels.len() == 4, "labels are missing: {:?}", sample.labels);
            say(&format!("{name}{{{}}} {}", labels.join(","), sample.value));
        }
    }
    teller.done("the bot's series are in Prometheus");
    Ok(())
}

async fn outage(teller: &mut Teller, lab: &Lab, bot: &Bot) -> Result<()> {
    teller.step("The bot breaks: it answers slowly, and says that it does not run");
    let change = json!({ "status": "stopped", "connected": false, "response_time_ms": 3500 });
    curl(&control_of(bot), Some(&change)).await?;
    for state in ["pending", "firing"] {
        lab.prometheus().until_alert(PATIENCE, "BotDown", state).await?;
        teller.done(&format!("BotDown is {state}"));
    }

    let inbox = lab.discord().of("ops");
    let discord = inbox
        .next_where(PATIENCE, "BotDown on Discord", |m| {
            m.is_firing() && m.title().contains("BotDown")
        })
        .await?;
    say(&format!(
        "Discord: {}\n         {}\n         {}",
        discord.content,
        discord.title(),
        indented(discord.description())
    ));
    ensure!(
        discord.content == "@everyone BotDown",
        "the message mentions nobody: {:?}",
        discord.content
    );
    let inbox = lab.slack().of("ops");
    let slack = inbox
        .next_where(PATIENCE, "BotDown on Slack", |m| {
            m.is_firing() && m.title().contains("BotDown")
        })
        .await?;
    say(&format!(
        "Slack:   {} ({})\n         {}",
        slack.title(),
        slack.channel,
        slack.text
    ));
    let mail = lab
        .mail()
        .next_where(PATIENCE, "BotDown by e-mail", |m| m.subject.contains("BotDown"))
        .await?;
    say(&format!(
        "E-mail:  to {}: {}\n         {}",
        mail.to.join(", "),
        mail.subject,
        indented(mail.text.trim())
    ));
    teller.done("Discord, Slack and the person on call know");

    teller.step("HighResponseTime fires too, but who knows that the bot is down need not hear that it is slow");
    lab.prometheus()
        .until_alert(PATIENCE, "HighResponseTime", "firing")
        .await?;
    let inhibited = eventually(PATIENCE, "HighResponseTime inhibited in Alertmanager", async || {
        let alerts = lab.alertmanager().alerts().await?;
        Ok(alerts
            .into_iter()
            .find(|alert| alert.name() == "HighResponseTime" && alert.is_inhibited()))
    });
    let inhibited = inhibited.await?;
    say(&format!(
        "Alertmanager: {} is {}, inhibited by {}",
        inhibited.name(),
        inhibited.status.state,
        inhibited.status.inhibited_by.join(", ")
    ));
    teller.done("HighResponseTime is inhibited");
    Ok(())
}

async fn recovery(teller: &mut Teller, lab: &Lab, bot: &Bot) -> Result<()> {
    teller.step("The bot recovers");
    let change = json!({ "status": "running", "connected": true, "response_time_ms": 80 });
    curl(&control_of(bot), Some(&change)).await?;
    let inbox = lab.discord().of("ops");
    let discord = inbox.next_where(PATIENCE, "the end of BotDown on Discord", |m| {
        m.is_resolved() && m.title().contains("BotDown")
    });
    let discord = discord.await?;
    say(&format!("Discord: {}", discord.title()));
    let inbox = lab.slack().of("ops");
    let slack = inbox.next_where(PATIENCE, "the end of BotDown on Slack", |m| {
        m.is_resolved() && m.title().contains("BotDown")
    });
    say(&format!("Slack:   {}", slack.await?.title()));
    let told = lab
        .discord()
        .received()
        .into_iter()
        .any(|m| m.title().contains("HighResponseTime"));
    ensure!(!told, "HighResponseTime was told although BotDown inhibits it");
    let mail = lab.mail();
    let mail = mail.next_where(PATIENCE, "the end of BotDown by e-mail", Notification::is_resolved);
    say(&format!("E-mail:  {}", mail.await?.subject));
    teller.done("everybody knows that it is over, and nobody heard of HighResponseTime");
    Ok(())
}

async fn deployment(teller: &mut Teller, lab: &Lab) -> Result<()> {
    teller.step("A pipeline records a deployment that failed");
    lab.prometheus()
        .until(
            PATIENCE,
            "rosey_deployment_total{rosey_monitor=\"rosey\",status=\"failed\"} == 0",
        )
        .await?;
    run_shell(
        lab,
        "kubectl rosey record deployment rosey -n bots --status failed --duration 42s",
    )
    .await?;
    let inbox = lab.discord().of("ops");
    let discord = inbox.next_where(PATIENCE, "DeploymentFailed on Discord", |m| {
        m.is_firing() && m.title().contains("DeploymentFailed")
    });
    let discord = discord.await?;
    say(&format!(
        "Discord: {}\n         {}",
        discord.title(),
        indented(discord.description())
    ));
    teller.done("the failed deployment is announced");
    Ok(())
}

async fn mistake(teller: &mut Teller, lab: &Lab) -> Result<()> {
    teller.step("Somebody makes a mistake, and hears of it at once");
    let wrong = json!({ "alert": "HighMemoryUsage", "levels": [{ "severity": "warning", "threshold": "3 bananas" }] });
    say("One more entry of spec.alerts.overrides:");
    say(serde_saphyr::to_string(&[&wrong])?.trim_end());
    let mut edited = impatience(&lab.smtp_with_login());
    let overrides = edited["spec"]["alerts"]["overrides"].as_array_mut();
    overrides.context("the overrides")?.push(wrong);
    let (answer, success) = shell(lab, &apply_of(lab, "mistake.yaml", &edited)?).await?;
    ensure!(!success, "the mistake was not refused:\n{answer}");
    for said in [".levels[0].threshold", "is not an amount of memory"] {
        ensure!(answer.contains(said), "{said:?} is not said:\n{answer}");
    }
    teller.done("refused, with the field and what to write instead");
    Ok(())
}

/// Hands the bot over to whoever wants to play with it: from now on its values move on their own.
pub async fn stays(teller: &mut Teller, demo: Demo) -> Result<Demo> {
    teller.step("The bot comes to life: a new pod of it lets users, memory and response time drift");
    let lab = &demo.lab;
    let drift = json!([{ "op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--drift" }]);
    run_shell(
        lab,
        &format!("kubectl patch deployment rosey -n bots --type=json -p '{drift}'"),
    )
    .await?;
    run_shell(lab, "kubectl rollout status deployment rosey -n bots --timeout=40s").await?;
    lab.until_gone(PATIENCE, "v1/Pod", "bots", &demo.bot.pod).await?;
    let bot = lab.bot_of("bots", "app=rosey").await?;
    let series = format!("rosey_bot_up{{pod=\"{}\"}} == 1", bot.pod);
    lab.prometheus().until(PATIENCE, &series).await?;
    teller.done("the new pod is scraped");
    Ok(Demo { bot, ..demo })
}

/// Where the bot is told what to pretend.
fn control_of(bot: &Bot) -> String {
    format!("http://{}:{CONTROL_PORT}/control", bot.ip)
}

/// Further lines of a message, under its first.
fn indented(text: &str) -> String {
    text.trim().replace('\n', "\n         ")
}
