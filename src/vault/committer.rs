//! The committer: one task that makes units of work durable, many in one commit.
//!
//! Each unit is settled against the ledgers and budgets as they are at its turn, then its writes,
//! its ledger entries and its audit event go into one batch. Units that touch the same row go into
//! different commits, so each sees what the one before has made. Nothing is answered before it is
//! durable; after a failed commit every unit of it is told `Unavailable` and whatever was at hand
//! of it is read anew.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};

use super::audit::{self, ChainHead, Closing, Grown};
use super::budget::Failures;
use super::claim::{self, Settlement, Ticket, Verdict};
use super::clock::UnixMillis;
use super::core::Core;
use super::error::Error;
use super::event::Draft;
use super::keys::Passage;
use super::ledger::Ledger;
use super::master::{Generation, Nonce};
use super::reason::Reason;
use super::record::{Kind, Record, Versioned};
use super::reserve::{self, Reservation};
use super::store::{Batch, Change, Outcome, Write};
use super::tally::Planned;

/// Units in one commit at most.
const GROUP_MAX: usize = 256;

/// Units waiting for their commit; more wait with their callers.
pub(super) const QUEUE_MAX: usize = 4 * GROUP_MAX;

/// One unit of work, as it is handed over.
pub(super) struct Unit {
    pub(super) draft: Draft,
    /// Whether it is counted in a summary: done, it has no event of its own.
    pub(super) is_counted: bool,
    pub(super) writes: Vec<Write>,
    pub(super) claims: Vec<Ticket>,
    pub(super) reservations: Vec<Reservation>,
    /// The master key that comes into force when it is durable.
    pub(super) next: Option<Box<Generation>>,
    /// Held until it is done.
    pub(super) passage: Option<Passage>,
    pub(super) answer: oneshot::Sender<Result<Committed, Error>>,
}

impl Unit {
    /// Whether nobody waits for it any more, and it has not begun: it is not done then. A refusal
    /// is written all the same.
    fn is_abandoned(&self) -> bool {
        self.draft.refused.is_none() && self.answer.is_closed()
    }

    /// What is to be told of it in the chain of events, if it comes about.
    fn event(&self) -> Option<Draft> {
        let is_counted = self.is_counted && self.draft.refused.is_none();
        (!is_counted).then(|| self.draft.clone())
    }
}

/// A unit of work is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The sequence of its audit event; of the newest one, where it is counted in a summary.
    pub sequence: u64,
    /// The time of its audit event.
    pub time: UnixMillis,
}

/// Runs until every sender of the queue is gone.
pub(super) async fn run(core: Arc<Core>, mut queue: mpsc::Receiver<Unit>) {
    let mut waiting: VecDeque<Unit> = VecDeque::new();
    let mut head: Option<Versioned<ChainHead>> = None;
    loop {
        if waiting.is_empty() {
            match queue.recv().await {
                Some(unit) => waiting.push_back(unit),
                None => return,
            }
        }
        while waiting.len() < GROUP_MAX {
            match queue.try_recv() {
                Ok(unit) => waiting.push_back(unit),
                Err(_) => break,
            }
        }
        let group = take_group(&mut waiting);
        if let Err(error) = core.settle_doubts().await {
            for unit in group {
                answer(unit, Err(error));
            }
            continue;
        }
        let mut prepared = Vec::with_capacity(group.len());
        for unit in group {
            if unit.is_abandoned() {
                continue;
            }
            prepared.extend(Prepared::from_unit(&core, unit).await);
        }
        if !prepared.is_empty() {
            head = commit(&core, head.take(), prepared, &mut waiting).await;
        }
    }
}

/// Takes units that touch different rows. One that waits for a row keeps those behind it waiting.
fn take_group(waiting: &mut VecDeque<Unit>) -> Vec<Unit> {
    let mut taken: HashSet<(Kind, String)> = HashSet::new();
    let mut group = Vec::new();
    for _ in 0..waiting.len() {
        let Some(unit) = waiting.pop_front() else { break };
        let rows = rows_of(&unit);
        if rows.iter().any(|row| taken.contains(row)) {
            waiting.push_back(unit);
        } else {
            group.push(unit);
        }
        taken.extend(rows);
    }
    group
}

fn rows_of(unit: &Unit) -> Vec<(Kind, String)> {
    let writes = unit.writes.iter().filter(|write| write.change != Change::Check);
    let writes = writes.map(|write| (write.kind, write.id.clone()));
    let ledgers = unit.claims.iter().map(|ticket| (Ledger::KIND, ticket.ledger.clone()));
    // Only a refusal is charged, so calls that succeed go together though they share a budget.
    let is_charged = unit.draft.refused.is_some();
    let charged = unit.reservations.iter().filter(|_| is_charged);
    let budgets = charged.map(|place| (Failures::KIND, place.id.clone()));
    writes.chain(ledgers).chain(budgets).collect()
}

