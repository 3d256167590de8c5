//! The chain of audit events: its head, its growth within a commit, its verification.
//!
//! Every node has a chain of its own. The head is a sealed record that changes in the same
//! transaction as the events, under a version check: two processes can not both lengthen a chain.
//!
//! ```text
//! a row, sealed: octet 0           n, the subtrees that the event closes, itself among them
//!                octets 1..1+32 n  their hashes, its own first
//!                       1+32 n..   the event in its encoding
//! ```

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::super::clock::UnixMillis;
use super::super::core::{Core, expected};
use super::super::error::Error;
use super::super::event::{Draft, Event, NO_PREVIOUS, Place, hash_of};
use super::super::master::{Address, Nonce};
use super::super::record::{Kind, Record, Versioned};
use super::super::store::{Change, Expected, IndexFilter, LIST_LIMIT_MAX, Query, Row, Write};
use super::super::tally::Sum;
use super::tree;
use crate::crypto::merkle::{Frontier, Hash, leaf_hash};

/// How many events are verified at the end of the chain when a vault is opened. The whole chain is
/// verified by [`Vault::verify_chain`](crate::vault::Vault::verify_chain), which takes its time.
pub const VERIFIED_AT_OPEN_MAX: u64 = 10_000;

const EVENT: Kind = Kind::new("event");

/// Where a chain ends, and the right edge of its tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::vault) struct ChainHead {
    node: String,
    pub(in crate::vault) seq: u64,
    hash: String,
    pub(in crate::vault) time: UnixMillis,
    /// The roots of the complete subtrees, the largest first, in hexadecimals.
    peaks: Vec<String>,
    /// What the rows of the store fold into.
    pub(in crate::vault) tally: Sum,
}

impl ChainHead {
    /// The right edge of the tree.
    pub(in crate::vault) fn frontier(&self) -> Result<Frontier, Error> {
        let peaks: Option<Vec<Hash>> = self
            .peaks
            .iter()
            .map(|peak| data_encoding::HEXLOWER.decode(peak.as_bytes()).ok()?.try_into().ok())
            .collect();
        peaks.and_then(|peaks| Frontier::new(self.seq, peaks)).ok_or_else(|| {
            Error::incident("the edge of the tree does not fit its size", &self.node)
        })
    }
}

impl Record for ChainHead {
    const KIND: Kind = Kind::new("chain");

    fn id(&self) -> String {
        self.node.clone()
    }
}

/// What was verified of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainReport {
    /// The first event that was verified; 0 when there is none.
    pub first: u64,
    /// The last event of the chain; 0 when there is none.
    pub last: u64,
}

/// Reads the head of this node's chain; an empty one has sequence 0.
pub(in crate::vault) async fn read_head(core: &Core) -> Result<Versioned<ChainHead>, Error> {
    let head = core.read::<ChainHead>(&core.node).await?;
    Ok(head.unwrap_or_else(|| {
        Versioned::absent(ChainHead {
            node: core.node.clone(),
            seq: 0,
            hash: NO_PREVIOUS.to_owned(),
            time: UnixMillis(0),
            peaks: Vec::new(),
            tally: Sum::default(),
        })
    }))
}

/// The writes that close a commit: an event for each batch that was applied, and the new head.
pub(in crate::vault) struct Closing {
    pub(in crate::vault) core: Arc<Core>,
    pub(in crate::vault) head: Versioned<ChainHead>,
    /// The right edge of the tree at this head.
    pub(in crate::vault) frontier: Frontier,
    /// What each batch does to the tally.
    pub(in crate::vault) folds: Vec<Sum>,
    /// None for a batch that is counted in a summary and has no event of its own.
    pub(in crate::vault) drafts: Vec<Option<Draft>>,
    /// One for each draft and one for the head: drawn before, for here nothing may fail.
    pub(in crate::vault) nonces: Vec<Nonce>,
    pub(in crate::vault) time: UnixMillis,
    pub(in crate::vault) grown: Arc<OnceLock<Grown>>,
}

/// What a commit made of the chain, if it becomes durable.
pub(in crate::vault) struct Grown {
    pub(in crate::vault) head: Versioned<ChainHead>,
    /// The sequence of each draft's event, or of the one before for a batch without an event of
    /// its own; none for a batch that was not applied.
    pub(in crate::vault) sequences: Vec<Option<u64>>,
}

impl Closing {
    pub(in crate::vault) fn writes(self, applied: &[bool]) -> Vec<Write> {
        let Self { core, head, mut frontier, folds, drafts, nonces, time, grown } = self;
        let expected = expected(head.version);
        let mut next = head;
        let tally_before = next.record.tally;
        for (fold, _) in folds.into_iter().zip(applied).filter(|(_, applied)| **applied) {
            next.record.tally.fold_all(fold);
        }
        let mut writes = Vec::with_capacity(drafts.len() + 1);
        let mut sequences = Vec::with_capacity(drafts.len());
        let mut nonces = nonces.into_iter();
        for ((draft, applied), nonce) in drafts.into_iter().zip(applied).zip(nonces.by_ref()) {
            let chain = &mut next.record;
            let Some(draft) = draft.filter(|_| *applied) else {
                sequences.push(applied.then_some(chain.seq));
                continue;
            };
            let place =
                Place { seq: chain.seq + 1, time, node: &core.node, prev: chain.hash.as_str() };
            let event = draft.at(place);
            let encoded = event.encode();
            let closed = frontier.push(leaf_hash(&encoded));
            (chain.seq, chain.hash, chain.time) = (event.seq, hash_of(&encoded), time);
            sequences.push(Some(event.seq));
            let id = event_id(&core.node, event.seq);
            let at = Address { kind: EVENT, id: &id, version: 1 };
            let sealed = core.sealer.seal(at, nonce, &row_of(&closed, &encoded));
            let index = (!event.resource.is_empty()).then_some(event.resource);
            let change = Change::Put { index, sealed };
            writes.push(Write { kind: EVENT, id, expected: Expected::Absent, change });
        }
        // Calls that are told in summary spend counters, too.
        if !writes.is_empty() || next.record.tally != tally_before {
            let version = expected.next_version();
            next.version = Some(version);
            let peaks = frontier.peaks().iter();
            next.record.peaks = peaks.map(|peak| data_encoding::HEXLOWER.encode(peak)).collect();
            let plain = serde_json::to_vec(&next.record).expect("a head has a JSON form");
            let nonce = nonces.next().expect("one nonce more than drafts was drawn");
            let at = Address { kind: ChainHead::KIND, id: &core.node, version };
            let sealed = core.sealer.seal(at, nonce, &plain);
            let change = Change::Put { index: None, sealed };
            writes.push(Write { kind: ChainHead::KIND, id: core.node.clone(), expected, change });
        }
        // Set once: a store calls its tail once.
        let _ = grown.set(Grown { head: next, sequences });
        writes
    }
}

