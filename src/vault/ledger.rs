//! The KSN ledger of one terminal: which transaction counters are spent, for which purpose.
//!
//! Counters are counted by *rank*, the number of valid counters not above them, for a genuine
//! terminal skips values with too many one bits. Per purpose there is a head (the greatest accepted
//! rank), a window of [`WINDOW`] ranks up to it, and a bounded list of ranks that were spent ahead
//! of it. The *top* is the greatest rank that anything the terminal sent has proven.
//!
//! ```text
//! too old     rank <= top - WINDOW
//! spent       its bit in the window is set, or it is in the list
//! too far     rank > top + JUMP_MAX, or beyond top + WINDOW while FAR_MAX such ranks are spent
//! fresh       otherwise
//! ```
//!
//! An accepted input of the terminal moves the head; a rejected one spends its rank and moves
//! nothing, so nobody without the terminal's keys can push its counter. What is made *for* the
//! terminal proves nothing: it is spent ahead of the head, and its head follows the top, never
//! leads it. A terminal that was injected elsewhere may begin anywhere, so rejected inputs before
//! its first accepted one have a wider bound; when that is full a verified MAC, which no rejected
//! input hinders, tells where it is. See DESIGN of the project: a counter accepts one input per
//! purpose, and the identical input within [`REPEAT_MS`] is computed again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::record::{Kind, Record};

/// What a counter is spent for: the key that is derived from it. TDES keys that serve both ways
/// count as requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A PIN block of the terminal.
    Pin,
    /// A MAC that the terminal made.
    MacRequest,
    /// A MAC for the terminal.
    MacResponse,
    /// Data of the terminal.
    DataRequest,
    /// Data for the terminal.
    DataResponse,
}

impl Purpose {
    /// Whether a call spends the counter whatever comes of it. Only a MAC to be verified does not:
    /// a forged one must not burn the counter of a genuine one.
    #[must_use]
    pub const fn always_spends(self) -> bool {
        !matches!(self, Self::MacRequest)
    }

    /// Whether an accepted input proves that the terminal has come this far.
    const fn is_proof(self) -> bool {
        matches!(self, Self::Pin | Self::MacRequest | Self::DataRequest)
    }

    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::MacRequest => "mac_request",
            Self::MacResponse => "mac_response",
            Self::DataRequest => "data_request",
            Self::DataResponse => "data_response",
        }
    }
}

/// Ranks behind the top that may still be spent: late store-and-forward transactions.
pub const WINDOW: u64 = 128;

/// How far ahead of the top a rank may be: a terminal that was out of touch for long.
pub const JUMP_MAX: u64 = 10_000;

/// How many ranks beyond `top + WINDOW` may be spent by what proves nothing.
pub const FAR_MAX: usize = 128;

/// The same bound for inputs of a terminal that may be anywhere, until one is accepted: at 100
/// rejected inputs an hour, as its budget lets through, it takes ten hours to fill.
const FAR_FIRST_MAX: usize = 1_024;

/// Inputs remembered per purpose, newest kept.
pub(super) const INPUTS_MAX: usize = 32;

/// How long an identical input is computed again.
pub const REPEAT_MS: u64 = 5 * 60 * 1_000;

/// A keyed hash of an input, as long as it needs to be to tell inputs apart.
pub(super) type InputHash = [u8; 16];

/// How a rank stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not spent.
    Fresh,
    /// Spent by this very input a short while ago.
    Repeat,
    /// Spent. `other_input` when it is known that another input did it.
    Spent { other_input: bool },
    /// Beyond the jump limit.
    TooFar,
    /// Behind the window.
    TooOld,
}

/// The ledger of one initial key of one base derivation key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    id: String,
    entries: BTreeMap<Purpose, Entry>,
}

impl Record for Ledger {
    const KIND: Kind = Kind::new("ledger");

    fn id(&self) -> String {
        self.id.clone()
    }
}

impl Ledger {
    pub(super) const fn new(id: String) -> Self {
        Self { id, entries: BTreeMap::new() }
    }

