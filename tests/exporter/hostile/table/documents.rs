//! Documents in JSON, or not.

use super::super::bot::{Bot, answer, ok};
use super::Shows::{Absent, Down, Dropped, Series, Value};
use super::{RUNNING, Row};

/// What is wrong with the health document.
pub fn health() -> Vec<Row> {
    let with = |fields: &str| ok(format!("{{\"status\": \"running\", {fields}}}"));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        (
            "deep JSON beside what is known",
            with(&format!("\"x\": {}, \"uptime\": 5", nested(20_000))),
            vec![Value("rosey_bot_up", 1.0), Value("rosey_bot_uptime_seconds", 5.0)],
        ),
        (
            "deep JSON instead of a number",
            with(&format!("\"uptime\": {}", nested(20_000))),
            vec![
                Value("rosey_bot_up", 1.0),
                Absent("rosey_bot_uptime"),
                Dropped("invalid", 1.0),
            ],
        ),
        (
            "deep JSON instead of a document",
            ok(nested(20_000)),
            vec![Down("is not a JSON object")],
        ),
        (
            "deep JSON that does not end",
            ok("[".repeat(60_000)),
            vec![Down("is not JSON")],
        ),
        (
            "very many small values",
            with(&format!("\"x\": [{}0]", "[0],".repeat(15_000))),
            vec![Value("rosey_bot_up", 1.0)],
        ),
        (
            "values that are no numbers",
            with("\"uptime\": NaN, \"memory_mb\": -Infinity, \"user_count\": 3"),
            vec![
                Absent("rosey_bot_uptime"),
                Absent("rosey_bot_memory"),
                Value("rosey_bot_user_count", 3.0),
            ],
        ),
        (
            "a number beyond all bounds",
            with("\"uptime\": 1e400, \"user_count\": 3"),
            vec![
                Absent("rosey_bot_uptime"),
                Value("rosey_bot_user_count", 3.0),
                Dropped("invalid", 1.0),
            ],
        ),
        (
            "counters below zero",
            with("\"requests\": -1, \"errors\": -5"),
            vec![
                Absent("rosey_bot_requests"),
                Absent("rosey_bot_errors"),
                Absent("rosey_bot_error_rate"),
                Dropped("invalid", 2.0),
            ],
        ),
        (
            "counters that start anew",
            Bot::SaysInTurn(
                ["100", "2"]
                    .map(|n| answer("200 OK", "", format!("{{\"status\": \"ok\", \"requests\": {n}}}")))
                    .into(),
            ),
            vec![Value("rosey_bot_requests_total", 2.0)],
        ),
        (
            "wrong types everywhere",
            ok(
                r#"{"status": "ok", "connected": "yes", "uptime": "1", "memory_mb": [], "user_count": {}, "channel": 5, "version": false}"#,
            ),
            vec![
                Value("rosey_bot_up", 1.0),
                Absent("rosey_bot_connected"),
                Absent("rosey_bot_info"),
                Dropped("invalid", 6.0),
            ],
        ),
    ]
}

