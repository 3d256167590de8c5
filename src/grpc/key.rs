//! `KeyService`: keys, for officers.

use tonic::{Request, Response, Status};

use super::convert::{self, resource, timestamp};
use super::paging::{Pages, page_size};
use super::proto::key_service_server::KeyService;
use super::proto::{self};
use super::respond::serve;
use super::vocabulary::{
    MESSAGE_LEN_BYTES_MAX, from_algorithm, from_exportability, from_mode, from_origin, from_state,
    from_usage, to_algorithm, to_exportability, to_format, to_mode, to_state, to_usage,
};
use crate::command::export_initial_key::{self, export_initial_key};
use crate::command::{Error, manage_keys};
use crate::pin::PinBlockFormat;
use crate::vault::{
    self, Action, DEVICE_CAP, KeyAttributes, KeyRecord, MAC_LENGTH_MIN_BYTES, NewKey, StateChange,
    UnixMillis,
};

/// The longest key block, in characters: the highest multiple of 16, as version D has it, that the
/// four digits of its length field can say.
const KEY_BLOCK_LEN_MAX: usize = 9_984;

/// The service.
pub(super) struct KeyApi;

#[tonic::async_trait]
impl KeyService for KeyApi {
    async fn create_key(
        &self,
        request: Request<proto::CreateKeyRequest>,
    ) -> Result<Response<proto::CreateKeyResponse>, Status> {
        serve("CreateKey", request, async |vault, caller, body| {
            let request = convert::request_id("CreateKey", &body.request_id, &body)?;
            let new = NewKey {
                name: convert::id("key_id", &body.key_id)?,
                usage: to_usage("usage", body.usage)?,
                algorithm: to_algorithm("algorithm", body.algorithm)?,
                mode_of_use: to_mode("mode_of_use", body.mode_of_use)?,
                exportability: to_exportability("exportability", body.exportability)?,
                attributes: to_attributes(body.attributes)?,
            };
            let made = manage_keys::create_key(&vault, &caller, Some(&request), new).await?;
            Ok(proto::CreateKeyResponse { key: Some(from_key(&made)?) })
        })
        .await
    }

    async fn import_key(
        &self,
        request: Request<proto::ImportKeyRequest>,
    ) -> Result<Response<proto::ImportKeyResponse>, Status> {
        serve("ImportKey", request, async |vault, caller, body| {
            let request = convert::request_id("ImportKey", &body.request_id, &body)?;
            let import = manage_keys::Import {
                id: convert::id("key_id", &body.key_id)?,
                key_block: to_key_block(&body.key_block)?,
                wrapping_key: resource("wrapping_key", "keys", &body.wrapping_key)?,
                exportability: to_exportability("exportability", body.exportability)?,
                attributes: to_attributes(body.attributes)?,
            };
            let request = Some(&request);
            let imported = manage_keys::import_key(&vault, &caller, request, import).await?;
            Ok(proto::ImportKeyResponse { key: Some(from_key(&imported)?) })
        })
        .await
    }

    async fn export_key(
        &self,
        request: Request<proto::ExportKeyRequest>,
    ) -> Result<Response<proto::ExportKeyResponse>, Status> {
        serve("ExportKey", request, async |vault, caller, body| {
            let request = convert::request_id("ExportKey", &body.request_id, &body)?;
            let export = manage_keys::Export {
                id: resource("name", "keys", &body.name)?,
                wrapping_key: resource("wrapping_key", "keys", &body.wrapping_key)?,
                exportability: to_exportability("exportability", body.exportability)?,
            };
            let request = Some(&request);
            let exported = manage_keys::export_key(&vault, &caller, request, export).await?;
            Ok(proto::ExportKeyResponse {
                check_value: from_hex(&exported.check_value)?,
                key_block: exported.key_block,
                dropped_attributes: exported.dropped_attributes,
            })
        })
        .await
    }

    async fn export_initial_key(
        &self,
        request: Request<proto::ExportInitialKeyRequest>,
    ) -> Result<Response<proto::ExportInitialKeyResponse>, Status> {
        serve("ExportInitialKey", request, async |vault, caller, body| {
            let request = convert::request_id("ExportInitialKey", &body.request_id, &body)?;
            let bdk = resource("base_derivation_key", "keys", &body.base_derivation_key)?;
            let export = export_initial_key::Export {
                base_derivation_key: bdk,
                wrapping_key: resource("wrapping_key", "keys", &body.wrapping_key)?,
            };
            let exported = export_initial_key(&vault, &caller, Some(&request), &export);
            let exported = exported.await?;
            Ok(proto::ExportInitialKeyResponse {
                key_block: exported.key_block,
                initial_key_id: exported.initial_key_id,
                check_value: exported.check_value,
            })
        })
        .await
    }

