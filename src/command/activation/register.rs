//! Step 1: a terminal is registered; nothing in it is negotiated later.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::index::{MasterKeyIndex, SerialIndex};
use super::profile;
use super::record::{Credential, Merchant, MerchantStanding, Terminal};
use super::step::{Happened, advance, read_terminal};
use crate::activation::State;
use crate::command::{
    Error, RequestId, give_up, manage_trust, recall, refuse, remember, repeated, retrying,
};
use crate::crypto::tdes;
use crate::key::usage::KeyDerivation;
use crate::key::{Key, Material};
use crate::vault::{
    self, Action, Caller, HashPurpose, KeyUse, Operation, Reason, Record as _, StoredKey, Vault,
    Versioned, Work, key_of,
};

/// A terminal that is to be registered; see [`Terminal`].
#[derive(Debug, Clone)]
pub struct NewTerminal {
    /// The id in `terminals/{id}`.
    pub id: String,
    /// The device's serial.
    pub serial: String,
    /// The device's model.
    pub model: String,
    /// The merchant.
    pub merchant: Merchant,
    /// Where the merchant stands.
    pub standing: MerchantStanding,
    /// The id in `profiles/{id}`.
    pub profile: String,
    /// How it proves itself.
    pub credential: Credential,
}

/// Registers a terminal. A serial whose terminal is retired opens a new generation, for callers who
/// may know of the terminal before.
pub async fn create_terminal(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    new: &NewTerminal,
) -> Result<Terminal, Error> {
    retrying(|| create_once(vault, caller, request, new)).await
}

/// A registration of a batch.
pub struct Entry {
    /// Its own request id.
    pub request: RequestId,
    /// What is to be registered.
    pub new: NewTerminal,
}

/// Registers many terminals: each for itself, with a result for each in their order. What is wrong
/// already stays as it is.
///
/// They run at the same time, so that one commit holds many. Entries that share an id, a serial, a
/// master key or a request id with an earlier one wait for all others and run in their order: the
/// outcome is that of one after the other.
pub async fn create_terminals(
    vault: &Arc<Vault>,
    caller: &Caller,
    entries: Vec<Result<Entry, Error>>,
) -> Vec<Result<Terminal, Error>> {
    let count = entries.len();
    let mut results = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut later = Vec::new();
    let mut running = JoinSet::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                results.insert(index, Err(error));
                continue;
            }
        };
        let mut shared = vec![
            ("id", entry.new.id.clone()),
            ("serial", entry.new.serial.clone()),
            ("request", entry.request.id().to_owned()),
        ];
        if let Credential::MasterKey { key } = &entry.new.credential {
            shared.push(("key", key_of(key).to_owned()));
        }
        // All are noted, whichever of them was there already.
        let is_new: Vec<bool> = shared.into_iter().map(|name| seen.insert(name)).collect();
        if is_new.contains(&false) {
            later.push((index, entry));
            continue;
        }
        let (vault, caller) = (Arc::clone(vault), caller.clone());
        running.spawn(async move {
            let made = create_terminal(&vault, &caller, Some(&entry.request), &entry.new).await;
            (index, made)
        });
    }
    // One that ended abnormally has no result.
    while let Some(ended) = running.join_next().await {
        results.extend(ended);
    }
    for (index, entry) in later {
        let made = create_terminal(vault, caller, Some(&entry.request), &entry.new).await;
        results.insert(index, made);
    }
    let lost = || Err(vault::Error::incident("a registration ended abnormally", "").into());
    (0..count).map(|index| results.remove(&index).unwrap_or_else(lost)).collect()
}

async fn create_once(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    new: &NewTerminal,
) -> Result<Terminal, Error> {
    let action = Action::CreateTerminal;
    let keys: Vec<KeyUse<'_>> = match &new.credential {
        Credential::DeviceCertificate { .. } => Vec::new(),
        Credential::MasterKey { key } => vec![KeyUse::of(Ok(key))],
    };
    let resource = format!("terminals/{}", new.id);
    let mut work = vault.begin_with_keys(caller, action, resource, &keys).await?;
    if let Err(error) = profile::check_seen(vault, caller, &new.profile) {
        return Err(give_up(work, error).await);
    }
    if let Some(answer) = recall(vault, caller, action, request).await? {
        return repeated(work, answer).await;
    }
    let master_key = match check_references(vault, new).await {
        Ok(master_key) => master_key,
        Err(error) => return Err(give_up(work, error).await),
    };
    if vault.get::<Terminal>(&new.id).await?.is_some() {
        return Err(refuse(work, Reason::TerminalAlreadyExists).await);
    }
    let mut serial = match vault.get::<SerialIndex>(&new.serial).await? {
        Some(serial) => serial,
        None => Versioned::absent(SerialIndex {
            serial: new.serial.clone(),
            terminal: String::new(),
            generation: 0,
        }),
    };
    let mut last_begin = None;
    if serial.version.is_some() {
        let before = read_terminal(vault, &serial.record.terminal).await?;
        // Whoever may not know of the terminal before is not told that it is retired.
        let is_seen = before.record.check_seen(vault, caller).is_ok();
        if before.record.state != State::Retired || !is_seen {
            return Err(refuse(work, Reason::TerminalAlreadyExists).await);
        }
        // The device is the same, and what it said then is not said anew.
        last_begin = before.record.last_begin;
    }
    if let Some(key) = &master_key
        && let Err(error) = take_master_key(vault, &mut work, key, &new.serial).await
    {
        return Err(give_up(work, error).await);
    }
    serial.record.terminal.clone_from(&new.id);
    serial.record.generation = serial.record.generation.saturating_add(1);
    let mut terminal = fresh(new, serial.record.generation, work.now());
    terminal.last_begin = last_begin;
    if let Some(key) = &master_key {
        // The device holds this version, whichever is the primary one later.
        terminal.credential = Credential::MasterKey { key: key.record().version_name() };
    }
    let state = state_of(new.standing);
    let note = format!("serial {}, generation {}", new.serial, serial.record.generation);
    advance(&mut work, &mut terminal, state, Happened::done("CreateTerminal", note));
    work.put(&serial)?;
    work.put(&Versioned::absent(terminal.clone()))?;
    remember(vault, &mut work, request, &terminal).await?;
    work.commit().await?;
    Ok(terminal)
}

