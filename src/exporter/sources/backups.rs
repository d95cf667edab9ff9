//! How many backups the bot has, and how old and how large the newest is.

mod size;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::{FILE_TIMEOUT, Lookup, Mount, Reading, Source, below};
use crate::catalogue::metrics::{BACKUP_AGE_SECONDS, BACKUP_COUNT, BACKUP_SIZE_BYTES, Metric};
use crate::exporter::page::Page;
use crate::sidecar::config;

/// A time so far ahead is wrong; without this, a clock that was once wrong would hide that backups have stopped.
const AHEAD: Duration = Duration::from_secs(300);
/// How long may be spent until there is a size; number and age come first.
const SIZE_TIMEOUT: Duration = Duration::from_secs(1);

/// The folder of backups.
pub(crate) struct Backups {
    folder: PathBuf,
    /// The volume's own folder, where the backups are in a volume of the pod.
    mount: Option<Mount>,
    pattern: String,
    lookup: Lookup,
    /// Whether the log says already that the newest backup has no size.
    told: AtomicBool,
}

impl Backups {
    pub fn new(rootfs: &Path, backups: &config::Backups) -> Self {
        Self {
            folder: below(rootfs, &backups.path),
            mount: Mount::of(rootfs, &backups.path),
            pattern: backups.pattern.clone(),
            lookup: Lookup::new(),
            told: AtomicBool::new(false),
        }
    }
}

impl Source for Backups {
    fn name(&self) -> &'static str {
        "backups"
    }

    fn timeout(&self) -> Duration {
        FILE_TIMEOUT
    }

    fn families(&self) -> &'static [&'static Metric] {
        &[&BACKUP_COUNT, &BACKUP_AGE_SECONDS, &BACKUP_SIZE_BYTES]
    }

    fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
        let source = self.clone();
        Box::pin(async move { self.lookup.ask(move || source.look(SystemTime::now())).await })
    }
}

impl Backups {
    fn look(&self, now: SystemTime) -> Reading {
        let (mut page, begun) = (Page::default(), Instant::now());
        let failed = |error| Reading::failed(Page::default(), format!("{}: {error}", self.folder.display()));
        match newest(&self.folder, &self.pattern, now) {
            Ok((count, newest)) => {
                page.add(&BACKUP_COUNT, &[], f64::from(count));
                if let Some((time, path)) = newest {
                    let age = now.duration_since(time).unwrap_or_default();
                    page.add(&BACKUP_AGE_SECONDS, &[], age.as_secs_f64());
                    self.add_size(&mut page, &path, begun + SIZE_TIMEOUT);
                }
                Reading::of(page)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                match self.mount.as_ref().map_or(Ok(false), Mount::is_missing) {
                    Ok(true) => Reading::of(page),
                    Ok(false) => {
                        page.add(&BACKUP_COUNT, &[], 0.0);
                        Reading::of(page)
                    }
                    Err(error) => failed(error.to_string()),
                }
            }
            Err(error) => failed(error.to_string()),
        }
    }

    /// A backup that has no size costs nothing else; the log says so once.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a sample is a double; it is exact up to 8 PiB"
    )]
    fn add_size(&self, page: &mut Page, path: &Path, deadline: Instant) {
        match size::size(path, deadline) {
            Ok(bytes) => page.add(&BACKUP_SIZE_BYTES, &[], bytes as f64),
            Err(reason) if !self.told.swap(true, Ordering::Relaxed) => {
                tracing::warn!(backup = %path.display(), %reason, "the size of the newest backup is not told");
            }
            Err(_) => {}
        }
    }
}

/// How many names match, and the newest of them with its time.
fn newest(folder: &Path, pattern: &str, now: SystemTime) -> std::io::Result<(u32, Option<(SystemTime, PathBuf)>)> {
    let (mut count, mut newest, begun) = (0, None, Instant::now());
    for entry in std::fs::read_dir(folder)? {
        if begun.elapsed() > FILE_TIMEOUT {
            return Err(std::io::Error::new(
                ErrorKind::TimedOut,
                "too many files to look at in time",
            ));
        }
        let entry = entry?;
        if !matches(pattern, &entry.file_name().to_string_lossy()) {
            continue;
        }
        count += 1;
        // One that is removed meanwhile was counted, and has no time.
        let time = entry
            .metadata()
            .and_then(|found| found.modified())
            .ok()
            .filter(|time| *time <= now + AHEAD);
        newest = newest.max(time.map(|time| (time, entry.path())));
    }
    Ok((count, newest))
}

