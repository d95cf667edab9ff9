//! What a process holds, and whether that grows.

use std::fmt;

use anyhow::{Context, Result};

/// What a process holds at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Resident memory, in KiB.
    pub resident: u64,
    /// That part of it which is its own, in KiB.
    pub anonymous: u64,
    /// Open file descriptors.
    pub files: u64,
    /// Seconds of CPU so far.
    pub cpu: f64,
}

pub fn sample(process: u32) -> Result<Sample> {
    let process = format!("/proc/{process}");
    let status = std::fs::read_to_string(format!("{process}/status")).context("the exporter has ended")?;
    let kibibytes = |field: &str| -> Result<u64> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.with_context(|| field.to_owned())?.parse()?)
    };
    // proc(5): utime and stime are the 14th and 15th fields, in clock ticks of 10 ms; the second field may hold spaces.
    let stat = std::fs::read_to_string(format!("{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(Sample {
        resident: kibibytes("VmRSS")?,
        anonymous: kibibytes("RssAnon")?,
        files: std::fs::read_dir(format!("{process}/fd"))?.count() as u64,
        cpu: ticks / 100.0,
    })
}

/// How something went over time.
pub struct Course {
    unit: &'static str,
    first: u64,
    /// Median of the second quarter of the time.
    middle: u64,
    /// Median of the last quarter.
    end: u64,
    pub most: u64,
}

impl Course {
    fn of(unit: &'static str, values: &[u64]) -> Self {
        let quarter = values.len() / 4;
        let median = |values: &[u64]| {
            let mut sorted = values.to_vec();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied().unwrap_or_default()
        };
        Self {
            unit,
            first: values.first().copied().unwrap_or_default(),
            middle: median(&values[quarter..quarter * 2]),
            end: median(&values[quarter * 3..]),
            most: values.iter().copied().max().unwrap_or_default(),
        }
    }

    /// How much more there is in the last quarter than in the second one.
    pub fn growth(&self) -> i64 {
        self.end.cast_signed() - self.middle.cast_signed()
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            unit,
            first,
            middle,
            end,
            most,
        } = self;
        write!(f, "{first}, {middle}, {end}{unit} (at most {most})")
    }
}

/// All that is watched.
pub struct Series {
    pub resident: Course,
    pub anonymous: Course,
    pub files: Course,
}

impl Series {
    pub fn of(samples: &[Sample]) -> Self {
        let values = |of: fn(&Sample) -> u64| samples.iter().map(of).collect::<Vec<_>>();
        Self {
            resident: Course::of(" KiB", &values(|sample| sample.resident)),
            anonymous: Course::of(" KiB", &values(|sample| sample.anonymous)),
            files: Course::of("", &values(|sample| sample.files)),
        }
    }
}
