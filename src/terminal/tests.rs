//! A terminal's whole first activation against a host of a few lines, and every way it can fail.

mod host;
mod update;

use super::*;
use crate::activation::PayloadInvalid;
use crate::activation::parameters::{
    AcquirerId, Currency, Limits, MerchantId, MerchantName, OverLimit, ParametersVersion,
    RolledBack, TerminalId,
};
use crate::activation::payload::{
    CardData, DeliverAnswer, DeliveredKey, Fault, Outcome, ParametersAnswer, Payload,
    TestTransaction, TestTransactionAnswer,
};
use crate::activation::{ActivationCode, Parameters, Role, Step, Transcript};
use crate::agreement::{Dukpt, MasterKeyUnfit};
use crate::crypto::ec::EphemeralKey;
use crate::crypto::rng::SystemRng;
use crate::keyblock::{Header, OptionalBlock};
use crate::pin::{Pan, Pin, PinBlockFormat, verify_form};
use exchange::mac_algorithm;
use host::*;

fn pair(suite: Suite) -> (Terminal, Host) {
    let root = authority();
    (terminal(suite, &root), Host::new(suite, &root, "acquirer-1"))
}

fn begun(suite: Suite) -> (Terminal, Host) {
    let (mut terminal, mut host) = pair(suite);
    let code = ActivationCode::from_random_bits(&[5; 7]);
    let request = terminal.begin(Some(code), &SystemRng::new(), NOW).unwrap();
    let reply = host.begin(&request, &terminal.device);
    let activation = terminal.accept_begin(reply.answer(), NOW).unwrap();
    assert_eq!(activation.as_str(), "terminals/t-1/activations/1");
    (terminal, host)
}

fn with_keys(suite: Suite) -> (Terminal, Host) {
    let (mut terminal, mut host) = begun(suite);
    let request = terminal.deliver().unwrap();
    let reply = host.deliver(&request, &terminal.device);
    let loaded = terminal.accept_keys(reply.answer()).unwrap();
    assert_eq!(loaded[0].check_value, initial_key(suite).check_value());
    assert!(!terminal.has_keys(), "keys do not serve before they are confirmed");
    let reply = host.confirm(&terminal.confirm().unwrap());
    terminal.accept_confirmation(reply.answer()).unwrap();
    assert!(terminal.has_keys());
    (terminal, host)
}

fn parameters(version: u32) -> Parameters {
    Parameters {
        version: ParametersVersion::new(version).unwrap(),
        acquirer_id: AcquirerId::new("acquirer-1").unwrap(),
        merchant_id: MerchantId::new("M1").unwrap(),
        merchant_name: MerchantName::new("Shop").unwrap(),
        terminal_id: TerminalId::new("T0000001").unwrap(),
        currency: Currency::new("EUR").unwrap(),
        limits: Limits::new(1_000, 1_500).unwrap(),
    }
}

fn apply(terminal: &mut Terminal, host: &Host, file: Parameters) -> Result<Applied, TerminalError> {
    let request = terminal.request_parameters(&SystemRng::new())?;
    let payload = ParametersAnswer { parameters: file }.encode();
    let reply = host.exchange(Step::Parameters, &request, payload);
    terminal.apply_parameters(reply.answer())
}

