//! `TrustService`: the service's identity, device authorities, denied devices; for officers.

use tonic::{Request, Response, Status};

use super::convert::{self, resource, text, timestamp};
use super::paging::{Pages, page_size};
use super::proto::trust_service_server::TrustService;
use super::proto::{self};
use super::respond::serve;
use crate::activation::payload::Serial;
use crate::command::Error;
use crate::command::manage_trust::{
    self, DeniedDevice, DeviceAuthority, Identity, NewDeviceAuthority,
};
use crate::vault::Action;

/// The longest certificate.
const CERTIFICATE_LEN_BYTES_MAX: usize = 4_096;
/// The longest stated cause, in characters.
const CAUSE_LEN_MAX: usize = 200;

/// The service.
pub(super) struct TrustApi;

#[tonic::async_trait]
impl TrustService for TrustApi {
    async fn create_identity_key(
        &self,
        request: Request<proto::CreateIdentityKeyRequest>,
    ) -> Result<Response<proto::CreateIdentityKeyResponse>, Status> {
        serve("CreateIdentityKey", request, async |vault, caller, body| {
            let request = convert::request_id("CreateIdentityKey", &body.request_id, &body)?;
            let id = to_acquirer_id(&body.acquirer_id)?;
            let request = Some(&request);
            let made = manage_trust::create_identity_key(&vault, &caller, request, id).await?;
            Ok(proto::CreateIdentityKeyResponse { identity: Some(from_identity(made)) })
        })
        .await
    }

    async fn get_identity(
        &self,
        request: Request<proto::GetIdentityRequest>,
    ) -> Result<Response<proto::GetIdentityResponse>, Status> {
        serve("GetIdentity", request, async |vault, caller, _| {
            let found = manage_trust::get_identity(&vault, &caller).await?;
            Ok(proto::GetIdentityResponse { identity: Some(from_identity(found)) })
        })
        .await
    }

    async fn create_certificate_request(
        &self,
        request: Request<proto::CreateCertificateRequestRequest>,
    ) -> Result<Response<proto::CreateCertificateRequestResponse>, Status> {
        serve("CreateCertificateRequest", request, async |vault, caller, body| {
            let name = text("common_name", &body.common_name, 1..=64)?;
            let certificate_request =
                manage_trust::create_certificate_request(&vault, &caller, &name).await?;
            Ok(proto::CreateCertificateRequestResponse { certificate_request })
        })
        .await
    }

    async fn import_certificate(
        &self,
        request: Request<proto::ImportCertificateRequest>,
    ) -> Result<Response<proto::ImportCertificateResponse>, Status> {
        serve("ImportCertificate", request, async |vault, caller, body| {
            let request = convert::request_id("ImportCertificate", &body.request_id, &body)?;
            let chain = to_chain(body.certificate_chain)?;
            let request = Some(&request);
            let identity =
                manage_trust::import_certificate(&vault, &caller, request, chain).await?;
            Ok(proto::ImportCertificateResponse { identity: Some(from_identity(identity)) })
        })
        .await
    }

    async fn create_device_authority(
        &self,
        request: Request<proto::CreateDeviceAuthorityRequest>,
    ) -> Result<Response<proto::CreateDeviceAuthorityResponse>, Status> {
        serve("CreateDeviceAuthority", request, async |vault, caller, body| {
            let request = convert::request_id("CreateDeviceAuthority", &body.request_id, &body)?;
            let new = NewDeviceAuthority {
                id: convert::id("device_authority_id", &body.device_authority_id)?,
                vendor: text("vendor", &body.vendor, 1..=64)?,
                model: text("model", &body.model, 1..=64)?,
                certificate: to_certificate("certificate", body.certificate)?,
            };
            let request = Some(&request);
            let made = manage_trust::create_device_authority(&vault, &caller, request, new).await?;
            Ok(proto::CreateDeviceAuthorityResponse {
                device_authority: Some(from_authority(made)),
            })
        })
        .await
    }

    async fn get_device_authority(
        &self,
        request: Request<proto::GetDeviceAuthorityRequest>,
    ) -> Result<Response<proto::GetDeviceAuthorityResponse>, Status> {
        serve("GetDeviceAuthority", request, async |vault, caller, body| {
            let id = resource("name", "deviceAuthorities", &body.name)?;
            let found = manage_trust::get_device_authority(&vault, &caller, &id).await?;
            Ok(proto::GetDeviceAuthorityResponse { device_authority: Some(from_authority(found)) })
        })
        .await
    }

    async fn list_device_authorities(
        &self,
        request: Request<proto::ListDeviceAuthoritiesRequest>,
    ) -> Result<Response<proto::ListDeviceAuthoritiesResponse>, Status> {
        serve("ListDeviceAuthorities", request, async |vault, caller, body| {
            let limit = page_size(body.page_size)?;
            let pages =
                Pages { vault: &vault, caller: &caller, action: Action::ListDeviceAuthorities };
            let after = pages.after(&body.page_token)?;
            let after = after.as_deref();
            let page = manage_trust::list_device_authorities(&vault, &caller, after, limit).await?;
            Ok(proto::ListDeviceAuthoritiesResponse {
                device_authorities: page.rows.into_iter().map(from_authority).collect(),
                next_page_token: pages.next(page.next.as_deref())?,
            })
        })
        .await
    }

