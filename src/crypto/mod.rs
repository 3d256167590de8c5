//! The primitives, each named as its standard names it; the one place that names a library of them.
//!
//! Everything here works on byte slices and knows nothing of what a key is for: that begins one
//! floor above, in `key`. Each primitive has one provider on the service's path.

pub mod aead;
pub mod aes;
mod cbc;
pub mod cbc_mac;
pub mod certificate;
pub mod cmac;
pub mod digest;
pub mod ec;
pub mod ed25519;
#[cfg(feature = "fault-points")]
pub mod fault_points;
pub mod hmac;
pub mod hpke;
pub mod kdf;
pub mod merkle;
pub mod retail_mac;
pub mod rng;
pub mod self_test;
pub mod sharing;
pub mod tdes;
pub mod token;

/// Arithmetic on secrets whose running time does not depend on them.
pub mod ct {
    pub use subtle::{
        Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater, ConstantTimeLess,
    };
}

pub use ct::Choice;
use ct::ConstantTimeEq;

/// A key whose length the algorithm does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key has a length that the algorithm does not have")]
pub struct KeyLengthInvalid;

/// An input or output of a length that the algorithm does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the input has a length that the algorithm does not take")]
pub struct LengthInvalid;

/// Compares two byte strings in a time that depends on their lengths alone.
///
/// False when the lengths differ: a length is never the secret here.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_content_and_length() {
        assert!(constant_time_eq(b"", b""));
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        assert!(!constant_time_eq(b"abc", b"ab"));
    }
}
