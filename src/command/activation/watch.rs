//! The stream of transitions, read from the audit events that hold them.

use crate::activation::State;
use crate::command::Error;
use crate::vault::{Action, Caller, Event, UnixMillis, Vault};

/// How many events are read at once.
const READ_MAX: usize = 200;

/// A transition of a terminal.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The sequence of its audit event: where to resume.
    pub sequence: u64,
    /// `terminals/{terminal}`.
    pub terminal: String,
    /// When.
    pub time: UnixMillis,
    /// The call or event.
    pub step: String,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why it failed; empty where it did not.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// What else is worth knowing.
    pub note: String,
}

/// Asks whether a caller may watch.
pub async fn authorise(
    vault: &Vault,
    caller: &Caller,
    terminal: Option<&str>,
) -> Result<(), Error> {
    let resource = terminal.map_or("terminals".to_owned(), |id| format!("terminals/{id}"));
    Ok(vault.authorise(caller, Action::WatchTerminals, &resource).await?)
}

/// Reads the transitions after a sequence, and the sequence up to which it looked.
pub async fn transitions_after(
    vault: &Vault,
    sequence: u64,
    terminal: Option<&str>,
) -> Result<(Vec<Transition>, u64), Error> {
    let events = vault.events_after(sequence, READ_MAX).await?;
    let looked = events.last().map_or(sequence, |event| event.seq);
    let wanted = terminal.map(|id| format!("terminals/{id}"));
    let transitions = events
        .iter()
        .filter_map(transition)
        .filter(|found| wanted.as_ref().is_none_or(|name| *name == found.terminal))
        .collect();
    Ok((transitions, looked))
}

/// The transition in an event, if it holds one.
fn transition(event: &Event) -> Option<Transition> {
    let text = |name: &str| event.detail.get(name).cloned();
    Some(Transition {
        sequence: event.seq,
        terminal: text("terminal")?,
        time: event.time,
        step: text("step")?,
        from: State::from_name(&text("from")?)?,
        to: State::from_name(&text("to")?)?,
        reason: text("fault").unwrap_or_default(),
        remedy: text("remedy").unwrap_or_default(),
        note: text("note").unwrap_or_default(),
    })
}
