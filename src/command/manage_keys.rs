//! Keys: made here or brought as key blocks, taken out as key blocks, rotated, moved from state to
//! state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::approvals::{self, When};
use super::{Error, RequestId, audited, give_up, recall, remember, repeated, retrying};
use crate::key::usage::KeyBlockProtection;
use crate::key::{Algorithm, Key};
use crate::keyblock::{self, Explained, Header, Version};
use crate::vault::{
    self, Action, Brings, Caller, Changed, DescribedKey, ExportKey, Exportability, ImportKey,
    KeyAttributes, KeyUsage, ModeOfUse, NewKey, Operation, Rotation, Start, StateChange, Vault,
    Work,
};

/// A key to be imported.
#[derive(Debug, Clone)]
pub struct Import {
    /// The id in `keys/{id}`.
    pub id: String,
    /// The key block: version D, or B under TDES.
    pub key_block: String,
    /// The id in `keys/{id}` of the key that it is wrapped under, or a version of it.
    pub wrapping_key: String,
    /// Where the key may go: not further than the block says; none for as far.
    pub exportability: Option<Exportability>,
    /// What it may do beyond its usage; of a next version what it has of its own.
    pub attributes: KeyAttributes,
    /// What it is to be.
    pub brings: Brings,
    /// What becomes of it.
    pub start: Start,
}

/// A key to be exported.
#[derive(Debug, Clone)]
pub struct Export {
    /// The id in `keys/{id}`, or a version of it.
    pub id: String,
    /// The id in `keys/{id}` of the key to wrap it under, or a version of it.
    pub wrapping_key: String,
    /// What the block shall say of further export; none for never.
    pub exportability: Option<Exportability>,
}

/// A key that leaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exported {
    /// The key block.
    pub key_block: String,
    /// What the block does not carry, by the names of the attributes.
    pub dropped_attributes: Vec<String>,
    /// The check value of the key, in upper case hexadecimals.
    pub check_value: String,
    /// The check value of the version of the key encryption key that wrapped it.
    pub wrapping_check_value: String,
}

/// A key of a development service to be imported.
#[derive(Debug, Clone)]
pub struct DevImport {
    /// The id in `keys/{id}`.
    pub id: String,
    /// The key block, under the development master key.
    pub block: String,
    /// Base derivation keys: the key set id; empty for none.
    pub key_set_id: Vec<u8>,
    /// Base derivation keys: serves terminals that were injected elsewhere.
    pub open: bool,
}

/// What a key block says of itself.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// Its fields, explained, in their order.
    pub fields: Vec<Explained>,
    /// Whether the service would consider a block with this header for import.
    pub importable: bool,
}

/// Makes a random key.
pub async fn create_key(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    new: NewKey,
) -> Result<DescribedKey, Error> {
    let action = Action::CreateKey;
    retrying(|| async {
        let mut work = vault.begin(caller, action, resource(&new.name)).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let made = match check_new(&new) {
            Ok(()) => work.create_key(new.clone()).await.map_err(name_attributes),
            Err(error) => Err(error),
        };
        let about = approvals::of_attributes(&new.attributes);
        finish(vault, work, request, made, &about).await
    })
    .await
}

/// Imports a key from a key block.
pub async fn import_key(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    import: Import,
) -> Result<DescribedKey, Error> {
    let action = Action::ImportKey;
    let Import { id, key_block, wrapping_key, exportability, attributes, brings, start } = import;
    retrying(|| async {
        let mut work = vault.begin(caller, action, resource(&id)).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let import = ImportKey {
            name: id.clone(),
            key_block: &key_block,
            exportability,
            attributes: attributes.clone(),
            brings: brings.clone(),
            start,
        };
        let imported = match vault.wrapping_key(&wrapping_key, Operation::Unwrap).await {
            Ok(wrapping) => work.import_key(import, &wrapping).await,
            Err(error) => Err(error),
        };
        let usage = imported.as_ref().ok().and_then(|key| approvals::of_usage(key.record.usage));
        let mut about = approvals::of_attributes(&attributes);
        about.extend(usage.into_iter().chain(approvals::of_import(&brings)));
        finish(vault, work, request, imported.map_err(name_attributes), &about).await
    })
    .await
}

