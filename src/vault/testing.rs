//! What the tests of this room share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::store::{MemoryStore, Store};
use super::{Clock, MasterKey, Opening, Realm, UnixMillis, Vault};
use crate::crypto::rng::SystemRng;
use crate::memory::SecretPage;

pub(super) fn master_key(octet: u8) -> MasterKey {
    MasterKey::new(SecretPage::taken_from(&mut [octet; 32]).unwrap())
}

/// A clock that stands until it is moved.
pub(super) struct HandClock(pub(super) AtomicU64);

impl HandClock {
    pub(super) fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed))
    }
}

pub(super) fn clock() -> Arc<HandClock> {
    Arc::new(HandClock(AtomicU64::new(1_700_000_000_000)))
}

pub(super) fn opening(store: Arc<dyn Store>, clock: Arc<HandClock>) -> Opening {
    Opening {
        store,
        master_key: master_key(7),
        realm: Realm::Dev,
        clock,
        rng: Arc::new(SystemRng::new()),
        node: "node-1".into(),
    }
}

pub(super) async fn vault() -> Vault {
    Vault::open(opening(Arc::new(MemoryStore::new()), clock())).await.unwrap()
}
