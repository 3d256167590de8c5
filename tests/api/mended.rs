//! What once went wrong and must not again: repeated answers, hidden failures, lost transitions.

use firstkey::activation::Call;
use firstkey::activation::payload::Fault;
use firstkey::agreement::Suite;
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto;
use firstkey::terminal::ReportRequest;

use crate::hand::Hand;
use crate::harness::{
    HOUR, MINUTE, Service, Till, answer, create_terminal_request, refusal, refused, serial_of,
    state_name, told,
};

const AES: Suite = Suite::P256Aes128;
const NAME: &str = "terminals/till/activations/1";

async fn deny(service: &Service, id: &str) {
    let request = proto::DenyDeviceRequest {
        request_id: request_id(),
        serial: serial_of(id),
        cause: "stolen".to_owned(),
    };
    crate::harness::answer(service.client.trust().deny_device(request).await);
}

/// Step, reason and remedy of the newest entry of a terminal's timeline.
async fn last(service: &Service, id: &str) -> (String, String, String) {
    let entry = service.get(id).await.timeline.pop().expect("an entry");
    (entry.step, entry.reason, entry.remedy)
}

#[tokio::test]
async fn keys_are_not_told_again_to_a_device_that_was_denied_meanwhile() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.begin(&service, Some(code)).await.unwrap();
    let deliver = till.terminal.deliver().unwrap();
    let sent = service.send_deliver(NAME, &deliver).await.unwrap();
    assert_eq!(service.send_deliver(NAME, &deliver).await.unwrap(), sent);
    deny(&service, "till").await;
    for _ in 0..2 {
        let refusal = service.send_deliver(NAME, &deliver).await.unwrap_err();
        assert_eq!(refusal.reason, "DEVICE_NOT_TRUSTED");
    }
    let remedy = "the device is denied: ask the acquirer".to_owned();
    let told = ("DeliverKeys".to_owned(), "DEVICE_NOT_TRUSTED".to_owned(), remedy);
    assert_eq!(last(&service, "till").await, told);
    let timeline = service.get("till").await.timeline;
    assert_eq!(timeline.iter().filter(|entry| entry.reason == told.1).count(), 1);
}

#[tokio::test]
async fn keys_are_not_told_again_while_the_terminal_is_held_nor_after_a_day() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.begin(&service, Some(code)).await.unwrap();
    let deliver = till.terminal.deliver().unwrap();
    let sent = service.send_deliver(NAME, &deliver).await.unwrap();
    service.must(Call::HoldTerminal, "till").await;
    let refusal = service.send_deliver(NAME, &deliver).await.unwrap_err();
    assert_eq!((refusal.reason.as_str(), told(&refusal, "state")), ("ACTIVATION_STATE", "HELD"));
    service.must(Call::ReleaseTerminal, "till").await;
    service.clock.advance(24 * HOUR);
    assert_eq!(service.send_deliver(NAME, &deliver).await.unwrap(), sent, "the last second");
    service.clock.advance(1);
    let refusal = service.send_deliver(NAME, &deliver).await.unwrap_err();
    assert_eq!(told(&refusal, "remedy"), "the activation has expired: begin again");
    assert_eq!(last(&service, "till").await.0, "DeliverKeys");
    // It is gone: now the message is one that nothing can prove.
    let refusal = service.send_deliver(NAME, &deliver).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
}

