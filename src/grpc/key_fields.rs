//! The fields of keys at the edge: attributes, labels, filters, descriptions.

use std::collections::BTreeMap;

use prost_types::Timestamp;

use super::convert::{self, timestamp};
use super::proto;
use super::vocabulary::{
    MESSAGE_LEN_BYTES_MAX, from_algorithm, from_exportability, from_mode, from_origin, from_state,
    from_usage, to_algorithm, to_format, to_origin, to_state, to_usage,
};
use crate::command::Error;
use crate::command::read_keys::Filter;
use crate::pin::PinBlockFormat;
use crate::vault::{
    self, Brings, DEVICE_CAP, DescribedKey, KeyAttributes, MAC_LENGTH_MIN_BYTES, Start, UnixMillis,
};

/// The longest key block, in characters: the highest multiple of 16, as version D has it, that the
/// four digits of its length field can say.
const KEY_BLOCK_LEN_MAX: usize = 9_984;

/// How many labels a key has at most.
const LABELS_MAX: usize = 16;

/// The longest name or value of a label, in characters.
const LABEL_LEN_MAX: usize = 63;

/// A key block, printable.
pub(super) fn to_key_block(key_block: &str) -> Result<String, Error> {
    convert::text("key_block", key_block, 1..=KEY_BLOCK_LEN_MAX)
}

/// Attributes whose zeros and gaps are filled with what the proto says they stand for; the usual
/// formats of a PIN key are the vault's to fill in, as it knows the algorithm.
pub(super) fn to_attributes(
    attributes: Option<proto::KeyAttributes>,
) -> Result<KeyAttributes, Error> {
    let given = attributes.unwrap_or_default();
    let moment = |name, time| moment(&format!("attributes.{name}"), time);
    Ok(KeyAttributes {
        pin_formats_in: to_formats("attributes.pin_formats_in", &given.pin_formats_in)?,
        pin_formats_out: to_formats("attributes.pin_formats_out", &given.pin_formats_out)?,
        mac_length_min_bytes: to_mac_length_min(given.mac_length_min_bytes)?,
        mac_message_length_bytes: to_mac_message_length(given.mac_message_length_bytes)?,
        key_set_id: to_key_set_id("attributes.key_set_id", &given.key_set_id)?,
        device_cap: if given.device_cap == 0 { DEVICE_CAP } else { given.device_cap },
        open: given.open,
        not_before: moment("not_before", given.not_before)?,
        not_after: moment("expire_time", given.expire_time)?,
        recipient_not_after: moment("recipient_end_time", given.recipient_end_time)?,
        ..KeyAttributes::default()
    })
}

fn moment(path: &str, time: Option<Timestamp>) -> Result<Option<UnixMillis>, Error> {
    Ok(time.map(|time| convert::unix_ms(path, time)).transpose()?.map(UnixMillis))
}

/// What a version that is made by a rotation has of its own.
pub(super) fn version_attributes(body: &proto::RotateKeyRequest) -> Result<KeyAttributes, Error> {
    Ok(KeyAttributes {
        key_set_id: to_key_set_id("key_set_id", &body.key_set_id)?,
        not_before: moment("not_before", body.not_before)?,
        not_after: moment("expire_time", body.expire_time)?,
        recipient_not_after: moment("recipient_end_time", body.recipient_end_time)?,
        ..KeyAttributes::default()
    })
}

/// What becomes of a new version.
pub(super) const fn start(keep_primary: bool, pre_active: bool) -> Start {
    match (keep_primary, pre_active) {
        (_, true) => Start::PreActive,
        (true, false) => Start::Active,
        (false, false) => Start::Primary,
    }
}

/// What an imported key is to be.
pub(super) fn brings(
    next_version: bool,
    keep_primary: bool,
    given: BTreeMap<String, String>,
) -> Result<Brings, Error> {
    if !next_version {
        return if keep_primary {
            Err(Error::field("keep_primary", "is for a next version"))
        } else {
            labels("labels", given).map(Brings::Key)
        };
    }
    if given.is_empty() {
        Ok(Brings::NextVersion)
    } else {
        Err(Error::field("labels", "are of the key, not of its next version"))
    }
}

