//! Keys that leave in a key block, for those who may have them.

use super::at_rest;
use super::state::Operation;
use super::vocabulary::{Exportability, Origin};
use super::{WrappingKey, material_of, read_key};
use crate::key::usage::InitialDukpt;
use crate::key::{Algorithm, Key, Material};
use crate::keyblock::{self, Header, OptionalBlock, Version, WrapError};
use crate::vault::error::Error;
use crate::vault::reason::Reason;
use crate::vault::seal::Realm;
use crate::vault::work::Work;

/// A key to be exported.
#[derive(Debug, Clone, Copy)]
pub struct ExportKey<'a> {
    /// Its name, without `keys/`.
    pub name: &'a str,
    /// What the block shall say of further export; none for `N`.
    pub exportability: Option<Exportability>,
}

/// A key that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedKey {
    /// The key block, of version D under AES, B under TDES.
    pub key_block: String,
    /// What the block does not carry, by the names of the attributes.
    pub dropped_attributes: Vec<&'static str>,
    /// The check value of the key, in upper case hexadecimals.
    pub check_value: String,
}

impl Work {
    /// Exports a key of exportability `E` under a key at least as strong.
    ///
    /// `POLICY_DENIED` for one that may not leave, `WRAPPING_KEY_TOO_WEAK`, `KEY_NOT_ACTIVE`.
    ///
    /// In a live realm an imported wrapping key is refused with `POLICY_DENIED` too. Whoever
    /// brought it in may know it, and would read with it what was made here (a trojan key). The
    /// rule looks at the wrapping key alone: a key that was exported and imported again says
    /// `imported` too.
    pub async fn export_key(
        &mut self,
        export: ExportKey<'_>,
        wrapping: &WrappingKey,
    ) -> Result<ExportedKey, Error> {
        let mut found = read_key(self.core(), export.name).await?;
        let record = &found.record;
        let now = self.now();
        let version = self.check_carries_out(wrapping, record.algorithm)?;
        if record.exportability != Exportability::Exportable {
            return Err(Error::Refused(Reason::PolicyDenied));
        }
        record.check(Operation::Export, now)?;
        let exportability = export.exportability.unwrap_or(Exportability::NonExportable);
        let (material, kept) = at_rest::open(self.core(), record)?;
        let letter = record.algorithm.header_letter();
        let mut header =
            Header::new(version, record.usage.code(), letter, record.mode_of_use.letter());
        header.exportability = exportability.letter();
        let hash = hash_block(record.algorithm).map(|hash| OptionalBlock::new(*b"HM", hash));
        for block in hash.into_iter().chain(kept.into_iter().map(Ok)) {
            block.and_then(|block| header.push(block)).map_err(|_| {
                Error::incident("a key block header can not be written", &record.name)
            })?;
        }
        self.uses_record(&found);
        let exported = ExportedKey {
            key_block: self.wrap_out(&header, &material, wrapping)?,
            dropped_attributes: DROPPED.to_vec(),
            check_value: record.check_value.clone(),
        };
        if found.record.carried_by.insert(wrapping.record().version_name()) {
            self.notes_carried().await?;
            self.put(&found)?;
        }
        Ok(exported)
    }

    /// Exports the initial key of a device under a key at least as strong, as the header says.
    /// Nothing of it stays: who has its base derivation key derives it again.
    ///
    /// The wrapping key is held to the rules of [`Work::export_key`].
    pub fn export_initial_key(
        &mut self,
        header: &Header,
        key: &Key<InitialDukpt>,
        wrapping: &WrappingKey,
    ) -> Result<String, Error> {
        self.check_carries_out(wrapping, key.algorithm())?;
        self.wrap_out(header, &material_of(key), wrapping)
    }

    /// Checks whether a key of an algorithm may leave under a wrapping key, and tells the version
    /// of the key block: D under AES, B under TDES. See [`Work::export_key`].
    pub fn check_carries_out(
        &self,
        wrapping: &WrappingKey,
        algorithm: Algorithm,
    ) -> Result<Version, Error> {
        let record = wrapping.record();
        record.check(Operation::Wrap, self.now())?;
        if !may_carry_out(record.origin, self.core().sealer.realm()) {
            return Err(Error::Refused(Reason::PolicyDenied));
        }
        if algorithm.strength_bits() > record.algorithm.strength_bits() {
            return Err(Error::Refused(Reason::WrappingKeyTooWeak));
        }
        Ok(if record.algorithm.is_aes() { Version::D } else { Version::B })
    }

    fn wrap_out(
        &mut self,
        header: &Header,
        material: &Material,
        wrapping: &WrappingKey,
    ) -> Result<String, Error> {
        let rng = &*self.core().rng;
        let key_block = match wrapping {
            WrappingKey::Encryption(key) => keyblock::wrap(key.key(), header, material, rng),
            WrappingKey::Protection(key) => keyblock::wrap(key.key(), header, material, rng),
        }
        .map_err(|error| wrap_failed(error, &wrapping.record().name))?;
        self.uses_record(wrapping.versioned());
        Ok(key_block.into())
    }
}

/// Whether keys may leave under a wrapping key of this origin.
pub(super) const fn may_carry_out(origin: Origin, realm: Realm) -> bool {
    match (realm, origin) {
        (Realm::Live, Origin::Imported) => false,
        (Realm::Dev, _) | (Realm::Live, Origin::Ceremony | Origin::Generated) => true,
    }
}

/// What stands in the blocks `88` and `LB` at rest, by the names of the API.
const DROPPED: [&str; 10] = [
    "device_cap",
    "expire_time",
    "key_set_id",
    "mac_length_min_bytes",
    "mac_message_length_bytes",
    "not_before",
    "open",
    "pin_formats_in",
    "pin_formats_out",
    "recipient_end_time",
];

fn wrap_failed(error: WrapError, name: &str) -> Error {
    match error {
        WrapError::Strength => Error::Refused(Reason::WrappingKeyTooWeak),
        WrapError::Header(_) | WrapError::KeyLength | WrapError::Random(_) | WrapError::Version => {
            Error::incident("a key can not be exported", name)
        }
    }
}

/// The content of the optional block `HM`: the hash that an HMAC key is for, which here follows
/// from its length (ANSI X9.143:2021, 6.3.9, table of hash algorithms).
pub(super) const fn hash_block(algorithm: Algorithm) -> Option<&'static str> {
    match algorithm {
        Algorithm::Hmac256 => Some("21"),
        Algorithm::Hmac384 => Some("22"),
        Algorithm::Hmac512 => Some("23"),
        Algorithm::Aes128
        | Algorithm::Aes192
        | Algorithm::Aes256
        | Algorithm::Hmac128
        | Algorithm::Hmac192
        | Algorithm::Tdes2
        | Algorithm::Tdes3 => None,
    }
}
