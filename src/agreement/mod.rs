//! How a terminal and the service come to the keys of a session: by P-256 agreement, or from the
//! master key that the terminal holds. And the one registry of labels.

mod master;

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::LengthInvalid;
use crate::crypto::ec::{Point, SharedSecret};
use crate::crypto::kdf::hkdf_sha256;
use crate::key::usage::KeyBlockProtection;
use crate::key::{Algorithm, Key, Material};

pub use master::{MasterKey, MasterKeyUnfit};

/// The labels that keep one use of a derivation, hash or signature apart from every other.
///
/// All of them stand here, and none is a prefix of another: SP 800-108r1, 4; SEC-15.
pub mod label {
    /// Before the transcript of an exchange, and before what signatures and MACs cover.
    pub const ACTIVATION: &str = "firstkey/v1/activation";
    /// The key of the check of what says how the master key of a store is kept.
    pub const AT_REST_CUSTODY: &str = "firstkey/v1/at-rest/custody";
    /// The keys of keyed hashes in a store.
    pub const AT_REST_HASH: &str = "firstkey/v1/at-rest/hash";
    /// The keys under which key blocks are wrapped in a store.
    pub const AT_REST_KEY_BLOCK: &str = "firstkey/v1/at-rest/key-block";
    /// The keys under which records are sealed in a store.
    pub const AT_REST_RECORD: &str = "firstkey/v1/at-rest/record";
    /// Before a component that a custodian commits to, where it is hashed.
    pub const CEREMONY_COMMITMENT: &str = "firstkey/v1/ceremony/commitment";
    /// Before a ceremony's key for envelopes, where the service signs it.
    pub const CEREMONY_KEY: &str = "firstkey/v1/ceremony/key";
    /// Before the plan of a ceremony, where it is digested.
    pub const CEREMONY_PLAN: &str = "firstkey/v1/ceremony/plan";
    /// Before the hash of a transcript, where it is signed.
    pub const CEREMONY_TRANSCRIPT: &str = "firstkey/v1/ceremony/transcript";
    /// The first line of a certificate of destruction.
    pub const CERTIFICATE_OF_DESTRUCTION: &str = "firstkey/v1/certificate-of-destruction";
    /// The key by which the service confirms the agreed keys.
    pub const CONFIRM_SERVICE: &str = "firstkey/v1/confirm-service";
    /// The key by which the terminal confirms the agreed keys.
    pub const CONFIRM_TERMINAL: &str = "firstkey/v1/confirm-terminal";
    /// Before what an envelope belongs to, where it is sealed.
    pub const ENVELOPE_INFO: &str = "firstkey/v1/envelope/info";
    /// Before what an envelope belongs to, where it is signed.
    pub const ENVELOPE_SIGNATURE: &str = "firstkey/v1/envelope/signature";
    /// The agreed key block protection key.
    pub const KBPK: &str = "firstkey/v1/kbpk";
    /// The key by which a terminal with a master key proves itself before a session has keys.
    pub const MASTER_DEVICE: &str = "firstkey/v1/master-device";
    /// The key block protection key of a session under a master key.
    pub const MASTER_KBPK: &str = "firstkey/v1/master-kbpk";
    /// The key by which the service proves itself in a session under a master key.
    pub const MASTER_SERVICE: &str = "firstkey/v1/master-service";
    /// The key by which the terminal proves itself in a session under a master key.
    pub const MASTER_TERMINAL: &str = "firstkey/v1/master-terminal";
    /// The static keys of a terminal.
    pub const TERMINAL_KEY: &str = "firstkey/v1/terminal-key";
    /// The key by which the service confirms keys that came under an update key.
    pub const UPDATE_SERVICE: &str = "firstkey/v1/update-service";
    /// The key by which the terminal confirms keys that came under an update key.
    pub const UPDATE_TERMINAL: &str = "firstkey/v1/update-terminal";

    /// All labels.
    pub const ALL: &[&str] = &[
        ACTIVATION,
        AT_REST_CUSTODY,
        AT_REST_HASH,
        AT_REST_KEY_BLOCK,
        AT_REST_RECORD,
        CEREMONY_COMMITMENT,
        CEREMONY_KEY,
        CEREMONY_PLAN,
        CEREMONY_TRANSCRIPT,
        CERTIFICATE_OF_DESTRUCTION,
        CONFIRM_SERVICE,
        CONFIRM_TERMINAL,
        ENVELOPE_INFO,
        ENVELOPE_SIGNATURE,
        KBPK,
        MASTER_DEVICE,
        MASTER_KBPK,
        MASTER_SERVICE,
        MASTER_TERMINAL,
        TERMINAL_KEY,
        UPDATE_SERVICE,
        UPDATE_TERMINAL,
    ];
}

