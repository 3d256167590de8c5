//! Initial keys for a facility that loads them into terminals.

use serde::{Deserialize, Serialize};

use super::approvals::{self, When};
use super::initial_key::InitialKeyId;
use super::manage_keys::resource;
use super::{Error, RequestId, give_up, recall, remember, repeated, retrying};
use crate::key::usage::BaseDerivation;
use crate::keyblock::Version;
use crate::vault::{
    Action, Caller, Operation, Passage, Reason, StoredKey, Vault, Work, WrappingKey, key_of,
};

/// An initial key that is asked for.
#[derive(Debug, Clone)]
pub struct Export {
    /// The id in `keys/{id}` of the base derivation key.
    pub base_derivation_key: String,
    /// The id in `keys/{id}` of the key to wrap it under.
    pub wrapping_key: String,
}

/// An initial key that leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The key block.
    pub key_block: String,
    /// The id of the key: 8 bytes for AES, 10 for TDES.
    pub initial_key_id: Vec<u8>,
    /// The check value of the key.
    pub check_value: Vec<u8>,
}

/// Allocates an initial key id and exports its key, under a key at least as strong.
///
/// The terminal that is loaded with it is not registered here, and terminals that are not serve
/// under an `open` base derivation key alone: any other is `KEY_USAGE_MISMATCH`.
///
/// The same request gets the same key again, but only while the base derivation key may still give
/// out keys and the wrapping key may still wrap. Another request gets another id: none is
/// given twice.
pub async fn export_initial_key(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    export: &Export,
) -> Result<Exported, Error> {
    let action = Action::ExportInitialKey;
    retrying(|| async {
        let name = &export.base_derivation_key;
        let mut work = vault.begin(caller, action, resource(name)).await?;
        work.detail("wrapping_key", resource(&export.wrapping_key));
        let keys = match find_keys(vault, export).await {
            Ok(keys) => keys,
            Err(error) => return Err(give_up(work, error).await),
        };
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        if let Err(error) = check_carries_out(&work, &keys) {
            return Err(give_up(work, error).await);
        }
        // Before an id is taken, which would be lost.
        let about = match about(vault, &mut work, export).await {
            Ok(about) => about,
            Err(error) => return Err(give_up(work, error).await),
        };
        let mut work = approvals::require(vault, work, request, &about).await?;
        match derive_and_wrap(&mut work, &keys).await {
            Ok(exported) => {
                remember(vault, &mut work, request, &exported).await?;
                work.commit().await?;
                Ok(exported)
            }
            Err(error) => Err(give_up(work, error).await),
        }
    })
    .await
}

/// The base derivation key and the wrapping key.
type Keys = (StoredKey<BaseDerivation>, WrappingKey);

/// Both keys, if they may do this now. What may not wrap takes no id.
async fn find_keys(vault: &Vault, export: &Export) -> Result<Keys, Error> {
    let name = &export.base_derivation_key;
    let bdk = vault.key::<BaseDerivation>(name, Operation::DeriveInitial).await?;
    if !bdk.record().attributes.open {
        return Err(Error::refused(Reason::KeyUsageMismatch));
    }
    let wrapping = vault.wrapping_key(&export.wrapping_key, Operation::Wrap).await?;
    Ok((bdk, wrapping))
}

/// Unless a grant names the officer and both keys, others have to approve. One that does holds as
/// often in a minute as it says.
async fn about(vault: &Vault, work: &mut Work, export: &Export) -> Result<Vec<When>, Error> {
    let passage = Passage { key: &export.base_derivation_key, under: &export.wrapping_key };
    let quorum = vault.quorum().await?;
    let granted = quorum.approved_before(work.caller(), passage);
    let Some(per_minute) = granted else { return Ok(vec![When::NotGranted]) };
    work.judged_by(&quorum);
    let subject = ["key", work.caller().name(), key_of(&export.base_derivation_key)];
    if let Err(error) = vault.rates().take(per_minute, &subject) {
        work.detail("rule", "grant.calls_per_minute_max");
        return Err(error.into());
    }
    Ok(Vec::new())
}

