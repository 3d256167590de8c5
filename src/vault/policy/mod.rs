//! Who may do what. What no line allows is denied.
//!
//! Three questions stand one behind the other: is the caller somebody that the policy knows, may
//! callers of its role make this call at all, and may it do so with this resource. The first two
//! are answered with what is wrong; to the third, a caller who may not know of a resource is told
//! what it would be told if there were none.

mod check;
mod decide;
mod explain;
mod in_force;
mod roles;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::caller::Role;
use super::clock::UnixMillis;
use super::record::{Kind, Record};
use crate::crypto::digest;
use crate::pin::PinBlockFormat;

pub use self::check::{GRANTED, PolicyInvalid, in_file};
pub use self::decide::{Allowance, Denial, KeyUse, Passage};
pub use self::explain::{Explanation, Question};
pub(super) use self::in_force::InForce;
pub use self::roles::{callers_of, may_call};

/// The whole policy: one sealed record, replaced as a whole.
///
/// A policy file (TOML) has these members by their names; `firstkey.v1.Policy` says the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// One more with each change; 0 where nobody has set one.
    #[serde(default)]
    pub version: u64,
    /// How many distinct officers besides the requester approve a marked call; 0 waives dual
    /// control, in realm dev alone.
    pub votes_required: u32,
    /// How long an approval may wait, in seconds.
    #[serde(default = "a_day")]
    pub approval_seconds: u32,
    /// How successful calls of the data plane are audited.
    #[serde(default)]
    pub audit: AuditMode,
    /// Everybody who may call.
    #[serde(default, rename = "principal")]
    pub principals: Vec<Principal>,
    /// What backends may do with which key, and which exports of initial keys are approved
    /// beforehand.
    #[serde(default, rename = "grant")]
    pub grants: Vec<Grant>,
}

/// A caller, known by the URI name in its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// The URI name.
    pub name: String,
    /// The person who holds the certificate; empty for machines.
    #[serde(default)]
    pub person: String,
    /// The one role.
    pub role: Role,
    /// Backends: the profiles whose terminals they see, as patterns of `profiles/{profile}`.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// The most calls in a minute; 0 for the service's limit.
    #[serde(default)]
    pub calls_per_minute_max: u32,
}

/// Lets backends use a key. A grant of `ExportInitialKey` is another thing: it approves an
/// officer's exports beforehand, so it is of that call alone, and names officers, key and partner
/// keys in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The key, as a pattern of `keys/{key}`.
    pub key: String,
    /// The principals, as patterns of their names.
    pub principals: Vec<String>,
    /// The rpcs by name.
    pub calls: Vec<String>,
    /// The PIN block formats that may come in, such as `ISO_0`; empty for all that the key carries.
    #[serde(default)]
    pub pin_formats_in: Vec<String>,
    /// The PIN block formats that may go out; empty for all that the key carries.
    #[serde(default)]
    pub pin_formats_out: Vec<String>,
    /// The other keys of the call, as patterns of `keys/{key}`; empty for all that a backend may
    /// use for the same call. Where a PIN block goes out under the key that it came in under, that
    /// key is the other one too.
    #[serde(default)]
    pub partner_keys: Vec<String>,
    /// The most calls of one principal with one key in a minute; 0 for no limit of its own.
    #[serde(default)]
    pub calls_per_minute_max: u32,
    /// Not before this moment.
    #[serde(default, with = "super::moment", skip_serializing_if = "Option::is_none")]
    pub not_before: Option<UnixMillis>,
    /// Not after this moment.
    #[serde(default, with = "super::moment", skip_serializing_if = "Option::is_none")]
    pub not_after: Option<UnixMillis>,
}

/// How successful calls of the data plane are audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AuditMode {
    /// An event each, before the answer leaves.
    #[default]
    Each,
    /// One event before an interval's first use and one that counts at its end.
    Summary {
        /// How long the interval lasts.
        seconds: u32,
    },
}

impl Record for Policy {
    const KIND: Kind = Kind::new("policy");

    fn id(&self) -> String {
        Self::ID.to_owned()
    }
}

impl Policy {
    /// The one id.
    pub(super) const ID: &'static str = "current";

    /// The name of the policy in audit events.
    pub const RESOURCE: &'static str = "policy";

    /// The policy of a store in which nobody has set one: nobody may do anything.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            version: 0,
            votes_required: 1,
            approval_seconds: a_day(),
            audit: AuditMode::Each,
            principals: Vec::new(),
            grants: Vec::new(),
        }
    }

    /// Finds who calls under a URI name.
    #[must_use]
    pub fn principal(&self, name: &str) -> Option<&Principal> {
        self.principals.iter().find(|principal| principal.name == name)
    }

    /// SHA-256 of the document, in lower case hexadecimals.
    #[must_use]
    pub fn digest(&self) -> String {
        let document = serde_json::to_vec(self).expect("strings and numbers have a JSON form");
        data_encoding::HEXLOWER.encode(&digest::sha256(&[&document]))
    }
}

/// What the names of keys begin with.
const KEYS: &str = "keys/";
/// What the names of profiles begin with.
const PROFILES: &str = "profiles/";

/// Whether a pattern of a collection covers an id in it: the same name, or its beginning before a
/// `*` at the end.
fn covers(pattern: &str, collection: &str, id: &str) -> bool {
    let Some(pattern) = pattern.strip_prefix(collection) else { return false };
    match pattern.strip_suffix('*') {
        Some(beginning) => id.starts_with(beginning),
        None => id == pattern,
    }
}

/// The word for a PIN block format in a policy.
#[must_use]
pub const fn format_word(format: PinBlockFormat) -> &'static str {
    match format {
        PinBlockFormat::Iso0 => "ISO_0",
        PinBlockFormat::Iso1 => "ISO_1",
        PinBlockFormat::Iso2 => "ISO_2",
        PinBlockFormat::Iso3 => "ISO_3",
        PinBlockFormat::Iso4 => "ISO_4",
    }
}

/// The PIN block formats that a service translates: format 2 never leaves a chip card.
pub const FORMATS: [PinBlockFormat; 4] =
    [PinBlockFormat::Iso0, PinBlockFormat::Iso1, PinBlockFormat::Iso3, PinBlockFormat::Iso4];

const fn a_day() -> u32 {
    24 * 60 * 60
}
