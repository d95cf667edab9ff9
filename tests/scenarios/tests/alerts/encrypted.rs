//! An exporter that speaks TLS and asks for a password: Prometheus reads it, and nobody else does.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lab::WebSecret;
use lab::rosey::Bot;
use serde_json::Value;

use crate::scene::{A_WHILE, PATIENCE, Scene};

const NAMESPACE: &str = "bots";
const SERVER: &str = WebSecret::SERVER;
const USER: &str = WebSecret::USER;
const PASSWORD: &str = WebSecret::PASSWORD;

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_an_exporter_by_tls_with_a_password_and_a_stranger_does_not() -> Result<()> {
    let scene = Scene::start().await?;
    scene.namespace(NAMESPACE).await?;
    let certificate = give_its_secret(&scene).await?;
    scene.put_in_force(&scraped_by_tls(&scene)?).await?;
    let bot = scene.deploy(&Scene::deployment(NAMESPACE, "rosey")?).await?;

    let target = scene
        .lab
        .prometheus()
        .until_scraped(PATIENCE, "podMonitor/bots/rosey/")
        .await?;
    ensure!(target.scrape_url.starts_with("https://"), "{target:?}");
    let (injected, said) = scene.condition(NAMESPACE, "rosey", "Injected", "True").await?;
    ensure!(injected == "Injected", "{injected}: {said}");

    let exporter = Exporter::of(&bot, &certificate)?;
    for (user, status) in [
        (None, 401),
        (Some((USER, "guessed")), 401),
        (Some(("somebody", PASSWORD)), 401),
        (Some((USER, PASSWORD)), 200),
    ] {
        for path in ["/metrics", "/health"] {
            let (answered, body) = exporter.ask("https", path, user).await?;
            ensure!(answered == status, "{user:?} {path}: {answered} {body}");
            ensure!(status == 200 || !body.contains("rosey_"), "{user:?} {path}: {body}");
        }
    }
    let (answered, body) = exporter.ask("http", "/metrics", Some((USER, PASSWORD))).await?;
    ensure!(answered == 400 && !body.contains("rosey_"), "{answered} {body}");
    // Nothing of this is a right of the operator: the pod and prometheus-operator read the Secret.
    scene.lab.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_whose_secret_is_missing_is_told_with_the_secrets_name() -> Result<()> {
    let scene = Scene::start().await?;
    scene.namespace(NAMESPACE).await?;
    scene.put_in_force(&scraped_by_tls(&scene)?).await?;
    let (reason, said) = scene.condition(NAMESPACE, "rosey", "Selected", "False").await?;
    ensure!(
        reason == "ScrapeRefused" && said.contains("\"rosey-exporter-web\""),
        "{reason}: {said}"
    );
    scene.condition(NAMESPACE, "rosey", "Ready", "True").await?;
    scene.lab.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_older_than_the_web_configuration_is_scraped_on_until_it_is_restarted() -> Result<()> {
    let scene = Scene::start().await?;
    let bot = scene.watched_bot(NAMESPACE, |_| {}).await?;
    give_its_secret(&scene).await?;
    scene.put_in_force(&scraped_by_tls(&scene)?).await?;
    let prometheus = scene.lab.prometheus();
    // Until then, Prometheus goes by what it knew.
    prometheus
        .until_config_contains(PATIENCE, "podMonitor/bots/rosey/1")
        .await?;
    let older = prometheus.until_scraped(PATIENCE, "podMonitor/bots/rosey/0").await?;
    ensure!(older.scrape_url.starts_with("http://"), "{older:?}");
    ensure!(targets(&scene).await? == [older.scrape_url]);
    // The move was not taken for an absence, and nothing else ever was one.
    tokio::time::sleep(A_WHILE).await;
    let down = "ALERTS{alertname=\"BotDown\",alertstate=\"firing\"}";
    let missed = format!("max_over_time({down}[5m]) or up{{pod=\"{}\"}} == 0", bot.pod);
    let missed = prometheus.query(&missed).await?;
    ensure!(missed.is_empty(), "{missed:?}");

    scene.lab.kubectl(&["delete", "pod", "-n", NAMESPACE, &bot.pod]).await?;
    let younger = prometheus.until_scraped(PATIENCE, "podMonitor/bots/rosey/1").await?;
    ensure!(younger.scrape_url.starts_with("https://"), "{younger:?}");
    let only = || async { Ok(targets(&scene).await? == [younger.scrape_url.clone()]) };
    lab::until(PATIENCE, "the older pod's target to go", only).await?;
    scene.lab.nothing_was_forbidden().await
}

/// What Prometheus scrapes of the monitor.
async fn targets(scene: &Scene) -> Result<Vec<String>> {
    let targets = scene.lab.prometheus().targets().await?;
    let ours = targets
        .into_iter()
        .filter(|target| target.scrape_pool.starts_with("podMonitor/bots/rosey/"));
    Ok(ours.map(|target| target.scrape_url).collect())
}

/// Makes the Secret that the example names; the exporter's certificate.
async fn give_its_secret(scene: &Scene) -> Result<String> {
    let WebSecret { texts, certificate } = WebSecret::new()?;
    scene.secret(NAMESPACE, WebSecret::NAME, &texts).await?;
    Ok(certificate)
}

/// A monitor that is scraped as the one in the examples is.
fn scraped_by_tls(scene: &Scene) -> Result<Value> {
    let asked = lab::scraped_by_tls()?;
    scene.monitor(NAMESPACE, "rosey", |monitor| {
        let spec = &mut monitor["spec"];
        spec["exporter"]["webConfigSecretRef"] = asked["spec"]["exporter"]["webConfigSecretRef"].clone();
        for (field, value) in asked["spec"]["scrape"].as_object().into_iter().flatten() {
            spec["scrape"][field] = value.clone();
        }
    })
}

/// The exporter beside a bot, believed by its own certificate alone.
struct Exporter {
    client: reqwest::Client,
}

impl Exporter {
    fn of(bot: &Bot, certificate: &str) -> Result<Self> {
        let address = SocketAddr::from((bot.ip.parse::<IpAddr>()?, 9100));
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(certificate.as_bytes())?])
            .resolve(SERVER, address)
            .timeout(PATIENCE)
            .build()?;
        Ok(Self { client })
    }

    async fn ask(&self, scheme: &str, path: &str, user: Option<(&str, &str)>) -> Result<(u16, String)> {
        let mut request = self.client.get(format!("{scheme}://{SERVER}:9100{path}"));
        if let Some((name, password)) = user {
            request = request.basic_auth(name, Some(password));
        }
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }
}
