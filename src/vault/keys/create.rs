//! New keys: made here, or brought in a key block.

use std::collections::{BTreeMap, BTreeSet};

use super::at_rest::{self, is_own};
use super::attributes::completed;
use super::published::is_published;
use super::record::{DescribedKey, KeyAttributes, KeyHead, KeyRecord, KeySet, key_id};
use super::state::{KeyState, Operation};
use super::vocabulary::{Exportability, KeyUsage, ModeOfUse, Origin};
use super::{FIRST_VERSION, WrappingKey, material_of, read_primary, read_version};
use crate::key::usage::{DataBoth, KeyBlockProtection, Usage};
use crate::key::{Algorithm, Key};
use crate::keyblock::{self, Header, OptionalBlock, Unwrapped};
use crate::vault::clock::UnixMillis;
use crate::vault::error::Error;
use crate::vault::reason::Reason;
use crate::vault::record::Versioned;
use crate::vault::seal::Realm;
use crate::vault::work::Work;

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its name, without `keys/`: a lower-case letter, then letters, digits and hyphens, 63 at
    /// most.
    pub name: String,
    /// What it is for.
    pub usage: KeyUsage,
    /// Its algorithm and length.
    pub algorithm: Algorithm,
    /// What it may do; none for the usual mode of the usage.
    pub mode_of_use: Option<ModeOfUse>,
    /// Where it may go; none for nowhere.
    pub exportability: Option<Exportability>,
    /// What it may do beyond its usage. Empty lists of formats become the usual ones.
    pub attributes: KeyAttributes,
    /// What people call it by.
    pub labels: BTreeMap<String, String>,
    /// What becomes of it; as its first version it is the primary one, whatever stands here.
    pub start: Start,
}

/// What becomes of a new version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It is in use by its own name.
    Active,
    /// It is not in use, until somebody says so.
    PreActive,
    /// It is in use, and what the name of the key means from now on.
    Primary,
}

/// The next version of a key, to be made here.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The key's name, without `keys/`.
    pub name: String,
    /// What it has of its own: see [`KeyAttributes::renewed`].
    pub attributes: KeyAttributes,
    /// What becomes of it.
    pub start: Start,
}

/// A key to be imported.
#[derive(Debug, Clone)]
pub struct ImportKey<'a> {
    /// Its name, as in [`NewKey`].
    pub name: String,
    /// The key block: version D, or B under TDES.
    pub key_block: &'a str,
    /// Where it may go: not further than the block says; none for as far.
    pub exportability: Option<Exportability>,
    /// What it may do beyond its usage; of a next version what it has of its own.
    pub attributes: KeyAttributes,
    /// What it is to be.
    pub brings: Brings,
    /// What becomes of the version.
    pub start: Start,
}

/// What an imported key is to be.
#[derive(Debug, Clone)]
pub enum Brings {
    /// A key of its own, with these labels.
    Key(BTreeMap<String, String>),
    /// The next version of a key that there is.
    NextVersion,
}

impl Work {
    /// Makes a random key.
    pub async fn create_key(&mut self, new: NewKey) -> Result<DescribedKey, Error> {
        let key = self.generate(new.algorithm)?;
        self.add_new(new, Origin::Generated, &key).await
    }

    /// Makes the key that the components of a ceremony combine to.
    ///
    /// A key that was published is `KEY_BLOCK_REJECTED` in a live realm, as it is in a block.
    pub async fn create_key_of_components<U: Usage>(
        &mut self,
        new: NewKey,
        key: &Key<U>,
    ) -> Result<DescribedKey, Error> {
        let rejected = Error::Refused(Reason::KeyBlockRejected);
        key.refuse_weak().map_err(|_| rejected)?;
        let shown = data_encoding::HEXUPPER.encode(key.check_value().bytes());
        if self.core().sealer.realm() == Realm::Live && is_published(&shown) {
            return Err(rejected);
        }
        self.add_new(new, Origin::Ceremony, key).await
    }

