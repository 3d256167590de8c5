//! The tally: which rows the store must hold, folded into sixteen octets.
//!
//! A sealed row opens as nothing but itself, yet an older row of the same record is also itself,
//! and a row that was taken away says nothing at all. So every commit folds the rows that it writes
//! into a tally, which stands in the sealed head of the chain of events and changes with it:
//!
//! ```text
//! element = the first 16 octets of HMAC-SHA-256(key, kind, id, version, beginning of the row)
//! tally   = the XOR of the elements of all rows
//! ```
//!
//! A row begins with the generation and the nonce of its sealing. The key comes from the hash root
//! and the tally is told to nobody, so which rows would fold into the same can not be found
//! (multiset hashes of Clarke, Devadas, van Dijk, Gassend and Suh, 2003). When the vault is opened
//! all rows are folded again; while it is open, each that is read is held against its element. What
//! is set back as a whole, the head with it, is for a checkpoint outside to find.
//!
//! One process writes a store, so the elements in memory are those of the store.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::core::address;
use super::error::Error;
use super::hexadecimals;
use super::record::Kind;
use super::seal::{HashPurpose, Sealer};
use super::store::{Batch, Change, Expected, Row, Store, StoreError, Surveyed};
use crate::crypto::digest::framed;
use crate::crypto::hmac;

/// The kinds of rows that are not counted, each for a reason of its own.
const UNCOUNTED: [Kind; 9] = [
    // The head holds the tally, and the tree of the events.
    Kind::new("chain"),
    Kind::new("event"),
    // Public, and held against the tree.
    Kind::new("checkpoint"),
    // An older one gives the same numbers again, which the rows of the issued ones refuse.
    Kind::new("counter"),
    // Drawn once, when a store is begun: under another no row folds into what it did.
    Kind::new("hash_root"),
    // Written once, when a store is begun: without the one that was, no checkpoint verifies.
    Kind::new("log_key"),
    // Written to find out whether it can be, and read for nothing else.
    Kind::new("pulse"),
    // An answer that is forgotten, or known for longer: the call is judged as a new one.
    Kind::new("request"),
    // Says how the master key is kept, in clear, under a check of its own. An older one asks for a
    // master key that does not open the head.
    Kind::new("seal"),
];

/// Rows read at once when the store is surveyed.
const SURVEYED_MAX: usize = 1_000;

/// What one row adds to the tally.
pub(super) type Element = [u8; 16];

/// What all rows fold into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum(#[serde(with = "hexadecimals")] Element);

impl Sum {
    /// Folds an element in, or out again.
    fn fold(&mut self, element: Element) {
        for (octet, other) in self.0.iter_mut().zip(element) {
            *octet ^= other;
        }
    }

    /// Folds what a batch adds and takes away.
    pub(super) fn fold_all(&mut self, changes: Self) {
        self.fold(changes.0);
    }
}

/// What the store must hold in the place of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Is(Element),
    /// A commit is under way, or came to no known end: one or the other.
    Either(Option<Element>, Option<Element>),
}

/// The elements of the rows that the store must hold.
pub(super) struct Tally {
    key: Zeroizing<[u8; 32]>,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    held: HashMap<Element, Held>,
    /// Rows of commits that came to no known end.
    in_doubt: Vec<(Kind, String)>,
}

/// What a batch does to the rows that are counted.
pub(super) struct Planned(Vec<PlannedRow>);

impl Planned {
    /// What all of it folds into.
    pub(super) fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for element in self.0.iter().flat_map(|row| row.before.into_iter().chain(row.after)) {
            sum.fold(element);
        }
        sum
    }
}

struct PlannedRow {
    place: Element,
    kind: Kind,
    id: String,
    before: Option<Element>,
    after: Option<Element>,
}

impl Tally {
    pub(super) fn new(sealer: &Sealer) -> Self {
        Self { key: sealer.hash_key(HashPurpose::Tally), rows: Mutex::default() }
    }

