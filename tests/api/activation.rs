//! First activation: the whole of it, what a lost reply costs, and who may come in.

use firstkey::activation::payload::{
    BeginAnswer, CertificateChain, DeliverAnswer, Network, Payload as _,
};
use firstkey::activation::{ActivationCode, Call, Role, Step, Transcript};
use firstkey::agreement::Suite;
use firstkey::crypto::certificate::authority::{Authority, Validity};
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto;
use firstkey::server::dev;
use firstkey::terminal::{Answer, SignedRequest, Terminal};
use tonic::Code;

use crate::hand::Hand;
use crate::harness::{
    BEGIN_SECONDS, HOUR, MINUTE, Service, Till, certified, refused, retyped, serial_of,
    signature_of, told,
};

const AES: Suite = Suite::P256Aes128;

#[tokio::test]
async fn a_terminal_of_each_suite_goes_from_no_keys_to_its_first_transaction() {
    let service = Service::start_durable().await;
    for suite in Suite::ALL {
        let (id, id_len, check_len) = match suite {
            Suite::MasterAesAes128 => ("till-master-aes", 8, 5),
            Suite::MasterAesTdes2 => ("till-master-aes-tdes", 10, 3),
            Suite::MasterTdesTdes2 => ("till-master-tdes", 10, 3),
            Suite::P256Aes128 => ("till-aes", 8, 5),
            Suite::P256Tdes2 => ("till-tdes", 10, 3),
        };
        let mut till = service.register(id, suite).await;
        assert_eq!(service.state(id).await, "REGISTERED");
        let code = service.issue_code(id).await;
        assert_eq!(service.state(id).await, "CODE_ISSUED");
        till.begin(&service, Some(code)).await.unwrap();
        assert_eq!(service.state(id).await, "CODE_VERIFIED");
        till.deliver(&service).await.unwrap();
        let terminal = service.get(id).await;
        assert_eq!(crate::harness::state_name(&terminal), "KEYS_DELIVERED");
        assert!(terminal.initial_key_id.is_empty(), "keys serve before they are confirmed");
        assert!(!till.terminal.has_keys(), "keys serve before they are confirmed");
        till.confirm(&service).await.unwrap();
        assert_eq!(service.state(id).await, "KEYS_CONFIRMED");
        till.parameters(&service).await.unwrap();
        assert_eq!(service.state(id).await, "PARAMETERS_DELIVERED");
        let verdict = till.test(&service).await.unwrap();
        assert!(verdict.passed() && verdict.verdicts.len() == 7);
        assert_eq!(service.state(id).await, "TESTED");
        service.enable(id).await.unwrap();

        let terminal = service.get(id).await;
        assert_eq!(crate::harness::state_name(&terminal), "ACTIVE");
        assert_eq!(terminal.initial_key_id.len(), id_len);
        assert_eq!(terminal.check_value.len(), check_len);
        assert_eq!(terminal.activation, format!("terminals/{id}/activations/1"));
        assert_eq!((terminal.generation, terminal.parameters_version), (1, 1));
        assert_eq!(terminal.tests_passed, 1);
        assert_eq!(terminal.forward_secrecy, !suite.has_master_key());
        let steps: Vec<&str> = terminal.timeline.iter().map(|entry| entry.step.as_str()).collect();
        let expected = [
            "CreateTerminal",
            "IssueActivationCode",
            "BeginActivation",
            "DeliverKeys",
            "ConfirmKeys",
            "GetParameters",
            "ReportStep",
            "RunTestTransaction",
            "EnableTerminal",
        ];
        assert_eq!(steps, expected);
        let limits = till.terminal.parameters().expect("parameters").limits;
        assert_eq!((limits.single_minor(), limits.daily_minor()), (50_000, 500_000));
        let ksn = till.terminal.next_ksn().unwrap();
        assert!(ksn.bytes().starts_with(&terminal.initial_key_id[..7]));
    }
}

