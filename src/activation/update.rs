//! The keys that confirm an update: a new initial key that came under the update key of the one
//! that serves.

use zeroize::Zeroizing;

use super::payload::ActivationName;
use crate::agreement::{ConfirmationKey, label};
use crate::crypto::cbc_mac::BlockMacError;
use crate::crypto::kdf::kbkdf_cmac_aes;
use crate::key::Key;
use crate::key::usage::WorkingKeyDerivation;

/// What both sides know of an update, and bind into the keys that confirm it.
#[derive(Clone, Copy)]
pub struct Renewal<'a> {
    /// The activation that the service began for it.
    pub activation: &'a ActivationName,
    /// The nonce of the terminal's Update.
    pub nonce: &'a [u8; 32],
    /// The id of the new initial key.
    pub initial_key_id: &'a [u8],
}

impl Renewal<'_> {
    /// Derives the two confirmation keys from the key derivation key of the Update's KSN, an AES
    /// key; another one is refused.
    ///
    /// ```text
    /// key(label) = KDF(key derivation key, label, context, 32 bytes)
    /// context    = activation || 00 || nonce(32) || initial key id(8)
    /// ```
    ///
    /// KDF is the counter mode of NIST SP 800-108r1 (2022), 4.1, with AES-CMAC; the key is the
    /// working key of usage 8000 (ANSI X9.24-3:2017, 6.3.2).
    pub fn confirmation_keys(
        &self,
        key: &Key<WorkingKeyDerivation>,
    ) -> Result<RenewalKeys, BlockMacError> {
        Ok(RenewalKeys {
            service: self.derive(key, label::UPDATE_SERVICE)?,
            terminal: self.derive(key, label::UPDATE_TERMINAL)?,
        })
    }

    fn derive(
        &self,
        key: &Key<WorkingKeyDerivation>,
        label: &str,
    ) -> Result<ConfirmationKey, BlockMacError> {
        let context =
            [self.activation.as_str().as_bytes(), &[0], self.nonce, self.initial_key_id].concat();
        let mut derived = Zeroizing::new([0; 32]);
        // Exposed to the derivation alone.
        kbkdf_cmac_aes(key.expose_bytes(), label.as_bytes(), &context, &mut *derived)?;
        Ok(ConfirmationKey::from_bytes(*derived))
    }
}

/// The keys that confirm an update. Each is wiped on drop.
pub struct RenewalKeys {
    /// Under it the service confirms.
    pub service: ConfirmationKey,
    /// Under it the terminal confirms.
    pub terminal: ConfirmationKey,
}
