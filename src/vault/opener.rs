//! What a sealed vault is opened from: everything but its master key.

use std::sync::Arc;

use super::audit::AuditSettings;
use super::begin::{Also, Beginning};
use super::clock::Clock;
use super::custody::Seal;
use super::master::MasterKey;
use super::open::OpenError;
use super::policy::Policy;
use super::seal::Realm;
use super::store::Store;
use super::vault::{Opening, Vault};
use crate::crypto::rng::Rng;

/// What a vault is opened from, again and again, when its master key is brought.
pub struct Opener {
    /// Where the sealed records live.
    pub store: Arc<dyn Store>,
    /// The realm that they belong to.
    pub realm: Realm,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub rng: Arc<dyn Rng>,
    /// The name of this replica, whose chain of events it is: lower-case letters, digits, hyphens.
    pub node: String,
    /// How the audit log is kept.
    pub audit: AuditSettings,
    /// The policy that an empty store is begun with.
    pub first_policy: Option<Policy>,
}

impl Opener {
    /// Opens a store that was begun. What is let pass at one start, is so at the first opening
    /// alone.
    pub async fn open(&self, master_key: MasterKey, is_first: bool) -> Result<Vault, OpenError> {
        let new_checkpoint = self.audit.new_checkpoint && is_first;
        let clock_is_right = self.audit.clock_is_right && is_first;
        let audit = AuditSettings { new_checkpoint, clock_is_right, ..self.audit.clone() };
        let nothing = Beginning { policy: None, seal: Seal::Dev };
        Vault::open_with(self.opening(master_key, audit), nothing).await
    }

    /// Begins an empty store with the first policy, and with what else is to be in that commit.
    pub async fn begin(
        &self,
        master_key: MasterKey,
        seal: Seal,
        also: Also<'_>,
    ) -> Result<Vault, OpenError> {
        let beginning = Beginning { policy: self.first_policy.clone(), seal };
        Vault::begin_with(self.opening(master_key, self.audit.clone()), beginning, also).await
    }

    fn opening(&self, master_key: MasterKey, audit: AuditSettings) -> Opening {
        Opening {
            store: Arc::clone(&self.store),
            master_key,
            realm: self.realm,
            clock: Arc::clone(&self.clock),
            rng: Arc::clone(&self.rng),
            node: self.node.clone(),
            audit,
        }
    }
}