/// Reads events of this node in their order, after a sequence; with `resource`, only those about
/// it.
pub(in crate::vault) async fn events_after(
    core: &Core,
    after: u64,
    resource: Option<&str>,
    limit: usize,
) -> Result<Vec<Event>, Error> {
    let leaves = leaves_after(core, after, resource, limit).await?;
    // The index is a hint: an event that was put under another resource is not shown.
    let events = leaves.into_iter().map(|leaf| leaf.event);
    Ok(events.filter(|event| resource.is_none_or(|name| event.resource == name)).collect())
}

async fn leaves_after(
    core: &Core,
    after: u64,
    resource: Option<&str>,
    limit: usize,
) -> Result<Vec<Leaf>, Error> {
    let index = resource.map_or(IndexFilter::Any, |name| IndexFilter::Equals(name.to_owned()));
    let after = Some(event_id(&core.node, after));
    let rows = core.store.list(Query { kind: EVENT, index, after, limit }).await?;
    let prefix = format!("{}/", core.node);
    let ours = rows.iter().take_while(|row| row.id.starts_with(&prefix));
    ours.map(|row| open(core, row)).collect()
}

/// Reads one event with what it closes; one that is not there is a gap in the chain.
pub(super) async fn leaf_at(core: &Core, seq: u64) -> Result<Leaf, Error> {
    let id = event_id(&core.node, seq);
    match core.store.get(EVENT, &id).await? {
        // The id asked for is what counts, so an answer to another question fails.
        Some(row) => open(core, &Row { id, ..row }),
        None => Err(Error::incident("an event is missing", &id)),
    }
}

/// Verifies the chain and its tree from the event after `after` up to its head.
pub(in crate::vault) async fn verify(core: &Core, after: u64) -> Result<ChainReport, Error> {
    let head = read_head(core).await?.record;
    let broken = |seq: u64| Error::incident("the chain of events is broken", &seq.to_string());
    let mut seq = after;
    let mut prev = match after {
        0 => NO_PREVIOUS.to_owned(),
        _ => leaf_at(core, after).await?.event.hash(),
    };
    let mut frontier = tree::frontier_at(core, after).await?;
    while seq < head.seq {
        let leaves = leaves_after(core, seq, None, LIST_LIMIT_MAX).await?;
        if leaves.is_empty() {
            return Err(broken(seq + 1));
        }
        for Leaf { event, closed } in
            leaves.into_iter().take_while(|leaf| leaf.event.seq <= head.seq)
        {
            let encoded = event.encode();
            let follows = event.seq == seq + 1 && event.node == core.node && event.prev == prev;
            if !follows || frontier.push(leaf_hash(&encoded)) != closed {
                return Err(broken(seq + 1));
            }
            seq = event.seq;
            prev = hash_of(&encoded);
        }
    }
    if prev != head.hash || frontier != head.frontier()? {
        return Err(broken(seq));
    }
    Ok(ChainReport { first: if head.seq == 0 { 0 } else { after + 1 }, last: head.seq })
}

/// The id of an event: byte order is the order of the chain.
fn event_id(node: &str, seq: u64) -> String {
    format!("{node}/{seq:020}")
}

/// An event, and the hashes of the subtrees that it closes: its own first.
pub(super) struct Leaf {
    pub(super) event: Event,
    pub(super) closed: Vec<Hash>,
}

fn row_of(closed: &[Hash], encoded: &[u8]) -> Vec<u8> {
    let count = u8::try_from(closed.len()).expect("an event closes 64 subtrees at most");
    [&[count], closed.as_flattened(), encoded].concat()
}

fn open(core: &Core, row: &Row) -> Result<Leaf, Error> {
    let plain = core.open_bytes(EVENT, &row.id, row)?;
    let leaf = parse(&plain).filter(|leaf| event_id(&leaf.event.node, leaf.event.seq) == row.id);
    leaf.ok_or_else(|| Error::incident("an event is not in its encoding or place", &row.id))
}

fn parse(plain: &[u8]) -> Option<Leaf> {
    let (count, rest) = plain.split_first()?;
    let (closed, encoded) = rest.split_at_checked(usize::from(*count) * 32)?;
    let event = Event::parse(encoded)?;
    let (closed, _) = closed.as_chunks::<32>();
    let is_its = closed.first() == Some(&leaf_hash(encoded));
    is_its.then(|| Leaf { event, closed: closed.to_vec() })
}
