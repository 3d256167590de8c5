//! The terminal's calls one by one, with the very bytes that a test wants to send.

use firstkey::activation::payload::{ActivationName, Fault, Outcome, Payload as _, Report};
use firstkey::activation::{Role, Step, Transcript, confirmation};
use firstkey::agreement::MasterKey;
use firstkey::grpc::client::Refusal;
use firstkey::grpc::proto;
use firstkey::terminal::{
    ConfirmRequest, Credential, ReportRequest, SignedRequest, TransactionRequest,
};

use crate::harness::{Service, Till, signature_of};

/// An answer of the service: its payload and its signature or MAC.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) payload: Vec<u8>,
    pub(crate) proof: Vec<u8>,
}

impl Service {
    pub(crate) async fn send_begin(&self, request: &SignedRequest) -> Result<Sent, Refusal> {
        let sent = proto::BeginActivationRequest {
            payload: request.payload.clone(),
            proof: request.proof.clone(),
        };
        let answer = self.client.activation().begin_activation(sent).await?.into_inner();
        Ok(Sent { payload: answer.payload, proof: answer.proof })
    }

    pub(crate) async fn send_deliver(
        &self,
        activation: &str,
        request: &SignedRequest,
    ) -> Result<Sent, Refusal> {
        let sent = proto::DeliverKeysRequest {
            activation: activation.to_owned(),
            payload: request.payload.clone(),
            proof: request.proof.clone(),
        };
        let answer = self.client.activation().deliver_keys(sent).await?.into_inner();
        Ok(Sent { payload: answer.payload, proof: answer.proof })
    }

    pub(crate) async fn send_confirm(
        &self,
        activation: &str,
        request: &ConfirmRequest,
    ) -> Result<Sent, Refusal> {
        let sent = proto::ConfirmKeysRequest {
            activation: activation.to_owned(),
            payload: request.payload.clone(),
            mac: request.mac.to_vec(),
        };
        let answer = self.client.activation().confirm_keys(sent).await?.into_inner();
        Ok(Sent { payload: answer.payload, proof: answer.mac })
    }

    pub(crate) async fn send_parameters(
        &self,
        request: &TransactionRequest,
    ) -> Result<Sent, Refusal> {
        let TransactionRequest { ksn, payload, mac } = request.clone();
        let sent = proto::GetParametersRequest { ksn, payload, mac };
        let answer = self.client.activation().get_parameters(sent).await?.into_inner();
        Ok(Sent { payload: answer.payload, proof: answer.mac })
    }

    pub(crate) async fn send_test(&self, request: &TransactionRequest) -> Result<Sent, Refusal> {
        let TransactionRequest { ksn, payload, mac } = request.clone();
        let sent = proto::RunTestTransactionRequest { ksn, payload, mac };
        let answer = self.client.activation().run_test_transaction(sent).await?.into_inner();
        Ok(Sent { payload: answer.payload, proof: answer.mac })
    }

    pub(crate) async fn send_update(&self, request: &TransactionRequest) -> Result<Sent, Refusal> {
        let TransactionRequest { ksn, payload, mac } = request.clone();
        let sent = proto::UpdateKeysRequest { ksn, payload, mac };
        let answer = self.client.activation().update_keys(sent).await?.into_inner();
        Ok(Sent { payload: answer.payload, proof: answer.mac })
    }

    pub(crate) async fn send_report(
        &self,
        activation: &str,
        request: &ReportRequest,
    ) -> Result<(), Refusal> {
        let (payload, proof) = match request {
            ReportRequest::Signed(signed) => (
                signed.payload.clone(),
                proto::report_step_request::Proof::DeviceProof(signed.proof.clone()),
            ),
            ReportRequest::Transaction(request) => (
                request.payload.clone(),
                proto::report_step_request::Proof::TransactionMac(proto::TransactionMac {
                    ksn: request.ksn.clone(),
                    mac: request.mac.clone(),
                }),
            ),
        };
        let activation = activation.to_owned();
        let sent = proto::ReportStepRequest { activation, payload, proof: Some(proof) };
        self.client.activation().report_step(sent).await?;
        Ok(())
    }
}

impl Till {
    /// A payload as the device proves it at the end of a transcript.
    pub(crate) fn signed(
        &self,
        before: &Transcript,
        payload: Vec<u8>,
        step: Step,
    ) -> SignedRequest {
        let transcript = before.with(&payload);
        let device = self.terminal.device();
        let proof = match &device.credential {
            Credential::Certificate(_) => {
                signature_of(device, &transcript.authenticated_input(Role::Terminal, step))
            }
            Credential::MasterKey(key) => {
                let master = MasterKey::new(key, self.terminal.suite()).expect("it fits");
                let key = match step {
                    Step::Deliver => master.session_keys(&before.hash()).confirm_terminal,
                    _ => master.device_key(device.serial.as_str()),
                };
                confirmation::mac(&key, (Role::Terminal, step), &transcript).to_vec()
            }
        };
        SignedRequest { payload, proof }
    }

    /// A fault that the device reports under its own key.
    pub(crate) fn device_report(&self, activation: &str, fault: Fault) -> SignedRequest {
        let activation = ActivationName::new(activation).expect("an activation's name");
        let outcome = Outcome::Fault(fault);
        let report = Report { activation, step: Step::Deliver, outcome };
        self.signed(&Transcript::new(), report.encode(), Step::Report)
    }
}
