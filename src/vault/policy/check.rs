//! Whether a document is a policy: its bounds, its names, and that it locks nobody out for good.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::caller::{Action, Role};
use super::super::seal::Realm;
use super::{AuditMode, FORMATS, Grant, KEYS, PROFILES, Policy, Principal, format_word};
use crate::crypto::certificate::is_uri_name;

/// The calls that grants speak of: of backends those that use keys, or tell of one; and an
/// officer's export of initial keys, which a grant approves beforehand.
pub const GRANTED: [Action; 7] = [
    Action::CreateTerminal,
    Action::ExportInitialKey,
    Action::GenerateMac,
    Action::LookupKsn,
    Action::TranslatePin,
    Action::VerifyMac,
    Action::VerifyMacAndTranslatePin,
];

/// What is wrong with a document that is to be the policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {cause}")]
pub struct PolicyInvalid {
    /// The field, such as `grants[2].key`.
    pub path: String,
    /// What is wrong with it.
    pub cause: &'static str,
}

const PRINCIPALS_MAX: usize = 1_000;
const GRANTS_MAX: usize = 5_000;
/// How many patterns, calls or formats stand in one list.
const LIST_MAX: usize = 100;
const ID_LEN_MAX: usize = 63;

impl Policy {
    /// Checks a policy that is to be put in force in a realm.
    pub fn check(&self, realm: Realm) -> Result<(), PolicyInvalid> {
        let is_live = realm == Realm::Live;
        ensure(self.votes_required <= 10, "votes_required", "is 10 at most")?;
        let is_dual = self.votes_required > 0 || !is_live;
        ensure(
            is_dual,
            "votes_required",
            "is at least 1: dual control is waived in realm dev alone",
        )?;
        let seconds = (60..=86_400).contains(&self.approval_seconds);
        ensure(seconds, "approval_seconds", "is 60 to 86,400")?;
        if let AuditMode::Summary { seconds } = self.audit {
            ensure((1..=60).contains(&seconds), "summary_seconds", "is 1 to 60")?;
        }
        self.check_principals()?;
        ensure(self.grants.len() <= GRANTS_MAX, "grants", "are 5,000 at most")?;
        let names = |role| self.of_role(role).map(|one| &*one.name).collect::<HashSet<_>>();
        let (backends, officers) = (names(Role::Backend), names(Role::Officer));
        for (index, grant) in self.grants.iter().enumerate() {
            let checked = grant.check_form().and_then(|()| {
                if grant.approves_exports() {
                    grant.check_names_in_full(&officers)
                } else {
                    grant.check_backends(&backends)
                }
            });
            checked.map_err(|invalid| invalid.of("grants", index))?;
        }
        let officers: BTreeSet<&str> =
            self.of_role(Role::Officer).map(|one| &*one.person).collect();
        // One asks and so many others approve; with fewer nobody could ever mend the policy.
        let needed = usize::try_from(self.votes_required).map_or(usize::MAX, |votes| votes + 1);
        let can_change = !is_live || officers.len() >= needed;
        ensure(
            can_change,
            "principals",
            "have too few officers to approve what one of them asks for",
        )
    }

    fn check_principals(&self) -> Result<(), PolicyInvalid> {
        ensure(self.principals.len() <= PRINCIPALS_MAX, "principals", "are 1,000 at most")?;
        let mut names = HashSet::new();
        let mut persons: BTreeMap<&str, Role> = BTreeMap::new();
        for (index, principal) in self.principals.iter().enumerate() {
            let checked = principal.check_form().and_then(|()| {
                ensure(names.insert(&*principal.name), "name", "stands there twice")?;
                let role = principal.role;
                // No person has two roles, so none has two that exclude each other (SEC-90).
                let one = principal.person.is_empty()
                    || *persons.entry(&principal.person).or_insert(role) == role;
                ensure(one, "role", "is another than the same person has elsewhere")
            });
            checked.map_err(|invalid| invalid.of("principals", index))?;
        }
        Ok(())
    }

    fn of_role(&self, role: Role) -> impl Iterator<Item = &Principal> {
        self.principals.iter().filter(move |principal| principal.role == role)
    }
}

