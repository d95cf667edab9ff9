//! Pages of metrics, or not.

use super::super::bot::{Bot, answer, ok};
use super::Row;
use super::Shows::{Absent, Down, Dropped, Series, Value};

/// What is wrong with the page of metrics.
pub fn pages() -> Vec<Row> {
    vec![
        (
            "our names",
            ok(
                "rosey_bot_up 0\nrosey_bot_user_count 1\nrosey_plugins_running 9\nrosey_backup_count 9\nrosey_exporter_source_up{source=\"disk\"} 0\nrosey_deployment_total 1\na 1\n",
            ),
            vec![
                Value("rosey_bot_up", 1.0),
                Value("a", 1.0),
                Dropped("reserved", 6.0),
                Absent("rosey_deployment"),
            ],
        ),
        (
            "our names as parts of others",
            ok("# TYPE rosey_backup histogram\nrosey_backup_count 9\nrosey_bot_up_sum 1\na 1\n"),
            vec![Dropped("reserved", 2.0), Absent("rosey_bot_up_sum")],
        ),
        (
            "Prometheus's names",
            ok("up 0\nALERTS{alertname=\"BotDown\"} 1\nscrape_duration_seconds 1\na{__name__=\"up\"} 0\na 1\n"),
            vec![
                Absent("up"),
                Absent("ALERTS"),
                Absent("scrape_"),
                Dropped("reserved", 4.0),
            ],
        ),
        (
            "counters that count backwards",
            ok("# TYPE a counter\na -1\n# TYPE h histogram\nh_count -1\nh_sum -1\n"),
            vec![Absent("a "), Value("h_sum", -1.0), Dropped("invalid", 2.0)],
        ),
        (
            "counters that start anew",
            Bot::SaysInTurn(
                ["100", "2"]
                    .map(|n| answer("200 OK", "", format!("# TYPE a counter\na {n}\n")))
                    .into(),
            ),
            vec![Value("a", 2.0)],
        ),
        (
            "values that are no numbers",
            ok("a NaN\nb one\nc 1e400\nd 0x1F\ne 1_000\nf +Inf\n"),
            vec![
                Value("f", f64::INFINITY),
                Series("a", 1.0),
                Absent("c"),
                Dropped("invalid", 4.0),
            ],
        ),
        (
            "one family in many places",
            ok("a{x=\"1\"} 1\nb 1\na{x=\"2\"} 1\n# TYPE a counter\nb{x=\"1\"} 1\n# TYPE a gauge\na{x=\"1\"} 5\n"),
            vec![Series("a{", 2.0), Value("a{x=\"1\"}", 1.0), Dropped("duplicate", 1.0)],
        ),
        (
            "the same series in other words",
            ok("a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\na{y=\"2\",z=\"\",x=\"1\"} 3\n"),
            vec![Value("a{x=\"1\",y=\"2\"}", 1.0), Dropped("duplicate", 2.0)],
        ),
    ]
}

/// What is wrong with single lines, and with what is no page at all.
pub fn lines() -> Vec<Row> {
    let openmetrics = "# TYPE a counter\n# UNIT a seconds\na_total 5.0 1.5 # {id=\"1\"} 1 1.5\na_created 1.7e9\n# TYPE b info\nb_info{v=\"1\"} 1\n# EOF\n";
    vec![
        (
            "broken lines",
            ok(
                "a{x=\"1\" 1\nb{x=1} 1\n1c 1\nd{x=\"\\t\"} 1\ne{x=\"1\",x=\"2\"} 1\n{\"a.b\"} 1\n{\"c\",x=\"1\"} 1\nf 1 2 3\ng 1\n",
            ),
            vec![Value("g", 1.0), Dropped("invalid", 8.0)],
        ),
        (
            "a histogram that is none",
            ok(
                "# TYPE h histogram\nh 1\nh_bucket 1\nh_bucket{le=\"many\"} 1\nh_bucket{le=\"1\"} 5\nh_bucket{le=\"+Inf\"} 3\n# TYPE h_sum gauge\nh_sum NaN\n",
            ),
            vec![Series("h_bucket", 2.0), Dropped("invalid", 3.0)],
        ),
        (
            "bytes that are no text",
            ok(b"a{x=\"\xff\"} 1\n\x00\x01\nb 1\n".to_vec()),
            vec![Value("b", 1.0), Dropped("invalid", 2.0)],
        ),
        (
            "a web page",
            ok("<!doctype html>\n<html><body>Not found</body></html>\n"),
            vec![Down("none of 2 samples")],
        ),
        (
            "protobuf",
            Bot::Says(answer(
                "200 OK",
                "Content-Type: application/vnd.google.protobuf\r\n",
                b"\x1d\n\x01a\x12\x01b\x18\x00\"\x0b\x1a\t\t\0\0\0\0\0\0\xf0?".to_vec(),
            )),
            vec![Down("none of")],
        ),
        ("nothing at all", ok(""), vec![Absent("a"), Dropped("invalid", 0.0)]),
        (
            "OpenMetrics",
            Bot::Says(answer(
                "200 OK",
                "Content-Type: application/openmetrics-text; version=1.0.0\r\n",
                openmetrics,
            )),
            vec![
                Value("a_total", 5.0),
                Value("b_info{v=\"1\"}", 1.0),
                Absent("a_created"),
                Dropped("invalid", 0.0),
            ],
        ),
        (
            "times long gone and to come",
            ok("a 1 1\nb 2 99999999999999\nc 3 -5\nd 4 now\n"),
            vec![
                Value("a", 1.0),
                Value("b", 2.0),
                Value("c", 3.0),
                Dropped("invalid", 1.0),
            ],
        ),
        (
            "ends of lines of Windows, and none at the end",
            ok("# TYPE a counter\r\na 1\r\nb 2"),
            vec![Value("a", 1.0), Value("b", 2.0)],
        ),
        (
            "a label that would end the line",
            ok("a{x=\"\\\"} 1\\nrosey_bot_up 0\\n\"} 5\n"),
            vec![
                Value("rosey_bot_up", 1.0),
                Value("a{x=\"\\\"} 1\\nrosey_bot_up 0\\n\"}", 5.0),
            ],
        ),
        (
            "help that would end the line",
            ok("# HELP a x\\nrosey_bot_up 0\\\n# TYPE a gauge\na 1\n"),
            vec![Value("rosey_bot_up", 1.0), Value("a", 1.0)],
        ),
    ]
}

