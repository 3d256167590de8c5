//! The policy that is in force, and how it can only be replaced by a newer one.

use std::sync::{Arc, PoisonError, RwLock};

use super::Policy;

/// The policy in force.
pub(in super::super) struct InForce(RwLock<Arc<Policy>>);

impl InForce {
    /// Nobody may do anything.
    pub(in super::super) fn nobody() -> Self {
        Self(RwLock::new(Arc::new(Policy::none())))
    }

    /// The policy.
    pub(in super::super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a policy in force that is durable, unless a newer one is.
    pub(in super::super) fn put(&self, policy: Policy) {
        let mut in_force = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if policy.version > in_force.version {
            *in_force = Arc::new(policy);
        }
    }

    /// Takes the policy out of force: what the store holds in its place is not to be believed.
    pub(in super::super) fn deny_all(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Policy::none());
    }
}
