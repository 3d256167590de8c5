//! The vault itself: opened once over a store, the only door to what is kept.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::allocation::Leases;
use super::approval::{Approval, ApprovalOf};
use super::audit::{self, ChainReport, VERIFIED_AT_OPEN_MAX};
use super::budget::{Failures, hour_bucket};
use super::caller::{Action, Caller, Role};
use super::clock::{Clock, UnixMillis};
use super::committer::{self, QUEUE_MAX, Unit};
use super::core::{Core, expected};
use super::error::Error;
use super::event::Event;
use super::idempotency::{self, Answered, RequestId};
use super::install;
use super::policy::{Allowance, Denial, KeyUse, Policy};
use super::rate::Rates;
use super::reason::Reason;
use super::record::{Kind, Record, Versioned};
use super::refusals::Refusals;
use super::seal::{HashPurpose, MasterKey, Realm, Sealer};
use super::store::{Change, IndexFilter, Store, Write};
use super::work::{Work, hand_over};
use crate::crypto::rng::Rng;

/// What a vault is opened with.
pub struct Opening {
    /// Where the sealed records live.
    pub store: Arc<dyn Store>,
    /// The key under which they are sealed.
    pub master_key: MasterKey,
    /// The realm that they belong to.
    pub realm: Realm,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub rng: Arc<dyn Rng>,
    /// The name of this replica, whose chain of events it is: lower-case letters, digits, hyphens.
    pub node: String,
}

/// Why a vault does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The chain of events does not hold: an event was changed, moved or cut off.
    #[error("the chain of audit events does not verify")]
    ChainBroken,
    /// The name of the node is not one.
    #[error("a node is named by lower-case letters, digits and hyphens, 63 at most")]
    NodeInvalid,
    /// The policy was changed, or is older than one that was in force.
    #[error("the policy in the store is not the one that was put in force last")]
    PolicyBroken,
    /// The store was sealed under another master key, or in another realm.
    #[error("the store was sealed under another master key or in another realm")]
    SealedOtherwise,
    /// The store does not serve.
    #[error("the store is unavailable")]
    Unavailable,
}

/// The one door to stored keys and records.
pub struct Vault {
    pub(super) shared: Shared,
    verified: ChainReport,
    committer: JoinHandle<()>,
    housekeeper: JoinHandle<()>,
}

/// What a unit of work needs of its vault.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) queue: mpsc::Sender<Unit>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) leases: Arc<Leases>,
}

impl Vault {
    /// Opens a store, or begins an empty one, and verifies the end of the chain of events.
    ///
    /// Must be called within a Tokio runtime, where the committer then runs.
    pub async fn open(opening: Opening) -> Result<Self, OpenError> {
        let Opening { store, master_key, realm, clock, rng, node } = opening;
        if !is_node_name(&node) {
            return Err(OpenError::NodeInvalid);
        }
        let sealer = Sealer::new(master_key, realm);
        let core = Arc::new(Core::new(store, sealer, rng, clock, node));
        prove_seal(&core).await?;
        let head = audit::read_head(&core).await.map_err(broken)?.record;
        let after = head.seq.saturating_sub(VERIFIED_AT_OPEN_MAX);
        let verified = audit::verify(&core, after).await.map_err(broken)?;
        core.note_committed(head.seq, head.time);
        install::know_policy(&core, head.seq).await.map_err(broken)?;
        install::load_policy(&core).await.map_err(no_policy)?;
        let (queue, units) = mpsc::channel(QUEUE_MAX);
        let committer = tokio::spawn(committer::run(Arc::clone(&core), units));
        let refusals = Arc::new(Refusals::default());
        let leases = Arc::new(Leases::default());
        let shared = Shared { core, queue, refusals, leases };
        let housekeeper = tokio::spawn(keep_house(
            shared.queue.downgrade(),
            Arc::downgrade(&shared.core),
            Arc::clone(&shared.refusals),
        ));
        Ok(Self { shared, verified, committer, housekeeper })
    }

    /// What was verified of the chain of events when the vault was opened.
    #[must_use]
    pub const fn verified(&self) -> ChainReport {
        self.verified
    }

    /// The realm of the store.
    #[must_use]
    pub fn realm(&self) -> Realm {
        self.shared.core.sealer.realm()
    }

