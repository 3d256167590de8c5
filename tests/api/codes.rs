//! Activation codes: tries, time, and a thousand who redeem the same one at once.

use std::collections::HashSet;
use std::sync::Arc;

use firstkey::activation::payload::{BeginAnswer, Payload as _};
use firstkey::activation::{ActivationCode, Call};
use firstkey::agreement::Suite;
use firstkey::grpc::client::Client;
use firstkey::grpc::proto;
use firstkey::terminal::SignedRequest;

use crate::harness::{Service, refused, retyped, told};
use crate::pins::restarted;

const AES: Suite = Suite::P256Aes128;

fn wrong() -> ActivationCode {
    ActivationCode::from_random_bits(&[0xA5; 7])
}

#[tokio::test]
async fn tries_that_were_spent_stay_spent_over_a_restart() {
    let service = Service::start_durable().await;
    let mut till = service.register("till", AES).await;
    let right = service.issue_code("till").await;
    for left in ["4", "3", "2"] {
        let refusal = refused(till.twin().begin(&service, Some(wrong())).await);
        assert_eq!(told(&refusal, "tries_left"), left);
    }
    let service = restarted(service).await;
    // A device's clock goes on, whatever the service does.
    service.clock.advance(60);
    for (reason, left) in [("CODE_REFUSED", "1"), ("TERMINAL_LOCKED", "0")] {
        let refusal = refused(till.twin().begin(&service, Some(wrong())).await);
        assert_eq!((refusal.reason.as_str(), told(&refusal, "tries_left")), (reason, left));
    }
    let refusal = refused(till.begin(&service, Some(right)).await);
    assert_eq!(refusal.reason, "TERMINAL_LOCKED", "the right code comes too late");
}

#[tokio::test]
async fn five_wrong_codes_lock_and_a_reissued_code_unlocks() {
    let service = Service::start_durable().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    for (given, left) in
        [(Some(wrong()), "4"), (None, "3"), (Some(wrong()), "2"), (Some(wrong()), "1")]
    {
        let refusal = refused(till.twin().begin(&service, given).await);
        assert_eq!(refusal.reason, "CODE_REFUSED");
        assert_eq!(told(&refusal, "tries_left"), left);
        assert_eq!(told(&refusal, "remedy"), "type the code again as it was told");
        assert_eq!(service.state("till").await, "CODE_ISSUED");
    }
    let refusal = refused(till.twin().begin(&service, Some(wrong())).await);
    assert_eq!(refusal.reason, "TERMINAL_LOCKED");
    assert_eq!(told(&refusal, "tries_left"), "0");
    let terminal = service.get("till").await;
    assert_eq!(crate::harness::state_name(&terminal), "LOCKED");
    let last = terminal.timeline.last().unwrap();
    assert_eq!((last.step.as_str(), last.reason.as_str()), ("BeginActivation", "TERMINAL_LOCKED"));
    assert_eq!(last.remedy, "the terminal is locked: reissue its code");

    // The right code comes too late.
    let refusal = refused(till.twin().begin(&service, Some(retyped(&code))).await);
    assert_eq!(refusal.reason, "TERMINAL_LOCKED");
    let again = service.reissue_code("till").await;
    assert_eq!(service.state("till").await, "CODE_ISSUED");
    // The code before is one of the wrong codes now, and the tries are five again.
    let refusal = refused(till.twin().begin(&service, Some(code)).await);
    assert_eq!((refusal.reason.as_str(), told(&refusal, "tries_left")), ("CODE_REFUSED", "4"));
    till.activate(&service, Some(again)).await.unwrap();
    assert_eq!(service.state("till").await, "TESTED");
}

#[tokio::test]
async fn a_code_has_its_time_and_no_second_more() {
    let service = Service::start().await;
    service
        .profile("brief", |profile| {
            profile.code_lifetime = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        })
        .await;
    let mut in_time = service.register_under("in-time", AES, "brief").await;
    let mut late = service.register_under("late", AES, "brief").await;
    let first = service.issue_code("in-time").await;
    let second = service.issue_code("late").await;
    service.clock.advance(60);
    in_time.begin(&service, Some(first)).await.expect("the sixtieth second is its own");
    service.clock.advance(1);
    let refusal = refused(late.twin().begin(&service, Some(second)).await);
    assert_eq!(refusal.reason, "CODE_REFUSED");
    assert_eq!(told(&refusal, "remedy"), "the code has expired: reissue it");
    assert_eq!(service.state("late").await, "CODE_EXPIRED");
    let code = service.reissue_code("late").await;
    late.activate(&service, Some(code)).await.unwrap();
}

#[tokio::test]
async fn a_code_is_bound_to_its_terminal() {
    let service = Service::start().await;
    let mut first = service.register("first", AES).await;
    let mut second = service.register("second", AES).await;
    let one = service.issue_code("first").await;
    let two = service.issue_code("second").await;
    assert_eq!(
        refused(first.twin().begin(&service, Some(retyped(&two))).await).reason,
        "CODE_REFUSED"
    );
    assert_eq!(
        refused(second.twin().begin(&service, Some(retyped(&one))).await).reason,
        "CODE_REFUSED"
    );
    first.begin(&service, Some(one)).await.unwrap();
    second.begin(&service, Some(two)).await.unwrap();
}

