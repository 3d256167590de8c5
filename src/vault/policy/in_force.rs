//! The policy that is in force, and how it can only be replaced by a newer one.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::Policy;

/// The policy in force.
pub(in super::super) struct InForce(RwLock<State>);

struct State {
    policy: Arc<Policy>,
    /// The highest version that is known to have been in force: an older policy never is again.
    known: u64,
}

impl InForce {
    /// Nobody may do anything.
    pub(in super::super) fn nobody() -> Self {
        Self(RwLock::new(State { policy: Arc::new(Policy::none()), known: 0 }))
    }

    /// The policy.
    pub(in super::super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.read().policy)
    }

    /// The highest version that is known to have been in force.
    pub(in super::super) fn known(&self) -> u64 {
        self.read().known
    }

    /// Puts a policy in force that is durable, unless a newer one was.
    pub(in super::super) fn put(&self, policy: Policy) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if policy.version >= state.known && policy.version != state.policy.version {
            state.known = policy.version;
            state.policy = Arc::new(policy);
        }
    }

    /// Takes the policy out of force: what the store holds in its place is not to be believed.
    pub(in super::super) fn deny_all(&self) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.policy = Arc::new(Policy::none());
    }

    /// A state is changed whole, so what a panicking thread leaves behind is still consistent.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
