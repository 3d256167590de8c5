//! What a command may answer instead of a result. Errors of the floors below are collected here.

use crate::vault::{self, Reason};

/// Why a command was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request is missing, out of bounds or of a wrong form.
    #[error("{path}: {cause}")]
    Field {
        /// The field's path in the request, such as `source.dukpt.ksn`.
        path: String,
        /// What is wrong with it; never its content.
        cause: &'static str,
    },
    /// What the command is about may not be known to its caller, who is told what it would be told
    /// if there were nothing of that name.
    #[error("{}", .reason.as_str())]
    Hidden {
        /// The stable reason.
        reason: Reason,
        /// The rule of the policy, for the audit event alone.
        rule: &'static str,
    },
    /// A key serial number has a wrong length or counter.
    #[error("{path}: is no key serial number")]
    Ksn {
        /// The field's path in the request.
        path: String,
    },
    /// The command is not permitted, or found nothing to act on.
    #[error("{}", .reason.as_str())]
    Refused {
        /// The stable reason.
        reason: Reason,
        /// What the caller may learn beyond the reason.
        metadata: Vec<(&'static str, String)>,
    },
    /// The vault refused or failed.
    #[error(transparent)]
    Vault(#[from] vault::Error),
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self::refused(reason)
    }
}

impl Error {
    /// A refusal that tells nothing beyond its reason.
    #[must_use]
    pub const fn refused(reason: Reason) -> Self {
        Self::Refused { reason, metadata: Vec::new() }
    }

    /// A fault of one field.
    #[must_use]
    pub fn field(path: impl Into<String>, cause: &'static str) -> Self {
        Self::Field { path: path.into(), cause }
    }

    /// A key serial number of a wrong length or counter.
    #[must_use]
    pub fn ksn(path: impl Into<String>) -> Self {
        Self::Ksn { path: path.into() }
    }

    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Field { .. } => Reason::FieldInvalid,
            Self::Ksn { .. } => Reason::KsnInvalid,
            Self::Hidden { reason, .. } | Self::Refused { reason, .. } => *reason,
            Self::Vault(error) => error.reason(),
        }
    }

    /// What the caller may learn beyond the reason.
    #[must_use]
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Field { .. } | Self::Hidden { .. } | Self::Ksn { .. } => Vec::new(),
            Self::Refused { metadata, .. } => metadata.clone(),
            Self::Vault(error) => match error {
                vault::Error::Internal { incident } => vec![("incident", incident.to_string())],
                vault::Error::AttributeInvalid { .. }
                | vault::Error::BudgetSpent { .. }
                | vault::Error::Conflict
                | vault::Error::RateLimited { .. }
                | vault::Error::Refused(_)
                | vault::Error::Unavailable => Vec::new(),
            },
        }
    }

    /// After how many milliseconds it is worth trying again, where that is known.
    #[must_use]
    pub const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Vault(
                vault::Error::BudgetSpent { retry_after_ms }
                | vault::Error::RateLimited { retry_after_ms },
            ) => Some(*retry_after_ms),
            Self::Field { .. }
            | Self::Hidden { .. }
            | Self::Ksn { .. }
            | Self::Refused { .. }
            | Self::Vault(_) => None,
        }
    }
}
