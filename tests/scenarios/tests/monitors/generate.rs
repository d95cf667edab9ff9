//! Monitors that nobody thought of: one generator keeps to what is allowed, the other puts any text anywhere.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

const ALERTS: [&str; 15] = [
    "BotDown",
    "BotDisconnected",
    "HighResponseTime",
    "HighMemoryUsage",
    "NoUsersInChannel",
    "HighErrorRate",
    "CriticalError",
    "DiskSpaceLow",
    "NoRecentBackup",
    "LowBackupCount",
    "DeploymentFailed",
    "MultipleDeploymentFailures",
    "RollbackOccurred",
    "FrequentRollbacks",
    "NoRecentDeployment",
];
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

/// Leaves out what is null.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(
        fields
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.to_owned(), v))
            .collect::<Map<_, _>>(),
    )
}

fn duration() -> impl Strategy<Value = String> {
    prop_oneof![
        "[1-9][0-9]?s",
        "[1-9][0-9]?m",
        "[1-9]h[1-5]?[0-9]m",
        "[1-9][0-9]?h[0-9]{1,2}m[0-9]{1,2}s"
    ]
}

fn threshold(alert: &str) -> BoxedStrategy<Value> {
    match alert {
        "HighMemoryUsage" | "DiskSpaceLow" => prop_oneof![
            (1i64..1 << 50).prop_map(|n| json!(n)),
            "[1-9][0-9]{0,3}(Ki|Mi|Gi|M|G)".prop_map(|t| json!(t))
        ]
        .boxed(),
        "HighResponseTime" => prop_oneof![
            (0i64..100_000).prop_map(|n| json!(n)),
            "[1-9]{1,3}s".prop_map(|t| json!(t))
        ]
        .boxed(),
        "NoRecentBackup" | "NoRecentDeployment" => prop_oneof![
            (0i64..1 << 40).prop_map(|n| json!(n)),
            duration().prop_map(|t| json!(t))
        ]
        .boxed(),
        "HighErrorRate" => "[0-9]{1,3}\\.[0-9]{1,6}".prop_map(|t| json!(t)).boxed(),
        "BotDown" | "BotDisconnected" | "CriticalError" => Just(Value::Null).boxed(),
        _ => prop_oneof![(0i64..1000).prop_map(|n| json!(n)), "[0-9]{1,4}".prop_map(|t| json!(t))].boxed(),
    }
}

fn level(alert: &'static str, severity: &'static str) -> impl Strategy<Value = Value> {
    (weighted(0.7, threshold(alert)), of(duration())).prop_map(move |(threshold, hold)| {
        object([
            ("severity", json!(severity)),
            ("threshold", threshold.unwrap_or(Value::Null)),
            ("for", json!(hold)),
        ])
    })
}

fn override_of(alert: &'static str) -> impl Strategy<Value = Value> {
    let levels = subsequence(SEVERITIES.to_vec(), 1..=3).prop_flat_map(move |severities| {
        severities
            .into_iter()
            .map(|severity| level(alert, severity))
            .collect::<Vec<_>>()
    });
    prop_oneof![
        Just(json!({ "alert": alert, "enabled": false })),
        levels
            .clone()
            .prop_map(move |levels| json!({ "alert": alert, "levels": levels })),
        levels.prop_map(move |levels| json!({ "alert": alert, "enabled": true, "levels": levels })),
    ]
}

