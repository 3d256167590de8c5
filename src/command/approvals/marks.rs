//! The marks: which calls one officer may not make alone, in one table.
//!
//! What takes rights away acts at once and is in no line: denying a device, suspending a key,
//! telling that it is compromised. What gives them, or can not be undone, waits for others.
//! `CreateCertificateRequest` is in no line either: it proves that the identity key is here, and
//! nothing is trusted by that. What comes of the request is a certificate, and its import waits.

use crate::vault::{Action, Brings, KeyAttributes, KeyState, KeyUsage, LedgerPolicy, StateChange};

/// A call that waits for approval.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// The call.
    pub action: Action,
    /// When it does.
    pub when: When,
    /// Why.
    pub why: &'static str,
}

/// What a marked call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// Whatever it is about.
    Always,
    /// A key stops to serve for good.
    Deactivates,
    /// A key becomes destroyed.
    Destroys,
    /// A key that protects or derives others: usages `B*` and `K*`.
    KeyOfKeys,
    /// A key of others becomes the next version of one that there is.
    NextVersion,
    /// The policy's grants do not name the officer, the base derivation key and the partner's key.
    NotGranted,
    /// A key becomes compromised and is to serve on for a time.
    ServesOn,
    /// A key whose PIN block formats the caller chose.
    SetsPinFormats,
    /// A suspended key becomes active.
    Unsuspends,
}

/// Every mark.
pub const MARKS: [Mark; 20] = [
    mark(Action::AllowDevice, When::Always, "a device that was denied is trusted again"),
    mark(Action::CreateCeremony, When::Always, "it makes, brings, hands out or ends a key"),
    mark(Action::CreateDeviceAuthority, When::Always, "whoever it certifies is given keys"),
    mark(Action::CreateIdentityKey, When::Always, "terminals will know the service by it"),
    mark(Action::CreateKey, When::SetsPinFormats, "formats decide what a PIN block can become"),
    mark(Action::CreateMasterKey, When::Always, "who keeps it can open everything"),
    mark(Action::CreateProfile, When::Always, "it says which terminals get which keys and limits"),
    mark(Action::ExportInitialKey, When::NotGranted, "a terminal's keys leave for a partner"),
    mark(Action::ExportKey, When::KeyOfKeys, "whoever gets it has all that is below it"),
    mark(Action::ImportCertificate, When::Always, "terminals trust the service by it"),
    mark(Action::ImportKey, When::KeyOfKeys, "whoever knows it has all that will be below it"),
    mark(Action::ImportKey, When::NextVersion, "what is granted of the key is granted of this one"),
    mark(Action::ImportKey, When::SetsPinFormats, "formats decide what a PIN block can become"),
    mark(Action::SetKeyState, When::Deactivates, "it serves never again; suspending is at once"),
    mark(Action::SetKeyState, When::Destroys, "there is no way back"),
    mark(Action::SetKeyState, When::ServesOn, "keys that others know are still accepted"),
    mark(Action::SetKeyState, When::Unsuspends, "somebody had a reason to stop it"),
    mark(Action::SetPolicy, When::Always, "it says who may do what, and who approves"),
    mark(Action::SetPrimaryVersion, When::Always, "what is granted of a key is done under another"),
    mark(Action::UpdateProfile, When::Always, "it says which terminals get which keys and limits"),
];

const fn mark(action: Action, when: When, why: &'static str) -> Mark {
    Mark { action, when, why }
}

/// Whether such a call may be marked at all.
#[must_use]
pub fn may_be_marked(action: Action) -> bool {
    MARKS.iter().any(|mark| mark.action == action)
}

/// Whether a call that is about this waits for approval.
pub(super) fn is_marked(action: Action, about: &[When]) -> bool {
    let applies = |when| when == When::Always || about.contains(&when);
    MARKS.iter().any(|mark| mark.action == action && applies(mark.when))
}

/// What the making of a key is about, by the attributes that the caller gave.
pub(in crate::command) fn of_attributes(given: &KeyAttributes) -> Vec<When> {
    let sets_formats = !given.pin_formats_in.is_empty() || !given.pin_formats_out.is_empty();
    let formats = sets_formats.then_some(When::SetsPinFormats);
    // Any other would let a crash forget which counters are spent, and need a line of its own.
    let LedgerPolicy::Strict = given.ledger;
    Vec::from_iter(formats)
}

