//! Reads terminals: one, a page of them, or those whose keys come from one base derivation key.

use super::index::KeyIndex;
use super::record::{KeyStanding, Terminal, index_of};
use super::step::read_terminal;
use crate::activation::State;
use crate::command::{Error, Page, audited};
use crate::vault::{Action, Caller, KeyState, Record as _, UnixMillis, Vault};

/// A terminal as it stands when it is read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The terminal, in the state in which it stands now.
    pub terminal: Terminal,
    /// Whether its serving keys come from a base derivation key whose time is over, or were carried
    /// by a key that is compromised.
    pub rekey_due: bool,
}

/// Which terminals are listed; none for all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those in this state.
    pub state: Option<State>,
    /// Those whose serving keys come from this base derivation key: its id in `keys/{id}`.
    pub base_derivation_key: Option<String>,
}

/// Returns a terminal.
pub async fn get_terminal(vault: &Vault, caller: &Caller, id: &str) -> Result<Reading, Error> {
    let found = async { reading(vault, read_terminal(vault, id).await?.record).await };
    audited(vault, caller, Action::GetTerminal, format!("terminals/{id}"), found).await
}

/// Lists terminals; a page may hold fewer than its limit where a filter passes over some.
pub async fn list_terminals(
    vault: &Vault,
    caller: &Caller,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Reading>, Error> {
    let page = page_of(vault, filter, after, limit);
    audited(vault, caller, Action::ListTerminals, "terminals", page).await
}

async fn page_of(
    vault: &Vault,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Reading>, Error> {
    let now = vault.now();
    let state = filter.state;
    let page = match &filter.base_derivation_key {
        Some(bdk) => page_of_key(vault, bdk, after, limit, now).await?,
        None => Page::<Terminal>::read(vault, state.map(index_of), after, limit).await?,
    };
    let mut rows = Vec::new();
    for mut terminal in page.rows {
        terminal.state = terminal.state_at(now);
        if state.is_none_or(|state| terminal.state == state) {
            rows.push(reading(vault, terminal).await?);
        }
    }
    Ok(Page { rows, next: page.next })
}

/// The terminals that a base derivation key serves, in the order of their initial key ids.
async fn page_of_key(
    vault: &Vault,
    bdk: &str,
    after: Option<&str>,
    limit: usize,
    now: UnixMillis,
) -> Result<Page<Terminal>, Error> {
    vault.key_record(bdk).await?;
    let prefix = KeyIndex::prefix_of(bdk);
    let after = after.unwrap_or(&prefix);
    if !after.starts_with(&prefix) {
        return Err(Error::field("page_token", "is of another list"));
    }
    let page = Page::<KeyIndex>::read(vault, None, Some(after), limit).await?;
    let mut rows = Vec::new();
    for key in page.rows.iter().filter(|key| key.id().starts_with(&prefix)) {
        let Some(found) = vault.get::<Terminal>(&key.terminal).await? else { continue };
        // The index has the keys of earlier activations too.
        if found.record.standing_of(bdk, &key.initial_key_id, now) == KeyStanding::Serving {
            rows.push(found.record);
        }
    }
    Ok(Page { rows, next: page.next.filter(|last| last.starts_with(&prefix)) })
}

async fn reading(vault: &Vault, terminal: Terminal) -> Result<Reading, Error> {
    let is_final = matches!(terminal.state, State::Retired | State::Compromised);
    let rekey_due = match &terminal.keys {
        Some(keys) if !is_final => {
            let bdk = vault.key_record(&keys.base_derivation_key).await?;
            let mut due = bdk.record.is_over(vault.now());
            for name in &keys.carried_by {
                due |= vault.key_record(name).await?.record.state == KeyState::Compromised;
            }
            due
        }
        Some(_) | None => false,
    };
    Ok(Reading { terminal, rekey_due })
}
