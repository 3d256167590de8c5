//! The algorithms that a key can be for, and what follows from each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The algorithm of a key together with its length.
///
/// HMAC has lengths and no hash: DUKPT derives such keys without naming one, and the MAC
/// algorithm of a call or of a key's policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    /// AES, 16 bytes.
    Aes128,
    /// AES, 24 bytes.
    Aes192,
    /// AES, 32 bytes.
    Aes256,
    /// HMAC, 16 bytes.
    Hmac128,
    /// HMAC, 24 bytes.
    Hmac192,
    /// HMAC, 32 bytes.
    Hmac256,
    /// HMAC, 48 bytes.
    Hmac384,
    /// HMAC, 64 bytes.
    Hmac512,
    /// Double length TDES (K1 K2 K1), 16 bytes.
    Tdes2,
    /// Triple length TDES, 24 bytes.
    Tdes3,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 10] = [
        Self::Aes128,
        Self::Aes192,
        Self::Aes256,
        Self::Hmac128,
        Self::Hmac192,
        Self::Hmac256,
        Self::Hmac384,
        Self::Hmac512,
        Self::Tdes2,
        Self::Tdes3,
    ];

    /// Finds the algorithm that a key block's header letter and a key's length name.
    #[must_use]
    pub fn from_header(letter: u8, len_bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| {
            algorithm.header_letter() == letter && algorithm.len_bytes() == len_bytes
        })
    }

    /// Octets of a key.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Aes128 | Self::Hmac128 | Self::Tdes2 => 16,
            Self::Aes192 | Self::Hmac192 | Self::Tdes3 => 24,
            Self::Aes256 | Self::Hmac256 => 32,
            Self::Hmac384 => 48,
            Self::Hmac512 => 64,
        }
    }

    /// Bits of security: a key wraps or derives only what is not stronger than itself.
    ///
    /// TDES has 80 and 112, as SP 800-57 part 1 counts them; HMAC has at most 256, so that the
    /// strongest wrapping key may carry it.
    #[must_use]
    pub const fn strength_bits(self) -> u16 {
        match self {
            Self::Tdes2 => 80,
            Self::Tdes3 => 112,
            Self::Aes128 | Self::Hmac128 => 128,
            Self::Aes192 | Self::Hmac192 => 192,
            Self::Aes256 | Self::Hmac256 | Self::Hmac384 | Self::Hmac512 => 256,
        }
    }

    /// The algorithm's letter in a key block header (ANSI X9.143, 6.3.2).
    #[must_use]
    pub const fn header_letter(self) -> u8 {
        match self {
            Self::Aes128 | Self::Aes192 | Self::Aes256 => b'A',
            Self::Hmac128 | Self::Hmac192 | Self::Hmac256 | Self::Hmac384 | Self::Hmac512 => b'H',
            Self::Tdes2 | Self::Tdes3 => b'T',
        }
    }

    /// Whether it is AES of any length.
    #[must_use]
    pub const fn is_aes(self) -> bool {
        self.header_letter() == b'A'
    }

    /// Whether it is HMAC of any length.
    #[must_use]
    pub const fn is_hmac(self) -> bool {
        self.header_letter() == b'H'
    }

    /// Whether it is TDES of either length.
    #[must_use]
    pub const fn is_tdes(self) -> bool {
        self.header_letter() == b'T'
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes128 => "AES128",
            Self::Aes192 => "AES192",
            Self::Aes256 => "AES256",
            Self::Hmac128 => "HMAC128",
            Self::Hmac192 => "HMAC192",
            Self::Hmac256 => "HMAC256",
            Self::Hmac384 => "HMAC384",
            Self::Hmac512 => "HMAC512",
            Self::Tdes2 => "TDES2",
            Self::Tdes3 => "TDES3",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_letter_and_length_name_one_algorithm() {
        for algorithm in Algorithm::ALL {
            let found = Algorithm::from_header(algorithm.header_letter(), algorithm.len_bytes());
            assert_eq!(found, Some(algorithm));
        }
        assert_eq!(Algorithm::from_header(b'T', 8), None);
        assert_eq!(Algorithm::from_header(b'D', 16), None);
        assert_eq!(Algorithm::from_header(b'A', 64), None);
    }
}