#[tokio::test]
async fn each_request_again_gets_the_same_bytes_and_changes_nothing() {
    let service = Service::start_durable().await;
    for (id, suite) in [
        ("till-aes", AES),
        ("till-tdes", Suite::P256Tdes2),
        ("till-master-aes", Suite::MasterAesAes128),
        ("till-master-tdes", Suite::MasterTdesTdes2),
    ] {
        let mut till = service.register(id, suite).await;
        let code = service.issue_code(id).await;
        let terminal = &mut till.terminal;
        /// Sends the same twice, and takes the answer.
        macro_rules! twice {
            ($send:expr) => {{
                let first = $send.await.expect("the first");
                let between = service.get(id).await;
                service.clock.advance(1);
                assert_eq!($send.await.expect("the second"), first);
                assert!(service.get(id).await == between, "a repetition changed the terminal");
                first
            }};
        }
        let begin = terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
        let sent = twice!(service.send_begin(&begin));
        let answer = Answer { payload: &sent.payload, proof: &sent.proof };
        let name = terminal.accept_begin(answer, service.now()).unwrap();
        let name = name.as_str();

        let deliver = terminal.deliver().unwrap();
        let sent = twice!(service.send_deliver(name, &deliver));
        terminal.accept_keys(Answer { payload: &sent.payload, proof: &sent.proof }).unwrap();

        let confirm = terminal.confirm().unwrap();
        let sent = twice!(service.send_confirm(name, &confirm));
        let answer = Answer { payload: &sent.payload, proof: &sent.proof };
        terminal.accept_confirmation(answer).unwrap();

        let request = terminal.request_parameters(&service.rng).unwrap();
        let sent = twice!(service.send_parameters(&request));
        let answer = Answer { payload: &sent.payload, proof: &sent.proof };
        let applied = terminal.apply_parameters(answer).unwrap();

        let report = terminal.report(Step::Parameters, applied.outcome()).unwrap();
        twice!(service.send_report(name, &report));
        terminal.report_taken();

        let test = crate::states::test_request(&service, terminal);
        twice!(service.send_test(&test));
        assert_eq!(service.state(id).await, "TESTED");
        // After all of it, the confirmation is still answered as it was.
        service.send_confirm(name, &confirm).await.unwrap();
    }
}

/// The initial key id that the timeline of a terminal tells of its last `BeginActivation`.
async fn allocated(service: &Service, id: &str) -> String {
    let terminal = service.get(id).await;
    let mut begun = terminal.timeline.iter().filter(|entry| entry.step == "BeginActivation");
    let note = &begun.next_back().expect("it has begun").note;
    let (_, after) = note.split_once("initial key id ").expect("the note tells the id");
    after.split(';').next().expect("a first part").to_owned()
}

#[tokio::test]
async fn a_new_begin_keeps_the_key_id_and_kills_the_session_before() {
    for suite in [AES, Suite::MasterAesAes128] {
        new_begin_kills_the_session_before(suite).await;
    }
}

async fn new_begin_kills_the_session_before(suite: Suite) {
    let service = Service::start().await;
    let mut till = service.register("till", suite).await;
    let code = service.issue_code("till").await;
    till.begin(&service, Some(retyped(&code))).await.unwrap();
    let (first, id) = (till.twin(), allocated(&service, "till").await);
    let mut lost = till.twin();
    lost.deliver(&service).await.unwrap();

    till.begin(&service, Some(code)).await.unwrap();
    assert_eq!(allocated(&service, "till").await, id);
    let name = "terminals/till/activations/1";
    assert_eq!(till.terminal.activation().unwrap().as_str(), name);
    // Neither keys for the old session, nor a confirmation of those it was sent.
    let deliver = first.twin().terminal.deliver().unwrap();
    let refusal = service.send_deliver(name, &deliver).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    let confirm = lost.terminal.confirm().unwrap();
    let refusal = service.send_confirm(name, &confirm).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");

    till.activate(&service, None).await.unwrap();
    let terminal = service.get("till").await;
    assert_eq!(data_encoding::HEXUPPER.encode(&terminal.initial_key_id), id);
}

