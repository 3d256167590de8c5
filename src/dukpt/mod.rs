//! Derives the keys of a transaction at the host: derived unique key per transaction (DUKPT).
//!
//! ```text
//! base derivation key -> initial key -> (a step per counter bit) -> transaction key -> working key
//! ```
//!
//! Two families stand side by side and share nothing but their shape: [`tdes`] of ANSI
//! X9.24-1:2009 (X9.24-3:2017, annex C) and [`aes`] of ANSI X9.24-3:2017. A key serial number is
//! a value of [`TdesKsn`] or [`AesKsn`], whose counter is usable by construction; what only run
//! time knows, another key's id or a working key that would be too strong, is a
//! [`DerivationError`].
//!
//! A usage is named from the terminal's side: [`MacGeneration`](crate::key::usage::MacGeneration)
//! is the key with which the terminal makes what the host checks.

pub mod aes;
mod counter;
pub mod ksn;
pub mod tdes;

pub use aes::{AesInitialKey, KeyKind};
pub use ksn::{AesInitialKeyId, AesKsn, KsnInvalid, TdesInitialKeyId, TdesKsn};
pub use tdes::TdesInitialKey;

/// The derivations on plain bytes, for the vector runner alone: any usage, any counter.
pub(crate) mod for_vectors {
    pub(crate) use super::aes::{
        Derived as AesDerived, derive_initial_key as aes_initial_key,
        derive_of_transaction as aes_key_of_transaction,
        derive_transaction_key as aes_transaction_key, derive_update_key as aes_update_key,
        derive_working_key as aes_working_key,
    };
    pub(crate) use super::ksn::{CompatibleKsn, tdes_initial_key_id};
    pub(crate) use super::tdes::{
        Derived as TdesDerived, derive_initial_key as tdes_initial_key,
        derive_transaction_key as tdes_transaction_key, derive_variant as tdes_variant,
    };
}

/// Why a key was not derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerivationError {
    /// The key is of another family, or of a length that the family does not know.
    #[error("the key's algorithm does not belong to this derivation")]
    Algorithm,
    /// The key serial number names the initial key of another device.
    #[error("the key serial number belongs to another initial key")]
    KeyId,
    /// The working key would be stronger than the key it comes from (X9.24-3:2017, 6.1).
    #[error("the working key would be stronger than the key it is derived from")]
    Strength,
}

/// Derives one known working key of each family.
#[must_use]
pub(crate) fn self_test() -> bool {
    aes::self_test() && tdes::self_test()
}
