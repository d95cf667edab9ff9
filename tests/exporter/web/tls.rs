//! The server's side of TLS.

use std::io::{Read, Write};
use std::net::TcpStream;

use hyper::Version;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::version::{TLS12, TLS13};

use super::client::runtime;
use super::{Site, TLS, indented};
use crate::processes::{PATIENCE, eventually};

/// What the server says to these bytes until it closes the connection.
fn said_to(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    said
}

#[test]
fn pages_are_served_through_tls_in_both_versions_of_http() {
    let site = Site::new(TLS);
    let exporter = site.exporter();
    for (client, version) in [
        (site.client(), Version::HTTP_11),
        (site.client().over_http2(), Version::HTTP_2),
    ] {
        let reply = client.get(&exporter, "/metrics").unwrap();
        assert_eq!((reply.status, reply.version), (200, version));
        assert_eq!(
            reply.headers["content-type"],
            "text/plain; version=0.0.4; charset=utf-8"
        );
        eventually("the file was just read", || {
            let reply = client.get(&exporter, "/metrics").unwrap();
            let successful = "\nrosey_exporter_web_config_last_reload_successful 1\n";
            reply.body.contains(successful).then_some(())
        });
        assert_eq!(client.get(&exporter, "/nowhere").unwrap().status, 404);
    }
    site.says_to(&exporter, &format!("{TLS}http_server_config: {{http2: false}}"));
    let reply = site.client().over_http2().get(&exporter, "/ready").unwrap();
    assert_eq!((reply.status, reply.version), (200, Version::HTTP_11));
}

#[test]
fn whoever_speaks_the_wrong_one_of_http_and_https_is_told() {
    let site = Site::new(TLS);
    let exporter = site.exporter();
    let answer = exporter.get("/metrics");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body, "Client sent an HTTP request to an HTTPS server.\n");

    let plain = Site::new("");
    let exporter = plain.exporter();
    let error = plain.client().get(&exporter, "/metrics").unwrap_err();
    assert!(error.contains("InvalidContentType"), "{error}");
}

#[test]
fn certificate_and_key_may_stand_in_the_file_itself() {
    let site = Site::new("");
    let (cert, key) = (indented(&site.server.cert), indented(&site.server.key));
    site.says(&format!("tls_server_config:\n  cert: |\n{cert}  key: |\n{key}"));
    assert_eq!(site.client().get(&site.exporter(), "/ready").unwrap().status, 200);
    // A file goes before a text, as in the toolkit.
    site.says(&format!("{TLS}  cert: nothing\n"));
    assert_eq!(site.client().get(&site.exporter(), "/ready").unwrap().status, 200);
    site.says(&format!("tls_server_config:\n  cert_file: server.crt\n  key: |\n{key}"));
    assert_eq!(site.client().get(&site.exporter(), "/ready").unwrap().status, 200);
}

#[test]
fn http2_is_spoken_through_tls_only() {
    let site = Site::new("http_server_config: {http2: true}");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let said = said_to(&site.exporter().address, preface);
    let said = String::from_utf8_lossy(&said);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
}

#[test]
fn versions_suites_and_curves_are_those_of_the_file() {
    let site = Site::new(TLS);
    let exporter = site.exporter();
    let mut old = site.client();
    old.versions = vec![&TLS12];
    let mut new = site.client();
    new.versions = vec![&TLS13];
    let mut weak = old.clone();
    weak.provider.cipher_suites = vec![cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256];
    let mut narrow = site.client();
    narrow.provider.kx_groups = vec![kx_group::X25519];
    let cases = [
        ("", [Ok(200), Ok(200), Ok(200), Ok(200)]),
        (
            "min_version: TLS13",
            [Err("ProtocolVersion"), Ok(200), Err("ProtocolVersion"), Ok(200)],
        ),
        (
            "max_version: TLS12",
            [Ok(200), Err("ProtocolVersion"), Ok(200), Ok(200)],
        ),
        (
            "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]",
            [Ok(200), Ok(200), Err("HandshakeFailure"), Ok(200)],
        ),
        (
            "curve_preferences: [CurveP384]",
            [Ok(200), Ok(200), Ok(200), Err("HandshakeFailure")],
        ),
    ];
    for (text, expected) in cases {
        site.says_to(&exporter, &format!("{TLS}  {text}\n"));
        for (client, expected) in [&old, &new, &weak, &narrow].into_iter().zip(expected) {
            let found = client.get(&exporter, "/ready").map(|reply| reply.status);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                (found, expected) => panic!("{text}: {found:?} is not {expected:?}"),
            }
        }
    }
}

