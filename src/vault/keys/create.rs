//! New keys: made here, or brought in a key block.

use super::at_rest::{self, is_own};
use super::published::is_published;
use super::record::{DEVICE_CAP, KeyAttributes, KeyRecord, KeySet, MAC_LENGTH_MIN_BYTES, key_id};
use super::state::{KeyState, Operation};
use super::vocabulary::{Exportability, KeyUsage, ModeOfUse, Origin};
use super::{FIRST_VERSION, WrappingKey, material_of};
use crate::key::usage::{DataBoth, KeyBlockProtection, Usage};
use crate::key::{Algorithm, Key};
use crate::keyblock::{self, Header, OptionalBlock, Unwrapped};
use crate::mac::MacAlgorithm;
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
    /// What it may do beyond its usage.
    pub attributes: KeyAttributes,
}

impl Work {
    /// Makes a random key, active from the commit on.
    pub async fn create_key(&mut self, new: NewKey) -> Result<KeyRecord, Error> {
        let description = Description {
            name: new.name,
            usage: new.usage,
            algorithm: new.algorithm,
            mode_of_use: new.mode_of_use.unwrap_or(new.usage.modes()[0]),
            exportability: new.exportability.unwrap_or(Exportability::NonExportable),
            attributes: new.attributes,
            origin: Origin::Generated,
        };
        // The type parameter is of no consequence: the key is wrapped in the next lines.
        let key = Key::<DataBoth>::generate(description.algorithm, &*self.core().rng)
            .map_err(|_| Error::incident("the random number generator failed", ""))?;
        self.add_key(description, &key, &[]).await
    }

    /// Imports a key from a key block, active from the commit on.
    ///
    /// The block must unwrap, be of a known usage with an algorithm and a mode that it has, and
    /// hold no weak TDES key, else `KEY_BLOCK_REJECTED`; a live realm refuses so what was published
    /// too. The wrapping key must be as strong as what it brings, else `WRAPPING_KEY_TOO_WEAK`.
    /// Attributes that are not of the usage are named and `FIELD_INVALID`.
    pub async fn import_key(
        &mut self,
        import: ImportKey<'_>,
        wrapping: &WrappingKey,
    ) -> Result<KeyRecord, Error> {
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
        self.add_unwrapped(import, unwrapped).await
    }

    /// Imports a key of a development service from a key block under `protection`, a published key
    /// that is not stored here; `POLICY_DENIED` in every other realm.
    pub async fn import_key_for_dev_only(
        &mut self,
        import: ImportKey<'_>,
        protection: &Key<KeyBlockProtection>,
    ) -> Result<KeyRecord, Error> {
        if self.core().sealer.realm() != Realm::Dev {
            return Err(Error::Refused(Reason::PolicyDenied));
        }
        let unwrapped = keyblock::unwrap(protection, import.key_block)
            .map_err(|_| Error::Refused(Reason::KeyBlockRejected))?;
        self.add_unwrapped(import, unwrapped).await
    }

    async fn add_unwrapped(
        &mut self,
        import: ImportKey<'_>,
        unwrapped: Unwrapped,
    ) -> Result<KeyRecord, Error> {
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
        };
        let kept: Vec<OptionalBlock> =
            header.optional().iter().filter(|block| stays(block.id())).cloned().collect();
        self.add_key(description, &key, &kept).await
    }

    async fn add_key<U: Usage>(
        &mut self,
        description: Description,
        key: &Key<U>,
        kept: &[OptionalBlock],
    ) -> Result<KeyRecord, Error> {
        let Description { attributes, .. } = &description;
        let attributes = completed(&description, attributes.clone())?;
        if self.core().read::<KeyRecord>(&key_id(&description.name, FIRST_VERSION)).await?.is_some()
        {
            return Err(Error::Refused(Reason::KeyAlreadyExists));
        }
        if let Some(key_set_id) = &attributes.key_set_id {
            if self.core().read::<KeySet>(key_set_id).await?.is_some() {
                return Err(Error::Refused(Reason::KeyAlreadyExists));
            }
            let set = KeySet { key_set_id: key_set_id.clone(), key: description.name.clone() };
            self.put(&Versioned::absent(set))?;
        }
        let now = self.now();
        let mut record = KeyRecord {
            name: description.name,
            version: FIRST_VERSION,
            epoch: 1,
            usage: description.usage,
            algorithm: description.algorithm,
            mode_of_use: description.mode_of_use,
            exportability: description.exportability,
            attributes,
            state: KeyState::Active,
            serve_until: None,
            origin: description.origin,
            check_value: data_encoding::HEXUPPER.encode(key.check_value().bytes()),
            created: now,
            updated: now,
            key_block: None,
        };
        record.key_block = Some(at_rest::wrap(self.core(), &record, &material_of(key), kept)?);
        self.put(&Versioned::absent(record.clone()))?;
        self.uses_record(&Versioned::absent(record.clone()));
        Ok(record)
    }
}