    /// Looks how a rank stands. With `first_anywhere` the counter may be any until one proves where
    /// the terminal is.
    pub(super) fn look(&self, ask: Ask<'_>) -> Standing {
        let top = self.top();
        if ask.rank.saturating_add(WINDOW) <= top {
            return Standing::TooOld;
        }
        let none = Entry::default();
        let entry = self.entries.get(&ask.purpose).unwrap_or(&none);
        if entry.is_spent(ask.rank) {
            return entry.compare(ask);
        }
        let free = ask.first_anywhere && top == 0;
        let jumps = !free && ask.rank.saturating_sub(top) > JUMP_MAX;
        let is_far = ask.rank > top.saturating_add(WINDOW);
        let far_max = if free && ask.purpose.is_proof() { FAR_FIRST_MAX } else { FAR_MAX };
        if jumps || (is_far && entry.far(top) >= far_max) {
            return Standing::TooFar;
        }
        Standing::Fresh
    }

    /// Spends a rank that is fresh; an accepted one moves the head up to it, if it is proof or does
    /// not pass what is proven.
    pub(super) fn spend(&mut self, ask: Ask<'_>, accepted: bool) {
        let before = self.top();
        let moves = accepted && (ask.purpose.is_proof() || ask.rank <= before);
        let entry = self.entries.entry(ask.purpose).or_default();
        if moves && ask.rank > entry.head {
            entry.advance_to(ask.rank);
        } else if ask.rank <= entry.head {
            entry.set_bit(ask.rank);
        } else {
            entry.ahead.push(ask.rank);
        }
        entry.inputs.push(Input {
            rank: ask.rank,
            hash: data_encoding::HEXLOWER.encode(ask.input),
            time: ask.now,
        });
        let surplus = entry.inputs.len().saturating_sub(INPUTS_MAX);
        entry.inputs.drain(..surplus);
        // What lies behind the window is refused as too old, so the list need not name it.
        let top = before.max(entry.head);
        entry.ahead.retain(|rank| rank.saturating_add(WINDOW) > top);
    }

    /// The greatest rank proven by what the terminal sent.
    fn top(&self) -> u64 {
        let proofs = self.entries.iter().filter(|(purpose, _)| purpose.is_proof());
        proofs.map(|(_, entry)| entry.head).max().unwrap_or(0)
    }
}

/// A question about one rank.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) purpose: Purpose,
    pub(super) rank: u64,
    pub(super) input: &'a InputHash,
    pub(super) now: UnixMillis,
    pub(super) first_anywhere: bool,
}

/// What is spent for one purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The greatest accepted rank, not above the top; 0 before the first.
    head: u64,
    /// Bit i of the 128 (low half first) says that rank `head - i` is spent.
    window: [u64; 2],
    /// Ranks above the head that are spent: by rejected inputs, or for the terminal.
    ahead: Vec<u64>,
    /// What spent the last ranks, oldest first.
    inputs: Vec<Input>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    rank: u64,
    hash: String,
    time: UnixMillis,
}

impl Entry {
    fn is_spent(&self, rank: u64) -> bool {
        if rank > self.head {
            return self.ahead.contains(&rank);
        }
        let behind = self.head - rank;
        behind >= WINDOW || self.bits() >> behind & 1 == 1
    }

    fn compare(&self, ask: Ask<'_>) -> Standing {
        let hash = data_encoding::HEXLOWER.encode(ask.input);
        match self.inputs.iter().rev().find(|input| input.rank == ask.rank) {
            Some(input) if input.hash != hash => Standing::Spent { other_input: true },
            Some(input) if ask.now.since_ms(input.time) <= REPEAT_MS => Standing::Repeat,
            Some(_) | None => Standing::Spent { other_input: false },
        }
    }

    fn far(&self, top: u64) -> usize {
        let edge = top.saturating_add(WINDOW);
        self.ahead.iter().filter(|rank| **rank > edge).count()
    }

