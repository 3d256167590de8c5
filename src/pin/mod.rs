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

/// Enciphers and deciphers one known block in each kind of format.
#[must_use]
pub(crate) fn self_test() -> bool {
    for_vectors::self_test()
}
