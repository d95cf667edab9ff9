//! Certificates of clients: which of them may speak with us.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use super::file::Clients;

/// What `client_auth_type`, `client_ca_file` and `client_allowed_sans` ask for.
#[derive(Debug)]
pub(super) struct Verifier {
    clients: Clients,
    /// Who vouches for clients.
    authority: Option<Arc<dyn ClientCertVerifier>>,
    trusted: Vec<CertificateDer<'static>>,
    allowed_sans: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// `trusted` may be empty: then no certificate can be verified. Go would take the system's authorities, and let in whoever
    /// has a certificate from one of them, which nobody means.
    pub fn new(
        clients: Clients,
        trusted: Vec<CertificateDer<'static>>,
        allowed_sans: Option<Vec<String>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let authority = if trusted.is_empty() || !clients.verifies() {
            None
        } else {
            let mut roots = RootCertStore::empty();
            for certificate in &trusted {
                roots.add(certificate.clone()).map_err(|error| error.to_string())?;
            }
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            Some(builder.build().map_err(|error| error.to_string())?)
        };
        Ok(Self {
            clients,
            authority,
            trusted,
            allowed_sans,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &X509Certificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // A certificate that is itself in the list stands for itself, as in Go; webpki knows authorities only.
        if self.trusted.contains(certificate) {
            return stands_for_itself(parsed, now).map_err(Error::from);
        }
        let authority = self.authority.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        match authority.verify_client_cert(certificate, intermediates, now) {
            // Somebody else of the same name signed it: for us, and for Go, an authority that is not known.
            Err(Error::InvalidCertificate(CertificateError::BadSignature)) => {
                Err(CertificateError::UnknownIssuer.into())
            }
            verified => verified.map(|_| ()),
        }
    }
}

fn stands_for_itself(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let now = i64::try_from(now.as_secs())
        .ok()
        .and_then(|now| ASN1Time::from_timestamp(now).ok());
    if !now.is_some_and(|now| certificate.validity().is_valid_at(now)) {
        return Err(CertificateError::Expired);
    }
    let usage = certificate
        .extended_key_usage()
        .map_err(|_| CertificateError::BadEncoding)?;
    if usage.is_some_and(|usage| !usage.value.any && !usage.value.client_auth) {
        return Err(CertificateError::InvalidPurpose);
    }
    Ok(())
}

/// The names in a certificate: DNS names, e-mail addresses, IP addresses and URIs.
fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, CertificateError> {
    let found = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::BadEncoding)?;
    let names = found
        .map(|names| names.value.general_names.as_slice())
        .unwrap_or_default();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_canonical().to_string())
        }
        _ => None,
    };
    Ok(names.iter().filter_map(text).collect())
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        // Whoever shows no certificate has no name that is on the list.
        matches!(self.clients, Clients::RequireAny | Clients::RequireAndVerify) || self.allowed_sans.is_some()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authority
            .as_ref()
            .map(|authority| authority.root_hint_subjects())
            .unwrap_or_default()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        if self.clients.verifies() {
            self.verify(certificate, &parsed, intermediates, now)?;
        }
        if let Some(allowed) = &self.allowed_sans
            && !names(&parsed)?.iter().any(|name| allowed.contains(name))
        {
            // The one that tells the client "bad certificate", as the toolkit does.
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
