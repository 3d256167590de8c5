//! The contract that every store keeps, run over each of them.

#![allow(clippy::unwrap_used, reason = "a test that can not go on stops")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use firstkey::crypto::rng::SystemRng;
use firstkey::memory::SecretPage;
use firstkey::vault::store::{
    Batch, Change, Expected, IndexFilter, LIST_LIMIT_MAX, MemoryStore, Outcome, Query, Row,
    SqliteStore, Store, StoreError, Surveyed, Tail, Write,
};
use firstkey::vault::{
    Action, AuditSettings, Caller, ClaimRequest, Clock, Error, Kind, MasterKey, Opening, Purpose,
    Realm, Reason, UnixMillis, Vault,
};

const A: Kind = Kind::new("a");
const B: Kind = Kind::new("b");

/// Each rule of the contract as a test of each store.
macro_rules! contract {
    ($($rule:ident,)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(&super::MemoryStore::new()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $rule() {
                let folder = super::Folder::new();
                super::$rule(&super::SqliteStore::open(&folder.0).unwrap()).await;
            })*
        }
    };
}

contract! {
    a_row_is_read_as_it_was_put,
    a_put_needs_what_it_expects,
    a_batch_is_applied_whole_or_not,
    one_conflict_in_a_group_fails_alone,
    a_later_batch_sees_an_earlier_one,
    a_check_changes_nothing,
    a_deleted_row_is_gone_and_may_come_again,
    a_row_is_sealed_anew_in_its_version_if_it_is_what_was_read,
    the_tail_is_told_what_was_applied,
    a_tail_that_conflicts_fails_the_commit,
    lists_are_paged_in_byte_order,
    lists_are_filtered_by_index,
    of_many_writers_one_wins,
    a_survey_tells_rows_apart_without_their_content,
}

async fn a_row_is_read_as_it_was_put(store: &dyn Store) {
    assert_eq!(store.get(A, "x").await, Ok(None));
    let sealed: Vec<u8> = (0..=255).collect();
    let change = Change::Put { index: Some("i".into()), sealed: sealed.clone() };
    apply(store, vec![write(A, "x", Expected::Absent, change)]).await;
    let row = Row { id: "x".into(), version: 1, index: Some("i".into()), sealed };
    assert_eq!(store.get(A, "x").await, Ok(Some(row)));
    assert_eq!(store.get(B, "x").await, Ok(None), "kinds do not mix");
}

async fn a_survey_tells_rows_apart_without_their_content(store: &dyn Store) {
    const NONE: &[Kind] = &[];
    const WITHOUT_A: &[Kind] = &[A];
    let sealed: Vec<u8> = (0..=255).collect();
    let change = || Change::Put { index: Some("i".into()), sealed: sealed.clone() };
    for (kind, id) in [(B, "x"), (A, "y"), (A, "x")] {
        apply(store, vec![write(kind, id, Expected::Absent, change())]).await;
    }
    apply(store, vec![put(A, "y", Expected::Version(1), 7)]).await;
    let [x, y, bx] = [
        Surveyed::of(A, "x", 1, &sealed),
        Surveyed::of(A, "y", 2, &[7]),
        Surveyed::of(B, "x", 1, &sealed),
    ];
    assert_eq!((x.beginning.len(), y.beginning.len()), (Surveyed::BEGINNING_LEN_BYTES, 1));
    let all = store.survey(NONE, None, 10).await.unwrap();
    assert_eq!(all, [x.clone(), y.clone(), bx.clone()]);
    assert_eq!(store.survey(WITHOUT_A, None, 10).await, Ok(vec![bx.clone()]));
    let after = |row: &Surveyed| Some((row.kind.clone(), row.id.clone()));
    assert_eq!(store.survey(NONE, None, 2).await.unwrap(), [x.clone(), y.clone()]);
    assert_eq!(store.survey(NONE, after(&y), 2).await, Ok(vec![bx.clone()]));
    assert_eq!(store.survey(NONE, after(&bx), 2).await.unwrap(), []);
}

