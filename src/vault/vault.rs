//! The vault itself: opened once over a store, the only door to what is kept.

use std::net::IpAddr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::allocation::Leases;
use super::audit::{AuditSettings, ChainReport, Checkpoints};
use super::caller::{Action, Caller, Role};
use super::clock::{Clock, UnixMillis};
use super::committer::Unit;
use super::core::Core;
use super::error::Error;
use super::housekeeping::Counts;
use super::idempotency::{self, RequestId};
use super::keys::is_published;
use super::master::MasterKey;
use super::policy::{Allowance, Denial, KeyUse, Policy};
use super::rate::Rates;
use super::reason::Reason;
use super::record::{Record, Versioned};
use super::seal::{HashPurpose, Realm};
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

/// The one door to stored keys and records.
pub struct Vault {
    pub(super) shared: Shared,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) verified: ChainReport,
    pub(super) committer: JoinHandle<()>,
    pub(super) housekeeper: JoinHandle<()>,
    pub(super) rotator: JoinHandle<()>,
    pub(super) signer: JoinHandle<()>,
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

    /// Whether a key or component of this check value, in upper-case hexadecimals, is refused
    /// because it was published: in a live realm.
    #[must_use]
    pub fn refuses_published(&self, check_value: &str) -> bool {
        self.realm() == Realm::Live && is_published(check_value)
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
        self.expect_reserve(caller, action)?;
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
        self.expect_reserve(caller, action)?;
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
        if let Err(error) = self.expect_reserve(caller, action) {
            return error;
        }
        let version = self.policy().version;
        let work = Work::new(self.shared.clone(), caller, action, String::new(), version);
        work.refuse(error).await
    }

    /// Whether a call that goes on may go on: its caller's role may still make it.
    pub fn check_still(&self, caller: &Caller, action: Action) -> Result<(), Error> {
        self.policy().decide(caller, action).map_err(|denial| denial.error)
    }

    /// While the disk's reserve is touched, backends, terminals and strangers are refused: what is
    /// left is for the events of those who can mend it. That refusal itself leaves no event.
    fn expect_reserve(&self, caller: &Caller, action: Action) -> Result<(), Error> {
        let has_place = !self.shared.core.is_disk_low() || caller.has_reserve(action);
        if has_place { Ok(()) } else { Err(Error::Refused(Reason::AuditUnavailable)) }
    }

    /// Refuses a caller at the door, by a rule of the door's; it is audited, with the address that
    /// the call came from.
    pub async fn turn_away(
        &self,
        caller: &Caller,
        action: Action,
        rule: &'static str,
        source: Option<IpAddr>,
    ) -> Error {
        if let Err(error) = self.expect_reserve(caller, action) {
            return error;
        }
        let version = self.policy().version;
        let mut work = Work::new(self.shared.clone(), caller, action, String::new(), version);
        if let Some(source) = source {
            work.detail("source", source.to_string());
        }
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
        self.checkpoints.sign_and_keep(&self.shared.core).await?;
        written
    }

    /// Flushes, waits until every unit of work is done, and lets go of the store.
    pub async fn close(self) {
        // The store has said why, if the last counts can not be written.
        let _ = self.flush().await;
        let Self { shared, committer, housekeeper, rotator, signer, .. } = self;
        for by_its_own_clock in [housekeeper, rotator, signer] {
            by_its_own_clock.abort();
        }
        drop(shared);
        // A committer that panicked has nothing left to write.
        let _ = committer.await;
    }
}

/// Refuses what the policy does not allow: the audit event tells by which rule, the caller is not.
async fn deny(mut work: Work, denial: Denial) -> Error {
    work.detail("rule", denial.rule);
    work.refuse(denial.error).await
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
