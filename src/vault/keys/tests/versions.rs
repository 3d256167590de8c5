//! Versions of keys, their dates, and one record for one key.

use super::*;
use crate::vault::{StateChange, Vault};

fn rotation(name: &str, start: Start) -> Rotation {
    Rotation { name: name.into(), attributes: KeyAttributes::default(), start }
}

async fn rotate(bench: &Bench, rotation: Rotation) -> Result<DescribedKey, Error> {
    let mut work = bench.begin(Action::RotateKey).await;
    let rotated = work.rotate_key(rotation).await?;
    work.commit().await?;
    Ok(rotated)
}

async fn set_primary(bench: &Bench, version: u32) -> Result<DescribedKey, Error> {
    let mut work = bench.begin(Action::SetPrimaryVersion).await;
    let set = work.set_primary_version("zone", version).await?;
    work.commit().await?;
    Ok(set)
}

/// The number of the version that a name means, as it opens.
async fn opens(bench: &Bench, name: &str) -> Result<u32, Error> {
    let key = bench.vault.key::<PinEncryption>(name, Operation::Encrypt).await?;
    Ok(key.record().version)
}

#[tokio::test]
async fn a_name_means_the_primary_version_and_a_number_its_own() {
    let bench = Bench::new().await;
    let first =
        create(&bench, new_key("zone", KeyUsage::PinEncryption, Algorithm::Aes128)).await.unwrap();
    let second = rotate(&bench, rotation("zone", Start::Primary)).await.unwrap();
    assert_eq!((second.record.version, second.head.primary, second.head.latest), (2, 2, 2));
    assert_ne!(second.record.check_value, first.check_value);
    assert_eq!(second.record.attributes, first.attributes);
    let third = rotate(&bench, rotation("zone", Start::Active)).await.unwrap();
    assert_eq!(
        (third.record.state, third.head.primary, third.head.latest),
        (KeyState::Active, 2, 3)
    );
    let fourth = rotate(&bench, rotation("zone", Start::PreActive)).await.unwrap();
    assert_eq!((fourth.record.state, fourth.head.primary), (KeyState::PreActive, 2));
    assert_eq!(opens(&bench, "zone").await, Ok(2));
    for version in 1..=3 {
        assert_eq!(opens(&bench, &format!("zone/versions/{version}")).await, Ok(version));
    }
    assert_eq!(opens(&bench, "zone/versions/4").await, refused(Reason::KeyNotActive));
    for name in ["zone/versions/5", "zone/versions/0", "zone/versions/02", "zone/versions/"] {
        assert_eq!(opens(&bench, name).await, refused(Reason::KeyNotFound), "{name}");
    }

    // What is not in use does not become the primary one.
    assert_eq!(err(set_primary(&bench, 4).await), refused(Reason::KeyNotActive));
    set_state(&bench, "zone/versions/4", KeyState::Active).await.unwrap();
    set_primary(&bench, 4).await.unwrap();
    assert_eq!(opens(&bench, "zone").await, Ok(4));
    set_primary(&bench, 1).await.unwrap();
    set_state(&bench, "zone/versions/4", KeyState::Deactivated).await.unwrap();
    assert_eq!(err(set_primary(&bench, 4).await), refused(Reason::KeyNotActive));
    let bench = bench.restart().await;
    assert_eq!(opens(&bench, "zone").await, Ok(1));
    let other = rotate(&bench, rotation("none", Start::Primary)).await;
    assert_eq!(err(other), refused(Reason::KeyNotFound));
}

#[tokio::test]
async fn a_change_of_state_names_the_version_where_there_are_several() {
    let bench = Bench::new().await;
    create(&bench, new_key("zone", KeyUsage::PinEncryption, Algorithm::Aes128)).await.unwrap();
    set_state(&bench, "zone", KeyState::Suspended).await.unwrap();
    rotate(&bench, rotation("zone", Start::Primary)).await.unwrap();
    for name in ["zone", "zone/versions/01"] {
        assert!(set_state(&bench, name, KeyState::Suspended).await.is_err(), "{name}");
    }
    let vague = set_state(&bench, "zone", KeyState::Suspended).await;
    assert_eq!(err(vague), Err(Error::AttributeInvalid { name: "name" }));
    set_state(&bench, "zone/versions/1", KeyState::Active).await.unwrap();
    set_state(&bench, "zone/versions/2", KeyState::Suspended).await.unwrap();
    assert_eq!(opens(&bench, "zone").await, refused(Reason::KeyNotActive));
    assert_eq!(opens(&bench, "zone/versions/1").await, Ok(1));
}

