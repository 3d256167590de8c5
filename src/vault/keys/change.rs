//! Changes of a key's state.

use serde::{Deserialize, Serialize};

use super::name::KeyName;
use super::record::{DescribedKey, KeyRecord, KeySet};
use super::state::KeyState;
use super::vocabulary::KeyUsage;
use super::{FIRST_VERSION, at_rest, read_key, read_version};
use crate::vault::clock::UnixMillis;
use crate::vault::error::Error;
use crate::vault::reason::Reason;
use crate::vault::work::Work;

/// How far ahead a compromised base derivation key may still serve: 30 days, in milliseconds.
pub const SERVE_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;

/// A change of a key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateChange {
    /// The state to move to.
    pub state: KeyState,
    /// Base derivation keys in use that become compromised: until when calls of their terminals
    /// are served; none to refuse them from the commit on.
    pub serve_until: Option<UnixMillis>,
}

/// A version of a key in its new state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// The key.
    pub key: DescribedKey,
    /// How many other versions of keys are exposed with it: those that came or left under it, and
    /// those under these.
    pub exposed: usize,
}

impl Work {
    /// Moves a key to another state, if the table has this way, else `KEY_NOT_ACTIVE`. The time
    /// that a compromised key serves can be shortened later, by another such change.
    ///
    /// `FIELD_INVALID` for a time that is not ahead or more than [`SERVE_MS_MAX`] ahead, for one
    /// with any other change, and for one of a key that was out of use: to be told that a key is
    /// compromised opens nothing that was closed.
    ///
    /// Its epoch goes up and the key is wrapped anew, so an older row of it does not unwrap; of a
    /// destroyed key the block is gone. With a compromised one become so all that it exposes. The
    /// answer is the key as it is from the commit on.
    ///
    /// `FIELD_INVALID` for a key of several versions that is named without one: which of them the
    /// name means can be another when the call is made than when it was approved.
    pub async fn set_key_state(
        &mut self,
        name: &str,
        change: StateChange,
    ) -> Result<Changed, Error> {
        let StateChange { state: next, serve_until } = change;
        let mut found = read_key(self.core(), name).await?;
        self.detail("from", found.record.state.as_str());
        self.detail("to", next.as_str());
        if let Some(until) = serve_until {
            self.detail("serve_until", until.0.to_string());
        }
        self.uses_record(&found);
        let first = read_version(self.core(), &found.record.name, FIRST_VERSION).await?;
        let head = first.record.head()?.clone();
        if head.latest > FIRST_VERSION
            && KeyName::parse(name).is_none_or(|one| one.version.is_none())
        {
            return Err(Error::AttributeInvalid { name: "name" });
        }
        check_serve_until(&found.record, change, self.now())?;
        if !found.record.state.may_become(next) && !shortens(&found.record, change) {
            return Err(Error::Refused(Reason::KeyNotActive));
        }
        let becomes_known = next == KeyState::Compromised && found.record.state != next;
        self.move_to(&mut found.record, change).await?;
        self.put(&found)?;
        let exposed = if becomes_known { self.compromise_carried(&found.record).await? } else { 0 };
        if exposed > 0 {
            self.detail("exposed", exposed.to_string());
        }
        Ok(Changed { key: found.record.described(head), exposed })
    }

    /// Moves a key on: in each state it is wrapped anew.
    async fn move_to(&mut self, record: &mut KeyRecord, change: StateChange) -> Result<(), Error> {
        let (material, kept) = at_rest::open(self.core(), record)?;
        record.epoch += 1;
        record.state = change.state;
        record.serve_until = change.serve_until;
        record.updated = self.now();
        record.key_block = match change.state {
            KeyState::Destroyed => None,
            KeyState::Active
            | KeyState::Compromised
            | KeyState::Deactivated
            | KeyState::PreActive
            | KeyState::Suspended => Some(at_rest::wrap(self.core(), record, &material, &kept)?),
        };
        if change.state == KeyState::Destroyed {
            self.release_key_set(record).await?;
            self.releases_material(record, &material).await?;
        }
        Ok(())
    }

    /// Another key may take the key set id of one that is destroyed.
    async fn release_key_set(&mut self, record: &KeyRecord) -> Result<(), Error> {
        let Some(key_set_id) = &record.attributes.key_set_id else { return Ok(()) };
        let set = self.core().read::<KeySet>(key_set_id).await?;
        if let Some(set) = set.filter(|set| set.record.key == record.version_name()) {
            self.delete(&set);
        }
        Ok(())
    }
}

/// Only a base derivation key that was in use until it became compromised serves on, and not for
/// long.
fn check_serve_until(key: &KeyRecord, change: StateChange, now: UnixMillis) -> Result<(), Error> {
    let Some(until) = change.serve_until else { return Ok(()) };
    let serves = match key.state {
        KeyState::Active | KeyState::Compromised => true,
        KeyState::Deactivated | KeyState::Destroyed | KeyState::PreActive | KeyState::Suspended => {
            false
        }
    };
    let fits = key.usage == KeyUsage::BaseDerivation
        && serves
        && change.state == KeyState::Compromised
        && until > now
        && until <= now.plus_ms(SERVE_MS_MAX);
    if fits { Ok(()) } else { Err(Error::AttributeInvalid { name: "serve_until" }) }
}

/// Whether a change ends the service of a compromised key earlier than it would have ended.
fn shortens(key: &KeyRecord, change: StateChange) -> bool {
    let both = [key.state, change.state] == [KeyState::Compromised; 2];
    let earlier = match (key.serve_until, change.serve_until) {
        (Some(before), Some(next)) => next < before,
        (Some(_), None) => true,
        (None, _) => false,
    };
    both && earlier
}
