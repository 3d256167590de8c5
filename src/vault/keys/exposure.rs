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

use serde::{Deserialize, Serialize};

use super::read_key;
use super::record::KeyRecord;
use super::state::KeyState;
use super::vocabulary::KeyUsage;
use crate::vault::core::Core;
use crate::vault::error::Error;
use crate::vault::record::{Kind, Record, Versioned};
use crate::vault::store::IndexFilter;
use crate::vault::work::Work;

/// How often a key came or left under another. A commit that adds one changes it, so what was found
/// to be exposed is all of it, or the commit that relies on it fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Passages {
    count: u64,
}

impl Record for Passages {
    const KIND: Kind = Kind::new("key_passages");

    fn id(&self) -> String {
        "all".to_owned()
    }
}

/// Descriptions of keys that are read at once.
const PAGE: usize = 500;

impl Work {
    /// Notes that in this commit a key comes or leaves under another.
    pub(super) async fn notes_carried(&mut self) -> Result<(), Error> {
        let mut passages = passages(self.core()).await?;
        passages.record.count = passages.record.count.saturating_add(1);
        self.put(&passages)
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
        let passages = passages(self.core()).await?;
        self.expects(&passages);
        let carried = carried(self.core()).await?;
        let root_name = root.version_name();
        let reached = reached(&carried, &root_name);
        let now = self.now();
        for name in &reached {
            let mut key = read_key(self.core(), name).await?;
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

async fn passages(core: &Core) -> Result<Versioned<Passages>, Error> {
    let found = core.read::<Passages>(&Passages { count: 0 }.id()).await?;
    Ok(found.unwrap_or_else(|| Versioned::absent(Passages { count: 0 })))
}

/// The versions of keys by those that they were carried by.
async fn carried(core: &Core) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let mut carried: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = core.list::<KeyRecord>(IndexFilter::Any, after.take(), PAGE).await?;
        for key in &page {
            for carrier in &key.record.carried_by {
                carried.entry(carrier.clone()).or_default().push(key.record.version_name());
            }
        }
        after = page.last().map(|last| last.record.id());
        if page.len() < PAGE {
            return Ok(carried);
        }
    }
}

/// Those that are reached from one, without it.
fn reached<'a>(carried: &'a BTreeMap<String, Vec<String>>, root: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = vec![root];
    while let Some(carrier) = next.pop() {
        for name in carried.get(carrier).into_iter().flatten() {
            if name != root && reached.insert(name.as_str()) {
                next.push(name);
            }
        }
    }
    reached
}
