//! Rotation of the master key: a new one from one commit on, and everything sealed under it soon.
//!
//! ```text
//! commit    custody names the new master key; the previous one is a record under it
//! from then what is written is under the new one; what is read may be under either
//! meanwhile rows under the previous one are sealed anew, a few at a time, versions unchanged
//! commit    no row is left: the record of the previous one is deleted, and it is retired
//! ```
//!
//! A row tells in clear which master key it is under, so a rotation that was interrupted goes on
//! with whatever rows are left. To seal a row anew changes nothing for those who have read it: it
//! keeps its version, and it happens only if the row is octet for octet what was opened.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use zeroize::Zeroizing;

use super::caller::{Action, Caller};
use super::committer::{Committed, Unit};
use super::core::Core;
use super::custody::{Custody, Seal};
use super::error::Error;
use super::event::Draft;
use super::housekeeping::Housekeeper;
use super::master::{Address, Generation, MasterKey, generation_of};
use super::reason::Reason;
use super::record::{Kind, Record, Versioned};
use super::seal::{Realm, Sealer};
use super::store::{Change, Expected, LIST_LIMIT_MAX, Surveyed, Write};
use super::vault::{Shared, Vault};
use super::work::{Work, hand_over};
use crate::memory::SecretPageUnavailable;

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationProgress {
    /// The number of the master key that is to be retired.
    pub from: u32,
    /// The number of the one in force.
    pub to: u32,
    /// How many rows were sealed anew since the service took up the rotation.
    pub rows_done: u64,
    /// How many are left, as they were counted then, less those that are done.
    pub rows_left: u64,
}

impl RotationProgress {
    /// That of the master keys at hand, before any row was counted.
    pub(super) fn of(sealer: &Sealer) -> Option<Self> {
        let (from, to) = (sealer.previous()?.number(), sealer.current().number());
        Some(Self { from, to, rows_done: 0, rows_left: 0 })
    }
}

/// The master key before the one in force, while something may be under it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    from: u32,
    /// Boxed, so that a move leaves no copy behind.
    previous: Box<Zeroizing<[u8; MasterKey::LEN_BYTES]>>,
}

impl Rotation {
    pub(super) const ID: &str = "rotation";

    fn away_from(generation: &Generation) -> Self {
        let mut previous = Box::new(Zeroizing::new([0; MasterKey::LEN_BYTES]));
        generation.master.expose_bytes(|bytes| previous.copy_from_slice(bytes));
        Self { from: generation.number(), previous }
    }

    /// The master key before the one in force.
    pub(super) fn previous(mut self, realm: Realm) -> Result<Generation, SecretPageUnavailable> {
        let master = MasterKey::taken_from(&mut self.previous)?;
        Ok(Generation::new(self.from, realm, master))
    }
}

impl Record for Rotation {
    const KIND: Kind = Kind::new("rotation");

    fn id(&self) -> String {
        Self::ID.to_owned()
    }
}

impl Vault {
    /// The number of the master key in force.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.shared.core.sealer.current().number()
    }

    /// How far the rotation of the master key is; none while there is none.
    #[must_use]
    pub fn rotation(&self) -> Option<RotationProgress> {
        *self.shared.core.rotation.borrow()
    }
}

