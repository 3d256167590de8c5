//! The authorities in force: who certified a caller is asked for at each call, for a connection may
//! be older than what is believed now.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::peer::Plane;

/// Authorities of planes: for each its plane and the SHA-256 of its key, as
/// [`crate::crypto::certificate::Client`] has it.
pub type AuthorityKeys = BTreeSet<(Plane, [u8; 32])>;

/// The authorities whose certificates open the planes of a listener; they can change at any time.
#[derive(Clone, Debug, Default)]
pub struct Believed(Arc<RwLock<AuthorityKeys>>);

impl Believed {
    /// Puts other authorities in force, from the next call on.
    pub fn replace(&self, authorities: AuthorityKeys) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = authorities;
    }

    /// Takes out of force whatever is not among these.
    pub fn keep(&self, authorities: &AuthorityKeys) {
        let mut believed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        believed.retain(|authority| authorities.contains(authority));
    }

    /// Whether an authority of a plane is in force.
    pub(super) fn holds(&self, plane: Plane, authority: [u8; 32]) -> bool {
        let authorities = self.0.read().unwrap_or_else(PoisonError::into_inner);
        authorities.contains(&(plane, authority))
    }
}