fn check_carries_out(work: &Work, (bdk, wrapping): &Keys) -> Result<Version, Error> {
    Ok(work.check_carries_out(wrapping, bdk.record().algorithm)?)
}

async fn derive_and_wrap(work: &mut Work, keys: &Keys) -> Result<Exported, Error> {
    let version = check_carries_out(work, keys)?;
    let (bdk, wrapping) = keys;
    let id = InitialKeyId::allocate(work, bdk.record()).await?;
    let key = id.derive(bdk.key())?;
    let header = id.header(version, &key)?;
    let key_block = work.export_initial_key(&header, &key, wrapping)?;
    work.uses(bdk);
    let check_value = key.check_value().bytes().to_vec();
    work.detail("initial_key_id", data_encoding::HEXUPPER.encode(id.bytes()));
    work.detail("check_value", data_encoding::HEXUPPER.encode(&check_value));
    Ok(Exported { key_block, initial_key_id: id.bytes().to_vec(), check_value })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::command::manage_keys::{self, export_key, import_key};
    use crate::command::testing::{Bench, reason};
    use crate::key::Algorithm;
    use crate::vault::{
        Brings, Exportability, KeyAttributes, KeyState, KeyUsage, NewKey, Realm, Start, StateChange,
    };

    #[tokio::test]
    async fn in_a_live_realm_nothing_leaves_under_an_imported_key() {
        let exportable = Some(Exportability::Exportable);
        for (realm, expected) in [(Realm::Dev, "OK"), (Realm::Live, "POLICY_DENIED")] {
            let bench = Bench::of_realm(realm).await;
            let (vault, caller) = (&bench.vault, &bench.caller);
            let open = KeyAttributes { open: true, ..KeyAttributes::default() };
            bench.bdk("bdk", Algorithm::Aes128, open).await;
            for (name, exportability) in [("own", None), ("partner", exportable)] {
                let new = NewKey {
                    name: name.into(),
                    usage: KeyUsage::KeyEncryption,
                    algorithm: Algorithm::Aes128,
                    mode_of_use: None,
                    exportability,
                    attributes: KeyAttributes::default(),
                    labels: BTreeMap::new(),
                    start: Start::Primary,
                };
                manage_keys::create_key(vault, caller, None, new).await.unwrap();
            }
            let (id, wrapping_key) = ("partner".to_owned(), "own".to_owned());
            let left = manage_keys::Export { id, wrapping_key, exportability: exportable };
            let export = async |request: &RequestId| {
                export_key(vault, caller, Some(request), left.clone()).await
            };
            let key_block = bench.approved(export).await.unwrap().key_block;
            // A live realm takes no key that is here already.
            for state in [KeyState::Deactivated, KeyState::Destroyed] {
                let change = StateChange { state, serve_until: None };
                let change = async |request: &RequestId| {
                    let request = Some(request);
                    manage_keys::set_key_state(vault, caller, request, "partner", change).await
                };
                bench.approved(change).await.unwrap();
            }
            let import = manage_keys::Import {
                id: "brought".into(),
                key_block,
                wrapping_key: "own".into(),
                exportability: None,
                attributes: KeyAttributes::default(),
                brings: Brings::Key(BTreeMap::new()),
                start: Start::Primary,
            };
            let import = async |request: &RequestId| {
                import_key(vault, caller, Some(request), import.clone()).await
            };
            bench.approved(import).await.unwrap();
            for (wrapping_key, expected) in [("brought", expected), ("own", "OK")] {
                let base_derivation_key = "bdk".to_owned();
                let wrapping_key = wrapping_key.to_owned();
                let export = Export { base_derivation_key, wrapping_key };
                let export = async |request: &RequestId| {
                    export_initial_key(vault, caller, Some(request), &export).await
                };
                let exported = bench.approved(export).await;
                assert_eq!(reason(&exported), expected, "{realm:?}");
            }
        }
    }
}
