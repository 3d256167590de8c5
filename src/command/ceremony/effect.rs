//! What a ceremony is for: done in the commit of its last confirmation, or not at all.

use data_encoding::HEXLOWER;

use super::act::is_same_value;
use super::material::Combined;
use super::plan::{Destroy, KeyPlan, Planned, Task};
use super::record::{Ceremony, CeremonyState};
use crate::command::Error;
use crate::command::manage_keys::{self, Export};
use crate::crypto::digest::sha256;
use crate::vault::{
    Action, Caller, DescribedKey, KeyAttributes, KeyState, NewKey, Reason, Start, StateChange,
    Vault, Work,
};

/// What was done, for the transcript and for those who take something away.
pub(super) struct Done {
    /// Public values.
    pub(super) values: Vec<(&'static str, String)>,
    /// A key block.
    pub(super) product: Option<String>,
}

/// Finds whether a plan could be done as things are, before anybody comes: it is done in a unit of
/// work that is dropped.
pub(super) async fn check(vault: &Vault, caller: &Caller, planned: &Planned) -> Result<(), Error> {
    let mut trial = vault.begin(caller, Action::CreateCeremony, "").await?;
    let any = |plan: &KeyPlan| {
        // A key that nobody has and that is gone with the trial.
        Combined::generate(plan.algorithm, vault.rng()).map_err(|_| no_randomness())
    };
    match planned.task() {
        Task::Generate(key) => {
            let drawn = any(key)?;
            add(&mut trial, key, &drawn).await.map(drop)
        }
        Task::Import(import) => {
            let drawn = any(&import.key)?;
            add(&mut trial, &import.key, &drawn).await.map(drop)
        }
        Task::Destroy(_) | Task::Export(_) | Task::Initialise(_) | Task::ReShare(_) => {
            act(vault, &mut trial, planned).await.map(drop)
        }
    }
}

/// Does it.
pub(super) async fn perform(
    vault: &Vault,
    work: &mut Work,
    ceremony: &Ceremony,
) -> Result<Done, Error> {
    let planned = ceremony.planned();
    let key = match planned.task() {
        Task::Generate(key) => key,
        Task::Import(import) => &import.key,
        Task::Destroy(_) | Task::Export(_) | Task::Initialise(_) | Task::ReShare(_) => {
            return act(vault, work, &planned).await;
        }
    };
    let made = ceremony.combined().map_err(|_| Error::refused(Reason::ComponentRejected))?;
    let DescribedKey { record, .. } = add(work, key, &made).await?;
    let values = vec![
        ("key", record.resource_name()),
        ("usage", record.usage.as_str().to_owned()),
        ("algorithm", record.algorithm.to_string()),
        ("check_value", record.check_value),
    ];
    Ok(Done { values, product: None })
}

async fn add(work: &mut Work, key: &KeyPlan, combined: &Combined) -> Result<DescribedKey, Error> {
    let attributes = KeyAttributes {
        key_set_id: key.key_set_id.clone(),
        device_cap: key.device_cap.unwrap_or(KeyAttributes::default().device_cap),
        open: key.open,
        ..KeyAttributes::default()
    };
    let new = NewKey {
        name: key.id.clone(),
        usage: key.usage,
        algorithm: key.algorithm,
        mode_of_use: key.mode_of_use,
        exportability: key.exportability,
        attributes,
        labels: std::collections::BTreeMap::new(),
        start: Start::Primary,
    };
    manage_keys::check_new(&new)?;
    Ok(work.create_key_of_components(new, combined).await?)
}

/// What is done with a key that there is.
async fn act(vault: &Vault, work: &mut Work, planned: &Planned) -> Result<Done, Error> {
    match planned.task() {
        Task::Export(plan) => {
            let (id, wrapping_key) = (named(&plan.key)?, named(&plan.wrapping_key)?);
            let check_value = is_the_one(vault, &id, &plan.check_value).await?;
            let under = &plan.wrapping_key_check_value;
            let wrapping_check_value = is_the_one(vault, &wrapping_key, under).await?;
            let export = Export { id, wrapping_key, exportability: plan.exportability };
            let (exported, _) = manage_keys::wrap(vault, work, &export).await?;
            // Another version may have become the primary one since it was looked at.
            let is_other = exported.check_value != check_value;
            if is_other || exported.wrapping_check_value != wrapping_check_value {
                return Err(Error::refused(Reason::CeremonyAborted));
            }
            let values = vec![
                ("key", plan.key.clone()),
                ("wrapping_key", plan.wrapping_key.clone()),
                ("wrapping_key_check_value", wrapping_check_value),
                ("check_value", check_value),
                ("key_block_sha256", HEXLOWER.encode(&sha256(&[exported.key_block.as_bytes()]))),
            ];
            Ok(Done { values, product: Some(exported.key_block) })
        }
        Task::Destroy(Destroy { key, check_value }) => {
            let id = named(key)?;
            let check_value = is_the_one(vault, &id, check_value).await?;
            let change = StateChange { state: KeyState::Destroyed, serve_until: None };
            work.set_key_state(&id, change).await?;
            let values = vec![("key", key.clone()), ("check_value", check_value)];
            Ok(Done { values, product: None })
        }
        Task::Generate(_) | Task::Import(_) | Task::Initialise(_) | Task::ReShare(_) => {
            Err(Error::field("plan", "SealService does this"))
        }
    }
}

/// Adds what a ceremony gives and does not keep: the certificate of a destruction, which tells of
/// the event of that very commit, and is written anew whenever it is asked for.
pub(super) async fn with_product(vault: &Vault, mut ceremony: Ceremony) -> Ceremony {
    let is_done = matches!(ceremony.state, CeremonyState::Done | CeremonyState::Closed);
    if let Task::Destroy(Destroy { key, .. }) = ceremony.planned().task()
        && is_done
        && let Ok(id) = named(key)
        // What can not be written now can be asked for again: the key is destroyed all the same.
        && let Ok(written) = vault.destruction_certificate(&id).await
    {
        ceremony.product = Some(written.note);
    }
    ceremony
}

/// What calls name a key by.
fn named(key: &str) -> Result<String, Error> {
    let id = key.strip_prefix("keys/");
    id.map(str::to_owned).ok_or_else(|| Error::field("plan", "a key is named keys/{key}"))
}

/// The check value of the key that is meant; of another than was planned nothing is done.
async fn is_the_one(vault: &Vault, id: &str, planned: &str) -> Result<String, Error> {
    let found = vault.key_record(id).await?.record.check_value;
    let is_it = is_same_value(&found, planned);
    is_it.then_some(found).ok_or_else(|| Error::field("plan", "the key has another check value"))
}

fn no_randomness() -> Error {
    crate::vault::Error::incident("no randomness", "ceremony").into()
}
