//! `MacService`: message authentication codes, for payment backends.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{bytes, optional_resource};
use super::metrics::Metrics;
use super::proto::mac_service_server::MacService;
use super::proto::{self};
use super::respond::serve;
use super::vocabulary::{to_direction, to_mac_algorithm, to_message, to_working_key};
use crate::command::{Error, MacWorkingKey, generate_mac, verify_mac};

/// The lengths that any algorithm gives and any key permits.
const MAC_LEN_BYTES: RangeInclusive<usize> = 4..=64;

/// The service.
pub(super) struct MacApi {
    pub(super) metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl MacService for MacApi {
    async fn generate_mac(
        &self,
        request: Request<proto::GenerateMacRequest>,
    ) -> Result<Response<proto::GenerateMacResponse>, Status> {
        serve("GenerateMac", request, async |vault, caller, body| {
            let request = generate_mac::Request {
                key: to_key("key", body.key, body.direction)?,
                algorithm: to_mac_algorithm(body.algorithm, body.padding)?,
                message: to_message(body.message)?,
                len_bytes: to_len_bytes(body.mac_length_bytes)?,
                terminal: optional_resource("terminal", "terminals", &body.terminal)?,
            };
            let mac = generate_mac::generate_mac(&vault, &caller, &request).await?;
            Ok(proto::GenerateMacResponse { mac: mac.bytes().to_vec() })
        })
        .await
    }

    async fn verify_mac(
        &self,
        request: Request<proto::VerifyMacRequest>,
    ) -> Result<Response<proto::VerifyMacResponse>, Status> {
        let algorithm = request.get_ref().algorithm;
        let answer = serve("VerifyMac", request, async |vault, caller, body| {
            let request = to_verify("key", body)?;
            verify_mac::verify_mac(&vault, &caller, &request).await?;
            Ok(proto::VerifyMacResponse {})
        })
        .await;
        self.metrics.verified(algorithm, &answer);
        answer
    }
}

/// A MAC to be verified, its key from the field `key_path`.
pub(super) fn to_verify(
    key_path: &str,
    body: proto::VerifyMacRequest,
) -> Result<verify_mac::Request, Error> {
    Ok(verify_mac::Request {
        key: to_key(key_path, body.key, body.direction)?,
        algorithm: to_mac_algorithm(body.algorithm, body.padding)?,
        message: to_message(body.message)?,
        mac: bytes("mac", body.mac, MAC_LEN_BYTES)?,
        terminal: optional_resource("terminal", "terminals", &body.terminal)?,
    })
}

fn to_key(
    path: &str,
    key: Option<proto::WorkingKey>,
    direction: i32,
) -> Result<MacWorkingKey, Error> {
    MacWorkingKey::new(to_working_key(path, key)?, to_direction("direction", direction)?)
}

fn to_len_bytes(len_bytes: u32) -> Result<usize, Error> {
    usize::try_from(len_bytes)
        .ok()
        .filter(|len_bytes| MAC_LEN_BYTES.contains(len_bytes))
        .ok_or_else(|| Error::field("mac_length_bytes", "is not 4 to 64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_goes_with_a_transaction_key_alone() {
        let stored = proto::working_key::Key::StaticKey("keys/mac".into());
        let ksn = [vec![1; 8], vec![0, 0, 0, 1]].concat();
        let dukpt = proto::DukptKey { ksn, ..proto::DukptKey::default() };
        let dukpt = proto::working_key::Key::Dukpt(dukpt);
        let is_taken = |key: &proto::working_key::Key, direction: proto::Direction| {
            let key = proto::WorkingKey { key: Some(key.clone()) };
            to_key("key", Some(key), direction.into()).is_ok()
        };
        assert!(is_taken(&stored, proto::Direction::Unspecified));
        assert!(!is_taken(&stored, proto::Direction::Request));
        assert!(!is_taken(&dukpt, proto::Direction::Unspecified));
        assert!(is_taken(&dukpt, proto::Direction::Response));
    }

    #[test]
    fn lengths_are_bounded() {
        for (len_bytes, taken) in [(0, false), (3, false), (4, true), (64, true), (65, false)] {
            assert_eq!(to_len_bytes(len_bytes).is_ok(), taken, "{len_bytes}");
        }
    }
}
