//! Octets as lower-case hexadecimals in records: `#[serde(with = "hexadecimals")]`.

use data_encoding::HEXLOWER;
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

pub(super) fn serialize<S: Serializer>(
    octets: &impl AsRef<[u8]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&HEXLOWER.encode(octets.as_ref()))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(
    from: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    let octets = HEXLOWER.decode(text.as_bytes()).ok();
    let octets = octets.and_then(|octets| T::try_from(octets).ok());
    octets.ok_or_else(|| D::Error::custom("hexadecimals of another length, or none"))
}
