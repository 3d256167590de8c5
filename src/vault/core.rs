//! What every part of the vault shares: the store behind the seal, the clock, randomness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::audit::AuditSettings;
use super::budget::Failures;
use super::cache::Cache;
use super::claim::Claims;
use super::clock::{Clock, UnixMillis};
use super::error::Error;
use super::ledger::Ledger;
use super::policy::InForce;
use super::rate::Rates;
use super::record::{Kind, Record, Versioned};
use super::reserve::Reserved;
use super::seal::{Address, Sealer, draw_nonce};
use super::store::{Change, Expected, IndexFilter, PatientStore, Query, Row, Store, Write};
use super::tally::{self, Tally};
use crate::crypto::rng::Rng;

/// How often a row is read that is not the one that was written last.
const READS_MAX: u32 = 4;

/// What is left of the disk of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// How many bytes are free; none where that is not limited or not known.
    pub free_bytes: Option<u64>,
    /// With fewer bytes than these, only those who run, govern or audit the service are answered.
    pub reserve_bytes: u64,
}

/// Shared by the vault, its units of work and its committer.
pub(super) struct Core {
    pub(super) store: Arc<dyn Store>,
    pub(super) sealer: Sealer,
    pub(super) tally: Tally,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) node: String,
    pub(super) ledgers: Cache<Ledger, Claims>,
    pub(super) failures: Cache<Failures, Reserved>,
    /// The sequence of the newest durable event.
    pub(super) committed: watch::Sender<u64>,
    /// How long a call waits for the store.
    pub(super) patience: Duration,
    /// How much of the disk is kept for the events of those who run the service, in bytes.
    reserve_bytes: u64,
    /// How much of it was free when it was looked at last; the largest number for no limit.
    free_bytes: AtomicU64,
    pub(super) rates: Rates,
    pub(super) policy: InForce,
    clock: Arc<dyn Clock>,
    /// The time of the newest event, in milliseconds.
    committed_time: AtomicU64,
}

impl Core {
    pub(super) fn new(
        store: Arc<dyn Store>,
        sealer: Sealer,
        rng: Arc<dyn Rng>,
        clock: Arc<dyn Clock>,
        node: String,
        audit: &AuditSettings,
    ) -> Self {
        Self {
            store: Arc::new(PatientStore::new(store, audit.patience)),
            tally: Tally::new(&sealer),
            sealer,
            rng,
            node,
            ledgers: Cache::new(),
            failures: Cache::new(),
            committed: watch::Sender::new(0),
            patience: audit.patience,
            reserve_bytes: audit.reserve_bytes,
            free_bytes: AtomicU64::new(u64::MAX),
            rates: Rates::default(),
            policy: InForce::nobody(),
            clock,
            committed_time: AtomicU64::new(0),
        }
    }

    /// The time now, and never less than that of the newest event: a clock that is set back does
    /// not revive what has expired.
    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now().max(UnixMillis(self.committed_time.load(Ordering::Relaxed)))
    }

    /// What the clock says, whatever the events say.
    pub(super) fn clock_time(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Looks how much of the disk is free.
    pub(super) async fn look_at_disk(&self) {
        // A store that can not say it can not serve either: the calls will tell.
        if let Ok(free) = self.store.free_bytes().await {
            let was_low = self.is_disk_low();
            self.free_bytes.store(free.unwrap_or(u64::MAX), Ordering::Relaxed);
            let is_low = self.is_disk_low();
            if was_low != is_low {
                tracing::warn!(is_low, ?free, "the disk's reserve");
            }
        }
    }

    /// Whether less of the disk is free than is kept for those who run the service.
    pub(super) fn is_disk_low(&self) -> bool {
        let Disk { free_bytes, reserve_bytes } = self.disk();
        free_bytes.is_some_and(|free| free < reserve_bytes)
    }

    /// The disk as it was looked at last.
    pub(super) fn disk(&self) -> Disk {
        let free = self.free_bytes.load(Ordering::Relaxed);
        let free_bytes = (free < u64::MAX).then_some(free);
        Disk { free_bytes, reserve_bytes: self.reserve_bytes }
    }

    pub(super) fn note_committed(&self, seq: u64, time: UnixMillis) {
        self.committed_time.fetch_max(time.0, Ordering::Relaxed);
        self.committed.send_replace(seq);
    }

    pub(super) async fn read<R: Record>(&self, id: &str) -> Result<Option<Versioned<R>>, Error> {
        let row = self.row(R::KIND, id).await?;
        // The id asked for is what is bound into the seal, so an answer to another question fails.
        row.map(|row| self.open::<R>(id, &row)).transpose()
    }

    /// Reads a row, which must be the one that was written last.
    pub(super) async fn row(&self, kind: Kind, id: &str) -> Result<Option<Row>, Error> {
        for _ in 0..READS_MAX {
            let row = self.store.get(kind, id).await?;
            if self.tally.admits(kind, id, row.as_ref()) {
                return Ok(row);
            }
            // A commit may have come between the store's answer and the question.
            tokio::task::yield_now().await;
        }
        Err(tally::altered(kind, id))
    }

    pub(super) async fn list<R: Record>(
        &self,
        index: IndexFilter,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Versioned<R>>, Error> {
        let rows = self.store.list(Query { kind: R::KIND, index, after, limit }).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            if self.tally.admits(R::KIND, &row.id, Some(&row)) {
                found.push(self.open::<R>(&row.id, &row)?);
            } else {
                // Changed or deleted since it was listed, or by somebody else.
                found.extend(self.read::<R>(&row.id).await?);
            }
        }
        Ok(found)
    }

    /// Opens a row that was asked for by this id.
    pub(super) fn open<R: Record>(&self, id: &str, row: &Row) -> Result<Versioned<R>, Error> {
        let plain = self.open_bytes(R::KIND, id, row)?;
        let record: R = serde_json::from_slice(&plain)
            .map_err(|_| Error::incident("a record opened but is not of its kind", id))?;
        if record.id() != id {
            return Err(Error::incident("a record opened under another id", id));
        }
        Ok(Versioned { version: Some(row.version), record })
    }

    pub(super) fn open_bytes(
        &self,
        kind: Kind,
        id: &str,
        row: &Row,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
        self.sealer
            .open(Address { kind, id, version: row.version }, &row.sealed)
            .map_err(|_| Error::incident("a record does not open", &address(kind, id)))
    }

    /// Seals a record into the write that puts it.
    pub(super) fn put<R: Record>(&self, record: &Versioned<R>) -> Result<Write, Error> {
        let id = record.record.id();
        let expected = expected(record.version);
        let plain = zeroize::Zeroizing::new(
            serde_json::to_vec(&record.record)
                .map_err(|_| Error::incident("a record has no JSON form", &id))?,
        );
        let nonce = draw_nonce(&*self.rng)
            .map_err(|_| Error::incident("the random number generator failed", &id))?;
        let at = Address { kind: R::KIND, id: &id, version: expected.next_version() };
        let sealed = self.sealer.seal(at, nonce, &plain);
        let change = Change::Put { index: record.record.index(), sealed };
        Ok(Write { kind: R::KIND, id, expected, change })
    }
}

/// What the store must hold for a record that was read at this version.
pub(super) const fn expected(version: Option<u64>) -> Expected {
    match version {
        Some(version) => Expected::Version(version),
        None => Expected::Absent,
    }
}

/// Names a row in the log.
pub(super) fn address(kind: Kind, id: &str) -> String {
    format!("{}/{id}", kind.as_str())
}
