//! A rotation from its begin to its end: over every kind of row, under load, and through failures.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::store::{MemoryStore, Row, Store};
use super::super::testing::{Bench, Fault, FaultyStore, HandClock, Note, SHAMIR, caller};
use super::super::testing::{master_key, note, opening, two_officers};
use super::super::{
    AuditSettings, Budget, ClaimRequest, KeyAttributes, KeyRecord, KeyUsage, NewKey, OpenError,
    Opening, Operation, Purpose, RequestId, Start, StateChange,
};
use super::*;
use crate::key::Algorithm;
use crate::key::usage::PinEncryption;
use crate::vault::KeyState;

/// How long a call waits in these tests, and a retirement for it.
const PATIENCE: Duration = Duration::from_millis(300);

fn quick() -> AuditSettings {
    AuditSettings { patience: PATIENCE, ..AuditSettings::default() }
}

async fn rotate(vault: &Vault, octet: u8) -> Result<Committed, Error> {
    let work = vault.begin(&caller(), Action::CreateMasterKey, "masterKey").await?;
    work.commit_master_key(master_key(octet), SHAMIR).await
}

/// Waits until the previous master key is retired.
async fn retired(vault: &Vault) {
    let mut rotation = vault.shared.core.rotation.subscribe();
    let ended = tokio::time::timeout(Duration::from_mins(1), rotation.wait_for(Option::is_none));
    assert!(ended.await.unwrap().is_ok());
}

/// Opens the store of a bench again, under the master key of an octet.
async fn reopen(bench: Bench, octet: u8) -> Result<Bench, OpenError> {
    let Bench { vault, store, clock } = bench;
    vault.close().await;
    let vault = open(store.clone(), clock.clone(), octet).await?;
    Ok(Bench { vault, store, clock })
}

async fn open(store: Arc<dyn Store>, clock: Arc<HandClock>, octet: u8) -> Result<Vault, OpenError> {
    let opening =
        Opening { master_key: master_key(octet), audit: quick(), ..opening(store, clock) };
    Vault::open(opening).await
}

/// Every row of a store.
async fn rows(store: &dyn Store) -> BTreeMap<(Kind, String), Row> {
    let mut rows = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.survey(&[], after, LIST_LIMIT_MAX).await.unwrap();
        let Some(last) = page.last() else { return rows };
        after = Some((last.kind.clone(), last.id.clone()));
        for row in page {
            let kind = Kind::parse(&row.kind).unwrap();
            let found = store.get(kind, &row.id).await.unwrap().unwrap();
            rows.insert((kind, row.id), found);
        }
    }
}

/// A copy of a store, as a backup has it.
async fn copy(store: &dyn Store) -> Arc<FaultyStore> {
    let copy = FaultyStore::default();
    for ((kind, id), row) in rows(store).await {
        exchange(&copy.inner, kind, &id, Some(row)).await;
    }
    Arc::new(copy)
}

/// Puts a row, or none, in the place of one, as somebody with the disk in hand does.
async fn exchange(store: &MemoryStore, kind: Kind, id: &str, row: Option<Row>) {
    let write = |expected, change| Write { kind, id: id.to_owned(), expected, change };
    let mut batch = Vec::new();
    if let Some(found) = store.get(kind, id).await.unwrap() {
        batch.push(write(Expected::Version(found.version), Change::Delete));
    }
    let change = |row: &Row| Change::Put { index: row.index.clone(), sealed: row.sealed.clone() };
    if let Some(row) = row {
        batch.push(write(Expected::Absent, change(&row)));
        // The store counts the versions, so it is led up to the one that is wanted.
        for version in 1..row.version {
            batch.push(write(Expected::Version(version), change(&row)));
        }
    }
    let done = store.commit(vec![batch], Box::new(|_| Vec::new())).await.unwrap();
    assert!(done.iter().all(|outcome| outcome.is_applied()));
}

fn claim(rank: u64, input: &[u8]) -> ClaimRequest<'_> {
    ClaimRequest {
        key_name: "bdk",
        key_version: 1,
        initial_key_id: &[1, 2, 3, 4, 5, 6, 7, 8],
        purpose: Purpose::Pin,
        rank,
        input,
        first_anywhere: false,
    }
}

