//! The decision, and why it came out so.
//!
//! What a caller may not know of is refused as if it were not there. Nothing of that depends on
//! what the store holds: a key that no grant names to the caller is unknown to it, whether there is
//! one of that name or not.

use super::super::caller::{Action, Caller, Role};
use super::super::clock::UnixMillis;
use super::super::error::Error;
use super::super::keys::key_of;
use super::super::reason::Reason;
use super::{Grant, KEYS, PROFILES, Policy, covers, format_word, may_call};
use crate::pin::PinBlockFormat;

/// A call that the policy does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What the caller is told.
    pub error: Error,
    /// Which rule it was, for the audit event; the caller is not told.
    pub rule: &'static str,
}

impl Denial {
    const fn new(reason: Reason, rule: &'static str) -> Self {
        Self { error: Error::Refused(reason), rule }
    }
}

/// A key that a call is to use.
#[derive(Debug, Clone, Copy)]
pub struct KeyUse<'a> {
    /// The id in `keys/{id}`, or a version of it; where the call leads to no key, what the caller
    /// is told then.
    pub key: Result<&'a str, Reason>,
    /// The format of the PIN block that comes in under it.
    pub format_in: Option<PinBlockFormat>,
    /// The format of the PIN block that goes out under it.
    pub format_out: Option<PinBlockFormat>,
}

impl<'a> KeyUse<'a> {
    /// A key that no PIN block comes or goes under.
    #[must_use]
    pub const fn of(key: Result<&'a str, Reason>) -> Self {
        Self { key, format_in: None, format_out: None }
    }
}

/// A key that a caller may use in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance<'a> {
    /// The id in `keys/{id}`.
    pub key: &'a str,
    /// The most calls with it in a minute; 0 for no limit.
    pub calls_per_minute_max: u32,
}

/// An initial key that is to leave.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    /// The id in `keys/{id}` of its base derivation key, or a version of it.
    pub key: &'a str,
    /// The id in `keys/{id}` of the key that it leaves under, or a version of it.
    pub under: &'a str,
}

impl Policy {
    /// Decides whether a caller is somebody, and whether its role may make a call at all.
    pub fn decide(&self, caller: &Caller, action: Action) -> Result<(), Denial> {
        let Some(role) = caller.role() else { return Ok(()) };
        // No policy is in force yet, or none that can be believed: then nobody comes in.
        if self.version == 0 && role != Role::Service {
            return Err(Denial::new(Reason::CallerUnknown, "policy"));
        }
        if !matches!(role, Role::Terminal | Role::Service) {
            let principal = self.principal(caller.name());
            let known = principal.is_some_and(|principal| principal.role == role);
            if !known {
                return Err(Denial::new(Reason::CallerUnknown, "principal"));
            }
        }
        if !may_call(role, action) {
            return Err(Denial::new(Reason::PolicyDenied, "role"));
        }
        Ok(())
    }

    /// Decides whether a caller may use these keys together in a call that its role may make.
    ///
    /// First each key has to be known to the caller, then each has to be granted for this: so what
    /// is told of one key does not depend on another that the caller may not know of.
    pub fn decide_keys<'a>(
        &self,
        caller: &Caller,
        action: Action,
        keys: &[KeyUse<'a>],
        now: UnixMillis,
    ) -> Result<Vec<Allowance<'a>>, Denial> {
        if !needs_grants(caller) {
            return Ok(Vec::new());
        }
        let mut known = Vec::with_capacity(keys.len());
        for asked in keys {
            // A grant on a key covers its versions, and they have one rate.
            let key = asked.key.map(key_of);
            let key = key.map_err(|reason| Denial::new(reason, "resource"))?;
            if !self.knows_key(caller, key) {
                return Err(Denial::new(Reason::KeyNotFound, Lack::Key.rule()));
            }
            known.push((key, asked));
        }
        let allowed = known.iter().enumerate().map(|(place, &(key, with))| {
            let asked = Asked { action, key, with, place, keys: &known, now };
            let granted = self.granted(caller.name(), &asked);
            let denied = |lack: Lack| Denial::new(Reason::PolicyDenied, lack.rule());
            granted
                .map(|per_minute| Allowance { key, calls_per_minute_max: per_minute })
                .map_err(denied)
        });
        allowed.collect()
    }

    /// Whether a caller may know of a key: some grant names both. Only backends need one.
    #[must_use]
    pub fn knows_key(&self, caller: &Caller, key: &str) -> bool {
        let mut grants = self.grants.iter();
        !needs_grants(caller) || grants.any(|grant| grant.names(caller.name(), key_of(key)))
    }

    /// Whether a caller may know of a profile and its terminals. Only backends are told them apart.
    #[must_use]
    pub fn sees_profile(&self, caller: &Caller, profile: &str) -> bool {
        !needs_grants(caller)
            || self.principal(caller.name()).is_some_and(|principal| {
                principal.role == Role::Backend
                    && principal.profiles.iter().any(|one| covers(one, PROFILES, profile))
            })
    }

    /// The rate of the grant that approves an officer's export of an initial key beforehand: of
    /// several the most generous one. The grant was approved with the policy, and names the
    /// officer and both keys in full, so it stands for the approval of each such call.
    #[must_use]
    pub fn approved_before(
        &self,
        officer: &str,
        passage: Passage<'_>,
        now: UnixMillis,
    ) -> Option<u32> {
        let approving =
            self.grants.iter().filter_map(|grant| grant.approves(officer, passage, now).ok());
        approving.reduce(more_generous)
    }

    /// The rate of the grant that allows a use: the most generous one; else what the grant that
    /// came nearest lacks.
    pub(super) fn granted(&self, principal: &str, asked: &Asked<'_>) -> Result<u32, Lack> {
        let mut outcome = Err(Lack::Key);
        for grant in self.grants.iter().filter(|grant| grant.names(principal, asked.key)) {
            outcome = match (outcome, grant.check(asked)) {
                (Ok(one), Ok(other)) => Ok(more_generous(one, other)),
                (Ok(rate), Err(_)) | (Err(_), Ok(rate)) => Ok(rate),
                (Err(one), Err(other)) => Err(one.max(other)),
            };
        }
        outcome
    }
}

