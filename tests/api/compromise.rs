//! A base derivation key becomes known to others: the officer's choice, the queue of its terminals,
//! and the way out.

use firstkey::activation::Call;
use firstkey::agreement::Suite;
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto::{
    self, CreateKeyRequest, ExportInitialKeyRequest, Key, KeyAlgorithm, KeyAttributes, KeyState,
    KeyUsage, ListTerminalsRequest, SetKeyStateRequest, TerminalState,
};
use firstkey::server::simulation::translate_request;
use firstkey::terminal::Answer;
use prost_types::Timestamp;
use tonic::Status;

use crate::harness::{HOUR, Service, Till, answer, refusal, refused, told};
use crate::known::{expect_field, expect_reason, status_of};
use crate::lookup::lookup;
use crate::profiles::update;
use crate::transactions::verify;

const AES: Suite = Suite::P256Aes128;
const DAY: u64 = 24 * HOUR;

/// `keys/bdk-1` and its profile `retail`.
async fn with_bdk(service: &Service, expire_time: Option<Timestamp>) {
    let attributes =
        KeyAttributes { key_set_id: vec![0xB1; 4], expire_time, ..KeyAttributes::default() };
    let request = CreateKeyRequest {
        request_id: request_id(),
        key_id: "bdk-1".into(),
        usage: KeyUsage::BaseDerivation.into(),
        algorithm: KeyAlgorithm::Aes128.into(),
        attributes: Some(attributes),
        ..CreateKeyRequest::default()
    };
    answer(service.client.keys().create_key(request).await);
    let name = || "keys/bdk-1".to_owned();
    service.profile("retail", |profile| profile.base_derivation_key = name()).await;
}

/// A terminal in service under the profile.
async fn till(service: &Service, id: &str) -> Till {
    let mut till = service.register_under(id, AES, "retail").await;
    let code = service.issue_code(id).await;
    till.activate(service, Some(code)).await.unwrap();
    service.enable(id).await.unwrap();
    till
}

async fn change(
    service: &Service,
    id: &str,
    state: KeyState,
    serve_until: Option<u64>,
) -> Result<Key, Status> {
    let serve_until = serve_until.map(timestamp);
    let (name, state) = (format!("keys/{id}"), state.into());
    let request = SetKeyStateRequest { request_id: request_id(), name, state, serve_until };
    Ok(service.client.keys().set_key_state(request).await?.into_inner().key.unwrap())
}

fn timestamp(seconds: u64) -> Timestamp {
    Timestamp { seconds: i64::try_from(seconds).unwrap(), nanos: 0 }
}

async fn compromise(service: &Service, serve_until: Option<u64>) -> Result<Key, Status> {
    change(service, "bdk-1", KeyState::Compromised, serve_until).await
}

/// The terminals whose serving keys come from a base derivation key, each due or not.
async fn queue(service: &Service, id: &str) -> Vec<(String, bool)> {
    let base_derivation_key = format!("keys/{id}");
    let request = ListTerminalsRequest { base_derivation_key, ..Default::default() };
    let listed = answer(service.client.terminals().list_terminals(request).await).terminals;
    let named = |one: proto::Terminal| (one.name.replace("terminals/", ""), one.rekey_due);
    listed.into_iter().map(named).collect()
}

/// What a purchase is told: its MAC, its PIN block, and who looks its KSN up.
async fn purchase(service: &Service, till: &mut Till) -> [String; 3] {
    let payment = till.purchase(service);
    let found = lookup(service, payment.ksn.bytes()).await;
    let request = translate_request(&payment, payment.pin_block.bytes().to_vec());
    let pin = service.client.pins().translate_pin(request).await.map_err(Refusal::from);
    let mac = verify(service, &payment).await;
    let told = |refusal: Option<Refusal>| refusal.map_or("OK".into(), |refusal| refusal.reason);
    let looked = if found.served { "OK".to_owned() } else { found.reason };
    [told(mac.err()), told(pin.err()), looked]
}

