//! Follows a log through its rotations, by looking again and again: file systems of other hosts tell nobody of a change.
//!
//! A file is known by its numbers for as long as it is open, and by its beginning across copies and restarts. So a file that was
//! renamed is read to its end, a copy goes on where its original was read to, and nothing is read twice.

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::siblings;
use super::tail::{BUFFER, Identity, Mark, Read, Tail, Time, modified};
use super::tally::{Tally, one_more};
use crate::exporter::locked;

/// How long nothing new has to come in a rotated file, while the log goes on in another one, until it is done with: its writer has
/// gone over. Until then, what it still appends is read.
pub(super) const QUIET: Duration = Duration::from_secs(10);
/// Rotated files that are read at a time.
const OPEN: usize = 8;
/// Files that are remembered as read.
const FINISHED: usize = 64;
/// Buffers that are read of one file, until the others have their turn.
const TURN: usize = 16;

/// Reads one log.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    /// The file that was last seen at the path.
    current: Option<Tail>,
    /// Files that were rotated and may still grow.
    rotated: Vec<Tail>,
    /// How far others were read, the last one last.
    finished: VecDeque<Mark>,
    /// A file beside the log that nobody knows is a part of it if it was written to at that time or later.
    since: Time,
    /// Whether the log's first file was found, or found missing.
    begun: bool,
    /// Whether parts of the log may stand beside it that are not known yet.
    unsure: bool,
    /// When a file last came or went beside the log.
    folder: Option<Time>,
    buffer: Box<[u8]>,
}

/// Where the reading of a log stands: what is saved.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    marks: Vec<Mark>,
    since: Time,
}

/// What one look came to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Look {
    /// Something was counted or found, and there may be more at once.
    pub more: bool,
    /// Bytes that are known and not counted.
    pub unread: u64,
    /// No file is at the path.
    pub missing: bool,
    pub problem: Option<String>,
}

impl Follower {
    /// One that goes on at a position, or begins at the end of what is there.
    pub fn new(path: &Path, position: Option<Position>) -> Self {
        let begun = position.is_some();
        let Position { marks, since } = position.unwrap_or(Position {
            marks: Vec::new(),
            since: (0, 0),
        });
        Self {
            path: path.to_owned(),
            current: None,
            rotated: Vec::new(),
            finished: marks.into(),
            since,
            begun,
            unsure: begun,
            folder: None,
            buffer: vec![0; BUFFER].into(),
        }
    }

    /// Whether a file is open that is, or was last, at the path.
    pub fn has_file(&self) -> bool {
        self.current.is_some()
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        let open = self.rotated.iter().chain(&self.current).map(Tail::mark);
        Position {
            marks: self.finished.iter().copied().chain(open).collect(),
            since: self.since,
        }
    }

