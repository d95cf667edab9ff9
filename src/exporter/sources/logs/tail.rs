//! One file of the log, and how far it was read.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::tally::{Tally, one_more};
use crate::exporter::state::fingerprint;
use crate::exporter::{locked, regular};

/// Bytes of the longest line that is read.
pub(super) const LINE_BYTES: usize = 64 << 10;
/// Bytes that are read at once: the longest line and its line feed.
pub(super) const BUFFER: usize = LINE_BYTES + 1;
/// Bytes at the beginning of a file by which it is told from others. Log lines begin with their time, so no two are alike.
const HEAD: usize = 1024;

/// When a file was written to: seconds since 1970, and nanoseconds.
pub(super) type Time = (i64, i64);

pub(super) fn modified(stat: &Metadata) -> Time {
    (stat.mtime(), stat.mtime_nsec())
}

/// Which file it is, for as long as it exists: the next one may get the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub fn of(stat: &Metadata) -> Self {
        Self {
            device: stat.dev(),
            inode: stat.ino(),
        }
    }
}

/// Some first bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    length: usize,
    hash: u64,
}

impl Span {
    fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len(),
            hash: fingerprint(bytes),
        }
    }

    fn begins(self, bytes: &[u8]) -> bool {
        self.length == 0 || bytes.get(..self.length).is_some_and(|bytes| Self::of(bytes) == self)
    }
}

/// How a file begins, as far as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// Its first line.
    line: Span,
    /// As much as there was, up to [`HEAD`] bytes. None of an empty file.
    all: Span,
}

impl Head {
    /// That of a file that begins with `bytes`.
    fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        let line = bytes.iter().position(|byte| *byte == b'\n');
        Self {
            line: Span::of(&bytes[..line.map_or(bytes.len(), |end| end + 1)]),
            all: Span::of(bytes),
        }
    }

    fn is_none(&self) -> bool {
        self.all.length == 0
    }

    /// Whether `bytes` may be the beginning of the same file, or of a copy that was made earlier, when it was shorter.
    fn is_like(&self, bytes: &[u8]) -> bool {
        let known = if bytes.len() < self.all.length {
            self.line
        } else {
            self.all
        };
        !self.is_none() && known.begins(bytes)
    }
}

/// How far a file was read: what is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    identity: Identity,
    head: Head,
    /// The byte at which the next line begins; everything before it was counted.
    pub at: u64,
    /// Inside a line that was counted, or that nobody counts: the next one begins after the next line feed.
    inside: bool,
    /// Read until now, and not done with.
    pub open: bool,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Nothing new.
    Nothing,
    /// Something was counted, and there may be more.
    Some,
    /// The file has another content now.
    Replaced,
}

/// A file that is being read. What was not counted yet is read again each time: nothing is held in memory but the place.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    mark: Mark,
    /// Size and time when it was last looked at, and all of it that can be counted was counted.
    done: Option<(u64, Time)>,
    pub size: u64,
    pub modified: Time,
    /// When something new was last in it.
    pub grown: Instant,
    /// A copy, which nobody writes to, or one that was done with before.
    pub is_copy: bool,
}

impl Tail {
    /// Opens a file, to be read from its beginning.
    pub fn open(path: &Path, now: Instant) -> Result<Self> {
        let file = regular::open(path)?;
        let stat = file.metadata()?;
        let mark = Mark {
            identity: Identity::of(&stat),
            head: Head::default(),
            at: 0,
            inside: false,
            open: true,
        };
        Ok(Self {
            file,
            mark,
            done: None,
            size: stat.len(),
            modified: modified(&stat),
            grown: now,
            is_copy: false,
        })
    }

    pub fn identity(&self) -> Identity {
        self.mark.identity
    }

    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// The mark of what is not read on.
    pub fn last_mark(&self) -> Mark {
        Mark {
            open: false,
            ..self.mark
        }
    }

    /// Whether all that it had when it was last looked at is counted, but for a line without an end.
    pub fn is_at_end(&self) -> bool {
        self.done == Some((self.size, self.modified))
    }

    /// Whether nothing is known of its content, and there may be some now.
    pub fn is_new_and_changed(&self) -> bool {
        let is_as_seen = |stat: Metadata| (stat.len(), modified(&stat)) == (self.size, self.modified);
        self.mark.head.is_none() && !self.file.metadata().is_ok_and(is_as_seen)
    }

    pub fn unread(&self) -> u64 {
        self.size.saturating_sub(self.mark.at)
    }