    /// Folds every row of a store, and remembers each.
    pub(super) async fn survey(&self, store: &dyn Store) -> Result<Sum, StoreError> {
        let mut sum = Sum::default();
        let mut after = None;
        loop {
            let found = store.survey(&UNCOUNTED, after, SURVEYED_MAX).await?;
            let mut rows = self.rows();
            for row in &found {
                let element = self.element_of(row);
                sum.fold(element);
                rows.held.insert(self.place_of(&row.kind, &row.id), Held::Is(element));
            }
            let Some(last) = found.into_iter().next_back() else { return Ok(sum) };
            after = Some((last.kind, last.id));
        }
    }

    /// Whether a row, or that there is none, is what was written last.
    pub(super) fn admits(&self, kind: Kind, id: &str, row: Option<&Row>) -> bool {
        if UNCOUNTED.contains(&kind) {
            return true;
        }
        let found =
            row.map(|row| self.element_of(&Surveyed::of(kind, id, row.version, &row.sealed)));
        let place = self.place_of(kind.as_str(), id);
        match self.rows().held.get(&place) {
            None => found.is_none(),
            Some(Held::Is(element)) => found == Some(*element),
            Some(Held::Either(before, after)) => found == *before || found == *after,
        }
    }

    /// What a batch will do to the tally; none if what it expects is not so. From here on until
    /// [`Tally::settle`] its rows may be as before or as after.
    pub(super) fn plan(&self, batch: &Batch) -> Option<Planned> {
        let mut rows = self.rows();
        let mut planned = Vec::new();
        let counted = batch.iter().filter(|write| !UNCOUNTED.contains(&write.kind));
        for write in counted {
            let place = self.place_of(write.kind.as_str(), &write.id);
            let before = match rows.held.get(&place) {
                None => None,
                Some(Held::Is(element)) => Some(*element),
                // Another unit of this commit writes it: the store tells whether the check holds.
                Some(Held::Either(..)) if write.change == Change::Check => continue,
                // Doubts are settled before a commit, and rows of one commit are different ones.
                Some(Held::Either(..)) => return None,
            };
            if before.is_some() != write.expected.is_present() {
                return None;
            }
            let element = |version, sealed: &[u8]| {
                Some(self.element_of(&Surveyed::of(write.kind, &write.id, version, sealed)))
            };
            let after = match (&write.change, write.expected) {
                (Change::Check, _) => continue,
                (Change::Delete, _) => None,
                (Change::Put { sealed, .. }, expected) => element(expected.next_version(), sealed),
                // What is sealed anew is what was written last, and nothing older.
                (Change::Reseal { from, to }, Expected::Version(version)) => {
                    if element(version, from) != before {
                        return None;
                    }
                    element(version, to)
                }
                (Change::Reseal { .. }, Expected::Absent) => return None,
            };
            planned.push(PlannedRow {
                place,
                kind: write.kind,
                id: write.id.clone(),
                before,
                after,
            });
        }
        for row in &planned {
            rows.held.insert(row.place, Held::Either(row.before, row.after));
        }
        Some(Planned(planned))
    }

    /// A commit came to an end that is known.
    pub(super) fn settle(&self, planned: &Planned, is_applied: bool) {
        let mut rows = self.rows();
        for row in &planned.0 {
            let now = if is_applied { row.after } else { row.before };
            rows.is_now(row.place, now);
        }
    }

    /// A commit came to no known end: its rows are asked for before the next.
    pub(super) fn doubt(&self, planned: Planned) {
        let rows_of_commit = planned.0.into_iter().map(|row| (row.kind, row.id));
        self.rows().in_doubt.extend(rows_of_commit);
    }

    /// Asks the store what became of the rows in doubt.
    pub(super) async fn settle_doubts(&self, store: &dyn Store) -> Result<(), Error> {
        let in_doubt = self.rows().in_doubt.clone();
        for (kind, id) in in_doubt {
            let row = store.get(kind, &id).await?;
            if !self.admits(kind, &id, row.as_ref()) {
                return Err(altered(kind, &id));
            }
            let now =
                row.map(|row| self.element_of(&Surveyed::of(kind, &id, row.version, &row.sealed)));
            let place = self.place_of(kind.as_str(), &id);
            self.rows().is_now(place, now);
        }
        self.rows().in_doubt.clear();
        Ok(())
    }

    /// The octets that stand for the place of a row in memory.
    fn place_of(&self, kind: &str, id: &str) -> Element {
        self.fold(&[kind.as_bytes(), id.as_bytes()])
    }