fn channel(n: usize, text: BoxedStrategy<String>) -> BoxedStrategy<Value> {
    let secret = |key: &str| json!({ "name": "rosey-channels", "key": key });
    let name = format!("channel-{n}");
    match n % 4 {
        0 => Just(json!({ "name": name, "discord": { "webhookSecretRef": secret("discord") } })).boxed(),
        1 => (of(text.clone()), of(text), of(":[a-z_]{1,20}:"))
            .prop_map(move |(channel, username, emoji)| {
                let slack = object([
                    ("webhookSecretRef", secret("slack")),
                    ("channel", json!(channel)),
                    ("username", json!(username)),
                    ("iconEmoji", json!(emoji)),
                ]);
                json!({ "name": name, "slack": slack })
            })
            .boxed(),
        2 => (
            vec("[a-z.+%{}]{1,20}@[a-z]{1,10}\\.org", 1..4),
            "[a-z]{1,10}\\.org:[1-9][0-9]{1,3}",
            any::<bool>(),
            of(text),
        )
            .prop_map(move |(to, smarthost, tls, username)| {
                let password = username.as_ref().map_or(Value::Null, |_| secret("smtp"));
                let email = object([
                    ("to", json!(to)),
                    ("from", json!("alerts@example.org")),
                    ("smarthost", json!(smarthost)),
                    ("username", json!(username)),
                    ("passwordSecretRef", password),
                    ("requireTLS", json!(tls)),
                ]);
                json!({ "name": name, "email": email })
            })
            .boxed(),
        _ => Just(json!({ "name": name, "webhook": { "urlSecretRef": secret("ci") } })).boxed(),
    }
}

fn route(n: usize, channels: usize) -> impl Strategy<Value = Value> {
    let channels: Vec<_> = (0..channels).map(|n| format!("channel-{n}")).collect();
    (
        subsequence(SEVERITIES.to_vec(), 0..=3),
        subsequence(ALERTS.to_vec(), 0..=3),
        subsequence(channels.clone(), 1..=channels.len()),
        of("everyone|here|(role|user):[A-Z0-9]{1,12}"),
        (of(duration()), of(duration()), of(duration())),
    )
        .prop_map(
            move |(severities, alerts, channels, mention, (wait, interval, repeat))| {
                object([
                    ("name", json!(format!("route-{n}"))),
                    ("severities", json!(severities)),
                    ("alerts", json!(alerts)),
                    ("channels", json!(channels)),
                    ("mention", json!(mention)),
                    ("groupWait", json!(wait)),
                    ("groupInterval", json!(interval)),
                    ("repeatInterval", json!(repeat)),
                ])
            },
        )
}

fn notifications(text: BoxedStrategy<String>) -> impl Strategy<Value = Value> {
    (1..6usize, 1..4usize).prop_flat_map(move |(channels, routes)| {
        (
            (0..channels).map(|n| channel(n, text.clone())).collect::<Vec<_>>(),
            (0..routes).map(|n| route(n, channels)).collect::<Vec<_>>(),
            subsequence(
                vec![
                    "alertname",
                    "environment",
                    "severity",
                    "namespace",
                    "rosey_monitor",
                    "pod",
                ],
                1..=6,
            ),
            any::<(bool, bool)>(),
            (of(duration()), of(duration()), of(duration())),
            subsequence(ALERTS[1..].to_vec(), 1..=3),
        )
            .prop_map(
                |(channels, routes, group_by, (resolved, inherit), (wait, interval, repeat), silenced)| {
                    object([
                        ("channels", json!(channels)),
                        ("routes", json!(routes)),
                        ("groupBy", json!(group_by)),
                        ("sendResolved", json!(resolved)),
                        ("inheritInhibitions", json!(inherit)),
                        ("groupWait", json!(wait)),
                        ("groupInterval", json!(interval)),
                        ("repeatInterval", json!(repeat)),
                        ("inhibit", json!([{ "source": "BotDown", "targets": silenced }])),
                    ])
                },
            )
    })
}

