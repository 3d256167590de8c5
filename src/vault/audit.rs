//! The chain of audit events: its head, its growth within a commit, its verification.
//!
//! Every node has a chain of its own. The head is a sealed record that changes in the same
//! transaction as the events, under a version check: two processes can not both lengthen a chain.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::core::Core;
use super::error::Error;
use super::event::{Draft, Event, NO_PREVIOUS, Place, hash_of};
use super::record::{Kind, Record, Versioned};
use super::seal::{Address, Nonce};
use super::store::{Change, Expected, IndexFilter, LIST_LIMIT_MAX, Query, Row, Write};

/// How many events are verified at the end of the chain when a vault is opened. The whole chain is
/// verified by [`Vault::verify_chain`](super::Vault::verify_chain), which takes its time.
pub const VERIFIED_AT_OPEN_MAX: u64 = 10_000;

const EVENT: Kind = Kind::new("event");

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChainHead {
    node: String,
    pub(super) seq: u64,
    pub(super) hash: String,
    pub(super) time: UnixMillis,
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
pub(super) async fn read_head(core: &Core) -> Result<Versioned<ChainHead>, Error> {
    let head = core.read::<ChainHead>(&core.node).await?;
    Ok(head.unwrap_or_else(|| {
        Versioned::absent(ChainHead {
            node: core.node.clone(),
            seq: 0,
            hash: NO_PREVIOUS.to_owned(),
            time: UnixMillis(0),
        })
    }))
}

/// The writes that close a commit: an event for each batch that was applied, and the new head.
pub(super) struct Closing {
    pub(super) core: Arc<Core>,
    pub(super) head: Versioned<ChainHead>,
    pub(super) drafts: Vec<Draft>,
    /// One for each draft and one for the head: drawn before, for here nothing may fail.
    pub(super) nonces: Vec<Nonce>,
    pub(super) time: UnixMillis,
    pub(super) grown: Arc<OnceLock<Grown>>,
}

/// What a commit made of the chain, if it becomes durable.
pub(super) struct Grown {
    pub(super) head: Versioned<ChainHead>,
    /// The sequence of each draft's event, none for a batch that was not applied.
    pub(super) sequences: Vec<Option<u64>>,
}

impl Closing {
    pub(super) fn writes(self, applied: &[bool]) -> Vec<Write> {
        let Self { core, head, drafts, nonces, time, grown } = self;
        let expected = super::core::expected(head.version);
        let mut next = head;
        let mut writes = Vec::with_capacity(drafts.len() + 1);
        let mut sequences = Vec::with_capacity(drafts.len());
        let mut nonces = nonces.into_iter();
        for ((draft, applied), nonce) in drafts.into_iter().zip(applied).zip(nonces.by_ref()) {
            if !applied {
                sequences.push(None);
                continue;
            }
            let chain = &mut next.record;
            let place =
                Place { seq: chain.seq + 1, time, node: &core.node, prev: chain.hash.as_str() };
            let event = draft.at(place);
            let encoded = event.encode();
            *chain = ChainHead {
                node: core.node.clone(),
                seq: event.seq,
                hash: hash_of(&encoded),
                time,
            };
            sequences.push(Some(event.seq));
            let id = event_id(&core.node, event.seq);
            let sealed =
                core.sealer.seal(Address { kind: EVENT, id: &id, version: 1 }, nonce, &encoded);
            let index = (!event.resource.is_empty()).then_some(event.resource);
            let change = Change::Put { index, sealed };
            writes.push(Write { kind: EVENT, id, expected: Expected::Absent, change });
        }
        if !writes.is_empty() {
            let version = expected.next_version();
            next.version = Some(version);
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
pub(super) async fn events_after(
    core: &Core,
    after: u64,
    resource: Option<&str>,
    limit: usize,
) -> Result<Vec<Event>, Error> {
    let index = resource.map_or(IndexFilter::Any, |name| IndexFilter::Equals(name.to_owned()));
    let after = Some(event_id(&core.node, after));
    let rows = core.store.list(Query { kind: EVENT, index, after, limit }).await?;
    let prefix = format!("{}/", core.node);
    let ours = rows.iter().take_while(|row| row.id.starts_with(&prefix));
    let events: Result<Vec<Event>, Error> = ours.map(|row| open(core, row)).collect();
    // The index is a hint: an event that was put under another resource is not shown.
    Ok(events?
        .into_iter()
        .filter(|event| resource.is_none_or(|name| event.resource == name))
        .collect())
}

/// Verifies the chain from the event after `after` up to its head.
pub(super) async fn verify(core: &Core, after: u64) -> Result<ChainReport, Error> {
    let head = read_head(core).await?.record;
    let broken = |seq: u64| Error::incident("the chain of events is broken", &seq.to_string());
    let mut seq = after;
    // The event before the first verified one is not seen: its hash is taken from there.
    let mut prev = (after == 0).then(|| NO_PREVIOUS.to_owned());
    while seq < head.seq {
        let events = events_after(core, seq, None, LIST_LIMIT_MAX).await?;
        if events.is_empty() {
            return Err(broken(seq + 1));
        }
        for event in events.into_iter().take_while(|event| event.seq <= head.seq) {
            let follows = prev.as_ref().is_none_or(|prev| *prev == event.prev);
            if event.seq != seq + 1 || event.node != core.node || !follows {
                return Err(broken(seq + 1));
            }
            seq = event.seq;
            prev = Some(event.hash());
        }
    }
    if seq > after && prev.as_ref() != Some(&head.hash) {
        return Err(broken(seq));
    }
    Ok(ChainReport { first: if head.seq == 0 { 0 } else { after + 1 }, last: head.seq })
}

/// The id of an event: byte order is the order of the chain.
fn event_id(node: &str, seq: u64) -> String {
    format!("{node}/{seq:020}")
}

fn open(core: &Core, row: &Row) -> Result<Event, Error> {
    let encoded = core.open_bytes(EVENT, &row.id, row)?;
    let event: Event = serde_json::from_slice(&encoded)
        .map_err(|_| Error::incident("an event opened but is none", &row.id))?;
    if event.encode() != *encoded || event_id(&event.node, event.seq) != row.id {
        return Err(Error::incident("an event is not in its encoding or place", &row.id));
    }
    Ok(event)
}
