//! Certificates: chains of devices, callers and the service, requests, authorities in files.
//!
//! See RFC 5280 (2008) and RFC 2986 (2000).

pub mod authority;
mod client;
mod pem;
mod request;
mod twin;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyUsage, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_X509_ORGANIZATION_NAME, OID_X509_SERIALNUMBER, Oid};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::digest::sha256;
use super::ec::{Point, point_from_spki};
pub use client::{Client, client_name, is_uri_name, verify_client};
pub use pem::{PemInvalid, certificate_to_pem, certificates_from_pem, key_from_pem, key_to_pem};
pub use request::{RequestFailed, signing_request};

/// A certificate and those that lead from it to an authority, in DER, the leaf first.
///
/// Small by construction: what a stranger sends is bounded before it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain(Vec<CertificateDer<'static>>);

/// What a verified chain says of its leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// SHA-256 of the certificate in DER.
    pub fingerprint: [u8; 32],
    /// The last second of its validity, in Unix time.
    pub not_after: u64,
    /// The subject's organization (2.5.4.10), in the service's certificate the acquirer id.
    pub organization: Option<String>,
    /// The key that it certifies.
    pub public: Point,
    /// The subject's serial number (2.5.4.5), in a device's certificate that of the device.
    pub serial_number: Option<String>,
}

/// What an officer is shown of an authority's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorityCertificate {
    /// SHA-256 of the certificate in DER.
    pub fingerprint: [u8; 32],
    /// SHA-256 of its public key, without the outermost tag: who has it is the same authority,
    /// whatever the certificate says.
    pub key_fingerprint: [u8; 32],
    /// The last second of its validity, in Unix time. A chain is not judged by it: who trusts an
    /// authority ends that trust.
    pub not_after: u64,
}

/// Why a certificate is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateInvalid {
    /// Not a certificate, too long, too many of them, or an attribute that stands twice.
    #[error("the certificate chain is malformed or too long")]
    Form,
    /// The key of the leaf is not of P-256.
    #[error("the certified key is not an uncompressed point of P-256")]
    Key,
    /// A caller's certificate has no URI name, several, or one that could mean something else.
    #[error("the certificate does not have exactly one plain URI name")]
    Name,
    /// No authority that is trusted signed the chain.
    #[error("the chain does not lead to a trusted authority")]
    Path,
    /// A certificate of the chain has expired or is not valid yet.
    #[error("a certificate is outside its time of validity")]
    Time,
    /// The certificate is for another purpose.
    #[error("the certificate is not for this use")]
    Usage,
}

impl Chain {
    /// Certificates of the longest chain.
    pub const CERTIFICATES_MAX: usize = 4;
    /// Octets of the longest certificate.
    pub const CERTIFICATE_LEN_BYTES_MAX: usize = 4096;

    /// Takes a chain, the leaf first.
    pub fn parse(certificates: Vec<Vec<u8>>) -> Result<Self, CertificateInvalid> {
        let too_long = |der: &Vec<u8>| der.len() > Self::CERTIFICATE_LEN_BYTES_MAX;
        if certificates.is_empty()
            || certificates.len() > Self::CERTIFICATES_MAX
            || certificates.iter().any(too_long)
        {
            return Err(CertificateInvalid::Form);
        }
        Ok(Self(certificates.into_iter().map(CertificateDer::from).collect()))
    }

    /// The certificates in DER, the leaf first.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    fn leaf(&self) -> Result<&CertificateDer<'static>, CertificateInvalid> {
        self.0.first().ok_or(CertificateInvalid::Form)
    }
}

/// Verifies the chain of a device: to a trusted authority, at a time, for client authentication
/// if it states an extended key usage at all.
///
/// `trust_anchors` are the certificates of the authorities in DER, `at` is in Unix seconds.
pub fn verify_device(
    chain: &Chain,
    trust_anchors: &[Vec<u8>],
    at: u64,
) -> Result<Leaf, CertificateInvalid> {
    verify(chain, trust_anchors, at, KeyUsage::required_if_present(CLIENT_AUTH))
}

