//! The static keys that a terminal may have beside its initial key: each derived for that terminal
//! from a key that the host keeps, so that the host stores none of them.

use serde::{Deserialize, Serialize};

use crate::agreement::label;
use crate::crypto::cbc_mac::BlockMacError;
use crate::crypto::{kdf, tdes};
use crate::key::usage::KeyDerivation;
use crate::key::{Algorithm, Key, Material};
use crate::memory::with_wiped_stack;

/// The slots for such keys; slot 0 has the initial key.
pub const SLOTS: std::ops::RangeInclusive<u8> = 1..=15;

/// How many such keys a terminal may have.
pub const TERMINAL_KEYS_MAX: usize = 7;

/// What a terminal key is for: its usage code (ANSI X9.143:2021, 6.3.2).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TerminalKeyUsage {
    /// Data encryption.
    #[serde(rename = "D0")]
    DataEncryption,
    /// Key encryption.
    #[serde(rename = "K0")]
    KeyEncryption,
    /// MAC, ISO 9797-1 algorithm 1.
    #[serde(rename = "M1")]
    MacAlgorithm1,
    /// MAC, ISO 9797-1 algorithm 3.
    #[serde(rename = "M3")]
    MacAlgorithm3,
    /// MAC, CMAC.
    #[serde(rename = "M6")]
    MacCmac,
    /// PIN encryption.
    #[serde(rename = "P0")]
    PinEncryption,
}

impl TerminalKeyUsage {
    /// All usages.
    pub const ALL: [Self; 6] = [
        Self::DataEncryption,
        Self::KeyEncryption,
        Self::MacAlgorithm1,
        Self::MacAlgorithm3,
        Self::MacCmac,
        Self::PinEncryption,
    ];

    /// The code in a header.
    #[must_use]
    pub fn code(self) -> [u8; 2] {
        match self {
            Self::DataEncryption => *b"D0",
            Self::KeyEncryption => *b"K0",
            Self::MacAlgorithm1 => *b"M1",
            Self::MacAlgorithm3 => *b"M3",
            Self::MacCmac => *b"M6",
            Self::PinEncryption => *b"P0",
        }
    }

    /// Finds the usage of a code.
    #[must_use]
    pub fn from_code(code: [u8; 2]) -> Option<Self> {
        Self::ALL.into_iter().find(|usage| usage.code() == code)
    }

    /// What the terminal may do with the key (6.3.4): it enciphers PIN blocks and does not open
    /// them (`E`), opens keys that are sent to it and wraps none (`D`), makes and checks MACs
    /// (`C`), and encrypts and decrypts data (`B`).
    #[must_use]
    pub fn mode(self) -> u8 {
        match self {
            Self::DataEncryption => b'B',
            Self::KeyEncryption => b'D',
            Self::MacAlgorithm1 | Self::MacAlgorithm3 | Self::MacCmac => b'C',
            Self::PinEncryption => b'E',
        }
    }
}

/// A static key of one terminal, by all that it is derived with.
#[derive(Clone, Copy, Debug)]
pub struct TerminalKey<'a> {
    /// The id of the terminal's initial key, 8 bytes for AES DUKPT and 10 for TDES: new keys come
    /// with it.
    pub initial_key_id: &'a [u8],
    /// Its slot, one of [`SLOTS`].
    pub slot: u8,
    /// What it is for.
    pub usage: TerminalKeyUsage,
    /// Its algorithm, TDES or AES.
    pub algorithm: Algorithm,
}