/// The profile is there, its suite is for terminals that prove themselves so, and what they prove
/// themselves by is there and fits. Gives the master key, if it is that.
async fn check_references(
    vault: &Vault,
    new: &NewTerminal,
) -> Result<Option<StoredKey<KeyDerivation>>, Error> {
    let suite = profile::read_profile(vault, &new.profile).await?.suite;
    match &new.credential {
        Credential::DeviceCertificate { authority } if !suite.has_master_key() => {
            let authority = manage_trust::read_device_authority(vault, authority).await?;
            if authority.model != new.model {
                return Err(Error::field("model", "is not the model of the device authority"));
            }
            Ok(None)
        }
        Credential::MasterKey { key } if suite.has_master_key() => {
            let key = vault.key::<KeyDerivation>(key, Operation::DeriveInitial).await?;
            if !suite.takes_master_key(key.key().algorithm()) {
                return Err(Error::refused(Reason::KeyUsageMismatch));
            }
            Ok(Some(key))
        }
        Credential::DeviceCertificate { .. } | Credential::MasterKey { .. } => {
            Err(Error::field("kind", "is not what the suite of the profile is for"))
        }
    }
}

/// Binds a master key to the serial of its one device.
async fn take_master_key(
    vault: &Vault,
    work: &mut Work,
    key: &StoredKey<KeyDerivation>,
    serial: &str,
) -> Result<(), Error> {
    work.uses(key);
    let hash = hash_of(vault, key.key());
    let index = MasterKeyIndex { hash, serial: serial.to_owned() };
    match vault.get::<MasterKeyIndex>(&index.id()).await? {
        None => Ok(work.put(&Versioned::absent(index))?),
        Some(taken) if taken.record.serial == serial => Ok(()),
        Some(_) => Err(Error::refused(Reason::ResourceAlreadyExists)),
    }
}

/// Whether a device has a key as its master key.
pub(super) async fn is_master_key(vault: &Vault, key: &Key<KeyDerivation>) -> Result<bool, Error> {
    let index = MasterKeyIndex { hash: hash_of(vault, key), serial: String::new() };
    Ok(vault.get::<MasterKeyIndex>(&index.id()).await?.is_some())
}

/// The keyed hash of a master key, whatever parity it came with.
fn hash_of(vault: &Vault, key: &Key<KeyDerivation>) -> [u8; 32] {
    // The key goes into the keyed hash alone, which says nothing without the vault's own key.
    let mut material = Material::copied_from(key.expose_bytes());
    if key.algorithm().is_tdes() {
        tdes::set_odd_parity(material.expose_bytes_mut());
    }
    vault.keyed_hash(HashPurpose::TerminalMasterKey, &[material.expose_bytes()])
}

/// Only an approved merchant's terminal begins outside HELD.
pub(super) const fn state_of(standing: MerchantStanding) -> State {
    match standing {
        MerchantStanding::Approved => State::Registered,
        MerchantStanding::Pending | MerchantStanding::Rejected => State::Held,
    }
}

fn fresh(new: &NewTerminal, generation: u32, now: crate::vault::UnixMillis) -> Terminal {
    Terminal {
        id: new.id.clone(),
        serial: new.serial.clone(),
        model: new.model.clone(),
        merchant: new.merchant.clone(),
        profile: new.profile.clone(),
        credential: new.credential.clone(),
        generation,
        created: now,
        state: State::Registered,
        standing: new.standing,
        hold_cause: None,
        came_from: None,
        code: None,
        codes_issued: 0,
        activation: 0,
        last_begin: None,
        keys: None,
        keys_before: None,
        update_key_allowed: false,
        parameters_sent: None,
        parameters_applied: 0,
        tests_passed: 0,
        settlement_digest: None,
        first_transaction: None,
        updated: now,
        timeline: Vec::new(),
    }
}
