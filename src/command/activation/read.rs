//! Reads terminals: one, a page of them, or those whose keys come from one base derivation key.

use super::index::KeyIndex;
use super::record::{KeyStanding, Terminal, index_of};
use super::step::seen_terminal;
use crate::activation::State;
use crate::command::{Error, Filling, Page, Scan, audited};
use crate::vault::{Action, Caller, KeyState, Record as _, Vault};

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
    /// Those whose serving keys come from this base derivation key, its id in `keys/{id}`, or from
    /// this version of it.
    pub base_derivation_key: Option<String>,
}

/// Returns a terminal.
pub async fn get_terminal(vault: &Vault, caller: &Caller, id: &str) -> Result<Reading, Error> {
    let found = async { reading(vault, seen_terminal(vault, caller, id).await?.record).await };
    audited(vault, caller, Action::GetTerminal, format!("terminals/{id}"), found).await
}

/// Lists the terminals that the caller may know of.
pub async fn list_terminals(
    vault: &Vault,
    caller: &Caller,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Reading>, Error> {
    // On the heap: what it holds while it reads is too much for every call's own state.
    let page = Box::pin(page_of(vault, caller, filter, after, limit));
    audited(vault, caller, Action::ListTerminals, "terminals", page).await
}

async fn page_of(
    vault: &Vault,
    caller: &Caller,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Reading>, Error> {
    if let Some(bdk) = &filter.base_derivation_key {
        return page_of_key(vault, caller, (bdk, filter), after, limit).await;
    }
    let mut terminals = Scan::<Terminal>::new(vault, filter.state.map(index_of), after);
    let mut page = Filling::new(limit);
    while let Some(terminal) = terminals.next().await? {
        let id = terminal.id.clone();
        if let Some(row) = shown(vault, caller, filter, terminal).await?
            && !page.takes(id, row)
        {
            return Ok(page.full());
        }
    }
    Ok(page.end(terminals.rest()))
}

/// The terminals that a base derivation key serves, or a version of it, in the order of their
/// initial key ids.
async fn page_of_key(
    vault: &Vault,
    caller: &Caller,
    (bdk, filter): (&str, &Filter),
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Reading>, Error> {
    // Who may not know of the key is not told whether there is one: its own terminals alone.
    if vault.policy().knows_key(caller, bdk) {
        vault.key_record(bdk).await?;
    }
    let prefix = KeyIndex::prefix_of(bdk);
    let after = after.unwrap_or(&prefix);
    if !after.starts_with(&prefix) {
        return Err(Error::field("page_token", "is of another list"));
    }
    let now = vault.now();
    let mut keys = Scan::<KeyIndex>::new(vault, None, Some(after));
    let mut page = Filling::new(limit);
    while let Some(key) = keys.next().await? {
        if !key.id().starts_with(&prefix) {
            return Ok(page.end(None));
        }
        let Some(found) = vault.get::<Terminal>(&key.terminal).await? else { continue };
        // The index has the keys of earlier activations too.
        let version = &key.base_derivation_key;
        let standing = found.record.standing_of(version, &key.initial_key_id, now);
        if standing == KeyStanding::Serving
            && let Some(row) = shown(vault, caller, filter, found.record).await?
            && !page.takes(key.id(), row)
        {
            return Ok(page.full());
        }
    }
    Ok(page.end(keys.rest()))
}

/// A terminal as it is listed, if it is wanted and the caller may know of it.
async fn shown(
    vault: &Vault,
    caller: &Caller,
    filter: &Filter,
    mut terminal: Terminal,
) -> Result<Option<Reading>, Error> {
    terminal.state = terminal.state_at(vault.now());
    let is_wanted = filter.state.is_none_or(|state| terminal.state == state);
    if !is_wanted || terminal.check_seen(vault, caller).is_err() {
        return Ok(None);
    }
    reading(vault, terminal).await.map(Some)
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
