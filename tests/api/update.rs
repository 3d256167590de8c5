//! Re-keying by the update key: new keys under those that serve, and every way it can go wrong.

use firstkey::activation::payload::{
    ConfirmAnswer, DeliveredKey, Payload as _, Update, UpdateAnswer,
};
use firstkey::activation::{Call, State, Step, Transcript};
use firstkey::agreement::Suite;
use firstkey::dukpt::{AesInitialKeyId, KeyKind};
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto;
use firstkey::key::Algorithm;
use firstkey::key::usage::BaseDerivation;
use firstkey::keyblock;
use firstkey::terminal::{Answer, ConfirmRequest, TransactionRequest};
use firstkey::vault::Reason;

use crate::hand::Hand;
use crate::harness::{HOUR, Service, Till, answer, refused, state_name, told};
use crate::known::Known;
use crate::transactions::verify;
use crate::wire::Sent;

const AES: Suite = Suite::P256Aes128;

/// A terminal in service whose re-key was started.
async fn rekeying(service: &Service, id: &str) -> Till {
    let till = service.active_till(id, AES).await;
    service.start_update(id).await;
    till
}

/// Loads the keys of an answer; the confirmation that the terminal then makes.
fn load(till: &mut Till, sent: &Sent) -> ConfirmRequest {
    let answer = Answer { payload: &sent.payload, proof: &sent.proof };
    till.terminal.accept_update(answer).expect("keys");
    till.terminal.confirm().expect("a confirmation")
}

/// Asks for keys and loads them.
async fn update(service: &Service, till: &mut Till) -> ConfirmRequest {
    let request = till.terminal.request_update(&service.rng).expect("keys serve");
    let sent = service.send_update(&request).await.expect("new keys");
    load(till, &sent)
}

/// The one key of an answer, and the activation's name.
fn key_of(sent: &Sent) -> (DeliveredKey, String) {
    let answer = UpdateAnswer::parse(&sent.payload).expect("an answer");
    let [key] = answer.keys.as_slice() else { panic!("one key") };
    (key.clone(), answer.activation.as_str().to_owned())
}

/// Asks for keys under the next counter of a terminal that forgot its last question.
fn ask(service: &Service, till: &mut Till) -> TransactionRequest {
    till.terminal.abandon_exchange();
    till.terminal.request_update(&service.rng).expect("keys serve")
}

async fn set_state(service: &Service, key: &str, state: proto::KeyState) {
    let request = proto::SetKeyStateRequest {
        request_id: request_id(),
        name: format!("keys/{key}"),
        state: state.into(),
        serve_until: None,
    };
    answer(service.client.keys().set_key_state(request).await);
}

#[tokio::test]
async fn an_update_renews_the_keys_and_the_old_ones_have_their_grace() {
    let service = Service::start_durable().await;
    let mut till = service.active_till("till", AES).await;
    for activation in 2..=3_u32 {
        let before = service.get("till").await;
        let mut old = till.twin();
        // The twin's counters lie ahead of those that the terminal uses meanwhile.
        for _ in 0..20 {
            old.terminal.request_parameters(&service.rng).unwrap();
            old.terminal.abandon_exchange();
        }
        service.start_update("till").await;
        till.update(&service).await.unwrap();
        let terminal = service.get("till").await;
        assert_eq!(state_name(&terminal), "REKEYING");
        assert_eq!(terminal.activation, format!("terminals/till/activations/{activation}"));
        assert_eq!(terminal.initial_key_id, before.initial_key_id, "the old keys serve");
        let last = terminal.timeline.last().unwrap();
        assert_eq!((last.step.as_str(), last.reason.as_str()), ("UpdateKeys", ""));
        assert!(last.note.contains("under the update key"), "{}", last.note);
        verify(&service, &old.purchase(&service)).await.expect("before they are confirmed");
        till.confirm(&service).await.unwrap();

        let after = service.get("till").await;
        assert_eq!(state_name(&after), "ACTIVE");
        assert_ne!(after.initial_key_id, before.initial_key_id);
        assert_ne!(after.check_value, before.check_value);
        verify(&service, &till.purchase(&service)).await.expect("the new keys serve");
        verify(&service, &old.purchase(&service)).await.expect("the old ones have their grace");
        till.parameters(&service).await.expect("parameters under the new keys");
        service.clock.advance(HOUR + 1);
        let refusal = verify(&service, &old.purchase(&service)).await.unwrap_err();
        assert_eq!(refusal.reason, "TERMINAL_NOT_ACTIVE");
    }
    let events = service.vault.events_after(0, 1_000).await.unwrap();
    let done = events.iter().filter(|event| event.action == "UpdateKeys" && event.is_done());
    assert_eq!(done.count(), 2);
}

