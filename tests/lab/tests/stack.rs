//! The Prometheus stack: scraped, evaluated, routed, delivered.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use lab::{Lab, Notification};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_alert_of_a_scraped_pod_reaches_every_receiver() -> Result<()> {
    let lab = Lab::start().await?;
    lab.namespace("bots").await?;
    let (host, port) = lab
        .smtp()
        .rsplit_once(':')
        .map(|(host, port)| (host.to_owned(), port.to_owned()))
        .unwrap();
    lab.apply(&format!(
        r##"
apiVersion: v1
kind: Pod
metadata: {{name: bot, namespace: bots, labels: {{app: bot}}}}
spec:
  containers:
  - name: exporter
    image: pause
    ports: [{{name: metrics, containerPort: 9100}}]
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {{name: bot, namespace: bots}}
spec:
  selector: {{matchLabels: {{app: bot}}}}
  podMetricsEndpoints: [{{port: metrics}}]
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {{name: bot, namespace: bots}}
spec:
  groups:
  - name: bot
    rules:
    - {{alert: BotSad, expr: bot_mood < 0, labels: {{severity: critical}}, annotations: {{summary: the bot is sad}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: channels, namespace: bots}}
stringData: {{discord: "{discord}", slack: "{slack}"}}
---
apiVersion: monitoring.coreos.com/v1alpha1
kind: AlertmanagerConfig
metadata: {{name: bot, namespace: bots}}
spec:
  route: {{receiver: all, groupWait: 1s, groupInterval: 1s, repeatInterval: 1h}}
  receivers:
  - name: all
    discordConfigs: [{{apiURL: {{name: channels, key: discord}}}}]
    slackConfigs: [{{apiURL: {{name: channels, key: slack}}, channel: "#bots", sendResolved: true}}]
    webhookConfigs: [{{url: "{webhook}"}}]
    emailConfigs: [{{to: oncall@example.org, from: alerts@example.org, smarthost: "{host}:{port}", requireTLS: false, sendResolved: true}}]
"##,
        discord = lab.discord_url("ops"),
        slack = lab.slack_url("ops"),
        webhook = lab.webhook_url("ci"),
    ))
    .await?;

    let pod = lab.until_condition(SOON, "v1/Pod", "bots", "bot", "Ready").await?;
    let metrics = Arc::new(Mutex::new("bot_mood -1\n".to_owned()));
    exporter(
        pod.data["status"]["podIP"].as_str().unwrap_or_default(),
        metrics.clone(),
    )
    .await?;
    lab.prometheus().until_scraped(SOON, "podMonitor/bots/bot/").await?;
    let mood = lab.prometheus().until(SOON, "bot_mood").await?;
    assert!((mood[0].value + 1.0).abs() < f64::EPSILON);
    assert_eq!(mood[0].labels["pod"], "bot");
    let rule = lab.prometheus().until_rule(SOON, "BotSad").await?;
    assert_eq!(rule.group, "bot");
    lab.prometheus().until_alert(SOON, "BotSad", "firing").await?;
    lab.alertmanager().until_alert(SOON, "BotSad").await?;

    let discord = lab.discord().of("ops").next().await?;
    assert!(discord.is_firing() && discord.title().contains("BotSad"), "{discord:?}");
    let slack = lab.slack().next().await?;
    assert_eq!((slack.channel.as_str(), slack.is_firing()), ("#bots", true));
    let webhook = lab.webhook().of("ci").next().await?;
    assert_eq!(webhook.alert_names(), ["BotSad"]);
    assert_eq!(webhook.alerts[0].labels["namespace"], "bots");
    let mail = lab.mail().of("oncall@example.org").next().await?;
    assert!(mail.subject.contains("BotSad"), "{}", mail.subject);
    assert_eq!(mail.header("From"), Some("alerts@example.org"));
    assert!(mail.text.contains("the bot is sad"), "{}", mail.text);

    "bot_mood 1\n".clone_into(&mut *metrics.lock().expect("nobody panicked with it"));
    let over = lab.discord().next().await?;
    assert!(over.is_resolved(), "{over:?}");
    assert!(lab.mail().next().await?.is_resolved());
    assert!(lab.slack().next().await?.is_resolved());
    Ok(())
}

/// Answers at the address of a pod what its exporter would.
async fn exporter(ip: &str, metrics: Arc<Mutex<String>>) -> Result<()> {
    let listener = tokio::net::TcpListener::bind((ip, 9100)).await?;
    let page = move || async move { metrics.lock().map(|text| text.clone()).unwrap_or_default() };
    let router = axum::Router::new().route("/metrics", axum::routing::get(page));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}
