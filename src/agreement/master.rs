//! The keys of a session under a terminal master key: SP 800-108 in place of agreement.

use zeroize::Zeroizing;

use super::{ConfirmationKey, SessionKeys, Suite, label};
use crate::crypto::cbc_mac::BlockMacError;
use crate::crypto::{kdf, tdes};
use crate::key::usage::KeyDerivation;
use crate::key::{Key, Material};
use crate::memory::with_wiped_stack;

/// A terminal's master key, of an algorithm that the terminal's suite takes.
///
/// Terminal and service hold it both, so it has no forward secrecy: who comes to know it later
/// opens what was delivered under it before.
#[derive(Clone, Copy)]
pub struct MasterKey<'a> {
    key: &'a Key<KeyDerivation>,
    suite: Suite,
}

/// The suite takes no master key of this algorithm.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the suite takes no master key of this algorithm")]
pub struct MasterKeyUnfit;

impl<'a> MasterKey<'a> {
    /// Takes a key for a suite; see [`Suite::takes_master_key`].
    pub fn new(key: &'a Key<KeyDerivation>, suite: Suite) -> Result<Self, MasterKeyUnfit> {
        if suite.takes_master_key(key.algorithm()) {
            Ok(Self { key, suite })
        } else {
            Err(MasterKeyUnfit)
        }
    }

    /// The key that stands in for the device key: it proves the device where no session has keys.
    ///
    /// ```text
    /// KDF("firstkey/v1/master-device", serial, 32 bytes)
    /// ```
    #[must_use]
    pub fn device_key(&self, serial: &str) -> ConfirmationKey {
        self.proof_key(label::MASTER_DEVICE, serial.as_bytes())
    }

    /// The keys of the session that a transcript begins: `begun` is its hash through `BeginAnswer`.
    ///
    /// ```text
    /// confirm_terminal      KDF("firstkey/v1/master-terminal", begun, 32 bytes)
    /// confirm_service       KDF("firstkey/v1/master-service", begun, 32 bytes)
    /// key_block_protection  KDF("firstkey/v1/master-kbpk", begun, as long as the master key)
    ///
    /// KDF(label, about, length) = CMAC of the master key's algorithm in counter mode:
    ///     K(i) = CMAC(master key, i(4) || label || 00 || suite || 00 || about || bits(4))
    /// ```
    ///
    /// The hash holds the serial, the activation and a nonce of each side, so no two sessions have
    /// the same keys. A derived TDES key has its parity set odd afterwards.
    ///
    /// See NIST SP 800-108r1 (2022), 4.1.
    #[must_use]
    pub fn session_keys(&self, begun: &[u8; 32]) -> SessionKeys {
        let algorithm = self.key.algorithm();
        let mut protection = Material::zeroed(algorithm.len_bytes());
        // Filled here and nowhere else.
        self.derive(label::MASTER_KBPK, begun, protection.expose_bytes_mut());
        if algorithm.is_tdes() {
            tdes::set_odd_parity(protection.expose_bytes_mut());
        }
        let protection = Key::from_material(algorithm, protection);
        SessionKeys {
            confirm_service: self.proof_key(label::MASTER_SERVICE, begun),
            confirm_terminal: self.proof_key(label::MASTER_TERMINAL, begun),
            key_block_protection: protection.expect("it has the length of its algorithm"),
            strength_bits: algorithm.strength_bits(),
        }
    }

    fn proof_key(&self, label: &str, about: &[u8]) -> ConfirmationKey {
        let mut key = Zeroizing::new([0; 32]);
        self.derive(label, about, &mut *key);
        ConfirmationKey(key)
    }

    fn derive(&self, label: &str, about: &[u8], out: &mut [u8]) {
        let context = [self.suite.name().as_bytes(), &[0], about].concat();
        // The KDF needs the bytes of the key; they stay within this call.
        let key = self.key.expose_bytes();
        let derived: Result<(), BlockMacError> = with_wiped_stack(|| {
            if self.key.algorithm().is_tdes() {
                kdf::kbkdf_cmac_tdes(key, label.as_bytes(), &context, out)
            } else {
                kdf::kbkdf_cmac_aes(key, label.as_bytes(), &context, out)
            }
        });
        derived.expect("the key has the length of its algorithm, and 16 to 32 bytes come out");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::crypto::rng::SystemRng;
    use crate::key::Algorithm;

    fn key(algorithm: Algorithm) -> Key<KeyDerivation> {
        Key::generate(algorithm, &SystemRng::new()).unwrap()
    }

    /// Every key that a master key gives, as bytes.
    fn all_of(master: &MasterKey<'_>, serial: &str, begun: &[u8; 32]) -> [Vec<u8>; 4] {
        let session = master.session_keys(begun);
        [
            master.device_key(serial).expose_bytes().to_vec(),
            session.confirm_service.expose_bytes().to_vec(),
            session.confirm_terminal.expose_bytes().to_vec(),
            session.key_block_protection.expose_bytes().to_vec(),
        ]
    }

    #[test]
    fn no_two_purposes_sessions_suites_or_serials_share_a_key() {
        let key = key(Algorithm::Aes256);
        let mut seen = HashSet::new();
        for suite in [Suite::MasterAesAes128, Suite::MasterAesTdes2] {
            let master = MasterKey::new(&key, suite).unwrap();
            for (serial, begun) in [("SN-1", [1; 32]), ("SN-2", [2; 32])] {
                for derived in all_of(&master, serial, &begun) {
                    assert!(seen.insert(derived));
                }
            }
        }
        assert_eq!(seen.len(), 16);
    }

    #[test]
    fn the_protection_key_is_of_the_algorithm_of_the_master_key() {
        for (suite, algorithm) in [
            (Suite::MasterAesAes128, Algorithm::Aes128),
            (Suite::MasterAesAes128, Algorithm::Aes192),
            (Suite::MasterAesTdes2, Algorithm::Aes256),
            (Suite::MasterTdesTdes2, Algorithm::Tdes2),
            (Suite::MasterTdesTdes2, Algorithm::Tdes3),
        ] {
            let key = key(algorithm);
            let keys = MasterKey::new(&key, suite).unwrap().session_keys(&[3; 32]);
            let protection = &keys.key_block_protection;
            assert_eq!(protection.algorithm(), algorithm);
            let odd = protection.expose_bytes().iter().all(|octet| octet.count_ones() % 2 == 1);
            assert!(odd || algorithm.is_aes());
            // What it carries is at most as strong as the key that it comes from.
            for carried in Algorithm::ALL {
                let is_weaker = carried.strength_bits() <= algorithm.strength_bits();
                assert_eq!(keys.carry(carried), is_weaker, "{algorithm} {carried}");
            }
        }
    }

    #[test]
    fn a_key_of_another_family_is_none_of_the_suite() {
        for suite in Suite::ALL {
            for algorithm in [Algorithm::Aes128, Algorithm::Tdes2] {
                let key = key(algorithm);
                let taken = MasterKey::new(&key, suite).is_ok();
                assert_eq!(taken, suite.takes_master_key(algorithm));
            }
        }
    }
}
