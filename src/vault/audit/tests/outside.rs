//! What is kept outside: a witness that fails, that hangs, that has nothing or something else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::vault::testing::{FaultyStore, HandClock, beginning, two_officers};
use crate::vault::{CheckpointAt, OpenError, Opening, Realm, Vault};

/// A witness that can be looked at, and fail.
#[derive(Debug, Default)]
struct Outside {
    note: Mutex<Option<String>>,
    fails: Mutex<bool>,
    hangs: Mutex<bool>,
    /// How often it was asked to keep something, how many of these have not ended, and the most of
    /// those at once.
    asked: AtomicUsize,
    inside: AtomicUsize,
    inside_max: AtomicUsize,
}

impl Outside {
    fn ask(&self) -> Result<(), WitnessFailed> {
        while *self.hangs.lock().unwrap() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if *self.fails.lock().unwrap() { Err(WitnessFailed) } else { Ok(()) }
    }

    fn is(&self, note: &str) -> bool {
        self.note.lock().unwrap().as_deref() == Some(note)
    }

    /// Waits until a note is there.
    async fn comes_to(&self, note: &str) {
        let come = async {
            while !self.is(note) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), come).await.expect("it is kept outside");
    }
}

impl Witness for Outside {
    fn last(&self) -> Result<Option<String>, WitnessFailed> {
        self.ask()?;
        Ok(self.note.lock().unwrap().clone())
    }

    fn keep(&self, note: &str) -> Result<(), WitnessFailed> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.inside_max.fetch_max(inside, Ordering::SeqCst);
        let asked = self.ask();
        self.inside.fetch_sub(1, Ordering::SeqCst);
        asked?;
        *self.note.lock().unwrap() = Some(note.to_owned());
        Ok(())
    }
}

fn witnessed(outside: &Arc<Outside>) -> AuditSettings {
    AuditSettings { witness: Some(outside.clone()), ..AuditSettings::default() }
}

