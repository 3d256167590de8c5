//! The vault as a whole: units of work, races, failures of the store, restarts.

use std::sync::Arc;

use super::store::{Change, Expected, MemoryStore, Store, Write};
use super::testing::{
    Bench, Fault, HandClock, Note, beginning, caller, master_key, note, opening, two_officers,
};
use super::{
    Action, AuditSettings, Budget, Caller, Claim, ClaimRequest, Clock as _, Error, EventDecision,
    Kind, OpenError, Opening, Purpose, Realm, Reason, Record, RequestId, Vault, Versioned, Work,
};

async fn put(bench: &Bench, note: Versioned<Note>) -> Result<u64, Error> {
    let mut work = bench.begin(Action::CreateProfile).await;
    work.put(&note)?;
    work.commit().await.map(|committed| committed.sequence)
}

#[tokio::test]
async fn a_record_and_its_event_come_together() {
    let bench = Bench::new().await;
    let mut watch = bench.vault.committed();
    assert_eq!(put(&bench, Versioned::absent(note("a", "one"))).await, Ok(1));
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), 1);
    let found = bench.vault.get::<Note>("a").await.unwrap().unwrap();
    assert_eq!(found, Versioned { version: Some(1), record: note("a", "one") });
    assert_eq!(put(&bench, Versioned::absent(note("a", "two"))).await, Err(Error::Conflict));
    let events = bench.vault.events_after(0, 10).await.unwrap();
    assert_eq!(events.len(), 1, "a conflict has neither effect nor event");
    assert_eq!((events[0].action.as_str(), events[0].seq), ("CreateProfile", 1));
    assert_eq!(put(&bench, Versioned { record: note("a", "two"), ..found }).await, Ok(2));
    let listed = bench.vault.list::<Note>(Some("two"), None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(bench.vault.list::<Note>(Some("one"), None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn the_chain_holds_over_restarts_and_a_change_is_found() {
    let mut bench = Bench::new().await;
    for round in 0..3 {
        for number in 0..5 {
            put(&bench, Versioned::absent(note(&format!("{round}-{number}"), "x"))).await.unwrap();
        }
        bench = bench.restart().await;
    }
    let report = bench.vault.verify_chain().await.unwrap();
    assert_eq!((report.first, report.last), (1, 15));
    assert_eq!(bench.vault.verified(), report);
    let events = bench.vault.events_after(0, 100).await.unwrap();
    assert!(events.windows(2).all(|pair| pair[1].prev == pair[0].hash()));
    assert_eq!(bench.vault.events_about("keys/x", 12, 100).await.unwrap().len(), 3);
    assert_eq!(bench.vault.events_about("keys/y", 0, 100).await.unwrap().len(), 0);

    let Bench { vault, store, clock } = bench;
    vault.close().await;
    // One event is cut out of the middle by whoever holds the store.
    let cut = Write {
        kind: Kind::new("event"),
        id: format!("node-1/{:020}", 7),
        expected: Expected::Version(1),
        change: Change::Delete,
    };
    store.commit(vec![vec![cut]], Box::new(|_| Vec::new())).await.unwrap();
    let error = Vault::open(opening(store, clock)).await.err();
    assert_eq!(error, Some(OpenError::ChainBroken));
}

#[tokio::test]
async fn another_master_key_or_realm_does_not_open() {
    let Bench { vault, store, clock } = Bench::new().await;
    vault.close().await;
    let other_key = Opening { master_key: master_key(8), ..opening(store.clone(), clock.clone()) };
    assert_eq!(Vault::open(other_key).await.err(), Some(OpenError::SealedOtherwise));
    let other_realm = Opening { realm: Realm::Live, ..opening(store.clone(), clock.clone()) };
    assert_eq!(Vault::open(other_realm).await.err(), Some(OpenError::SealedOtherwise));
    let bad_name = Opening { node: "a/b".into(), ..opening(store.clone(), clock.clone()) };
    assert_eq!(Vault::open(bad_name).await.err(), Some(OpenError::NodeInvalid));
    assert!(Vault::open(opening(store, clock)).await.is_ok());
}

#[tokio::test]
async fn swapped_rows_do_not_open() {
    let bench = Bench::new().await;
    put(&bench, Versioned::absent(note("a", "one"))).await.unwrap();
    put(&bench, Versioned::absent(note("b", "two"))).await.unwrap();
    let row = bench.store.get(Note::KIND, "a").await.unwrap().unwrap();
    let moved = Write {
        kind: Note::KIND,
        id: "b".into(),
        expected: Expected::Version(1),
        change: Change::Put { index: row.index, sealed: row.sealed },
    };
    bench.store.commit(vec![vec![moved]], Box::new(|_| Vec::new())).await.unwrap();
    let error = bench.vault.get::<Note>("b").await.unwrap_err();
    assert_eq!(error.reason(), Reason::Internal);
}

#[tokio::test]
async fn a_failed_store_is_unavailable_and_the_chain_goes_on() {
    let bench = Bench::new().await;
    put(&bench, Versioned::absent(note("a", "one"))).await.unwrap();
    for (fault, written) in [(Fault::Before, false), (Fault::After, true)] {
        let id = if written { "after" } else { "before" };
        let mut work = bench.begin(Action::TranslatePin).await;
        work.put(&Versioned::absent(note(id, "x"))).unwrap();
        work.claim(pin(7, id.as_bytes())).await.unwrap();
        bench.store.fail(fault);
        assert_eq!(work.commit().await, Err(Error::Unavailable));
        bench.store.fail(Fault::None);
        assert_eq!(bench.vault.get::<Note>(id).await.unwrap().is_some(), written);
        // A claim rolls back unless it was written after all.
        let mut work = bench.begin(Action::TranslatePin).await;
        let again = work.claim(pin(7, b"other")).await;
        let expected =
            if written { Err(Error::Refused(Reason::KsnReplayed)) } else { Ok(Claim::Fresh) };
        assert_eq!(again, expected);
    }
    put(&bench, Versioned::absent(note("b", "two"))).await.unwrap();
    let report = bench.vault.verify_chain().await.unwrap();
    assert_eq!(report.last, 3);
}

fn pin(rank: u64, input: &[u8]) -> ClaimRequest<'_> {
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

fn mac(rank: u64, input: &[u8]) -> ClaimRequest<'_> {
    ClaimRequest { purpose: Purpose::MacRequest, ..pin(rank, input) }
}

async fn claimed(bench: &Bench, request: ClaimRequest<'_>) -> Result<(Work, Claim), Error> {
    let mut work = bench.begin(Action::TranslatePin).await;
    let claim = work.claim(request).await?;
    Ok((work, claim))
}

const REPLAYED: Error = Error::Refused(Reason::KsnReplayed);

#[tokio::test]
async fn one_input_of_many_gets_a_counter_and_identical_ones_share_it() {
    let bench = Bench::new().await;
    let mut works = Vec::new();
    for number in 0..20_u8 {
        works.extend(claimed(&bench, pin(1, &[number])).await.ok());
    }
    assert_eq!(works.len(), 1, "one holds it");
    works.push(claimed(&bench, pin(1, &[0])).await.unwrap());
    for (work, claim) in works {
        assert_eq!(claim, Claim::Fresh);
        assert!(work.commit().await.is_ok());
    }
    let bench = bench.restart().await;
    let (_work, claim) = claimed(&bench, pin(1, &[0])).await.unwrap();
    assert_eq!(claim, Claim::Repeat);
    assert_eq!(claimed(&bench, pin(1, &[1])).await.err(), Some(REPLAYED));
    bench.clock.forward(5 * 60 * 1_000 + 1);
    assert_eq!(claimed(&bench, pin(1, &[0])).await.err(), Some(REPLAYED));
}

#[tokio::test]
async fn a_dropped_unit_of_work_never_was() {
    let bench = Bench::new().await;
    drop(claimed(&bench, pin(1, b"a")).await.unwrap());
    let (work, claim) = claimed(&bench, pin(1, b"b")).await.unwrap();
    assert_eq!(claim, Claim::Fresh);
    let error = work.refuse(Reason::TranslationForbidden).await;
    assert_eq!(error, Error::Refused(Reason::TranslationForbidden));
    assert_eq!(claimed(&bench, pin(1, b"c")).await.unwrap().1, Claim::Fresh);
}

#[tokio::test]
async fn a_rejected_pin_spends_its_counter() {
    let bench = Bench::new().await;
    let (work, _) = claimed(&bench, pin(5, b"a")).await.unwrap();
    let error = work.commit_refused(Reason::PinBlockRejected).await;
    assert_eq!(error, Error::Refused(Reason::PinBlockRejected));
    assert_eq!(claimed(&bench, pin(5, b"b")).await.err(), Some(REPLAYED));
    assert_eq!(claimed(&bench, pin(4, b"c")).await.unwrap().1, Claim::Fresh);
}

#[tokio::test]
async fn a_forged_mac_burns_nothing_and_two_genuine_ones_raise_the_alarm() {
    let bench = Bench::new().await;
    let (forged, _) = claimed(&bench, mac(5, b"forged")).await.unwrap();
    let (genuine, _) = claimed(&bench, mac(5, b"genuine")).await.unwrap();
    let (clone, _) = claimed(&bench, mac(5, b"clone")).await.unwrap();
    assert_eq!(forged.commit_refused(Reason::MacMismatch).await.reason(), Reason::MacMismatch);
    assert!(genuine.commit().await.is_ok());
    assert_eq!(clone.commit().await, Err(REPLAYED));
    let (late, claim) = claimed(&bench, mac(5, b"late clone")).await.unwrap();
    assert_eq!(claim, Claim::Spent);
    assert_eq!(late.commit().await, Err(REPLAYED));
    let events = bench.vault.events_after(0, 10).await.unwrap();
    let alarms: Vec<bool> =
        events.iter().map(|event| event.detail.contains_key("clone_alarm")).collect();
    assert_eq!(alarms, [false, false, true, true]);
    assert_eq!(events[2].decision, EventDecision::Refused);
}

#[tokio::test]
async fn a_verified_mac_is_spent_though_the_pin_is_rejected() {
    let bench = Bench::new().await;
    let mut work = bench.begin(Action::TranslatePin).await;
    work.claim(mac(3, b"m")).await.unwrap();
    work.accept(Purpose::MacRequest);
    work.claim(pin(3, b"p")).await.unwrap();
    work.commit_refused(Reason::PinBlockRejected).await;
    assert_eq!(claimed(&bench, mac(3, b"m")).await.unwrap().1, Claim::Repeat);
    assert_eq!(claimed(&bench, pin(3, b"q")).await.err(), Some(REPLAYED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_counters_of_one_terminal_at_once_are_all_spent() {
    let bench = Arc::new(Bench::new().await);
    let calls: Vec<_> = (1..=100_u64)
        .map(|rank| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let input = rank.to_be_bytes();
                let (work, _) = claimed(&bench, pin(rank, &input)).await.unwrap();
                work.commit().await.unwrap();
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    for rank in 1..=100 {
        assert_eq!(claimed(&bench, pin(rank, b"again")).await.err(), Some(REPLAYED));
    }
    assert_eq!(bench.vault.verify_chain().await.unwrap().last, 100);
}

#[tokio::test]
async fn a_budget_closes_also_for_calls_at_once_and_over_a_restart() {
    let bench = Bench::new().await;
    let mut works = Vec::new();
    for _ in 0..10 {
        let mut work = bench.begin(Action::TranslatePin).await;
        if work.reserve(Budget::Pin, &[b"terminal", b"pan"]).await.is_ok() {
            works.push(work);
        }
    }
    assert_eq!(works.len(), 3);
    for work in works {
        work.commit_refused(Reason::PinBlockRejected).await;
    }
    let bench = bench.restart().await;
    let mut work = bench.begin(Action::TranslatePin).await;
    let closed = work.reserve(Budget::Pin, &[b"terminal", b"pan"]).await;
    assert_eq!(closed, Err(Error::BudgetSpent { retry_after_ms: 60 * 60 * 1_000 }));
    assert_eq!(work.reserve(Budget::Pin, &[b"terminal", b"other"]).await, Ok(()));
    bench.clock.forward(60 * 60 * 1_000);
    assert_eq!(work.reserve(Budget::Pin, &[b"terminal", b"pan"]).await, Ok(()));
}

#[tokio::test]
async fn success_gives_the_place_back_and_a_repetition_is_not_charged() {
    let bench = Bench::new().await;
    for rank in 1..=5 {
        let (mut work, _) = claimed(&bench, pin(rank, b"right")).await.unwrap();
        work.reserve(Budget::Pin, &[b"t"]).await.unwrap();
        work.commit().await.unwrap();
    }
    for _ in 0..5 {
        let (mut work, _) = claimed(&bench, pin(6, b"wrong")).await.unwrap();
        work.reserve(Budget::Pin, &[b"t"]).await.unwrap();
        work.commit_refused(Reason::PinBlockRejected).await;
    }
    for rank in 7..=8 {
        let (mut work, _) = claimed(&bench, pin(rank, b"wrong")).await.unwrap();
        work.reserve(Budget::Pin, &[b"t"]).await.unwrap();
        work.commit_refused(Reason::PinBlockRejected).await;
    }
    let mut work = bench.begin(Action::TranslatePin).await;
    let closed = work.reserve(Budget::Pin, &[b"t"]).await.unwrap_err();
    assert_eq!(closed.reason(), Reason::BudgetSpent);
}

#[tokio::test]
async fn a_repeated_message_does_not_make_its_new_pin_block_a_repetition() {
    let bench = Bench::new().await;
    let (work, _) = claimed(&bench, mac(1, b"m")).await.unwrap();
    work.commit().await.unwrap();
    for pin_block in 0..3_u8 {
        let (mut work, claim) = claimed(&bench, mac(1, b"m")).await.unwrap();
        assert_eq!(claim, Claim::Repeat);
        work.reserve(Budget::Mac, &[b"t"]).await.unwrap();
        work.accept(Purpose::MacRequest);
        work.give_back(Budget::Mac);
        work.claim(pin(1 + u64::from(pin_block), b"wrong")).await.unwrap();
        work.reserve(Budget::Pin, &[b"t"]).await.unwrap();
        work.commit_refused(Reason::PinBlockRejected).await;
    }
    let mut work = bench.begin(Action::VerifyMacAndTranslatePin).await;
    let closed = work.reserve(Budget::Pin, &[b"t"]).await.unwrap_err();
    assert_eq!(closed.reason(), Reason::BudgetSpent);
}

#[tokio::test]
async fn a_record_read_in_two_versions_is_a_conflict() {
    let bench = Bench::new().await;
    let read = async || bench.vault.get::<Note>("a").await.unwrap().unwrap();
    put(&bench, Versioned::absent(note("a", "one"))).await.unwrap();
    // Judged on the first version; then another call changes it, and it is read again.
    for judges_first in [true, false] {
        let (judged, mut work) = (read().await, bench.begin(Action::TranslatePin).await);
        let changed = Versioned { record: note("a", "two"), ..judged.clone() };
        put(&bench, changed).await.unwrap();
        let again = read().await;
        if judges_first {
            work.expects(&judged);
            work.put(&again).unwrap();
        } else {
            work.put(&again).unwrap();
            work.expects(&judged);
        }
        assert_eq!(work.commit().await, Err(Error::Conflict));
    }
    let (judged, mut work) = (read().await, bench.begin(Action::TranslatePin).await);
    work.expects(&judged);
    work.put(&judged).unwrap();
    work.expects(&judged);
    assert!(work.commit().await.is_ok());
}

#[tokio::test]
async fn a_rate_makes_calls_wait_for_each_other_and_is_never_exceeded() {
    let bench = Bench::new().await;
    let mut works = Vec::new();
    for _ in 0..Budget::Mac.failures_max() {
        let mut work = bench.begin(Action::VerifyMac).await;
        work.reserve(Budget::Mac, &[b"t"]).await.unwrap();
        works.push(work);
    }
    let last = works.pop().unwrap();
    let mut waits = bench.begin(Action::VerifyMac).await;
    let ((), got) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            last.commit().await.unwrap();
        },
        waits.reserve(Budget::Mac, &[b"t"])
    );
    assert_eq!(got, Ok(()));
    works.push(waits);
    for work in works {
        work.commit_refused(Reason::MacMismatch).await;
    }
    let mut work = bench.begin(Action::VerifyMac).await;
    let spent = work.reserve(Budget::Mac, &[b"t"]).await.unwrap_err();
    assert_eq!(spent, Error::BudgetSpent { retry_after_ms: Budget::Mac.interval_ms() });
}

#[tokio::test]
async fn a_request_is_answered_the_same_for_a_day() {
    let bench = Bench::new().await;
    let id = RequestId { id: "11111111", body_hash: &[1; 32] };
    let ask = async |bench: &Bench, who: &Caller, id| {
        bench.vault.recall::<String>(who, Action::CreateKey, id).await
    };
    assert_eq!(ask(&bench, &caller(), id).await, Ok(None));
    let mut work = bench.begin(Action::CreateKey).await;
    work.remember(id, &"answer".to_owned()).await.unwrap();
    work.commit().await.unwrap();
    let bench = bench.restart().await;
    assert_eq!(ask(&bench, &caller(), id).await, Ok(Some("answer".to_owned())));
    let other_body = RequestId { body_hash: &[2; 32], ..id };
    let reused = Err(Error::Refused(Reason::RequestIdReused));
    assert_eq!(ask(&bench, &caller(), other_body).await, reused);
    assert_eq!(ask(&bench, &Caller::for_dev_only("other"), id).await, Ok(None));
    bench.clock.forward(24 * 60 * 60 * 1_000);
    assert_eq!(ask(&bench, &caller(), other_body).await, Ok(None));
    let mut work = bench.begin(Action::CreateKey).await;
    work.remember(other_body, &"new".to_owned()).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(ask(&bench, &caller(), other_body).await, Ok(Some("new".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_are_never_given_twice() {
    let mut bench = Arc::new(Bench::new().await);
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let bench = Arc::clone(&bench);
                tokio::spawn(async move {
                    let mut work = bench.begin(Action::BeginActivation).await;
                    let number = work.allocate("bdk/1", 1_000).await.unwrap();
                    work.commit().await.unwrap();
                    number
                })
            })
            .collect();
        for call in calls {
            assert!(given.insert(call.await.unwrap()));
        }
        let alone = Arc::into_inner(bench).expect("every call has ended");
        bench = Arc::new(alone.restart().await);
    }
    let mut work = bench.begin(Action::BeginActivation).await;
    let exhausted = Err(Error::Refused(Reason::KsnExhausted));
    assert_eq!(work.allocate("bdk/1", 10).await, exhausted);
    for number in 0..3 {
        assert_eq!(work.allocate("small", 3).await, Ok(number));
    }
    assert_eq!(work.allocate("small", 3).await, exhausted);
}

#[tokio::test]
async fn repeated_refusals_are_counted_together() {
    let bench = Bench::new().await;
    for _ in 0..50 {
        let work = bench.begin(Action::ExportKey).await;
        work.refuse(Reason::KeyNotFound).await;
    }
    let stranger = Caller::stranger("stranger", "");
    let denied = bench.vault.begin(&stranger, Action::ExportKey, "keys/x").await.err();
    assert_eq!(denied, Some(Error::Refused(Reason::CallerUnknown)));
    assert_eq!(bench.vault.events_after(0, 10).await.unwrap().len(), 2);
    let bench = bench.restart().await;
    let events = bench.vault.events_after(0, 10).await.unwrap();
    assert_eq!(events.len(), 3, "closing writes the counts");
    assert_eq!(events[2].detail["repeated"], "49");
    assert_eq!(events[2].reason.as_deref(), Some("KEY_NOT_FOUND"));
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_turn_back_the_time() {
    let bench = Bench::new().await;
    put(&bench, Versioned::absent(note("a", "x"))).await.unwrap();
    let before = bench.vault.now();
    bench.clock.back(365 * 24 * 60 * 60 * 1_000);
    assert_eq!(bench.vault.now(), before);
    let bench = bench.restart().await;
    assert_eq!(bench.vault.now(), before);
    put(&bench, Versioned::absent(note("b", "x"))).await.unwrap();
    let events = bench.vault.events_after(0, 10).await.unwrap();
    assert_eq!(events[1].time, before);
}

#[tokio::test]
async fn nothing_is_written_of_a_time_that_is_too_far_ahead_to_be_believed() {
    const MONTH_MS: u64 = 31 * 24 * 60 * 60 * 1_000;
    let (store, clock) = (Arc::new(MemoryStore::new()), HandClock::new());
    let open = async |clock_is_right| {
        let audit = AuditSettings { clock_is_right, ..AuditSettings::default() };
        let opening = opening(store.clone(), clock.clone());
        let opening = Opening { audit, realm: Realm::Live, ..opening };
        Vault::open_with(opening, beginning(Some(two_officers()))).await
    };
    let write = async |vault: &Vault| {
        let work = vault.begin(&Caller::service(), Action::StartService, "").await.unwrap();
        work.commit().await.map(drop)
    };
    let vault = open(false).await.unwrap();
    clock.forward(MONTH_MS);
    write(&vault).await.unwrap();
    assert_eq!(vault.clock_ahead_ms(), None);
    let (events, before) = (vault.audit_sequence(), clock.now());

    // It jumps while the service runs: nothing is done, and when it is right again all goes on.
    clock.forward(MONTH_MS + 1);
    assert_eq!(write(&vault).await, Err(Error::Unavailable));
    assert_eq!(vault.clock_ahead_ms(), Some(MONTH_MS + 1));
    clock.back(MONTH_MS + 1);
    assert_eq!((vault.audit_sequence(), vault.now()), (events, before));
    write(&vault).await.unwrap();
    vault.close().await;

    // Or while it does not: somebody has to say that it is right.
    clock.forward(40 * 24 * 60 * 60 * 1_000);
    let refused = open(false).await.err();
    assert_eq!(refused, Some(OpenError::ClockAhead { days: 40 }));
    assert!(refused.unwrap().to_string().contains("--clock-is-right"));
    let vault = open(true).await.unwrap();
    write(&vault).await.unwrap();
    vault.close().await;
    let vault = open(false).await.unwrap();
    assert_eq!(vault.now(), clock.now());
}

#[tokio::test]
async fn no_event_no_effect_when_the_store_can_not_write() {
    let bench = Bench::new().await;
    bench.store.fail(Fault::Before);
    let work = bench.begin(Action::ExportKey).await;
    assert_eq!(work.refuse(Reason::KeyNotFound).await, Error::Unavailable);
}