async fn a_put_needs_what_it_expects(store: &dyn Store) {
    assert!(one(store, vec![put(A, "x", Expected::Absent, 1)]).await.is_applied());
    for wrong in [Expected::Absent, Expected::Version(2), Expected::Version(0)] {
        let outcome = one(store, vec![put(A, "x", wrong, 9)]).await;
        assert_eq!(outcome, Outcome::Conflict { write: 0 }, "{wrong:?}");
    }
    assert!(one(store, vec![put(A, "x", Expected::Version(1), 2)]).await.is_applied());
    let row = store.get(A, "x").await.unwrap().unwrap();
    assert_eq!((row.version, row.sealed), (2, vec![2]));
    let missing = one(store, vec![put(A, "y", Expected::Version(1), 1)]).await;
    assert_eq!(missing, Outcome::Conflict { write: 0 });
}

async fn a_batch_is_applied_whole_or_not(store: &dyn Store) {
    apply(store, vec![put(A, "x", Expected::Absent, 1), put(A, "gone", Expected::Absent, 1)]).await;
    let batch = vec![
        put(A, "x", Expected::Version(1), 2),
        put(A, "new", Expected::Absent, 1),
        write(A, "gone", Expected::Version(1), Change::Delete),
        put(A, "x", Expected::Version(7), 3),
    ];
    assert_eq!(one(store, batch).await, Outcome::Conflict { write: 3 });
    assert_eq!(store.get(A, "x").await.unwrap().unwrap().version, 1);
    assert_eq!(store.get(A, "new").await, Ok(None));
    assert!(store.get(A, "gone").await.unwrap().is_some());
}

async fn one_conflict_in_a_group_fails_alone(store: &dyn Store) {
    apply(store, vec![put(A, "taken", Expected::Absent, 1)]).await;
    let outcomes = store
        .commit(
            vec![
                vec![put(A, "first", Expected::Absent, 1)],
                vec![put(A, "half", Expected::Absent, 1), put(A, "taken", Expected::Absent, 2)],
                vec![put(A, "last", Expected::Absent, 1)],
            ],
            no_tail(),
        )
        .await
        .unwrap();
    let conflict = Outcome::Conflict { write: 1 };
    assert_eq!(outcomes, [Outcome::Applied, conflict, Outcome::Applied]);
    assert!(store.get(A, "first").await.unwrap().is_some());
    assert_eq!(store.get(A, "half").await, Ok(None));
    assert!(store.get(A, "last").await.unwrap().is_some());
}

async fn a_later_batch_sees_an_earlier_one(store: &dyn Store) {
    let outcomes = store
        .commit(
            vec![
                vec![put(A, "x", Expected::Absent, 1)],
                vec![put(A, "x", Expected::Absent, 2)],
                vec![put(A, "x", Expected::Version(1), 3)],
            ],
            no_tail(),
        )
        .await
        .unwrap();
    let conflict = Outcome::Conflict { write: 0 };
    assert_eq!(outcomes, [Outcome::Applied, conflict, Outcome::Applied]);
    assert_eq!(store.get(A, "x").await.unwrap().unwrap().sealed, [3]);
}

async fn a_check_changes_nothing(store: &dyn Store) {
    apply(store, vec![put(A, "x", Expected::Absent, 1)]).await;
    let check = |expected| vec![write(A, "x", expected, Change::Check)];
    assert!(one(store, check(Expected::Version(1))).await.is_applied());
    assert!(!one(store, check(Expected::Version(2))).await.is_applied());
    assert!(!one(store, check(Expected::Absent)).await.is_applied());
    let absent = vec![write(A, "y", Expected::Absent, Change::Check)];
    assert!(one(store, absent).await.is_applied());
    assert_eq!(store.get(A, "x").await.unwrap().unwrap().version, 1);
}

