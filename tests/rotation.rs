//! A process that rotates its master key under load is killed with SIGKILL a hundred times.
//!
//! The process is this test program once more, with one test of it and a folder that lasts. After
//! each kill it opens the store again under the master key that custody asks for, and goes on with
//! whatever was under way. It says on standard error what was acknowledged; that must be there.

#![allow(clippy::unwrap_used, reason = "a test that can not go on stops")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use firstkey::crypto::rng::{Rng as _, SystemRng};
use firstkey::key::Algorithm;
use firstkey::key::usage::PinEncryption;
use firstkey::memory::SecretPage;
use firstkey::vault::store::{SqliteStore, Store as _};
use firstkey::vault::{
    Action, AuditSettings, Caller, ClaimRequest, Clock, Custody, Error, KeyAttributes, KeyUsage,
    Kind, MasterKey, NewKey, OpenError, Opening, Operation, Purpose, Realm, Reason, Record, Seal,
    Start, UnixMillis, Vault, Versioned,
};
use serde::{Deserialize, Serialize};

/// Kills while a rotation is under way.
const KILLS: u32 = 100;
/// A process is killed within so many milliseconds after it has opened its store.
const ALIVE_MS_MAX: u16 = 250;
/// Rows that have nothing to do but to be sealed anew.
const BALLAST: u32 = 600;
/// The row that says how the master key is kept.
const IN_CLEAR: [Kind; 1] = [Kind::new("seal")];
/// Who calls at the same time.
const CALLERS: u32 = 4;
/// The folder of the process that is killed.
const FOLDER: &str = "FIRSTKEY_TEST_ROTATION";
/// A whole rotation, by name.
const WHOLE: &str = "a_rotation_under_load_comes_to_its_end";

#[test]
fn a_hundred_kills_in_the_middle_of_rotations_lose_nothing_and_halve_no_key() {
    let folder = Folder::new();
    let mut acknowledged = Acknowledged::default();
    let (mut kills, mut rotating) = (0, false);
    while kills < KILLS {
        let lines = run_and_kill(&folder.0);
        let opened = lines.iter().any(|line| line.starts_with("open"));
        for line in &lines {
            rotating = match line.split(' ').next() {
                Some("rotating") => true,
                Some("retired") => false,
                _ => rotating,
            };
            acknowledged.note(line);
        }
        kills += u32::from(opened && rotating);
        if kills % 20 == 0 {
            block_on(async {
                let vault = open(&folder.0).await;
                acknowledged.check(&vault).await;
                vault.close().await;
            });
        }
    }
    assert!(acknowledged.keys.len() > 20 && acknowledged.calls > 200);
    block_on(async {
        let vault = open(&folder.0).await;
        ended(&vault).await;
        acknowledged.check(&vault).await;
        let generation = vault.generation();
        let (calls, keys) = (acknowledged.calls, acknowledged.keys.len());
        say(&format!("{kills} kills, {calls} calls, {keys} keys, master key {generation}"));
        assert!(generation > 3, "rotations came to their end");
        vault.verify_chain().await.unwrap();
        vault.close().await;
        // Every row is under the master key that is left, and the one before opens nothing.
        let store = SqliteStore::open(&folder.0).unwrap();
        let mut after = None;
        loop {
            let page = store.survey(&IN_CLEAR, after, 1_000).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.kind.clone(), last.id.clone()));
            for row in page {
                assert_eq!(
                    row.beginning[1..5],
                    generation.to_be_bytes(),
                    "{} {}",
                    row.kind,
                    row.id
                );
            }
        }
        let before = opening(store, generation - 1);
        assert_eq!(Vault::open(before).await.err(), Some(OpenError::SealedOtherwise));
    });
}

#[test]
fn a_rotation_under_load_comes_to_its_end() {
    let lasting = std::env::var_os(FOLDER).map(PathBuf::from);
    let fresh = lasting.is_none().then(Folder::new);
    let path = lasting.clone().or(fresh.as_ref().map(|folder| folder.0.clone())).unwrap();
    block_on(async {
        let vault = Arc::new(open(&path).await);
        if vault.get::<Place>("ballast-0").await.unwrap().is_none() {
            let mut work = begin(&vault, Action::CreateProfile).await;
            for number in 0..BALLAST {
                work.put(&Versioned::absent(Place::new(format!("ballast-{number}")))).unwrap();
            }
            work.commit().await.unwrap();
        }
        say("open");
        let stop = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (vault, stop) = (Arc::clone(&vault), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut calls = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // No call fails, whatever goes on beside it.
                        call(&vault, caller).await.unwrap();
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        // Who is to be killed goes on and on.
        loop {
            if vault.rotation().is_none() {
                rotate(&vault).await;
            }
            say("rotating");
            ended(&vault).await;
            say("retired");
            if lasting.is_none() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            assert!(caller.await.unwrap() > 0, "it was under load");
        }
        assert_eq!(vault.generation(), 2);
        vault.verify_chain().await.unwrap();
    });
}

/// Runs the process and kills it; what it said.
fn run_and_kill(folder: &Path) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([WHOLE, "--exact"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stderr.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            // The receiver is there until this end is closed.
            let _ = sender.send(line);
        }
    });
    let mut lines = Vec::new();
    while let Ok(line) = receiver.recv_timeout(Duration::from_mins(1)) {
        let is_open = line == "open";
        lines.push(line);
        if is_open {
            break;
        }
    }
    let mut random = [0; 2];
    SystemRng::new().fill(&mut random).unwrap();
    let alive = u16::from_be_bytes(random) % ALIVE_MS_MAX;
    thread::sleep(Duration::from_millis(u64::from(alive)));
    let ended = child.try_wait().unwrap();
    assert!(ended.is_none(), "it ended by itself:\n{}", lines.join("\n"));
    child.kill().unwrap();
    child.wait().unwrap();
    lines.extend(receiver.iter());
    lines
}

