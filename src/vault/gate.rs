//! The gate before the vault: every call passes it. It is sealed until somebody brings the master
//! key, can be sealed again, and closes for good when a self-test fails.
//!
//! ```text
//!            begin_opening            put             seal
//! Sealed ------------------> Opening -----> Open ------------> Sealing --> Sealed
//!    ^---------- let go of --------'          `-- fail --> Failed
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, UnixMillis};
use super::error::Error;
use super::opener::Opener;
use super::reason::Reason;
use super::seal::Realm;
use super::vault::Vault;
use crate::crypto::self_test;

/// Lets calls through to the vault while it may serve.
///
/// Each call takes the vault with it. When the gate is sealed it waits for them, bounded, and then
/// closes the vault, whose master key is wiped. When a self-test fails it lets go of the vault, and
/// nothing opens it again but another start.
pub struct Gate {
    state: RwLock<State>,
    phase: watch::Sender<Phase>,
    realm: Realm,
    node: String,
    clock: Arc<dyn Clock>,
    opener: Option<Opener>,
    /// When the self-tests last passed, in milliseconds.
    tested: AtomicU64,
}

enum State {
    Sealed,
    Opening,
    Open(Entry),
    Sealing,
    Failed { algorithm: &'static str },
}

/// Where a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A self-test failed: closed for good.
    Failed,
    /// Calls come through.
    Open,
    /// The master key is there, and the vault is being opened under it.
    Opening,
    /// Nobody knows the master key.
    Sealed,
    /// No call begins any more; those in flight may end.
    Sealing,
}

/// What a call that comes through takes with it.
#[derive(Clone)]
pub struct Entry {
    /// The vault.
    pub vault: Arc<Vault>,
    /// Is cancelled when streams are to end: the gate closes, or the service.
    pub ending: CancellationToken,
    /// Is cancelled when the call is not waited for any longer: what it has not committed is not
    /// done.
    pub cut: CancellationToken,
}

impl Entry {
    fn new(vault: Arc<Vault>) -> Self {
        Self { vault, ending: CancellationToken::new(), cut: CancellationToken::new() }
    }
}

impl Gate {
    /// An open gate before a vault that nobody seals: for development.
    #[must_use]
    pub fn open(vault: Arc<Vault>) -> Arc<Self> {
        let tested = AtomicU64::new(vault.now().0);
        let (realm, node, clock) = (vault.realm(), vault.node().to_owned(), vault.clock());
        let state = RwLock::new(State::Open(Entry::new(vault)));
        let phase = watch::Sender::new(Phase::Open);
        Arc::new(Self { state, phase, realm, node, clock, opener: None, tested })
    }

    /// A sealed gate before a store.
    #[must_use]
    pub fn sealed(opener: Opener) -> Arc<Self> {
        let tested = AtomicU64::new(opener.clock.now().0);
        let (realm, node) = (opener.realm, opener.node.clone());
        let (clock, phase) = (Arc::clone(&opener.clock), watch::Sender::new(Phase::Sealed));
        let (state, opener) = (RwLock::new(State::Sealed), Some(opener));
        Arc::new(Self { state, phase, realm, node, clock, opener, tested })
    }

    /// The realm of the store.
    #[must_use]
    pub const fn realm(&self) -> Realm {
        self.realm
    }

    /// The name of this replica.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What the vault is opened from; none where it is never sealed.
    #[must_use]
    pub const fn opener(&self) -> Option<&Opener> {
        self.opener.as_ref()
    }

