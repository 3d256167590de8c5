//! How a vault is opened: everything is held against everything else before anything is written.
//!
//! ```text
//! master key -> events -> tally of rows -> checkpoints, here and outside -> policy -> ready
//! ```
//!
//! An empty store is begun at the end of that, in one commit: the record that proves its master
//! key, the key of its log and, outside development, its first policy with the event that tells of
//! it. A first start that does not come so far leaves the store empty.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::audit::{
    self, Checkpoints, LogKey, VERIFIED_AT_OPEN_MAX, keep_signing, read_head, verify,
};
use super::caller::{Action, Caller};
use super::committer::{self, QUEUE_MAX};
use super::core::Core;
use super::error::Error;
use super::housekeeping::{Housekeeper, keep_house};
use super::install;
use super::policy::{Policy, PolicyInvalid};
use super::record::{Kind, Record, Versioned};
use super::seal::{Realm, Sealer};
use super::store::{IndexFilter, Query};
use super::vault::{Opening, Shared, Vault};
use super::work::Work;

/// Why a vault does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The chain of events does not hold: an event was changed, moved or cut off.
    #[error(
        "the chain of audit events in the store does not verify: the log tells at which event; \
         restore the newest backup that is whole, and keep this store to be looked at"
    )]
    ChainBroken,
    /// A checkpoint is signed by another key: it is of another log, or this store was begun anew.
    #[error("{0} is of another log: the store was exchanged, or the file is another service's")]
    CheckpointForeign(CheckpointAt),
    /// A checkpoint is none, or its signature does not verify.
    #[error("{0} is none, or its signature does not verify: put the right one in its place")]
    CheckpointInvalid(CheckpointAt),
    /// There is no checkpoint outside, and there was one.
    #[error(
        "no checkpoint is outside, and one was kept there (the store's own covers {size} events): \
         put the file back, or, if you know why it is gone, begin a new one on purpose by starting \
         once with --new-checkpoint"
    )]
    CheckpointMissing {
        /// How many events the newest checkpoint in the store covers.
        size: u64,
    },
    /// The log has as many events as were signed, and they are others.
    #[error(
        "forked: the first {size} audit events in the store are not those that {at} covers; put \
         the store in place that goes with it"
    )]
    Forked {
        /// Which checkpoint tells.
        at: CheckpointAt,
        /// How many events it covers.
        size: u64,
    },
    /// The key that signs the log is gone.
    #[error(
        "the store does not hold the key of its audit log: restore the newest backup that is whole"
    )]
    LogKeyMissing,
    /// An empty store is not begun without a policy, outside development.
    #[error("the store holds no policy, so nobody would be let in: begin it with one")]
    NoPolicy,
    /// The name of the node is not one.
    #[error("a node is named by lower-case letters, digits and hyphens, 63 at most")]
    NodeInvalid,
    /// The policy was changed, or is older than one that was in force, or is gone.
    #[error(
        "the policy in the store is not the one that was put in force last: somebody else changed \
         it or set it back; restore the newest backup that is whole"
    )]
    PolicyBroken,
    /// What is to be the first policy is none.
    #[error("the first policy: {0}")]
    PolicyInvalid(#[from] PolicyInvalid),
    /// The record that proves the master key is gone.
    #[error(
        "the store holds records, and not the one that proves their master key: it was not begun \
         by this service, or a row was deleted; restore the newest backup that is whole"
    )]
    ProofMissing,
    /// The log has fewer events than were signed: the store was set back.
    #[error(
        "rolled back: {at} covers {kept} audit events, the store holds {found}; put the store in \
         place that was set back"
    )]
    RolledBack {
        /// Which checkpoint tells.
        at: CheckpointAt,
        /// How many events it covers.
        kept: u64,
        /// How many there are.
        found: u64,
    },
    /// The store was sealed under another master key, or in another realm.
    #[error("the store was sealed under another master key or in another realm")]
    SealedOtherwise,
    /// Rows were changed, set back or taken away since the last commit.
    #[error(
        "the store is not as it was left: rows were changed, set back or taken away by somebody \
         else; restore the newest backup that is whole"
    )]
    StoreAltered,
    /// The store does not serve.
    #[error("the store is unavailable: the log tells why")]
    Unavailable,
    /// What is kept outside can not be read.
    #[error("the checkpoint outside can not be read, or not in time: the log tells why")]
    WitnessUnavailable,
}

/// Where a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointAt {
    /// Where whoever changes the store can not change it.
    Outside,
    /// In the store itself.
    Store,
}

impl fmt::Display for CheckpointAt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Outside => "the checkpoint outside",
            Self::Store => "the checkpoint in the store",
        })
    }
}

impl Vault {
    /// Opens a store that was begun, or begins an empty one for development.
    ///
    /// Must be called within a Tokio runtime, where the committer then runs.
    pub async fn open(opening: Opening) -> Result<Self, OpenError> {
        Self::open_with(opening, None).await
    }