async fn create_key(bench: &Bench, name: &str) -> KeyRecord {
    let mut work = bench.begin(Action::CreateKey).await;
    let new = NewKey {
        name: name.into(),
        usage: KeyUsage::PinEncryption,
        algorithm: Algorithm::Aes128,
        mode_of_use: None,
        exportability: None,
        attributes: KeyAttributes::default(),
        labels: BTreeMap::new(),
        start: Start::Primary,
    };
    let made = work.create_key(new).await.unwrap();
    work.commit().await.unwrap();
    made.record
}

/// Writes a record of every kind that this room has.
async fn write_one_of_each(bench: &Bench) {
    assert!(bench.vault.install_policy(two_officers()).await.unwrap());
    create_key(bench, "zone").await;
    let mut work = bench.begin(Action::TranslatePin).await;
    work.put(&Versioned::absent(note("a", "one"))).unwrap();
    work.claim(claim(1, b"input")).await.unwrap();
    work.allocate("bdk/1", 100).await.unwrap();
    work.remember(RequestId { id: "request", body_hash: &[1; 32] }, &7).await.unwrap();
    work.commit().await.unwrap();
    let mut work = bench.begin(Action::TranslatePin).await;
    work.reserve(Budget::Pin, &[b"subject"]).await.unwrap();
    work.commit_refused(Reason::PinBlockRejected).await;
    bench.vault.checkpoint().await.unwrap();
    bench.vault.examine_audit().await.unwrap();
}

/// What is in each row, and its version.
fn opened(core: &Core, rows: &BTreeMap<(Kind, String), Row>) -> BTreeMap<String, (u64, Vec<u8>)> {
    let sealed = rows.iter().filter(|((kind, _), _)| *kind != Custody::KIND);
    sealed
        .map(|((kind, id), row)| {
            let plain = core.open_bytes(*kind, id, row).unwrap();
            (format!("{}/{id}", kind.as_str()), (row.version, plain.to_vec()))
        })
        .collect()
}

#[tokio::test]
async fn every_kind_of_row_is_sealed_anew_and_says_what_it_said() {
    let bench = Bench::with(quick()).await;
    write_one_of_each(&bench).await;
    let vault = &bench.vault;
    let core = &vault.shared.core;
    let place = vault.seal_place(&caller(), Action::ListKeys, "zone").unwrap();
    let before = rows(&*bench.store).await;
    let said = opened(core, &before);
    let kinds: std::collections::BTreeSet<_> = before.keys().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), 15, "{kinds:?}");
    let key = vault.key::<PinEncryption>("zone", Operation::Encrypt).await.unwrap();

    let first = Arc::downgrade(&core.sealer.current());
    rotate(vault, 8).await.unwrap();
    let progress = vault.rotation().unwrap();
    assert_eq!((vault.generation(), progress.from, progress.to), (2, 1, 2));
    retired(vault).await;
    assert_eq!(vault.rotation(), None);
    assert!(first.upgrade().is_none(), "its page is wiped");

    let after = rows(&*bench.store).await;
    for ((kind, id), row) in &after {
        let expected = (*kind != Custody::KIND).then_some(2);
        assert_eq!(generation_of(&row.sealed), expected, "{kind:?} {id}");
    }
    let says = opened(core, &after);
    let head = format!("chain/{}", core.node);
    for (address, (version, plain)) in &said {
        let (version_now, plain_now) = &says[address];
        // The head goes on with the events, and a key's block is another one of the same key.
        if *address == head || address.starts_with("checkpoint/") {
            continue;
        }
        assert_eq!(version_now, version, "{address}");
        assert_eq!(plain_now == plain, !address.starts_with("key/"), "{address}");
    }
    let same = vault.key::<PinEncryption>("zone", Operation::Encrypt).await.unwrap();
    assert_eq!(same.key().expose_bytes(), key.key().expose_bytes());
    assert_eq!(same.record().check_value, key.record().check_value);
    assert_eq!(same.versioned().version, key.versioned().version);
    let head = vault.key_head("zone").await.unwrap();
    let described = |key: &KeyRecord| key.clone().described(head.clone());
    assert_eq!(described(same.record()), described(key.record()));
    assert_ne!(same.record(), key.record(), "its block is another");

    let place = vault.open_place(&caller(), Action::ListKeys, &place);
    assert_eq!(place.as_deref(), Some("zone"), "a list goes on");
    vault.verify_chain().await.unwrap();
    let events = vault.events_after(0, 100).await.unwrap();
    let told: Vec<_> = events.iter().rev().take(2).map(|event| &*event.action).collect();
    assert_eq!(told, ["RetireMasterKey", "CreateMasterKey"]);
    let detail = &events[events.len() - 2].detail;
    let detail = ["generation", "seal", "set_id", "threshold", "shares"].map(|name| &*detail[name]);
    assert_eq!(detail, ["2", "shamir", "01020304", "3", "5"]);
    assert_eq!(events[events.len() - 1].detail["generation"], "1");

    let bench = reopen(bench, 8).await.unwrap();
    // What is found by keyed hashes is found.
    let mut work = bench.begin(Action::TranslatePin).await;
    assert_eq!(work.claim(claim(1, b"other")).await, Err(Reason::KsnReplayed.into()));
    drop(work);
    let request = RequestId { id: "request", body_hash: &[1; 32] };
    let again = bench.vault.recall::<u8>(&caller(), Action::TranslatePin, request).await;
    assert_eq!(again, Ok(Some(7)));
    assert_eq!(reopen(bench, 7).await.err(), Some(OpenError::SealedOtherwise));
}

