//! Certificate requests: PKCS #10, RFC 2986 (2000).

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::PrivatePkcs8KeyDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;

use super::super::ec::{Point, SigningKey, point_from_spki, verify_der};

/// A request could not be made: a name that no certificate can hold, or no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate request could not be made")]
pub struct RequestFailed;

/// Asks, in DER, for a certificate of the key in the name of an organization.
pub fn signing_request(
    key: &SigningKey,
    organization: &str,
    common_name: &str,
) -> Result<Vec<u8>, RequestFailed> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = key_pair(key).map_err(|_| RequestFailed)?;
    let request = params.serialize_request(&key).map_err(|_| RequestFailed)?;
    Ok(request.der().to_vec())
}

/// Gives a key to the library that writes certificates.
pub(super) fn key_pair(key: &SigningKey) -> Result<KeyPair, rcgen::Error> {
    let pkcs8 = key.to_pkcs8();
    let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
}

/// Takes the key out of a request that it signed itself; nothing else of it is believed.
pub(super) fn requested_key(der: &[u8]) -> Option<Point> {
    let ([], request) = X509CertificationRequest::from_der(der).ok()? else { return None };
    if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return None;
    }
    let info = &request.certification_request_info;
    let public = point_from_spki(info.subject_pki.raw).ok()?;
    verify_der(&public, info.raw, &request.signature_value.data).ok()?;
    Some(public)
}
