//! Changes of a key's state.

use super::record::{KeyRecord, KeySet};
use super::state::KeyState;
use super::{at_rest, read_key};
use crate::vault::error::Error;
use crate::vault::reason::Reason;
use crate::vault::work::Work;

impl Work {
    /// Moves a key to another state, if the table has this way, else `KEY_NOT_ACTIVE`.
    ///
    /// Its epoch goes up and the key is wrapped anew, so an older row of it does not unwrap; of a
    /// destroyed key the block is gone. The answer is the key as it is from the commit on.
    pub async fn set_key_state(&mut self, name: &str, next: KeyState) -> Result<KeyRecord, Error> {
        let mut found = read_key(self.core(), name).await?;
        self.detail("from", found.record.state.as_str());
        self.detail("to", next.as_str());
        self.uses_record(&found);
        if !found.record.state.may_become(next) {
            return Err(Error::Refused(Reason::KeyNotActive));
        }
        let (material, kept) = at_rest::open(self.core(), &found.record)?;
        found.record.epoch += 1;
        found.record.state = next;
        found.record.updated = self.now();
        found.record.key_block = match next {
            KeyState::Destroyed => None,
            KeyState::Active
            | KeyState::Compromised
            | KeyState::Deactivated
            | KeyState::PreActive
            | KeyState::Suspended => {
                Some(at_rest::wrap(self.core(), &found.record, &material, &kept)?)
            }
        };
        if next == KeyState::Destroyed {
            self.release_key_set(&found.record).await?;
        }
        self.put(&found)?;
        Ok(found.record)
    }

    /// Another key may take the key set id of one that is destroyed.
    async fn release_key_set(&mut self, record: &KeyRecord) -> Result<(), Error> {
        let Some(key_set_id) = &record.attributes.key_set_id else { return Ok(()) };
        let set = self.core().read::<KeySet>(key_set_id).await?;
        if let Some(set) = set.filter(|set| set.record.key == record.name) {
            self.delete(&set);
        }
        Ok(())
    }
}
