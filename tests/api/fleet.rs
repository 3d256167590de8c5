//! A fleet over lines that lose replies: each terminal comes through it once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use firstkey::crypto::certificate::authority::Authority;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::proto;
use firstkey::server::dev::{self, Pki};
use firstkey::server::fleet::{Fleet, Order, Progress, Report};
use firstkey::vault::{Clock as _, Event};

use crate::harness::{Service, answer, create_terminal_request, development_keys, state_name};

const TERMINALS: u32 = 150;

fn copied(authority: &Authority) -> Authority {
    Authority::from_parts(authority.root_der(), &authority.to_pkcs8()).expect("the same authority")
}

/// Runs a fleet against a service, and watches that its progress is told.
async fn run(service: &Service, order: Order) -> Report {
    let clock = Arc::clone(&service.clock);
    let ticks = AtomicU64::new(0);
    let done = Arc::new(AtomicU32::new(0));
    let heard = Arc::clone(&done);
    let fleet = Fleet {
        client: service.client.clone(),
        pki: Pki { acquirer: copied(&service.pki.acquirer), vendor: copied(&service.pki.vendor) },
        kek: development_keys().key_encryption_key().expect("the development KEK"),
        rng: Arc::new(SystemRng::new()),
        now: Arc::new(move || clock.now().seconds()),
        stopwatch: Arc::new(move || ticks.fetch_add(1_000, Ordering::Relaxed)),
        tell: Arc::new(move |progress| {
            if let Progress::Done(some) = progress {
                heard.fetch_max(some, Ordering::Relaxed);
            }
        }),
        order,
    };
    let report = fleet.run().await.expect("the service says what became of the fleet");
    assert_eq!(done.load(Ordering::Relaxed), order.terminals);
    report
}

async fn listed(service: &Service) -> Vec<proto::Terminal> {
    let all = proto::ListTerminalsRequest::default();
    service.client.list_terminals(all).await.expect("the service lists them")
}

/// How often each action was done, as the audit log has it.
async fn done(service: &Service) -> BTreeMap<String, u64> {
    let (mut counts, mut sequence) = (BTreeMap::new(), 0);
    loop {
        let events = service.vault.events_after(sequence, 500).await.unwrap();
        let Some(last) = events.last() else { return counts };
        sequence = last.seq;
        // An answer that is given again is told as such.
        let once = |event: &&Event| event.is_done() && !event.detail.contains_key("repeated");
        for event in events.iter().filter(once) {
            *counts.entry(event.action.clone()).or_default() += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_loses_a_tenth_of_its_replies_is_active_once_each_with_its_own_keys() {
    let service = Service::start_durable().await;
    let before = done(&service).await;
    let order = Order {
        terminals: TERMINALS,
        concurrency: 16,
        lose_percent: 10,
        transactions: 2,
        seed: 42,
    };
    let report = run(&service, order).await;
    assert!(report.is_sound(), "{report:?}");

    // The report is held against the service's own lists.
    let listed = listed(&service).await;
    let ids: BTreeSet<&[u8]> =
        listed.iter().map(|terminal| terminal.initial_key_id.as_slice()).collect();
    assert_eq!(listed.len(), 150);
    assert_eq!((report.active, report.initial_key_ids), (TERMINALS, TERMINALS));
    assert_eq!(ids.len(), 150);
    let of_len = |len: usize| ids.iter().filter(|id| id.len() == len).count();
    assert_eq!((of_len(8), of_len(10)), (60, 90), "two AES suites of five, three TDES");
    for terminal in &listed {
        assert_eq!(state_name(terminal), "ACTIVE");
        assert_eq!(terminal.activation, format!("{}/activations/1", terminal.name));
        assert!(terminal.first_transaction_time.is_some());
    }

    // However often a step was asked for, it was done once.
    let after = done(&service).await;
    let count = |action: &str| {
        after.get(action).copied().unwrap_or(0) - before.get(action).copied().unwrap_or(0)
    };
    for action in [
        "CreateTerminal",
        "IssueActivationCode",
        "BeginActivation",
        "DeliverKeys",
        "ConfirmKeys",
        "EnableTerminal",
    ] {
        assert_eq!(count(action), u64::from(TERMINALS), "{action}");
    }

    // Every lost reply made its request come again, and the counts say so.
    let calls: BTreeMap<&str, _> = report.calls.iter().map(|call| (call.call, call)).collect();
    let retries: u64 = report.calls.iter().map(|call| call.retries).sum();
    assert!(report.replies_lost > 100);
    assert_eq!(retries, report.replies_lost);
    for (call, times) in [("BeginActivation", 150), ("RunTestTransaction", 150), ("VerifyMac", 300)]
    {
        let call = calls[call];
        assert_eq!(call.count, times + call.retries, "{}", call.call);
        assert!(call.retries > 0 && call.p50_us > 0 && call.p99_us >= call.p50_us);
    }
    assert_eq!(calls.len(), 11);
    service.vault.verify_chain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_fails_is_counted_and_one_that_was_there_is_taken() {
    let service = Service::start_durable().await;
    let order = Order { terminals: 6, concurrency: 3, lose_percent: 0, transactions: 1, seed: 7 };
    for (number, standing) in
        [(3, proto::MerchantStanding::Approved), (4, proto::MerchantStanding::Pending)]
    {
        let profile = dev::profile_of(Order::suite(number));
        let (id, serial) = (order.id(number), order.serial(number));
        let mut request = create_terminal_request(&id, &serial, profile);
        request.merchant_standing = standing.into();
        answer(service.client.terminals().create_terminal(request).await);
    }
    let report = run(&service, order).await;
    assert!(!report.is_sound());
    assert_eq!((report.active, report.initial_key_ids, report.replies_lost), (5, 5, 0));
    let failed: Vec<_> = report.calls.iter().filter(|call| !call.failures.is_empty()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].call, "IssueActivationCode");
    assert_eq!(failed[0].failures, BTreeMap::from([("MERCHANT_NOT_APPROVED".to_owned(), 1)]));
    assert_eq!(report.faults, [format!("{} is TERMINAL_STATE_HELD", order.id(4))]);
    assert_eq!(service.state(&order.id(3)).await, "ACTIVE");
}