#[tokio::test]
async fn the_block_opens_under_the_standards_update_key_to_the_key_of_the_bdk_of_now() {
    let service = Service::start().await;
    let (first, second) = (Known::generate(Algorithm::Aes128), Known::generate(Algorithm::Aes128));
    for (id, key, octet) in [("bdk-1", &first, 0xB1), ("bdk-2", &second, 0xB2)] {
        let key_set_id = vec![octet; 4];
        let attributes = proto::KeyAttributes { key_set_id, ..proto::KeyAttributes::default() };
        Known::<BaseDerivation>::import_with(key, &service, id, "B0AX00N", attributes).await;
    }
    service.profile("retail", |profile| profile.base_derivation_key = "keys/bdk-1".into()).await;
    let mut till = service.register_under("till", AES, "retail").await;
    let code = service.issue_code("till").await;
    till.activate(&service, Some(code)).await.unwrap();
    service.enable("till").await.unwrap();
    service.change_bdk("retail", "bdk-2").await;
    service.start_update("till").await;
    let serving = service.get("till").await.initial_key_id;

    let request = till.terminal.request_update(&service.rng).unwrap();
    let sent = service.send_update(&request).await.unwrap();
    let (key, _) = key_of(&sent);
    let id = AesInitialKeyId::parse(&serving).unwrap();
    let update_key = first.key.aes_initial_key(id).unwrap().update_key(KeyKind::Aes128).unwrap();
    let opened = keyblock::unwrap(&update_key, &key.key_block).expect("the block opens");
    let header = &opened.header;
    assert_eq!((header.usage, header.mode, header.exportability), (*b"B1", b'X', b'N'));
    assert_eq!((key.slot, opened.algorithm), (0, Algorithm::Aes128));
    let id = AesInitialKeyId::parse(&key.initial_key_id).unwrap();
    assert_eq!(id.bytes()[..4], [0xB2; 4]);
    let expected = second.key.aes_initial_key(id).unwrap();
    assert_eq!(expected.key().check_value().bytes(), key.check_value);
    load(&mut till, &sent);
    till.confirm(&service).await.unwrap();
    assert_eq!(service.get("till").await.initial_key_id, key.initial_key_id);
    verify(&service, &till.purchase(&service)).await.unwrap();
}

#[tokio::test]
async fn a_lost_reply_costs_nothing_and_confirmed_keys_are_not_told_again() {
    let service = Service::start_durable().await;
    let mut till = rekeying(&service, "till").await;
    let request = till.terminal.request_update(&service.rng).unwrap();
    let first = service.send_update(&request).await.unwrap();
    assert_eq!(service.send_update(&request).await.unwrap(), first);
    // Another exchange in between takes nothing away.
    let mut other = till.twin();
    other.terminal.abandon_exchange();
    let parameters = other.terminal.request_parameters(&service.rng).unwrap();
    service.send_parameters(&parameters).await.unwrap();
    assert_eq!(service.send_update(&request).await.unwrap(), first);
    assert_eq!(service.get("till").await.activation, "terminals/till/activations/2");

    let confirm = load(&mut till, &first);
    let name = key_of(&first).1;
    let confirmed = service.send_confirm(&name, &confirm).await.unwrap();
    assert_eq!(service.send_confirm(&name, &confirm).await.unwrap(), confirmed);
    assert_eq!(ConfirmAnswer::parse(&confirmed.payload).unwrap().activation.as_str(), name);
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!(refusal.reason, "KSN_REPLAYED", "its keys are confirmed");
    till.confirm(&service).await.expect("the answer that the terminal had missed");
    verify(&service, &till.purchase(&service)).await.unwrap();
}

