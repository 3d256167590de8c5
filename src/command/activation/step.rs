//! What every step shares: reading a terminal, asking the table, moving on, telling the timeline.

use super::lifecycle::enabled_automatically;
use super::profile::{self, Profile};
use super::record::{MerchantStanding, Terminal, TimelineEntry};
use crate::activation::states::Refusal;
use crate::activation::{Call, State};
use crate::command::{Error, give_up, manage_trust, refuse};
use crate::vault::{self, Caller, Reason, Vault, Versioned, Work};

/// The most transitions that one call makes: its own, and the automatic enabling after it.
pub(super) const TRANSITIONS_MAX: u32 = 2;

/// What happened in a step, for the timeline and the audit event.
pub(super) struct Happened<'a> {
    /// The call or event.
    pub(super) step: &'a str,
    /// Why it failed: a reason, or what the terminal or a test found wrong. Empty: it did not.
    pub(super) reason: &'a str,
    /// What to do about it.
    pub(super) remedy: &'a str,
    /// What else is worth knowing; never a secret.
    pub(super) note: String,
}

impl<'a> Happened<'a> {
    /// A step that went well.
    pub(super) fn done(step: &'a str, note: impl Into<String>) -> Self {
        Self { step, reason: "", remedy: "", note: note.into() }
    }

    /// A step that failed.
    pub(super) fn failed(step: &'a str, reason: Reason, remedy: &'a str) -> Self {
        Self { step, reason: reason.as_str(), remedy, note: String::new() }
    }
}

/// Reads a terminal in the state in which it stands now.
pub(super) async fn read_terminal(vault: &Vault, id: &str) -> Result<Versioned<Terminal>, Error> {
    let terminal = vault.get::<Terminal>(id).await?;
    let mut terminal = terminal.ok_or_else(|| Error::refused(Reason::TerminalNotFound))?;
    terminal.record.state = terminal.record.state_at(vault.now());
    Ok(terminal)
}

/// The same, if the caller may know of it.
pub(super) async fn seen_terminal(
    vault: &Vault,
    caller: &Caller,
    id: &str,
) -> Result<Versioned<Terminal>, Error> {
    let terminal = read_terminal(vault, id).await?;
    terminal.record.check_seen(vault, caller)?;
    Ok(terminal)
}

/// Reads a terminal's profile.
pub(super) async fn profile_of(vault: &Vault, terminal: &Terminal) -> Result<Profile, Error> {
    profile::read_profile(vault, &terminal.profile).await
}

/// Asks the table whether the terminal's state allows a call.
pub(super) fn check(terminal: &Terminal, call: Call, code_required: bool) -> Result<(), Error> {
    terminal.state.check(call, code_required).map_err(|refusal| refused(terminal, call, refusal))
}

/// Asks whether a request may be answered once more as it was: its proof was good when it first
/// came, so whoever sends it again is told the state.
pub(super) fn check_again(terminal: &Terminal, call: Call) -> Result<(), Error> {
    // No closed state allows a step, whatever the profile says of codes.
    if terminal.state.is_closed() { check(terminal, call, true) } else { Ok(()) }
}

