//! Certificates for tests.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

/// A certificate and its key, in PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// Somebody who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A certificate with these DNS names, good for servers and for clients.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_for(
            names
                .iter()
                .map(|name| SanType::DnsName((*name).try_into().unwrap()))
                .collect(),
        )
    }

    pub fn issue_for(&self, names: Vec<SanType>) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = leaf(names).signed_by(&key, &self.issuer).unwrap();
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A certificate that nobody else signed.
pub fn self_signed(name: &str) -> Pair {
    let key = KeyPair::generate().unwrap();
    let params = leaf(vec![SanType::DnsName(name.try_into().unwrap())]);
    Pair {
        cert: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

fn leaf(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}
