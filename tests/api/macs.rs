//! `MacService`: MACs as their standards compute them, failures that burn nothing, clones that are
//! noticed.

use firstkey::activation::payload::{ParametersRequest, Payload as _};
use firstkey::activation::{Role, Step, Transcript};
use firstkey::agreement::Suite;
use firstkey::crypto::{cbc_mac, cmac, hmac, retail_mac};
use firstkey::grpc::proto::{
    DukptKey, GenerateMacRequest, KeyAlgorithm, KeyAttributes, MacAlgorithm as Word, PaddingMethod,
    VerifyMacRequest, WorkingKey, working_key::Key as Which,
};
use firstkey::key::Algorithm;
use firstkey::key::Key;
use firstkey::key::usage::{Mac, MacBoth, MacGeneration, MacUsage, MacVerification};
use firstkey::mac::MacAlgorithm;
use firstkey::server::simulation::verify_request;
use firstkey::terminal::TransactionKeys;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::hand::Hand;
use crate::harness::{HOUR, MINUTE, Service};
use crate::known::{
    InjectedAes, InjectedTdes, Known, dukpt, dukpt_of, expect_field, expect_path, expect_reason,
    random, reason_of, status_of, stored,
};

const SET: [u8; 4] = [0xB1, 0xB2, 0xB3, 0xB4];
const TDES_SET: [u8; 5] = [0xFF, 0xFF, 0xB1, 0xB2, 0xB3];
const MESSAGE: &[u8] = b"purchase of 12.50";

const REQUEST: firstkey::grpc::proto::Direction = firstkey::grpc::proto::Direction::Request;
const RESPONSE: firstkey::grpc::proto::Direction = firstkey::grpc::proto::Direction::Response;
const BOTH: firstkey::grpc::proto::Direction = firstkey::grpc::proto::Direction::Both;

async fn generate(service: &Service, request: GenerateMacRequest) -> Result<Vec<u8>, Status> {
    Ok(service.client.macs().generate_mac(request).await?.into_inner().mac)
}

async fn verify(service: &Service, request: VerifyMacRequest) -> Result<(), Status> {
    service.client.macs().verify_mac(request).await.map(|_| ())
}

/// The request to verify what a request to make a MAC asked for.
fn to_verify(made: &GenerateMacRequest, mac: &[u8]) -> VerifyMacRequest {
    VerifyMacRequest {
        key: made.key.clone(),
        direction: made.direction,
        algorithm: made.algorithm,
        padding: made.padding,
        message: made.message.clone(),
        mac: mac.to_vec(),
        terminal: made.terminal.clone(),
    }
}

fn of_key(key: Option<WorkingKey>, algorithm: Word, len: usize) -> GenerateMacRequest {
    GenerateMacRequest {
        key,
        algorithm: algorithm.into(),
        message: MESSAGE.to_vec(),
        mac_length_bytes: u32::try_from(len).unwrap(),
        ..GenerateMacRequest::default()
    }
}

/// A message of a terminal with its MAC.
fn from_terminal(ksn: &[u8], algorithm: Word, message: &[u8], mac: &[u8]) -> VerifyMacRequest {
    VerifyMacRequest {
        key: dukpt(ksn),
        direction: REQUEST.into(),
        algorithm: algorithm.into(),
        message: message.to_vec(),
        mac: mac.to_vec(),
        ..VerifyMacRequest::default()
    }
}

fn mac_of<U: MacUsage>(key: &Key<U>, algorithm: MacAlgorithm, message: &[u8]) -> Vec<u8> {
    let len = algorithm.len_bytes();
    key.generate_mac(algorithm, message, len).unwrap().bytes().to_vec()
}