    async fn deny_device(
        &self,
        request: Request<proto::DenyDeviceRequest>,
    ) -> Result<Response<proto::DenyDeviceResponse>, Status> {
        serve("DenyDevice", request, async |vault, caller, body| {
            let request = convert::request_id("DenyDevice", &body.request_id, &body)?;
            let serial = to_serial(&body.serial)?;
            let cause = text("cause", &body.cause, 1..=CAUSE_LEN_MAX)?;
            let request = Some(&request);
            let denied = manage_trust::deny_device(&vault, &caller, request, serial, cause).await?;
            Ok(proto::DenyDeviceResponse { denied_device: Some(from_denied(denied)) })
        })
        .await
    }

    async fn allow_device(
        &self,
        request: Request<proto::AllowDeviceRequest>,
    ) -> Result<Response<proto::AllowDeviceResponse>, Status> {
        serve("AllowDevice", request, async |vault, caller, body| {
            let request = convert::request_id("AllowDevice", &body.request_id, &body)?;
            let serial = to_serial(&body.serial)?;
            manage_trust::allow_device(&vault, &caller, Some(&request), &serial).await?;
            Ok(proto::AllowDeviceResponse {})
        })
        .await
    }

    async fn list_denied_devices(
        &self,
        request: Request<proto::ListDeniedDevicesRequest>,
    ) -> Result<Response<proto::ListDeniedDevicesResponse>, Status> {
        serve("ListDeniedDevices", request, async |vault, caller, body| {
            let limit = page_size(body.page_size)?;
            let pages = Pages { vault: &vault, caller: &caller, action: Action::ListDeniedDevices };
            let after = pages.after(&body.page_token)?;
            let after = after.as_deref();
            let page = manage_trust::list_denied_devices(&vault, &caller, after, limit).await?;
            Ok(proto::ListDeniedDevicesResponse {
                denied_devices: page.rows.into_iter().map(from_denied).collect(),
                next_page_token: pages.next(page.next.as_deref())?,
            })
        })
        .await
    }
}

fn to_acquirer_id(id: &str) -> Result<String, Error> {
    let allowed = id.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    if allowed && (1..=32).contains(&id.len()) {
        Ok(id.to_owned())
    } else {
        Err(Error::field("acquirer_id", "must be 1 to 32 letters, digits or hyphens"))
    }
}

fn to_serial(serial: &str) -> Result<String, Error> {
    let invalid = || Error::field("serial", "must be 4 to 32 letters, digits, `.`, `_` or `-`");
    Ok(Serial::new(serial).ok_or_else(invalid)?.as_str().to_owned())
}

fn to_chain(chain: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Error> {
    if !(2..=4).contains(&chain.len()) {
        return Err(Error::field("certificate_chain", "must be 2 to 4 certificates"));
    }
    let certificates = chain.into_iter().enumerate();
    certificates.map(|(at, der)| to_certificate(&format!("certificate_chain[{at}]"), der)).collect()
}

fn to_certificate(path: &str, der: Vec<u8>) -> Result<Vec<u8>, Error> {
    convert::bytes(path, der, 1..=CERTIFICATE_LEN_BYTES_MAX)
}

fn from_identity(identity: Identity) -> proto::Identity {
    proto::Identity {
        acquirer_id: identity.acquirer_id,
        public_key: identity.public_key,
        certificate_chain: identity.certificate_chain,
        create_time: Some(timestamp(identity.created.0)),
    }
}

fn from_authority(authority: DeviceAuthority) -> proto::DeviceAuthority {
    proto::DeviceAuthority {
        name: format!("deviceAuthorities/{}", authority.id),
        vendor: authority.vendor,
        model: authority.model,
        certificate: authority.certificate,
        create_time: Some(timestamp(authority.created.0)),
    }
}

fn from_denied(denied: DeniedDevice) -> proto::DeniedDevice {
    proto::DeniedDevice {
        serial: denied.serial,
        cause: denied.cause,
        create_time: Some(timestamp(denied.created.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_chains_are_bounded() {
        assert!(to_acquirer_id("DEV-ACQUIRER").is_ok());
        for bad in ["", "a b", "a_b", "123456789012345678901234567890123"] {
            assert!(to_acquirer_id(bad).is_err(), "{bad}");
        }
        assert!(to_serial("SN-1").is_ok());
        assert!(to_serial("SN1").is_err());
        assert!(to_chain(vec![vec![1]]).is_err());
        assert!(to_chain(vec![vec![1]; 2]).is_ok());
        assert!(to_chain(vec![vec![1]; 5]).is_err());
        match to_chain(vec![vec![1], vec![0; 4_097]]) {
            Err(Error::Field { path, .. }) => assert_eq!(path, "certificate_chain[1]"),
            Err(
                Error::Hidden { .. } | Error::Ksn { .. } | Error::Refused { .. } | Error::Vault(_),
            )
            | Ok(_) => {
                panic!("a certificate that is too long was taken")
            }
        }
    }
}
