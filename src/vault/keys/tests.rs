//! Stored keys: from birth to destruction, in and out, and against whoever edits the store.

mod exposure;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::crypto::rng::SystemRng;
use crate::key::Algorithm;
use crate::key::usage::{BaseDerivation, DataBoth, Mac, PinEncryption};
use crate::keyblock::{self, Header, OptionalBlock, Version};
use crate::vault::record::Record;
use crate::vault::seal::Realm;
use crate::vault::store::{Change, Expected, MemoryStore, Store, Write};
use crate::vault::testing::{Bench, HandClock, beginning, opening, two_officers};
use crate::vault::{Action, Opening, Reason, UnixMillis};

fn new_key(name: &str, usage: KeyUsage, algorithm: Algorithm) -> NewKey {
    NewKey {
        name: name.into(),
        usage,
        algorithm,
        mode_of_use: None,
        exportability: Some(Exportability::Exportable),
        attributes: KeyAttributes::default(),
        labels: BTreeMap::new(),
        start: Start::Primary,
    }
}

async fn create(bench: &Bench, new: NewKey) -> Result<KeyRecord, Error> {
    let mut work = bench.begin(Action::CreateKey).await;
    let made = work.create_key(new).await?;
    work.commit().await?;
    Ok(made.record)
}

async fn set_state(bench: &Bench, name: &str, state: KeyState) -> Result<KeyRecord, Error> {
    let mut work = bench.begin(Action::SetKeyState).await;
    let changed = work.set_key_state(name, StateChange { state, serve_until: None }).await?;
    work.commit().await?;
    Ok(changed.key.record)
}

fn refused<T>(reason: Reason) -> Result<T, Error> {
    Err(Error::Refused(reason))
}

fn err<T>(result: Result<T, Error>) -> Result<(), Error> {
    result.map(|_| ())
}

#[tokio::test]
async fn a_key_serves_its_usage_alone() {
    let bench = Bench::new().await;
    let record =
        create(&bench, new_key("zone", KeyUsage::PinEncryption, Algorithm::Aes128)).await.unwrap();
    assert_eq!(record.attributes.pin_formats_in, [4]);
    let vault = &bench.vault;
    let key = vault.key::<PinEncryption>("zone", Operation::Encrypt).await.unwrap();
    let shown = data_encoding::HEXUPPER.encode(key.key().check_value().bytes());
    assert_eq!(shown, record.check_value);
    assert_eq!(format!("{:?}", key.key()), "Key<PinEncryption>");
    let mismatch = refused(Reason::KeyUsageMismatch);
    assert_eq!(err(vault.key::<DataBoth>("zone", Operation::Encrypt).await), mismatch);
    assert_eq!(err(vault.key::<Mac>("zone", Operation::VerifyMac).await), mismatch);
    assert_eq!(err(vault.key::<PinEncryption>("zone", Operation::Wrap).await), Ok(()));
    assert_eq!(err(vault.key::<PinEncryption>("zone", Operation::DeriveInitial).await), mismatch);
    assert_eq!(err(vault.wrapping_key("zone", Operation::Wrap).await), mismatch);
    let missing = vault.key::<PinEncryption>("other", Operation::Encrypt).await;
    assert_eq!(err(missing), refused(Reason::KeyNotFound));
    let again = create(&bench, new_key("zone", KeyUsage::DataEncryption, Algorithm::Aes128)).await;
    assert_eq!(err(again), refused(Reason::KeyAlreadyExists));
}