#[tokio::test]
async fn each_field_is_bounded_and_named() {
    let service = Service::start().await;
    let good = || of_key(stored("dev-mac"), Word::AesCmac, 16);
    generate(&service, good()).await.expect("the request has nothing wrong in it");
    let key = |key| GenerateMacRequest { key, ..good() };
    let named = |name: &str| Some(WorkingKey { key: Some(Which::StaticKey(name.into())) });
    let message = |len: usize| GenerateMacRequest { message: vec![1; len], ..good() };
    let ksn = [SET.as_slice(), &[0, 0, 0, 7, 0, 0, 0, 1]].concat();
    let terminal = |name: &str| GenerateMacRequest { terminal: name.into(), ..good() };
    let of_kind = |algorithm: i32| {
        let dukpt = DukptKey { ksn: ksn.clone(), algorithm, ..DukptKey::default() };
        let direction = REQUEST.into();
        let key = Some(WorkingKey { key: Some(Which::Dukpt(dukpt)) });
        GenerateMacRequest { key, direction, ..good() }
    };
    let cases = [
        ("key", GenerateMacRequest::default()),
        ("key", key(None)),
        ("key", key(Some(WorkingKey { key: None }))),
        ("key.static_key", key(named(""))),
        ("key.static_key", key(named("dev-mac"))),
        ("key.dukpt.base_derivation_key", key(dukpt_of("keys/", &ksn))),
        ("key.dukpt.algorithm", of_kind(10)),
        ("key.dukpt.algorithm", of_kind(-3)),
        ("direction", key(dukpt(&ksn))),
        ("direction", GenerateMacRequest { direction: REQUEST.into(), ..good() }),
        ("direction", GenerateMacRequest { direction: 4, ..good() }),
        ("algorithm", GenerateMacRequest { algorithm: 0, ..good() }),
        ("algorithm", GenerateMacRequest { algorithm: 8, ..good() }),
        ("padding", GenerateMacRequest { padding: 4, ..good() }),
        ("padding", GenerateMacRequest { padding: PaddingMethod::PaddingMethod1.into(), ..good() }),
        ("padding", GenerateMacRequest { algorithm: Word::Iso97971Algorithm3.into(), ..good() }),
        ("message", message(0)),
        ("message", message(61_441)),
        ("terminal", terminal("till-1")),
        ("terminal", terminal("keys/till-1")),
    ];
    for (path, request) in cases {
        expect_field(&status_of(verify(&service, to_verify(&request, &[0; 16])).await), path);
        expect_field(&status_of(generate(&service, request).await), path);
    }
    for len in [0, 3, 17, 64, 65, u32::MAX] {
        let request = GenerateMacRequest { mac_length_bytes: len, ..good() };
        expect_field(&status_of(generate(&service, request).await), "mac_length_bytes");
    }
    for len in [0, 3, 17, 64, 65] {
        let request = to_verify(&good(), &vec![0; len]);
        expect_field(&status_of(verify(&service, request).await), "mac");
    }
    for ksn in [vec![], vec![1; 11], [SET.as_slice(), &[0; 8]].concat()] {
        let request = GenerateMacRequest { direction: REQUEST.into(), ..key(dukpt(&ksn)) };
        let refused = status_of(generate(&service, request).await);
        expect_path(&refused, "KSN_INVALID", "key.dukpt.ksn");
    }
    generate(&service, message(61_440)).await.expect("the longest message");
}

/// ISO 9797-1:2011, 6.3, once more.
fn padded(method: PaddingMethod, message: &[u8]) -> Vec<u8> {
    let bits = u64::try_from(message.len() * 8).unwrap().to_be_bytes();
    let mut padded = match method {
        PaddingMethod::Unspecified | PaddingMethod::PaddingMethod1 => message.to_vec(),
        PaddingMethod::PaddingMethod2 => [message, &[0x80]].concat(),
        PaddingMethod::PaddingMethod3 => [&bits, message].concat(),
    };
    padded.resize(padded.len().next_multiple_of(8), 0);
    padded
}