#[tokio::test]
async fn there_is_one_rotation_at_a_time_and_a_seal_that_does_not_fit_begins_none() {
    let bench = Bench::with(quick()).await;
    let unfit = Seal::Shamir { set_id: [0; 4], threshold: 1, shares: 5 };
    let work = bench.begin(Action::CreateMasterKey).await;
    let refused = work.commit_master_key(master_key(8), unfit).await;
    assert_eq!(refused, Err(Error::AttributeInvalid { name: "seal" }));
    rotate(&bench.vault, 8).await.unwrap();
    assert_eq!(rotate(&bench.vault, 9).await, Err(Reason::RotationUnderWay.into()));
    retired(&bench.vault).await;
    rotate(&bench.vault, 9).await.unwrap();
    // Two at once: the second finds that the first was quicker.
    let bench = Bench::with(quick()).await;
    let both = tokio::join!(rotate(&bench.vault, 8), rotate(&bench.vault, 9));
    let won = [both.0.is_ok(), both.1.is_ok()];
    assert!(won == [true, false] || won == [false, true], "{both:?}");
    let octet = if won[0] { 8 } else { 9 };
    reopen(bench, octet).await.unwrap();
}

#[tokio::test]
async fn a_rotation_goes_on_where_it_was_left() {
    let mut bench = Bench::with(quick()).await;
    for number in 0..500 {
        let mut work = bench.begin(Action::CreateProfile).await;
        work.put(&Versioned::absent(note(&format!("{number:03}"), "x"))).unwrap();
        work.commit().await.unwrap();
    }
    rotate(&bench.vault, 8).await.unwrap();
    let mut opens = 0;
    while bench.vault.rotation().is_some() {
        tokio::time::sleep(Duration::from_millis(20 * opens)).await;
        bench = reopen(bench, 8).await.unwrap();
        assert_eq!(bench.vault.generation(), 2);
        opens += 1;
    }
    assert!(opens > 2, "{opens}");
    let left = rows(&*bench.store).await.into_values();
    assert_eq!(left.filter(|row| generation_of(&row.sealed) == Some(1)).count(), 0);
    bench.vault.verify_chain().await.unwrap();
}

