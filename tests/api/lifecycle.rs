//! What the backend does with a terminal: profiles, holds, re-keys, ends.

use firstkey::activation::{ActivationCode, Call};
use firstkey::agreement::Suite;
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto;
use firstkey::terminal::Terminal;

use crate::harness::{
    HOUR, Service, Till, answer, create_terminal_request, refusal, refused, retyped, serial_of,
    state_name, told,
};
use crate::transactions::verify;

const AES: Suite = Suite::P256Aes128;

/// A refusal of a call upon a terminal.
async fn refuses(service: &Service, call: Call, id: &str) -> Refusal {
    service.call(call, id).await.err().expect("a refusal")
}

#[tokio::test]
async fn a_profile_without_codes_asks_for_none() {
    let service = Service::start().await;
    service.profile("no-code", |profile| profile.no_code = true).await;
    let mut till = service.register_under("till", AES, "no-code").await;
    let refusal = refuses(&service, Call::IssueActivationCode, "till").await;
    assert_eq!(refusal.reason, "ACTIVATION_STATE");
    till.activate(&service, None).await.unwrap();
    assert_eq!(service.state("till").await, "TESTED");
}

#[tokio::test]
async fn a_profile_may_enable_by_itself_and_ask_for_many_tests_or_none() {
    let service = Service::start().await;
    service.profile("none", |profile| profile.test_transactions = 0).await;
    service
        .profile("auto", |profile| {
            (profile.test_transactions, profile.automatic_enabling) = (3, true);
        })
        .await;
    service
        .profile("auto-none", |profile| {
            (profile.test_transactions, profile.automatic_enabling) = (0, true);
        })
        .await;
    for (id, tests, state) in
        [("none", 0, "TESTED"), ("auto", 3, "ACTIVE"), ("auto-none", 0, "ACTIVE")]
    {
        let mut till = service.register_under(id, AES, id).await;
        let code = service.issue_code(id).await;
        till.take_keys(&service, Some(code)).await.unwrap();
        till.parameters(&service).await.unwrap();
        for number in 0..tests {
            let terminal = service.get(id).await;
            assert_eq!(state_name(&terminal), "PARAMETERS_DELIVERED", "{id}");
            assert_eq!(terminal.tests_passed, number, "{id}");
            till.test(&service).await.unwrap();
        }
        let terminal = service.get(id).await;
        assert_eq!(state_name(&terminal), state, "{id}");
        assert_eq!(terminal.tests_passed, tests, "{id}");
        if state == "ACTIVE" {
            assert_eq!(terminal.timeline.last().unwrap().note, "by its profile");
            verify(&service, &till.purchase(&service)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn enabling_waits_for_the_settlement_digest_where_the_profile_asks_for_it() {
    let service = Service::start().await;
    service.profile("digest", |profile| profile.settlement_digest_required = true).await;
    service
        .profile("auto", |profile| {
            (profile.settlement_digest_required, profile.automatic_enabling) = (true, true);
        })
        .await;
    for id in ["digest", "auto"] {
        let mut till = service.register_under(id, AES, id).await;
        let code = service.issue_code(id).await;
        till.activate(&service, Some(code)).await.unwrap();
        assert_eq!(service.state(id).await, "TESTED");
        let refusal = refuses(&service, Call::EnableTerminal, id).await;
        assert_eq!(refusal.reason, "ACTIVATION_STATE");
        assert_eq!(told(&refusal, "remedy"), "the profile asks for a settlement digest: set it");
        let terminal = service.must(Call::SetSettlementDigest, id).await;
        if id == "digest" {
            assert_eq!(state_name(&terminal), "TESTED");
            service.must(Call::EnableTerminal, id).await;
        } else {
            assert_eq!(state_name(&terminal), "ACTIVE", "nothing else was missing");
        }
    }
    // Set in time, it is waited for no more.
    let mut till = service.register_under("in-time", AES, "auto").await;
    service.must(Call::SetSettlementDigest, "in-time").await;
    let code = service.issue_code("in-time").await;
    till.activate(&service, Some(code)).await.unwrap();
    assert_eq!(service.state("in-time").await, "ACTIVE");
}

#[tokio::test]
async fn old_keys_serve_through_a_rekey_and_for_their_grace() {
    let service = Service::start_durable().await;
    for (id, suite) in [("till-aes", AES), ("till-tdes", Suite::P256Tdes2)] {
        let mut till = service.active_till(id, suite).await;
        let before = service.get(id).await;
        let mut old = till.twin();
        service.must(Call::StartRekey, id).await;
        assert_eq!(service.state(id).await, "REKEYING");
        verify(&service, &old.purchase(&service)).await.expect("before new keys are made");
        till.begin(&service, None).await.expect("no merchant types a code");
        till.deliver(&service).await.unwrap();
        verify(&service, &old.purchase(&service)).await.expect("before new keys are confirmed");
        assert_eq!(service.get(id).await.initial_key_id, before.initial_key_id);
        till.confirm(&service).await.unwrap();

        let after = service.get(id).await;
        assert_eq!(state_name(&after), "ACTIVE");
        assert_ne!(after.initial_key_id, before.initial_key_id);
        assert_ne!(after.check_value, before.check_value);
        assert_eq!(after.generation, before.generation);
        assert_eq!(after.activation, format!("terminals/{id}/activations/2"));
        verify(&service, &till.purchase(&service)).await.expect("the new keys serve");
        verify(&service, &old.purchase(&service)).await.expect("the old ones have their grace");
        service.clock.advance(HOUR);
        verify(&service, &old.purchase(&service)).await.expect("its last second");
        service.clock.advance(1);
        let refusal = verify(&service, &old.purchase(&service)).await.unwrap_err();
        assert_eq!(refusal.reason, "TERMINAL_NOT_ACTIVE");
        assert!(told(&refusal, "remedy").contains("replaced"), "{refusal}");
        let refusal = refused(old.parameters(&service).await);
        assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
        verify(&service, &till.purchase(&service)).await.expect("the new keys go on");
        till.parameters(&service).await.expect("parameters under the new keys");
    }
}

#[tokio::test]
async fn a_rekey_may_be_cancelled_begun_again_or_outlive_a_suspension() {
    let service = Service::start().await;
    service
        .profile("no-grace", |profile| {
            profile.rekey_grace = Some(prost_types::Duration { seconds: 0, nanos: 0 });
        })
        .await;
    let mut till = service.register_under("till", AES, "no-grace").await;
    let code = service.issue_code("till").await;
    till.activate(&service, Some(code)).await.unwrap();
    service.enable("till").await.unwrap();
    let key_id = service.get("till").await.initial_key_id;

    service.must(Call::StartRekey, "till").await;
    let mut cancelled = till.twin();
    cancelled.begin(&service, None).await.unwrap();
    cancelled.deliver(&service).await.unwrap();
    service.must(Call::CancelActivation, "till").await;
    assert_eq!(refused(cancelled.confirm(&service).await).reason, "ACTIVATION_REFUSED");
    let terminal = service.get("till").await;
    assert_eq!((state_name(&terminal).as_str(), &terminal.initial_key_id), ("ACTIVE", &key_id));
    verify(&service, &till.purchase(&service)).await.expect("the old keys go on");

    service.must(Call::StartRekey, "till").await;
    service.must(Call::SuspendTerminal, "till").await;
    let refusal = verify(&service, &till.purchase(&service)).await.unwrap_err();
    assert_eq!(refusal.reason, "TERMINAL_NOT_ACTIVE");
    service.must(Call::ResumeTerminal, "till").await;
    assert_eq!(service.state("till").await, "REKEYING");
    let mut old = till.twin();
    till.take_keys(&service, None).await.unwrap();
    assert_ne!(service.get("till").await.initial_key_id, key_id);
    // Without a grace the old keys go with the clock's next tick.
    service.clock.advance(1);
    let refusal = verify(&service, &old.purchase(&service)).await.unwrap_err();
    assert_eq!(refusal.reason, "TERMINAL_NOT_ACTIVE");
}

#[tokio::test]
async fn a_hold_stops_everything_and_a_release_goes_on_where_it_was() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.begin(&service, Some(code)).await.unwrap();
    let held = service.must(Call::HoldTerminal, "till").await;
    assert_eq!(held.hold_cause, crate::backend::CAUSE);
    assert_eq!(refused(till.twin().deliver(&service).await).reason, "ACTIVATION_STATE");
    // Approving the merchant once more lifts no hold for a risk.
    let still = service.must(Call::SetMerchantStanding, "till").await;
    assert_eq!(state_name(&still), "HELD");
    let released = service.must(Call::ReleaseTerminal, "till").await;
    assert_eq!(
        (state_name(&released).as_str(), released.hold_cause.as_str()),
        ("CODE_VERIFIED", "")
    );
    till.activate(&service, None).await.unwrap();
}

#[tokio::test]
async fn no_code_comes_before_the_merchant_is_approved() {
    let service = Service::start().await;
    for standing in [proto::MerchantStanding::Pending, proto::MerchantStanding::Rejected] {
        let id = format!("till-{}", i32::from(standing));
        let mut request = create_terminal_request(&id, &serial_of(&id), "dev-aes");
        request.merchant_standing = standing.into();
        let made =
            crate::harness::answer(service.client.terminals().create_terminal(request).await);
        assert_eq!(state_name(&made.terminal.unwrap()), "HELD");
        for call in [Call::IssueActivationCode, Call::ReissueActivationCode, Call::ReleaseTerminal]
        {
            let refusal = refuses(&service, call, &id).await;
            assert_eq!(refusal.reason, "MERCHANT_NOT_APPROVED", "{call:?}");
        }
        // A cancellation is no way around it.
        service.must(Call::CancelActivation, &id).await;
        assert_eq!(service.state(&id).await, "HELD");
        let refusal = refuses(&service, Call::IssueActivationCode, &id).await;
        assert_eq!(refusal.reason, "MERCHANT_NOT_APPROVED");
        let approved = service.must(Call::SetMerchantStanding, &id).await;
        assert_eq!(state_name(&approved), "REGISTERED");
        service.issue_code(&id).await;
    }
}

#[tokio::test]
async fn a_merchant_that_loses_its_approval_stops_an_activation_but_not_a_terminal_in_service() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.take_keys(&service, Some(code)).await.unwrap();
    let held = service.stand("till", proto::MerchantStanding::Rejected).await.ok().unwrap();
    assert_eq!(state_name(&held), "HELD");
    assert_eq!(refused(till.parameters(&service).await).reason, "MERCHANT_NOT_APPROVED");
    service.must(Call::SetMerchantStanding, "till").await;
    assert_eq!(service.state("till").await, "KEYS_CONFIRMED");

    let mut active = service.active_till("active", AES).await;
    let standing = service.stand("active", proto::MerchantStanding::Rejected).await.ok().unwrap();
    assert_eq!(state_name(&standing), "ACTIVE");
    verify(&service, &active.purchase(&service)).await.expect("suspending it is another call");
}

#[tokio::test]
async fn a_cancellation_under_a_hold_ends_the_activation_and_not_the_hold() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.take_keys(&service, Some(code)).await.unwrap();
    service.must(Call::HoldTerminal, "till").await;
    let cancelled = service.must(Call::CancelActivation, "till").await;
    assert_eq!(state_name(&cancelled), "HELD");
    assert_eq!(cancelled.hold_cause, crate::backend::CAUSE);
    assert!(cancelled.initial_key_id.is_empty());
    let released = service.must(Call::ReleaseTerminal, "till").await;
    assert_eq!(state_name(&released), "REGISTERED");
}

#[tokio::test]
async fn a_cancelled_activation_is_dead_and_the_next_has_a_key_id_of_its_own() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.take_keys(&service, Some(retyped(&code))).await.unwrap();
    let first = service.get("till").await.initial_key_id;
    service.must(Call::CancelActivation, "till").await;
    let terminal = service.get("till").await;
    assert_eq!(state_name(&terminal), "REGISTERED");
    assert!(terminal.initial_key_id.is_empty(), "keys that are cancelled serve");
    assert_eq!(refused(till.twin().parameters(&service).await).reason, "ACTIVATION_REFUSED");

    let mut again = Till { id: "till".to_owned(), terminal: fresh(&service, "till") };
    let code = service.issue_code("till").await;
    again.activate(&service, Some(code)).await.unwrap();
    let terminal = service.get("till").await;
    assert_ne!(terminal.initial_key_id, first);
    assert_eq!(terminal.activation, "terminals/till/activations/2");
}