/// A unit settled and ready to be written.
struct Prepared {
    unit: Unit,
    ledgers: Vec<Versioned<Ledger>>,
    failures: Vec<Versioned<Failures>>,
    batch: Batch,
    planned: Planned,
}

impl Prepared {
    /// Settles a unit; one that can not be settled is answered and gone.
    async fn from_unit(core: &Core, mut unit: Unit) -> Option<Self> {
        let (ledgers, failures, batch) = match Self::settle(core, &mut unit).await {
            Ok(settled) => settled,
            Err(error) => {
                answer(unit, Err(error));
                return None;
            }
        };
        let Some(planned) = core.tally.plan(&batch) else {
            doubt(core, &unit);
            answer(unit, Err(Error::Conflict));
            return None;
        };
        Some(Self { unit, ledgers, failures, batch, planned })
    }

    async fn settle(
        core: &Core,
        unit: &mut Unit,
    ) -> Result<(Vec<Versioned<Ledger>>, Vec<Versioned<Failures>>, Batch), Error> {
        let (settled, failed_before) = match settle_claims(core, unit).await? {
            Settled::Kept { ledgers, failed_before } => (ledgers, failed_before),
            Settled::Lost { clone_alarm } => {
                lose(unit, clone_alarm);
                (Vec::new(), false)
            }
        };
        // A repetition of what failed was charged when it failed first.
        let failures = if failed_before { Vec::new() } else { charge_failures(core, unit).await? };
        let mut batch = unit.writes.clone();
        for write in &mut batch {
            seal_anew(core, write)?;
        }
        for ledger in &settled {
            batch.push(core.put(ledger)?);
        }
        for failed in &failures {
            batch.push(core.put(failed)?);
        }
        Ok((settled, failures, batch))
    }
}

/// What was sealed before another master key came into force is sealed under that one: from then on
/// nothing is written under the one before.
fn seal_anew(core: &Core, write: &mut Write) -> Result<(), Error> {
    let version = write.expected.next_version();
    if let Change::Put { sealed, .. } = &mut write.change
        && let Some(anew) = core.sealed_anew(write.kind, &write.id, version, sealed)?
    {
        *sealed = anew;
    }
    Ok(())
}

/// What became of a unit's claims.
enum Settled {
    Kept {
        /// The ledgers that changed, with the versions that they had.
        ledgers: Vec<Versioned<Ledger>>,
        /// Whether this very input had spent a counter before, and failed as it does now.
        failed_before: bool,
    },
    Lost {
        clone_alarm: bool,
    },
}

async fn settle_claims(core: &Core, unit: &Unit) -> Result<Settled, Error> {
    let mut ledgers: BTreeMap<&str, (Versioned<Ledger>, bool)> = BTreeMap::new();
    let mut failed_before = false;
    for ticket in &unit.claims {
        claim::load(core, &ticket.ledger).await?;
        let seen = core.ledgers.with_seen(&ticket.ledger, |seen, _| seen.clone());
        let seen = seen.ok_or(Error::Conflict)?;
        let (ledger, changed) = ledgers.entry(&ticket.ledger).or_insert((seen, false));
        let refused = unit.draft.refused.is_some();
        let by_outcome = if refused { Verdict::Rejected } else { Verdict::Accepted };
        let verdict = ticket.verdict.unwrap_or(by_outcome);
        match ticket.settle(&mut ledger.record, verdict) {
            Settlement::Lost { clone_alarm } => return Ok(Settled::Lost { clone_alarm }),
            Settlement::Repeated => failed_before |= verdict == Verdict::Rejected,
            Settlement::Spent => *changed = true,
            Settlement::Unspent => {}
        }
    }
    let changed = ledgers.into_values().filter(|(_, changed)| *changed);
    Ok(Settled::Kept { ledgers: changed.map(|(ledger, _)| ledger).collect(), failed_before })
}

/// Turns a unit into the refusal of one that came second: it has no effect but its event.
fn lose(unit: &mut Unit, clone_alarm: bool) {
    unit.writes.clear();
    unit.claims.clear();
    unit.reservations.clear();
    unit.draft.refused = Some(Reason::KsnReplayed);
    if clone_alarm {
        unit.draft.detail.insert("clone_alarm".to_owned(), "true".to_owned());
    }
}

/// Charges the budgets of a refused unit.
async fn charge_failures(core: &Core, unit: &Unit) -> Result<Vec<Versioned<Failures>>, Error> {
    let mut charged: BTreeMap<&str, Versioned<Failures>> = BTreeMap::new();
    if unit.draft.refused.is_none() {
        return Ok(Vec::new());
    }
    for place in &unit.reservations {
        reserve::load(core, &place.id).await?;
        let seen = core.failures.with_seen(&place.id, |seen, _| seen.clone());
        let seen = seen.ok_or(Error::Conflict)?;
        let failures = charged.entry(&place.id).or_insert(seen);
        failures.record.charge(place.budget, core.now());
    }
    Ok(charged.into_values().collect())
}

