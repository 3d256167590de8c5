//! Reads the audit log: events, checkpoints, proofs. Who reads is itself written down.

use super::{Error, audited};
use crate::crypto::merkle::{Hash, Root, leaf_hash};
use crate::vault::{Action, Caller, Event, SignedCheckpoint, Vault};

/// How many events of an export are read at once.
pub const EXPORT_PAGE_LEN: usize = 100;

/// Events in their order, and where to go on.
pub struct Events {
    /// The events.
    pub events: Vec<Event>,
    /// The sequence of the last event that was looked at.
    pub last: u64,
    /// How many events there were.
    pub size: u64,
}

/// A proof that an event is in a tree.
pub struct Inclusion {
    /// The hash of the event.
    pub leaf_hash: Hash,
    /// The proof, from the leaf's neighbour up.
    pub hashes: Vec<Hash>,
    /// The tree.
    pub root: Root,
}

/// A proof that a tree begins with a smaller one.
pub struct Consistency {
    /// The proof.
    pub hashes: Vec<Hash>,
    /// The smaller tree.
    pub first: Root,
    /// The larger tree.
    pub second: Root,
}

/// Lists events after a sequence, `limit` at most; with a resource, only those about it.
pub async fn list_events(
    vault: &Vault,
    caller: &Caller,
    after: u64,
    resource: Option<&str>,
    limit: usize,
) -> Result<Events, Error> {
    let read = async {
        // What is written meanwhile is for the next page.
        let size = vault.log_size().await?;
        let events = match resource {
            Some(resource) => vault.events_about(resource, after, limit).await?,
            None => vault.events_after(after, limit).await?,
        };
        let seen = events.last().map_or(after, |event| event.seq);
        let last = if events.len() < limit { seen.max(size) } else { seen };
        Ok(Events { events, last, size })
    };
    audited(vault, caller, Action::ListEvents, resource.unwrap_or_default(), read).await
}

/// Begins an export: it ends with the event that tells of it, and the checkpoint over all of them.
pub async fn begin_export(
    vault: &Vault,
    caller: &Caller,
    after: u64,
) -> Result<SignedCheckpoint, Error> {
    let check = async {
        if after > vault.log_size().await? {
            return Err(Error::field("after", "must not be more than there are events"));
        }
        Ok(())
    };
    audited(vault, caller, Action::ExportEvents, "", check).await?;
    Ok(vault.checkpoint().await?)
}

/// The next events of an export that began; none at its end. A caller who may export no more is
/// refused.
pub async fn exported(
    vault: &Vault,
    caller: &Caller,
    after: u64,
    size: u64,
) -> Result<Vec<Event>, Error> {
    vault.check_still(caller, Action::ExportEvents)?;
    if after >= size {
        return Ok(Vec::new());
    }
    let mut events = vault.events_after(after, EXPORT_PAGE_LEN).await?;
    events.retain(|event| event.seq <= size);
    Ok(events)
}

/// Signs the log as it stands, with the event that tells of it.
pub async fn get_checkpoint(vault: &Vault, caller: &Caller) -> Result<SignedCheckpoint, Error> {
    audited(vault, caller, Action::GetCheckpoint, "", async { Ok(()) }).await?;
    Ok(vault.checkpoint().await?)
}

/// Proves that an event is in the tree of a size.
pub async fn prove_inclusion(
    vault: &Vault,
    caller: &Caller,
    sequence: u64,
    size: u64,
) -> Result<Inclusion, Error> {
    let prove = async {
        expect_size(vault, "size", size).await?;
        let within = "must be 1 or more, and not more than the size";
        let Some(hashes) = vault.prove_inclusion(sequence, size).await? else {
            return Err(Error::field("sequence", within));
        };
        let event = vault.events_after(sequence.saturating_sub(1), 1).await?.pop();
        let event = event.ok_or_else(|| Error::field("sequence", within))?;
        let root = vault.tree(size).await?;
        Ok(Inclusion { leaf_hash: leaf_hash(&event.encode()), hashes, root })
    };
    audited(vault, caller, Action::ProveInclusion, "", prove).await
}

/// Proves that the tree of a size begins with the tree of a smaller one.
pub async fn prove_consistency(
    vault: &Vault,
    caller: &Caller,
    first: u64,
    second: u64,
) -> Result<Consistency, Error> {
    let prove = async {
        expect_size(vault, "second", second).await?;
        let Some(hashes) = vault.prove_consistency(first, second).await? else {
            return Err(Error::field("first", "must be 1 or more, and not more than the second"));
        };
        let (first, second) = (vault.tree(first).await?, vault.tree(second).await?);
        Ok(Consistency { hashes, first, second })
    };
    audited(vault, caller, Action::ProveConsistency, "", prove).await
}

async fn expect_size(vault: &Vault, path: &'static str, size: u64) -> Result<(), Error> {
    if size > vault.log_size().await? {
        return Err(Error::field(path, "must not be more than there are events"));
    }
    Ok(())
}