/// A device whose certificate an authority issued for a serial and a time.
fn device_of(
    service: &Service,
    id: &str,
    (authority, serial, validity): (&Authority, &str, Validity),
) -> Till {
    let mut device = service.device(&serial_of(id));
    let own = certified(&mut device);
    let certificate = authority.issue_device(&own.key.public(), serial, validity).unwrap();
    own.chain = CertificateChain::new(vec![certificate]).unwrap();
    Till { id: id.to_owned(), terminal: Terminal::new(device, AES) }
}

#[tokio::test]
async fn whoever_can_not_prove_the_device_learns_one_thing_and_spends_nothing() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    let before = service.get("till").await;
    let forever = dev::validity(BEGIN_SECONDS);
    let stranger = Authority::new("DEV-ONLY another vendor", forever).unwrap();
    let serial = serial_of("till");
    let wrong = || Some(ActivationCode::from_random_bits(&[1; 7]));
    let mut attempts = Vec::new();

    // Another authority's device, another serial in the certificate, a serial nobody registered.
    let expired = Validity { not_before: BEGIN_SECONDS - 100, not_after: BEGIN_SECONDS - 1 };
    for mut device in [
        device_of(&service, "till", (&stranger, &serial, forever)),
        device_of(&service, "till", (&stranger, &serial, expired)),
        device_of(&service, "till", (&service.pki.vendor, "SN-OTHER", forever)),
        device_of(&service, "unknown", (&service.pki.vendor, "SN-UNKNOWN", forever)),
    ] {
        attempts.push(
            device
                .terminal
                .begin(Some(retyped(&code)), &service.rng, service.device_time())
                .unwrap(),
        );
        attempts.push(device.terminal.begin(wrong(), &service.rng, service.device_time()).unwrap());
    }
    // Another key's signature, another step's, the service's role, and one over other bytes.
    let begin =
        till.terminal.begin(Some(retyped(&code)), &service.rng, service.device_time()).unwrap();
    let transcript = Transcript::new().with(&begin.payload);
    let other = service.device(&serial);
    let own = till.terminal.device();
    for (device, role, step, over) in [
        (&other, Role::Terminal, Step::Begin, &transcript),
        (own, Role::Terminal, Step::Deliver, &transcript),
        (own, Role::Service, Step::Begin, &transcript),
        (own, Role::Terminal, Step::Begin, &Transcript::new()),
    ] {
        let proof = signature_of(device, &over.authenticated_input(role, step));
        attempts.push(SignedRequest { payload: begin.payload.clone(), proof });
    }
    for proof in [vec![0; 64], vec![0; 32]] {
        attempts.push(SignedRequest { payload: begin.payload.clone(), proof });
    }

    let mut refusals: Vec<Refusal> = Vec::new();
    for attempt in &attempts {
        refusals.push(service.send_begin(attempt).await.unwrap_err());
    }
    assert_eq!(refusals[0].reason, "ACTIVATION_REFUSED");
    assert_eq!(refusals[0].code, Code::FailedPrecondition);
    assert_eq!((refusals[0].metadata.len(), refusals[0].fields.len()), (0, 0));
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]));
    assert!(service.get("till").await == before);
    // Not one try was spent, although several of them carried wrong codes.
    let begin = till.terminal.begin(wrong(), &service.rng, service.device_time()).unwrap();
    let refusal = service.send_begin(&begin).await.unwrap_err();
    assert_eq!(told(&refusal, "tries_left"), "4");
}

