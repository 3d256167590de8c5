//! Key check values (KCV): public data by which two parties see that they hold the same key.

use std::fmt;

use super::algorithm::Algorithm;
use super::material::Material;
use crate::crypto::tdes::Tdes;
use crate::crypto::{cmac, hmac};

/// A key check value and how it came about.
///
/// ```text
/// TDES  leftmost 3 bytes of E(key, 8 zero bytes)             ANSI X9.24-1:2009, annex A
/// AES   leftmost 5 bytes of CMAC(key, 16 zero bytes)         ANSI X9.24-1:2017, annex A
/// HMAC  leftmost 5 bytes of HMAC-SHA-256(key, empty message) ours
/// ```
///
/// For AES never a part of E(key, 0): that is the value from which CMAC makes its subkeys.
///
/// The optional blocks KC and KP of ANSI X9.143 know the first two methods, `00` and `01`, and
/// none for HMAC keys. Ours is over the empty message because the service refuses to make or
/// verify a MAC over that: a check value is never a MAC that somebody accepts, nor the reverse.
/// As nothing outside settles the method, a value of it is always shown with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CheckValue {
    algorithm: CheckValueAlgorithm,
    octets: [u8; Self::LEN_BYTES_MAX],
}

/// How a check value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckValueAlgorithm {
    /// AES-CMAC over 16 zero bytes, 5 bytes.
    Cmac,
    /// TDES encryption of 8 zero bytes, 3 bytes.
    EncryptedZeros,
    /// HMAC-SHA-256 over the empty message, 5 bytes.
    HmacSha256Empty,
}

impl CheckValue {
    /// Octets of the longest check value; a longer one would help to guess the key.
    pub const LEN_BYTES_MAX: usize = 5;
    /// Octets that every comparison covers.
    pub const LEN_BYTES_MIN: usize = 3;

    /// Computes the check value of a key, whose length is that of its algorithm.
    pub(crate) fn of(algorithm: Algorithm, material: &Material) -> Self {
        // The key enters the one computation that is meant to be public.
        let key = material.expose_bytes();
        if algorithm.is_tdes() {
            let mut block = [0; 8];
            let tdes = Tdes::new(key).expect("the key has the length of its algorithm");
            tdes.encrypt_block(&mut block);
            return Self::left_of(CheckValueAlgorithm::EncryptedZeros, &block);
        }
        if algorithm.is_aes() {
            let mac = cmac::aes_cmac(key, &[0; 16]);
            let mac = mac.expect("the key has the length of its algorithm");
            return Self::left_of(CheckValueAlgorithm::Cmac, &mac);
        }
        Self::left_of(CheckValueAlgorithm::HmacSha256Empty, &hmac::hmac_sha256(key, b""))
    }

    /// Reads a check value that is kept beside a key, in full length.
    #[must_use]
    pub fn from_bytes(algorithm: CheckValueAlgorithm, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == algorithm.len_bytes()).then(|| Self::left_of(algorithm, bytes))
    }

    /// How it was computed.
    #[must_use]
    pub fn algorithm(&self) -> CheckValueAlgorithm {
        self.algorithm
    }

    /// The check value in full length: 3 bytes for TDES, else 5.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.octets[..self.algorithm.len_bytes()]
    }

    /// Whether what somebody else shows, 3 bytes or all 5, is the beginning of this check value.
    #[must_use]
    pub fn matches_prefix(&self, shown: &[u8]) -> bool {
        (shown.len() == Self::LEN_BYTES_MIN || shown.len() == self.bytes().len())
            && self.bytes().starts_with(shown)
    }

    fn left_of(algorithm: CheckValueAlgorithm, bytes: &[u8]) -> Self {
        let mut octets = [0; Self::LEN_BYTES_MAX];
        let len_bytes = algorithm.len_bytes();
        octets[..len_bytes].copy_from_slice(&bytes[..len_bytes]);
        Self { algorithm, octets }
    }
}

impl CheckValueAlgorithm {
    /// Octets of a check value.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::EncryptedZeros => CheckValue::LEN_BYTES_MIN,
            Self::Cmac | Self::HmacSha256Empty => CheckValue::LEN_BYTES_MAX,
        }
    }
}

impl fmt::Display for CheckValueAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cmac => "CMAC",
            Self::EncryptedZeros => "ANSI_X9_24",
            Self::HmacSha256Empty => "HMAC_SHA256_EMPTY",
        })
    }
}

impl fmt::Display for CheckValue {
    /// Upper-case hexadecimal, all of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|octet| write!(f, "{octet:02X}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Material, usage::Mac};
    use super::*;
    use crate::crypto::aes::Aes;

    fn check_value(algorithm: Algorithm, key_hex: &str) -> CheckValue {
        let key = data_encoding::HEXUPPER.decode(key_hex.as_bytes()).unwrap();
        let key = Key::<Mac>::from_material(algorithm, Material::copied_from(&key)).unwrap();
        key.check_value()
    }

    #[test]
    fn tdes_is_three_bytes_of_the_encrypted_zeros() {
        // ANSI X9.24-1:2009, annex A: the base derivation key of its examples.
        let value = check_value(Algorithm::Tdes2, "0123456789ABCDEFFEDCBA9876543210");
        assert_eq!(value.to_string(), "08D7B4");
        assert!(value.matches_prefix(&[0x08, 0xd7, 0xb4]));
        assert!(!value.matches_prefix(&[0x08, 0xd7]));
        assert!(!value.matches_prefix(&[]));
        assert!(!value.matches_prefix(&[0x08, 0xd7, 0xb5]));
    }

    #[test]
    fn aes_is_five_bytes_of_cmac_and_never_of_the_encrypted_zeros() {
        for octet in 0..=u8::MAX {
            let key = [octet; 16];
            let typed = Key::<Mac>::from_material(Algorithm::Aes128, Material::copied_from(&key));
            let value = typed.unwrap().check_value();
            assert_eq!(value.bytes().len(), 5);
            let mut encrypted = [0; 16];
            Aes::new(&key).unwrap().encrypt_block(&mut encrypted);
            assert!(!value.matches_prefix(&encrypted[..3]));
        }
        // NIST SP 800-38B key; CMAC over one block of zeros, computed with OpenSSL.
        let value = check_value(Algorithm::Aes128, "2B7E151628AED2A6ABF7158809CF4F3C");
        assert!(value.matches_prefix(value.bytes()));
        assert!(value.matches_prefix(&value.bytes()[..3]));
        assert!(!value.matches_prefix(&value.bytes()[..4]));
    }

    #[test]
    fn hmac_names_its_algorithm() {
        let value = check_value(Algorithm::Hmac128, "000102030405060708090A0B0C0D0E0F");
        assert_eq!(value.algorithm().to_string(), "HMAC_SHA256_EMPTY");
        assert_eq!(value.bytes().len(), 5);
        assert_eq!(CheckValue::from_bytes(value.algorithm(), value.bytes()), Some(value));
        assert_eq!(CheckValue::from_bytes(value.algorithm(), &value.bytes()[..3]), None);
    }
}
