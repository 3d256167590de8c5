//! `VerifyMacAndTranslatePin`: what a switch does with one message, the MAC first, in one commit.

use firstkey::agreement::Suite;
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{
    Direction, KeyAttributes, MacAlgorithm as Word, PinBlockFormat, SuspendTerminalRequest,
    TranslatePinRequest, VerifyMacAndTranslatePinRequest as Message, VerifyMacRequest,
};
use firstkey::key::Algorithm;
use firstkey::key::Key;
use firstkey::key::usage::{Mac, MacBoth, MacGeneration, MacUsage, PinEncryption};
use firstkey::mac::MacAlgorithm;
use firstkey::server::simulation::{translate_request, verify_request};
use firstkey::vault::Event;
use tonic::Status;

use crate::harness::{self, CARD_PIN, MINUTE, Service};
use crate::known::{
    InjectedAes, InjectedTdes, Known, OTHER_PAN, PAN, PIN, dukpt, expect_field, expect_path,
    expect_reason, pin_of, random, reason_of, status_of, stored,
};

const SET: [u8; 4] = [0xE1, 0xE2, 0xE3, 0xE4];
const TDES_SET: [u8; 5] = [0xFF, 0xFF, 0xE1, 0xE2, 0xE3];
const MESSAGE: &[u8] = b"purchase of 12.50 with a PIN";

async fn call(service: &Service, request: &Message) -> Result<Vec<u8>, Status> {
    let answer = service.client.pins().verify_mac_and_translate_pin(request.clone()).await?;
    Ok(answer.into_inner().pin_block)
}

/// One message of the parts that the two single calls have.
pub(crate) fn both(mac: VerifyMacRequest, pin: TranslatePinRequest) -> Message {
    Message {
        mac_key: mac.key,
        direction: mac.direction,
        algorithm: mac.algorithm,
        padding: mac.padding,
        message: mac.message,
        mac: mac.mac,
        source: pin.source,
        source_format: pin.source_format,
        pin_block: pin.pin_block,
        destination: pin.destination,
        destination_format: pin.destination_format,
        pan: pin.pan,
        pan_form: pin.pan_form,
        terminal: pin.terminal,
    }
}

fn mac_part(request: &Message) -> VerifyMacRequest {
    let request = request.clone();
    VerifyMacRequest {
        key: request.mac_key,
        direction: request.direction,
        algorithm: request.algorithm,
        padding: request.padding,
        message: request.message,
        mac: request.mac,
        terminal: request.terminal,
    }
}

fn pin_part(request: &Message) -> TranslatePinRequest {
    let request = request.clone();
    TranslatePinRequest {
        source: request.source,
        source_format: request.source_format,
        pin_block: request.pin_block,
        destination: request.destination,
        destination_format: request.destination_format,
        pan: request.pan,
        pan_form: request.pan_form,
        terminal: request.terminal,
    }
}

fn mac_of<U: MacUsage>(key: &Key<U>, algorithm: MacAlgorithm, message: &[u8]) -> Vec<u8> {
    key.generate_mac(algorithm, message, 8).unwrap().bytes().to_vec()
}

/// A service with a zone key, and a terminal that was injected elsewhere.
struct Switch {
    service: Service,
    zone: Known<PinEncryption>,
    terminal: InjectedAes,
}

impl Switch {
    async fn new() -> Self {
        let service = Service::start().await;
        let zone = Known::generate(Algorithm::Aes128);
        zone.import(&service, "zone", "P0AB00N").await;
        let terminal = InjectedAes::below(&service, "bdk", SET).await;
        Self { service, zone, terminal }
    }

    /// A message under one KSN.
    fn message(&self, counter: u32, message: &[u8]) -> Message {
        let key = self.terminal.key::<MacGeneration>(counter);
        let ksn = self.terminal.ksn(counter);
        Message {
            mac_key: dukpt(ksn.bytes()),
            direction: Direction::Request.into(),
            algorithm: Word::AesCmac.into(),
            message: message.to_vec(),
            mac: mac_of(&key, MacAlgorithm::AesCmac, message),
            source: dukpt(ksn.bytes()),
            source_format: PinBlockFormat::Iso4.into(),
            pin_block: self.terminal.pin_block(counter, PIN, PAN),
            destination: stored("zone"),
            destination_format: PinBlockFormat::Iso4.into(),
            pan: PAN.to_owned(),
            ..Message::default()
        }
    }