/// Of two rates the one that leaves more; 0 is no limit.
fn more_generous(one: u32, other: u32) -> u32 {
    if one == 0 || other == 0 { 0 } else { one.max(other) }
}

/// One key of a call, as grants are asked about it.
pub(super) struct Asked<'a> {
    pub(super) action: Action,
    /// The id in `keys/{id}`.
    pub(super) key: &'a str,
    pub(super) with: &'a KeyUse<'a>,
    /// Which of the keys of the call it is.
    pub(super) place: usize,
    /// All keys of the call.
    pub(super) keys: &'a [(&'a str, &'a KeyUse<'a>)],
    pub(super) now: UnixMillis,
}

impl Asked<'_> {
    /// The keys that it is used with: every other, and the same once more where a PIN block passes
    /// from the one place to the other. That one key verifies a MAC and opens the PIN block beside
    /// it is no use of two.
    fn partners(&self) -> impl Iterator<Item = &str> {
        let others = self.keys.iter().enumerate().filter(|(place, _)| *place != self.place);
        let partners = others.filter(|(_, (key, with))| {
            *key != self.key || passes(self.with, with) || passes(with, self.with)
        });
        partners.map(|(_, (key, _))| *key)
    }
}

/// Whether a PIN block comes in under the one and goes out under the other.
const fn passes(one: &KeyUse<'_>, other: &KeyUse<'_>) -> bool {
    one.format_in.is_some() && other.format_out.is_some()
}

/// What a grant lacks to allow a use, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lack {
    /// It names another caller or another key.
    Key,
    /// It is for other calls.
    Call,
    /// It does not hold yet, or no more.
    Time,
    /// It is for other PIN block formats.
    Format,
    /// It is not for use with the other keys of the call.
    Partner,
}

impl Lack {
    /// The rule's name in the audit event.
    pub(super) const fn rule(self) -> &'static str {
        match self {
            Self::Key => "grant",
            Self::Call => "grant.calls",
            Self::Time => "grant.time",
            Self::Format => "grant.pin_formats",
            Self::Partner => "grant.partner_keys",
        }
    }
}

impl Grant {
    /// Whether it says anything about a principal and a key.
    pub(super) fn names(&self, principal: &str, key: &str) -> bool {
        covers(&self.key, KEYS, key) && self.principals.iter().any(|one| covers(one, "", principal))
    }

    /// The rate under which it allows a use of a key that it names.
    pub(super) fn check(&self, asked: &Asked<'_>) -> Result<u32, Lack> {
        let takes = |words: &[String], format: Option<PinBlockFormat>| {
            let mut words = words.iter();
            words.len() == 0
                || format.is_none_or(|format| words.any(|word| word == format_word(format)))
        };
        self.holds(asked.action, asked.now)?;
        if !takes(&self.pin_formats_in, asked.with.format_in)
            || !takes(&self.pin_formats_out, asked.with.format_out)
        {
            Err(Lack::Format)
        } else if !self.partner_keys.is_empty()
            && !asked
                .partners()
                .all(|key| self.partner_keys.iter().any(|one| covers(one, KEYS, key)))
        {
            Err(Lack::Partner)
        } else {
            Ok(self.calls_per_minute_max)
        }
    }

    /// The rate under which it approves an officer's export of an initial key beforehand. What it
    /// does not name in full it does not approve.
    pub(super) fn approves(
        &self,
        officer: &str,
        passage: Passage<'_>,
        now: UnixMillis,
    ) -> Result<u32, Lack> {
        let is_key = |name: &str, id: &str| name.strip_prefix(KEYS) == Some(key_of(id));
        if !is_key(&self.key, passage.key) || !self.principals.iter().any(|one| one == officer) {
            return Err(Lack::Key);
        }
        self.holds(Action::ExportInitialKey, now)?;
        if !self.partner_keys.iter().any(|partner| is_key(partner, passage.under)) {
            return Err(Lack::Partner);
        }
        Ok(self.calls_per_minute_max)
    }

    /// Whether it is for a call, now.
    fn holds(&self, action: Action, now: UnixMillis) -> Result<(), Lack> {
        if !self.calls.iter().any(|call| call == action.as_str()) {
            Err(Lack::Call)
        } else if self.not_before.is_some_and(|moment| now < moment)
            || self.not_after.is_some_and(|moment| now > moment)
        {
            Err(Lack::Time)
        } else {
            Ok(())
        }
    }
}

/// Whether keys and profiles are opened to a caller one by one: to backends alone. What the other
/// roles may do at all, they may do with every resource.
fn needs_grants(caller: &Caller) -> bool {
    caller.role() == Some(Role::Backend)
}