#[tokio::test]
async fn a_version_has_its_own_dates_and_key_set_and_nothing_else() {
    let bench = Bench::new().await;
    let mut new = new_key("bdk", KeyUsage::BaseDerivation, Algorithm::Aes128);
    new.attributes.key_set_id = Some("12345678".into());
    new.attributes.not_after = Some(bench.vault.now().plus_ms(1_000));
    new.attributes.open = true;
    create(&bench, new).await.unwrap();
    let with = |change: fn(&mut KeyAttributes)| {
        let mut rotation = rotation("bdk", Start::Primary);
        rotation.attributes.key_set_id = Some("12345679".into());
        change(&mut rotation.attributes);
        rotation
    };
    for (name, bad) in [
        ("key_set_id", with(|own| own.key_set_id = None)),
        ("pin_formats_in", with(|own| own.pin_formats_in = vec![4])),
        ("mac_length_min_bytes", with(|own| own.mac_length_min_bytes = 4)),
        ("device_cap", with(|own| own.device_cap = 7)),
        ("open", with(|own| own.open = true)),
        ("not_before", with(|own| own.not_before = Some(UnixMillis(u64::MAX)))),
        (
            "expire_time",
            with(|own| {
                own.not_before = Some(UnixMillis(2));
                own.not_after = Some(UnixMillis(2));
            }),
        ),
        (
            "recipient_end_time",
            with(|own| {
                own.not_after = Some(UnixMillis(3));
                own.recipient_not_after = Some(UnixMillis(3));
            }),
        ),
    ] {
        let refused = rotate(&bench, bad).await;
        assert_eq!(err(refused), Err(Error::AttributeInvalid { name }), "{name}");
    }
    let taken = with(|own| own.key_set_id = Some("12345678".into()));
    assert_eq!(err(rotate(&bench, taken).await), refused(Reason::KeyAlreadyExists));
    let second = rotate(&bench, with(|_| {})).await.unwrap().record;
    assert!(second.attributes.open && second.attributes.not_after.is_none());
    for (set, version) in [([0x12, 0x34, 0x56, 0x78], 1), ([0x12, 0x34, 0x56, 0x79], 2)] {
        let found = bench.vault.key_of_set(&set).await.unwrap();
        assert_eq!(found, Some(format!("bdk/versions/{version}")));
    }
}

#[tokio::test]
async fn an_expired_key_starts_nothing_new() {
    let bench = Bench::new().await;
    let mut new = new_key("bdk", KeyUsage::BaseDerivation, Algorithm::Aes128);
    new.attributes.not_after = Some(bench.vault.now().plus_ms(1_000));
    create(&bench, new).await.unwrap();
    bench.clock.forward(1_001);
    let open = async |operation| err(bench.vault.key::<BaseDerivation>("bdk", operation).await);
    assert_eq!(open(Operation::DeriveInitial).await, refused(Reason::KeyNotActive));
    assert_eq!(open(Operation::DeriveWorking).await, Ok(()));
}

#[tokio::test]
async fn dates_are_judged_by_a_time_that_never_runs_back() {
    const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1_000;
    let bench = Bench::new().await;
    let now = bench.vault.now();
    let mut new = new_key("zone", KeyUsage::PinEncryption, Algorithm::Aes128);
    new.attributes.not_before = Some(now.plus_ms(1_000));
    new.attributes.not_after = Some(now.plus_ms(2_000));
    new.attributes.recipient_not_after = Some(now.plus_ms(3_000));
    create(&bench, new).await.unwrap();
    let may = async |bench: &Bench| {
        let mut told = Vec::new();
        for operation in [Operation::Encrypt, Operation::Decrypt] {
            told.push(bench.vault.key::<PinEncryption>("zone", operation).await.is_ok());
        }
        told
    };
    assert_eq!(may(&bench).await, [false, true], "it starts nothing before its time");
    bench.clock.forward(1_000);
    assert_eq!(may(&bench).await, [true, true]);
    bench.clock.forward(1_001);
    assert_eq!(may(&bench).await, [false, true], "it starts nothing more");
    bench.clock.forward(1_000);
    assert_eq!(may(&bench).await, [false, false], "it is over");
    // Any call leaves an event, and its time stays.
    bench.begin(Action::GetKey).await.commit().await.unwrap();
    bench.clock.back(YEAR_MS);
    assert_eq!(may(&bench).await, [false, false], "a clock that is set back revives nothing");
    let bench = bench.restart().await;
    assert_eq!(may(&bench).await, [false, false], "nor does a restart");
}

async fn live(store: Arc<MemoryStore>) -> Vault {
    let opening = Opening { realm: Realm::Live, ..opening(store, HandClock::new()) };
    Vault::open_with(opening, beginning(Some(two_officers()))).await.unwrap()
}

async fn import_into(vault: &Vault, name: &str, block: &str, brings: Brings) -> Result<(), Error> {
    let caller = crate::vault::testing::caller();
    let wrapping = vault.wrapping_key("kek", Operation::Unwrap).await?;
    let mut work = vault.begin(&caller, Action::ImportKey, format!("keys/{name}")).await?;
    let import = ImportKey {
        name: name.into(),
        key_block: block,
        exportability: None,
        attributes: KeyAttributes::default(),
        brings,
        start: Start::Primary,
    };
    match work.import_key(import, &wrapping).await {
        Ok(_) => work.commit().await.map(|_| ()),
        Err(error) => Err(work.refuse(error).await),
    }
}

