//! HMAC with SHA-256, SHA-384 and SHA-512: FIPS 198-1 (2008), ISO 9797-2:2021 MAC algorithm 2.

use ring::hmac::{Algorithm, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512, Key, sign};

/// Computes HMAC-SHA-256.
#[must_use]
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    mac(HMAC_SHA256, key, message)
}

/// Computes HMAC-SHA-384.
#[must_use]
pub fn hmac_sha384(key: &[u8], message: &[u8]) -> [u8; 48] {
    mac(HMAC_SHA384, key, message)
}

/// Computes HMAC-SHA-512.
#[must_use]
pub fn hmac_sha512(key: &[u8], message: &[u8]) -> [u8; 64] {
    mac(HMAC_SHA512, key, message)
}

fn mac<const N: usize>(algorithm: Algorithm, key: &[u8], message: &[u8]) -> [u8; N] {
    let mut tag = [0; N];
    tag.copy_from_slice(sign(&Key::new(algorithm, key), message).as_ref());
    tag
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;

    #[test]
    fn agrees_with_rfc_4231() {
        // RFC 4231, test case 2.
        let message = b"what do ya want for nothing?";
        assert_eq!(
            HEXUPPER.encode(&hmac_sha256(b"Jefe", message)),
            "5BDCC146BF60754E6A042426089575C75A003F089D2739839DEC58B964EC3843"
        );
        assert!(HEXUPPER.encode(&hmac_sha384(b"Jefe", message)).starts_with("AF45D2E376484031"));
        assert!(HEXUPPER.encode(&hmac_sha512(b"Jefe", message)).starts_with("164B7A7BFCF819E2"));
    }
}