async fn a_row_is_sealed_anew_in_its_version_if_it_is_what_was_read(store: &dyn Store) {
    let index = Some("i".to_owned());
    let put_x = Change::Put { index: index.clone(), sealed: vec![1] };
    apply(store, vec![write(A, "x", Expected::Absent, put_x)]).await;
    let anew = |expected, from: u8, to: u8| {
        vec![write(A, "x", expected, Change::Reseal { from: vec![from], to: vec![to] })]
    };
    apply(store, anew(Expected::Version(1), 1, 2)).await;
    let row = Row { id: "x".into(), version: 1, index, sealed: vec![2] };
    assert_eq!(store.get(A, "x").await, Ok(Some(row.clone())));
    for (expected, from) in
        [(Expected::Version(1), 1), (Expected::Version(2), 2), (Expected::Absent, 2)]
    {
        let outcome = one(store, anew(expected, from, 9)).await;
        assert_eq!(outcome, Outcome::Conflict { write: 0 }, "{expected:?} {from}");
    }
    // What it did to the rows before it is undone with it.
    let batch = [vec![put(B, "y", Expected::Absent, 1)], anew(Expected::Version(1), 1, 9)];
    assert_eq!(one(store, batch.concat()).await, Outcome::Conflict { write: 1 });
    assert_eq!(store.get(B, "y").await, Ok(None));
    assert_eq!(store.get(A, "x").await, Ok(Some(row)));
    // For whoever has read it, it is the same.
    apply(store, vec![put(A, "x", Expected::Version(1), 3)]).await;
}

async fn a_deleted_row_is_gone_and_may_come_again(store: &dyn Store) {
    apply(store, vec![put(A, "x", Expected::Absent, 1)]).await;
    let delete = |version| vec![write(A, "x", Expected::Version(version), Change::Delete)];
    assert!(!one(store, delete(2)).await.is_applied());
    assert!(one(store, delete(1)).await.is_applied());
    assert_eq!(store.get(A, "x").await, Ok(None));
    assert!(!one(store, delete(1)).await.is_applied());
    assert!(one(store, vec![put(A, "x", Expected::Absent, 2)]).await.is_applied());
}

async fn the_tail_is_told_what_was_applied(store: &dyn Store) {
    apply(store, vec![put(A, "taken", Expected::Absent, 1)]).await;
    let tail: Tail = Box::new(|applied: &[bool]| {
        let told: Vec<u8> = applied.iter().map(|applied| u8::from(*applied)).collect();
        let change = Change::Put { index: None, sealed: told };
        vec![write(B, "told", Expected::Absent, change)]
    });
    let batches = vec![
        vec![put(A, "x", Expected::Absent, 1)],
        vec![put(A, "taken", Expected::Absent, 1)],
        Vec::new(),
    ];
    store.commit(batches, tail).await.unwrap();
    assert_eq!(store.get(B, "told").await.unwrap().unwrap().sealed, [1, 0, 1]);
}

async fn a_tail_that_conflicts_fails_the_commit(store: &dyn Store) {
    apply(store, vec![put(B, "head", Expected::Absent, 1)]).await;
    let tail: Tail = Box::new(|_: &[bool]| {
        vec![put(B, "event", Expected::Absent, 1), put(B, "head", Expected::Absent, 2)]
    });
    let failed = store.commit(vec![vec![put(A, "x", Expected::Absent, 1)]], tail).await;
    assert_eq!(failed, Err(StoreError::Unavailable));
    assert_eq!(store.get(A, "x").await, Ok(None));
    assert_eq!(store.get(B, "event").await, Ok(None));
}

async fn lists_are_paged_in_byte_order(store: &dyn Store) {
    let mut ids: Vec<String> = (0..LIST_LIMIT_MAX + 7).map(|n| format!("id/{n}")).collect();
    ids.push("\u{e9}".into());
    let batch = ids.iter().map(|id| put(A, id, Expected::Absent, 1)).collect();
    apply(store, batch).await;
    apply(store, vec![put(B, "id/1", Expected::Absent, 1)]).await;
    ids.sort();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let query = Query { kind: A, index: IndexFilter::Any, after, limit: usize::MAX };
        let page = store.list(query).await.unwrap();
        assert!(page.len() <= LIST_LIMIT_MAX);
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        seen.extend(page.into_iter().map(|row| row.id));
    }
    assert_eq!(seen, ids);
    let three = Query { kind: A, index: IndexFilter::Any, after: None, limit: 3 };
    assert_eq!(store.list(three).await.unwrap().len(), 3);
}

