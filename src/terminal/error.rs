//! Why a terminal can not go on, and what it reports of it.

use crate::activation::PayloadInvalid;
use crate::activation::confirmation::ConfirmationMismatch;
use crate::activation::parameters::{OverLimit, RolledBack};
use crate::activation::payload::Fault;
use crate::agreement::MasterKeyUnfit;
use crate::crypto::rng::RngFailed;
use crate::pin::FormatForbidden;

use super::registers::CountersExhausted;

/// Why a terminal can not go on.
///
/// Where it says so nothing that it keeps has changed, except that a counter may be spent, and that
/// a session whose ephemeral key was used is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TerminalError {
    /// The answer belongs to another activation.
    #[error("the answer belongs to another activation")]
    ActivationOther,
    /// The signature or MAC of the answer does not verify.
    #[error("the signature or MAC of the answer does not verify")]
    Authentication,
    /// A key's check value is not the one that came with it.
    #[error("the check value of the key in slot {slot} differs")]
    CheckValue {
        /// The slot of the key.
        slot: u32,
    },
    /// The initial key is used up.
    #[error(transparent)]
    CountersExhausted(#[from] CountersExhausted),
    /// The activation has ended.
    #[error("the activation has ended; begin it anew")]
    Expired,
    /// A PIN block can not be made for this card.
    #[error(transparent)]
    Format(#[from] FormatForbidden),
    /// A key block does not open, or holds another key than it says.
    #[error("the key block of slot {slot} is refused")]
    KeyBlock {
        /// The slot of the key.
        slot: u32,
    },
    /// The suite is for terminals that prove themselves otherwise.
    #[error(transparent)]
    MasterKeyUnfit(#[from] MasterKeyUnfit),
    /// The amount is over a limit.
    #[error(transparent)]
    OverLimit(#[from] OverLimit),
    /// The keys that serve have no update key.
    #[error("TDES keys have no update key: begin an activation")]
    NoUpdateKey,
    /// The step does not come next.
    #[error("this step does not come next")]
    OutOfStep,
    /// The parameter file is another acquirer's.
    #[error("the parameter file is another acquirer's")]
    ParametersOther,
    /// The parameter file is older than the one applied, or another one of its version.
    #[error(transparent)]
    ParametersRolledBack(#[from] RolledBack),
    /// The answer is not well formed.
    #[error(transparent)]
    Payload(#[from] PayloadInvalid),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RngFailed),
    /// The service is not the acquirer's.
    #[error("the service is not the acquirer's: its certificate is refused")]
    ServiceNotTrusted,
    /// Another exchange still waits for its answer.
    #[error("another exchange still waits for its answer")]
    Unanswered,
}

impl TerminalError {
    /// What the terminal reports of it; none where the service is not to blame.
    #[must_use]
    pub fn fault(self) -> Option<Fault> {
        match self {
            Self::Authentication => Some(Fault::Authentication),
            Self::CheckValue { .. } => Some(Fault::CheckValue),
            Self::KeyBlock { .. } => Some(Fault::KeyBlock),
            Self::ParametersOther | Self::Payload(PayloadInvalid { field: "parameter_file" }) => {
                Some(Fault::Parameters)
            }
            Self::ActivationOther | Self::Payload(_) => Some(Fault::Payload),
            Self::ParametersRolledBack(RolledBack) => Some(Fault::ParametersRolledBack),
            Self::ServiceNotTrusted => Some(Fault::ServiceNotTrusted),
            Self::CountersExhausted(_)
            | Self::Expired
            | Self::Format(_)
            | Self::MasterKeyUnfit(_)
            | Self::NoUpdateKey
            | Self::OverLimit(_)
            | Self::OutOfStep
            | Self::Random(_)
            | Self::Unanswered => None,
        }
    }
}

impl From<ConfirmationMismatch> for TerminalError {
    fn from(ConfirmationMismatch: ConfirmationMismatch) -> Self {
        Self::Authentication
    }
}
