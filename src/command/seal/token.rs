//! The token, as the service is set up with it: one try at a time, and never a second by itself.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::giver::told;
use crate::command::Error;
use crate::crypto::rng::Rng;
use crate::crypto::token::{Token, TokenError, Wrapped};
use crate::memory::SecretPage;
use crate::vault::{MasterKey, Reason, Seal};

/// Reads the PIN of a token when it is needed; none where it can not be read.
pub type PinSource = Box<dyn Fn() -> Option<Zeroizing<Vec<u8>>> + Send + Sync>;

/// A token and its PIN.
#[derive(Clone)]
pub struct TokenAccess {
    token: Arc<Token>,
    pin: Arc<PinSource>,
}

/// Why a token does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenTrouble {
    /// The PIN can not be read.
    #[error("its PIN can not be read: the log tells why")]
    PinUnreadable,
    /// The token says so.
    #[error("{0}")]
    Token(#[from] TokenError),
}

impl TokenAccess {
    /// A token, and where its PIN is read.
    #[must_use]
    pub fn new(token: Token, pin: PinSource) -> Self {
        Self { token: Arc::new(token), pin: Arc::new(pin) }
    }

    /// Looks whether it is there.
    pub(super) async fn look(&self) -> Result<(), TokenTrouble> {
        let token = Arc::clone(&self.token);
        aside(move || Ok(token.look()?)).await
    }

    /// Has it wrap a new master key.
    pub(super) async fn wrap(
        &self,
        rng: Arc<dyn Rng>,
        master: MasterKey,
    ) -> Result<(MasterKey, Seal), TokenTrouble> {
        let Self { token, pin } = self.clone();
        aside(move || {
            let pin = pin().ok_or(TokenTrouble::PinUnreadable)?;
            let wrapped = master.expose_bytes(|secret| token.wrap(&pin, &*rng, secret))?;
            let Wrapped { serial, key_id, blob } = wrapped;
            let key_id = data_encoding::HEXLOWER.encode(&key_id);
            Ok((master, Seal::Pkcs11 { token: serial, key_id, wrapped: blob }))
        })
        .await
    }

    /// Has it unwrap the master key.
    pub(super) async fn unwrap(&self, seal: &Seal) -> Result<MasterKey, TokenTrouble> {
        let Seal::Pkcs11 { token: serial, key_id, wrapped } = seal.clone() else {
            return Err(TokenError::KeyMissing.into());
        };
        let Ok(key_id) = data_encoding::HEXLOWER.decode(key_id.as_bytes()) else {
            return Err(TokenError::KeyMissing.into());
        };
        let Self { token, pin } = self.clone();
        let wrapped = Wrapped { serial, key_id, blob: wrapped };
        let unwrap = move || -> Result<SecretPage, TokenTrouble> {
            let pin = pin().ok_or(TokenTrouble::PinUnreadable)?;
            Ok(token.unwrap(&pin, &wrapped)?)
        };
        aside(unwrap).await.map(MasterKey::new)
    }
}

/// A token may take its time: other calls do not wait for it.
async fn aside<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, TokenTrouble> + Send + 'static,
) -> Result<T, TokenTrouble> {
    let done = tokio::task::spawn_blocking(act).await;
    done.unwrap_or(Err(TokenTrouble::Token(TokenError::ModuleFailed)))
}

/// What a caller is told of it.
pub(super) fn unavailable(trouble: TokenTrouble) -> Error {
    told(Reason::TokenUnavailable, "token", &trouble.to_string())
}
