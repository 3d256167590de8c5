//! The other end of a connection, as the listener learnt of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::believed::Believed;
use super::denied::DenyList;
use crate::crypto::ec::Point;
use crate::vault::{Caller, Reason, UnixMillis, Vault};

/// A group of services with an authority of its own: a certificate opens only its plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// `ActivationService`: terminals and their relays.
    Activation,
    /// Keys, trust, approvals, policy, audit, seal and status: people.
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
            "ApprovalService" | "AuditService" | "CeremonyService" | "KeyService"
            | "PolicyService" | "SealService" | "StatusService" | "TrustService" => Self::Admin,
            "MacService" | "PinService" => Self::Data,
            "TerminalService" => Self::Terminals,
            _ => return None,
        })
    }
}

/// What the listener knows of a connection. A connection of which it knows nothing enters nowhere.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The address that it calls from; none where the listener does not know.
    pub address: Option<IpAddr>,
    /// The planes that the listener carries.
    pub planes: Vec<Plane>,
    /// The verified certificate; none where the other end showed none.
    pub identity: Option<Arc<Identity>>,
    /// How many of its calls were too many; whoever reads the connection counts anew when it likes.
    pub refused: Arc<AtomicU32>,
}

/// What a verified client certificate says.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its one URI name (RFC 5280, 4.2.1.6).
    pub name: String,
    /// SHA-256 of the certificate in DER, in lower case hexadecimals.
    pub fingerprint: String,
    /// The fingerprints of the certificates that can be made of it without its authority, and mean
    /// the same.
    pub twins: Vec<String>,
    /// The last second of its validity, in Unix time.
    pub not_after: u64,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// Its public key, where that is one of P-256: with no other anybody signs here.
    pub key: Option<Point>,
    /// The planes whose authority certified it, with the SHA-256 of that authority's key.
    pub planes: BTreeMap<Plane, [u8; 32]>,
    /// The authorities in force where it came in.
    pub believed: Believed,
}

impl Identity {
    /// The rule by which a certificate that verified is not believed any more, if there is one.
    pub(super) fn shut_out_by(&self, denied: &DenyList, now: UnixMillis) -> Option<&'static str> {
        if UnixMillis(self.not_after.saturating_mul(1_000)) < now {
            return Some("expired");
        }
        if denied.holds(self) {
            return Some("denied");
        }
        (!self.is_believed()).then_some("authority")
    }

    /// Whether whoever certified it is an authority still.
    fn is_believed(&self) -> bool {
        self.planes.iter().all(|(plane, authority)| self.believed.holds(*plane, *authority))
    }
}

/// A caller that does not come in, and the rule that says so, for the audit event.
pub(super) struct Shut {
    pub(super) caller: Caller,
    pub(super) rule: &'static str,
}

impl Peer {
    /// Whose certificate it is, while there is no policy to ask: the listener carries the plane,
    /// and its authority certified the peer.
    pub(super) fn outside(
        &self,
        plane: Plane,
        denied: &DenyList,
        now: UnixMillis,
    ) -> Result<Arc<Identity>, Reason> {
        let identity = self.identity.as_ref().ok_or(Reason::CallerUnknown)?;
        if identity.shut_out_by(denied, now).is_some() {
            return Err(Reason::CallerUnknown);
        }
        let may_enter = self.planes.contains(&plane) && identity.planes.contains_key(&plane);
        if may_enter { Ok(Arc::clone(identity)) } else { Err(Reason::PolicyDenied) }
    }

    /// Who it is, by the policy in force, if it may enter a plane: the listener carries it, and its
    /// authority certified the peer. Terminals need no certificate; their proof stands in their
    /// messages.
    pub(super) fn enter(
        &self,
        plane: Plane,
        denied: &DenyList,
        vault: &Vault,
    ) -> Result<Caller, Box<Shut>> {
        let shut = |caller, rule| Err(Box::new(Shut { caller, rule }));
        let carried = self.planes.contains(&plane);
        let Some(identity) = &self.identity else {
            // Who shows nothing is a terminal where terminals call, and nobody elsewhere.
            return match plane {
                Plane::Activation if carried => Ok(Caller::terminal()),
                _ => shut(Caller::stranger("", ""), "certificate"),
            };
        };
        let stranger = Caller::stranger(&identity.name, &identity.fingerprint);
        if let Some(rule) = identity.shut_out_by(denied, vault.now()) {
            return shut(stranger, rule);
        }
        let policy = vault.policy();
        let Some(principal) = policy.principal(&identity.name) else {
            return shut(stranger, "principal");
        };
        let machine = principal.person.is_empty();
        let person = if machine { &principal.name } else { &principal.person };
        let caller = Caller::new(&identity.name, person, principal.role, &identity.fingerprint);
        if carried && identity.planes.contains_key(&plane) {
            Ok(caller)
        } else {
            shut(caller, "plane")
        }
    }
}