#[tokio::test]
async fn each_algorithm_makes_the_mac_of_its_standard_and_verifies_it_in_every_length() {
    let service = Service::start().await;
    let short = || KeyAttributes { mac_length_min_bytes: 4, ..KeyAttributes::default() };
    let fixed = KeyAttributes {
        mac_message_length_bytes: u32::try_from(MESSAGE.len()).unwrap(),
        ..short()
    };
    let none = PaddingMethod::Unspecified;
    let mut rows: Vec<(&str, Word, PaddingMethod, Vec<u8>)> = Vec::new();
    let aes = Known::<Mac>::generate(Algorithm::Aes256);
    aes.import_with(&service, "aes", "M6AC00N", short()).await;
    rows.push(("aes", Word::AesCmac, none, cmac::aes_cmac(&aes.bytes, MESSAGE).unwrap().into()));
    let tdes = Known::<Mac>::generate(Algorithm::Tdes3);
    tdes.import_with(&service, "tdes", "M6TC00N", short()).await;
    let mac = cmac::tdes_cmac(&tdes.bytes, MESSAGE).unwrap();
    rows.push(("tdes", Word::TdesCmac, none, mac.into()));
    let hashed = Known::<Mac>::generate(Algorithm::Hmac512);
    hashed.import_with(&service, "hmac", "M7HC00N", short()).await;
    let mac = hmac::hmac_sha256(&hashed.bytes, MESSAGE);
    rows.push(("hmac", Word::HmacSha256, none, mac.into()));
    let mac = hmac::hmac_sha384(&hashed.bytes, MESSAGE);
    rows.push(("hmac", Word::HmacSha384, none, mac.into()));
    let mac = hmac::hmac_sha512(&hashed.bytes, MESSAGE);
    rows.push(("hmac", Word::HmacSha512, none, mac.into()));
    let chained = Known::<Mac>::generate(Algorithm::Tdes2);
    chained.import_with(&service, "alg-1", "M1TC00N", fixed.clone()).await;
    chained.import_with(&service, "alg-3", "M3TC00N", fixed).await;
    let halves: &[u8; 16] = chained.bytes.as_slice().try_into().unwrap();
    for method in [
        PaddingMethod::PaddingMethod1,
        PaddingMethod::PaddingMethod2,
        PaddingMethod::PaddingMethod3,
    ] {
        let input = padded(method, MESSAGE);
        let mac = cbc_mac::tdes_cbc_mac(&chained.bytes, &input).unwrap();
        rows.push(("alg-1", Word::Iso97971Algorithm1, method, mac.into()));
        let mac = retail_mac::retail_mac(halves, &input).unwrap();
        rows.push(("alg-3", Word::Iso97971Algorithm3, method, mac.into()));
    }
    for (id, algorithm, padding, expected) in rows {
        let what = algorithm.as_str_name();
        // So that no failure of the row before stands in the budget any more.
        service.clock.advance(HOUR);
        for len in 4..=expected.len() {
            let request = GenerateMacRequest {
                padding: padding.into(),
                ..of_key(stored(id), algorithm, len)
            };
            let mac = generate(&service, request.clone()).await.unwrap();
            assert_eq!(mac, expected[..len], "{what} {len}");
            verify(&service, to_verify(&request, &mac)).await.expect("its own MAC");
            let mut other = mac;
            other[len - 1] ^= 1;
            let refused = status_of(verify(&service, to_verify(&request, &other)).await);
            expect_reason(&refused, "MAC_MISMATCH");
        }
        let longer = GenerateMacRequest {
            padding: padding.into(),
            ..of_key(stored(id), algorithm, expected.len() + 1)
        };
        let refused = status_of(generate(&service, longer).await);
        expect_field(&refused, "mac_length_bytes");
    }
}