    fn advance_to(&mut self, rank: u64) {
        let distance = rank - self.head;
        let shifted = if distance >= WINDOW { 0 } else { self.bits() << distance };
        self.head = rank;
        self.set_bits(shifted | 1);
        for passed in std::mem::take(&mut self.ahead) {
            if passed > rank {
                self.ahead.push(passed);
            } else {
                self.set_bit(passed);
            }
        }
    }

    /// Marks a rank not above the head; behind the window there is nothing to mark.
    fn set_bit(&mut self, rank: u64) {
        let behind = self.head - rank;
        if behind < WINDOW {
            self.set_bits(self.bits() | 1 << behind);
        }
    }

    fn bits(&self) -> u128 {
        u128::from(self.window[1]) << 64 | u128::from(self.window[0])
    }

    fn set_bits(&mut self, bits: u128) {
        let half = u128::from(u64::MAX);
        let low = u64::try_from(bits & half).expect("masked to 64 bits");
        let high = u64::try_from(bits >> 64).expect("128 less 64 bits");
        self.window = [low, high];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(purpose: Purpose, rank: u64, input: &InputHash, now: u64) -> Ask<'_> {
        Ask { purpose, rank, input, now: UnixMillis(now), first_anywhere: false }
    }

    /// The reference: every spent rank for ever, and the heads.
    #[derive(Default)]
    struct Model {
        heads: BTreeMap<Purpose, u64>,
        spent: BTreeMap<(Purpose, u64), (InputHash, u64)>,
    }

    impl Model {
        fn top(&self) -> u64 {
            let proves = |purpose: &Purpose| matches!(purpose, Purpose::Pin | Purpose::MacRequest);
            self.heads.iter().filter(|(p, _)| proves(p)).map(|(_, h)| *h).max().unwrap_or(0)
        }

        fn look(&self, purpose: Purpose, rank: u64, input: InputHash, now: u64) -> Standing {
            let top = self.top();
            if rank + WINDOW <= top {
                return Standing::TooOld;
            }
            if let Some((first, time)) = self.spent.get(&(purpose, rank)) {
                return match (*first == input, now - time <= REPEAT_MS) {
                    (false, _) => Standing::Spent { other_input: true },
                    (true, true) => Standing::Repeat,
                    (true, false) => Standing::Spent { other_input: false },
                };
            }
            if rank > top + JUMP_MAX { Standing::TooFar } else { Standing::Fresh }
        }
    }

    fn purposes() -> impl Strategy<Value = Purpose> {
        prop_oneof![Just(Purpose::Pin), Just(Purpose::MacRequest), Just(Purpose::MacResponse)]
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(
            steps in proptest::collection::vec(
                (purposes(), 0_u64..400, any::<bool>(), 0_u8..3, 0_u64..120_000), 1..120)
        ) {
            let mut ledger = Ledger::new("x".into());
            let mut model = Model::default();
            let mut now = 0;
            for (purpose, offset, accepted, input, wait) in steps {
                now += wait;
                let rank = (model.top() + offset).saturating_sub(200) + 1;
                let input = [input; 16];
                let expected = model.look(purpose, rank, input, now);
                let found = ledger.look(ask(purpose, rank, &input, now));
                // Only the newest inputs are remembered: an older one is spent, no more is known.
                let forgotten = found == Standing::Spent { other_input: false }
                    && matches!(expected, Standing::Spent { .. } | Standing::Repeat);
                prop_assert!(found == expected || forgotten, "{found:?} {expected:?}");
                if found == Standing::Fresh {
                    ledger.spend(ask(purpose, rank, &input, now), accepted);
                    model.spent.insert((purpose, rank), (input, now));
                    let head = model.heads.entry(purpose).or_insert(0);
                    if accepted {
                        *head = (*head).max(rank);
                    }
                }
                let stored = serde_json::to_vec(&ledger).unwrap();
                prop_assert_eq!(&serde_json::from_slice::<Ledger>(&stored).unwrap(), &ledger);
                prop_assert_eq!(ledger.top(), model.top());
            }
        }

        /// Whoever may make responses can make them for any counter, but not move the terminal's
        /// place: whatever it sends next is taken, and can be answered.
        #[test]
        fn what_is_made_for_a_terminal_moves_nothing(
            proven in 0_u64..2_000_000,
            responses in proptest::collection::vec((0_u64..3_000_000, any::<bool>()), 0..300),
            next in 1_u64..WINDOW,
        ) {
            let mut ledger = Ledger::new("x".into());
            let first = |purpose, rank| {
                Ask { first_anywhere: true, ..ask(purpose, rank, &[1; 16], 0) }
            };
            if proven > 0 {
                ledger.spend(first(Purpose::MacRequest, proven), true);
            }
            for (rank, accepted) in responses {
                if ledger.look(first(Purpose::MacResponse, rank)) == Standing::Fresh {
                    ledger.spend(first(Purpose::MacResponse, rank), accepted);
                }
            }
            prop_assert_eq!(ledger.top(), proven);
            prop_assert!(ledger.entries.values().all(|entry| entry.ahead.len() <= 384));
            let request = ask(Purpose::MacRequest, proven + next, &[2; 16], 0);
            prop_assert_eq!(ledger.look(request), Standing::Fresh);
            ledger.spend(request, true);
            // Not too old and not too far; spent it may be, if it was among the responses.
            let response = ledger.look(ask(Purpose::MacResponse, proven + next, &[1; 16], 0));
            prop_assert!(matches!(response, Standing::Fresh | Standing::Repeat
                | Standing::Spent { .. }), "{response:?}");
        }
    }

