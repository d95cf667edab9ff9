//! What may stand in the file: the cases of the toolkit's own tests, and what differs.

use super::*;

/// Checks that each file is refused, and in these words.
fn each_is_refused(cases: &[(&str, &str)]) {
    let folder = folder();
    for (text, told) in cases {
        let text = text.replace("TLS,", &format!("{TLS},"));
        match made(folder.path(), &text) {
            Ok(_) => panic!("{text}: was taken"),
            Err(reason) => assert!(reason.contains(told), "{text}: {reason}"),
        }
    }
}

#[test]
fn what_the_toolkit_refuses_is_refused_with_the_field_in_it() {
    each_is_refused(&[
        ("junk", "expected mapping"),
        ("a: [", "line"),
        (
            "tls_server_config: {cert_filse: server.crt}",
            "unknown field `cert_filse`",
        ),
        ("basic_auth_user: {}", "unknown field `basic_auth_user`"),
        (
            "http_server_config: {headers: {X-Content-Type-Options: sniff}}",
            "headers.X-Content-Type-Options: \"sniff\" is not known; write nosniff",
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: foo}}",
            "write deny or sameorigin",
        ),
        (
            "http_server_config: {headers: {Content-Type: foo}}",
            "http_server_config.headers.Content-Type: can't be set",
        ),
        (
            "http_server_config: {headers: {x-frame-options: deny}}",
            "headers.x-frame-options: can't be set",
        ),
        (
            "http_server_config: {headers: {Content-Security-Policy: \"a\\nb\"}}",
            "has characters that no header has",
        ),
        ("http_server_config: {http3: true}", "unknown field `http3`"),
        (
            "basic_auth_users: {john: doe}",
            "basic_auth_users.john: is not a bcrypt hash",
        ),
        (
            "basic_auth_users: {john: }",
            "basic_auth_users.john: is not a bcrypt hash",
        ),
        (
            "rate_limit: {interval: fast}",
            "rate_limit.interval: \"fast\" is not a duration",
        ),
        (
            "rate_limit: {interval: 5}",
            "rate_limit.interval: \"5\" is not a duration",
        ),
        ("rate_limit: {interval: 1s, burst: -1}", "rate_limit.burst: -1"),
        ("rate_limit: {rate: 1}", "unknown field `rate`"),
    ]);
    let folder = folder();
    assert!(made(folder.path(), &"#".repeat(300 << 10)).is_err_and(|reason| reason.contains("larger than")));
}

#[test]
fn certificates_and_keys_that_are_none_are_refused() {
    each_is_refused(&[
        (
            "tls_server_config: {cert_file: '', key_file: server.key}",
            "tls_server_config.cert_file: is missing",
        ),
        (
            "tls_server_config: {cert: '', key_file: server.key}",
            "tls_server_config.cert_file: is missing",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: ''}",
            "tls_server_config.key_file: is missing",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key: ''}",
            "tls_server_config.key_file: is missing",
        ),
        (
            "tls_server_config: {cert_file: '', key_file: '', client_auth_type: x}",
            "tls_server_config.cert_file: is missing",
        ),
        (
            "tls_server_config: {client_ca_file: server.crt}",
            "tls_server_config.cert_file: is missing",
        ),
        (
            "tls_server_config: {cert_file: somefile, key_file: server.key}",
            "tls_server_config.cert_file: /",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: somefile}",
            "/somefile: is not there",
        ),
        (
            "tls_server_config: {cert_file: nothing, key_file: server.key}",
            "holds no certificate in PEM",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: nothing}",
            "holds no private key in PEM",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: other.key}",
            "is not the key of the certificate",
        ),
    ]);
}