#[tokio::test]
async fn a_key_serves_the_algorithm_of_its_usage_alone() {
    let service = Service::start().await;
    let keys = [
        ("alg-1", "M1TC00N", Algorithm::Tdes2, Word::Iso97971Algorithm1),
        ("alg-3", "M3TC00N", Algorithm::Tdes2, Word::Iso97971Algorithm3),
        ("tdes-cmac", "M6TC00N", Algorithm::Tdes2, Word::TdesCmac),
        ("aes-cmac", "M6AC00N", Algorithm::Aes128, Word::AesCmac),
        ("hmac", "M7HC00N", Algorithm::Hmac256, Word::HmacSha256),
    ];
    for (id, fields, algorithm, _) in keys {
        Known::<Mac>::generate(algorithm).import(&service, id, fields).await;
    }
    let padding = |word: Word| match word {
        Word::Iso97971Algorithm1 | Word::Iso97971Algorithm3 => PaddingMethod::PaddingMethod3,
        _ => PaddingMethod::Unspecified,
    };
    let ids = keys.map(|(id, ..)| id).into_iter();
    for id in ids.chain(["dev-kek", "dev-zone-pin-aes", "dev-bdk-aes"]) {
        for (own, _, _, word) in keys {
            let padding = padding(word).into();
            let request = GenerateMacRequest { padding, ..of_key(stored(id), word, 8) };
            let made = generate(&service, request.clone()).await;
            let verified = verify(&service, to_verify(&request, &[0; 8])).await;
            if id == own {
                made.expect("its own algorithm");
                expect_reason(&status_of(verified), "MAC_MISMATCH");
            } else {
                expect_reason(&status_of(made), "KEY_USAGE_MISMATCH");
                expect_reason(&status_of(verified), "KEY_USAGE_MISMATCH");
            }
        }
    }
    let nobody = of_key(stored("nobody"), Word::AesCmac, 8);
    expect_reason(&status_of(generate(&service, nobody).await), "KEY_NOT_FOUND");
}

#[tokio::test]
async fn a_mac_is_as_long_as_its_key_asks_and_a_chained_one_fixes_its_message() {
    let service = Service::start().await;
    let attributes = KeyAttributes { mac_length_min_bytes: 12, ..KeyAttributes::default() };
    let known = Known::<Mac>::generate(Algorithm::Aes128);
    known.import_with(&service, "twelve", "M6AC00N", attributes).await;
    known.import(&service, "usual", "M6AC00N").await;
    for (id, len, taken) in
        [("twelve", 12, true), ("twelve", 11, false), ("usual", 8, true), ("usual", 7, false)]
    {
        let request = of_key(stored(id), Word::AesCmac, len);
        let made = generate(&service, request.clone()).await;
        let verified = verify(
            &service,
            to_verify(&request, &mac_of(&known.key, MacAlgorithm::AesCmac, MESSAGE)[..len]),
        )
        .await;
        assert_eq!(made.is_ok(), taken, "{id} {len}");
        assert_eq!(verified.is_ok(), taken, "{id} {len}");
        if !taken {
            expect_reason(&status_of(made), "KEY_USAGE_MISMATCH");
            expect_reason(&status_of(verified), "KEY_USAGE_MISMATCH");
        }
    }
    let tdes = Known::<Mac>::generate(Algorithm::Tdes2);
    let attributes = KeyAttributes { mac_message_length_bytes: 24, ..KeyAttributes::default() };
    tdes.import_with(&service, "fixed", "M3TC00N", attributes).await;
    tdes.import(&service, "free", "M3TC00N").await;
    for method in 1..=3 {
        for (id, len) in [("fixed", 24), ("fixed", 32), ("free", 24), ("free", 32)] {
            let request = GenerateMacRequest {
                padding: method,
                message: vec![b'm'; len],
                ..of_key(stored(id), Word::Iso97971Algorithm3, 8)
            };
            let taken = if id == "fixed" { len == 24 } else { method == 3 };
            let made = generate(&service, request).await;
            assert_eq!(made.is_ok(), taken, "{id} {len} {method}");
            if let Err(status) = made {
                expect_reason(&status, "KEY_USAGE_MISMATCH");
            }
        }
    }
}

