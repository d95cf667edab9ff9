//! An image as one file that Docker, kind and containerd load and that is an OCI layout too. The same input gives the same bytes on any
//! machine: order, times, owners and compression are ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::dockerfile::{Copy, Dockerfile};

/// What is not in the Dockerfile because it changes with every build.
pub(crate) struct Identity<'a> {
    /// `repository:tag`.
    pub(crate) name: &'a str,
    /// Labels over those of the file.
    pub(crate) labels: BTreeMap<String, String>,
    /// Seconds since 1970: the time of every file in it, and of itself.
    pub(crate) epoch: u64,
    /// As OCI calls it: amd64, arm64.
    pub(crate) architecture: &'a str,
}

/// An image that was put together.
pub(crate) struct Image {
    /// The archive's bytes.
    pub(crate) archive: Vec<u8>,
    /// Digest of the manifest: what a registry calls the image by.
    pub(crate) digest: String,
    /// Digest of the configuration: what a Docker engine calls the image by.
    pub(crate) id: String,
    /// Bytes of the files in it, unpacked.
    pub(crate) unpacked: u64,
    /// Bytes of its layers as a registry would send them.
    pub(crate) packed: u64,
}

struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = sha256(&bytes);
        Self { bytes, digest }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    /// Where it lies in the archive.
    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

/// Puts an image together from the files in `folder`.
pub(crate) fn image(file: &Dockerfile, folder: &Path, identity: &Identity<'_>) -> Result<Image> {
    let (repository, tag) = identity
        .name
        .rsplit_once(':')
        .context("the name has no tag; write repository:tag")?;
    ensure!(
        !repository.is_empty() && !tag.contains('/'),
        "the name has no tag; write repository:tag"
    );
    let mut layers = Vec::new();
    let (mut diffs, mut history, mut unpacked) = (Vec::new(), Vec::new(), 0);
    let created = jiff::Timestamp::from_second(identity.epoch.try_into()?)?.to_string();
    for copy in &file.copies {
        let path = folder.join(&copy.from);
        let content = fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
        unpacked += content.len() as u64;
        let layer = layer(copy, &content, identity.epoch)?;
        diffs.push(sha256(&layer));
        history.push(json!({"created": created, "created_by": copy.line}));
        layers.push(Blob::new(gzip(&layer)?));
    }
    let mut labels = file.labels.clone();
    labels.extend(identity.labels.clone());
    labels.insert("org.opencontainers.image.created".into(), created.clone());
    let ports: BTreeMap<_, _> = file
        .ports
        .iter()
        .map(|port| (format!("{port}/tcp"), json!({})))
        .collect();
    let config = Blob::json(&json!({
        "created": created,
        "architecture": identity.architecture,
        "os": "linux",
        "config": {
            "User": file.user, "ExposedPorts": ports, "Entrypoint": file.entrypoint, "WorkingDir": "/", "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": history,
    }));
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": layers.iter().map(|layer| layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")).collect::<Vec<_>>(),
    }));
    let mut described = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    described["annotations"] = json!({
        "io.containerd.image.name": long_name(identity.name),
        "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    });
    // Docker's own list, for engines that do not read OCI's.
    let docker = json!([{
        "Config": config.path(),
        "RepoTags": [identity.name],
        "Layers": layers.iter().map(Blob::path).collect::<Vec<_>>(),
    }]);
    let mut files = BTreeMap::from([
        ("index.json".to_owned(), index.to_string().into_bytes()),
        ("manifest.json".to_owned(), docker.to_string().into_bytes()),
        (
            "oci-layout".to_owned(),
            json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes(),
        ),
    ]);
    let (digest, id) = (manifest.digest.clone(), config.digest.clone());
    let packed = layers.iter().map(|layer| layer.bytes.len() as u64).sum();
    for blob in layers.into_iter().chain([config, manifest]) {
        files.insert(blob.path(), blob.bytes);
    }
    let mut archive = Builder::new(Vec::new());
    for folder in ["blobs/", "blobs/sha256/"] {
        append(&mut archive, folder, EntryType::Directory, 0o755, &[], identity.epoch)?;
    }
    for (path, bytes) in files {
        append(&mut archive, &path, EntryType::Regular, 0o644, &bytes, identity.epoch)?;
    }
    Ok(Image {
        archive: archive.into_inner()?,
        digest,
        id,
        unpacked,
        packed,
    })
}

/// A file and the folders above it.
fn layer(copy: &Copy, content: &[u8], epoch: u64) -> Result<Vec<u8>> {
    let path = copy.to.trim_start_matches('/');
    let mut layer = Builder::new(Vec::new());
    for (end, _) in path.match_indices('/') {
        append(&mut layer, &path[..=end], EntryType::Directory, 0o755, &[], epoch)?;
    }
    append(&mut layer, path, EntryType::Regular, copy.mode, content, epoch)?;
    Ok(layer.into_inner()?)
}

fn append(to: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, mode: u32, content: &[u8], epoch: u64) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_path(path)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(epoch);
    header.set_size(content.len() as u64);
    header.set_cksum();
    Ok(to.append(&header, content)?)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in digest(&SHA256, bytes).as_ref() {
        // A string takes whatever is written to it.
        let _ = write!(hex, "{byte:02x}");
    }
    format!("sha256:{hex}")
}

/// The name in the form in which the kubelet asks containerd for it, which keeps what an archive calls an image by as it is.
fn long_name(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.into(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

#[cfg(test)]
mod tests;
