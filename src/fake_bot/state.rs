//! What the bot pretends to be.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::logs::{self, Rotation};
use super::plugins::Plugins;

/// Which fields the health document has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// status, uptime, `response_time_ms`, `memory_mb`, `user_count`
    S0,
    /// status, connected, channel, uptime, version, `user_count`, requests, errors
    S4,
    /// All of them
    Both,
}

/// Ways to be broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    #[default]
    None,
    NotRunning,
    Disconnected,
    Slow,
    Hanging,
    #[serde(rename = "error-500")]
    Error500,
    Garbage,
    HugeBody,
    ManySeries,
    ClosedPort,
    MemoryHigh,
    NoUsers,
    Errors,
    PluginCrashed,
}

/// What the control may set; what is not given stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    fault: Option<Fault>,
    error_type: Option<String>,
    errors_per_second: Option<f64>,
    delay_ms: Option<u64>,
    status: Option<String>,
    connected: Option<bool>,
    channel: Option<String>,
    version: Option<String>,
    user_count: Option<f64>,
    memory_mb: Option<f64>,
    response_time_ms: Option<f64>,
    requests: Option<f64>,
    errors: Option<f64>,
    /// Not of the state, and taken out by whoever has the log.
    pub log: Option<logs::Change>,
    pub rotate: Option<Rotation>,
    plugins: Option<usize>,
    plugin_cpu_percent: Option<f64>,
    plugin_memory_mb: Option<f64>,
    plugin_crashes: Option<u64>,
}

/// The bot.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub fault: Fault,
    pub delay: Duration,
    /// How often the health document and the metrics were asked for.
    pub health_reads: u64,
    pub metrics_reads: u64,
    pub plugins: Plugins,
    error_type: String,
    errors_per_second: f64,
    values: Values,
    started: Instant,
    ticked: Instant,
    messages: f64,
    commands: BTreeMap<&'static str, f64>,
    errors: BTreeMap<String, f64>,
    random: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Values {
    status: String,
    connected: bool,
    channel: String,
    version: String,
    user_count: f64,
    memory_mb: f64,
    response_time_ms: f64,
    requests: f64,
    errors: f64,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            status: "running".into(),
            connected: true,
            channel: "rosey".into(),
            version: "1.0.0".into(),
            user_count: 12.0,
            memory_mb: 180.0,
            response_time_ms: 120.0,
            requests: 0.0,
            errors: 0.0,
        }
    }
}

/// Where the values tend to while they drift: middle and width.
const USERS: (f64, f64) = (12.0, 6.0);
const MEMORY: (f64, f64) = (180.0, 40.0);
const RESPONSE: (f64, f64) = (120.0, 60.0);

impl State {
    pub fn new(now: Instant) -> Self {
        Self {
            fault: Fault::None,
            delay: Duration::ZERO,
            health_reads: 0,
            metrics_reads: 0,
            plugins: Plugins::default(),
            error_type: "timeout".into(),
            errors_per_second: 2.0,
            values: Values::default(),
            started: now,
            ticked: now,
            messages: 0.0,
            commands: ["play", "skip", "queue", "vote"]
                .into_iter()
                .map(|command| (command, 0.0))
                .collect(),
            errors: ["timeout", "connection", "critical"]
                .into_iter()
                .map(|kind| (kind.to_owned(), 0.0))
                .collect(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub fn change(&mut self, change: Change) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut self.fault, change.fault);
        set(&mut self.error_type, change.error_type);
        set(&mut self.errors_per_second, change.errors_per_second);
        set(&mut self.delay, change.delay_ms.map(Duration::from_millis));
        let values = &mut self.values;
        set(&mut values.status, change.status);
        set(&mut values.connected, change.connected);
        set(&mut values.channel, change.channel);
        set(&mut values.version, change.version);
        set(&mut values.user_count, change.user_count);
        set(&mut values.memory_mb, change.memory_mb);
        set(&mut values.response_time_ms, change.response_time_ms);
        set(&mut values.requests, change.requests);
        set(&mut values.errors, change.errors);
        set(&mut self.plugins.count, change.plugins);
        set(&mut self.plugins.cpu_percent, change.plugin_cpu_percent);
        set(&mut self.plugins.memory_mb, change.plugin_memory_mb);
        set(&mut self.plugins.crashes, change.plugin_crashes);
    }

    /// Back to the first state; what was counted stays counted, as in a bot that goes on.
    pub fn recover(&mut self) {
        self.fault = Fault::None;
        self.delay = Duration::ZERO;
        self.plugins.recover();
        let Values { requests, errors, .. } = self.values;
        self.values = Values {
            requests,
            errors,
            ..Values::default()
        };
    }

    /// Lets the time since the last call pass: traffic, errors, drift.
    pub fn tick(&mut self, now: Instant, drift: bool) {
        let seconds = now.duration_since(self.ticked).as_secs_f64();
        self.ticked = now;
        if self.fault == Fault::NotRunning {
            return;
        }
        self.messages += seconds * 1.5;
        self.plugins.tick(seconds);
        for (count, per_second) in self.commands.values_mut().zip([0.05, 0.02, 0.08, 0.1]) {
            *count += seconds * per_second;
        }
        self.values.requests += seconds * 0.25;
        if self.fault == Fault::Errors {
            let more = seconds * self.errors_per_second;
            *self.errors.entry(self.error_type.clone()).or_default() += more;
            self.values.errors += more;
        }
        if drift {
            let steps = [self.chance(), self.chance(), self.chance()];
            let values = &mut self.values;
            let places = [
                (&mut values.user_count, USERS),
                (&mut values.memory_mb, MEMORY),
                (&mut values.response_time_ms, RESPONSE),
            ];
            for ((value, (middle, width)), step) in places.into_iter().zip(steps) {
                *value += (step * width * 0.5 + (middle - *value) * 0.1) * seconds.min(1.0);
                *value = value.clamp(middle - width, middle + width);
            }
        }
    }

    /// A number between -1 and 1 that is always the same in the same place of a run (xorshift).
    #[expect(clippy::cast_precision_loss, reason = "any 32 bits will do")]
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as f64 / f64::from(u32::MAX) * 2.0 - 1.0
    }

