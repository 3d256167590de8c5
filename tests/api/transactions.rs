//! Steps 6 and 7: parameters, reports and test transactions, each under its own key.

use std::sync::Arc;

use firstkey::activation::parameters::Currency;
use firstkey::activation::payload::{
    ActivationName, CardData, Fault, Outcome, ParametersAnswer, ParametersRequest, Payload as _,
    Report, TestTransactionAnswer,
};
use firstkey::activation::{Call, Step, Transcript};
use firstkey::agreement::Suite;
use firstkey::grpc::client::Refusal;
use firstkey::terminal::{ReportRequest, TransactionRequest};

use crate::hand::Hand;
use crate::harness::{CARD_PAN, Service, told};

const AES: Suite = Suite::P256Aes128;

/// A report of a hand-driven terminal under its next transaction key.
async fn report(
    service: &Service,
    hand: &mut Hand,
    activation: &ActivationName,
    (step, outcome): (Step, Outcome),
) -> Result<(), Refusal> {
    let report = Report { activation: activation.clone(), step, outcome };
    let keys = hand.next_keys();
    let request = hand.exchange(&keys, Step::Report, report.encode());
    let name = hand.activation.as_str().to_owned();
    service.send_report(&name, &ReportRequest::Transaction(request)).await
}

#[tokio::test]
async fn each_check_of_a_test_transaction_fails_by_its_name() {
    let service = Service::start().await;
    let card = |pan: &str, expiry: &str| CardData::new(pan, expiry).unwrap();
    for (id, suite) in [("till-aes", AES), ("till-tdes", Suite::P256Tdes2)] {
        let mut hand = Hand::with_parameters(&service, id, suite).await;
        // A block that opens to no PIN for this card: another card's, and bytes drawn by nobody.
        let failed = hand.test(&service, |test| test.card = card("5500005555555559", "4912")).await;
        assert_eq!(failed.unwrap(), ["PIN_BLOCK"], "{id}");
        let failed = hand.test(&service, |test| test.pin_block[0] ^= 1).await;
        assert_eq!(failed.unwrap(), ["PIN_BLOCK"], "{id}");
        for amount_minor in [50_001, 999_999_999_999, 0] {
            let failed = hand.test(&service, |test| test.amount_minor = amount_minor).await;
            assert_eq!(failed.unwrap(), ["LIMITS"], "{id} {amount_minor}");
        }
        let dollars = Currency::new("USD").unwrap();
        let failed = hand.test(&service, |test| test.currency = dollars).await;
        assert_eq!(failed.unwrap(), ["LIMITS"], "{id}");
        // No PIN block is bound to a PAN of a wrong length, so two checks fail.
        for pan in ["41111111114", "41111111111111111111"] {
            let failed = hand.test(&service, |test| test.card = card(pan, "4912")).await.unwrap();
            assert!(failed.starts_with(&["PIN_BLOCK", "PAN_LENGTH"]), "{id} {failed:?}");
        }
        let failed = hand.test(&service, |test| test.card = card(CARD_PAN, "3002")).await;
        assert_eq!(failed.unwrap(), ["EXPIRY"], "{id}: the month before this one");
        let failed = hand.test(&service, |test| test.card = card(CARD_PAN, "4913")).await;
        assert_eq!(failed.unwrap(), ["EXPIRY"], "{id}: no month");

        let terminal = service.get(id).await;
        assert_eq!(terminal.tests_passed, 0, "a failed test counts");
        assert_eq!(crate::harness::state_name(&terminal), "PARAMETERS_DELIVERED");
        // The month of expiry is the last that a card is good for, the limit the last amount.
        let failed = hand
            .test(&service, |test| {
                test.card = card(CARD_PAN, "3003");
                test.amount_minor = 50_000;
            })
            .await;
        assert!(failed.unwrap().is_empty(), "{id}");
        assert_eq!(service.state(id).await, "TESTED");
    }
}

#[tokio::test]
async fn a_wrong_check_digit_fails_by_its_name() {
    let service = Service::start().await;
    let mut hand = Hand::with_parameters(&service, "till", AES).await;
    let keys = hand.next_keys();
    // A PIN block is bound to the card all the same: this one check fails alone.
    let test = hand.test_of(&service, &keys, "4111111111111112");
    let sent = service.send_test(&hand.exchange(&keys, Step::Test, test.encode())).await.unwrap();
    let answer = TestTransactionAnswer::parse(&sent.payload).unwrap();
    let failed: Vec<_> = answer.verdicts.iter().filter(|verdict| !verdict.passed).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].check.as_str(), "LUHN");
    assert!(failed[0].remedy.contains("check digit"), "{}", failed[0].remedy);
    assert_eq!(service.get("till").await.tests_passed, 0);
}

