//! A real Prometheus, which takes the page of an exporter whatever has happened to it.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::hostile::pages_that_end;
use super::processes::{Exporter, FakeBot, PATIENCE, Process, answers_always, get_bytes, tool};

const FAULTS: [&str; 12] = [
    "none",
    "not-running",
    "disconnected",
    "errors",
    "hanging",
    "error-500",
    "garbage",
    "huge-body",
    "many-series",
    "closed-port",
    "plugin-crashed",
    "no-users",
];

/// How Prometheus may ask. An answer is of a format of ours, whichever it asks for.
const JOBS: [(&str, &str); 4] = [
    ("plain", "enable_compression: false"),
    ("gzip", "enable_compression: true"),
    ("openmetrics", "scrape_protocols: [OpenMetricsText1.0.0]"),
    ("newer-text", "scrape_protocols: [PrometheusText1.0.0]"),
];

/// Exporters in each state that there is, with a word for it.
struct States {
    exporters: Vec<(String, Exporter)>,
    _bots: Vec<FakeBot>,
}

impl States {
    fn start(folder: &Path) -> Self {
        let (mut exporters, mut bots) = (Vec::new(), Vec::new());
        let all = |health: u16, metrics: u16, plugins: u16| {
            format!(
                "health: {{port: {health}, path: /api/health}}\nmetrics: {{port: {metrics}, path: /metrics}}\n\
                 plugins: {{port: {plugins}, path: /api/metrics}}\nenvironment: \"p\\\"r\\\\od\"\n\
                 disk: [{{label: x, path: /}}]\nbackups: {{path: {}}}\ndeployments: true\n",
                folder.display()
            )
        };
        let mut start = |state: &str, config: Option<String>| {
            let file = folder.join(format!("{state}.yaml").replace(' ', "-"));
            if let Some(config) = config {
                std::fs::write(&file, config).unwrap();
            }
            exporters.push((
                state.to_owned(),
                Exporter::start(&["--config", file.to_str().unwrap()], &[]),
            ));
        };
        for fault in FAULTS {
            let bot = FakeBot::start(&[]);
            bot.breaks(fault);
            start(fault, Some(all(bot.port, bot.port, bot.port)));
            bots.push(bot);
        }
        for (state, answer) in pages_that_end() {
            let port = answers_always(answer);
            start(state, Some(all(port, port, port)));
        }
        let mut large = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned();
        for number in 0..12_000 {
            let _ = writeln!(large, "a{}{{b=\"{}\"}} {number}", number % 100, number / 100);
        }
        let port = answers_always(large);
        start("ten thousand series", Some(all(1, port, 1)));
        start("no configuration", None);
        start("a broken configuration", Some("health: nonsense".into()));
        Self { exporters, _bots: bots }
    }

    /// A configuration of Prometheus that scrapes each in every way; the label `state` has its word.
    fn config(&self) -> String {
        let mut config = "global: {scrape_interval: 8s, scrape_timeout: 8s}\nscrape_configs:\n".to_owned();
        for (job, how) in JOBS {
            let _ = write!(config, "- job_name: {job}\n  {how}\n  static_configs:\n");
            for (state, exporter) in &self.exporters {
                let address = &exporter.address;
                let _ = writeln!(config, "  - {{targets: ['{address}'], labels: {{state: \"{state}\"}}}}");
            }
        }
        config
    }
}

#[test]
fn prometheus_takes_the_page_in_every_state_and_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let states = States::start(folder.path());
    let file = folder.path().join("prometheus.yaml");
    std::fs::write(&file, states.config()).unwrap();
    let data = folder.path().join("data");
    let arguments = [
        "--config.file",
        file.to_str().unwrap(),
        "--storage.tsdb.path",
        data.to_str().unwrap(),
        "--web.listen-address=127.0.0.1:0",
    ];
    let prometheus = Process::start(&tool("prometheus"), &arguments, &[]);
    let line = prometheus.line_with("Listening on");
    let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap();
    let get = |path: &str| get_bytes(address, path, "").1;

    // A scrape that is late on a busy machine is made again; a page that is refused stays refused.
    let start = Instant::now();
    loop {
        // Before it is ready it answers in words.
        let answer: serde_json::Value =
            serde_json::from_slice(&get("/api/v1/targets?state=active")).unwrap_or_default();
        let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        let complaints: Vec<_> = targets
            .iter()
            .filter(|target| target["health"] != "up" || target["lastError"] != "")
            .map(|target| format!("{} {} {}", target["labels"], target["health"], target["lastError"]))
            .collect();
        if complaints.is_empty() && targets.len() == JOBS.len() * states.exporters.len() {
            break;
        }
        assert!(start.elapsed() < 3 * PATIENCE, "{}", complaints.join("\n"));
        std::thread::sleep(Duration::from_millis(200));
    }

    // It found no sample twice, and none out of order.
    let own = String::from_utf8(get("/metrics")).unwrap();
    for counter in ["duplicate_timestamp", "out_of_order", "out_of_bounds"] {
        let line = format!("prometheus_target_scrapes_sample_{counter}_total 0");
        assert!(own.lines().any(|other| other == line), "{counter}");
    }
    // What stands on the page has arrived, also from those that were compressed.
    let query = "/api/v1/query?query=count%20by(job)(%7B__name__%3D~%22a%5B0-9%5D%2B%22%2Cstate%3D%22ten%20thousand%20series%22%7D)";
    let answer: serde_json::Value = serde_json::from_slice(&get(query)).unwrap();
    let counts = answer["data"]["result"].as_array().unwrap();
    assert_eq!(counts.len(), JOBS.len(), "{answer}");
    assert!(counts.iter().all(|count| count["value"][1] == "10000"), "{answer}");
}