impl TerminalKey<'_> {
    /// Derives the key from a derivation key that is at least as strong.
    ///
    /// ```text
    /// key     = KDF(derivation key, "firstkey/v1/terminal-key", context, length of the key)
    /// context = initial key id || slot(1) || usage(2) || algorithm(1) || length in bits(2)
    /// ```
    ///
    /// KDF is the counter mode of NIST SP 800-108r1 (2022), 4.1, with the CMAC of the derivation
    /// key's algorithm; usage and algorithm are as in a key block header. A TDES key has its parity
    /// set odd afterwards.
    pub fn derive(&self, from: &Key<KeyDerivation>) -> Result<Material, Underivable> {
        if self.algorithm.strength_bits() > from.algorithm().strength_bits() {
            return Err(Underivable);
        }
        let len_bits = u16::try_from(self.algorithm.len_bytes() * 8).map_err(|_| Underivable)?;
        let letter = self.algorithm.header_letter();
        let context = [
            self.initial_key_id,
            &[self.slot],
            &self.usage.code(),
            &[letter],
            &len_bits.to_be_bytes(),
        ]
        .concat();
        let label = label::TERMINAL_KEY.as_bytes();
        let mut material = Material::zeroed(self.algorithm.len_bytes());
        // Both keys are exposed to the derivation alone.
        let derived: Result<(), BlockMacError> = with_wiped_stack(|| {
            let out = material.expose_bytes_mut();
            if from.algorithm().is_tdes() {
                kdf::kbkdf_cmac_tdes(from.expose_bytes(), label, &context, out)
            } else {
                kdf::kbkdf_cmac_aes(from.expose_bytes(), label, &context, out)
            }
        });
        derived.map_err(|_| Underivable)?;
        if self.algorithm.is_tdes() {
            tdes::set_odd_parity(material.expose_bytes_mut());
        }
        Ok(material)
    }
}

/// The derivation key is weaker than the key, or of an algorithm that derives none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the derivation key does not derive a key of this algorithm")]
pub struct Underivable;

#[cfg(test)]
mod tests {
    use super::*;

    fn derivation_key(algorithm: Algorithm) -> Key<KeyDerivation> {
        let material = Material::copied_from(&[0x31; 32][..algorithm.len_bytes()]);
        Key::from_material(algorithm, material).unwrap()
    }

    fn key(change: impl FnOnce(&mut TerminalKey<'_>)) -> Vec<u8> {
        let mut key = TerminalKey {
            initial_key_id: &[1; 8],
            slot: 1,
            usage: TerminalKeyUsage::PinEncryption,
            algorithm: Algorithm::Aes128,
        };
        change(&mut key);
        let derived = key.derive(&derivation_key(Algorithm::Aes256)).unwrap();
        derived.expose_bytes().to_vec()
    }

    #[test]
    fn whatever_is_changed_it_is_another_key() {
        let mut keys = vec![
            key(|_| ()),
            key(|key| key.initial_key_id = &[1; 10]),
            key(|key| key.slot = 2),
            key(|key| key.usage = TerminalKeyUsage::MacCmac),
            key(|key| key.algorithm = Algorithm::Tdes2),
            key(|key| key.algorithm = Algorithm::Aes192)[..16].to_vec(),
        ];
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
        let tdes = key(|key| key.algorithm = Algorithm::Tdes3);
        assert!(tdes.iter().all(|octet| octet.count_ones() % 2 == 1), "odd parity");
    }

    #[test]
    fn a_key_is_never_stronger_than_what_it_comes_from() {
        let derives = |from, algorithm| {
            let usage = TerminalKeyUsage::DataEncryption;
            let key = TerminalKey { initial_key_id: &[1; 8], slot: 1, usage, algorithm };
            key.derive(&derivation_key(from)).is_ok()
        };
        assert!(derives(Algorithm::Tdes2, Algorithm::Tdes2));
        assert!(!derives(Algorithm::Tdes2, Algorithm::Tdes3));
        assert!(derives(Algorithm::Tdes3, Algorithm::Tdes3));
        assert!(!derives(Algorithm::Tdes3, Algorithm::Aes128));
        assert!(derives(Algorithm::Aes128, Algorithm::Tdes3));
        assert!(!derives(Algorithm::Aes128, Algorithm::Aes192));
    }

    #[test]
    fn codes_and_usages_name_each_other() {
        for usage in TerminalKeyUsage::ALL {
            assert_eq!(TerminalKeyUsage::from_code(usage.code()), Some(usage));
        }
        assert_eq!(TerminalKeyUsage::from_code(*b"B0"), None);
    }
}
