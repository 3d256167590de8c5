//! The gate before the vault: every call passes it, and it closes for good when a self-test fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;

use super::clock::UnixMillis;
use super::error::Error;
use super::reason::Reason;
use super::vault::Vault;
use crate::crypto::self_test;

/// Lets calls through to the vault while it may serve.
///
/// Each call takes the vault with it. When the gate closes it lets go of the vault: with the last
/// call the master key is wiped. Nothing opens it again but another start.
pub struct Gate {
    state: RwLock<State>,
    closed: CancellationToken,
    /// When the self-tests last passed, in milliseconds.
    tested: AtomicU64,
}

enum State {
    Open(Arc<Vault>),
    Failed { algorithm: &'static str },
}

impl Gate {
    /// Opens a gate before a vault.
    #[must_use]
    pub fn open(vault: Arc<Vault>) -> Arc<Self> {
        let tested = AtomicU64::new(vault.now().0);
        let state = RwLock::new(State::Open(vault));
        Arc::new(Self { state, closed: CancellationToken::new(), tested })
    }

    /// Lets a call through, or says why not.
    pub fn enter(&self) -> Result<Arc<Vault>, Error> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            // A test of a new key pair may have failed before anybody could close the gate.
            State::Open(vault) if self_test::broken().is_none() => Ok(Arc::clone(vault)),
            State::Open(_) | State::Failed { .. } => Err(Error::Refused(Reason::SelfTestFailed)),
        }
    }

    /// Closes for good: a known answer came out wrong. Gives back the vault, for a last event.
    pub fn fail(&self, algorithm: &'static str) -> Option<Arc<Vault>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Failed { algorithm }) {
            State::Open(vault) => {
                self.closed.cancel();
                Some(vault)
            }
            State::Failed { algorithm } => {
                // The first failure is the one that is told.
                *state = State::Failed { algorithm };
                None
            }
        }
    }

    /// What failed, where nothing is served any more.
    #[must_use]
    pub fn failed(&self) -> Option<&'static str> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(_) => self_test::broken(),
            State::Failed { algorithm } => Some(algorithm),
        }
    }

    /// Notes that the self-tests passed.
    pub fn note_tested(&self, time: UnixMillis) {
        self.tested.store(time.0, Ordering::Relaxed);
    }

    /// When the self-tests last passed: before the gate was opened, or since.
    #[must_use]
    pub fn tested(&self) -> UnixMillis {
        UnixMillis(self.tested.load(Ordering::Relaxed))
    }

    /// Is cancelled when the gate closes: streams end then. Each is a token of its own, which may
    /// be cancelled before without closing the gate.
    #[must_use]
    pub fn closed(&self) -> CancellationToken {
        self.closed.child_token()
    }
}