async fn lists_are_filtered_by_index(store: &dyn Store) {
    for (id, index) in [("1", Some("a")), ("2", Some("b")), ("3", None), ("4", Some("b"))] {
        let change = Change::Put { index: index.map(str::to_owned), sealed: vec![1] };
        apply(store, vec![write(A, id, Expected::Absent, change)]).await;
    }
    let found = async |index, after: Option<&str>| {
        let query = Query { kind: A, index, after: after.map(str::to_owned), limit: 10 };
        let rows = store.list(query).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(found(IndexFilter::Any, None).await, ["1", "2", "3", "4"]);
    assert_eq!(found(IndexFilter::Equals("b".into()), None).await, ["2", "4"]);
    assert_eq!(found(IndexFilter::Equals("b".into()), Some("2")).await, ["4"]);
    assert_eq!(found(IndexFilter::UpTo("a".into()), None).await, ["1"]);
    assert_eq!(found(IndexFilter::UpTo("b".into()), None).await, ["1", "2", "4"]);
    apply(store, vec![put(A, "2", Expected::Version(1), 1)]).await;
    let after_change = found(IndexFilter::Equals("b".into()), None).await;
    assert_eq!(after_change, ["4"], "a put sets the index anew");
}

async fn of_many_writers_one_wins(store: &dyn Store) {
    let mut winners = 0;
    let commits =
        (0..20).map(|n| store.commit(vec![vec![put(A, "x", Expected::Absent, n)]], no_tail()));
    for commit in commits.collect::<Vec<_>>() {
        winners += usize::from(commit.await.unwrap()[0].is_applied());
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn sqlite_keeps_what_it_acknowledged() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.0).unwrap();
    apply(&store, vec![put(A, "x", Expected::Absent, 5)]).await;
    drop(store);
    let store = SqliteStore::open(&folder.0).unwrap();
    assert_eq!(store.get(A, "x").await.unwrap().unwrap().sealed, [5]);
}

#[tokio::test]
async fn sqlite_is_opened_once() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.0).unwrap();
    assert_eq!(SqliteStore::open(&folder.0).err(), Some(StoreError::InUse));
    drop(store);
    assert!(SqliteStore::open(&folder.0).is_ok());
}

#[tokio::test]
async fn sqlite_closes_its_folder_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let _store = SqliteStore::open(&folder.0).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.0), 0o700);
    assert_eq!(mode(&folder.0.join("firstkey.sqlite3")), 0o600);
    assert_eq!(mode(&folder.0.join("firstkey.lock")), 0o600);
}

#[tokio::test]
async fn sqlite_refuses_the_store_of_another_release_and_says_which() {
    for (found, refusal) in [
        (1, StoreError::SchemaTooOld { found: 1, known: 4 }),
        (3, StoreError::SchemaTooOld { found: 3, known: 4 }),
        (5, StoreError::SchemaTooNew { found: 5, known: 4 }),
    ] {
        let folder = Folder::new();
        drop(SqliteStore::open(&folder.0).unwrap());
        let file = rusqlite::Connection::open(folder.0.join("firstkey.sqlite3")).unwrap();
        file.execute("UPDATE schema SET version = ?1", [found]).unwrap();
        drop(file);
        assert_eq!(SqliteStore::open(&folder.0).err(), Some(refusal));
    }
}

#[tokio::test]
async fn sqlite_that_is_damaged_is_unavailable() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.0).unwrap();
    for n in 0..200 {
        apply(&store, vec![put(A, &format!("{n}"), Expected::Absent, 1)]).await;
    }
    drop(store);
    let path = folder.0.join("firstkey.sqlite3");
    let len = path.metadata().unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(len / 2 + 100).unwrap();
    match SqliteStore::open(&folder.0) {
        Ok(store) => {
            let query = Query { kind: A, index: IndexFilter::Any, after: None, limit: 1_000 };
            assert_eq!(store.list(query).await, Err(StoreError::Unavailable));
        }
        Err(error) => assert_eq!(error, StoreError::Unavailable),
    }
    std::fs::write(&path, b"this is no database").unwrap();
    assert_eq!(SqliteStore::open(&folder.0).err(), Some(StoreError::Unavailable));
}

