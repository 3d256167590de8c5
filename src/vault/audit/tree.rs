//! The Merkle tree over the events (RFC 6962, 2.1): read a row for each hash, never all of them.
//!
//! The hash of a complete subtree stands in the row of the event that closed it. Whatever is not
//! complete, at the right edge alone, is put together from complete ones.

use super::super::core::Core;
use super::super::error::Error;
use super::chain::leaf_at;
use crate::crypto::merkle::{
    Frontier, Hash, Part, Root, complete_parts, parts_for_consistency, parts_for_inclusion,
};

/// The right edge of the tree as it was at a size that the log has or had.
pub(super) async fn frontier_at(core: &Core, size: u64) -> Result<Frontier, Error> {
    frontier_of(core, 0, size).await
}

/// The tree as it was at a size that the log has or had.
pub(in crate::vault) async fn root_at(core: &Core, size: u64) -> Result<Root, Error> {
    Ok(frontier_at(core, size).await?.root())
}

/// The hashes that prove an event, by its leaf index, to be in the tree of a size; none where there
/// is no such leaf. The size is one that the log has or had.
pub(in crate::vault) async fn prove_inclusion(
    core: &Core,
    index: u64,
    size: u64,
) -> Result<Option<Vec<Hash>>, Error> {
    hashes_of(core, parts_for_inclusion(size, index), size).await
}

/// The hashes that prove the tree of a size to begin with that of a smaller one; none where it can
/// not. The larger size is one that the log has or had.
pub(in crate::vault) async fn prove_consistency(
    core: &Core,
    first: u64,
    second: u64,
) -> Result<Option<Vec<Hash>>, Error> {
    hashes_of(core, parts_for_consistency(first, second), second).await
}

async fn hashes_of(
    core: &Core,
    parts: Option<Vec<Part>>,
    size: u64,
) -> Result<Option<Vec<Hash>>, Error> {
    let Some(parts) = parts else { return Ok(None) };
    let mut hashes = Vec::with_capacity(parts.len());
    for part in parts {
        hashes.push(frontier_of(core, part.first, part.end().min(size)).await?.root().hash);
    }
    Ok(Some(hashes))
}

/// The edge of the tree over the leaves from `first` to before `end`.
async fn frontier_of(core: &Core, first: u64, end: u64) -> Result<Frontier, Error> {
    let mut peaks = Vec::new();
    for part in complete_parts(first, end) {
        peaks.push(complete(core, part).await?);
    }
    Frontier::new(end.saturating_sub(first), peaks)
        .ok_or_else(|| Error::incident("a part of the tree is none", &first.to_string()))
}

async fn complete(core: &Core, part: Part) -> Result<Hash, Error> {
    let leaf = leaf_at(core, part.end()).await?;
    let level = usize::try_from(part.level).unwrap_or(usize::MAX);
    let hash = leaf.closed.get(level).copied();
    hash.ok_or_else(|| {
        Error::incident("an event does not close its subtree", &part.end().to_string())
    })
}