    #[test]
    fn a_rejected_pin_never_moves_the_window() {
        let mut ledger = Ledger::new("x".into());
        ledger.spend(ask(Purpose::Pin, 1, &[1; 16], 0), true);
        for rank in 2..=40 {
            assert_eq!(ledger.look(ask(Purpose::Pin, rank, &[2; 16], 0)), Standing::Fresh);
            ledger.spend(ask(Purpose::Pin, rank, &[2; 16], 0), false);
        }
        assert_eq!(ledger.top(), 1);
        // The genuine terminal goes on, and what was spent ahead stays spent when passed.
        ledger.spend(ask(Purpose::Pin, 41, &[3; 16], 0), true);
        for rank in 1..=41 {
            let standing = ledger.look(ask(Purpose::Pin, rank, &[9; 16], 0));
            assert!(matches!(standing, Standing::Spent { .. }), "{rank}: {standing:?}");
        }
        assert!(ledger.entries[&Purpose::Pin].ahead.is_empty());
    }

    #[test]
    fn ranks_far_ahead_are_bounded_and_near_ones_stay_usable() {
        let mut ledger = Ledger::new("x".into());
        for rank in 0..1_000 {
            let ask = ask(Purpose::Pin, 200 + rank, &[2; 16], 0);
            if ledger.look(ask) == Standing::Fresh {
                ledger.spend(ask, false);
            }
        }
        assert_eq!(ledger.entries[&Purpose::Pin].ahead.len(), FAR_MAX);
        assert_eq!(ledger.look(ask(Purpose::Pin, 5_000, &[3; 16], 0)), Standing::TooFar);
        assert_eq!(ledger.look(ask(Purpose::Pin, 128, &[3; 16], 0)), Standing::Fresh);
        ledger.spend(ask(Purpose::MacRequest, 9_000, &[4; 16], 0), true);
        // A verified MAC proves where the terminal is; old news are dropped.
        assert_eq!(ledger.look(ask(Purpose::Pin, 9_000, &[3; 16], 0)), Standing::Fresh);
        ledger.spend(ask(Purpose::Pin, 9_000, &[3; 16], 0), false);
        assert_eq!(ledger.entries[&Purpose::Pin].ahead, [9_000]);
    }