#[tokio::test]
async fn terminals_are_served_until_the_chosen_time_while_they_move_to_another_key() {
    let service = Service::start_durable().await;
    with_bdk(&service, None).await;
    service.second_bdk().await;
    let mut first = till(&service, "first").await;
    let mut slow = till(&service, "slow").await;
    let mut other = service.active_till("other", AES).await;
    let mut half = service.register_under("half", AES, "retail").await;
    let code = service.issue_code("half").await;
    half.begin(&service, Some(code)).await.unwrap();
    let activation = service.get("half").await.activation;
    let lost = half.terminal.deliver().unwrap();
    service.send_deliver(&activation, &lost).await.expect("the reply is lost");
    assert_eq!(queue(&service, "bdk-1").await, [("first".into(), false), ("slow".into(), false)]);

    let until = service.now() + 7 * DAY;
    let key = compromise(&service, Some(until)).await.unwrap();
    assert!(key.state() == KeyState::Compromised);
    assert_eq!(key.serve_until, Some(timestamp(until)));
    let event = service.vault.events_after(0, 1_000).await.unwrap().pop().unwrap();
    assert_eq!((event.action.as_str(), event.resource.as_str()), ("SetKeyState", "keys/bdk-1"));
    assert_eq!(event.detail["serve_until"], (until * 1_000).to_string());
    // No initial key from that moment on: not to a new terminal, not once more, not to a facility.
    let mut late = service.register_under("late", AES, "retail").await;
    let code = service.issue_code("late").await;
    let refusal = refused(late.begin(&service, Some(code)).await);
    assert_eq!(refusal.reason, "KEY_NOT_ACTIVE");
    assert!(!told(&refusal, "remedy").is_empty());
    let refusal = service.send_deliver(&activation, &lost).await.unwrap_err();
    assert_eq!(refusal.reason, "KEY_NOT_ACTIVE");
    let export = ExportInitialKeyRequest {
        request_id: request_id(),
        base_derivation_key: "keys/bdk-1".into(),
        wrapping_key: "keys/dev-kek".into(),
    };
    let refused = status_of(service.client.keys().export_initial_key(export).await);
    expect_reason(&refused, "KEY_NOT_ACTIVE");
    // Its terminals are served and queued; those of other keys are neither told nor touched.
    assert_eq!(purchase(&service, &mut first).await, ["OK"; 3]);
    assert_eq!(queue(&service, "bdk-1").await, [("first".into(), true), ("slow".into(), true)]);
    assert!(service.get("first").await.rekey_due && !service.get("other").await.rekey_due);
    assert!(!service.get("late").await.rekey_due, "it has no keys");

    // The way out: another key in the profile, and a re-key of each terminal.
    service.update(update("retail", &["base_derivation_key"])).await.unwrap();
    let mut old = first.twin();
    service.start_update("first").await;
    assert_eq!(purchase(&service, &mut old).await, ["OK"; 3]);
    // New keys would be read under the update key by whoever knows the old base derivation key.
    let request = old.terminal.request_update(&service.rng).unwrap();
    old.terminal.abandon_exchange();
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!(refusal.reason, "KEY_NOT_ACTIVE");
    assert!(told(&refusal, "remedy").contains("begin an activation"));
    first.take_keys(&service, None).await.unwrap();
    assert_eq!(purchase(&service, &mut first).await, ["OK"; 3]);
    assert_eq!(purchase(&service, &mut old).await, ["OK"; 3], "in its grace");
    assert_eq!(queue(&service, "bdk-1").await, [("slow".into(), true)]);
    assert_eq!(queue(&service, "bdk-2").await, [("first".into(), false)]);
    // An activation that was under way begins again, below the other key.
    let code = service.reissue_code("half").await;
    half.begin(&service, Some(code)).await.unwrap();
    half.deliver(&service).await.unwrap();
    half.confirm(&service).await.unwrap();
    assert!(service.get("half").await.initial_key_id.starts_with(&[0xB2; 4]));

    service.clock.advance(7 * DAY);
    assert_eq!(purchase(&service, &mut slow).await, ["OK"; 3], "the last second");
    service.clock.advance(1);
    assert_eq!(purchase(&service, &mut slow).await, ["KEY_NOT_ACTIVE"; 3]);
    assert_eq!(purchase(&service, &mut first).await, ["OK"; 3]);
    assert_eq!(purchase(&service, &mut other).await, ["OK"; 3]);
    // Too late to be served is not too late to be moved.
    service.must(Call::StartRekey, "slow").await;
    slow.take_keys(&service, None).await.unwrap();
    assert_eq!(purchase(&service, &mut slow).await, ["OK"; 3]);
    assert_eq!(queue(&service, "bdk-1").await, []);
}

