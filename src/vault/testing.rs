//! What the tests of this room share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::begin::Beginning;
use super::custody::Seal;
use super::store::{
    Batch, BoxFuture, MemoryStore, Outcome, Query, Row, Store, StoreError, Surveyed, Tail,
};
use super::{
    Action, AuditSettings, Caller, Clock, Kind, MasterKey, Opening, Policy, Principal, Realm,
    Record, Role, UnixMillis, Vault, Work,
};
use crate::crypto::rng::SystemRng;
use crate::memory::SecretPage;

pub(super) fn master_key(octet: u8) -> MasterKey {
    MasterKey::new(SecretPage::taken_from(&mut [octet; 32]).unwrap())
}

/// A clock that stands until it is moved.
pub(super) struct HandClock(AtomicU64);

impl HandClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_700_000_000_000)))
    }

    pub(super) fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn back(&self, ms: u64) {
        self.0.fetch_sub(ms, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

/// A store whose commits fail when they are told to.
#[derive(Default)]
pub(super) struct FaultyStore {
    pub(super) inner: MemoryStore,
    fault: AtomicU8,
    /// How many bytes it says to have left; 0 for any number.
    free_bytes: AtomicU64,
}

/// How a commit fails.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    None,
    /// Nothing is written.
    Before,
    /// Everything is written, and the answer is lost.
    After,
    /// Nothing happens until the fault is over; then it is written.
    Hang,
}

impl FaultyStore {
    pub(super) fn fail(&self, fault: Fault) {
        let number = match fault {
            Fault::None => 0,
            Fault::Before => 1,
            Fault::After => 2,
            Fault::Hang => 3,
        };
        self.fault.store(number, Ordering::Relaxed);
    }

    pub(super) fn leave_free(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Store for FaultyStore {
    fn get(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        self.inner.get(kind, id)
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.inner.list(query)
    }

    fn survey(
        &self,
        except: &'static [Kind],
        after: Option<(String, String)>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Surveyed>, StoreError>> {
        self.inner.survey(except, after, limit)
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        let bytes = self.free_bytes.load(Ordering::Relaxed);
        Box::pin(async move { Ok((bytes > 0).then_some(bytes)) })
    }

    fn commit(
        &self,
        batches: Vec<Batch>,
        tail: Tail,
    ) -> BoxFuture<'_, Result<Vec<Outcome>, StoreError>> {
        Box::pin(async move {
            while self.fault.load(Ordering::Relaxed) == 3 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            match self.fault.load(Ordering::Relaxed) {
                0 => self.inner.commit(batches, tail).await,
                1 => Err(StoreError::Unavailable),
                _ => {
                    self.inner.commit(batches, tail).await?;
                    Err(StoreError::Unavailable)
                }
            }
        })
    }
}

pub(super) fn opening(store: Arc<dyn Store>, clock: Arc<HandClock>) -> Opening {
    Opening {
        store,
        master_key: master_key(7),
        realm: Realm::Dev,
        clock,
        rng: Arc::new(SystemRng::new()),
        node: "node-1".into(),
        audit: AuditSettings::default(),
    }
}

/// A vault over a store that can fail, with its clock.
pub(super) struct Bench {
    pub(super) vault: Vault,
    pub(super) store: Arc<FaultyStore>,
    pub(super) clock: Arc<HandClock>,
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(AuditSettings::default()).await
    }

    /// With other settings of the audit log than the default.
    pub(super) async fn with(audit: AuditSettings) -> Self {
        let store = Arc::new(FaultyStore::default());
        let clock = HandClock::new();
        let opening = Opening { audit, ..opening(store.clone(), clock.clone()) };
        let vault = Vault::open(opening).await.unwrap();
        Self { vault, store, clock }
    }

    /// Closes the vault and opens it again over the same store.
    pub(super) async fn restart(self) -> Self {
        let Self { vault, store, clock } = self;
        vault.close().await;
        let vault = Vault::open(opening(store.clone(), clock.clone())).await.unwrap();
        Self { vault, store, clock }
    }

    pub(super) async fn begin(&self, action: Action) -> Work {
        self.vault.begin(&caller(), action, "keys/x").await.unwrap()
    }
}

pub(super) fn caller() -> Caller {
    Caller::for_dev_only("dev")
}

/// A policy with which a store of any realm can be begun.
pub(super) fn two_officers() -> Policy {
    let officer = |person: &str| Principal {
        name: format!("spiffe://test/officer/{person}"),
        person: person.to_owned(),
        role: Role::Officer,
        profiles: Vec::new(),
        calls_per_minute_max: 0,
    };
    Policy { principals: vec![officer("ann"), officer("ben")], ..Policy::none() }
}

/// How the master key of a store is kept that is begun in a test.
pub(super) const SHAMIR: Seal = Seal::Shamir { set_id: [1, 2, 3, 4], threshold: 3, shares: 5 };

/// What a store of any realm can be begun with, if there is a policy.
pub(super) fn beginning(policy: Option<Policy>) -> Beginning {
    Beginning { policy, seal: SHAMIR }
}

/// A record of the tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) id: String,
    pub(super) text: String,
}

impl Record for Note {
    const KIND: Kind = Kind::new("note");

    fn id(&self) -> String {
        self.id.clone()
    }

    fn index(&self) -> Option<String> {
        Some(self.text.clone())
    }
}

pub(super) fn note(id: &str, text: &str) -> Note {
    Note { id: id.into(), text: text.into() }
}