/// The labels of a key.
pub(super) fn labels(
    path: &str,
    labels: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Error> {
    if labels.len() > LABELS_MAX {
        return Err(Error::field(path, "are more than 16"));
    }
    let name_fits = |name: &String| {
        let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(rest)
            && name.len() <= LABEL_LEN_MAX
    };
    if !labels.keys().all(name_fits) {
        let cause = "have a name that is not 1 to 63 of a-z, 0-9, - and _, a letter first";
        return Err(Error::field(path, cause));
    }
    for value in labels.values() {
        convert::text(path, value, 0..=LABEL_LEN_MAX)?;
    }
    Ok(labels)
}

/// The key to be updated, and its new labels.
pub(super) fn updated(
    key: Option<proto::Key>,
    mask: Option<prost_types::FieldMask>,
) -> Result<(String, BTreeMap<String, String>), Error> {
    let key = convert::required("key", key)?;
    let id = convert::resource("key.name", "keys", &key.name)?;
    let paths = convert::required("update_mask", mask)?.paths;
    if paths != ["labels"] {
        return Err(Error::field("update_mask", "names what is not labels, the one that changes"));
    }
    Ok((id, labels("key.labels", key.labels)?))
}

/// Which keys are listed.
pub(super) fn key_filter(filter: Option<proto::KeyFilter>) -> Result<Filter, Error> {
    let given = filter.unwrap_or_default();
    let path = |name| format!("filter.{name}");
    let through = given.compromised_through.as_str();
    if !through.is_empty() {
        convert::key_version("filter.compromised_through", through)?;
    }
    let check_value = convert::bytes(&path("check_value"), given.check_value, 0..=5)?;
    Ok(Filter {
        state: some(given.state, |word| to_state(&path("state"), word))?,
        usage: some(given.usage, |word| to_usage(&path("usage"), word))?,
        algorithm: some(given.algorithm, |word| to_algorithm(&path("algorithm"), word))?,
        origin: to_origin(&path("origin"), given.origin)?,
        check_value: data_encoding::HEXUPPER.encode(&check_value),
        key_set_id: to_key_set_id("filter.key_set_id", &given.key_set_id)?,
        labels: labels("filter.labels", given.labels)?,
        compromised_through: convert::optional_key("filter.compromised_through", through)?,
        every_version: given.every_version,
    })
}

/// A word of a filter; none where it is unspecified.
fn some<T>(word: i32, known: impl FnOnce(i32) -> Result<T, Error>) -> Result<Option<T>, Error> {
    if word == 0 { Ok(None) } else { known(word).map(Some) }
}

fn to_formats(path: &str, words: &[i32]) -> Result<Vec<u8>, Error> {
    let mut formats = Vec::new();
    for word in words {
        let number = match to_format(path, *word)? {
            PinBlockFormat::Iso0 => 0,
            PinBlockFormat::Iso1 => 1,
            PinBlockFormat::Iso2 => 2,
            PinBlockFormat::Iso3 => 3,
            PinBlockFormat::Iso4 => 4,
        };
        if formats.contains(&number) {
            return Err(Error::field(path, "names a format twice"));
        }
        formats.push(number);
    }
    Ok(formats)
}

fn to_mac_length_min(len_bytes: u32) -> Result<u8, Error> {
    match len_bytes {
        0 => Ok(MAC_LENGTH_MIN_BYTES),
        4..=64 => Ok(u8::try_from(len_bytes).expect("at most 64 fits")),
        _ => Err(Error::field("attributes.mac_length_min_bytes", "is not 4 to 64")),
    }
}

fn to_mac_message_length(len_bytes: u32) -> Result<u32, Error> {
    if usize::try_from(len_bytes).is_ok_and(|len_bytes| len_bytes <= MESSAGE_LEN_BYTES_MAX) {
        Ok(len_bytes)
    } else {
        Err(Error::field("attributes.mac_message_length_bytes", "is longer than any message"))
    }
}

fn to_key_set_id(path: &str, id: &[u8]) -> Result<Option<String>, Error> {
    match id.len() {
        0 => Ok(None),
        4 | 5 => Ok(Some(data_encoding::HEXUPPER.encode(id))),
        _ => Err(Error::field(path, "is 4 bytes for AES, 5 for TDES")),
    }
}

/// A version of a key.
pub(super) fn from_key(described: &DescribedKey) -> Result<proto::Key, Error> {
    let DescribedKey { record: key, head } = described;
    let attributes = &key.attributes;
    let key_set_id = attributes.key_set_id.as_deref();
    Ok(proto::Key {
        name: format!("keys/{}", key.name),
        version: key.version,
        usage: from_usage(key.usage).into(),
        algorithm: from_algorithm(key.algorithm).into(),
        mode_of_use: from_mode(key.mode_of_use).into(),
        exportability: from_exportability(key.exportability).into(),
        attributes: Some(proto::KeyAttributes {
            pin_formats_in: from_formats(&attributes.pin_formats_in),
            pin_formats_out: from_formats(&attributes.pin_formats_out),
            mac_length_min_bytes: attributes.mac_length_min_bytes.into(),
            mac_message_length_bytes: attributes.mac_message_length_bytes,
            key_set_id: key_set_id.map(from_hex).transpose()?.unwrap_or_default(),
            device_cap: attributes.device_cap,
            open: attributes.open,
            expire_time: attributes.not_after.map(|end| timestamp(end.0)),
            not_before: attributes.not_before.map(|begin| timestamp(begin.0)),
            recipient_end_time: attributes.recipient_not_after.map(|end| timestamp(end.0)),
        }),
        state: from_state(key.state).into(),
        origin: from_origin(key.origin).into(),
        check_value: from_hex(&key.check_value)?,
        create_time: Some(timestamp(key.created.0)),
        update_time: Some(timestamp(key.updated.0)),
        serve_until: key.serve_until.map(|until| timestamp(until.0)),
        primary_version: head.primary,
        latest_version: head.latest,
        labels: head.labels.clone(),
        compromised_through: key
            .compromised_through
            .iter()
            .map(|name| format!("keys/{name}"))
            .collect(),
    })
}

fn from_formats(formats: &[u8]) -> Vec<i32> {
    let word = |format: &u8| match format {
        0 => proto::PinBlockFormat::Iso0,
        1 => proto::PinBlockFormat::Iso1,
        3 => proto::PinBlockFormat::Iso3,
        4 => proto::PinBlockFormat::Iso4,
        _ => proto::PinBlockFormat::Unspecified,
    };
    formats.iter().map(|format| word(format).into()).collect()
}

/// What records hold as text.
pub(super) fn from_hex(text: &str) -> Result<Vec<u8>, Error> {
    data_encoding::HEXUPPER
        .decode(text.as_bytes())
        .map_err(|_| vault::Error::incident("a key's record holds no hexadecimals", "keys").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_attributes_are_the_defaults() {
        assert_eq!(to_attributes(None).unwrap(), KeyAttributes::default());
    }

    #[test]
    fn attributes_are_bounded_and_named() {
        let path = |given| match to_attributes(Some(given)) {
            Err(Error::Field { path, .. }) => path,
            Err(
                Error::Hidden { .. } | Error::Ksn { .. } | Error::Refused { .. } | Error::Vault(_),
            )
            | Ok(_) => String::new(),
        };
        let none = proto::KeyAttributes::default;
        for (given, expected) in [
            (proto::KeyAttributes { pin_formats_in: vec![0], ..none() }, "pin_formats_in"),
            (proto::KeyAttributes { pin_formats_out: vec![1, 1], ..none() }, "pin_formats_out"),
            (proto::KeyAttributes { mac_length_min_bytes: 3, ..none() }, "mac_length_min_bytes"),
            (
                proto::KeyAttributes { mac_message_length_bytes: 61_441, ..none() },
                "mac_message_length_bytes",
            ),
            (proto::KeyAttributes { key_set_id: vec![0; 6], ..none() }, "key_set_id"),
            (
                proto::KeyAttributes {
                    expire_time: Some(prost_types::Timestamp { seconds: -1, nanos: 0 }),
                    ..none()
                },
                "expire_time",
            ),
        ] {
            assert_eq!(path(given), format!("attributes.{expected}"));
        }
    }

    #[test]
    fn formats_come_back_as_they_were_given() {
        let words: Vec<i32> = [1, 3, 4].into();
        let formats = to_formats("f", &words).unwrap();
        assert_eq!(from_formats(&formats), words);
    }
}
