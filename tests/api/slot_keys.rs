//! The static keys of terminals as backends use them: by terminal and slot.

use firstkey::activation::Call;
use firstkey::agreement::Suite;
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto;
use firstkey::key::Algorithm;
use firstkey::key::usage::{Mac, PinEncryption};
use firstkey::mac::{MacAlgorithm, Padding};
use firstkey::pin::{Fill, Pan, Pin, PinBlockFormat, encipher};

use crate::harness::{Service, Till, answer};
use crate::known::{
    Known, OTHER_PAN, PAN, PIN, pin_block, pin_of, random, reason_of, slot_of, stored,
};
use crate::terminal_keys::{Roots, seven};

/// A terminal in service with seven static keys, and a zone key that the test knows.
struct Shop {
    service: Service,
    roots: Roots,
    zone: Known<PinEncryption>,
    till: Till,
}

/// The outcome of a call by its reason.
fn outcome<T>(result: Result<tonic::Response<T>, tonic::Status>) -> String {
    result.map_or_else(|status| reason_of(&status), |_| "OK".to_owned())
}

impl Shop {
    async fn open() -> Self {
        let service = Service::start().await;
        let roots = Roots::import(&service).await;
        let zone = Known::generate(Algorithm::Aes128);
        zone.import(&service, "zone", "P0AB00N").await;
        service.profile("retail", |profile| profile.keys = seven()).await;
        let till = Self::till(&service, "till").await;
        Self { service, roots, zone, till }
    }

    async fn till(service: &Service, id: &str) -> Till {
        let mut till = service.register_under(id, Suite::P256Aes128, "retail").await;
        let code = service.issue_code(id).await;
        till.activate(service, Some(code)).await.unwrap();
        service.enable(id).await.unwrap();
        till
    }

    /// A PIN block as a terminal makes it, under its key in a slot.
    fn typed(&self, till: &Till, slot: u32, format: PinBlockFormat) -> Vec<u8> {
        let key = till.terminal.slot_key::<PinEncryption>(slot).expect("a PIN key");
        let fill = Fill::draw(&self.service.rng).unwrap();
        let (pin, pan) = (Pin::parse(PIN).unwrap(), Pan::parse(PAN).unwrap());
        encipher(&key, format, &pin, &pan, &fill).unwrap().bytes().to_vec()
    }

    fn pin(&self, slot: u32, format: PinBlockFormat) -> proto::TranslatePinRequest {
        let word = match format {
            PinBlockFormat::Iso0 => proto::PinBlockFormat::Iso0,
            PinBlockFormat::Iso1 => proto::PinBlockFormat::Iso1,
            PinBlockFormat::Iso3 => proto::PinBlockFormat::Iso3,
            PinBlockFormat::Iso4 => proto::PinBlockFormat::Iso4,
            PinBlockFormat::Iso2 => panic!("no call takes format 2"),
        };
        proto::TranslatePinRequest {
            source: slot_of("till", slot),
            source_format: word.into(),
            pin_block: self.typed(&self.till, slot, format),
            destination: stored("zone"),
            destination_format: proto::PinBlockFormat::Iso4.into(),
            pan: PAN.to_owned(),
            ..proto::TranslatePinRequest::default()
        }
    }

    async fn translate(&self, request: proto::TranslatePinRequest) -> String {
        outcome(self.service.client.pins().translate_pin(request).await)
    }

    /// A message with the MAC that the terminal makes, under its key in a slot.
    fn mac(&self, slot: u32) -> proto::VerifyMacRequest {
        let (algorithm, word) = match slot {
            2 => (
                MacAlgorithm::Iso9797Alg1(Padding::Method3),
                proto::MacAlgorithm::Iso97971Algorithm1,
            ),
            3 => (
                MacAlgorithm::Iso9797Alg3(Padding::Method3),
                proto::MacAlgorithm::Iso97971Algorithm3,
            ),
            _ => (MacAlgorithm::AesCmac, proto::MacAlgorithm::AesCmac),
        };
        let padding = match slot {
            2 | 3 => proto::PaddingMethod::PaddingMethod3,
            _ => proto::PaddingMethod::Unspecified,
        };
        let key = self.till.terminal.slot_key::<Mac>(slot).expect("a MAC key");
        proto::VerifyMacRequest {
            key: slot_of("till", slot),
            algorithm: word.into(),
            padding: padding.into(),
            message: b"close the batch".to_vec(),
            mac: key.generate_mac(algorithm, b"close the batch", 8).unwrap().bytes().to_vec(),
            ..proto::VerifyMacRequest::default()
        }
    }

    async fn verify(&self, request: proto::VerifyMacRequest) -> String {
        outcome(self.service.client.macs().verify_mac(request).await)
    }

    /// How the keys of the slots 1 and 5 serve.
    async fn both(&self) -> [String; 2] {
        let pin = self.translate(self.pin(1, PinBlockFormat::Iso4)).await;
        [pin, self.verify(self.mac(5)).await]
    }

    async fn key_state(&self, key: &str, state: proto::KeyState) {
        let request = proto::SetKeyStateRequest {
            request_id: request_id(),
            name: format!("keys/{key}"),
            state: state.into(),
            serve_until: None,
        };
        answer(self.service.client.keys().set_key_state(request).await);
    }
}