#[tokio::test]
async fn a_spent_counter_serves_nothing_else_and_an_unknown_one_nothing() {
    let service = Service::start().await;
    for (id, suite) in [("till-aes", AES), ("till-tdes", Suite::P256Tdes2)] {
        let mut hand = Hand::with_parameters(&service, id, suite).await;
        let keys = hand.next_keys();
        let wanted = |nonce| ParametersRequest { known_version: 1, nonce: [nonce; 32] }.encode();
        let first = hand.exchange(&keys, Step::Parameters, wanted(1));
        let answer = service.send_parameters(&first).await.unwrap();
        // The same counter with another valid message, of this step or of another.
        let second = hand.exchange(&keys, Step::Parameters, wanted(2));
        let refusal = service.send_parameters(&second).await.unwrap_err();
        assert_eq!(refusal.reason, "KSN_REPLAYED", "{id}");
        let test = hand.good_test(&service, &keys);
        let test = hand.exchange(&keys, Step::Test, test.encode());
        assert_eq!(service.send_test(&test).await.unwrap_err().reason, "KSN_REPLAYED", "{id}");
        // Neither took away the answer to the first.
        assert_eq!(service.send_parameters(&first).await.unwrap(), answer, "{id}");

        // A later message, then the first again: its answer is no longer kept, its counter spent.
        let keys = hand.next_keys();
        let third = hand.exchange(&keys, Step::Parameters, wanted(3));
        service.send_parameters(&third).await.unwrap();
        let refusal = service.send_parameters(&first).await.unwrap_err();
        assert_eq!(refusal.reason, "KSN_REPLAYED", "{id}");

        // Of a terminal, or a key set, that nobody knows: the same as a wrong MAC.
        for index in [0, hand.initial_key_id.len() - 4] {
            let mut ksn = third.ksn.clone();
            ksn[index] ^= 0x40;
            let refusal =
                service.send_parameters(&TransactionRequest { ksn, ..third.clone() }).await;
            let refusal = refusal.unwrap_err();
            assert_eq!(refusal.reason, "ACTIVATION_REFUSED", "{id}");
            assert!(refusal.metadata.is_empty(), "{id}");
        }
    }
}

#[tokio::test]
async fn a_counter_of_a_late_message_is_still_good_once() {
    let service = Service::start().await;
    let mut hand = Hand::with_parameters(&service, "till", AES).await;
    let wanted = || ParametersRequest { known_version: 1, nonce: [9; 32] }.encode();
    let late = hand.next_keys();
    for _ in 0..20 {
        hand.next_keys();
    }
    let keys = hand.next_keys();
    let request = hand.exchange(&keys, Step::Parameters, wanted());
    service.send_parameters(&request).await.unwrap();
    let request = hand.exchange(&late, Step::Test, hand.good_test(&service, &late).encode());
    service.send_test(&request).await.expect("within the window");
}

#[tokio::test]
async fn a_device_reports_its_faults_before_it_has_keys() {
    let service = Service::start().await;
    let hand = Hand::take_keys(&service, "till", AES).await;
    let name = hand.activation.as_str().to_owned();
    for fault in Fault::ALL {
        let signed = ReportRequest::Signed(hand.till.device_report(&name, *fault));
        service.send_report(&name, &signed).await.unwrap();
        let terminal = service.get("till").await;
        let last = terminal.timeline.last().unwrap();
        assert_eq!(last.step, "ReportStep");
        assert_eq!(last.note, format!("step deliver failed at the terminal: {}", fault.as_str()));
        assert!(last.remedy.contains("run the step again"), "{}", last.remedy);
        assert_eq!(crate::harness::state_name(&terminal), "KEYS_DELIVERED");
        // The same once more is one report.
        service.send_report(&name, &signed).await.unwrap();
        assert!(service.get("till").await == terminal);
    }
    // Another device's signature is none.
    let before = service.get("till").await;
    let mut stranger = hand.till.twin();
    let device = service.device(&crate::harness::serial_of("till"));
    stranger.terminal = firstkey::terminal::Terminal::new(device, AES);
    let signed = ReportRequest::Signed(stranger.device_report(&name, Fault::Payload));
    let refusal = service.send_report(&name, &signed).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    // That parameters were applied is said under a transaction key alone.
    let report = Report {
        activation: hand.activation.clone(),
        step: Step::Parameters,
        outcome: Outcome::Applied([0; 32]),
    };
    let signed = hand.till.signed(&Transcript::new(), report.encode(), Step::Report);
    let refusal = service.send_report(&name, &ReportRequest::Signed(signed)).await.unwrap_err();
    assert_eq!((refusal.reason.as_str(), refusal.fields[0].0.as_str()), ("FIELD_INVALID", "proof"));
    assert!(service.get("till").await == before);
}

