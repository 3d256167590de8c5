//! Wraps and unwraps keys as key blocks: ANSI X9.143 (TR-31), ISO 20038.
//!
//! A key block binds a key to its header: a changed character of either makes the MAC fail. The
//! service's way, [`wrap`] and [`unwrap`], knows version D under AES and version B under TDES,
//! in their canonical form alone, and answers whatever is wrong with [`KeyBlockRejected`]. The
//! codec below it also knows the deprecated A and C and ISO 20038's E; the vector runner reaches
//! those, nobody else does.

mod codec;
mod explain;
mod header;
mod wrap;

use crate::key::Algorithm;

pub use explain::{Explained, explain, usage_meaning};
pub use header::{Header, HeaderInvalid, OptionalBlock};
pub use wrap::{
    KNOWN_ANSWERS, KeyBlock, KeyBlockRejected, Unwrapped, WrapError, WrappingUsage, unwrap, wrap,
    wrap_key,
};

/// The codec with every version and given padding, for the vector runner alone.
pub(crate) mod for_vectors {
    pub(crate) use super::codec::{Opened, open as unwrap_any, seal as wrap_any};
}

/// How a key block is protected (ANSI X9.143, 6.2; ISO 20038:2017).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// TDES, keys by variant. Deprecated.
    A,
    /// TDES, keys by CMAC derivation.
    B,
    /// TDES, keys by variant. Deprecated.
    C,
    /// AES, keys by CMAC derivation, CBC.
    D,
    /// AES, keys by CMAC derivation, counter mode (ISO 20038).
    E,
}

impl Version {
    /// The version in which the service wraps under a key of this algorithm: D under AES, B under
    /// TDES; none under HMAC keys.
    #[must_use]
    pub fn under(algorithm: Algorithm) -> Option<Self> {
        if algorithm.is_aes() {
            Some(Self::D)
        } else if algorithm.is_tdes() {
            Some(Self::B)
        } else {
            None
        }
    }

    /// The version that a header's first character names.
    #[must_use]
    pub fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'A' => Some(Self::A),
            b'B' => Some(Self::B),
            b'C' => Some(Self::C),
            b'D' => Some(Self::D),
            b'E' => Some(Self::E),
            _ => None,
        }
    }

    /// The first character of a header of this version.
    #[must_use]
    pub fn letter(self) -> u8 {
        match self {
            Self::A => b'A',
            Self::B => b'B',
            Self::C => b'C',
            Self::D => b'D',
            Self::E => b'E',
        }
    }

    /// What a header's and a block's characters are a multiple of. Counter mode needs nothing
    /// but whole octets.
    fn block_len(self) -> usize {
        match self {
            Self::A | Self::B | Self::C => 8,
            Self::D => 16,
            Self::E => 2,
        }
    }

    /// Octets of the cipher's block, of which the clear data is a multiple.
    #[must_use]
    pub fn cipher_block_len(self) -> usize {
        match self {
            Self::A | Self::B | Self::C => 8,
            Self::D => 16,
            Self::E => 1,
        }
    }

    /// Octets of the MAC at the end of a block.
    #[must_use]
    pub fn mac_len(self) -> usize {
        match self {
            Self::A | Self::C => 4,
            Self::B => 8,
            Self::D | Self::E => 16,
        }
    }
}

/// The most characters that the length field can tell.
const BLOCK_LEN_MAX: u16 = 9999;
