//! What every step shares: reading a terminal, asking the table, moving on, telling the timeline.

use super::profile::{self, Profile};
use super::record::{MerchantStanding, Terminal, TimelineEntry};
use crate::activation::states::Refusal;
use crate::activation::{Call, State};
use crate::command::Error;
use crate::vault::{Reason, Vault, Versioned, Work};

/// What happened in a step, for the timeline and the audit event.
pub(super) struct Happened<'a> {
    /// The call or event.
    pub(super) step: &'a str,
    /// Why it failed.
    pub(super) reason: Option<Reason>,
    /// What to do about it.
    pub(super) remedy: &'a str,
    /// What else is worth knowing; never a secret.
    pub(super) note: String,
}

impl<'a> Happened<'a> {
    /// A step that went well.
    pub(super) fn done(step: &'a str, note: impl Into<String>) -> Self {
        Self { step, reason: None, remedy: "", note: note.into() }
    }

    /// A step that failed.
    pub(super) fn failed(step: &'a str, reason: Reason, remedy: &'a str) -> Self {
        Self { step, reason: Some(reason), remedy, note: String::new() }
    }
}

/// Reads a terminal.
pub(super) async fn read_terminal(vault: &Vault, id: &str) -> Result<Versioned<Terminal>, Error> {
    let terminal = vault.get::<Terminal>(id).await?;
    terminal.ok_or_else(|| Error::refused(Reason::TerminalNotFound))
}

/// Reads a terminal's profile.
pub(super) async fn profile_of(vault: &Vault, terminal: &Terminal) -> Result<Profile, Error> {
    profile::read_profile(vault, &terminal.profile).await
}

/// Asks the table whether the terminal's state allows a call.
pub(super) fn check(terminal: &Terminal, call: Call, code_required: bool) -> Result<(), Error> {
    terminal.state.check(call, code_required).map_err(|refusal| refused(terminal, call, refusal))
}

/// Whether the terminal is closed to every call of its own, repetitions included.
pub(super) fn is_closed(terminal: &Terminal) -> bool {
    matches!(
        terminal.state,
        State::Held | State::Locked | State::Suspended | State::Retired | State::Compromised
    )
}

/// Asks whether a request may be answered once more as it was: its proof was good when it first
/// came, so whoever sends it again is told the state.
pub(super) fn check_again(terminal: &Terminal, call: Call) -> Result<(), Error> {
    // No closed state allows a step, whatever the profile says of codes.
    if is_closed(terminal) { check(terminal, call, true) } else { Ok(()) }
}

/// The answer to a call that the terminal's state does not allow.
pub(super) fn refused(terminal: &Terminal, call: Call, refusal: Refusal) -> Error {
    let begins = matches!(call, Call::BeginActivation | Call::DeliverKeys);
    let reason = match refusal {
        Refusal::AlreadyActive | Refusal::KeysConfirmed if begins => {
            Reason::TerminalAlreadyActivated
        }
        Refusal::Held if terminal.standing != MerchantStanding::Approved => {
            Reason::MerchantNotApproved
        }
        Refusal::Locked => Reason::TerminalLocked,
        _ if call == Call::PinOrMac => Reason::TerminalNotActive,
        _ => Reason::ActivationState,
    };
    Error::Refused {
        reason,
        metadata: vec![
            ("state", terminal.state.as_str().to_owned()),
            ("remedy", refusal.remedy().to_owned()),
        ],
    }
}

/// Moves a terminal on and tells it: in its timeline, and in the audit event that watchers read.
pub(super) fn advance(work: &mut Work, terminal: &mut Terminal, to: State, happened: Happened<'_>) {
    let from = std::mem::replace(&mut terminal.state, to);
    let reason = happened.reason.map_or("", Reason::as_str);
    work.set_resource(terminal.name());
    work.detail("terminal", terminal.name());
    work.detail("step", happened.step);
    work.detail("from", from.as_str());
    work.detail("to", to.as_str());
    for (name, value) in
        [("fault", reason), ("remedy", happened.remedy), ("note", happened.note.as_str())]
    {
        if !value.is_empty() {
            work.detail(name, value);
        }
    }
    terminal.record(TimelineEntry {
        time: work.now(),
        step: happened.step.to_owned(),
        from,
        to,
        reason: reason.to_owned(),
        remedy: happened.remedy.to_owned(),
        note: happened.note,
    });
}

/// Records the first transaction after enabling, in the commit of that transaction. `terminal` is
/// the one that was found to be in service: if it has changed since, nothing of the call happens.
///
/// Later ones change nothing, so a terminal's record is written once and not with every call.
pub(in crate::command) fn first_transaction(
    work: &mut Work,
    mut terminal: Versioned<Terminal>,
    what: &str,
) -> Result<(), Error> {
    if terminal.record.first_transaction.is_some() {
        return Ok(());
    }
    let state = terminal.record.state;
    terminal.record.first_transaction = Some(work.now());
    let resource = work.resource().to_owned();
    advance(work, &mut terminal.record, state, Happened::done("FirstTransaction", what));
    work.set_resource(resource);
    Ok(work.put(&terminal)?)
}