impl Principal {
    fn check_form(&self) -> Result<(), PolicyInvalid> {
        ensure(is_uri_name(&self.name), "name", "is no URI name of a certificate")?;
        match self.role {
            Role::Auditor | Role::Custodian | Role::Officer | Role::Operator => {
                let cause =
                    "is 1 to 63 of `a` to `z`, `0` to `9`, `.` and `-`: the role is a person's";
                ensure(is_person(&self.person), "person", cause)?;
            }
            Role::Backend | Role::TerminalRelay => {
                ensure(self.person.is_empty(), "person", "is empty: the role is a machine's")?;
            }
            Role::Service | Role::Stranger | Role::Terminal => {
                return Err(PolicyInvalid::new("role", "is none that a policy gives"));
            }
        }
        let sees = self.role == Role::Backend || self.profiles.is_empty();
        ensure(sees, "profiles", "are for backends")?;
        check_patterns("profiles", &self.profiles, |one| is_pattern(one, PROFILES))
    }
}

impl Grant {
    /// Whether it approves exports of initial keys beforehand, which is another thing than to let
    /// a backend use a key.
    fn approves_exports(&self) -> bool {
        self.calls.iter().any(|call| call == Action::ExportInitialKey.as_str())
    }

    /// Officers have to see what they approve with the policy: each name, and not a pattern of it.
    fn check_names_in_full(&self, officers: &HashSet<&str>) -> Result<(), PolicyInvalid> {
        let alone = self.calls.iter().all(|call| call == Action::ExportInitialKey.as_str());
        ensure(
            alone,
            "calls",
            "hold another beside ExportInitialKey, which has a grant of its own",
        )?;
        ensure(
            !self.key.ends_with('*'),
            "key",
            "is a pattern: ExportInitialKey needs a key's name",
        )?;
        check_list(
            "principals",
            &self.principals,
            |name| officers.contains(name),
            "is no officer's name: ExportInitialKey is an officer's, named in full",
        )?;
        let named = !self.partner_keys.is_empty();
        ensure(named, "partner_keys", "are at least one: ExportInitialKey needs each key's name")?;
        check_list(
            "partner_keys",
            &self.partner_keys,
            |key| !key.ends_with('*'),
            "is a pattern: ExportInitialKey needs each key's name",
        )
    }

    /// A pattern may stand for who comes later; a name that is nobody's is a slip.
    fn check_backends(&self, backends: &HashSet<&str>) -> Result<(), PolicyInvalid> {
        let is_granted = |name: &str| match name.strip_suffix('*') {
            Some(beginning) => beginning.is_empty() || is_uri_name(&format!("{beginning}x")),
            None => backends.contains(name),
        };
        check_list("principals", &self.principals, is_granted, "is no backend's name")
    }

    fn check_form(&self) -> Result<(), PolicyInvalid> {
        ensure(is_pattern(&self.key, KEYS), "key", NO_KEY)?;
        ensure(!self.principals.is_empty(), "principals", "are at least one")?;
        ensure(!self.calls.is_empty(), "calls", "are at least one")?;
        let is_call = |name: &str| GRANTED.iter().any(|action| action.as_str() == name);
        check_list("calls", &self.calls, is_call, "is no call that grants speak of")?;
        let is_format = |word: &str| FORMATS.iter().any(|format| format_word(*format) == word);
        for (path, formats) in
            [("pin_formats_in", &self.pin_formats_in), ("pin_formats_out", &self.pin_formats_out)]
        {
            check_list(path, formats, is_format, "is no PIN block format")?;
        }
        check_patterns("partner_keys", &self.partner_keys, |one| is_pattern(one, KEYS))?;
        let lasts = self.not_before.zip(self.not_after).is_none_or(|(from, to)| from <= to);
        ensure(lasts, "not_after", "is before `not_before`")
    }
}

const NO_KEY: &str = "is no name of its collection, and no beginning of one before a `*`";

impl PolicyInvalid {
    fn new(path: impl Into<String>, cause: &'static str) -> Self {
        Self { path: path.into(), cause }
    }

    /// The same fault in the words of a policy file.
    #[must_use]
    pub fn in_file(self) -> Self {
        Self { path: in_file(&self.path), ..self }
    }

    /// The same fault, seen from the document.
    fn of(self, list: &str, index: usize) -> Self {
        Self { path: format!("{list}[{index}].{}", self.path), ..self }
    }
}

