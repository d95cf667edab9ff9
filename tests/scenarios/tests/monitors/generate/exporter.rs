//! Where a bot answers, the sidecar that reads it, and how that is scraped.

use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::object;
use crate::TLS;

pub fn bot() -> impl Strategy<Value = Value> {
    (
        of((1..10_000i32, "/[a-z]{0,10}", "[1-9]s|[1-5][0-9]s|1m")),
        of((1..10_000i32, "/[a-z$&'()*+,;=:@%/-]{0,10}")),
        of((1..9_000i32, of("/[a-z/]{0,10}"))),
        of("([a-z]{1,8}/){0,2}[a-z-]{1,10}\\.log"),
    )
        .prop_map(|(health, metrics, plugins, log)| {
            let health = health.map(|(port, path, timeout)| json!({ "port": port, "path": path, "timeout": timeout }));
            let metrics = metrics.map(|(port, path)| json!({ "port": port, "path": path }));
            let plugins = plugins.map(|(port, path)| object([("port", json!(port)), ("path", json!(path))]));
            let logs = log.map(|path| json!({ "volume": "logs", "path": path }));
            object([
                ("health", json!(health)),
                ("metrics", json!(metrics)),
                ("plugins", json!(plugins)),
                ("logs", json!(logs)),
            ])
        })
}

pub fn exporter(text: BoxedStrategy<String>) -> impl Strategy<Value = Value> {
    let resources = prop_oneof![
        Just(json!({ "limits": { "memory": "64Mi" } })),
        ("[1-9][0-9]m", "[1-9][0-9]Mi").prop_map(
            |(cpu, memory)| json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "memory": "128Mi" } })
        ),
    ];
    (
        of("rosey-monitor/[a-z]{1,10}:[0-9]\\.[0-9]"),
        20_000..60_000,
        of(resources),
        of("[a-z]{1,10}(/[a-z]{1,5})?"),
        of(text),
        of(of("[a-z]{1,8}\\.ya?ml")),
        of(pushgateway()),
    )
        .prop_map(|(image, port, resources, folder, pattern, web, pushgateway)| {
            object([
                ("image", json!(image)),
                ("port", json!(port)),
                ("repair", json!(if port % 2 == 0 { "Restart" } else { "Never" })),
                ("resources", json!(resources)),
                (
                    "webConfigSecretRef",
                    web.map_or(Value::Null, |key| object([("name", json!("web")), ("key", json!(key))])),
                ),
                ("pushgateway", json!(pushgateway)),
                (
                    "disk",
                    json!([{ "volume": "data" }, object([("volume", json!("logs")), ("path", json!(folder))])]),
                ),
                (
                    "backups",
                    object([
                        ("volume", json!("backups")),
                        ("path", json!(folder)),
                        ("pattern", json!(pattern)),
                    ]),
                ),
            ])
        })
}

fn pushgateway() -> impl Strategy<Value = Value> {
    (
        "https?://[a-z]{1,10}(\\.[a-z]{2,5})?(:[1-9][0-9]{1,3})?(/[a-z]{1,5})?",
        of("[1-9]s|[1-5][0-9]s|[1-4]m"),
        of("[a-zA-Z0-9@._-]{1,20}"),
    )
        .prop_map(|(url, interval, username)| {
            let auth = username.map(
                |username| json!({ "username": username, "passwordSecretRef": { "name": "push", "key": "password" } }),
            );
            object([
                ("url", json!(url)),
                ("interval", json!(interval)),
                ("basicAuth", json!(auth)),
            ])
        })
}

/// References that prometheus-operator finds: it refuses a `PodMonitor` with any other.
pub fn scrape() -> impl Strategy<Value = Value> {
    let of_tls = |key: &str| json!({ "name": TLS, "key": key });
    let either = move |key: &'static str| {
        let from = select(vec!["secret", "configMap"]);
        from.prop_map(move |from| json!({ from: of_tls(key) }))
    };
    let versions = select(vec![
        (None, None),
        (Some("TLS12"), None),
        (None, Some("TLS13")),
        (Some("TLS12"), Some("TLS12")),
        (Some("TLS12"), Some("TLS13")),
    ]);
    let tls = (
        of(either("ca.crt")),
        of(either("tls.crt")),
        of("[a-z]{1,10}(\\.[a-z]{2,5})?"),
        of(any::<bool>()),
        versions,
    )
        .prop_map(move |(ca, cert, name, insecure, (least, most))| {
            object([
                ("ca", json!(ca)),
                ("keySecret", cert.as_ref().map_or(Value::Null, |_| of_tls("tls.key"))),
                ("cert", json!(cert)),
                ("serverName", json!(name)),
                ("insecureSkipVerify", json!(insecure)),
                ("minVersion", json!(least)),
                ("maxVersion", json!(most)),
            ])
        });
    let spoken = prop_oneof![
        Just((Value::Null, None)),
        Just((json!("http"), None)),
        of(tls).prop_map(|tls| (json!("https"), tls)),
    ];
    (1..120u32, 1..120u32, spoken, any::<bool>()).prop_map(move |(a, b, (scheme, tls), auth)| {
        let auth = auth.then(|| json!({ "username": of_tls("username"), "password": of_tls("password") }));
        object([
            ("interval", json!(format!("{}s", a.max(b)))),
            ("timeout", json!(format!("{}s", a.min(b)))),
            ("scheme", scheme),
            ("tlsConfig", json!(tls)),
            ("basicAuth", json!(auth)),
        ])
    })
}
