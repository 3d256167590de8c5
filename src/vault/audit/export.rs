//! Verifies an export of the log, without a service: what was taken away, changed, moved, cut off,
//! and whether it is the log that a checkpoint speaks of.

use super::super::event::{Event, NO_PREVIOUS, hash_of};
use super::note::Checkpoint;
use crate::crypto::merkle::{Frontier, Root, leaf_hash};

/// What an export was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// How many events it holds.
    pub events: u64,
    /// The root of the tree over them.
    pub root: Root,
    /// How many of them the checkpoint covers; 0 without one.
    pub covered: u64,
}

/// What is wrong with an export, and with which event first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExportFault {
    /// The end is missing.
    #[error("cut: the events from {event} on are missing")]
    Cut {
        /// The first one that is missing.
        event: u64,
    },
    /// An event is missing between others.
    #[error("deleted: event {event} is missing")]
    Deleted {
        /// The one that is missing.
        event: u64,
    },
    /// An event is not as it was written.
    #[error("edited: event {event} is not as it was written")]
    Edited {
        /// The one that was changed.
        event: u64,
    },
    /// The chain holds, and is another than was signed.
    #[error("forked: from event {event} on this may be another log than the one that was signed")]
    Forked {
        /// The first one that no checkpoint vouches for.
        event: u64,
    },
    /// The newer checkpoint covers fewer events than the older.
    #[error("rolled back: event {event} was signed before and is no longer covered")]
    RolledBack {
        /// The first one that is not covered any more.
        event: u64,
    },
    /// An event stands in the place of another.
    #[error("swapped: another event stands in the place of event {event}")]
    Swapped {
        /// The place.
        event: u64,
    },
}

impl ExportFault {
    /// The event, and a word for what is wrong with it.
    #[must_use]
    pub const fn parts(self) -> (&'static str, u64) {
        match self {
            Self::Cut { event } => ("cut", event),
            Self::Deleted { event } => ("deleted", event),
            Self::Edited { event } => ("edited", event),
            Self::Forked { event } => ("forked", event),
            Self::RolledBack { event } => ("rolled_back", event),
            Self::Swapped { event } => ("swapped", event),
        }
    }
}

/// Verifies events from the first on, one a line, against a checkpoint over them and an older one.
/// Both are read and their signatures verified before.
pub fn verify_export(
    lines: impl Iterator<Item = Vec<u8>>,
    checkpoint: Option<&Checkpoint>,
    against: Option<&Checkpoint>,
) -> Result<ExportReport, ExportFault> {
    let size_of = |one: Option<&Checkpoint>| one.map_or(0, |one| one.root.size);
    let (signed, older) = (size_of(checkpoint), size_of(against));
    if checkpoint.is_some() && older > signed {
        return Err(ExportFault::RolledBack { event: signed + 1 });
    }
    let mut lines = lines.peekable();
    let mut frontier = Frontier::default();
    let mut prev = NO_PREVIOUS.to_owned();
    let mut vouched = 0;
    while let Some(line) = lines.next() {
        let seq = frontier.size() + 1;
        let event = Event::parse(&line).ok_or(ExportFault::Edited { event: seq })?;
        if event.seq != seq {
            return Err(misplaced(&event, seq, lines));
        }
        if event.prev != prev {
            let next = lines.peek().and_then(|line| Event::parse(line));
            return Err(unlinked(seq, &line, next.as_ref()));
        }
        prev = hash_of(&line);
        frontier.push(leaf_hash(&line));
        for one in [against, checkpoint].into_iter().flatten() {
            if one.root.size == seq && one.root != frontier.root() {
                return Err(ExportFault::Forked { event: vouched + 1 });
            }
            if one.root.size == seq {
                vouched = seq;
            }
        }
    }
    let events = frontier.size();
    if events < signed.max(older) {
        return Err(ExportFault::Cut { event: events + 1 });
    }
    Ok(ExportReport { events, root: frontier.root(), covered: vouched })
}

/// What it means that another event stands here: the right one comes later, or not at all.
fn misplaced(event: &Event, seq: u64, rest: impl Iterator<Item = Vec<u8>>) -> ExportFault {
    let mut rest = rest.filter_map(|line| Event::parse(&line));
    if event.seq > seq && rest.all(|later| later.seq != seq) {
        ExportFault::Deleted { event: seq }
    } else {
        ExportFault::Swapped { event: seq }
    }
}

/// What it means that an event does not hold the hash of the one before: if the next one vouches
/// for it as it stands, the one before was changed; else it was changed itself.
fn unlinked(seq: u64, line: &[u8], next: Option<&Event>) -> ExportFault {
    let is_vouched = next.is_none_or(|next| next.prev == hash_of(line));
    let event = if is_vouched && seq > 1 { seq - 1 } else { seq };
    ExportFault::Edited { event }
}
