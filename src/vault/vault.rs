//! The vault itself: opened once over a store, the only door to what is kept.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::allocation::Leases;
use super::audit::{
    AuditSettings, ChainReport, Checkpoints, VERIFIED_AT_OPEN_MAX, keep_signing, read_head, verify,
};
use super::caller::{Action, Caller, Role};
use super::clock::{Clock, UnixMillis};
use super::committer::{self, QUEUE_MAX, Unit};
use super::core::Core;
use super::error::Error;
use super::housekeeping::{Counts, Housekeeper, keep_house};
use super::idempotency::{self, RequestId};
use super::install;
use super::policy::{Allowance, Denial, KeyUse, Policy};
use super::rate::Rates;
use super::reason::Reason;
use super::record::{Kind, Record, Versioned};
use super::seal::{HashPurpose, MasterKey, Realm, Sealer};
use super::store::{IndexFilter, Store};
use super::work::Work;
use crate::crypto::rng::Rng;

/// What a vault is opened with.
pub struct Opening {
    /// Where the sealed records live.
    pub store: Arc<dyn Store>,
    /// The key under which they are sealed.
    pub master_key: MasterKey,
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
}

/// Why a vault does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The checkpoint kept outside is signed by another key: it is of another log, or this store
    /// was begun anew.
    #[error("the checkpoint is of another log: the store was exchanged, or the file is another's")]
    CheckpointForeign,
    /// A checkpoint is none, or its signature does not verify.
    #[error("the checkpoint is none, or its signature does not verify")]
    CheckpointInvalid,
    /// The chain of events does not hold: an event was changed, moved or cut off.
    #[error("the chain of audit events does not verify")]
    ChainBroken,
    /// The log has as many events as were signed, and they are others.
    #[error("forked: the first {size} audit events are not those that were signed")]
    Forked {
        /// How many events the checkpoint covers.
        size: u64,
    },
    /// The name of the node is not one.
    #[error("a node is named by lower-case letters, digits and hyphens, 63 at most")]
    NodeInvalid,
    /// The policy was changed, or is older than one that was in force.
    #[error(
        "the policy in the store is not the one that was put in force last: somebody else changed \
         it or set it back; restore the newest backup that is whole"
    )]
    PolicyBroken,
    /// The log has fewer events than were signed: the store was set back.
    #[error("rolled back: {kept} audit events were signed, the store holds {found}")]
    RolledBack {
        /// How many events the checkpoint covers.
        kept: u64,
        /// How many there are.
        found: u64,
    },
    /// Rows were changed, set back or taken away since the last commit.
    #[error(
        "the store is not as it was left: rows were changed, set back or taken away by somebody \
         else; restore the newest backup that is whole"
    )]
    StoreAltered,
    /// The store was sealed under another master key, or in another realm.
    #[error("the store was sealed under another master key or in another realm")]
    SealedOtherwise,
    /// The store does not serve.
    #[error("the store is unavailable")]
    Unavailable,
    /// What is kept outside can not be read.
    #[error("the checkpoint outside can not be read")]
    WitnessUnavailable,
}

/// The one door to stored keys and records.
pub struct Vault {
    pub(super) shared: Shared,
    pub(super) checkpoints: Arc<Checkpoints>,
    verified: ChainReport,
    /// Whether the store was empty when it was opened.
    pub(super) has_begun_store: bool,
    committer: JoinHandle<()>,
    housekeeper: JoinHandle<()>,
    signer: JoinHandle<()>,
}

/// What a unit of work needs of its vault.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) queue: mpsc::Sender<Unit>,
    pub(super) counts: Arc<Counts>,
    pub(super) leases: Arc<Leases>,
}

