//! The line between a terminal and the service: one message out, one reply back.
//!
//! A terminal that is played knows its service by this alone, so that a bad line (which loses,
//! repeats or alters what it carries) can be put in the place of a good one.

use std::pin::Pin;

use tonic::{Code, Status};

use super::Client;
use crate::activation::Step;
use crate::grpc::proto;
use crate::grpc::proto::report_step_request::Proof;
use crate::terminal::{Answer, ConfirmRequest, ReportRequest, SignedRequest, TransactionRequest};

/// A message of a terminal, as its call of `ActivationService` carries it.
#[derive(Clone, Eq, PartialEq)]
pub struct Message {
    /// Which call it is.
    pub step: Step,
    /// `terminals/{terminal}/activations/{n}`, where the call names it; else empty.
    pub activation: String,
    /// The key serial number, where a transaction key vouches for it; else empty.
    pub ksn: Vec<u8>,
    /// The serialized payload.
    pub payload: Vec<u8>,
    /// Its signature or MAC.
    pub proof: Vec<u8>,
}

impl Message {
    /// Begin or Deliver; `activation` is empty for Begin.
    #[must_use]
    pub fn signed(step: Step, activation: &str, request: SignedRequest) -> Self {
        Self {
            step,
            activation: activation.to_owned(),
            ksn: Vec::new(),
            payload: request.payload,
            proof: request.proof,
        }
    }

    /// Confirm.
    #[must_use]
    pub fn confirm(activation: &str, request: ConfirmRequest) -> Self {
        Self {
            step: Step::Confirm,
            activation: activation.to_owned(),
            ksn: Vec::new(),
            payload: request.payload,
            proof: request.mac.to_vec(),
        }
    }

    /// A message under a transaction key.
    #[must_use]
    pub fn exchange(step: Step, request: TransactionRequest) -> Self {
        let TransactionRequest { ksn, payload, mac } = request;
        Self { step, activation: String::new(), ksn, payload, proof: mac }
    }

    /// Report.
    #[must_use]
    pub fn report(activation: &str, request: ReportRequest) -> Self {
        match request {
            ReportRequest::Signed(request) => Self::signed(Step::Report, activation, request),
            ReportRequest::Transaction(request) => {
                let activation = activation.to_owned();
                Self { activation, ..Self::exchange(Step::Report, request) }
            }
        }
    }
}

/// What came back; empty for a report, which is answered by nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reply {
    /// The serialized payload.
    pub payload: Vec<u8>,
    /// Its signature or MAC.
    pub proof: Vec<u8>,
}

impl Reply {
    /// The reply as a terminal takes it.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        Answer { payload: &self.payload, proof: &self.proof }
    }
}

/// A reply on its way.
pub type Replying<'a> = Pin<Box<dyn Future<Output = Result<Reply, Status>> + Send + 'a>>;

/// Carries messages to the service and its replies back.
pub trait Line: Send {
    /// Sends a message and waits for its reply.
    fn send(&mut self, message: Message) -> Replying<'_>;
}

impl Line for Client {
    fn send(&mut self, message: Message) -> Replying<'_> {
        Box::pin(deliver(self, message))
    }
}

async fn deliver(client: &Client, message: Message) -> Result<Reply, Status> {
    let Message { step, activation, ksn, payload, proof } = message;
    let mut calls = client.activation();
    match step {
        Step::Begin => {
            let request = proto::BeginActivationRequest { payload, proof };
            let answer = calls.begin_activation(request).await?.into_inner();
            Ok(Reply { payload: answer.payload, proof: answer.proof })
        }
        Step::Deliver => {
            let request = proto::DeliverKeysRequest { activation, payload, proof };
            let answer = calls.deliver_keys(request).await?.into_inner();
            Ok(Reply { payload: answer.payload, proof: answer.proof })
        }
        Step::Confirm => {
            let request = proto::ConfirmKeysRequest { activation, payload, mac: proof };
            let answer = calls.confirm_keys(request).await?.into_inner();
            Ok(Reply { payload: answer.payload, proof: answer.mac })
        }
        Step::Parameters => {
            let request = proto::GetParametersRequest { ksn, payload, mac: proof };
            let answer = calls.get_parameters(request).await?.into_inner();
            Ok(Reply { payload: answer.payload, proof: answer.mac })
        }
        Step::Report => {
            let proof = if ksn.is_empty() {
                Proof::DeviceProof(proof)
            } else {
                Proof::TransactionMac(proto::TransactionMac { ksn, mac: proof })
            };
            let request = proto::ReportStepRequest { activation, payload, proof: Some(proof) };
            calls.report_step(request).await?;
            Ok(Reply::default())
        }
        Step::Update => {
            let request = proto::UpdateKeysRequest { ksn, payload, mac: proof };
            let answer = calls.update_keys(request).await?.into_inner();
            Ok(Reply { payload: answer.payload, proof: answer.mac })
        }
        Step::Test => {
            let request = proto::RunTestTransactionRequest { ksn, payload, mac: proof };
            let answer = calls.run_test_transaction(request).await?.into_inner();
            Ok(Reply { payload: answer.payload, proof: answer.mac })
        }
    }
}

/// A reply that did not come: what a terminal sees of a line that lost it.
#[must_use]
pub fn lost() -> Status {
    Status::new(Code::Unavailable, "the line lost the reply")
}
