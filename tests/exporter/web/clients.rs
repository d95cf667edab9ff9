//! Certificates of clients.

use rcgen::SanType;

use super::certificates::self_signed;
use super::client::runtime;
use super::{Authority, Client, Pair, Site, TLS, indented};
use crate::processes::Exporter;

/// What becomes of a request: its status, or the alert.
fn outcome(client: &Client, exporter: &Exporter) -> String {
    match client.get(exporter, "/ready") {
        Ok(reply) => reply.status.to_string(),
        Err(error) => [
            "CertificateRequired",
            "BadCertificate",
            "UnknownCA",
            "CertificateExpired",
        ]
        .into_iter()
        .find(|alert| error.contains(alert))
        .unwrap_or(&error)
        .to_owned(),
    }
}

#[test]
fn each_type_of_client_authentication_takes_whom_it_should() {
    let site = Site::new(TLS);
    let exporter = site.exporter();
    let stranger = Authority::new("stranger");
    let strange = site.client().showing(&stranger.issue(&["stranger"]));
    let unsigned = site.client().showing(&self_signed("unsigned", false));
    let known = site.client().showing(&site.authority.issue(&["known"]));
    let (none, ok) = (site.client(), "200");
    let (required, unknown) = ("CertificateRequired", "UnknownCA");
    for (text, expected) in [
        ("client_auth_type: NoClientCert", [ok, ok, ok, ok]),
        ("client_auth_type: RequestClientCert", [ok, ok, ok, ok]),
        ("client_auth_type: RequireAnyClientCert", [required, ok, ok, ok]),
        ("client_auth_type: RequireClientCert", [required, ok, ok, ok]),
        (
            "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: authority.crt",
            [ok, unknown, unknown, ok],
        ),
        (
            "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: authority.crt",
            [required, unknown, unknown, ok],
        ),
        (
            "client_auth_type: VerifyClientCertIfGiven",
            [ok, unknown, unknown, unknown],
        ),
        (
            "client_auth_type: RequireAndVerifyClientCert",
            [required, unknown, unknown, unknown],
        ),
    ] {
        site.says_to(&exporter, &format!("{TLS}  {text}\n"));
        let found = [&none, &strange, &unsigned, &known].map(|client| outcome(client, &exporter));
        assert_eq!(found, expected, "{text}");
    }
    // The same in HTTP/2, and in TLS 1.2, whose handshake is another one.
    let text = format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: authority.crt\n");
    site.says_to(&exporter, &text);
    assert_eq!(outcome(&known.clone().over_http2(), &exporter), ok);
    let mut old = known;
    old.versions = vec![&rustls::version::TLS12];
    assert_eq!(outcome(&old, &exporter), ok);
}

#[test]
fn a_connection_ends_with_its_next_answer_when_another_certificate_is_asked_for() {
    let required = |authority: &str| {
        format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {authority}\n")
    };
    let site = Site::new("");
    let stranger = Authority::new("stranger");
    std::fs::write(site.path("stranger.crt"), stranger.pem()).unwrap();
    let known = site.client().showing(&site.authority.issue(&["known"]));
    site.says(TLS);
    let exporter = site.exporter();
    let named = format!("{}  client_allowed_sans: [other]\n", required("authority.crt"));
    for (client, before, after) in [
        (site.client(), TLS.to_owned(), required("authority.crt")),
        (known.clone(), required("authority.crt"), required("stranger.crt")),
        (known, required("authority.crt"), named),
    ] {
        for client in [client.clone(), client.over_http2()] {
            site.says_to(&exporter, &before);
            runtime().block_on(async {
                let mut open = client.open(&exporter.address).await.unwrap();
                assert_eq!(open.get("/ready").await.unwrap(), 200);
                // What has nothing to do with clients leaves it open.
                site.says_to(&exporter, &format!("{before}  min_version: TLS13\n"));
                assert_eq!(open.get("/ready").await.unwrap(), 200, "{before}");
                site.says_to(&exporter, &after);
                assert_eq!(open.get("/ready").await.unwrap(), 400, "{after}");
                open.until_closed().await;
            });
        }
    }
}

#[test]
fn a_certificate_may_vouch_for_itself_and_an_authority_may_stand_in_the_file() {
    for authority in [false, true] {
        let client = self_signed("client", authority);
        let text = indented(&client.cert);
        let site = Site::new(&format!(
            "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca: |\n{text}"
        ));
        let exporter = site.exporter();
        assert_eq!(outcome(&site.client().showing(&client), &exporter), "200");
        let other = site.client().showing(&self_signed("client", authority));
        assert_eq!(outcome(&other, &exporter), "UnknownCA");
    }
}

#[test]
fn only_names_that_are_allowed_come_in() {
    let site = Site::new("");
    let pair = |name| site.authority.issue_for(vec![name]);
    let pairs: [(&str, Pair); 5] = [
        (
            "scraper.example",
            pair(SanType::DnsName("scraper.example".try_into().unwrap())),
        ),
        ("10.1.2.3", pair(SanType::IpAddress([10, 1, 2, 3].into()))),
        ("2001:db8::1", pair(SanType::IpAddress("2001:db8::1".parse().unwrap()))),
        (
            "ops@example.org",
            pair(SanType::Rfc822Name("ops@example.org".try_into().unwrap())),
        ),
        (
            "spiffe://example.org/prometheus",
            pair(SanType::URI("spiffe://example.org/prometheus".try_into().unwrap())),
        ),
    ];
    let allowing = |mode: &str, name: &str| {
        format!(
            "{TLS}  client_auth_type: {mode}\n  client_ca_file: authority.crt\n  client_allowed_sans: [other, \"{name}\"]\n"
        )
    };
    site.says(&allowing("RequireAndVerifyClientCert", "none"));
    let exporter = site.exporter();
    let allow = |mode: &str, name: &str| site.says_to(&exporter, &allowing(mode, name));
    for (name, pair) in &pairs {
        allow("RequireAndVerifyClientCert", name);
        let client = site.client().showing(pair);
        assert_eq!(outcome(&client, &exporter), "200", "{name}");
        // Exactly: no part of it, and no other spelling.
        allow("RequireAndVerifyClientCert", &name[1..]);
        assert_eq!(outcome(&client, &exporter), "BadCertificate", "{name}");
    }
    let (name, pair) = &pairs[0];
    allow("RequireAndVerifyClientCert", name);
    let nameless = site.client().showing(&site.authority.issue_for(Vec::new()));
    assert_eq!(outcome(&nameless, &exporter), "BadCertificate");
    assert_eq!(outcome(&site.client(), &exporter), "CertificateRequired");
    let liar = site.client().showing(&Authority::new("stranger").issue(&[name]));
    assert_eq!(outcome(&liar, &exporter), "UnknownCA");
    // Whoever shows nothing has no name either.
    allow("VerifyClientCertIfGiven", name);
    assert_eq!(outcome(&site.client(), &exporter), "CertificateRequired");
    assert_eq!(outcome(&site.client().showing(pair), &exporter), "200");
}