impl Vault {
    /// Opens a store, or begins an empty one, and verifies the end of the chain of events.
    ///
    /// Must be called within a Tokio runtime, where the committer then runs.
    pub async fn open(opening: Opening) -> Result<Self, OpenError> {
        let Opening { store, master_key, realm, clock, rng, node, audit } = opening;
        if !is_node_name(&node) {
            return Err(OpenError::NodeInvalid);
        }
        let sealer = Sealer::new(master_key, realm);
        let core = Arc::new(Core::new(store, sealer, rng, clock, node, &audit));
        let is_new = prove_seal(&core).await?;
        let head = read_head(&core).await.map_err(OpenError::from)?.record;
        // Events without a proof were there before.
        let has_begun_store = is_new && head.seq == 0;
        let after = head.seq.saturating_sub(VERIFIED_AT_OPEN_MAX);
        let verified = verify(&core, after).await.map_err(OpenError::from)?;
        let tally = core.tally.survey(&*core.store).await.map_err(|_| OpenError::Unavailable)?;
        if tally != head.tally {
            return Err(OpenError::StoreAltered);
        }
        core.note_committed(head.seq, head.time);
        let checkpoints = Checkpoints::open(&core, audit.witness).await.map(Arc::new)?;
        install::load_policy(&core, &mut None).await.map_err(no_policy)?;
        core.look_at_disk().await;
        let (queue, units) = mpsc::channel(QUEUE_MAX);
        let committer = tokio::spawn(committer::run(Arc::clone(&core), units));
        let shared = Shared { core, queue, counts: Arc::default(), leases: Arc::default() };
        let housekeeper = tokio::spawn(keep_house(Housekeeper::of(&shared)));
        let signer = tokio::spawn(keep_signing(
            Arc::downgrade(&shared.core),
            Arc::clone(&checkpoints),
            shared.core.committed.subscribe(),
        ));
        Ok(Self { shared, checkpoints, verified, has_begun_store, committer, housekeeper, signer })
    }

    /// What was verified of the chain of events when the vault was opened.
    #[must_use]
    pub const fn verified(&self) -> ChainReport {
        self.verified
    }

    /// The realm of the store.
    #[must_use]
    pub fn realm(&self) -> Realm {
        self.shared.core.sealer.realm()
    }