    /// The health document.
    pub fn health(&self, shape: Shape, now: Instant) -> Value {
        let mut values = self.values.clone();
        match self.fault {
            Fault::NotRunning => (values.status, values.connected) = ("stopped".into(), false),
            Fault::Disconnected => values.connected = false,
            Fault::Slow => values.response_time_ms = 3500.0,
            Fault::MemoryHigh => values.memory_mb = 900.0,
            Fault::NoUsers => values.user_count = 0.0,
            _ => {}
        }
        let mut document = json!({
            "status": values.status,
            "uptime": now.duration_since(self.started).as_secs(),
            "user_count": values.user_count.round(),
        });
        if shape != Shape::S4 {
            document["response_time_ms"] = json!(values.response_time_ms.round());
            document["memory_mb"] = json!((values.memory_mb * 10.0).round() / 10.0);
        }
        if shape != Shape::S0 {
            document["connected"] = json!(values.connected);
            document["channel"] = json!(values.channel);
            document["version"] = json!(values.version);
            document["requests"] = json!(values.requests.floor());
            document["errors"] = json!(values.errors.floor());
        }
        document
    }

    /// The plugins' document.
    pub fn plugins(&self, now: Instant) -> Value {
        self.plugins
            .document(self.fault, now.duration_since(self.started).as_secs())
    }

    /// The bot's own counters in Prometheus text.
    pub fn metrics(&self) -> String {
        let mut text = format!(
            "# HELP rosey_bot_message_count_total Messages processed\n# TYPE rosey_bot_message_count_total counter\n\
             rosey_bot_message_count_total {}\n\
             # HELP rosey_bot_command_count_total Commands executed\n# TYPE rosey_bot_command_count_total counter\n",
            self.messages.floor()
        );
        for (command, count) in &self.commands {
            let _ = writeln!(
                text,
                "rosey_bot_command_count_total{{command=\"{command}\"}} {}",
                count.floor()
            );
        }
        text += "# HELP rosey_bot_error_count_total Errors met\n# TYPE rosey_bot_error_count_total counter\n";
        for (kind, count) in &self.errors {
            let kind = kind.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = writeln!(
                text,
                "rosey_bot_error_count_total{{error_type=\"{kind}\"}} {}",
                count.floor()
            );
        }
        if self.fault == Fault::ManySeries {
            text += "# TYPE fake_messages_total counter\n";
            for user in 0..20_000 {
                let _ = writeln!(text, "fake_messages_total{{user=\"{user}\"}} 1");
            }
        }
        text
    }

    /// All of it, for the control.
    pub fn describe(&self, now: Instant) -> Value {
        json!({
            "fault": self.fault,
            "error_type": self.error_type,
            "errors_per_second": self.errors_per_second,
            "delay_ms": self.delay.as_millis(),
            "health": self.health(Shape::Both, now),
            "error_counts": self.errors,
            "health_reads": self.health_reads,
            "metrics_reads": self.metrics_reads,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_has_the_fields_of_its_bots() {
        let now = Instant::now();
        let state = State::new(now);
        let fields = |shape| {
            state
                .health(shape, now)
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            fields(Shape::S0),
            ["memory_mb", "response_time_ms", "status", "uptime", "user_count"]
        );
        assert_eq!(
            fields(Shape::S4),
            [
                "channel",
                "connected",
                "errors",
                "requests",
                "status",
                "uptime",
                "user_count",
                "version"
            ]
        );
        assert_eq!(fields(Shape::Both).len(), 10);
    }

    #[test]
    fn errors_of_the_chosen_type_go_up_while_the_fault_lasts() {
        let start = Instant::now();
        let mut state = State::new(start);
        state.change(serde_json::from_value(json!({"fault": "errors", "error_type": "critical"})).unwrap());
        state.tick(start + Duration::from_secs(5), false);
        assert!(
            state
                .metrics()
                .contains("rosey_bot_error_count_total{error_type=\"critical\"} 10\n")
        );
        assert!(
            state
                .metrics()
                .contains("rosey_bot_error_count_total{error_type=\"timeout\"} 0\n")
        );
        state.recover();
        state.tick(start + Duration::from_secs(10), false);
        assert!(
            state
                .metrics()
                .contains("rosey_bot_error_count_total{error_type=\"critical\"} 10\n")
        );
    }

    #[test]
    fn drifting_values_move_and_stay_realistic() {
        let start = Instant::now();
        let mut state = State::new(start);
        let mut seen = std::collections::BTreeSet::new();
        for second in 1..600 {
            state.tick(start + Duration::from_secs(second), true);
            let health = state.health(Shape::Both, start);
            let memory = health["memory_mb"].as_f64().unwrap();
            assert!((140.0..=220.0).contains(&memory), "{memory}");
            assert!((6.0..=18.0).contains(&health["user_count"].as_f64().unwrap()));
            seen.insert(memory.to_bits());
        }
        assert!(seen.len() > 50, "{}", seen.len());
    }
}
