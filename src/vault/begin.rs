//! How an empty store is begun: in one commit, or not at all.

use super::audit::{ChainHead, LogKey};
use super::caller::{Action, Caller};
use super::custody::{Custody, Seal};
use super::error::Error;
use super::master::{Generation, MasterKey};
use super::open::OpenError;
use super::policy::Policy;
use super::record::{Kind, Record as _, Versioned};
use super::seal::{HashRoot, Masters, Realm, Sealer};
use super::store::{IndexFilter, Query, Store};
use super::vault::Shared;
use super::work::Work;
use crate::crypto::rng::Rng;

/// What an empty store is begun with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The first policy: outside development nothing is begun without one.
    pub policy: Option<Policy>,
    /// By whom or what the master key is kept.
    pub seal: Seal,
}

/// Adds to the commit with which a store is begun under a policy.
pub type Also<'a> = &'a (dyn Fn(&mut Work) -> Result<(), Error> + Sync);

/// What a store that was begun holds, and an empty one does not; of other rows tells the tally.
const BEGUN_WITH: [Kind; 3] = [ChainHead::KIND, HashRoot::KIND, LogKey::KIND];

/// Finds that a store which says nothing of its master key is empty.
pub(super) async fn expect_empty(store: &dyn Store) -> Result<(), OpenError> {
    for kind in BEGUN_WITH {
        let any = Query { kind, index: IndexFilter::Any, after: None, limit: 1 };
        let found = store.list(any).await.map_err(|_| OpenError::Unavailable)?;
        if !found.is_empty() {
            return Err(OpenError::CustodyMissing);
        }
    }
    Ok(())
}

/// What is ready to be written into an empty store.
pub(super) struct Begun {
    custody: Custody,
    root: HashRoot,
    log_key: LogKey,
    policy: Option<Policy>,
}

impl Begun {
    /// Draws what a store is begun with, and gives the sealer for it.
    pub(super) fn new(
        master: MasterKey,
        realm: Realm,
        rng: &dyn Rng,
        beginning: Beginning,
    ) -> Result<(Self, Sealer), OpenError> {
        let Beginning { policy, seal } = beginning;
        match &policy {
            Some(policy) => policy.check(realm)?,
            None if realm == Realm::Live => return Err(OpenError::NoPolicy),
            None => {}
        }
        if !seal.fits(realm) {
            return Err(OpenError::SealUnfit);
        }
        let custody = Custody::new(FIRST, realm, seal, &master);
        let root = HashRoot::draw(rng)?;
        let masters = Masters::new(Generation::new(FIRST, realm, master));
        let sealer = Sealer::new(realm, masters, root.to_key()?);
        Ok((Self { custody, root, log_key: LogKey::draw(rng)?, policy }, sealer))
    }

    pub(super) const fn log_key(&self) -> &LogKey {
        &self.log_key
    }

    /// Writes all of it at once. Where another process did so meanwhile, nothing is written.
    pub(super) async fn commit(self, shared: &Shared, also: Also<'_>) -> Result<(), OpenError> {
        let Self { custody, root, log_key, policy } = self;
        let core = &shared.core;
        let custody = Custody::write(&Versioned::absent(custody))?;
        let root = Versioned::absent(root);
        let log_key = Versioned::absent(log_key);
        let Some(policy) = policy else {
            let batch = vec![custody, core.put(&root)?, core.put(&log_key)?];
            let outcomes = core.store.commit(vec![batch], Box::new(|_| Vec::new())).await;
            return match outcomes.map_err(Error::from)?.as_slice() {
                [outcome] if outcome.is_applied() => Ok(()),
                _ => Err(OpenError::Unavailable),
            };
        };
        let (caller, resource) = (Caller::service(), Policy::RESOURCE.to_owned());
        let mut work = Work::new(shared.clone(), &caller, Action::SetPolicy, resource, 0);
        work.replace(custody);
        work.put(&root)?;
        work.put(&log_key)?;
        also(&mut work)?;
        let first = Versioned::absent(Policy { version: 1, ..policy });
        let begun = work.commit_policy(first).await;
        begun.map(|_| ()).map_err(|_| OpenError::Unavailable)
    }
}

/// The number of the first master key of a store.
const FIRST: u32 = 1;