    /// The time now; never less than that of the newest event.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.shared.core.now()
    }

    /// The source of randomness.
    #[must_use]
    pub fn rng(&self) -> &dyn Rng {
        &*self.shared.core.rng
    }

    /// The buckets of the rates of calls.
    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.shared.core.rates
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.shared.core.policy.policy()
    }

    /// Begins a unit of work, if the policy allows the call; a denial is audited.
    pub async fn begin(
        &self,
        caller: &Caller,
        action: Action,
        resource: impl Into<String>,
    ) -> Result<Work, Error> {
        self.begin_with_keys(caller, action, resource, &[]).await
    }

    /// Begins a unit of work that uses keys, if the policy allows the call with them; a denial is
    /// audited. A key that the caller may not know of is refused as if it were not there.
    pub async fn begin_with_keys(
        &self,
        caller: &Caller,
        action: Action,
        resource: impl Into<String>,
        keys: &[KeyUse<'_>],
    ) -> Result<Work, Error> {
        self.expect_reserve(action)?;
        let policy = self.policy();
        let work = Work::new(self.shared.clone(), caller, action, resource.into(), policy.version);
        let allowed = policy.decide(caller, action);
        match allowed.and_then(|()| self.take_keys(&policy, caller, action, keys)) {
            Ok(()) => Ok(work),
            Err(denial) => Err(deny(work, denial).await),
        }
    }

    /// Decides whether a caller may use these keys together in a call, where that is known only
    /// when the call is under way; the denial is the caller's to tell in the audit event.
    pub fn admit_keys(
        &self,
        caller: &Caller,
        action: Action,
        keys: &[KeyUse<'_>],
    ) -> Result<(), Denial> {
        self.take_keys(&self.policy(), caller, action, keys)
    }

    /// Decides by a policy, and takes the call out of the rates of the grants that allow it: out of
    /// each once, however often the call uses the key. The tightest is asked first, as what was
    /// taken stays taken when another refuses.
    fn take_keys(
        &self,
        policy: &Policy,
        caller: &Caller,
        action: Action,
        keys: &[KeyUse<'_>],
    ) -> Result<(), Denial> {
        let mut allowances = policy.decide_keys(caller, action, keys, self.now())?;
        allowances.sort_unstable_by_key(|allowed| (allowed.calls_per_minute_max, allowed.key));
        allowances.dedup();
        allowances.into_iter().try_for_each(|Allowance { key, calls_per_minute_max }| {
            let taken = self.rates().take(calls_per_minute_max, &["key", caller.name(), key]);
            taken.map_err(|error| Denial { error, rule: "grant.calls_per_minute_max" })
        })
    }

    /// Lets a call in, if its caller's role may make it; a denial is audited.
    pub async fn authorise(&self, caller: &Caller, action: Action) -> Result<(), Error> {
        self.expect_reserve(action)?;
        let policy = self.policy();
        match policy.decide(caller, action) {
            Ok(()) => Ok(()),
            Err(denial) => {
                let shared = self.shared.clone();
                let work = Work::new(shared, caller, action, String::new(), policy.version);
                Err(deny(work, denial).await)
            }
        }
    }

    /// Refuses a call that did not begin; it is audited. The answer is the error to return.
    pub async fn refuse(&self, caller: &Caller, action: Action, error: Error) -> Error {
        let version = self.policy().version;
        let work = Work::new(self.shared.clone(), caller, action, String::new(), version);
        work.refuse(error).await
    }

    /// Whether a call that goes on may go on: its caller's role may still make it.
    pub fn check_still(&self, caller: &Caller, action: Action) -> Result<(), Error> {
        self.policy().decide(caller, action).map_err(|denial| denial.error)
    }

    /// While the disk's reserve is touched, backends and terminals are refused: what is left is for
    /// the events of those who can mend it. The refusal itself leaves no event.
    fn expect_reserve(&self, action: Action) -> Result<(), Error> {
        if self.shared.core.is_disk_low() && !action.is_for_staff() {
            return Err(Error::Refused(Reason::AuditUnavailable));
        }
        Ok(())
    }

    /// Refuses a caller at the door, by a rule of the door's; it is audited.
    pub async fn turn_away(&self, caller: &Caller, action: Action, rule: &'static str) -> Error {
        let version = self.policy().version;
        let work = Work::new(self.shared.clone(), caller, action, String::new(), version);
        let stranger = caller.role() == Some(Role::Stranger);
        let reason = if stranger { Reason::CallerUnknown } else { Reason::PolicyDenied };
        deny(work, Denial { error: reason.into(), rule }).await
    }

    /// Reads a record.
    pub async fn get<R: Record>(&self, id: &str) -> Result<Option<Versioned<R>>, Error> {
        self.shared.core.read(id).await
    }

    /// Lists records in the order of their ids: those after `after`, `limit` at most, and with
    /// `index` only those that have it.
    pub async fn list<R: Record>(
        &self,
        index: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Versioned<R>>, Error> {
        let filter = index.map_or(IndexFilter::Any, |value| IndexFilter::Equals(value.to_owned()));
        let found = self.shared.core.list::<R>(filter, after.map(str::to_owned), limit).await?;
        // The index in the store is a hint: what counts is the record.
        Ok(found
            .into_iter()
            .filter(|one| index.is_none_or(|value| one.record.index().as_deref() == Some(value)))
            .collect())
    }

    /// HMAC-SHA-256 under a key of this store and purpose.
    #[must_use]
    pub fn keyed_hash(&self, purpose: HashPurpose, parts: &[&[u8]]) -> [u8; 32] {
        self.shared.core.sealer.keyed_hash(purpose, parts)
    }

    /// Finds the answer that was given to the same request of the same caller within 24 hours;
    /// another body under its id is refused with `REQUEST_ID_REUSED`.
    pub async fn recall<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        action: Action,
        request: RequestId<'_>,
    ) -> Result<Option<T>, Error> {
        let scope = (caller.name(), action);
        idempotency::recall(&self.shared.core, scope, request, self.now()).await
    }

    /// Watches the sequence of the newest durable event.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.shared.core.committed.subscribe()
    }

    /// Writes what is counted in memory and signs the log: before the service ends.
    pub async fn flush(&self) -> Result<(), Error> {
        let written = self.shared.counts.write(&self.shared, true).await;
        self.checkpoints.sign(&self.shared.core).await?;
        written
    }

    /// Whether nothing can become durable any more.
    pub(super) fn committer_has_ended(&self) -> bool {
        self.committer.is_finished()
    }

    /// Flushes, waits until every unit of work is done, and lets go of the store.
    pub async fn close(self) {
        // The store has said why, if the last counts can not be written.
        let _ = self.flush().await;
        let Self { shared, committer, housekeeper, signer, .. } = self;
        housekeeper.abort();
        signer.abort();
        drop(shared);
        // A committer that panicked has nothing left to write.
        let _ = committer.await;
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

/// Finds that the store is sealed under this master key, or makes it so; tells whether it did that.
async fn prove_seal(core: &Core) -> Result<bool, OpenError> {
    let row = core.store.get(Proof::KIND, Proof::ID).await.map_err(|_| OpenError::Unavailable)?;
    if let Some(row) = row {
        return match core.open_bytes(Proof::KIND, Proof::ID, &row) {
            Ok(_) => Ok(false),
            Err(_) => Err(OpenError::SealedOtherwise),
        };
    }
    let proof = Proof { realm: core.sealer.realm().as_str().to_owned() };
    let write = core.put(&Versioned::absent(proof)).map_err(|_| OpenError::Unavailable)?;
    let outcomes = core.store.commit(vec![vec![write]], Box::new(|_| Vec::new())).await;
    match outcomes.map_err(|_| OpenError::Unavailable)?.as_slice() {
        [outcome] if outcome.is_applied() => Ok(true),
        _ => Err(OpenError::Unavailable),
    }
}

/// Refuses what the policy does not allow: the audit event tells by which rule, the caller is not.
async fn deny(mut work: Work, denial: Denial) -> Error {
    work.detail("rule", denial.rule);
    work.refuse(denial.error).await
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

#[cfg(test)]
mod tests {
    use super::super::caller::Role;
    use super::super::policy::{Grant, Principal};
    use super::*;
    use crate::pin::PinBlockFormat;
    use crate::vault::testing::Bench;

    #[tokio::test]
    async fn a_call_is_taken_once_out_of_each_rate_however_often_it_uses_the_key() {
        let bench = Bench::new().await;
        let backend = Caller::new("spiffe://test/backend", "", Role::Backend, "");
        let grant = |key: &str, rate| Grant {
            key: format!("keys/{key}"),
            principals: vec![backend.name().to_owned()],
            calls: vec!["TranslatePin".into(), "VerifyMacAndTranslatePin".into()],
            pin_formats_in: Vec::new(),
            pin_formats_out: Vec::new(),
            partner_keys: Vec::new(),
            calls_per_minute_max: rate,
            not_before: None,
            not_after: None,
        };
        let principal = Principal {
            name: backend.name().to_owned(),
            person: String::new(),
            role: Role::Backend,
            profiles: Vec::new(),
            calls_per_minute_max: 0,
        };
        let grants = vec![grant("bdk", 3), grant("zone", 0), grant("own", 3), grant("tight", 1)];
        let policy = Policy { principals: vec![principal], grants, ..Policy::none() };
        assert!(bench.vault.install_policy(policy).await.unwrap());
        let iso_0 = Some(PinBlockFormat::Iso0);
        let mac = |key| KeyUse::of(Ok(key));
        let from = |key| KeyUse { format_in: iso_0, ..mac(key) };
        let to = |key| KeyUse { format_out: iso_0, ..mac(key) };
        let call = async |action, keys: &[KeyUse<'_>]| {
            bench.vault.begin_with_keys(&backend, action, "keys/x", keys).await.err()
        };
        let limited = |error| matches!(error, Some(Error::RateLimited { .. }));
        let both = Action::VerifyMacAndTranslatePin;
        // The tighter one is asked first, so its refusals take nothing from the other.
        assert_eq!(call(both, &[mac("bdk"), from("bdk"), to("tight")]).await, None);
        for _ in 0..5 {
            assert!(limited(call(both, &[mac("bdk"), from("bdk"), to("tight")]).await));
        }
        for _ in 0..2 {
            assert_eq!(call(both, &[mac("bdk"), from("bdk"), to("zone")]).await, None);
        }
        assert!(limited(call(both, &[mac("bdk"), from("bdk"), to("zone")]).await));
        // A translation under one key is one use of it.
        for _ in 0..3 {
            assert_eq!(call(Action::TranslatePin, &[from("own"), to("own")]).await, None);
        }
        assert!(limited(call(Action::TranslatePin, &[from("own"), to("own")]).await));
    }
}
