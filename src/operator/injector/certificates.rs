//! The injector's own authority and the certificate that it serves: made, read and judged here, without a client or a clock.
//!
//! All of it lives in one Secret that the replicas share. A new authority is put into the bundle first, while the old leaf
//! goes on being served; only once the API server trusts the new bundle does a leaf of the new authority follow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

mod making;

use making::{new_authority, new_leaf};

const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const LEAF: &str = "tls.crt";
const LEAF_KEY: &str = "tls.key";
const BUNDLE: &str = "ca-bundle.crt";

/// Largest value that is read from the Secret, in bytes; ours stay below 4 KiB.
const MAX_VALUE: usize = 64 * 1024;
/// Most authorities in the bundle: the current one and those that may still have signed what is served.
const MAX_AUTHORITIES: usize = 3;
const END_OF_DOCUMENT: &str = "-----END CERTIFICATE-----\n";

/// Why certificates can't be made or read. No message carries key material.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A key of the Secret is missing.
    #[error("key {0} is missing")]
    Missing(&'static str),
    /// A key of the Secret is too large to be ours.
    #[error("key {0} is larger than {MAX_VALUE} bytes")]
    TooLarge(&'static str),
    /// A key of the Secret does not hold what its name says.
    #[error("key {0} does not hold a valid PEM document of its kind")]
    Unreadable(&'static str),
    /// Two keys of the Secret don't belong together.
    #[error("{0} does not belong to {1}")]
    Mismatch(&'static str, &'static str),
    /// A certificate can't be made.
    #[error("a certificate can't be made: {0}")]
    Making(#[from] rcgen::Error),
}

/// How long certificates live. They are renewed at two thirds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// Life of the authority.
    pub authority: Duration,
    /// Life of the certificate that is served; at most a third of the authority's makes sense.
    pub leaf: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            authority: Duration::from_secs(365 * 86_400),
            leaf: Duration::from_secs(30 * 86_400),
        }
    }
}

/// From when to when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub from: i64,
    /// Last second.
    pub until: i64,
}

impl Validity {
    /// A validity of `life` that starts a little before `now`, for clocks that are behind.
    fn starting(now: i64, life: Duration) -> Self {
        let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX / 4);
        Self {
            from: now - (life / 30).min(3_600),
            until: now + life,
        }
    }

    /// When two thirds of it are over.
    #[must_use]
    pub fn renewal(self) -> i64 {
        self.from + (self.until - self.from) / 3 * 2
    }
}

/// What has to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// The certificate that is served: it is old, lacks a name, or was signed by an earlier authority.
    Leaf,
    /// The authority.
    Authority,
}

/// An authority, the certificate that is served, and the bundle that the API server is to trust.
#[derive(Clone)]
pub struct Certificates {
    data: BTreeMap<&'static str, String>,
    authority: Validity,
    leaf: Validity,
    names: BTreeSet<String>,
    current: bool,
    served: Arc<CertifiedKey>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            authority,
            leaf,
            names,
            current,
            ..
        } = self;
        write!(
            f,
            "Certificates {{ authority: {authority:?}, leaf: {leaf:?}, names: {names:?}, current: {current} }}"
        )
    }
}

impl PartialEq for Certificates {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl Certificates {
    /// A new authority and a leaf of it for `names` (DNS names or IP addresses) at `now`, in seconds since 1970. The
    /// authorities of `earlier` stay in the bundle.
    ///
    /// # Errors
    /// A name that is not a DNS name, or a failing source of randomness.
    pub fn issue(names: &[String], lives: Lives, now: i64, earlier: Option<&Self>) -> Result<Self, CertificateError> {
        let mut data = new_authority(lives, now, earlier)?;
        data.extend(new_leaf(&data, names, lives, now)?);
        Self::assemble(data)
    }

    /// The same with a new authority, which nothing that is served depends on yet.
    ///
    /// # Errors
    /// A failing source of randomness.
    pub fn with_new_authority(&self, lives: Lives, now: i64) -> Result<Self, CertificateError> {
        let mut data = self.data.clone();
        data.extend(new_authority(lives, now, Some(self))?);
        Self::assemble(data)
    }

    /// The same with a new leaf for `names`, signed by the current authority.
    ///
    /// # Errors
    /// A name that is not a DNS name, or a failing source of randomness.
    pub fn with_new_leaf(&self, names: &[String], lives: Lives, now: i64) -> Result<Self, CertificateError> {
        let mut data = self.data.clone();
        data.extend(new_leaf(&data, names, lives, now)?);
        Self::assemble(data)
    }

    /// Reads the content of the Secret.
    ///
    /// # Errors
    /// Whatever makes it unfit for being served: a missing key, no PEM, a key of another certificate, a leaf that no
    /// authority of the bundle has signed.
    pub fn read(secret: &BTreeMap<String, ByteString>) -> Result<Self, CertificateError> {
        let mut data = BTreeMap::new();
        for key in [AUTHORITY, AUTHORITY_KEY, LEAF, LEAF_KEY, BUNDLE] {
            let value = secret.get(key).ok_or(CertificateError::Missing(key))?;
            if value.0.len() > MAX_VALUE {
                return Err(CertificateError::TooLarge(key));
            }
            let text = String::from_utf8(value.0.clone()).map_err(|_| CertificateError::Unreadable(key))?;
            data.insert(key, text);
        }
        Self::assemble(data)
    }

