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

use crate::crypto::self_test::KnownAnswer;

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

/// Known working keys of each family.
pub const KNOWN_ANSWERS: [KnownAnswer; 3] = [
    // ANSI X9.24-3:2017, supplement.
    KnownAnswer {
        algorithm: "DUKPT with AES-128",
        expected: "AF8CB133A78F8DC2D1359F18527593FB",
        holds: |expected| aes::holds(16, KeyKind::Aes128, expected),
    },
    KnownAnswer {
        algorithm: "DUKPT with AES-256",
        expected: "8C1AB7BEE973829E30242E0BBBDD4946D540C98FC1B5BDCF94790001A23FD502",
        holds: |expected| aes::holds(32, KeyKind::Aes256, expected),
    },
    // ANSI X9.24-1:2009, annex A.4.
    KnownAnswer {
        algorithm: "DUKPT with TDES",
        expected: "042666B49184CF5C68DE9628D0397B36",
        holds: tdes::holds,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rng::{Rng as _, SystemRng};
    use crate::key::usage::{
        DataBoth, DataDecryption, DataEncryption, MacBoth, MacGeneration, MacVerification,
        PinEncryption, WorkingKeyEncryption, WorkingUsage as _,
    };

    /// Keys of several usages, and whether the difference of some two was always the same.
    fn some_two_differ_alike(keys_of: impl Fn(&[u8; 16]) -> Vec<Vec<u8>>) -> bool {
        let rng = SystemRng::new();
        let mut alike: Option<Vec<Vec<u8>>> = None;
        for _ in 0..1_000 {
            let mut master = [0; 16];
            rng.fill(&mut master).unwrap();
            let keys = keys_of(&master);
            let mut differences = Vec::new();
            for (index, one) in keys.iter().enumerate() {
                for other in &keys[index + 1..] {
                    assert_ne!(one, other);
                    differences.push(one.iter().zip(other).map(|(a, b)| a ^ b).collect());
                }
            }
            // Only what never changed from the first master on is kept as it was.
            match &mut alike {
                None => alike = Some(differences),
                Some(alike) => {
                    for (seen, now) in alike.iter_mut().zip(differences) {
                        if *seen != now {
                            seen.clear();
                        }
                    }
                }
            }
        }
        alike.unwrap().iter().any(|seen| !seen.is_empty())
    }

    #[test]
    fn usages_are_separated_by_derivation_and_not_by_a_constant() {
        let id = AesInitialKeyId::new([1; 4], [2; 4]);
        let usages = [
            DataBoth::INDICATOR,
            DataDecryption::INDICATOR,
            DataEncryption::INDICATOR,
            MacBoth::INDICATOR,
            MacGeneration::INDICATOR,
            MacVerification::INDICATOR,
            PinEncryption::INDICATOR,
            WorkingKeyEncryption::INDICATOR,
        ];
        assert!(!some_two_differ_alike(|master| {
            let of = |usage: &u16| {
                aes::derive_working_key(master, id, 1, *usage, KeyKind::Aes128).unwrap().to_vec()
            };
            usages.iter().map(of).collect()
        }));
        // The control, and the one exception: the variants of X9.24-1 are constants.
        assert!(some_two_differ_alike(|master| {
            let pin = tdes::derive_variant::<PinEncryption>(master).unwrap().to_vec();
            vec![pin, tdes::derive_variant::<MacGeneration>(master).unwrap().to_vec()]
        }));
    }

    #[test]
    fn every_answer_is_right_and_every_bit_of_it_counts() {
        crate::crypto::self_test::expect_each_to_bite(&KNOWN_ANSWERS);
    }
}
