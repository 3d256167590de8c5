//! The decision, and why it came out so.

use super::super::caller::{Action, Caller, Role};
use super::super::clock::UnixMillis;
use super::super::reason::Reason;
use super::{Policy, may_call};

/// A call that the policy does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What the caller is told.
    pub reason: Reason,
    /// Which rule it was, for the audit event; the caller is not told.
    pub rule: &'static str,
}

impl Policy {
    /// Decides whether a caller may make a call, and about which resource.
    pub fn decide(
        &self,
        caller: &Caller,
        action: Action,
        _resource: &str,
        _now: UnixMillis,
    ) -> Result<(), Denial> {
        let Some(role) = caller.role() else { return Ok(()) };
        if !matches!(role, Role::Terminal | Role::Service) {
            let principal = self.principal(caller.name());
            let known = principal.is_some_and(|principal| principal.role == role);
            if !known {
                return Err(Denial { reason: Reason::CallerUnknown, rule: "principal" });
            }
        }
        if !may_call(role, action) {
            return Err(Denial { reason: Reason::PolicyDenied, rule: "role" });
        }
        Ok(())
    }
}
