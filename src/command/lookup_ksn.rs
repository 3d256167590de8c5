//! Tells whose a key serial number is, and whether calls under it would be served.

use super::activation::record::{KeyStanding, Terminal};
use super::transaction_key::{check_serves, check_strangers, terminal_of};
use super::{Error, Ksn, give_up};
use crate::activation::State;
use crate::vault::{
    Action, Caller, Denial, KeyRecord, KeyUse, Operation, Reason, UnixMillis, Vault, Work,
};

/// Whose a key serial number is.
#[derive(Debug)]
pub struct Found {
    /// The version of the base derivation key, less the `keys/` before it.
    pub base_derivation_key: String,
    /// The terminal that has the initial key; none where no registered one has confirmed it.
    pub owner: Option<Owner>,
    /// Whether PIN and MAC calls would be served, as far as that does not depend on the counter.
    pub verdict: Result<(), Error>,
}

/// A terminal that has an initial key.
#[derive(Debug)]
pub struct Owner {
    /// The id in `terminals/{id}`.
    pub terminal: String,
    /// Where the terminal stands.
    pub state: State,
    /// Where its initial key stands.
    pub standing: KeyStanding,
}

/// Looks a key serial number up; `KEY_NOT_FOUND` where nobody here has its key set, as far as the
/// caller may know. Spends nothing.
pub async fn lookup_ksn(vault: &Vault, caller: &Caller, ksn: &Ksn) -> Result<Found, Error> {
    let mut work = vault.begin(caller, Action::LookupKsn, "terminals").await?;
    match look_up(vault, &mut work, ksn).await {
        Ok(found) => {
            work.commit().await?;
            Ok(found)
        }
        Err(error) => Err(give_up(work, error).await),
    }
}

async fn look_up(vault: &Vault, work: &mut Work, ksn: &Ksn) -> Result<Found, Error> {
    let caller = work.caller().clone();
    let name = vault.key_of_set(&ksn.key_set_id()).await?;
    let name = name.ok_or(Error::refused(Reason::KeyNotFound))?;
    let bdk = vault.key_record(&name).await?.record;
    let (id, now) = (ksn.initial_key_id(), vault.now());
    let terminal = match terminal_of(vault, &name, &id).await? {
        Some(terminal) => vault.get::<Terminal>(&terminal).await?.map(|found| found.record),
        None => None,
    };
    let terminal = terminal.filter(|terminal| terminal.check_seen(vault, &caller).is_ok());
    // Of its own terminals a backend needs no grant to know.
    if terminal.is_none() {
        let granted = vault.admit_keys(&caller, work.action(), &[KeyUse::of(Ok(&name))]);
        granted.map_err(|Denial { error, rule }| {
            work.detail("rule", rule);
            error
        })?;
    }
    let verdict = judge(&bdk, terminal.as_ref(), &id, now);
    let owner = terminal.map(|terminal| Owner {
        state: terminal.state_at(now),
        standing: terminal.standing_of(&name, &id, now),
        terminal: terminal.id,
    });
    Ok(Found { base_derivation_key: name, owner, verdict })
}

/// What a PIN or MAC call would be told.
fn judge(
    bdk: &KeyRecord,
    terminal: Option<&Terminal>,
    initial_key_id: &[u8],
    now: UnixMillis,
) -> Result<(), Error> {
    bdk.check(Operation::DeriveWorking, now)?;
    match terminal {
        Some(terminal) => check_serves(terminal, &bdk.version_name(), initial_key_id, now),
        None => check_strangers(bdk),
    }
}