/// Verifies the chain of the service: as [`verify_device`], but for server authentication.
pub fn verify_service(
    chain: &Chain,
    trust_anchors: &[Vec<u8>],
    at: u64,
) -> Result<Leaf, CertificateInvalid> {
    verify(chain, trust_anchors, at, KeyUsage::required_if_present(SERVER_AUTH))
}

/// Reads what the leaf of a chain says of itself: believed only once the chain is verified.
pub fn leaf(chain: &Chain) -> Result<Leaf, CertificateInvalid> {
    read_leaf(chain.leaf()?)
}

/// The last second of a certificate's validity, in Unix time.
pub fn expiry(der: &[u8]) -> Result<u64, CertificateInvalid> {
    not_after(&parse(der)?)
}

/// Looks at the certificate of an authority that somebody wants trusted.
pub fn inspect_authority(der: &[u8]) -> Result<AuthorityCertificate, CertificateInvalid> {
    if der.len() > Chain::CERTIFICATE_LEN_BYTES_MAX {
        return Err(CertificateInvalid::Form);
    }
    let certificate = parse(der)?;
    let constraints = certificate.basic_constraints().map_err(|_| CertificateInvalid::Form)?;
    let usage = certificate.key_usage().map_err(|_| CertificateInvalid::Form)?;
    let is_authority = constraints.is_some_and(|constraints| constraints.value.ca)
        && usage.is_none_or(|usage| usage.value.key_cert_sign());
    if !is_authority {
        return Err(CertificateInvalid::Usage);
    }
    let der_of_anchor = CertificateDer::from(der);
    let anchor = anchor_from_trusted_cert(&der_of_anchor).map_err(|_| CertificateInvalid::Form)?;
    Ok(AuthorityCertificate {
        fingerprint: sha256(&[der]),
        key_fingerprint: key_fingerprint(&anchor),
        not_after: not_after(&certificate)?,
    })
}

/// Object identifiers id-kp-clientAuth and id-kp-serverAuth (RFC 5280, 4.2.1.12), DER content.
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

fn verify(
    chain: &Chain,
    trust_anchors: &[Vec<u8>],
    at: u64,
    usage: impl ExtendedKeyUsageValidator,
) -> Result<Leaf, CertificateInvalid> {
    read_leaf(verify_path(chain, trust_anchors, SIGNATURES, at, usage)?.leaf)
}

/// A leaf that an authority certified.
struct Verified<'a> {
    leaf: &'a CertificateDer<'static>,
    /// The [`key_fingerprint`] of the authority.
    authority: [u8; 32],
}

/// Verifies the path from the leaf to an authority.
fn verify_path<'a>(
    chain: &'a Chain,
    trust_anchors: &[Vec<u8>],
    signatures: &[&dyn SignatureVerificationAlgorithm],
    at: u64,
    usage: impl ExtendedKeyUsageValidator,
) -> Result<Verified<'a>, CertificateInvalid> {
    let leaf = chain.leaf()?;
    let anchors: Vec<CertificateDer> =
        trust_anchors.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    // An anchor was looked at when it was imported; one that no longer parses trusts nobody.
    let anchors: Vec<_> =
        anchors.iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| CertificateInvalid::Form)?;
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
    let path = end_entity
        .verify_for_usage(signatures, &anchors, &chain.0[1..], at, usage, None, None)
        .map_err(|error| translate(&error))?;
    Ok(Verified { leaf, authority: key_fingerprint(path.anchor()) })
}

/// SHA-256 of the key of an authority, as [`AuthorityCertificate`] has it.
fn key_fingerprint(anchor: &TrustAnchor<'_>) -> [u8; 32] {
    sha256(&[&anchor.subject_public_key_info])
}

/// What authorities of devices and of the service may sign with.
static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
];

/// The library's list of causes grows; what is not of time or use is of the path.
fn translate(error: &webpki::Error) -> CertificateInvalid {
    use webpki::Error;
    match error {
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } | Error::InvalidCertValidity => {
            CertificateInvalid::Time
        }
        Error::CaUsedAsEndEntity | Error::RequiredEkuNotFoundContext(_) => {
            CertificateInvalid::Usage
        }
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => CertificateInvalid::Form,
        _ => CertificateInvalid::Path,
    }
}