    fn assemble(data: BTreeMap<&'static str, String>) -> Result<Self, CertificateError> {
        let bundle = certificates(&data, BUNDLE)?;
        let authority_der = certificates(&data, AUTHORITY)?.remove(0);
        let (authority, _) = facts(&authority_der, AUTHORITY)?;
        let key = key(&data)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&authority_der).map_err(|_| CertificateError::Unreadable(AUTHORITY))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(CertificateError::Mismatch(AUTHORITY_KEY, AUTHORITY));
        }
        if !bundle.contains(&authority_der) {
            return Err(CertificateError::Mismatch(AUTHORITY, BUNDLE));
        }

        let chain = certificates(&data, LEAF)?;
        let (leaf, names) = facts(&chain[0], LEAF)?;
        if !signed(&chain[0], &bundle, &names, leaf) {
            return Err(CertificateError::Mismatch(LEAF, BUNDLE));
        }
        let current = signed(&chain[0], &[authority_der], &names, leaf);
        let leaf_key = PrivateKeyDer::from_pem_slice(value(&data, LEAF_KEY).as_bytes())
            .map_err(|_| CertificateError::Unreadable(LEAF_KEY))?;
        let served = CertifiedKey::from_der(chain, leaf_key, &provider())
            .map_err(|_| CertificateError::Mismatch(LEAF_KEY, LEAF))?;
        Ok(Self {
            data,
            authority,
            leaf,
            names,
            current,
            served: Arc::new(served),
        })
    }

    /// The content of the Secret.
    #[must_use]
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        self.data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.clone().into_bytes())))
            .collect()
    }

    /// What the API server is to trust: PEM, the current authority first.
    #[must_use]
    pub fn bundle(&self) -> &str {
        value(&self.data, BUNDLE)
    }

    /// The leaf with its key, as the TLS server wants it.
    #[must_use]
    pub fn served(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.served)
    }

    /// When the leaf is valid.
    #[must_use]
    pub fn leaf(&self) -> Validity {
        self.leaf
    }

    /// Whether the current authority has signed the leaf; false between the two steps of a change of authority.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// What has to be made anew at `now`, for a server that is called by `names`.
    #[must_use]
    pub fn due(&self, names: &[String], now: i64) -> Due {
        if now >= self.authority.renewal() {
            Due::Authority
        } else if now >= self.leaf.renewal() || !self.current || !names.iter().all(|name| self.names.contains(name)) {
            Due::Leaf
        } else {
            Due::Nothing
        }
    }

    /// When something will be due if nothing else changes, in seconds since 1970.
    #[must_use]
    pub fn next_due(&self) -> i64 {
        self.authority.renewal().min(self.leaf.renewal())
    }
}

/// The one TLS provider of the house.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn value<'a>(data: &'a BTreeMap<&'static str, String>, key: &'static str) -> &'a str {
    data.get(key).map_or("", String::as_str)
}

fn certificates(
    data: &BTreeMap<&'static str, String>,
    key: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(value(data, key).as_bytes()).collect();
    read.ok()
        .filter(|list| !list.is_empty())
        .ok_or(CertificateError::Unreadable(key))
}

fn key(data: &BTreeMap<&'static str, String>) -> Result<KeyPair, CertificateError> {
    KeyPair::from_pem(value(data, AUTHORITY_KEY)).map_err(|_| CertificateError::Unreadable(AUTHORITY_KEY))
}

/// Validity and subject alternative names.
fn facts(
    certificate: &CertificateDer<'_>,
    key: &'static str,
) -> Result<(Validity, BTreeSet<String>), CertificateError> {
    let unreadable = || CertificateError::Unreadable(key);
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
    let validity = parsed.validity();
    let mut names = BTreeSet::new();
    for name in parsed
        .subject_alternative_name()
        .map_err(|_| unreadable())?
        .iter()
        .flat_map(|e| &e.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => {
                names.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                names.extend(address.ok().map(|address| address.to_string()));
            }
            _ => {}
        }
    }
    Ok((
        Validity {
            from: validity.not_before.timestamp(),
            until: validity.not_after.timestamp(),
        },
        names,
    ))
}

/// Whether one of `authorities` has signed `leaf`, judged as a client does. The clock is left out: that is for [`Certificates::due`].
fn signed(
    leaf: &CertificateDer<'_>,
    authorities: &[CertificateDer<'_>],
    names: &BTreeSet<String>,
    valid: Validity,
) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().map(|der| der.clone().into_owned()));
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider())).build();
    let name = names.first().and_then(|name| ServerName::try_from(name.as_str()).ok());
    let moment = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(valid.from).unwrap_or_default()));
    match (verifier, name) {
        (Ok(verifier), Some(name)) => verifier.verify_server_cert(leaf, &[], &name, &[], moment).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
