//! `PinService`: one look per counter, one PAN, one table of formats, one answer to whatever is
//! wrong.

use std::time::Duration;

use data_encoding::HEXUPPER;
use firstkey::agreement::Suite;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{
    KeyAlgorithm, KeyAttributes, PinBlockFormat as Word, SuspendTerminalRequest,
    TranslatePinRequest, WorkingKey, working_key::Key as Which,
};
use firstkey::key::Algorithm;
use firstkey::key::usage::PinEncryption;
use firstkey::pin::{EncryptedPinBlock, Fill, Pan, PanForm, PinBlockFormat, Translation};
use firstkey::server::simulation::translate_request;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::{self, CARD_PIN, HOUR, MINUTE, Service, everybody};
use crate::known::{
    InjectedAes, InjectedTdes, Known, OTHER_PAN, PAN, PIN, dukpt, dukpt_of, encipher, expect_field,
    expect_path, expect_reason, pin_block, pin_field, pin_of, random, status_of, stored,
};

const SET: [u8; 4] = [0xA1, 0xA2, 0xA3, 0xA4];
const TDES_SET: [u8; 5] = [0xFF, 0xFF, 0xA1, 0xA2, 0xA3];

/// A service with a zone key that the test knows, `keys/zone`, of AES.
async fn service_and_zone() -> (Service, Known<PinEncryption>) {
    let service = Service::start().await;
    let zone = Known::generate(Algorithm::Aes128);
    zone.import(&service, "zone", "P0AB00N").await;
    (service, zone)
}

/// From a terminal's PIN block of format 4 to the zone key.
fn from_terminal(ksn: &[u8], pin_block: Vec<u8>) -> TranslatePinRequest {
    TranslatePinRequest {
        source: dukpt(ksn),
        source_format: Word::Iso4.into(),
        pin_block,
        destination: stored("zone"),
        destination_format: Word::Iso4.into(),
        pan: PAN.to_owned(),
        ..TranslatePinRequest::default()
    }
}

async fn translate(service: &Service, request: TranslatePinRequest) -> Result<Vec<u8>, Status> {
    Ok(service.client.pins().translate_pin(request).await?.into_inner().pin_block)
}

/// A PAN of its own for each number, so that no budget is shared.
fn pan(number: usize) -> String {
    format!("49{number:013}7")
}

#[tokio::test]
async fn each_field_is_bounded_and_named() {
    let (service, zone) = service_and_zone().await;
    let good = || TranslatePinRequest {
        source: stored("zone"),
        ..from_terminal(&[], pin_block(4, &zone.bytes, PIN, PAN))
    };
    translate(&service, good()).await.expect("the request has nothing wrong in it");
    let source = |key| TranslatePinRequest { source: key, ..good() };
    let destination = |key| TranslatePinRequest { destination: key, ..good() };
    let of_pan = |pan: &str| TranslatePinRequest { pan: pan.to_owned(), ..good() };
    let block = |len: usize| TranslatePinRequest { pin_block: vec![0; len], ..good() };
    let named = |name: &str| Some(WorkingKey { key: Some(Which::StaticKey(name.to_owned())) });
    let iso_0 = Word::Iso0.into();
    let terminal = |name: &str| TranslatePinRequest { terminal: name.to_owned(), ..good() };
    let of_kind = |algorithm: i32| {
        let mut key = dukpt(&[SET.as_slice(), &[0, 0, 0, 7, 0, 0, 0, 1]].concat()).unwrap();
        if let Some(Which::Dukpt(dukpt)) = &mut key.key {
            dukpt.algorithm = algorithm;
        }
        source(Some(key))
    };
    for (path, request) in [
        ("source_format", TranslatePinRequest::default()),
        ("source", source(None)),
        ("source", source(Some(WorkingKey { key: None }))),
        ("source.static_key", source(named("zone"))),
        ("source.static_key", source(named(""))),
        ("source.static_key", source(named("keys/ZONE"))),
        ("destination", destination(None)),
        ("destination", destination(Some(WorkingKey { key: None }))),
        ("destination.static_key", destination(named("terminals/zone"))),
        ("source.dukpt.base_derivation_key", source(dukpt_of("bdk", &[1; 12]))),
        ("source.dukpt.algorithm", of_kind(KeyAlgorithm::Hmac384.into())),
        ("source.dukpt.algorithm", of_kind(11)),
        ("source_format", TranslatePinRequest { source_format: 0, ..good() }),
        ("source_format", TranslatePinRequest { source_format: 5, ..good() }),
        ("destination_format", TranslatePinRequest { destination_format: 0, ..good() }),
        ("destination_format", TranslatePinRequest { destination_format: -1, ..good() }),
        ("pin_block", block(0)),
        ("pin_block", block(7)),
        ("pin_block", block(8)),
        ("pin_block", block(15)),
        ("pin_block", block(17)),
        ("pin_block", TranslatePinRequest { source_format: iso_0, ..block(16) }),
        ("pan", of_pan("")),
        ("pan", of_pan("41111111111")),
        ("pan", of_pan("41111111111111111111")),
        ("pan", of_pan("4111-1111-1111-1111")),
        ("pan", of_pan("411111111111111A")),
        ("pan", of_pan("\u{664}111111111111111")),
        ("pan_form", TranslatePinRequest { pan_form: 3, ..good() }),
        ("terminal", terminal("till")),
        ("terminal", terminal("terminals/")),
    ] {
        expect_field(&status_of(translate(&service, request).await), path);
    }
}

