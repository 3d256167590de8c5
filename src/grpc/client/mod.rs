//! The one client: what the tool, the demonstration and the tests call the service with.

mod activate;
mod backend;
mod ceremony;
mod explain;
mod keys;
mod line;
mod policy;
mod seal;

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::peer::Plane;
use super::proto::activation_service_client::ActivationServiceClient;
use super::proto::approval_service_client::ApprovalServiceClient;
use super::proto::audit_service_client::AuditServiceClient;
use super::proto::key_service_client::KeyServiceClient;
use super::proto::mac_service_client::MacServiceClient;
use super::proto::pin_service_client::PinServiceClient;
use super::proto::status_service_client::StatusServiceClient;
use super::proto::terminal_service_client::TerminalServiceClient;
use super::proto::trust_service_client::TrustServiceClient;
use crate::crypto::digest;
use crate::terminal::TerminalError;

pub use self::activate::{Driver, Told};
pub use self::backend::{ImportCall, InspectedHeader, KeyCall, MacCall, PinCall};
pub use self::ceremony::{CeremonyView, Committed};
pub use self::explain::{Explained, explain_request, request_digest};
pub use self::line::{Line, Message, Reply, Replying, lost};
pub use self::seal::{AttemptView, SealView, ShareHolder, ceremony_in, create_master_key};

/// A connection to a service: to each plane, and where one serves for all, four times the same.
#[derive(Clone, Debug)]
pub struct Client {
    activation: Channel,
    admin: Channel,
    data: Channel,
    terminals: Channel,
}

/// How a client knows its service, and how the service knows the client. All of it is PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate of the authority that certifies the service; no other is believed.
    pub authority: Vec<u8>,
    /// The client's certificate with those that lead to its authority, and its private key; none
    /// for a terminal, whose proof stands in its messages.
    pub identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

/// Why a call of the client failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none, or nobody answers there.
    #[error("can not reach the service: {0}")]
    Connect(#[from] tonic::transport::Error),
    /// A share was not sent or not understood.
    #[error("no share: {0}")]
    Envelope(&'static str),
    /// An answer lacks what the protocol says it has.
    #[error("the service's answer lacks `{0}`")]
    Incomplete(&'static str),
    /// The terminal's memory could not be written; nothing was sent after that.
    #[error("the terminal's memory can not be written: {0}")]
    Memory(String),
    /// The service asks officers to approve another request than the one that was sent.
    #[error("the service asks officers to approve something else than what was sent to it")]
    OtherRequest,
    /// The service refused or failed.
    #[error("{0}")]
    Refused(Refusal),
    /// A test transaction did not pass; its verdicts were told.
    #[error("the test transaction did not pass")]
    TestFailed,
    /// The terminal refused the answer, or can not go on.
    #[error("the terminal: {0}")]
    Terminal(#[from] TerminalError),
}

/// A refusal of the service, read from `google.rpc.Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The stable reason; empty where the transport failed.
    pub reason: String,
    /// For people.
    pub message: String,
    /// What else the service tells: `remedy`, `state`, `tries_left`, `incident`.
    pub metadata: Vec<(String, String)>,
    /// The fields that are wrong, with what is wrong with each.
    pub fields: Vec<(String, String)>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.reason.as_str() {
            "" => write!(formatter, "{}: {}", self.code, self.message)?,
            reason => write!(formatter, "{reason}: {}", self.message)?,
        }
        for (name, value) in self.fields.iter().chain(&self.metadata) {
            write!(formatter, "; {name}: {value}")?;
        }
        Ok(())
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let mut metadata: Vec<(String, String)> =
            info.map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default();
        metadata.sort();
        let violations = details.bad_request().map(|request| request.field_violations.clone());
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            metadata,
            fields: violations
                .unwrap_or_default()
                .into_iter()
                .map(|violation| (violation.field, violation.description))
                .collect(),
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Refused(Refusal::from(status))
    }
}

impl ClientError {
    /// The service's reason, where it gave one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.reason),
            Self::Connect(_)
            | Self::Envelope(_)
            | Self::Incomplete(_)
            | Self::Memory(_)
            | Self::OtherRequest
            | Self::Terminal(_)
            | Self::TestFailed => None,
        }
    }
}

