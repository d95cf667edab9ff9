//! The plugins that the bot pretends to have.

use serde_json::{Value, json};

use super::state::Fault;

/// Megabytes and percent of a plugin that is well.
const MEMORY: f64 = 45.0;
const CPU: f64 = 1.2;

/// The plugins, as far as they can be told apart.
#[derive(Clone, Debug)]
pub(super) struct Plugins {
    pub count: usize,
    /// What every plugin uses.
    pub cpu_percent: f64,
    pub memory_mb: f64,
    /// How often the first one crashed.
    pub crashes: u64,
    events: f64,
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            count: 3,
            cpu_percent: CPU,
            memory_mb: MEMORY,
            crashes: 0,
            events: 0.0,
        }
    }
}

impl Plugins {
    /// Back to the first state; what was counted stays counted.
    pub fn recover(&mut self) {
        let (crashes, events) = (self.crashes, self.events);
        *self = Self {
            crashes,
            events,
            ..Self::default()
        };
    }

    /// Lets time pass.
    pub fn tick(&mut self, seconds: f64) {
        self.events += seconds * 0.5;
    }

    /// The plugins' document. While a plugin has crashed, the first one does not run.
    pub fn document(&self, fault: Fault, uptime: u64) -> Value {
        let crashed = usize::from(fault == Fault::PluginCrashed);
        let list: Vec<_> = (0..self.count)
            .map(|number| {
                let first = number == 0;
                json!({
                    "name": name(number),
                    "version": "1.0",
                    "pid": 12_000 + number,
                    "state": if first && crashed > 0 { "CRASHED" } else { "RUNNING" },
                    "uptime_seconds": uptime,
                    "cpu_percent": self.cpu_percent,
                    "memory_mb": self.memory_mb,
                    "event_count": self.events.floor(),
                    "crash_count": if first { self.crashes } else { 0 },
                })
            })
            .collect();
        json!({
            "timestamp": "2025-12-01T10:30:00Z",
            "plugins": list,
            "system": {
                "bot_uptime_seconds": uptime,
                "bot_uptime_human": format!("{}h", uptime / 3600),
                "total_plugins": self.count,
                "plugins_running": self.count.saturating_sub(crashed),
                "plugins_crashed": crashed,
                "total_events": self.events.floor(),
            },
        })
    }
}

fn name(number: usize) -> String {
    match number {
        0 => "dice-roller".to_owned(),
        1 => "quotes".to_owned(),
        2 => "playlist".to_owned(),
        other => format!("plugin-{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_the_first_plugins_own() {
        let plugins = Plugins {
            crashes: 2,
            ..Plugins::default()
        };
        let document = plugins.document(Fault::PluginCrashed, 7200);
        assert_eq!(document["plugins"][0]["state"], "CRASHED");
        assert_eq!(document["plugins"][0]["crash_count"], 2);
        assert_eq!(document["plugins"][1]["state"], "RUNNING");
        assert_eq!(document["system"]["plugins_running"], 2);
        assert_eq!(document["system"]["bot_uptime_seconds"], 7200);
    }
}
