//! Errors as `google.rpc.Status`: the one place where a reason becomes a gRPC code.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::proto;
use crate::command::Error;
use crate::vault::Reason;

/// The domain of every `google.rpc.ErrorInfo` that the service sends.
pub const DOMAIN: &str = "firstkey";

/// What is wrong with a key serial number, whichever of it is.
const KSN_INVALID: &str = "has a wrong length, a counter of zero or one with too many one bits";

/// Translates the error of one entry of a batch, as [`from_error`] does that of a call.
pub(super) fn to_refusal(error: &Error) -> proto::Refusal {
    let reason = error.reason();
    let metadata = error.metadata().into_iter();
    let violation = |field: &str, description: &str| proto::FieldViolation {
        field: field.to_owned(),
        description: description.to_owned(),
    };
    proto::Refusal {
        reason: reason.as_str().to_owned(),
        message: message(reason).to_owned(),
        field_violations: match error {
            Error::Field { path, cause } => vec![violation(path, cause)],
            Error::Ksn { path } => vec![violation(path, KSN_INVALID)],
            Error::Hidden { .. } | Error::Refused { .. } | Error::Vault(_) => Vec::new(),
        },
        metadata: metadata.map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// Translates a command's error for its caller.
///
/// The message is the same for every error of one reason: what a caller may learn beyond the reason
/// stands in the details, and only where a command put it there on purpose.
pub(super) fn from_error(error: &Error) -> Status {
    let mut details = ErrorDetails::new();
    let mut metadata = HashMap::new();
    for (key, value) in error.metadata() {
        metadata.insert(key.to_owned(), value);
    }
    let reason = error.reason();
    details.set_error_info(reason.as_str(), DOMAIN, metadata);
    match error {
        Error::Field { path, cause } => {
            details.add_bad_request_violation(path.clone(), (*cause).to_owned());
        }
        Error::Ksn { path } => {
            details.add_bad_request_violation(path.clone(), KSN_INVALID.to_owned());
        }
        Error::Hidden { .. } | Error::Refused { .. } | Error::Vault(_) => {}
    }
    if let Some(ms) = error.retry_after_ms() {
        details.set_retry_info(Some(Duration::from_millis(ms)));
    }
    Status::with_error_details(code(reason), message(reason), details)
}

/// A message that is none, with the code that gRPC wants for it.
pub(super) fn message_invalid(code: Code) -> Status {
    let reason = Reason::MessageInvalid;
    let details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new());
    Status::with_error_details(code, message(reason), details)
}

/// The gRPC code of a reason.
#[must_use]
pub const fn code(reason: Reason) -> Code {
    match reason {
        Reason::FieldInvalid
        | Reason::KsnInvalid
        | Reason::MessageInvalid
        | Reason::RequestIdReused => Code::InvalidArgument,
        Reason::ActivationRefused
        | Reason::ActivationState
        | Reason::ApprovalRequired
        | Reason::ApprovalState
        | Reason::CeremonyAborted
        | Reason::CeremonyState
        | Reason::CodeRefused
        | Reason::ComponentRejected
        | Reason::KeyBlockRejected
        | Reason::KeyNotActive
        | Reason::KeyUsageMismatch
        | Reason::KsnExhausted
        | Reason::KsnReplayed
        | Reason::MacMismatch
        | Reason::MerchantNotApproved
        | Reason::PinBlockRejected
        | Reason::RotationUnderWay
        | Reason::SealState
        | Reason::ShareRefused
        | Reason::TerminalLocked
        | Reason::TerminalNotActive
        | Reason::TokenUnavailable
        | Reason::TranslationForbidden
        | Reason::UnsealFailed
        | Reason::WrappingKeyTooWeak => Code::FailedPrecondition,
        Reason::DeviceNotTrusted | Reason::PolicyDenied => Code::PermissionDenied,
        Reason::KeyNotFound | Reason::ResourceNotFound | Reason::TerminalNotFound => Code::NotFound,
        Reason::KeyAlreadyExists
        | Reason::KeyDuplicate
        | Reason::ResourceAlreadyExists
        | Reason::TerminalAlreadyActivated
        | Reason::TerminalAlreadyExists => Code::AlreadyExists,
        Reason::StoreConflict => Code::Aborted,
        Reason::BudgetSpent | Reason::RateLimited => Code::ResourceExhausted,
        Reason::AuditUnavailable
        | Reason::SelfTestFailed
        | Reason::StoreUnavailable
        | Reason::VaultSealed => Code::Unavailable,
        Reason::CallerUnknown => Code::Unauthenticated,
        Reason::Internal => Code::Internal,
    }
}

/// A sentence for people.
const fn message(reason: Reason) -> &'static str {
    match reason {
        Reason::ActivationRefused => "the activation step carries no valid proof",
        Reason::ActivationState => "the terminal's state does not permit this call",
        Reason::ApprovalRequired => "officers have to approve this request",
        Reason::ApprovalState => "the approval is closed, or not this caller's to give",
        Reason::AuditUnavailable => "the audit log can not be written; nothing was done",
        Reason::BudgetSpent => "too many failures; wait before the next try",
        Reason::CallerUnknown => "the caller is not known",
        Reason::CeremonyAborted => "the ceremony is aborted; nothing has happened",
        Reason::CeremonyState => "this is not the ceremony's next step, or not this caller's",
        Reason::CodeRefused => "the activation code is wrong, used or expired",
        Reason::ComponentRejected => "the component was rejected",
        Reason::DeviceNotTrusted => "the device's certificate is not trusted for this terminal",
        Reason::FieldInvalid => "a field of the request is missing or invalid",
        Reason::Internal => "an internal error; report the incident id",
        Reason::KeyAlreadyExists => "a key of this name exists",
        Reason::KeyDuplicate => "the same key, of the same usage, is here already",
        Reason::KeyBlockRejected => "the key block was rejected",
        Reason::KeyNotActive => "the key's state or expiry does not permit this call",
        Reason::KeyNotFound => "there is no such key",
        Reason::KeyUsageMismatch => "the key's attributes do not permit this call",
        Reason::KsnExhausted => "the base derivation key has no initial key id left",
        Reason::KsnInvalid => "the KSN has a wrong length or counter",
        Reason::KsnReplayed => "the KSN's counter is spent or out of the window",
        Reason::MacMismatch => "the MAC does not verify",
        Reason::MerchantNotApproved => "the merchant is not approved",
        Reason::MessageInvalid => {
            "no whole message of a known call: too long, late, compressed or of another type"
        }
        Reason::PinBlockRejected => "the PIN block was rejected",
        Reason::PolicyDenied => "policy does not allow this call",
        Reason::RateLimited => "too many calls; come back later",
        Reason::RequestIdReused => "the request id was used with another body",
        Reason::ResourceAlreadyExists => "a resource of this name exists",
        Reason::ResourceNotFound => "there is no such resource",
        Reason::RotationUnderWay => "the rotation of the master key before is not at its end",
        Reason::SealState => "the seal is not in the state that this call needs",
        Reason::SelfTestFailed => "a self-test failed; nothing is served",
        Reason::ShareRefused => "the share is not taken",
        Reason::StoreConflict => "another call changed the same record; retry",
        Reason::StoreUnavailable => "the store is unavailable; repeat the call",
        Reason::TerminalAlreadyActivated => "the terminal holds confirmed keys; start a re-key",
        Reason::TerminalAlreadyExists => "the terminal id or serial is registered",
        Reason::TerminalLocked => "the terminal is locked; reissue its code",
        Reason::TerminalNotActive => "the terminal is not active",
        Reason::TerminalNotFound => "there is no such terminal",
        Reason::TokenUnavailable => "the token that holds the wrapping key does not serve",
        Reason::TranslationForbidden => "this translation is forbidden",
        Reason::UnsealFailed => "the shares do not open the vault; all of them are given anew",
        Reason::VaultSealed => "the vault is sealed",
        Reason::WrappingKeyTooWeak => "the wrapping key is weaker than the key it would carry",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::ErrorReason;

    #[test]
    fn reasons_equal_the_proto() {
        let mut proto: Vec<String> = (1..)
            .map_while(|number| ErrorReason::try_from(number).ok())
            .map(|reason| reason.as_str_name().trim_start_matches("ERROR_REASON_").to_owned())
            .collect();
        let mut ours: Vec<String> =
            Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
        proto.sort();
        ours.sort();
        assert_eq!(ours, proto);
    }

    #[test]
    fn the_comment_of_each_reason_names_its_code() {
        let text = include_str!("../../proto/firstkey/v1/error_reason.proto");
        for &reason in Reason::ALL {
            let value = format!("ERROR_REASON_{} =", reason.as_str());
            let before = text.split(&value).next().expect("split yields at least one part");
            let words = format!("{:?}", code(reason));
            let upper: String = words
                .chars()
                .enumerate()
                .flat_map(|(index, letter)| {
                    let gap = (index > 0 && letter.is_uppercase()).then_some('_');
                    gap.into_iter().chain(letter.to_uppercase())
                })
                .collect();
            // The value's own line has begun: the comment is what stands above it.
            let comment = before.lines().rev().skip(1);
            let mut comment = comment.take_while(|line| line.trim_start().starts_with("//"));
            let said = comment.any(|line| line.contains(&format!("{upper}.")));
            assert!(said, "{} is not {upper}", reason.as_str());
        }
    }
}
