//! Stored keys: the one place where a key's description becomes its type.

mod at_rest;
mod attributes;
mod change;
mod create;
mod duplicate;
mod exchange;
mod exposure;
mod name;
mod published;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod versions;
mod vocabulary;

pub(super) use at_rest::wrapped_anew;
pub use change::{Changed, SERVE_MS_MAX, StateChange};
pub use create::{Brings, ImportKey, NewKey, Rotation, Start};
pub use exchange::{ExportKey, ExportedKey};
pub(super) use exposure::{Passage, Passages};
pub use name::{KeyName, key_of};
pub(super) use published::is_published_master_key;
pub use published::{PUBLISHED_CHECK_VALUES, is_published};
pub use record::{
    DEVICE_CAP, DescribedKey, KeyAttributes, KeyHead, KeyRecord, MAC_LENGTH_MIN_BYTES,
};
pub use state::{KeyState, Operation};
pub use vocabulary::{Exportability, KeyUsage, LedgerPolicy, ModeOfUse, Origin};

use super::core::Core;
use super::error::Error;
use super::reason::Reason;
use super::record::Versioned;
use super::vault::Vault;
use crate::key::usage::{KeyBlockProtection, KeyEncryption, StoredUsage, Usage};
use crate::key::{Key, Material};
use record::{KeySet, key_id};

/// A stored key, unwrapped for one call, with its description. Wiped when dropped.
#[derive(Debug)]
pub struct StoredKey<U: Usage> {
    key: Key<U>,
    versioned: Versioned<KeyRecord>,
}

impl<U: Usage> StoredKey<U> {
    /// The key.
    #[must_use]
    pub const fn key(&self) -> &Key<U> {
        &self.key
    }

    /// Its description.
    #[must_use]
    pub const fn record(&self) -> &KeyRecord {
        &self.versioned.record
    }

    /// Its description with the version it was read at.
    #[must_use]
    pub const fn versioned(&self) -> &Versioned<KeyRecord> {
        &self.versioned
    }
}

/// A stored key that wraps key blocks, of either usage that may.
#[derive(Debug)]
pub enum WrappingKey {
    /// A key encryption key, K0.
    Encryption(StoredKey<KeyEncryption>),
    /// A key block protection key, K1.
    Protection(StoredKey<KeyBlockProtection>),
}

impl WrappingKey {
    /// Its description with the version it was read at.
    #[must_use]
    pub const fn versioned(&self) -> &Versioned<KeyRecord> {
        match self {
            Self::Encryption(key) => key.versioned(),
            Self::Protection(key) => key.versioned(),
        }
    }

    /// Its description.
    #[must_use]
    pub const fn record(&self) -> &KeyRecord {
        &self.versioned().record
    }
}

impl Vault {
    /// Opens a stored key for one operation, if its usage is one of `U`'s codes and its mode of
    /// use, state and dates allow the operation. `name` comes without `keys/`, and may be that of a
    /// version; see [`KeyName`].
    ///
    /// `KEY_NOT_FOUND`, `KEY_USAGE_MISMATCH` or `KEY_NOT_ACTIVE` otherwise.
    pub async fn key<U: StoredUsage>(
        &self,
        name: &str,
        operation: Operation,
    ) -> Result<StoredKey<U>, Error> {
        let versioned = self.key_record(name).await?;
        open_key(&self.shared.core, versioned, operation, self.now())
    }

    /// Opens a stored key that wraps key blocks, to [`Operation::Wrap`] or [`Operation::Unwrap`].
    pub async fn wrapping_key(
        &self,
        name: &str,
        operation: Operation,
    ) -> Result<WrappingKey, Error> {
        let versioned = self.key_record(name).await?;
        let core = &self.shared.core;
        let now = self.now();
        if versioned.record.usage == KeyUsage::KeyEncryption {
            return open_key(core, versioned, operation, now).map(WrappingKey::Encryption);
        }
        open_key(core, versioned, operation, now).map(WrappingKey::Protection)
    }

    /// Reads the description of a key, `KEY_NOT_FOUND` if there is none.
    pub async fn key_record(&self, name: &str) -> Result<Versioned<KeyRecord>, Error> {
        read_key(&self.shared.core, name).await
    }

    /// Reads the description of a key with what is said of it as a whole.
    pub async fn described_key(&self, name: &str) -> Result<DescribedKey, Error> {
        let record = self.key_record(name).await?.record;
        let head = self.key_head(&record.name).await?;
        Ok(record.described(head))
    }

    /// Reads what is said of a key as a whole; `name` is without a version.
    pub async fn key_head(&self, name: &str) -> Result<KeyHead, Error> {
        let first = read_version(&self.shared.core, name, FIRST_VERSION).await?;
        first.record.head().cloned()
    }

    /// Finds the version of a base derivation key whose KSNs have this key set id, by the name that
    /// [`KeyRecord::version_name`] gives it.
    pub async fn key_of_set(&self, key_set_id: &[u8]) -> Result<Option<String>, Error> {
        let id = data_encoding::HEXUPPER.encode(key_set_id);
        Ok(self.get::<KeySet>(&id).await?.map(|one| one.record.key))
    }
}

async fn read_key(core: &Core, name: &str) -> Result<Versioned<KeyRecord>, Error> {
    let name = KeyName::parse(name).ok_or(Error::Refused(Reason::KeyNotFound))?;
    match name.version {
        Some(version) => read_version(core, name.key, version).await,
        None => read_primary(core, read_version(core, name.key, FIRST_VERSION).await?).await,
    }
}

async fn read_version(core: &Core, key: &str, version: u32) -> Result<Versioned<KeyRecord>, Error> {
    let found = core.read::<KeyRecord>(&key_id(key, version)).await?;
    found.ok_or(Error::Refused(Reason::KeyNotFound))
}

/// Reads the primary version of the key that has this first version. Of a key that was never
/// rotated that is the same.
async fn read_primary(
    core: &Core,
    first: Versioned<KeyRecord>,
) -> Result<Versioned<KeyRecord>, Error> {
    match first.record.head()?.primary {
        FIRST_VERSION => Ok(first),
        primary => read_version(core, &first.record.name, primary).await,
    }
}

/// The first version of a key, which also tells what is said of the key as a whole.
const FIRST_VERSION: u32 = 1;

/// Here data becomes a type: nowhere else is a `Key<U>` made from a stored one.
fn open_key<U: StoredUsage>(
    core: &Core,
    versioned: Versioned<KeyRecord>,
    operation: Operation,
    now: super::clock::UnixMillis,
) -> Result<StoredKey<U>, Error> {
    let record = &versioned.record;
    if !U::CODES.contains(&record.usage.code()) {
        return Err(Error::Refused(Reason::KeyUsageMismatch));
    }
    record.check(operation, now)?;
    let material = at_rest::unwrap(core, record)?;
    let key = typed(record, material)?;
    Ok(StoredKey { key, versioned })
}

fn typed<U: Usage>(record: &KeyRecord, material: Material) -> Result<Key<U>, Error> {
    let wrong = |_| Error::incident("a stored key is not of its algorithm", &record.name);
    let key = Key::<U>::from_material(record.algorithm, material).map_err(wrong)?;
    let shown = data_encoding::HEXUPPER.encode(key.check_value().bytes());
    if shown == record.check_value {
        Ok(key)
    } else {
        Err(Error::incident("a stored key has another check value", &record.name))
    }
}

/// The bytes of a key once more, to be wrapped: a key block is made from material alone.
fn material_of<U: Usage>(key: &Key<U>) -> Material {
    Material::copied_from(key.expose_bytes())
}
