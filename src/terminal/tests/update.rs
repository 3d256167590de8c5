//! New keys under the update key, against a host that derives it by itself.

use super::*;
use crate::activation::confirmation;
use crate::activation::payload::{ActivationName, Confirm, ConfirmAnswer, Update, UpdateAnswer};
use crate::activation::update::{Renewal, RenewalKeys};
use crate::dukpt::{AesInitialKey, AesInitialKeyId, AesKsn, KeyKind};
use crate::key::{Algorithm, Key, Material};
use crate::keyblock::{self, Version};

const NEW_KEY: [u8; 16] = *b"0123456789abcdef";

fn new_id() -> AesInitialKeyId {
    AesInitialKeyId::new([1; 4], [3; 4])
}

fn activation() -> ActivationName {
    ActivationName::new("terminals/t-1/activations/2").unwrap()
}

/// The answer to an Update, and the keys that confirm it.
fn answered(
    host: &Host,
    request: &TransactionRequest,
    change: impl Fn(&mut Header, &mut DeliveredKey),
) -> (Reply, RenewalKeys) {
    let serving = AesInitialKey::new(initial_key(Suite::P256Aes128), aes_id()).unwrap();
    let new = Key::from_material(Algorithm::Aes128, Material::copied_from(&NEW_KEY)).unwrap();
    let new = AesInitialKey::new(new, new_id()).unwrap();
    let mut key = DeliveredKey {
        slot: 0,
        usage: *b"B1",
        key_block: String::new(),
        check_value: new.key().check_value().bytes().to_vec(),
        initial_key_id: new_id().bytes().to_vec(),
    };
    let mut header = Header::new(Version::D, *b"B1", b'A', b'X');
    let id = data_encoding::HEXUPPER.encode(new_id().bytes());
    header.push(OptionalBlock::new(*b"IK", id).unwrap()).unwrap();
    change(&mut header, &mut key);
    let update_key = serving.update_key(KeyKind::Aes128).unwrap();
    let material = Material::copied_from(&NEW_KEY);
    let block = keyblock::wrap(&update_key, &header, &material, &SystemRng::new()).unwrap();
    if key.key_block.is_empty() {
        key.key_block = block.to_string();
    }
    let ksn = AesKsn::parse(&request.ksn).unwrap();
    let Update { nonce } = Update::parse(&request.payload).unwrap();
    let (activation, initial_key_id) = (&activation(), new_id().bytes().to_vec());
    let renewal = Renewal { activation, nonce: &nonce, initial_key_id: &initial_key_id };
    let derivation = serving.working_key(&ksn, KeyKind::Aes128).unwrap();
    let keys = renewal.confirmation_keys(&derivation).unwrap();
    let answer = UpdateAnswer { activation: activation.clone(), keys: vec![key] };
    (host.exchange(Step::Update, request, answer.encode()), keys)
}

#[test]
fn new_keys_serve_once_the_service_confirmed_them() {
    let (mut terminal, host) = with_keys(Suite::P256Aes128);
    let request = terminal.request_update(&SystemRng::new()).unwrap();
    let mut terminal = Terminal::restore(&terminal.save()).unwrap();
    assert!(terminal.request_update(&SystemRng::new()).unwrap() == request);
    let (reply, keys) = answered(&host, &request, |_, _| ());
    let loaded = terminal.accept_update(reply.answer()).unwrap();
    assert_eq!(loaded[0].initial_key_id, new_id().bytes());
    assert_eq!(terminal.next_ksn().unwrap().bytes()[..8], aes_id().bytes()[..]);

    let mut terminal = Terminal::restore(&terminal.save()).unwrap();
    let confirm = terminal.confirm().unwrap();
    let transcript = Transcript::new().with(&request.payload).with(&reply.payload);
    let transcript = transcript.with(&confirm.payload);
    let message = (Role::Terminal, Step::Confirm);
    confirmation::verify(&keys.terminal, message, &transcript, &confirm.mac).unwrap();
    let confirmed = Confirm::parse(&confirm.payload).unwrap();
    assert_eq!(confirmed.activation, activation());
    let payload = ConfirmAnswer { activation: activation() }.encode();
    let transcript = transcript.with(&payload);
    let message = (Role::Service, Step::Confirm);
    let proof = confirmation::mac(&keys.service, message, &transcript).to_vec();
    let forged = confirmation::mac(&keys.terminal, message, &transcript).to_vec();
    let forged = Answer { payload: &payload, proof: &forged };
    assert_eq!(terminal.accept_confirmation(forged), Err(TerminalError::Authentication));
    terminal.accept_confirmation(Answer { payload: &payload, proof: &proof }).unwrap();
    assert_eq!(terminal.next_ksn().unwrap().bytes()[..8], new_id().bytes()[..]);
    assert_eq!(terminal.activation(), Some(&activation()));
}

#[test]
fn an_answer_that_was_changed_is_refused_and_the_request_stays() {
    let (mut terminal, host) = with_keys(Suite::P256Aes128);
    let request = terminal.request_update(&SystemRng::new()).unwrap();
    let (reply, _) = answered(&host, &request, |_, _| ());
    for at in (0..reply.payload.len()).step_by(7) {
        let mut payload = reply.payload.clone();
        payload[at] ^= 1;
        let answer = Answer { payload: &payload, proof: &reply.proof };
        assert_eq!(terminal.accept_update(answer), Err(TerminalError::Authentication));
    }
    let short = Answer { payload: &reply.payload, proof: &reply.proof[..8] };
    assert_eq!(terminal.accept_update(short), Err(TerminalError::Authentication));
    assert!(matches!(terminal.confirm(), Err(TerminalError::OutOfStep)));
    terminal.accept_update(reply.answer()).unwrap();
    assert_eq!(terminal.accept_update(reply.answer()), Err(TerminalError::OutOfStep));
}

#[test]
fn a_block_must_say_what_the_answer_says() {
    type Change = fn(&mut Header, &mut DeliveredKey);
    let refused = TerminalError::KeyBlock { slot: 0 };
    let changes: [(Change, TerminalError); 5] = [
        (|header, _| header.usage = *b"P0", refused),
        (|header, _| header.exportability = b'E', refused),
        (|_, key| key.initial_key_id = aes_id().bytes().to_vec(), refused),
        (|_, key| key.key_block = "D0112B1AX00N0000".to_owned(), refused),
        (|_, key| key.check_value[0] ^= 1, TerminalError::CheckValue { slot: 0 }),
    ];
    for (change, error) in changes {
        let (mut terminal, host) = with_keys(Suite::P256Aes128);
        let request = terminal.request_update(&SystemRng::new()).unwrap();
        let (reply, _) = answered(&host, &request, change);
        assert_eq!(terminal.accept_update(reply.answer()), Err(error));
        assert!(matches!(terminal.confirm(), Err(TerminalError::OutOfStep)));
        // It is reported, of the activation that the service named.
        let report = terminal.report(Step::Update, Outcome::Fault(error.fault().unwrap()));
        assert!(matches!(report, Ok(ReportRequest::Transaction(_))));
        assert_eq!(terminal.activation(), Some(&activation()));
    }
}

#[test]
fn tdes_keys_have_no_update_key() {
    let (mut terminal, _) = with_keys(Suite::P256Tdes2);
    let before = terminal.next_ksn().unwrap();
    let asked = terminal.request_update(&SystemRng::new());
    assert!(matches!(asked, Err(TerminalError::NoUpdateKey)));
    assert_eq!(terminal.next_ksn().unwrap(), before, "no counter is spent");
}