    /// Opens a store, or begins an empty one with a first policy, and verifies the end of the chain
    /// of events. A store that was begun takes no first policy any more: from whichever store rows
    /// are deleted, it does not get its first policy back.
    ///
    /// Must be called within a Tokio runtime, where the committer then runs.
    pub async fn open_with(
        opening: Opening,
        first_policy: Option<Policy>,
    ) -> Result<Self, OpenError> {
        let Opening { store, master_key, realm, clock, rng, node, audit } = opening;
        if !is_node_name(&node) {
            return Err(OpenError::NodeInvalid);
        }
        let sealer = Sealer::new(master_key, realm);
        let core = Arc::new(Core::new(store, sealer, rng, clock, node, &audit));
        let beginning =
            if is_begun(&core).await? { None } else { Some(Beginning::new(&core, first_policy)?) };
        let head = read_head(&core).await?.record;
        let after = head.seq.saturating_sub(VERIFIED_AT_OPEN_MAX);
        let verified = verify(&core, after).await?;
        let tally = core.tally.survey(&*core.store).await.map_err(|_| OpenError::Unavailable)?;
        if tally != head.tally {
            return Err(OpenError::StoreAltered);
        }
        core.note_committed(head.seq, head.time);
        let checkpoints = if let Some(Beginning { log_key, .. }) = &beginning {
            Checkpoints::open(&core, log_key, audit).await?
        } else {
            let log_key = LogKey::read(&core).await?.ok_or(OpenError::LogKeyMissing)?;
            Checkpoints::open(&core, &log_key, audit).await?
        };
        install::load_policy(&core, &mut None).await.map_err(no_policy)?;
        if beginning.is_none() && realm == Realm::Live && core.policy.policy().version == 0 {
            return Err(OpenError::PolicyBroken);
        }
        core.look_at_disk().await;
        let (queue, units) = mpsc::channel(QUEUE_MAX);
        let committer = tokio::spawn(committer::run(Arc::clone(&core), units));
        let shared = Shared { core, queue, counts: Arc::default(), leases: Arc::default() };
        if let Some(beginning) = beginning {
            beginning.commit(&shared).await?;
        }
        let checkpoints = Arc::new(checkpoints);
        let housekeeper = tokio::spawn(keep_house(Housekeeper::of(&shared)));
        let signer = tokio::spawn(keep_signing(
            Arc::downgrade(&shared.core),
            Arc::clone(&checkpoints),
            shared.core.committed.subscribe(),
            audit::STEP,
        ));
        Ok(Self { shared, checkpoints, verified, committer, housekeeper, signer })
    }
}

/// The record that proves the master key and the realm of a store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proof {
    realm: String,
}

impl Proof {
    pub(super) const ID: &str = "proof";
}

impl Record for Proof {
    const KIND: Kind = Kind::new("vault");

    fn id(&self) -> String {
        Self::ID.to_owned()
    }
}

/// What a store that was begun holds, and an empty one does not; of other rows tells the tally.
const BEGUN_WITH: [Kind; 2] = [audit::ChainHead::KIND, LogKey::KIND];

/// Finds that the store is sealed under this master key, or that it is empty.
async fn is_begun(core: &Core) -> Result<bool, OpenError> {
    let row = core.store.get(Proof::KIND, Proof::ID).await.map_err(|_| OpenError::Unavailable)?;
    if let Some(row) = row {
        let opened = core.open_bytes(Proof::KIND, Proof::ID, &row);
        return opened.map(|_| true).map_err(|_| OpenError::SealedOtherwise);
    }
    for kind in BEGUN_WITH {
        let any = Query { kind, index: IndexFilter::Any, after: None, limit: 1 };
        let found = core.store.list(any).await.map_err(|_| OpenError::Unavailable)?;
        if !found.is_empty() {
            return Err(OpenError::ProofMissing);
        }
    }
    Ok(false)
}

/// What an empty store is begun with.
struct Beginning {
    log_key: LogKey,
    policy: Option<Policy>,
}

impl Beginning {
    fn new(core: &Core, policy: Option<Policy>) -> Result<Self, OpenError> {
        let realm = core.sealer.realm();
        match &policy {
            Some(policy) => policy.check(realm)?,
            None if realm == Realm::Live => return Err(OpenError::NoPolicy),
            None => {}
        }
        Ok(Self { log_key: LogKey::draw(core)?, policy })
    }

    /// Writes all of it at once. Where another process did so meanwhile, nothing is written.
    async fn commit(self, shared: &Shared) -> Result<(), OpenError> {
        let Self { log_key, policy } = self;
        let core = &shared.core;
        let proof = Versioned::absent(Proof { realm: core.sealer.realm().as_str().to_owned() });
        let log_key = Versioned::absent(log_key);
        let Some(policy) = policy else {
            let batch = vec![core.put(&proof)?, core.put(&log_key)?];
            let outcomes = core.store.commit(vec![batch], Box::new(|_| Vec::new())).await;
            return match outcomes.map_err(Error::from)?.as_slice() {
                [outcome] if outcome.is_applied() => Ok(()),
                _ => Err(OpenError::Unavailable),
            };
        };
        let (caller, resource) = (Caller::service(), Policy::RESOURCE.to_owned());
        let mut work = Work::new(shared.clone(), &caller, Action::SetPolicy, resource, 0);
        work.put(&proof)?;
        work.put(&log_key)?;
        let first = Versioned::absent(Policy { version: 1, ..policy });
        let begun = work.commit_policy(first).await;
        begun.map(|_| ()).map_err(|_| OpenError::Unavailable)
    }
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable => Self::Unavailable,
            Error::AttributeInvalid { .. }
            | Error::BudgetSpent { .. }
            | Error::Conflict
            | Error::Internal { .. }
            | Error::RateLimited { .. }
            | Error::Refused(_) => Self::ChainBroken,
        }
    }
}

fn no_policy(error: Error) -> OpenError {
    match error {
        Error::Unavailable => OpenError::Unavailable,
        Error::AttributeInvalid { .. }
        | Error::BudgetSpent { .. }
        | Error::Conflict
        | Error::Internal { .. }
        | Error::RateLimited { .. }
        | Error::Refused(_) => OpenError::PolicyBroken,
    }
}

fn is_node_name(node: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    (1..=63).contains(&node.len()) && node.bytes().all(allowed)
}
