//! The calls of the acquirer's backend, each with nothing wrong in its request.

use firstkey::activation::Call;
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto;

use crate::harness::{Service, terminal_name};

/// Why the tests do what they do.
pub(crate) const CAUSE: &str = "a test asks for it";

/// Makes a call that takes a request id, a name and what else is given; answers the terminal.
macro_rules! call {
    ($service:ident, $id:ident, $method:ident, $request:ident { $($field:ident: $value:expr),* }) => {{
        let request = proto::$request {
            request_id: request_id(),
            name: terminal_name($id),
            $($field: $value,)*
        };
        let answer = $service.client.terminals().$method(request).await?.into_inner();
        Ok(answer.terminal.expect("a terminal"))
    }};
}

impl Service {
    /// Makes one of the backend's calls upon a terminal.
    pub(crate) async fn call(&self, call: Call, id: &str) -> Result<proto::Terminal, Refusal> {
        let cause = CAUSE.to_owned();
        match call {
            Call::IssueActivationCode => {
                call!(self, id, issue_activation_code, IssueActivationCodeRequest {})
            }
            Call::ReissueActivationCode => {
                call!(self, id, reissue_activation_code, ReissueActivationCodeRequest {})
            }
            Call::EnableTerminal => call!(self, id, enable_terminal, EnableTerminalRequest {}),
            Call::SetMerchantStanding => self.stand(id, proto::MerchantStanding::Approved).await,
            Call::SetSettlementDigest => {
                let digest = vec![7; 32];
                call!(
                    self,
                    id,
                    set_settlement_digest,
                    SetSettlementDigestRequest { digest: digest }
                )
            }
            Call::HoldTerminal => {
                call!(self, id, hold_terminal, HoldTerminalRequest { cause: cause })
            }
            Call::ReleaseTerminal => call!(self, id, release_terminal, ReleaseTerminalRequest {}),
            Call::CancelActivation => {
                call!(self, id, cancel_activation, CancelActivationRequest { cause: cause })
            }
            Call::SuspendTerminal => {
                call!(self, id, suspend_terminal, SuspendTerminalRequest { cause: cause })
            }
            Call::ResumeTerminal => call!(self, id, resume_terminal, ResumeTerminalRequest {}),
            Call::RetireTerminal => {
                call!(self, id, retire_terminal, RetireTerminalRequest { cause: cause })
            }
            Call::MarkTerminalCompromised => call!(
                self,
                id,
                mark_terminal_compromised,
                MarkTerminalCompromisedRequest { cause: cause }
            ),
            Call::StartRekey => call!(self, id, start_rekey, StartRekeyRequest { cause: cause }),
            Call::BeginActivation
            | Call::DeliverKeys
            | Call::ConfirmKeys
            | Call::GetParameters
            | Call::ReportStep
            | Call::RunTestTransaction
            | Call::PinOrMac => panic!("{call:?} is not the backend's"),
        }
    }

    /// Says where the merchant of a terminal stands.
    pub(crate) async fn stand(
        &self,
        id: &str,
        standing: proto::MerchantStanding,
    ) -> Result<proto::Terminal, Refusal> {
        let standing = standing.into();
        call!(self, id, set_merchant_standing, SetMerchantStandingRequest { standing: standing })
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
        let mut profile = proto::Profile {
            suite: proto::Suite::P256Aes128.into(),
            base_derivation_key: "keys/dev-bdk-aes".to_owned(),
            test_transactions: 1,
            limits: Some(proto::Limits {
                currency: "EUR".to_owned(),
                single_amount_minor: 50_000,
                daily_amount_minor: 500_000,
            }),
            ..proto::Profile::default()
        };
        change(&mut profile);
        let request = proto::CreateProfileRequest {
            request_id: request_id(),
            profile_id: id.to_owned(),
            profile: Some(profile),
        };
        crate::harness::answer(self.client.terminals().create_profile(request).await);
    }
}
