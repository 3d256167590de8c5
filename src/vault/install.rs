//! How a policy comes into force, and stays so: from a commit, and from the store.

use super::audit;
use super::caller::{Action, Caller};
use super::committer::Committed;
use super::core::Core;
use super::error::Error;
use super::policy::{Policy, PolicyInvalid};
use super::reason::Reason;
use super::record::Versioned;
use super::vault::Vault;
use super::work::Work;

/// How many of the newest events are asked for the version of the policy.
const ASKED_MAX: u64 = 100;

/// The detail of the audit event that holds the version of a policy that was put in force.
const VERSION: &str = "version";

/// Why a policy was not put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefused {
    /// The document is not a policy.
    #[error(transparent)]
    Invalid(#[from] PolicyInvalid),
    /// The vault refused or failed.
    #[error(transparent)]
    Vault(#[from] Error),
}

impl Vault {
    /// Puts a first policy in force where there is none yet, and tells whether it did: the service
    /// itself does so when it starts, and says it in the audit log.
    pub async fn install_policy(&self, policy: Policy) -> Result<bool, PolicyRefused> {
        policy.check(self.realm())?;
        if self.get::<Policy>(Policy::ID).await?.is_some() {
            return Ok(false);
        }
        let (caller, resource) = (Caller::service(), Policy::RESOURCE.to_owned());
        let work = Work::new(self.shared.clone(), &caller, Action::SetPolicy, resource, 0);
        work.commit_policy(Versioned::absent(Policy { version: 1, ..policy })).await?;
        Ok(true)
    }

    /// Checks a policy that is to stand in the place of the one whose version it has, and gives it
    /// the next version; `STORE_CONFLICT` where another is in force by now.
    pub async fn next_policy(&self, policy: Policy) -> Result<Versioned<Policy>, PolicyRefused> {
        policy.check(self.realm())?;
        let stored = self.get::<Policy>(Policy::ID).await?;
        let in_force = stored.as_ref().map_or(0, |stored| stored.record.version);
        if in_force != policy.version {
            return Err(Error::from(Reason::StoreConflict).into());
        }
        let version = stored.and_then(|stored| stored.version);
        Ok(Versioned { version, record: Policy { version: in_force.saturating_add(1), ..policy } })
    }
}

impl Work {
    /// Makes a policy durable in place of the one that it was made from; the calls that begin after
    /// it are decided by it. The audit event holds both versions and SHA-256 of the document.
    pub async fn commit_policy(mut self, policy: Versioned<Policy>) -> Result<Committed, Error> {
        let version = policy.record.version;
        self.detail(VERSION, version.to_string());
        self.detail("version_before", version.saturating_sub(1).to_string());
        self.detail("sha256", policy.record.digest());
        self.put(&policy)?;
        let core = std::sync::Arc::clone(self.core());
        // If it is not known what became of the commit, the store is asked again soon.
        let committed = self.commit().await?;
        core.policy.put(policy.record);
        Ok(committed)
    }
}

/// Puts the policy that the store holds in force. One that does not open, that is older than one
/// that was in force, or that is gone, is none: then nobody may do anything.
pub(super) async fn load_policy(core: &Core) -> Result<(), Error> {
    // Asked first: what was in force then was durable, so the store must have it or a later one.
    let known = core.policy.known();
    let refused = match core.read::<Policy>(Policy::ID).await {
        Ok(Some(stored)) if stored.record.version >= known => {
            core.policy.put(stored.record);
            return Ok(());
        }
        Ok(None) if known == 0 => return Ok(()),
        Err(Error::Unavailable) => return Err(Error::Unavailable),
        Ok(_) => Error::incident("the policy is older than one that was in force", Policy::ID),
        Err(error) => error,
    };
    core.policy.deny_all();
    Err(refused)
}

/// Notes which policy was in force last, as the newest events tell.
pub(super) async fn know_policy(core: &Core, newest: u64) -> Result<(), Error> {
    let after = newest.saturating_sub(ASKED_MAX);
    let limit = usize::try_from(ASKED_MAX).unwrap_or(usize::MAX);
    for event in audit::events_after(core, after, None, limit).await? {
        let changed = event.action == Action::SetPolicy.as_str() && event.is_done();
        let version = event.detail.get(VERSION).filter(|_| changed);
        let version = version.and_then(|version| version.parse().ok()).unwrap_or(0);
        core.policy.know(event.policy.max(version));
    }
    Ok(())
}