/// What a new key is to be.
struct Description {
    name: String,
    usage: KeyUsage,
    algorithm: Algorithm,
    mode_of_use: ModeOfUse,
    exportability: Exportability,
    attributes: KeyAttributes,
    origin: Origin,
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

/// Checks the attributes against usage and algorithm, and fills in the usual ones.
fn completed(
    description: &Description,
    mut attributes: KeyAttributes,
) -> Result<KeyAttributes, Error> {
    let Description { name, usage, algorithm, mode_of_use, .. } = description;
    let is_bdk = *usage == KeyUsage::BaseDerivation;
    let has_pins = has_pins(*usage);
    fill_in(&mut attributes, *usage, *algorithm);
    if let Some(id) = &mut attributes.key_set_id {
        id.make_ascii_uppercase();
    }
    let id_len = if algorithm.is_aes() { 8 } else { 10 };
    let key_set_id_fits = attributes.key_set_id.as_ref().is_none_or(|id| {
        is_bdk && id.len() == id_len && id.bytes().all(|octet| octet.is_ascii_hexdigit())
    });
    let formats_in = pin_formats(*usage, *algorithm, &[0, 1, 3, 4]);
    let formats_out = pin_formats(*usage, *algorithm, &[0, 3, 4]);
    let fits = is_key_name(name)
        && *usage != KeyUsage::InitialDukpt
        && usage.permits(*algorithm)
        && usage.modes().contains(mode_of_use);
    if !fits {
        return Err(Error::Refused(Reason::FieldInvalid));
    }
    let all = |formats: &[u8], of: &[u8]| formats.iter().all(|one| has_pins && of.contains(one));
    let mac_fits = mac_length_fits(*usage, *algorithm, attributes.mac_length_min_bytes);
    let cap = attributes.device_cap;
    let device_cap_fits = if is_bdk { cap > 0 } else { cap == DEVICE_CAP };
    let checks = [
        ("pin_formats_in", all(&attributes.pin_formats_in, &formats_in)),
        ("pin_formats_out", all(&attributes.pin_formats_out, &formats_out)),
        ("mac_length_min_bytes", mac_fits),
        ("mac_message_length_bytes", chains(*usage) || attributes.mac_message_length_bytes == 0),
        ("key_set_id", key_set_id_fits),
        ("device_cap", device_cap_fits),
        ("open", is_bdk || !attributes.open),
    ];
    match checks.into_iter().find(|(_, fits)| !fits) {
        Some((name, _)) => Err(Error::AttributeInvalid { name }),
        None => Ok(attributes),
    }
}

impl KeyAttributes {
    /// Those of a key of which nothing else is said.
    #[must_use]
    pub fn usual(usage: KeyUsage, algorithm: Algorithm) -> Self {
        let mut attributes = Self::default();
        fill_in(&mut attributes, usage, algorithm);
        attributes
    }
}

/// Fills in the usual formats where none are named.
fn fill_in(attributes: &mut KeyAttributes, usage: KeyUsage, algorithm: Algorithm) {
    if has_pins(usage) && attributes.pin_formats_in.is_empty() {
        attributes.pin_formats_in = pin_formats(usage, algorithm, &[0, 3, 4]);
    }
    if has_pins(usage) && attributes.pin_formats_out.is_empty() {
        attributes.pin_formats_out = pin_formats(usage, algorithm, &[3, 4]);
    }
}

/// Whether PIN blocks come and go under keys of a usage, or under what is derived from them.
fn has_pins(usage: KeyUsage) -> bool {
    matches!(usage, KeyUsage::BaseDerivation | KeyUsage::PinEncryption)
}

/// Whether a key may ask for so long a MAC: no longer than the longest that it makes. Keys that
/// make none have nothing to ask for.
fn mac_length_fits(usage: KeyUsage, algorithm: Algorithm, len_bytes: u8) -> bool {
    let longest = match usage {
        // AES DUKPT derives keys of every MAC algorithm.
        KeyUsage::BaseDerivation if algorithm.is_aes() => 64,
        KeyUsage::BaseDerivation
        | KeyUsage::MacAlgorithm1
        | KeyUsage::MacAlgorithm3
        | KeyUsage::MacCmac
        | KeyUsage::MacHmac => {
            let fitting = MacAlgorithm::ALL.into_iter().filter(|one| one.fits(algorithm));
            fitting.map(MacAlgorithm::len_bytes).max().unwrap_or_default()
        }
        KeyUsage::DataEncryption
        | KeyUsage::InitialDukpt
        | KeyUsage::KeyBlockProtection
        | KeyUsage::KeyDerivation
        | KeyUsage::KeyEncryption
        | KeyUsage::PinEncryption => return len_bytes == MAC_LENGTH_MIN_BYTES,
    };
    (4..=longest).contains(&usize::from(len_bytes))
}

/// Whether its MACs chain blocks, so that a fixed length of the messages is of use: ISO 9797-1
/// algorithms 1 and 3, and base derivation keys, from which keys for them are derived.
const fn chains(usage: KeyUsage) -> bool {
    matches!(usage, KeyUsage::BaseDerivation | KeyUsage::MacAlgorithm1 | KeyUsage::MacAlgorithm3)
}

/// Of the given formats those that the algorithm carries: 0, 1 and 3 TDES, 4 AES (ISO 9564-1).
/// AES DUKPT derives TDES working keys too.
fn pin_formats(usage: KeyUsage, algorithm: Algorithm, of: &[u8]) -> Vec<u8> {
    let derives_both = usage == KeyUsage::BaseDerivation && algorithm.is_aes();
    let carried = |format: &u8| derives_both || (*format == 4) == algorithm.is_aes();
    of.iter().copied().filter(carried).collect()
}

fn is_key_name(name: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(allowed)
}