    async fn serve(&self, request: &Message) {
        let block = call(&self.service, request).await.expect("a genuine message");
        assert_eq!(pin_of(4, &self.zone.bytes, &block, PAN), PIN);
    }

    async fn refuse(&self, request: &Message, reason: &str) {
        assert_eq!(reason_of(&status_of(call(&self.service, request).await)), reason);
    }

    async fn events(&self) -> Vec<Event> {
        self.service.vault.events_after(0, 1_000).await.unwrap()
    }

    /// How each part fares as a single call: the reason, or `OK`.
    async fn single(&self, request: &Message) -> [String; 2] {
        let mac = self.service.client.macs().verify_mac(mac_part(request)).await;
        let pin = self.service.client.pins().translate_pin(pin_part(request)).await;
        let fared = |status: Option<Status>| status.map_or("OK".into(), |one| reason_of(&one));
        [fared(mac.err()), fared(pin.err())]
    }
}

#[tokio::test]
async fn one_call_does_both_in_one_commit_and_again_for_five_minutes() {
    let switch = Switch::new().await;
    let request = switch.message(3, MESSAGE);
    let before = switch.events().await.len();
    switch.serve(&request).await;
    let events = switch.events().await;
    assert_eq!(events.len(), before + 1, "one event");
    let event = events.last().unwrap();
    let ksn = data_encoding::HEXUPPER.encode(switch.terminal.ksn(3).bytes());
    assert_eq!((event.action.as_str(), event.is_done()), ("VerifyMacAndTranslatePin", true));
    assert_eq!((&event.detail["ksn"], &event.detail["ksn_pin"]), (&ksn, &ksn));
    let keys: Vec<&str> = event.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(keys, ["keys/zone/versions/1", "keys/bdk/versions/1"]);
    // Both counters are spent, by this message and this PIN block alone.
    let other = Message { pin_block: random(16), ..request.clone() };
    switch.refuse(&other, "KSN_REPLAYED").await;
    assert_eq!(switch.single(&switch.message(3, b"another")).await, ["KSN_REPLAYED"; 2]);
    // The identical call is computed again, and so is either part of it.
    switch.serve(&request).await;
    assert_eq!(switch.single(&request).await, ["OK"; 2]);
    switch.service.clock.advance(5 * MINUTE);
    switch.serve(&request).await;
    switch.service.clock.advance(1);
    switch.refuse(&request, "KSN_REPLAYED").await;
    // What came as two single calls may come as one.
    let request = switch.message(4, MESSAGE);
    assert_eq!(switch.single(&request).await, ["OK"; 2]);
    switch.serve(&request).await;
}

#[tokio::test]
async fn a_forged_message_spends_nothing_and_its_pin_block_is_not_looked_at() {
    let switch = Switch::new().await;
    let genuine = switch.message(1, MESSAGE);
    // More of them than a PAN has rejected blocks.
    for _ in 0..5 {
        let mac = random(8);
        let pin_block = random(16);
        let forged = Message { mac, pin_block, ..genuine.clone() };
        switch.refuse(&forged, "MAC_MISMATCH").await;
        // A right PIN block helps a wrong MAC no more than a wrong one.
        let forged = Message { message: random(9), ..genuine.clone() };
        switch.refuse(&forged, "MAC_MISMATCH").await;
    }
    switch.serve(&genuine).await;
}

