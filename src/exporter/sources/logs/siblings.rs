//! The files that a log was rotated to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tail::{Tail, Time, modified};

/// How many are looked into: the newest.
const MOST: usize = 64;
/// How many names are looked at, and for how long: the folder may hold anything.
const NAMES: usize = 10_000;
const TIME: Duration = Duration::from_secs(2);

/// The rotated files of the log at `path`, opened one by one, the newest last. Compressed ones are none: what is in them was read before.
pub(super) fn of(path: &Path, now: Instant) -> impl Iterator<Item = Tail> + use<> {
    let base = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let own = path.parent();
    // A link to the file of the day has its older files beside that one.
    let target = fs::canonicalize(path).ok();
    let target = target.as_deref().and_then(Path::parent);
    let mut found: Vec<(Time, PathBuf)> = Vec::new();
    for folder in own.into_iter().chain(target.filter(|target| own != Some(target))) {
        let start = Instant::now();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(NAMES) {
            if start.elapsed() > TIME {
                break;
            }
            if entry.file_name().to_str().is_some_and(|name| is_rotated(base, name))
                && let Ok(stat) = fs::metadata(entry.path())
            {
                found.push((modified(&stat), entry.path()));
            }
        }
    }
    found.sort();
    let newest = found.len().saturating_sub(MOST);
    let newest = found.into_iter().skip(newest);
    newest.filter_map(move |(_, path)| Tail::open(&path, now).ok())
}

/// Whether `name` is what rotators make of `base`: `rosey.log.1`, `rosey.log-20260131`, `rosey.log.2026-01-31_12`, `rosey.log.old`,
/// `rosey.1.log`, `rosey-2026-01-31.log`; and not `rosey-2.log`, which is the log of a second bot.
fn is_rotated(base: &str, name: &str) -> bool {
    let numbered = |part: &str| {
        part.starts_with(['.', '-', '_'])
            && part.contains(|c: char| c.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_digit() || b".-_:TZ+".contains(&b))
    };
    if let Some(rest) = name.strip_prefix(base) {
        return rest == ".old" || numbered(rest);
    }
    let Some((stem, extension)) = base.rsplit_once('.') else {
        return false;
    };
    let middle = name
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_suffix(extension)?.strip_suffix('.'));
    middle.is_some_and(|middle| {
        let digits = middle.bytes().filter(u8::is_ascii_digit).count();
        numbered(middle) && (middle.starts_with('.') || digits >= 6)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_names_are_known_and_those_of_other_logs_are_not() {
        for name in [
            "rosey.log.1",
            "rosey.log.10",
            "rosey.log-20260131",
            "rosey.log.2026-01-31_12",
            "rosey.log.2026-01-31T12:00:00Z",
            "rosey.log.old",
            "rosey.1.log",
            "rosey-2026-01-31.log",
            "rosey_20260131.log",
        ] {
            assert!(is_rotated("rosey.log", name), "{name}");
        }
        for name in [
            "rosey.log",
            "rosey.log.1.gz",
            "rosey.log-20260131.zst",
            "rosey.log.",
            "rosey.log.bak",
            "rosey.log.1.tmp",
            "rosey-2.log",
            "rosey_02.log",
            "rosey.access.log",
            "rosey.logger",
            "other.log.1",
            ".rosey.log.swp",
        ] {
            assert!(!is_rotated("rosey.log", name), "{name}");
        }
        assert!(is_rotated("log", "log.1") && is_rotated("log", "log-20260131"));
        assert!(!is_rotated("log", "logs") && !is_rotated("log", "log"));
    }
}
