//! Which local command stands for which image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// What runs where a pod names an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// This command is the image's entry point. A container's `command` whose file name is the same means it too.
    Binary(PathBuf),
    /// The container's `command` runs as it stands, with the machine's own programs, as `busybox` would bring.
    Host,
    /// Nothing runs, but the container is reported as running: for many pods at once.
    NoProcess,
    /// Can't be pulled.
    Missing,
}

impl From<PathBuf> for Image {
    fn from(path: PathBuf) -> Self {
        Self::Binary(path)
    }
}

impl From<&Path> for Image {
    fn from(path: &Path) -> Self {
        Self::Binary(path.to_owned())
    }
}

impl From<&str> for Image {
    fn from(path: &str) -> Self {
        Self::Binary(path.into())
    }
}

/// The table of images. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    table: Arc<Mutex<BTreeMap<String, Image>>>,
    pub(crate) changed: watch::Sender<()>,
}

impl Images {
    pub(crate) fn new(given: BTreeMap<String, Image>) -> Self {
        let mut table = BTreeMap::from([
            ("busybox".to_owned(), Image::Host),
            ("pause".to_owned(), Image::NoProcess),
            ("registry.k8s.io/pause".to_owned(), Image::NoProcess),
        ]);
        table.extend(given);
        Self {
            table: Arc::new(Mutex::new(table)),
            changed: watch::channel(()).0,
        }
    }

    pub(crate) fn set(&self, reference: &str, image: Image) {
        self.table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(reference.to_owned(), image);
        self.changed.send_replace(());
    }

    /// An entry for the whole reference wins over one for its repository.
    pub(crate) fn find(&self, reference: &str) -> Image {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let short = reference
            .trim_start_matches("docker.io/")
            .trim_start_matches("library/");
        [reference, repository(reference), short, repository(short)]
            .into_iter()
            .find_map(|name| table.get(name))
            .cloned()
            .unwrap_or(Image::Missing)
    }
}

/// The reference without tag and digest; a colon before the last slash belongs to a port.
fn repository(reference: &str) -> &str {
    let reference = reference.split_once('@').map_or(reference, |(before, _)| before);
    match reference.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => reference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_its_repository_unless_the_whole_reference_is_in_the_table() {
        let images = Images::new(BTreeMap::from([
            ("localhost:5000/exporter".to_owned(), Image::from("/bin/exporter")),
            ("localhost:5000/exporter:broken".to_owned(), Image::Missing),
        ]));
        assert_eq!(images.find("localhost:5000/exporter"), Image::from("/bin/exporter"));
        assert_eq!(
            images.find("localhost:5000/exporter:1.2@sha256:abc"),
            Image::from("/bin/exporter")
        );
        assert_eq!(images.find("localhost:5000/exporter:broken"), Image::Missing);
        assert_eq!(images.find("docker.io/library/busybox:1.36"), Image::Host);
        assert_eq!(images.find("exporter"), Image::Missing);
    }
}
