//! Reading the log through the vault: events, checkpoints, proofs.

use super::super::clock::UnixMillis;
use super::super::error::Error;
use super::super::event::Event;
use super::super::vault::Vault;
use super::chain::{ChainReport, events_after, read_head, verify};
use super::checkpoints::SignedCheckpoint;
use super::tree::{prove_consistency, prove_inclusion, root_at};
use crate::crypto::merkle::{Hash, Root};

impl Vault {
    /// Reads the audit events after a sequence in their order, `limit` at most (and 1,000).
    pub async fn events_after(&self, sequence: u64, limit: usize) -> Result<Vec<Event>, Error> {
        events_after(&self.shared.core, sequence, None, limit).await
    }

    /// Reads the audit events about one resource after a sequence, `limit` at most (and 1,000).
    pub async fn events_about(
        &self,
        resource: &str,
        sequence: u64,
        limit: usize,
    ) -> Result<Vec<Event>, Error> {
        events_after(&self.shared.core, sequence, Some(resource), limit).await
    }

    /// Verifies the whole chain of events of this node, and its tree.
    pub async fn verify_chain(&self) -> Result<ChainReport, Error> {
        verify(&self.shared.core, 0).await
    }

    /// How many events the log has.
    pub async fn log_size(&self) -> Result<u64, Error> {
        Ok(read_head(&self.shared.core).await?.record.seq)
    }

    /// Signs the log as it stands.
    pub async fn checkpoint(&self) -> Result<SignedCheckpoint, Error> {
        self.checkpoints.sign(&self.shared.core).await
    }

    /// How many events the newest checkpoint covers and when it was signed, where it is kept
    /// wherever it is to be kept; none before the first since the start.
    #[must_use]
    pub fn newest_checkpoint(&self) -> Option<(u64, UnixMillis)> {
        self.checkpoints.newest()
    }

    /// For how long the newest checkpoint has not come to where it is to be kept outside, in
    /// milliseconds; 0 where it is there, or nothing is kept outside.
    #[must_use]
    pub fn checkpoint_behind_ms(&self) -> u64 {
        self.checkpoints.behind_ms(self.now())
    }

    /// Whether this opening found no checkpoint outside where one had been, and went on as it was
    /// told to.
    #[must_use]
    pub fn has_begun_checkpoint(&self) -> bool {
        self.checkpoints.has_begun_anew
    }

    /// The tree over the first events, as many as `size`, which the log must have.
    pub async fn tree(&self, size: u64) -> Result<Root, Error> {
        root_at(&self.shared.core, size).await
    }

    /// The hashes that prove an event to be in the tree of a size that the log must have.
    /// None where the event is not within.
    pub async fn prove_inclusion(
        &self,
        sequence: u64,
        size: u64,
    ) -> Result<Option<Vec<Hash>>, Error> {
        let Some(index) = sequence.checked_sub(1) else { return Ok(None) };
        prove_inclusion(&self.shared.core, index, size).await
    }

    /// The hashes that prove the tree of a size, which the log must have, to begin with that of a
    /// smaller one, of 1 or more. None where the first is not the smaller.
    pub async fn prove_consistency(
        &self,
        first: u64,
        second: u64,
    ) -> Result<Option<Vec<Hash>>, Error> {
        prove_consistency(&self.shared.core, first, second).await
    }
}