/// Imports a key of a development service, in realm dev alone.
///
/// The block is under the development master key itself, which no stored key is: who holds that key
/// holds a development service.
pub async fn import_for_dev_only(
    vault: &Vault,
    caller: &Caller,
    protection: &Key<KeyBlockProtection>,
    import: DevImport,
) -> Result<DescribedKey, Error> {
    let mut work = vault.begin(caller, Action::ImportKey, resource(&import.id)).await?;
    let key_set_id = data_encoding::HEXUPPER.encode(&import.key_set_id);
    let attributes = KeyAttributes {
        key_set_id: (!key_set_id.is_empty()).then_some(key_set_id),
        open: import.open,
        ..KeyAttributes::default()
    };
    let key = ImportKey {
        name: import.id,
        key_block: &import.block,
        exportability: None,
        attributes,
        brings: Brings::Key(BTreeMap::new()),
        start: Start::Primary,
    };
    let imported = work.import_key_for_dev_only(key, protection).await;
    finish(vault, work, None, imported.map_err(name_attributes), &[]).await
}

/// Exports an exportable key as a key block under a key at least as strong.
///
/// The same request gets the same block again, but only while the key may still leave and the
/// wrapping key may still wrap.
pub async fn export_key(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    export: Export,
) -> Result<Exported, Error> {
    let action = Action::ExportKey;
    retrying(|| async {
        let mut work = vault.begin(caller, action, resource(&export.id)).await?;
        work.detail("wrapping_key", resource(&export.wrapping_key));
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return match check_leaves(vault, &work, &export).await {
                Ok(()) => repeated(work, answer).await,
                Err(error) => Err(give_up(work, error).await),
            };
        }
        match wrap(vault, &mut work, &export).await {
            Ok((exported, usage)) => {
                let about = Vec::from_iter(approvals::of_usage(usage));
                let mut work = approvals::require(vault, work, request, &about).await?;
                remember(vault, &mut work, request, &exported).await?;
                work.commit().await?;
                Ok(exported)
            }
            Err(error) => Err(give_up(work, error).await),
        }
    })
    .await
}

/// Makes the next version of a key.
pub async fn rotate_key(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    rotation: Rotation,
) -> Result<DescribedKey, Error> {
    let action = Action::RotateKey;
    retrying(|| async {
        let mut work = vault.begin(caller, action, resource(&rotation.name)).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let rotated = work.rotate_key(rotation.clone()).await;
        finish(vault, work, request, rotated.map_err(name_own), &[]).await
    })
    .await
}

/// Makes a version the one that the name of its key means.
pub async fn set_primary_version(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    (id, version): (&str, u32),
) -> Result<DescribedKey, Error> {
    let action = Action::SetPrimaryVersion;
    retrying(|| async {
        let mut work = vault.begin(caller, action, resource(id)).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let changed = work.set_primary_version(id, version).await;
        finish(vault, work, request, changed.map_err(Error::from), &[]).await
    })
    .await
}

/// Replaces the labels of a key.
pub async fn update_key(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    id: &str,
    labels: BTreeMap<String, String>,
) -> Result<DescribedKey, Error> {
    let action = Action::UpdateKey;
    retrying(|| async {
        let mut work = vault.begin(caller, action, resource(id)).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let changed = work.set_labels(id, labels.clone()).await;
        finish(vault, work, request, changed.map_err(Error::from), &[]).await
    })
    .await
}

/// Moves a version of a key to another state, or shortens the time that a compromised one serves.
pub async fn set_key_state(
    vault: &Vault,
    caller: &Caller,
    request: Option<&RequestId>,
    id: &str,
    change: StateChange,
) -> Result<Changed, Error> {
    let action = Action::SetKeyState;
    retrying(|| async {
        let mut work = vault.begin(caller, action, resource(id)).await?;
        if let Some(answer) = recall(vault, caller, action, request).await? {
            return repeated(work, answer).await;
        }
        let before = vault.key_record(id).await.map_err(Error::from);
        let (changed, about) = match before {
            Ok(before) => {
                work.expects(&before);
                let about = Vec::from_iter(approvals::of_change(before.record.state, change));
                (work.set_key_state(id, change).await.map_err(name_change), about)
            }
            Err(error) => (Err(error), Vec::new()),
        };
        finish(vault, work, request, changed, &about).await
    })
    .await
}