    async fn get_key(
        &self,
        request: Request<proto::GetKeyRequest>,
    ) -> Result<Response<proto::GetKeyResponse>, Status> {
        serve("GetKey", request, async |vault, caller, body| {
            let id = resource("name", "keys", &body.name)?;
            let found = manage_keys::get_key(&vault, &caller, &id).await?;
            Ok(proto::GetKeyResponse { key: Some(from_key(&found)?) })
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        serve("ListKeys", request, async |vault, caller, body| {
            let limit = page_size(body.page_size)?;
            let pages = Pages { vault: &vault, caller: &caller, action: Action::ListKeys };
            let after = pages.after(&body.page_token)?;
            let after = after.as_deref();
            let page = manage_keys::list_keys(&vault, &caller, after, limit).await?;
            Ok(proto::ListKeysResponse {
                keys: page.rows.iter().map(from_key).collect::<Result<_, _>>()?,
                next_page_token: pages.next(page.next.as_deref())?,
            })
        })
        .await
    }

    async fn set_key_state(
        &self,
        request: Request<proto::SetKeyStateRequest>,
    ) -> Result<Response<proto::SetKeyStateResponse>, Status> {
        serve("SetKeyState", request, async |vault, caller, body| {
            let request = convert::request_id("SetKeyState", &body.request_id, &body)?;
            let id = resource("name", "keys", &body.name)?;
            let until = body.serve_until.map(|time| convert::unix_ms("serve_until", time));
            let change = StateChange {
                state: to_state("state", body.state)?,
                serve_until: until.transpose()?.map(UnixMillis),
            };
            let changed = manage_keys::set_key_state(&vault, &caller, Some(&request), &id, change);
            let key = changed.await?;
            Ok(proto::SetKeyStateResponse { key: Some(from_key(&key)?) })
        })
        .await
    }

    async fn inspect_key_block(
        &self,
        request: Request<proto::InspectKeyBlockRequest>,
    ) -> Result<Response<proto::InspectKeyBlockResponse>, Status> {
        serve("InspectKeyBlock", request, async |vault, caller, body| {
            let key_block = to_key_block(&body.key_block)?;
            let found = manage_keys::inspect_key_block(&vault, &caller, &key_block).await?;
            let fields = found.fields.into_iter().map(|row| proto::HeaderField {
                field: row.field.to_owned(),
                value: row.value,
                meaning: row.meaning,
            });
            let importable = found.importable;
            Ok(proto::InspectKeyBlockResponse { fields: fields.collect(), importable })
        })
        .await
    }
}

fn to_key_block(key_block: &str) -> Result<String, Error> {
    convert::text("key_block", key_block, 1..=KEY_BLOCK_LEN_MAX)
}

/// Attributes whose zeros and gaps are filled with what the proto says they stand for; the usual
/// formats of a PIN key are the vault's to fill in, as it knows the algorithm.
fn to_attributes(attributes: Option<proto::KeyAttributes>) -> Result<KeyAttributes, Error> {
    let given = attributes.unwrap_or_default();
    let expires = given.expire_time.map(|time| convert::unix_ms("attributes.expire_time", time));
    Ok(KeyAttributes {
        pin_formats_in: to_formats("attributes.pin_formats_in", &given.pin_formats_in)?,
        pin_formats_out: to_formats("attributes.pin_formats_out", &given.pin_formats_out)?,
        mac_length_min_bytes: to_mac_length_min(given.mac_length_min_bytes)?,
        mac_message_length_bytes: to_mac_message_length(given.mac_message_length_bytes)?,
        key_set_id: to_key_set_id(&given.key_set_id)?,
        device_cap: if given.device_cap == 0 { DEVICE_CAP } else { given.device_cap },
        open: given.open,
        not_after: expires.transpose()?.map(UnixMillis),
        ..KeyAttributes::default()
    })
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

fn to_key_set_id(id: &[u8]) -> Result<Option<String>, Error> {
    match id.len() {
        0 => Ok(None),
        4 | 5 => Ok(Some(data_encoding::HEXUPPER.encode(id))),
        _ => Err(Error::field("attributes.key_set_id", "is 4 bytes for AES, 5 for TDES")),
    }
}

fn from_key(key: &KeyRecord) -> Result<proto::Key, Error> {
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
        }),
        state: from_state(key.state).into(),
        origin: from_origin(key.origin).into(),
        check_value: from_hex(&key.check_value)?,
        create_time: Some(timestamp(key.created.0)),
        update_time: Some(timestamp(key.updated.0)),
        serve_until: key.serve_until.map(|until| timestamp(until.0)),
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
fn from_hex(text: &str) -> Result<Vec<u8>, Error> {
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
