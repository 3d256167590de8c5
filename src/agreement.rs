//! P-256 key agreement, its key derivation, and the one registry of labels.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::LengthInvalid;
use crate::crypto::ec::{Point, SharedSecret};
use crate::crypto::kdf::hkdf_sha256;
use crate::key::usage::KeyBlockProtection;
use crate::key::{Algorithm, Key, Material};

/// The labels that keep one use of a derivation, hash or signature apart from every other.
///
/// All of them stand here, and none is a prefix of another: SP 800-108r1, 4; SEC-15.
pub mod label {
    /// Before the transcript of an exchange, and before what signatures and MACs cover.
    pub const ACTIVATION: &str = "firstkey/v1/activation";
    /// The keys of keyed hashes in a store.
    pub const AT_REST_HASH: &str = "firstkey/v1/at-rest/hash";
    /// The keys under which key blocks are wrapped in a store.
    pub const AT_REST_KEY_BLOCK: &str = "firstkey/v1/at-rest/key-block";
    /// The keys under which records are sealed in a store.
    pub const AT_REST_RECORD: &str = "firstkey/v1/at-rest/record";
    /// The key by which the service confirms the agreed keys.
    pub const CONFIRM_SERVICE: &str = "firstkey/v1/confirm-service";
    /// The key by which the terminal confirms the agreed keys.
    pub const CONFIRM_TERMINAL: &str = "firstkey/v1/confirm-terminal";
    /// The agreed key block protection key.
    pub const KBPK: &str = "firstkey/v1/kbpk";

    /// All labels.
    pub const ALL: [&str; 7] = [
        ACTIVATION,
        AT_REST_HASH,
        AT_REST_KEY_BLOCK,
        AT_REST_RECORD,
        CONFIRM_SERVICE,
        CONFIRM_TERMINAL,
        KBPK,
    ];
}

/// What a terminal agrees and computes with. Registration fixes it; nothing is negotiated.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
pub enum Suite {
    /// P-256 agreement, AES-128 DUKPT (ANSI X9.24-3:2017).
    #[serde(rename = "P256_AES128")]
    P256Aes128,
    /// P-256 agreement, TDES DUKPT (ANSI X9.24-1:2009).
    #[serde(rename = "P256_TDES2")]
    P256Tdes2,
}

impl Suite {
    /// All suites.
    pub const ALL: [Self; 2] = [Self::P256Aes128, Self::P256Tdes2];

    /// The strength of P-256 agreement in bits: NIST SP 800-57 part 1 rev. 5, table 2.
    pub const AGREEMENT_STRENGTH_BITS: u16 = 128;

    /// The name, as it enters the derivation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P256Aes128 => "P256_AES128",
            Self::P256Tdes2 => "P256_TDES2",
        }
    }

    /// Finds a suite by its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// The algorithm of the initial DUKPT key.
    #[must_use]
    pub fn initial_key_algorithm(self) -> Algorithm {
        match self {
            Self::P256Aes128 => Algorithm::Aes128,
            Self::P256Tdes2 => Algorithm::Tdes2,
        }
    }

    /// Whether the agreement is strong enough to carry a key: strength counts, not length, so it
    /// carries TDES and AES-128 although the agreed protection key has 256 bits. See SEC-12.
    #[must_use]
    pub fn carries(self, algorithm: Algorithm) -> bool {
        algorithm.strength_bits() <= Self::AGREEMENT_STRENGTH_BITS
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
    pub fn derive(&self, secret: SharedSecret) -> AgreedKeys {
        // HKDF extracts from the secret; it is wiped when this call returns.
        let agreed = self.derive_from_bytes(secret.expose_bytes());
        drop(secret);
        agreed
    }

    /// As [`Self::derive`], of a shared secret that stands in a test vector.
    pub(crate) fn derive_from_bytes(&self, shared_secret: &[u8]) -> AgreedKeys {
        let kbpk = self.derive_one(shared_secret, label::KBPK);
        let kbpk = Key::from_material(Algorithm::Aes256, Material::copied_from(&*kbpk))
            .expect("an AES-256 key has 32 bytes");
        AgreedKeys {
            confirm_service: ConfirmationKey(
                self.derive_one(shared_secret, label::CONFIRM_SERVICE),
            ),
            confirm_terminal: ConfirmationKey(
                self.derive_one(shared_secret, label::CONFIRM_TERMINAL),
            ),
            key_block_protection: kbpk,
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

/// The keys of an agreement. Each is wiped on drop.
pub struct AgreedKeys {
    /// Under it the service confirms.
    pub confirm_service: ConfirmationKey,
    /// Under it the terminal confirms.
    pub confirm_terminal: ConfirmationKey,
    /// Wraps the delivered keys: AES-256, X9.143 version D.
    pub key_block_protection: Key<KeyBlockProtection>,
}

/// A key that confirms an agreement, in one direction. Wiped on drop.
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
        let carried: Vec<Algorithm> =
            Algorithm::ALL.into_iter().filter(|each| Suite::P256Aes128.carries(*each)).collect();
        assert!(carried.contains(&Algorithm::Tdes2) && carried.contains(&Algorithm::Aes128));
        assert!(!carried.contains(&Algorithm::Aes192) && !carried.contains(&Algorithm::Aes256));
        for suite in Suite::ALL {
            assert!(suite.carries(suite.initial_key_algorithm()));
            assert_eq!(Suite::from_name(suite.name()), Some(suite));
        }
    }
}
