//! What a push needs from files: a password, and the certificates that the gateway is believed by.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;

use super::group::Target;
use crate::exporter::sources::below;

/// Bytes of a password file; bcrypt, for example, takes 72.
const PASSWORD_BYTES: u64 = 4 << 10;
/// Bytes of a file of certificates; that of a whole system has 220 KiB.
const CERTIFICATES_BYTES: u64 = 2 << 20;
/// A file system that hangs must not hold up the next push, nor the end.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// How the gateway is spoken to. Nothing of it is kept from one push to the next.
#[derive(Clone, Default)]
pub(super) struct Access {
    pub authorization: Option<HeaderValue>,
    /// What must not be seen in a log.
    pub secrets: Vec<String>,
    /// For an https address.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    #[error("{field}: {file}: {error}")]
    File {
        field: &'static str,
        file: String,
        error: std::io::Error,
    },
    #[error("{field}: {file} is larger than {limit} bytes")]
    TooLarge {
        field: &'static str,
        file: String,
        limit: u64,
    },
    #[error("pushgateway.passwordFile: {0} is empty")]
    NoPassword(String),
    #[error("pushgateway.caFile: {file}: {reason}")]
    Certificates { file: String, reason: String },
    #[error(
        "pushgateway.caFile: no certificates of the system were found; write a file with those of the gateway ({0})"
    )]
    NoSystemCertificates(String),
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the file system of the password or the certificates does not answer")]
    Hangs,
    #[error("the files can't be read: {0}")]
    Reader(#[from] tokio::task::JoinError),
}

/// Reads the files, one read at a time: one that hangs can't be ended, and each further one would hold a thread too.
pub(super) struct Files {
    rootfs: PathBuf,
    reading: Option<(Target, JoinHandle<Result<Access, AccessError>>)>,
}

impl Files {
    pub fn new(rootfs: PathBuf) -> Self {
        Self { rootfs, reading: None }
    }

    pub async fn access(&mut self, target: &Target) -> Result<Access, AccessError> {
        if target.gateway.password_file.is_none() && !target.gateway.url.starts_with("https:") {
            return Ok(Access::default());
        }
        loop {
            let (of, read) = self.reading.get_or_insert_with(|| {
                let (rootfs, of) = (self.rootfs.clone(), target.clone());
                let read = move || read(&rootfs, &of);
                (target.clone(), tokio::task::spawn_blocking(read))
            });
            let done = tokio::time::timeout(READ_TIMEOUT, read).await;
            let done = done.map_err(|_| AccessError::Hangs)?;
            let fits = of == target;
            self.reading = None;
            if fits {
                return done?;
            }
        }
    }
}