impl Work {
    /// Makes a new master key durable, with how it is kept: what is written after it is sealed
    /// under it, and what stands under the one before is sealed anew in the background. The audit
    /// event holds its number and its seal.
    ///
    /// `ROTATION_UNDER_WAY` as long as the one before that is not retired.
    pub async fn commit_master_key(
        mut self,
        master: MasterKey,
        seal: Seal,
    ) -> Result<Committed, Error> {
        let core = Arc::clone(self.core());
        if core.sealer.previous().is_some() {
            return Err(self.refuse(Reason::RotationUnderWay).await);
        }
        let realm = core.sealer.realm();
        if !seal.fits(realm) {
            return Err(self.refuse(Error::AttributeInvalid { name: "seal" }).await);
        }
        let custody =
            Custody::read_versioned(&*core.store).await.map_err(|_| Error::Unavailable)?;
        let version = custody.and_then(|custody| custody.version);
        let before = core.sealer.current();
        let next = Generation::new(before.number().saturating_add(1), realm, master);
        self.detail("generation", next.number().to_string());
        self.detail("seal", seal.as_str());
        if let Seal::Shamir { set_id, threshold, shares } = &seal {
            self.detail("set_id", data_encoding::HEXLOWER.encode(set_id));
            self.detail("threshold", threshold.to_string());
            self.detail("shares", shares.to_string());
        }
        let custody = Custody::new(next.number(), realm, seal, &next.master);
        self.replace(Custody::write(&Versioned { version, record: custody })?);
        self.replace(under(&core, &next, &Rotation::away_from(&before))?);
        self.advance(next);
        self.commit().await
    }
}

/// The write of a new record under a master key that is not in force yet.
fn under<R: Record>(core: &Core, next: &Generation, record: &R) -> Result<Write, Error> {
    let id = record.id();
    let plain = serde_json::to_vec(record).map(Zeroizing::new);
    let plain = plain.map_err(|_| Error::incident("a record has no JSON form", &id))?;
    let expected = Expected::Absent;
    let at = Address { kind: R::KIND, id: &id, version: expected.next_version() };
    let change =
        Change::Put { index: record.index(), sealed: next.seal(at, core.nonce()?, &plain) };
    Ok(Write { kind: R::KIND, id, expected, change })
}

/// Rows that stand in clear.
const IN_CLEAR: [Kind; 1] = [Custody::KIND];

/// Rows sealed anew in one commit: few, so that a call that comes with them waits a little at most.
const BATCH_MAX: usize = 32;

/// Seals anew what is left under a previous master key, whenever there is one, and retires it.
pub(super) async fn keep_rotating(
    house: Housekeeper,
    mut rotation: watch::Receiver<Option<RotationProgress>>,
) {
    while rotation.wait_for(Option::is_some).await.is_ok() {
        // What fails has been logged, and is tried again after a while, as is a row that somebody
        // was quicker to write.
        let Some(patience) = house.shared().map(|shared| shared.core.patience) else { return };
        if count(&house).await.is_err() {
            tokio::time::sleep(patience).await;
            continue;
        }
        loop {
            let left = seal_rows_anew(&house).await;
            if left == Ok(0) && retire(&house).await.is_ok() {
                break;
            }
            // Before the last look nobody may hold anything any more that was read or sealed under
            // the previous master key: for so long a call waits for the store at most.
            tokio::time::sleep(patience).await;
            if house.shared().is_none() {
                return;
            }
        }
    }
}

/// Counts the rows that are to be sealed anew.
async fn count(house: &Housekeeper) -> Result<(), Error> {
    let mut left = 0;
    let mut after = None;
    while let Some((page, last)) = page(house, after).await? {
        left += u64::try_from(page.len()).unwrap_or(u64::MAX);
        after = Some(last);
    }
    if let Some(shared) = house.shared() {
        shared.core.rotation.send_modify(|progress| {
            if let Some(progress) = progress {
                progress.rows_left = left;
            }
        });
    }
    Ok(())
}

/// A place in the order of all rows.
type After = (String, String);

/// The rows of one page that are under another master key than the one in force, and where the page
/// ends; none behind the last, or when the vault is gone.
async fn page(
    house: &Housekeeper,
    after: Option<After>,
) -> Result<Option<(Vec<Surveyed>, After)>, Error> {
    let Some(shared) = house.shared() else { return Ok(None) };
    let mut rows = shared.core.store.survey(&IN_CLEAR, after, LIST_LIMIT_MAX).await?;
    let Some(last) = rows.last().map(|row| (row.kind.clone(), row.id.clone())) else {
        return Ok(None);
    };
    let current = shared.core.sealer.current().number();
    rows.retain(|row| generation_of(&row.beginning) != Some(current));
    Ok(Some((rows, last)))
}