fn exporter(text: BoxedStrategy<String>) -> impl Strategy<Value = Value> {
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
    )
        .prop_map(|(image, port, resources, folder, pattern)| {
            object([
                ("image", json!(image)),
                ("port", json!(port)),
                ("repair", json!(if port % 2 == 0 { "Restart" } else { "Never" })),
                ("resources", json!(resources)),
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

/// A monitor's spec in which `text` fills every field that takes words of the user's own.
fn spec(text: BoxedStrategy<String>) -> impl Strategy<Value = Value> {
    let overrides = subsequence(ALERTS.to_vec(), 0..5).prop_flat_map(|alerts| {
        alerts
            .into_iter()
            .map(|alert| override_of(alert).boxed())
            .collect::<Vec<_>>()
    });
    let alerts = (
        subsequence(vec!["Bot", "Storage", "Deployments"], 1..=3),
        of("[1-9]s|[1-9][0-9]s|1m|2m"),
        overrides,
        of("https://runbooks\\.example\\.org/[a-z{}\\$%'\"<>`]{0,20}\\{alert\\}"),
    )
        .prop_map(|(packs, interval, overrides, runbook)| {
            object([
                ("packs", json!(packs)),
                ("interval", json!(interval)),
                ("overrides", json!(overrides)),
                ("runbookURL", json!(runbook)),
            ])
        });
    let bot = (
        of((1..10_000i32, "/[a-z]{0,10}", "[1-9]s|[1-5][0-9]s|1m")),
        of((1..10_000i32, "/[a-z$&'()*+,;=:@%/-]{0,10}")),
    )
        .prop_map(|(health, metrics)| {
            let health = health.map(|(port, path, timeout)| json!({ "port": port, "path": path, "timeout": timeout }));
            let metrics = metrics.map(|(port, path)| json!({ "port": port, "path": path }));
            object([("health", json!(health)), ("metrics", json!(metrics))])
        });
    let selector = prop_oneof![
        "[a-z]{1,10}".prop_map(|app| json!({ "matchLabels": { "app": app } })),
        "[a-z]{1,10}".prop_map(|app| json!({ "matchLabels": { "app": app }, "matchExpressions": [{ "key": "tier", "operator": "NotIn", "values": ["web"] }] })),
        Just(json!({ "matchExpressions": [{ "key": "example.org/bot", "operator": "Exists" }] })),
    ];
    let environment = prop_oneof![
        select(vec!["prod", "test", "production"]).prop_map(str::to_owned),
        "[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,20}[a-zA-Z0-9])?"
    ];
    (
        environment,
        selector,
        of(prop::bool::weighted(0.1)),
        of("[a-zA-Z0-9]{0,20}"),
        of(bot),
        of(exporter(text.clone())),
        of((1..120u32, 1..120u32)),
        of(alerts),
        weighted(0.8, notifications(text)),
    )
        .prop_map(
            |(environment, selector, paused, label, bot, exporter, scrape, alerts, notifications)| {
                let scrape = scrape
                    .map(|(a, b)| json!({ "interval": format!("{}s", a.max(b)), "timeout": format!("{}s", a.min(b)) }));
                object([
                    ("environment", json!(environment)),
                    ("selector", selector),
                    ("paused", json!(paused)),
                    (
                        "objectLabels",
                        label.map_or(Value::Null, |label| json!({ "release": label })),
                    ),
                    ("bot", json!(bot)),
                    ("exporter", json!(exporter)),
                    ("scrape", json!(scrape)),
                    ("alerts", json!(alerts)),
                    ("notifications", json!(notifications)),
                ])
            },
        )
}

/// Specs that keep to what is allowed.
pub fn valid() -> BoxedStrategy<Value> {
    spec("[a-zA-Z0-9 _.*?-]{1,30}".boxed()).boxed()
}

/// Specs with any text where users may write their own words, and now and then one anywhere else.
pub fn arbitrary() -> BoxedStrategy<Value> {
    let text = prop_oneof![
        "\\PC{1,30}",
        any::<String>(),
        "[{}$\"'`\\\\<>@!#%&|]{1,30}",
        "\\{\\{ *(query|template|printf)? *\"?[a-z]*\"? *\\}\\}"
    ];
    let anywhere = (any::<prop::sample::Index>(), text.clone().prop_map(|text| json!(text)));
    (spec(text.clone().boxed()), weighted(0.15, anywhere))
        .prop_map(|(mut spec, anywhere)| {
            if let Some((index, value)) = anywhere {
                let mut leaves = Vec::new();
                pointers(&spec, &mut String::new(), &mut leaves);
                if let Some(leaf) = spec.pointer_mut(&leaves[index.index(leaves.len())]) {
                    *leaf = value;
                }
            }
            spec
        })
        .boxed()
}

/// The paths of all leaves, list indices included.
pub fn pointers(value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    let mut visit = |key: &str, value: &Value, path: &mut String| {
        path.push('/');
        path.push_str(&key.replace('~', "~0").replace('/', "~1"));
        pointers(value, path, found);
        path.truncate(length);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| visit(key, value, path)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(n, value)| visit(&n.to_string(), value, path)),
        _ => found.push(path.clone()),
    }
}