fn read_leaf(der: &[u8]) -> Result<Leaf, CertificateInvalid> {
    let certificate = parse(der)?;
    if !signs(&certificate)? {
        return Err(CertificateInvalid::Usage);
    }
    Ok(Leaf {
        fingerprint: sha256(&[der]),
        not_after: not_after(&certificate)?,
        organization: attribute(certificate.subject(), &OID_X509_ORGANIZATION_NAME)?,
        public: point_from_spki(certificate.public_key().raw)
            .map_err(|_| CertificateInvalid::Key)?,
        serial_number: attribute(certificate.subject(), &OID_X509_SERIALNUMBER)?,
    })
}

/// Whether the key may sign. The path does not look at it; a key that may not proves nothing.
fn signs(certificate: &X509Certificate<'_>) -> Result<bool, CertificateInvalid> {
    let usage = certificate.key_usage().map_err(|_| CertificateInvalid::Form)?;
    Ok(usage.is_none_or(|usage| usage.value.digital_signature()))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateInvalid> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateInvalid::Form),
    }
}

fn not_after(certificate: &X509Certificate<'_>) -> Result<u64, CertificateInvalid> {
    let seconds = certificate.validity().not_after.timestamp();
    u64::try_from(seconds).map_err(|_| CertificateInvalid::Time)
}

/// Reads an attribute of a name; one that stands twice means two things and is refused.
fn attribute(name: &X509Name<'_>, oid: &Oid<'_>) -> Result<Option<String>, CertificateInvalid> {
    let mut found = name.iter_by_oid(oid);
    let Some(first) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(CertificateInvalid::Form);
    }
    first.as_str().map(|text| Some(text.to_owned())).map_err(|_| CertificateInvalid::Form)
}

#[cfg(test)]
mod tests {
    use super::authority::{Authority, Validity};
    use super::*;
    use crate::crypto::ec::SigningKey;

    const NOON: u64 = 1_800_000_000;
    const YEAR: Validity = Validity { not_before: NOON - 100, not_after: NOON + 31_536_000 };

    fn authority() -> Authority {
        Authority::new("Root for tests", YEAR).unwrap()
    }

    #[test]
    fn a_device_of_a_trusted_authority_is_read() {
        let (root, key) = (authority(), SigningKey::generate().unwrap());
        let der = root.issue_device(&key.public(), "SN-1", YEAR).unwrap();
        let chain = Chain::parse(vec![der.clone()]).unwrap();
        let leaf = verify_device(&chain, &[root.root_der().to_vec()], NOON).unwrap();
        assert_eq!(leaf.serial_number.as_deref(), Some("SN-1"));
        assert_eq!(leaf.organization, None);
        assert_eq!(leaf.public, key.public());
        assert_eq!(leaf.not_after, YEAR.not_after);
        assert_eq!(leaf.fingerprint, sha256(&[&der]));
        // The root may stand in the chain; it adds nothing.
        let chain = Chain::parse(vec![der, root.root_der().to_vec()]).unwrap();
        assert!(verify_device(&chain, &[root.root_der().to_vec()], NOON).is_ok());
    }

    #[test]
    fn a_service_is_certified_from_its_request() {
        let (root, key) = (authority(), SigningKey::generate().unwrap());
        let request = signing_request(&key, "acquirer-1", "firstkey").unwrap();
        let der = root.issue_service_from_request(&request, "acquirer-1", YEAR).unwrap();
        let chain = Chain::parse(vec![der]).unwrap();
        let anchors = [root.root_der().to_vec()];
        let leaf = verify_service(&chain, &anchors, NOON).unwrap();
        assert_eq!(leaf.organization.as_deref(), Some("acquirer-1"));
        assert_eq!(leaf.public, key.public());
        // It is not a device, nor is a device a service.
        assert_eq!(verify_device(&chain, &anchors, NOON), Err(CertificateInvalid::Usage));
        let device = root.issue_device(&key.public(), "SN-1", YEAR).unwrap();
        let device = Chain::parse(vec![device]).unwrap();
        assert_eq!(verify_service(&device, &anchors, NOON), Err(CertificateInvalid::Usage));
    }

