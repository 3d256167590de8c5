//! Successful calls of the data plane in summary: one event before an interval's first use of a key
//! by a caller in a call, and one at its end that counts the others.
//!
//! The first call of an interval leaves its own event, durable before its answer like any other.
//! Those that follow are counted in memory. A crash loses the count of the intervals that were
//! open, and says so by leaving them open: never who used what. What has effects beyond a counter
//! of the ledger, and what is refused, always has an event of its own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::caller::Action;
use super::super::clock::UnixMillis;
use super::super::event::{Draft, EventKey, LEGACY};

/// How many intervals are open at once. A call beyond them has an event of its own.
const OPEN_MAX: usize = 4_096;

/// How much later than its end an interval may be closed: then its calls are counted no longer.
const LATE_MS_MAX: u64 = 10_000;

/// Whose calls are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::vault) struct Summary {
    caller: String,
    certificate: String,
    policy: u64,
    action: Action,
    keys: Vec<EventKey>,
    /// A key of AES may have working keys of TDES.
    is_legacy: bool,
}

impl Summary {
    /// The summary that a successful call belongs to.
    pub(in crate::vault) fn of(draft: &Draft) -> Self {
        Self {
            caller: draft.caller.clone(),
            certificate: draft.certificate.clone(),
            policy: draft.policy,
            action: draft.action,
            keys: draft.keys.clone(),
            is_legacy: draft.detail.contains_key(LEGACY),
        }
    }
}

/// How a call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vault) enum Place {
    /// It is counted: no event of its own.
    Counted,
    /// It opens an interval, once its event is durable.
    Opens,
    /// By its own event alone.
    Own,
}

/// The intervals that are open.
#[derive(Default)]
pub(in crate::vault) struct Summaries {
    open: Mutex<HashMap<Summary, Interval>>,
}

struct Interval {
    since: UnixMillis,
    length_ms: u64,
    count: u64,
    draft: Draft,
}

impl Interval {
    fn is_over(&self, now: UnixMillis) -> bool {
        now.since_ms(self.since) >= self.length_ms
    }
}

impl Summaries {
    /// Finds out how a call is told, and counts it where it is counted.
    pub(in crate::vault) fn place(&self, summary: &Summary, now: UnixMillis) -> Place {
        let mut open = self.open();
        let is_full = open.len() >= OPEN_MAX;
        match open.get_mut(summary) {
            Some(interval) => {
                let end = interval.since.plus_ms(interval.length_ms).plus_ms(LATE_MS_MAX);
                if now > end {
                    return Place::Own;
                }
                interval.count = interval.count.saturating_add(1);
                Place::Counted
            }
            None if is_full => Place::Own,
            None => Place::Opens,
        }
    }

    /// Takes back a call that was counted and did not come about.
    pub(in crate::vault) fn take_back(&self, summary: &Summary) {
        if let Some(interval) = self.open().get_mut(summary) {
            interval.count = interval.count.saturating_sub(1);
        }
    }

    /// Opens an interval: the event of its first call is durable. Of two that open one at the same
    /// time each has its event, and the first stays.
    pub(in crate::vault) fn begin(
        &self,
        summary: Summary,
        draft: Draft,
        since: UnixMillis,
        length_ms: u64,
    ) {
        let interval = Interval { since, length_ms, count: 0, draft };
        self.open().entry(summary).or_insert(interval);
    }

    /// Takes the intervals that are over, each as the event that closes it.
    pub(in crate::vault) fn take_over(&self, now: UnixMillis, all: bool) -> Vec<Draft> {
        let mut over = Vec::new();
        self.open().retain(|_, interval| {
            if !all && !interval.is_over(now) {
                return true;
            }
            let mut draft = interval.draft.clone();
            draft.detail.clear();
            draft.request = None;
            draft.detail.insert("summary".to_owned(), "ended".to_owned());
            draft.detail.insert("counted".to_owned(), interval.count.to_string());
            over.push(draft);
            false
        });
        over
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Summary, Interval>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