    fn element_of(&self, row: &Surveyed) -> Element {
        let version = row.version.to_be_bytes();
        self.fold(&[row.kind.as_bytes(), row.id.as_bytes(), &version, &row.beginning])
    }

    fn fold(&self, parts: &[&[u8]]) -> Element {
        first_half(hmac::hmac_sha256(self.key.as_slice(), &framed(parts)))
    }

    /// Rows are changed whole, so what a panicking thread leaves behind is still consistent.
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn is_now(&mut self, place: Element, element: Option<Element>) {
        match element {
            Some(element) => self.held.insert(place, Held::Is(element)),
            None => self.held.remove(&place),
        };
    }
}

/// A row was changed, set back or taken away by somebody else.
pub(super) fn altered(kind: Kind, id: &str) -> Error {
    Error::incident("a row is not the one that was written last", &address(kind, id))
}

fn first_half(hash: [u8; 32]) -> Element {
    let (half, _) = hash.split_first_chunk().expect("half of 32 octets are 16");
    *half
}

#[cfg(test)]
mod tests {
    use super::super::store::{Expected, Write};
    use super::super::testing::{Bench, Fault, Note, note, opening};
    use super::super::{Action, OpenError, Reason, Record, Vault, Versioned};
    use super::*;

    async fn put(bench: &Bench, id: &str, text: &str) {
        let version = bench.vault.get::<Note>(id).await.unwrap().and_then(|note| note.version);
        let mut work = bench.begin(Action::CreateKey).await;
        work.put(&Versioned { version, record: note(id, text) }).unwrap();
        work.commit().await.unwrap();
    }

    async fn delete(bench: &Bench, id: &str) {
        let note = bench.vault.get::<Note>(id).await.unwrap().expect("it is there");
        let mut work = bench.begin(Action::SetKeyState).await;
        work.delete(&note);
        work.commit().await.unwrap();
    }

    async fn row(bench: &Bench, id: &str) -> Option<Row> {
        bench.store.inner.get(Note::KIND, id).await.unwrap()
    }

    /// Puts another row, or none, in the place of one, as somebody with the disk in hand does.
    async fn exchange(bench: &Bench, id: &str, other: Option<Row>) {
        let write =
            |expected, change| Write { kind: Note::KIND, id: id.to_owned(), expected, change };
        let mut batch = Vec::new();
        if let Some(found) = row(bench, id).await {
            batch.push(write(Expected::Version(found.version), Change::Delete));
        }
        if let Some(other) = other {
            let change = |row: &Row| Change::Put { index: None, sealed: row.sealed.clone() };
            batch.push(write(Expected::Absent, change(&other)));
            // The store counts the versions, so it is led up to the one that is wanted.
            for version in 1..other.version {
                batch.push(write(Expected::Version(version), change(&other)));
            }
        }
        let done = bench.store.inner.commit(vec![batch], Box::new(|_| Vec::new())).await.unwrap();
        assert!(done.iter().all(|outcome| outcome.is_applied()));
    }

    /// The row is refused while the service runs, and the store when it starts anew.
    async fn expect_found(bench: Bench, what: &str) {
        let read = bench.vault.get::<Note>("a").await.map_err(|error| error.reason());
        assert_eq!(read.err(), Some(Reason::Internal), "{what}");
        let mut work = bench.begin(Action::CreateKey).await;
        work.put(&Versioned::absent(note("c", "another"))).unwrap();
        work.commit().await.unwrap();
        let Bench { vault, store, clock } = bench;
        vault.close().await;
        let opened = Vault::open(opening(store, clock)).await;
        assert_eq!(opened.err(), Some(OpenError::StoreAltered), "{what}");
    }