#[tokio::test]
async fn a_ksn_is_valid_by_its_length_its_counter_and_its_weight() {
    let (service, _) = service_and_zone().await;
    let aes = |counter: u32| [SET.as_slice(), &[0, 0, 0, 7], &counter.to_be_bytes()].concat();
    let tdes = |counter: u32| {
        let [_, high, middle, low] = counter.to_be_bytes();
        [TDES_SET.as_slice(), &[0, 0xE0, high, middle, low]].concat()
    };
    let mut bad: Vec<Vec<u8>> =
        [0, 1, 7, 11, 13, 16, 1_000].into_iter().map(|len| vec![1; len]).collect();
    bad.extend([aes(0), aes(0x1_FFFF), aes(0xFFFF_0001), aes(u32::MAX)]);
    bad.extend([tdes(0), tdes(0x7FF), tdes(0x1F_FFFF), tdes(0x15_5555)]);
    bad.extend([tdes(0)[1..].to_vec(), tdes(0)[2..].to_vec(), tdes(0x7FF)[2..].to_vec()]);
    for ksn in bad {
        let shown = HEXUPPER.encode(&ksn);
        let request = from_terminal(&ksn, vec![0; 16]);
        let inbound = status_of(translate(&service, request).await);
        expect_path(&inbound, "KSN_INVALID", "source.dukpt.ksn");
        let request = TranslatePinRequest {
            source: stored("zone"),
            destination: dukpt(&ksn),
            ..from_terminal(&[], vec![0; 16])
        };
        let outbound = status_of(translate(&service, request).await);
        expect_path(&outbound, "KSN_INVALID", "destination.dukpt.ksn");
        assert_eq!(inbound.message(), outbound.message(), "{shown}");
    }
    // Sixteen and ten one bits are still valid: nobody has these key sets, that is all.
    for ksn in [aes(0xFFFF), aes(1), tdes(0x3FF), tdes(1), tdes(1)[1..].to_vec()] {
        let request = from_terminal(&ksn, vec![0; 16]);
        expect_reason(&status_of(translate(&service, request).await), "KEY_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_short_tdes_ksn_is_the_same_counter_as_the_filled_one() {
    let (service, zone) = service_and_zone().await;
    let terminal = InjectedTdes::below(&service, "bdk-tdes", TDES_SET).await;
    let block = terminal.pin_block(3, PIN, PAN);
    let whole = terminal.ksn(3);
    for ksn in [&whole.bytes()[2..], &whole.bytes()[1..], &whole.bytes()[..]] {
        let request = TranslatePinRequest {
            source_format: Word::Iso3.into(),
            ..from_terminal(ksn, block.clone())
        };
        let translated = translate(&service, request).await.expect("the same call again");
        assert_eq!(pin_of(4, &zone.bytes, &translated, PAN), PIN);
        let request = TranslatePinRequest {
            source_format: Word::Iso3.into(),
            ..from_terminal(ksn, random(8))
        };
        expect_reason(&status_of(translate(&service, request).await), "KSN_REPLAYED");
    }
}

/// PCI PIN 3-3 as the requirements narrow it: rows from, columns to, for formats 0, 1, 3, 4.
/// s: the same PAN, a: only where the key's attribute lists format 1, n: never.
const MATRIX: [(u8, &str); 4] = [(0, "snss"), (1, "anaa"), (3, "snss"), (4, "snss")];

fn word(format: u8) -> i32 {
    match format {
        0 => Word::Iso0.into(),
        1 => Word::Iso1.into(),
        3 => Word::Iso3.into(),
        _ => Word::Iso4.into(),
    }
}

#[tokio::test]
async fn the_table_of_translations_is_that_of_the_requirements() {
    let service = Service::start().await;
    let (iso_0, iso_1, iso_3): (i32, i32, i32) = (word(0), word(1), word(3));
    let tdes = Known::<PinEncryption>::generate(Algorithm::Tdes2);
    let aes = Known::<PinEncryption>::generate(Algorithm::Aes256);
    let both = KeyAttributes {
        pin_formats_in: vec![iso_0, iso_1, iso_3],
        pin_formats_out: vec![iso_0, iso_3],
        ..KeyAttributes::default()
    };
    let without_1 = KeyAttributes { pin_formats_in: vec![iso_0, iso_3], ..both.clone() };
    tdes.import_with(&service, "tdes-with", "P0TB00N", both).await;
    tdes.import_with(&service, "tdes-without", "P0TB00N", without_1).await;
    aes.import(&service, "aes", "P0AB00N").await;
    let mut permitted = 0;
    for (from, row) in MATRIX {
        for (to, cell) in [0, 1, 3, 4].into_iter().zip(row.chars()) {
            for attribute in ["with", "without"] {
                let tdes_id = format!("tdes-{attribute}");
                let side = |format| if format == 4 { &aes } else { &tdes };
                let id = |format| if format == 4 { "aes" } else { tdes_id.as_str() };
                let request = TranslatePinRequest {
                    source: stored(id(from)),
                    source_format: word(from),
                    pin_block: pin_block(from, &side(from).bytes, PIN, PAN),
                    destination: stored(id(to)),
                    destination_format: word(to),
                    pan: PAN.to_owned(),
                    ..TranslatePinRequest::default()
                };
                let answer = translate(&service, request).await;
                if cell == 's' || (cell == 'a' && attribute == "with") {
                    permitted += 1;
                    let block = answer.expect("a permitted pair");
                    assert_eq!(pin_of(to, &side(to).bytes, &block, PAN), PIN, "{from} to {to}");
                } else {
                    expect_reason(&status_of(answer), "TRANSLATION_FORBIDDEN");
                }
            }
        }
    }
    assert_eq!(permitted, 2 * 9 + 3);
}

#[tokio::test]
async fn the_formats_of_a_key_are_its_own() {
    let (service, zone) = service_and_zone().await;
    let tdes = Known::<PinEncryption>::generate(Algorithm::Tdes2);
    tdes.import(&service, "usual", "P0TB00N").await;
    let from_zone = |destination: &str, to: Word| TranslatePinRequest {
        source: stored("zone"),
        destination: stored(destination),
        destination_format: to.into(),
        ..from_terminal(&[], pin_block(4, &zone.bytes, PIN, PAN))
    };
    // Format 0 leaves only under a key that says so: its fill is not random.
    let refused = status_of(translate(&service, from_zone("usual", Word::Iso0)).await);
    expect_reason(&refused, "TRANSLATION_FORBIDDEN");
    let block = translate(&service, from_zone("usual", Word::Iso3)).await.unwrap();
    assert_eq!(pin_of(3, &tdes.bytes, &block, PAN), PIN);
    // Formats 0 and 3 go with TDES, format 4 goes with AES, whatever a call says.
    for (destination, to) in [("usual", Word::Iso4), ("zone", Word::Iso3), ("zone", Word::Iso0)] {
        let refused = status_of(translate(&service, from_zone(destination, to)).await);
        expect_reason(&refused, "KEY_USAGE_MISMATCH");
    }
    for (source, from, len) in [("usual", Word::Iso4, 16), ("zone", Word::Iso3, 8)] {
        let request = TranslatePinRequest {
            source: stored(source),
            source_format: from.into(),
            pin_block: vec![0; len],
            ..from_zone("zone", Word::Iso4)
        };
        expect_reason(&status_of(translate(&service, request).await), "KEY_USAGE_MISMATCH");
    }
    // A key that is no PIN key takes no part.
    for other in ["dev-mac", "dev-kek", "dev-bdk-aes"] {
        let request =
            TranslatePinRequest { source: stored(other), ..from_zone("zone", Word::Iso4) };
        expect_reason(&status_of(translate(&service, request).await), "KEY_USAGE_MISMATCH");
        let refused = status_of(translate(&service, from_zone(other, Word::Iso4)).await);
        expect_reason(&refused, "KEY_USAGE_MISMATCH");
    }
}

#[tokio::test]
async fn pins_of_every_length_and_pans_of_every_length_arrive_whole() {
    let (service, zone) = service_and_zone().await;
    let tdes = Known::<PinEncryption>::generate(Algorithm::Tdes3);
    tdes.import(&service, "tdes", "P0TB00N").await;
    for pan_len in 12..=19 {
        let pan = "4929123456781234567".get(..pan_len).unwrap();
        for pin in ["1234", "98765", "123456789012"] {
            let request = TranslatePinRequest {
                source: stored("zone"),
                pan: pan.to_owned(),
                ..from_terminal(&[], pin_block(4, &zone.bytes, pin, pan))
            };
            let block = translate(&service, request.clone()).await.unwrap();
            assert_eq!(pin_of(4, &zone.bytes, &block, pan), pin);
            let request = TranslatePinRequest {
                destination: stored("tdes"),
                destination_format: Word::Iso3.into(),
                ..request
            };
            let answer = translate(&service, request).await;
            if pan_len == 12 {
                // Formats 0 and 3 take twelve digits beside the check digit.
                expect_field(&status_of(answer), "pan");
            } else {
                assert_eq!(pin_of(3, &tdes.bytes, &answer.unwrap(), pan), pin);
            }
        }
    }
}

#[tokio::test]
async fn the_legacy_form_of_a_pan_is_served_only_where_it_is_asked_for() {
    let (service, zone) = service_and_zone().await;
    let twelve = &PAN[PAN.len() - 13..PAN.len() - 1];
    let legacy = TranslatePinRequest {
        source: stored("zone"),
        pan_form: firstkey::grpc::proto::PanForm::Legacy12.into(),
        ..from_terminal(&[], pin_block(4, &zone.bytes, PIN, twelve))
    };
    let block = translate(&service, legacy.clone()).await.unwrap();
    assert_eq!(pin_of(4, &zone.bytes, &block, twelve), PIN);
    for pan_form in [0, firstkey::grpc::proto::PanForm::Full.into()] {
        let request = TranslatePinRequest { pan_form, ..legacy.clone() };
        expect_reason(&status_of(translate(&service, request).await), "PIN_BLOCK_REJECTED");
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_a_pin_block_the_answer_is_the_same_to_the_byte() {
    let (service, zone) = service_and_zone().await;
    let tdes = Known::<PinEncryption>::generate(Algorithm::Tdes2);
    tdes.import(&service, "tdes", "P0TB00N").await;
    let mut faults: Vec<(u8, Vec<u8>)> = Vec::new();
    for format in [0, 3, 4] {
        let good = HEXUPPER.encode(&pin_field(format, PIN));
        let mut fault =
            |field: String| faults.push((format, HEXUPPER.decode(field.as_bytes()).unwrap()));
        for control in "0123456789ABCDEF".chars().filter(|control| !good.starts_with(*control)) {
            fault(format!("{control}{}", &good[1..]));
        }
        for length in ["0", "1", "2", "3", "4", "6", "D", "E", "F"] {
            fault(format!("{}{length}{}", &good[..1], &good[2..]));
        }
        for place in 2..7 {
            fault(format!("{}A{}", &good[..place], &good[place + 1..]));
        }
        for place in [7, 15] {
            fault(format!("{}0{}", &good[..place], &good[place + 1..]));
        }
    }
    let request = |number: usize, format: u8, block: Vec<u8>| TranslatePinRequest {
        source: stored(if format == 4 { "zone" } else { "tdes" }),
        source_format: word(format),
        pan: pan(number),
        ..from_terminal(&[], block)
    };
    let expected = status_of(translate(&service, request(0, 4, random(16))).await);
    expect_reason(&expected, "PIN_BLOCK_REJECTED");
    let check = |status: &Status, what: &str| {
        assert_eq!(status.code(), expected.code(), "{what}");
        assert_eq!(status.message(), expected.message(), "{what}");
        assert_eq!(status.details(), expected.details(), "{what}");
    };
    let key = |format| if format == 4 { &zone.bytes } else { &tdes.bytes };
    let mut number = 0;
    for (format, field) in faults {
        number += 1;
        let block = encipher(format, key(format), &field, &pan(number));
        let status = status_of(translate(&service, request(number, format, block)).await);
        check(&status, &format!("{format} {}", HEXUPPER.encode(&field)));
    }
    for format in [0, 3, 4] {
        number += 1;
        let of_other_pan = pin_block(format, key(format), PIN, OTHER_PAN);
        check(&status_of(translate(&service, request(number, format, of_other_pan)).await), "PAN");
        let other = Known::<PinEncryption>::generate(Algorithm::Aes128);
        let block = pin_block(format, &other.bytes, PIN, &pan(number));
        check(&status_of(translate(&service, request(number, format, block)).await), "key");
        let block = pin_block(format, key(format), PIN, &pan(number));
        translate(&service, request(number, format, block)).await.expect("and the right one");
    }
}

#[tokio::test]
async fn a_rejected_block_spends_its_counter_and_a_forbidden_pair_does_not() {
    let (service, zone) = service_and_zone().await;
    let terminal = InjectedAes::below(&service, "bdk", SET).await;
    let ksn = |counter| terminal.ksn(counter).bytes().to_vec();
    let good = |counter| from_terminal(&ksn(counter), terminal.pin_block(counter, PIN, PAN));
    let wrong = TranslatePinRequest { pin_block: random(16), ..good(1) };
    expect_reason(&status_of(translate(&service, wrong.clone()).await), "PIN_BLOCK_REJECTED");
    expect_reason(&status_of(translate(&service, good(1)).await), "KSN_REPLAYED");
    // The identical wrong call is computed again, and is as wrong as before.
    expect_reason(&status_of(translate(&service, wrong).await), "PIN_BLOCK_REJECTED");
    let forbidden = TranslatePinRequest { destination_format: Word::Iso1.into(), ..good(2) };
    expect_reason(&status_of(translate(&service, forbidden).await), "TRANSLATION_FORBIDDEN");
    let mismatch = TranslatePinRequest { destination_format: Word::Iso3.into(), ..good(2) };
    expect_reason(&status_of(translate(&service, mismatch).await), "KEY_USAGE_MISMATCH");
    let unknown = TranslatePinRequest { destination: stored("nobody"), ..good(2) };
    expect_reason(&status_of(translate(&service, unknown).await), "KEY_NOT_FOUND");
    let block = translate(&service, good(2)).await.expect("nothing was spent");
    assert_eq!(pin_of(4, &zone.bytes, &block, PAN), PIN);
}

#[tokio::test]
async fn another_input_under_a_spent_counter_is_a_replay_whichever_field_it_changes() {
    let (service, zone) = service_and_zone().await;
    zone.import(&service, "zone-2", "P0AB00N").await;
    let terminal = InjectedAes::below(&service, "bdk", SET).await;
    let block = terminal.pin_block(9, PIN, PAN);
    let good = || from_terminal(terminal.ksn(9).bytes(), block.clone());
    translate(&service, good()).await.unwrap();
    let mut flipped = block.clone();
    flipped[15] ^= 1;
    let legacy = firstkey::grpc::proto::PanForm::Legacy12.into();
    let mut by_kind = good().source.unwrap();
    if let Some(Which::Dukpt(key)) = &mut by_kind.key {
        key.algorithm = KeyAlgorithm::Aes128.into();
    }
    for (what, request) in [
        ("PIN block", TranslatePinRequest { pin_block: flipped, ..good() }),
        ("PAN", TranslatePinRequest { pan: OTHER_PAN.into(), ..good() }),
        ("PAN form", TranslatePinRequest { pan_form: legacy, ..good() }),
        ("destination", TranslatePinRequest { destination: stored("zone-2"), ..good() }),
        ("working key", TranslatePinRequest { source: Some(by_kind), ..good() }),
    ] {
        let refused = status_of(translate(&service, request).await);
        assert_eq!(crate::known::reason_of(&refused), "KSN_REPLAYED", "{what}");
    }
    // The same call with the base derivation key by its name is the same call.
    let named = dukpt_of("keys/bdk", terminal.ksn(9).bytes());
    let request = TranslatePinRequest { source: named, ..good() };
    translate(&service, request).await.expect("the identical input");
}

#[tokio::test]
async fn the_identical_call_is_computed_again_for_five_minutes_and_then_refused() {
    let (service, zone) = service_and_zone().await;
    let terminal = InjectedAes::below(&service, "bdk", SET).await;
    let request = from_terminal(terminal.ksn(1).bytes(), terminal.pin_block(1, PIN, PAN));
    let first = translate(&service, request.clone()).await.unwrap();
    service.clock.advance(5 * MINUTE);
    let again = translate(&service, request.clone()).await.expect("within five minutes");
    assert_eq!(pin_of(4, &zone.bytes, &first, PAN), PIN);
    assert_eq!(pin_of(4, &zone.bytes, &again, PAN), PIN);
    assert_ne!(first, again, "the fill of format 4 is drawn anew");
    service.clock.advance(1);
    expect_reason(&status_of(translate(&service, request).await), "KSN_REPLAYED");
}

#[tokio::test]
async fn a_counter_may_come_late_but_not_too_late_and_jump_but_not_too_far() {
    let (service, _) = service_and_zone().await;
    let terminal = InjectedAes::below(&service, "bdk", SET).await;
    let call = |counter| {
        from_terminal(terminal.ksn(counter).bytes(), terminal.pin_block(counter, PIN, PAN))
    };
    // Where a terminal that was injected elsewhere stands, its first transaction tells.
    translate(&service, call(50_000)).await.unwrap();
    translate(&service, call(50_000 - 127)).await.expect("within the window of 128");
    expect_reason(&status_of(translate(&service, call(50_000 - 128)).await), "KSN_REPLAYED");
    translate(&service, call(60_000)).await.expect("a jump of 10,000");
    expect_reason(&status_of(translate(&service, call(70_001)).await), "KSN_REPLAYED");
    translate(&service, call(70_000)).await.expect("a jump of 10,000");
}

#[tokio::test]
async fn three_failures_close_a_pan_for_an_hour_and_a_restart_opens_nothing() {
    let service = Service::start_durable().await;
    let zone = Known::<PinEncryption>::generate(Algorithm::Aes128);
    zone.import(&service, "zone", "P0AB00N").await;
    let wrong = || TranslatePinRequest { source: stored("zone"), ..from_terminal(&[], random(16)) };
    let right = |pan: &str| TranslatePinRequest {
        pan: pan.to_owned(),
        pin_block: pin_block(4, &zone.bytes, PIN, pan),
        ..wrong()
    };
    for _ in 0..3 {
        translate(&service, right(PAN)).await.expect("a right one costs nothing");
        expect_reason(&status_of(translate(&service, wrong()).await), "PIN_BLOCK_REJECTED");
        service.clock.advance(MINUTE);
    }
    let expect_spent = |status: &Status| {
        expect_reason(status, "BUDGET_SPENT");
        let details = status.get_error_details();
        let wait = details.retry_info().and_then(|info| info.retry_delay);
        assert_eq!(wait, Some(Duration::from_secs(HOUR - 3 * MINUTE)));
    };
    expect_spent(&status_of(translate(&service, wrong()).await));
    expect_spent(&status_of(translate(&service, right(PAN)).await));
    translate(&service, right(OTHER_PAN)).await.expect("another card is not concerned");

    let service = restarted(service).await;
    expect_spent(&status_of(translate(&service, right(PAN)).await));
    service.clock.advance(HOUR - 3 * MINUTE);
    translate(&service, right(PAN)).await.expect("an hour after the first failure");
}

/// The same service again, over the same store.
pub(crate) async fn restarted(service: Service) -> Service {
    let (folder, pki, clock) = service.stop().await;
    let folder = folder.expect("a durable service");
    let store = folder.store_again().await;
    Service::start_with(store, Some(folder), clock, pki, everybody()).await
}

#[tokio::test]
async fn a_counter_that_is_spent_stays_spent_over_a_restart() {
    let service = Service::start_durable().await;
    let zone = Known::<PinEncryption>::generate(Algorithm::Aes128);
    zone.import(&service, "zone", "P0AB00N").await;
    let terminal = InjectedAes::below(&service, "bdk", SET).await;
    let request = from_terminal(terminal.ksn(5).bytes(), terminal.pin_block(5, PIN, PAN));
    translate(&service, request.clone()).await.unwrap();
    let service = restarted(service).await;
    let block = translate(&service, request.clone()).await.expect("the identical call");
    assert_eq!(pin_of(4, &zone.bytes, &block, PAN), PIN);
    let other = TranslatePinRequest { pin_block: random(16), ..request };
    expect_reason(&status_of(translate(&service, other).await), "KSN_REPLAYED");
}

#[tokio::test]
async fn a_transaction_key_is_found_by_its_key_set_and_held_to_it() {
    let (service, zone) = service_and_zone().await;
    let terminal = InjectedAes::below(&service, "bdk", SET).await;
    InjectedAes::below(&service, "bdk-other", [1, 1, 1, 1]).await;
    let block = || terminal.pin_block(1, PIN, PAN);
    let ksn = terminal.ksn(1);
    let of = |key| TranslatePinRequest { source: key, ..from_terminal(ksn.bytes(), block()) };
    for (name, expected) in [
        ("keys/bdk-other", "KEY_USAGE_MISMATCH"),
        ("keys/dev-bdk-tdes", "KEY_USAGE_MISMATCH"),
        ("keys/zone", "KEY_USAGE_MISMATCH"),
        ("keys/nobody", "KEY_NOT_FOUND"),
    ] {
        let refused = status_of(translate(&service, of(dukpt_of(name, ksn.bytes()))).await);
        expect_reason(&refused, expected);
    }
    // A base derivation key that is not open serves the terminals that are registered here alone.
    let stranger = [0xDE, 0, 0, 1, 9, 9, 9, 9, 0, 0, 0, 1];
    let refused = status_of(translate(&service, of(dukpt(&stranger))).await);
    expect_reason(&refused, "TERMINAL_NOT_FOUND");
    let request =
        TranslatePinRequest { terminal: "terminals/nobody".into(), ..of(dukpt(ksn.bytes())) };
    expect_reason(&status_of(translate(&service, request).await), "TERMINAL_NOT_FOUND");

    // From the same initial key a TDES working key for format 3; nothing stronger than itself.
    let mut kind = dukpt(ksn.bytes()).unwrap();
    let mut of_kind = |algorithm: KeyAlgorithm, pin_block: Vec<u8>, format: Word| {
        if let Some(Which::Dukpt(key)) = &mut kind.key {
            key.algorithm = algorithm.into();
        }
        let source_format = format.into();
        TranslatePinRequest { pin_block, source_format, ..of(Some(kind.clone())) }
    };
    let too_strong = of_kind(KeyAlgorithm::Aes256, block(), Word::Iso4);
    expect_reason(&status_of(translate(&service, too_strong).await), "KEY_USAGE_MISMATCH");
    let derived = of_kind(KeyAlgorithm::Tdes2, terminal.tdes_pin_block(1, PIN, PAN), Word::Iso3);
    let translated = translate(&service, derived).await.unwrap();
    assert_eq!(pin_of(4, &zone.bytes, &translated, PAN), PIN);
}

#[tokio::test]
async fn a_block_can_go_out_under_the_transaction_key_of_a_link() {
    let (service, zone) = service_and_zone().await;
    let link = InjectedAes::below(&service, "bdk", SET).await;
    let ksn = link.ksn(4);
    let request = TranslatePinRequest {
        source: stored("zone"),
        destination: dukpt(ksn.bytes()),
        ..from_terminal(&[], pin_block(4, &zone.bytes, PIN, PAN))
    };
    let out = translate(&service, request.clone()).await.unwrap();
    // Read by the other end of the link, with the same base derivation key.
    let translation = Translation {
        inbound: &link.key(4),
        from: PinBlockFormat::Iso4,
        inbound_pan: PanForm::Full,
        outbound: &zone.key,
        to: PinBlockFormat::Iso4,
        outbound_pan: PanForm::Full,
        pan: &Pan::parse(PAN).unwrap(),
        format_1_inbound: false,
    };
    let block = EncryptedPinBlock::parse(&out).unwrap();
    let read = translation.apply(&block, &Fill::draw(&SystemRng::new()).unwrap()).unwrap();
    assert_eq!(pin_of(4, &zone.bytes, read.bytes(), PAN), PIN);
    // The counter is spent for the link as it is for a terminal.
    let pin_block_of_other = pin_block(4, &zone.bytes, "8888", PAN);
    let other = TranslatePinRequest { pin_block: pin_block_of_other, ..request };
    expect_reason(&status_of(translate(&service, other).await), "KSN_REPLAYED");
    // One counter can not stand on both sides.
    let ksn = link.ksn(5);
    let both = TranslatePinRequest {
        destination: dukpt(ksn.bytes()),
        ..from_terminal(ksn.bytes(), link.pin_block(5, PIN, PAN))
    };
    expect_reason(&status_of(translate(&service, both).await), "KSN_REPLAYED");
}

#[tokio::test]
async fn a_registered_terminal_is_served_while_it_is_in_service_and_its_part_is_its_own() {
    let (service, zone) = service_and_zone().await;
    let mut till = service.active_till("till-1", Suite::P256Aes128).await;
    let of = |payment: &firstkey::terminal::Payment| TranslatePinRequest {
        destination: stored("zone"),
        ..translate_request(payment, payment.pin_block.bytes().to_vec())
    };
    let payment = till.purchase(&service);
    let named = TranslatePinRequest { terminal: "terminals/till-1".into(), ..of(&payment) };
    let block = translate(&service, named.clone()).await.unwrap();
    assert_eq!(pin_of(4, &zone.bytes, &block, harness::CARD_PAN), CARD_PIN);
    let other = TranslatePinRequest { terminal: "terminals/till-2".into(), ..of(&payment) };
    expect_reason(&status_of(translate(&service, other).await), "TERMINAL_NOT_FOUND");
    // To make a PIN block under its key is the terminal's part alone.
    let outbound = TranslatePinRequest {
        source: stored("zone"),
        pin_block: pin_block(4, &zone.bytes, CARD_PIN, harness::CARD_PAN),
        destination: dukpt(till.purchase(&service).ksn.bytes()),
        ..of(&payment)
    };
    expect_reason(&status_of(translate(&service, outbound).await), "KEY_USAGE_MISMATCH");
    let request = SuspendTerminalRequest {
        request_id: request_id(),
        name: "terminals/till-1".into(),
        cause: "a test".into(),
    };
    service.client.terminals().suspend_terminal(request).await.unwrap();
    // The policy is asked afresh, also for the identical call.
    expect_reason(&status_of(translate(&service, named).await), "TERMINAL_NOT_ACTIVE");
    let refused = status_of(translate(&service, of(&till.purchase(&service))).await);
    expect_reason(&refused, "TERMINAL_NOT_ACTIVE");
}
