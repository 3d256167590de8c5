//! The states of a terminal, and the one table of which call each of them allows.

/// Where a terminal stands.
///
/// ```text
/// REGISTERED -> CODE_ISSUED -> CODE_VERIFIED -> KEYS_DELIVERED -> KEYS_CONFIRMED
///            -> PARAMETERS_DELIVERED -> TESTED -> ACTIVE
/// side: HELD, CODE_EXPIRED, LOCKED, REKEYING, SUSPENDED, RETIRED, COMPROMISED
/// ```
#[derive(
    Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Known, without a code.
    Registered,
    /// A code waits to be typed in.
    CodeIssued,
    /// The right device showed the code; an initial key id is allocated.
    CodeVerified,
    /// Keys were sent, not yet confirmed.
    KeysDelivered,
    /// Both sides hold the same keys.
    KeysConfirmed,
    /// Parameters and limits were sent.
    ParametersDelivered,
    /// All test transactions passed.
    Tested,
    /// PIN and MAC calls are open.
    Active,
    /// The merchant is pending or rejected, or there is a stated risk.
    Held,
    /// The code ran out of time.
    CodeExpired,
    /// Too many wrong codes.
    Locked,
    /// New keys are on their way; the old ones serve.
    Rekeying,
    /// Closed for a time.
    Suspended,
    /// The key set is ended.
    Retired,
    /// The keys are known to others.
    Compromised,
}

impl State {
    /// All states.
    pub const ALL: [Self; 15] = [
        Self::Registered,
        Self::CodeIssued,
        Self::CodeVerified,
        Self::KeysDelivered,
        Self::KeysConfirmed,
        Self::ParametersDelivered,
        Self::Tested,
        Self::Active,
        Self::Held,
        Self::CodeExpired,
        Self::Locked,
        Self::Rekeying,
        Self::Suspended,
        Self::Retired,
        Self::Compromised,
    ];

    /// The name, as the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "REGISTERED",
            Self::CodeIssued => "CODE_ISSUED",
            Self::CodeVerified => "CODE_VERIFIED",
            Self::KeysDelivered => "KEYS_DELIVERED",
            Self::KeysConfirmed => "KEYS_CONFIRMED",
            Self::ParametersDelivered => "PARAMETERS_DELIVERED",
            Self::Tested => "TESTED",
            Self::Active => "ACTIVE",
            Self::Held => "HELD",
            Self::CodeExpired => "CODE_EXPIRED",
            Self::Locked => "LOCKED",
            Self::Rekeying => "REKEYING",
            Self::Suspended => "SUSPENDED",
            Self::Retired => "RETIRED",
            Self::Compromised => "COMPROMISED",
        }
    }

    /// Finds a state by its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether a terminal in it is closed to every call of its own, repetitions of what was
    /// answered before included: it is held back, or its keys are ended.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        match self {
            Self::Held | Self::Locked | Self::Suspended | Self::Retired | Self::Compromised => true,
            Self::Registered
            | Self::CodeIssued
            | Self::CodeVerified
            | Self::KeysDelivered
            | Self::KeysConfirmed
            | Self::ParametersDelivered
            | Self::Tested
            | Self::Active
            | Self::CodeExpired
            | Self::Rekeying => false,
        }
    }

    /// What the table says of a call in this state.
    #[must_use]
    pub fn rule(self, call: Call) -> Rule {
        let row = TABLE.iter().find(|(state, _)| *state == self);
        let (_, rules) = row.expect("the table has a row for each state, as its test shows");
        let entry = Call::ALL.iter().zip(rules).find(|(column, _)| **column == call);
        *entry.expect("the table has a column for each call, as its test shows").1
    }

    /// Whether a call is allowed in this state; `code_required` says whether the terminal's profile
    /// asks for an activation code.
    pub fn check(self, call: Call, code_required: bool) -> Result<(), Refusal> {
        match self.rule(call) {
            Rule::Allowed => Ok(()),
            Rule::AllowedWithoutCode if !code_required => Ok(()),
            Rule::AllowedWithoutCode => Err(Refusal::CodeMissing),
            Rule::Refused(refusal) => Err(refusal),
        }
    }
}

