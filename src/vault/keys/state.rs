//! The life of a key: its states, the ways between them, what each state allows.
//!
//! See NIST SP 800-57 part 1 rev. 5, 7.

use serde::{Deserialize, Serialize};

use super::vocabulary::ModeOfUse;

/// Where a key stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyState {
    /// In use.
    Active,
    /// Known to others: kept as evidence. A base derivation key may serve its terminals for a time.
    Compromised,
    /// Decrypts and verifies old data only.
    Deactivated,
    /// The key block is gone.
    Destroyed,
    /// Not yet in use.
    PreActive,
    /// Out of use until resumed.
    Suspended,
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Active,
        Self::Compromised,
        Self::Deactivated,
        Self::Destroyed,
        Self::PreActive,
        Self::Suspended,
    ];

    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Compromised => "COMPROMISED",
            Self::Deactivated => "DEACTIVATED",
            Self::Destroyed => "DESTROYED",
            Self::PreActive => "PRE_ACTIVE",
            Self::Suspended => "SUSPENDED",
        }
    }

    /// Whether a key may go from this state to another.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        TRANSITIONS.contains(&(self, next))
    }

    /// Whether a key in this state may do this.
    #[must_use]
    pub fn allows(self, operation: Operation) -> bool {
        ALLOWED.iter().any(|(state, operations)| *state == self && operations.contains(&operation))
    }

    /// Whether a key in this state may do this until the moment to which it serves on.
    #[must_use]
    pub fn allows_for_a_time(self, operation: Operation) -> bool {
        let (state, operations) = ALLOWED_FOR_A_TIME;
        state == self && operations.contains(&operation)
    }

    /// Whether no way leads from this state to one in use.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::Compromised | Self::Deactivated | Self::Destroyed => true,
            Self::Active | Self::PreActive | Self::Suspended => false,
        }
    }
}

/// What is to be done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Decrypt data or decipher PIN blocks.
    Decrypt,
    /// Derive the initial key of a new device, or a key that is to be issued.
    DeriveInitial,
    /// Derive the key of a transaction of a device in the field.
    DeriveWorking,
    /// Encrypt data or encipher PIN blocks.
    Encrypt,
    /// Leave in a key block.
    Export,
    /// Generate a MAC.
    GenerateMac,
    /// Unwrap a key block.
    Unwrap,
    /// Verify a MAC.
    VerifyMac,
    /// Wrap a key block.
    Wrap,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 9] = [
        Self::Decrypt,
        Self::DeriveInitial,
        Self::DeriveWorking,
        Self::Encrypt,
        Self::Export,
        Self::GenerateMac,
        Self::Unwrap,
        Self::VerifyMac,
        Self::Wrap,
    ];

    /// Whether a key with this mode of use may do this (ANSI X9.143:2021, 6.3.4).
    #[must_use]
    pub const fn is_permitted_by(self, mode: ModeOfUse) -> bool {
        use ModeOfUse::{
            Decrypt, Derive, Encrypt, EncryptAndDecrypt, Generate, GenerateAndVerify,
            NoRestriction, Verify,
        };
        match self {
            Self::Decrypt | Self::Unwrap => {
                matches!(mode, EncryptAndDecrypt | Decrypt | NoRestriction)
            }
            Self::Encrypt | Self::Wrap => {
                matches!(mode, EncryptAndDecrypt | Encrypt | NoRestriction)
            }
            Self::DeriveInitial | Self::DeriveWorking => matches!(mode, Derive | NoRestriction),
            Self::GenerateMac => matches!(mode, GenerateAndVerify | Generate | NoRestriction),
            Self::VerifyMac => matches!(mode, GenerateAndVerify | Verify | NoRestriction),
            // The header says by exportability, not by mode, whether a key may leave.
            Self::Export => true,
        }
    }

    /// Whether this protects something new: what a key does no more after its expiry.
    #[must_use]
    pub const fn starts_something(self) -> bool {
        match self {
            Self::DeriveInitial | Self::Encrypt | Self::Export | Self::GenerateMac | Self::Wrap => {
                true
            }
            Self::Decrypt | Self::DeriveWorking | Self::Unwrap | Self::VerifyMac => false,
        }
    }
}

/// The ways between the states. Compromised and destroyed have none out.
const TRANSITIONS: [(KeyState, KeyState); 11] = [
    (KeyState::PreActive, KeyState::Active),
    (KeyState::PreActive, KeyState::Compromised),
    (KeyState::PreActive, KeyState::Destroyed),
    (KeyState::Active, KeyState::Suspended),
    (KeyState::Active, KeyState::Deactivated),
    (KeyState::Active, KeyState::Compromised),
    (KeyState::Suspended, KeyState::Active),
    (KeyState::Suspended, KeyState::Deactivated),
    (KeyState::Suspended, KeyState::Compromised),
    (KeyState::Deactivated, KeyState::Compromised),
    (KeyState::Deactivated, KeyState::Destroyed),
];

/// What each state allows. A state that is not here allows nothing.
const ALLOWED: [(KeyState, &[Operation]); 2] = [
    (KeyState::Active, &Operation::ALL),
    (KeyState::Deactivated, &[Operation::Decrypt, Operation::Unwrap, Operation::VerifyMac]),
];

/// What a compromised base derivation key does until the moment that the officer chose: its
/// terminals are served while they get other keys. It gives out no initial key.
const ALLOWED_FOR_A_TIME: (KeyState, &[Operation]) =
    (KeyState::Compromised, &[Operation::DeriveWorking]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compromised_and_destroyed_are_final() {
        for next in KeyState::ALL {
            assert!(!KeyState::Compromised.may_become(next));
            assert!(!KeyState::Destroyed.may_become(next));
        }
    }

    #[test]
    fn no_way_leads_to_where_it_begins_or_back_to_pre_active() {
        for state in KeyState::ALL {
            assert!(!state.may_become(state));
            assert!(!state.may_become(KeyState::PreActive));
        }
    }

    #[test]
    fn what_is_over_has_no_way_into_use() {
        for state in KeyState::ALL {
            let steps =
                |from: KeyState| KeyState::ALL.into_iter().filter(move |to| from.may_become(*to));
            let mut reached = vec![state];
            for _ in KeyState::ALL {
                reached.extend(reached.clone().into_iter().flat_map(steps));
            }
            assert_eq!(state.is_over(), !reached.contains(&KeyState::Active), "{state:?}");
        }
    }

    #[test]
    fn a_compromised_key_serves_for_a_time_and_gives_out_nothing() {
        for state in KeyState::ALL {
            for operation in Operation::ALL {
                let expected =
                    (state, operation) == (KeyState::Compromised, Operation::DeriveWorking);
                assert_eq!(state.allows_for_a_time(operation), expected, "{state:?} {operation:?}");
            }
        }
    }

    #[test]
    fn every_state_and_operation() {
        use Operation::{Decrypt, Unwrap, VerifyMac};
        for state in KeyState::ALL {
            for operation in Operation::ALL {
                let expected = match state {
                    KeyState::Active => true,
                    KeyState::Deactivated => matches!(operation, Decrypt | Unwrap | VerifyMac),
                    KeyState::Compromised
                    | KeyState::Destroyed
                    | KeyState::PreActive
                    | KeyState::Suspended => false,
                };
                assert_eq!(state.allows(operation), expected, "{state:?} {operation:?}");
            }
        }
    }
}
