//! The stable reasons for which a call is refused: the `reason` of `google.rpc.ErrorInfo`.

/// Why a call was refused. A value's text may never change; new ones may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The activation was refused; no further cause is told.
    ActivationRefused,
    /// The terminal is not in the state that this step needs.
    ActivationState,
    /// Officers have to approve this very request first.
    ApprovalRequired,
    /// The approval is closed, or not for this officer to give.
    ApprovalState,
    /// The audit log can not be written.
    AuditUnavailable,
    /// Too many failures in the current interval.
    BudgetSpent,
    /// The caller is nobody that the policy knows.
    CallerUnknown,
    /// The ceremony ended: nothing happened, nothing is kept.
    CeremonyAborted,
    /// This is not the next step of the ceremony, or not the caller's.
    CeremonyState,
    /// The activation code was refused.
    CodeRefused,
    /// The component is not the one that was given out, or no component.
    ComponentRejected,
    /// The device certificate does not chain to a trusted authority, or the device is denied.
    DeviceNotTrusted,
    /// A field of the request is malformed or out of bounds.
    FieldInvalid,
    /// A fault on our side; the caller gets an incident id alone.
    Internal,
    /// A key of this name exists.
    KeyAlreadyExists,
    /// The key block was refused; no further cause is told.
    KeyBlockRejected,
    /// The same key, of the same usage, is here already.
    KeyDuplicate,
    /// The state of the key does not allow the operation.
    KeyNotActive,
    /// No key of this name exists.
    KeyNotFound,
    /// The key is not for this operation.
    KeyUsageMismatch,
    /// No more initial key ids, or no more counters.
    KsnExhausted,
    /// The key serial number is malformed.
    KsnInvalid,
    /// The counter is spent, too old, or too far ahead.
    KsnReplayed,
    /// The MAC does not verify; no further cause is told.
    MacMismatch,
    /// The merchant of the terminal is not approved.
    MerchantNotApproved,
    /// The message is too long, compressed, or none of its type.
    MessageInvalid,
    /// The PIN block was refused; no further cause is told.
    PinBlockRejected,
    /// The caller may not do this.
    PolicyDenied,
    /// More calls than may be made in this time.
    RateLimited,
    /// The request id was used with another body.
    RequestIdReused,
    /// A resource of this name exists.
    ResourceAlreadyExists,
    /// No resource of this name exists.
    ResourceNotFound,
    /// The master key before the one in force is not retired yet.
    RotationUnderWay,
    /// The seal is not in the state that this call needs.
    SealState,
    /// A known answer came out wrong.
    SelfTestFailed,
    /// The share is not one that is taken; which public part is wrong may be told.
    ShareRefused,
    /// Another call changed the same record first.
    StoreConflict,
    /// The store does not serve.
    StoreUnavailable,
    /// The terminal is activated already.
    TerminalAlreadyActivated,
    /// A terminal of this name or serial number exists.
    TerminalAlreadyExists,
    /// The terminal is locked after too many wrong codes.
    TerminalLocked,
    /// The terminal is not active.
    TerminalNotActive,
    /// No terminal of this name exists.
    TerminalNotFound,
    /// The token that holds the wrapping key does not serve.
    TokenUnavailable,
    /// The table of PIN translations does not have this pair.
    TranslationForbidden,
    /// The shares did not open the vault; which of them is wrong is not told.
    UnsealFailed,
    /// The vault is sealed: nobody knows its master key now.
    VaultSealed,
    /// The wrapping key is weaker than what it would carry.
    WrappingKeyTooWeak,
}

