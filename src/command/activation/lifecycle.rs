//! The calls of the acquirer's backend that move a terminal between its states.

use super::index::SerialIndex;
use super::profile::Profile;
use super::record::{Activation, MerchantStanding, Phase, Terminal};
use super::step::{Happened, advance, check, enable_if_automatic, profile_of, seen_terminal};
use crate::activation::{Call, State};
use crate::command::{
    Error, RequestId, give_up, manage_trust, recall, remember, repeated, retrying,
};
use crate::vault::{Action, Caller, Reason, Vault, Versioned, Work};

/// What is asked of a terminal.
#[derive(Debug, Clone)]
pub enum Change {
    /// The activation under way ends; why.
    Cancel(String),
    /// PIN and MAC calls open.
    Enable,
    /// The terminal is held back; why.
    Hold(String),
    /// The keys are known to others; why.
    MarkCompromised(String),
    /// The hold ends.
    Release,
    /// PIN and MAC calls open again.
    Resume,
    /// The key set ends; why.
    Retire(String),
    /// Where the merchant stands.
    SetMerchantStanding(MerchantStanding),
    /// SHA-256 of the settlement account.
    SetSettlementDigest([u8; 32]),
    /// New keys.
    StartRekey {
        /// Why.
        cause: String,
        /// Whether the keys that serve may carry the new ones.
        update_key_allowed: bool,
    },
    /// PIN and MAC calls close; why.
    Suspend(String),
}

impl Change {
    /// The action and the table's column.
    const fn call(&self) -> (Action, Call) {
        match self {
            Self::Cancel(_) => (Action::CancelActivation, Call::CancelActivation),
            Self::Enable => (Action::EnableTerminal, Call::EnableTerminal),
            Self::Hold(_) => (Action::HoldTerminal, Call::HoldTerminal),
            Self::MarkCompromised(_) => {
                (Action::MarkTerminalCompromised, Call::MarkTerminalCompromised)
            }
            Self::Release => (Action::ReleaseTerminal, Call::ReleaseTerminal),
            Self::Resume => (Action::ResumeTerminal, Call::ResumeTerminal),
            Self::Retire(_) => (Action::RetireTerminal, Call::RetireTerminal),
            Self::SetMerchantStanding(_) => {
                (Action::SetMerchantStanding, Call::SetMerchantStanding)
            }
            Self::SetSettlementDigest(_) => {
                (Action::SetSettlementDigest, Call::SetSettlementDigest)
            }
            Self::StartRekey { .. } => (Action::StartRekey, Call::StartRekey),
            Self::Suspend(_) => (Action::SuspendTerminal, Call::SuspendTerminal),
        }
    }

    /// The stated cause, for the timeline.
    fn note(&self) -> String {
        match self {
            Self::Cancel(cause)
            | Self::Hold(cause)
            | Self::MarkCompromised(cause)
            | Self::Retire(cause)
            | Self::StartRekey { cause, .. }
            | Self::Suspend(cause) => cause.clone(),
            Self::SetMerchantStanding(standing) => format!("{standing:?}"),
            Self::Enable | Self::Release | Self::Resume | Self::SetSettlementDigest(_) => {
                String::new()
            }
        }
    }
}

/// Changes a terminal, if its state allows it.
pub async fn change_terminal(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    id: &str,
    change: &Change,
) -> Result<Terminal, Error> {
    retrying(|| change_once(vault, caller, request, id, change)).await
}

async fn change_once(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    id: &str,
    change: &Change,
) -> Result<Terminal, Error> {
    let (action, call) = change.call();
    let mut work = vault.begin(caller, action, format!("terminals/{id}")).await?;
    let mut terminal = match seen_terminal(vault, caller, id).await {
        Ok(terminal) => terminal,
        Err(error) => return Err(give_up(work, error).await),
    };
    if let Some(answer) = recall(vault, caller, action, request).await? {
        return repeated(work, answer).await;
    }
    let profile = profile_of(vault, &terminal.record).await?;
    let allowed = check(&terminal.record, call, profile.code_required)
        .and_then(|()| check_beyond_state(&terminal.record, &profile, change));
    if let Err(error) = allowed {
        return Err(give_up(work, error).await);
    }
    if matches!(change, Change::Enable) {
        if manage_trust::is_denied(vault, &terminal.record.serial).await? {
            return Err(give_up(work, denied()).await);
        }
        manage_trust::expect_allowed(&mut work, &terminal.record.serial);
    }
    let to = apply(vault, &mut work, &mut terminal.record, change).await?;
    let happened = Happened::done(action.as_str(), change.note());
    advance(&mut work, &mut terminal.record, to, happened);
    // What was missing for its enabling may be there now.
    enable_if_automatic(vault, &mut work, &mut terminal.record, &profile).await?;
    work.put(&terminal)?;
    remember(vault, &mut work, request, &terminal.record).await?;
    work.commit().await?;
    Ok(terminal.record)
}

/// A device that is denied does not come into service.
fn denied() -> Error {
    let remedy = "the device is denied: allow it first".to_owned();
    Error::Refused { reason: Reason::DeviceNotTrusted, metadata: vec![("remedy", remedy)] }
}

