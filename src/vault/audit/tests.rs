//! The log over a store that can fail: proofs, checkpoints, exports, summaries, faults.

mod outside;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::crypto::merkle::{self, Frontier, leaf_hash};
use crate::vault::store::{IndexFilter, Query, Store as _};
use crate::vault::testing::{Bench, Fault, caller, opening};
use crate::vault::{
    Action, AuditMode, Caller, Claim, ClaimRequest, Error, Event, Kind, Policy, Purpose, Reason,
    Role, Vault, Versioned,
};

async fn write(bench: &Bench, count: usize) {
    for _ in 0..count {
        bench.begin(Action::GetKey).await.commit().await.unwrap();
    }
}

async fn events(bench: &Bench) -> Vec<Event> {
    bench.vault.events_after(0, 1_000).await.unwrap()
}

async fn lines(bench: &Bench) -> Vec<Vec<u8>> {
    events(bench).await.iter().map(Event::encode).collect()
}

#[tokio::test]
async fn every_event_is_proven_in_every_tree_and_every_tree_in_every_larger_one() {
    let bench = Bench::new().await;
    write(&bench, 33).await;
    let bench = bench.restart().await;
    let lines = lines(&bench).await;
    let mut frontier = Frontier::default();
    let mut roots = Vec::new();
    for line in &lines {
        frontier.push(leaf_hash(line));
        roots.push(frontier.root());
    }
    for root in &roots {
        assert_eq!(bench.vault.tree(root.size).await.as_ref(), Ok(root));
        for sequence in 1..=root.size {
            let proof = bench.vault.prove_inclusion(sequence, root.size).await.unwrap().unwrap();
            let index = usize::try_from(sequence - 1).unwrap();
            let held = merkle::verify_inclusion(root, &lines[index], sequence - 1, &proof);
            assert_eq!(held, Ok(()), "{sequence} in {}", root.size);
            let smaller = &roots[index];
            let proof = bench.vault.prove_consistency(sequence, root.size).await.unwrap().unwrap();
            assert_eq!(merkle::verify_consistency(smaller, root, &proof), Ok(()));
        }
    }
    assert_eq!(bench.vault.prove_inclusion(0, 3).await, Ok(None));
    assert_eq!(bench.vault.prove_inclusion(4, 3).await, Ok(None));
    assert_eq!(bench.vault.prove_consistency(0, 3).await, Ok(None));
}

/// What is wrong with an export, with a checkpoint over all of it.
fn fault(lines: &[Vec<u8>], signed: &Checkpoint) -> Result<u64, (&'static str, u64)> {
    let verified = verify_export(lines.iter().cloned(), Some(signed), None);
    verified.map(|report| report.events).map_err(ExportFault::parts)
}

#[tokio::test]
async fn each_kind_of_tampering_with_an_export_is_found_and_named() {
    let bench = Bench::new().await;
    write(&bench, 9).await;
    let open = |signed: &SignedCheckpoint| {
        Checkpoint::open(&signed.note, &VerifierKey::parse(&signed.verifier_key).unwrap()).unwrap()
    };
    let older = open(&bench.vault.checkpoint().await.unwrap());
    write(&bench, 11).await;
    let signed = open(&bench.vault.checkpoint().await.unwrap());
    let lines = lines(&bench).await;
    assert_eq!(fault(&lines, &signed), Ok(20));
    for at in 0..20 {
        let number = u64::try_from(at).unwrap() + 1;
        let mut deleted = lines.clone();
        deleted.remove(at);
        let word = if at == 19 { "cut" } else { "deleted" };
        assert_eq!(fault(&deleted, &signed), Err((word, number)));
        let mut edited = lines.clone();
        let text = String::from_utf8(lines[at].clone()).unwrap();
        edited[at] = text.replace("GetKey", "GetKez").into_bytes();
        // The last event has none after it that would hold its hash: the checkpoint tells.
        let expected = if at == 19 { ("forked", 1) } else { ("edited", number) };
        assert_eq!(fault(&edited, &signed), Err(expected), "{at}");
        edited[at] = text.replace("\"seq\"", " \"seq\"").into_bytes();
        assert_eq!(fault(&edited, &signed), Err(("edited", number)));
        let cut = fault(&lines[..at], &signed);
        assert_eq!(cut, Err(("cut", number)));
    }
    for at in 0..19 {
        let mut swapped = lines.clone();
        swapped.swap(at, at + 1);
        assert_eq!(fault(&swapped, &signed), Err(("swapped", u64::try_from(at).unwrap() + 1)));
    }
    // A chain written anew from the twelfth event on is a whole chain, and another log.
    let mut forked = lines[..11].to_vec();
    let mut prev = Event::parse(&lines[10]).unwrap().hash();
    for line in &lines[11..] {
        let event = Event { prev, caller: "nobody".into(), ..Event::parse(line).unwrap() };
        prev = event.hash();
        forked.push(event.encode());
    }
    assert_eq!(verify_export(forked.iter().cloned(), None, None).map(|one| one.events), Ok(20));
    assert_eq!(fault(&forked, &signed), Err(("forked", 1)));
    let against = |lines: &[Vec<u8>], signed: &Checkpoint, older: &Checkpoint| {
        let verified = verify_export(lines.iter().cloned(), Some(signed), Some(older));
        verified.map(|report| report.covered).map_err(ExportFault::parts)
    };
    assert_eq!(against(&lines, &signed, &older), Ok(20));
    assert_eq!(against(&forked, &signed, &older), Err(("forked", 10)));
    assert_eq!(against(&lines[..9], &older, &signed), Err(("rolled_back", 10)));
    // An older checkpoint alone covers what it covers.
    let report = verify_export(lines.iter().cloned(), Some(&older), None).unwrap();
    assert_eq!((report.events, report.covered), (20, 9));
}