/// The device of a serial, as it leaves the factory.
fn fresh(service: &Service, id: &str) -> Terminal {
    Terminal::new(service.device(&serial_of(id)), AES)
}

#[tokio::test]
async fn suspending_closes_and_resuming_opens() {
    let service = Service::start_durable().await;
    let mut till = service.active_till("till", AES).await;
    service.must(Call::SuspendTerminal, "till").await;
    let payment = till.purchase(&service);
    let refusal = verify(&service, &payment).await.unwrap_err();
    assert_eq!(refusal.reason, "TERMINAL_NOT_ACTIVE");
    assert_eq!(told(&refusal, "state"), "SUSPENDED");
    service.must(Call::ResumeTerminal, "till").await;
    verify(&service, &payment).await.expect("the refusal spent no counter");
}

#[tokio::test]
async fn a_retired_serial_opens_a_new_generation_with_a_new_key_id() {
    let service = Service::start_durable().await;
    let mut old = service.active_till("till", AES).await;
    let before = service.get("till").await;
    let again = |id: &str| create_terminal_request(id, &serial_of("till"), "dev-aes");
    let taken = refusal(service.client.terminals().create_terminal(again("till-2")).await);
    assert_eq!(taken.reason, "TERMINAL_ALREADY_EXISTS");

    service.must(Call::RetireTerminal, "till").await;
    let refused = verify(&service, &old.purchase(&service)).await.unwrap_err();
    assert_eq!(
        (refused.reason.as_str(), told(&refused, "state")),
        ("TERMINAL_NOT_ACTIVE", "RETIRED")
    );
    // Its name stays what it was; its serial may come again.
    let taken = refusal(service.client.terminals().create_terminal(again("till")).await);
    assert_eq!(taken.reason, "TERMINAL_ALREADY_EXISTS");
    let made =
        crate::harness::answer(service.client.terminals().create_terminal(again("till-2")).await);
    assert_eq!(made.terminal.unwrap().generation, 2);
    let mut till = Till { id: "till-2".to_owned(), terminal: fresh(&service, "till") };
    let code = service.issue_code("till-2").await;
    till.activate(&service, Some(code)).await.unwrap();
    service.enable("till-2").await.unwrap();
    let after = service.get("till-2").await;
    assert_ne!(after.initial_key_id, before.initial_key_id);
    verify(&service, &till.purchase(&service)).await.unwrap();
    assert!(verify(&service, &old.purchase(&service)).await.is_err());
    assert!(service.get("till").await.initial_key_id == before.initial_key_id);
}