/// Pages that are too much.
pub fn large() -> Vec<Row> {
    let values = numbered(100_000, &|n| format!("a{{user=\"{n}\"}} 1\n"));
    // In many families, since promtool compares each series of a family with each other.
    let series = numbered(40_000, &|n| {
        format!("a{}{{x=\"{}\",y=\"{}\"}} 1\n", n % 100, n / 2000, n / 100 % 20)
    });
    let families = numbered(20_000, &|n| format!("# TYPE f{n} gauge\nf{n} 1\n"));
    let others = [0, 150].map(|from| {
        answer(
            "200 OK",
            "",
            numbered(200, &|n| format!("a{{user=\"{}\"}} 1\n", n + from)),
        )
    });
    vec![
        (
            "a hundred thousand values of a label",
            ok(values),
            vec![Series("a{", 200.0), Dropped("too_many_values", 99_800.0)],
        ),
        (
            "forty thousand series, and then an error",
            ok(series + "rosey_bot_error_count_total{error_type=\"critical\"} 7\n"),
            vec![
                Series("a", 10_000.0),
                Value("rosey_bot_error_count_total{error_type=\"critical\"}", 7.0),
                Dropped("too_many_series", 30_000.0),
            ],
        ),
        (
            "twenty thousand families",
            ok(families),
            vec![Series("f", 1_000.0), Dropped("too_many_series", 19_000.0)],
        ),
        (
            "other values each time",
            Bot::SaysInTurn(others.into()),
            vec![Series("a{", 50.0), Dropped("too_many_values", 150.0)],
        ),
        (
            "a line without an end",
            ok(format!("a{{x=\"{}\nb 1\n", "x".repeat(3 << 20))),
            vec![Value("b", 1.0), Dropped("too_long", 1.0)],
        ),
        (
            "a name without an end",
            ok(format!("{} 1\nb 1\n", "a".repeat(10_000))),
            vec![Value("b", 1.0), Dropped("too_long", 1.0)],
        ),
        (
            "more labels than anybody reads",
            ok(format!("a{{{}}} 1\nb 1\n", numbered(17, &|n| format!("l{n}=\"1\",")))),
            vec![Value("b", 1.0), Dropped("too_long", 1.0)],
        ),
        (
            "help without an end",
            ok(format!("# HELP a {}\na 1\n", "é".repeat(1 << 20))),
            vec![Value("a", 1.0)],
        ),
    ]
}

/// Pages that are far too much, or go on and on.
pub fn endless() -> Vec<Row> {
    vec![
        (
            "series without an end",
            Bot::GoesOn(
                "HTTP/1.1 200 OK\r\n\r\n".into(),
                numbered(100, &|n| format!("f{n}{{x=\"{n:0>250}\"}} 1\n")).into(),
            ),
            vec![Down("more than 4194304 bytes"), Absent("f")],
        ),
        (
            "a million values of a label",
            ok(numbered(1_000_000, &|n| format!("a{{user=\"{n}\"}} 1\n"))),
            vec![Down("more than 4194304 bytes"), Absent("a")],
        ),
        (
            "a million series",
            ok(numbered(1_000_000, &|n| {
                format!("a{}{{x=\"{}\"}} 1\n", n % 1_000, n / 1_000)
            })),
            vec![Down("more than 4194304 bytes"), Absent("a")],
        ),
        (
            "a hundred thousand times the same",
            ok("a 1\n".repeat(100_000)),
            vec![Series("a", 1.0), Dropped("duplicate", 99_999.0)],
        ),
        (
            "a hundred thousand values of a histogram",
            ok(format!(
                "# TYPE h histogram\n{}h_bucket{{le=\"+Inf\"}} 99999\nh_sum 1\nh_count 99999\n",
                numbered(100_000, &|n| format!("h_bucket{{le=\"{n}\"}} {n}\n"))
            )),
            vec![
                Series("h_bucket{", 200.0),
                Value("h_count", 99_999.0),
                Dropped("too_many_values", 99_801.0),
            ],
        ),
        (
            "a page that comes a byte a second and does not end",
            Bot::Drips(
                b"HTTP/1.1 200 OK\r\n\r\n"
                    .iter()
                    .copied()
                    .chain(b"a 1\n".repeat(60))
                    .collect(),
            ),
            vec![Down("no answer within"), Absent("a")],
        ),
        (
            "a page that comes at once and does not end",
            Bot::GoesOn(b"HTTP/1.1 200 OK\r\n\r\na 1\nb 1\n".into(), vec![]),
            vec![Down("no answer within"), Absent("a"), Absent("b")],
        ),
    ]
}

/// So many lines, each with its number.
fn numbered(number: u32, line: &dyn Fn(u32) -> String) -> String {
    (0..number).map(line).collect()
}