    async fn add_new<U: Usage>(
        &mut self,
        new: NewKey,
        origin: Origin,
        key: &Key<U>,
    ) -> Result<DescribedKey, Error> {
        let description = Description {
            name: new.name,
            usage: new.usage,
            algorithm: new.algorithm,
            mode_of_use: new.mode_of_use.unwrap_or(new.usage.modes()[0]),
            exportability: new.exportability.unwrap_or(Exportability::NonExportable),
            attributes: new.attributes,
            origin,
            carried_by: BTreeSet::new(),
            start: new.start,
        };
        self.add_first(description, new.labels, key, &[]).await
    }

    /// Makes the next version of a key: random, and else as its primary version is, whatever state
    /// that is in. The other versions stay as they are.
    ///
    /// `FIELD_INVALID` for an attribute that is not a version's own, for a key set id that is
    /// missing, and for a primary version that begins later.
    pub async fn rotate_key(&mut self, rotation: Rotation) -> Result<DescribedKey, Error> {
        let first = read_version(self.core(), &rotation.name, FIRST_VERSION).await?;
        let primary = read_primary(self.core(), first.clone()).await?;
        let description = Description {
            attributes: primary.record.attributes.renewed(rotation.attributes)?,
            origin: Origin::Generated,
            carried_by: BTreeSet::new(),
            start: rotation.start,
            ..Description::of(&primary.record)
        };
        self.expects(&primary);
        let key = self.generate(description.algorithm)?;
        self.add_next(first, description, &key, &[]).await
    }

    /// Imports a key, or the next version of one, from a key block.
    ///
    /// The block must unwrap, be of a known usage with an algorithm and a mode that it has, and
    /// hold no weak TDES key, else `KEY_BLOCK_REJECTED`; a live realm refuses so what was published
    /// too. The wrapping key must be as strong as what it brings, else `WRAPPING_KEY_TOO_WEAK`.
    /// Attributes that are not of the usage are named and `FIELD_INVALID`. A next version of
    /// another usage, algorithm or mode than the key is `KEY_USAGE_MISMATCH`.
    pub async fn import_key(
        &mut self,
        import: ImportKey<'_>,
        wrapping: &WrappingKey,
    ) -> Result<DescribedKey, Error> {
        wrapping.record().check(Operation::Unwrap, self.now())?;
        self.uses_record(wrapping.versioned());
        let rejected = Error::Refused(Reason::KeyBlockRejected);
        let unwrapped = match wrapping {
            WrappingKey::Encryption(key) => keyblock::unwrap(key.key(), import.key_block),
            WrappingKey::Protection(key) => keyblock::unwrap(key.key(), import.key_block),
        }
        .map_err(|_| rejected)?;
        if unwrapped.algorithm.strength_bits() > wrapping.record().algorithm.strength_bits() {
            return Err(Error::Refused(Reason::WrappingKeyTooWeak));
        }
        self.notes_carried().await?;
        let carried_by = BTreeSet::from([wrapping.record().version_name()]);
        self.add_unwrapped(import, unwrapped, carried_by).await
    }

    /// Imports a key of a development service from a key block under `protection`, a published key
    /// that is not stored here; `POLICY_DENIED` in every other realm.
    pub async fn import_key_for_dev_only(
        &mut self,
        import: ImportKey<'_>,
        protection: &Key<KeyBlockProtection>,
    ) -> Result<DescribedKey, Error> {
        if self.core().sealer.realm() != Realm::Dev {
            return Err(Error::Refused(Reason::PolicyDenied));
        }
        let unwrapped = keyblock::unwrap(protection, import.key_block)
            .map_err(|_| Error::Refused(Reason::KeyBlockRejected))?;
        self.add_unwrapped(import, unwrapped, BTreeSet::new()).await
    }