impl Client {
    /// Connects to a development service, in plain text.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(url.to_owned())?;
        Ok(Self::over(endpoint.tcp_nodelay(true).connect().await?))
    }

    /// Connects to a service by TLS; the URL says `https`. Each plane sees the same credentials.
    pub async fn connect_with(url: &str, credentials: &Credentials) -> Result<Self, ClientError> {
        let authority = Certificate::from_pem(&credentials.authority);
        let mut tls = ClientTlsConfig::new().ca_certificate(authority);
        if let Some((certificate, key)) = &credentials.identity {
            tls = tls.identity(Identity::from_pem(certificate, key.as_slice()));
        }
        let endpoint = Endpoint::from_shared(url.to_owned())?.tls_config(tls)?;
        Ok(Self::over(endpoint.tcp_nodelay(true).connect().await?))
    }

    /// One client out of several, for who calls more than one plane: to each over its own
    /// connection, as one certificate opens one plane.
    #[must_use]
    pub fn by_plane(of: impl Fn(Plane) -> Self) -> Self {
        Self {
            activation: of(Plane::Activation).activation,
            admin: of(Plane::Admin).admin,
            data: of(Plane::Data).data,
            terminals: of(Plane::Terminals).terminals,
        }
    }

    fn over(channel: Channel) -> Self {
        Self {
            activation: channel.clone(),
            admin: channel.clone(),
            data: channel.clone(),
            terminals: channel,
        }
    }

    /// `KeyService`.
    #[must_use]
    pub fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.admin.clone())
    }

    /// `StatusService`.
    #[must_use]
    pub fn status(&self) -> StatusServiceClient<Channel> {
        StatusServiceClient::new(self.admin.clone())
    }

    /// `ApprovalService`.
    #[must_use]
    pub fn approvals(&self) -> ApprovalServiceClient<Channel> {
        ApprovalServiceClient::new(self.admin.clone())
    }

    /// `TrustService`.
    #[must_use]
    pub fn trust(&self) -> TrustServiceClient<Channel> {
        TrustServiceClient::new(self.admin.clone())
    }

    /// `TerminalService`.
    #[must_use]
    pub fn terminals(&self) -> TerminalServiceClient<Channel> {
        TerminalServiceClient::new(self.terminals.clone())
    }

    /// `ActivationService`.
    #[must_use]
    pub fn activation(&self) -> ActivationServiceClient<Channel> {
        ActivationServiceClient::new(self.activation.clone())
    }

    /// `AuditService`.
    #[must_use]
    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.admin.clone())
    }

    /// `PinService`.
    #[must_use]
    pub fn pins(&self) -> PinServiceClient<Channel> {
        PinServiceClient::new(self.data.clone())
    }

    /// `MacService`.
    #[must_use]
    pub fn macs(&self) -> MacServiceClient<Channel> {
        MacServiceClient::new(self.data.clone())
    }
}

impl Refusal {
    /// A value beyond the reason, such as `approval`.
    #[must_use]
    pub fn told(&self, name: &str) -> Option<&str> {
        let mut metadata = self.metadata.iter();
        metadata.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the approval of the request has ended without effect.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let ended = matches!(self.told("state"), Some("EXPIRED" | "REJECTED"));
        self.reason == "APPROVAL_STATE" && ended
    }

    /// Believes a refusal of what was sent. Where officers are asked to approve it, the digest of
    /// what they see has to be the one computed here: that is what the requester tells them.
    fn of_sent(self, method: &str, request: &[u8]) -> ClientError {
        let digest = data_encoding::HEXLOWER.encode(&request_digest(method, request));
        if self.reason == "APPROVAL_REQUIRED" && self.told("request_digest") != Some(&digest) {
            return ClientError::OtherRequest;
        }
        ClientError::Refused(self)
    }
}

/// How long is waited before a call whose answer was lost is made once more.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// Makes a call until there is an answer: for those that answer the same when they are made again.
async fn until_answered<T, F>(call: impl Fn() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    for pause in PAUSES {
        match call().await {
            Err(ClientError::Refused(refusal)) if refusal.reason.is_empty() => {
                tokio::time::sleep(pause).await;
            }
            answer => return answer,
        }
    }
    call().await
}

/// A fresh request id.
#[must_use]
pub fn request_id() -> String {
    Uuid::new_v4().as_hyphenated().to_string()
}

/// The request id that what is asked always has (RFC 9562, 5.8): where others have to approve it,
/// the same is asked again afterwards, and is done.
#[must_use]
pub fn request_id_of(asked: &[&[u8]]) -> String {
    let digest = digest::sha256(asked);
    let (bytes, _) = digest.split_first_chunk().expect("32 bytes begin with 16");
    uuid::Builder::from_custom_bytes(*bytes).into_uuid().as_hyphenated().to_string()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_was_lost_is_asked_for_again_and_a_refusal_is_one() {
        let asked = Cell::new(0);
        let call = |lost: usize, status: fn() -> Status| {
            let asked = &asked;
            move || async move {
                asked.set(asked.get() + 1);
                if asked.get() <= lost { Err(status().into()) } else { Ok(asked.get()) }
            }
        };
        let lost = || Status::unavailable("the line broke");
        assert_eq!(until_answered(call(1, lost)).await.unwrap(), 2);
        asked.set(0);
        let refused = || {
            let details = tonic_types::ErrorDetails::with_error_info("POLICY_DENIED", "test", []);
            Status::with_error_details(Code::PermissionDenied, "no", details)
        };
        let refused = until_answered(call(1, refused)).await.unwrap_err();
        assert_eq!((refused.reason(), asked.get()), (Some("POLICY_DENIED"), 1));
    }
}