#[tokio::test]
async fn a_pin_is_translated_from_the_static_key_of_a_terminal() {
    let shop = Shop::open().await;
    let told = shop.service.get("till").await;
    assert!(told.first_transaction_time.is_none());
    for (slot, format) in
        [(1, PinBlockFormat::Iso4), (15, PinBlockFormat::Iso0), (15, PinBlockFormat::Iso3)]
    {
        let request = shop.pin(slot, format);
        let translated = answer(shop.service.client.pins().translate_pin(request).await);
        assert_eq!(pin_of(4, &shop.zone.bytes, &translated.pin_block, PAN), PIN, "slot {slot}");
    }
    let event = shop.service.vault.events_after(0, 1_000).await.unwrap().pop().unwrap();
    assert_eq!((event.action.as_str(), event.is_done()), ("TranslatePin", true));
    assert_eq!(event.resource, "keys/derive-tdes");
    assert_eq!((&*event.detail["terminal"], &*event.detail["slot"]), ("terminals/till", "15"));
    assert!(event.keys.iter().any(|key| key.name == "keys/derive-tdes/versions/1"));
    let told = shop.service.get("till").await;
    assert!(told.first_transaction_time.is_some());
    // The same key by the formula of the proto, and a block by the standard.
    let block = pin_block(4, &shop.roots.derive(&seven()[0], &told.initial_key_id), PIN, PAN);
    let good = || shop.pin(1, PinBlockFormat::Iso4);
    let own = |pin_block| proto::TranslatePinRequest { pin_block, ..good() };
    assert_eq!(shop.translate(own(block)).await, "OK");
    assert_eq!(shop.translate(own(random(16))).await, "PIN_BLOCK_REJECTED");
    // What is allowed is what a static key is usually allowed.
    let format_1 = proto::PinBlockFormat::Iso1.into();
    let loose = proto::TranslatePinRequest {
        source_format: format_1,
        ..shop.pin(15, PinBlockFormat::Iso3)
    };
    assert_eq!(shop.translate(loose).await, "TRANSLATION_FORBIDDEN");
}

#[tokio::test]
async fn macs_are_verified_and_made_under_the_static_keys_of_a_terminal() {
    let shop = Shop::open().await;
    for slot in [2, 3, 5] {
        let good = || shop.mac(slot);
        assert_eq!(shop.verify(good()).await, "OK", "slot {slot}");
        let forged = proto::VerifyMacRequest { message: b"close".to_vec(), ..good() };
        assert_eq!(shop.verify(forged).await, "MAC_MISMATCH");
        let short = proto::VerifyMacRequest { mac: good().mac[..4].to_vec(), ..good() };
        assert_eq!(shop.verify(short).await, "KEY_USAGE_MISMATCH");
        let directed = proto::Direction::Request.into();
        let directed = proto::VerifyMacRequest { direction: directed, ..good() };
        assert_eq!(shop.verify(directed).await, "FIELD_INVALID");
        let request = good();
        let request = proto::GenerateMacRequest {
            key: request.key,
            algorithm: request.algorithm,
            padding: request.padding,
            message: request.message,
            mac_length_bytes: 8,
            ..proto::GenerateMacRequest::default()
        };
        let made = answer(shop.service.client.macs().generate_mac(request).await);
        assert_eq!(made.mac, good().mac);
    }
    assert!(shop.service.get("till").await.first_transaction_time.is_some());
    let cmac = proto::MacAlgorithm::TdesCmac.into();
    let other = proto::VerifyMacRequest { algorithm: cmac, padding: 0, ..shop.mac(3) };
    assert_eq!(shop.verify(other).await, "KEY_USAGE_MISMATCH", "M3 does no CMAC");
    let (mac, pin) = (shop.mac(5), shop.pin(15, PinBlockFormat::Iso3));
    let message = || crate::switch::both(mac.clone(), pin.clone());
    let served = shop.service.client.pins().verify_mac_and_translate_pin(message()).await;
    assert_eq!(pin_of(4, &shop.zone.bytes, &answer(served).pin_block, PAN), PIN);
    let event = shop.service.vault.events_after(0, 1_000).await.unwrap().pop().unwrap();
    assert_eq!((&*event.detail["slot"], &*event.detail["slot_pin"]), ("5", "15"));
    // The MAC of one terminal and the PIN of another.
    let other = Shop::till(&shop.service, "other").await;
    let key = other.terminal.slot_key::<Mac>(5).unwrap();
    let theirs = key.generate_mac(MacAlgorithm::AesCmac, &mac.message, 8).unwrap();
    let mixed = proto::VerifyMacAndTranslatePinRequest {
        mac_key: slot_of("other", 5),
        mac: theirs.bytes().to_vec(),
        ..message()
    };
    let mixed = shop.service.client.pins().verify_mac_and_translate_pin(mixed).await;
    assert_eq!(outcome(mixed), "TERMINAL_NOT_FOUND");
}

