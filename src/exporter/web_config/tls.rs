//! TLS as the file asks for it, in what rustls with ring can do.

use std::sync::Arc;

use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{NamedGroup, ProtocolVersion, ServerConfig, SupportedCipherSuite};

use super::Refusal;
use super::clients::Verifier;
use super::file::{Clients, Source, Tls};

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// A cipher suite that is on offer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite(SupportedCipherSuite);

/// A key exchange that is on offer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Curve(NamedGroup);

const SUITES: [(&str, SupportedCipherSuite); 9] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_AES_128_GCM_SHA256", cipher_suite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", cipher_suite::TLS13_AES_256_GCM_SHA384),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

impl Suite {
    /// The suite of that name in Go's crypto/tls.
    pub fn named(name: &str) -> Result<Self, String> {
        let known = SUITES.iter().find(|(known, _)| *known == name);
        known.map(|(_, suite)| Self(*suite)).ok_or_else(|| {
            let known = SUITES.map(|(known, _)| known).join(", ");
            format!("{name:?} is not offered; those that are: {known}")
        })
    }

    pub fn version(&self) -> Version {
        match self.0 {
            SupportedCipherSuite::Tls12(_) => Version::Tls12,
            SupportedCipherSuite::Tls13(_) => Version::Tls13,
        }
    }

    pub fn is_required_by_http2(&self) -> bool {
        [
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ]
        .contains(&self.0)
    }
}

impl Curve {
    /// The curve of that name in Go's crypto/tls.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "X25519" => Ok(Self(NamedGroup::X25519)),
            "CurveP256" => Ok(Self(NamedGroup::secp256r1)),
            "CurveP384" => Ok(Self(NamedGroup::secp384r1)),
            _ => Err(format!("{name:?} is not offered; write X25519, CurveP256 or CurveP384")),
        }
    }
}

/// The PEM texts that the file names.
pub(super) struct Texts {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
    pub client_ca: Option<Vec<u8>>,
}

fn refuse(source: &Source, reason: impl std::fmt::Display) -> Refusal {
    let place = match source {
        Source::File(_, path) => format!("{}: ", path.display()),
        Source::Inline(..) => String::new(),
    };
    Refusal::Field {
        field: format!("tls_server_config.{}", source.field()),
        reason: format!("{place}{reason}"),
    }
}

fn certificates(source: &Source, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(refuse(source, "holds no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(error) => Err(refuse(source, error)),
    }
}

/// What a server needs in order to speak TLS.
pub(super) fn server(tls: &Tls, http2: bool, texts: &Texts) -> Result<Arc<ServerConfig>, Refusal> {
    let mut provider = default_provider();
    if let Some(suites) = &tls.suites {
        // As in Go the list says nothing of TLS 1.3, whose three suites are all good.
        let listed = |suite: &SupportedCipherSuite| {
            suite.version().version == ProtocolVersion::TLSv1_3 || suites.iter().any(|Suite(listed)| listed == suite)
        };
        provider.cipher_suites.retain(listed);
    }
    if let Some(curves) = &tls.curves {
        let all = provider.kx_groups;
        let offered = |curve: &Curve| all.iter().copied().find(|group| group.name() == curve.0);
        provider.kx_groups = curves.iter().filter_map(offered).collect();
    }
    let provider = Arc::new(provider);
    let versions: Vec<_> = tls
        .versions
        .iter()
        .map(|version| match version {
            Version::Tls12 => &rustls::version::TLS12,
            Version::Tls13 => &rustls::version::TLS13,
        })
        .collect();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| refuse(&tls.cert, error))?;

    let builder = if tls.clients == Clients::NoCert {
        builder.with_no_client_auth()
    } else {
        let trusted = match (&tls.client_ca, &texts.client_ca) {
            (Some(source), Some(text)) => certificates(source, text)?,
            _ => Vec::new(),
        };
        let verifier = Verifier::new(tls.clients, trusted, tls.allowed_sans.clone(), &provider)
            .map_err(|error| refuse(tls.client_ca.as_ref().unwrap_or(&tls.cert), error))?;
        builder.with_client_cert_verifier(Arc::new(verifier))
    };
    let chain = certificates(&tls.cert, &texts.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&texts.key).map_err(|error| {
        refuse(
            &tls.key,
            match error {
                pem::Error::NoItemsFound => "holds no private key in PEM".to_owned(),
                other => other.to_string(),
            },
        )
    })?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => refuse(&tls.key, "is not the key of the certificate"),
        rustls::Error::InvalidCertificate(_) => refuse(&tls.cert, error),
        other => {
            let reason = format!("{other}; write an RSA key of 2048 bits or more, or one of P-256, P-384 or Ed25519");
            refuse(&tls.key, reason)
        }
    })?;
    // A session that is resumed would not show its certificate again, whoever the file trusts by then; and each one is memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
