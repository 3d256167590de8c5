//! The stream of transitions, read from the audit events that hold them.

use std::collections::HashMap;

use super::record::Terminal;
use super::step::{TRANSITIONS_MAX, detail_name};
use crate::activation::State;
use crate::command::{Error, audited};
use crate::vault::{Action, Caller, Event, UnixMillis, Vault};

/// How many events are read at once.
const READ_MAX: usize = 200;

/// A transition of a terminal.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The sequence of its audit event: where to resume. An event may hold several transitions.
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

/// Begins to watch: the audit log tells it once, not each transition that is seen.
pub async fn begin_to_watch(
    vault: &Vault,
    caller: &Caller,
    terminal: Option<&str>,
) -> Result<(), Error> {
    let resource = terminal.map_or("terminals".to_owned(), |id| format!("terminals/{id}"));
    audited(vault, caller, Action::WatchTerminals, resource, async { Ok(()) }).await
}

/// Reads the transitions after a sequence that the caller may know of, and the sequence up to which
/// it looked. A caller who may watch no more is refused.
pub async fn transitions_after(
    vault: &Vault,
    caller: &Caller,
    sequence: u64,
    terminal: Option<&str>,
) -> Result<(Vec<Transition>, u64), Error> {
    vault.check_still(caller, Action::WatchTerminals)?;
    let events = vault.events_after(sequence, READ_MAX).await?;
    let looked = events.last().map_or(sequence, |event| event.seq);
    let wanted = terminal.map(|id| format!("terminals/{id}"));
    let (mut seen, mut known) = (Vec::new(), HashMap::new());
    for found in events.iter().flat_map(transitions) {
        if wanted.as_ref().is_some_and(|name| *name != found.terminal) {
            continue;
        }
        // Each terminal is looked at once, however many of its transitions there are.
        let is_known = match known.get(&found.terminal) {
            Some(is_known) => *is_known,
            None => is_seen(vault, caller, &found.terminal).await?,
        };
        known.insert(found.terminal.clone(), is_known);
        if is_known {
            seen.push(found);
        }
    }
    Ok((seen, looked))
}

/// Whether a caller may know of a terminal, by its name.
async fn is_seen(vault: &Vault, caller: &Caller, name: &str) -> Result<bool, Error> {
    let Some(id) = name.strip_prefix("terminals/") else { return Ok(false) };
    let terminal = vault.get::<Terminal>(id).await?;
    Ok(terminal.is_some_and(|found| found.record.check_seen(vault, caller).is_ok()))
}

/// The transitions in an event, in their order.
fn transitions(event: &Event) -> impl Iterator<Item = Transition> {
    (1..=TRANSITIONS_MAX).map_while(|number| transition(event, number))
}

/// A transition in an event by its number, if it holds so many.
fn transition(event: &Event, number: u32) -> Option<Transition> {
    let text = |name: &str| event.detail.get(&detail_name(number, name)).cloned();
    Some(Transition {
        sequence: event.seq,
        terminal: event.detail.get("terminal").cloned()?,
        time: event.time,
        step: text("step")?,
        from: State::from_name(&text("from")?)?,
        to: State::from_name(&text("to")?)?,
        reason: text("fault").unwrap_or_default(),
        remedy: text("remedy").unwrap_or_default(),
        note: text("note").unwrap_or_default(),
    })
}