#[test]
fn a_terminal_is_activated_and_pays() {
    for suite in Suite::ALL {
        let (mut terminal, host) = with_keys(suite);
        let applied = apply(&mut terminal, &host, parameters(1)).unwrap();
        assert_eq!(applied.digest, parameters(1).digest());
        let report = terminal.report(Step::Parameters, applied.outcome()).unwrap();
        let ReportRequest::Transaction(report) = report else { panic!("keys serve") };
        host.exchange(Step::Report, &report, vec![1]);
        terminal.report_taken();

        let (pan, pin) = (Pan::parse(PAN).unwrap(), Pin::parse("1234").unwrap());
        let test = Test {
            card: CardData::new(PAN, "2812").unwrap(),
            pin: &pin,
            amount_minor: 100,
            currency: Currency::new("EUR").unwrap(),
        };
        let request = terminal.test_transaction(test, &SystemRng::new()).unwrap();
        let sent = TestTransaction::parse(&request.payload).unwrap();
        assert_eq!((sent.number, sent.pin_block.len()), (1, sent.pin_block_format.len_bytes()));
        let verdict = TestTransactionAnswer {
            number: 1,
            verdicts: vec![crate::activation::checks::Verdict {
                check: crate::activation::checks::Check::Mac,
                passed: true,
                remedy: String::new(),
            }],
            tests_passed: 1,
            tests_required: 1,
        };
        let reply = host.exchange(Step::Test, &request, verdict.encode());
        assert_eq!(terminal.accept_verdict(reply.answer()), Ok(verdict));

        let purchase = Purchase { amount_minor: 1_000, pan: &pan, pin: &pin };
        let payment = terminal.purchase(purchase, &SystemRng::new(), NOW).unwrap();
        let keys = host.keys(payment.ksn.bytes());
        let algorithm = mac_algorithm(suite);
        keys.mac_request.verify_mac(algorithm, &payment.message, &payment.mac).unwrap();
        let format = match suite.dukpt() {
            Dukpt::Aes128 => PinBlockFormat::Iso4,
            Dukpt::Tdes2 => PinBlockFormat::Iso3,
        };
        assert_eq!(payment.pin_block_format, format);
        verify_form(&keys.pin, format, &pan, &payment.pin_block).unwrap();
        assert!(!String::from_utf8(payment.message).unwrap().contains(PAN));
    }
}

#[test]
fn limits_hold_over_a_day_and_no_longer() {
    let (mut terminal, host) = with_keys(Suite::P256Aes128);
    apply(&mut terminal, &host, parameters(1)).unwrap();
    let (pan, pin) = (Pan::parse(PAN).unwrap(), Pin::parse("1234").unwrap());
    let mut pay = |amount_minor, now| {
        let purchase = Purchase { amount_minor, pan: &pan, pin: &pin };
        terminal.purchase(purchase, &SystemRng::new(), now).map(|_| ())
    };
    assert_eq!(pay(1_001, NOW), Err(TerminalError::OverLimit(OverLimit::Single)));
    assert_eq!(pay(1_000, NOW), Ok(()));
    assert_eq!(pay(501, NOW), Err(TerminalError::OverLimit(OverLimit::Daily)));
    assert_eq!(pay(500, NOW), Ok(()));
    assert_eq!(pay(1, NOW - 86_400), Err(TerminalError::OverLimit(OverLimit::Daily)));
    assert_eq!(pay(1, NOW + 86_400), Ok(()));
}

#[test]
fn a_request_that_was_not_answered_is_the_same_again() {
    let (mut terminal, mut host) = pair(Suite::P256Aes128);
    let begin = terminal.begin(None, &SystemRng::new(), NOW).unwrap();
    assert!(terminal.begin_again() == Some(begin.clone()));
    let reply = host.begin(&begin, &terminal.device);
    terminal.accept_begin(reply.answer(), NOW).unwrap();
    let deliver = terminal.deliver().unwrap();
    assert!(terminal.deliver().unwrap() == deliver);
    let reply = host.deliver(&deliver, &terminal.device);
    terminal.accept_keys(reply.answer()).unwrap();
    let confirm = terminal.confirm().unwrap();
    assert!(terminal.confirm().unwrap() == confirm);
    terminal.accept_confirmation(host.confirm(&confirm).answer()).unwrap();
    let request = terminal.request_parameters(&SystemRng::new()).unwrap();
    let mut terminal = Terminal::restore(&terminal.save()).unwrap();
    assert!(terminal.request_parameters(&SystemRng::new()).unwrap() == request);
    let reported = terminal.report(Step::Parameters, Outcome::Fault(Fault::Storage));
    assert!(matches!(reported, Err(TerminalError::Unanswered)));
    terminal.abandon_exchange();
    assert!(terminal.request_parameters(&SystemRng::new()).unwrap().ksn != request.ksn);
}

