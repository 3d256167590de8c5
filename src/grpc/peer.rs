//! The other end of a connection, as the listener learnt of it.

use std::sync::Arc;

use crate::vault::{Caller, UnixMillis, Vault};

/// A group of services with an authority of its own: a certificate opens only its plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// `ActivationService`: terminals and their relays.
    Activation,
    /// Keys, trust, approvals, policy, audit and status: people.
    Admin,
    /// `PinService` and `MacService`: payment backends.
    Data,
    /// `TerminalService`: the acquirer's activation backend.
    Terminals,
}

impl Plane {
    /// Every plane.
    pub const ALL: [Self; 4] = [Self::Activation, Self::Admin, Self::Data, Self::Terminals];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activation => "activation",
            Self::Admin => "admin",
            Self::Data => "data",
            Self::Terminals => "terminals",
        }
    }

    /// The plane of a service of `firstkey.v1`.
    #[must_use]
    pub fn of_service(service: &str) -> Option<Self> {
        Some(match service {
            "ActivationService" => Self::Activation,
            "ApprovalService" | "AuditService" | "KeyService" | "PolicyService"
            | "StatusService" | "TrustService" => Self::Admin,
            "MacService" | "PinService" => Self::Data,
            "TerminalService" => Self::Terminals,
            _ => return None,
        })
    }
}

/// What the listener knows of a connection. A connection of which it knows nothing enters nowhere.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The planes that the listener carries.
    pub planes: Vec<Plane>,
    /// The verified certificate; none where the other end showed none.
    pub identity: Option<Arc<Identity>>,
}

/// What a verified client certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its one URI name (RFC 5280, 4.2.1.6).
    pub name: String,
    /// SHA-256 of the certificate in DER, in lower case hexadecimals.
    pub fingerprint: String,
    /// The last second of its validity, in Unix time.
    pub not_after: u64,
    /// The planes whose authority certified it.
    pub planes: Vec<Plane>,
}

impl Peer {
    /// Whether the connection leads to a plane: the listener carries it, and its authority
    /// certified the peer. Terminals need no certificate; their proof stands in their messages.
    pub(super) fn may_enter(&self, plane: Plane) -> bool {
        let certified = match &self.identity {
            Some(identity) => identity.planes.contains(&plane),
            None => plane == Plane::Activation,
        };
        self.planes.contains(&plane) && certified
    }

    /// Who it is, by the policy in force.
    pub(super) fn caller(&self, plane: Plane, vault: &Vault) -> Caller {
        let Some(identity) = &self.identity else {
            // Who shows nothing is a terminal where terminals call, and nobody elsewhere.
            return if plane == Plane::Activation {
                Caller::terminal()
            } else {
                Caller::stranger("", "")
            };
        };
        let policy = vault.policy();
        let over = UnixMillis(identity.not_after.saturating_mul(1_000)) < vault.now();
        match policy.principal(&identity.name).filter(|_| !over) {
            Some(principal) => {
                let machine = principal.person.is_empty();
                let person = if machine { &principal.name } else { &principal.person };
                Caller::new(&identity.name, person, principal.role, &identity.fingerprint)
            }
            None => Caller::stranger(&identity.name, &identity.fingerprint),
        }
    }
}