    /// The time now; never less than that of the newest event.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.shared.core.now()
    }

    /// The source of randomness.
    #[must_use]
    pub fn rng(&self) -> &dyn Rng {
        &*self.shared.core.rng
    }

    /// The buckets of the rates of calls.
    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.shared.core.rates
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.shared.core.policy.policy()
    }

    /// Begins a unit of work, if the policy allows the call; a denial is audited.
    pub async fn begin(
        &self,
        caller: &Caller,
        action: Action,
        resource: impl Into<String>,
    ) -> Result<Work, Error> {
        self.begin_with_keys(caller, action, resource, &[]).await
    }

    /// Begins a unit of work that uses keys, if the policy allows the call with them; a denial is
    /// audited. A key that the caller may not know of is refused as if it were not there.
    pub async fn begin_with_keys(
        &self,
        caller: &Caller,
        action: Action,
        resource: impl Into<String>,
        keys: &[KeyUse<'_>],
    ) -> Result<Work, Error> {
        let policy = self.policy();
        let work = Work::new(self.shared.clone(), caller, action, resource.into(), policy.version);
        let allowed = policy.decide(caller, action).and_then(|()| {
            let allowances = policy.decide_keys(caller, action, keys, work.now())?;
            allowances.into_iter().try_for_each(|Allowance { key, calls_per_minute_max }| {
                let taken = self.rates().take(calls_per_minute_max, &["key", caller.name(), key]);
                taken.map_err(|error| Denial { error, rule: "grant.calls_per_minute_max" })
            })
        });
        match allowed {
            Ok(()) => Ok(work),
            Err(denial) => Err(deny(work, denial).await),
        }
    }

    /// Lets a call in, if its caller's role may make it; a denial is audited.
    pub async fn authorise(&self, caller: &Caller, action: Action) -> Result<(), Error> {
        let policy = self.policy();
        match policy.decide(caller, action) {
            Ok(()) => Ok(()),
            Err(denial) => {
                let shared = self.shared.clone();
                let work = Work::new(shared, caller, action, String::new(), policy.version);
                Err(deny(work, denial).await)
            }
        }
    }

    /// Refuses a call that did not begin; it is audited. The answer is the error to return.
    pub async fn refuse(&self, caller: &Caller, action: Action, error: Error) -> Error {
        let version = self.policy().version;
        let work = Work::new(self.shared.clone(), caller, action, String::new(), version);
        work.refuse(error).await
    }

    /// Whether a call that goes on may go on: its caller's role may still make it.
    pub fn check_still(&self, caller: &Caller, action: Action) -> Result<(), Error> {
        self.policy().decide(caller, action).map_err(|denial| denial.error)
    }

    /// Refuses a caller at the door, by a rule of the door's; it is audited.
    pub async fn turn_away(&self, caller: &Caller, action: Action, rule: &'static str) -> Error {
        let version = self.policy().version;
        let work = Work::new(self.shared.clone(), caller, action, String::new(), version);
        let stranger = caller.role() == Some(Role::Stranger);
        let reason = if stranger { Reason::CallerUnknown } else { Reason::PolicyDenied };
        deny(work, Denial { error: reason.into(), rule }).await
    }

    /// Reads a record.
    pub async fn get<R: Record>(&self, id: &str) -> Result<Option<Versioned<R>>, Error> {
        self.shared.core.read(id).await
    }

    /// Lists records in the order of their ids: those after `after`, `limit` at most, and with
    /// `index` only those that have it.
    pub async fn list<R: Record>(
        &self,
        index: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Versioned<R>>, Error> {
        let filter = index.map_or(IndexFilter::Any, |value| IndexFilter::Equals(value.to_owned()));
        let found = self.shared.core.list::<R>(filter, after.map(str::to_owned), limit).await?;
        // The index in the store is a hint: what counts is the record.
        Ok(found
            .into_iter()
            .filter(|one| index.is_none_or(|value| one.record.index().as_deref() == Some(value)))
            .collect())
    }

    /// HMAC-SHA-256 under a key of this store and purpose.
    #[must_use]
    pub fn keyed_hash(&self, purpose: HashPurpose, parts: &[&[u8]]) -> [u8; 32] {
        self.shared.core.sealer.keyed_hash(purpose, parts)
    }

    /// Finds the answer that was given to the same request of the same caller within 24 hours;
    /// another body under its id is refused with `REQUEST_ID_REUSED`.
    pub async fn recall<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        action: Action,
        request: RequestId<'_>,
    ) -> Result<Option<T>, Error> {
        let scope = (caller.name(), action);
        idempotency::recall(&self.shared.core, scope, request, self.now()).await
    }

    /// Reads the audit events after a sequence in their order, `limit` at most (and 1,000).
    pub async fn events_after(&self, sequence: u64, limit: usize) -> Result<Vec<Event>, Error> {
        audit::events_after(&self.shared.core, sequence, None, limit).await
    }

    /// Reads the audit events about one resource after a sequence, `limit` at most (and 1,000).
    pub async fn events_about(
        &self,
        resource: &str,
        sequence: u64,
        limit: usize,
    ) -> Result<Vec<Event>, Error> {
        audit::events_after(&self.shared.core, sequence, Some(resource), limit).await
    }

    /// Watches the sequence of the newest durable event.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.shared.core.committed.subscribe()
    }

    /// Verifies the whole chain of events of this node.
    pub async fn verify_chain(&self) -> Result<ChainReport, Error> {
        audit::verify(&self.shared.core, 0).await
    }

    /// Writes the refusals that are counted in memory: before the service ends.
    pub async fn flush(&self) -> Result<(), Error> {
        write_refusals(&self.shared.queue, &self.shared.refusals, self.now(), true).await
    }

    /// Whether nothing can become durable any more.
    pub(super) fn committer_has_ended(&self) -> bool {
        self.committer.is_finished()
    }

    /// Flushes, waits until every unit of work is done, and lets go of the store.
    pub async fn close(self) {
        // The store has said why, if the last counts can not be written.
        let _ = self.flush().await;
        let Self { shared, committer, housekeeper, .. } = self;
        housekeeper.abort();
        drop(shared);
        // A committer that panicked has nothing left to write.
        let _ = committer.await;
    }
}