#[tokio::test]
async fn a_terminal_that_is_switched_off_goes_on_with_its_update() {
    let service = Service::start().await;
    let mut till = rekeying(&service, "till").await;
    let request = till.terminal.request_update(&service.rng).unwrap();
    till = till.twin();
    assert!(till.terminal.request_update(&service.rng).unwrap() == request, "the same bytes");
    let sent = service.send_update(&request).await.unwrap();
    till = till.twin();
    load(&mut till, &sent);
    till = till.twin();
    till.confirm(&service).await.unwrap();
    till = till.twin();
    verify(&service, &till.purchase(&service)).await.unwrap();
}

#[tokio::test]
async fn another_update_ends_the_session_and_keeps_the_key_id_for_its_hour() {
    let service = Service::start().await;
    let mut till = rekeying(&service, "till").await;
    let mut lost = till.twin();
    let request = lost.terminal.request_update(&service.rng).unwrap();
    let first = service.send_update(&request).await.unwrap();
    let dead = load(&mut lost, &first);
    // The terminal forgot that it asked, and asks under its next counter.
    till.terminal.request_parameters(&service.rng).unwrap();
    till.terminal.abandon_exchange();
    let again = till.terminal.request_update(&service.rng).unwrap();
    let second = service.send_update(&again).await.unwrap();
    let ((one, name), (two, same_name)) = (key_of(&first), key_of(&second));
    assert_eq!((&one.initial_key_id, &name), (&two.initial_key_id, &same_name));
    assert_ne!(one.key_block, two.key_block);
    let refusal = service.send_confirm(&name, &dead).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED", "that session is dead");
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!(refusal.reason, "KSN_REPLAYED", "its answer is no longer kept");
    let late = load(&mut till, &second);

    // When the hour is over the keys can not be confirmed any more, and the next have another id.
    service.clock.advance(HOUR + 1);
    let refusal = service.send_confirm(&name, &late).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_STATE");
    assert_eq!(told(&refusal, "remedy"), "the activation has expired: begin again");
    let third = till.terminal.request_update(&service.rng).unwrap();
    let third = service.send_update(&third).await.unwrap();
    assert_ne!(key_of(&third).0.initial_key_id, two.initial_key_id);
    assert_eq!(key_of(&third).1, "terminals/till/activations/3");
    load(&mut till, &third);
    till.confirm(&service).await.unwrap();
    assert_eq!(service.get("till").await.initial_key_id, key_of(&third).0.initial_key_id);
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day() {
    let service = Service::start().await;
    let mut till = rekeying(&service, "till").await;
    let request = till.terminal.request_update(&service.rng).unwrap();
    let first = service.send_update(&request).await.unwrap();
    service.clock.advance(24 * HOUR);
    assert_eq!(service.send_update(&request).await.unwrap(), first);
    service.clock.advance(1);
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_STATE");
    assert_eq!(told(&refusal, "remedy"), "the activation has expired: begin again");
    assert_eq!(service.send_update(&request).await.unwrap_err().reason, "KSN_REPLAYED");
}

#[tokio::test]
async fn a_begin_and_an_update_end_each_other_and_share_no_key_id() {
    let service = Service::start().await;
    let mut till = rekeying(&service, "till").await;
    // Who knows the keys that serve asks first: the device begins another activation.
    let mut thief = till.twin();
    let request = thief.terminal.request_update(&service.rng).unwrap();
    let stolen = service.send_update(&request).await.unwrap();
    let confirm = load(&mut thief, &stolen);
    let (first, name) = key_of(&stolen);
    till.begin(&service, None).await.unwrap();
    assert_eq!(service.get("till").await.activation, "terminals/till/activations/3");
    let refusal = service.send_confirm(&name, &confirm).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    // Who asks in the middle of it gets other keys than the device, which begins anew.
    till.deliver(&service).await.unwrap();
    thief.terminal.abandon_exchange();
    let request = thief.terminal.request_update(&service.rng).unwrap();
    let stolen = service.send_update(&request).await.unwrap();
    let (second, name) = key_of(&stolen);
    assert_eq!(name, "terminals/till/activations/4");
    assert_eq!(refused(till.confirm(&service).await).reason, "ACTIVATION_REFUSED");
    till.begin(&service, None).await.unwrap();
    till.deliver(&service).await.unwrap();
    till.confirm(&service).await.unwrap();
    let terminal = service.get("till").await;
    assert_eq!(terminal.activation, "terminals/till/activations/5");
    let ids = [first.initial_key_id, second.initial_key_id, terminal.initial_key_id];
    for (number, id) in ids.iter().enumerate() {
        assert!(!ids[..number].contains(id), "{number}");
    }
    verify(&service, &till.purchase(&service)).await.unwrap();
}

#[tokio::test]
async fn an_update_comes_only_in_a_rekey_that_allows_it() {
    let service = Service::start().await;
    let mut till = service.active_till("till", AES).await;
    for round in 0..2_u32 {
        service.must(Call::StartRekey, "till").await;
        let mut asks = till.twin();
        // Spent by the refusal, as the counter of any message of the terminal.
        let request = asks.terminal.request_update(&service.rng).unwrap();
        let refusal = service.send_update(&request).await.unwrap_err();
        assert_eq!(refusal.reason, "ACTIVATION_STATE");
        let remedy = "this re-key asks for a new activation: begin one";
        assert_eq!(told(&refusal, "remedy"), remedy);
        assert_eq!(service.get("till").await.timeline.last().unwrap().remedy, remedy);
        if round == 0 {
            till.take_keys(&service, None).await.unwrap();
            // What one re-key allowed says nothing of the next: neither confirmed nor cancelled.
            service.start_update("till").await;
            update(&service, &mut till).await;
            till.confirm(&service).await.unwrap();
            service.start_update("till").await;
            service.must(Call::CancelActivation, "till").await;
        }
    }
}

#[tokio::test]
async fn a_delivery_can_not_be_asked_for_in_an_updates_session() {
    let service = Service::start().await;
    let mut till = rekeying(&service, "till").await;
    let request = till.terminal.request_update(&service.rng).unwrap();
    let sent = service.send_update(&request).await.unwrap();
    let name = key_of(&sent).1;
    let ephemeral = firstkey::crypto::ec::EphemeralKey::generate().unwrap();
    let activation = firstkey::activation::payload::ActivationName::new(&name).unwrap();
    let device_ephemeral = Some(ephemeral.public());
    let deliver = firstkey::activation::payload::Deliver { activation, device_ephemeral };
    let before = Transcript::new().with(&request.payload).with(&sent.payload);
    let deliver = till.signed(&before, deliver.encode(), Step::Deliver);
    let refusal = service.send_deliver(&name, &deliver).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_STATE");
    load(&mut till, &sent);
    till.confirm(&service).await.expect("nothing was lost by it");
}

#[tokio::test]
async fn replaced_keys_give_out_none_though_they_have_their_grace() {
    let service = Service::start().await;
    let mut till = rekeying(&service, "till").await;
    let mut old = till.twin();
    old.terminal.request_parameters(&service.rng).unwrap();
    old.terminal.abandon_exchange();
    update(&service, &mut till).await;
    till.confirm(&service).await.unwrap();
    service.start_update("till").await;
    let request = old.terminal.request_update(&service.rng).unwrap();
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_STATE");
    assert_eq!(told(&refusal, "remedy"), "these keys are replaced: use those that serve");
    assert_eq!(service.get("till").await.activation, "terminals/till/activations/2");
    update(&service, &mut till).await;
    till.confirm(&service).await.unwrap();
}

/// A change of a request.
type Spoil = fn(&mut TransactionRequest);

#[tokio::test]
async fn who_proves_nothing_learns_nothing_and_spends_nothing() {
    let service = Service::start().await;
    let mut till = rekeying(&service, "till").await;
    let before = service.get("till").await;
    let request = till.terminal.request_update(&service.rng).unwrap();
    let spoilt: [Spoil; 5] = [
        |request| request.mac[0] ^= 1,
        |request| request.payload[5] ^= 1,
        |request| request.ksn[11] ^= 2,
        |request| request.ksn[7] ^= 1,
        |request| request.ksn[0] ^= 1,
    ];
    for (number, spoil) in spoilt.iter().enumerate() {
        let mut spoilt = request.clone();
        spoil(&mut spoilt);
        let refusal = service.send_update(&spoilt).await.unwrap_err();
        assert_eq!((refusal.reason.as_str(), refusal.metadata.len()), ("ACTIVATION_REFUSED", 0));
        assert!(service.get("till").await == before, "{number}");
    }
    // What is MACed for another step is not an Update, and the other way round.
    let refusal = service.send_parameters(&request).await.unwrap_err();
    assert!(["ACTIVATION_REFUSED", "FIELD_INVALID"].contains(&refusal.reason.as_str()));
    let mut hand = Hand::with_parameters(&service, "hand", AES).await;
    let keys = hand.next_keys();
    let payload = Update { nonce: [9; 32] }.encode();
    let request_of = |step| hand.exchange(&keys, step, payload.clone());
    let refusal = service.send_update(&request_of(Step::Parameters)).await.unwrap_err();
    assert_eq!(refusal.reason, "ACTIVATION_REFUSED");
    let refusal = service.send_update(&request_of(Step::Update)).await.unwrap_err();
    assert_eq!(refusal.reason, "TERMINAL_ALREADY_ACTIVATED", "nobody started a re-key");
    assert_eq!(told(&refusal, "state"), State::ParametersDelivered.as_str());
    service.send_update(&request).await.expect("its counter is still good");
}

#[tokio::test]
async fn fields_are_bounded() {
    let service = Service::start().await;
    let mut till = rekeying(&service, "till").await;
    let request = till.terminal.request_update(&service.rng).unwrap();
    let field = |refusal: &Refusal| (refusal.reason.clone(), refusal.fields[0].0.clone());
    let invalid = |path: &str| ("FIELD_INVALID".to_owned(), path.to_owned());
    for (payload, path) in [
        (Vec::new(), "payload"),
        (vec![0; 4_097], "payload"),
        (vec![0xFF; 3], "payload"),
        (vec![0x0A, 31].into_iter().chain([1; 31]).collect(), "payload.nonce"),
        (vec![0x0A, 33].into_iter().chain([1; 33]).collect(), "payload.nonce"),
        (vec![0x10, 1], "payload.nonce"),
    ] {
        let spoilt = TransactionRequest { payload, ..request.clone() };
        assert_eq!(field(&service.send_update(&spoilt).await.unwrap_err()), invalid(path));
    }
    for len_bytes in [0, 8, 15, 17] {
        let spoilt = TransactionRequest { mac: vec![1; len_bytes], ..request.clone() };
        assert_eq!(field(&service.send_update(&spoilt).await.unwrap_err()), invalid("mac"));
    }
    for ksn in [Vec::new(), vec![1; 11], vec![1; 13], [&request.ksn[..8], &[0; 4]].concat()] {
        let spoilt = TransactionRequest { ksn, ..request.clone() };
        let expected = ("KSN_INVALID".to_owned(), "ksn".to_owned());
        assert_eq!(field(&service.send_update(&spoilt).await.unwrap_err()), expected);
    }
    // A TDES terminal has no update key: neither can it ask, nor is it answered.
    let mut tdes = service.active_till("tdes", Suite::P256Tdes2).await;
    service.start_update("tdes").await;
    assert!(tdes.terminal.request_update(&service.rng).is_err());
    let asked = tdes.terminal.request_parameters(&service.rng).unwrap();
    let refusal = service.send_update(&asked).await.unwrap_err();
    assert!(["KSN_INVALID", "FIELD_INVALID"].contains(&refusal.reason.as_str()), "{refusal}");
}

#[tokio::test]
async fn a_device_that_is_denied_gets_none_at_any_step() {
    let service = Service::start().await;
    for (step, id) in ["till-a", "till-b", "till-c"].into_iter().enumerate() {
        let mut till = rekeying(&service, id).await;
        let deny = async || {
            let request = proto::DenyDeviceRequest {
                request_id: request_id(),
                serial: crate::harness::serial_of(id),
                cause: "stolen".to_owned(),
            };
            answer(service.client.trust().deny_device(request).await);
        };
        let request = till.terminal.request_update(&service.rng).unwrap();
        let refusal = match step {
            0 => {
                deny().await;
                service.send_update(&request).await.unwrap_err()
            }
            1 => {
                service.send_update(&request).await.unwrap();
                deny().await;
                service.send_update(&request).await.unwrap_err()
            }
            _ => {
                let sent = service.send_update(&request).await.unwrap();
                let confirm = load(&mut till, &sent);
                deny().await;
                service.send_confirm(&key_of(&sent).1, &confirm).await.unwrap_err()
            }
        };
        assert_eq!(refusal.reason, "DEVICE_NOT_TRUSTED", "{id}");
        let terminal = service.get(id).await;
        assert_eq!(state_name(&terminal), "REKEYING");
        assert_eq!(terminal.timeline.last().unwrap().reason, "DEVICE_NOT_TRUSTED");
    }
}

#[tokio::test]
async fn keys_out_of_use_neither_prove_nor_give_out() {
    let service = Service::start().await;
    let mut till = rekeying(&service, "till").await;
    let mut other = rekeying(&service, "other").await;
    let request = till.terminal.request_update(&service.rng).unwrap();
    // The key of the keys that serve: nothing can be proven by it.
    set_state(&service, "dev-bdk-aes", proto::KeyState::Suspended).await;
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!((refusal.reason.as_str(), refusal.metadata.len()), ("ACTIVATION_REFUSED", 0));
    set_state(&service, "dev-bdk-aes", proto::KeyState::Active).await;

    // The key of the new ones: told, with the remedy, and the message's counter is spent.
    let attributes = proto::KeyAttributes {
        key_set_id: vec![0xC1, 0xC2, 0xC3, 0xC4],
        device_cap: 1,
        ..proto::KeyAttributes::default()
    };
    let create = proto::CreateKeyRequest {
        request_id: request_id(),
        key_id: "bdk-of-one".to_owned(),
        usage: proto::KeyUsage::BaseDerivation.into(),
        algorithm: proto::KeyAlgorithm::Aes128.into(),
        attributes: Some(attributes),
        ..proto::CreateKeyRequest::default()
    };
    answer(service.client.keys().create_key(create).await);
    service.change_bdk("dev-aes", "bdk-of-one").await;
    set_state(&service, "bdk-of-one", proto::KeyState::Suspended).await;
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::KeyNotActive.as_str());
    assert!(told(&refusal, "remedy").contains("ask the acquirer"), "{refusal}");
    let terminal = service.get("till").await;
    assert_eq!(terminal.timeline.last().unwrap().reason, "KEY_NOT_ACTIVE");
    set_state(&service, "bdk-of-one", proto::KeyState::Active).await;
    assert_eq!(service.send_update(&request).await.unwrap_err().reason, "KSN_REPLAYED");
    till.terminal.abandon_exchange();
    update(&service, &mut till).await;
    till.confirm(&service).await.unwrap();

    // It has one id, and that is given out.
    let request = other.terminal.request_update(&service.rng).unwrap();
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!(refusal.reason, "KSN_EXHAUSTED");
    let terminal = service.get("other").await;
    assert_eq!(terminal.timeline.last().unwrap().reason, "KSN_EXHAUSTED");
    other.terminal.abandon_exchange();
    verify(&service, &other.purchase(&service)).await.expect("the keys that serve go on");
}

