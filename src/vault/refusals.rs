//! Refusals in the audit log: the first at once, repeated ones counted together.
//!
//! Someone who is refused the same thing again and again can not fill the disk: within
//! [`INTERVAL_MS`] the repetitions of one refusal (caller, action, resource, terminal, reason)
//! become one event with their count. They are held in memory until then, at most [`KEPT_MAX`]
//! kinds of them; what is beyond is counted by action and reason alone, so that neither varying
//! names nor many callers make more events than that. A crash may lose the count of the last
//! interval, never the first refusal of a kind.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::caller::Action;
use super::clock::UnixMillis;
use super::event::Draft;
use super::reason::Reason;

/// How long repetitions are counted together.
pub(super) const INTERVAL_MS: u64 = 5_000;

/// How many kinds of refusals are told apart at once.
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
    /// What the event says of the terminal, and whether it raises an alarm: a count must not hide
    /// another terminal or an alarm.
    details: [Option<String>; 2],
}

impl Sort {
    fn of(draft: &Draft) -> Self {
        Self {
            caller: draft.caller.clone(),
            action: draft.action,
            resource: draft.resource.clone(),
            reason: draft.refused,
            details: TOLD_APART.map(|name| draft.detail.get(name).cloned()),
        }
    }
}

/// The details by which refusals are told apart.
const TOLD_APART: [&str; 2] = ["terminal", "alarm"];

struct Repeated {
    since: UnixMillis,
    count: u64,
    draft: Draft,
}

impl Refusals {
    /// Tells whether a refusal has to be written now; else it is counted.
    pub(super) fn is_first(&self, draft: &Draft, now: UnixMillis) -> bool {
        let mut kept = self.kept();
        let sort = Sort::of(draft);
        if kept.len() < KEPT_MAX || kept.contains_key(&sort) {
            return count(&mut kept, sort, now, draft.clone());
        }
        let overflow = overflow_of(draft);
        count(&mut kept, Sort::of(&overflow), now, overflow)
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

/// Tells whether a refusal is the first of its kind; else counts it.
fn count(kept: &mut HashMap<Sort, Repeated>, sort: Sort, now: UnixMillis, draft: Draft) -> bool {
    match kept.entry(sort) {
        Entry::Occupied(mut repeated) => {
            let repeated = repeated.get_mut();
            repeated.count = repeated.count.saturating_add(1);
            false
        }
        Entry::Vacant(place) => {
            place.insert(Repeated { since: now, count: 0, draft });
            true
        }
    }
}

/// What stands for a refusal that is no longer told apart: its action and reason.
fn overflow_of(draft: &Draft) -> Draft {
    let mut overflow = Draft {
        caller: String::new(),
        role: "",
        certificate: String::new(),
        policy: 0,
        approvers: Vec::new(),
        action: draft.action,
        resource: String::new(),
        keys: Vec::new(),
        refused: draft.refused,
        detail: BTreeMap::new(),
        request: None,
    };
    overflow.detail.insert("overflow".to_owned(), "true".to_owned());
    overflow
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::caller::Caller;

    fn draft(resource: &str, reason: Reason) -> Draft {
        let caller = Caller::for_dev_only("dev");
        let mut draft = Draft::new(&caller, Action::VerifyMac, resource.to_owned(), 1);
        draft.refused = Some(reason);
        draft
    }

    #[test]
    fn a_flood_of_kinds_is_counted_by_action_and_reason() {
        let refusals = Refusals::default();
        let now = UnixMillis(1_000);
        let name = |number: usize| format!("keys/{number}");
        let written = (0..3 * KEPT_MAX)
            .filter(|number| refusals.is_first(&draft(&name(*number), Reason::KeyNotFound), now))
            .count();
        assert_eq!(written, KEPT_MAX + 1);
        assert!(refusals.is_first(&draft("keys/other", Reason::KeyNotActive), now));
        assert!(!refusals.is_first(&draft("keys/more", Reason::KeyNotActive), now));
        // What was told apart before the flood still is.
        assert!(!refusals.is_first(&draft(&name(0), Reason::KeyNotFound), now));
        let mut over = refusals.take_over(now, true);
        over.sort_by_key(|draft| draft.detail["repeated"].parse::<usize>().unwrap());
        let told: Vec<_> = over
            .iter()
            .map(|draft| (draft.resource.as_str(), draft.detail["repeated"].as_str()))
            .collect();
        let overflown = (2 * KEPT_MAX - 1).to_string();
        assert_eq!(told[2], ("", overflown.as_str()));
        assert!(over[2].detail.contains_key("overflow"));
        assert_eq!(over.len(), 3);
        assert!(refusals.take_over(now, true).is_empty());
    }

    #[test]
    fn a_count_hides_neither_another_terminal_nor_an_alarm() {
        let refusals = Refusals::default();
        for (name, value) in [("note", "a"), ("terminal", "terminals/a"), ("alarm", "rate")] {
            let mut told = draft("keys/a", Reason::BudgetSpent);
            told.detail.insert(name.to_owned(), value.to_owned());
            assert!(refusals.is_first(&told, UnixMillis(0)), "{name}");
            assert!(!refusals.is_first(&told, UnixMillis(0)), "{name}");
        }
    }
}
