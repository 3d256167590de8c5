//! What goes wrong in the vault.

use super::reason::Reason;

/// Why the vault did not do as it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An attribute of a new key does not go with its usage and algorithm.
    #[error("attribute {name} does not go with the key's usage and algorithm")]
    AttributeInvalid {
        /// The attribute, by its name in the API.
        name: &'static str,
    },
    /// Too many failures: the caller may come back later.
    #[error("too many failures, try again in {retry_after_ms} ms")]
    BudgetSpent {
        /// When it is worth trying again, from now.
        retry_after_ms: u64,
    },
    /// Another call changed the same record first: the whole call may be tried again.
    #[error("another call changed the same record first")]
    Conflict,
    /// A fault on our side, named in the log by its incident id: a record that does not open, or
    /// something that can not happen.
    #[error("internal fault, incident {incident}")]
    Internal {
        /// Finds the cause in the log.
        incident: Incident,
    },
    /// More calls than may be made in this time: the caller may come back later.
    #[error("too many calls, try again in {retry_after_ms} ms")]
    RateLimited {
        /// When it is worth trying again, from now.
        retry_after_ms: u64,
    },
    /// Refused, for a stable reason.
    #[error("refused: {}", .0.as_str())]
    Refused(Reason),
    /// The store does not serve. Nothing is known to be done.
    #[error("the store is unavailable")]
    Unavailable,
}

impl Error {
    /// The stable reason that the caller is told.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::AttributeInvalid { .. } => Reason::FieldInvalid,
            Self::BudgetSpent { .. } => Reason::BudgetSpent,
            Self::Conflict => Reason::StoreConflict,
            Self::Internal { .. } => Reason::Internal,
            Self::RateLimited { .. } => Reason::RateLimited,
            Self::Refused(reason) => *reason,
            Self::Unavailable => Reason::StoreUnavailable,
        }
    }

    /// Puts a cause into the log under a fresh incident id, which is all that a caller learns.
    ///
    /// `what` says which rule was broken and `subject` names the record; neither is ever a secret.
    #[must_use]
    pub fn incident(what: &'static str, subject: &str) -> Self {
        let incident = Incident(uuid::Uuid::new_v4());
        tracing::error!(%incident, what, subject, "internal fault");
        Self::Internal { incident }
    }
}

/// The id under which the log tells the cause of an internal fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incident(uuid::Uuid);

impl std::fmt::Display for Incident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl From<super::store::StoreError> for Error {
    fn from(error: super::store::StoreError) -> Self {
        match error {
            super::store::StoreError::InUse
            | super::store::StoreError::SchemaTooNew { .. }
            | super::store::StoreError::SchemaTooOld { .. }
            | super::store::StoreError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}
