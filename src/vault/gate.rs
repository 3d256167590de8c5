//! The gate before the vault: every call passes it, and it closes for good when a self-test fails.

use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::reason::Reason;
use super::vault::Vault;

/// Lets calls through to the vault while it may serve.
///
/// Each call takes the vault with it, so one that is under way ends as it began. When the gate
/// closes it lets go of the vault: with the last call the master key is wiped.
pub struct Gate {
    state: RwLock<State>,
    closed: CancellationToken,
}

enum State {
    Open(Arc<Vault>),
    Failed { algorithm: &'static str },
}

impl Gate {
    /// Opens a gate before a vault.
    #[must_use]
    pub fn open(vault: Arc<Vault>) -> Arc<Self> {
        let state = RwLock::new(State::Open(vault));
        Arc::new(Self { state, closed: CancellationToken::new() })
    }

    /// Lets a call through, or says why not.
    pub fn enter(&self) -> Result<Arc<Vault>, Error> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(vault) => Ok(Arc::clone(vault)),
            State::Failed { .. } => Err(Error::Refused(Reason::SelfTestFailed)),
        }
    }

    /// Closes for good: a known answer came out wrong. Gives back the vault, for a last event.
    pub fn fail(&self, algorithm: &'static str) -> Option<Arc<Vault>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        self.closed.cancel();
        match std::mem::replace(&mut *state, State::Failed { algorithm }) {
            State::Open(vault) => Some(vault),
            State::Failed { .. } => None,
        }
    }

    /// What failed, where the gate is closed.
    #[must_use]
    pub fn failed(&self) -> Option<&'static str> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(_) => None,
            State::Failed { algorithm } => Some(algorithm),
        }
    }

    /// Is cancelled when the gate closes: streams end then. Each is a token of its own, which may
    /// be cancelled before without closing the gate.
    #[must_use]
    pub fn closed(&self) -> CancellationToken {
        self.closed.child_token()
    }
}
