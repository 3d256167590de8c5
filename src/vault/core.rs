//! What every part of the vault shares: the store behind the seal, the clock, randomness.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, watch};
use zeroize::Zeroizing;

use super::audit::AuditSettings;
use super::budget::Failures;
use super::cache::Cache;
use super::claim::Claims;
use super::clock::{Clock, UnixMillis};
use super::custody::Custody;
use super::error::Error;
use super::keys::Passages;
use super::keys::{self, KeyRecord};
use super::ledger::Ledger;
use super::master::{Address, Generation, Nonce, draw_nonce, generation_of};
use super::policy::InForce;
use super::rate::Rates;
use super::record::{Kind, Record, Versioned};
use super::reserve::Reserved;
use super::rotation::RotationProgress;
use super::seal::{Realm, Sealer};
use super::store::{Change, Expected, IndexFilter, Query, Row, Store, Write};
use super::tally::{self, Tally};
use crate::crypto::rng::Rng;

/// How far ahead of the newest event the clock of a live service may be: 31 days. The self-tests
/// leave an event each day, so that only one that was off for so long comes near it.
const CLOCK_AHEAD_MS_MAX: u64 = 31 * 24 * 60 * 60 * 1_000;

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
    pub(super) passages: Passages,
    pub(super) policy: InForce,
    /// How far a rotation of the master key is; none while there is none.
    pub(super) rotation: watch::Sender<Option<RotationProgress>>,
    /// Held from a sealing to its commit by whoever writes beside the committer: meanwhile no other
    /// master key comes into force.
    alone: RwLock<()>,
    /// A master key of which it is not known whether it came into force.
    in_doubt: Mutex<Option<Generation>>,
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
        let rotation = RotationProgress::of(&sealer);
        Self {
            store,
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
            passages: Passages::default(),
            policy: InForce::nobody(),
            rotation: watch::Sender::new(rotation),
            alone: RwLock::default(),
            in_doubt: Mutex::default(),
            clock,
            committed_time: AtomicU64::new(0),
        }
    }

    /// The time now, and never less than that of the newest event: a clock that is set back does
    /// not revive what has expired.
    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now().max(UnixMillis(self.committed_time.load(Ordering::Relaxed)))
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// How far the clock is ahead of the newest event, in milliseconds, where that is too far. An
    /// event of that time would hold the time up there for good: dates would be over, budgets
    /// spent, and no clock that is set right again would be believed. So none is written.
    ///
    /// In a live realm alone: a store for development may lie about for years.
    pub(super) fn clock_ahead_ms(&self) -> Option<u64> {
        let newest = self.committed_time.load(Ordering::Relaxed);
        let is_judged = self.sealer.realm() == Realm::Live && newest > 0;
        let ahead = self.clock.now().since_ms(UnixMillis(newest));
        Some(ahead).filter(|ahead| is_judged && *ahead > CLOCK_AHEAD_MS_MAX)
    }

    /// Takes the time of the clock for the right one, however far it is ahead.
    pub(super) fn believe_clock(&self) {
        self.committed_time.fetch_max(self.clock.now().0, Ordering::Relaxed);
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
        Ok(Versioned { version: Some(row.version), record: record_in(id, &plain)? })
    }

    pub(super) fn open_bytes(
        &self,
        kind: Kind,
        id: &str,
        row: &Row,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.open_at(Address { kind, id, version: row.version }, &row.sealed)
    }

    fn open_at(&self, at: Address<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let opened = self.sealer.open(at, sealed);
        opened.map_err(|_| Error::incident("a record does not open", &address(at.kind, at.id)))
    }

    /// Seals a record into the write that puts it.
    pub(super) fn put<R: Record>(&self, record: &Versioned<R>) -> Result<Write, Error> {
        let id = record.record.id();
        let expected = expected(record.version);
        let plain = Zeroizing::new(
            serde_json::to_vec(&record.record)
                .map_err(|_| Error::incident("a record has no JSON form", &id))?,
        );
        let nonce = self.nonce()?;
        let at = Address { kind: R::KIND, id: &id, version: expected.next_version() };
        let sealed = self.sealer.seal(at, nonce, &plain);
        let change = Change::Put { index: record.record.index(), sealed };
        Ok(Write { kind: R::KIND, id, expected, change })
    }

    /// What is sealed, and a key block in it, once more under the master key in force; none where
    /// they are under it already, or under one that is about to be.
    ///
    /// A conflict where the master key that it is under is retired: who sealed it took that long.
    pub(super) fn sealed_anew(
        &self,
        kind: Kind,
        id: &str,
        version: u64,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        // In clear.
        if kind == Custody::KIND {
            return Ok(None);
        }
        let current = self.sealer.current();
        let number = generation_of(sealed);
        let is_older = number.is_none_or(|number| number < current.number());
        if !is_older && kind != KeyRecord::KIND {
            return Ok(None);
        }
        if is_older && number != self.sealer.previous().map(|previous| previous.number()) {
            return Err(Error::Conflict);
        }
        let at = Address { kind, id, version };
        let mut plain = self.open_at(at, sealed)?;
        match keys::wrapped_anew(self, kind, &plain)? {
            Some(wrapped) => plain = wrapped,
            None if is_older => {}
            None => return Ok(None),
        }
        Ok(Some(current.seal(at, self.nonce()?, &plain)))
    }

    /// Draws the nonce of one sealing.
    pub(super) fn nonce(&self) -> Result<Nonce, Error> {
        let failed = |_| Error::incident("the random number generator failed", "nonce");
        draw_nonce(&*self.rng).map_err(failed)
    }

    /// Writes one record of a kind that is not counted, without an event; false where it was not as
    /// it was read.
    pub(super) async fn write_alone<R: Record>(
        &self,
        record: &Versioned<R>,
    ) -> Result<bool, Error> {
        let _held = self.alone.read().await;
        let batch = vec![self.put(record)?];
        let outcomes = self.store.commit(vec![batch], Box::new(|_| Vec::new())).await?;
        Ok(outcomes.iter().all(|outcome| outcome.is_applied()))
    }

    /// Brings a master key into force whose commit is durable.
    pub(super) async fn advance(&self, next: Generation) {
        let _nobody = self.alone.write().await;
        self.sealer.advance(next);
        self.rotation.send_replace(RotationProgress::of(&self.sealer));
    }

    /// The commit of a master key came to no known end: it is asked for before the next.
    pub(super) fn doubt(&self, next: Generation) {
        *self.in_doubt() = Some(next);
    }

    /// Asks the store what became of all that is in doubt.
    pub(super) async fn settle_doubts(&self) -> Result<(), Error> {
        self.tally.settle_doubts(&*self.store).await?;
        let Some(number) = self.in_doubt().as_ref().map(Generation::number) else { return Ok(()) };
        let custody = Custody::read(&*self.store).await.map_err(|_| Error::Unavailable)?;
        let next = self.in_doubt().take();
        if let Some(next) = next
            && custody.is_some_and(|custody| custody.generation == number)
        {
            self.advance(next).await;
        }
        Ok(())
    }

    fn in_doubt(&self) -> MutexGuard<'_, Option<Generation>> {
        self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The record in an opened row that was asked for by this id.
pub(super) fn record_in<R: Record>(id: &str, plain: &[u8]) -> Result<R, Error> {
    let record: R = serde_json::from_slice(plain)
        .map_err(|_| Error::incident("a record opened but is not of its kind", id))?;
    if record.id() == id {
        Ok(record)
    } else {
        Err(Error::incident("a record opened under another id", id))
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
