//! How a vault is opened: everything is held against everything else before anything is written.
//!
//! ```text
//! master key -> events -> tally of rows -> checkpoints, here and outside -> policy -> ready
//! ```
//!
//! An empty store is begun at the end of that, in one commit: what says how its master key is kept,
//! its hash root, the key of its log and, outside development, its first policy with the event that
//! tells of it. A first start that does not come so far leaves the store empty.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::audit::{
    self, AuditSettings, Checkpoints, LogKey, VERIFIED_AT_OPEN_MAX, keep_signing, read_head, verify,
};
use super::begin::{Also, Beginning, Begun, expect_empty};
use super::committer::{self, QUEUE_MAX};
use super::core::{Core, record_in};
use super::custody::{Custody, Seal};
use super::error::Error;
use super::housekeeping::{Housekeeper, keep_house};
use super::install;
use super::keys::is_published_master_key;
use super::master::{Address, Generation, MasterKey, NotDrawn};
use super::policy::PolicyInvalid;
use super::record::Record;
use super::rotation::{Rotation, keep_rotating};
use super::seal::{HashRoot, Masters, Realm, Sealer};
use super::store::{PatientStore, Store};
use super::vault::{Opening, Shared, Vault};
use crate::crypto::rng::RngFailed;
use crate::memory::{SecretPageUnavailable, with_wiped_stack};

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
    /// The clock is so far ahead of the newest event that it may be wrong.
    #[error(
        "the clock is {days} days ahead of the newest audit event: set it right or, if nobody used \
         the service for so long, start once with --clock-is-right"
    )]
    ClockAhead {
        /// How many whole days.
        days: u64,
    },
    /// What the store says of its master key in clear is not what a store says.
    #[error(
        "what the store says of its master key is damaged: restore the newest backup that is whole"
    )]
    CustodyInvalid,
    /// What the store says of its master key is gone.
    #[error(
        "the store holds records, and does not say how their master key is kept: it was not begun \
         by this service, or a row was deleted; restore the newest backup that is whole"
    )]
    CustodyMissing,
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
    /// A live store is not opened, and not begun, with a master key that everybody knows.
    #[error("the master key was published with the source: it is for development alone")]
    MasterKeyPublished,
    /// An empty store is not begun without a policy, outside development.
    #[error("the store holds no policy, so nobody would be let in: begin it with one")]
    NoPolicy,
    /// The name of the node is not one.
    #[error("a node is named by lower-case letters, digits and hyphens, 63 at most")]
    NodeInvalid,
    /// There is no randomness, or no page for a secret.
    #[error(transparent)]
    NotDrawn(#[from] NotDrawn),
    /// The policy was changed, or is older than one that was in force, or is gone.
    #[error(
        "the policy in the store is not the one that was put in force last: somebody else changed \
         it or set it back; restore the newest backup that is whole"
    )]
    PolicyBroken,
    /// What is to be the first policy is none.
    #[error("the first policy: {0}")]
    PolicyInvalid(#[from] PolicyInvalid),
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
    /// The store was sealed under another master key, or in another realm; or what it says of its
    /// master key was edited.
    #[error("the store was sealed under another master key or in another realm")]
    SealedOtherwise,
    /// The master key of a store that is begun would not be kept as its realm asks for.
    #[error("the master key can not be kept so: a threshold of 2 to 16 shares, or a token")]
    SealUnfit,
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
        Self::open_with(opening, Beginning { policy: None, seal: Seal::Dev }).await
    }

    /// Opens a store, or begins an empty one, and verifies the end of the chain of events. A store
    /// that was begun is not begun again: from whichever store rows are deleted, it does not get
    /// its first policy back.
    ///
    /// Must be called within a Tokio runtime, where the committer then runs.
    pub async fn open_with(opening: Opening, beginning: Beginning) -> Result<Self, OpenError> {
        Self::begin_with(opening, beginning, &|_| Ok(())).await
    }

    /// The same, with what else is to be in the commit that begins an empty store.
    pub(super) async fn begin_with(
        opening: Opening,
        beginning: Beginning,
        also: Also<'_>,
    ) -> Result<Self, OpenError> {
        let Opening { store, master_key, realm, clock, rng, node, audit } = opening;
        if !is_node_name(&node) {
            return Err(OpenError::NodeInvalid);
        }
        if realm == Realm::Live && is_published_master_key(&master_key) {
            return Err(OpenError::MasterKeyPublished);
        }
        let store: Arc<dyn Store> = Arc::new(PatientStore::new(store, audit.patience));
        let (sealer, begun) = if let Some(custody) = Custody::read(&*store).await? {
            (unlock(&*store, &custody, master_key, realm).await?, None)
        } else {
            expect_empty(&*store).await?;
            let (begun, sealer) = Begun::new(master_key, realm, &*rng, beginning)?;
            (sealer, Some(begun))
        };
        let core = Arc::new(Core::new(store, sealer, rng, clock, node, &audit));
        let head = read_head(&core).await?.record;
        let after = head.seq.saturating_sub(VERIFIED_AT_OPEN_MAX);
        let verified = verify(&core, after).await?;
        let tally = core.tally.survey(&*core.store).await.map_err(|_| OpenError::Unavailable)?;
        if tally != head.tally {
            return Err(OpenError::StoreAltered);
        }
        core.note_committed(head.seq, head.time);
        expect_clock(&core, &audit)?;
        let checkpoints = if let Some(begun) = &begun {
            Checkpoints::open(&core, begun.log_key(), audit).await?
        } else {
            let log_key = LogKey::read(&core).await?.ok_or(OpenError::LogKeyMissing)?;
            Checkpoints::open(&core, &log_key, audit).await?
        };
        install::load_policy(&core, &mut None).await.map_err(no_policy)?;
        if begun.is_none() && realm == Realm::Live && core.policy.policy().version == 0 {
            return Err(OpenError::PolicyBroken);
        }
        core.look_at_disk().await;
        let (queue, units) = mpsc::channel(QUEUE_MAX);
        let committer = tokio::spawn(committer::run(Arc::clone(&core), units));
        let shared = Shared { core, queue, counts: Arc::default(), leases: Arc::default() };
        if let Some(begun) = begun {
            begun.commit(&shared, also).await?;
        }
        let checkpoints = Arc::new(checkpoints);
        let housekeeper = tokio::spawn(keep_house(Housekeeper::of(&shared)));
        let rotation = shared.core.rotation.subscribe();
        let rotator = tokio::spawn(keep_rotating(Housekeeper::of(&shared), rotation));
        let signer = tokio::spawn(keep_signing(
            Arc::downgrade(&shared.core),
            Arc::clone(&checkpoints),
            shared.core.committed.subscribe(),
            audit::STEP,
        ));
        Ok(Self { shared, checkpoints, verified, committer, housekeeper, rotator, signer })
    }
}

