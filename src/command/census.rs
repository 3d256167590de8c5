//! How many keys and terminals there are, and in which states: for those who watch the service.
//!
//! States are sealed, so each record is opened. That is done page by page, so that the count of a
//! large store holds up nobody; it tells no name.

use std::collections::BTreeMap;

use super::Error;
use super::activation::record::Terminal;
use crate::vault::{KeyRecord, Record as _, Vault};

/// Records that are opened in one step.
const PAGE: usize = 100;

/// A count under way, or done.
#[derive(Debug, Default)]
pub struct Census {
    /// How many versions of keys there are of each usage and state.
    pub keys: BTreeMap<(&'static str, &'static str), u64>,
    /// How many terminals there are in each state.
    pub terminals: BTreeMap<&'static str, u64>,
    next: Next,
}

/// What is counted next, after which id.
#[derive(Debug)]
enum Next {
    Keys(Option<String>),
    Terminals(Option<String>),
}

impl Default for Next {
    fn default() -> Self {
        Self::Keys(None)
    }
}

impl Census {
    /// Counts some more; tells whether there is more to count.
    pub async fn go_on(&mut self, vault: &Vault) -> Result<bool, Error> {
        match &self.next {
            Next::Keys(after) => {
                let found = vault.list::<KeyRecord>(None, after.as_deref(), PAGE).await?;
                for key in &found {
                    let states = (key.record.usage.as_str(), key.record.state.as_str());
                    one_more(self.keys.entry(states).or_default());
                }
                let last = found.last().map(|key| key.record.id());
                self.next = last.map_or(Next::Terminals(None), |last| Next::Keys(Some(last)));
                Ok(true)
            }
            Next::Terminals(after) => {
                let found = vault.list::<Terminal>(None, after.as_deref(), PAGE).await?;
                for terminal in &found {
                    one_more(self.terminals.entry(terminal.record.state.as_str()).or_default());
                }
                let Some(last) = found.last() else { return Ok(false) };
                self.next = Next::Terminals(Some(last.record.id()));
                Ok(true)
            }
        }
    }
}

fn one_more(count: &mut u64) {
    *count = count.saturating_add(1);
}