#[tokio::test]
async fn sqlite_locked_by_another_is_unavailable_and_comes_back() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.0).unwrap();
    let other = rusqlite::Connection::open(folder.0.join("firstkey.sqlite3")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batch = || vec![vec![put(A, "x", Expected::Absent, 1)]];
    assert_eq!(store.commit(batch(), no_tail()).await, Err(StoreError::Unavailable));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.commit(batch(), no_tail()).await, Ok(vec![Outcome::Applied]));
}

#[tokio::test]
async fn sqlite_leaves_nothing_of_a_deleted_row() {
    let folder = Folder::new();
    let marker = b"a sealed key block that is to be destroyed";
    let store = SqliteStore::open(&folder.0).unwrap();
    let change = Change::Put { index: None, sealed: marker.to_vec() };
    apply(&store, vec![write(A, "x", Expected::Absent, change)]).await;
    apply(&store, vec![write(A, "x", Expected::Version(1), Change::Delete)]).await;
    drop(store);
    for entry in std::fs::read_dir(&folder.0).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(marker.len()).any(|window| window == marker));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_readers_do_not_wait_for_the_writer() {
    let folder = Folder::new();
    let store = Arc::new(SqliteStore::open(&folder.0).unwrap());
    apply(&*store, vec![put(A, "x", Expected::Absent, 0)]).await;
    let readers: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..20 {
                    assert!(store.get(A, "x").await.unwrap().is_some());
                }
            })
        })
        .collect();
    for version in 1..20 {
        apply(&*store, vec![put(A, "x", Expected::Version(version), 1)]).await;
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

/// The vault over the durable store: many calls at once share commits, and a restart keeps all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vault_over_sqlite_keeps_every_acknowledged_call() {
    let folder = Folder::new();
    let vault = Arc::new(vault_over(&folder).await);
    let calls: Vec<_> = (1..=300_u64)
        .map(|rank| {
            let vault = Arc::clone(&vault);
            tokio::spawn(async move { translate(&vault, rank, b"first").await })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    Arc::into_inner(vault).unwrap().close().await;
    let vault = vault_over(&folder).await;
    assert_eq!(vault.verified().last, 300);
    for rank in 1..=300 {
        let replayed = translate(&vault, rank, b"second").await;
        assert_eq!(replayed, Err(Error::Refused(Reason::KsnReplayed)), "rank {rank}");
    }
}

async fn vault_over(folder: &Folder) -> Vault {
    let page = SecretPage::taken_from(&mut [7; 32]).unwrap();
    let opening = Opening {
        store: Arc::new(SqliteStore::open(&folder.0).unwrap()),
        master_key: MasterKey::new(page),
        realm: Realm::Dev,
        clock: Arc::new(Standing),
        rng: Arc::new(SystemRng::new()),
        node: "node-1".into(),
        audit: AuditSettings::default(),
    };
    Vault::open(opening).await.unwrap()
}

struct Standing;

impl Clock for Standing {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }
}

/// Spends one counter. Each is of a terminal of its own, so that commits can be shared.
async fn translate(vault: &Vault, rank: u64, input: &[u8]) -> Result<(), Error> {
    let caller = Caller::for_dev_only("dev");
    let mut work = vault.begin(&caller, Action::TranslatePin, "keys/zone").await?;
    let claim = ClaimRequest {
        key_name: "bdk",
        key_version: 1,
        initial_key_id: &rank.to_be_bytes(),
        purpose: Purpose::Pin,
        rank: 1,
        input,
        first_anywhere: false,
    };
    work.claim(claim).await?;
    work.commit().await.map(|_| ())
}

/// A folder of its own for a test, gone after it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("firstkey-store-test-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind lies in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write(kind: Kind, id: &str, expected: Expected, change: Change) -> Write {
    Write { kind, id: id.to_owned(), expected, change }
}

fn put(kind: Kind, id: &str, expected: Expected, value: u8) -> Write {
    write(kind, id, expected, Change::Put { index: None, sealed: vec![value] })
}

fn no_tail() -> Tail {
    Box::new(|_| Vec::new())
}

async fn one(store: &dyn Store, batch: Batch) -> Outcome {
    store.commit(vec![batch], no_tail()).await.unwrap()[0]
}

async fn apply(store: &dyn Store, batch: Batch) {
    assert_eq!(one(store, batch).await, Outcome::Applied);
}
