//! Numbers that are never given twice, for the initial key ids below a base derivation key.
//!
//! A range is leased durably before a number of it is handed out, so calls that run at once do not
//! wait for each other's commits; a restart loses the rest of the range. In the commit that uses a
//! number a row of its own says so, which must not exist before: whatever went wrong with leases,
//! a store that was restored for instance, a number is not given twice.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::error::Error;
use super::reason::Reason;
use super::record::{Kind, Record, Versioned};
use super::vault::Shared;

/// Numbers in a lease: what a crash loses at most of each scope.
pub(super) const LEASE: u64 = 32;

/// How often a lease is tried that another replica was quicker to take.
const TRIES_MAX: u8 = 8;

/// Ranges that are leased and not handed out yet.
#[derive(Default)]
pub(super) struct Leases(Mutex<HashMap<String, Range<u64>>>);

/// The first number of a scope that is not leased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counter {
    scope: String,
    next: u64,
}

impl Record for Counter {
    const KIND: Kind = Kind::new("counter");

    fn id(&self) -> String {
        self.scope.clone()
    }
}

/// A number that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issued {
    scope: String,
    number: u64,
}

impl Record for Issued {
    const KIND: Kind = Kind::new("issued");

    fn id(&self) -> String {
        format!("{}/{:020}", self.scope, self.number)
    }
}

/// Hands out the next number, with the record that must go into the commit that uses it.
pub(super) async fn allocate(
    shared: &Shared,
    scope: &str,
    cap: u64,
) -> Result<(u64, Issued), Error> {
    let mut leases = shared.leases.0.lock().await;
    let number = if let Some(number) = leases.get_mut(scope).and_then(Iterator::next) {
        number
    } else {
        let mut range = lease(shared, scope, cap).await?;
        let first = range.next().ok_or(Error::Refused(Reason::KsnExhausted))?;
        leases.insert(scope.to_owned(), range);
        first
    };
    // The cap may have been lowered since the lease.
    if number >= cap {
        return Err(Error::Refused(Reason::KsnExhausted));
    }
    Ok((number, Issued { scope: scope.to_owned(), number }))
}

async fn lease(shared: &Shared, scope: &str, cap: u64) -> Result<Range<u64>, Error> {
    let core = &shared.core;
    for _ in 0..TRIES_MAX {
        let counter = core.read::<Counter>(scope).await?;
        let mut counter = counter
            .unwrap_or_else(|| Versioned::absent(Counter { scope: scope.to_owned(), next: 0 }));
        let first = counter.record.next;
        let end = first.saturating_add(LEASE).min(cap);
        if first >= end {
            return Err(Error::Refused(Reason::KsnExhausted));
        }
        counter.record.next = end;
        // A lease has no event: the commit that uses a number of it has.
        if core.write_alone(&counter).await? {
            return Ok(first..end);
        }
    }
    Err(Error::Conflict)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::store::Store;
    use super::super::testing::{FaultyStore, HandClock, caller, opening};
    use super::super::{Action, Opening, Vault};
    use crate::crypto::digest::sha256;
    use crate::crypto::rng::{Rng, RngFailed};

    /// Random numbers that repeat themselves in every process that was cloned from one.
    struct Cloned(AtomicU64);

    impl Rng for Cloned {
        fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
            for block in out.chunks_mut(32) {
                let count = self.0.fetch_add(1, Ordering::Relaxed);
                let drawn = sha256(&[b"seed", &count.to_be_bytes()]);
                block.copy_from_slice(&drawn[..block.len()]);
            }
            Ok(())
        }
    }

    /// Processes that were cloned from one may draw the same numbers: what must be given once is
    /// given by the store, of which each process is the only writer in its time.
    #[tokio::test]
    async fn processes_that_draw_the_same_numbers_give_none_twice() {
        let store: Arc<dyn Store> = Arc::new(FaultyStore::default());
        let mut given = BTreeSet::new();
        for _ in 0..3 {
            let rng = Arc::new(Cloned(AtomicU64::new(0)));
            let opening = opening(Arc::clone(&store), HandClock::new());
            let vault = Vault::open(Opening { rng, ..opening }).await.unwrap();
            for _ in 0..40 {
                let work = vault.begin(&caller(), Action::BeginActivation, "keys/x").await;
                let mut work = work.unwrap();
                let number = work.allocate("bdk/1", 10_000).await.unwrap();
                assert!(given.insert(number), "{number} twice");
                work.commit().await.unwrap();
            }
            vault.close().await;
        }
        assert_eq!(given.len(), 120);
    }
}