/// What the process said that was done.
#[derive(Default)]
struct Acknowledged {
    calls: u32,
    ranks: BTreeMap<u32, u64>,
    keys: BTreeMap<String, String>,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["done", caller, rank] => {
                self.calls += 1;
                self.ranks.insert(caller.parse().unwrap(), rank.parse().unwrap());
            }
            ["key", name, check_value] => {
                self.keys.insert(name.to_owned(), check_value.to_owned());
            }
            _ => {}
        }
    }

    /// All of it is there: each counter spent, each key whole.
    async fn check(&self, vault: &Vault) {
        for (caller, rank) in &self.ranks {
            let place = vault.get::<Place>(&place_of(*caller)).await.unwrap().unwrap();
            assert!(place.record.rank >= *rank, "{caller}: {rank}");
            let mut work = begin(vault, Action::TranslatePin).await;
            let spent = work.claim(claim(*rank, b"another", &initial_key_id(*caller))).await;
            assert_eq!(spent, Err(Error::Refused(Reason::KsnReplayed)), "{caller}: {rank}");
        }
        // Opened, it has the check value that it was made with, or it does not open.
        for (name, check_value) in &self.keys {
            let key = vault.key::<PinEncryption>(name, Operation::Encrypt).await.unwrap();
            assert_eq!(key.record().check_value, *check_value, "{name}");
        }
    }
}

/// Where a caller is: written in the commit that spends its counter.
#[derive(Serialize, Deserialize)]
struct Place {
    id: String,
    rank: u64,
}

impl Place {
    fn new(id: String) -> Self {
        Self { id, rank: 0 }
    }
}

impl Record for Place {
    const KIND: Kind = Kind::new("place_of_test");

    fn id(&self) -> String {
        self.id.clone()
    }
}

fn place_of(caller: u32) -> String {
    format!("caller-{caller}")
}

fn initial_key_id(caller: u32) -> [u8; 8] {
    u64::from(caller).to_be_bytes()
}

fn claim<'a>(rank: u64, input: &'a [u8], initial_key_id: &'a [u8]) -> ClaimRequest<'a> {
    let purpose = Purpose::Pin;
    let (key_name, key_version) = ("bdk", 1);
    ClaimRequest {
        key_name,
        key_version,
        initial_key_id,
        purpose,
        rank,
        input,
        first_anywhere: false,
    }
}

/// Spends the next counter of a caller, which nothing may have spent, and makes a key now and then.
async fn call(vault: &Vault, caller: u32) -> Result<(), Error> {
    let found = vault.get::<Place>(&place_of(caller)).await?;
    let mut place = found.unwrap_or_else(|| Versioned::absent(Place::new(place_of(caller))));
    place.record.rank += 1;
    let rank = place.record.rank;
    let mut work = begin(vault, Action::TranslatePin).await;
    work.claim(claim(rank, b"input", &initial_key_id(caller))).await?;
    work.put(&place)?;
    work.commit().await?;
    say(&format!("done {caller} {rank}"));
    if rank % 8 != 0 {
        return Ok(());
    }
    let name = format!("key-{caller}-{rank}");
    let mut work = begin(vault, Action::CreateKey).await;
    let made = work
        .create_key(NewKey {
            name: name.clone(),
            usage: KeyUsage::PinEncryption,
            algorithm: Algorithm::Aes256,
            mode_of_use: None,
            exportability: None,
            attributes: KeyAttributes::default(),
            labels: BTreeMap::new(),
            start: Start::Primary,
        })
        .await?;
    work.commit().await?;
    say(&format!("key {name} {}", made.record.check_value));
    let key = vault.key::<PinEncryption>(&name, Operation::Encrypt).await?;
    let mut work = begin(vault, Action::TranslatePin).await;
    work.uses(&key);
    work.commit().await.map(|_| ())
}

async fn begin(vault: &Vault, action: Action) -> firstkey::vault::Work {
    vault.begin(&Caller::for_dev_only("test"), action, "keys/bdk").await.unwrap()
}

async fn rotate(vault: &Vault) {
    let next = master_key(vault.generation() + 1);
    let seal = Seal::Shamir { set_id: [7; 4], threshold: 2, shares: 3 };
    let work = begin(vault, Action::CreateMasterKey).await;
    work.commit_master_key(next, seal).await.unwrap();
}

/// Waits for the end of a rotation.
async fn ended(vault: &Vault) {
    while vault.rotation().is_some() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Opens the store under the master key that it asks for.
async fn open(folder: &Path) -> Vault {
    let store = SqliteStore::open(folder).unwrap();
    let custody = Custody::read(&store).await.unwrap();
    let generation = custody.map_or(1, |custody| custody.generation);
    Vault::open(opening(store, generation)).await.unwrap()
}

fn opening(store: SqliteStore, generation: u32) -> Opening {
    Opening {
        store: Arc::new(store),
        master_key: master_key(generation),
        realm: Realm::Dev,
        clock: Arc::new(Standing),
        rng: Arc::new(SystemRng::new()),
        node: "test".to_owned(),
        audit: AuditSettings { patience: Duration::from_secs(5), ..AuditSettings::default() },
    }
}

/// Each has one of its own, which both processes know.
fn master_key(generation: u32) -> MasterKey {
    let mut key = [7; 32];
    key[..4].copy_from_slice(&generation.to_be_bytes());
    MasterKey::new(SecretPage::taken_from(&mut key).unwrap())
}

struct Standing;

impl Clock for Standing {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// Written past the test harness, which holds back what a test prints.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error is open");
}

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("firstkey-rotation-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
