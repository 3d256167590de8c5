//! The edge: fields of requests become types that are valid by construction, or a field's error.

use prost::Message;
use prost_types::Timestamp;
use uuid::Uuid;

use crate::command::{Error, Ksn, RequestId};
use crate::dukpt::{AesKsn, TdesKsn};
use crate::vault::KeyName;

/// The longest id of a resource, in characters.
const ID_LEN_MAX: usize = 63;

/// The request's id with its method and body: equal ids with other bodies are refused.
///
/// The body is the message as it was understood, so a field that this version does not know
/// does not make two requests differ.
pub(super) fn request_id<M: Message>(method: &str, id: &str, body: &M) -> Result<RequestId, Error> {
    let uuid = Uuid::try_parse(id)
        .ok()
        .filter(|_| id.len() == 36)
        .ok_or_else(|| Error::field("request_id", "must be a UUID of 36 characters"))?;
    Ok(RequestId::new(uuid.as_hyphenated().to_string(), method, body.encode_to_vec()))
}

/// The id in a resource name `collection/id`.
pub(super) fn resource(path: &str, collection: &str, name: &str) -> Result<String, Error> {
    let id = name
        .strip_prefix(collection)
        .and_then(|rest| rest.strip_prefix('/'))
        .ok_or_else(|| Error::field(path, "must be a resource name of its collection"))?;
    self::id(path, id)
}

/// The name of a key, less the `keys/` before it: of its primary version or of another.
pub(super) fn key_name(path: &str, name: &str) -> Result<String, Error> {
    let refused = || Error::field(path, "must be a resource name of a key or of a version of one");
    let name = name.strip_prefix("keys/").ok_or_else(refused)?;
    id(path, KeyName::parse(name).ok_or_else(refused)?.key)?;
    Ok(name.to_owned())
}

/// The same, where an empty name means none.
pub(super) fn optional_key(path: &str, name: &str) -> Result<Option<String>, Error> {
    if name.is_empty() { Ok(None) } else { key_name(path, name).map(Some) }
}

/// The name of a version of a key: its id in `keys/{id}`, and its number.
pub(super) fn key_version(path: &str, name: &str) -> Result<(String, u32), Error> {
    let name = key_name(path, name)?;
    let parts = KeyName::parse(&name);
    parts
        .and_then(|parts| Some((parts.key.to_owned(), parts.version?)))
        .ok_or_else(|| Error::field(path, "must name a version"))
}

/// A resource name of a collection, where an empty one means none.
pub(super) fn optional_resource(
    path: &str,
    collection: &str,
    name: &str,
) -> Result<Option<String>, Error> {
    if name.is_empty() { Ok(None) } else { resource(path, collection, name).map(Some) }
}

/// An id of a resource: 1 to 63 characters, a lower-case letter, then lower-case letters, digits
/// and hyphens, no hyphen last.
pub(super) fn id(path: &str, id: &str) -> Result<String, Error> {
    let first = id.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let all = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if first && all && id.len() <= ID_LEN_MAX && !id.ends_with('-') {
        Ok(id.to_owned())
    } else {
        Err(Error::field(
            path,
            "must be 1 to 63 lower-case letters, digits, hyphens; a letter first, no hyphen last",
        ))
    }
}

/// Text of printable ASCII characters, between two lengths.
pub(super) fn text(
    path: &str,
    text: &str,
    len: std::ops::RangeInclusive<usize>,
) -> Result<String, Error> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !printable {
        return Err(Error::field(path, "must be printable ASCII"));
    }
    if !len.contains(&text.len()) {
        return Err(Error::field(path, "is too short or too long"));
    }
    Ok(text.to_owned())
}

/// Bytes between two lengths.
pub(super) fn bytes(
    path: &str,
    bytes: Vec<u8>,
    len: std::ops::RangeInclusive<usize>,
) -> Result<Vec<u8>, Error> {
    if len.contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err(Error::field(path, "has a length out of bounds"))
    }
}

/// Exactly `N` bytes.
pub(super) fn array<const N: usize>(path: &str, bytes: &[u8]) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| Error::field(path, "has a wrong length"))
}

