//! The vault: the only door to stored keys, and the one place where effects become durable.
//!
//! ```text
//! let mut work = vault.begin(&caller, Action::TranslatePin, "keys/zone").await?;
//! work.claim(..).await?;                 a counter, in memory
//! ... compute ...
//! work.commit().await?;                  ledger and audit event in one durable commit
//! ```
//!
//! No event, no effect: [`Work`] is the only way to write, and every commit of one carries its
//! audit event. The store below sees sealed bytes under ids and is not trusted.

mod allocation;
mod approval;
mod asked_by;
mod audit;
mod begin;
mod budget;
mod cache;
mod caller;
mod claim;
mod clock;
mod committer;
mod core;
mod custody;
mod error;
mod event;
mod examine;
mod gate;
mod hexadecimals;
mod housekeeping;
mod idempotency;
mod install;
mod keys;
mod ledger;
mod master;
mod moment;
mod open;
mod opener;
mod paging;
mod policy;
mod rate;
mod reason;
mod record;
mod refusals;
mod reserve;
mod rotation;
mod seal;
pub mod store;
mod tally;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[expect(clippy::module_inception, reason = "the type of the room has a file of its own")]
mod vault;
mod work;

pub use approval::{Approval, ApprovalState, Asked, Ending, NotTaken, Quorum, Vote};
pub use audit::{
    AuditSettings, ChainReport, Checkpoint, DestructionCertificate, ExportFault, ExportReport,
    LogSigner, NoteError, SignedCheckpoint, VERIFIED_AT_OPEN_MAX, VerifierKey, Witness,
    WitnessFailed, verify_export,
};
pub use begin::{Also, Beginning};
pub use budget::Budget;
pub use caller::{Action, Caller, Role};
pub use claim::{Claim, ClaimRequest};
pub use clock::{Clock, UnixMillis};
pub use committer::Committed;
pub use core::Disk;
pub use custody::{Custody, Seal};
pub use error::{Error, Incident};
pub use event::{Event, EventDecision, EventKey};
pub use gate::{Ajar, Entry, Gate, Phase};
pub use idempotency::RequestId;
pub use install::PolicyRefused;
pub use keys::{
    Brings, Changed, DEVICE_CAP, DescribedKey, ExportKey, Exportability, ExportedKey, ImportKey,
    KeyAttributes, KeyHead, KeyName, KeyRecord, KeyState, KeyUsage, LedgerPolicy,
    MAC_LENGTH_MIN_BYTES, ModeOfUse, NewKey, Operation, Origin, PUBLISHED_CHECK_VALUES, Rotation,
    SERVE_MS_MAX, Start, StateChange, StoredKey, WrappingKey, is_published, key_of,
};
pub use ledger::{FAR_MAX, JUMP_MAX, Purpose, REPEAT_MS, WINDOW};
pub use master::{MasterKey, NotDrawn};
pub use open::{CheckpointAt, OpenError};
pub use opener::Opener;
pub use policy::{
    Allowance, AuditMode, Denial, Explanation, FORMATS, GRANTED, Grant, KeyUse, Passage, Policy,
    PolicyInvalid, Principal, Question, callers_of, format_word, in_file, may_call,
};
pub use rate::Rates;
pub use reason::Reason;
pub use record::{Kind, Record, Versioned};
pub use rotation::RotationProgress;
pub use seal::{HashPurpose, Realm};
pub use vault::{Opening, Vault};
pub use work::Work;
