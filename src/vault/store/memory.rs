//! A store in memory, for tests and for the contract: nothing survives it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    Batch, BoxFuture, Change, Expected, LIST_LIMIT_MAX, Outcome, Query, Row, Store, StoreError,
    Surveyed, Tail, Write,
};
use crate::vault::record::Kind;

/// Rows in memory under one lock, which is never held across an await.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: Mutex<Rows>,
}

/// Rows in the order of kind and id.
type Rows = BTreeMap<(Kind, String), Row>;

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows are replaced whole, so what a panicking thread leaves behind is still consistent.
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_now(&self, batches: &[Batch], tail: Tail) -> Result<Vec<Outcome>, StoreError> {
        let mut rows = self.rows();
        let mut undo = Vec::new();
        let outcomes: Vec<Outcome> =
            batches.iter().map(|batch| apply_batch(&mut rows, batch, &mut undo)).collect();
        let applied: Vec<bool> = outcomes.iter().map(|outcome| outcome.is_applied()).collect();
        if apply_batch(&mut rows, &tail(&applied), &mut undo).is_applied() {
            return Ok(outcomes);
        }
        roll_back(&mut rows, &mut undo, 0);
        Err(StoreError::Unavailable)
    }
}

impl Store for MemoryStore {
    fn get(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        let row = self.rows().get(&(kind, id.to_owned())).cloned();
        Box::pin(async move { Ok(row) })
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        let start = match query.after {
            Some(id) => Bound::Excluded((query.kind, id)),
            None => Bound::Included((query.kind, String::new())),
        };
        let found = self
            .rows()
            .range((start, Bound::Unbounded))
            .take_while(|((kind, _), _)| *kind == query.kind)
            .filter(|(_, row)| query.index.admits(row.index.as_deref()))
            .take(query.limit.min(LIST_LIMIT_MAX))
            .map(|(_, row)| row.clone())
            .collect();
        Box::pin(async move { Ok(found) })
    }

    fn survey(
        &self,
        except: &'static [Kind],
        after: Option<(String, String)>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Surveyed>, StoreError>> {
        let is_after = |kind: Kind, id: &str| match &after {
            Some((last_kind, last)) => (kind.as_str(), id) > (last_kind.as_str(), last.as_str()),
            None => true,
        };
        let found = self
            .rows()
            .iter()
            .filter(|((kind, id), _)| !except.contains(kind) && is_after(*kind, id))
            .take(limit.min(LIST_LIMIT_MAX))
            .map(|((kind, id), row)| Surveyed::of(*kind, id, row.version, &row.sealed))
            .collect();
        Box::pin(async move { Ok(found) })
    }

    fn commit(
        &self,
        batches: Vec<Batch>,
        tail: Tail,
    ) -> BoxFuture<'_, Result<Vec<Outcome>, StoreError>> {
        Box::pin(async move { self.commit_now(&batches, tail) })
    }
}

/// What a row was before a write, newest last.
type Undo = Vec<((Kind, String), Option<Row>)>;

fn roll_back(rows: &mut Rows, undo: &mut Undo, mark: usize) {
    for (key, before) in undo.drain(mark..).rev() {
        match before {
            Some(row) => rows.insert(key, row),
            None => rows.remove(&key),
        };
    }
}

/// Applies a batch whole, or undoes what it had begun.
fn apply_batch(rows: &mut Rows, batch: &[Write], undo: &mut Undo) -> Outcome {
    let mark = undo.len();
    for (place, write) in batch.iter().enumerate() {
        let key = (write.kind, write.id.clone());
        let before = rows.get(&key).cloned();
        if !holds(write.expected, before.as_ref()) {
            roll_back(rows, undo, mark);
            return Outcome::Conflict { write: place };
        }
        match &write.change {
            Change::Check => continue,
            Change::Delete => rows.remove(&key),
            Change::Reseal { from, to } => {
                let Some(row) = before.clone().filter(|row| row.sealed == *from) else {
                    roll_back(rows, undo, mark);
                    return Outcome::Conflict { write: place };
                };
                rows.insert(key.clone(), Row { sealed: to.clone(), ..row })
            }
            Change::Put { index, sealed } => rows.insert(
                key.clone(),
                Row {
                    id: write.id.clone(),
                    version: write.expected.next_version(),
                    index: index.clone(),
                    sealed: sealed.clone(),
                },
            ),
        };
        undo.push((key, before));
    }
    Outcome::Applied
}

fn holds(expected: Expected, row: Option<&Row>) -> bool {
    match (expected, row) {
        (Expected::Absent, None) => true,
        (Expected::Version(version), Some(row)) => row.version == version,
        (Expected::Absent, Some(_)) | (Expected::Version(_), None) => false,
    }
}