/// The answer to a call that the terminal's state does not allow.
pub(super) fn refused(terminal: &Terminal, call: Call, refusal: Refusal) -> Error {
    let begins = matches!(call, Call::BeginActivation | Call::DeliverKeys | Call::UpdateKeys);
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
/// One call may take it on by several transitions.
pub(super) fn advance(work: &mut Work, terminal: &mut Terminal, to: State, happened: Happened<'_>) {
    let from = std::mem::replace(&mut terminal.state, to);
    let reason = happened.reason;
    work.set_resource(terminal.name());
    work.detail("terminal", terminal.name());
    let is_free = |number: &u32| !work.has_detail(&detail_name(*number, "step"));
    let number = (1..TRANSITIONS_MAX).find(is_free).unwrap_or(TRANSITIONS_MAX);
    for (name, value) in [("step", happened.step), ("from", from.as_str()), ("to", to.as_str())] {
        work.detail(detail_name(number, name), value);
    }
    for (name, value) in
        [("fault", reason), ("remedy", happened.remedy), ("note", happened.note.as_str())]
    {
        if !value.is_empty() {
            work.detail(detail_name(number, name), value);
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

/// The name of a transition's value in the details of its event: `step`, and `2.step` where it is
/// the second.
pub(super) fn detail_name(number: u32, name: &str) -> String {
    if number == 1 { name.to_owned() } else { format!("{number}.{name}") }
}

/// Enables a terminal that has passed its tests and lacks nothing else, where its profile says so.
/// One whose device is denied stays as it is.
pub(super) async fn enable_if_automatic(
    vault: &Vault,
    work: &mut Work,
    terminal: &mut Terminal,
    profile: &Profile,
) -> Result<(), Error> {
    if terminal.state == State::Tested
        && enabled_automatically(terminal, profile)
        && !manage_trust::is_denied(vault, &terminal.serial).await?
    {
        manage_trust::expect_allowed(work, &terminal.serial);
        let happened = Happened::done("EnableTerminal", "by its profile");
        advance(work, terminal, State::Active, happened);
    }
    Ok(())
}

/// Refuses a terminal that proved itself, and tells the failure in its timeline: with the reason
/// and the remedy that the terminal learns. The same failure again is the same entry.
///
/// Never called for whoever proved nothing: strangers write no timelines.
pub(super) async fn fail(mut work: Work, mut terminal: Versioned<Terminal>, error: Error) -> Error {
    let reason = match &error {
        Error::Refused { reason, .. } | Error::Vault(vault::Error::Refused(reason)) => *reason,
        Error::Field { .. }
        | Error::Hidden { .. }
        | Error::Ksn { .. }
        | Error::Vault(
            vault::Error::AttributeInvalid { .. }
            | vault::Error::BudgetSpent { .. }
            | vault::Error::Conflict
            | vault::Error::Internal { .. }
            | vault::Error::RateLimited { .. }
            | vault::Error::Unavailable,
        ) => return give_up(work, error).await,
    };
    let step = work.action().as_str();
    let metadata = error.metadata();
    let remedy = metadata.iter().find(|(name, _)| *name == "remedy");
    let remedy = remedy.map_or("", |(_, remedy)| remedy.as_str());
    let is_told = terminal.record.timeline.last().is_some_and(|last| {
        last.step == step && last.reason == reason.as_str() && last.remedy == remedy
    });
    if is_told {
        return refuse_spent(work, error).await;
    }
    let state = terminal.record.state;
    advance(&mut work, &mut terminal.record, state, Happened::failed(step, reason, remedy));
    if let Err(error) = work.put(&terminal) {
        return error.into();
    }
    unless_worse(work.commit_refused(reason).await, error)
}

/// Refuses a message without an entry in the timeline. Where it came under a transaction counter,
/// its MAC verified, and the counter stays spent.
pub(super) async fn refuse_spent(work: Work, error: impl Into<Error>) -> Error {
    let error = error.into();
    if !work.has_claims() {
        return refuse(work, error).await;
    }
    let refused = work.commit_refused(error.reason()).await;
    unless_worse(refused, error)
}

/// The refusal with what its caller may learn, unless something worse happened.
pub(super) fn unless_worse(refused: vault::Error, error: Error) -> Error {
    match refused {
        vault::Error::Refused(reason) if reason == error.reason() => error,
        worse => worse.into(),
    }
}

/// A refusal with what to do about it; other errors as they are.
pub(super) fn with_remedy(error: impl Into<Error>, remedy: &str) -> Error {
    match error.into() {
        Error::Refused { reason, .. } | Error::Vault(vault::Error::Refused(reason)) => {
            Error::Refused { reason, metadata: vec![("remedy", remedy.to_owned())] }
        }
        other => other,
    }
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