#[tokio::test]
async fn a_repeated_begin_or_confirmation_is_answered_only_where_it_may_be() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    let begin = till.terminal.begin(Some(code), &service.rng, service.now()).unwrap();
    service.send_begin(&begin).await.unwrap();
    service.must(Call::HoldTerminal, "till").await;
    let refusal = service.send_begin(&begin).await.unwrap_err();
    assert_eq!((refusal.reason.as_str(), told(&refusal, "state")), ("ACTIVATION_STATE", "HELD"));
    service.must(Call::ReleaseTerminal, "till").await;
    service.send_begin(&begin).await.unwrap();

    let hand = Hand::take_keys(&service, "other", AES).await;
    let name = hand.activation.as_str().to_owned();
    let confirm = hand.confirmation(hand.loaded());
    let sent = service.send_confirm(&name, &confirm).await.unwrap();
    assert_eq!(service.send_confirm(&name, &confirm).await.unwrap(), sent);
    service.must(Call::HoldTerminal, "other").await;
    let refusal = service.send_confirm(&name, &confirm).await.unwrap_err();
    assert_eq!((refusal.reason.as_str(), told(&refusal, "state")), ("ACTIVATION_STATE", "HELD"));
    service.must(Call::ReleaseTerminal, "other").await;
    deny(&service, "other").await;
    let refusal = service.send_confirm(&name, &confirm).await.unwrap_err();
    assert_eq!(refusal.reason, "DEVICE_NOT_TRUSTED");
}

#[tokio::test]
async fn a_repeated_exchange_is_not_answered_once_the_terminal_is_held() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.take_keys(&service, Some(code)).await.unwrap();
    let request = till.terminal.request_parameters(&service.rng).unwrap();
    let sent = service.send_parameters(&request).await.unwrap();
    assert_eq!(service.send_parameters(&request).await.unwrap(), sent);
    service.must(Call::HoldTerminal, "till").await;
    let refusal = service.send_parameters(&request).await.unwrap_err();
    assert_eq!((refusal.reason.as_str(), told(&refusal, "state")), ("ACTIVATION_STATE", "HELD"));
}

#[tokio::test]
async fn automatic_enabling_is_told_as_a_transition_of_its_own() {
    let service = Service::start().await;
    service.profile("auto", |profile| profile.automatic_enabling = true).await;
    let mut till = service.register_under("till", AES, "auto").await;
    let code = service.issue_code("till").await;
    till.activate(&service, Some(code)).await.unwrap();
    let timeline = service.get("till").await.timeline;
    let request = proto::WatchTerminalsRequest::default();
    let stream = service.client.terminals().watch_terminals(request).await;
    let mut stream = crate::harness::answer(stream);
    let mut told = Vec::new();
    while told.len() < timeline.len() {
        told.push(stream.message().await.unwrap().expect("a transition"));
    }
    let [.., tested, enabled] = told.as_slice() else { panic!("two at least") };
    assert_eq!(tested.sequence, enabled.sequence);
    let pair = |told: &proto::WatchTerminalsResponse| {
        let entry = told.entry.as_ref().expect("an entry");
        let name =
            |state: proto::TerminalState| state.as_str_name()["TERMINAL_STATE_".len()..].to_owned();
        (entry.step.clone(), name(entry.from()), name(entry.to()))
    };
    let of = |step: &str, from: &str, to: &str| (step.to_owned(), from.to_owned(), to.to_owned());
    assert_eq!(pair(tested), of("RunTestTransaction", "PARAMETERS_DELIVERED", "TESTED"));
    assert_eq!(pair(enabled), of("EnableTerminal", "TESTED", "ACTIVE"));
}

#[tokio::test]
async fn what_completes_a_tested_terminal_enables_it_where_the_profile_says_so() {
    let service = Service::start().await;
    service
        .profile("auto", |profile| {
            (profile.settlement_digest_required, profile.automatic_enabling) = (true, true);
        })
        .await;
    let mut till = service.register_under("till", AES, "auto").await;
    let code = service.issue_code("till").await;
    till.activate(&service, Some(code)).await.unwrap();
    assert_eq!(service.state("till").await, "TESTED");
    let rejected = proto::MerchantStanding::Rejected;
    service.stand("till", rejected).await.expect("it is rejected");
    let held = service.must(Call::SetSettlementDigest, "till").await;
    assert_eq!(state_name(&held), "HELD", "an unapproved merchant's terminal stays held");
    let approved = service.must(Call::SetMerchantStanding, "till").await;
    assert_eq!(state_name(&approved), "ACTIVE");
    let timeline = service.get("till").await.timeline;
    let steps: Vec<&str> = timeline.iter().map(|entry| entry.step.as_str()).collect();
    assert!(steps.ends_with(&["SetMerchantStanding", "EnableTerminal"]), "{steps:?}");
}

