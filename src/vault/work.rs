//! A unit of work: what one call wants to happen, all of it or nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;

use super::allocation;
use super::audit::{Summary, SummaryPlace};
use super::budget::Budget;
use super::caller::{Action, Caller};
use super::claim::{self, Claim, ClaimRequest, Ticket, Verdict};
use super::clock::UnixMillis;
use super::committer::{Committed, Unit};
use super::core::{Core, expected};
use super::error::Error;
use super::event::{Draft, EventKey, LEGACY};
use super::idempotency::{self, RequestId};
use super::keys::{KeyRecord, Passage, StoredKey};
use super::ledger::Purpose;
use super::master::Generation;
use super::policy::AuditMode;
use super::reason::Reason;
use super::record::{Kind, Record, Versioned};
use super::reserve::{self, Reservation};
use super::store::{Change, Write};
use super::vault::Shared;
use crate::key::Algorithm;
use crate::key::usage::Usage;

/// One call under way: its writes, its claims, its audit event.
///
/// Nothing happens before [`Work::commit`]. Dropped instead, it never was: counters and places in
/// budgets are free again. A call that is refused ends with [`Work::refuse`], or, where the refusal
/// itself has effects (a spent counter, a charged budget), with [`Work::commit_refused`].
#[must_use = "a unit of work does nothing until it is committed or refused"]
pub struct Work {
    shared: Shared,
    /// Boxed, as the futures of all calls hold it.
    caller: Box<Caller>,
    action: Action,
    draft: Draft,
    is_counted: bool,
    /// By row: one call may write thousands.
    writes: BTreeMap<(Kind, String), Write>,
    /// Whether one record was read in two versions: what was decided on one of them does not hold.
    is_torn: bool,
    claims: Vec<Ticket>,
    reservations: Vec<Reservation>,
    /// The master key that the commit brings into force. Boxed as well.
    next: Option<Box<Generation>>,
    /// Held where a key comes or leaves under another, until that is durable.
    pub(super) passage: Option<Passage>,
}

impl Work {
    /// A unit of work that the policy of a version has allowed, or denies.
    pub(super) fn new(
        shared: Shared,
        caller: &Caller,
        action: Action,
        resource: String,
        policy: u64,
    ) -> Self {
        Self {
            shared,
            caller: Box::new(caller.clone()),
            action,
            draft: Draft::new(caller, action, resource, policy),
            is_counted: false,
            writes: BTreeMap::new(),
            is_torn: false,
            claims: Vec::new(),
            reservations: Vec::new(),
            next: None,
            passage: None,
        }
    }

