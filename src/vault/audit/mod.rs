//! The audit log: a chain of events, which are the leaves of a Merkle log (RFC 6962), the signed
//! checkpoints over it, its proofs, and how an export of it is verified.
//!
//! ```text
//! chain        event n holds the hash of event n - 1; the head is written with the events
//! tree         each event's row holds the hashes of the subtrees that it closes
//! checkpoints  size and root, signed; the newest is kept here and, better, outside
//! destruction  certificates of keys that are destroyed, signed by the same key
//! witness      outside: what is asked on a thread of its own
//! summary      one event before an interval's first use, one that counts at its end
//! ```

mod chain;
mod checkpoints;
mod destruction;
mod export;
mod note;
mod read;
mod signer;
mod summary;
#[cfg(test)]
mod tests;
mod tree;
mod witness;

use std::sync::Arc;
use std::time::Duration;

pub(super) use self::chain::{ChainHead, Closing, Grown, read_head, verify};
pub use self::chain::{ChainReport, VERIFIED_AT_OPEN_MAX};
pub use self::checkpoints::SignedCheckpoint;
pub(super) use self::checkpoints::{Checkpoints, LogKey, STEP, keep_signing};
pub use self::destruction::DestructionCertificate;
pub use self::export::{ExportFault, ExportReport, verify_export};
pub use self::note::{Checkpoint, NoteError, VerifierKey};
pub use self::signer::LogSigner;
pub(super) use self::summary::{Place as SummaryPlace, Summaries, Summary};
pub use self::witness::{Witness, WitnessFailed};

/// How a vault keeps its audit log.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Keeps the newest checkpoint outside of the store; none leaves a store that was set back as a
    /// whole unnoticed.
    pub witness: Option<Arc<dyn Witness>>,
    /// Whether the witness may have nothing where it had something before.
    pub new_checkpoint: bool,
    /// Whether the clock is right however far it is ahead of the newest event.
    pub clock_is_right: bool,
    /// How long a call waits for the store before it is refused.
    pub patience: Duration,
    /// How much of the disk is kept for the events of those who run the service: with less, the
    /// calls of backends, terminals and strangers are refused. In bytes.
    pub reserve_bytes: u64,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            witness: None,
            new_checkpoint: false,
            clock_is_right: false,
            patience: Duration::from_secs(10),
            reserve_bytes: 64 << 20,
        }
    }
}
