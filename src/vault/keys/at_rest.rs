//! Keys at rest: X9.143 version D under a key of their own, bound to everything they are.
//!
//! ```text
//! wrapping key   HKDF-SHA-256(master key; realm, name, version, epoch), AES-256
//! LB             "firstkey " and the realm
//! 88             the attributes as JSON
//! ```
//!
//! `88` lies in the numeric range that X9.143 leaves to proprietary optional blocks. Both blocks
//! stay here: they are taken out when the key leaves.

use zeroize::Zeroizing;

use super::record::{BlockAtRest, KeyRecord};
use crate::key::usage::KeyBlockProtection;
use crate::key::{Key, Material};
use crate::keyblock::{self, Header, OptionalBlock, Version};
use crate::vault::core::Core;
use crate::vault::error::Error;
use crate::vault::record::{Kind, Record as _};
use crate::vault::seal::{KeyIdentity, Realm};

/// The optional block of the attributes.
pub(super) const ATTRIBUTES: [u8; 2] = *b"88";
/// The optional block of the label (ANSI X9.143:2021, 6.3.9).
pub(super) const LABEL: [u8; 2] = *b"LB";

/// Wraps a key under the identity that its record has now. `kept` are optional blocks that came
/// with it and stay with it.
pub(super) fn wrap(
    core: &Core,
    record: &KeyRecord,
    material: &Material,
    kept: &[OptionalBlock],
) -> Result<BlockAtRest, Error> {
    let failed = |_| Error::incident("a key can not be wrapped", &record.name);
    let mut header = header_of(record);
    for block in own_blocks(core.sealer.realm(), record)?.into_iter().chain(kept.to_vec()) {
        header
            .push(block)
            .map_err(|_| Error::incident("a key block header is too long", &record.name))?;
    }
    let generation = core.sealer.current().number();
    let kbpk = protection(core, generation, record)?;
    let block = keyblock::wrap(&kbpk, &header, material, &*core.rng).map_err(failed)?;
    Ok(BlockAtRest { generation, block: block.into() })
}

/// The record of a key whose block is under the master key before, with its block under the one in
/// force; none for every other record.
///
/// A conflict where the master key of the block is retired.
pub(in crate::vault) fn wrapped_anew(
    core: &Core,
    kind: Kind,
    plain: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    if kind != KeyRecord::KIND {
        return Ok(None);
    }
    let unread = |_| Error::incident("a key's record is not one", "key");
    let mut record: KeyRecord = serde_json::from_slice(plain).map_err(unread)?;
    let Some(generation) = record.key_block.as_ref().map(|block| block.generation) else {
        return Ok(None);
    };
    if generation == core.sealer.current().number() {
        return Ok(None);
    }
    if core.sealer.previous().is_none_or(|previous| previous.number() != generation) {
        return Err(Error::Conflict);
    }
    let (material, kept) = open(core, &record)?;
    record.key_block = Some(wrap(core, &record, &material, &kept)?);
    serde_json::to_vec(&record).map(Zeroizing::new).map(Some).map_err(unread)
}

/// Unwraps the key of a record, and checks that the block says what the record says.
pub(super) fn unwrap(core: &Core, record: &KeyRecord) -> Result<Material, Error> {
    open(core, record).map(|(material, _)| material)
}

/// Unwraps the key of a record together with the optional blocks that came with it.
pub(super) fn open(
    core: &Core,
    record: &KeyRecord,
) -> Result<(Material, Vec<OptionalBlock>), Error> {
    let incident = |what| Error::incident(what, &record.name);
    let at_rest = record.key_block.as_ref();
    let BlockAtRest { generation, block } =
        at_rest.ok_or_else(|| incident("a key has no key block"))?;
    let kbpk = protection(core, *generation, record)?;
    let unwrapped = keyblock::unwrap(&kbpk, block)
        .map_err(|_| incident("a key block at rest does not unwrap"))?;
    let found = unwrapped.header;
    let own = own_blocks(core.sealer.realm(), record)?;
    let same = unwrapped.algorithm == record.algorithm
        && is_same(&found, &header_of(record))
        && own.iter().all(|block| found.find(block.id()) == Some(block.data()));
    if !same {
        return Err(incident("a key block at rest is not what its record says"));
    }
    let kept = found.optional().iter().filter(|block| !is_own(block.id())).cloned().collect();
    Ok((unwrapped.material, kept))
}

/// Whether a block is made anew with each wrapping, and none that came with the key.
pub(super) fn is_own(id: [u8; 2]) -> bool {
    [ATTRIBUTES, LABEL, *b"PB"].contains(&id)
}

fn is_same(found: &Header, expected: &Header) -> bool {
    (found.usage, found.mode, found.exportability)
        == (expected.usage, expected.mode, expected.exportability)
}

fn header_of(record: &KeyRecord) -> Header {
    let mut header = Header::new(
        Version::D,
        record.usage.code(),
        record.algorithm.header_letter(),
        record.mode_of_use.letter(),
    );
    header.exportability = record.exportability.letter();
    header
}

fn own_blocks(realm: Realm, record: &KeyRecord) -> Result<[OptionalBlock; 2], Error> {
    let failed = || Error::incident("attributes do not fit into a key block", &record.name);
    let attributes = serde_json::to_string(&record.attributes).map_err(|_| failed())?;
    let label = OptionalBlock::new(LABEL, format!("firstkey {}", realm.as_str()));
    let attributes = OptionalBlock::new(ATTRIBUTES, attributes);
    Ok([label.map_err(|_| failed())?, attributes.map_err(|_| failed())?])
}

/// The key that the block of a record is wrapped under, below the master key of a number.
fn protection(
    core: &Core,
    generation: u32,
    record: &KeyRecord,
) -> Result<Key<KeyBlockProtection>, Error> {
    let identity = KeyIdentity { name: &record.name, version: record.version, epoch: record.epoch };
    let kbpk = core.sealer.key_block_key(generation, identity);
    kbpk.ok_or_else(|| Error::incident("a key block is under no master key at hand", &record.name))
}
