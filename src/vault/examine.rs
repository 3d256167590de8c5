//! How a vault is: what can be found out by asking it and changing nothing.

use super::clock::UnixMillis;
use super::core::expected;
use super::error::Error;
use super::record::Record as _;
use super::store::{Change, Write};
use super::vault::{Proof, Vault};
use crate::memory::PageKind;

impl Vault {
    /// Reads the record that proves the master key: the store answers, and what it holds opens.
    pub async fn examine_store(&self) -> Result<(), Error> {
        self.proof_version().await.map(|_| ())
    }

    /// Takes a commit that changes nothing through the store's writer: an event could be written.
    pub async fn examine_audit(&self) -> Result<(), Error> {
        if self.committer_has_ended() {
            return Err(Error::Unavailable);
        }
        let condition = Write {
            kind: Proof::KIND,
            id: Proof::ID.to_owned(),
            expected: expected(self.proof_version().await?),
            change: Change::Check,
        };
        let store = &self.shared.core.store;
        let outcomes = store.commit(vec![vec![condition]], Box::new(|_| Vec::new())).await?;
        match outcomes.as_slice() {
            [outcome] if outcome.is_applied() => Ok(()),
            _ => Err(Error::Unavailable),
        }
    }

    /// By how much the clock is behind the newest event, in milliseconds.
    #[must_use]
    pub fn clock_behind_ms(&self) -> u64 {
        // The vault's time is never behind: what it adds to the clock's is what that lacks.
        self.now().since_ms(self.clock_time())
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

    fn clock_time(&self) -> UnixMillis {
        self.shared.core.clock_time()
    }

    async fn proof_version(&self) -> Result<Option<u64>, Error> {
        let proof = self.get::<Proof>(Proof::ID).await?;
        proof.map(|found| found.version).ok_or(Error::Unavailable)
    }
}
