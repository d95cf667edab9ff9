//! TLS and a password between Prometheus and the exporter, as `examples/s3-logs.yaml` has them.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::rosey::text;

/// A bcrypt hash of [`WebSecret::PASSWORD`], of the least cost.
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuUfOzoJMVK5W6IjV9xJOKgclXGfCfMQu";

/// The Secret of the example: what the exporter serves by, and what Prometheus shows and believes.
#[derive(Clone, Debug)]
pub struct WebSecret {
    /// The texts by their keys, for `stringData`.
    pub texts: Value,
    /// The exporter's certificate, which signs itself, in PEM.
    pub certificate: String,
}

impl WebSecret {
    /// Its name.
    pub const NAME: &str = "rosey-exporter-web";
    /// The name in the exporter's certificate.
    pub const SERVER: &str = "rosey-exporter";
    /// The one user.
    pub const USER: &str = "prometheus";
    /// That user's password.
    pub const PASSWORD: &str = "a longer secret";

    /// One with a certificate of its own.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([Self::SERVER.to_owned()])?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let web = json!({
            "tls_server_config": { "cert_file": "tls.crt", "key_file": "tls.key" },
            "basic_auth_users": { (Self::USER): HASH },
        });
        let texts = json!({
            "web.yml": web.to_string(), "tls.crt": certificate, "tls.key": key, "ca.crt": certificate,
            "username": Self::USER, "password": Self::PASSWORD,
        });
        Ok(Self { texts, certificate })
    }
}

/// What has to be merged into a monitor, so that it is scraped as the one of the example is.
///
/// # Errors
/// When the example can't be read.
pub fn scraped_by_tls() -> Result<Value> {
    let example: Value = serde_saphyr::from_str(&text("examples/s3-logs.yaml")?).context("examples/s3-logs.yaml")?;
    let (web, scrape) = (
        &example["spec"]["exporter"]["webConfigSecretRef"],
        &example["spec"]["scrape"],
    );
    Ok(json!({ "spec": { "exporter": { "webConfigSecretRef": web }, "scrape": scrape } }))
}
