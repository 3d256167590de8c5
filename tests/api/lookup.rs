//! `LookupKsn`: whose a key serial number is, and whether it would be served. It spends nothing.

use firstkey::activation::Call;
use firstkey::agreement::Suite;
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{
    KeyState, LookupKsnRequest, LookupKsnResponse, SetKeyStateRequest, TerminalState,
};
use tonic::Status;

use crate::harness::{HOUR, Service, Till, answer};
use crate::known::{InjectedAes, InjectedTdes, expect_path, expect_reason, status_of};
use crate::transactions::verify;

const AES: Suite = Suite::P256Aes128;

async fn try_lookup(service: &Service, ksn: &[u8]) -> Result<LookupKsnResponse, Status> {
    let request = LookupKsnRequest { ksn: ksn.to_vec() };
    Ok(service.client.terminals().lookup_ksn(request).await?.into_inner())
}

/// What is known of a key serial number.
pub(crate) async fn lookup(service: &Service, ksn: &[u8]) -> LookupKsnResponse {
    try_lookup(service, ksn).await.expect("somebody has the key set")
}

/// The terminal, where its key stands, and what a call would be told.
fn told(found: &LookupKsnResponse) -> (&str, &str, &str) {
    let standing = found.key_set().as_str_name().trim_start_matches("KEY_SET_STANDING_");
    assert_eq!(found.served, found.reason.is_empty());
    assert_eq!(found.grace_end_time.is_some(), standing == "GRACE");
    (&found.terminal, standing, &found.reason)
}

/// Looks up the counter that a terminal is about to use, then has it used: what was told holds.
async fn expect(service: &Service, till: &mut Till, expected: (&str, &str, &str)) {
    let payment = till.purchase(service);
    let found = lookup(service, payment.ksn.bytes()).await;
    assert_eq!(told(&found), expected);
    let served = verify(service, &payment).await.err();
    assert_eq!(served.map(|refusal| refusal.reason).unwrap_or_default(), found.reason);
}

#[tokio::test]
async fn a_terminal_is_found_by_its_keys_through_its_life() {
    let service = Service::start().await;
    let serving = ("terminals/till", "SERVING", "");
    let mut till = service.active_till("till", AES).await;
    let payment = till.purchase(&service);
    let found = lookup(&service, payment.ksn.bytes()).await;
    assert_eq!(told(&found), serving);
    assert_eq!(found.base_derivation_key, "keys/dev-bdk-aes/versions/1");
    assert_eq!(found.initial_key_id, service.get("till").await.initial_key_id);
    assert_eq!(found.counter.to_be_bytes(), payment.ksn.bytes()[8..]);
    assert!(found.terminal_state() == TerminalState::Active);
    for _ in 0..3 {
        assert!(lookup(&service, payment.ksn.bytes()).await == found, "nothing is spent");
    }
    verify(&service, &payment).await.expect("the counter is free");
    // Two key sets through a re-key and its grace.
    let mut old = till.twin();
    service.must(Call::StartRekey, "till").await;
    expect(&service, &mut old, serving).await;
    till.take_keys(&service, None).await.unwrap();
    expect(&service, &mut till, serving).await;
    expect(&service, &mut old, ("terminals/till", "GRACE", "")).await;
    let grace = lookup(&service, old.purchase(&service).ksn.bytes()).await.grace_end_time;
    let end = i64::try_from(service.now() + HOUR).unwrap();
    assert_eq!(grace.map(|time| time.seconds), Some(end));
    service.clock.advance(HOUR + 1);
    let replaced = ("terminals/till", "REPLACED", "TERMINAL_NOT_ACTIVE");
    expect(&service, &mut old, replaced).await;
    expect(&service, &mut till, serving).await;
    for call in [Call::SuspendTerminal, Call::RetireTerminal] {
        service.must(call, "till").await;
        let closed = ("terminals/till", "SERVING", "TERMINAL_NOT_ACTIVE");
        expect(&service, &mut till, closed).await;
        let found = lookup(&service, till.purchase(&service).ksn.bytes()).await;
        assert!(found.terminal_state() == service.get("till").await.state());
        assert!(!found.remedy.is_empty());
    }
}

#[tokio::test]
async fn a_key_that_is_not_confirmed_has_no_terminal_and_one_before_its_tests_is_not_served() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    // The first id below the base derivation key is allocated to the activation.
    till.begin(&service, Some(code)).await.unwrap();
    let ksn = [0xDE, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    let unknown = ("", "UNSPECIFIED", "TERMINAL_NOT_FOUND");
    assert_eq!(told(&lookup(&service, &ksn).await), unknown);
    till.deliver(&service).await.unwrap();
    till.confirm(&service).await.unwrap();
    let found = lookup(&service, &ksn).await;
    let waiting = ("terminals/till", "SERVING", "TERMINAL_NOT_ACTIVE");
    assert_eq!(told(&found), waiting);
    assert!(found.terminal_state() == TerminalState::KeysConfirmed);
    service.must(Call::CancelActivation, "till").await;
    let cancelled = ("terminals/till", "REPLACED", "TERMINAL_NOT_ACTIVE");
    assert_eq!(told(&lookup(&service, &ksn).await), cancelled);
}

#[tokio::test]
async fn strangers_are_served_under_an_open_key_alone_and_nobody_is_not_found() {
    let service = Service::start().await;
    let aes = InjectedAes::below(&service, "bdk", [0xC1; 4]).await;
    let tdes = InjectedTdes::below(&service, "bdk-tdes", [0xFF, 0xFF, 0xC1, 0xC2, 0xC3]).await;
    let stranger = ("", "UNSPECIFIED", "");
    let found = lookup(&service, aes.ksn(7).bytes()).await;
    assert_eq!((told(&found), found.counter), (stranger, 7));
    assert_eq!(found.base_derivation_key, "keys/bdk/versions/1");
    let whole = tdes.ksn(9);
    for ksn in [&whole.bytes()[..], &whole.bytes()[1..], &whole.bytes()[2..]] {
        let found = lookup(&service, ksn).await;
        assert_eq!((told(&found), found.counter), (stranger, 9));
        assert_eq!(found.initial_key_id, tdes.id.bytes());
    }
    let (name, state) = ("keys/bdk".to_owned(), KeyState::Suspended.into());
    let suspend = SetKeyStateRequest { request_id: request_id(), name, state, serve_until: None };
    answer(service.client.keys().set_key_state(suspend).await);
    let suspended = ("", "UNSPECIFIED", "KEY_NOT_ACTIVE");
    assert_eq!(told(&lookup(&service, aes.ksn(7).bytes()).await), suspended);
    // A key set that nobody has, and what is no key serial number.
    let nobody = [9, 9, 9, 9, 0, 0, 0, 1, 0, 0, 0, 1];
    expect_reason(&status_of(try_lookup(&service, &nobody).await), "KEY_NOT_FOUND");
    for ksn in [&nobody[..11], &[1; 7], &[], &[9, 9, 9, 9, 0, 0, 0, 1, 0, 0, 0, 0]] {
        expect_path(&status_of(try_lookup(&service, ksn).await), "KSN_INVALID", "ksn");
    }
}
