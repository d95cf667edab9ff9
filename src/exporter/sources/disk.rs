//! How full the bot's volumes are.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::{FILE_TIMEOUT, Lookup, Mount, Reading, Source, below};
use crate::catalogue::metrics::{
    DISK_FREE_BYTES, DISK_INODES, DISK_INODES_FREE, DISK_SIZE_BYTES, DISK_USAGE_BYTES, Metric,
};
use crate::exporter::page::Page;
use crate::sidecar::config;

/// The file systems of the configured folders.
pub(crate) struct Disk {
    folders: Arc<Vec<Folder>>,
    lookup: Lookup,
}

struct Folder {
    /// Value of the label `path`.
    label: String,
    path: PathBuf,
    /// The volume's own folder, where it is one of the pod's.
    mount: Option<Mount>,
}

impl Disk {
    pub fn new(rootfs: &Path, disks: &[config::Disk]) -> Self {
        let folders = disks
            .iter()
            .map(|disk| Folder {
                label: disk.label.clone(),
                path: below(rootfs, &disk.path),
                mount: Mount::of(rootfs, &disk.path),
            })
            .collect();
        Self {
            folders: Arc::new(folders),
            lookup: Lookup::new(),
        }
    }
}

impl Source for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn timeout(&self) -> Duration {
        FILE_TIMEOUT
    }

    fn families(&self) -> &'static [&'static Metric] {
        &[
            &DISK_USAGE_BYTES,
            &DISK_SIZE_BYTES,
            &DISK_FREE_BYTES,
            &DISK_INODES,
            &DISK_INODES_FREE,
        ]
    }

    fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
        let folders = self.folders.clone();
        Box::pin(async move { self.lookup.ask(move || look(&folders)).await })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sample is a double; it is exact up to 8 PiB"
)]
fn look(folders: &[Folder]) -> Reading {
    let mut page = Page::default();
    let mut problems = Vec::new();
    for Folder { label, path, mount } in folders {
        match rustix::fs::statvfs(path) {
            Ok(found) => {
                let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize) as f64;
                let label = &[("path", label.as_str())];
                page.add(
                    &DISK_USAGE_BYTES,
                    label,
                    bytes(found.f_blocks.saturating_sub(found.f_bfree)),
                );
                page.add(&DISK_SIZE_BYTES, label, bytes(found.f_blocks));
                page.add(&DISK_FREE_BYTES, label, bytes(found.f_bavail));
                // btrfs and others make inodes as they need them, and say 0.
                if found.f_files > 0 {
                    page.add(&DISK_INODES, label, found.f_files as f64);
                    page.add(&DISK_INODES_FREE, label, found.f_ffree as f64);
                }
            }
            Err(Errno::NOENT) if matches!(mount.as_ref().map(Mount::is_missing), Some(Ok(true))) => {}
            Err(error) => problems.push(format!("{label} ({}): {error}", path.display())),
        }
    }
    Reading {
        problem: (!problems.is_empty()).then(|| problems.join("; ")),
        ..Reading::of(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::VOLUMES_DIR;

    #[test]
    fn a_folder_that_is_missing_costs_only_its_own_series() {
        let folder = |label: &str, path: &str| Folder {
            label: label.into(),
            path: path.into(),
            mount: None,
        };
        let folders = [folder("data:/", "/"), folder("logs:/", "/does/not/exist")];
        let reading = look(&folders);
        let page = reading.page.text();
        assert!(
            reading
                .problem
                .is_some_and(|problem| problem.starts_with("logs:/ (/does/not/exist): No such file"))
        );
        assert!(!page.contains("logs:/"));
        let value = |name: &str| -> f64 {
            let start = format!("{name}{{path=\"data:/\"}} ");
            page.lines()
                .find_map(|line| line.strip_prefix(&start))
                .unwrap()
                .parse()
                .unwrap()
        };
        let (used, size, free) = (
            value("rosey_disk_usage_bytes"),
            value("rosey_disk_size_bytes"),
            value("rosey_disk_free_bytes"),
        );
        assert!(used > 0.0 && free > 0.0 && used + free <= size, "{used} {free} {size}");
    }

    #[test]
    fn inodes_are_told_where_there_is_a_number_of_them() {
        let inodes = |path: &str| {
            let folder = Folder {
                label: "x".into(),
                path: path.into(),
                mount: None,
            };
            let page = look(&[folder]).page.text();
            let value = |name: &str| -> Option<f64> {
                let value = page
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix("{path=\"x\"} "));
                value.map(|value| value.parse().unwrap())
            };
            (value("rosey_disk_inodes"), value("rosey_disk_inodes_free"))
        };
        // The kernel gives a number for /dev/shm, and none for /proc.
        let (all, free) = inodes("/dev/shm");
        assert!(free.unwrap() > 0.0 && free <= all, "{free:?} {all:?}");
        assert_eq!(inodes("/proc"), (None, None));
    }

    #[test]
    fn a_volume_that_is_not_mounted_in_this_pod_has_no_series_and_is_no_failure() {
        let root = tempfile::tempdir().unwrap();
        let disks = [config::Disk {
            label: "data:/".into(),
            path: format!("{VOLUMES_DIR}/data/"),
        }];
        let reading = look(&Disk::new(root.path(), &disks).folders);
        assert_eq!((reading.page.text().as_str(), reading.problem), ("", None));

        // The volume is there, its folder is not: that is a mistake to be told.
        std::fs::create_dir_all(root.path().join(VOLUMES_DIR.trim_start_matches('/')).join("data")).unwrap();
        let inside = [config::Disk {
            label: "data:/x".into(),
            path: format!("{VOLUMES_DIR}/data/x"),
        }];
        assert!(look(&Disk::new(root.path(), &inside).folders).problem.is_some());
    }
}