/// What is wrong with its status, its form as a whole, and its texts.
pub fn texts() -> Vec<Row> {
    let with = |fields: &str| ok(format!("{{\"status\": \"running\", {fields}}}"));
    vec![
        (
            "a status that is no text",
            ok(r#"{"status": true, "user_count": 3}"#),
            vec![Down("that is a text"), Value("rosey_bot_user_count", 3.0)],
        ),
        (
            "nothing but null",
            ok(r#"{"status": null, "uptime": null}"#),
            vec![Down("that is a text"), Absent("rosey_bot_uptime")],
        ),
        (
            "a field twice",
            with("\"user_count\": 1, \"user_count\": 2"),
            vec![Value("rosey_bot_user_count", 2.0)],
        ),
        (
            "bytes that are no text",
            ok(b"{\"status\": \"running\", \"channel\": \"\xff\xfe\"}".to_vec()),
            vec![Down("is not JSON")],
        ),
        (
            "something after the end",
            ok(format!("{RUNNING}{RUNNING}")),
            vec![Down("is not JSON")],
        ),
        ("an empty body", ok(""), vec![Down("is not JSON")]),
        (
            "a label that would end the line",
            with(r#""channel": "x\"} 1\nrosey_bot_up 0\n#", "user_count": 3"#),
            vec![
                Value("rosey_bot_up", 1.0),
                Value(r#"rosey_bot_channel_users{channel="x\"} 1\nrosey_bot_up 0\n#"}"#, 3.0),
            ],
        ),
        (
            "a label with a zero in it",
            with(r#""channel": "a\u0000b""#),
            vec![Absent("rosey_bot_info"), Dropped("invalid", 1.0)],
        ),
        (
            "a label of ten kilobytes",
            with(&format!("\"version\": \"{}\"", "v".repeat(10_000))),
            vec![Absent("rosey_bot_info"), Dropped("too_long", 1.0)],
        ),
        (
            "another channel each time",
            Bot::SaysInTurn(
                (0..25)
                    .map(|n| answer("200 OK", "", format!("{{\"status\": \"ok\", \"channel\": \"c{n}\"}}")))
                    .collect(),
            ),
            vec![Absent("rosey_bot_info"), Dropped("too_many_values", 1.0)],
        ),
    ]
}

/// What is wrong with the plugins' document.
pub fn plugins() -> Vec<Row> {
    let list = |plugins: &str| ok(format!("{{\"plugins\": [{plugins}]}}"));
    let many = |number: u32| {
        (0..number)
            .map(|n| format!("{{\"name\": \"p{n}\", \"state\": \"running\"}}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    vec![
        (
            "very many plugins",
            list(&many(2_000)),
            vec![
                Series("rosey_plugin_running{", 256.0),
                Value("rosey_total_plugins", 2_000.0),
                Dropped("too_many_values", 1_744.0),
            ],
        ),
        (
            "more plugins than can be read",
            list(&many(20_000)),
            vec![Down("more than 262144 bytes"), Absent("rosey_plugin_")],
        ),
        (
            "two plugins of one name",
            list(r#"{"name": "a", "crash_count": 1}, {"name": "a", "crash_count": 2}"#),
            vec![
                Value("rosey_plugin_crashes_total{plugin=\"a\"}", 1.0),
                Dropped("duplicate", 1.0),
            ],
        ),
        (
            "plugins that are none",
            list(r#"1, null, [], "a", {}, {"name": 5}, {"name": ""}, {"name": "b", "state": "RUNNING"}"#),
            vec![
                Value("rosey_plugin_running{plugin=\"b\"}", 1.0),
                Value("rosey_total_plugins", 8.0),
                Dropped("invalid", 7.0),
            ],
        ),
        (
            "fields that are no numbers",
            list(
                r#"{"name": "a", "cpu_percent": NaN, "memory_mb": 1e400, "event_count": -1, "crash_count": "0", "uptime_seconds": 5}"#,
            ),
            vec![
                Value("rosey_plugin_uptime_seconds{plugin=\"a\"}", 5.0),
                Series("rosey_plugin_", 1.0),
                Dropped("invalid", 3.0),
            ],
        ),
        (
            "a name that would end the line",
            list(r#"{"name": "a\"} 1\nrosey_bot_up 0\n", "crash_count": 1}"#),
            vec![
                Value("rosey_bot_up", 1.0),
                Value(r#"rosey_plugin_crashes_total{plugin="a\"} 1\nrosey_bot_up 0\n"}"#, 1.0),
            ],
        ),
        (
            "a name without an end",
            list(&format!(
                "{{\"name\": \"{}\", \"crash_count\": 1}}",
                "a".repeat(100_000)
            )),
            vec![Absent("rosey_plugin_"), Dropped("too_long", 1.0)],
        ),
        (
            "deep JSON in a plugin",
            list(&format!(
                "{{\"name\": \"a\", \"crash_count\": 1, \"x\": {}{}}}",
                "[".repeat(50_000),
                "]".repeat(50_000)
            )),
            vec![Value("rosey_plugin_crashes_total{plugin=\"a\"}", 1.0)],
        ),
        (
            "an object instead of a list",
            ok(r#"{"plugins": {"a": 1}, "system": {"total_plugins": 3}}"#),
            vec![Down("has no list"), Value("rosey_total_plugins", 3.0)],
        ),
        (
            "a system that is none",
            ok(r#"{"plugins": [], "system": "fine"}"#),
            vec![Value("rosey_total_plugins", 0.0), Dropped("invalid", 1.0)],
        ),
    ]
}
