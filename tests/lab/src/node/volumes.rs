//! Volumes as folders, and each container's root folder with its mounts as symbolic links.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, KeyToPath, Pod, Volume};

use super::Objects;

/// The folders of one pod.
pub(crate) struct Folders {
    pub(crate) pod: PathBuf,
}

impl Folders {
    /// Brings every volume up to date with its `ConfigMap` or Secret.
    ///
    /// # Errors
    /// When a `ConfigMap`, a Secret or a key is missing that is not optional, as kubelet would say it.
    pub(crate) fn refresh(&self, pod: &Pod, objects: &Objects) -> Result<()> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let folder = self.volume(&volume.name);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
            if let Some(files) = files(volume, namespace, objects)? {
                project(&folder, &files).with_context(|| format!("write volume {}", volume.name))?;
            }
        }
        Ok(())
    }

    /// The container's root folder, in which each `mountPath` is a link to its volume's folder.
    pub(crate) fn root(&self, container: &Container) -> Result<PathBuf> {
        let root = self.pod.join(&container.name).join("root");
        fs::create_dir_all(&root)?;
        let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
        // The outer mount first, so that one inside it lands in the outer volume, as it would with real mounts.
        mounts.sort_by_key(|mount| mount.mount_path.len());
        for mount in mounts {
            let link = below(&root, &mount.mount_path)?;
            let mut target = self.volume(&mount.name);
            if let Some(path) = mount.sub_path.as_deref().or(mount.sub_path_expr.as_deref()) {
                target = below(&target, path)?;
                if !target.exists() {
                    fs::create_dir_all(&target)?;
                }
            }
            if let Some(parent) = link.parent() {
                fs::create_dir_all(parent)?;
            }
            match symlink(&target, &link) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("link {} to {}", link.display(), target.display()));
                }
                _ => {}
            }
        }
        Ok(root)
    }

    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.pod.join("volumes").join(name)
    }
}

/// `path` taken as relative to `folder`; refuses to leave it.
fn below(folder: &Path, path: &str) -> Result<PathBuf> {
    let relative: PathBuf = Path::new(path)
        .components()
        .filter(|part| !matches!(part, Component::RootDir))
        .collect();
    if relative.components().any(|part| matches!(part, Component::ParentDir)) {
        bail!("{path}: `..` is not allowed in a mount");
    }
    Ok(folder.join(relative))
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The files of a `ConfigMap` or Secret volume; `None` for other kinds, which stay the folder that they are.
fn files(volume: &Volume, namespace: &str, objects: &Objects) -> Result<Option<Files>> {
    let (kind, name, optional, items, data) = if let Some(source) = &volume.config_map {
        (
            "configmap",
            source.name.as_str(),
            source.optional,
            &source.items,
            objects.config_map(namespace, &source.name),
        )
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        (
            "secret",
            name,
            source.optional,
            &source.items,
            objects.secret(namespace, name),
        )
    } else {
        return Ok(None);
    };
    let optional = optional.unwrap_or_default();
    let Some(data) = data else {
        if optional {
            return Ok(Some(Files::new()));
        }
        bail!(
            "MountVolume.SetUp failed for volume {:?}: {kind} {name:?} not found",
            volume.name
        );
    };
    select(data, items.as_deref(), optional)
        .with_context(|| {
            format!(
                "MountVolume.SetUp failed for volume {:?} ({kind} {name:?})",
                volume.name
            )
        })
        .map(Some)
}

fn select(mut data: BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>, optional: bool) -> Result<Files> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data
            .into_iter()
            .map(|(key, value)| (PathBuf::from(key), value))
            .collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.remove(&item.key) {
            Some(value) => _ = files.insert(below(Path::new(""), &item.path)?, value),
            None if optional => {}
            None => bail!("references non-existent config key: {}", item.key),
        }
    }
    Ok(files)
}

/// Writes the files as kubelet does: into a new folder, to which the link `..data` is then swapped in one step.
fn project(folder: &Path, files: &Files) -> Result<()> {
    let data = folder.join("..data");
    let old = fs::read_link(&data).ok();
    if old.is_some() && holds_exactly(&data, files) {
        return Ok(());
    }
    let fresh = format!("..{}", crate::random_hex());
    for (path, content) in files {
        let file = folder.join(&fresh).join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(file, content)?;
    }
    fs::create_dir_all(folder.join(&fresh))?;
    let swap = folder.join("..data_tmp");
    let _ = fs::remove_file(&swap);
    symlink(&fresh, &swap)?;
    fs::rename(&swap, &data)?;

    let tops: Vec<&str> = files.keys().filter_map(|path| path.iter().next()?.to_str()).collect();
    for top in &tops {
        if fs::symlink_metadata(folder.join(top)).is_err() {
            symlink(Path::new("..data").join(top), folder.join(top))?;
        }
    }
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !tops.contains(&name.as_str()) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        let _ = fs::remove_dir_all(folder.join(old));
    }
    Ok(())
}

fn holds_exactly(data: &Path, files: &Files) -> bool {
    fn count(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 })
            .sum()
    }
    count(data) == files.len()
        && files
            .iter()
            .all(|(path, content)| fs::read(data.join(path)).is_ok_and(|now| now == *content))
}
