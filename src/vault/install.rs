//! How a policy comes into force, and stays so: from a commit, and from the store.

use super::caller::{Action, Caller};
use super::committer::Committed;
use super::core::Core;
use super::error::Error;
use super::policy::{Policy, PolicyInvalid};
use super::reason::Reason;
use super::record::{Record as _, Versioned};
use super::seal::Realm;
use super::store::Row;
use super::vault::Vault;
use super::work::Work;

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
    /// Puts a first policy in force where a development store has none yet, and tells whether it
    /// did: the service itself does so, and says it in the audit log. Outside development a store
    /// is begun with its policy, and never gets it again.
    pub async fn install_policy(&self, policy: Policy) -> Result<bool, PolicyRefused> {
        policy.check(self.realm())?;
        let is_live = self.realm() == Realm::Live;
        if is_live || stored_policy(&self.shared.core).await?.is_some() {
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
        let stored = stored_policy(&self.shared.core).await?;
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
        self.detail("version", version.to_string());
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

/// Reads the policy that the store holds; one that is not the row that was written last, or that is
/// gone, is an incident.
pub(super) async fn stored_policy(core: &Core) -> Result<Option<Versioned<Policy>>, Error> {
    core.read(Policy::ID).await
}

/// The row that was read last, and the version of the policy in it; none to read whatever is there.
pub(super) type Seen = Option<(Row, u64)>;

/// Puts the policy that the store holds in force. One that does not open, that is not the row that
/// was written last, or that is gone, is none: then nobody may do anything. A row that was seen is
/// not opened again, as long as its policy is in force: it may be long, and seldom changes.
pub(super) async fn load_policy(core: &Core, seen: &mut Seen) -> Result<(), Error> {
    let loaded = load_unless_seen(core, seen).await;
    if loaded.as_ref().is_err_and(|error| *error != Error::Unavailable) {
        core.policy.deny_all();
    }
    loaded
}

async fn load_unless_seen(core: &Core, seen: &mut Seen) -> Result<(), Error> {
    let last = seen.take();
    let row = core.row(Policy::KIND, Policy::ID).await?;
    let is_seen = last.as_ref().is_some_and(|(last, version)| {
        row.as_ref() == Some(last) && core.policy.policy().version == *version
    });
    if is_seen {
        *seen = last;
        return Ok(());
    }
    if let Some(row) = row {
        let policy = core.open::<Policy>(Policy::ID, &row)?.record;
        *seen = Some((row, policy.version));
        core.policy.put(policy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::policy::Principal;
    use super::super::seal::HashRoot;
    use super::super::store::{Change, Expected, IndexFilter, Query, Store as _, Write};
    use super::super::testing::{Bench, FaultyStore, HandClock, beginning, opening};
    use super::super::{Kind, OpenError, Opening, Record, Role};
    use super::*;

    /// One officer, or two.
    fn policy(version: u64, officers: &[&str]) -> Policy {
        let officer = |person: &&str| Principal {
            name: format!("spiffe://test/officer/{person}"),
            person: (*person).to_owned(),
            role: Role::Officer,
            profiles: Vec::new(),
            calls_per_minute_max: 0,
        };
        Policy { version, principals: officers.iter().map(officer).collect(), ..Policy::none() }
    }

    fn ann() -> Caller {
        Caller::new("spiffe://test/officer/ann", "ann", Role::Officer, "")
    }

    /// A vault with a first policy, then with a second.
    async fn bench() -> Bench {
        let bench = Bench::new().await;
        assert!(bench.vault.install_policy(policy(0, &["ann"])).await.unwrap());
        assert!(!bench.vault.install_policy(policy(0, &["eve"])).await.unwrap());
        bench
    }

    async fn change(bench: &Bench) {
        let next = bench.vault.next_policy(policy(1, &["ann", "ben"])).await.unwrap();
        let work = bench.vault.begin(&ann(), Action::SetPolicy, Policy::RESOURCE).await.unwrap();
        work.commit_policy(next).await.unwrap();
    }

    /// Does to the stored row what somebody with the disk in hand does.
    async fn tamper(bench: &Bench, changes: Vec<(Expected, Change)>) {
        for (expected, change) in changes {
            let id = Policy::ID.to_owned();
            let write = Write { kind: Policy::KIND, id, expected, change };
            let done = bench.store.inner.commit(vec![vec![write]], Box::new(|_| Vec::new())).await;
            assert!(done.unwrap().iter().all(|outcome| outcome.is_applied()));
        }
    }

    async fn row(bench: &Bench) -> Vec<u8> {
        bench.store.inner.get(Policy::KIND, Policy::ID).await.unwrap().unwrap().sealed
    }

    fn put(sealed: Vec<u8>) -> Change {
        Change::Put { index: None, sealed }
    }

    /// Nobody is anybody any more, and the store does not open again.
    async fn expect_shut(bench: Bench, what: &str) {
        let core = &bench.vault.shared.core;
        assert!(load_policy(core, &mut None).await.is_err(), "{what}");
        let refused = bench.vault.authorise(&ann(), Action::GetPolicy).await;
        assert_eq!(refused, Err(Reason::CallerUnknown.into()), "{what}");
        let Bench { vault, store, clock } = bench;
        vault.close().await;
        let opened = Vault::open(opening(store, clock)).await;
        assert_eq!(opened.err(), Some(OpenError::StoreAltered), "{what}");
    }

    #[tokio::test]
    async fn a_policy_that_is_not_the_one_that_was_set_is_none() {
        let bench_with = async || {
            let bench = bench().await;
            let first = row(&bench).await;
            change(&bench).await;
            (bench, first)
        };
        let (bench, _) = bench_with().await;
        let mut edited = row(&bench).await;
        *edited.last_mut().unwrap() ^= 1;
        tamper(&bench, vec![(Expected::Version(2), put(edited))]).await;
        expect_shut(bench, "edited").await;

        let (bench, _) = bench_with().await;
        let moved = bench.store.inner.get(HashRoot::KIND, HashRoot::ID).await;
        let moved = moved.unwrap().unwrap().sealed;
        tamper(&bench, vec![(Expected::Version(2), put(moved))]).await;
        expect_shut(bench, "moved").await;

        let (bench, first) = bench_with().await;
        let older = vec![(Expected::Version(2), Change::Delete), (Expected::Absent, put(first))];
        tamper(&bench, older).await;
        expect_shut(bench, "older").await;

        let (bench, _) = bench_with().await;
        tamper(&bench, vec![(Expected::Version(2), Change::Delete)]).await;
        expect_shut(bench, "deleted").await;
    }

    #[tokio::test]
    async fn a_row_that_was_seen_is_believed_only_as_long_as_its_policy_is_in_force() {
        let bench = bench().await;
        let core = &bench.vault.shared.core;
        let (mut seen, first) = (None, row(&bench).await);
        load_policy(core, &mut seen).await.unwrap();
        let (read, version) = seen.clone().unwrap();
        assert_eq!((&read.sealed, version), (&first, 1));
        load_policy(core, &mut seen).await.unwrap();
        // A later one was in force, and then the row that was seen is there again, to the octet.
        change(&bench).await;
        let older = vec![(Expected::Version(2), Change::Delete), (Expected::Absent, put(first))];
        tamper(&bench, older).await;
        assert_eq!(core.store.get(Policy::KIND, Policy::ID).await.unwrap(), Some(read));
        assert!(load_policy(core, &mut seen).await.is_err());
        assert_eq!((seen, bench.vault.policy().version), (None, 0));
    }

    #[tokio::test]
    async fn no_older_policy_judges_approvals() {
        let bench = bench().await;
        let first = row(&bench).await;
        assert!(bench.vault.quorum().await.is_ok());
        change(&bench).await;
        assert!(bench.vault.quorum().await.is_ok());
        let older = vec![(Expected::Version(2), Change::Delete), (Expected::Absent, put(first))];
        for (changes, what) in
            [(older, "older"), (vec![(Expected::Version(1), Change::Delete)], "deleted")]
        {
            tamper(&bench, changes).await;
            let judged = bench.vault.quorum().await;
            assert!(matches!(judged, Err(Error::Internal { .. })), "{what}: {judged:?}");
            let next = bench.vault.next_policy(policy(1, &["ann", "eve"])).await;
            let refused = matches!(next, Err(PolicyRefused::Vault(Error::Internal { .. })));
            assert!(refused, "{what}: {next:?}");
        }
    }

    #[tokio::test]
    async fn deleted_rows_bring_the_first_policy_not_back() {
        let (store, clock) = (Arc::new(FaultyStore::default()), HandClock::new());
        let open = |first| {
            let opening = opening(store.clone(), clock.clone());
            Vault::open_with(Opening { realm: Realm::Live, ..opening }, beginning(first))
        };
        let first = |officers: &[&str]| Some(policy(0, officers));
        assert_eq!(open(None).await.err(), Some(OpenError::NoPolicy));
        let vault = open(first(&["ann", "ben"])).await.unwrap();
        assert!(!vault.install_policy(policy(0, &["eve", "mal"])).await.unwrap());
        vault.close().await;
        let clear = async |kinds: &[&'static str]| {
            for &kind in kinds {
                let query = Query {
                    kind: Kind::new(kind),
                    index: IndexFilter::Any,
                    after: None,
                    limit: 100,
                };
                let rows = store.inner.list(query).await.unwrap();
                let deleted = rows.into_iter().map(|row| Write {
                    kind: Kind::new(kind),
                    expected: Expected::Version(row.version),
                    id: row.id,
                    change: Change::Delete,
                });
                let batch = deleted.collect();
                store.inner.commit(vec![batch], Box::new(|_| Vec::new())).await.unwrap();
            }
        };
        // Every row but the one that proves the master key, then that as well, then the log's key.
        for (kinds, refused) in [
            (&["policy", "chain", "event", "checkpoint"][..], OpenError::PolicyBroken),
            (&["seal"], OpenError::CustodyMissing),
        ] {
            clear(kinds).await;
            let opened = open(first(&["eve", "mal"])).await;
            assert_eq!(opened.err(), Some(refused), "{kinds:?}");
        }
    }

    #[tokio::test]
    async fn a_store_whose_log_lost_its_key_does_not_open() {
        let bench = bench().await;
        let Bench { vault, store, clock } = bench;
        vault.close().await;
        let id = "log".to_owned();
        let (kind, expected) = (Kind::new("log_key"), Expected::Version(1));
        let deleted = Write { kind, id, expected, change: Change::Delete };
        store.inner.commit(vec![vec![deleted]], Box::new(|_| Vec::new())).await.unwrap();
        let opened = Vault::open(opening(store, clock)).await;
        assert_eq!(opened.err(), Some(OpenError::LogKeyMissing));
    }

    #[tokio::test]
    async fn a_policy_is_replaced_by_the_next_alone_and_survives_a_restart() {
        let bench = bench().await;
        assert_eq!(bench.vault.policy().version, 1);
        let skipped = bench.vault.next_policy(policy(2, &["ann"])).await;
        assert_eq!(skipped, Err(PolicyRefused::Vault(Reason::StoreConflict.into())));
        let nobody = Policy { approval_seconds: 0, ..policy(1, &["ann"]) };
        let refused = bench.vault.next_policy(nobody).await;
        assert!(matches!(refused, Err(PolicyRefused::Invalid(_))), "{refused:?}");
        change(&bench).await;
        assert_eq!(bench.vault.policy().principals.len(), 2);
        let event = bench.vault.events_after(0, 100).await.unwrap().pop().unwrap();
        assert_eq!((event.action.as_str(), event.policy), ("SetPolicy", 1));
        assert_eq!((&*event.detail["version_before"], &*event.detail["version"]), ("1", "2"));
        assert_eq!(event.detail["sha256"], bench.vault.policy().digest());
        let bench = bench.restart().await;
        assert_eq!(bench.vault.policy().version, 2);
        bench.vault.authorise(&ann(), Action::GetPolicy).await.unwrap();
    }
}