#[tokio::test]
async fn what_a_key_can_not_be_is_refused() {
    use Algorithm::{Aes128, Tdes2};
    use KeyUsage::{BaseDerivation, MacCmac as Cmac, PinEncryption};
    let bench = Bench::new().await;
    let good = new_key("good", KeyUsage::BaseDerivation, Algorithm::Aes128);
    let attributes = |change: fn(&mut KeyAttributes)| {
        let mut attributes = KeyAttributes::default();
        change(&mut attributes);
        NewKey { attributes, ..good.clone() }
    };
    let of = |usage, algorithm, change: fn(&mut KeyAttributes)| {
        let mut new = new_key("good", usage, algorithm);
        change(&mut new.attributes);
        new
    };
    for bad in [
        NewKey { name: "Good".into(), ..good.clone() },
        NewKey { name: "1good".into(), ..good.clone() },
        NewKey { name: String::new(), ..good.clone() },
        NewKey { name: "a".repeat(64), ..good.clone() },
        NewKey { name: "a/b".into(), ..good.clone() },
        NewKey { usage: KeyUsage::InitialDukpt, ..good.clone() },
        NewKey { algorithm: Algorithm::Hmac256, ..good.clone() },
        NewKey { mode_of_use: Some(ModeOfUse::Encrypt), ..good.clone() },
        NewKey { usage: KeyUsage::MacAlgorithm3, ..good.clone() },
    ] {
        let shown = format!("{bad:?}");
        assert_eq!(err(create(&bench, bad).await), refused(Reason::FieldInvalid), "{shown}");
    }
    for (name, bad) in [
        ("key_set_id", attributes(|a| a.key_set_id = Some("1234567890".into()))),
        ("key_set_id", attributes(|a| a.key_set_id = Some("1234567x".into()))),
        ("pin_formats_in", attributes(|a| a.pin_formats_in = vec![2])),
        ("pin_formats_out", attributes(|a| a.pin_formats_out = vec![1])),
        ("mac_length_min_bytes", attributes(|a| a.mac_length_min_bytes = 3)),
        ("device_cap", attributes(|a| a.device_cap = 0)),
        ("mac_length_min_bytes", attributes(|a| a.mac_length_min_bytes = 65)),
        ("mac_length_min_bytes", of(Cmac, Aes128, |a| a.mac_length_min_bytes = 17)),
        ("mac_length_min_bytes", of(Cmac, Tdes2, |a| a.mac_length_min_bytes = 9)),
        ("mac_length_min_bytes", of(BaseDerivation, Tdes2, |a| a.mac_length_min_bytes = 9)),
        ("mac_length_min_bytes", of(PinEncryption, Aes128, |a| a.mac_length_min_bytes = 4)),
        ("mac_message_length_bytes", of(Cmac, Aes128, |a| a.mac_message_length_bytes = 16)),
        ("mac_message_length_bytes", of(PinEncryption, Aes128, |a| a.mac_message_length_bytes = 1)),
        ("device_cap", of(Cmac, Aes128, |a| a.device_cap = 1)),
        ("open", of(Cmac, Aes128, |a| a.open = true)),
        ("key_set_id", of(Cmac, Aes128, |a| a.key_set_id = Some("12345678".into()))),
        ("pin_formats_in", of(Cmac, Aes128, |a| a.pin_formats_in = vec![4])),
    ] {
        assert_eq!(err(create(&bench, bad).await), Err(Error::AttributeInvalid { name }));
    }
    assert!(create(&bench, good).await.is_ok());
    let longest = of(KeyUsage::MacHmac, Algorithm::Hmac256, |a| a.mac_length_min_bytes = 64);
    assert!(create(&bench, NewKey { name: "hmac".into(), ..longest }).await.is_ok());
}

#[tokio::test]
async fn a_key_set_id_belongs_to_one_key() {
    let bench = Bench::new().await;
    let with_set = |name: &str| {
        let mut new = new_key(name, KeyUsage::BaseDerivation, Algorithm::Tdes2);
        new.attributes.key_set_id = Some("ffff987654".into());
        new
    };
    let id = [0xff, 0xff, 0x98, 0x76, 0x54];
    create(&bench, with_set("one")).await.unwrap();
    assert_eq!(bench.vault.key_of_set(&id).await, Ok(Some("one/versions/1".into())));
    let taken = create(&bench, with_set("two")).await;
    assert_eq!(err(taken), refused(Reason::KeyAlreadyExists));
    set_state(&bench, "one", KeyState::Deactivated).await.unwrap();
    set_state(&bench, "one", KeyState::Destroyed).await.unwrap();
    assert_eq!(bench.vault.key_of_set(&id).await, Ok(None));
    create(&bench, with_set("two")).await.unwrap();
    assert_eq!(bench.vault.key_of_set(&id).await, Ok(Some("two/versions/1".into())));
}