    /// The bytes at its beginning.
    fn beginning(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; HEAD];
        let length = self.fill(&mut bytes, 0)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    fn fill(&self, buffer: &mut [u8], from: u64) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// The mark among `marks` of this file or, `by_beginning`, of one that it is a copy of; rather the last one.
    pub fn known<'a>(&self, marks: impl IntoIterator<Item = &'a Mark>, by_beginning: bool) -> Result<Option<Mark>> {
        let beginning = self.beginning()?;
        let mut marks: Vec<_> = marks.into_iter().copied().collect();
        marks.reverse();
        let is_like = |mark: &Mark| mark.head.is_like(&beginning);
        let is_same = |mark: &Mark| mark.identity == self.mark.identity;
        let same = marks.iter().find(|mark| is_same(mark) && is_like(mark));
        let like = || marks.iter().find(|mark| by_beginning && is_like(mark));
        // One that was empty is known by its numbers alone; they may be another's by now, and then nothing is lost.
        let empty = || marks.iter().find(|mark| is_same(mark) && mark.head.is_none());
        Ok(same.or_else(like).or_else(empty).copied())
    }

    /// Goes on where `mark` is.
    pub fn go_on(&mut self, mark: &Mark) -> Result<()> {
        let identity = self.mark.identity;
        self.mark = Mark {
            identity,
            open: true,
            ..*mark
        };
        if self.size < mark.at {
            self.stand_at(self.size)?;
        }
        Ok(())
    }

    /// Counts nothing of what is there already.
    pub fn skip_to_end(&mut self) -> Result<()> {
        self.mark.head = Head::of(&self.beginning()?);
        self.stand_at(self.file.metadata()?.len())
    }

    fn stand_at(&mut self, at: u64) -> Result<()> {
        let mut last = [0];
        self.mark.at = at;
        self.mark.inside = at > 0 && self.fill(&mut last, at - 1)? == 1 && last != [b'\n'];
        Ok(())
    }

    /// The content is another one: it is read from its beginning.
    pub fn start_over(&mut self) {
        self.mark = Mark {
            head: Head::default(),
            at: 0,
            inside: false,
            ..self.mark
        };
        self.done = None;
    }

    /// Reads what fits into `buffer`, and counts the whole lines in it.
    pub fn advance(&mut self, buffer: &mut [u8], tally: &Mutex<Tally>, now: Instant) -> Result<Read> {
        let stat = self.file.metadata()?;
        let seen = (stat.len(), modified(&stat));
        if (self.size, self.modified) != seen {
            self.grown = now;
        }
        (self.size, self.modified) = seen;
        if self.done == Some(seen) {
            return Ok(Read::Nothing);
        }
        let read = self.fill(buffer, self.mark.at)?;
        let bytes = &buffer[..read];
        // Only now: had it been truncated before the bytes were read, they would belong to another content.
        let beginning = self.beginning()?;
        let size = self.file.metadata()?.len();
        let first = &bytes[..read.min(beginning.len())];
        if !self.mark.head.all.begins(&beginning) || (self.mark.at == 0 && !beginning.starts_with(first)) {
            return Ok(Read::Replaced);
        }
        if size < self.mark.at {
            // Cut behind its beginning: what is left was counted.
            self.stand_at(size)?;
            return Ok(Read::Some);
        }
        if size < self.mark.at + read as u64 {
            return Ok(Read::Some);
        }
        let at = self.mark.at;
        self.count(bytes, &mut locked(tally), now);
        self.mark.head = Head::of(&beginning);
        if self.mark.at == at {
            self.done = Some(seen);
            return Ok(Read::Nothing);
        }
        Ok(Read::Some)
    }

    /// Counts the whole lines of `bytes`, which begin at the mark.
    fn count(&mut self, mut bytes: &[u8], tally: &mut Tally, now: Instant) {
        loop {
            if !self.mark.inside {
                // A writer that goes on behind the cut leaves a hole before its next line, however large.
                let hole = bytes.iter().take_while(|byte| **byte == 0).count();
                self.mark.pass(&mut bytes, hole);
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                break;
            };
            if self.mark.inside {
                self.mark.inside = false;
            } else {
                tally.line(&bytes[..end], now);
            }
            self.mark.pass(&mut bytes, end + 1);
        }
        if !self.mark.inside && bytes.len() > LINE_BYTES {
            one_more(&mut tally.unparsed.too_long);
            self.mark.inside = true;
        }
        if self.mark.inside {
            let rest = bytes.len();
            self.mark.pass(&mut bytes, rest);
        }
    }

    /// Counts a last line that has no line feed and will get none. The mark of what is done with.
    pub fn finish(mut self, buffer: &mut [u8], tally: &Mutex<Tally>, now: Instant) -> Mark {
        // One that can't be read any more was read as far as it can be.
        let read = self.fill(buffer, self.mark.at).unwrap_or_default();
        let (at, mut tally) = (self.mark.at, locked(tally));
        self.count(&buffer[..read], &mut tally, now);
        let counted = usize::try_from(self.mark.at - at).unwrap_or(read);
        if counted < read {
            tally.line(&buffer[counted..read], now);
            self.mark.inside = true;
        }
        self.mark.at = at + read as u64;
        self.mark.open = false;
        self.mark
    }
}

impl Mark {
    fn pass(&mut self, bytes: &mut &[u8], number: usize) {
        *bytes = &bytes[number..];
        self.at += number as u64;
    }

    /// Whether nothing was read of the file, so that it is as well read from its beginning.
    pub fn is_nothing(&self) -> bool {
        self.at == 0 || self.head.is_none()
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }
}
