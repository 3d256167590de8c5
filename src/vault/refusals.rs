//! Refusals in the audit log: the first at once, repeated ones counted together.
//!
//! Someone who is refused the same thing again and again can not fill the disk: within
//! [`INTERVAL_MS`] the repetitions of one refusal (caller, certificate, action, resource, terminal,
//! source, reason) become one event with their count. They are held in memory until then, so many
//! kinds of each caller and so many of all. What is beyond is counted by caller, action, reason and
//! alarm alone, so that varying names make no more events than that.
//!
//! Nobody who makes up names hides what others are refused: whoever the policy does not know, and
//! terminals, which tell their names before they prove them, share one caller's room beside that of
//! all others; alarms have a room of their own. A crash may lose the count of the last interval,
//! never the first refusal of a kind.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::caller::{Action, Role};
use super::clock::UnixMillis;
use super::event::Draft;
use super::reason::Reason;

/// How long repetitions are counted together.
pub(super) const INTERVAL_MS: u64 = 5_000;

/// How many kinds of refusals of one caller are told apart at once; of all who are unknown
/// together; of alarms.
pub(super) const KEPT_EACH_MAX: usize = 128;

/// How many kinds of refusals of all known callers are told apart at once.
pub(super) const KEPT_MAX: usize = 1_024;

/// Refusals of the current intervals.
#[derive(Default)]
pub(super) struct Refusals {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    sorts: HashMap<Sort, Repeated>,
    /// How many of them take up whose room.
    taken: HashMap<Room, usize>,
    /// How many of them take up rooms of known callers.
    taken_by_known: usize,
}

/// Whose room a kind of refusals takes up.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Room {
    Alarms,
    Known(String),
    Unknown,
}

impl Room {
    fn of(draft: &Draft) -> Self {
        if draft.detail.contains_key(ALARM) {
            Self::Alarms
        } else if is_known(draft) {
            Self::Known(draft.caller.clone())
        } else {
            Self::Unknown
        }
    }
}

/// Whether the policy knows the caller by name.
fn is_known(draft: &Draft) -> bool {
    let unknown = [Role::Stranger, Role::Terminal].map(Role::as_str);
    !unknown.contains(&draft.role)
}

#[derive(PartialEq, Eq, Hash)]
struct Sort {
    caller: String,
    certificate: String,
    action: Action,
    resource: String,
    reason: Option<Reason>,
    /// What the event says of the terminal, of where the call came from, and whether it raises an
    /// alarm: a count must hide none of these.
    details: [Option<String>; 3],
    /// Whether names are told apart no more.
    is_overflow: bool,
}

impl Sort {
    fn of(draft: &Draft) -> Self {
        Self {
            caller: draft.caller.clone(),
            certificate: draft.certificate.clone(),
            action: draft.action,
            resource: draft.resource.clone(),
            reason: draft.refused,
            details: TOLD_APART.map(|name| draft.detail.get(name).cloned()),
            is_overflow: draft.detail.contains_key(OVERFLOW),
        }
    }
}

/// The details by which refusals are told apart.
const TOLD_APART: [&str; 3] = ["terminal", "source", ALARM];
const ALARM: &str = "alarm";
/// The detail that says that names are told apart no more.
const OVERFLOW: &str = "overflow";

struct Repeated {
    since: UnixMillis,
    count: u64,
    draft: Draft,
    /// None for what overflows: there are few kinds of that.
    room: Option<Room>,
}

impl Refusals {
    /// Tells whether a refusal has to be written now; else it is counted.
    pub(super) fn is_first(&self, draft: &Draft, now: UnixMillis) -> bool {
        let mut kept = self.kept();
        let (sort, room) = (Sort::of(draft), Room::of(draft));
        if kept.sorts.contains_key(&sort) {
            return kept.count(sort, now, draft.clone(), None);
        }
        if kept.has_place(&room) {
            return kept.count(sort, now, draft.clone(), Some(room));
        }
        let overflow = overflow_of(draft);
        kept.count(Sort::of(&overflow), now, overflow, None)
    }

    /// The first refusal of a kind could not be written: the next of the kind is the first, unless
    /// some were counted meanwhile, which will be told.
    pub(super) fn take_back(&self, draft: &Draft) {
        let mut kept = self.kept();
        let Kept { sorts, taken, taken_by_known } = &mut *kept;
        for sort in [Sort::of(draft), Sort::of(&overflow_of(draft))] {
            if let Entry::Occupied(place) = sorts.entry(sort)
                && place.get().count == 0
            {
                if let Some(room) = &place.remove().room {
                    give_back(room, taken, taken_by_known);
                }
                return;
            }
        }
    }