/// The record that proves the master key and the realm of a store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proof {
    realm: String,
}

impl Proof {
    pub(super) const ID: &str = "proof";
}

impl Record for Proof {
    const KIND: Kind = Kind::new("vault");

    fn id(&self) -> String {
        Self::ID.to_owned()
    }
}

async fn prove_seal(core: &Core) -> Result<(), OpenError> {
    let row = core.store.get(Proof::KIND, Proof::ID).await.map_err(|_| OpenError::Unavailable)?;
    if let Some(row) = row {
        return match core.open_bytes(Proof::KIND, Proof::ID, &row) {
            Ok(_) => Ok(()),
            Err(_) => Err(OpenError::SealedOtherwise),
        };
    }
    let proof = Proof { realm: core.sealer.realm().as_str().to_owned() };
    let write = core.put(&Versioned::absent(proof)).map_err(|_| OpenError::Unavailable)?;
    let outcomes = core.store.commit(vec![vec![write]], Box::new(|_| Vec::new())).await;
    match outcomes.map_err(|_| OpenError::Unavailable)?.as_slice() {
        [outcome] if outcome.is_applied() => Ok(()),
        _ => Err(OpenError::Unavailable),
    }
}

/// Refuses what the policy does not allow: the audit event tells by which rule, the caller is not.
async fn deny(mut work: Work, denial: Denial) -> Error {
    work.detail("rule", denial.rule);
    work.refuse(denial.error).await
}

fn broken(error: Error) -> OpenError {
    match error {
        Error::Unavailable => OpenError::Unavailable,
        Error::AttributeInvalid { .. }
        | Error::BudgetSpent { .. }
        | Error::Conflict
        | Error::Internal { .. }
        | Error::RateLimited { .. }
        | Error::Refused(_) => OpenError::ChainBroken,
    }
}

fn no_policy(error: Error) -> OpenError {
    match broken(error) {
        OpenError::Unavailable => OpenError::Unavailable,
        OpenError::ChainBroken
        | OpenError::NodeInvalid
        | OpenError::PolicyBroken
        | OpenError::SealedOtherwise => OpenError::PolicyBroken,
    }
}

fn is_node_name(node: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    (1..=63).contains(&node.len()) && node.bytes().all(allowed)
}

/// How often counted refusals are looked at.
const HOUSE_STEP: Duration = Duration::from_secs(1);

/// Every how many steps expired records are purged, unless there were more than fit in one.
const PURGE_STEPS: u32 = 60;

/// How many expired records go in one commit.
const PURGE_MAX: usize = 200;

/// How many expired records of a kind go in one step, so that calls are not kept waiting.
const PURGE_STEP_MAX: usize = 2_000;

async fn keep_house(
    queue: mpsc::WeakSender<Unit>,
    core: std::sync::Weak<Core>,
    refusals: Arc<Refusals>,
) {
    let mut is_behind = false;
    for step in 1_u32.. {
        tokio::time::sleep(HOUSE_STEP).await;
        let (Some(queue), Some(core)) = (queue.upgrade(), core.upgrade()) else { return };
        // What fails here has been logged by the store, and is tried again at the next step.
        let _ = write_refusals(&queue, &refusals, core.now(), false).await;
        let _ = install::load_policy(&core).await;
        if is_behind || step % PURGE_STEPS == 0 {
            is_behind = purge_expired(&core).await == Purged::More;
        }
    }
}

/// Deletes what has expired, of every kind that does.
pub(super) async fn purge_expired(core: &Core) -> Purged {
    let answers = purge::<Answered>(core).await;
    let failures = purge::<Failures>(core).await;
    // What leads to an approval goes before it.
    let bound = purge::<ApprovalOf>(core).await;
    let approvals = purge::<Approval>(core).await;
    // What fails has been logged by the store, and is tried again at the next step.
    let is_behind = [answers, failures, bound, approvals].contains(&Ok(Purged::More));
    if is_behind { Purged::More } else { Purged::All }
}