#[tokio::test]
async fn a_certificate_is_judged_at_each_step() {
    let service = Service::start().await;
    let untrusted = |refusal: &Refusal| {
        assert_eq!(refusal.reason, "DEVICE_NOT_TRUSTED");
        assert_eq!(refusal.code, Code::PermissionDenied);
        assert!(told(refusal, "remedy").contains("renew it"), "{refusal}");
    };
    let end = |minutes: u64| Validity {
        not_before: BEGIN_SECONDS - HOUR,
        not_after: BEGIN_SECONDS + minutes * MINUTE,
    };
    let (vendor, mut tills) = (&service.pki.vendor, Vec::new());
    for (id, minutes) in [("late", 0), ("deliver", 10), ("confirm", 20), ("never", 30)] {
        service.register(id, AES).await;
        let till = device_of(&service, id, (vendor, &serial_of(id), end(minutes)));
        tills.push((till, service.issue_code(id).await));
    }
    let [(mut late, c1), (mut deliver, c2), (mut confirm, c3), (mut never, c4)] =
        tills.try_into().ok().expect("four");
    service.clock.advance(1);
    untrusted(&refused(late.begin(&service, Some(c1)).await));
    deliver.begin(&service, Some(c2)).await.unwrap();
    confirm.begin(&service, Some(c3)).await.unwrap();
    never.begin(&service, Some(c4)).await.unwrap();
    service.clock.advance(10 * MINUTE);
    untrusted(&refused(deliver.deliver(&service).await));
    confirm.deliver(&service).await.unwrap();
    never.deliver(&service).await.unwrap();
    service.clock.advance(10 * MINUTE);
    untrusted(&refused(confirm.confirm(&service).await));
    never.confirm(&service).await.unwrap();
    assert_eq!(service.state("late").await, "CODE_ISSUED");
    assert_eq!(service.state("deliver").await, "CODE_VERIFIED");
    assert_eq!(service.state("confirm").await, "KEYS_DELIVERED");
    assert_eq!(service.state("never").await, "KEYS_CONFIRMED");
}

async fn deny(service: &Service, id: &str) {
    let (request_id, cause) = (request_id(), "stolen".to_owned());
    let request = proto::DenyDeviceRequest { request_id, serial: serial_of(id), cause };
    crate::harness::answer(service.client.trust().deny_device(request).await);
}

async fn allow(service: &Service, id: &str) {
    let request = proto::AllowDeviceRequest { request_id: request_id(), serial: serial_of(id) };
    crate::harness::answer(service.client.trust().allow_device(request).await);
}

#[tokio::test]
async fn a_denied_device_is_stopped_at_each_step_and_goes_on_when_it_is_allowed() {
    for suite in [AES, Suite::MasterTdesTdes2] {
        denied_device_is_stopped(suite).await;
    }
}

async fn denied_device_is_stopped(suite: Suite) {
    let service = Service::start().await;
    let mut till = service.register("till", suite).await;
    let mut code = Some(service.issue_code("till").await);
    for (step, state) in [(0, "CODE_ISSUED"), (1, "CODE_VERIFIED"), (2, "KEYS_DELIVERED")] {
        deny(&service, "till").await;
        let before = service.get("till").await;
        let again = code.as_ref().map(retyped);
        let refusal = match step {
            0 => refused(till.twin().begin(&service, again).await),
            1 => refused(till.twin().deliver(&service).await),
            _ => refused(till.twin().confirm(&service).await),
        };
        assert_eq!(refusal.reason, "DEVICE_NOT_TRUSTED");
        assert_eq!(told(&refusal, "remedy"), "the device is denied: ask the acquirer");
        assert_eq!(crate::harness::state_name(&before), state);
        let mut after = service.get("till").await;
        assert_eq!(after.timeline.pop().unwrap().reason, "DEVICE_NOT_TRUSTED");
        after.update_time = before.update_time;
        assert!(after == before, "nothing else has changed");
        allow(&service, "till").await;
        match step {
            0 => till.begin(&service, code.take()).await.unwrap(),
            1 => till.deliver(&service).await.unwrap(),
            _ => till.confirm(&service).await.unwrap(),
        }
    }
    assert_eq!(service.state("till").await, "KEYS_CONFIRMED");
}

