//! The MAC algorithms of the service and how each is computed from the primitives.

use zeroize::Zeroizing;

use super::padding::Padding;
use super::{MacError, Octets};
use crate::crypto::{cbc_mac, cmac, hmac, retail_mac};
use crate::key::Algorithm;

/// A MAC algorithm with all that both sides must know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MacAlgorithm {
    /// CMAC with AES (SP 800-38B, ISO 9797-1:2011 algorithm 5).
    AesCmac,
    /// HMAC with SHA-256 (FIPS 198-1).
    HmacSha256,
    /// HMAC with SHA-384 (FIPS 198-1).
    HmacSha384,
    /// HMAC with SHA-512 (FIPS 198-1).
    HmacSha512,
    /// CBC-MAC with TDES (ISO 9797-1:2011 algorithm 1).
    Iso9797Alg1(Padding),
    /// Retail MAC with double length TDES (ISO 9797-1:2011 algorithm 3); with padding method 1
    /// that of ANSI X9.19.
    Iso9797Alg3(Padding),
    /// CMAC with TDES (SP 800-38B, ISO 9797-1:2011 algorithm 5).
    TdesCmac,
}

impl MacAlgorithm {
    /// Every algorithm with every padding.
    pub const ALL: [Self; 11] = [
        Self::AesCmac,
        Self::HmacSha256,
        Self::HmacSha384,
        Self::HmacSha512,
        Self::Iso9797Alg1(Padding::Method1),
        Self::Iso9797Alg1(Padding::Method2),
        Self::Iso9797Alg1(Padding::Method3),
        Self::Iso9797Alg3(Padding::Method1),
        Self::Iso9797Alg3(Padding::Method2),
        Self::Iso9797Alg3(Padding::Method3),
        Self::TdesCmac,
    ];

    /// Octets of the whole MAC.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Iso9797Alg1(_) | Self::Iso9797Alg3(_) | Self::TdesCmac => 8,
            Self::AesCmac => 16,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// Whether a key of this algorithm can compute it.
    #[must_use]
    pub const fn fits(self, key: Algorithm) -> bool {
        match self {
            Self::AesCmac => key.is_aes(),
            Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 => key.is_hmac(),
            Self::Iso9797Alg1(_) | Self::TdesCmac => key.is_tdes(),
            // Its two halves are two single length keys; a third part has no place.
            Self::Iso9797Alg3(_) => matches!(key, Algorithm::Tdes2),
        }
    }

    /// Whether it is safe only where a policy fixes the length of its messages.
    ///
    /// Chaining can be continued: the MAC of a short message gives that of a longer one, or, in
    /// algorithm 3, two messages of one MAC give many. Method 3 begins with the length.
    #[must_use]
    pub const fn needs_fixed_length(self) -> bool {
        matches!(
            self,
            Self::Iso9797Alg1(Padding::Method1 | Padding::Method2)
                | Self::Iso9797Alg3(Padding::Method1 | Padding::Method2)
        )
    }

    /// Computes the whole MAC, an empty message's too.
    pub(super) fn compute(self, key: &[u8], message: &[u8]) -> Result<Octets, MacError> {
        match self {
            Self::AesCmac => whole(cmac::aes_cmac(key, message)),
            Self::HmacSha256 => Ok(Octets::new(&*Zeroizing::new(hmac::hmac_sha256(key, message)))),
            Self::HmacSha384 => Ok(Octets::new(&*Zeroizing::new(hmac::hmac_sha384(key, message)))),
            Self::HmacSha512 => Ok(Octets::new(&*Zeroizing::new(hmac::hmac_sha512(key, message)))),
            Self::Iso9797Alg1(padding) => {
                whole(cbc_mac::tdes_cbc_mac(key, &padding.pad::<8>(message)))
            }
            Self::Iso9797Alg3(padding) => {
                let key = key.try_into().map_err(|_| MacError::Algorithm)?;
                whole(retail_mac::retail_mac(key, &padding.pad::<8>(message)))
            }
            Self::TdesCmac => whole(cmac::tdes_cmac(key, message)),
        }
    }
}

/// The primitives refuse a key or a padded message of a wrong length; we pad, so it is the key.
pub(super) fn whole<const N: usize, E>(mac: Result<[u8; N], E>) -> Result<Octets, MacError> {
    let mac = mac.map(Zeroizing::new).map_err(|_| MacError::Algorithm)?;
    Ok(Octets::new(&*mac))
}
