//! Host commands: what each call does, from a request that is valid by construction to its result.

pub mod activation;
pub mod approvals;
pub mod census;
pub mod ceremony;
pub mod envelope;
mod error;
pub mod export_initial_key;
pub mod generate_mac;
mod initial_key;
mod ksn;
pub mod lookup_ksn;
mod mac_policy;
pub mod manage_keys;
pub mod manage_policy;
pub mod manage_trust;
pub mod read_audit;
pub mod read_keys;
pub mod read_status;
pub mod run;
pub mod seal;
mod slot_key;
#[cfg(test)]
mod testing;
mod transaction_key;
pub mod translate_pin;
pub mod verify_mac;
pub mod verify_mac_and_translate_pin;

use std::collections::VecDeque;
use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use zeroize::Zeroizing;

use crate::crypto::digest;
use crate::vault::{self, Action, Asked, Caller, HashPurpose, Record, Vault, Work};

pub use self::error::Error;
pub use self::ksn::{Direction, InitialKey, Ksn, MacKey};
pub use self::mac_policy::MacWorkingKey;
pub use self::slot_key::SlotKey;
pub use self::transaction_key::{DukptKey, WorkingKey};

/// How often a call is tried again by itself when another one changed the same record first.
const TRIES: u8 = 5;

/// A request's id and what it asks: the same id may ask only the same.
#[derive(Clone)]
pub struct RequestId {
    id: String,
    body: Zeroizing<Vec<u8>>,
    digest: [u8; 32],
}

impl RequestId {
    /// Takes an id, checked at the edge, the name of the rpc, and the serialized request as it was
    /// understood.
    #[must_use]
    pub fn new(id: String, method: &str, body: Vec<u8>) -> Self {
        let body = Zeroizing::new(body);
        let digest = digest::sha256(&[method.as_bytes(), &[0], &body]);
        Self { id, body, digest }
    }

    /// The id as the caller chose it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What officers look at and approve.
    fn asked(&self) -> Asked<'_> {
        Asked { request: &self.body, digest: &self.digest }
    }

    fn body_hash(&self, vault: &Vault) -> [u8; 32] {
        vault.keyed_hash(HashPurpose::RequestBody, &[&self.digest])
    }
}

/// Reads for a caller. Nothing is shown before the audit log has it who looked at what.
async fn audited<T>(
    vault: &Vault,
    caller: &Caller,
    action: Action,
    resource: impl Into<String>,
    read: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let work = vault.begin(caller, action, resource).await?;
    match read.await {
        Ok(found) => {
            work.commit().await?;
            Ok(found)
        }
        Err(error) => Err(give_up(work, error).await),
    }
}

/// Gives an answer once more; this too is told in the audit log.
async fn repeated<T>(mut work: Work, answer: T) -> Result<T, Error> {
    work.detail("repeated", "true");
    work.commit().await?;
    Ok(answer)
}

/// Finds the answer that the same request was given before; that its id came with another body is
/// told in the audit log.
async fn recall<T: DeserializeOwned>(
    vault: &Vault,
    caller: &Caller,
    action: Action,
    request: Option<&RequestId>,
) -> Result<Option<T>, Error> {
    let Some(request) = request else { return Ok(None) };
    let body_hash = request.body_hash(vault);
    let id = vault::RequestId { id: &request.id, body_hash: &body_hash };
    match vault.recall(caller, action, id).await {
        Ok(found) => Ok(found),
        Err(error) => Err(vault.refuse(caller, action, error).await.into()),
    }
}

/// Keeps the answer in the commit of its effect.
async fn remember<T: Serialize>(
    vault: &Vault,
    work: &mut Work,
    request: Option<&RequestId>,
    answer: &T,
) -> Result<(), Error> {
    let Some(request) = request else { return Ok(()) };
    let body_hash = request.body_hash(vault);
    let id = vault::RequestId { id: &request.id, body_hash: &body_hash };
    Ok(work.remember(id, answer).await?)
}

/// Tries a call again when another one changed the same record first: it then sees what that one
/// made, and answers accordingly.
async fn retrying<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for _ in 1..TRIES {
        match attempt().await {
            Err(Error::Vault(vault::Error::Conflict)) => {}
            other => return other,
        }
    }
    attempt().await
}

/// Refuses a call: the refusal goes into the audit log, the error to the caller.
async fn refuse(mut work: Work, error: impl Into<Error>) -> Error {
    let error = error.into();
    if let Error::Hidden { rule, .. } = &error {
        work.detail("rule", *rule);
    }
    match work.refuse(error.reason()).await {
        // What can not be audited is not answered otherwise either.
        worse @ vault::Error::Unavailable => worse.into(),
        vault::Error::AttributeInvalid { .. }
        | vault::Error::BudgetSpent { .. }
        | vault::Error::Conflict
        | vault::Error::Internal { .. }
        | vault::Error::RateLimited { .. }
        | vault::Error::Refused(_) => error,
    }
}

