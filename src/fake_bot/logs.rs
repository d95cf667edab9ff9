//! The bot's log: JSON lines at a rate, and rotations on demand. It counts what it wrote, so that who reads it can be judged.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long the writer stays at a file that was renamed, until it goes over to the next one.
const LINGERS: Duration = Duration::from_millis(400);
/// Lines between the copy and the truncation.
const BETWEEN: u64 = 3;
/// Rotated files that are kept.
const KEPT: u32 = 50;
/// Lines that are written at once at most; what is more of them waits.
const BURST: f64 = 20_000.0;

/// Ways to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rotation {
    /// The file is renamed; the next one appears when the writer goes over to it, a moment later.
    Rename,
    /// The file is renamed and an empty one created; the writer goes over to it a moment later.
    Create,
    /// Three times at once: two files come and go before anybody looks.
    Rapid,
    /// The file is copied, a few lines are written, and it is emptied.
    CopyTruncate,
    /// The file is removed and created anew.
    Delete,
}

/// What the control may set of the log.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    lines_per_second: Option<f64>,
    levels: Option<BTreeMap<String, u32>>,
    commands: Option<Vec<String>>,
    garbage_per_mille: Option<u32>,
    long_per_mille: Option<u32>,
}

/// A log that grows.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// When the writer leaves a file that was renamed.
    leaves: Option<Instant>,
    lines_per_second: f64,
    /// How many lines of each level there are among all of them.
    levels: BTreeMap<String, u32>,
    commands: Vec<String>,
    garbage_per_mille: u32,
    long_per_mille: u32,
    due: f64,
    ticked: Instant,
    number: u64,
    counts: Counts,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    /// All lines.
    lines: u64,
    /// By level, those that are JSON.
    levels: BTreeMap<String, u64>,
    /// Executions that succeeded and failed, by command.
    commands: BTreeMap<String, [u64; 2]>,
    garbage: u64,
    too_long: u64,
    between_copy_and_truncation: u64,
    rotations: BTreeMap<Rotation, u64>,
}

impl Log {
    /// Opens the file, and writes nothing until the control says so.
    pub fn open(path: &Path, now: Instant) -> std::io::Result<Self> {
        Ok(Self {
            file: append(path)?,
            path: path.to_owned(),
            leaves: None,
            lines_per_second: 0.0,
            levels: [("INFO", 90), ("WARNING", 5), ("ERROR", 4), ("CRITICAL", 1)]
                .map(|(level, share)| (level.to_owned(), share))
                .into(),
            commands: ["play", "skip", "queue", "vote"].map(str::to_owned).into(),
            garbage_per_mille: 0,
            long_per_mille: 0,
            due: 0.0,
            ticked: now,
            number: 0,
            counts: Counts::default(),
        })
    }

    pub fn change(&mut self, change: Change) {
        if let Some(rate) = change.lines_per_second {
            self.lines_per_second = rate.clamp(0.0, 1e6);
            self.due = 0.0;
        }
        if let Some(levels) = change.levels {
            self.levels = levels;
        }
        if let Some(commands) = change.commands {
            self.commands = commands;
        }
        if let Some(share) = change.garbage_per_mille {
            self.garbage_per_mille = share;
        }
        if let Some(share) = change.long_per_mille {
            self.long_per_mille = share;
        }
    }

    /// Writes what is due since the last call.
    pub fn tick(&mut self, now: Instant) -> std::io::Result<()> {
        if self.leaves.is_some_and(|leaves| leaves <= now) {
            self.go_over()?;
        }
        self.due += now.duration_since(self.ticked).as_secs_f64() * self.lines_per_second;
        self.due = self.due.min(BURST);
        self.ticked = now;
        let mut text = Vec::new();
        while self.due >= 1.0 {
            self.due -= 1.0;
            self.line(&mut text);
        }
        self.file.write_all(&text)
    }

