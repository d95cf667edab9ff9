//! A model of a bot's log: what is written, what happens to the files, and what can be known of it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use super::*;

/// A folder with a log, its writer, and a follower that can be killed.
pub struct World {
    pub folder: tempfile::TempDir,
    pub tally: Mutex<Tally>,
    pub follower: Follower,
    pub now: Instant,
    /// The writer's own handle, which stays at its file through renames.
    writer: Option<File>,
    /// What the file lacks of the line that was written last.
    pub rest: String,
    number: u64,
    /// Lines that were written whole, since the follower began.
    pub written: u64,
    /// Lines that nobody could have seen.
    pub lost: u64,
    /// What a process that is killed now leaves behind.
    saved: String,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let follower = Follower::new(&folder.path().join("rosey.log"), None);
        let mut world = Self {
            folder,
            tally: Mutex::default(),
            follower,
            now: Instant::now(),
            writer: None,
            rest: String::new(),
            number: 0,
            written: 0,
            lost: 0,
            saved: String::new(),
        };
        world.save();
        world
    }

    pub fn path(&self, rotated: u32) -> PathBuf {
        self.folder.path().join(match rotated {
            0 => "rosey.log".to_owned(),
            number => format!("rosey.log.{number}"),
        })
    }

    pub fn writer(&mut self) -> &mut File {
        let path = self.path(0);
        self.writer
            .get_or_insert_with(|| OpenOptions::new().create(true).append(true).open(path).unwrap())
    }

    pub fn write(&mut self, text: &str) {
        self.writer().write_all(text.as_bytes()).unwrap();
    }

    pub fn line(&mut self) -> String {
        self.number += 1;
        self.written += 1;
        let padding = "x".repeat(usize::try_from(self.number * 37 % 200).unwrap());
        format!(
            "{{\"request_id\": \"{}\", \"level\": \"info\", \"m\": \"{padding}\"}}\n",
            self.number
        )
    }

    pub fn complete(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        self.write(&rest);
    }

    pub fn append(&mut self, lines: u64) {
        self.complete();
        for _ in 0..lines {
            let line = self.line();
            self.write(&line);
        }
    }

    /// A line whose end is written later.
    pub fn append_half(&mut self) {
        self.complete();
        let line = self.line();
        let (half, rest) = line.split_at(line.len() / 2);
        self.write(half);
        self.rest = rest.to_owned();
    }

    pub fn shift(&self) {
        for number in (1..100).rev() {
            let _ = fs::rename(self.path(number), self.path(number + 1));
        }
    }

    pub fn rename(&mut self) {
        self.shift();
        let _ = fs::rename(self.path(0), self.path(1));
    }

    /// The writer goes over to the file at the path.
    pub fn reopen(&mut self) {
        self.complete();
        self.writer = None;
        self.writer();
    }

    pub fn copy_and_truncate(&mut self, between: u64) {
        self.writer();
        self.complete();
        self.shift();
        if fs::copy(self.path(0), self.path(1)).is_err() {
            return;
        }
        self.append(between);
        self.lost += between;
        File::options()
            .write(true)
            .open(self.path(0))
            .unwrap()
            .set_len(0)
            .unwrap();
    }

    pub fn delete(&mut self) {
        // What is in it, and was never seen, goes with it.
        self.settle();
        let _ = fs::remove_file(self.path(0));
    }

    pub fn look(&mut self) -> Look {
        self.now += Duration::from_millis(250);
        let look = self.follower.look(&self.tally, self.now);
        assert_eq!(look.problem, None);
        look
    }

    pub fn settle(&mut self) {
        let looks = (0..1_000).take_while(|_| self.look().more).count();
        assert!(looks < 1_000, "never settles: {:?}", self.follower);
    }

    pub fn save(&mut self) {
        let state = (self.follower.position(), locked(&self.tally).clone());
        self.saved = serde_json::to_string(&state).unwrap();
    }

    /// Another process goes on with what was saved last.
    pub fn restart(&mut self) {
        let (position, tally) = serde_json::from_str(&self.saved).unwrap();
        self.tally = Mutex::new(tally);
        self.follower = Follower::new(&self.path(0), Some(position));
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    pub fn lines(&self) -> u64 {
        locked(&self.tally).lines()
    }

    pub fn invalid(&self) -> u64 {
        locked(&self.tally).unparsed.invalid
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    Append(u64),
    AppendHalf,
    /// The writer stays at the renamed file.
    Rename,
    RenameAndReopen,
    Create,
    Reopen,
    CopyAndTruncate(u64),
    Delete,
    Look,
    Settle,
    Save,
    Restart,
    Wait(u64),
}

/// What is left to count after these steps, and one line more.
pub fn play(steps: Vec<Step>) -> World {
    let mut world = World::new();
    world.writer();
    world.settle();
    world.save();
    for step in steps {
        match step {
            Step::Append(lines) => world.append(lines),
            Step::AppendHalf => world.append_half(),
            Step::Rename => world.rename(),
            Step::RenameAndReopen => {
                world.complete();
                world.rename();
                world.reopen();
            }
            Step::Create => {
                let path = world.path(0);
                OpenOptions::new().create(true).append(true).open(path).unwrap();
            }
            Step::Reopen => world.reopen(),
            Step::CopyAndTruncate(between) => {
                // Where the writer is.
                world.reopen();
                world.copy_and_truncate(between);
            }
            Step::Delete => {
                world.delete();
                world.reopen();
                // A process that is killed now has nothing to find it by.
                world.settle();
                world.save();
            }
            Step::Look => {
                world.look();
            }
            Step::Settle => world.settle(),
            Step::Save => world.save(),
            Step::Restart => world.restart(),
            Step::Wait(seconds) => world.wait(Duration::from_secs(seconds)),
        }
    }
    world.reopen();
    world.append(1);
    world.settle();
    world.wait(QUIET);
    world.settle();
    world
}