/// Explains the header of a key block. Needs no key and checks no MAC.
pub async fn inspect_key_block(
    vault: &Vault,
    caller: &Caller,
    key_block: &str,
) -> Result<Inspected, Error> {
    let inspected = async {
        let (header, _) = Header::parse(key_block)
            .map_err(|_| Error::field("key_block", "does not begin with a key block header"))?;
        Ok(Inspected { fields: keyblock::explain(&header), importable: is_importable(&header) })
    };
    audited(vault, caller, Action::InspectKeyBlock, "", inspected).await
}

/// The resource name of a key.
pub(super) fn resource(id: &str) -> String {
    format!("keys/{id}")
}

/// Keeps the answer and makes it durable what was done, once it need not be approved any more; or
/// audits why nothing was.
async fn finish<T: Serialize>(
    vault: &Vault,
    work: Work,
    request: Option<&RequestId>,
    outcome: Result<T, Error>,
    about: &[When],
) -> Result<T, Error> {
    match outcome {
        Ok(answer) => {
            let mut work = approvals::require(vault, work, request, about).await?;
            remember(vault, &mut work, request, &answer).await?;
            work.commit().await?;
            Ok(answer)
        }
        Err(error) => Err(give_up(work, error).await),
    }
}

/// Whether a block that was given before may still be given.
async fn check_leaves(vault: &Vault, work: &Work, export: &Export) -> Result<(), Error> {
    vault.key_record(&export.id).await?.record.check(Operation::Export, work.now())?;
    vault.wrapping_key(&export.wrapping_key, Operation::Wrap).await?;
    Ok(())
}

pub(super) async fn wrap(
    vault: &Vault,
    work: &mut Work,
    export: &Export,
) -> Result<(Exported, KeyUsage), Error> {
    let usage = vault.key_record(&export.id).await?.record.usage;
    let wrapping = vault.wrapping_key(&export.wrapping_key, Operation::Wrap).await?;
    let key = ExportKey { name: &export.id, exportability: export.exportability };
    let exported = work.export_key(key, &wrapping).await?;
    let exported = Exported {
        key_block: exported.key_block,
        dropped_attributes: exported.dropped_attributes.into_iter().map(str::to_owned).collect(),
        check_value: exported.check_value,
        wrapping_check_value: wrapping.record().check_value.clone(),
    };
    Ok((exported, usage))
}

/// Names the field of a new key that does not go with the others.
pub(super) fn check_new(new: &NewKey) -> Result<(), Error> {
    if new.usage == KeyUsage::InitialDukpt {
        return Err(Error::field("usage", "is never stored: it goes to a terminal"));
    }
    if !new.usage.permits(new.algorithm) {
        return Err(Error::field("algorithm", "does not go with the usage"));
    }
    if new.mode_of_use.is_some_and(|mode| !new.usage.modes().contains(&mode)) {
        return Err(Error::field("mode_of_use", "does not go with the usage"));
    }
    Ok(())
}

/// Names the field that a change of a key's state does not go with.
fn name_change(error: vault::Error) -> Error {
    match error {
        vault::Error::AttributeInvalid { name: "name" } => {
            Error::field("name", "is of a key with several versions: name one of them")
        }
        vault::Error::AttributeInvalid { name } => {
            Error::field(name, "is for an active BDK that becomes compromised")
        }
        error => error.into(),
    }
}

/// Names the field of what the next version of a key can not have.
fn name_own(error: vault::Error) -> Error {
    if let vault::Error::AttributeInvalid { name } = error {
        return Error::field(name, "does not go with the key, or with when it begins");
    }
    error.into()
}

/// Names the field of the attribute that the vault calls invalid.
fn name_attributes(error: vault::Error) -> Error {
    if let vault::Error::AttributeInvalid { name } = error {
        let path = format!("attributes.{name}");
        return Error::field(path, "does not go with the key's usage and algorithm");
    }
    error.into()
}