    /// The time now: the vault's, while there is one.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        match &*self.read() {
            State::Open(entry) => entry.vault.now(),
            State::Failed { .. } | State::Opening | State::Sealed | State::Sealing => {
                self.clock.now()
            }
        }
    }

    /// Lets somebody through to the vault, or says why not.
    pub fn enter(&self) -> Result<Arc<Vault>, Error> {
        self.admit().map(|entry| entry.vault)
    }

    /// Lets a call through, or says why not.
    pub fn admit(&self) -> Result<Entry, Error> {
        // A test of a new key pair may have failed before anybody could close the gate.
        match (&*self.read(), self_test::broken()) {
            (State::Failed { .. }, _) | (_, Some(_)) => Err(Error::Refused(Reason::SelfTestFailed)),
            (State::Open(entry), None) => Ok(entry.clone()),
            (State::Opening | State::Sealed | State::Sealing, None) => {
                Err(Error::Refused(Reason::VaultSealed))
            }
        }
    }

    /// Whether every known answer came out right: else no answer leaves.
    pub fn expect_sound(&self) -> Result<(), Error> {
        match self.failed() {
            Some(_) => Err(Error::Refused(Reason::SelfTestFailed)),
            None => Ok(()),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self_test::broken().is_some() { Phase::Failed } else { *self.phase.borrow() }
    }

    /// Tells of each change of where it stands.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Begins to open a sealed gate; none where it is not sealed, or somebody else opens it.
    #[must_use]
    pub fn begin_opening(self: &Arc<Self>) -> Option<Ajar> {
        let mut state = self.write();
        let is_sealed = matches!(*state, State::Sealed) && self_test::broken().is_none();
        is_sealed.then(|| {
            self.set(&mut state, State::Opening);
            Ajar(Arc::clone(self))
        })
    }

    /// Seals an open gate: no call begins any more. Those in flight may end within `drain`, then
    /// they are cut off; when nobody holds the vault any more it is told `last` words, closed, and
    /// its master key wiped. Tells whether the gate was open.
    pub async fn seal(&self, drain: Duration, last: impl AsyncFnOnce(&Vault)) -> bool {
        let Some(Entry { mut vault, ending, cut }) = self.begin_sealing() else { return false };
        ending.cancel();
        let overdue = tokio::time::sleep(drain);
        tokio::pin!(overdue);
        let vault = loop {
            vault = match Arc::try_unwrap(vault) {
                Ok(vault) => break vault,
                Err(held) => held,
            };
            tokio::select! {
                () = &mut overdue, if !cut.is_cancelled() => cut.cancel(),
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        };
        last(&vault).await;
        vault.close().await;
        let mut state = self.write();
        if matches!(*state, State::Sealing) {
            self.set(&mut state, State::Sealed);
        }
        true
    }

    fn begin_sealing(&self) -> Option<Entry> {
        let mut state = self.write();
        if !matches!(*state, State::Open(_)) {
            return None;
        }
        match self.set(&mut state, State::Sealing) {
            State::Open(entry) => Some(entry),
            State::Failed { .. } | State::Opening | State::Sealed | State::Sealing => None,
        }
    }

    /// Closes for good: a known answer came out wrong. Gives back the vault, for a last event.
    pub fn fail(&self, algorithm: &'static str) -> Option<Arc<Vault>> {
        let mut state = self.write();
        // The first failure is the one that is told.
        if matches!(*state, State::Failed { .. }) {
            return None;
        }
        match self.set(&mut state, State::Failed { algorithm }) {
            State::Open(Entry { vault, ending, .. }) => {
                ending.cancel();
                Some(vault)
            }
            State::Failed { .. } | State::Opening | State::Sealed | State::Sealing => None,
        }
    }

    /// What failed, where nothing is served any more.
    #[must_use]
    pub fn failed(&self) -> Option<&'static str> {
        match &*self.read() {
            State::Failed { algorithm } => Some(algorithm),
            State::Open(_) | State::Opening | State::Sealed | State::Sealing => self_test::broken(),
        }
    }

    /// Ends the streams that are open: the service ends.
    pub fn end_streams(&self) {
        if let State::Open(entry) = &*self.read() {
            entry.ending.cancel();
        }
    }

    /// Notes that the self-tests passed now.
    pub fn note_tested(&self) {
        self.tested.store(self.now().0, Ordering::Relaxed);
    }

    /// When the self-tests last passed: before the gate was opened, or since.
    #[must_use]
    pub fn tested(&self) -> UnixMillis {
        UnixMillis(self.tested.load(Ordering::Relaxed))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts it into a state and tells whoever watches; gives back the state before.
    fn set(&self, state: &mut State, next: State) -> State {
        let phase = match next {
            State::Failed { .. } => Phase::Failed,
            State::Open(_) => Phase::Open,
            State::Opening => Phase::Opening,
            State::Sealed => Phase::Sealed,
            State::Sealing => Phase::Sealing,
        };
        let before = std::mem::replace(state, next);
        self.phase.send_replace(phase);
        before
    }
}

/// A gate that somebody opens: no other does, and it is sealed again when this is let go of.
#[must_use]
pub struct Ajar(Arc<Gate>);

impl Ajar {
    /// Opens the gate before a vault. Where a self-test failed meanwhile it stays closed, and the
    /// vault is let go of.
    pub fn put(self, vault: Vault) {
        let mut state = self.0.write();
        if matches!(*state, State::Opening) {
            self.0.set(&mut state, State::Open(Entry::new(Arc::new(vault))));
        }
    }
}

impl Drop for Ajar {
    fn drop(&mut self) {
        let mut state = self.0.write();
        if matches!(*state, State::Opening) {
            self.0.set(&mut state, State::Sealed);
        }
    }
}

/// How long until it is looked again whether anybody still holds the vault.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::testing::Bench;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn sealing_waits_for_who_holds_the_vault_and_then_cuts_them_off() {
        let gate = Gate::open(Arc::new(Bench::new().await.vault));
        let mut changes = gate.changes();
        let held = gate.admit().unwrap();
        let sealing = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.seal(SHORT, async |_| ()).await }
        });
        held.ending.cancelled().await;
        assert_eq!(gate.enter().err(), Some(Error::Refused(Reason::VaultSealed)));
        assert!(gate.begin_opening().is_none(), "not before it is closed");
        held.cut.cancelled().await;
        assert_eq!(gate.phase(), Phase::Sealing);
        drop(held);
        assert!(sealing.await.unwrap());
        assert_eq!(
            *changes.wait_for(|phase| *phase == Phase::Sealed).await.unwrap(),
            Phase::Sealed
        );
        assert!(!gate.seal(SHORT, async |_| ()).await, "it is sealed");
        let ajar = gate.begin_opening().unwrap();
        assert!(gate.begin_opening().is_none(), "one at a time");
        drop(ajar);
        gate.begin_opening().unwrap().put(Bench::new().await.vault);
        assert!(gate.enter().is_ok());
    }

    #[tokio::test]
    async fn a_gate_that_failed_is_opened_by_nobody() {
        let gate = Gate::open(Arc::new(Bench::new().await.vault));
        gate.seal(SHORT, async |_| ()).await;
        let ajar = gate.begin_opening().unwrap();
        assert!(gate.fail("a test").is_none());
        ajar.put(Bench::new().await.vault);
        assert_eq!(gate.enter().err(), Some(Error::Refused(Reason::SelfTestFailed)));
        assert_eq!((gate.phase(), gate.failed()), (Phase::Failed, Some("a test")));
    }
}