#[tokio::test]
async fn a_device_that_reports_tampering_is_held() {
    let service = Service::start().await;
    service.register("till", AES).await;
    let code = service.issue_code("till").await;
    let mut device = service.device(&serial_of("till"));
    device.readiness.tampered = true;
    device.readiness.network = Network::Cellular;
    let mut till = Till { id: "till".to_owned(), terminal: Terminal::new(device, AES) };
    let refusal = refused(till.begin(&service, Some(retyped(&code))).await);
    assert_eq!(refusal.reason, "DEVICE_NOT_TRUSTED");
    assert_eq!(told(&refusal, "remedy"), "the device reports tampering: replace it");
    let terminal = service.get("till").await;
    assert_eq!(crate::harness::state_name(&terminal), "HELD");
    assert_eq!(terminal.hold_cause, "the device reports tampering");
    assert_eq!(terminal.activation, "", "a key id was allocated");
    // Nor does it come further by saying nothing of it.
    let mut silent = service.device(&serial_of("till"));
    silent.readiness.tampered = false;
    till.terminal = Terminal::new(silent, AES);
    assert_eq!(refused(till.begin(&service, Some(code)).await).reason, "ACTIVATION_STATE");
}

#[tokio::test]
async fn a_confirmation_must_name_the_keys_that_were_sent() {
    let service = Service::start().await;
    let hand = Hand::take_keys(&service, "till", AES).await;
    let name = hand.activation.as_str();
    let before = service.get("till").await;
    let mut wrong_mac = hand.confirmation(hand.loaded());
    wrong_mac.mac[31] ^= 1;
    let refusal = service.send_confirm(name, &wrong_mac).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");

    let (mut value, mut slot, mut more) = (hand.loaded(), hand.loaded(), hand.loaded());
    value[0].check_value[4] ^= 1;
    slot[0].slot = 1;
    more.push(slot[0].clone());
    let short = hand.loaded().into_iter().map(|mut key| {
        key.check_value.truncate(3);
        key
    });
    for keys in [value, slot, more, short.collect()] {
        let refusal = service.send_confirm(name, &hand.confirmation(keys)).await.unwrap_err();
        assert_eq!(refusal.reason, "ACTIVATION_STATE");
        let remedy = "the terminal loaded other keys than it was sent: begin again";
        assert_eq!(told(&refusal, "remedy"), remedy);
    }
    // The timeline tells it, once for the four; nothing else has changed.
    let mut after = service.get("till").await;
    let entry = after.timeline.pop().unwrap();
    assert_eq!((entry.step.as_str(), entry.reason.as_str()), ("ConfirmKeys", "ACTIVATION_STATE"));
    assert!(after == before);
    service.send_confirm(name, &hand.confirmation(hand.loaded())).await.unwrap();
    assert_eq!(service.get("till").await.check_value, hand.check_value);
}

#[tokio::test]
async fn an_activation_lives_for_an_hour() {
    let service = Service::start().await;
    for (id, delivered) in [("before", false), ("after", true)] {
        let mut till = service.register(id, AES).await;
        let code = service.issue_code(id).await;
        till.begin(&service, Some(retyped(&code))).await.unwrap();
        let first = allocated(&service, id).await;
        if delivered {
            till.deliver(&service).await.unwrap();
        }
        service.clock.advance(HOUR + 1);
        let refusal = refused(if delivered {
            till.confirm(&service).await
        } else {
            till.deliver(&service).await
        });
        assert_eq!(refusal.reason, "ACTIVATION_STATE");
        assert_eq!(told(&refusal, "remedy"), "the activation has expired: begin again");
        // The code still has its time: another activation begins, with a key id of its own.
        till.begin(&service, Some(code)).await.unwrap();
        assert_ne!(allocated(&service, id).await, first);
        assert_eq!(service.get(id).await.activation, format!("terminals/{id}/activations/2"));
        service.clock.advance(HOUR);
        till.deliver(&service).await.expect("the last second is part of the hour");
        till.confirm(&service).await.expect("the last second is part of the hour");
    }
}