    /// Looks once: finds out what happened to the files, and counts what is new, up to a few megabytes.
    pub fn look(&mut self, tally: &Mutex<Tally>, now: Instant) -> Look {
        let mut look = Look::default();
        match self.find(tally, now) {
            Ok(found) => look.more |= found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                look.missing = true;
            }
            Err(error) => look.problem = Some(error.to_string()),
        }
        self.watch_folder();
        let unsure = std::mem::take(&mut self.unsure);
        match self.read(tally, now) {
            Ok(read) => look.more |= read,
            Err(error) => {
                // The file of another host that was removed there, for example: all are looked for again.
                look.problem = Some(error.to_string());
                self.let_go();
            }
        }
        if unsure {
            // After the reading, because what is known of the log's own file tells its copies from its parts.
            look.more |= self.gather(tally, now);
        }
        look.more |= self.finish(tally, now, look.missing);
        // What does not work is tried again after a pause.
        look.more &= look.problem.is_none();
        let open = || self.rotated.iter().chain(&self.current);
        look.unread = open().map(Tail::unread).sum();
        look
    }

    /// Finds the file at the path; says whether it is another one than before.
    fn find(&mut self, tally: &Mutex<Tally>, now: Instant) -> std::io::Result<bool> {
        if !self.begun {
            return self.begin(now).map(|()| true);
        }
        let identity = Identity::of(&fs::metadata(&self.path)?);
        if let Some(current) = self.current.as_ref().filter(|current| current.identity() == identity) {
            // What is to be found beside it was written before that.
            if !self.unsure {
                self.since = current.modified;
            }
            return Ok(false);
        }
        let mut found = Tail::open(&self.path, now)?;
        // Where another one is open, a file that only begins as an older one did is not its copy, but the next one.
        let by_beginning = self.current.is_none();
        if let Some(before) = self.rotated.iter().position(|tail| tail.identity() == found.identity()) {
            found = self.rotated.remove(before);
        } else if let Some(mark) = found.known(&self.finished, by_beginning)? {
            found.go_on(&mark)?;
            self.forget(&mark);
        } else {
            let emptied = |mark: &Mark| mark.open && mark.identity() == found.identity();
            let mut tally = locked(tally);
            if self.finished.iter().any(emptied) {
                one_more(&mut tally.truncations);
            } else if self.current.is_some() || !self.finished.is_empty() {
                one_more(&mut tally.rotations);
            }
        }
        self.rotated.extend(self.current.replace(found));
        self.unsure = true;
        Ok(true)
    }

    /// Of a file that was empty at the last look, nothing tells that it was filled, copied and emptied since; but the copy came into
    /// the folder.
    fn watch_folder(&mut self) {
        if self
            .current
            .as_ref()
            .is_some_and(|current| !current.mark().is_nothing())
        {
            self.folder = None;
            return;
        }
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let folder = fs::metadata(parent).ok().map(|stat| modified(&stat));
        self.unsure |= self.begun && self.folder != folder;
        self.folder = folder;
    }

    /// What is there before the first look was never promised to be counted: it may be months old.
    fn begin(&mut self, now: Instant) -> std::io::Result<()> {
        let current = match Tail::open(&self.path, now) {
            Ok(mut tail) => {
                tail.skip_to_end()?;
                Some(tail)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.since = current.as_ref().map_or_else(
            || (i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX), 0),
            |tail| tail.modified,
        );
        let own = current.as_ref().map(Tail::identity);
        self.finished = siblings::of(&self.path, now)
            .filter(|tail| Some(tail.identity()) != own)
            .filter_map(|mut tail| {
                tail.skip_to_end().ok()?;
                Some(tail.last_mark())
            })
            .collect();
        self.current = current;
        self.begun = true;
        Ok(())
    }

    fn forget(&mut self, mark: &Mark) {
        self.finished.retain(|other| other != mark);
    }

    fn remember(&mut self, mark: Mark) {
        if mark.is_nothing() {
            return;
        }
        self.finished.push_back(mark);
        while self.finished.len() > FINISHED {
            self.finished.pop_front();
        }
    }

    /// Finds the parts of the log among the files beside it: those that grew after they were done with, the copies of those that were
    /// truncated, and those that came and went between two looks. Says whether there are any.
    fn gather(&mut self, tally: &Mutex<Tally>, now: Instant) -> bool {
        let before = self.rotated.len();
        for tail in siblings::of(&self.path, now) {
            // One that can't be read may be readable after the next rotation.
            let _ = self.take_in(tail, tally);
        }
        self.finished.retain(|mark| !mark.is_nothing());
        for mark in &mut self.finished {
            mark.open = false;
        }
        self.rotated.len() > before
    }

    fn take_in(&mut self, mut tail: Tail, tally: &Mutex<Tally>) -> std::io::Result<()> {
        let open: Vec<_> = self.rotated.iter().chain(&self.current).map(Tail::mark).collect();
        if tail.known(&open, true)?.is_some() {
            return Ok(());
        }
        if let Some(mark) = tail.known(&self.finished, true)? {
            if tail.size > mark.at || (mark.open && tail.size == mark.at) {
                tail.go_on(&mark)?;
                tail.is_copy = !mark.open;
                self.forget(&mark);
                self.rotated.push(tail);
            }
        } else if self.current.as_ref().is_some_and(Tail::is_new_and_changed) {
            // This may be a copy of what was just written to it.
            self.unsure = true;
        } else if tail.modified >= self.since {
            one_more(&mut locked(tally).rotations);
            self.rotated.push(tail);
        }
        Ok(())
    }

    /// Counts what is new in all files, the oldest first; says whether there may be more.
    fn read(&mut self, tally: &Mutex<Tally>, now: Instant) -> std::io::Result<bool> {
        let (mut more, mut at) = (false, 0);
        while at < self.rotated.len() {
            match turn(&mut self.rotated[at], &mut self.buffer, tally, now) {
                Ok(Read::Replaced) | Err(_) => {
                    let gone = self.rotated.remove(at);
                    self.remember(gone.last_mark());
                    continue;
                }
                Ok(read) => more |= read == Read::Some,
            }
            at += 1;
        }
        let Some(current) = &mut self.current else {
            return Ok(more);
        };
        match turn(current, &mut self.buffer, tally, now)? {
            Read::Nothing => Ok(more),
            Read::Some => Ok(true),
            Read::Replaced => {
                let before = current.last_mark();
                current.start_over();
                one_more(&mut locked(tally).truncations);
                self.remember(before);
                self.unsure = true;
                Ok(true)
            }
        }
    }

    /// Is done with rotated files of which nothing more is expected; says whether there were some. While nothing is at the log's path,
    /// its writer may be at any of them.
    fn finish(&mut self, tally: &Mutex<Tally>, now: Instant, missing: bool) -> bool {
        let before = self.rotated.len();
        let gone_over = !missing && self.current.as_ref().is_some_and(|current| current.size > 0);
        let quiet = |tail: &Tail| (gone_over || tail.is_copy) && now.saturating_duration_since(tail.grown) >= QUIET;
        loop {
            let find = |is_done: &dyn Fn(&Tail) -> bool| {
                let mut tails = self.rotated.iter();
                tails.position(|tail| tail.is_at_end() && is_done(tail))
            };
            let mut done = find(&quiet);
            if self.rotated.len() > OPEN {
                // One that waits for the end of a line is the last to go.
                done = done
                    .or_else(|| find(&|tail| tail.unread() == 0))
                    .or_else(|| find(&|_| true));
            }
            let Some(at) = done else {
                return self.rotated.len() < before;
            };
            let mark = self.rotated.remove(at).finish(&mut self.buffer, tally, now);
            self.remember(mark);
        }
    }

    fn let_go(&mut self) {
        for tail in self.rotated.drain(..).chain(self.current.take()) {
            self.finished.push_back(tail.mark());
        }
        self.unsure = true;
    }
}

fn turn(tail: &mut Tail, buffer: &mut [u8], tally: &Mutex<Tally>, now: Instant) -> std::io::Result<Read> {
    let mut so_far = Read::Nothing;
    for _ in 0..TURN {
        match tail.advance(buffer, tally, now)? {
            Read::Some => so_far = Read::Some,
            Read::Nothing => return Ok(so_far),
            Read::Replaced => return Ok(Read::Replaced),
        }
    }
    Ok(so_far)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
