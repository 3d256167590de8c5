//! The certificates that prove the same as another: of an ECDSA signature (r, s), also (r, n - s)
//! verifies, with n the order of the curve.
//!
//! Whoever holds a certificate can make its twin without the authority, and the twin has another
//! SHA-256 fingerprint. What is said of a certificate by its fingerprint holds for its twin too.
//!
//! See FIPS 186-5 (2023), 6.4.2, and SP 800-186 (2023), 3.2.1.

use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384};

use super::CertificateInvalid;

/// The twins of a certificate that verifies, in DER; none where its signature has one form alone.
///
/// The curve is the authority's and stands nowhere in the certificate, so there is one for each
/// curve that the signature could be of: what is no twin is nobody's certificate.
pub(super) fn twins(
    der: &[u8],
    certificate: &X509Certificate<'_>,
) -> Result<Vec<Vec<u8>>, CertificateInvalid> {
    let algorithm = &certificate.signature_algorithm.algorithm;
    if ![OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384].contains(algorithm) {
        return Ok(Vec::new());
    }
    let parts = Parts::read(der, &certificate.signature_value.data);
    // What does not come out as it went in could have a twin that is not known.
    let parts = parts.filter(|parts| parts.write(parts.s) == der);
    let parts = parts.ok_or(CertificateInvalid::Form)?;
    let others = ORDERS.iter().filter_map(|order| less(order, parts.s));
    Ok(others.map(|other| parts.write(&other)).collect())
}

/// The orders of P-256 and P-384 (SP 800-186, 3.2.1.3 and 3.2.1.4), big endian.
const ORDERS: [&[u8]; 2] = [
    &[
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ],
    &[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37,
        0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc,
        0xc5, 0x29, 0x73,
    ],
];

/// Tags of DER (X.690, 8).
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// A certificate, taken apart as far as its signature.
///
/// ```text
/// SEQUENCE { tbsCertificate, signatureAlgorithm,      signed
///            BIT STRING { SEQUENCE { INTEGER r, INTEGER s } } }
/// ```
struct Parts<'a> {
    signed: &'a [u8],
    r: &'a [u8],
    s: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(der: &'a [u8], signature: &'a [u8]) -> Option<Self> {
        let (pair, []) = short(SEQUENCE, signature)? else { return None };
        let (r, rest) = short(INTEGER, pair)?;
        let (s, []) = short(INTEGER, rest)? else { return None };
        let length_octets = match *der.get(1)? {
            0..0x80 => 0,
            long => usize::from(long & 0x7f),
        };
        let content = der.get(2 + length_octets..)?;
        let tail = encode(BIT_STRING, &[&[0], signature]);
        Some(Self { signed: content.strip_suffix(tail.as_slice())?, r, s })
    }

    /// The certificate with another `s`.
    fn write(&self, s: &[u8]) -> Vec<u8> {
        let pair = [encode(INTEGER, &[self.r]), encode(INTEGER, &[s])].concat();
        let signature = encode(SEQUENCE, &[&pair]);
        encode(SEQUENCE, &[self.signed, &encode(BIT_STRING, &[&[0], &signature])])
    }
}

/// Takes a value of fewer than 128 octets off its tag and length; then follows the rest.
fn short(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    match der {
        [found, length @ 0..0x80, rest @ ..] if *found == tag => {
            rest.split_at_checked(usize::from(*length))
        }
        _ => None,
    }
}

/// A value with its tag and length, in DER.
fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let length = without_zeros(&length);
    let mut der = vec![tag];
    match length {
        [] => der.push(0),
        [octet @ 0..0x80] => der.push(*octet),
        octets => {
            der.push(octets.iter().fold(0x80, |count, _| count + 1));
            der.extend(octets);
        }
    }
    der.extend(content);
    der
}

/// The content of the INTEGER `order - s`; none if there is no such signature on that curve.
fn less(order: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let s = without_zeros(s);
    let padding = vec![0; order.len().checked_sub(s.len())?];
    let mut difference = order.to_vec();
    let mut borrow = false;
    for (octet, taken) in difference.iter_mut().zip(&[&padding, s].concat()).rev() {
        let (once, first) = octet.overflowing_sub(*taken);
        let (twice, second) = once.overflowing_sub(u8::from(borrow));
        (*octet, borrow) = (twice, first || second);
    }
    let magnitude = without_zeros(&difference);
    // An INTEGER whose first bit is set would be negative.
    let sign: &[u8] = if magnitude.first()? < &0x80 { &[] } else { &[0] };
    (!borrow).then(|| [sign, magnitude].concat())
}

fn without_zeros(octets: &[u8]) -> &[u8] {
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    &octets[zeros..]
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, SignatureAlgorithm,
    };

    use super::super::{Chain, parse, verify_client};
    use super::*;
    use crate::crypto::digest::sha256;

    /// Between the days on which the library lets certificates begin and end.
    const NOON: u64 = 1_800_000_000;

    /// The certificate of an authority, and one of a client of it.
    fn certified(algorithm: &'static SignatureAlgorithm) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("urn:a".try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let own = KeyPair::generate().unwrap();
        (root, params.signed_by(&own, &issuer).unwrap().der().to_vec())
    }

    #[test]
    fn a_twin_verifies_and_each_knows_the_fingerprint_of_the_other() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
            // Some of them are shorter than others.
            for _ in 0..40 {
                let (root, der) = certified(algorithm);
                let verified = |der: &[u8]| {
                    verify_client(
                        &Chain::parse(vec![der.to_vec()]).unwrap(),
                        std::slice::from_ref(&root),
                        NOON,
                    )
                };
                let found = verified(&der).unwrap();
                let twins = twins(&der, &parse(&der).unwrap()).unwrap();
                assert_eq!(
                    found.twins,
                    twins.iter().map(|twin| sha256(&[twin])).collect::<Vec<_>>()
                );
                let valid: Vec<_> = twins.iter().filter_map(|twin| verified(twin).ok()).collect();
                let [twin] = valid.as_slice() else { panic!("{} verify", valid.len()) };
                assert_ne!(twin.fingerprint, found.fingerprint);
                assert!(twin.twins.contains(&found.fingerprint));
                assert_eq!((&twin.name, twin.authority), (&found.name, found.authority));
            }
        }
    }

    #[test]
    fn a_signature_of_one_form_has_no_twin() {
        let (_, der) = certified(&PKCS_ED25519);
        assert_eq!(twins(&der, &parse(&der).unwrap()), Ok(Vec::new()));
    }
}