#[tokio::test]
async fn the_state_of_a_key_governs_it() {
    let bench = Bench::new().await;
    create(&bench, new_key("bdk", KeyUsage::BaseDerivation, Algorithm::Aes256)).await.unwrap();
    let open = async |operation| err(bench.vault.key::<BaseDerivation>("bdk", operation).await);
    assert_eq!(open(Operation::DeriveInitial).await, Ok(()));
    let suspended = set_state(&bench, "bdk", KeyState::Suspended).await.unwrap();
    assert_eq!(suspended.epoch, 2);
    assert_eq!(open(Operation::DeriveWorking).await, refused(Reason::KeyNotActive));
    set_state(&bench, "bdk", KeyState::Active).await.unwrap();
    assert_eq!(open(Operation::DeriveWorking).await, Ok(()));
    let illegal = set_state(&bench, "bdk", KeyState::Destroyed).await;
    assert_eq!(err(illegal), refused(Reason::KeyNotActive));
    set_state(&bench, "bdk", KeyState::Deactivated).await.unwrap();
    let destroyed = set_state(&bench, "bdk", KeyState::Destroyed).await.unwrap();
    assert_eq!(destroyed.key_block, None);
    assert_eq!(open(Operation::DeriveWorking).await, refused(Reason::KeyNotActive));
    let stored = bench.vault.key_record("bdk").await.unwrap().record;
    assert_eq!((stored.key_block.as_ref(), stored.state), (None, KeyState::Destroyed));
    assert_eq!(bench.vault.described_key("bdk").await.unwrap().record, destroyed);
    let events = bench.vault.events_after(0, 10).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!(
        (last.detail["from"].as_str(), last.detail["to"].as_str()),
        ("DEACTIVATED", "DESTROYED")
    );
    assert_eq!(last.keys[0].check_value, destroyed.check_value);
}

#[tokio::test]
async fn a_key_suspended_while_it_is_used_did_nothing() {
    let bench = Bench::new().await;
    create(&bench, new_key("zone", KeyUsage::PinEncryption, Algorithm::Aes128)).await.unwrap();
    let key = bench.vault.key::<PinEncryption>("zone", Operation::Encrypt).await.unwrap();
    let mut work = bench.begin(Action::TranslatePin).await;
    work.uses(&key);
    set_state(&bench, "zone", KeyState::Suspended).await.unwrap();
    assert_eq!(work.commit().await, Err(Error::Conflict));
}

async fn export(bench: &Bench, name: &str, kek: &str) -> Result<ExportedKey, Error> {
    let wrapping = bench.vault.wrapping_key(kek, Operation::Wrap).await?;
    let mut work = bench.begin(Action::ExportKey).await;
    let exportability = Some(Exportability::Exportable);
    let exported = work.export_key(ExportKey { name, exportability }, &wrapping).await?;
    work.commit().await?;
    Ok(exported)
}

async fn import(bench: &Bench, name: &str, block: &str, kek: &str) -> Result<KeyRecord, Error> {
    let wrapping = bench.vault.wrapping_key(kek, Operation::Unwrap).await?;
    let mut work = bench.begin(Action::ImportKey).await;
    let import = ImportKey {
        name: name.into(),
        key_block: block,
        exportability: None,
        attributes: KeyAttributes::default(),
        brings: Brings::Key(BTreeMap::new()),
        start: Start::Primary,
    };
    let imported = work.import_key(import, &wrapping).await?;
    work.commit().await?;
    Ok(imported.record)
}

