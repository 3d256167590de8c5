//! The calls of the acquirer's backend, each with nothing wrong in its request.

use firstkey::activation::Call;
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto;

use crate::harness::{Service, terminal_name};

/// Why the tests do what they do.
pub(crate) const CAUSE: &str = "a test asks for it";

/// What a call upon a terminal is given; each call takes what it has fields for.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) request_id: String,
    pub(crate) name: String,
    pub(crate) cause: String,
    pub(crate) standing: i32,
    pub(crate) digest: Vec<u8>,
    pub(crate) update_key_allowed: bool,
}

impl Given {
    /// Nothing wrong in it.
    pub(crate) fn to(id: &str) -> Self {
        Self {
            request_id: request_id(),
            name: terminal_name(id),
            cause: CAUSE.to_owned(),
            standing: proto::MerchantStanding::Approved.into(),
            digest: vec![7; 32],
            update_key_allowed: false,
        }
    }
}

/// The backend's calls upon a terminal: those that take a cause have it.
pub(crate) const CALLS: [Call; 13] = [
    Call::IssueActivationCode,
    Call::ReissueActivationCode,
    Call::EnableTerminal,
    Call::SetMerchantStanding,
    Call::SetSettlementDigest,
    Call::HoldTerminal,
    Call::ReleaseTerminal,
    Call::CancelActivation,
    Call::SuspendTerminal,
    Call::ResumeTerminal,
    Call::RetireTerminal,
    Call::MarkTerminalCompromised,
    Call::StartRekey,
];

/// Makes a call that takes a request id, a name and what else is given; answers the terminal.
macro_rules! call {
    ($service:ident, $given:ident, $method:ident, $request:ident, $($field:ident),*) => {{
        let Given { request_id, name, .. } = $given.clone();
        let request = proto::$request { request_id, name, $($field: $given.$field,)* };
        let answer = $service.client.terminals().$method(request).await?.into_inner();
        Ok(answer.terminal.expect("a terminal"))
    }};
}

impl Service {
    /// Makes one of the backend's calls upon a terminal.
    pub(crate) async fn call(&self, call: Call, id: &str) -> Result<proto::Terminal, Refusal> {
        self.call_with(call, Given::to(id)).await
    }

    /// The same with anything in its request.
    pub(crate) async fn call_with(
        &self,
        call: Call,
        given: Given,
    ) -> Result<proto::Terminal, Refusal> {
        match call {
            Call::IssueActivationCode => {
                call!(self, given, issue_activation_code, IssueActivationCodeRequest,)
            }
            Call::ReissueActivationCode => {
                call!(self, given, reissue_activation_code, ReissueActivationCodeRequest,)
            }
            Call::EnableTerminal => call!(self, given, enable_terminal, EnableTerminalRequest,),
            Call::SetMerchantStanding => {
                call!(self, given, set_merchant_standing, SetMerchantStandingRequest, standing)
            }
            Call::SetSettlementDigest => {
                call!(self, given, set_settlement_digest, SetSettlementDigestRequest, digest)
            }
            Call::HoldTerminal => call!(self, given, hold_terminal, HoldTerminalRequest, cause),
            Call::ReleaseTerminal => call!(self, given, release_terminal, ReleaseTerminalRequest,),
            Call::CancelActivation => {
                call!(self, given, cancel_activation, CancelActivationRequest, cause)
            }
            Call::SuspendTerminal => {
                call!(self, given, suspend_terminal, SuspendTerminalRequest, cause)
            }
            Call::ResumeTerminal => call!(self, given, resume_terminal, ResumeTerminalRequest,),
            Call::RetireTerminal => {
                call!(self, given, retire_terminal, RetireTerminalRequest, cause)
            }
            Call::MarkTerminalCompromised => {
                call!(self, given, mark_terminal_compromised, MarkTerminalCompromisedRequest, cause)
            }
            Call::StartRekey => {
                call!(self, given, start_rekey, StartRekeyRequest, cause, update_key_allowed)
            }
            Call::BeginActivation
            | Call::DeliverKeys
            | Call::ConfirmKeys
            | Call::GetParameters
            | Call::ReportStep
            | Call::RunTestTransaction
            | Call::UpdateKeys
            | Call::PinOrMac => panic!("{call:?} is not the backend's"),
        }
    }

    /// Says where the merchant of a terminal stands.
    pub(crate) async fn stand(
        &self,
        id: &str,
        standing: proto::MerchantStanding,
    ) -> Result<proto::Terminal, Refusal> {
        let given = Given { standing: standing.into(), ..Given::to(id) };
        self.call_with(Call::SetMerchantStanding, given).await
    }

    /// Starts a re-key in which the keys that serve may carry the new ones.
    pub(crate) async fn start_update(&self, id: &str) {
        let given = Given { update_key_allowed: true, ..Given::to(id) };
        self.call_with(Call::StartRekey, given).await.expect("a re-key");
    }

    /// A call that must succeed.
    #[track_caller]
    pub(crate) fn must(
        &self,
        call: Call,
        id: &str,
    ) -> impl Future<Output = proto::Terminal> + Send {
        let place = std::panic::Location::caller();
        async move {
            match self.call(call, id).await {
                Ok(terminal) => terminal,
                Err(refusal) => panic!("{place}: {call:?} was refused: {refusal}"),
            }
        }
    }

    /// Creates a profile of AES terminals, changed from that of development.
    pub(crate) async fn profile(&self, id: &str, change: impl FnOnce(&mut proto::Profile)) {
        let mut request = create_profile_request(id);
        change(request.profile.as_mut().expect("a profile"));
        crate::harness::answer(self.client.terminals().create_profile(request).await);
    }
}

/// A profile of AES terminals as that of development, with nothing wrong in it.
pub(crate) fn create_profile_request(id: &str) -> proto::CreateProfileRequest {
    proto::CreateProfileRequest {
        request_id: request_id(),
        profile_id: id.to_owned(),
        profile: Some(proto::Profile {
            suite: proto::Suite::P256Aes128.into(),
            base_derivation_key: "keys/dev-bdk-aes".to_owned(),
            test_transactions: 1,
            limits: Some(proto::Limits {
                currency: "EUR".to_owned(),
                single_amount_minor: 50_000,
                daily_amount_minor: 500_000,
            }),
            ..proto::Profile::default()
        }),
    }
}
