//! How a vault is: what can be found out by asking it.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::caller::{Action, Caller};
use super::clock::{Clock, UnixMillis};
use super::committer::Unit;
use super::core::Disk;
use super::error::Error;
use super::event::Draft;
use super::record::{Kind, Record, Versioned};
use super::seal::HashRoot;
use super::vault::Vault;
use super::work::hand_over;
use crate::memory::PageKind;

impl Vault {
    /// Reads a record that every store has: the store answers, and what it holds opens.
    pub async fn examine_store(&self) -> Result<(), Error> {
        self.get::<HashRoot>(HashRoot::ID).await?.map(|_| ()).ok_or(Error::Unavailable)
    }

    /// Writes a small record durably, by the way of every event: through the committer and the
    /// store's writer. It stands in the place of the one before, so it takes up nothing more.
    pub async fn examine_audit(&self) -> Result<(), Error> {
        let core = &self.shared.core;
        let before = core.read::<Pulse>(&core.node).await?;
        let version = before.and_then(|before| before.version);
        let record = Pulse { node: core.node.clone(), time: core.now() };
        let write = core.put(&Versioned { version, record })?;
        let (answer, answered) = oneshot::channel();
        let unit = Unit {
            // Never told: what touches no key, terminal, trust or policy has no event.
            draft: Draft::new(&Caller::service(), Action::RunSelfTests, String::new(), 0),
            is_counted: true,
            writes: vec![write],
            claims: Vec::new(),
            reservations: Vec::new(),
            next: None,
            passage: None,
            answer,
        };
        hand_over(&self.shared, unit, answered).await.map(|_| ())
    }

    /// What is left of the disk of the store, as the service goes by.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.shared.core.disk()
    }

    /// By how much the clock is behind the newest event, in milliseconds.
    #[must_use]
    pub fn clock_behind_ms(&self) -> u64 {
        // The vault's time is never behind: what it adds to the clock's is what that lacks.
        self.now().since_ms(self.clock_time())
    }

    /// By how much the clock is ahead of the newest event, in milliseconds, where that is so far
    /// that no event is written; none where it may be right.
    #[must_use]
    pub fn clock_ahead_ms(&self) -> Option<u64> {
        self.shared.core.clock_ahead_ms()
    }

    /// The name of this replica.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.shared.core.node
    }

    /// The sequence of the newest audit event.
    #[must_use]
    pub fn audit_sequence(&self) -> u64 {
        *self.shared.core.committed.borrow()
    }

    /// What kind of page holds the master key.
    #[must_use]
    pub fn master_key_page(&self) -> PageKind {
        self.shared.core.sealer.page_kind()
    }

    pub(super) fn clock(&self) -> std::sync::Arc<dyn Clock> {
        self.shared.core.clock()
    }

    fn clock_time(&self) -> UnixMillis {
        self.shared.core.clock_time()
    }
}

/// When a replica was last found to be able to write.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pulse {
    node: String,
    time: UnixMillis,
}

impl Record for Pulse {
    const KIND: Kind = Kind::new("pulse");

    fn id(&self) -> String {
        self.node.clone()
    }
}
