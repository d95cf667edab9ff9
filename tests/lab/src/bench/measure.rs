//! What a process used, and what it says of its own times.

use anyhow::{Context, Result};
use lab::Process;

/// What a process has used so far.
pub struct Usage {
    /// Bytes resident now.
    pub resident: f64,
    /// Bytes resident at most.
    pub peak: f64,
    /// Seconds of CPU, user and system.
    pub cpu: f64,
}

pub fn usage(process: &Process) -> Result<Usage> {
    usage_of(process.id()).with_context(|| format!("what {} has used{}", process.name(), process.log_tail()))
}

/// As [`usage`], by the id of a process.
pub fn usage_of(id: u32) -> Result<Usage> {
    let process = format!("/proc/{id}");
    let status = std::fs::read_to_string(format!("{process}/status"))?;
    let bytes = |field: &str| -> Result<f64> {
        let line = status
            .lines()
            .find(|line| line.starts_with(field))
            .with_context(|| field.to_owned())?;
        let kibibytes: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kibibytes * 1024.0)
    };
    // proc(5): utime and stime are the 14th and 15th fields, in clock ticks of 10 ms; the second field may hold spaces.
    let stat = std::fs::read_to_string(format!("{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(Usage {
        resident: bytes("VmRSS")?,
        peak: bytes("VmHWM")?,
        cpu: ticks / 100.0,
    })
}

/// The own histogram of a webhook's handler, as upper bounds of its buckets.
pub fn handler(metrics: &str, webhook: &str) -> Option<String> {
    let webhook = format!("webhook=\"{webhook}\"");
    let buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter(|line| line.starts_with("rosey_injector_request_duration_seconds_bucket") && line.contains(&webhook))
        .filter_map(|line| {
            let bound = line.split("le=\"").nth(1)?.split('"').next()?;
            Some((
                bound.parse().unwrap_or(f64::INFINITY),
                line.rsplit_once(' ')?.1.parse().ok()?,
            ))
        })
        .collect();
    let total = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
    let below = |share: f64| {
        buckets
            .iter()
            .filter(|(_, count)| *count >= total * share)
            .map(|(bound, _)| *bound)
            .fold(f64::INFINITY, f64::min)
    };
    (total > 0.0).then(|| format!("≤ {:.2} / ≤ {:.2} ms", below(0.5) * 1e3, below(0.99) * 1e3))
}