#[tokio::test]
async fn a_message_of_a_terminal_is_verified_and_answered_under_one_counter() {
    let service = Service::start().await;
    let aes = InjectedAes::below(&service, "aes", SET).await;
    let tdes = InjectedTdes::below(&service, "tdes", TDES_SET).await;
    let answer = |ksn: &[u8], direction: firstkey::grpc::proto::Direction, word| {
        let direction = direction.into();
        GenerateMacRequest { direction, ..of_key(dukpt(ksn), word, 8) }
    };

    let (ksn, algorithm) = (aes.ksn(1), MacAlgorithm::AesCmac);
    let mac = mac_of(&aes.key::<MacGeneration>(1), algorithm, MESSAGE);
    let request = from_terminal(ksn.bytes(), Word::AesCmac, MESSAGE, &mac);
    verify(&service, request).await.expect("the terminal's own");
    let made = generate(&service, answer(ksn.bytes(), RESPONSE, Word::AesCmac)).await.unwrap();
    assert_eq!(made, mac_of(&aes.key::<MacVerification>(1), algorithm, MESSAGE)[..8]);
    let ksn = aes.ksn(2);
    let mac = mac_of(&aes.key::<MacBoth>(2), algorithm, MESSAGE);
    let direction = BOTH.into();
    let request = from_terminal(ksn.bytes(), Word::AesCmac, MESSAGE, &mac);
    verify(&service, VerifyMacRequest { direction, ..request }).await.expect("one key both ways");
    let made = generate(&service, answer(ksn.bytes(), BOTH, Word::AesCmac)).await.unwrap();
    assert_eq!(made, mac[..8]);

    let (ksn, algorithm) = (tdes.ksn(1), MacAlgorithm::TdesCmac);
    let mac = mac_of(&tdes.key::<MacGeneration>(1), algorithm, MESSAGE);
    let request = from_terminal(ksn.bytes(), Word::TdesCmac, MESSAGE, &mac);
    verify(&service, request).await.expect("the terminal's own");
    let made = generate(&service, answer(ksn.bytes(), RESPONSE, Word::TdesCmac)).await.unwrap();
    assert_eq!(made, mac_of(&tdes.key::<MacVerification>(1), algorithm, MESSAGE));

    // A working key of another kind, from the same initial key.
    let mut key = dukpt(aes.ksn(3).bytes()).unwrap();
    if let Some(Which::Dukpt(dukpt)) = &mut key.key {
        dukpt.algorithm = KeyAlgorithm::Hmac128.into();
    }
    let of_hmac = GenerateMacRequest {
        direction: RESPONSE.into(),
        ..of_key(Some(key), Word::HmacSha256, 32)
    };
    assert_eq!(generate(&service, of_hmac).await.unwrap().len(), 32);
    let mismatch = answer(aes.ksn(4).bytes(), RESPONSE, Word::TdesCmac);
    expect_reason(&status_of(generate(&service, mismatch).await), "KEY_USAGE_MISMATCH");
}

#[tokio::test]
async fn a_forged_message_burns_nothing_and_a_second_genuine_one_raises_the_clone_alarm() {
    let service = Service::start().await;
    let terminal = InjectedAes::below(&service, "bdk", SET).await;
    let key = terminal.key::<MacGeneration>(1);
    let ksn = terminal.ksn(1);
    let of = |message: &[u8], mac: &[u8]| from_terminal(ksn.bytes(), Word::AesCmac, message, mac);
    let genuine = of(MESSAGE, &mac_of(&key, MacAlgorithm::AesCmac, MESSAGE));
    for _ in 0..5 {
        let forged = of(&random(20), &random(16));
        expect_reason(&status_of(verify(&service, forged).await), "MAC_MISMATCH");
    }
    verify(&service, genuine.clone()).await.expect("the counter is not burnt");
    verify(&service, genuine.clone()).await.expect("the identical message, at once");
    // A shorter or a wrong MAC of the same message is no second message.
    let shorter = of(MESSAGE, &genuine.mac[..8]);
    verify(&service, shorter).await.expect("the same message");
    expect_reason(&status_of(verify(&service, of(MESSAGE, &[0; 16])).await), "MAC_MISMATCH");
    let alarms = async || {
        let events = service.vault.events_after(0, 1_000).await.unwrap();
        let raised = events.iter().filter(|event| event.detail.contains_key("clone_alarm"));
        raised.map(|event| (event.action.clone(), event.reason.clone())).collect::<Vec<_>>()
    };
    expect_reason(&status_of(verify(&service, of(b"forged", &[0; 16])).await), "MAC_MISMATCH");
    assert_eq!(alarms().await, []);
    let second = b"purchase of 99.99";
    let cloned = of(second, &mac_of(&key, MacAlgorithm::AesCmac, second));
    expect_reason(&status_of(verify(&service, cloned).await), "KSN_REPLAYED");
    let expected = ("VerifyMac".to_owned(), Some("KSN_REPLAYED".to_owned()));
    assert_eq!(alarms().await, [expected]);
    // The same message is the same for five minutes.
    service.clock.advance(5 * MINUTE);
    verify(&service, genuine.clone()).await.expect("within five minutes");
    service.clock.advance(1);
    expect_reason(&status_of(verify(&service, genuine).await), "KSN_REPLAYED");
}