    /// The next line; which kind it is depends on its number only.
    fn line(&mut self, text: &mut Vec<u8>) {
        self.number += 1;
        self.counts.lines += 1;
        // A step that has no factor in common with a thousand, so that the kinds are mixed.
        let place = u32::try_from(self.number * 387 % 1000).unwrap_or_default();
        if place < self.garbage_per_mille {
            self.counts.garbage += 1;
            text.extend_from_slice(format!("Traceback (most recent call last): \u{fffd} {}", self.number).as_bytes());
            text.extend_from_slice(b" \xff\n");
            return;
        }
        if place < self.garbage_per_mille + self.long_per_mille {
            self.counts.too_long += 1;
            let message = "x".repeat(100_000);
            text.extend_from_slice(format!("{{\"level\": \"INFO\", \"message\": \"{message}\"}}\n").as_bytes());
            return;
        }
        let level = self.level(place);
        let mut line = json!({
            "timestamp": self.number,
            "level": level,
            "logger": "fake.bot",
            "message": format!("line {}", self.number),
            "request_id": format!("{:08x}", self.number.wrapping_mul(0x9e37_79b9)),
            "user_id": (self.number * 7919 % 100_000).to_string(),
            "guild_id": (self.number % 50).to_string(),
            "additional_context": {"shard": self.number % 4},
        });
        *self.counts.levels.entry(level.clone()).or_default() += 1;
        let chosen = usize::try_from(self.number).unwrap_or_default() % (self.commands.len() * 2).max(1);
        if let Some(command) = self.commands.get(chosen) {
            line["command"] = json!(command);
            line["execution_time_ms"] = json!(self.number * 13 % 4000);
            let failed = matches!(level.as_str(), "ERROR" | "CRITICAL");
            self.counts.commands.entry(command.clone()).or_default()[usize::from(failed)] += 1;
        }
        text.extend_from_slice(line.to_string().as_bytes());
        text.push(b'\n');
    }

    fn level(&self, place: u32) -> String {
        let all: u32 = self.levels.values().sum();
        let mut rest = place % all.max(1);
        for (level, share) in &self.levels {
            if rest < *share {
                return level.clone();
            }
            rest -= share;
        }
        "INFO".into()
    }

    fn write(&mut self, lines: u64) -> std::io::Result<()> {
        let mut text = Vec::new();
        for _ in 0..lines {
            self.line(&mut text);
        }
        self.file.write_all(&text)
    }

    /// Rotates the log. The writer of a file that was renamed before goes over first.
    pub fn rotate(&mut self, rotation: Rotation, now: Instant) -> std::io::Result<()> {
        self.go_over()?;
        *self.counts.rotations.entry(rotation).or_default() += 1;
        match rotation {
            Rotation::Rename => {
                self.shift()?;
                self.leaves = Some(now + LINGERS);
            }
            Rotation::Create => {
                self.shift()?;
                append(&self.path)?;
                self.leaves = Some(now + LINGERS);
            }
            Rotation::Rapid => {
                for _ in 0..3 {
                    self.shift()?;
                    self.file = append(&self.path)?;
                    self.write(1)?;
                }
            }
            Rotation::CopyTruncate => {
                self.make_room()?;
                fs::copy(&self.path, self.rotated(1))?;
                self.write(BETWEEN)?;
                self.counts.between_copy_and_truncation += BETWEEN;
                self.file.set_len(0)?;
            }
            Rotation::Delete => {
                fs::remove_file(&self.path)?;
                self.file = append(&self.path)?;
            }
        }
        Ok(())
    }

    fn go_over(&mut self) -> std::io::Result<()> {
        if self.leaves.take().is_some() {
            self.file = append(&self.path)?;
        }
        Ok(())
    }

    fn shift(&self) -> std::io::Result<()> {
        self.make_room()?;
        fs::rename(&self.path, self.rotated(1))
    }

    fn make_room(&self) -> std::io::Result<()> {
        for number in (1..KEPT).rev() {
            let from = self.rotated(number);
            if from.try_exists()? {
                fs::rename(from, self.rotated(number + 1))?;
            }
        }
        Ok(())
    }

    fn rotated(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// What it wrote so far.
    pub fn describe(&self) -> Value {
        json!({"lines_per_second": self.lines_per_second, "written": self.counts})
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_is_counted_is_in_one_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rosey.log");
        let start = Instant::now();
        let mut log = Log::open(&path, start).unwrap();
        log.change(serde_json::from_value(json!({"lines_per_second": 1000, "garbage_per_mille": 10})).unwrap());
        for (second, rotation) in [Rotation::Rename, Rotation::Create, Rotation::Rapid]
            .into_iter()
            .enumerate()
        {
            let now = start + Duration::from_secs(second as u64 + 1);
            log.tick(now).unwrap();
            log.rotate(rotation, now).unwrap();
            log.tick(now + Duration::from_millis(200)).unwrap();
        }
        let now = start + Duration::from_secs(4);
        log.tick(now).unwrap();
        let mut lines = 0;
        for file in fs::read_dir(folder.path()).unwrap() {
            lines += fs::read(file.unwrap().path())
                .unwrap()
                .split(|byte| *byte == b'\n')
                .count()
                - 1;
        }
        assert_eq!(lines as u64, log.counts.lines);
        assert_eq!(log.counts.garbage, 40);
        let levels: u64 = log.counts.levels.values().sum();
        assert_eq!(levels + log.counts.garbage, log.counts.lines);

        log.rotate(Rotation::CopyTruncate, now).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(log.counts.between_copy_and_truncation, BETWEEN);
    }
}
