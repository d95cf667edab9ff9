//! A bot that says as much as may pass: canned answers, so that it costs little beside the exporter that reads them.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

/// Families of the page, each with as many values of its one label.
const FAMILIES: usize = 50;
const VALUES: usize = 200;
/// Series of the page.
pub const SERIES: usize = FAMILIES * VALUES;
/// Plugins of the document.
pub const PLUGINS: usize = 200;
/// What the names of its families begin with.
pub const PREFIX: &str = "heavy_";

/// Serves `/api/health`, `/metrics` and `/api/metrics` until this process ends.
pub fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen for the heavy bot")?;
    let address = listener.local_addr()?;
    let health = json!({"status": "running", "connected": true, "uptime": 1, "response_time_ms": 120, "memory_mb": 180,
        "user_count": 12, "requests": 1000, "errors": 1});
    let answers = [
        ("GET /api/health ", answer("application/json", &health.to_string())),
        ("GET /metrics ", answer("text/plain; version=0.0.4", &page())),
        ("GET /api/metrics ", answer("application/json", &plugins())),
    ];
    std::thread::Builder::new().name("heavy bot".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever breaks off did not want the answer.
            let _ = converse(stream, &answers);
        }
    })?;
    Ok(address)
}

fn converse(mut stream: TcpStream, answers: &[(&str, Vec<u8>)]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
    let found = answers.iter().find(|(path, _)| request.starts_with(path.as_bytes()));
    let missing = &b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"[..];
    stream.write_all(found.map_or(missing, |(_, answer)| answer))
}

fn answer(kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

fn page() -> String {
    let mut page = String::new();
    for family in 0..FAMILIES {
        let name = format!("{PREFIX}family_{family:02}_total");
        let _ = writeln!(page, "# HELP {name} What users asked for.\n# TYPE {name} counter");
        for user in 0..VALUES {
            let _ = writeln!(page, "{name}{{user=\"user-{user:03}\"}} {}", family * 1000 + user);
        }
    }
    page
}

fn plugins() -> String {
    let plugins: Vec<_> = (0..PLUGINS)
        .map(|number| {
            json!({"name": format!("plugin-{number:03}"), "version": "1.0", "pid": 1000 + number, "state": "RUNNING",
                "uptime_seconds": 3600, "cpu_percent": 1.2, "memory_mb": 45.3, "event_count": 1234, "crash_count": 0})
        })
        .collect();
    json!({"timestamp": "2026-11-21T10:30:00Z", "plugins": plugins, "system": {"bot_uptime_seconds": 86400,
        "bot_uptime_human": "1d 0h", "total_plugins": PLUGINS, "plugins_running": PLUGINS, "plugins_crashed": 0, "total_events": 5000}})
    .to_string()
}
