//! What the vault does by its own clock: writes what is counted, purges what has expired, looks at
//! the disk.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::allocation::Leases;
use super::approval::{Approval, ApprovalOf};
use super::audit::Summaries;
use super::budget::{Failures, hour_bucket};
use super::caller::{Action, Caller};
use super::clock::UnixMillis;
use super::committer::Unit;
use super::core::Core;
use super::error::Error;
use super::event::Draft;
use super::idempotency::Answered;
use super::install;
use super::record::{Record, Versioned};
use super::refusals::Refusals;
use super::store::IndexFilter;
use super::vault::Shared;
use super::work::{Work, hand_over};

/// What is counted in memory, to be told in the audit log later.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) refusals: Refusals,
    pub(super) summaries: Summaries,
    /// Counts that are over, and wait for a store that takes them.
    over: Mutex<Vec<Draft>>,
}

impl Counts {
    /// Writes the counts that are over, or all of them. One that can not be written is kept, and
    /// nothing more is taken before it: what goes on is counted on.
    pub(super) async fn write(&self, shared: &Shared, all: bool) -> Result<(), Error> {
        let mut over = self.over.lock().await;
        if over.is_empty() || all {
            let now = shared.core.now();
            over.extend(self.refusals.take_over(now, all));
            over.extend(self.summaries.take_over(now, all));
        }
        while let Some(draft) = over.last().cloned() {
            let (answer, answered) = oneshot::channel();
            let unit = Unit {
                draft,
                is_counted: false,
                writes: Vec::new(),
                claims: Vec::new(),
                reservations: Vec::new(),
                next: None,
                passage: None,
                answer,
            };
            match hand_over(shared, unit, answered).await {
                Ok(_) | Err(Error::Refused(_)) => over.pop(),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}

/// How often the housekeeper looks.
const HOUSE_STEP: Duration = Duration::from_secs(1);

/// Every how many steps expired records are purged, unless there were more than fit in one.
const PURGE_STEPS: u32 = 60;

/// How many expired records go in one commit.
const PURGE_MAX: usize = 200;

/// How many expired records of a kind go in one step, so that calls are not kept waiting.
const PURGE_STEP_MAX: usize = 2_000;

/// The housekeeper: it ends with the vault, which it does not keep.
pub(super) struct Housekeeper {
    queue: mpsc::WeakSender<Unit>,
    core: Weak<Core>,
    counts: Arc<Counts>,
    leases: Arc<Leases>,
}

/// Keeps house until the vault is gone.
pub(super) async fn keep_house(house: Housekeeper) {
    let mut is_behind = false;
    let mut seen = None;
    for step in 1_u32.. {
        tokio::time::sleep(HOUSE_STEP).await;
        let Some(shared) = house.shared() else { return };
        let core = &shared.core;
        core.look_at_disk().await;
        // What fails here has been logged by the store, and is tried again at the next step.
        let _ = shared.counts.write(&shared, false).await;
        let _ = install::load_policy(core, &mut seen).await;
        core.rates.tidy();
        if is_behind || step % PURGE_STEPS == 0 {
            is_behind = purge_expired(&shared).await == Purged::More;
        }
    }
}

/// Deletes what has expired, of every kind that does.
pub(super) async fn purge_expired(shared: &Shared) -> Purged {
    let answers = purge::<Answered>(shared).await;
    let failures = purge::<Failures>(shared).await;
    // What leads to an approval goes before it.
    let bound = purge::<ApprovalOf>(shared).await;
    let approvals = purge::<Approval>(shared).await;
    // What fails has been logged by the store, and is tried again at the next step.
    let is_behind = [answers, failures, bound, approvals].contains(&Ok(Purged::More));
    if is_behind { Purged::More } else { Purged::All }
}

impl Housekeeper {
    pub(super) fn of(shared: &Shared) -> Self {
        Self {
            queue: shared.queue.downgrade(),
            core: Arc::downgrade(&shared.core),
            counts: Arc::clone(&shared.counts),
            leases: Arc::clone(&shared.leases),
        }
    }

    /// The vault for one step; none when it is gone.
    pub(super) fn shared(&self) -> Option<Shared> {
        Some(Shared {
            core: self.core.upgrade()?,
            queue: self.queue.upgrade()?,
            counts: Arc::clone(&self.counts),
            leases: Arc::clone(&self.leases),
        })
    }
}

/// What a purge has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purged {
    All,
    More,
}

/// Deletes records whose index names an hour that is over: all of them, or as many as one step may.
async fn purge<R: Record>(shared: &Shared) -> Result<Purged, Error> {
    let core = &shared.core;
    let now = core.now();
    let over = IndexFilter::UpTo(hour_bucket(UnixMillis(now.0.saturating_sub(PURGE_AFTER_MS))));
    let mut after = None;
    for _ in 0..PURGE_STEP_MAX / PURGE_MAX {
        let found = core.list::<R>(over.clone(), after, PURGE_MAX).await?;
        // Not what the store's index says counts, but the record's own.
        let expired = found.iter().filter(|one| over.admits(one.record.index().as_deref()));
        let expired: Vec<&Versioned<R>> = expired.collect();
        if !expired.is_empty() {
            let (caller, resource) = (Caller::service(), String::new());
            let policy = core.policy.policy().version;
            let shared = shared.clone();
            let mut work = Work::new(shared, &caller, Action::PurgeExpired, resource, policy);
            work.detail(R::KIND.as_str(), expired.len().to_string());
            for one in expired {
                work.delete(one);
            }
            work.commit().await?;
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
    use crate::vault::idempotency::RequestId;
    use crate::vault::reason::Reason;
    use crate::vault::testing::Bench;

    #[tokio::test]
    async fn what_has_expired_is_purged_and_nothing_else() {
        let bench = Bench::new().await;
        let shared = &bench.vault.shared;
        let core = &shared.core;
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
            purge::<Answered>(shared).await.unwrap();
            purge::<Failures>(shared).await.unwrap();
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
        let shared = &bench.vault.shared;
        let core = &shared.core;
        let mut work = bench.begin(Action::TranslatePin).await;
        for number in 0..=PURGE_STEP_MAX {
            let mut failures = Failures::new(format!("{number:05}"));
            failures.charge(Budget::Pin, core.now());
            work.put(&Versioned::absent(failures)).unwrap();
        }
        work.commit().await.unwrap();
        bench.clock.forward(3 * super::super::budget::HOUR_MS);
        assert_eq!(purge::<Failures>(shared).await, Ok(Purged::More));
        assert_eq!(purge::<Failures>(shared).await, Ok(Purged::All));
        let events = bench.vault.events_after(0, 100).await.unwrap();
        let purged = events.iter().filter(|event| event.action == "PurgeExpired");
        let counts = purged.map(|event| event.detail["budget"].parse::<usize>().unwrap());
        assert_eq!(counts.sum::<usize>(), PURGE_STEP_MAX + 1, "each purge leaves an event");
        let left = core.list::<Failures>(IndexFilter::Any, None, 10).await.unwrap();
        assert!(left.is_empty());
    }
}