/// A TDES key in a block of its own usage, its parity bits as they are told.
fn block_of(vault: &Vault, kek: &WrappingKey, usage: [u8; 2], octets: &[u8; 16]) -> String {
    let header = Header::new(Version::D, usage, b'T', if usage == *b"P0" { b'B' } else { b'C' });
    let WrappingKey::Encryption(kek) = kek else { panic!("a K0") };
    let material = Material::copied_from(octets);
    keyblock::wrap(kek.key(), &header, &material, vault.rng()).unwrap().into()
}

#[tokio::test]
async fn a_live_realm_takes_a_key_once_for_a_usage() {
    let vault = live(Arc::new(MemoryStore::new())).await;
    let caller = crate::vault::testing::caller();
    let mut work = vault.begin(&caller, Action::CreateKey, "keys/kek").await.unwrap();
    work.create_key(new_key("kek", KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    work.commit().await.unwrap();
    let kek = vault.wrapping_key("kek", Operation::Wrap).await.unwrap();
    let octets: [u8; 16] = *b"\x1c\x45\x02\x67\x89\x2c\xd3\xef\x40\x61\x8a\x04\xa8\xc1\xe3\x26";
    let other_parity = octets.map(|octet| octet ^ 1);
    let key = || Brings::Key(BTreeMap::new());
    let pin = block_of(&vault, &kek, *b"P0", &octets);
    let same = block_of(&vault, &kek, *b"P0", &other_parity);
    let mac = block_of(&vault, &kek, *b"M6", &octets);
    import_into(&vault, "one", &pin, key()).await.unwrap();
    let duplicate = refused(Reason::KeyDuplicate);
    assert_eq!(import_into(&vault, "two", &pin, key()).await, duplicate);
    assert_eq!(import_into(&vault, "two", &same, key()).await, duplicate, "parity makes no other");
    assert_eq!(import_into(&vault, "one", &pin, Brings::NextVersion).await, duplicate);
    let event = vault.events_after(0, 100).await.unwrap().pop().unwrap();
    assert_eq!(event.detail["duplicate_of"], "keys/one/versions/1");
    assert_eq!(import_into(&vault, "mac", &mac, key()).await, Ok(()), "of another usage");

    // Compromised it stays out under any name; destroyed it makes room.
    let set = async |name: &str, state| {
        let mut work = vault.begin(&caller, Action::SetKeyState, "keys/x").await.unwrap();
        let change = StateChange { state, serve_until: None };
        work.set_key_state(name, change).await.unwrap();
        work.commit().await.unwrap();
    };
    set("mac", KeyState::Compromised).await;
    assert_eq!(import_into(&vault, "mac-2", &mac, key()).await, duplicate);
    set("one", KeyState::Deactivated).await;
    assert_eq!(import_into(&vault, "two", &pin, key()).await, duplicate);
    set("one", KeyState::Destroyed).await;
    assert_eq!(import_into(&vault, "two", &same, key()).await, Ok(()));
}

#[tokio::test]
async fn a_next_version_is_brought_as_the_key_is_or_not_at_all() {
    let bench = Bench::new().await;
    let vault = &bench.vault;
    create(&bench, new_key("kek", KeyUsage::KeyEncryption, Algorithm::Aes256)).await.unwrap();
    let mut zone = new_key("zone", KeyUsage::PinEncryption, Algorithm::Tdes2);
    zone.exportability = None;
    create(&bench, zone).await.unwrap();
    let kek = vault.wrapping_key("kek", Operation::Wrap).await.unwrap();
    let octets: [u8; 16] = *b"\x1c\x45\x02\x67\x89\x2c\xd3\xef\x40\x61\x8a\x04\xa8\xc1\xe3\x26";
    let pin = block_of(vault, &kek, *b"P0", &octets);
    let mac = block_of(vault, &kek, *b"M6", &octets);
    let next = || Brings::NextVersion;
    let other = import_into(vault, "zone", &mac, next()).await;
    assert_eq!(other, refused(Reason::KeyUsageMismatch));
    assert_eq!(import_into(vault, "nobody", &pin, next()).await, refused(Reason::KeyNotFound));
    import_into(vault, "zone", &pin, next()).await.unwrap();
    let brought = vault.described_key("zone").await.unwrap();
    assert_eq!((brought.record.version, brought.head.primary), (2, 2));
    assert_eq!(brought.record.origin, Origin::Imported);
    assert_eq!(brought.record.exportability, Exportability::NonExportable);
    assert!(brought.record.carried_by.contains("kek/versions/1"));
}