#[tokio::test]
async fn what_a_device_said_before_it_was_registered_again_is_not_said_anew() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    let time = service.device_time();
    let old = till.terminal.begin(Some(code), &service.rng, time).expect("a begin");
    service.send_begin(&old).await.unwrap();
    service.must(Call::RetireTerminal, "till").await;
    let again = create_terminal_request("till-2", &serial_of("till"), "dev-aes");
    crate::harness::answer(service.client.terminals().create_terminal(again).await);
    let code = service.issue_code("till-2").await;
    let before = service.get("till-2").await;
    service.send_begin(&old).await.unwrap_err();
    assert!(service.get("till-2").await == before, "nobody writes its timeline by a replay");
    let mut till = Till { id: "till-2".to_owned(), terminal: fresh(&service, "till") };
    let wrong = ActivationCode::from_random_bits(&[1; 7]);
    let refusal = refused(till.twin().begin(&service, Some(wrong)).await);
    assert_eq!(told(&refusal, "tries_left"), "4", "the replay has spent none");
    let refusal = service.send_begin(&old).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED", "below the newest, a replay as any");
    till.begin(&service, Some(code)).await.unwrap();
}

#[tokio::test]
async fn a_compromised_terminal_is_closed_until_it_is_retired() {
    let service = Service::start_durable().await;
    let mut till = service.active_till("till", AES).await;
    service.must(Call::StartRekey, "till").await;
    till.begin(&service, None).await.unwrap();
    service.must(Call::MarkTerminalCompromised, "till").await;
    let refusal = verify(&service, &till.purchase(&service)).await.unwrap_err();
    assert_eq!(told(&refusal, "state"), "COMPROMISED");
    assert_eq!(refused(till.deliver(&service).await).reason, "ACTIVATION_REFUSED");
    let request = create_terminal_request("till-2", &serial_of("till"), "dev-aes");
    let taken = refusal_of(service.client.terminals().create_terminal(request.clone()).await);
    assert_eq!(taken, "TERMINAL_ALREADY_EXISTS");
    service.must(Call::RetireTerminal, "till").await;
    let mut request = request;
    request.request_id = firstkey::grpc::client::request_id();
    crate::harness::answer(service.client.terminals().create_terminal(request).await);
}