    /// Takes the intervals that are over, each with its count of repetitions.
    pub(super) fn take_over(&self, now: UnixMillis, all: bool) -> Vec<Draft> {
        let mut over = Vec::new();
        let mut kept = self.kept();
        let Kept { sorts, taken, taken_by_known } = &mut *kept;
        sorts.retain(|_, repeated| {
            if !all && now.since_ms(repeated.since) < INTERVAL_MS {
                return true;
            }
            if let Some(room) = &repeated.room {
                give_back(room, taken, taken_by_known);
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

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn has_place(&self, room: &Room) -> bool {
        let has_room = match room {
            Room::Alarms | Room::Unknown => true,
            Room::Known(_) => self.taken_by_known < KEPT_MAX,
        };
        has_room && self.taken.get(room).is_none_or(|taken| *taken < KEPT_EACH_MAX)
    }

    /// Tells whether a refusal is the first of its kind; else counts it.
    fn count(&mut self, sort: Sort, now: UnixMillis, draft: Draft, room: Option<Room>) -> bool {
        match self.sorts.entry(sort) {
            Entry::Occupied(mut repeated) => {
                let repeated = repeated.get_mut();
                repeated.count = repeated.count.saturating_add(1);
                false
            }
            Entry::Vacant(place) => {
                if let Some(room) = &room {
                    let taken = self.taken.entry(room.clone()).or_default();
                    *taken = taken.saturating_add(1);
                    if matches!(room, Room::Known(_)) {
                        self.taken_by_known = self.taken_by_known.saturating_add(1);
                    }
                }
                place.insert(Repeated { since: now, count: 0, draft, room });
                true
            }
        }
    }
}

fn give_back(room: &Room, taken: &mut HashMap<Room, usize>, taken_by_known: &mut usize) {
    if matches!(room, Room::Known(_)) {
        *taken_by_known = taken_by_known.saturating_sub(1);
    }
    match taken.get_mut(room) {
        Some(count) if *count > 1 => *count = count.saturating_sub(1),
        // Who has none is forgotten, so that many who come and go take up no memory.
        Some(_) | None => {
            taken.remove(room);
        }
    }
}

/// What stands for a refusal that is no longer told apart: its action, reason and alarm, and the
/// caller where it is one of those that the policy knows.
fn overflow_of(draft: &Draft) -> Draft {
    let caller = if is_known(draft) { draft.caller.clone() } else { String::new() };
    let role = if is_known(draft) { draft.role } else { "" };
    let mut overflow = Draft {
        caller,
        role,
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
    if let Some(alarm) = draft.detail.get(ALARM) {
        overflow.detail.insert(ALARM.to_owned(), alarm.clone());
    }
    overflow.detail.insert(OVERFLOW.to_owned(), "true".to_owned());
    overflow
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::caller::Caller;

    const NOW: UnixMillis = UnixMillis(1_000);

    fn known(name: &str) -> Caller {
        Caller::new(name, name, Role::Backend, "")
    }

    fn draft_of(caller: &Caller, resource: &str, reason: Reason) -> Draft {
        let mut draft = Draft::new(caller, Action::VerifyMac, resource.to_owned(), 1);
        draft.refused = Some(reason);
        draft
    }

    fn draft(resource: &str, reason: Reason) -> Draft {
        draft_of(&known("a"), resource, reason)
    }

    /// Refusals of `count` made-up names; tells how many were written at once.
    fn flood(refusals: &Refusals, caller: &Caller, count: usize) -> usize {
        let name = |number: usize| format!("keys/{number}");
        let drafts = (0..count).map(|one| draft_of(caller, &name(one), Reason::KeyNotFound));
        drafts.filter(|draft| refusals.is_first(draft, NOW)).count()
    }

    #[test]
    fn a_flood_of_kinds_is_counted_by_caller_action_and_reason() {
        let refusals = Refusals::default();
        let written = flood(&refusals, &known("a"), 3 * KEPT_EACH_MAX);
        assert_eq!(written, KEPT_EACH_MAX + 1);
        assert!(refusals.is_first(&draft("keys/other", Reason::KeyNotActive), NOW));
        assert!(!refusals.is_first(&draft("keys/more", Reason::KeyNotActive), NOW));
        // What was told apart before the flood still is.
        assert!(!refusals.is_first(&draft("keys/0", Reason::KeyNotFound), NOW));
        let mut over = refusals.take_over(NOW, true);
        over.sort_by_key(|draft| draft.detail["repeated"].parse::<usize>().unwrap());
        let told: Vec<_> = over
            .iter()
            .map(|draft| (draft.resource.as_str(), draft.detail["repeated"].as_str()))
            .collect();
        let overflown = (2 * KEPT_EACH_MAX - 1).to_string();
        assert_eq!(told[2], ("", overflown.as_str()));
        assert!(over[2].detail.contains_key("overflow"));
        assert_eq!((over[2].caller.as_str(), over[2].role), ("a", "backend"));
        assert_eq!(over.len(), 3);
        assert!(refusals.take_over(NOW, true).is_empty());
        // Its room is free again.
        assert_eq!(flood(&refusals, &known("a"), 2 * KEPT_EACH_MAX), KEPT_EACH_MAX + 1);
    }

    #[test]
    fn made_up_names_hide_neither_a_known_callers_refusals_nor_an_alarm() {
        let refusals = Refusals::default();
        let told = |resource: &str| draft_of(&known("b"), resource, Reason::KeyNotFound);
        let mut alarm = told("keys/c");
        alarm.detail.insert("alarm".to_owned(), "pin_rate".to_owned());
        // Strangers and terminals share one room, whatever they call themselves.
        let stranger = |number: usize| Caller::stranger(format!("urn:{number}"), "");
        let callers = (0..2 * KEPT_MAX).map(stranger).chain([Caller::terminal()]);
        let written: usize = callers.map(|one| flood(&refusals, &one, 2)).sum();
        assert_eq!(written, KEPT_EACH_MAX + 1);
        assert!(refusals.is_first(&told("keys/a"), NOW), "strangers hid it");
        // One known caller, and all that there is room for: whoever comes now is told by name.
        flood(&refusals, &known("a"), 2 * KEPT_MAX);
        assert!(refusals.is_first(&told("keys/b"), NOW), "another caller hid it");
        for number in 0..2 * KEPT_MAX / KEPT_EACH_MAX {
            flood(&refusals, &known(&format!("of-many-{number}")), 2 * KEPT_EACH_MAX);
        }
        assert!(refusals.is_first(&alarm, NOW), "all of them hid an alarm");
        assert!(refusals.is_first(&told("keys/d"), NOW), "all of them hid a caller");
        assert!(!refusals.is_first(&told("keys/e"), NOW));
        let over = refusals.take_over(NOW, true);
        let by_name = over.iter().find(|draft| draft.caller == "b").expect("told by name");
        assert_eq!((by_name.resource.as_str(), by_name.detail["repeated"].as_str()), ("", "1"));
        assert!(refusals.kept().taken.is_empty() && refusals.kept().taken_by_known == 0);
    }

    #[test]
    fn an_alarm_that_finds_no_room_is_told_as_an_alarm_of_its_caller() {
        let refusals = Refusals::default();
        let alarm = |number: usize| {
            let mut draft = draft(&format!("keys/{number}"), Reason::BudgetSpent);
            draft.detail.insert("alarm".to_owned(), "pin_rate".to_owned());
            draft
        };
        for number in 0..KEPT_EACH_MAX {
            assert!(refusals.is_first(&alarm(number), NOW));
        }
        // No overflow without an alarm stands for one with it.
        flood(&refusals, &known("a"), 2 * KEPT_EACH_MAX);
        assert!(refusals.is_first(&alarm(KEPT_EACH_MAX), NOW));
        assert!(!refusals.is_first(&alarm(KEPT_EACH_MAX + 1), NOW));
        let over = refusals.take_over(NOW, true);
        let told = over.iter().find(|draft| draft.detail.contains_key("alarm")).expect("an alarm");
        let said = ["alarm", "overflow", "repeated"].map(|name| told.detail[name].as_str());
        assert_eq!((told.caller.as_str(), said), ("a", ["pin_rate", "true", "1"]));
    }

    #[test]
    fn what_could_not_be_written_is_the_first_of_its_kind_again() {
        let refusals = Refusals::default();
        let one = draft("keys/a", Reason::KeyNotFound);
        assert!(refusals.is_first(&one, NOW));
        refusals.take_back(&one);
        assert!(refusals.is_first(&one, NOW));
        assert!(!refusals.is_first(&one, NOW));
        // What was counted is not forgotten.
        refusals.take_back(&one);
        assert_eq!(refusals.take_over(NOW, true)[0].detail["repeated"], "1");
        flood(&refusals, &known("a"), KEPT_EACH_MAX);
        assert!(refusals.is_first(&one, NOW), "the first that overflows");
        refusals.take_back(&one);
        assert!(refusals.is_first(&one, NOW));
        refusals.take_over(NOW, true);
        assert!(refusals.kept().taken.is_empty());
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
