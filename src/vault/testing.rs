//! What the tests of this room share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::store::{Batch, BoxFuture, MemoryStore, Outcome, Query, Row, Store, StoreError, Tail};
use super::{
    Action, AuditSettings, Caller, Clock, Kind, MasterKey, Opening, Realm, UnixMillis, Vault, Work,
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
}

/// How a commit fails.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    None,
    /// Nothing is written.
    Before,
    /// Everything is written, and the answer is lost.
    After,
}

impl FaultyStore {
    pub(super) fn fail(&self, fault: Fault) {
        let number = match fault {
            Fault::None => 0,
            Fault::Before => 1,
            Fault::After => 2,
        };
        self.fault.store(number, Ordering::Relaxed);
    }
}

impl Store for FaultyStore {
    fn get(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        self.inner.get(kind, id)
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.inner.list(query)
    }

    fn commit(
        &self,
        batches: Vec<Batch>,
        tail: Tail,
    ) -> BoxFuture<'_, Result<Vec<Outcome>, StoreError>> {
        Box::pin(async move {
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
        let store = Arc::new(FaultyStore::default());
        let clock = HandClock::new();
        let vault = Vault::open(opening(store.clone(), clock.clone())).await.unwrap();
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
