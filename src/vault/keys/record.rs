//! The record of a stored key: its description in clear words, the key itself as a key block.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::name::version_name;
use super::state::{KeyState, Operation};
use super::vocabulary::{Exportability, KeyUsage, LedgerPolicy, ModeOfUse, Origin};
use crate::key::Algorithm;
use crate::vault::clock::UnixMillis;
use crate::vault::error::Error;
use crate::vault::reason::Reason;
use crate::vault::record::{Kind, Record};

/// A stored key, described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Its name, without `keys/`.
    pub name: String,
    /// The number of this version of it, from 1.
    pub version: u32,
    /// One more with each change of state: the key block of an earlier one does not unwrap.
    pub epoch: u64,
    /// What it is for.
    pub usage: KeyUsage,
    /// Its algorithm and length.
    pub algorithm: Algorithm,
    /// What it may do.
    pub mode_of_use: ModeOfUse,
    /// Where it may go.
    pub exportability: Exportability,
    /// What it may do beyond its usage.
    pub attributes: KeyAttributes,
    /// Where it stands in its life.
    pub state: KeyState,
    /// A compromised base derivation key: until when calls of its terminals are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve_until: Option<UnixMillis>,
    /// Where it came from.
    pub origin: Origin,
    /// Its check value, in upper case hexadecimals.
    pub check_value: String,
    /// When it came to be here.
    pub created: UnixMillis,
    /// When it last changed.
    pub updated: UnixMillis,
    /// Of the first version: what is said of the key as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<KeyHead>,
    /// The versions of keys that it came in or left under: who knows one of them may know it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub carried_by: BTreeSet<String>,
    /// The versions of keys that were told compromised and by which it may be known.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub compromised_through: BTreeSet<String>,
    /// The key, ANSI X9.143 version D; none once it is destroyed.
    pub(super) key_block: Option<BlockAtRest>,
}

/// A key block with the number of the master key that it is wrapped under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockAtRest {
    pub(super) generation: u32,
    pub(super) block: String,
}

/// What is said of a key as a whole, whatever its versions are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyHead {
    /// The number of the version that the name alone means.
    pub primary: u32,
    /// The number of the newest version.
    pub latest: u32,
    /// What people call it by: never anything secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A version of a key, with what is said of the key as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribedKey {
    /// The version.
    pub record: KeyRecord,
    /// The key.
    pub head: KeyHead,
}

/// What a key may do beyond its usage: bound into its key block at rest, dropped on export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyAttributes {
    /// PIN keys: the ISO 9564-1 formats that may come in.
    #[serde(rename = "in", default, skip_serializing_if = "Vec::is_empty")]
    pub pin_formats_in: Vec<u8>,
    /// PIN keys: the formats that may go out.
    #[serde(rename = "out", default, skip_serializing_if = "Vec::is_empty")]
    pub pin_formats_out: Vec<u8>,
    /// MAC keys and base derivation keys: the shortest MAC, in bytes.
    #[serde(rename = "mac")]
    pub mac_length_min_bytes: u8,
    /// MAC keys of ISO 9797-1 algorithms 1 and 3: the one message length, in bytes; 0 for any, with
    /// padding method 3 alone, which authenticates the length.
    #[serde(rename = "msg")]
    pub mac_message_length_bytes: u32,
    /// When its counters become durable.
    #[serde(rename = "ledger")]
    pub ledger: LedgerPolicy,
    /// Base derivation keys: the key set id of its KSNs, in upper case hexadecimals.
    #[serde(rename = "ksi", default, skip_serializing_if = "Option::is_none")]
    pub key_set_id: Option<String>,
    /// Base derivation keys: how many initial keys it may give out.
    #[serde(rename = "cap")]
    pub device_cap: u32,
    /// Base derivation keys: serves terminals that are not registered here.
    #[serde(rename = "open")]
    pub open: bool,
    /// Before this moment it starts nothing.
    #[serde(rename = "begin", default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<UnixMillis>,
    /// After this moment it starts nothing new: the end of its originator usage period.
    #[serde(rename = "end", default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<UnixMillis>,
    /// After this moment it does nothing at all: the end of its recipient usage period.
    #[serde(rename = "over", default, skip_serializing_if = "Option::is_none")]
    pub recipient_not_after: Option<UnixMillis>,
}