/// Whether a block with this header may be imported, were its MAC right: version D, or B for TDES,
/// canonical, with a usage, an algorithm and a mode that go together here.
fn is_importable(header: &Header) -> bool {
    let of_version = |algorithm: Algorithm| match header.version {
        Version::D => true,
        Version::B => algorithm.is_tdes(),
        Version::A | Version::C | Version::E => false,
    };
    let mode = ModeOfUse::from_letter(header.mode);
    let fits = KeyUsage::from_code(header.usage).is_some_and(|usage| {
        usage != KeyUsage::InitialDukpt
            && mode.is_some_and(|mode| usage.modes().contains(&mode))
            && Algorithm::ALL.into_iter().any(|algorithm| {
                algorithm.header_letter() == header.algorithm
                    && of_version(algorithm)
                    && usage.permits(algorithm)
            })
    });
    fits && Exportability::from_letter(header.exportability).is_some()
        && header.context == b'0'
        && header.reserved == b'0'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::read_keys::{Filter, list_keys};
    use crate::command::testing::{Bench, reason};
    use crate::vault::{KeyState, Realm};

    fn new(name: &str, usage: KeyUsage, exportability: Option<Exportability>) -> NewKey {
        NewKey {
            name: name.into(),
            usage,
            algorithm: Algorithm::Aes128,
            mode_of_use: None,
            exportability,
            attributes: KeyAttributes::default(),
            labels: BTreeMap::new(),
            start: Start::Primary,
        }
    }

    #[tokio::test]
    async fn the_same_request_makes_one_key() {
        let bench = Bench::new().await;
        let request = RequestId::new("a".into(), "CreateKey", vec![1]);
        let create = async |request: &RequestId, name| {
            let new = new(name, KeyUsage::PinEncryption, None);
            create_key(&bench.vault, &bench.caller, Some(request), new).await
        };
        let first = create(&request, "pin").await.unwrap();
        assert_eq!(create(&request, "pin").await.unwrap(), first);
        let other = RequestId::new("b".into(), "CreateKey", vec![1]);
        assert_eq!(reason(&create(&other, "pin").await), "KEY_ALREADY_EXISTS");
        let reused = RequestId::new("a".into(), "CreateKey", vec![2]);
        assert_eq!(reason(&create(&reused, "pin-2").await), "REQUEST_ID_REUSED");
        let filter = Filter::default();
        let page = list_keys(&bench.vault, &bench.caller, &filter, None, 1).await.unwrap();
        assert_eq!((page.rows.len(), page.next), (1, None));
    }

    #[tokio::test]
    async fn a_key_leaves_comes_back_and_is_held() {
        let bench = Bench::new().await;
        let (vault, caller) = (&bench.vault, &bench.caller);
        let exportable = Some(Exportability::Exportable);
        for new in [
            new("kek", KeyUsage::KeyEncryption, None),
            new("pin", KeyUsage::PinEncryption, exportable),
            new("own", KeyUsage::PinEncryption, None),
        ] {
            create_key(vault, caller, None, new).await.unwrap();
        }
        let request = RequestId::new("a".into(), "ExportKey", vec![1]);
        let export = async |id: &str| {
            let (id, wrapping_key) = (id.to_owned(), "kek".to_owned());
            let export = Export { id, wrapping_key, exportability: None };
            export_key(vault, caller, Some(&request), export).await
        };
        let left = export("pin").await.unwrap();
        assert_eq!(export("pin").await.unwrap().key_block, left.key_block);
        let import = Import {
            id: "back".into(),
            key_block: left.key_block.clone(),
            wrapping_key: "kek".into(),
            exportability: None,
            attributes: KeyAttributes::default(),
            brings: Brings::Key(BTreeMap::new()),
            start: Start::Primary,
        };
        let back = import_key(vault, caller, None, import.clone()).await.unwrap().record;
        assert_eq!(back.check_value, left.check_value);
        assert_eq!(back.exportability, Exportability::NonExportable);
        let looser = Import { id: "looser".into(), exportability: exportable, ..import };
        let looser = import_key(vault, caller, None, looser).await;
        assert_eq!(reason(&looser), "POLICY_DENIED");

        // What was stopped leaves no more, not even as a repetition.
        let to = |state| StateChange { state, serve_until: None };
        set_key_state(vault, caller, None, "kek", to(KeyState::Suspended)).await.unwrap();
        assert_eq!(reason(&export("pin").await), "KEY_NOT_ACTIVE");
        set_key_state(vault, caller, None, "kek", to(KeyState::Active)).await.unwrap();
        assert_eq!(export("pin").await.unwrap().key_block, left.key_block);
        set_key_state(vault, caller, None, "pin", to(KeyState::Compromised)).await.unwrap();
        assert_eq!(reason(&export("pin").await), "KEY_NOT_ACTIVE");
        let never = Export { id: "own".into(), wrapping_key: "kek".into(), exportability: None };
        assert_eq!(reason(&export_key(vault, caller, None, never).await), "POLICY_DENIED");
        let back = set_key_state(vault, caller, None, "pin", to(KeyState::Active)).await;
        assert_eq!(reason(&back), "KEY_NOT_ACTIVE");
    }

    #[tokio::test]
    async fn published_wrapping_serves_development_alone() {
        let source = Bench::new().await;
        let kbpk: Key<KeyBlockProtection> =
            Key::generate(Algorithm::Aes256, source.vault.rng()).unwrap();
        let key: Key<crate::key::usage::PinEncryption> =
            Key::generate(Algorithm::Aes128, source.vault.rng()).unwrap();
        let header = Header::new(Version::D, *b"P0", b'A', b'B');
        let material = crate::key::Material::copied_from(key.expose_bytes());
        let block = keyblock::wrap(&kbpk, &header, &material, source.vault.rng()).unwrap();
        let import = DevImport {
            id: "pin".into(),
            block: block.into(),
            key_set_id: Vec::new(),
            open: false,
        };
        for (realm, expected) in [(Realm::Dev, "OK"), (Realm::Live, "POLICY_DENIED")] {
            let bench = Bench::of_realm(realm).await;
            let imported =
                import_for_dev_only(&bench.vault, &bench.caller, &kbpk, import.clone()).await;
            assert_eq!(reason(&imported), expected);
        }
    }

    #[tokio::test]
    async fn a_fault_names_its_field() {
        let bench = Bench::new().await;
        let attributes = KeyAttributes { open: true, ..KeyAttributes::default() };
        let new = NewKey { attributes, ..new("pin", KeyUsage::PinEncryption, None) };
        match create_key(&bench.vault, &bench.caller, None, new).await {
            Err(Error::Field { path, .. }) => assert_eq!(path, "attributes.open"),
            other => panic!("{}", reason(&other)),
        }
        assert_eq!(bench.last_event().await.reason.as_deref(), Some("FIELD_INVALID"));
    }

    #[test]
    fn headers_are_judged_before_import() {
        let importable = |text: &str| is_importable(&Header::parse(text).unwrap().0);
        for good in ["D0112P0AE00E0000", "B0080P0TE00N0000", "D0144B0AX00N0000"] {
            assert!(importable(good), "{good}");
        }
        for bad in [
            "A0072P0TE00E0000", // a deprecated version
            "E0084P0AE00E0000", // a version of ISO 20038
            "B0096P0AE00E0000", // AES under TDES
            "D0112B1AX00N0000", // never stored
            "D0112M3AC00E0000", // retail MAC is of TDES
            "D0112P0AX00E0000", // a PIN key derives nothing
            "D0112P0AE00E0010", // for storage alone
        ] {
            assert!(!importable(bad), "{bad}");
        }
    }

    #[test]
    fn new_keys_are_checked_by_field() {
        let new = |usage, algorithm, mode_of_use| NewKey {
            algorithm,
            mode_of_use,
            ..new("x", usage, None)
        };
        let path = |new: NewKey| match check_new(&new) {
            Err(Error::Field { path, .. }) => path,
            Err(
                Error::Hidden { .. } | Error::Ksn { .. } | Error::Refused { .. } | Error::Vault(_),
            )
            | Ok(()) => String::new(),
        };
        let derive = Some(ModeOfUse::Derive);
        assert_eq!(path(new(KeyUsage::InitialDukpt, Algorithm::Aes128, None)), "usage");
        assert_eq!(path(new(KeyUsage::MacHmac, Algorithm::Aes128, None)), "algorithm");
        assert_eq!(path(new(KeyUsage::PinEncryption, Algorithm::Aes128, derive)), "mode_of_use");
        assert_eq!(path(new(KeyUsage::PinEncryption, Algorithm::Aes128, None)), "");
    }
}