#[tokio::test]
async fn a_commit_of_no_known_end_is_a_rotation_or_none() {
    for (fault, octet) in [(Fault::Before, 7), (Fault::After, 8)] {
        let bench = Bench::with(quick()).await;
        write_one_of_each(&bench).await;
        bench.store.fail(fault);
        assert_eq!(rotate(&bench.vault, 8).await, Err(Error::Unavailable));
        bench.store.fail(Fault::None);
        // The next that is written finds out; until then the master key before is as good.
        bench.vault.examine_audit().await.unwrap();
        assert_eq!(bench.vault.generation(), if octet == 8 { 2 } else { 1 });
        create_key(&bench, "another").await;
        if octet == 8 {
            retired(&bench.vault).await;
        }
        let bench = reopen(bench, octet).await.unwrap();
        assert!(bench.vault.key::<PinEncryption>("another", Operation::Encrypt).await.is_ok());
        assert!(reopen(bench, 15 - octet).await.is_err());
        // The same, and the service ends before it finds out.
        let bench = Bench::with(quick()).await;
        bench.store.fail(fault);
        assert_eq!(rotate(&bench.vault, 8).await, Err(Error::Unavailable));
        bench.store.fail(Fault::None);
        reopen(bench, octet).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_prepared_before_is_written_under_the_new_master_key() {
    let bench = Bench::with(quick()).await;
    create_key(&bench, "zone").await;
    create_key(&bench, "late").await;
    let core = &bench.vault.shared.core;
    let mut prepared = bench.begin(Action::CreateProfile).await;
    prepared.put(&Versioned::absent(note("a", "one"))).unwrap();
    let mut change = bench.begin(Action::SetKeyState).await;
    let state = StateChange { state: KeyState::Suspended, serve_until: None };
    change.set_key_state("zone", state).await.unwrap();
    let read = bench.vault.key_record("zone").await.unwrap();
    let kept = bench.vault.key_record("late").await.unwrap();
    let mut late = bench.begin(Action::CreateProfile).await;
    late.put(&Versioned::absent(note("late", "x"))).unwrap();

    rotate(&bench.vault, 8).await.unwrap();
    prepared.commit().await.unwrap();
    change.commit().await.unwrap();
    let row = core.row(Note::KIND, "a").await.unwrap().unwrap();
    assert_eq!(generation_of(&row.sealed), Some(2));
    // A record that was read before, with the key block that it had then.
    let mut work = bench.begin(Action::SetKeyState).await;
    work.put(&kept).unwrap();
    work.commit().await.unwrap();
    for (name, state) in [("zone", KeyState::Suspended), ("late", KeyState::Active)] {
        let found = bench.vault.key_record(name).await.unwrap();
        assert_eq!(found.record.state, state);
        assert_ne!(found.record, read.record);
    }
    retired(&bench.vault).await;
    assert!(bench.vault.key::<PinEncryption>("late", Operation::Encrypt).await.is_ok());
    // Whoever takes longer than a whole rotation begins anew, and nothing was done.
    assert_eq!(late.commit().await, Err(Error::Conflict));
    let mut later = bench.begin(Action::SetKeyState).await;
    let version = bench.vault.key_record("late").await.unwrap().version;
    later.put(&Versioned { version, ..kept }).unwrap();
    assert_eq!(later.commit().await, Err(Error::Conflict));
    reopen(bench, 8).await.unwrap();
}

#[tokio::test]
async fn an_older_copy_opens_under_the_older_master_key_alone() {
    let bench = Bench::with(quick()).await;
    create_key(&bench, "doomed").await;
    let copied = copy(&*bench.store).await;
    let mut work = bench.begin(Action::SetKeyState).await;
    for state in [KeyState::Deactivated, KeyState::Destroyed] {
        let change = StateChange { state, serve_until: None };
        work.set_key_state("doomed", change).await.unwrap();
        work.commit().await.unwrap();
        work = bench.begin(Action::SetKeyState).await;
    }
    drop(work);
    rotate(&bench.vault, 8).await.unwrap();
    retired(&bench.vault).await;

    let opened = open(copied.clone(), HandClock::new(), 8).await;
    assert_eq!(opened.err(), Some(OpenError::SealedOtherwise));
    // With what the store says of its master key now, and with all of today but the key itself.
    let today = rows(&*bench.store).await;
    let doomed = (KeyRecord::KIND, "doomed#0000000001".to_owned());
    let found = rows(&*copied).await.remove(&doomed).unwrap();
    assert!(bench.vault.shared.core.open_bytes(doomed.0, &doomed.1, &found).is_err());
    let mixed = copy(&*copied).await;
    let custody = today[&(Custody::KIND, Custody::ID.to_owned())].clone();
    exchange(&mixed.inner, Custody::KIND, Custody::ID, Some(custody)).await;
    assert!(open(mixed, HandClock::new(), 8).await.is_err());
    let mixed = copy(&*bench.store).await;
    exchange(&mixed.inner, doomed.0, &doomed.1, Some(found)).await;
    assert_eq!(open(mixed, HandClock::new(), 8).await.err(), Some(OpenError::StoreAltered));

    let vault = open(copied, HandClock::new(), 7).await.unwrap();
    assert!(vault.key::<PinEncryption>("doomed", Operation::Encrypt).await.is_ok(), "the control");
    let gone = bench.vault.key::<PinEncryption>("doomed", Operation::Encrypt).await.err();
    assert_eq!(gone, Some(Reason::KeyNotActive.into()));
}

#[tokio::test]
async fn a_row_that_is_set_back_in_the_middle_is_found_and_not_sealed_anew() {
    let bench = Bench::with(quick()).await;
    let mut first = None;
    for text in ["one", "two"] {
        let found = bench.vault.get::<Note>("a").await.unwrap();
        first = bench.store.get(Note::KIND, "a").await.unwrap();
        let mut work = bench.begin(Action::CreateProfile).await;
        let version = found.and_then(|found| found.version);
        work.put(&Versioned { version, record: note("a", text) }).unwrap();
        work.commit().await.unwrap();
    }
    exchange(&bench.store.inner, Note::KIND, "a", first.clone()).await;
    rotate(&bench.vault, 8).await.unwrap();
    tokio::time::sleep(PATIENCE * 3).await;
    // What is left is not what was written last, so nothing is retired.
    let left = bench.vault.rotation().unwrap();
    assert_eq!((left.from, left.rows_left), (1, 1));
    assert_eq!(bench.store.get(Note::KIND, "a").await.unwrap(), first);
    assert!(bench.vault.get::<Note>("a").await.is_err());
    let Bench { vault, store, clock } = bench;
    vault.close().await;
    let opened = open(store.clone(), clock.clone(), 8).await;
    assert_eq!(opened.err(), Some(OpenError::StoreAltered));
    // Back with what custody was before, and the master key that it asks for.
    let before = Custody::new(1, Realm::Dev, Seal::Dev, &master_key(7));
    let write = Custody::write(&Versioned { version: Some(2), record: before }).unwrap();
    store.inner.commit(vec![vec![write]], Box::new(|_| Vec::new())).await.unwrap();
    assert!(open(store, clock, 7).await.is_err());
}

/// Calls of many kinds at once, none of which may fail while rotations pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_because_of_a_rotation() {
    let patience = Duration::from_secs(3);
    let bench = Bench::with(AuditSettings { patience, ..quick() }).await;
    for number in 0..200 {
        let mut work = bench.begin(Action::CreateProfile).await;
        work.put(&Versioned::absent(note(&format!("ballast-{number:03}"), "x"))).unwrap();
        work.commit().await.unwrap();
    }
    create_key(&bench, "zone").await;
    let vault = Arc::new(bench.vault);
    let ended = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for number in 0..6_u64 {
        let (vault, ended) = (Arc::clone(&vault), Arc::clone(&ended));
        callers.push(tokio::spawn(async move {
            for rank in 0.. {
                if ended.load(Ordering::Relaxed) {
                    return rank;
                }
                call(&vault, number, rank).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            0
        }));
    }
    for octet in [8, 9] {
        rotate(&vault, octet).await.unwrap();
        retired(&vault).await;
    }
    ended.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 10);
    }
    vault.verify_chain().await.unwrap();
    let vault = Arc::into_inner(vault).unwrap();
    let bench = reopen(Bench { vault, store: bench.store, clock: bench.clock }, 9).await.unwrap();
    assert_eq!(bench.vault.generation(), 3);
}

/// Reads, uses a key, spends a counter, changes a record of its own and deletes another.
async fn call(vault: &Vault, number: u64, rank: u64) -> Result<(), Error> {
    let key = vault.key::<PinEncryption>("zone", Operation::Encrypt).await?;
    let own = format!("own-{number}");
    let before = vault.get::<Note>(&own).await?;
    let rank_bytes = rank.to_be_bytes();
    let mut work = vault.begin(&caller(), Action::TranslatePin, "keys/zone").await?;
    work.uses(&key);
    let initial_key_id = [&[0; 4][..], &number.to_be_bytes()[4..]].concat();
    let request = ClaimRequest { initial_key_id: &initial_key_id, ..claim(rank + 1, &rank_bytes) };
    work.claim(request).await?;
    let version = before.and_then(|note| note.version);
    work.put(&Versioned { version, record: note(&own, &rank.to_string()) })?;
    let passing = format!("passing-{number}");
    match vault.get::<Note>(&passing).await? {
        Some(found) => work.delete(&found),
        None => work.put(&Versioned::absent(note(&passing, "x")))?,
    }
    work.commit().await?;
    vault.list::<Note>(None, None, 50).await?;
    vault.events_after(rank, 20).await?;
    Ok(())
}