    #[test]
    fn strangers_and_other_times_are_refused() {
        let (root, stranger) = (authority(), authority());
        let key = SigningKey::generate().unwrap();
        let chain =
            Chain::parse(vec![root.issue_device(&key.public(), "SN-1", YEAR).unwrap()]).unwrap();
        let anchors = [root.root_der().to_vec()];
        let strangers = [stranger.root_der().to_vec()];
        assert_eq!(verify_device(&chain, &strangers, NOON), Err(CertificateInvalid::Path));
        assert_eq!(verify_device(&chain, &[], NOON), Err(CertificateInvalid::Path));
        for at in [YEAR.not_before - 1, YEAR.not_after + 1] {
            assert_eq!(verify_device(&chain, &anchors, at), Err(CertificateInvalid::Time));
        }
        // An authority is not a device.
        let chain = Chain::parse(vec![root.root_der().to_vec()]).unwrap();
        assert_eq!(verify_device(&chain, &anchors, NOON), Err(CertificateInvalid::Usage));
    }

    #[test]
    fn changed_bytes_are_refused() {
        let (root, key) = (authority(), SigningKey::generate().unwrap());
        let der = root.issue_device(&key.public(), "SN-1", YEAR).unwrap();
        let anchors = [root.root_der().to_vec()];
        for index in 0..der.len() {
            let mut changed = der.clone();
            changed[index] ^= 1;
            let chain = Chain::parse(vec![changed]).unwrap();
            assert!(verify_device(&chain, &anchors, NOON).is_err(), "octet {index}");
        }
    }

    #[test]
    fn what_a_stranger_sends_is_bounded() {
        assert_eq!(Chain::parse(vec![]), Err(CertificateInvalid::Form));
        assert_eq!(Chain::parse(vec![vec![0]; 5]), Err(CertificateInvalid::Form));
        assert_eq!(Chain::parse(vec![vec![0; 4097]]), Err(CertificateInvalid::Form));
        let chain = Chain::parse(vec![vec![0; 4096]; 4]).unwrap();
        assert_eq!(verify_device(&chain, &[], NOON), Err(CertificateInvalid::Form));
    }

    #[test]
    fn an_authority_is_told_from_a_leaf() {
        let (root, key) = (authority(), SigningKey::generate().unwrap());
        let seen = inspect_authority(root.root_der()).unwrap();
        assert_eq!(seen.not_after, YEAR.not_after);
        assert_eq!(seen.fingerprint, sha256(&[root.root_der()]));
        let device = root.issue_device(&key.public(), "SN-1", YEAR).unwrap();
        assert_eq!(inspect_authority(&device), Err(CertificateInvalid::Usage));
        assert_eq!(inspect_authority(b"none"), Err(CertificateInvalid::Form));
    }

    #[test]
    fn an_authority_is_kept_and_opened_again() {
        let root = authority();
        let again = Authority::from_parts(root.root_der(), &root.to_pkcs8()).unwrap();
        let key = SigningKey::generate().unwrap();
        let der = again.issue_device(&key.public(), "SN-2", YEAR).unwrap();
        let chain = Chain::parse(vec![der]).unwrap();
        assert!(verify_device(&chain, &[root.root_der().to_vec()], NOON).is_ok());
        let other = authority();
        assert!(Authority::from_parts(root.root_der(), &other.to_pkcs8()).is_err());
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let (root, key) = (authority(), SigningKey::generate().unwrap());
        let mut request = signing_request(&key, "acquirer-1", "firstkey").unwrap();
        let at = request.windows(10).position(|octets| octets == b"acquirer-1").unwrap();
        request[at] = b'A';
        assert!(root.issue_service_from_request(&request, "acquirer-1", YEAR).is_err());
    }
}