/// Seals anew all rows that are to be, and tells how many it found. After each commit it leaves the
/// store to others for a while.
async fn seal_rows_anew(house: &Housekeeper) -> Result<u64, Error> {
    let mut found = 0;
    let mut after = None;
    while let Some((page, last)) = page(house, after).await? {
        for rows in page.chunks(BATCH_MAX) {
            let Some(shared) = house.shared() else { return Err(Error::Unavailable) };
            found += u64::try_from(rows.len()).unwrap_or(u64::MAX);
            // A row that was written meanwhile is under the new master key: at the next look the
            // others are found again.
            let done = commit_anew(&shared, rows).await.unwrap_or(0);
            shared.core.rotation.send_modify(|progress| {
                if let Some(progress) = progress {
                    progress.rows_done += done;
                    progress.rows_left = progress.rows_left.saturating_sub(done);
                }
            });
            drop(shared);
            tokio::time::sleep(PAUSE).await;
        }
        after = Some(last);
    }
    Ok(found)
}

/// The pause between two commits.
const PAUSE: Duration = Duration::from_millis(5);

/// Seals rows anew in one commit, and tells how many.
async fn commit_anew(shared: &Shared, rows: &[Surveyed]) -> Result<u64, Error> {
    let core = &shared.core;
    let mut writes = Vec::with_capacity(rows.len());
    for row in rows {
        writes.extend(write_anew(core, row).await.unwrap_or(None));
    }
    let done = u64::try_from(writes.len()).unwrap_or(u64::MAX);
    if done > 0 {
        let (answer, answered) = oneshot::channel();
        let unit = Unit {
            // Never told: what is in the rows stays what it is.
            draft: Draft::new(&Caller::service(), Action::RetireMasterKey, String::new(), 0),
            is_counted: true,
            writes,
            claims: Vec::new(),
            reservations: Vec::new(),
            next: None,
            passage: None,
            answer,
        };
        hand_over(shared, unit, answered).await?;
    }
    Ok(done)
}

/// The write that seals a row anew; none where it is gone, or is under the new master key by now.
async fn write_anew(core: &Core, row: &Surveyed) -> Result<Option<Write>, Error> {
    let id = row.id.clone();
    let unknown = || Error::incident("a row is of no kind", &row.kind);
    let kind = Kind::parse(&row.kind).ok_or_else(unknown)?;
    let Some(found) = core.row(kind, &id).await? else { return Ok(None) };
    let anew = core.sealed_anew(kind, &id, found.version, &found.sealed)?;
    Ok(anew.map(|to| {
        let change = Change::Reseal { from: found.sealed, to };
        Write { kind, id, expected: Expected::Version(found.version), change }
    }))
}

/// Retires the previous master key: nothing is under it any more.
async fn retire(house: &Housekeeper) -> Result<(), Error> {
    let Some(shared) = house.shared() else { return Err(Error::Unavailable) };
    let core = Arc::clone(&shared.core);
    // Where it is not known what became of the commit, it is looked for once more.
    let row = core.row(Rotation::KIND, Rotation::ID).await?;
    if let (Some(row), Some(previous)) = (row, core.sealer.previous()) {
        let (caller, resource) = (Caller::service(), String::new());
        let policy = core.policy.policy().version;
        let mut work = Work::new(shared, &caller, Action::RetireMasterKey, resource, policy);
        work.detail("generation", previous.number().to_string());
        work.replace(Write {
            kind: Rotation::KIND,
            id: row.id,
            expected: Expected::Version(row.version),
            change: Change::Delete,
        });
        work.commit().await?;
    }
    core.sealer.retire();
    core.rotation.send_replace(None);
    Ok(())
}

#[cfg(test)]
mod tests;
