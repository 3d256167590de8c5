//! Client certificates: who calls, by the one URI name that an authority of its plane certified.
//!
//! See RFC 5280 (2008), 4.2.1.6 and 4.2.1.12. The subject, and in it the common name, says nothing.

use webpki::KeyUsage;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::twin::twins;
use super::{CLIENT_AUTH, CertificateInvalid, Chain, not_after, parse, signs, verify_path};
use crate::crypto::digest::sha256;
use crate::crypto::ec::{Point, point_from_spki};

/// What a verified client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The one URI name, as [`is_uri_name`] has it.
    pub name: String,
    /// SHA-256 of the certificate in DER.
    pub fingerprint: [u8; 32],
    /// The fingerprints of the certificates that whoever has this one can make of it: they differ
    /// in how they write its signature, and verify as it does.
    pub twins: Vec<[u8; 32]>,
    /// The authority that it was verified by: SHA-256 of its key, as the authority's certificate
    /// has it.
    pub authority: [u8; 32],
    /// The last second of its validity, in Unix time.
    pub not_after: u64,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// Its public key, where that is one of P-256.
    pub key: Option<Point>,
}

/// Verifies the chain of a client: to a trusted authority, at a time, stated to be for client
/// authentication, with exactly one URI name.
///
/// `trust_anchors` are the certificates of the authorities in DER, `at` is in Unix seconds.
pub fn verify_client(
    chain: &Chain,
    trust_anchors: &[Vec<u8>],
    at: u64,
) -> Result<Client, CertificateInvalid> {
    let usage = KeyUsage::required(CLIENT_AUTH);
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    let verified = verify_path(chain, trust_anchors, algorithms, at, usage)?;
    let certificate = parse(verified.leaf)?;
    if !signs(&certificate)? {
        return Err(CertificateInvalid::Usage);
    }
    let twins = twins(verified.leaf, &certificate)?;
    Ok(Client {
        name: uri_name(&certificate)?,
        fingerprint: sha256(&[verified.leaf]),
        twins: twins.iter().map(|twin| sha256(&[twin])).collect(),
        authority: verified.authority,
        not_after: not_after(&certificate)?,
        certificate: verified.leaf.to_vec(),
        key: point_from_spki(certificate.public_key().raw).ok(),
    })
}

/// Whom a certificate in DER is for, by its one URI name; whether anybody is believed by it is for
/// [`verify_client`] to say.
pub fn client_name(der: &[u8]) -> Result<String, CertificateInvalid> {
    uri_name(&parse(der)?)
}

/// Whether a text can be the name of a caller: a URI (RFC 3986) of at most 255 octets, with a
/// scheme, of letters, digits and `-._~:/@+` alone.
///
/// Names are compared octet by octet, so there is nothing in them that could be written in two
/// ways, stand for several names or look like nothing: no escapes, no wildcard, no space, no NUL.
#[must_use]
pub fn is_uri_name(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~:/@+".contains(&octet);
    text.len() <= NAME_LEN_BYTES_MAX
        && scheme.bytes().next().is_some_and(|octet| octet.is_ascii_lowercase())
        && scheme.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit())
        && rest.bytes().any(|octet| octet != b'/')
        && rest.bytes().all(is_plain)
}

/// Octets of the longest name.
const NAME_LEN_BYTES_MAX: usize = 255;

fn uri_name(certificate: &X509Certificate<'_>) -> Result<String, CertificateInvalid> {
    let names = certificate.subject_alternative_name().map_err(|_| CertificateInvalid::Name)?;
    let names = names.ok_or(CertificateInvalid::Name)?;
    let mut found = None;
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) if found.is_none() => found = Some(*uri),
            // Two names are two callers; what can not be read may be a second one.
            GeneralName::URI(_) | GeneralName::Invalid(..) => return Err(CertificateInvalid::Name),
            _ => {}
        }
    }
    let found = found.filter(|name| is_uri_name(name)).ok_or(CertificateInvalid::Name)?;
    Ok(found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::authority::{Authority, Validity};
    use super::*;
    use crate::crypto::ec::SigningKey;

    const NOON: u64 = 1_800_000_000;
    const DAY: Validity = Validity { not_before: NOON - 100, not_after: NOON + 86_400 };
    const NAME: &str = "spiffe://example.test/officer/anna";

    #[test]
    fn a_client_is_known_by_its_uri_name() {
        let root = Authority::new("Root for tests", DAY).unwrap();
        let key = SigningKey::generate().unwrap();
        let der = root.issue_client(&key.public(), NAME, DAY).unwrap();
        let chain = Chain::parse(vec![der.clone()]).unwrap();
        let anchors = [root.root_der().to_vec()];
        let client = verify_client(&chain, &anchors, NOON).unwrap();
        assert_eq!(client.name, NAME);
        assert_eq!(client_name(&der).unwrap(), NAME);
        assert_eq!(client.fingerprint, sha256(&[&der]));
        assert_eq!(client.not_after, DAY.not_after);
        let seen = super::super::inspect_authority(root.root_der()).unwrap();
        assert_eq!(client.authority, seen.key_fingerprint);
        let late = verify_client(&chain, &anchors, DAY.not_after + 1);
        assert_eq!(late, Err(CertificateInvalid::Time));
        let stranger = Authority::new("Root for tests", DAY).unwrap();
        let strange = verify_client(&chain, &[stranger.root_der().to_vec()], NOON);
        assert_eq!(strange, Err(CertificateInvalid::Path));
    }

    #[test]
    fn a_device_and_a_server_are_no_clients() {
        let root = Authority::new("Root for tests", DAY).unwrap();
        let public = SigningKey::generate().unwrap().public();
        let anchors = [root.root_der().to_vec()];
        let device = root.issue_device(&public, "SN-1", DAY).unwrap();
        let device = Chain::parse(vec![device]).unwrap();
        assert_eq!(verify_client(&device, &anchors, NOON), Err(CertificateInvalid::Name));
        let server = root.issue_server(&public, &["localhost"], DAY).unwrap();
        let server = Chain::parse(vec![server]).unwrap();
        assert_eq!(verify_client(&server, &anchors, NOON), Err(CertificateInvalid::Usage));
    }

    #[test]
    fn names_that_could_mean_something_else_are_none() {
        for name in [NAME, "urn:uuid:6f9619ff-8b86-d011-b42d-00cf4fc964ff", "https://a.test/x"] {
            assert!(is_uri_name(name), "{name}");
        }
        let long = format!("spiffe://example.test/{}", "a".repeat(234));
        for name in [
            "",
            "anna",
            "://x",
            "spiffe:",
            "spiffe://",
            "Spiffe://example.test/anna",
            "1spiffe://example.test/anna",
            "spiffe://example.test/*",
            "spiffe://example.test/anna\0.evil",
            "spiffe://example.test/an na",
            "spiffe://example.test/anna\n",
            "spiffe://example.test/%61nna",
            "spiffe://example.test/anna?x",
            "spiffe://exämple.test/anna",
            "spiffe://example.test/аnna",
            &long,
        ] {
            assert!(!is_uri_name(name), "{name}");
        }
        assert!(is_uri_name(&long[1..].replacen("piffe", "spiff", 1)), "255 octets are few enough");
    }
}