#[tokio::test]
async fn of_two_genuine_messages_at_once_one_is_served() {
    let service = Service::start().await;
    let terminal = InjectedAes::below(&service, "bdk", SET).await;
    for counter in 1..=8 {
        let key = terminal.key::<MacGeneration>(counter);
        let ksn = terminal.ksn(counter);
        let of = |message: &[u8]| {
            let mac = mac_of(&key, MacAlgorithm::AesCmac, message);
            verify(&service, from_terminal(ksn.bytes(), Word::AesCmac, message, &mac))
        };
        let (one, other) = tokio::join!(of(b"one"), of(b"other"));
        let lost = match (one, other) {
            (Ok(()), Err(lost)) | (Err(lost), Ok(())) => lost,
            (one, other) => panic!("{} and {} were served", one.is_ok(), other.is_ok()),
        };
        expect_reason(&lost, "KSN_REPLAYED");
    }
}

#[tokio::test]
async fn an_answer_is_made_once_per_counter_and_the_identical_one_again() {
    let service = Service::start().await;
    let terminal = InjectedAes::below(&service, "bdk", SET).await;
    let of = |message: &[u8]| GenerateMacRequest {
        direction: RESPONSE.into(),
        message: message.to_vec(),
        ..of_key(dukpt(terminal.ksn(6).bytes()), Word::AesCmac, 16)
    };
    let first = generate(&service, of(b"approved")).await.unwrap();
    assert_eq!(generate(&service, of(b"approved")).await.unwrap(), first);
    expect_reason(&status_of(generate(&service, of(b"declined")).await), "KSN_REPLAYED");
    // Another length of the same MAC tells nothing new, another algorithm would.
    let shorter = GenerateMacRequest { mac_length_bytes: 8, ..of(b"approved") };
    assert_eq!(generate(&service, shorter).await.unwrap(), first[..8]);
    service.clock.advance(5 * MINUTE + 1);
    expect_reason(&status_of(generate(&service, of(b"approved")).await), "KSN_REPLAYED");
    // It is the counter of the response alone that is spent.
    let mac = mac_of(&terminal.key::<MacGeneration>(6), MacAlgorithm::AesCmac, MESSAGE);
    let request = from_terminal(terminal.ksn(6).bytes(), Word::AesCmac, MESSAGE, &mac);
    verify(&service, request).await.expect("the request's purpose is another");
}

#[tokio::test]
async fn a_hundred_guesses_close_a_key_of_short_macs_for_its_caller_for_an_hour() {
    let service = Service::start().await;
    for id in ["short", "other"] {
        let short = KeyAttributes { mac_length_min_bytes: 4, ..KeyAttributes::default() };
        let key = Known::<Mac>::generate(Algorithm::Aes128);
        key.import_with(&service, id, "M6AC00N", short).await;
    }
    let good = of_key(stored("short"), Word::AesCmac, 7);
    let mac = generate(&service, good.clone()).await.unwrap();
    let mut wrong = mac.clone();
    wrong[0] ^= 0x80;
    for _ in 0..100 {
        let refused = status_of(verify(&service, to_verify(&good, &wrong)).await);
        expect_reason(&refused, "MAC_MISMATCH");
    }
    let spent = status_of(verify(&service, to_verify(&good, &mac)).await);
    expect_reason(&spent, "BUDGET_SPENT");
    let details = spent.get_error_details();
    let wait = details.retry_info().and_then(|info| info.retry_delay);
    assert_eq!(wait, Some(std::time::Duration::from_secs(HOUR)));
    let other = of_key(stored("other"), Word::AesCmac, 7);
    let refused = status_of(verify(&service, to_verify(&other, &wrong)).await);
    expect_reason(&refused, "MAC_MISMATCH");
    let whole = of_key(stored("short"), Word::AesCmac, 16);
    let mac_of_whole = generate(&service, whole.clone()).await.unwrap();
    verify(&service, to_verify(&whole, &mac_of_whole)).await.expect("nobody guesses this one");
    generate(&service, good.clone()).await.expect("making one is not concerned");
    service.clock.advance(HOUR);
    verify(&service, to_verify(&good, &mac)).await.expect("an hour later");
}