/// The name that a field of the policy has in a policy file: of `grants[2].key` it is
/// `[[grant]] number 3, key`.
#[must_use]
pub fn in_file(path: &str) -> String {
    let (list, field) = path.split_once('.').unwrap_or((path, ""));
    let (list, index) = list.split_once('[').unwrap_or((list, ""));
    let table = match list {
        "principals" => "[[principal]]",
        "grants" => "[[grant]]",
        "audit_mode" => "audit",
        "summary_seconds" => "audit.summary.seconds",
        other => other,
    };
    // Who reads a file counts from 1.
    let index = index.trim_end_matches(']').parse::<usize>().ok();
    let number = index.map(|index| format!(" number {}", index.saturating_add(1)));
    let comma = if field.is_empty() { "" } else { ", " };
    format!("{table}{}{comma}{field}", number.unwrap_or_default())
}

fn ensure(holds: bool, path: &str, cause: &'static str) -> Result<(), PolicyInvalid> {
    if holds { Ok(()) } else { Err(PolicyInvalid::new(path, cause)) }
}

fn check_patterns(
    path: &str,
    patterns: &[String],
    is_right: impl Fn(&str) -> bool,
) -> Result<(), PolicyInvalid> {
    check_list(path, patterns, is_right, NO_KEY)
}

fn check_list(
    path: &str,
    list: &[String],
    is_right: impl Fn(&str) -> bool,
    cause: &'static str,
) -> Result<(), PolicyInvalid> {
    ensure(list.len() <= LIST_MAX, path, "has more than 100 members")?;
    match list.iter().position(|one| !is_right(one)) {
        Some(index) => Err(PolicyInvalid::new(format!("{path}[{index}]"), cause)),
        None => Ok(()),
    }
}

fn is_person(person: &str) -> bool {
    let of_person = |octet: u8| {
        octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'.' || octet == b'-'
    };
    (1..=ID_LEN_MAX).contains(&person.len()) && person.bytes().all(of_person)
}

/// Whether this names something of a collection, or the beginning of names before a `*`.
fn is_pattern(pattern: &str, collection: &str) -> bool {
    let Some(name) = pattern.strip_prefix(collection) else { return false };
    let of_id = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    let (id, is_open) = match name.strip_suffix('*') {
        Some(beginning) => (beginning, true),
        None => (name, false),
    };
    id.len() <= ID_LEN_MAX
        && id.bytes().all(of_id)
        && (is_open && id.is_empty() || id.starts_with(|first: char| first.is_ascii_lowercase()))
        && (is_open || !id.ends_with('-'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{fault, grant, sound};
    use super::*;

    /// A grant that approves exports beforehand.
    pub(in super::super) fn export() -> Grant {
        Grant {
            principals: vec!["spiffe://x/officer/ann".to_owned()],
            calls: vec!["ExportInitialKey".to_owned()],
            pin_formats_in: Vec::new(),
            partner_keys: vec!["keys/kek".to_owned()],
            ..grant()
        }
    }

    #[test]
    fn what_approves_beforehand_names_everything_in_full() {
        let of = |change: fn(&mut Grant)| {
            fault(|policy| {
                let mut export = export();
                change(&mut export);
                policy.grants.push(export);
            })
        };
        assert_eq!(of(|_| ()), "");
        assert_eq!(of(|grant| "keys/*".clone_into(&mut grant.key)), "grants[1].key");
        assert_eq!(of(|grant| grant.calls.push("TranslatePin".into())), "grants[1].calls");
        assert_eq!(of(|grant| grant.partner_keys.clear()), "grants[1].partner_keys");
        assert_eq!(
            of(|grant| grant.partner_keys.push("keys/*".into())),
            "grants[1].partner_keys[1]"
        );
        for vague in ["*", "spiffe://x/officer/*", "spiffe://x/backend"] {
            let fault = fault(|policy| {
                policy.grants.push(Grant { principals: vec![vague.to_owned()], ..export() });
            });
            assert_eq!(fault, "grants[1].principals[0]", "{vague}");
        }
    }

    #[test]
    fn a_fault_is_told_in_the_words_of_the_file() {
        for (path, expected) in [
            ("principals[0].name", "[[principal]] number 1, name"),
            ("grants[4].principals[2]", "[[grant]] number 5, principals[2]"),
            ("grants", "[[grant]]"),
            ("summary_seconds", "audit.summary.seconds"),
            ("votes_required", "votes_required"),
        ] {
            assert_eq!(in_file(path), expected);
        }
        let mut policy = sound();
        policy.grants[0].key.clear();
        let told = policy.check(Realm::Live).unwrap_err().in_file().to_string();
        assert!(told.starts_with("[[grant]] number 1, key: is no name"), "{told}");
    }
}