#[tokio::test]
async fn what_was_applied_must_be_what_was_sent() {
    let service = Service::start().await;
    let mut hand = Hand::take_keys(&service, "till", AES).await;
    let (name, activation) = (hand.activation.as_str().to_owned(), hand.activation.clone());
    let confirm = hand.confirmation(hand.loaded());
    service.send_confirm(&name, &confirm).await.unwrap();
    let applied = |digest| (Step::Parameters, Outcome::Applied(digest));
    // Before any were sent, nothing can have been applied.
    let refusal = report(&service, &mut hand, &activation, applied([0; 32])).await.unwrap_err();
    assert_eq!(refusal.fields[0].0, "payload.applied_digest");

    let keys = hand.next_keys();
    let wanted = ParametersRequest { known_version: 0, nonce: [3; 32] };
    let request = hand.exchange(&keys, Step::Parameters, wanted.encode());
    let sent = service.send_parameters(&request).await.unwrap();
    let parameters = ParametersAnswer::parse(&sent.payload).unwrap().parameters;
    assert_eq!(parameters.version.number(), 1);
    assert_eq!(parameters.currency.as_str(), "EUR");
    assert_eq!(parameters.merchant_name.as_str(), "Corner Shop");

    // Tests come after the report; whoever skips it is told so.
    let refusal = hand.test(&service, |_| ()).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_STATE");
    assert!(told(&refusal, "remedy").contains("has not reported"), "{refusal}");

    let mut digest = parameters.digest();
    digest[0] ^= 1;
    let refusal = report(&service, &mut hand, &activation, applied(digest)).await.unwrap_err();
    assert_eq!(refusal.fields[0].0, "payload.applied_digest");
    assert_eq!(service.get("till").await.parameters_version, 0);
    let other = ActivationName::new("terminals/till/activations/2").unwrap();
    let digest = parameters.digest();
    let refusal = report(&service, &mut hand, &other, applied(digest)).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");

    let fault = (Step::Parameters, Outcome::Fault(Fault::ParametersRolledBack));
    report(&service, &mut hand, &activation, fault).await.unwrap();
    let terminal = service.get("till").await;
    assert!(terminal.timeline.last().unwrap().note.ends_with("PARAMETERS_ROLLED_BACK"));
    report(&service, &mut hand, &activation, applied(digest)).await.unwrap();
    assert_eq!(service.get("till").await.parameters_version, 1);
    assert!(hand.test(&service, |_| ()).await.unwrap().is_empty());
}

/// The backend's check of a payment's MAC.
pub(crate) async fn verify(
    service: &Service,
    payment: &firstkey::terminal::Payment,
) -> Result<(), Refusal> {
    let request = firstkey::server::simulation::verify_request(payment);
    service.client.macs().verify_mac(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_transaction_is_recorded_once() {
    let service = Service::start_durable().await;
    let mut till = service.active_till("till", AES).await;
    let enabled = service.get("till").await;
    assert!(enabled.first_transaction_time.is_none());
    // A refused one is none.
    let mut forged = till.purchase(&service);
    forged.mac[0] ^= 1;
    assert_eq!(verify(&service, &forged).await.unwrap_err().reason, "MAC_MISMATCH");
    assert!(service.get("till").await.first_transaction_time.is_none());

    service.clock.advance(30);
    let first = service.now();
    let payments: Vec<_> = (0..16).map(|_| till.purchase(&service)).collect();
    let service = Arc::new(service);
    let mut calls = tokio::task::JoinSet::new();
    for payment in payments {
        let service = Arc::clone(&service);
        calls.spawn(async move { verify(&service, &payment).await });
    }
    for result in calls.join_all().await {
        result.expect("each is good");
    }
    let after = service.get("till").await;
    service.clock.advance(30);
    verify(&service, &till.purchase(&service)).await.unwrap();
    let terminal = service.get("till").await;
    assert!(terminal == after, "a later transaction changed the terminal");
    let time = terminal.first_transaction_time.expect("a first transaction");
    assert_eq!(u64::try_from(time.seconds).unwrap(), first);
    let recorded = terminal.timeline.iter().filter(|entry| entry.step == "FirstTransaction");
    assert_eq!(recorded.count(), 1);
}

#[tokio::test]
async fn a_higher_version_may_be_asked_for_in_service() {
    let service = Service::start().await;
    let mut till = service.active_till("till", AES).await;
    till.parameters(&service).await.expect("the same version is applied again");
    let terminal = service.get("till").await;
    assert_eq!(crate::harness::state_name(&terminal), "ACTIVE");
    service.must(Call::SuspendTerminal, "till").await;
    let refusal = crate::harness::refused(till.parameters(&service).await);
    assert_eq!(refusal.reason, "ACTIVATION_STATE");
}
