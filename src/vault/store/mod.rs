//! The contract of a store: sealed rows under ids, committed in atomic batches.
//!
//! A store is small, dull and not trusted. It sees no key, no PAN and no plain record: a value is
//! the sealed bytes of one record, an index is a hint that the vault checks again after opening.
//! Back ends share no code beyond this file; `tests/store.rs` is the contract they all pass.

mod memory;
mod patient;
mod sqlite;

use std::future::Future;
use std::pin::Pin;

pub use memory::MemoryStore;
pub(super) use patient::PatientStore;
pub use sqlite::SqliteStore;

use super::record::Kind;

/// A boxed future, so that a store can stand behind `Arc<dyn Store>`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The most rows that one [`Store::list`] answers, whatever was asked for.
pub const LIST_LIMIT_MAX: usize = 1_000;

/// Where sealed rows live.
pub trait Store: Send + Sync {
    /// Reads one row, or `None`.
    fn get(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<Option<Row>, StoreError>>;

    /// Reads rows of one kind in ascending byte order of their ids, at most [`LIST_LIMIT_MAX`].
    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// Reads what tells rows apart, in ascending byte order of kind and id: those after `after`,
    /// without the kinds in `except`, at most `limit` and at most [`LIST_LIMIT_MAX`].
    fn survey(
        &self,
        except: &'static [Kind],
        after: Option<(String, String)>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Surveyed>, StoreError>>;

    /// How many bytes may still be written; none where that is not limited or not known.
    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        Box::pin(async { Ok(None) })
    }

    /// Commits many batches durably at once.
    ///
    /// Each batch is applied whole or not at all, in the order given: a later batch sees what the
    /// earlier ones wrote, and one that conflicts fails alone. Then `tail` is told which batches
    /// were applied and answers the writes that belong to them (the audit events); these are
    /// applied in the same transaction, and a conflict there fails the commit. The answer comes
    /// when everything is durable. After an error it is unknown whether anything was written.
    fn commit(
        &self,
        batches: Vec<Batch>,
        tail: Tail,
    ) -> BoxFuture<'_, Result<Vec<Outcome>, StoreError>>;
}

/// One row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id, unique within its kind.
    pub id: String,
    /// Its version: 1 when new, one more with each change.
    pub version: u64,
    /// A value to find it by. Not authoritative: whoever edits the store may change it.
    pub index: Option<String>,
    /// The sealed record.
    pub sealed: Vec<u8>,
}

/// What tells a row from every other, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// The kind of the row, as it is stored.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u64,
    /// The first [`Surveyed::BEGINNING_LEN_BYTES`] octets of the sealed record: no two sealings
    /// begin alike.
    pub beginning: Vec<u8>,
}

impl Surveyed {
    /// The layout, the generation and the nonce of a sealing.
    pub const BEGINNING_LEN_BYTES: usize = 17;

    /// What tells a row of these parts apart.
    #[must_use]
    pub fn of(kind: Kind, id: &str, version: u64, sealed: &[u8]) -> Self {
        let beginning = sealed.iter().copied().take(Self::BEGINNING_LEN_BYTES).collect();
        Self { kind: kind.as_str().to_owned(), id: id.to_owned(), version, beginning }
    }
}

/// Which rows to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Their kind.
    pub kind: Kind,
    /// Only those with such an index.
    pub index: IndexFilter,
    /// Only those whose id is greater than this: the last id of the page before.
    pub after: Option<String>,
    /// At most so many, and never more than [`LIST_LIMIT_MAX`].
    pub limit: usize,
}

/// A condition on the index of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexFilter {
    /// Every row, with an index or without.
    Any,
    /// Rows with just this index.
    Equals(String),
    /// Rows with an index not greater than this, in byte order.
    UpTo(String),
}

impl IndexFilter {
    /// Tells whether a row with this index is wanted.
    #[must_use]
    pub fn admits(&self, index: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Equals(wanted) => index == Some(wanted.as_str()),
            Self::UpTo(bound) => index.is_some_and(|value| value <= bound.as_str()),
        }
    }
}

/// Writes that are applied all or not at all.
pub type Batch = Vec<Write>;

/// Told which batches were applied, answers the writes that close the transaction.
pub type Tail = Box<dyn FnOnce(&[bool]) -> Vec<Write> + Send>;

/// One change of one row, under a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The kind of the row.
    pub kind: Kind,
    /// The id of the row.
    pub id: String,
    /// What must be there now, or the batch is not applied.
    pub expected: Expected,
    /// What becomes of it.
    pub change: Change,
}

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No row of this id.
    Absent,
    /// A row of just this version.
    Version(u64),
}

impl Expected {
    /// Whether there must be a row.
    #[must_use]
    pub const fn is_present(self) -> bool {
        matches!(self, Self::Version(_))
    }

    /// The version that a row has after a write with this expectation.
    #[must_use]
    pub const fn next_version(self) -> u64 {
        match self {
            Self::Absent => 1,
            Self::Version(version) => version.saturating_add(1),
        }
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It stays as it is: the write is a condition alone.
    Check,
    /// It goes.
    Delete,
    /// It gets this value, and the version after the expected one.
    Put {
        /// Its index from now on.
        index: Option<String>,
        /// Its value from now on.
        sealed: Vec<u8>,
    },
    /// The same record is sealed anew, in the version that it has: for whoever has read it nothing
    /// has changed. Needs an expected version.
    Reseal {
        /// What its value must be now, octet for octet.
        from: Vec<u8>,
        /// Its value from now on.
        to: Vec<u8>,
    },
}

/// What became of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is applied, whole and durable.
    Applied,
    /// A condition did not hold, and nothing of it is applied.
    Conflict {
        /// The place in the batch of the first write whose condition did not hold.
        write: usize,
    },
}

impl Outcome {
    /// Tells whether the batch was applied.
    #[must_use]
    pub const fn is_applied(self) -> bool {
        matches!(self, Self::Applied)
    }
}

/// Why a store does not serve. The cause goes to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has the folder open.
    #[error("the store is in use by another process")]
    InUse,
    /// The store was written by a newer release.
    #[error("the store has schema {found}, this release knows {known}")]
    SchemaTooNew {
        /// The schema of the store.
        found: i64,
        /// The newest schema that this release knows.
        known: i64,
    },
    /// The store was written by an older release, and what is in it has another form since.
    #[error(
        "the store has schema {found}, this release reads {known} alone: events and records have \
         another form since; keep it for the release that wrote it, and begin a new one"
    )]
    SchemaTooOld {
        /// The schema of the store.
        found: i64,
        /// The schema that this release reads.
        known: i64,
    },
    /// It can not be read or written; whether a commit in flight was applied is unknown.
    #[error("the store is unavailable")]
    Unavailable,
}
