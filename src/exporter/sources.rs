//! What the exporter reads when it is scraped: one file per source.

pub(crate) mod backups;
pub(crate) mod deployments;
pub(crate) mod disk;
mod document;
pub(crate) mod fetch;
pub(crate) mod health;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod plugins;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::bounds::Dropped;
use super::page::Page;
use super::text::Draft;
use crate::catalogue::metrics::Metric;
use crate::sidecar::VOLUMES_DIR;

/// Something that is read at each scrape.
pub(crate) trait Source: Send + Sync {
    /// Value of the label `source`.
    fn name(&self) -> &'static str;
    /// The longest that a reading may take.
    fn timeout(&self) -> Duration;
    /// The families that come from here and from nowhere else, so that the bot's own metrics can't speak for them. They stay the
    /// same for as long as the source exists.
    fn families(&self) -> &'static [&'static Metric];
    /// Reads it once; dropping the future ends the reading.
    fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>>;
    /// What is said of a source that gave no answer in time.
    fn unanswered(&self) -> Page {
        Page::default()
    }
}

/// What one reading found.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub page: Page,
    /// What stands before the page, where a source writes its text itself.
    pub text: Draft,
    /// Samples left out.
    pub dropped: Dropped,
    /// Why the source, or a part of it, could not be read.
    pub problem: Option<String>,
}

impl Reading {
    pub fn of(page: Page) -> Self {
        Self {
            page,
            ..Self::default()
        }
    }

    pub fn failed(page: Page, problem: impl Into<String>) -> Self {
        Self {
            page,
            problem: Some(problem.into()),
            ..Self::default()
        }
    }
}

/// How long looking at a folder may take; a network file system can hang for ever.
const FILE_TIMEOUT: Duration = Duration::from_secs(2);

/// `path` below `rootfs`, whose own root it stays in.
pub(crate) fn below(rootfs: &Path, path: &str) -> PathBuf {
    let inside = Path::new(path)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    rootfs.join(inside.collect::<PathBuf>())
}

/// Where a volume of the pod should be mounted. The configuration follows the monitor at once, mounts are fixed when the pod is
/// created: of a volume that is not there nothing is known, and nothing is broken. The monitor's condition Injected names it.
#[derive(Debug)]
struct Mount {
    /// Where all volumes are mounted.
    volumes: PathBuf,
    name: OsString,
    told: AtomicBool,
}

impl Mount {
    /// That of `path`, if it is among the pod's volumes.
    fn of(rootfs: &Path, path: &str) -> Option<Self> {
        let inside = Path::new(path).strip_prefix(VOLUMES_DIR).ok()?;
        let volume = inside.components().next()?;
        Some(Self {
            volumes: below(rootfs, VOLUMES_DIR),
            name: volume.as_os_str().to_owned(),
            told: AtomicBool::new(false),
        })
    }

    /// Whether it is missing; the log says so once. The names beside it tell that, which are the container's own: to ask the volume
    /// itself would wait for its file system.
    fn is_missing(&self) -> std::io::Result<bool> {
        let names = match self.volumes.read_dir() {
            Ok(names) => Some(names),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut missing = true;
        for entry in names.into_iter().flatten() {
            if entry?.file_name() == self.name {
                missing = false;
                break;
            }
        }
        if missing && !self.told.swap(true, Ordering::Relaxed) {
            let folder = self.volumes.join(&self.name);
            tracing::warn!(folder = %folder.display(), "the volume is not mounted in this pod, so nothing is said of it");
        }
        Ok(missing)
    }
}

/// A question to the file system, asked outside of the event loop and never twice at once: one that hangs holds one thread, not
/// one more with every scrape.
struct Lookup {
    busy: Arc<AtomicBool>,
}

struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Lookup {
    fn new() -> Self {
        Self { busy: Arc::default() }
    }

    async fn ask(&self, question: impl FnOnce() -> Reading + Send + 'static) -> Reading {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Reading::failed(
                Page::default(),
                "the file system has not answered the previous scrape yet",
            );
        }
        let done = Done(self.busy.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let _done = done;
            question()
        });
        asked
            .await
            .unwrap_or_else(|error| Reading::failed(Page::default(), error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_below_the_root_file_system() {
        assert_eq!(
            below(Path::new("/lab/pod"), "/var/lib/x"),
            Path::new("/lab/pod/var/lib/x")
        );
        assert_eq!(
            below(Path::new("/"), "/etc/rosey/exporter.yaml"),
            Path::new("/etc/rosey/exporter.yaml")
        );
        assert_eq!(below(Path::new("/lab/pod"), "/../../etc"), Path::new("/lab/pod/etc"));
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_holds_one_thread_only() {
        let lookup = Lookup::new();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let hanging = lookup.ask(move || {
            let _ = held.recv();
            Reading::default()
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), hanging).await.is_err());
        let second = lookup.ask(Reading::default).await;
        assert!(
            second
                .problem
                .is_some_and(|problem| problem.contains("previous scrape"))
        );
        drop(release);
        while lookup.ask(Reading::default).await.problem.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
