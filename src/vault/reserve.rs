//! Places reserved in a failure budget while a call is under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::budget::{Budget, Failures, Full, RESERVED_RETRY_MS};
use super::cache::UnderWay;
use super::core::Core;
use super::error::Error;
use super::record::Versioned;
use super::seal::HashPurpose;

/// How many places of one budget are reserved, and who waits for one.
#[derive(Default)]
pub(super) struct Reserved {
    places: usize,
    freed: Arc<Notify>,
}

impl UnderWay for Reserved {
    fn is_nothing(&self) -> bool {
        self.places == 0
    }
}

/// A place held by a unit of work; it is given back when the reservation is dropped.
pub(super) struct Reservation {
    core: Arc<Core>,
    pub(super) budget: Budget,
    pub(super) id: String,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.core.failures.release(&self.id, |reserved| {
            reserved.places = reserved.places.saturating_sub(1);
            reserved.freed.notify_one();
        });
    }
}

/// Reserves a place before anything is decrypted.
///
/// In a budget that many genuine calls share, one that finds all places reserved waits a little for
/// the calls under way, so these never fail more often than the budget allows, and none is refused
/// because it came at the same time as others.
pub(super) async fn reserve(
    core: &Arc<Core>,
    budget: Budget,
    subject: &[&[u8]],
) -> Result<Reservation, Error> {
    let subject = [&[budget.as_str().as_bytes()], subject].concat();
    let hash = core.sealer.keyed_hash(HashPurpose::Budget, &subject);
    let id = data_encoding::HEXLOWER.encode(&hash);
    let wait = Duration::from_millis(RESERVED_RETRY_MS);
    let taken = tokio::time::timeout(wait, take_place(core, budget, &id)).await;
    taken.unwrap_or(Err(Error::BudgetSpent { retry_after_ms: RESERVED_RETRY_MS }))?;
    Ok(Reservation { core: Arc::clone(core), budget, id })
}

async fn take_place(core: &Core, budget: Budget, id: &str) -> Result<(), Error> {
    loop {
        load(core, id).await?;
        let now = core.now();
        let asked = core.failures.with_seen(id, |failures, reserved| {
            let outcome = failures.record.admit(budget, reserved.places, now);
            match outcome {
                Ok(()) => reserved.places += 1,
                // Who waits behind this call is not to wait for nothing.
                Err(Full::Spent { .. }) => reserved.freed.notify_one(),
                Err(Full::Reserved) => {}
            }
            (outcome, Arc::clone(&reserved.freed))
        });
        let (outcome, freed) = asked.ok_or(Error::Conflict)?;
        match outcome {
            Ok(()) => return Ok(()),
            Err(Full::Reserved) if budget.is_rate() => freed.notified().await,
            Err(Full::Reserved) => {
                return Err(Error::BudgetSpent { retry_after_ms: RESERVED_RETRY_MS });
            }
            Err(Full::Spent { retry_after_ms }) => {
                return Err(Error::BudgetSpent { retry_after_ms });
            }
        }
    }
}

/// Brings the failures of a subject to hand.
pub(super) async fn load(core: &Core, id: &str) -> Result<(), Error> {
    if core.failures.with_seen(id, |_, _| ()).is_none() {
        let read = core.read::<Failures>(id).await?;
        let failures = read.unwrap_or_else(|| Versioned::absent(Failures::new(id.to_owned())));
        core.failures.keep_read(failures);
    }
    Ok(())
}
