//! The token, as the service is set up with it: one try at a time, and never a second by itself.
//!
//! Its library is somebody else's, and may never come back from a call. So each use has a thread of
//! its own, for which nobody waits for ever, and the end of the service does not either.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use zeroize::Zeroizing;

use super::giver::told;
use crate::command::Error;
use crate::crypto::rng::Rng;
use crate::crypto::token::{Token, TokenError, Wrapped};
use crate::memory::{SecretPage, with_wiped_stack};
use crate::vault::{MasterKey, Reason, Seal};

/// Reads the PIN of a token when it is needed; none where it can not be read.
pub type PinSource = Box<dyn Fn() -> Option<Zeroizing<Vec<u8>>> + Send + Sync>;

/// How long a token may take to make, wrap or unwrap a key.
const USE_MAX: Duration = Duration::from_secs(10);

/// How long it may take to say that it is there.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// A token and its PIN.
#[derive(Clone)]
pub struct TokenAccess {
    token: Arc<Token>,
    pin: Arc<PinSource>,
    /// Whoever uses it; held until its library is back.
    in_use: Arc<Mutex<()>>,
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
    /// Its library is not back in time.
    #[error("the token does not answer")]
    Unanswered,
}

impl TokenAccess {
    /// A token, and where its PIN is read.
    #[must_use]
    pub fn new(token: Token, pin: PinSource) -> Self {
        Self { token: Arc::new(token), pin: Arc::new(pin), in_use: Arc::default() }
    }

    /// Looks whether the one that keeps the master key is there.
    pub(super) async fn look(&self, serial: String) -> Result<(), TokenTrouble> {
        self.aside(LOOK_MAX, move |token, _| Ok(token.look(&serial)?)).await
    }

    /// Has it wrap a new master key.
    pub(super) async fn wrap(
        &self,
        rng: Arc<dyn Rng>,
        master: MasterKey,
    ) -> Result<(MasterKey, Seal), TokenTrouble> {
        self.aside(USE_MAX, move |token, pin| {
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
        let wrapped = Wrapped { serial, key_id, blob: wrapped };
        let unwrap = move |token: &Token, pin: &PinSource| -> Result<SecretPage, TokenTrouble> {
            let pin = pin().ok_or(TokenTrouble::PinUnreadable)?;
            Ok(token.unwrap(&pin, &wrapped)?)
        };
        self.aside(USE_MAX, unwrap).await.map(MasterKey::new)
    }

    /// Uses the token in a thread of its own, for which nobody waits longer than `patience`. Until
    /// it is back the token stays taken, so that one thread is lost at most. What it brings when
    /// nobody waits any more is dropped, which wipes it.
    async fn aside<T: Send + 'static>(
        &self,
        patience: Duration,
        act: impl FnOnce(&Token, &PinSource) -> Result<T, TokenTrouble> + Send + 'static,
    ) -> Result<T, TokenTrouble> {
        let Self { token, pin, in_use } = self.clone();
        let used = async {
            let taken = in_use.lock_owned().await;
            let (tell, told) = oneshot::channel();
            let work = move || {
                let done = with_wiped_stack(|| act(&token, &pin));
                drop(taken);
                let _ = tell.send(done);
            };
            let begun = thread::Builder::new().name("token".to_owned()).spawn(work);
            begun.map_err(|_| TokenError::ModuleFailed)?;
            told.await.unwrap_or(Err(TokenError::ModuleFailed.into()))
        };
        tokio::time::timeout(patience, used).await.unwrap_or(Err(TokenTrouble::Unanswered))
    }
}

/// What a caller is told of it.
pub(super) fn unavailable(trouble: TokenTrouble) -> Error {
    told(Reason::TokenUnavailable, "token", &trouble.to_string())
}