#[tokio::test]
async fn a_rejected_block_spends_both_counters_and_the_budget_of_its_pan() {
    let switch = Switch::new().await;
    for counter in 1..=3 {
        let good = switch.message(counter, MESSAGE);
        let wrong = Message { pin_block: random(16), ..good.clone() };
        if counter == 2 {
            // That the MAC was verified before does not make the block a repetition.
            switch.service.client.macs().verify_mac(mac_part(&wrong)).await.unwrap();
        }
        switch.refuse(&wrong, "PIN_BLOCK_REJECTED").await;
        if counter == 1 {
            // The same again is as wrong as before, and no second failure.
            switch.refuse(&wrong, "PIN_BLOCK_REJECTED").await;
        }
        let event = switch.events().await.pop().unwrap();
        assert_eq!(event.reason.as_deref(), Some("PIN_BLOCK_REJECTED"));
        // The message was genuine, so it is the one that has the MAC's counter.
        assert_eq!(switch.single(&good).await, ["OK", "KSN_REPLAYED"]);
        let second = switch.message(counter, b"another");
        assert_eq!(switch.single(&second).await, ["KSN_REPLAYED"; 2]);
    }
    let fourth = switch.message(4, MESSAGE);
    switch.refuse(&fourth, "BUDGET_SPENT").await;
    // A closed budget spends no counter.
    assert_eq!(switch.single(&fourth).await, ["OK", "BUDGET_SPENT"]);
    let pin_block = switch.terminal.pin_block(4, PIN, OTHER_PAN);
    let pan = OTHER_PAN.to_owned();
    let other = Message { pan, pin_block, ..fourth };
    call(&switch.service, &other).await.expect("another card is not closed");
}

#[tokio::test]
async fn what_is_forbidden_spends_nothing_though_the_mac_is_right() {
    let switch = Switch::new().await;
    let good = switch.message(1, MESSAGE);
    let of = |destination: &str, format: PinBlockFormat| Message {
        destination: stored(destination),
        destination_format: format.into(),
        ..good.clone()
    };
    for (request, reason) in [
        (of("zone", PinBlockFormat::Iso1), "TRANSLATION_FORBIDDEN"),
        (of("zone", PinBlockFormat::Iso3), "KEY_USAGE_MISMATCH"),
        (of("bdk", PinBlockFormat::Iso4), "KEY_USAGE_MISMATCH"),
        (of("nobody", PinBlockFormat::Iso4), "KEY_NOT_FOUND"),
    ] {
        switch.refuse(&request, reason).await;
    }
    let mac_key = stored("zone");
    let direction = Direction::Unspecified.into();
    let request = Message { mac_key, direction, ..good.clone() };
    switch.refuse(&request, "KEY_USAGE_MISMATCH").await;
    // A PIN block under a counter that another one has: the MAC's counter stays free.
    let pin_block = switch.terminal.pin_block(1, "9876", PAN);
    let first = TranslatePinRequest { pin_block, ..pin_part(&good) };
    switch.service.client.pins().translate_pin(first).await.unwrap();
    switch.refuse(&good, "KSN_REPLAYED").await;
    assert_eq!(switch.single(&switch.message(1, b"another")).await[0], "OK");
    switch.serve(&switch.message(2, MESSAGE)).await;
}

#[tokio::test]
async fn a_second_message_under_a_counter_raises_the_clone_alarm() {
    let switch = Switch::new().await;
    switch.serve(&switch.message(1, MESSAGE)).await;
    switch.refuse(&switch.message(1, b"of a clone"), "KSN_REPLAYED").await;
    let event = switch.events().await.pop().unwrap();
    assert_eq!(event.detail["clone_alarm"], "true");
    assert_eq!(event.action, "VerifyMacAndTranslatePin");
    switch.serve(&switch.message(2, MESSAGE)).await;
}