/// How many initial keys a base derivation key gives out, unless it says otherwise.
pub const DEVICE_CAP: u32 = 100_000;

/// The shortest MAC, unless a key says otherwise.
pub const MAC_LENGTH_MIN_BYTES: u8 = 8;

impl Default for KeyAttributes {
    fn default() -> Self {
        Self {
            pin_formats_in: Vec::new(),
            pin_formats_out: Vec::new(),
            mac_length_min_bytes: MAC_LENGTH_MIN_BYTES,
            mac_message_length_bytes: 0,
            ledger: LedgerPolicy::Strict,
            key_set_id: None,
            device_cap: DEVICE_CAP,
            open: false,
            not_before: None,
            not_after: None,
            recipient_not_after: None,
        }
    }
}

impl Record for KeyRecord {
    const KIND: Kind = Kind::new("key");

    fn id(&self) -> String {
        key_id(&self.name, self.version)
    }
}

impl KeyRecord {
    /// `{key}/versions/{n}`: this version, as calls and other records name it.
    #[must_use]
    pub fn version_name(&self) -> String {
        version_name(&self.name, self.version)
    }

    /// `keys/{key}/versions/{n}`, as events name it.
    #[must_use]
    pub fn resource_name(&self) -> String {
        format!("keys/{}", self.version_name())
    }

    /// What is said of the key as a whole, by its first version.
    pub(super) fn head(&self) -> Result<&KeyHead, Error> {
        let missing = || Error::incident("a first version says nothing of its key", &self.name);
        self.head.as_ref().ok_or_else(missing)
    }

    /// The description alone, without the key block: what may be kept as an answer.
    #[must_use]
    pub fn described(mut self, head: KeyHead) -> DescribedKey {
        self.key_block = None;
        self.head = None;
        DescribedKey { record: self, head }
    }

    /// Checks whether the key may do this now: by its mode of use, its state and its dates.
    pub fn check(&self, operation: Operation, now: UnixMillis) -> Result<(), Reason> {
        if !operation.is_permitted_by(self.mode_of_use) {
            return Err(Reason::KeyUsageMismatch);
        }
        let serves_on = self.serve_until.is_some_and(|until| now <= until);
        let allowed =
            self.state.allows(operation) || (serves_on && self.state.allows_for_a_time(operation));
        let starts = operation.starts_something();
        let in_time = !self.is_past(now) && (!starts || self.is_in_originator_period(now));
        if allowed && in_time { Ok(()) } else { Err(Reason::KeyNotActive) }
    }

    /// Whether it will never again start anything: what was given out of it is to be replaced.
    #[must_use]
    pub fn is_over(&self, now: UnixMillis) -> bool {
        self.state.is_over() || self.is_past(now) || self.has_expired(now)
    }

    /// Whether it may start something now, as far as its dates say.
    #[must_use]
    pub(super) fn is_in_originator_period(&self, now: UnixMillis) -> bool {
        let has_begun = self.attributes.not_before.is_none_or(|begin| now >= begin);
        has_begun && !self.has_expired(now) && !self.is_past(now)
    }

    fn has_expired(&self, now: UnixMillis) -> bool {
        self.attributes.not_after.is_some_and(|end| now > end)
    }

    fn is_past(&self, now: UnixMillis) -> bool {
        self.attributes.recipient_not_after.is_some_and(|end| now > end)
    }
}

/// The id of a key's version.
/// `#` comes before all that a name is made of, so the order of ids is that of names.
pub(super) fn key_id(name: &str, version: u32) -> String {
    format!("{name}#{version:010}")
}

/// Which version of a base derivation key a key set id belongs to: to no two at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeySet {
    pub(super) key_set_id: String,
    /// `{key}/versions/{n}`.
    pub(super) key: String,
}

impl Record for KeySet {
    const KIND: Kind = Kind::new("key_set");

    fn id(&self) -> String {
        self.key_set_id.clone()
    }
}