/// Ends a call that went wrong. What was refused goes into the audit log; a fault of ours, and a
/// conflict that is tried again, are not refusals and leave no event.
async fn give_up(work: Work, error: impl Into<Error>) -> Error {
    let error = error.into();
    if is_ours(&error) { error } else { refuse(work, error).await }
}

/// Whether an error is a fault of ours, or a conflict that is tried again: no refusal.
fn is_ours(error: &Error) -> bool {
    match error {
        Error::Vault(error) => match error {
            vault::Error::Conflict | vault::Error::Internal { .. } | vault::Error::Unavailable => {
                true
            }
            vault::Error::AttributeInvalid { .. }
            | vault::Error::BudgetSpent { .. }
            | vault::Error::RateLimited { .. }
            | vault::Error::Refused(_) => false,
        },
        Error::Field { .. } | Error::Hidden { .. } | Error::Ksn { .. } | Error::Refused { .. } => {
            false
        }
    }
}

/// One page of a list and where the next begins.
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The id after which to go on; none when there are no more.
    pub next: Option<String>,
}

impl<R: Record> Page<R> {
    /// Reads a page, with one row more to see whether there is another.
    async fn read(
        vault: &Vault,
        index: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Self, Error> {
        let found = vault.list::<R>(index, after, limit + 1).await?;
        let mut rows: Vec<R> = found.into_iter().map(|row| row.record).collect();
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(Record::id) } else { None };
        Ok(Self { rows, next })
    }
}

/// How many records a list looks at for one page, however few of them are shown: it goes on from
/// there with the next page, so that no call costs more than that.
const LOOKED_AT_MAX: usize = 500;

/// How many records are read at once to fill a page.
const READ_MAX: usize = 250;

/// Goes through records in the order of their ids, [`LOOKED_AT_MAX`] of them.
struct Scan<'a, R> {
    vault: &'a Vault,
    /// Only those with this index.
    index: Option<&'a str>,
    /// The id after which to go on.
    after: Option<String>,
    read: VecDeque<R>,
    is_end: bool,
    looked_at: usize,
    /// The id of the record that was looked at last.
    last: Option<String>,
}

impl<'a, R: Record> Scan<'a, R> {
    fn new(vault: &'a Vault, index: Option<&'a str>, after: Option<&str>) -> Self {
        let after = after.map(str::to_owned);
        Self { vault, index, after, read: VecDeque::new(), is_end: false, looked_at: 0, last: None }
    }

    async fn next(&mut self) -> Result<Option<R>, Error> {
        if self.looked_at == LOOKED_AT_MAX {
            return Ok(None);
        }
        if self.read.is_empty() && !self.is_end {
            let found = self.vault.list::<R>(self.index, self.after.as_deref(), READ_MAX).await?;
            self.is_end = found.len() < READ_MAX;
            self.after = found.last().map(|last| last.record.id());
            self.read.extend(found.into_iter().map(|found| found.record));
        }
        let next = self.read.pop_front();
        if let Some(record) = &next {
            self.looked_at = self.looked_at.saturating_add(1);
            self.last = Some(record.id());
        }
        Ok(next)
    }

    /// The id after which there may be more, where enough was looked at.
    fn rest(self) -> Option<String> {
        let may_be_more = !self.is_end || !self.read.is_empty();
        self.last.filter(|_| may_be_more)
    }
}

/// A page that is being filled with what becomes of records. Those of which nothing becomes leave
/// no gap: a page is full while there are more, unless so many were looked at that it ends early.
struct Filling<T> {
    rows: Vec<T>,
    last: Option<String>,
    limit: usize,
}

impl<T> Filling<T> {
    const fn new(limit: usize) -> Self {
        Self { rows: Vec::new(), last: None, limit }
    }

    /// Adds what became of a record, or tells that there is no room: then the page is done.
    fn takes(&mut self, id: String, row: T) -> bool {
        let has_room = self.rows.len() < self.limit;
        if has_room {
            self.rows.push(row);
            self.last = Some(id);
        }
        has_room
    }

    /// The page, where one more row found no room.
    fn full(self) -> Page<T> {
        Page { rows: self.rows, next: self.last }
    }

    /// The page, where there are no more records, or none that are looked at for it: then `rest` is
    /// the id after which to go on.
    fn end(self, rest: Option<String>) -> Page<T> {
        Page { rows: self.rows, next: rest }
    }
}