    /// The time now; never less than that of the newest event.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.core().now()
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What the call does.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// The resource that the audit event names.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.draft.resource
    }

    /// Names the resource, where it becomes known only on the way.
    pub fn set_resource(&mut self, resource: impl Into<String>) {
        self.draft.resource = resource.into();
    }

    /// Adds a value to the audit event. Never a key, PIN, PIN block, full PAN or code.
    pub fn detail(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.draft.detail.insert(name.into(), value.into());
    }

    /// Whether the audit event holds a value of this name.
    #[must_use]
    pub fn has_detail(&self, name: &str) -> bool {
        self.draft.detail.contains_key(name)
    }

    /// Notes the persons who approved the call in the audit event.
    pub(super) fn approved_by(&mut self, persons: Vec<String>) {
        self.draft.approvers = persons;
    }

    /// Notes the keyed hash of the request's body in the audit event.
    pub fn request(&mut self, body_hash: [u8; 32]) {
        self.draft.request = Some(body_hash);
    }

    /// Notes that a key is used: it stands in the audit event, and the commit fails with a conflict
    /// if the key has changed since it was read, so a key suspended meanwhile did nothing.
    pub fn uses<U: Usage>(&mut self, key: &StoredKey<U>) {
        self.uses_record(key.versioned());
    }

    /// Notes that an algorithm is used: of TDES, which is legacy (SP 800-131A revision 2, 2), the
    /// audit event tells so.
    pub fn uses_algorithm(&mut self, algorithm: Algorithm) {
        if algorithm.is_tdes() {
            self.detail(LEGACY, "TDES");
        }
    }

    pub(super) fn uses_record(&mut self, key: &Versioned<KeyRecord>) {
        self.uses_algorithm(key.record.algorithm);
        let used = EventKey {
            name: key.record.resource_name(),
            check_value: key.record.check_value.clone(),
        };
        if !self.draft.keys.contains(&used) {
            self.draft.keys.push(used);
        }
        self.expects(key);
    }

    /// Makes the commit depend on a record as it was read: if it has changed meanwhile, nothing of
    /// this call happens and it ends with a conflict.
    pub fn expects<R: Record>(&mut self, read: &Versioned<R>) {
        let id = read.record.id();
        let expected = expected(read.version);
        let check = Write { kind: R::KIND, id, expected, change: Change::Check };
        match self.writes.entry(row_of(&check)) {
            Entry::Occupied(other) => self.is_torn |= other.get().expected != check.expected,
            Entry::Vacant(place) => {
                place.insert(check);
            }
        }
    }

    /// Puts a record: a new one if it has no version, else in place of the version it was read at.
    /// A second put of a record replaces the first. If the call has used the record in another
    /// version before, the commit fails with a conflict.
    pub fn put<R: Record>(&mut self, record: &Versioned<R>) -> Result<(), Error> {
        let write = self.core().put(record)?;
        self.replace(write);
        Ok(())
    }

    /// Deletes a record in the version it was read at.
    pub fn delete<R: Record>(&mut self, record: &Versioned<R>) {
        self.replace(Write {
            kind: R::KIND,
            id: record.record.id(),
            expected: expected(record.version),
            change: Change::Delete,
        });
    }

    /// Puts a new master key in force with the commit.
    pub(super) fn advance(&mut self, next: Generation) {
        self.next = Some(Box::new(next));
    }

    /// Adds a write; it stands in the place of another of the same row.
    pub(super) fn replace(&mut self, write: Write) {
        let expected = write.expected;
        let before = self.writes.insert(row_of(&write), write);
        self.is_torn |= before.is_some_and(|other| other.expected != expected);
    }

    /// Claims a transaction counter: refused with `KSN_REPLAYED` when it is spent, too old, too far
    /// ahead or in use by another call. It becomes spent in the commit.
    pub async fn claim(&mut self, request: ClaimRequest<'_>) -> Result<Claim, Error> {
        let ticket = claim::claim(self.core(), request).await?;
        let claim = ticket.claim;
        self.claims.push(ticket);
        Ok(claim)
    }

    /// Whether the call holds a claim: refused with [`Work::refuse`], it would spend no counter.
    #[must_use]
    pub const fn has_claims(&self) -> bool {
        !self.claims.is_empty()
    }

    /// Says that the input of a claim was right, whatever becomes of the call: for a call that
    /// verifies a MAC and then refuses something else.
    pub fn accept(&mut self, purpose: Purpose) {
        for ticket in self.claims.iter_mut().filter(|ticket| ticket.purpose == purpose) {
            ticket.verdict = Some(Verdict::Accepted);
        }
    }

    /// Reserves a place in a failure budget, before anything is decrypted. It is charged by
    /// [`Work::commit_refused`] and given back otherwise. A spent budget that is a
    /// [rate](Budget::is_rate) puts an `alarm` into the audit event of the refusal.
    pub async fn reserve(&mut self, budget: Budget, subject: &[&[u8]]) -> Result<(), Error> {
        match reserve::reserve(self.core(), budget, subject).await {
            Ok(reservation) => {
                self.reservations.push(reservation);
                Ok(())
            }
            Err(error) => {
                if budget.is_rate() && matches!(error, Error::BudgetSpent { .. }) {
                    self.detail("alarm", budget.as_str());
                }
                Err(error)
            }
        }
    }

    /// Gives back the places in a budget: what they were reserved for went right, whatever becomes
    /// of the call.
    pub fn give_back(&mut self, budget: Budget) {
        self.reservations.retain(|place| place.budget != budget);
    }

    /// Takes the next number of a scope, from 0: durable before it is used, never given twice, and
    /// below `cap`, else `KSN_EXHAUSTED`. Numbers of calls that fail are lost.
    pub async fn allocate(&mut self, scope: &str, cap: u64) -> Result<u64, Error> {
        let allocated = allocation::allocate(&self.shared, scope, cap);
        let allocated = tokio::time::timeout(self.core().patience, allocated).await;
        let (number, issued) = allocated.unwrap_or(Err(Error::Unavailable))?;
        self.put(&Versioned::absent(issued))?;
        Ok(number)
    }

    /// Keeps the answer for 24 hours: the same request id with the same body gets it again.
    pub async fn remember<T: Serialize>(
        &mut self,
        request_id: RequestId<'_>,
        answer: &T,
    ) -> Result<(), Error> {
        let now = self.now();
        let core = Arc::clone(self.core());
        let scope = (self.caller.name(), self.action);
        let kept = idempotency::remembered(&core, scope, request_id, answer, now).await?;
        self.draft.request = Some(*request_id.body_hash);
        self.put(&kept)
    }

    /// Makes everything durable together with the audit event, then returns. Where the policy has
    /// such calls told in summary, the event may be that which the interval began with.
    pub async fn commit(mut self) -> Result<Committed, Error> {
        let Some(seconds) = self.summary_seconds() else { return self.hand_over().await };
        let counts = Arc::clone(&self.shared.counts);
        let summary = Summary::of(&self.draft);
        match counts.summaries.place(&summary, self.now()) {
            SummaryPlace::Own => self.hand_over().await,
            SummaryPlace::Counted => {
                self.is_counted = true;
                let done = self.hand_over().await;
                if done.is_err() {
                    counts.summaries.take_back(&summary);
                }
                done
            }
            SummaryPlace::Opens => {
                let draft = self.draft.clone();
                self.detail("summary", "began");
                self.detail("seconds", seconds.to_string());
                let done = self.hand_over().await?;
                let length_ms = u64::from(seconds) * 1_000;
                counts.summaries.begin(summary, draft, done.time, length_ms);
                Ok(done)
            }
        }
    }

    /// How long calls like this one are counted together; none where each has its event: calls that
    /// change anything but a ledger, or have something unusual to tell.
    fn summary_seconds(&self) -> Option<u32> {
        let AuditMode::Summary { seconds } = self.core().policy.policy().audit else { return None };
        let changes = self.writes.values().any(|write| write.change != Change::Check);
        let is_plain = self.action.is_data_plane() && !changes && !self.has_detail("alarm");
        is_plain.then_some(seconds)
    }

    /// Refuses the call, and makes durable what the refusal itself brings about: counters that are
    /// spent by a wrong input, and charged budgets. Everything put or deleted takes effect as well.
    ///
    /// The answer is the error to return: the reason given, unless something worse happened.
    pub async fn commit_refused(mut self, reason: Reason) -> Error {
        self.draft.refused = Some(reason);
        match self.hand_over().await {
            Ok(_) => Error::Refused(reason),
            Err(error) => error,
        }
    }

    /// Refuses the call without effect. The first such refusal is written at once, its repetitions
    /// within a few seconds are counted together.
    ///
    /// The answer is the error to return: the one given, unless it could not be written.
    pub async fn refuse(mut self, error: impl Into<Error>) -> Error {
        let error = error.into();
        self.let_go();
        self.draft.refused = Some(error.reason());
        if !self.shared.counts.refusals.is_first(&self.draft, self.now()) {
            return error;
        }
        let (draft, counts) = (self.draft.clone(), Arc::clone(&self.shared.counts));
        match self.hand_over().await {
            Ok(_) | Err(Error::Refused(_)) => error,
            Err(_) => {
                counts.refusals.take_back(&draft);
                Error::Unavailable
            }
        }
    }

    /// Lets go of all that the call would have done. What it has for the audit event stays.
    pub fn let_go(&mut self) {
        self.writes.clear();
        self.is_torn = false;
        self.claims.clear();
        self.reservations.clear();
        self.next = None;
        self.passage = None;
    }

    async fn hand_over(self) -> Result<Committed, Error> {
        if self.is_torn {
            return Err(Error::Conflict);
        }
        let (answer, answered) = oneshot::channel();
        let Self { shared, draft, is_counted, writes, claims, reservations, next, passage, .. } =
            self;
        let writes = writes.into_values().collect();
        let unit = Unit { draft, is_counted, writes, claims, reservations, next, passage, answer };
        hand_over(&shared, unit, answered).await
    }

    pub(super) const fn core(&self) -> &Arc<Core> {
        &self.shared.core
    }
}

fn row_of(write: &Write) -> (Kind, String) {
    (write.kind, write.id.clone())
}

/// Gives a unit to the committer and waits until it is done, for as long as a call waits: what has
/// not begun by then will not be done.
pub(super) async fn hand_over(
    shared: &Shared,
    unit: Unit,
    answered: oneshot::Receiver<Result<Committed, Error>>,
) -> Result<Committed, Error> {
    let done = async {
        shared.queue.send(unit).await.map_err(|_| Error::Unavailable)?;
        answered.await.unwrap_or(Err(Error::Unavailable))
    };
    tokio::time::timeout(shared.core.patience, done).await.unwrap_or(Err(Error::Unavailable))
}