#[test]
fn a_terminal_that_was_switched_off_goes_on() {
    for suite in Suite::ALL {
        let again = |terminal: &Terminal| Terminal::restore(&terminal.save()).unwrap();
        let (mut terminal, mut host) = pair(suite);
        let request = terminal.begin(None, &SystemRng::new(), NOW).unwrap();
        let mut terminal = again(&terminal);
        let reply = host.begin(&request, &terminal.device);
        terminal.accept_begin(reply.answer(), NOW).unwrap();
        let mut terminal = again(&terminal);
        let request = terminal.deliver().unwrap();
        let reply = host.deliver(&request, &terminal.device);
        let mut lost = again(&terminal);
        assert_eq!(lost.accept_keys(reply.answer()), Err(TerminalError::OutOfStep));
        if suite.has_master_key() {
            assert!(lost.deliver().unwrap() == request, "the same Deliver is made again");
            lost.accept_keys(reply.answer()).unwrap();
        } else {
            assert!(lost.deliver().is_err(), "the ephemeral key is not kept");
        }
        terminal.accept_keys(reply.answer()).unwrap();
        let mut terminal = again(&terminal);
        let reply = host.confirm(&terminal.confirm().unwrap());
        terminal.accept_confirmation(reply.answer()).unwrap();
        let mut terminal = again(&terminal);
        let before = terminal.next_ksn().unwrap();
        let request = terminal.request_parameters(&SystemRng::new()).unwrap();
        assert_eq!(request.ksn, before.bytes());
        let mut terminal = again(&terminal);
        let payload = ParametersAnswer { parameters: parameters(1) }.encode();
        let reply = host.exchange(Step::Parameters, &request, payload);
        terminal.apply_parameters(reply.answer()).unwrap();
        let terminal = again(&terminal);
        assert_eq!(terminal.parameters(), Some(&parameters(1)));
        assert_ne!(terminal.next_ksn().unwrap(), before);
        assert!(terminal.save().contains("IN CLEAR"));
        assert!(!format!("{terminal:?}").contains("IN CLEAR"));
    }
    assert!(matches!(Terminal::restore("{}"), Err(SavedInvalid { field: "form" })));
}

#[test]
fn another_service_is_not_trusted() {
    let root = authority();
    for (host, now, error) in [
        (Host::new(Suite::P256Aes128, &authority(), "acquirer-1"), NOW, true),
        (Host::new(Suite::P256Aes128, &root, "acquirer-2"), NOW, true),
        (Host::new(Suite::P256Aes128, &root, "acquirer-1"), NOW + 2_000, true),
        (Host::new(Suite::P256Aes128, &root, "acquirer-1"), NOW, false),
    ] {
        let mut host = host;
        let mut terminal = terminal(Suite::P256Aes128, &root);
        let request = terminal.begin(None, &SystemRng::new(), NOW).unwrap();
        let reply = host.begin(&request, &terminal.device);
        let accepted = terminal.accept_begin(reply.answer(), now);
        assert_eq!(accepted.err(), error.then_some(TerminalError::ServiceNotTrusted));
    }
    // The certificate is right, the id in the message is not.
    let mut host = Host::new(Suite::P256Aes128, &root, "acquirer-1");
    host.acquirer = AcquirerId::new("acquirer-2").unwrap();
    let mut terminal = terminal(Suite::P256Aes128, &root);
    let request = terminal.begin(None, &SystemRng::new(), NOW).unwrap();
    let reply = host.begin(&request, &terminal.device);
    let refused = terminal.accept_begin(reply.answer(), NOW);
    assert_eq!(refused, Err(TerminalError::ServiceNotTrusted));
    assert_eq!(refused.unwrap_err().fault(), Some(Fault::ServiceNotTrusted));
    let report = terminal.report(Step::Begin, Outcome::Fault(Fault::ServiceNotTrusted));
    assert!(matches!(report, Err(TerminalError::OutOfStep)), "no activation to report on");
}

#[test]
fn a_service_without_the_master_key_is_not_believed() {
    for suite in Suite::ALL.into_iter().filter(|suite| suite.has_master_key()) {
        let (mut terminal, mut host) = pair(suite);
        let other = host::terminal(suite, &authority());
        let request = terminal.begin(None, &SystemRng::new(), NOW).unwrap();
        // Another master key; the terminal's own one, but certificates with it; another acquirer.
        let reply = host.prove_begin(&request, &other.device, |_| ());
        let refused = terminal.accept_begin(reply.answer(), NOW);
        assert_eq!(refused, Err(TerminalError::Authentication));
        let chain = host.chain.clone();
        let reply = host.prove_begin(&request, &terminal.device, |answer| {
            answer.service_certificate_chain = Some(chain);
        });
        let refused = terminal.accept_begin(reply.answer(), NOW);
        assert_eq!(refused, Err(TerminalError::ServiceNotTrusted));
        let reply = host.prove_begin(&request, &terminal.device, |answer| {
            answer.acquirer_id = AcquirerId::new("acquirer-2").unwrap();
        });
        let refused = terminal.accept_begin(reply.answer(), NOW);
        assert_eq!(refused, Err(TerminalError::ServiceNotTrusted));
        let reply = host.begin(&request, &terminal.device);
        terminal.accept_begin(reply.answer(), NOW).unwrap();
        // An ephemeral key in the answer to Deliver is another protocol.
        let request = terminal.deliver().unwrap();
        host.transcript.absorb(&request.payload);
        let answer = DeliverAnswer {
            activation: terminal.activation().unwrap().clone(),
            service_ephemeral: Some(EphemeralKey::generate().unwrap().public()),
            keys: vec![DeliveredKey {
                slot: 0,
                usage: *b"B1",
                key_block: "D0112B1AX00N0000".to_owned(),
                initial_key_id: vec![1; 8],
                check_value: vec![1; 5],
            }],
        };
        let reply = host.prove(answer.encode(), Step::Deliver, &terminal.device);
        let refused = terminal.accept_keys(reply.answer());
        let field = "service_ephemeral";
        assert_eq!(refused, Err(TerminalError::Payload(PayloadInvalid { field })));
        assert!(!terminal.has_keys());
    }
}