/// Whether `name` is of the form `pattern`, in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&expected) if expected == '?' || expected == name[n] => {
                p += 1;
                n += 1;
            }
            // The last star takes one character more, and what follows it is tried again.
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::sidecar::VOLUMES_DIR;

    fn look(folder: &Path, pattern: &str, now: SystemTime) -> Reading {
        backups("/".as_ref(), folder.to_str().unwrap(), pattern).look(now)
    }

    fn backups(rootfs: &Path, path: &str, pattern: &str) -> Backups {
        let (path, pattern) = (path.to_owned(), pattern.to_owned());
        Backups::new(rootfs, &config::Backups { path, pattern })
    }

    fn samples(reading: &Reading) -> Vec<String> {
        reading
            .page
            .text()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn backups_are_counted_and_the_newest_gives_the_age() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (name, age) in [("backup_1", 7200), ("backup_2", 3600), ("other", 1), ("xbackup_3", 1)] {
            let file = File::create(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name), name).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        fs::create_dir(folder.path().join("backup_folder")).unwrap();
        File::open(folder.path().join("backup_folder"))
            .unwrap()
            .set_modified(now - Duration::from_secs(9000))
            .unwrap();
        let found = look(folder.path(), "backup_*", now);
        assert_eq!(
            samples(&found),
            [
                "rosey_backup_age_seconds 3600",
                "rosey_backup_count 3",
                "rosey_backup_size_bytes 8"
            ]
        );
    }

    #[test]
    fn a_time_in_the_future_is_not_an_age() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let file = File::create(folder.path().join("backup_1")).unwrap();
        file.set_modified(now + Duration::from_secs(86400)).unwrap();
        assert_eq!(samples(&look(folder.path(), "*", now)), ["rosey_backup_count 1"]);
        file.set_modified(now + Duration::from_secs(5)).unwrap();
        assert_eq!(
            samples(&look(folder.path(), "*", now)),
            [
                "rosey_backup_age_seconds 0",
                "rosey_backup_count 1",
                "rosey_backup_size_bytes 0"
            ]
        );
    }

    #[test]
    fn a_newest_backup_without_a_size_has_number_and_age() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("backup_1")).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        let reading = look(folder.path(), "*", later);
        let names: Vec<_> = reading
            .page
            .text()
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .map(str::to_owned)
            .collect();
        assert_eq!(
            names,
            [
                "# TYPE rosey_backup_age_seconds gauge",
                "# TYPE rosey_backup_count gauge"
            ]
        );
        assert_eq!(reading.problem, None);
    }

    #[test]
    fn a_missing_folder_holds_no_backup_and_has_no_age() {
        let reading = look(Path::new("/does/not/exist"), "backup_*", SystemTime::now());
        assert_eq!(samples(&reading), ["rosey_backup_count 0"]);
        assert_eq!(reading.problem, None);
    }

    #[test]
    fn a_folder_in_a_volume_that_is_not_mounted_has_no_series_and_is_no_failure() {
        let pod = tempfile::tempdir().unwrap();
        let volume = pod.path().join(VOLUMES_DIR.trim_start_matches('/')).join("data");
        for path in ["data", "data/", "data/prod/daily"] {
            let backups = backups(pod.path(), &format!("{VOLUMES_DIR}/{path}"), "*");
            let reading = backups.look(SystemTime::now());
            assert!(samples(&reading).is_empty(), "{path}");
            assert_eq!(reading.problem, None);

            fs::create_dir_all(&volume).unwrap();
            let reading = backups.look(SystemTime::now());
            assert_eq!(samples(&reading), ["rosey_backup_count 0"], "{path}");
            assert_eq!(reading.problem, None);
            fs::remove_dir(&volume).unwrap();
        }
    }

    #[test]
    fn a_folder_that_can_not_be_read_is_a_problem_and_not_a_zero() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reading = look(file.path(), "backup_*", SystemTime::now());
        assert!(samples(&reading).is_empty());
        assert!(
            reading
                .problem
                .is_some_and(|problem| problem.contains("Not a directory"))
        );
    }

    #[test]
    fn a_pattern_knows_stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("backup_*", "backup_", true),
            ("backup_*", "backup_2026-01-01.tar.gz", true),
            ("backup_*", "my_backup_1", false),
            ("*.tar.??", "a.tar.gz", true),
            ("*.tar.??", "a.tar.g", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "aab", true),
            ("*a*b", "aabc", false),
            ("", "", true),
            ("", "a", false),
            ("[a]", "a", false),
            ("é?", "éß", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(50), &"a".repeat(40)));
    }
}
