//! An exporter that speaks TLS and asks for a password: Prometheus reads it, and nobody else does.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lab::rosey::{Bot, text};
use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene};

const NAMESPACE: &str = "bots";
/// Name in the exporter's certificate, as in the example.
const SERVER: &str = "rosey-exporter";
const PASSWORD: &str = "a longer secret";
/// Its bcrypt hash, of the least cost.
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuUfOzoJMVK5W6IjV9xJOKgclXGfCfMQu";

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_an_exporter_by_tls_with_a_password_and_a_stranger_does_not() -> Result<()> {
    let scene = Scene::start().await?;
    scene.namespace(NAMESPACE).await?;
    let made = rcgen::generate_simple_self_signed([SERVER.to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let web = json!({
        "tls_server_config": { "cert_file": "tls.crt", "key_file": "tls.key" },
        "basic_auth_users": { "prometheus": HASH },
    });
    let secret = json!({
        "web.yml": web.to_string(), "tls.crt": certificate, "tls.key": key, "ca.crt": certificate,
        "username": "prometheus", "password": PASSWORD,
    });
    scene.secret(NAMESPACE, "rosey-exporter-web", &secret).await?;

    scene.put_in_force(&asking_as_the_example_does(&scene)?).await?;
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
        (Some(("prometheus", "guessed")), 401),
        (Some(("somebody", PASSWORD)), 401),
        (Some(("prometheus", PASSWORD)), 200),
    ] {
        for path in ["/metrics", "/health"] {
            let (answered, body) = exporter.ask("https", path, user).await?;
            ensure!(answered == status, "{user:?} {path}: {answered} {body}");
            ensure!(status == 200 || !body.contains("rosey_"), "{user:?} {path}: {body}");
        }
    }
    let (answered, body) = exporter.ask("http", "/metrics", Some(("prometheus", PASSWORD))).await?;
    ensure!(answered == 400 && !body.contains("rosey_"), "{answered} {body}");
    // Nothing of this is a right of the operator: the pod and prometheus-operator read the Secret.
    scene.lab.nothing_was_forbidden().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_whose_secret_is_missing_is_told_with_the_secrets_name() -> Result<()> {
    let scene = Scene::start().await?;
    scene.namespace(NAMESPACE).await?;
    scene.put_in_force(&asking_as_the_example_does(&scene)?).await?;
    let (reason, said) = scene.condition(NAMESPACE, "rosey", "Selected", "False").await?;
    ensure!(
        reason == "ScrapeRefused" && said.contains("\"rosey-exporter-web\""),
        "{reason}: {said}"
    );
    scene.condition(NAMESPACE, "rosey", "Ready", "True").await?;
    scene.lab.nothing_was_forbidden().await
}

/// A monitor that is scraped as the one in the examples is.
fn asking_as_the_example_does(scene: &Scene) -> Result<Value> {
    let example: Value = serde_saphyr::from_str(&text("examples/s3-logs.yaml")?)?;
    scene.monitor(NAMESPACE, "rosey", |monitor| {
        let (spec, asked) = (&mut monitor["spec"], &example["spec"]);
        spec["exporter"]["webConfigSecretRef"] = asked["exporter"]["webConfigSecretRef"].clone();
        for field in ["scheme", "tlsConfig", "basicAuth"] {
            spec["scrape"][field] = asked["scrape"][field].clone();
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