#[test]
fn of_the_suites_and_curves_of_the_file_the_clients_first_one_is_taken() {
    let site = Site::new("");
    let suites = [
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    let curves = [kx_group::SECP384R1, kx_group::X25519];
    let listed = "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  \
                  curve_preferences: [X25519, CurveP384]";
    for prefers in [true, false] {
        site.says(&format!("{TLS}  prefer_server_cipher_suites: {prefers}\n  {listed}\n"));
        let exporter = site.exporter();
        for first in [0, 1] {
            let mut client = site.client();
            client.versions = vec![&TLS12];
            client.provider.cipher_suites = vec![suites[first], suites[1 - first]];
            client.provider.kx_groups = vec![curves[first], curves[1 - first]];
            let stream = runtime().block_on(client.connect(&exporter.address)).unwrap();
            let session = stream.get_ref().1;
            let curve = session.negotiated_key_exchange_group().map(SupportedKxGroup::name);
            assert_eq!(session.negotiated_cipher_suite(), Some(suites[first]), "{prefers}");
            assert_eq!(curve, Some(curves[first].name()), "{prefers}");
        }
    }
}

#[test]
fn a_client_of_an_older_version_gets_an_alert() {
    let site = Site::new(TLS);
    let exporter = site.exporter();
    // A ClientHello of TLS 1.1 with one suite of that time.
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let record = [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat();
    let said = said_to(&exporter.address, &record);
    // An alert, fatal, handshake_failure: rustls misses the signature algorithms, which came with TLS 1.2, before it looks at
    // the version. Go's server calls the same thing protocol_version.
    assert_eq!(
        (said.first(), said.get(5..)),
        (Some(&0x15), Some(&[2, 40][..])),
        "{said:?}"
    );
    assert_eq!(site.client().get(&exporter, "/ready").unwrap().status, 200);
}

#[test]
fn a_new_certificate_is_shown_from_the_next_handshake_on_and_a_bad_one_never() {
    let site = Site::new(TLS);
    let exporter = site.exporter();
    let first = site.client().certificate(&exporter);
    assert_eq!(first, site.client().certificate(&exporter));

    let renewed = site.authority.issue(&["localhost"]);
    // Certificate and key don't belong together for a moment: the last good ones are shown, and no page.
    site.put("server.crt", &renewed.cert);
    assert!(Site::is_read_by(&exporter).contains("is not the key of the certificate"));
    assert_eq!(first, site.client().certificate(&exporter));
    let reply = site.client().get(&exporter, "/metrics").unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (500, "Internal Server Error\n"));
    site.put("server.key", &renewed.key);
    Site::is_read_by(&exporter);
    assert_ne!(first, site.client().certificate(&exporter));
    assert_eq!(site.client().get(&exporter, "/metrics").unwrap().status, 200);

    site.says_to(&exporter, "tls_server_config: {");
    assert_eq!(
        site.client().over_http2().get(&exporter, "/metrics").unwrap().status,
        500
    );
}

#[test]
fn tls_may_come_but_does_not_go_while_the_exporter_runs() {
    let site = Site::new("");
    let exporter = site.exporter();
    let mut early = TcpStream::connect(&exporter.address).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut ask = || {
        early.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 512];
        let length = early.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    assert!(ask().starts_with("HTTP/1.1 200"));
    site.says_to(&exporter, TLS);
    // Also on a connection that was there before.
    assert!(ask().starts_with("HTTP/1.1 400"));
    assert_eq!(exporter.get("/ready").status, 400);
    assert_eq!(site.client().get(&exporter, "/ready").unwrap().status, 200);
    let told = site.says_to(&exporter, "basic_auth_users: {}");
    assert!(told.contains("tls_server_config: was taken away"), "{told}");
    assert_eq!(exporter.get("/ready").status, 400);
    assert_eq!(site.client().get(&exporter, "/ready").unwrap().status, 500);
}