    async fn add_unwrapped(
        &mut self,
        import: ImportKey<'_>,
        unwrapped: Unwrapped,
        carried_by: BTreeSet<String>,
    ) -> Result<DescribedKey, Error> {
        let rejected = Error::Refused(Reason::KeyBlockRejected);
        let Unwrapped { header, algorithm, material } = unwrapped;
        let usage = KeyUsage::from_code(header.usage).ok_or(rejected)?;
        let mode_of_use = ModeOfUse::from_letter(header.mode).ok_or(rejected)?;
        let received = Exportability::from_letter(header.exportability).ok_or(rejected)?;
        let key = Key::<DataBoth>::from_material(algorithm, material);
        let key = key.map_err(|_| rejected)?;
        key.refuse_weak().map_err(|_| rejected)?;
        let fits = usage != KeyUsage::InitialDukpt
            && usage.permits(algorithm)
            && usage.modes().contains(&mode_of_use);
        if !fits || !is_acceptable(&header, &key, self.core().sealer.realm()) {
            return Err(rejected);
        }
        let asked = import.exportability.unwrap_or(received);
        let exportability =
            received.tightened_to(asked).ok_or(Error::Refused(Reason::PolicyDenied))?;
        let description = Description {
            name: import.name,
            usage,
            algorithm,
            mode_of_use,
            exportability,
            attributes: import.attributes,
            origin: Origin::Imported,
            carried_by,
            start: import.start,
        };
        let kept: Vec<OptionalBlock> =
            header.optional().iter().filter(|block| stays(block.id())).cloned().collect();
        match import.brings {
            Brings::Key(labels) => self.add_first(description, labels, &key, &kept).await,
            Brings::NextVersion => self.add_renewed(description, &key, &kept).await,
        }
    }

    /// Adds what was brought as the next version of a key that is like it.
    async fn add_renewed<U: Usage>(
        &mut self,
        brought: Description,
        key: &Key<U>,
        kept: &[OptionalBlock],
    ) -> Result<DescribedKey, Error> {
        let first = read_version(self.core(), &brought.name, FIRST_VERSION).await?;
        let primary = read_primary(self.core(), first.clone()).await?;
        let like = &primary.record;
        let is_like = (brought.usage, brought.algorithm, brought.mode_of_use)
            == (like.usage, like.algorithm, like.mode_of_use);
        if !is_like {
            return Err(Error::Refused(Reason::KeyUsageMismatch));
        }
        // What may not leave does not become free to by a rotation.
        let exportability = like.exportability.tightened_to(brought.exportability);
        let exportability = exportability.ok_or(Error::Refused(Reason::PolicyDenied))?;
        let attributes = like.attributes.renewed(brought.attributes)?;
        self.expects(&primary);
        let description = Description { exportability, attributes, ..brought };
        self.add_next(first, description, key, kept).await
    }

    async fn add_first<U: Usage>(
        &mut self,
        description: Description,
        labels: BTreeMap<String, String>,
        key: &Key<U>,
        kept: &[OptionalBlock],
    ) -> Result<DescribedKey, Error> {
        let head = KeyHead { primary: FIRST_VERSION, latest: FIRST_VERSION, labels };
        let record = description.version(FIRST_VERSION, Some(head.clone()), self.now())?;
        if self.core().read::<KeyRecord>(&key_id(&record.name, FIRST_VERSION)).await?.is_some() {
            return Err(Error::Refused(Reason::KeyAlreadyExists));
        }
        Ok(self.add_version(record, key, kept).await?.described(head))
    }

    async fn add_next<U: Usage>(
        &mut self,
        mut first: Versioned<KeyRecord>,
        description: Description,
        key: &Key<U>,
        kept: &[OptionalBlock],
    ) -> Result<DescribedKey, Error> {
        let mut head = first.record.head()?.clone();
        let version = head.latest.checked_add(1);
        let version = version.ok_or(Error::incident("a key has no more versions", "keys"))?;
        let becomes_primary = description.start == Start::Primary;
        let now = self.now();
        let record = description.version(version, None, now)?;
        // Nothing could be started with the key until then.
        if becomes_primary && !record.is_in_originator_period(now) {
            return Err(Error::AttributeInvalid { name: "not_before" });
        }
        head.latest = version;
        if becomes_primary {
            head.primary = version;
        }
        first.record.head = Some(head.clone());
        self.put(&first)?;
        Ok(self.add_version(record, key, kept).await?.described(head))
    }

