//! `PinService`: PIN blocks, for payment backends.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::optional_resource;
use super::mac::to_verify;
use super::metrics::Metrics;
use super::proto::pin_service_server::PinService;
use super::proto::{self};
use super::respond::serve;
use super::vocabulary::{to_format, to_pan_form, to_working_key};
use crate::command::verify_mac_and_translate_pin::{Request as Both, verify_mac_and_translate_pin};
use crate::command::{Error, translate_pin};
use crate::pin::{EncryptedPinBlock, Pan, PinBlockFormat};

/// The service.
pub(super) struct PinApi {
    pub(super) metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl PinService for PinApi {
    async fn translate_pin(
        &self,
        request: Request<proto::TranslatePinRequest>,
    ) -> Result<Response<proto::TranslatePinResponse>, Status> {
        let body = request.get_ref();
        let formats = (body.source_format, body.destination_format);
        let answer = serve("TranslatePin", request, async |vault, caller, body| {
            let request = to_request(body)?;
            let block = translate_pin::translate_pin(&vault, &caller, &request).await?;
            Ok(proto::TranslatePinResponse { pin_block: block.bytes().to_vec() })
        })
        .await;
        self.metrics.translated(formats, &answer);
        answer
    }

    async fn verify_mac_and_translate_pin(
        &self,
        request: Request<proto::VerifyMacAndTranslatePinRequest>,
    ) -> Result<Response<proto::VerifyMacAndTranslatePinResponse>, Status> {
        let body = request.get_ref();
        let (algorithm, formats) = (body.algorithm, (body.source_format, body.destination_format));
        let answer = serve("VerifyMacAndTranslatePin", request, async |vault, caller, body| {
            let request = to_both(body)?;
            let block = verify_mac_and_translate_pin(&vault, &caller, &request).await?;
            Ok(proto::VerifyMacAndTranslatePinResponse { pin_block: block.bytes().to_vec() })
        })
        .await;
        // One call, and so one result for both of its parts.
        self.metrics.verified(algorithm, &answer);
        self.metrics.translated(formats, &answer);
        answer
    }
}

/// The two parts of one message, each as its single call has it.
fn to_both(body: proto::VerifyMacAndTranslatePinRequest) -> Result<Both, Error> {
    let mac = proto::VerifyMacRequest {
        key: body.mac_key,
        direction: body.direction,
        algorithm: body.algorithm,
        padding: body.padding,
        message: body.message,
        mac: body.mac,
        terminal: body.terminal.clone(),
    };
    let pin = proto::TranslatePinRequest {
        source: body.source,
        source_format: body.source_format,
        pin_block: body.pin_block,
        destination: body.destination,
        destination_format: body.destination_format,
        pan: body.pan,
        pan_form: body.pan_form,
        terminal: body.terminal,
    };
    Both::new(to_verify("mac_key", mac)?, to_request(pin)?)
}

fn to_request(body: proto::TranslatePinRequest) -> Result<translate_pin::Request, Error> {
    let source_format = to_format("source_format", body.source_format)?;
    Ok(translate_pin::Request {
        source: to_working_key("source", body.source)?,
        source_format,
        pin_block: to_pin_block(source_format, &body.pin_block)?,
        destination: to_working_key("destination", body.destination)?,
        destination_format: to_format("destination_format", body.destination_format)?,
        pan: Pan::parse(&body.pan).map_err(|_| Error::field("pan", "is not 12 to 19 digits"))?,
        pan_form: to_pan_form("pan_form", body.pan_form)?,
        terminal: optional_resource("terminal", "terminals", &body.terminal)?,
    })
}

fn to_pin_block(format: PinBlockFormat, block: &[u8]) -> Result<EncryptedPinBlock, Error> {
    EncryptedPinBlock::parse(block)
        .ok()
        .filter(|block| block.bytes().len() == format.len_bytes())
        .ok_or_else(|| Error::field("pin_block", "does not have the length of its format"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> proto::TranslatePinRequest {
        let key = |name: &str| {
            let key = proto::working_key::Key::StaticKey(name.to_owned());
            Some(proto::WorkingKey { key: Some(key) })
        };
        proto::TranslatePinRequest {
            source: key("keys/in"),
            source_format: proto::PinBlockFormat::Iso0.into(),
            pin_block: vec![0; 8],
            destination: key("keys/out"),
            destination_format: proto::PinBlockFormat::Iso4.into(),
            pan: "4111111111111111".into(),
            pan_form: proto::PanForm::Unspecified.into(),
            terminal: String::new(),
        }
    }

    fn path(change: impl FnOnce(&mut proto::TranslatePinRequest)) -> String {
        let mut body = body();
        change(&mut body);
        match to_request(body) {
            Err(Error::Field { path, .. } | Error::Ksn { path }) => path,
            Err(Error::Hidden { .. } | Error::Refused { .. } | Error::Vault(_)) | Ok(_) => {
                String::new()
            }
        }
    }

    #[test]
    fn each_field_is_checked_and_named() {
        assert_eq!(path(|_| {}), "");
        assert_eq!(path(|body| body.source = None), "source");
        assert_eq!(path(|body| body.destination = None), "destination");
        assert_eq!(path(|body| body.source_format = 0), "source_format");
        assert_eq!(path(|body| body.destination_format = 9), "destination_format");
        assert_eq!(path(|body| body.pin_block = vec![0; 16]), "pin_block");
        assert_eq!(path(|body| body.pin_block = vec![0; 9]), "pin_block");
        assert_eq!(path(|body| body.pan = "41111111111".into()), "pan");
        assert_eq!(path(|body| body.pan = "4111-1111-1111-1111".into()), "pan");
        assert_eq!(path(|body| body.pan_form = 7), "pan_form");
        assert_eq!(path(|body| body.terminal = "t-1".into()), "terminal");
    }
}
