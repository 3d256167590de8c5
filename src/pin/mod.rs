//! Enciphers, deciphers and translates PIN blocks (ISO 9564-1:2017).
//!
//! A clear PIN exists in two places alone: inside [`Translation::apply`], and inside
//! [`encipher`], which a terminal calls. Whatever is wrong with a PIN block, the caller learns
//! [`PinBlockRejected`]; what is wrong with the call, [`FormatForbidden`], is known before
//! anything is deciphered.

mod block;
pub(crate) mod for_vectors;
mod pan;
mod translation;

use crate::crypto::self_test::KnownAnswer;

pub use block::{EncryptedPinBlock, Fill, Pin, PinBlockFormat, PinInvalid, encipher, verify_form};
pub use pan::{Pan, PanForm, PanInvalid};
pub use translation::{Translation, permitted};

/// The PIN block was not accepted. Which of its parts was wrong is told to nobody (SEC-21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the PIN block was rejected")]
pub struct PinBlockRejected;

/// Why a PIN block of a format can not be made or translated; all of it known to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatForbidden {
    /// Formats 0, 1 and 3 go with TDES, format 4 goes with AES (PCI PIN 2-3).
    #[error("the PIN block format does not go with the key's algorithm")]
    Algorithm,
    /// The pair of formats is not in the table of permitted translations (PCI PIN 3-3).
    #[error("a translation between these PIN block formats is not permitted")]
    Pair,
    /// Formats 0 and 3 take twelve digits besides the check digit.
    #[error("the PAN is too short for the PIN block format")]
    PanLength,
}

/// A known block of each format that is taken, enciphered and deciphered.
pub const KNOWN_ANSWERS: [KnownAnswer; 4] = [
    // ANSI X9.24-1:2009, annex A.4.
    KnownAnswer {
        algorithm: "PIN block format 0",
        expected: "1B9C1845EB993A7A",
        holds: |expected| for_vectors::holds(PinBlockFormat::Iso0, &[], expected),
    },
    // The block 1412340123456789 under the same key, enciphered with OpenSSL 3.0.
    KnownAnswer {
        algorithm: "PIN block format 1",
        expected: "B4E999A303101B1A",
        holds: |expected| {
            let fill = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
            for_vectors::holds(PinBlockFormat::Iso1, &fill, expected)
        },
    },
    // 341234ABCDEFABCD with the same PAN, enciphered with OpenSSL 3.0.
    KnownAnswer {
        algorithm: "PIN block format 3",
        expected: "2B98101DDC1C59FC",
        holds: |expected| {
            let fill = [0xA, 0xB, 0xC, 0xD, 0xE, 0xF, 0xA, 0xB, 0xC, 0xD];
            for_vectors::holds(PinBlockFormat::Iso3, &fill, expected)
        },
    },
    // ANSI X9.24-3:2017, supplement.
    KnownAnswer {
        algorithm: "PIN block format 4",
        expected: "A912150391AB65A67E52883D81CE2D15",
        holds: |expected| {
            let fill = [2, 0xF, 6, 9, 0xA, 0xD, 0xD, 0xE, 2, 0xE, 9, 0xE, 7, 0xA, 0xC, 0xE];
            for_vectors::holds(PinBlockFormat::Iso4, &fill, expected)
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_right_and_every_bit_of_it_counts() {
        crate::crypto::self_test::expect_each_to_bite(&KNOWN_ANSWERS);
    }
}