/// A call that acts upon a terminal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Call {
    /// `TerminalService.IssueActivationCode`.
    IssueActivationCode,
    /// `TerminalService.ReissueActivationCode`.
    ReissueActivationCode,
    /// `ActivationService.BeginActivation`.
    BeginActivation,
    /// `ActivationService.DeliverKeys`.
    DeliverKeys,
    /// `ActivationService.ConfirmKeys`.
    ConfirmKeys,
    /// `ActivationService.GetParameters`.
    GetParameters,
    /// `ActivationService.ReportStep`.
    ReportStep,
    /// `ActivationService.RunTestTransaction`.
    RunTestTransaction,
    /// `ActivationService.UpdateKeys`.
    UpdateKeys,
    /// `TerminalService.EnableTerminal`.
    EnableTerminal,
    /// `TerminalService.SetMerchantStanding`.
    SetMerchantStanding,
    /// `TerminalService.SetSettlementDigest`.
    SetSettlementDigest,
    /// `TerminalService.HoldTerminal`.
    HoldTerminal,
    /// `TerminalService.ReleaseTerminal`.
    ReleaseTerminal,
    /// `TerminalService.CancelActivation`.
    CancelActivation,
    /// `TerminalService.SuspendTerminal`.
    SuspendTerminal,
    /// `TerminalService.ResumeTerminal`.
    ResumeTerminal,
    /// `TerminalService.RetireTerminal`.
    RetireTerminal,
    /// `TerminalService.MarkTerminalCompromised`.
    MarkTerminalCompromised,
    /// `TerminalService.StartRekey`.
    StartRekey,
    /// Every call of `PinService` and `MacService` under the terminal's keys.
    PinOrMac,
}

impl Call {
    /// All calls, in the order of the table's columns.
    pub const ALL: [Self; 21] = [
        Self::IssueActivationCode,
        Self::ReissueActivationCode,
        Self::BeginActivation,
        Self::DeliverKeys,
        Self::ConfirmKeys,
        Self::GetParameters,
        Self::ReportStep,
        Self::RunTestTransaction,
        Self::UpdateKeys,
        Self::EnableTerminal,
        Self::SetMerchantStanding,
        Self::SetSettlementDigest,
        Self::HoldTerminal,
        Self::ReleaseTerminal,
        Self::CancelActivation,
        Self::SuspendTerminal,
        Self::ResumeTerminal,
        Self::RetireTerminal,
        Self::MarkTerminalCompromised,
        Self::StartRekey,
        Self::PinOrMac,
    ];
}

/// What the table says of a call in a state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// It may be made.
    Allowed,
    /// It may be made where the profile asks for no activation code.
    AllowedWithoutCode,
    /// It is refused.
    Refused(Refusal),
}

/// Names a refusal and its remedy side by side.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $remedy:literal;)+) => {
        /// Why a state refuses a call.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
        pub enum Refusal { $($(#[$doc])* #[error("{}", self.remedy())] $name,)+ }

        impl Refusal {
            /// All refusals.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What to do about it.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)+ }
            }
        }
    };
}

refusals! {
    /// The terminal is in service.
    AlreadyActive = "the terminal is in service: suspend it, or start a re-key";
    /// The code ran out of time.
    CodeExpired = "the code has expired: reissue it";
    /// No code was issued.
    CodeMissing = "no activation code was issued: issue one";
    /// A code is outstanding.
    CodeOutstanding = "a code is outstanding: reissue it to replace it";
    /// The keys are known to others.
    Compromised = "the keys are compromised: retire the terminal and register its serial again";
    /// The terminal is held.
    Held = "the terminal is held: approve its merchant or release it";
    /// The keys are confirmed and are never delivered again.
    KeysConfirmed = "the keys are confirmed and are not delivered again: go on, or start a re-key";
    /// No keys were delivered.
    KeysMissing = "no keys were delivered: begin the activation and take its keys";
    /// The keys are not confirmed.
    KeysUnconfirmed = "the keys are not confirmed: confirm them";
    /// Too many wrong codes.
    Locked = "the terminal is locked: reissue its code";
    /// The terminal is not in service.
    NotActive = "the terminal is not in service: finish its activation";
    /// No session was begun.
    NotBegun = "no activation is under way: begin one";
    /// The terminal is not held.
    NotHeld = "the terminal is not held: nothing is to be released";
    /// The terminal is not suspended.
    NotSuspended = "the terminal is not suspended: nothing is to be resumed";
    /// Nothing is under way that could be cancelled.
    NothingToCancel = "no activation is under way: nothing is to be cancelled";
    /// No parameters were delivered.
    ParametersMissing = "no parameters were delivered: get them";
    /// A re-key is under way.
    RekeyUnderWay = "a re-key is under way and needs no code: finish or cancel it";
    /// The key set is ended.
    Retired = "the terminal is retired: register its serial again";
    /// The terminal is suspended.
    Suspended = "the terminal is suspended: resume it";
    /// Test transactions are missing.
    TestsMissing = "test transactions are missing: run them";
    /// An activation is under way.
    UnderWay = "an activation is under way: finish or cancel it";
}