#[tokio::test]
async fn every_failure_of_a_proven_terminal_stands_in_its_timeline() {
    let service = Service::start().await;
    // What the terminal found wrong.
    let hand = Hand::take_keys(&service, "reports", AES).await;
    let name = hand.activation.as_str().to_owned();
    let report = ReportRequest::Signed(hand.till.device_report(&name, Fault::KeyBlock));
    service.send_report(&name, &report).await.unwrap();
    let (step, reason, remedy) = last(&service, "reports").await;
    assert_eq!((step.as_str(), reason.as_str()), ("ReportStep", "KEY_BLOCK"));
    assert!(!remedy.is_empty());
    // A test that failed.
    let mut hand = Hand::with_parameters(&service, "tests", AES).await;
    let failed = hand.test(&service, |test| test.amount_minor = 999_999).await.unwrap();
    assert_eq!(failed, ["LIMITS"]);
    let (step, reason, remedy) = last(&service, "tests").await;
    assert_eq!((step.as_str(), reason.as_str()), ("RunTestTransaction", "LIMITS"));
    assert!(!remedy.is_empty());
    // An activation that came too late.
    let mut late = service.register("late", AES).await;
    let code = service.issue_code("late").await;
    late.begin(&service, Some(code)).await.unwrap();
    service.clock.advance(HOUR + 1);
    refused(late.deliver(&service).await);
    let (step, reason, remedy) = last(&service, "late").await;
    assert_eq!((step.as_str(), reason.as_str()), ("DeliverKeys", "ACTIVATION_STATE"));
    assert_eq!(remedy, "the activation has expired: begin again");
    // A device that is denied when it begins.
    let mut denied = service.register("denied", AES).await;
    let code = service.issue_code("denied").await;
    deny(&service, "denied").await;
    refused(denied.begin(&service, Some(code)).await);
    let (step, reason, remedy) = last(&service, "denied").await;
    assert_eq!((step.as_str(), reason.as_str()), ("BeginActivation", "DEVICE_NOT_TRUSTED"));
    assert_eq!(remedy, "the device is denied: ask the acquirer");
    assert_eq!(service.state("denied").await, "CODE_ISSUED", "no try is spent");
}

#[tokio::test]
async fn a_code_that_ran_out_is_seen_without_anybody_showing_it() {
    let service = Service::start().await;
    service
        .profile("brief", |profile| {
            profile.code_lifetime = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        })
        .await;
    service.register_under("brief", AES, "brief").await;
    service.register("long", AES).await;
    service.issue_code("brief").await;
    service.issue_code("long").await;
    let listed = async |state: proto::TerminalState| {
        let request = proto::ListTerminalsRequest { state: state.into(), ..Default::default() };
        let page = crate::harness::answer(service.client.terminals().list_terminals(request).await);
        page.terminals.into_iter().map(|terminal| terminal.name).collect::<Vec<_>>()
    };
    let (issued, expired) = (proto::TerminalState::CodeIssued, proto::TerminalState::CodeExpired);
    assert_eq!(listed(issued).await, ["terminals/brief", "terminals/long"]);
    assert_eq!(listed(expired).await, [""; 0]);
    service.clock.advance(MINUTE + 1);
    assert_eq!(service.state("brief").await, "CODE_EXPIRED");
    assert_eq!(listed(issued).await, ["terminals/long"]);
    assert_eq!(listed(expired).await, ["terminals/brief"]);
    let refusal = service.call(Call::IssueActivationCode, "brief").await.err().expect("a refusal");
    assert_eq!(told(&refusal, "state"), "CODE_EXPIRED");
    service.reissue_code("brief").await;
    assert_eq!(service.state("brief").await, "CODE_ISSUED");
    assert_eq!(listed(issued).await, ["terminals/brief", "terminals/long"]);
}