#[test]
fn what_tls_can_not_do_is_refused() {
    each_is_refused(&[
        (
            "tls_server_config: {TLS, client_auth_type: x}",
            "tls_server_config.client_auth_type: \"x\" is not known",
        ),
        (
            "tls_server_config: {TLS, client_ca_file: /dev/null}",
            "tls_server_config.client_ca_file: has no effect",
        ),
        (
            "tls_server_config: {TLS, client_ca: x, client_auth_type: NoClientCert}",
            "tls_server_config.client_ca: has no effect",
        ),
        (
            "tls_server_config: {TLS, client_ca_file: none, client_auth_type: RequireAndVerifyClientCert}",
            "/none: is not there",
        ),
        (
            "tls_server_config: {TLS, client_ca_file: nothing, client_auth_type: RequireAndVerifyClientCert}",
            "holds no certificate",
        ),
        (
            "tls_server_config: {TLS, cipher_suites: [TLS_AES_128_GCM_SHA2048]}",
            "tls_server_config.cipher_suites[0]: ",
        ),
        (
            "tls_server_config: {TLS, curve_preferences: [CurveP257]}",
            "tls_server_config.curve_preferences[0]: ",
        ),
        (
            "tls_server_config: {TLS, min_version: TLS111}",
            "tls_server_config.min_version: \"TLS111\" is not known; write TLS12 or TLS13",
        ),
        (
            "tls_server_config: {TLS, min_version: TLS13, max_version: TLS12}",
            "tls_server_config.min_version: is above max_version",
        ),
        (
            "tls_server_config: {TLS, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384], max_version: TLS12}",
            "tls_server_config.cipher_suites: HTTP/2 needs",
        ),
    ]);
}

#[test]
fn what_rustls_can_not_do_is_refused_with_what_can_be_written_instead() {
    let folder = folder();
    for (text, told) in [
        (
            "min_version: TLS10",
            "min_version: TLS10 is not offered; write TLS12 or TLS13",
        ),
        (
            "max_version: TLS11",
            "max_version: TLS11 is not offered; write TLS12 or TLS13",
        ),
        (
            "curve_preferences: [X25519, CurveP521]",
            "curve_preferences[1]: \"CurveP521\" is not offered; write X25519",
        ),
        (
            "cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]",
            "cipher_suites[1]: \"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\" is not offered; those that are: TLS_ECDHE_ECDSA",
        ),
        (
            "cipher_suites: [TLS_AES_128_GCM_SHA256], max_version: TLS12",
            "none of them is one of TLS 1.2",
        ),
        (
            "client_allowed_sans: [a]",
            "client_allowed_sans: has no effect while no client is asked",
        ),
    ] {
        let reason = made(folder.path(), &format!("tls_server_config: {{{TLS}, {text}}}"))
            .err()
            .unwrap();
        assert!(reason.starts_with("tls_server_config."), "{reason}");
        assert!(reason.contains(told), "{text}: {reason}");
    }
    let hash = bcrypt::hash("x", 4).unwrap();
    for odd in [
        hash.replacen("$04$", "$19$", 1),
        hash.replacen("$2", "$3", 1),
        hash[..59].to_owned(),
    ] {
        let reason = made(folder.path(), &format!("basic_auth_users: {{a: {odd}}}"))
            .err()
            .unwrap();
        assert!(reason.starts_with("basic_auth_users.a: "), "{reason}");
        assert!(!reason.contains(&odd[10..]), "{reason}");
    }
}