fn read(rootfs: &Path, target: &Target) -> Result<Access, AccessError> {
    let gateway = &target.gateway;
    let mut access = Access::default();
    if let (Some(username), Some(file)) = (&gateway.username, &gateway.password_file) {
        let bytes = bounded(rootfs, "pushgateway.passwordFile", file, PASSWORD_BYTES)?;
        let password = String::from_utf8_lossy(&bytes);
        // An editor ends the line; the password goes on to whoever types it.
        let password = password.strip_suffix('\n').unwrap_or(&password);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.is_empty() {
            return Err(AccessError::NoPassword(file.clone()));
        }
        let credentials = BASE64_STANDARD.encode(format!("{username}:{password}"));
        access.authorization = HeaderValue::try_from(format!("Basic {credentials}")).ok();
        access.secrets = vec![password.to_owned(), credentials];
    }
    if gateway.url.starts_with("https:") {
        let trusted = match &gateway.ca_file {
            Some(file) => named(file, &bounded(rootfs, "pushgateway.caFile", file, CERTIFICATES_BYTES)?)?,
            None => of_the_system()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        access.tls = Some(Arc::new(config));
    }
    Ok(access)
}

fn bounded(rootfs: &Path, field: &'static str, file: &str, limit: u64) -> Result<Vec<u8>, AccessError> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(below(rootfs, file)).and_then(|opened| opened.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|error| AccessError::File {
        field,
        file: file.to_owned(),
        error,
    })?;
    if bytes.len() as u64 > limit {
        return Err(AccessError::TooLarge {
            field,
            file: file.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

fn named(file: &str, pem: &[u8]) -> Result<RootCertStore, AccessError> {
    let refuse = |reason: String| AccessError::Certificates {
        file: file.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refuse(format!("is not PEM: {error}")))?;
        let number = roots.len() + 1;
        roots
            .add(certificate)
            .map_err(|error| refuse(format!("certificate {number}: {error}")))?;
    }
    if roots.is_empty() {
        return Err(refuse("has no certificate in it".into()));
    }
    Ok(roots)
}

fn of_the_system() -> Result<RootCertStore, AccessError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found
            .errors
            .first()
            .map_or_else(|| "nothing is there".into(), ToString::to_string);
        return Err(AccessError::NoSystemCertificates(why));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::config::Config;

    fn target(folder: &Path, more: &str) -> Target {
        let password = folder.join("password");
        let password = password.display();
        let text = format!("pushgateway: {{username: rosey, passwordFile: '{password}', {more}}}");
        let config: Config = serde_saphyr::from_str(&text).unwrap();
        config.check().unwrap();
        Target::of(&config, "host").unwrap()
    }

    #[test]
    fn a_password_is_its_file_without_the_end_of_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let target = target(folder.path(), "url: 'http://gateway:9091'");
        let with = |content: &str| {
            std::fs::write(folder.path().join("password"), content).unwrap();
            read(Path::new("/"), &target)
        };
        for content in ["se:cret ü", "se:cret ü\n", "se:cret ü\r\n"] {
            let header = with(content).unwrap().authorization.unwrap();
            let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
            assert_eq!(BASE64_STANDARD.decode(encoded).unwrap(), "rosey:se:cret ü".as_bytes());
        }
        let refusal = |content: &str| with(content).err().unwrap().to_string();
        assert!(refusal("\n").ends_with("is empty"));
        assert!(refusal(&"x".repeat(5000)).ends_with("is larger than 4096 bytes"));
        std::fs::remove_file(folder.path().join("password")).unwrap();
        let missing = read(Path::new("/"), &target).err().unwrap().to_string();
        assert!(missing.starts_with("pushgateway.passwordFile: /"), "{missing}");
    }

    #[test]
    fn certificates_that_are_none_are_refused_with_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(folder.path().join("password"), "x").unwrap();
        let target = target(
            folder.path(),
            &format!("url: 'https://gateway', caFile: '{}'", file.display()),
        );
        for (content, reason) in [
            ("", "has no certificate in it"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "certificate 1: ",
            ),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "is not PEM: "),
        ] {
            std::fs::write(&file, content).unwrap();
            let refusal = read(Path::new("/"), &target).err().unwrap().to_string();
            assert!(
                refusal.starts_with("pushgateway.caFile: /") && refusal.contains(reason),
                "{content}: {refusal}"
            );
        }
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_holds_one_thread() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("password");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let target = target(folder.path(), "url: 'http://gateway:9091'");
        let mut files = Files::new("/".into());
        for _ in 0..2 {
            assert!(matches!(files.access(&target).await, Err(AccessError::Hangs)));
        }
        // Whoever hung is let go, and what it read is for another target.
        let writer = tokio::task::spawn_blocking(move || {
            std::fs::write(&pipe, "old").unwrap();
            std::fs::remove_file(&pipe).unwrap();
            std::fs::write(&pipe, "new").unwrap();
        });
        writer.await.unwrap();
        let mut other = target.clone();
        other.url.push_str("/other/group");
        let access = files.access(&other).await.unwrap();
        assert_eq!(access.secrets[0], "new");
    }
}