/// The reason of the newest audit event, which tells of a refusal.
async fn audited(service: &Service) -> (String, Option<String>) {
    let events = service.vault.events_after(0, 1_000).await.unwrap();
    let event = events.last().expect("an event");
    assert!(!event.is_done());
    (event.action.clone(), event.reason.clone())
}

#[tokio::test]
async fn a_profile_needs_a_key_with_a_key_set_id_and_its_refusal_is_audited() {
    let service = Service::start().await;
    let request = proto::CreateKeyRequest {
        request_id: request_id(),
        key_id: "bdk-without-set".to_owned(),
        usage: proto::KeyUsage::BaseDerivation.into(),
        algorithm: proto::KeyAlgorithm::Aes128.into(),
        ..Default::default()
    };
    crate::harness::answer(service.client.keys().create_key(request).await);
    let request = proto::CreateProfileRequest {
        request_id: request_id(),
        profile_id: "unfit".to_owned(),
        profile: Some(proto::Profile {
            suite: proto::Suite::P256Aes128.into(),
            base_derivation_key: "keys/bdk-without-set".to_owned(),
            limits: Some(proto::Limits {
                currency: "EUR".to_owned(),
                single_amount_minor: 1,
                daily_amount_minor: 1,
            }),
            ..Default::default()
        }),
    };
    let refused: Refusal = refusal(service.client.terminals().create_profile(request).await);
    assert_eq!(refused.reason, "FIELD_INVALID");
    assert_eq!(refused.fields[0].0, "profile.base_derivation_key");
    let audited_as = |action: &str| (action.to_owned(), Some("FIELD_INVALID".to_owned()));
    assert_eq!(audited(&service).await, audited_as("CreateProfile"));

    let request = proto::ImportCertificateRequest {
        request_id: request_id(),
        certificate_chain: vec![vec![0x30, 0], vec![0x30, 0]],
    };
    refusal(service.client.trust().import_certificate(request).await);
    assert_eq!(audited(&service).await, audited_as("ImportCertificate"));
}

#[tokio::test]
async fn recorded_reports_played_by_turns_do_not_fill_a_timeline() {
    let service = Service::start().await;
    let hand = Hand::take_keys(&service, "till", AES).await;
    let reports = [Fault::KeyBlock, Fault::CheckValue]
        .map(|fault| ReportRequest::Signed(hand.till.device_report(NAME, fault)));
    for report in &reports {
        service.send_report(NAME, report).await.unwrap();
    }
    let before = service.get("till").await;
    for _ in 0..3 {
        for report in &reports {
            service.send_report(NAME, report).await.unwrap();
        }
    }
    assert!(service.get("till").await == before);
}

#[tokio::test]
async fn a_device_that_was_registered_anew_takes_the_parameters_of_its_new_merchant() {
    let service = Service::start().await;
    let mut till = service.active_till("till", AES).await;
    service.must(Call::RetireTerminal, "till").await;
    let serial = serial_of("till");
    let mut request = create_terminal_request("again", &serial, "dev-aes");
    request.merchant.get_or_insert_default().display_name = "Another Shop".to_owned();
    answer(service.client.terminals().create_terminal(request).await);
    let code = service.issue_code("again").await;
    let name = |till: &Till| {
        let parameters = till.terminal.parameters();
        parameters.map(|parameters| parameters.merchant_name.as_str().to_owned())
    };
    till.begin(&service, Some(code)).await.unwrap();
    till.deliver(&service).await.unwrap();
    assert_eq!(name(&till).as_deref(), Some("Corner Shop"), "until the new keys are confirmed");
    till.confirm(&service).await.unwrap();
    assert_eq!(name(&till), None);
    // It has version 1, which the device has applied before: of another registration.
    till.activate(&service, None).await.unwrap();
    assert_eq!(name(&till).as_deref(), Some("Another Shop"));
}