#[test]
fn what_the_toolkit_takes_is_taken() {
    let folder = folder();
    let made = |text: &str| made(folder.path(), &text.replace("TLS,", &format!("{TLS},"))).unwrap();
    for text in ["", "# nothing\n", "---\n", "{}"] {
        let rules = made(text);
        assert!(
            rules.tls.is_none() && !rules.have_users() && rules.headers().is_empty(),
            "{text}"
        );
    }
    for text in [
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
        "tls_server_config: {min_version: TLS12, prefer_server_cipher_suites: true}",
        "tls_server_config: {client_auth_type: ''}",
    ] {
        assert!(made(text).tls.is_none(), "{text}");
    }
    for text in [
        "tls_server_config: {TLS, client_auth_type: VerifyClientCertIfGiven}",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert}",
        "tls_server_config: {TLS, client_auth_type: RequireAnyClientCert}",
        "tls_server_config: {TLS, client_auth_type: RequireClientCert}",
        "tls_server_config: {TLS, client_auth_type: RequestClientCert}",
        "tls_server_config: {TLS, client_auth_type: RequireAndVerifyClientCert, client_ca_file: server.crt, client_allowed_sans: [bad]}",
        "tls_server_config: {TLS, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384], prefer_server_cipher_suites: false, min_version: TLS12, max_version: TLS12}",
        "tls_server_config: {TLS, cipher_suites: [TLS_CHACHA20_POLY1305_SHA256], min_version: TLS13}",
        "tls_server_config: {TLS, curve_preferences: [CurveP256, CurveP384, X25519]}",
        "tls_server_config: {TLS, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384], max_version: TLS12}\nhttp_server_config: {http2: false}",
    ] {
        assert!(made(text).tls.is_some(), "{text}");
    }
    let hardened = made(
        "http_server_config:\n  http2: no\n  headers: {X-Frame-Options: deny, X-XSS-Protection: 1, Strict-Transport-Security: ''}",
    );
    let headers: Vec<_> = hardened
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(headers, [("x-frame-options", "deny"), ("x-xss-protection", "1")]);

    for (text, rate) in [
        ("rate_limit: {interval: 0, burst: 0}", None),
        ("rate_limit: {interval: 0s, burst: 3}", None),
        ("rate_limit: {interval: 1s, burst: 0}", Some((1_000, 0))),
        ("rate_limit: {interval: 1m0.5s, burst: 20}", Some((60_500, 20))),
        ("rate_limit: {interval: 250ms, burst: 1}", Some((250, 1))),
    ] {
        let found = made(text).file.rate.map(|rate| (rate.interval.as_millis(), rate.burst));
        assert_eq!(found, rate, "{text}");
    }
}

#[test]
fn the_sample_of_the_toolkit_is_understood() {
    // Its web-config.yml, without comments.
    let sample = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n\
        basic_auth_users:\n  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n  \
        bob: $2y$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m\n\
        rate_limit:\n  interval: \"1s\"\n  burst: 20\n";
    let rules = made(folder().path(), sample).unwrap();
    assert!(rules.tls.is_some());
    assert_eq!(rules.file.users.keys().collect::<Vec<_>>(), ["alice", "bob"]);
    let (interval, burst) = (Duration::from_secs(1), 20);
    assert!(rules.file.rate == Some(file::Rate { interval, burst }));
}

#[test]
fn a_file_that_is_refused_does_not_print_its_secrets() {
    let folder = folder();
    for text in [
        "tls_server_config: s3cret-value",
        "tls_server_config: {key: [s3cret-value]}",
        "basic_auth_users: s3cret-value",
        "basic_auth_users: {alice: {s3cret-value: x}}",
        "basic_auth_users:\n  alice: $2y$10$s3cret-value\n bob",
        "tls_server_config:\n  key: |\n    -----BEGIN PRIVATE KEY-----\n   s3cret-value\n  cert",
        "http_server_config: {http2: s3cret-value}",
        "rate_limit: {burst: s3cret-value}",
        "basic_auth_users: {alice: s3cret-value, alice: s3cret-value}",
        "\"s3cret-value",
        "tls_server_config: {cert: s3cret-value, key: s3cret-value}",
        "tls_server_config: {cert_file: server.crt, key: s3cret-value}",
    ] {
        let reason = made(folder.path(), text).err().unwrap();
        assert!(!reason.contains("s3cret-value"), "{text}: {reason}");
        assert!(!reason.contains('\n'), "{text}: {reason}");
    }
}

#[test]
fn absolute_paths_are_those_below_the_root() {
    let folder = folder();
    let text = "tls_server_config: {cert_file: /server.crt, key_file: /server.key}";
    let path = folder.path().join("web.yml");
    std::fs::write(&path, text).unwrap();
    for (root, good) in [(folder.path(), true), (Path::new("/"), false)] {
        let Look::Changed(_, outcome) = look(&path, root, None) else {
            panic!()
        };
        assert_eq!(outcome.is_ok(), good);
    }
}

#[test]
fn the_example_of_the_documentation_is_understood() {
    let folder = folder();
    for (name, of) in [
        ("tls.crt", "server.crt"),
        ("tls.key", "server.key"),
        ("ca.crt", "server.crt"),
    ] {
        std::fs::copy(folder.path().join(of), folder.path().join(name)).unwrap();
    }
    let page = include_str!("../../../../docs/web.md");
    let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let rules = made(folder.path(), example).unwrap();
    assert!(rules.verify_clients() && rules.have_users() && rules.file.rate.is_some());
}