#[tokio::test]
async fn without_a_time_all_is_refused_at_once_save_the_way_out() {
    let service = Service::start().await;
    with_bdk(&service, None).await;
    service.second_bdk().await;
    let mut till = till(&service, "till").await;
    assert_eq!(compromise(&service, None).await.unwrap().serve_until, None);
    assert_eq!(purchase(&service, &mut till).await, ["KEY_NOT_ACTIVE"; 3]);
    assert_eq!(queue(&service, "bdk-1").await, [("till".into(), true)]);
    service.must(Call::StartRekey, "till").await;
    // The old key gives out none, also to a terminal that is to be moved.
    let refusal = refused(till.begin(&service, None).await);
    assert_eq!(refusal.reason, "KEY_NOT_ACTIVE");
    service.update(update("retail", &["base_derivation_key"])).await.unwrap();
    let mut old = till.twin();
    till.take_keys(&service, None).await.unwrap();
    assert_eq!(purchase(&service, &mut till).await, ["OK"; 3]);
    assert_eq!(purchase(&service, &mut old).await, ["KEY_NOT_ACTIVE"; 3], "it has no grace");
    assert!(!service.get("till").await.rekey_due);
}

#[tokio::test]
async fn the_time_is_bounded_and_can_only_be_shortened() {
    let service = Service::start().await;
    with_bdk(&service, None).await;
    let now = service.now();
    for (id, state, until) in [
        ("bdk-1", KeyState::Compromised, now),
        ("bdk-1", KeyState::Compromised, now - 1),
        ("bdk-1", KeyState::Compromised, now + 30 * DAY + 1),
        ("bdk-1", KeyState::Suspended, now + DAY),
        ("bdk-1", KeyState::Deactivated, now + DAY),
        ("dev-mac", KeyState::Compromised, now + DAY),
        ("dev-kek", KeyState::Compromised, now + DAY),
    ] {
        expect_field(&status_of(change(&service, id, state, Some(until)).await), "serve_until");
    }
    // What was out of use serves nobody for being compromised.
    service.second_bdk().await;
    for (id, state) in [("bdk-1", KeyState::Suspended), ("bdk-2", KeyState::Deactivated)] {
        change(&service, id, state, None).await.unwrap();
        let revived = change(&service, id, KeyState::Compromised, Some(now + DAY)).await;
        expect_field(&status_of(revived), "serve_until");
    }
    let told = change(&service, "bdk-2", KeyState::Compromised, None).await.unwrap();
    assert_eq!(told.serve_until, None);
    change(&service, "bdk-1", KeyState::Active, None).await.unwrap();
    let mut till = till(&service, "till").await;
    let set = async |until| compromise(&service, until).await;
    let refuse = async |until| expect_reason(&status_of(set(until).await), "KEY_NOT_ACTIVE");
    let until = now + 30 * DAY;
    assert_eq!(set(Some(until)).await.unwrap().serve_until, Some(timestamp(until)));
    refuse(Some(until)).await;
    service.clock.advance(DAY);
    refuse(Some(until + 1)).await;
    let sooner = now + 2 * DAY;
    assert_eq!(set(Some(sooner)).await.unwrap().serve_until, Some(timestamp(sooner)));
    refuse(Some(until)).await;
    assert_eq!(purchase(&service, &mut till).await, ["OK"; 3]);
    assert_eq!(set(None).await.unwrap().serve_until, None);
    assert_eq!(purchase(&service, &mut till).await, ["KEY_NOT_ACTIVE"; 3]);
    refuse(Some(sooner)).await;
    refuse(None).await;
    // There is no way back, nor on.
    for state in [KeyState::Active, KeyState::Suspended, KeyState::Deactivated] {
        let refused = status_of(change(&service, "bdk-1", state, None).await);
        expect_reason(&refused, "KEY_NOT_ACTIVE");
    }
}

