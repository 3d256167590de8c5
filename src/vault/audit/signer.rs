//! The key of the audit log, lent to sign what people take away from a ceremony.

use super::checkpoints::LogKey;
use crate::crypto::ed25519::Ed25519Key;
use crate::vault::error::Error;
use crate::vault::vault::Vault;

/// The key of the audit log for a moment: with it the service signs, whoever audits verifies.
pub struct LogSigner(Ed25519Key);

impl LogSigner {
    /// Signs a message, which begins with a label of its own: a checkpoint begins with the name of
    /// its log, so neither is ever taken for the other.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

impl Vault {
    /// Reads the key of the audit log.
    pub async fn log_signer(&self) -> Result<LogSigner, Error> {
        let key = LogKey::read(&self.shared.core).await?;
        let key = key.ok_or_else(|| Error::incident("the key of the audit log is gone", ""))?;
        Ok(LogSigner(key.key()))
    }
}