    #[test]
    fn rejected_inputs_do_not_hide_where_a_terminal_begins() {
        let mut ledger = Ledger::new("x".into());
        let at = |purpose, rank| Ask { first_anywhere: true, ..ask(purpose, rank, &[1; 16], 0) };
        let reject = |ledger: &mut Ledger, ranks: std::ops::Range<u64>| {
            for rank in ranks {
                if ledger.look(at(Purpose::Pin, rank)) == Standing::Fresh {
                    ledger.spend(at(Purpose::Pin, rank), false);
                }
            }
        };
        reject(&mut ledger, 200..200 + 1_000);
        let first = at(Purpose::Pin, 50_000);
        assert_eq!(ledger.look(first), Standing::Fresh);
        let mut begun = ledger.clone();
        begun.spend(first, true);
        assert!(begun.entries[&Purpose::Pin].ahead.is_empty(), "what it passed is forgotten");
        // The list is bounded, and when it is full a MAC tells.
        reject(&mut ledger, 2_000..4_000);
        assert_eq!(ledger.entries[&Purpose::Pin].ahead.len(), FAR_FIRST_MAX);
        assert_eq!(ledger.look(first), Standing::TooFar);
        assert_eq!(ledger.look(at(Purpose::MacRequest, 50_000)), Standing::Fresh);
        ledger.spend(at(Purpose::MacRequest, 50_000), true);
        assert_eq!(ledger.look(first), Standing::Fresh);
    }

    #[test]
    fn the_jump_limit_is_counted_from_the_top() {
        let mut ledger = Ledger::new("x".into());
        let at = |rank| ask(Purpose::MacRequest, rank, &[1; 16], 0);
        assert_eq!(ledger.look(at(JUMP_MAX)), Standing::Fresh);
        assert_eq!(ledger.look(at(JUMP_MAX + 1)), Standing::TooFar);
        let anywhere = Ask { first_anywhere: true, ..at(1_000_000) };
        assert_eq!(ledger.look(anywhere), Standing::Fresh);
        ledger.spend(anywhere, true);
        let next = Ask { first_anywhere: true, ..at(1_000_001 + JUMP_MAX) };
        assert_eq!(ledger.look(next), Standing::TooFar);
    }

    #[test]
    fn a_response_follows_what_is_proven() {
        let mut ledger = Ledger::new("x".into());
        let response =
            |rank| Ask { first_anywhere: true, ..ask(Purpose::MacResponse, rank, &[1; 16], 0) };
        // Where a terminal stands, only what it sent can tell.
        assert_eq!(ledger.look(response(50_000)), Standing::Fresh);
        ledger.spend(response(50_000), true);
        assert_eq!(ledger.top(), 0);
        ledger.spend(ask(Purpose::MacRequest, 1_000, &[1; 16], 0), true);
        // A response can push neither the terminal's counters nor those of other responses.
        ledger.spend(response(9_000), true);
        ledger.spend(response(1_100), true);
        for rank in [1_000, 1_001] {
            assert_eq!(ledger.look(response(rank)), Standing::Fresh);
            ledger.spend(response(rank), true);
        }
        assert_eq!(ledger.entries[&Purpose::MacResponse].head, 1_000);
        assert_eq!(ledger.look(ask(Purpose::MacRequest, 1_001, &[1; 16], 0)), Standing::Fresh);
        assert_eq!(ledger.look(response(9_001 + JUMP_MAX)), Standing::TooFar);
        // What was spent ahead stays spent when the terminal has come there.
        ledger.spend(ask(Purpose::MacRequest, 1_102, &[1; 16], 0), true);
        ledger.spend(response(1_102), true);
        for rank in [1_000, 1_001, 1_100, 1_102, 9_000] {
            let other = Ask { input: &[9; 16], ..response(rank) };
            assert!(matches!(ledger.look(other), Standing::Spent { .. }), "{rank}");
        }
    }

    #[test]
    fn an_identical_input_repeats_for_five_minutes() {
        let mut ledger = Ledger::new("x".into());
        ledger.spend(ask(Purpose::Pin, 5, &[1; 16], 1_000), false);
        let look = |input, now| ledger.look(ask(Purpose::Pin, 5, input, now));
        assert_eq!(look(&[1; 16], 1_000 + REPEAT_MS), Standing::Repeat);
        assert_eq!(look(&[1; 16], 1_001 + REPEAT_MS), Standing::Spent { other_input: false });
        assert_eq!(look(&[2; 16], 1_001), Standing::Spent { other_input: true });
    }
}