/// What a terminal agrees and computes with. Registration fixes it; nothing is negotiated.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
pub enum Suite {
    /// AES master key, AES-128 DUKPT (ANSI X9.24-3:2017).
    #[serde(rename = "MASTER_AES_AES128")]
    MasterAesAes128,
    /// AES master key, TDES DUKPT (ANSI X9.24-1:2009).
    #[serde(rename = "MASTER_AES_TDES2")]
    MasterAesTdes2,
    /// TDES master key, TDES DUKPT (ANSI X9.24-1:2009).
    #[serde(rename = "MASTER_TDES_TDES2")]
    MasterTdesTdes2,
    /// P-256 agreement, AES-128 DUKPT (ANSI X9.24-3:2017).
    #[serde(rename = "P256_AES128")]
    P256Aes128,
    /// P-256 agreement, TDES DUKPT (ANSI X9.24-1:2009).
    #[serde(rename = "P256_TDES2")]
    P256Tdes2,
}

/// The DUKPT of a suite: what its terminals compute with once they have their initial key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dukpt {
    /// ANSI X9.24-3:2017 with AES-128 keys.
    Aes128,
    /// ANSI X9.24-1:2009, double-length keys.
    Tdes2,
}

impl Suite {
    /// All suites.
    pub const ALL: [Self; 5] = [
        Self::MasterAesAes128,
        Self::MasterAesTdes2,
        Self::MasterTdesTdes2,
        Self::P256Aes128,
        Self::P256Tdes2,
    ];

    /// The name, as it enters the derivation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MasterAesAes128 => "MASTER_AES_AES128",
            Self::MasterAesTdes2 => "MASTER_AES_TDES2",
            Self::MasterTdesTdes2 => "MASTER_TDES_TDES2",
            Self::P256Aes128 => "P256_AES128",
            Self::P256Tdes2 => "P256_TDES2",
        }
    }

    /// Finds a suite by its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// The DUKPT of its terminals.
    #[must_use]
    pub fn dukpt(self) -> Dukpt {
        match self {
            Self::MasterAesAes128 | Self::P256Aes128 => Dukpt::Aes128,
            Self::MasterAesTdes2 | Self::MasterTdesTdes2 | Self::P256Tdes2 => Dukpt::Tdes2,
        }
    }

    /// The algorithm of the initial DUKPT key.
    #[must_use]
    pub fn initial_key_algorithm(self) -> Algorithm {
        match self.dukpt() {
            Dukpt::Aes128 => Algorithm::Aes128,
            Dukpt::Tdes2 => Algorithm::Tdes2,
        }
    }

    /// Whether its terminals hold a master key; the others agree by P-256 and have certificates.
    #[must_use]
    pub fn has_master_key(self) -> bool {
        match self {
            Self::MasterAesAes128 | Self::MasterAesTdes2 | Self::MasterTdesTdes2 => true,
            Self::P256Aes128 | Self::P256Tdes2 => false,
        }
    }

    /// Whether the suite can carry a key: P-256 agreement is strong enough for TDES and AES-128, a
    /// TDES master key carries TDES alone. An AES master key may still be weaker than the key.
    #[must_use]
    pub fn carries(self, algorithm: Algorithm) -> bool {
        match self {
            Self::MasterAesAes128 | Self::MasterAesTdes2 => true,
            Self::MasterTdesTdes2 => algorithm.is_tdes(),
            Self::P256Aes128 | Self::P256Tdes2 => {
                algorithm.strength_bits() <= AGREEMENT_STRENGTH_BITS
            }
        }
    }

    /// Whether a master key of this algorithm is one of the suite, and strong enough for its
    /// initial key: SEC-12.
    #[must_use]
    pub fn takes_master_key(self, algorithm: Algorithm) -> bool {
        let is_of_family = match self {
            Self::MasterAesAes128 | Self::MasterAesTdes2 => algorithm.is_aes(),
            Self::MasterTdesTdes2 => algorithm.is_tdes(),
            Self::P256Aes128 | Self::P256Tdes2 => false,
        };
        is_of_family && algorithm.strength_bits() >= self.initial_key_algorithm().strength_bits()
    }
}

/// What both sides know of an agreement, and bind into the keys.
#[derive(Clone, Copy)]
pub struct Agreement<'a> {
    /// The registered suite.
    pub suite: Suite,
    /// The hash of the transcript through the terminal's Deliver: both identities, both nonces and
    /// the activation are in it.
    pub transcript_hash: &'a [u8; 32],
    /// The device's ephemeral key.
    pub device_ephemeral: &'a Point,
    /// The service's ephemeral key.
    pub service_ephemeral: &'a Point,
}

