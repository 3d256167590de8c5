//! Who may do what. What no line allows is denied.
//!
//! Three questions stand one behind the other: is the caller somebody that the policy knows, may
//! callers of its role make this call at all, and may it do so with this resource. The first two
//! are answered with what is wrong; to the third, a caller who may not know of a resource is told
//! what it would be told if there were none.

mod decide;
mod roles;

use serde::{Deserialize, Serialize};

use super::caller::Role;
use super::clock::UnixMillis;
use super::record::{Kind, Record};

pub use self::decide::Denial;
pub use self::roles::{callers_of, may_call};

/// The whole policy: one sealed record, replaced as a whole.
///
/// The same text stands in a policy file (TOML) and in `firstkey.v1.Policy`.
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
    /// What backends may do with which key.
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

/// Lets callers use a key.
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
    /// The other keys of the call, as patterns of `keys/{key}`; empty for all that the caller may
    /// use for the same call.
    #[serde(default)]
    pub partner_keys: Vec<String>,
    /// The most calls of one principal with one key in a minute; 0 for none of its own.
    #[serde(default)]
    pub calls_per_minute_max: u32,
    /// Not before this moment.
    #[serde(default)]
    pub not_before: Option<UnixMillis>,
    /// Not after this moment.
    #[serde(default)]
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
}

const fn a_day() -> u32 {
    24 * 60 * 60
}