#[tokio::test]
async fn a_static_key_of_a_terminal_serves_as_what_it_is_alone() {
    let shop = Shop::open().await;
    let good = || shop.pin(1, PinBlockFormat::Iso4);
    let from = |key| proto::TranslatePinRequest { source: key, ..good() };
    for (reason, terminal, slot) in [
        ("KEY_USAGE_MISMATCH", "till", 5),
        ("KEY_USAGE_MISMATCH", "till", 8),
        ("KEY_USAGE_MISMATCH", "till", 14),
        ("KEY_USAGE_MISMATCH", "till", 15),
        ("KEY_NOT_FOUND", "till", 4),
        ("TERMINAL_NOT_FOUND", "nobody", 1),
        ("FIELD_INVALID", "till", 0),
        ("FIELD_INVALID", "till", 16),
    ] {
        let asked = from(slot_of(terminal, slot));
        assert_eq!(shop.translate(asked).await, reason, "{terminal}, slot {slot}");
    }
    for (reason, slot) in [
        ("KEY_USAGE_MISMATCH", 1),
        ("KEY_USAGE_MISMATCH", 8),
        ("KEY_USAGE_MISMATCH", 14),
        ("KEY_NOT_FOUND", 4),
    ] {
        let asked = proto::VerifyMacRequest { key: slot_of("till", slot), ..shop.mac(5) };
        assert_eq!(shop.verify(asked).await, reason, "slot {slot}");
    }
    // To make a PIN block is the terminal's part.
    let back = proto::TranslatePinRequest { destination: slot_of("till", 1), ..good() };
    assert_eq!(shop.translate(back).await, "KEY_USAGE_MISMATCH");
    let named = |terminal: &str| proto::TranslatePinRequest {
        terminal: format!("terminals/{terminal}"),
        ..good()
    };
    assert_eq!(shop.translate(named("till")).await, "OK");
    let other = Shop::till(&shop.service, "other").await;
    assert_eq!(shop.translate(named("other")).await, "TERMINAL_NOT_FOUND");
    // Another terminal has another key in that slot.
    assert_eq!(shop.translate(from(slot_of("other", 1))).await, "PIN_BLOCK_REJECTED");
    let theirs = shop.typed(&other, 1, PinBlockFormat::Iso4);
    let theirs = proto::TranslatePinRequest { pin_block: theirs, ..from(slot_of("other", 1)) };
    assert_eq!(shop.translate(theirs).await, "OK");
}

#[tokio::test]
async fn static_keys_serve_a_terminal_in_service_until_others_are_confirmed() {
    let mut shop = Shop::open().await;
    assert_eq!(shop.both().await, ["OK"; 2]);
    shop.service.must(Call::SuspendTerminal, "till").await;
    assert_eq!(shop.both().await, ["TERMINAL_NOT_ACTIVE"; 2]);
    shop.service.must(Call::ResumeTerminal, "till").await;
    assert_eq!(shop.both().await, ["OK"; 2]);
    let old = (shop.pin(1, PinBlockFormat::Iso4), shop.mac(5));
    shop.service.must(Call::StartRekey, "till").await;
    assert_eq!(shop.both().await, ["OK"; 2], "until then the old ones");
    shop.till.take_keys(&shop.service, None).await.unwrap();
    assert_eq!(shop.both().await, ["OK"; 2], "the new ones at once");
    assert_eq!(shop.translate(old.0).await, "PIN_BLOCK_REJECTED");
    assert_eq!(shop.verify(old.1).await, "MAC_MISMATCH");
}

#[tokio::test]
async fn a_derivation_key_out_of_use_serves_no_terminal() {
    let shop = Shop::open().await;
    for (state, expected) in [
        (proto::KeyState::Suspended, "KEY_NOT_ACTIVE"),
        (proto::KeyState::Active, "OK"),
        (proto::KeyState::Compromised, "KEY_NOT_ACTIVE"),
    ] {
        shop.key_state("derive-aes", state).await;
        assert_eq!(shop.both().await, [expected; 2]);
        let other = shop.translate(shop.pin(15, PinBlockFormat::Iso3)).await;
        assert_eq!(other, "OK", "from another key");
    }
}

#[tokio::test]
async fn failures_under_the_static_key_of_a_terminal_close_that_terminal_alone() {
    let shop = Shop::open().await;
    let other = Shop::till(&shop.service, "other").await;
    let guessed = |pan: &str| proto::TranslatePinRequest {
        pin_block: random(16),
        pan: pan.to_owned(),
        ..shop.pin(1, PinBlockFormat::Iso4)
    };
    for _ in 0..3 {
        assert_eq!(shop.translate(guessed(PAN)).await, "PIN_BLOCK_REJECTED");
    }
    assert_eq!(shop.translate(guessed(PAN)).await, "BUDGET_SPENT");
    let theirs = proto::TranslatePinRequest {
        source: slot_of("other", 1),
        pin_block: shop.typed(&other, 1, PinBlockFormat::Iso4),
        ..guessed(PAN)
    };
    assert_eq!(shop.translate(theirs).await, "OK", "the same card at another terminal");
    assert_eq!(shop.translate(guessed(OTHER_PAN)).await, "PIN_BLOCK_REJECTED");
}
