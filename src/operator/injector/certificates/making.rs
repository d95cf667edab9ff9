//! New authorities and new leaves.

use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::time::ASN1Time;

use super::{
    AUTHORITY, AUTHORITY_KEY, BUNDLE, CertificateError, Certificates, END_OF_DOCUMENT, LEAF, LEAF_KEY, Lives,
    MAX_AUTHORITIES, Validity, certificates, facts, key,
};

/// A new authority, its key, and the bundle with it in front of those of `earlier` that are still valid.
pub(super) fn new_authority(
    lives: Lives,
    now: i64,
    earlier: Option<&Certificates>,
) -> Result<BTreeMap<&'static str, String>, CertificateError> {
    let mut params = params(
        &[],
        Validity::starting(now, lives.authority),
        "Rosey Monitor webhooks CA",
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    let mut bundle = certificate.clone();
    let kept = earlier.map(Certificates::bundle).unwrap_or_default();
    for document in kept.split_inclusive(END_OF_DOCUMENT) {
        let valid = CertificateDer::from_pem_slice(document.as_bytes())
            .is_ok_and(|der| facts(&der, BUNDLE).is_ok_and(|(validity, _)| validity.until > now));
        if valid && bundle.matches(END_OF_DOCUMENT).count() < MAX_AUTHORITIES {
            bundle.push_str(document);
        }
    }
    Ok([
        (AUTHORITY, certificate),
        (AUTHORITY_KEY, key.serialize_pem()),
        (BUNDLE, bundle),
    ]
    .into())
}

/// A leaf for `names` with its key, signed by the authority of `data`.
pub(super) fn new_leaf(
    data: &BTreeMap<&'static str, String>,
    names: &[String],
    lives: Lives,
    now: i64,
) -> Result<BTreeMap<&'static str, String>, CertificateError> {
    let authority = certificates(data, AUTHORITY)?.remove(0);
    let mut validity = Validity::starting(now, lives.leaf);
    validity.until = validity.until.min(facts(&authority, AUTHORITY)?.0.until);
    let mut params = params(names, validity, "Rosey Monitor webhooks")?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let issuer = Issuer::from_ca_cert_der(&authority, key(data)?)?;
    let key = KeyPair::generate()?;
    Ok([
        (LEAF, params.signed_by(&key, &issuer)?.pem()),
        (LEAF_KEY, key.serialize_pem()),
    ]
    .into())
}

fn params(names: &[String], validity: Validity, common_name: &str) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    let moment = |seconds| {
        ASN1Time::from_timestamp(seconds)
            .map(|time| time.to_datetime())
            .map_err(|_| rcgen::Error::Time)
    };
    params.not_before = moment(validity.from)?;
    params.not_after = moment(validity.until)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}
