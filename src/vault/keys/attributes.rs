//! What a key may do beyond its usage: which attributes go with which usage and algorithm.

use super::create::Description;
use super::record::{DEVICE_CAP, KeyAttributes, MAC_LENGTH_MIN_BYTES};
use super::vocabulary::KeyUsage;
use crate::key::Algorithm;
use crate::mac::MacAlgorithm;
use crate::vault::clock::UnixMillis;
use crate::vault::error::Error;
use crate::vault::reason::Reason;

/// Checks the attributes against usage and algorithm, and fills in the usual ones.
pub(super) fn completed(
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
    let KeyAttributes { not_before, not_after, recipient_not_after, .. } = attributes;
    let follows = |end: Option<UnixMillis>, others: [Option<UnixMillis>; 2]| {
        end.is_none_or(|end| others.into_iter().flatten().all(|other| other < end))
    };
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
        ("expire_time", follows(not_after, [not_before, None])),
        ("recipient_end_time", follows(recipient_not_after, [not_before, not_after])),
    ];
    match checks.into_iter().find(|(_, fits)| !fits) {
        Some((name, _)) => Err(Error::AttributeInvalid { name }),
        None => Ok(attributes),
    }
}

impl KeyAttributes {
    /// Those of the next version of a key that has these: the same, but for what each version has
    /// of its own. That is its dates, and the key set id of a base derivation key, which it has if
    /// the version before has one.
    pub(super) fn renewed(&self, given: Self) -> Result<Self, Error> {
        let usual = Self::default();
        let checks = [
            ("pin_formats_in", given.pin_formats_in.is_empty()),
            ("pin_formats_out", given.pin_formats_out.is_empty()),
            ("mac_length_min_bytes", given.mac_length_min_bytes == usual.mac_length_min_bytes),
            (
                "mac_message_length_bytes",
                given.mac_message_length_bytes == usual.mac_message_length_bytes,
            ),
            ("key_set_id", given.key_set_id.is_some() || self.key_set_id.is_none()),
            ("device_cap", given.device_cap == usual.device_cap),
            ("open", given.open == usual.open),
        ];
        if let Some((name, _)) = checks.into_iter().find(|(_, fits)| !fits) {
            return Err(Error::AttributeInvalid { name });
        }
        let Self { key_set_id, not_before, not_after, recipient_not_after, .. } = given;
        Ok(Self { key_set_id, not_before, not_after, recipient_not_after, ..self.clone() })
    }

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