// The cells of the table, at most five letters wide.
const YES: Rule = Rule::Allowed;
const NCODE: Rule = Rule::AllowedWithoutCode;
const ACTIV: Rule = Rule::Refused(Refusal::AlreadyActive);
const EXPIR: Rule = Rule::Refused(Refusal::CodeExpired);
const CMISS: Rule = Rule::Refused(Refusal::CodeMissing);
const COUTS: Rule = Rule::Refused(Refusal::CodeOutstanding);
const COMPR: Rule = Rule::Refused(Refusal::Compromised);
const HELD: Rule = Rule::Refused(Refusal::Held);
const KCONF: Rule = Rule::Refused(Refusal::KeysConfirmed);
const KMISS: Rule = Rule::Refused(Refusal::KeysMissing);
const KUNCO: Rule = Rule::Refused(Refusal::KeysUnconfirmed);
const LOCK: Rule = Rule::Refused(Refusal::Locked);
const NACTI: Rule = Rule::Refused(Refusal::NotActive);
const NBEG: Rule = Rule::Refused(Refusal::NotBegun);
const NHELD: Rule = Rule::Refused(Refusal::NotHeld);
const NSUSP: Rule = Rule::Refused(Refusal::NotSuspended);
const NCANC: Rule = Rule::Refused(Refusal::NothingToCancel);
const PMISS: Rule = Rule::Refused(Refusal::ParametersMissing);
const REKEY: Rule = Rule::Refused(Refusal::RekeyUnderWay);
const RETIR: Rule = Rule::Refused(Refusal::Retired);
const SUSP: Rule = Rule::Refused(Refusal::Suspended);
const TMISS: Rule = Rule::Refused(Refusal::TestsMissing);
const UNDER: Rule = Rule::Refused(Refusal::UnderWay);