#[tokio::test]
async fn a_terminal_with_a_master_key_is_renewed_while_that_key_is_in_use() {
    let service = Service::start().await;
    let mut till = service.active_till("till", Suite::MasterAesAes128).await;
    service.start_update("till").await;
    let terminal = service.get("till").await;
    let master = terminal.master_key.trim_start_matches("keys/").to_owned();
    let request = till.terminal.request_update(&service.rng).unwrap();
    set_state(&service, &master, proto::KeyState::Suspended).await;
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!((refusal.reason.as_str(), refusal.metadata.len()), ("ACTIVATION_REFUSED", 0));
    set_state(&service, &master, proto::KeyState::Active).await;
    let refusal = service.send_update(&request).await.unwrap_err();
    assert_eq!(refusal.reason, "KSN_REPLAYED", "its MAC verified, so its counter is spent");
    let request = ask(&service, &mut till);
    let sent = service.send_update(&request).await.expect("the next counter");
    load(&mut till, &sent);
    till.confirm(&service).await.unwrap();
    assert_ne!(service.get("till").await.initial_key_id, terminal.initial_key_id);
    verify(&service, &till.purchase(&service)).await.unwrap();
}

#[tokio::test]
async fn a_refusal_that_is_told_already_spends_its_counter_too() {
    let service = Service::start().await;
    let mut till = service.active_till("till", AES).await;
    service.must(Call::StartRekey, "till").await;
    for _ in 0..3 {
        let request = ask(&service, &mut till);
        let refusal = service.send_update(&request).await.unwrap_err();
        assert_eq!(refusal.reason, "ACTIVATION_STATE");
        assert_eq!(service.send_update(&request).await.unwrap_err().reason, "KSN_REPLAYED");
    }
    let told = service.get("till").await.timeline;
    assert_eq!(told.iter().filter(|entry| entry.step == "UpdateKeys").count(), 1);
}