/// What must hold beside the state.
fn check_beyond_state(
    terminal: &Terminal,
    profile: &Profile,
    change: &Change,
) -> Result<(), Error> {
    let approved = terminal.standing == MerchantStanding::Approved;
    match change {
        Change::Enable | Change::Release if !approved => {
            Err(Error::refused(Reason::MerchantNotApproved))
        }
        Change::Enable => enabling(terminal, profile),
        Change::Cancel(_)
        | Change::Hold(_)
        | Change::MarkCompromised(_)
        | Change::Release
        | Change::Resume
        | Change::Retire(_)
        | Change::SetMerchantStanding(_)
        | Change::SetSettlementDigest(_)
        | Change::StartRekey { .. }
        | Change::Suspend(_) => Ok(()),
    }
}

/// Whether a tested terminal may be enabled.
fn enabling(terminal: &Terminal, profile: &Profile) -> Result<(), Error> {
    if profile.settlement_digest_required && terminal.settlement_digest.is_none() {
        let remedy = "the profile asks for a settlement digest: set it".to_owned();
        return Err(Error::Refused {
            reason: Reason::ActivationState,
            metadata: vec![("state", terminal.state.as_str().to_owned()), ("remedy", remedy)],
        });
    }
    Ok(())
}

/// Whether a tested terminal is enabled without a call.
pub(super) fn enabled_automatically(terminal: &Terminal, profile: &Profile) -> bool {
    profile.automatic_enabling
        && terminal.standing == MerchantStanding::Approved
        && enabling(terminal, profile).is_ok()
}

/// Does what is asked and tells the state to go to.
async fn apply(
    vault: &Vault,
    work: &mut Work,
    terminal: &mut Terminal,
    change: &Change,
) -> Result<State, Error> {
    let state = terminal.state;
    Ok(match change {
        Change::Cancel(_) => {
            end_activation(vault, work, terminal).await?;
            cancelled(terminal)
        }
        Change::Enable => State::Active,
        Change::Hold(cause) => {
            terminal.hold_cause = Some(cause.clone());
            terminal.came_from = Some(state);
            State::Held
        }
        Change::MarkCompromised(_) => {
            end_activation(vault, work, terminal).await?;
            State::Compromised
        }
        Change::Release => {
            terminal.hold_cause = None;
            terminal.came_from.take().unwrap_or(State::Registered)
        }
        Change::Resume => terminal.came_from.take().unwrap_or(State::Active),
        Change::Retire(_) => {
            end_activation(vault, work, terminal).await?;
            State::Retired
        }
        Change::SetMerchantStanding(standing) => stand(terminal, *standing),
        Change::SetSettlementDigest(digest) => {
            terminal.settlement_digest = Some(*digest);
            state
        }
        Change::StartRekey { update_key_allowed, .. } => {
            terminal.update_key_allowed = *update_key_allowed;
            work.detail("update_key_allowed", update_key_allowed.to_string());
            State::Rekeying
        }
        Change::Suspend(_) => {
            terminal.came_from = Some(state);
            State::Suspended
        }
    })
}

/// Where a terminal goes whose activation is cancelled. A hold outlives it: only what it will be
/// released to is another, or a cancellation would be the way around the merchant's approval.
fn cancelled(terminal: &mut Terminal) -> State {
    let held = terminal.state == State::Held;
    let from = if held { terminal.came_from } else { Some(terminal.state) };
    let to = if from == Some(State::Rekeying) {
        State::Active
    } else {
        // What was confirmed is not served by: the next activation begins from nothing.
        (terminal.keys, terminal.parameters_sent) = (None, None);
        (terminal.parameters_applied, terminal.tests_passed) = (0, 0);
        State::Registered
    };
    if held {
        terminal.came_from = Some(to);
        return State::Held;
    }
    to
}

/// A merchant that loses its approval holds a terminal that is not in service yet; one that gets it
/// frees the terminal, unless a risk holds it too.
fn stand(terminal: &mut Terminal, standing: MerchantStanding) -> State {
    let state = terminal.state;
    terminal.standing = standing;
    let in_service = matches!(
        state,
        State::Active | State::Rekeying | State::Suspended | State::Retired | State::Compromised
    );
    match (standing, state) {
        (MerchantStanding::Approved, State::Held) if terminal.hold_cause.is_none() => {
            terminal.came_from.take().unwrap_or(State::Registered)
        }
        (MerchantStanding::Pending | MerchantStanding::Rejected, State::Held) => State::Held,
        (MerchantStanding::Pending | MerchantStanding::Rejected, _) if !in_service => {
            terminal.came_from = Some(state);
            State::Held
        }
        _ => state,
    }
}

/// Ends code and session, and drops what the session keeps.
async fn end_activation(
    vault: &Vault,
    work: &mut Work,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    terminal.code = None;
    terminal.update_key_allowed = false;
    if terminal.activation == 0 {
        return Ok(());
    }
    let id = Activation::id_of(&terminal.id, terminal.activation);
    if let Some(mut activation) = vault.get::<Activation>(&id).await?
        && activation.record.phase != Phase::Confirmed
    {
        activation.record.end();
        work.put(&activation)?;
    }
    Ok(())
}

/// The terminal that has a serial, if there is one that is not retired.
pub(super) async fn terminal_of_serial(
    vault: &Vault,
    serial: &str,
) -> Result<Option<Versioned<Terminal>>, Error> {
    let Some(index) = vault.get::<SerialIndex>(serial).await? else { return Ok(None) };
    Ok(vault.get::<Terminal>(&index.record.terminal).await?)
}