#[tokio::test]
async fn the_mac_may_be_under_another_key_than_the_pin_block() {
    let switch = Switch::new().await;
    // A static key, as between hosts.
    let known = Known::<Mac>::generate(Algorithm::Aes128);
    known.import(&switch.service, "mac", "M6AC00N").await;
    let request = Message {
        mac_key: stored("mac"),
        direction: Direction::Unspecified.into(),
        mac: mac_of(&known.key, MacAlgorithm::AesCmac, MESSAGE),
        ..switch.message(1, MESSAGE)
    };
    switch.serve(&request).await;
    // Another counter of the same terminal, and one key for both ways.
    let key = switch.terminal.key::<MacBoth>(3);
    let request = Message {
        mac_key: dukpt(switch.terminal.ksn(3).bytes()),
        direction: Direction::Both.into(),
        mac: mac_of(&key, MacAlgorithm::AesCmac, MESSAGE),
        ..switch.message(2, MESSAGE)
    };
    switch.serve(&request).await;
    let event = switch.events().await.pop().unwrap();
    assert!(event.detail["ksn"].ends_with("03") && event.detail["ksn_pin"].ends_with("02"));
    // TDES, its PIN block going out under AES.
    let tdes = InjectedTdes::below(&switch.service, "bdk-tdes", TDES_SET).await;
    let key = tdes.key::<MacGeneration>(1);
    let request = Message {
        mac_key: dukpt(tdes.ksn(1).bytes()),
        algorithm: Word::TdesCmac.into(),
        mac: mac_of(&key, MacAlgorithm::TdesCmac, MESSAGE),
        source: dukpt(&tdes.ksn(1).bytes()[2..]),
        source_format: PinBlockFormat::Iso3.into(),
        pin_block: tdes.pin_block(1, PIN, PAN),
        ..switch.message(9, MESSAGE)
    };
    switch.serve(&request).await;
}

#[tokio::test]
async fn guesses_at_a_short_mac_are_charged_and_rejected_pin_blocks_are_none() {
    let switch = Switch::new().await;
    let short = KeyAttributes { mac_length_min_bytes: 4, ..KeyAttributes::default() };
    let known = Known::<Mac>::generate(Algorithm::Aes128);
    known.import_with(&switch.service, "short", "M6AC00N", short).await;
    let mac = mac_of(&known.key, MacAlgorithm::AesCmac, MESSAGE)[..4].to_vec();
    let pan = |number: u32| format!("49{number:013}7");
    let of = |counter: u32| Message {
        mac_key: stored("short"),
        direction: Direction::Unspecified.into(),
        mac: mac.clone(),
        pin_block: random(16),
        pan: pan(counter),
        ..switch.message(counter, MESSAGE)
    };
    for counter in 1..=50 {
        switch.refuse(&of(counter), "PIN_BLOCK_REJECTED").await;
    }
    let mut wrong = mac.clone();
    wrong[0] ^= 1;
    for _ in 0..100 {
        let guess = Message { mac: wrong.clone(), ..of(51) };
        switch.refuse(&guess, "MAC_MISMATCH").await;
    }
    switch.refuse(&of(51), "BUDGET_SPENT").await;
}

#[tokio::test]
async fn a_registered_terminal_is_served_while_it_is_in_service_and_for_itself() {
    let switch = Switch::new().await;
    let service = &switch.service;
    let mut till = service.active_till("till-1", Suite::P256Aes128).await;
    let mut other = service.active_till("till-2", Suite::P256Tdes2).await;
    let of = |payment: &firstkey::terminal::Payment| {
        let pin_block = payment.pin_block.bytes().to_vec();
        let pin = translate_request(payment, pin_block);
        both(verify_request(payment), TranslatePinRequest { destination: stored("zone"), ..pin })
    };
    let payment = till.purchase(service);
    let block = call(service, &of(&payment)).await.unwrap();
    assert_eq!(pin_of(4, &switch.zone.bytes, &block, harness::CARD_PAN), CARD_PIN);
    let found = service.get("till-1").await;
    assert!(found.first_transaction_time.is_some());
    let entry = found.timeline.last().unwrap();
    assert_eq!(
        (entry.step.as_str(), entry.note.as_str()),
        ("FirstTransaction", "VerifyMacAndTranslatePin")
    );
    // The MAC of one terminal does not go with the PIN block of another.
    let (mine, its) = (of(&till.purchase(service)), of(&other.purchase(service)));
    let mixed = both(mac_part(&mine), pin_part(&its));
    expect_reason(&status_of(call(service, &mixed).await), "TERMINAL_NOT_FOUND");
    for (terminal, expected) in
        [("terminals/till-2", Some("TERMINAL_NOT_FOUND")), ("terminals/till-1", None)]
    {
        let named = Message { terminal: terminal.into(), ..mine.clone() };
        let refused = call(service, &named).await.err();
        assert_eq!(refused.as_ref().map(reason_of).as_deref(), expected);
    }
    call(service, &its).await.expect("nothing was spent");
    let request = SuspendTerminalRequest {
        request_id: request_id(),
        name: "terminals/till-1".into(),
        cause: "a test".into(),
    };
    service.client.terminals().suspend_terminal(request).await.unwrap();
    expect_reason(&status_of(call(service, &mine).await), "TERMINAL_NOT_ACTIVE");
}

