//! Each call and each reason over a real server: real gRPC, a real store, real keys.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod activation;
mod approval_tool;
mod approvals;
mod audit;
mod backend;
mod batch;
mod ceremony;
mod ceremony_aborts;
mod ceremony_ends;
mod codes;
mod compromise;
mod facility;
mod faults;
#[path = "../setup/firstkeyd.rs"]
mod firstkeyd;
mod fleet;
mod hand;
mod harness;
mod hidden;
mod identity;
mod key_states;
mod keys;
mod known;
mod ledger;
mod lifecycle;
mod limits;
mod lookup;
mod macs;
mod marks;
mod master;
mod mended;
mod operations;
mod outcomes;
mod payloads;
mod pins;
mod policy;
mod profiles;
mod published;
mod reasons;
mod rejected;
mod relay;
mod roles;
mod seal;
mod self_tests;
mod separation;
mod server;
mod shares;
mod slot_keys;
mod states;
mod switch;
mod terminal_keys;
mod terminals;
mod transactions;
mod trust;
mod update;
mod vectors;
mod versions;
mod watch;
mod wire;

use firstkey::agreement::Suite;

#[tokio::test]
async fn the_lead_in_takes_a_terminal_of_each_suite_to_its_first_purchase() {
    let service = harness::Service::start_durable().await;
    for (id, suite) in [("till-aes", Suite::P256Aes128), ("till-tdes", Suite::P256Tdes2)] {
        let mut till = service.active_till(id, suite).await;
        assert_eq!(service.state(id).await, "ACTIVE");
        assert!(!till.purchase(&service).mac.is_empty());
    }
    let (folder, ..) = service.stop().await;
    assert!(folder.is_some());
}