/// A key serial number as terminals send it: 12 bytes for AES, 10 for TDES.
pub(super) fn terminal_ksn(path: &str, bytes: &[u8]) -> Result<Ksn, Error> {
    if bytes.len() == AesKsn::LEN_BYTES {
        AesKsn::parse(bytes).map(Ksn::Aes).map_err(|_| Error::ksn(path))
    } else {
        TdesKsn::parse(bytes).map(Ksn::Tdes).map_err(|_| Error::ksn(path))
    }
}

/// The same from a host, where 8 or 9 bytes of TDES are filled with FF on the left.
pub(super) fn host_ksn(path: &str, bytes: &[u8]) -> Result<Ksn, Error> {
    if bytes.len() == AesKsn::LEN_BYTES {
        AesKsn::parse(bytes).map(Ksn::Aes).map_err(|_| Error::ksn(path))
    } else {
        TdesKsn::left_filled(bytes).map(Ksn::Tdes).map_err(|_| Error::ksn(path))
    }
}

/// A value of an enum that is neither unspecified nor unknown.
pub(super) fn known<E: TryFrom<i32> + Default + PartialEq>(
    path: &str,
    value: i32,
) -> Result<E, Error> {
    optional(path, value)?.ok_or_else(|| Error::field(path, "must be specified"))
}

/// A value of an enum, or none where it is unspecified; an unknown one is refused.
pub(super) fn optional<E: TryFrom<i32> + Default + PartialEq>(
    path: &str,
    value: i32,
) -> Result<Option<E>, Error> {
    let known = E::try_from(value).map_err(|_| Error::field(path, "is an unknown value"))?;
    Ok((known != E::default()).then_some(known))
}

/// A message that must be there.
pub(super) fn required<M>(path: &str, message: Option<M>) -> Result<M, Error> {
    message.ok_or_else(|| Error::field(path, "is missing"))
}

/// Milliseconds since 1970 as a proto timestamp.
pub(super) fn timestamp(unix_ms: u64) -> Timestamp {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(unix_ms % 1000 * 1_000_000).expect("below one second");
    Timestamp { seconds, nanos }
}

/// A proto timestamp, after 1970, as milliseconds.
pub(super) fn unix_ms(path: &str, time: Timestamp) -> Result<u64, Error> {
    let refused = || Error::field(path, "is no time after 1970");
    let seconds = u64::try_from(time.seconds).map_err(|_| refused())?;
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let ms = seconds.checked_mul(1000).ok_or_else(refused)?;
    ms.checked_add(nanos.ok_or_else(refused)? / 1_000_000).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(resource("name", "keys", "keys/bdk-1").unwrap(), "bdk-1");
        for bad in ["bdk-1", "keys/", "keys/Bdk", "keys/1a", "terminals/a", "keys/a/b", "keys/a-"] {
            assert!(resource("name", "keys", bad).is_err(), "{bad}");
        }
        assert!(id("id", &"a".repeat(64)).is_err());
    }

    #[test]
    fn keys_are_named_with_a_version_or_without() {
        assert_eq!(key_name("name", "keys/bdk").unwrap(), "bdk");
        assert_eq!(key_name("name", "keys/bdk/versions/12").unwrap(), "bdk/versions/12");
        assert_eq!(key_version("name", "keys/bdk/versions/12").unwrap(), ("bdk".to_owned(), 12));
        assert!(key_version("name", "keys/bdk").is_err());
        for bad in ["bdk", "keys/", "keys/a/", "keys/a/versions", "keys/a/versions/"] {
            assert!(key_name("name", bad).is_err(), "{bad}");
        }
        for bad in ["0", "01", "x", "1/", "4294967296", "1/versions/1"] {
            assert!(key_name("name", &format!("keys/a/versions/{bad}")).is_err(), "{bad}");
        }
        assert!(key_name("name", "keys/A/versions/1").is_err());
    }

    #[test]
    fn times_go_there_and_back() {
        assert_eq!(unix_ms("t", timestamp(1_700_000_000_123)).unwrap(), 1_700_000_000_123);
        assert!(unix_ms("t", Timestamp { seconds: -1, nanos: 0 }).is_err());
        assert!(unix_ms("t", Timestamp { seconds: 1, nanos: -1 }).is_err());
    }
}