fn pin(rank: u64) -> ClaimRequest<'static> {
    ClaimRequest {
        key_name: "bdk",
        key_version: 1,
        initial_key_id: &[1, 2, 3, 4, 5, 6, 7, 8],
        purpose: Purpose::Pin,
        rank,
        input: b"input",
        first_anywhere: false,
    }
}

async fn summarised(bench: &Bench) {
    let policy = Policy { audit: AuditMode::Summary { seconds: 60 }, version: 1, ..Policy::none() };
    let work = bench.begin(Action::SetPolicy).await;
    work.commit_policy(Versioned::absent(policy)).await.unwrap();
}

async fn translate(bench: &Bench, rank: u64) -> Result<u64, Error> {
    let mut work = bench.begin(Action::TranslatePin).await;
    assert_eq!(work.claim(pin(rank)).await?, Claim::Fresh);
    work.commit().await.map(|done| done.sequence)
}

fn told(events: &[Event]) -> Vec<(&str, BTreeMap<String, String>)> {
    events.iter().map(|event| (event.action.as_str(), event.detail.clone())).collect()
}

fn detail(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn in_summary_an_interval_has_its_first_event_and_one_that_counts_the_others() {
    let bench = Bench::new().await;
    summarised(&bench).await;
    for rank in 1..=10 {
        assert_eq!(translate(&bench, rank).await, Ok(2), "the event that the interval began with");
    }
    // What is spent stays spent, with an event of its own or without; refusals have theirs.
    let mut work = bench.begin(Action::TranslatePin).await;
    let again = ClaimRequest { input: b"other", ..pin(7) };
    assert_eq!(work.claim(again).await.err(), Some(Error::Refused(Reason::KsnReplayed)));
    work.refuse(Reason::KsnReplayed).await;
    // What changes more than a ledger has its own event too, and so have other calls.
    let mut work = bench.begin(Action::TranslatePin).await;
    work.put(&Versioned::absent(Policy { version: 9, ..Policy::none() })).unwrap();
    assert_eq!(work.commit().await, Err(Error::Conflict));
    write(&bench, 1).await;
    bench.clock.forward(60_000);
    bench.vault.shared.counts.write(&bench.vault.shared, false).await.unwrap();
    assert_eq!(translate(&bench, 11).await, Ok(6), "a new interval");
    bench.vault.flush().await.unwrap();
    let events = events(&bench).await;
    let began = detail(&[("summary", "began"), ("seconds", "60")]);
    assert_eq!(
        told(&events[1..]),
        [
            ("TranslatePin", began.clone()),
            ("TranslatePin", detail(&[])),
            ("GetKey", detail(&[])),
            ("TranslatePin", detail(&[("summary", "ended"), ("counted", "9")])),
            ("TranslatePin", began),
            ("TranslatePin", detail(&[("summary", "ended"), ("counted", "0")])),
        ]
    );
    assert_eq!(bench.vault.verify_chain().await.unwrap().last, 7);
}

#[tokio::test]
async fn a_crash_in_summary_loses_a_count_and_neither_counter_nor_first_event() {
    let bench = Bench::new().await;
    summarised(&bench).await;
    for rank in 1..=5 {
        translate(&bench, rank).await.unwrap();
    }
    let Bench { vault, store, clock } = bench;
    // Nothing is flushed: what was in memory is gone.
    drop(vault);
    let vault = Vault::open(opening(store.clone(), clock.clone())).await.unwrap();
    let bench = Bench { vault, store, clock };
    for rank in 1..=5 {
        let mut work = bench.begin(Action::TranslatePin).await;
        assert_eq!(work.claim(pin(rank)).await, Ok(Claim::Repeat), "{rank} was spent");
    }
    let events = events(&bench).await;
    assert_eq!(told(&events)[1].1.get("summary").map(String::as_str), Some("began"));
    assert_eq!(events.len(), 2);
    assert_eq!(translate(&bench, 6).await, Ok(3), "an interval that was left open is not taken up");
}

#[tokio::test]
async fn in_summary_nothing_succeeds_that_the_store_does_not_take() {
    let bench = Bench::new().await;
    summarised(&bench).await;
    translate(&bench, 1).await.unwrap();
    bench.store.fail(Fault::Before);
    assert_eq!(translate(&bench, 2).await, Err(Error::Unavailable));
    bench.store.fail(Fault::None);
    translate(&bench, 3).await.unwrap();
    bench.vault.flush().await.unwrap();
    let events = events(&bench).await;
    let last = &events.last().unwrap().detail;
    assert_eq!(last, &detail(&[("summary", "ended"), ("counted", "1")]));
}

#[tokio::test]
async fn a_store_that_hangs_is_not_waited_for_and_nothing_is_done_late() {
    let patience = Duration::from_millis(200);
    let bench = Bench::with(AuditSettings { patience, ..AuditSettings::default() }).await;
    write(&bench, 3).await;
    bench.store.fail(Fault::Hang);
    let began = bench.begin(Action::GetKey).await.commit();
    assert_eq!(began.await, Err(Error::Unavailable));
    // The first commit hangs in the store and may come about; those behind it do not.
    for _ in 0..5 {
        assert_eq!(bench.begin(Action::GetKey).await.commit().await, Err(Error::Unavailable));
    }
    assert_eq!(bench.vault.checkpoint().await, Err(Error::Unavailable));
    bench.store.fail(Fault::None);
    tokio::time::timeout(Duration::from_secs(20), async {
        while bench.begin(Action::ListKeys).await.commit().await.is_err() {}
    })
    .await
    .expect("it serves again");
    let events = events(&bench).await;
    let calls: Vec<&str> = events.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(calls, ["GetKey", "GetKey", "GetKey", "GetKey", "ListKeys"]);
    assert_eq!(bench.vault.verify_chain().await.unwrap().last, 5);
}

#[tokio::test]
async fn the_last_of_the_disk_is_for_those_who_run_the_service() {
    let bench = Bench::new().await;
    assert_eq!(bench.vault.disk().free_bytes, None);
    bench.store.leave_free(63 << 20);
    bench.vault.shared.core.look_at_disk().await;
    let disk = bench.vault.disk();
    assert_eq!((disk.free_bytes, disk.reserve_bytes), (Some(63 << 20), 64 << 20));
    let unavailable = Error::Refused(Reason::AuditUnavailable);
    // Whoever it is, not what is called: backends read what operators read, too.
    for (role, has_place) in [
        (Role::Auditor, true),
        (Role::Backend, false),
        (Role::Custodian, true),
        (Role::Officer, true),
        (Role::Operator, true),
        (Role::Service, true),
        (Role::Stranger, false),
        (Role::Terminal, false),
        (Role::TerminalRelay, false),
    ] {
        let caller = Caller::new("spiffe://test/x", "x", role, "");
        for &action in Action::ALL {
            let before = bench.vault.log_size().await.unwrap();
            for told in [
                bench.vault.begin(&caller, action, "").await.err(),
                bench.vault.authorise(&caller, action).await.err(),
                Some(bench.vault.turn_away(&caller, action, "plane", None).await),
                Some(bench.vault.refuse(&caller, action, Reason::PolicyDenied.into()).await),
            ] {
                let (role, action) = (role.as_str(), action.as_str());
                assert_eq!(told == Some(unavailable), !has_place, "{role} {action}: {told:?}");
            }
            let grown = bench.vault.log_size().await.unwrap() > before;
            assert!(has_place || !grown, "what is refused for want of disk takes none");
        }
    }
    // A development caller has every role: what is called counts.
    let begun = bench.vault.begin(&caller(), Action::GenerateMac, "").await;
    assert_eq!(begun.err(), Some(unavailable));
    assert!(bench.vault.begin(&caller(), Action::ListKeys, "").await.is_ok());
    bench.store.leave_free(65 << 20);
    bench.vault.shared.core.look_at_disk().await;
    assert!(translate(&bench, 1).await.is_ok());
}

#[tokio::test]
async fn whether_events_can_be_written_is_found_out_by_writing() {
    let bench = Bench::new().await;
    write(&bench, 1).await;
    for _ in 0..3 {
        assert_eq!(bench.vault.examine_audit().await, Ok(()));
    }
    bench.store.fail(Fault::Before);
    assert_eq!(bench.vault.examine_audit().await, Err(Error::Unavailable));
    bench.store.fail(Fault::None);
    assert_eq!(bench.vault.examine_audit().await, Ok(()));
    let kind = Kind::new("pulse");
    let any = Query { kind, index: IndexFilter::Any, after: None, limit: 9 };
    let rows = bench.store.inner.list(any).await.unwrap();
    let versions: Vec<_> = rows.iter().map(|row| row.version).collect();
    assert_eq!(versions, [4], "one small row, written each time");
    assert_eq!(events(&bench).await.len(), 1, "it is no event");
}
