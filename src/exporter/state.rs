//! What outlives the process: one small file for each concern, in a folder that the configuration names.
//!
//! A file is replaced as a whole, so a process that dies at any moment leaves the last one or the one before. Nothing is saved at the
//! end: who dies by SIGKILL must lose nothing either, and the exporter ends at once.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{locked, regular};

/// The least time between two savings of something that changes all the time; what happened since is done again after a restart.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// Far more than anything that is saved.
const LARGEST: u64 = 1 << 20;
/// Raised when a file of before would be misread.
const VERSION: u32 = 1;

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// What came of the last attempt for each concern.
    outcomes: Mutex<BTreeMap<&'static str, Outcome>>,
}

#[derive(Debug)]
struct Outcome {
    saved: bool,
    /// A hash of what was saved, so that the same is not written again.
    content: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<T> {
    /// Which program's file this is, and of what.
    rosey_exporter: String,
    version: u32,
    content: T,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    #[error("is larger than {LARGEST} bytes")]
    Large,
    #[error("is not what this exporter writes: {0}")]
    Foreign(#[from] serde_json::Error),
    #[error("is of version {0}, and this exporter writes version {VERSION}")]
    Version(u32),
    #[error("is about {0:?}")]
    Other(String),
    #[error("contradicts itself")]
    Senseless,
}

/// A file that can't be read now. Another time it can, perhaps, so it stays as it is.
#[derive(Debug, thiserror::Error)]
#[error("{}: can't be read: {source}", path.display())]
pub(super) struct Unread {
    path: PathBuf,
    source: std::io::Error,
}

#[derive(Deserialize)]
struct Label {
    rosey_exporter: String,
    version: u32,
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            outcomes: Mutex::default(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, concern: &str) -> PathBuf {
        self.path.join(format!("{concern}.json"))
    }

    /// What was saved of `concern`, if there is something and `sensible` finds nothing wrong with it. A file that is of no use is put
    /// aside, and the log says so.
    ///
    /// # Errors
    /// When it can't be read, which says nothing of its content. What is counted meanwhile must not be saved in its place.
    pub fn load<T: DeserializeOwned>(
        &self,
        concern: &'static str,
        sensible: impl FnOnce(&T) -> bool,
    ) -> Result<Option<T>, Unread> {
        self.sweep(concern);
        let path = self.file(concern);
        let unusable = match read(&path, concern) {
            Ok(content) if sensible(&content) => return Ok(Some(content)),
            Ok(_) => Unusable::Senseless,
            Err(Unusable::Unreadable(error)) if is_absent(&error) => return Ok(None),
            Err(Unusable::Unreadable(source)) if fs::metadata(&path).map_or(true, |found| found.is_file()) => {
                let unread = Unread { path, source };
                let outcome = Outcome {
                    saved: false,
                    content: 0,
                };
                let before = locked(&self.outcomes).insert(concern, outcome);
                if before.is_none_or(|before| before.saved) {
                    tracing::warn!("{unread}; it is tried again, and nothing is saved until then");
                }
                return Err(unread);
            }
            Err(unusable) => unusable,
        };
        let aside = self.path.join(format!("{concern}.json.unusable"));
        let path = path.display();
        match fs::rename(self.file(concern), &aside) {
            Ok(()) => {
                tracing::warn!(
                    "{path}: {unusable}; counting begins anew, and the file is now {}",
                    aside.display()
                );
            }
            Err(error) => {
                tracing::warn!("{path}: {unusable}; counting begins anew, and it can't be put aside: {error}");
            }
        }
        Ok(None)
    }

    /// Puts aside what another process saved of `concern`, under a name that nothing has, and says whether the place is free.
    pub fn put_aside(&self, concern: &'static str) -> bool {
        let (file, millis) = (
            self.file(concern),
            SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis(),
        );
        let aside = self.path.join(format!("{concern}.json.until-{millis}"));
        match fs::rename(&file, &aside) {
            Ok(()) => {
                let (file, aside) = (file.display(), aside.display());
                tracing::warn!("{file}: counting has begun without it, so it is now {aside}");
                true
            }
            Err(error) => is_absent(&error),
        }
    }

    /// Removes what a process left that died while it saved.
    fn sweep(&self, concern: &str) {
        let begin = format!(".{concern}.");
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten().take(1000) {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(&begin) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Saves `content`, unless the same was saved last. Says whether it is saved; the log says so when that changes.
    pub fn save<T: Serialize>(&self, concern: &'static str, content: &T) -> bool {
        let envelope = Envelope {
            rosey_exporter: concern.into(),
            version: VERSION,
            content,
        };
        let (written, hash) = match serde_json::to_vec(&envelope) {
            Ok(bytes) => {
                let hash = fingerprint(&bytes);
                let before = locked(&self.outcomes)
                    .get(concern)
                    .map(|outcome| (outcome.saved, outcome.content));
                if before == Some((true, hash)) {
                    return true;
                }
                (self.replace(concern, &bytes), hash)
            }
            Err(error) => (Err(error.into()), 0),
        };
        let outcome = Outcome {
            saved: written.is_ok(),
            content: hash,
        };
        let before = locked(&self.outcomes).insert(concern, outcome);
        let path = self.path.display();
        match (written, before.is_none_or(|before| before.saved)) {
            (Ok(()), true) => true,
            (Ok(()), false) => {
                tracing::info!("{path}: {concern} can be saved again");
                true
            }
            (Err(error), told_well) => {
                if told_well {
                    tracing::warn!(
                        "{path}: {concern} can't be saved: {error}; the exporter works without, and a restart would count anew"
                    );
                }
                false
            }
        }
    }

    fn replace(&self, concern: &str, bytes: &[u8]) -> std::io::Result<()> {
        // A name of its own: another exporter may save to the same folder.
        let random = RandomState::new().build_hasher().finish();
        let new = self.path.join(format!(".{concern}.{random:016x}.new"));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&new, self.file(concern))
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })?;
        // The name is safe from a power cut only then; where a folder can't be synchronised, the content is still whole.
        let _ = File::open(&self.path).and_then(|folder| folder.sync_all());
        Ok(())
    }

    /// Whether all of what `is_meant` to be saved was when it was last tried; nothing before the first attempt. What is not counted
    /// any more would keep its last outcome for ever.
    pub fn saved(&self, is_meant: impl Fn(&str) -> bool) -> Option<bool> {
        let outcomes = locked(&self.outcomes);
        let meant = outcomes.iter().filter(|(concern, _)| is_meant(concern));
        meant
            .map(|(_, outcome)| outcome.saved)
            .reduce(|all, saved| all && saved)
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn read<T: DeserializeOwned>(path: &Path, concern: &str) -> Result<T, Unusable> {
    let mut bytes = Vec::new();
    regular::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unusable::Large);
    }
    // The label alone first: the content of another version would only give a message about its fields.
    let label: Label = serde_json::from_slice(&bytes)?;
    if label.version != VERSION {
        return Err(Unusable::Version(label.version));
    }
    if label.rosey_exporter != concern {
        return Err(Unusable::Other(label.rosey_exporter));
    }
    Ok(serde_json::from_slice::<Envelope<T>>(&bytes)?.content)
}

/// FNV-1a: tells contents apart that nobody made to be alike, and is the same in every version of this program.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_saved_comes_back_in_the_next_process() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().to_owned());
        assert_eq!(folder.saved(|_| true), None);
        assert_eq!(folder.load::<Vec<u64>>("numbers", |_| true).unwrap(), None);
        assert!(folder.save("numbers", &[1, 2]));
        assert!(folder.save("numbers", &[1, 2, u64::MAX]));
        assert_eq!(folder.saved(|_| true), Some(true));
        assert_eq!(names(place.path()), ["numbers.json"]);
        let next = Folder::new(place.path().to_owned());
        assert_eq!(
            next.load::<Vec<u64>>("numbers", |_| true).unwrap(),
            Some(vec![1, 2, u64::MAX])
        );
    }

    #[test]
    fn what_did_not_change_is_not_written_again() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().to_owned());
        assert!(folder.save("numbers", &[1]));
        fs::remove_file(place.path().join("numbers.json")).unwrap();
        assert!(folder.save("numbers", &[1]));
        assert!(names(place.path()).is_empty());
        assert!(folder.save("numbers", &[2]));
        assert_eq!(names(place.path()), ["numbers.json"]);
    }

    #[test]
    fn a_file_that_is_of_no_use_is_put_aside() {
        let whole = r#"{"rosey_exporter":"numbers","version":1,"content":[1,2]}"#;
        let newer = whole.replace("\"version\":1", "\"version\":2");
        let other = whole.replace("numbers", "letters");
        let odd = whole.replace("[1,2]", "[1,\"2\"]");
        let large = whole.replace("[1,2]", &format!("[{}1]", "1,".repeat(600_000)));
        for content in [&whole[..30], "", "\0\0\0", "[]", &newer, &other, &odd, &large] {
            let place = tempfile::tempdir().unwrap();
            fs::write(place.path().join("numbers.json"), content).unwrap();
            let folder = Folder::new(place.path().to_owned());
            assert_eq!(
                folder.load::<Vec<u64>>("numbers", |_| true).unwrap(),
                None,
                "{content:.50}"
            );
            assert_eq!(names(place.path()), ["numbers.json.unusable"], "{content:.50}");
        }
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("numbers.json"), whole).unwrap();
        let folder = Folder::new(place.path().to_owned());
        assert_eq!(folder.load::<Vec<u64>>("numbers", Vec::is_empty).unwrap(), None);
        assert_eq!(names(place.path()), ["numbers.json.unusable"]);
    }

    #[test]
    fn a_file_that_can_not_be_read_now_stays_where_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("numbers.json");
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let folder = Folder::new(place.path().to_owned());
        for _ in 0..2 {
            let unread = folder.load::<Vec<u64>>("numbers", |_| true).unwrap_err().to_string();
            assert!(unread.contains("numbers.json: can't be read: "), "{unread}");
            assert_eq!(names(place.path()), ["numbers.json"]);
            assert_eq!(folder.saved(|_| true), Some(false));
        }
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_holds_up_nobody() {
        let place = tempfile::tempdir().unwrap();
        let pipe = place.path().join("numbers.json");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        let folder = Folder::new(place.path().to_owned());
        assert_eq!(folder.load::<Vec<u64>>("numbers", |_| true).unwrap(), None);
        assert!(folder.save("numbers", &[1]));
        assert_eq!(folder.load::<Vec<u64>>("numbers", |_| true).unwrap(), Some(vec![1]));
    }

    #[test]
    fn a_folder_that_is_missing_is_told_and_forgiven_once_it_is_there() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("later");
        let folder = Folder::new(path.clone());
        assert_eq!(folder.load::<Vec<u64>>("numbers", |_| true).unwrap(), None);
        assert!(!folder.save("numbers", &[1]));
        assert_eq!(folder.saved(|_| true), Some(false));
        fs::create_dir(&path).unwrap();
        assert!(folder.save("numbers", &[1]));
        assert_eq!(folder.saved(|_| true), Some(true));
    }

    #[test]
    fn what_is_not_counted_any_more_has_no_say_in_whether_all_is_saved() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().to_owned());
        fs::create_dir(place.path().join("numbers.json")).unwrap();
        assert!(!folder.save("numbers", &[1]));
        assert!(folder.save("letters", &["a"]));
        assert_eq!(folder.saved(|_| true), Some(false));
        assert_eq!(folder.saved(|concern| concern == "letters"), Some(true));
        assert_eq!(folder.saved(|_| false), None);
    }

    #[test]
    fn what_a_dead_process_left_half_written_is_swept() {
        let place = tempfile::tempdir().unwrap();
        for name in [".numbers.0123.new", ".letters.0123.new"] {
            fs::write(place.path().join(name), "{").unwrap();
        }
        let swept = Folder::new(place.path().to_owned()).load::<Vec<u64>>("numbers", |_| true);
        assert!(swept.unwrap().is_none());
        assert_eq!(names(place.path()), [".letters.0123.new"]);
    }

    #[test]
    fn two_that_save_to_one_folder_leave_one_whole_file() {
        let place = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4_u64 {
                let folder = Folder::new(place.path().to_owned());
                scope.spawn(move || {
                    for round in 0..50 {
                        assert!(folder.save("numbers", &vec![writer * 100 + round; 500]));
                    }
                });
            }
        });
        let last: Option<Vec<u64>> = Folder::new(place.path().to_owned()).load("numbers", |_| true).unwrap();
        let last = last.unwrap();
        assert_eq!(last.len(), 500);
        assert!(last.iter().all(|number| *number == last[0] && number % 100 == 49));
        assert_eq!(names(place.path()), ["numbers.json"]);
    }
}
