//! Certificates and keys as text: PEM, RFC 7468 (2015).

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// A text that is no PEM, or holds nothing of what is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such thing in PEM form")]
pub struct PemInvalid;

/// Characters of a line (RFC 7468, 2).
const LINE_LEN: usize = 64;

/// A certificate in DER as text.
#[must_use]
pub fn certificate_to_pem(der: &[u8]) -> String {
    to_pem("CERTIFICATE", der).as_str().to_owned()
}

/// A private key in PKCS #8 as text.
#[must_use]
pub fn key_to_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    to_pem("PRIVATE KEY", pkcs8)
}

/// The certificates of a text in DER, in their order: one at least.
pub fn certificates_from_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, PemInvalid> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|_| PemInvalid)?;
    if found.is_empty() {
        return Err(PemInvalid);
    }
    Ok(found.into_iter().map(|der| der.to_vec()).collect())
}

/// The first private key of a text in PKCS #8.
pub fn key_from_pem(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, PemInvalid> {
    let found = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| PemInvalid)?;
    Ok(Zeroizing::new(found.secret_pkcs8_der().to_vec()))
}

fn to_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(data_encoding::BASE64.encode(der));
    // Its room is set aside at once, so that no half of a key is left behind by a move.
    let mut pem = Zeroizing::new(String::with_capacity(2 * text.len() + 128));
    pem.extend(["-----BEGIN ", label, "-----\n"]);
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % LINE_LEN == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.extend(["\n-----END ", label, "-----\n"]);
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [1, 47, 48, 49, 96, 700] {
            let der: Vec<u8> = (0..length).map(|index: u16| index.to_le_bytes()[0]).collect();
            let text = certificate_to_pem(&der);
            assert!(text.lines().all(|line| line.len() <= LINE_LEN));
            let twice = format!("A chain:\n{text}{text}");
            let found = certificates_from_pem(twice.as_bytes()).unwrap();
            assert_eq!(found, [der.clone(), der.clone()]);
            assert_eq!(*key_from_pem(key_to_pem(&der).as_bytes()).unwrap(), der);
            assert_eq!(key_from_pem(text.as_bytes()), Err(PemInvalid));
        }
        assert_eq!(certificates_from_pem(b"none"), Err(PemInvalid));
        assert_eq!(certificates_from_pem(b"-----BEGIN CERTIFICATE-----\nAA"), Err(PemInvalid));
    }
}