#[test]
fn a_master_key_of_another_suite_begins_nothing() {
    let root = authority();
    let device = host::terminal(Suite::MasterAesAes128, &root).device;
    let mut terminal = Terminal::new(device, Suite::MasterTdesTdes2);
    let refused = terminal.begin(None, &SystemRng::new(), NOW).err();
    assert_eq!(refused, Some(TerminalError::MasterKeyUnfit(MasterKeyUnfit)));
}

#[test]
fn an_answer_that_was_changed_is_refused_and_changes_nothing() {
    for suite in [Suite::P256Aes128, Suite::MasterAesAes128, Suite::MasterTdesTdes2] {
        changed_answers_are_refused(suite);
    }
}

fn changed_answers_are_refused(suite: Suite) {
    let (mut terminal, mut host) = begun(suite);
    let request = terminal.deliver().unwrap();
    let reply = host.deliver(&request, &terminal.device);
    for at in (0..reply.payload.len()).step_by(7) {
        let mut payload = reply.payload.clone();
        payload[at] ^= 1;
        let answer = Answer { payload: &payload, proof: &reply.proof };
        assert_eq!(terminal.accept_keys(answer), Err(TerminalError::Authentication));
    }
    for at in [0, 31, reply.proof.len() / 2, reply.proof.len() - 1] {
        let mut proof = reply.proof.clone();
        proof[at] ^= 1;
        let answer = Answer { payload: &reply.payload, proof: &proof };
        assert_eq!(terminal.accept_keys(answer), Err(TerminalError::Authentication));
    }
    let report = terminal.report(Step::Deliver, Outcome::Fault(Fault::Authentication));
    assert!(matches!(report, Ok(ReportRequest::Signed(_))));
    terminal.accept_keys(reply.answer()).unwrap();

    let reply = host.confirm(&terminal.confirm().unwrap());
    let mut proof = reply.proof.clone();
    proof[0] ^= 1;
    let answer = Answer { payload: &reply.payload, proof: &proof };
    assert_eq!(terminal.accept_confirmation(answer), Err(TerminalError::Authentication));
    assert!(!terminal.has_keys());
    terminal.accept_confirmation(reply.answer()).unwrap();
}

#[test]
fn an_answer_of_another_session_is_refused() {
    let (mut terminal, mut host) = begun(Suite::P256Aes128);
    let request = terminal.deliver().unwrap();
    let stale = host.deliver(&request, &terminal.device);
    let request = terminal.begin(None, &SystemRng::new(), NOW).unwrap();
    let reply = host.begin(&request, &terminal.device);
    terminal.accept_begin(reply.answer(), NOW).unwrap();
    terminal.deliver().unwrap();
    assert_eq!(terminal.accept_keys(stale.answer()), Err(TerminalError::Authentication));
}