    #[tokio::test]
    async fn a_row_that_is_set_back_taken_away_or_brought_back_is_found() {
        let bench = Bench::new().await;
        put(&bench, "a", "one").await;
        let first = row(&bench, "a").await;
        put(&bench, "a", "two").await;
        exchange(&bench, "a", first).await;
        expect_found(bench, "set back").await;

        let bench = Bench::new().await;
        put(&bench, "a", "one").await;
        exchange(&bench, "a", None).await;
        expect_found(bench, "taken away").await;

        let bench = Bench::new().await;
        put(&bench, "a", "one").await;
        let gone = row(&bench, "a").await;
        delete(&bench, "a").await;
        exchange(&bench, "a", gone).await;
        expect_found(bench, "brought back").await;

        // Of the same version, from before the record was deleted and made again.
        let bench = Bench::new().await;
        put(&bench, "a", "one").await;
        put(&bench, "a", "two").await;
        let before = row(&bench, "a").await;
        delete(&bench, "a").await;
        put(&bench, "a", "three").await;
        put(&bench, "a", "four").await;
        assert_eq!(row(&bench, "a").await.map(|row| row.version), Some(2));
        exchange(&bench, "a", before).await;
        expect_found(bench, "of an earlier life").await;
    }

    #[tokio::test]
    async fn what_was_taken_away_is_not_written_again() {
        let bench = Bench::new().await;
        put(&bench, "a", "one").await;
        exchange(&bench, "a", None).await;
        let mut work = bench.begin(Action::CreateKey).await;
        work.put(&Versioned::absent(note("a", "anew"))).unwrap();
        assert_eq!(work.commit().await, Err(Error::Conflict));
        assert_eq!(row(&bench, "a").await, None);
    }

    #[tokio::test]
    async fn rows_without_their_head_are_not_begun_anew() {
        let bench = Bench::new().await;
        put(&bench, "a", "one").await;
        let Bench { vault, store, clock } = bench;
        vault.close().await;
        for kind in ["chain", "event", "seal", "hash_root", "log_key", "checkpoint"].map(Kind::new)
        {
            let query = super::super::store::Query {
                kind,
                index: super::super::store::IndexFilter::Any,
                after: None,
                limit: 100,
            };
            let rows = store.inner.list(query).await.unwrap();
            let gone = rows.into_iter().map(|row| Write {
                kind,
                expected: Expected::Version(row.version),
                id: row.id,
                change: Change::Delete,
            });
            let gone = gone.collect();
            store.inner.commit(vec![gone], Box::new(|_| Vec::new())).await.unwrap();
        }
        let opened = Vault::open(opening(store, clock)).await;
        assert_eq!(opened.err(), Some(OpenError::StoreAltered));
    }

    #[tokio::test]
    async fn commits_that_come_to_no_known_end_leave_a_store_that_opens() {
        let mut bench = Bench::new().await;
        for round in 0..12 {
            put(&bench, "a", "before").await;
            let version = bench.vault.get::<Note>("a").await.unwrap().unwrap().version;
            bench.store.fail(if round % 2 == 0 { Fault::Before } else { Fault::After });
            let mut work = bench.begin(Action::CreateKey).await;
            work.put(&Versioned { version, record: note("a", "in doubt") }).unwrap();
            work.put(&Versioned::absent(note(&format!("new-{round}"), "in doubt"))).unwrap();
            assert_eq!(work.commit().await, Err(Error::Unavailable));
            bench.store.fail(Fault::None);
            let text = bench.vault.get::<Note>("a").await.unwrap().unwrap().record.text;
            assert_eq!(text, if round % 2 == 0 { "before" } else { "in doubt" });
            if round % 3 == 0 {
                // What is in doubt is asked for; somebody who writes now is found.
                put(&bench, "b", "after").await;
            }
            if round % 4 == 0 {
                bench = bench.restart().await;
            }
        }
        bench.restart().await;
    }

    #[test]
    fn a_sum_forgets_what_is_folded_twice_and_minds_no_order() {
        let folded = |elements: &[u8]| {
            let mut sum = Sum::default();
            for element in elements {
                sum.fold([*element; 16]);
            }
            sum
        };
        let sum = folded(&[1, 2, 4, 2]);
        assert_eq!(sum, folded(&[4, 1]));
        let text = serde_json::to_string(&sum).unwrap();
        assert_eq!(text, format!("\"{}\"", "05".repeat(16)));
        assert_eq!(serde_json::from_str::<Sum>(&text).unwrap(), sum);
        for wrong in ["\"05\"", "\"zz\"", "7"] {
            assert!(serde_json::from_str::<Sum>(wrong).is_err(), "{wrong}");
        }
    }
}
