//! What a compromised key exposes: the keys that came or left under it, and those under these.
//!
//! ```text
//! kek, compromised  ->  zone, imported under it
//!                   ->  kek-2, exported under it  ->  mac, imported under kek-2
//! ```
//!
//! Nothing is exposed upwards: who knows a key does not know those it was carried by. What is
//! derived is not here: it is derived anew in each call, by a key that is then refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

use super::record::KeyRecord;
use super::state::KeyState;
use super::vocabulary::KeyUsage;
use crate::vault::core::Core;
use crate::vault::error::Error;
use crate::vault::record::{Record as _, Versioned};
use crate::vault::store::IndexFilter;
use crate::vault::work::Work;

/// Lets many keys come and leave under others at once, and none while it is found what a
/// compromised one carried: what is found is all of it. A key that waited meanwhile finds its
/// carrier compromised.
#[derive(Debug, Clone, Default)]
pub(in crate::vault) struct Passages(Arc<RwLock<()>>);

/// What a unit of work holds until it is done.
#[derive(Debug)]
pub(in crate::vault) enum Passage {
    /// A key comes or leaves.
    Open(#[expect(dead_code, reason = "held, and asked for nothing")] OwnedRwLockReadGuard<()>),
    /// None does.
    Closed(#[expect(dead_code, reason = "held, and asked for nothing")] OwnedRwLockWriteGuard<()>),
}

/// Descriptions of keys that are read at once.
const PAGE: usize = 500;

impl Work {
    /// Notes that in this commit a key comes or leaves under another.
    pub(super) async fn notes_carried(&mut self) -> Result<(), Error> {
        let passages = self.core().passages.0.clone();
        let held = timeout(self.core().patience, passages.read_owned()).await;
        self.passage = Some(Passage::Open(held.map_err(|_| Error::Unavailable)?));
        Ok(())
    }

    /// Makes every key compromised that a compromised one exposes, and tells how many versions were
    /// reached.
    ///
    /// One that is destroyed stays so, and exposes what it carried. One that was told compromised
    /// before stays as the officers then chose, with the time that it serves.
    pub(super) async fn compromise_carried(&mut self, root: &KeyRecord) -> Result<usize, Error> {
        // Nothing else ever carries a stored key.
        if !matches!(root.usage, KeyUsage::KeyEncryption | KeyUsage::KeyBlockProtection) {
            return Ok(0);
        }
        let passages = self.core().passages.0.clone();
        let held = timeout(self.core().patience, passages.write_owned()).await;
        self.passage = Some(Passage::Closed(held.map_err(|_| Error::Unavailable)?));
        let mut carried = Carried::read(self.core()).await?;
        let root_name = root.version_name();
        let reached = carried.reached(&root_name);
        let now = self.now();
        for name in &reached {
            let Some(mut key) = carried.keys.remove(name) else { continue };
            key.record.compromised_through.insert(root_name.clone());
            if key.record.state.may_become(KeyState::Compromised) {
                // Its block stays as it is: it is never opened again.
                key.record.state = KeyState::Compromised;
                key.record.updated = now;
            }
            self.put(&key)?;
        }
        Ok(reached.len())
    }
}

/// The versions of keys that were carried by others.
#[derive(Default)]
struct Carried {
    /// Each as it was read.
    keys: BTreeMap<String, Versioned<KeyRecord>>,
    /// Their names by those of their carriers.
    by: BTreeMap<String, Vec<String>>,
}

impl Carried {
    async fn read(core: &Core) -> Result<Self, Error> {
        let mut carried = Self::default();
        let mut after = None;
        loop {
            let page = core.list::<KeyRecord>(IndexFilter::Any, after.take(), PAGE).await?;
            after = page.last().map(|last| last.record.id());
            let is_last = page.len() < PAGE;
            for key in page.into_iter().filter(|key| !key.record.carried_by.is_empty()) {
                let name = key.record.version_name();
                for carrier in &key.record.carried_by {
                    carried.by.entry(carrier.clone()).or_default().push(name.clone());
                }
                carried.keys.insert(name, key);
            }
            if is_last {
                return Ok(carried);
            }
        }
    }

    /// Those that are reached from one, without it.
    fn reached(&self, root: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut next = vec![root];
        while let Some(carrier) = next.pop() {
            for name in self.by.get(carrier).into_iter().flatten() {
                if name != root && reached.insert(name.clone()) {
                    next.push(name);
                }
            }
        }
        reached
    }
}
