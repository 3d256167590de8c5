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

use super::record::KeyRecord;
use crate::key::Material;
use crate::keyblock::{self, Header, OptionalBlock, Version};
use crate::vault::core::Core;
use crate::vault::error::Error;
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
) -> Result<String, Error> {
    let failed = |_| Error::incident("a key can not be wrapped", &record.name);
    let mut header = header_of(record);
    for block in own_blocks(core.sealer.realm(), record)?.into_iter().chain(kept.to_vec()) {
        header
            .push(block)
            .map_err(|_| Error::incident("a key block header is too long", &record.name))?;
    }
    let kbpk = core.sealer.key_block_key(identity(record));
    keyblock::wrap(&kbpk, &header, material, &*core.rng).map(String::from).map_err(failed)
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
    let block = record.key_block.as_deref();
    let block = block.ok_or_else(|| incident("a key has no key block"))?;
    let kbpk = core.sealer.key_block_key(identity(record));
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

fn identity(record: &KeyRecord) -> KeyIdentity<'_> {
    KeyIdentity { name: &record.name, version: record.version, epoch: record.epoch }
}
