//! What the file may say: exporter-toolkit's web configuration (its docs/web-configuration.md), as written and as understood.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::Refusal;
use super::tls::{Curve, Suite, Version};
use crate::exporter::sources::below;

/// The headers that may be set, and the values of those that are lists of words.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];
/// A password that costs more takes longer to check than a scraper waits, on any machine.
const HIGHEST_COST: u32 = 18;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tls_server_config: Option<WrittenTls>,
    http_server_config: Option<WrittenHttp>,
    rate_limit: Option<WrittenRate>,
    basic_auth_users: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTls {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    client_ca_file: Option<String>,
    client_auth_type: Option<String>,
    client_allowed_sans: Option<Vec<String>>,
    min_version: Option<String>,
    max_version: Option<String>,
    cipher_suites: Option<Vec<String>>,
    curve_preferences: Option<Vec<String>>,
    // Taken and without effect, as in the toolkit, so that files which have it go on working.
    #[serde(rename = "prefer_server_cipher_suites")]
    _prefer_server_cipher_suites: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHttp {
    http2: Option<bool>,
    headers: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRate {
    interval: Option<String>,
    burst: Option<i64>,
}

/// A file that was understood. It holds secrets, so it can't be printed.
#[derive(Default)]
pub(super) struct File {
    /// Whether there was nothing in it at all.
    pub empty: bool,
    pub tls: Option<Tls>,
    pub http2: bool,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub rate: Option<Rate>,
    pub users: Users,
}

/// Who may ask, with the bcrypt hash of the password.
pub(super) type Users = BTreeMap<String, String>;

/// How often one may ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// The time after which one more request is allowed.
    pub interval: Duration,
    /// How many requests may come at once.
    pub burst: u32,
}

/// The part that turns TLS on.
pub(super) struct Tls {
    pub cert: Source,
    pub key: Source,
    pub client_ca: Option<Source>,
    pub clients: Clients,
    pub allowed_sans: Option<Vec<String>>,
    pub versions: Vec<Version>,
    /// Those of the file; nothing: all that there are.
    pub suites: Option<Vec<Suite>>,
    /// Those of the file, in its order; nothing: all that there are.
    pub curves: Option<Vec<Curve>>,
}

/// Where PEM text comes from, and the field that said so.
pub(super) enum Source {
    File(&'static str, PathBuf),
    Inline(&'static str, String),
}

impl Source {
    pub fn field(&self) -> &'static str {
        match self {
            Self::File(field, _) | Self::Inline(field, _) => field,
        }
    }
}

/// What is asked of clients; the names are those of Go's crypto/tls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clients {
    NoCert,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

impl Clients {
    /// Whether a certificate that was given and accepted says who the client is.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

impl File {
    /// What is allowed and hardly meant.
    pub fn oddities(&self) -> Vec<&'static str> {
        let mut oddities = Vec::new();
        if self
            .tls
            .as_ref()
            .is_some_and(|tls| tls.clients.verifies() && tls.client_ca.is_none())
        {
            oddities
                .push("tls_server_config.client_ca_file: is missing, so no certificate of a client can be verified");
        }
        if self.rate.is_some_and(|rate| rate.burst == 0) {
            oddities.push("rate_limit.burst: 0 refuses every request; write at least 1");
        }
        oddities
    }
}

fn field(field: impl Into<String>, reason: impl Into<String>) -> Refusal {
    Refusal::Field {
        field: field.into(),
        reason: reason.into(),
    }
}

/// Reads the text of a file that lies in `folder`; its absolute paths are those below `rootfs`.
pub(super) fn parse(text: &[u8], folder: &Path, rootfs: &Path) -> Result<File, Refusal> {
    let text = std::str::from_utf8(text).map_err(|_| Refusal::Yaml("is not UTF-8".into()))?;
    // Without the lines around a mistake: what is printed ends up in logs, and there are secrets here.
    let options = serde_saphyr::options! { with_snippet: false };
    let written: Option<Written> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| Refusal::yaml(&error))?;
    let empty = written.is_none();
    let written = written.unwrap_or_default();

    let http = written.http_server_config.unwrap_or_default();
    let http2 = http.http2.unwrap_or(true);
    Ok(File {
        empty,
        tls: tls(written.tls_server_config.unwrap_or_default(), http2, folder, rootfs)?,
        http2,
        headers: headers(http.headers.unwrap_or_default())?,
        rate: rate(&written.rate_limit.unwrap_or_default())?,
        users: users(written.basic_auth_users.unwrap_or_default())?,
    })
}

fn headers(written: BTreeMap<String, Option<String>>) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
    let mut headers = Vec::new();
    for (name, value) in written {
        let place = format!("http_server_config.headers.{name}");
        let value = value.unwrap_or_default();
        let Some((_, words)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let known = HEADERS.map(|(known, _)| known).join(", ");
            return Err(field(place, format!("can't be set; those that can are {known}")));
        };
        if !words.is_empty() && !words.contains(&value.as_str()) {
            return Err(field(
                place,
                format!("{value:?} is not known; write {}", words.join(" or ")),
            ));
        }
        if value.is_empty() {
            continue;
        }
        let printable =
            HeaderValue::from_str(&value).map_err(|_| field(&place, "has characters that no header has"))?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| field(&place, "is no header"))?;
        headers.push((name, printable));
    }
    Ok(headers)
}