/// Every state and every call, the calls in the order of [`Call::ALL`].
///
/// A confirmation may be repeated in `ACTIVE` too: its answer may have been lost when it ended a
/// re-key. `RETIRED` ends the key set, not the device; a compromise can still become known there.
#[rustfmt::skip]
pub const TABLE: [(State, [Rule; Call::ALL.len()]); State::ALL.len()] = [
    // issue, reissue, begin, deliver, confirm, parameters, report, test, update, enable, standing,
    // settlement, hold, release, cancel, suspend, resume, retire, compromised, rekey, PIN or MAC
    (State::Registered, [
        YES, CMISS, NCODE, NBEG, KMISS, KMISS, NBEG, KMISS, KMISS, TMISS, YES,
        YES, YES, NHELD, NCANC, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::CodeIssued, [
        COUTS, YES, YES, NBEG, KMISS, KMISS, NBEG, KMISS, KMISS, TMISS, YES,
        YES, YES, NHELD, YES, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::CodeVerified, [
        UNDER, YES, YES, YES, KMISS, KMISS, YES, KMISS, KMISS, TMISS, YES,
        YES, YES, NHELD, YES, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::KeysDelivered, [
        UNDER, YES, YES, YES, YES, KUNCO, YES, KUNCO, KUNCO, TMISS, YES,
        YES, YES, NHELD, YES, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::KeysConfirmed, [
        UNDER, KCONF, KCONF, KCONF, YES, YES, YES, PMISS, KCONF, TMISS, YES,
        YES, YES, NHELD, YES, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::ParametersDelivered, [
        UNDER, KCONF, KCONF, KCONF, YES, YES, YES, YES, KCONF, TMISS, YES,
        YES, YES, NHELD, YES, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::Tested, [
        UNDER, KCONF, KCONF, KCONF, YES, YES, YES, YES, KCONF, YES, YES,
        YES, YES, NHELD, YES, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::Active, [
        ACTIV, ACTIV, KCONF, KCONF, YES, YES, YES, ACTIV, KCONF, ACTIV, YES,
        YES, ACTIV, NHELD, NCANC, YES, NSUSP, YES, YES, YES, YES,
    ]),
    (State::Held, [
        HELD, HELD, HELD, HELD, HELD, HELD, HELD, HELD, HELD, HELD, YES,
        YES, HELD, YES, YES, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::CodeExpired, [
        EXPIR, YES, EXPIR, EXPIR, EXPIR, KMISS, EXPIR, KMISS, KMISS, TMISS, YES,
        YES, YES, NHELD, YES, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::Locked, [
        LOCK, YES, LOCK, LOCK, LOCK, LOCK, LOCK, LOCK, LOCK, LOCK, YES,
        YES, YES, NHELD, YES, NACTI, NSUSP, YES, YES, NACTI, NACTI,
    ]),
    (State::Rekeying, [
        REKEY, REKEY, YES, YES, YES, YES, YES, ACTIV, YES, ACTIV, YES,
        YES, ACTIV, NHELD, YES, YES, NSUSP, YES, YES, REKEY, YES,
    ]),
    (State::Suspended, [
        SUSP, SUSP, SUSP, SUSP, SUSP, SUSP, SUSP, SUSP, SUSP, SUSP, YES,
        YES, SUSP, NHELD, NCANC, SUSP, YES, YES, YES, SUSP, SUSP,
    ]),
    (State::Retired, [
        RETIR, RETIR, RETIR, RETIR, RETIR, RETIR, RETIR, RETIR, RETIR, RETIR, RETIR,
        RETIR, RETIR, RETIR, RETIR, RETIR, RETIR, RETIR, YES, RETIR, RETIR,
    ]),
    (State::Compromised, [
        COMPR, COMPR, COMPR, COMPR, COMPR, COMPR, COMPR, COMPR, COMPR, COMPR, COMPR,
        COMPR, COMPR, COMPR, COMPR, COMPR, COMPR, YES, COMPR, COMPR, COMPR,
    ]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(call: Call) -> Vec<State> {
        State::ALL.into_iter().filter(|state| state.check(call, true).is_ok()).collect()
    }

    #[test]
    fn the_table_has_each_state_once_and_in_order() {
        for (state, (row, _)) in State::ALL.iter().zip(&TABLE) {
            assert_eq!(state, row);
            assert_eq!(State::from_name(state.as_str()), Some(*state));
        }
        for (index, call) in Call::ALL.iter().enumerate() {
            assert!(!Call::ALL[index + 1..].contains(call));
        }
    }

    #[test]
    fn every_refusal_is_told_somewhere() {
        for refusal in Refusal::ALL {
            let told = State::ALL.into_iter().any(|state| {
                Call::ALL.into_iter().any(|call| state.check(call, true) == Err(*refusal))
            });
            assert!(told, "{refusal:?}");
        }
    }

    #[test]
    fn pin_and_mac_calls_are_open_where_keys_serve() {
        assert_eq!(allowed(Call::PinOrMac), [State::Active, State::Rekeying]);
    }

    #[test]
    fn a_closed_state_refuses_every_call_of_a_terminal() {
        for state in State::ALL.into_iter().filter(|state| state.is_closed()) {
            for call in [
                Call::BeginActivation,
                Call::DeliverKeys,
                Call::ConfirmKeys,
                Call::GetParameters,
                Call::ReportStep,
                Call::RunTestTransaction,
                Call::UpdateKeys,
            ] {
                assert!(state.check(call, false).is_err(), "{state:?} {call:?}");
            }
        }
    }

    #[test]
    fn keys_are_never_delivered_once_they_are_confirmed() {
        assert_eq!(
            allowed(Call::DeliverKeys),
            [State::CodeVerified, State::KeysDelivered, State::Rekeying]
        );
        for state in
            [State::KeysConfirmed, State::ParametersDelivered, State::Tested, State::Active]
        {
            assert_eq!(state.check(Call::BeginActivation, false), Err(Refusal::KeysConfirmed));
        }
    }

    #[test]
    fn every_side_state_has_a_way_out_except_the_last() {
        for (state, way_out) in [
            (State::Held, Call::ReleaseTerminal),
            (State::CodeExpired, Call::ReissueActivationCode),
            (State::Locked, Call::ReissueActivationCode),
            (State::Rekeying, Call::CancelActivation),
            (State::Suspended, Call::ResumeTerminal),
            (State::Compromised, Call::RetireTerminal),
        ] {
            assert_eq!(state.check(way_out, true), Ok(()), "{state:?}");
        }
        let exits = Call::ALL.into_iter().filter(|call| State::Retired.check(*call, true).is_ok());
        assert_eq!(exits.collect::<Vec<_>>(), [Call::MarkTerminalCompromised]);
    }

    #[test]
    fn only_a_profile_without_codes_begins_without_one() {
        let begin = Call::BeginActivation;
        assert_eq!(State::Registered.check(begin, true), Err(Refusal::CodeMissing));
        assert_eq!(State::Registered.check(begin, false), Ok(()));
        assert_eq!(State::Held.check(begin, false), Err(Refusal::Held));
    }
}