impl Reason {
    /// Every reason, for the test that compares them with the proto.
    pub const ALL: &'static [Self] = &[
        Self::ActivationRefused,
        Self::ActivationState,
        Self::ApprovalRequired,
        Self::ApprovalState,
        Self::AuditUnavailable,
        Self::BudgetSpent,
        Self::CallerUnknown,
        Self::CeremonyAborted,
        Self::CeremonyState,
        Self::CodeRefused,
        Self::ComponentRejected,
        Self::DeviceNotTrusted,
        Self::FieldInvalid,
        Self::Internal,
        Self::KeyAlreadyExists,
        Self::KeyBlockRejected,
        Self::KeyDuplicate,
        Self::KeyNotActive,
        Self::KeyNotFound,
        Self::KeyUsageMismatch,
        Self::KsnExhausted,
        Self::KsnInvalid,
        Self::KsnReplayed,
        Self::MacMismatch,
        Self::MerchantNotApproved,
        Self::MessageInvalid,
        Self::PinBlockRejected,
        Self::PolicyDenied,
        Self::RateLimited,
        Self::RequestIdReused,
        Self::ResourceAlreadyExists,
        Self::ResourceNotFound,
        Self::RotationUnderWay,
        Self::SealState,
        Self::SelfTestFailed,
        Self::ShareRefused,
        Self::StoreConflict,
        Self::StoreUnavailable,
        Self::TerminalAlreadyActivated,
        Self::TerminalAlreadyExists,
        Self::TerminalLocked,
        Self::TerminalNotActive,
        Self::TerminalNotFound,
        Self::TokenUnavailable,
        Self::TranslationForbidden,
        Self::UnsealFailed,
        Self::VaultSealed,
        Self::WrappingKeyTooWeak,
    ];

    /// The stable text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ActivationRefused => "ACTIVATION_REFUSED",
            Self::ActivationState => "ACTIVATION_STATE",
            Self::ApprovalRequired => "APPROVAL_REQUIRED",
            Self::ApprovalState => "APPROVAL_STATE",
            Self::AuditUnavailable => "AUDIT_UNAVAILABLE",
            Self::BudgetSpent => "BUDGET_SPENT",
            Self::CallerUnknown => "CALLER_UNKNOWN",
            Self::CeremonyAborted => "CEREMONY_ABORTED",
            Self::CeremonyState => "CEREMONY_STATE",
            Self::CodeRefused => "CODE_REFUSED",
            Self::ComponentRejected => "COMPONENT_REJECTED",
            Self::DeviceNotTrusted => "DEVICE_NOT_TRUSTED",
            Self::FieldInvalid => "FIELD_INVALID",
            Self::Internal => "INTERNAL",
            Self::KeyAlreadyExists => "KEY_ALREADY_EXISTS",
            Self::KeyBlockRejected => "KEY_BLOCK_REJECTED",
            Self::KeyDuplicate => "KEY_DUPLICATE",
            Self::KeyNotActive => "KEY_NOT_ACTIVE",
            Self::KeyNotFound => "KEY_NOT_FOUND",
            Self::KeyUsageMismatch => "KEY_USAGE_MISMATCH",
            Self::KsnExhausted => "KSN_EXHAUSTED",
            Self::KsnInvalid => "KSN_INVALID",
            Self::KsnReplayed => "KSN_REPLAYED",
            Self::MacMismatch => "MAC_MISMATCH",
            Self::MerchantNotApproved => "MERCHANT_NOT_APPROVED",
            Self::MessageInvalid => "MESSAGE_INVALID",
            Self::PinBlockRejected => "PIN_BLOCK_REJECTED",
            Self::PolicyDenied => "POLICY_DENIED",
            Self::RateLimited => "RATE_LIMITED",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::ResourceAlreadyExists => "RESOURCE_ALREADY_EXISTS",
            Self::ResourceNotFound => "RESOURCE_NOT_FOUND",
            Self::RotationUnderWay => "ROTATION_UNDER_WAY",
            Self::SealState => "SEAL_STATE",
            Self::SelfTestFailed => "SELF_TEST_FAILED",
            Self::ShareRefused => "SHARE_REFUSED",
            Self::StoreConflict => "STORE_CONFLICT",
            Self::StoreUnavailable => "STORE_UNAVAILABLE",
            Self::TerminalAlreadyActivated => "TERMINAL_ALREADY_ACTIVATED",
            Self::TerminalAlreadyExists => "TERMINAL_ALREADY_EXISTS",
            Self::TerminalLocked => "TERMINAL_LOCKED",
            Self::TerminalNotActive => "TERMINAL_NOT_ACTIVE",
            Self::TerminalNotFound => "TERMINAL_NOT_FOUND",
            Self::TokenUnavailable => "TOKEN_UNAVAILABLE",
            Self::TranslationForbidden => "TRANSLATION_FORBIDDEN",
            Self::UnsealFailed => "UNSEAL_FAILED",
            Self::VaultSealed => "VAULT_SEALED",
            Self::WrappingKeyTooWeak => "WRAPPING_KEY_TOO_WEAK",
        }
    }
}