impl Agreement<'_> {
    /// Derives the agreed keys; the shared secret is gone afterwards.
    ///
    /// ```text
    /// key(label) = HKDF-SHA-256( salt = transcript hash, IKM = Z, info, 32 bytes )
    /// info       = len(1) || label || len(1) || suite
    ///                     || device ephemeral(65) || service ephemeral(65)
    /// ```
    ///
    /// See NIST SP 800-56A rev. 3, 5.8.2, and RFC 5869.
    #[must_use]
    pub fn derive(&self, secret: SharedSecret) -> SessionKeys {
        // HKDF extracts from the secret; it is wiped when this call returns.
        let agreed = self.derive_from_bytes(secret.expose_bytes());
        drop(secret);
        agreed
    }

    /// As [`Self::derive`], of a shared secret that stands in a test vector.
    pub(crate) fn derive_from_bytes(&self, shared_secret: &[u8]) -> SessionKeys {
        let kbpk = self.derive_one(shared_secret, label::KBPK);
        let kbpk = Key::from_material(Algorithm::Aes256, Material::copied_from(&*kbpk))
            .expect("an AES-256 key has 32 bytes");
        SessionKeys {
            confirm_service: ConfirmationKey(
                self.derive_one(shared_secret, label::CONFIRM_SERVICE),
            ),
            confirm_terminal: ConfirmationKey(
                self.derive_one(shared_secret, label::CONFIRM_TERMINAL),
            ),
            key_block_protection: kbpk,
            strength_bits: AGREEMENT_STRENGTH_BITS,
        }
    }

    fn derive_one(&self, shared_secret: &[u8], label: &str) -> Zeroizing<[u8; 32]> {
        let suite = self.suite.name();
        let info = [
            &[len_byte(label)][..],
            label.as_bytes(),
            &[len_byte(suite)],
            suite.as_bytes(),
            self.device_ephemeral.bytes(),
            self.service_ephemeral.bytes(),
        ];
        let mut key = Zeroizing::new([0; 32]);
        let derived: Result<(), LengthInvalid> =
            hkdf_sha256(self.transcript_hash, shared_secret, &info, &mut *key);
        derived.expect("32 bytes are one block of HKDF, of 255");
        key
    }
}

/// The strength of P-256 agreement in bits: NIST SP 800-57 part 1 rev. 5, table 2.
const AGREEMENT_STRENGTH_BITS: u16 = 128;

/// The keys of a session. Each is wiped on drop.
pub struct SessionKeys {
    /// Under it the service confirms; with a master key it proves all its answers under it.
    pub confirm_service: ConfirmationKey,
    /// Under it the terminal confirms; with a master key it asks for its keys under it too.
    pub confirm_terminal: ConfirmationKey,
    /// Wraps the delivered keys. By agreement AES-256 (X9.143 version D), from a master key of its
    /// algorithm: AES (version D) or TDES (version B).
    pub key_block_protection: Key<KeyBlockProtection>,
    strength_bits: u16,
}

impl SessionKeys {
    /// Whether what they come from is strong enough to carry a key. Strength counts, not length:
    /// P-256 carries TDES and AES-128, although the protection key has 256 bits. See SEC-12.
    #[must_use]
    pub fn carry(&self, algorithm: Algorithm) -> bool {
        algorithm.strength_bits() <= self.strength_bits
    }
}

/// A key by which one side proves itself to the other, by HMAC-SHA-256. Wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ConfirmationKey(Zeroizing<[u8; 32]>);

impl ConfirmationKey {
    /// Takes a key that was kept until the confirmation came.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key, for its HMAC, a sealed record or a device's memory.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ConfirmationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ConfirmationKey(..)")
    }
}

fn len_byte(text: &str) -> u8 {
    u8::try_from(text.len()).expect("labels and suites are short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_a_prefix_of_another() {
        for (index, one) in label::ALL.iter().enumerate() {
            for (other_index, other) in label::ALL.iter().enumerate() {
                assert!(index == other_index || !other.starts_with(one), "{one} begins {other}");
            }
        }
    }

    #[test]
    fn p256_carries_what_has_128_bits_of_strength() {
        let point = crate::crypto::ec::EphemeralKey::generate().unwrap().public();
        let agreement = Agreement {
            suite: Suite::P256Aes128,
            transcript_hash: &[1; 32],
            device_ephemeral: &point,
            service_ephemeral: &point,
        };
        let keys = agreement.derive_from_bytes(&[2; 32]);
        let carried: Vec<Algorithm> =
            Algorithm::ALL.into_iter().filter(|each| keys.carry(*each)).collect();
        assert!(carried.contains(&Algorithm::Tdes2) && carried.contains(&Algorithm::Aes128));
        assert!(!carried.contains(&Algorithm::Aes192) && !carried.contains(&Algorithm::Aes256));
        for suite in Suite::ALL {
            assert!(suite.has_master_key() || keys.carry(suite.initial_key_algorithm()));
        }
    }

    #[test]
    fn a_suite_is_found_by_its_name() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_name(suite.name()), Some(suite));
        }
        assert_eq!(Suite::from_name("P256"), None);
    }

    #[test]
    fn a_suite_takes_master_keys_of_its_family_alone() {
        use Algorithm::{Aes128, Aes192, Aes256, Tdes2, Tdes3};
        for (suite, expected) in [
            (Suite::MasterAesAes128, &[Aes128, Aes192, Aes256][..]),
            (Suite::MasterAesTdes2, &[Aes128, Aes192, Aes256]),
            (Suite::MasterTdesTdes2, &[Tdes2, Tdes3]),
            (Suite::P256Aes128, &[]),
            (Suite::P256Tdes2, &[]),
        ] {
            let taken: Vec<Algorithm> =
                Algorithm::ALL.into_iter().filter(|each| suite.takes_master_key(*each)).collect();
            assert_eq!(taken, expected, "{suite:?}");
            assert_eq!(suite.has_master_key(), !taken.is_empty());
        }
    }
}