/// Takes the master key of a store that was begun, and what stands under it: during a rotation the
/// master key before it, and the hash root.
async fn unlock(
    store: &dyn Store,
    custody: &Custody,
    master_key: MasterKey,
    realm: Realm,
) -> Result<Sealer, OpenError> {
    if custody.realm() != realm || !custody.accepts(&master_key) {
        return Err(OpenError::SealedOtherwise);
    }
    let mut masters = Masters::new(Generation::new(custody.generation, realm, master_key));
    let previous = |rotation: Rotation| rotation.previous(realm);
    if let Some(previous) = read_secret(store, &masters, Rotation::ID, previous).await? {
        masters.set_previous(previous);
    }
    let to_key = |root: HashRoot| root.to_key();
    let root = read_secret(store, &masters, HashRoot::ID, to_key).await?;
    Ok(Sealer::new(realm, masters, root.ok_or(OpenError::StoreAltered)?))
}

/// Reads a record that is needed before there is a tally to hold it against, and takes the secret
/// out of it into a page.
async fn read_secret<R: Record, T>(
    store: &dyn Store,
    masters: &Masters,
    id: &str,
    take: impl FnOnce(R) -> Result<T, SecretPageUnavailable>,
) -> Result<Option<T>, OpenError> {
    let row = store.get(R::KIND, id).await.map_err(|_| OpenError::Unavailable)?;
    let Some(row) = row else { return Ok(None) };
    let at = Address { kind: R::KIND, id, version: row.version };
    with_wiped_stack(|| {
        let plain = masters.open(at, &row.sealed).map_err(|_| OpenError::StoreAltered)?;
        let record = record_in::<R>(id, &plain).map_err(|_| OpenError::StoreAltered)?;
        Ok(Some(take(record)?))
    })
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

impl From<RngFailed> for OpenError {
    fn from(failed: RngFailed) -> Self {
        NotDrawn::from(failed).into()
    }
}

impl From<SecretPageUnavailable> for OpenError {
    fn from(unavailable: SecretPageUnavailable) -> Self {
        NotDrawn::from(unavailable).into()
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

/// Refuses a time that may be wrong, as what is written of it stays.
fn expect_clock(core: &Core, audit: &AuditSettings) -> Result<(), OpenError> {
    if audit.clock_is_right {
        core.believe_clock();
    }
    let days = core.clock_ahead_ms().map(|ms| ms / (24 * 60 * 60 * 1_000));
    days.map_or(Ok(()), |days| Err(OpenError::ClockAhead { days }))
}

fn is_node_name(node: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    (1..=63).contains(&node.len()) && node.bytes().all(allowed)
}