fn refusal_of<T>(result: Result<tonic::Response<T>, tonic::Status>) -> String {
    refusal(result).reason
}

#[tokio::test]
async fn a_rekey_that_is_held_and_cancelled_goes_back_to_the_keys_that_served() {
    let service = Service::start().await;
    let mut till = service.active_till("till", AES).await;
    let key_id = service.get("till").await.initial_key_id;
    service.must(Call::StartRekey, "till").await;
    let mut device = service.device(&serial_of("till"));
    device.readiness.tampered = true;
    let mut tampered = Till { id: "till".to_owned(), terminal: Terminal::new(device, AES) };
    assert_eq!(refused(tampered.begin(&service, None).await).reason, "DEVICE_NOT_TRUSTED");
    assert_eq!(service.state("till").await, "HELD");
    let cancelled = service.must(Call::CancelActivation, "till").await;
    assert_eq!(state_name(&cancelled), "HELD");
    assert!(verify(&service, &till.purchase(&service)).await.is_err());
    let released = service.must(Call::ReleaseTerminal, "till").await;
    assert_eq!(state_name(&released), "ACTIVE");
    assert!(released.initial_key_id == key_id);
    verify(&service, &till.purchase(&service)).await.unwrap();
}

#[tokio::test]
async fn a_terminal_whose_device_is_denied_does_not_come_into_service() {
    let service = Service::start().await;
    service.profile("auto", |profile| profile.automatic_enabling = true).await;
    for (id, profile) in [("till-a", "dev-aes"), ("till-b", "auto")] {
        let mut till = service.register_under(id, AES, profile).await;
        let code = service.issue_code(id).await;
        till.take_keys(&service, Some(code)).await.unwrap();
        till.parameters(&service).await.unwrap();
        let serial = serial_of(id);
        let cause = "stolen".to_owned();
        let deny =
            proto::DenyDeviceRequest { request_id: request_id(), serial: serial.clone(), cause };
        answer(service.client.trust().deny_device(deny).await);
        till.test(&service).await.unwrap();
        let refusal = refuses(&service, Call::EnableTerminal, id).await;
        assert_eq!(refusal.reason, "DEVICE_NOT_TRUSTED");
        assert_eq!(told(&refusal, "remedy"), "the device is denied: allow it first");
        service.must(Call::SetSettlementDigest, id).await;
        assert_eq!(service.state(id).await, "TESTED");
        let allow = proto::AllowDeviceRequest { request_id: request_id(), serial };
        answer(service.client.trust().allow_device(allow).await);
        service.must(Call::EnableTerminal, id).await;
        verify(&service, &till.purchase(&service)).await.unwrap();
    }
}