#[tokio::test]
async fn a_spent_code_opens_nothing_after_the_activation_or_its_cancellation() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.take_keys(&service, Some(retyped(&code))).await.unwrap();
    service.must(Call::CancelActivation, "till").await;
    let refusal = refused(till.twin().begin(&service, Some(retyped(&code))).await);
    assert_eq!(refusal.reason, "ACTIVATION_STATE");
    service.issue_code("till").await;
    let refusal = refused(till.twin().begin(&service, Some(code)).await);
    assert_eq!(refusal.reason, "CODE_REFUSED");
}

#[tokio::test]
async fn a_captured_begin_is_worthless() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    let wrong = Some(ActivationCode::from_random_bits(&[1; 7]));
    let early = till.terminal.begin(wrong, &service.rng, service.device_time()).unwrap();
    // A Begin that was refused is refused again, and spends its one try once.
    for _ in 0..6 {
        let refusal = service.send_begin(&early).await.unwrap_err();
        assert_eq!(refusal.reason, "CODE_REFUSED");
        assert_eq!(told(&refusal, "tries_left"), "4");
    }
    let good = till.terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
    let answer = service.send_begin(&good).await.unwrap();
    let before = service.get("till").await;
    // The older one is a replay now, and the other form of a signature makes no other request.
    let refusal = service.send_begin(&early).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    let other_form = SignedRequest { proof: negated(&good.proof), ..good.clone() };
    let again = service.send_begin(&other_form).await.unwrap();
    assert!(again == answer && service.get("till").await == before);

    // A clock far ahead would shut out every later Begin: it is not taken.
    let late = service.now() + 2 * 24 * 60 * 60;
    let ahead = till.twin().terminal.begin(None, &service.rng, late).unwrap();
    let refusal = service.send_begin(&ahead).await.unwrap_err();
    assert!(told(&refusal, "remedy").contains("clock"), "{refusal}");
    assert!(service.get("till").await == before);
}

/// The other valid form of an ECDSA signature: (r, n - s).
fn negated(signature: &[u8]) -> Vec<u8> {
    // The order of P-256: SEC 2, 2.4.2.
    let order = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let order = data_encoding::HEXUPPER.decode(order.as_bytes()).unwrap();
    let mut negated = signature.to_vec();
    let mut borrow = 0_i16;
    for place in (0..32).rev() {
        let difference = i16::from(order[place]) - i16::from(signature[32 + place]) - borrow;
        borrow = i16::from(difference < 0);
        negated[32 + place] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    negated
}

/// How many redeem one code at once.
const REDEMPTIONS: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_redemptions_at_once_make_one_activation_and_one_key_id() {
    let service = Service::start_durable().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(&service.url).await.unwrap());
    }
    let gate = Arc::new(tokio::sync::Barrier::new(REDEMPTIONS));
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..REDEMPTIONS {
        let begin =
            till.terminal.begin(Some(retyped(&code)), &service.rng, service.device_time()).unwrap();
        let (client, gate) = (clients[number % clients.len()].clone(), Arc::clone(&gate));
        let (payload, proof) = (begin.payload, begin.proof);
        calls.spawn(async move {
            let request = proto::BeginActivationRequest { payload, proof };
            gate.wait().await;
            let answered = client.activation().begin_activation(request).await;
            answered.map_err(firstkey::grpc::client::Refusal::from)
        });
    }
    let mut names = HashSet::new();
    let mut answered = 0;
    while let Some(result) = calls.join_next().await {
        match result.unwrap() {
            Ok(answer) => {
                let answer = BeginAnswer::parse(&answer.into_inner().payload).unwrap();
                names.insert(answer.activation.as_str().to_owned());
                answered += 1;
            }
            // Whoever came too close behind others is told to come again; whom a later Begin of
            // the same device overtook is refused as the replay that it now is.
            Err(refusal) => {
                let reasons = ["STORE_CONFLICT", "ACTIVATION_REFUSED"];
                assert!(reasons.contains(&refusal.reason.as_str()), "{refusal}");
            }
        }
    }
    assert!(answered >= 1);
    assert_eq!(names, HashSet::from(["terminals/till/activations/1".to_owned()]));

    // Every event that tells of an allocation tells of the same one.
    let mut ids = HashSet::new();
    let (mut sequence, mut begun) = (0, 0);
    loop {
        let events = service.vault.events_after(sequence, 200).await.unwrap();
        let Some(last) = events.last() else { break };
        sequence = last.seq;
        for event in events.iter().filter(|event| event.is_done()) {
            if let Some((_, id)) =
                event.detail.get("note").and_then(|note| note.split_once("initial key id "))
            {
                ids.insert(id.split(';').next().unwrap().to_owned());
                begun += 1;
            }
        }
    }
    assert_eq!((ids.len(), begun), (1, answered));

    // The device still comes through to the end, with that key.
    till.activate(&service, Some(code)).await.unwrap();
    service.enable("till").await.unwrap();
    let terminal = service.get("till").await;
    let id = data_encoding::HEXUPPER.encode(&terminal.initial_key_id);
    assert_eq!(ids, HashSet::from([id]));
    assert_eq!(terminal.activation, "terminals/till/activations/1");
}
