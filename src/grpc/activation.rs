//! `ActivationService`: the terminal's steps, each a payload and what vouches for it.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{self, required};
use super::metrics::Metrics;
use super::proto;
use super::proto::activation_service_server::ActivationService;
use super::proto::report_step_request::Proof;
use super::respond::serve;
use crate::activation::payload::{ActivationName, BEGIN_LEN_BYTES_MAX, PAYLOAD_LEN_BYTES_MAX};
use crate::command::activation::report::Voucher;
use crate::command::activation::{
    Exchange, Signed, begin, confirm, deliver, parameters, report, test_transaction, update,
};
use crate::command::{Error, Ksn};

/// The length of a signature: r and s.
const SIGNATURE_LEN_BYTES: usize = 64;
/// The length of an HMAC-SHA-256.
const HMAC_LEN_BYTES: usize = 32;

/// The service.
pub(super) struct ActivationApi {
    pub(super) metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl ActivationService for ActivationApi {
    async fn begin_activation(
        &self,
        request: Request<proto::BeginActivationRequest>,
    ) -> Result<Response<proto::BeginActivationResponse>, Status> {
        let answer = serve("BeginActivation", request, async |vault, caller, body| {
            let payload = convert::bytes("payload", body.payload, 1..=BEGIN_LEN_BYTES_MAX)?;
            let request = proven(payload, "proof", body.proof)?;
            let answer = Box::pin(begin::begin_activation(&vault, &caller, &request)).await?;
            let (payload, proof) = (answer.payload, answer.proof);
            Ok(proto::BeginActivationResponse { payload, proof })
        })
        .await;
        self.metrics.stepped("begin", &answer);
        answer
    }

    async fn deliver_keys(
        &self,
        request: Request<proto::DeliverKeysRequest>,
    ) -> Result<Response<proto::DeliverKeysResponse>, Status> {
        let answer = serve("DeliverKeys", request, async |vault, caller, body| {
            let name = activation(&body.activation)?;
            let payload = payload(body.payload)?;
            let request = proven(payload, "proof", body.proof)?;
            let of = (name.terminal_id(), name.number());
            let answer = Box::pin(deliver::deliver_keys(&vault, &caller, of, &request)).await?;
            let (payload, proof) = (answer.payload, answer.proof);
            Ok(proto::DeliverKeysResponse { payload, proof })
        })
        .await;
        self.metrics.stepped("deliver", &answer);
        answer
    }

    async fn confirm_keys(
        &self,
        request: Request<proto::ConfirmKeysRequest>,
    ) -> Result<Response<proto::ConfirmKeysResponse>, Status> {
        let answer = serve("ConfirmKeys", request, async |vault, caller, body| {
            let name = activation(&body.activation)?;
            let payload = payload(body.payload)?;
            let request = signed(payload, "mac", body.mac, HMAC_LEN_BYTES)?;
            let of = (name.terminal_id(), name.number());
            let answer = confirm::confirm_keys(&vault, &caller, of, &request).await?;
            Ok(proto::ConfirmKeysResponse { payload: answer.payload, mac: answer.proof })
        })
        .await;
        self.metrics.stepped("confirm", &answer);
        answer
    }

    async fn get_parameters(
        &self,
        request: Request<proto::GetParametersRequest>,
    ) -> Result<Response<proto::GetParametersResponse>, Status> {
        let answer = serve("GetParameters", request, async |vault, caller, body| {
            let request = exchange(&body.ksn, body.payload, body.mac)?;
            let answer = parameters::get_parameters(&vault, &caller, &request).await?;
            Ok(proto::GetParametersResponse { payload: answer.payload, mac: answer.proof })
        })
        .await;
        self.metrics.stepped("parameters", &answer);
        answer
    }

    async fn report_step(
        &self,
        request: Request<proto::ReportStepRequest>,
    ) -> Result<Response<proto::ReportStepResponse>, Status> {
        let answer = serve("ReportStep", request, async |vault, caller, body| {
            let name = activation(&body.activation)?;
            let payload = payload(body.payload)?;
            let (signed, voucher) = match required("proof", body.proof)? {
                Proof::DeviceProof(proof) => {
                    (proven(payload, "device_proof", proof)?, Voucher::Device)
                }
                Proof::TransactionMac(proof) => {
                    let ksn = convert::terminal_ksn("transaction_mac.ksn", &proof.ksn)?;
                    let len_bytes = mac_len_bytes(&ksn);
                    let signed = signed(payload, "transaction_mac.mac", proof.mac, len_bytes)?;
                    (signed, Voucher::Transaction(ksn))
                }
            };
            let of = (name.terminal_id(), name.number());
            report::report_step(&vault, &caller, of, &signed, &voucher).await?;
            Ok(proto::ReportStepResponse {})
        })
        .await;
        self.metrics.stepped("report", &answer);
        answer
    }

    async fn run_test_transaction(
        &self,
        request: Request<proto::RunTestTransactionRequest>,
    ) -> Result<Response<proto::RunTestTransactionResponse>, Status> {
        let answer = serve("RunTestTransaction", request, async |vault, caller, body| {
            let request = exchange(&body.ksn, body.payload, body.mac)?;
            let answer = test_transaction::run_test_transaction(&vault, &caller, &request).await?;
            Ok(proto::RunTestTransactionResponse { payload: answer.payload, mac: answer.proof })
        })
        .await;
        self.metrics.stepped("test", &answer);
        answer
    }

    async fn update_keys(
        &self,
        request: Request<proto::UpdateKeysRequest>,
    ) -> Result<Response<proto::UpdateKeysResponse>, Status> {
        let answer = serve("UpdateKeys", request, async |vault, caller, body| {
            let request = exchange(&body.ksn, body.payload, body.mac)?;
            // TDES keys have no update key.
            if matches!(request.ksn, Ksn::Tdes(_)) {
                return Err(Error::ksn("ksn"));
            }
            let answer = Box::pin(update::update_keys(&vault, &caller, &request)).await?;
            Ok(proto::UpdateKeysResponse { payload: answer.payload, mac: answer.proof })
        })
        .await;
        self.metrics.stepped("update", &answer);
        answer
    }
}

fn activation(name: &str) -> Result<ActivationName, Error> {
    ActivationName::new(name)
        .ok_or_else(|| Error::field("activation", "must be a resource name of its collection"))
}

fn payload(payload: Vec<u8>) -> Result<Vec<u8>, Error> {
    convert::bytes("payload", payload, 1..=PAYLOAD_LEN_BYTES_MAX)
}

/// A payload with what proves a device: a signature, or an HMAC under its master key.
fn proven(payload: Vec<u8>, path: &str, proof: Vec<u8>) -> Result<Signed, Error> {
    match proof.len() {
        SIGNATURE_LEN_BYTES | HMAC_LEN_BYTES => Ok(Signed { payload, proof }),
        _ => Err(Error::field(path, "has a length out of bounds")),
    }
}

fn signed(payload: Vec<u8>, path: &str, proof: Vec<u8>, len_bytes: usize) -> Result<Signed, Error> {
    let proof = convert::bytes(path, proof, len_bytes..=len_bytes)?;
    Ok(Signed { payload, proof })
}

fn exchange(ksn: &[u8], bytes: Vec<u8>, mac: Vec<u8>) -> Result<Exchange, Error> {
    let ksn = convert::terminal_ksn("ksn", ksn)?;
    let len_bytes = mac_len_bytes(&ksn);
    let signed = signed(payload(bytes)?, "mac", mac, len_bytes)?;
    Ok(Exchange { ksn, signed })
}

/// The whole CMAC of the KSN's cipher.
const fn mac_len_bytes(ksn: &Ksn) -> usize {
    match ksn {
        Ksn::Aes(_) => 16,
        Ksn::Tdes(_) => 8,
    }
}
