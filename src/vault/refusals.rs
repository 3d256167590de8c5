//! Refusals in the audit log: the first at once, repeated ones counted together.
//!
//! Someone who is refused the same thing again and again can not fill the disk: within
//! [`INTERVAL_MS`] the repetitions of one refusal (caller, action, resource, reason) become one
//! event with their count. They are held in memory until then, at most [`KEPT_MAX`] kinds of them;
//! a crash may lose the count of the last interval, never the first refusal.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::caller::Action;
use super::clock::UnixMillis;
use super::event::Draft;
use super::reason::Reason;

/// How long repetitions are counted together.
pub(super) const INTERVAL_MS: u64 = 5_000;

/// How many kinds of refusals are counted at once; what is beyond is written one by one.
pub(super) const KEPT_MAX: usize = 1_024;

/// Refusals of the current intervals.
#[derive(Default)]
pub(super) struct Refusals {
    kept: Mutex<HashMap<Sort, Repeated>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Sort {
    caller: String,
    action: Action,
    resource: String,
    reason: Option<Reason>,
}

struct Repeated {
    since: UnixMillis,
    count: u64,
    draft: Draft,
}

impl Refusals {
    /// Tells whether a refusal has to be written now; else it is counted.
    pub(super) fn is_first(&self, draft: &Draft, now: UnixMillis) -> bool {
        let sort = Sort {
            caller: draft.caller.clone(),
            action: draft.action,
            resource: draft.resource.clone(),
            reason: draft.refused,
        };
        let mut kept = self.kept();
        if let Some(repeated) = kept.get_mut(&sort) {
            repeated.count = repeated.count.saturating_add(1);
            return false;
        }
        if kept.len() < KEPT_MAX {
            kept.insert(sort, Repeated { since: now, count: 0, draft: draft.clone() });
        }
        true
    }

    /// Takes the intervals that are over, each with its count of repetitions.
    pub(super) fn take_over(&self, now: UnixMillis, all: bool) -> Vec<Draft> {
        let mut over = Vec::new();
        self.kept().retain(|_, repeated| {
            if !all && now.since_ms(repeated.since) < INTERVAL_MS {
                return true;
            }
            if repeated.count > 0 {
                let mut draft = repeated.draft.clone();
                draft.detail.insert("repeated".to_owned(), repeated.count.to_string());
                over.push(draft);
            }
            false
        });
        over
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Sort, Repeated>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