#[tokio::test]
async fn a_mac_vouches_for_the_pin_block_of_its_own_sender_alone() {
    let switch = Switch::new().await;
    let service = &switch.service;
    let mut till = service.active_till("till-1", Suite::P256Aes128).await;
    let payment = till.purchase(service);
    let pin = translate_request(&payment, payment.pin_block.bytes().to_vec());
    let pin = TranslatePinRequest { destination: stored("zone"), ..pin };
    let registered = both(verify_request(&payment), pin);
    let stranger = switch.message(1, MESSAGE);
    let other = InjectedAes::below(service, "bdk-other", [0xE5; 4]).await;
    let key = other.key::<MacGeneration>(1);
    let another = Message {
        mac_key: dukpt(other.ksn(1).bytes()),
        mac: mac_of(&key, MacAlgorithm::AesCmac, MESSAGE),
        source: dukpt(other.ksn(1).bytes()),
        pin_block: other.pin_block(1, PIN, PAN),
        ..stranger.clone()
    };
    for (maker, typist) in [
        (&stranger, &registered),
        (&registered, &stranger),
        (&stranger, &another),
        (&another, &stranger),
    ] {
        let mixed = both(
            mac_part(maker),
            TranslatePinRequest { terminal: String::new(), ..pin_part(typist) },
        );
        switch.refuse(&mixed, "TERMINAL_NOT_FOUND").await;
    }
    for own in [&stranger, &registered, &another] {
        call(service, own).await.expect("nothing was spent");
    }
}

#[tokio::test]
async fn each_field_is_bounded_and_named() {
    let switch = Switch::new().await;
    let good = switch.message(1, MESSAGE);
    let mut cases: Vec<(&str, Message)> = Vec::new();
    let mut case = |path: &'static str, change: &dyn Fn(&mut Message)| {
        let mut request = good.clone();
        change(&mut request);
        cases.push((path, request));
    };
    case("mac_key", &|request| request.mac_key = None);
    case("mac_key.static_key", &|request| request.mac_key = stored(""));
    case("direction", &|request| request.direction = 0);
    case("direction", &|request| request.direction = Direction::Response.into());
    case("algorithm", &|request| request.algorithm = 0);
    case("padding", &|request| request.padding = 1);
    case("message", &|request| request.message.clear());
    case("mac", &|request| request.mac = vec![0; 3]);
    case("mac", &|request| request.mac = vec![0; 17]);
    case("source", &|request| request.source = None);
    case("source_format", &|request| request.source_format = 0);
    case("pin_block", &|request| request.pin_block = vec![0; 8]);
    case("destination", &|request| request.destination = None);
    case("destination_format", &|request| request.destination_format = 9);
    case("pan", &|request| request.pan = "4111".into());
    case("pan_form", &|request| request.pan_form = 3);
    case("terminal", &|request| request.terminal = "till".into());
    for (path, request) in cases {
        expect_field(&status_of(call(&switch.service, &request).await), path);
    }
    let request = Message { mac_key: dukpt(&[1; 11]), ..good.clone() };
    let refused = status_of(call(&switch.service, &request).await);
    expect_path(&refused, "KSN_INVALID", "mac_key.dukpt.ksn");
    switch.serve(&good).await;
}