fn rate(written: &WrittenRate) -> Result<Option<Rate>, Refusal> {
    let interval = match written.interval.as_deref() {
        None | Some("") => Duration::ZERO,
        Some(text) => duration(text).ok_or_else(|| {
            let reason = format!("{text:?} is not a duration; write a number and its unit, such as 1s or 100ms, or 0");
            field("rate_limit.interval", reason)
        })?,
    };
    let burst = written.burst.unwrap_or_default();
    let burst =
        u32::try_from(burst).map_err(|_| field("rate_limit.burst", format!("{burst} is not a number of requests")))?;
    Ok((!interval.is_zero()).then_some(Rate { interval, burst }))
}

/// A duration as Go writes it. A bare number would be nanoseconds there, which nobody means, so only 0 has no unit.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += value.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(sum).ok().filter(|_| !text.is_empty())
}

fn users(written: BTreeMap<String, Option<String>>) -> Result<Users, Refusal> {
    let mut users = Users::new();
    for (user, hash) in written {
        let place = format!("basic_auth_users.{user}");
        let hash = hash.unwrap_or_default();
        let parts: bcrypt::HashParts = hash.parse().map_err(|_| {
            field(
                &place,
                "is not a bcrypt hash; make one with: htpasswd -nBC 10 \"\" | tr -d ':\\n'",
            )
        })?;
        if !(4..=HIGHEST_COST).contains(&parts.get_cost()) {
            let reason = format!(
                "a cost of {} is not between 4 and {HIGHEST_COST}; write a hash of cost 10",
                parts.get_cost()
            );
            return Err(field(place, reason));
        }
        users.insert(user, hash);
    }
    Ok(users)
}

