//! Places reserved in a failure budget while a call is under way.

use std::sync::Arc;

use super::budget::{Budget, Failures, RetryAfterMs};
use super::cache::UnderWay;
use super::core::Core;
use super::error::Error;
use super::record::Versioned;
use super::seal::HashPurpose;

/// How many places of one budget are reserved.
#[derive(Default)]
pub(super) struct Reserved(usize);

impl UnderWay for Reserved {
    fn is_nothing(&self) -> bool {
        self.0 == 0
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
        self.core.failures.release(&self.id, |reserved| reserved.0 = reserved.0.saturating_sub(1));
    }
}

/// Reserves a place before anything is decrypted.
pub(super) async fn reserve(
    core: &Arc<Core>,
    budget: Budget,
    subject: &[&[u8]],
) -> Result<Reservation, Error> {
    let subject = [&[budget.as_str().as_bytes()], subject].concat();
    let hash = core.sealer.keyed_hash(HashPurpose::Budget, &subject);
    let id = data_encoding::HEXLOWER.encode(&hash);
    load(core, &id).await?;
    let now = core.now();
    core.failures
        .with_seen(&id, |failures, reserved| {
            failures.record.admit(budget, reserved.0, now)?;
            reserved.0 += 1;
            Ok(())
        })
        .ok_or(Error::Conflict)?
        .map_err(|RetryAfterMs(retry_after_ms)| Error::BudgetSpent { retry_after_ms })?;
    Ok(Reservation { core: Arc::clone(core), budget, id })
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