/// What an import is about, by what it is to bring.
pub(in crate::command) const fn of_import(brings: &Brings) -> Option<When> {
    match brings {
        Brings::Key(_) => None,
        Brings::NextVersion => Some(When::NextVersion),
    }
}

/// What the passage of a key is about, by its usage.
pub(in crate::command) const fn of_usage(usage: KeyUsage) -> Option<When> {
    match usage {
        KeyUsage::BaseDerivation
        | KeyUsage::InitialDukpt
        | KeyUsage::KeyDerivation
        | KeyUsage::KeyEncryption
        | KeyUsage::KeyBlockProtection => Some(When::KeyOfKeys),
        KeyUsage::DataEncryption
        | KeyUsage::MacAlgorithm1
        | KeyUsage::MacAlgorithm3
        | KeyUsage::MacCmac
        | KeyUsage::MacHmac
        | KeyUsage::PinEncryption => None,
    }
}

/// What a change of a key's state is about. To let a compromised key serve for less than it did is
/// to protect, and waits for nobody.
pub(in crate::command) const fn of_change(from: KeyState, change: StateChange) -> Option<When> {
    match (from, change.state) {
        (_, KeyState::Deactivated) => Some(When::Deactivates),
        (_, KeyState::Destroyed) => Some(When::Destroys),
        (KeyState::Suspended, KeyState::Active) => Some(When::Unsuspends),
        (KeyState::Compromised, KeyState::Compromised) => None,
        (_, KeyState::Compromised) if change.serve_until.is_some() => Some(When::ServesOn),
        (
            _,
            KeyState::Active | KeyState::Compromised | KeyState::PreActive | KeyState::Suspended,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{Role, UnixMillis, callers_of};

    #[test]
    fn only_officers_make_marked_calls_and_each_line_stands_once() {
        for (place, mark) in MARKS.iter().enumerate() {
            assert_eq!(callers_of(mark.action), [Role::Officer], "{mark:?}");
            let same = |other: &&Mark| (other.action, other.when) == (mark.action, mark.when);
            assert_eq!(MARKS.iter().position(|other| same(&other)), Some(place), "{mark:?}");
            assert!(!mark.why.is_empty());
        }
    }

    #[test]
    fn keys_of_keys_are_those_of_usages_b_and_k() {
        for usage in KeyUsage::ALL {
            let expected = matches!(usage.as_str().as_bytes()[0], b'B' | b'K');
            assert_eq!(of_usage(*usage).is_some(), expected, "{usage:?}");
        }
    }

    #[test]
    fn what_stops_a_key_waits_for_nobody() {
        use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};
        let mut marked = Vec::new();
        for from in KeyState::ALL {
            for state in KeyState::ALL.into_iter().filter(|state| from.may_become(*state)) {
                for serve_until in [None, Some(UnixMillis(1))] {
                    let change = StateChange { state, serve_until };
                    if let Some(when) = of_change(from, change) {
                        assert!(is_marked(Action::SetKeyState, &[when]));
                        marked.push((from, state, serve_until.is_some()));
                    }
                }
            }
        }
        let expected = [
            (Active, Compromised, true),
            (Active, Deactivated, false),
            (Active, Deactivated, true),
            (Deactivated, Destroyed, false),
            (Deactivated, Destroyed, true),
            (Deactivated, Compromised, true),
            (PreActive, Destroyed, false),
            (PreActive, Destroyed, true),
            (PreActive, Compromised, true),
            (Suspended, Active, false),
            (Suspended, Deactivated, false),
            (Suspended, Deactivated, true),
            (Suspended, Active, true),
            (Suspended, Compromised, true),
        ];
        assert_eq!(marked.len(), expected.len(), "{marked:?}");
        assert!(expected.iter().all(|one| marked.contains(one)), "{marked:?}");
        let shorter = StateChange { state: Compromised, serve_until: Some(UnixMillis(1)) };
        assert_eq!(of_change(Compromised, shorter), None);
    }
}
