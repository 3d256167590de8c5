//! `KeyService`: keys, for officers.

use tonic::{Request, Response, Status};

use super::convert::{self, key_name, resource};
use super::key_fields::{
    brings, from_hex, from_key, key_filter, labels, start, to_attributes, to_key_block, updated,
    version_attributes,
};
use super::paging::{Pages, page_size};
use super::proto;
use super::proto::key_service_server::KeyService;
use super::respond::serve;
use super::vocabulary::{to_algorithm, to_exportability, to_mode, to_state, to_usage};
use crate::command::export_initial_key::{self, export_initial_key};
use crate::command::{manage_keys, read_keys};
use crate::vault::{Action, NewKey, Rotation, StateChange, UnixMillis};

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
                labels: labels("labels", body.labels)?,
                start: start(true, body.pre_active),
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
                wrapping_key: key_name("wrapping_key", &body.wrapping_key)?,
                exportability: to_exportability("exportability", body.exportability)?,
                attributes: to_attributes(body.attributes)?,
                brings: brings(body.next_version, body.keep_primary, body.labels)?,
                start: start(body.keep_primary, body.pre_active),
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
                id: key_name("name", &body.name)?,
                wrapping_key: key_name("wrapping_key", &body.wrapping_key)?,
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
            let bdk = key_name("base_derivation_key", &body.base_derivation_key)?;
            let export = export_initial_key::Export {
                base_derivation_key: bdk,
                wrapping_key: key_name("wrapping_key", &body.wrapping_key)?,
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
            let id = key_name("name", &body.name)?;
            let found = read_keys::get_key(&vault, &caller, &id).await?;
            Ok(proto::GetKeyResponse { key: Some(from_key(&found)?) })
        })
        .await
    }

    async fn get_destruction_certificate(
        &self,
        request: Request<proto::GetDestructionCertificateRequest>,
    ) -> Result<Response<proto::GetDestructionCertificateResponse>, Status> {
        serve("GetDestructionCertificate", request, async |vault, caller, body| {
            let id = key_name("name", &body.name)?;
            let written = read_keys::get_destruction_certificate(&vault, &caller, &id).await?;
            Ok(proto::GetDestructionCertificateResponse {
                certificate: written.note,
                verifier_key: written.verifier_key,
            })
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        serve("ListKeys", request, async |vault, caller, body| {
            let limit = page_size(body.page_size)?;
            let filter = key_filter(body.filter)?;
            let pages = Pages { vault: &vault, caller: &caller, action: Action::ListKeys };
            let after = pages.after(&body.page_token)?;
            let after = after.as_deref();
            let page = read_keys::list_keys(&vault, &caller, &filter, after, limit).await?;
            Ok(proto::ListKeysResponse {
                keys: page.rows.iter().map(from_key).collect::<Result<_, _>>()?,
                next_page_token: pages.next(page.next.as_deref())?,
            })
        })
        .await
    }

    async fn list_key_versions(
        &self,
        request: Request<proto::ListKeyVersionsRequest>,
    ) -> Result<Response<proto::ListKeyVersionsResponse>, Status> {
        serve("ListKeyVersions", request, async |vault, caller, body| {
            let id = resource("name", "keys", &body.name)?;
            let limit = page_size(body.page_size)?;
            let pages = Pages { vault: &vault, caller: &caller, action: Action::ListKeyVersions };
            let after = pages.after(&body.page_token)?;
            let after = after.and_then(|after| after.parse().ok());
            let page = read_keys::list_key_versions(&vault, &caller, &id, after, limit).await?;
            Ok(proto::ListKeyVersionsResponse {
                keys: page.rows.iter().map(from_key).collect::<Result<_, _>>()?,
                next_page_token: pages.next(page.next.as_deref())?,
            })
        })
        .await
    }

    async fn rotate_key(
        &self,
        request: Request<proto::RotateKeyRequest>,
    ) -> Result<Response<proto::RotateKeyResponse>, Status> {
        serve("RotateKey", request, async |vault, caller, body| {
            let request = convert::request_id("RotateKey", &body.request_id, &body)?;
            let rotation = Rotation {
                name: resource("name", "keys", &body.name)?,
                start: start(body.keep_primary, body.pre_active),
                attributes: version_attributes(&body)?,
            };
            let rotated = manage_keys::rotate_key(&vault, &caller, Some(&request), rotation);
            Ok(proto::RotateKeyResponse { key: Some(from_key(&rotated.await?)?) })
        })
        .await
    }

    async fn set_primary_version(
        &self,
        request: Request<proto::SetPrimaryVersionRequest>,
    ) -> Result<Response<proto::SetPrimaryVersionResponse>, Status> {
        serve("SetPrimaryVersion", request, async |vault, caller, body| {
            let request = convert::request_id("SetPrimaryVersion", &body.request_id, &body)?;
            let (id, version) = convert::key_version("name", &body.name)?;
            let which = (id.as_str(), version);
            let request = Some(&request);
            let set = manage_keys::set_primary_version(&vault, &caller, request, which).await?;
            Ok(proto::SetPrimaryVersionResponse { key: Some(from_key(&set)?) })
        })
        .await
    }

    async fn update_key(
        &self,
        request: Request<proto::UpdateKeyRequest>,
    ) -> Result<Response<proto::UpdateKeyResponse>, Status> {
        serve("UpdateKey", request, async |vault, caller, body| {
            let request = convert::request_id("UpdateKey", &body.request_id, &body)?;
            let (id, labels) = updated(body.key, body.update_mask)?;
            let request = Some(&request);
            let updated = manage_keys::update_key(&vault, &caller, request, &id, labels).await?;
            Ok(proto::UpdateKeyResponse { key: Some(from_key(&updated)?) })
        })
        .await
    }

    async fn set_key_state(
        &self,
        request: Request<proto::SetKeyStateRequest>,
    ) -> Result<Response<proto::SetKeyStateResponse>, Status> {
        serve("SetKeyState", request, async |vault, caller, body| {
            let request = convert::request_id("SetKeyState", &body.request_id, &body)?;
            let id = key_name("name", &body.name)?;
            let until = body.serve_until.map(|time| convert::unix_ms("serve_until", time));
            let change = StateChange {
                state: to_state("state", body.state)?,
                serve_until: until.transpose()?.map(UnixMillis),
            };
            let changed = manage_keys::set_key_state(&vault, &caller, Some(&request), &id, change);
            let changed = changed.await?;
            Ok(proto::SetKeyStateResponse {
                key: Some(from_key(&changed.key)?),
                exposed_versions: u32::try_from(changed.exposed).unwrap_or(u32::MAX),
            })
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