#[tokio::test]
async fn the_log_is_signed_as_it_grows_and_once_for_each_size() {
    let outside = Arc::new(Outside::default());
    let bench = Bench::with(witnessed(&outside)).await;
    assert_eq!(bench.vault.newest_checkpoint(), None);
    write(&bench, 5).await;
    let signed = bench.vault.checkpoint().await.unwrap();
    assert_eq!(bench.vault.checkpoint().await, Ok(signed.clone()));
    outside.comes_to(&signed.note).await;
    bench.vault.flush().await.unwrap();
    assert_eq!(bench.vault.newest_checkpoint().map(|(size, _)| size), Some(5));
    let key = VerifierKey::parse(&signed.verifier_key).unwrap();
    let read = Checkpoint::open(&signed.note, &key).unwrap();
    assert_eq!(read.root, bench.vault.tree(5).await.unwrap());
    assert!(read.origin.starts_with("firstkey/") && read.origin.ends_with("/node-1"));
    write(&bench, 1).await;
    // By the clock, without being asked.
    tokio::time::timeout(Duration::from_secs(20), async {
        while bench.vault.newest_checkpoint().map(|(size, _)| size) != Some(6) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a log that has grown is signed");
    // The same log has the same key after a restart.
    let bench = bench.restart().await;
    let again = bench.vault.checkpoint().await.unwrap();
    assert_eq!(again.verifier_key, signed.verifier_key);
    assert_eq!(Checkpoint::open(&again.note, &key).unwrap().root.size, 6);
}

#[tokio::test]
async fn a_witness_that_fails_stops_no_call_and_is_tried_again() {
    let outside = Arc::new(Outside::default());
    let bench = Bench::with(witnessed(&outside)).await;
    *outside.fails.lock().unwrap() = true;
    write(&bench, 2).await;
    let signed = bench.vault.checkpoint().await.unwrap();
    bench.vault.flush().await.unwrap();
    assert_eq!(bench.vault.newest_checkpoint(), None, "what is not outside does not count");
    bench.clock.forward(7_000);
    assert_eq!(bench.vault.checkpoint_behind_ms(), 7_000);
    *outside.fails.lock().unwrap() = false;
    // Without being asked again.
    outside.comes_to(&signed.note).await;
    bench.vault.flush().await.unwrap();
    assert_eq!(bench.vault.checkpoint_behind_ms(), 0);
    // A start that can not ask is none.
    *outside.fails.lock().unwrap() = true;
    let Bench { vault, store, clock } = bench;
    vault.close().await;
    let opening = Opening { audit: witnessed(&outside), ..opening(store, clock) };
    assert_eq!(Vault::open(opening).await.err(), Some(OpenError::WitnessUnavailable));
}

#[tokio::test]
async fn a_witness_that_hangs_holds_up_neither_calls_nor_readers_and_is_asked_once_at_a_time() {
    let outside = Arc::new(Outside::default());
    let patience = Duration::from_millis(500);
    let bench = Bench::with(AuditSettings { patience, ..witnessed(&outside) }).await;
    *outside.hangs.lock().unwrap() = true;
    for _ in 0..30 {
        write(&bench, 1).await;
        let signed = bench.vault.checkpoint().await.expect("whoever asks for one gets it");
        assert!(signed.size > 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(outside.asked.load(Ordering::SeqCst), 1, "the first is not over");
    assert_eq!(bench.vault.newest_checkpoint(), None);
    bench.clock.forward(9_000);
    assert_eq!(bench.vault.checkpoint_behind_ms(), 9_000);
    // An end waits for a while, and then no more.
    bench.vault.flush().await.unwrap();
    *outside.hangs.lock().unwrap() = false;
    let newest = bench.vault.checkpoint().await.unwrap();
    outside.comes_to(&newest.note).await;
    assert!(outside.asked.load(Ordering::SeqCst) < 5, "what waited was passed over");
    assert_eq!(outside.inside_max.load(Ordering::SeqCst), 1);
    // A start waits for a while as well.
    *outside.hangs.lock().unwrap() = true;
    let Bench { vault, store, clock } = bench;
    vault.close().await;
    let audit = AuditSettings { patience, ..witnessed(&outside) };
    let opened = Vault::open(Opening { audit, ..opening(store, clock) }).await;
    assert_eq!(opened.err(), Some(OpenError::WitnessUnavailable));
    *outside.hangs.lock().unwrap() = false;
}

#[tokio::test]
async fn a_log_that_grows_fast_is_signed_after_a_thousand_events() {
    let bench = Bench::new().await;
    bench.vault.signer.abort();
    let core = &bench.vault.shared.core;
    let (weak, checkpoints) = (Arc::downgrade(core), Arc::clone(&bench.vault.checkpoints));
    let an_hour = Duration::from_hours(1);
    let signing = keep_signing(weak, checkpoints, core.committed.subscribe(), an_hour);
    let signing = tokio::spawn(signing);
    for size in [1_000, 2_000] {
        let before = bench.vault.newest_checkpoint();
        write(&bench, 999).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(bench.vault.newest_checkpoint(), before, "there are 999 more");
        write(&bench, 1).await;
        tokio::time::timeout(Duration::from_secs(20), async {
            while bench.vault.newest_checkpoint().map(|(size, _)| size) != Some(size) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("a thousand events more are signed");
    }
    signing.abort();
}

#[tokio::test]
async fn a_checkpoint_that_was_outside_and_is_gone_is_found_at_start() {
    let outside = Arc::new(Outside::default());
    // Before anything is kept outside, nothing there is no finding.
    let bench = Bench::new().await;
    write(&bench, 2).await;
    bench.vault.flush().await.unwrap();
    let Bench { vault, store, clock } = bench;
    vault.close().await;
    let open = async |audit: AuditSettings| {
        Vault::open(Opening { audit, ..opening(store.clone(), clock.clone()) }).await
    };
    let vault = open(witnessed(&outside)).await.unwrap();
    vault.close().await;
    assert!(outside.note.lock().unwrap().take().is_some());
    let gone = OpenError::CheckpointMissing { size: 2 };
    assert_eq!(open(witnessed(&outside)).await.err(), Some(gone.clone()));
    assert!(gone.to_string().contains("--new-checkpoint"), "{gone}");
    // On purpose, and only then, a new one is begun.
    let on_purpose = AuditSettings { new_checkpoint: true, ..witnessed(&outside) };
    let vault = open(on_purpose.clone()).await.unwrap();
    assert!(vault.has_begun_checkpoint());
    vault.close().await;
    let vault = open(on_purpose.clone()).await.unwrap();
    assert!(!vault.has_begun_checkpoint(), "it is there");
    vault.close().await;
    // What is there and does not go with the store is refused all the same.
    *outside.note.lock().unwrap() = Some("nothing of ours".to_owned());
    let invalid = OpenError::CheckpointInvalid(CheckpointAt::Outside);
    assert_eq!(open(on_purpose).await.err(), Some(invalid));
}

#[tokio::test]
async fn a_first_start_that_does_not_come_to_its_end_leaves_nothing() {
    let outside = Arc::new(Outside::default());
    *outside.note.lock().unwrap() = Some("nothing of ours".to_owned());
    let (store, clock) = (Arc::new(FaultyStore::default()), HandClock::new());
    let policy = two_officers();
    let open = async |audit: AuditSettings, policy| {
        let opening = opening(store.clone(), clock.clone());
        Vault::open_with(Opening { realm: Realm::Live, audit, ..opening }, beginning(policy)).await
    };
    let first = || Some(policy.clone());
    let foreign = open(witnessed(&outside), first()).await;
    let invalid = OpenError::CheckpointInvalid(CheckpointAt::Outside);
    assert_eq!(foreign.err(), Some(invalid));
    *outside.note.lock().unwrap() = None;
    assert_eq!(open(witnessed(&outside), None).await.err(), Some(OpenError::NoPolicy));
    let nobody = Some(Policy { principals: Vec::new(), ..policy.clone() });
    let refused = open(witnessed(&outside), nobody).await.err();
    assert!(matches!(refused, Some(OpenError::PolicyInvalid(_))), "{refused:?}");
    store.fail(Fault::Before);
    let failed = open(witnessed(&outside), first()).await;
    assert_eq!(failed.err(), Some(OpenError::Unavailable));
    store.fail(Fault::None);
    let any = Query { kind: Kind::new("seal"), index: IndexFilter::Any, after: None, limit: 1 };
    assert!(store.inner.list(any).await.unwrap().is_empty(), "nothing was written");
    // What was written and not answered is there at the next start, whole.
    store.fail(Fault::After);
    assert_eq!(open(witnessed(&outside), first()).await.err(), Some(OpenError::Unavailable));
    store.fail(Fault::None);
    let vault = open(witnessed(&outside), None).await.unwrap();
    assert_eq!(vault.policy().version, 1);
    let events = vault.events_after(0, 10).await.unwrap();
    let told: Vec<_> = events.iter().map(|event| (&*event.action, &*event.caller)).collect();
    assert_eq!(told, [("SetPolicy", "service")]);
    vault.close().await;
}

#[tokio::test]
async fn a_store_begun_anew_or_a_note_that_is_none_is_found_at_start() {
    let outside = Arc::new(Outside::default());
    let bench = Bench::with(witnessed(&outside)).await;
    write(&bench, 2).await;
    bench.vault.close().await;
    let clock = HandClock::new();
    let anew = || async {
        let store = Arc::new(crate::vault::store::MemoryStore::new());
        let opening = Opening { audit: witnessed(&outside), ..opening(store, clock.clone()) };
        Vault::open(opening).await.err()
    };
    assert_eq!(anew().await, Some(OpenError::CheckpointForeign(CheckpointAt::Outside)));
    *outside.note.lock().unwrap() = Some("nothing of ours".to_owned());
    assert_eq!(anew().await, Some(OpenError::CheckpointInvalid(CheckpointAt::Outside)));
}