#[tokio::test]
async fn keys_are_told_once_they_are_confirmed_and_never_again() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    till.begin(&service, Some(retyped(&code))).await.unwrap();
    let name = "terminals/till/activations/1";
    let deliver = till.terminal.deliver().unwrap();
    let sent = service.send_deliver(name, &deliver).await.unwrap();
    let answer = DeliverAnswer::parse(&sent.payload).unwrap();
    assert_eq!(answer.keys.len(), 1);
    till.deliver(&service).await.unwrap();
    till.confirm(&service).await.unwrap();
    // The very bytes that were answered before are answered no more.
    let refusal = service.send_deliver(name, &deliver).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    let refusal = refused(till.twin().begin(&service, Some(code)).await);
    assert_eq!(refusal.reason, "TERMINAL_ALREADY_ACTIVATED");
    assert_eq!(refusal.code, Code::AlreadyExists);
}

#[tokio::test]
async fn the_service_proves_itself_to_the_terminal() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    let begin = till.terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
    let sent = service.send_begin(&begin).await.unwrap();
    let answer = BeginAnswer::parse(&sent.payload).unwrap();
    assert_eq!(answer.acquirer_id.as_str(), dev::ACQUIRER_ID);
    assert_eq!(answer.expires_at_seconds, BEGIN_SECONDS + HOUR);
    // A signature of the service over anything else is none.
    for index in [0, 40, sent.payload.len() - 1] {
        let mut payload = sent.payload.clone();
        payload[index] ^= 1;
        let twin = &mut till.twin().terminal;
        assert!(
            twin.accept_begin(Answer { payload: &payload, proof: &sent.proof }, service.now())
                .is_err()
        );
    }
    // A terminal of another acquirer does not believe it.
    let pki = dev::Pki::generate(BEGIN_SECONDS).unwrap();
    let mut device = service.device(&serial_of("till"));
    certified(&mut device).acquirer_root = pki.acquirer.root_der().to_vec();
    let mut other = Till { id: "till".to_owned(), terminal: Terminal::new(device, AES) };
    let code = service.reissue_code("till").await;
    let begin = other.terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
    let sent = service.send_begin(&begin).await.unwrap();
    let answer = Answer { payload: &sent.payload, proof: &sent.proof };
    let refused = other.terminal.accept_begin(answer, service.now());
    assert!(matches!(refused, Err(firstkey::terminal::TerminalError::ServiceNotTrusted)));
}

#[tokio::test]
async fn what_was_answered_before_is_answered_to_no_closed_terminal_and_no_denied_device() {
    let service = Service::start().await;
    let mut till = service.register("till", AES).await;
    let code = service.issue_code("till").await;
    let name = "terminals/till/activations/1";
    /// Sends once, once more under a hold, and once more after it.
    macro_rules! under_a_hold {
        ($send:expr) => {{
            let first = $send.await.expect("the first");
            service.must(Call::HoldTerminal, "till").await;
            let refusal = $send.await.expect_err("held");
            assert_eq!(refusal.reason, "ACTIVATION_STATE");
            assert_eq!(told(&refusal, "state"), "HELD");
            service.must(Call::ReleaseTerminal, "till").await;
            assert_eq!($send.await.expect("released"), first);
            first
        }};
    }
    let begin = till.terminal.begin(Some(code), &service.rng, service.device_time()).unwrap();
    let sent = under_a_hold!(service.send_begin(&begin));
    let answer = Answer { payload: &sent.payload, proof: &sent.proof };
    till.terminal.accept_begin(answer, service.now()).unwrap();
    let deliver = till.terminal.deliver().unwrap();
    let sent = under_a_hold!(service.send_deliver(name, &deliver));
    deny(&service, "till").await;
    let refusal = service.send_deliver(name, &deliver).await.expect_err("denied");
    assert_eq!(refusal.reason, "DEVICE_NOT_TRUSTED");
    allow(&service, "till").await;
    let answer = Answer { payload: &sent.payload, proof: &sent.proof };
    till.terminal.accept_keys(answer).unwrap();
    let confirm = till.terminal.confirm().unwrap();
    under_a_hold!(service.send_confirm(name, &confirm));
    service.must(Call::RetireTerminal, "till").await;
    let refusal = service.send_confirm(name, &confirm).await.expect_err("retired");
    assert_eq!(told(&refusal, "state"), "RETIRED");
}