fn tls(written: WrittenTls, http2: bool, folder: &Path, rootfs: &Path) -> Result<Option<Tls>, Refusal> {
    let at = |name: &str| format!("tls_server_config.{name}");
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    // As in the toolkit a file goes before a text.
    let source = |names: [&'static str; 2], file: Option<String>, text: Option<String>| match (file, text) {
        (Some(file), _) if Path::new(&file).is_absolute() => Some(Source::File(names[0], below(rootfs, &file))),
        (Some(file), _) => Some(Source::File(names[0], folder.join(file))),
        (None, Some(text)) => Some(Source::Inline(names[1], text)),
        (None, None) => None,
    };
    let cert = source(["cert_file", "cert"], given(written.cert_file), given(written.cert));
    let key = source(["key_file", "key"], given(written.key_file), given(written.key));
    let client_ca = source(
        ["client_ca_file", "client_ca"],
        given(written.client_ca_file),
        given(written.client_ca),
    );
    let auth = given(written.client_auth_type);

    let min = version(&at("min_version"), written.min_version.as_deref(), Version::Tls12)?;
    let max = version(&at("max_version"), written.max_version.as_deref(), Version::Tls13)?;
    if min > max {
        return Err(field(at("min_version"), "is above max_version"));
    }
    let versions: Vec<_> = [Version::Tls13, Version::Tls12]
        .into_iter()
        .filter(|version| (min..=max).contains(version))
        .collect();
    let suites = listed(&at("cipher_suites"), written.cipher_suites, Suite::named)?;
    let curves = listed(&at("curve_preferences"), written.curve_preferences, Curve::named)?;

    if cert.is_none() && key.is_none() && client_ca.is_none() && auth.is_none() {
        return Ok(None);
    }
    let missing =
        |name: &str, text: &str| field(at(name), format!("is missing; write it, or {text} with the PEM text"));
    let cert = cert.ok_or_else(|| missing("cert_file", "cert"))?;
    let key = key.ok_or_else(|| missing("key_file", "key"))?;
    let clients = match auth.as_deref().unwrap_or("NoClientCert") {
        "NoClientCert" => Clients::NoCert,
        "RequestClientCert" => Clients::Request,
        // The second was the toolkit's own name once.
        "RequireAnyClientCert" | "RequireClientCert" => Clients::RequireAny,
        "VerifyClientCertIfGiven" => Clients::VerifyIfGiven,
        "RequireAndVerifyClientCert" => Clients::RequireAndVerify,
        other => {
            let reason = format!(
                "{other:?} is not known; write NoClientCert, RequestClientCert, RequireAnyClientCert, \
                 VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            );
            return Err(field(at("client_auth_type"), reason));
        }
    };
    if clients == Clients::NoCert {
        let needs = "has no effect while no client is asked for a certificate; write client_auth_type: RequireAndVerifyClientCert";
        if let Some(client_ca) = &client_ca {
            return Err(field(at(client_ca.field()), needs));
        }
        if written.client_allowed_sans.is_some() {
            return Err(field(at("client_allowed_sans"), needs));
        }
    }
    if let Some(suites) = &suites {
        let usable = |version| suites.iter().any(|suite| suite.version() == version);
        if versions == [Version::Tls12] && !usable(Version::Tls12) {
            return Err(field(at("cipher_suites"), "none of them is one of TLS 1.2"));
        }
        // RFC 9113, 9.2.2. The toolkit's server refuses to start in the same case.
        let required = suites.iter().any(Suite::is_required_by_http2);
        if http2 && versions.contains(&Version::Tls12) && !required {
            let reason = "HTTP/2 needs TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256; \
                          add it, or write http_server_config.http2: false";
            return Err(field(at("cipher_suites"), reason));
        }
    }
    Ok(Some(Tls {
        cert,
        key,
        client_ca,
        clients,
        allowed_sans: written.client_allowed_sans,
        versions,
        suites,
        curves,
    }))
}

fn version(place: &str, written: Option<&str>, default: Version) -> Result<Version, Refusal> {
    match written {
        None => Ok(default),
        Some("TLS12") => Ok(Version::Tls12),
        Some("TLS13") => Ok(Version::Tls13),
        Some(old @ ("TLS10" | "TLS11")) => Err(field(place, format!("{old} is not offered; write TLS12 or TLS13"))),
        Some(other) => Err(field(place, format!("{other:?} is not known; write TLS12 or TLS13"))),
    }
}

fn listed<T>(
    place: &str,
    written: Option<Vec<String>>,
    find: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, Refusal> {
    let names = written.unwrap_or_default();
    let read = |(at, name): (usize, &String)| find(name).map_err(|reason| field(format!("{place}[{at}]"), reason));
    let list: Vec<T> = names.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok((!list.is_empty()).then_some(list))
}
