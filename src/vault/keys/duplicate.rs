//! One key, one record: outside development a key comes to be here once.
//!
//! A second copy of a key, of the same usage, could be used where the first was suspended, and kept
//! where it was destroyed. Copies are found by a keyed hash of the key, not by its check value,
//! which two keys may share by chance (of TDES 24 bits) and would then keep each other out for
//! good. A key that is destroyed makes room for its like; one that is compromised does not, so that
//! it does not come back under another name.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::record::KeyRecord;
use crate::key::Material;
use crate::vault::core::Core;
use crate::vault::error::Error;
use crate::vault::reason::Reason;
use crate::vault::record::{Kind, Record, Versioned};
use crate::vault::seal::{HashPurpose, Realm};
use crate::vault::work::Work;

/// Which version of which key this is, of those that there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyMaterial {
    /// The keyed hash of usage and key, in lower case hexadecimals.
    id: String,
    /// `{key}/versions/{n}`.
    key: String,
}

impl Record for KeyMaterial {
    const KIND: Kind = Kind::new("key_material");

    fn id(&self) -> String {
        self.id.clone()
    }
}

impl Work {
    /// Takes a key for a new version, or refuses it with `KEY_DUPLICATE`: the audit event tells
    /// which other one has it.
    pub(super) async fn takes_material(
        &mut self,
        record: &KeyRecord,
        material: &Material,
    ) -> Result<(), Error> {
        let Some(id) = id_of(self.core(), record, material) else { return Ok(()) };
        if let Some(other) = self.core().read::<KeyMaterial>(&id).await? {
            self.detail("duplicate_of", format!("keys/{}", other.record.key));
            return Err(Error::Refused(Reason::KeyDuplicate));
        }
        self.put(&Versioned::absent(KeyMaterial { id, key: record.version_name() }))
    }

    /// Gives back the place of a key that is destroyed.
    pub(super) async fn releases_material(
        &mut self,
        record: &KeyRecord,
        material: &Material,
    ) -> Result<(), Error> {
        let Some(id) = id_of(self.core(), record, material) else { return Ok(()) };
        if let Some(found) = self.core().read::<KeyMaterial>(&id).await? {
            self.delete(&found);
        }
        Ok(())
    }
}

/// The id of a key of a usage; none in development, where anything may come twice.
fn id_of(core: &Core, record: &KeyRecord, material: &Material) -> Option<String> {
    if core.sealer.realm() == Realm::Dev {
        return None;
    }
    // Exposed to a keyed hash alone.
    let mut octets = Zeroizing::new(material.expose_bytes().to_vec());
    if record.algorithm.is_tdes() {
        // The parity bits are no part of a TDES key (FIPS 46-3, keying options).
        octets.iter_mut().for_each(|octet| *octet &= 0xFE);
    }
    let parts = [record.usage.as_str().as_bytes(), octets.as_slice()];
    let hash = core.sealer.keyed_hash(HashPurpose::KeyMaterial, &parts);
    Some(data_encoding::HEXLOWER.encode(&hash))
}
