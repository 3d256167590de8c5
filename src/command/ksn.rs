//! A key serial number of either kind, and the keys that a host derives for it.

use crate::dukpt::{AesInitialKey, AesKsn, DerivationError, KeyKind, TdesInitialKey, TdesKsn};
use crate::key::usage::{BaseDerivation, MacBoth, MacGeneration, MacVerification, PinEncryption};
use crate::key::{Algorithm, CheckValue, Key};
use crate::mac::{MacAlgorithm, MacError, MacTag, VerifyMacError};

/// A key serial number: 12 bytes for AES, 10 for TDES.
#[derive(Debug, Clone)]
pub enum Ksn {
    /// ANSI X9.24-3:2017, 6.3.
    Aes(AesKsn),
    /// ANSI X9.24-1:2009, 7.
    Tdes(TdesKsn),
}

impl Ksn {
    /// Its bytes: 12 for AES, 10 for TDES.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Aes(ksn) => ksn.bytes(),
            Self::Tdes(ksn) => ksn.bytes(),
        }
    }

    /// The part by which the base derivation key is found: 4 bytes for AES, 5 for TDES.
    #[must_use]
    pub fn key_set_id(&self) -> Vec<u8> {
        match self {
            Self::Aes(ksn) => ksn.bdk_id().to_vec(),
            Self::Tdes(ksn) => ksn.key_set_id().to_vec(),
        }
    }

    /// The id of the terminal's initial key: 8 bytes for AES, 10 for TDES.
    #[must_use]
    pub fn initial_key_id(&self) -> Vec<u8> {
        match self {
            Self::Aes(ksn) => ksn.initial_key_id().bytes().to_vec(),
            Self::Tdes(ksn) => ksn.initial_key_id().bytes().to_vec(),
        }
    }

    /// How many valid counters there are up to this one.
    #[must_use]
    pub fn rank(&self) -> u64 {
        match self {
            Self::Aes(ksn) => ksn.rank(),
            Self::Tdes(ksn) => ksn.rank(),
        }
    }

    /// The counter.
    #[must_use]
    pub fn counter(&self) -> u32 {
        match self {
            Self::Aes(ksn) => ksn.counter(),
            Self::Tdes(ksn) => ksn.counter(),
        }
    }
}

/// Whose message a MAC protects, as hosts know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways with one key.
    Both,
    /// From the terminal to the host.
    Request,
    /// From the host to the terminal.
    Response,
}

/// The initial key of a terminal, derived for the time of one call.
pub enum InitialKey {
    /// Of AES DUKPT.
    Aes(AesInitialKey, AesKsn),
    /// Of TDES DUKPT.
    Tdes(TdesInitialKey, TdesKsn),
}

impl InitialKey {
    /// Derives it from the base derivation key.
    pub fn derive(bdk: &Key<BaseDerivation>, ksn: &Ksn) -> Result<Self, DerivationError> {
        match ksn {
            Ksn::Aes(ksn) => Ok(Self::Aes(bdk.aes_initial_key(ksn.initial_key_id())?, *ksn)),
            Ksn::Tdes(ksn) => Ok(Self::Tdes(bdk.tdes_initial_key(ksn.initial_key_id())?, *ksn)),
        }
    }

    /// Its check value.
    #[must_use]
    pub fn check_value(&self) -> CheckValue {
        match self {
            Self::Aes(key, _) => key.key().check_value(),
            Self::Tdes(key, _) => key.key().check_value(),
        }
    }

    /// The kind of working key that has the algorithm of the initial key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Aes(key, _) => match key.key().algorithm() {
                Algorithm::Aes192 => KeyKind::Aes192,
                Algorithm::Aes256 => KeyKind::Aes256,
                _ => KeyKind::Aes128,
            },
            Self::Tdes(..) => KeyKind::Tdes2,
        }
    }

    /// The PIN key of the transaction; `kind` applies to AES.
    pub fn pin_key(&self, kind: KeyKind) -> Result<Key<PinEncryption>, DerivationError> {
        match self {
            Self::Aes(key, ksn) => key.working_key(ksn, kind),
            Self::Tdes(key, ksn) => key.working_key(ksn),
        }
    }

    /// The MAC key of the transaction in a direction; `kind` applies to AES.
    pub fn mac_key(&self, direction: Direction, kind: KeyKind) -> Result<MacKey, DerivationError> {
        match self {
            Self::Aes(key, ksn) => Ok(match direction {
                Direction::Both => MacKey::Both(key.working_key(ksn, kind)?),
                Direction::Request => MacKey::Request(key.working_key(ksn, kind)?),
                Direction::Response => MacKey::Response(key.working_key(ksn, kind)?),
            }),
            Self::Tdes(key, ksn) => Ok(match direction {
                Direction::Both | Direction::Request => MacKey::Request(key.working_key(ksn)?),
                Direction::Response => MacKey::Response(key.working_key(ksn)?),
            }),
        }
    }
}

/// A MAC key of a transaction: a DUKPT usage is named from the terminal's side.
pub enum MacKey {
    /// What either side makes and checks.
    Both(Key<MacBoth>),
    /// What the terminal makes and the host checks.
    Request(Key<MacGeneration>),
    /// What the host makes and the terminal checks.
    Response(Key<MacVerification>),
}

impl MacKey {
    /// The algorithm of the key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Both(key) => key.algorithm(),
            Self::Request(key) => key.algorithm(),
            Self::Response(key) => key.algorithm(),
        }
    }

    /// Makes a MAC; see [`Key::generate_mac`].
    pub fn generate_mac(
        &self,
        algorithm: MacAlgorithm,
        message: &[u8],
        len_bytes: usize,
    ) -> Result<MacTag, MacError> {
        match self {
            Self::Both(key) => key.generate_mac(algorithm, message, len_bytes),
            Self::Request(key) => key.generate_mac(algorithm, message, len_bytes),
            Self::Response(key) => key.generate_mac(algorithm, message, len_bytes),
        }
    }

    /// Verifies a MAC; see [`Key::verify_mac`].
    pub fn verify_mac(
        &self,
        algorithm: MacAlgorithm,
        message: &[u8],
        mac: &[u8],
    ) -> Result<(), VerifyMacError> {
        match self {
            Self::Both(key) => key.verify_mac(algorithm, message, mac),
            Self::Request(key) => key.verify_mac(algorithm, message, mac),
            Self::Response(key) => key.verify_mac(algorithm, message, mac),
        }
    }
}