#[tokio::test]
async fn the_queue_comes_page_by_page_and_of_one_key_alone() {
    let service = Service::start().await;
    with_bdk(&service, None).await;
    for number in 0..5 {
        till(&service, &format!("till-{number}")).await;
    }
    // A key id of an earlier activation is no second entry.
    let mut again = till(&service, "again").await;
    service.must(Call::StartRekey, "again").await;
    again.take_keys(&service, None).await.unwrap();
    service.must(Call::SuspendTerminal, "till-3").await;
    compromise(&service, None).await.unwrap();
    let list = async |page_size, page_token: &str, state: i32| {
        let request = ListTerminalsRequest {
            page_size,
            page_token: page_token.to_owned(),
            state,
            base_derivation_key: "keys/bdk-1".into(),
        };
        service.client.terminals().list_terminals(request).await
    };
    for page_size in 1..=7 {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let page = answer(list(page_size, &token, 0).await);
            assert!(page.terminals.len() <= usize::try_from(page_size).unwrap());
            found.extend(page.terminals.into_iter().map(|one| one.name));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let numbered = (0..5).map(|number| format!("terminals/till-{number}"));
        let expected: Vec<String> = numbered.chain(["terminals/again".to_owned()]).collect();
        assert_eq!(found, expected, "{page_size}");
    }
    let suspended = answer(list(0, "", TerminalState::Suspended.into()).await).terminals;
    assert_eq!(suspended.len(), 1);
    assert!(suspended[0].rekey_due, "suspended for now is not gone for good");
    // A retired terminal has no more keys to come.
    service.must(Call::RetireTerminal, "till-3").await;
    assert!(!service.get("till-3").await.rekey_due);
    let request = ListTerminalsRequest { page_size: 2, ..Default::default() };
    let of_all = answer(service.client.terminals().list_terminals(request).await);
    let refused = status_of(list(2, &of_all.next_page_token, 0).await);
    expect_field(&refused, "page_token");
    for (name, reason) in [("keys/nobody", "KEY_NOT_FOUND"), ("nobody", "FIELD_INVALID")] {
        let base_derivation_key = name.to_owned();
        let request = ListTerminalsRequest { base_derivation_key, ..Default::default() };
        let refused = refusal(service.client.terminals().list_terminals(request).await);
        assert_eq!(refused.reason, reason);
    }
}

#[tokio::test]
async fn a_key_that_ends_in_another_way_makes_a_rekey_due_too() {
    let service = Service::start().await;
    let end = service.now() + DAY;
    with_bdk(&service, Some(timestamp(end))).await;
    let mut till = till(&service, "till").await;
    assert!(!service.get("till").await.rekey_due);
    // What has expired starts nothing new and serves what it has given out.
    service.clock.advance(DAY + 1);
    assert!(service.get("till").await.rekey_due);
    assert_eq!(purchase(&service, &mut till).await, ["OK"; 3]);
    for (state, due) in
        [(KeyState::Suspended, true), (KeyState::Deactivated, true), (KeyState::Destroyed, true)]
    {
        change(&service, "bdk-1", state, None).await.unwrap();
        assert_eq!(service.get("till").await.rekey_due, due);
    }
    let other = service.active_till("other", AES).await;
    change(&service, "dev-bdk-aes", KeyState::Suspended, None).await.unwrap();
    assert!(!service.get(&other.id).await.rekey_due, "suspended for now");
}