#[test]
fn a_key_block_must_say_what_the_delivery_says() {
    type Change = fn(&mut Header, &mut DeliveredKey);
    let refused = TerminalError::KeyBlock { slot: 0 };
    let changes: [(Change, TerminalError); 6] = [
        (|header, _| header.usage = *b"P0", refused),
        (|header, _| header.mode = b'B', refused),
        (|header, _| header.exportability = b'E', refused),
        (
            |header, _| {
                header.push(OptionalBlock::new(*b"IK", "0000000000000000").unwrap()).unwrap();
            },
            refused,
        ),
        (|_, key| key.check_value[0] ^= 1, TerminalError::CheckValue { slot: 0 }),
        (|_, key| key.slot = 1, TerminalError::KeyBlock { slot: 1 }),
    ];
    for (change, error) in changes {
        let (mut terminal, mut host) = begun(Suite::P256Aes128);
        let request = terminal.deliver().unwrap();
        let reply = host.deliver_changed(&request, &terminal.device, change);
        assert_eq!(terminal.accept_keys(reply.answer()), Err(error));
        assert!(matches!(terminal.confirm(), Err(TerminalError::OutOfStep)));
        let report = terminal.report(Step::Deliver, Outcome::Fault(error.fault().unwrap()));
        assert!(matches!(report, Ok(ReportRequest::Signed(_))), "the fault can be reported");
    }
}

#[test]
fn parameters_are_verified_and_never_go_back() {
    let (mut terminal, host) = with_keys(Suite::P256Aes128);
    assert_eq!(apply(&mut terminal, &host, parameters(2)).unwrap().version, 2);
    let rolled_back = TerminalError::ParametersRolledBack(RolledBack);
    assert_eq!(apply(&mut terminal, &host, parameters(1)), Err(rolled_back));
    let mut other = parameters(2);
    other.limits = Limits::new(9_999, 9_999).unwrap();
    assert_eq!(apply(&mut terminal, &host, other), Err(rolled_back));
    assert_eq!(rolled_back.fault(), Some(Fault::ParametersRolledBack));
    let mut other = parameters(3);
    other.acquirer_id = AcquirerId::new("acquirer-2").unwrap();
    assert_eq!(apply(&mut terminal, &host, other), Err(TerminalError::ParametersOther));
    assert_eq!(terminal.parameters(), Some(&parameters(2)));

    let request = terminal.request_parameters(&SystemRng::new()).unwrap();
    let payload = ParametersAnswer { parameters: parameters(3) }.encode();
    let reply = host.exchange(Step::Parameters, &request, payload);
    let short = Answer { payload: &reply.payload, proof: &reply.proof[..8] };
    assert_eq!(terminal.apply_parameters(short), Err(TerminalError::Authentication));
    let other = host.exchange(Step::Test, &request_as_test(&host, &request), reply.payload.clone());
    assert_eq!(terminal.apply_parameters(other.answer()), Err(TerminalError::Authentication));
    assert_eq!(terminal.apply_parameters(reply.answer()).unwrap().version, 3);
}

/// The same request under the MAC of another step, as a confused host might take it.
fn request_as_test(host: &Host, request: &TransactionRequest) -> TransactionRequest {
    let algorithm = mac_algorithm(host.suite);
    let input = Transcript::new().with(&request.payload);
    let input = input.authenticated_input(Role::Terminal, Step::Test);
    let mac = host.keys(&request.ksn).mac_request.generate_mac(algorithm, &input, 16).unwrap();
    TransactionRequest { mac: mac.bytes().to_vec(), ..request.clone() }
}

#[test]
fn the_old_keys_serve_until_the_new_are_confirmed() {
    let (mut terminal, mut host) = with_keys(Suite::P256Aes128);
    apply(&mut terminal, &host, parameters(1)).unwrap();
    let request = terminal.begin(None, &SystemRng::new(), NOW).unwrap();
    let reply = host.begin(&request, &terminal.device);
    terminal.accept_begin(reply.answer(), NOW).unwrap();
    let request = terminal.deliver().unwrap();
    let (pan, pin) = (Pan::parse(PAN).unwrap(), Pin::parse("1234").unwrap());
    let purchase = Purchase { amount_minor: 1, pan: &pan, pin: &pin };
    let before = terminal.purchase(purchase, &SystemRng::new(), NOW).unwrap();
    assert_eq!(before.ksn.bytes()[8..], [0, 0, 0, 2]);
    let reply = host.deliver(&request, &terminal.device);
    terminal.accept_keys(reply.answer()).unwrap();
    let reply = host.confirm(&terminal.confirm().unwrap());
    terminal.accept_confirmation(reply.answer()).unwrap();
    assert_eq!(terminal.next_ksn().unwrap().bytes()[8..], [0, 0, 0, 1]);
    assert_eq!(terminal.parameters(), Some(&parameters(1)), "what was applied stays");
}