#[tokio::test]
async fn a_key_goes_out_and_comes_back_with_no_more_rights() {
    let bench = Bench::new().await;
    create(&bench, new_key("kek", KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    create(&bench, new_key("kbpk", KeyUsage::KeyBlockProtection, Algorithm::Tdes3)).await.unwrap();
    for (name, usage, algorithm, kek) in [
        ("pin", KeyUsage::PinEncryption, Algorithm::Tdes2, "kbpk"),
        ("mac", KeyUsage::MacCmac, Algorithm::Aes128, "kek"),
        ("hmac", KeyUsage::MacHmac, Algorithm::Hmac512, "kek"),
        ("bdk", KeyUsage::BaseDerivation, Algorithm::Aes256, "kek"),
    ] {
        let before = create(&bench, new_key(name, usage, algorithm)).await.unwrap();
        let exported = export(&bench, name, kek).await.unwrap();
        let version = if kek == "kek" { 'D' } else { 'B' };
        assert!(exported.key_block.starts_with(version));
        assert!(!exported.key_block.contains("firstkey"), "the label stays here");
        let copy = format!("{name}-copy");
        let after = import(&bench, &copy, &exported.key_block, kek).await.unwrap();
        assert_eq!(
            (after.usage, after.algorithm, after.mode_of_use, &after.check_value),
            (before.usage, before.algorithm, before.mode_of_use, &before.check_value)
        );
        assert_eq!(
            (after.origin, after.exportability),
            (Origin::Imported, Exportability::Exportable)
        );
    }
    let weak = export(&bench, "bdk", "kbpk").await;
    assert_eq!(err(weak), refused(Reason::WrappingKeyTooWeak));
    let mut fixed = new_key("fixed", KeyUsage::MacCmac, Algorithm::Aes128);
    fixed.exportability = None;
    create(&bench, fixed).await.unwrap();
    assert_eq!(err(export(&bench, "fixed", "kek").await), refused(Reason::PolicyDenied));
}

#[tokio::test]
async fn nothing_leaves_a_live_realm_under_a_key_that_was_brought_in() {
    for (realm, leaves) in [(Realm::Dev, true), (Realm::Live, false)] {
        let opening = opening(Arc::new(MemoryStore::new()), HandClock::new());
        let opened =
            Vault::open_with(Opening { realm, ..opening }, beginning(Some(two_officers())));
        let vault = opened.await.unwrap();
        let begin = async |action| {
            vault.begin(&crate::vault::testing::caller(), action, "keys/x").await.unwrap()
        };
        for (name, usage) in [("kek", KeyUsage::KeyEncryption), ("pin", KeyUsage::PinEncryption)] {
            let mut work = begin(Action::CreateKey).await;
            work.create_key(new_key(name, usage, Algorithm::Aes256)).await.unwrap();
            work.commit().await.unwrap();
        }
        // The trojan: a wrapping key that who imports it knows.
        let kek = vault.wrapping_key("kek", Operation::Wrap).await.unwrap();
        let known = Key::<DataBoth>::generate(Algorithm::Aes256, &SystemRng::new()).unwrap();
        let header = Header::new(Version::D, *b"K0", b'A', b'B');
        let WrappingKey::Encryption(key) = &kek else { panic!("a K0") };
        let rng = &*vault.shared.core.rng;
        let block = keyblock::wrap(key.key(), &header, &material_of(&known), rng).unwrap();
        let mut work = begin(Action::ImportKey).await;
        let (key_block, attributes) = (String::from(block), KeyAttributes::default());
        let key_block = key_block.as_str();
        let name = "trojan".into();
        let (brings, start) = (Brings::Key(BTreeMap::new()), Start::Primary);
        let import = ImportKey { name, key_block, exportability: None, attributes, brings, start };
        work.import_key(import, &kek).await.unwrap();
        work.commit().await.unwrap();

        let trojan = vault.wrapping_key("trojan", Operation::Wrap).await.unwrap();
        for (wrapping, expected) in [(&kek, true), (&trojan, leaves)] {
            let mut work = begin(Action::ExportKey).await;
            let export = ExportKey { name: "pin", exportability: None };
            let exported = err(work.export_key(export, wrapping).await);
            let expected = if expected { Ok(()) } else { refused(Reason::PolicyDenied) };
            assert_eq!(exported, expected, "{realm:?}");
        }
        assert!(exchange::may_carry_out(Origin::Generated, realm));
    }
}

#[tokio::test]
async fn rights_only_tighten_on_import() {
    let bench = Bench::new().await;
    create(&bench, new_key("kek", KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    let block = wrapped(&bench, "kek", |header| header.exportability = b'N').await;
    let wrapping = bench.vault.wrapping_key("kek", Operation::Unwrap).await.unwrap();
    let mut work = bench.begin(Action::ImportKey).await;
    let import = ImportKey {
        name: "in".into(),
        key_block: &block,
        exportability: Some(Exportability::Exportable),
        attributes: KeyAttributes::default(),
        brings: Brings::Key(BTreeMap::new()),
        start: Start::Primary,
    };
    let loosened = work.import_key(import, &wrapping).await;
    assert_eq!(err(loosened), refused(Reason::PolicyDenied));
}

/// A D0 key of AES-128 in a block under a stored wrapping key, with a changed header.
async fn wrapped(bench: &Bench, kek: &str, change: impl FnOnce(&mut Header)) -> String {
    let wrapping = bench.vault.wrapping_key(kek, Operation::Wrap).await.unwrap();
    let WrappingKey::Encryption(kek) = wrapping else { panic!("the test uses K0") };
    let mut header = Header::new(Version::D, *b"D0", b'A', b'B');
    header.exportability = b'E';
    change(&mut header);
    let material = Material::copied_from(&[0x42; 16]);
    keyblock::wrap(kek.key(), &header, &material, &SystemRng::new()).unwrap().into()
}

#[tokio::test]
async fn the_import_rule_refuses_what_it_does_not_know() {
    let bench = Bench::new().await;
    create(&bench, new_key("kek", KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    let rejected = refused(Reason::KeyBlockRejected);
    let changes: [fn(&mut Header); 5] = [
        |header| header.usage = *b"V1",
        |header| header.usage = *b"10",
        |header| header.mode = b'S',
        |header| header.push(OptionalBlock::new(*b"KC", "01000000").unwrap()).unwrap(),
        |header| header.push(OptionalBlock::new(*b"HM", "21").unwrap()).unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let block = wrapped(&bench, "kek", change).await;
        assert_eq!(err(import(&bench, "in", &block, "kek").await), rejected, "change {number}");
    }
    let good = wrapped(&bench, "kek", |_| ()).await;
    for place in 0..good.len() {
        let mut octets = good.clone().into_bytes();
        octets[place] = if octets[place] == b'7' { b'8' } else { b'7' };
        let bad = String::from_utf8(octets).unwrap();
        assert_eq!(err(import(&bench, "in", &bad, "kek").await), rejected, "place {place}");
    }
    let derive = wrapped(&bench, "kek", |header| header.mode = b'X').await;
    assert_eq!(err(import(&bench, "in", &derive, "kek").await), rejected);
    assert!(import(&bench, "in", &good, "kek").await.is_ok());
}

#[tokio::test]
async fn optional_blocks_of_a_partner_stay_with_the_key() {
    let bench = Bench::new().await;
    create(&bench, new_key("kek", KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    let block = wrapped(&bench, "kek", |header| {
        header.push(OptionalBlock::new(*b"TS", "20261123000000Z").unwrap()).unwrap();
        header.push(OptionalBlock::new(*b"LB", "theirs").unwrap()).unwrap();
    })
    .await;
    import(&bench, "in", &block, "kek").await.unwrap();
    set_state(&bench, "in", KeyState::Suspended).await.unwrap();
    set_state(&bench, "in", KeyState::Active).await.unwrap();
    let exported = export(&bench, "in", "kek").await.unwrap();
    let (header, _) = Header::parse(&exported.key_block).unwrap();
    assert_eq!(header.find(*b"TS"), Some("20261123000000Z"));
    assert_eq!(header.find(*b"LB"), None);
    assert_eq!(header.find(*b"88"), None);
}

/// Puts a key into a state that no way may lead to from where it is.
async fn place(bench: &Bench, name: &str, state: KeyState) {
    let mut work = bench.begin(Action::SetKeyState).await;
    let mut found = read_key(work.core(), name).await.unwrap();
    let (material, kept) = at_rest::open(work.core(), &found.record).unwrap();
    found.record.state = state;
    found.record.key_block = match state {
        KeyState::Destroyed => None,
        _ => Some(at_rest::wrap(work.core(), &found.record, &material, &kept).unwrap()),
    };
    work.put(&found).unwrap();
    work.commit().await.unwrap();
}

#[tokio::test]
async fn only_a_key_in_use_serves_on_when_it_is_compromised() {
    let bench = Bench::new().await;
    for state in KeyState::ALL {
        let name = state.as_str().to_lowercase().replace('_', "-");
        let new = new_key(&name, KeyUsage::BaseDerivation, Algorithm::Aes128);
        let born = create(&bench, new).await.unwrap();
        place(&bench, &name, state).await;
        let serve_until = Some(born.created.plus_ms(SERVE_MS_MAX));
        let change = StateChange { state: KeyState::Compromised, serve_until };
        let mut work = bench.begin(Action::SetKeyState).await;
        let changed = work.set_key_state(&name, change).await;
        let expected = match state {
            KeyState::Active => Ok(()),
            // It had no time that could be shortened.
            KeyState::Compromised => refused(Reason::KeyNotActive),
            KeyState::Deactivated
            | KeyState::Destroyed
            | KeyState::PreActive
            | KeyState::Suspended => Err(Error::AttributeInvalid { name: "serve_until" }),
        };
        assert_eq!(err(changed), expected, "{state:?}");
        if expected.is_ok() {
            work.commit().await.unwrap();
        }
        let serves = bench.vault.key::<BaseDerivation>(&name, Operation::DeriveWorking).await;
        assert_eq!(serves.is_ok(), state == KeyState::Active, "{state:?}");
    }
}

#[tokio::test]
async fn a_live_realm_takes_no_published_key() {
    for (realm, accepted) in [(Realm::Dev, true), (Realm::Live, false)] {
        let opening = opening(Arc::new(MemoryStore::new()), HandClock::new());
        let opened =
            Vault::open_with(Opening { realm, ..opening }, beginning(Some(two_officers())));
        let vault = opened.await.unwrap();
        let core = &vault.shared.core;
        assert_eq!(core.sealer.realm(), realm);
        let sample = data_encoding::HEXUPPER.decode(b"0123456789ABCDEFFEDCBA9876543210").unwrap();
        let material = Material::copied_from(&sample);
        let key = Key::<DataBoth>::from_material(Algorithm::Tdes2, material).unwrap();
        let header = Header::new(Version::D, *b"B0", b'T', b'X');
        assert_eq!(create::is_acceptable(&header, &key, realm), accepted);
        let fresh = Key::<DataBoth>::generate(Algorithm::Aes128, &SystemRng::new()).unwrap();
        assert!(create::is_acceptable(&header, &fresh, realm));
        let mut labelled = header.clone();
        labelled.push(OptionalBlock::new(*b"LB", "DEV-ONLY sample").unwrap()).unwrap();
        assert_eq!(create::is_acceptable(&labelled, &fresh, realm), accepted);
    }
}

#[tokio::test]
async fn a_row_of_another_key_does_not_open() {
    let bench = Bench::new().await;
    create(&bench, new_key("one", KeyUsage::DataEncryption, Algorithm::Aes128)).await.unwrap();
    create(&bench, new_key("two", KeyUsage::DataEncryption, Algorithm::Aes128)).await.unwrap();
    let row = bench.store.get(KeyRecord::KIND, &key_id("one", 1)).await.unwrap().unwrap();
    let swap = Write {
        kind: KeyRecord::KIND,
        id: key_id("two", 1),
        expected: Expected::Version(1),
        change: Change::Put { index: None, sealed: row.sealed },
    };
    bench.store.commit(vec![vec![swap]], Box::new(|_| Vec::new())).await.unwrap();
    let error = bench.vault.key::<DataBoth>("two", Operation::Encrypt).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Internal);
}

#[tokio::test]
async fn a_key_block_of_an_older_epoch_or_other_attributes_does_not_unwrap() {
    let bench = Bench::new().await;
    create(&bench, new_key("k", KeyUsage::DataEncryption, Algorithm::Aes128)).await.unwrap();
    let old = bench.vault.key_record("k").await.unwrap().record;
    let core = &bench.vault.shared.core;
    let changes: [fn(&mut KeyRecord); 6] = [
        |record| record.epoch = 2,
        |record| record.name = "l".into(),
        |record| record.usage = KeyUsage::PinEncryption,
        |record| record.mode_of_use = ModeOfUse::Decrypt,
        |record| record.exportability = Exportability::NonExportable,
        |record| record.attributes.device_cap = 7,
    ];
    assert!(at_rest::unwrap(core, &old).is_ok());
    for (number, change) in changes.into_iter().enumerate() {
        let mut record = old.clone();
        change(&mut record);
        assert!(at_rest::unwrap(core, &record).is_err(), "change {number}");
    }
}

#[tokio::test]
async fn keys_are_listed_by_name() {
    let bench = Bench::new().await;
    for name in ["b", "a", "a-1", "c"] {
        create(&bench, new_key(name, KeyUsage::DataEncryption, Algorithm::Aes128)).await.unwrap();
    }
    let names = async |after, limit| {
        let found = bench.vault.list::<KeyRecord>(None, after, limit).await.unwrap();
        found.into_iter().map(|found| found.record.name).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 2).await, ["a", "a-1"]);
    assert_eq!(names(Some(key_id("a-1", u32::MAX).as_str()), 10).await, ["b", "c"]);
}