#[tokio::test]
async fn keys_that_became_known_on_their_way_are_not_confirmed() {
    let service = Service::start().await;
    with_bdk(&service, None).await;
    service.second_bdk().await;
    let mut rekeyed = till(&service, "rekeyed").await;
    let mut first = service.register_under("first", AES, "retail").await;
    let code = service.issue_code("first").await;
    first.begin(&service, Some(code)).await.unwrap();
    first.deliver(&service).await.unwrap();
    service.update(update("retail", &["base_derivation_key"])).await.unwrap();
    // Keys of the other base derivation key, carried under those of this one.
    service.start_update("rekeyed").await;
    let request = rekeyed.terminal.request_update(&service.rng).unwrap();
    let sent = service.send_update(&request).await.unwrap();
    let answer = Answer { payload: &sent.payload, proof: &sent.proof };
    rekeyed.terminal.accept_update(answer).unwrap();
    change(&service, "bdk-1", KeyState::Suspended, None).await.unwrap();
    assert_eq!(refused(first.confirm(&service).await).reason, "KEY_NOT_ACTIVE");
    change(&service, "bdk-1", KeyState::Active, None).await.unwrap();
    compromise(&service, Some(service.now() + DAY)).await.unwrap();

    let refusal = refused(first.confirm(&service).await);
    assert_eq!(refusal.reason, "KEY_NOT_ACTIVE");
    assert!(told(&refusal, "remedy").contains("ask the acquirer"), "{refusal}");
    assert_eq!(service.get("first").await.timeline.last().unwrap().reason, "KEY_NOT_ACTIVE");
    let refusal = refused(rekeyed.confirm(&service).await);
    assert_eq!(refusal.reason, "KEY_NOT_ACTIVE");
    assert!(told(&refusal, "remedy").contains("begin an activation"), "{refusal}");
    // Nor are they told once more.
    assert_eq!(service.send_update(&request).await.unwrap_err().reason, "KEY_NOT_ACTIVE");
    assert!(service.get("first").await.initial_key_id.is_empty());
    assert!(service.get("rekeyed").await.initial_key_id.starts_with(&[0xB1; 4]));
    for (till, code) in
        [(&mut first, Some(service.reissue_code("first").await)), (&mut rekeyed, None)]
    {
        till.begin(&service, code).await.unwrap();
        till.deliver(&service).await.unwrap();
        till.confirm(&service).await.unwrap();
        assert!(service.get(&till.id).await.initial_key_id.starts_with(&[0xB2; 4]));
    }
}

#[tokio::test]
async fn what_a_known_key_carried_is_to_be_replaced_too() {
    let service = Service::start().await;
    with_bdk(&service, None).await;
    service.second_bdk().await;
    let mut till = till(&service, "till").await;
    assert!(service.get("till").await.forward_secrecy);
    service.update(update("retail", &["base_derivation_key"])).await.unwrap();
    // Twice: what the first keys carried carries the next.
    for _ in 0..2 {
        service.start_update("till").await;
        till.update(&service).await.unwrap();
        till.confirm(&service).await.unwrap();
        assert!(!service.get("till").await.forward_secrecy);
    }
    change(&service, "bdk-1", KeyState::Suspended, None).await.unwrap();
    assert!(!service.get("till").await.rekey_due, "suspended for now");
    change(&service, "bdk-1", KeyState::Active, None).await.unwrap();
    compromise(&service, None).await.unwrap();
    assert!(service.get("till").await.rekey_due);
    service.start_update("till").await;
    let request = till.twin().terminal.request_update(&service.rng).unwrap();
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!(refusal.reason, "KEY_NOT_ACTIVE");
    assert!(told(&refusal, "remedy").contains("begin an activation"), "{refusal}");
    till.take_keys(&service, None).await.unwrap();
    let terminal = service.get("till").await;
    assert!(terminal.forward_secrecy && !terminal.rekey_due);

    let master = service.active_till("master", Suite::MasterAesAes128).await;
    assert!(!service.get(&master.id).await.rekey_due);
    change(&service, "master-master", KeyState::Compromised, None).await.unwrap();
    assert!(service.get(&master.id).await.rekey_due);
}