async fn write_refusals(
    queue: &mpsc::Sender<Unit>,
    refusals: &Refusals,
    now: UnixMillis,
    all: bool,
) -> Result<(), Error> {
    for draft in refusals.take_over(now, all) {
        let (answer, answered) = oneshot::channel();
        let unit = Unit {
            draft,
            writes: Vec::new(),
            claims: Vec::new(),
            reservations: Vec::new(),
            answer,
        };
        hand_over(queue, unit).await?;
        match answered.await.unwrap_or(Err(Error::Unavailable)) {
            Ok(_) | Err(Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a purge has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purged {
    All,
    More,
}

/// Deletes records whose index names an hour that is over: all of them, or as many as one step may.
async fn purge<R: Record>(core: &Core) -> Result<Purged, Error> {
    let now = core.now();
    let over = IndexFilter::UpTo(hour_bucket(UnixMillis(now.0.saturating_sub(PURGE_AFTER_MS))));
    let mut after = None;
    for _ in 0..PURGE_STEP_MAX / PURGE_MAX {
        let found = core.list::<R>(over.clone(), after, PURGE_MAX).await?;
        let batches = found
            .iter()
            // Not what the store's index says counts, but the record's own.
            .filter(|one| over.admits(one.record.index().as_deref()))
            .map(|one| {
                vec![Write {
                    kind: R::KIND,
                    id: one.record.id(),
                    expected: expected(one.version),
                    change: Change::Delete,
                }]
            })
            .collect::<Vec<_>>();
        if !batches.is_empty() {
            core.store.commit(batches, Box::new(|_| Vec::new())).await?;
        }
        for one in &found {
            core.failures.doubt(&one.record.id());
        }
        if found.len() < PURGE_MAX {
            return Ok(Purged::All);
        }
        // What the store calls expired and is not stays where it is, and is passed.
        after = found.last().map(|one| one.record.id());
    }
    Ok(Purged::More)
}

/// The hour of the index must be over as a whole.
const PURGE_AFTER_MS: u64 = super::budget::HOUR_MS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::budget::Budget;
    use crate::vault::testing::Bench;

    #[tokio::test]
    async fn what_has_expired_is_purged_and_nothing_else() {
        let bench = Bench::new().await;
        let core = &bench.vault.shared.core;
        let mut work = bench.begin(Action::CreateKey).await;
        work.remember(RequestId { id: "one", body_hash: &[1; 32] }, &1).await.unwrap();
        work.reserve(Budget::Pin, &[b"x"]).await.unwrap();
        work.commit_refused(Reason::PinBlockRejected).await;
        let count = async || {
            let answers = core.list::<Answered>(IndexFilter::Any, None, 10).await.unwrap();
            let failures = core.list::<Failures>(IndexFilter::Any, None, 10).await.unwrap();
            (answers.len(), failures.len())
        };
        assert_eq!(count().await, (1, 1));
        for (hours, left) in [(1, (1, 1)), (2, (1, 0)), (21, (1, 0)), (1, (0, 0))] {
            bench.clock.forward(hours * super::super::budget::HOUR_MS);
            purge::<Answered>(core).await.unwrap();
            purge::<Failures>(core).await.unwrap();
            assert_eq!(count().await, left, "after {hours} hours more");
        }
        // The subject of a purged budget begins anew.
        let mut work = bench.begin(Action::TranslatePin).await;
        work.reserve(Budget::Pin, &[b"x"]).await.unwrap();
        let error = work.commit_refused(Reason::PinBlockRejected).await;
        assert_eq!(error, Error::Refused(Reason::PinBlockRejected));
    }

    #[tokio::test]
    async fn a_purge_goes_on_until_nothing_is_left() {
        let bench = Bench::new().await;
        let core = &bench.vault.shared.core;
        let expired = |number: usize| {
            let mut failures = Failures::new(format!("{number:05}"));
            failures.charge(Budget::Pin, core.now());
            vec![core.put(&Versioned::absent(failures)).unwrap()]
        };
        let batches = (0..=PURGE_STEP_MAX).map(expired).collect();
        core.store.commit(batches, Box::new(|_| Vec::new())).await.unwrap();
        bench.clock.forward(3 * super::super::budget::HOUR_MS);
        assert_eq!(purge::<Failures>(core).await, Ok(Purged::More));
        assert_eq!(purge::<Failures>(core).await, Ok(Purged::All));
        let left = core.list::<Failures>(IndexFilter::Any, None, 10).await.unwrap();
        assert!(left.is_empty());
    }
}