/// Commits a group and answers its units; gives the new head, none after a failure.
async fn commit(
    core: &Arc<Core>,
    head: Option<Versioned<ChainHead>>,
    prepared: Vec<Prepared>,
    waiting: &mut VecDeque<Unit>,
) -> Option<Versioned<ChainHead>> {
    match write(core, head, &prepared).await {
        Ok((outcomes, grown, time)) => {
            let sequences = grown.sequences;
            for ((mut done, outcome), sequence) in prepared.into_iter().zip(outcomes).zip(sequences)
            {
                let committed = sequence.map(|sequence| Committed { sequence, time });
                if let Some(next) = done.unit.next.take().filter(|_| outcome.is_applied()) {
                    core.advance(*next).await;
                }
                waiting.extend(finish(core, done, outcome, committed));
            }
            core.note_committed(grown.head.record.seq, grown.head.record.time);
            Some(grown.head)
        }
        Err(error) => {
            for mut failed in prepared {
                doubt(core, &failed.unit);
                if let Some(next) = failed.unit.next.take() {
                    core.doubt(*next);
                }
                core.tally.doubt(failed.planned);
                answer(failed.unit, Err(error));
            }
            None
        }
    }
}

async fn write(
    core: &Arc<Core>,
    head: Option<Versioned<ChainHead>>,
    prepared: &[Prepared],
) -> Result<(Vec<Outcome>, Grown, UnixMillis), Error> {
    if let Some(ahead_ms) = core.clock_ahead_ms() {
        tracing::error!(
            ahead_ms,
            "the clock is too far ahead of the newest event: none is written"
        );
        return Err(Error::Unavailable);
    }
    let head = match head {
        Some(head) => head,
        None => audit::read_head(core).await?,
    };
    let time = core.now().max(head.record.time);
    let nonces: Result<Vec<Nonce>, _> = (0..=prepared.len()).map(|_| core.nonce()).collect();
    let grown = Arc::new(OnceLock::new());
    let closing = Closing {
        core: Arc::clone(core),
        frontier: head.record.frontier()?,
        head,
        folds: prepared.iter().map(|one| one.planned.sum()).collect(),
        drafts: prepared.iter().map(|one| one.unit.event()).collect(),
        nonces: nonces?,
        time,
        grown: Arc::clone(&grown),
    };
    let batches = prepared.iter().map(|one| one.batch.clone()).collect();
    let tail = Box::new(move |applied: &[bool]| closing.writes(applied));
    let outcomes = core.store.commit(batches, tail).await?;
    let grown = Arc::into_inner(grown).and_then(OnceLock::into_inner);
    let grown = grown.ok_or_else(|| Error::incident("a store did not call its tail", ""))?;
    Ok((outcomes, grown, time))
}

/// Answers one unit of a durable commit; gives it back when it lost a race and has to be refused.
fn finish(
    core: &Core,
    mut done: Prepared,
    outcome: Outcome,
    committed: Option<Committed>,
) -> Option<Unit> {
    core.tally.settle(&done.planned, outcome.is_applied());
    match (outcome, committed) {
        (Outcome::Applied, Some(committed)) => {
            let Prepared { unit, ledgers, failures, .. } = done;
            for mut ledger in ledgers {
                ledger.version = Some(super::core::expected(ledger.version).next_version());
                core.ledgers.replace(ledger);
            }
            for mut failed in failures {
                failed.version = Some(super::core::expected(failed.version).next_version());
                core.failures.replace(failed);
            }
            let result = unit.draft.refused.map_or(Ok(committed), |why| Err(Error::Refused(why)));
            answer(unit, result);
            None
        }
        (Outcome::Conflict { write }, _) => {
            doubt(core, &done.unit);
            let lost_a_counter = !done.unit.claims.is_empty()
                && done.batch.get(write).is_some_and(|at| at.kind == Ledger::KIND);
            if lost_a_counter {
                lose(&mut done.unit, false);
                return Some(done.unit);
            }
            answer(done.unit, Err(Error::Conflict));
            None
        }
        (Outcome::Applied, None) => {
            doubt(core, &done.unit);
            answer(done.unit, Err(Error::incident("a batch was applied without its event", "")));
            None
        }
    }
}

/// Lets go of what was at hand of a unit: the store knows better.
fn doubt(core: &Core, unit: &Unit) {
    for ticket in &unit.claims {
        core.ledgers.doubt(&ticket.ledger);
    }
    for place in &unit.reservations {
        core.failures.doubt(&place.id);
    }
}

fn answer(unit: Unit, result: Result<Committed, Error>) {
    let Unit { answer, claims, reservations, passage, .. } = unit;
    // Counters and places are free before the caller can come again.
    drop((claims, reservations, passage));
    // A caller that went away does not undo what is durable.
    let _ = answer.send(result);
}