    async fn add_version<U: Usage>(
        &mut self,
        mut record: KeyRecord,
        key: &Key<U>,
        kept: &[OptionalBlock],
    ) -> Result<KeyRecord, Error> {
        let material = material_of(key);
        record.check_value = data_encoding::HEXUPPER.encode(key.check_value().bytes());
        self.takes_material(&record, &material).await?;
        if let Some(key_set_id) = &record.attributes.key_set_id {
            if self.core().read::<KeySet>(key_set_id).await?.is_some() {
                return Err(Error::Refused(Reason::KeyAlreadyExists));
            }
            let set = KeySet { key_set_id: key_set_id.clone(), key: record.version_name() };
            self.put(&Versioned::absent(set))?;
        }
        record.key_block = Some(at_rest::wrap(self.core(), &record, &material, kept)?);
        self.put(&Versioned::absent(record.clone()))?;
        self.uses_record(&Versioned::absent(record.clone()));
        Ok(record)
    }

    fn generate(&self, algorithm: Algorithm) -> Result<Key<DataBoth>, Error> {
        // The type parameter is of no consequence: the key is wrapped before anything is done.
        Key::<DataBoth>::generate(algorithm, &*self.core().rng)
            .map_err(|_| Error::incident("the random number generator failed", ""))
    }
}

/// What a new version is to be.
pub(super) struct Description {
    pub(super) name: String,
    pub(super) usage: KeyUsage,
    pub(super) algorithm: Algorithm,
    pub(super) mode_of_use: ModeOfUse,
    exportability: Exportability,
    attributes: KeyAttributes,
    origin: Origin,
    carried_by: BTreeSet<String>,
    start: Start,
}

impl Description {
    /// What a version is.
    fn of(record: &KeyRecord) -> Self {
        Self {
            name: record.name.clone(),
            usage: record.usage,
            algorithm: record.algorithm,
            mode_of_use: record.mode_of_use,
            exportability: record.exportability,
            attributes: record.attributes.clone(),
            origin: record.origin,
            carried_by: record.carried_by.clone(),
            start: Start::Active,
        }
    }

    /// The record of such a version, less the key and its check value.
    fn version(
        self,
        version: u32,
        head: Option<KeyHead>,
        now: UnixMillis,
    ) -> Result<KeyRecord, Error> {
        let attributes = completed(&self, self.attributes.clone())?;
        let state = match self.start {
            Start::Active | Start::Primary => KeyState::Active,
            Start::PreActive => KeyState::PreActive,
        };
        Ok(KeyRecord {
            name: self.name,
            version,
            epoch: 1,
            usage: self.usage,
            algorithm: self.algorithm,
            mode_of_use: self.mode_of_use,
            exportability: self.exportability,
            attributes,
            state,
            serve_until: None,
            origin: self.origin,
            check_value: String::new(),
            created: now,
            updated: now,
            head,
            carried_by: self.carried_by,
            compromised_through: BTreeSet::new(),
            key_block: None,
        })
    }
}

/// Checks what stands in a block beside the key itself: the optional blocks that speak of it, and
/// in a live realm that it was never published.
pub(super) fn is_acceptable<U: Usage>(header: &Header, key: &Key<U>, realm: Realm) -> bool {
    let shown = data_encoding::HEXUPPER.encode(key.check_value().bytes());
    let public = is_published(&shown)
        || header.find(at_rest::LABEL).is_some_and(|label| label.starts_with(DEV_LABEL));
    // KC: two digits of the method, then the check value (ANSI X9.143:2021, 6.3.9).
    let check_value = header.find(*b"KC").and_then(|data| data.get(2..));
    let hash = header.find(*b"HM");
    !(public && realm == Realm::Live)
        && check_value.is_none_or(|prefix| shown.starts_with(prefix))
        && hash.is_none_or(|hash| super::exchange::hash_block(key.algorithm()) == Some(hash))
}

/// The label of sample keys begins with this.
const DEV_LABEL: &str = "DEV-ONLY";

/// Whether an optional block that came with a key stays with it: not those that are made anew, nor
/// those that speak of the block's own wrapping.
fn stays(id: [u8; 2]) -> bool {
    !is_own(id) && ![*b"KC", *b"KP", *b"HM"].contains(&id)
}
