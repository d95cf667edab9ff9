//! How large a backup is. Folders are entered by their handles and links are not followed: whoever writes the backups could otherwise
//! lead us anywhere.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

/// Files and folders that are looked at.
const ENTRIES: u32 = 20_000;
/// Folders inside of each other.
const DEPTH: u32 = 16;

/// Why there is no size.
#[derive(Debug, thiserror::Error)]
pub(super) enum SizeError {
    #[error("{0}")]
    Unreadable(#[from] Errno),
    #[error("it is neither a file nor a folder")]
    OtherKind,
    #[error("it has more than {ENTRIES} files")]
    TooMany,
    #[error("its folders are more than {DEPTH} deep")]
    TooDeep,
    #[error("it has too many files to look at in time")]
    TooLate,
}

/// Bytes of the file, or of all the files in the folder.
///
/// # Errors
/// When not all of it can be looked at until `deadline`; there is no size of a part.
pub(super) fn size(path: &Path, deadline: Instant) -> Result<u64, SizeError> {
    let mut walk = Walk {
        left: ENTRIES,
        deadline,
    };
    let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(length(stat.st_size)),
        FileType::Directory => {
            let folder = openat(CWD, path, FOLDER, Mode::empty())?;
            walk.folder(folder.as_fd(), DEPTH)
        }
        _ => Err(SizeError::OtherKind),
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn length(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}

struct Walk {
    left: u32,
    deadline: Instant,
}

impl Walk {
    fn folder(&mut self, folder: BorrowedFd<'_>, depth: u32) -> Result<u64, SizeError> {
        let depth = depth.checked_sub(1).ok_or(SizeError::TooDeep)?;
        let mut bytes = 0_u64;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                bytes = bytes.saturating_add(self.entry(folder, name, depth)?);
            }
        }
        Ok(bytes)
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<u64, SizeError> {
        self.left = self.left.checked_sub(1).ok_or(SizeError::TooMany)?;
        if Instant::now() > self.deadline {
            return Err(SizeError::TooLate);
        }
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(length(stat.st_size)),
            FileType::Directory => {
                let inner = openat(folder, name, FOLDER, Mode::empty())?;
                self.folder(inner.as_fd(), depth)
            }
            // A link, a pipe or a device holds nothing of the backup.
            _ => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    fn in_time(path: &Path) -> Result<u64, String> {
        size(path, Instant::now() + Duration::from_secs(60)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_folder_is_as_large_as_the_files_in_it_and_links_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let (backup, outside) = (root.path().join("backup"), root.path().join("outside"));
        fs::create_dir_all(backup.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("large"), "x".repeat(10_000)).unwrap();
        fs::write(backup.join("one"), "x".repeat(5)).unwrap();
        fs::write(backup.join("a/b/two"), "x".repeat(70)).unwrap();
        symlink(&outside, backup.join("a/folder")).unwrap();
        symlink(outside.join("large"), backup.join("a/file")).unwrap();
        symlink("..", backup.join("a/round")).unwrap();
        assert_eq!(in_time(&backup), Ok(75));
        assert_eq!(in_time(&backup.join("one")), Ok(5));

        symlink(&backup, root.path().join("latest")).unwrap();
        assert!(in_time(&root.path().join("latest")).unwrap_err().contains("neither"));
        assert!(in_time(&root.path().join("nothing")).is_err());
    }

    #[test]
    fn a_folder_that_can_not_be_looked_at_whole_has_no_size() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("d/".repeat(20))).unwrap();
        assert!(in_time(root.path()).unwrap_err().contains("deep"));

        let flat = tempfile::tempdir().unwrap();
        fs::write(flat.path().join("file"), "x").unwrap();
        let late = size(flat.path(), Instant::now().checked_sub(Duration::from_secs(1)).unwrap());
        assert!(matches!(late, Err(SizeError::TooLate)));
        for number in 0..ENTRIES {
            fs::File::create(flat.path().join(number.to_string())).unwrap();
        }
        assert!(in_time(flat.path()).unwrap_err().contains("more than"));
    }
}