#[tokio::test]
async fn corrupted_macs_close_nothing() {
    let service = Service::start().await;
    let good = of_key(stored("dev-mac"), Word::AesCmac, 8);
    let mac = generate(&service, good.clone()).await.unwrap();
    let mut wrong = mac.clone();
    wrong[0] ^= 0x80;
    for _ in 0..=100 {
        let refused = status_of(verify(&service, to_verify(&good, &wrong)).await);
        expect_reason(&refused, "MAC_MISMATCH");
    }
    verify(&service, to_verify(&good, &mac)).await.expect("a genuine one");
}

#[tokio::test]
async fn an_answer_of_an_activation_is_made_by_nobody_else() {
    let service = Service::start().await;
    let mut hand = Hand::with_parameters(&service, "till", Suite::P256Aes128).await;
    hand.test(&service, |_| ()).await.expect("the test is answered");
    service.enable("till").await.expect("enabled");
    let of = |keys: &TransactionKeys, message: &[u8]| GenerateMacRequest {
        direction: RESPONSE.into(),
        message: message.to_vec(),
        ..of_key(dukpt(keys.ksn.bytes()), Word::AesCmac, 16)
    };
    let wanted = ParametersRequest { known_version: 1, nonce: [1; 32] }.encode();
    // The bytes that the service would authenticate as its own step.
    let keys = hand.next_keys();
    let answer = Transcript::new().with(&wanted).with(b"answer");
    let input = answer.authenticated_input(Role::Service, Step::Parameters);
    expect_field(&status_of(generate(&service, of(&keys, &input)).await), "message");
    // Under a counter, the response key makes the answer of the step or another message, not both.
    let request = hand.exchange(&keys, Step::Parameters, wanted.clone());
    service.send_parameters(&request).await.expect("answered");
    expect_reason(&status_of(generate(&service, of(&keys, MESSAGE)).await), "KSN_REPLAYED");
    let keys = hand.next_keys();
    generate(&service, of(&keys, MESSAGE)).await.expect("a message of the backend's");
    let request = hand.exchange(&keys, Step::Parameters, wanted);
    let refused = service.send_parameters(&request).await.unwrap_err();
    assert_eq!(refused.reason, "KSN_REPLAYED");
}

#[tokio::test]
async fn the_part_of_a_registered_terminal_is_its_own() {
    let service = Service::start().await;
    let mut till = service.active_till("till-1", Suite::P256Aes128).await;
    let payment = till.purchase(&service);
    let request = verify_request(&payment);
    let made = GenerateMacRequest {
        direction: REQUEST.into(),
        ..of_key(dukpt(payment.ksn.bytes()), Word::AesCmac, 16)
    };
    expect_reason(&status_of(generate(&service, made.clone()).await), "KEY_USAGE_MISMATCH");
    let response = VerifyMacRequest { direction: RESPONSE.into(), ..request.clone() };
    expect_reason(&status_of(verify(&service, response).await), "KEY_USAGE_MISMATCH");
    for (terminal, expected) in
        [("terminals/till-2", Some("TERMINAL_NOT_FOUND")), ("terminals/till-1", None)]
    {
        let named = VerifyMacRequest { terminal: terminal.into(), ..request.clone() };
        let refused = verify(&service, named).await.err();
        assert_eq!(refused.as_ref().map(reason_of).as_deref(), expected);
    }
    let response = GenerateMacRequest { direction: RESPONSE.into(), ..made };
    generate(&service, response).await.expect("the host's part");
    // Before its activation is over a terminal has no part at all.
    service.register("till-3", Suite::P256Aes128).await;
    let named = GenerateMacRequest {
        terminal: "terminals/till-3".into(),
        ..of_key(stored("dev-mac"), Word::AesCmac, 16)
    };
    expect_reason(&status_of(generate(&service, named).await), "TERMINAL_NOT_ACTIVE");
}
