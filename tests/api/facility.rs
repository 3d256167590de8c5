//! `ExportInitialKey`: initial keys for terminals that a facility loads. None is given twice.

use std::collections::HashSet;

use data_encoding::HEXUPPER;
use firstkey::crypto::cmac::aes_cmac;
use firstkey::crypto::tdes::Tdes;
use firstkey::dukpt::{AesInitialKeyId, KeyKind, TdesInitialKeyId};
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{
    Direction, ExportInitialKeyRequest, ExportInitialKeyResponse, KeyAttributes, KeyState,
    MacAlgorithm as Word, SetKeyStateRequest, VerifyMacRequest,
};
use firstkey::key::usage::{BaseDerivation, KeyEncryption, MacGeneration, PinEncryption};
use firstkey::key::{Algorithm, Key};
use firstkey::keyblock::Header;
use firstkey::mac::MacAlgorithm;
use tonic::Status;

use crate::harness::{HOUR, Service, answer};
use crate::known::{self, Known, dukpt, expect_field, expect_reason, open_b, open_d, status_of};
use crate::pins::restarted;

const SET: [u8; 4] = [0xF1, 0xF2, 0xF3, 0xF4];
const TDES_SET: [u8; 5] = [0xFF, 0xFF, 0xF1, 0xF2, 0xF3];

fn open(key_set_id: &[u8]) -> KeyAttributes {
    let key_set_id = key_set_id.to_vec();
    KeyAttributes { key_set_id, open: true, ..KeyAttributes::default() }
}

/// A base derivation key that the test knows, `keys/bdk`, open to terminals of facilities.
async fn with_bdk(service: &Service) -> Known<BaseDerivation> {
    let bdk = Known::generate(Algorithm::Aes128);
    bdk.import_with(service, "bdk", "B0AX00N", open(&SET)).await;
    bdk
}

fn export(bdk: &str, wrapping_key: &str) -> ExportInitialKeyRequest {
    ExportInitialKeyRequest {
        request_id: request_id(),
        base_derivation_key: format!("keys/{bdk}"),
        wrapping_key: format!("keys/{wrapping_key}"),
    }
}

async fn call(
    service: &Service,
    request: &ExportInitialKeyRequest,
) -> Result<ExportInitialKeyResponse, Status> {
    Ok(service.client.keys().export_initial_key(request.clone()).await?.into_inner())
}

async fn exported(service: &Service) -> ExportInitialKeyResponse {
    call(service, &export("bdk", "dev-kek")).await.expect("an initial key leaves")
}

async fn move_to(service: &Service, id: &str, state: KeyState) {
    let (name, state) = (format!("keys/{id}"), state.into());
    let request = SetKeyStateRequest { request_id: request_id(), name, state, serve_until: None };
    answer(service.client.keys().set_key_state(request).await);
}

/// A purchase of a terminal that was loaded elsewhere, as its backend has it verified.
async fn verify(
    service: &Service,
    ksn: &[u8],
    key: &Key<MacGeneration>,
    (word, algorithm): (Word, MacAlgorithm),
) -> Result<(), Status> {
    let request = VerifyMacRequest {
        key: dukpt(ksn),
        direction: Direction::Request.into(),
        algorithm: word.into(),
        message: b"pay".to_vec(),
        mac: key.generate_mac(algorithm, b"pay", 8).unwrap().bytes().to_vec(),
        ..VerifyMacRequest::default()
    };
    service.client.macs().verify_mac(request).await.map(drop)
}

#[tokio::test]
async fn an_aes_key_leaves_for_a_facility_and_its_terminal_is_served() {
    let service = Service::start().await;
    let bdk = with_bdk(&service).await;
    for device in 0..3 {
        let left = exported(&service).await;
        let id = [SET, [0, 0, 0, device]].concat();
        assert_eq!(left.initial_key_id, id);
        let (header, _) = Header::parse(&left.key_block).unwrap();
        assert_eq!((header.usage, header.algorithm, header.mode), (*b"B1", b'A', b'X'));
        assert_eq!((header.exportability, left.key_block.as_bytes()[0]), (b'N', b'D'));
        assert_eq!(header.find(*b"IK"), Some(HEXUPPER.encode(&id).as_str()));
        let bytes = open_d(&known::dev().kek, &left.key_block);
        assert_eq!(left.check_value, aes_cmac(&bytes, &[0; 16]).unwrap()[..5]);
        // Loaded elsewhere: from now on the terminal has its counters, and the service the rest.
        let id = AesInitialKeyId::parse(&id).unwrap();
        let initial = bdk.key.aes_initial_key(id).unwrap();
        assert_eq!(initial.key().check_value().bytes(), left.check_value);
        let ksn = id.ksn(1).unwrap();
        let key = initial.working_key(&ksn, KeyKind::Aes128).unwrap();
        let cmac = (Word::AesCmac, MacAlgorithm::AesCmac);
        verify(&service, ksn.bytes(), &key, cmac).await.expect("it is served");
    }
    let events = service.vault.events_after(0, 1_000).await.unwrap();
    let event = events.iter().rfind(|event| event.action == "ExportInitialKey").unwrap();
    assert_eq!((event.resource.as_str(), event.is_done()), ("keys/bdk", true));
    assert_eq!(event.detail["initial_key_id"], "F1F2F3F400000002");
    assert_eq!(event.detail["wrapping_key"], "keys/dev-kek");
    let keys: Vec<&str> = event.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(keys, ["keys/dev-kek/versions/1", "keys/bdk/versions/1"]);
}

#[tokio::test]
async fn a_tdes_key_leaves_under_either_family() {
    let service = Service::start().await;
    let bdk = Known::<BaseDerivation>::generate(Algorithm::Tdes2);
    bdk.import_with(&service, "bdk-tdes", "B0TX00N", open(&TDES_SET)).await;
    for (device, wrapping_key) in [(0, "dev-kek-tdes"), (1, "dev-kek")] {
        let left = call(&service, &export("bdk-tdes", wrapping_key)).await.unwrap();
        let id = TdesInitialKeyId::new(TDES_SET, device).unwrap();
        assert_eq!(left.initial_key_id, id.bytes());
        let (header, _) = Header::parse(&left.key_block).unwrap();
        assert_eq!((header.usage, header.algorithm, header.mode), (*b"B1", b'T', b'X'));
        assert_eq!(header.find(*b"KS"), Some(HEXUPPER.encode(id.bytes()).as_str()));
        let bytes = match left.key_block.as_bytes()[0] {
            b'B' => open_b(&known::dev().kek_tdes, &left.key_block),
            _ => open_d(&known::dev().kek, &left.key_block),
        };
        let mut zeros = [0; 8];
        Tdes::new(&bytes).unwrap().encrypt_block(&mut zeros);
        assert_eq!(left.check_value, zeros[..3]);
        let initial = bdk.key.tdes_initial_key(id).unwrap();
        assert_eq!(initial.key().check_value().bytes(), left.check_value);
        let ksn = id.ksn(1).unwrap();
        let key = initial.working_key(&ksn).unwrap();
        let cmac = (Word::TdesCmac, MacAlgorithm::TdesCmac);
        verify(&service, ksn.bytes(), &key, cmac).await.expect("it is served");
    }
}

#[tokio::test]
async fn what_may_give_out_no_key_gives_none_and_takes_no_id() {
    let service = Service::start().await;
    let bdk = with_bdk(&service).await;
    let closed = KeyAttributes { open: false, ..open(&[1; 4]) };
    bdk.import_with(&service, "closed", "B0AX00N", closed).await;
    bdk.import_with(&service, "nameless", "B0AX00N", open(&[])).await;
    let seconds = i64::try_from(service.now()).unwrap() - 1;
    let expire_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
    let expired = KeyAttributes { expire_time, ..open(&[2; 4]) };
    bdk.import_with(&service, "expired", "B0AX00N", expired).await;
    let long = Known::<BaseDerivation>::generate(Algorithm::Aes256);
    long.import_with(&service, "suspended", "B0AX00N", open(&[3; 4])).await;
    long.import_with(&service, "long", "B0AX00N", open(&[4; 4])).await;
    move_to(&service, "suspended", KeyState::Suspended).await;
    let kek = Known::<KeyEncryption>::generate(Algorithm::Aes128);
    kek.import(&service, "short-kek", "K0AB00N").await;
    kek.import(&service, "inbound-kek", "K0AD00N").await;
    Known::<PinEncryption>::generate(Algorithm::Aes128).import(&service, "pin", "P0AB00N").await;
    for (bdk, wrapping_key, reason) in [
        ("closed", "dev-kek", "KEY_USAGE_MISMATCH"),
        ("dev-bdk-aes", "dev-kek", "KEY_USAGE_MISMATCH"),
        ("nameless", "dev-kek", "KEY_USAGE_MISMATCH"),
        ("pin", "dev-kek", "KEY_USAGE_MISMATCH"),
        ("nobody", "dev-kek", "KEY_NOT_FOUND"),
        ("expired", "dev-kek", "KEY_NOT_ACTIVE"),
        ("suspended", "dev-kek", "KEY_NOT_ACTIVE"),
        ("bdk", "dev-kek-tdes", "WRAPPING_KEY_TOO_WEAK"),
        ("long", "short-kek", "WRAPPING_KEY_TOO_WEAK"),
        ("bdk", "inbound-kek", "KEY_USAGE_MISMATCH"),
        ("bdk", "pin", "KEY_USAGE_MISMATCH"),
        ("bdk", "bdk", "KEY_USAGE_MISMATCH"),
        ("bdk", "nobody", "KEY_NOT_FOUND"),
    ] {
        let refused = status_of(call(&service, &export(bdk, wrapping_key)).await);
        assert_eq!(known::reason_of(&refused), reason, "{bdk} under {wrapping_key}");
    }
    assert_eq!(exported(&service).await.initial_key_id, [SET, [0; 4]].concat());
    move_to(&service, "short-kek", KeyState::Suspended).await;
    let refused = status_of(call(&service, &export("bdk", "short-kek")).await);
    expect_reason(&refused, "KEY_NOT_ACTIVE");
    let good = || export("bdk", "dev-kek");
    for (path, request) in [
        ("request_id", ExportInitialKeyRequest { request_id: "1".into(), ..good() }),
        (
            "base_derivation_key",
            ExportInitialKeyRequest { base_derivation_key: "bdk".into(), ..good() },
        ),
        ("wrapping_key", ExportInitialKeyRequest { wrapping_key: String::new(), ..good() }),
    ] {
        expect_field(&status_of(call(&service, &request).await), path);
    }
}

#[tokio::test]
async fn a_request_is_answered_once_more_while_its_keys_are_active() {
    let service = Service::start().await;
    with_bdk(&service).await;
    let request = export("bdk", "dev-kek");
    let first = call(&service, &request).await.unwrap();
    assert!(call(&service, &request).await.unwrap() == first);
    let wrapping_key = "keys/dev-kek-tdes".to_owned();
    let reused = ExportInitialKeyRequest { wrapping_key, ..request.clone() };
    expect_reason(&status_of(call(&service, &reused).await), "REQUEST_ID_REUSED");
    // After a day it is another request, which gets another id.
    service.clock.advance(24 * HOUR + 1);
    let other = call(&service, &request).await.unwrap();
    assert_ne!(other.initial_key_id, first.initial_key_id);
    // Both keys are looked at before the kept answer leaves.
    for id in ["dev-kek", "bdk"] {
        move_to(&service, id, KeyState::Suspended).await;
        expect_reason(&status_of(call(&service, &request).await), "KEY_NOT_ACTIVE");
        move_to(&service, id, KeyState::Active).await;
        assert!(call(&service, &request).await.unwrap() == other);
    }
    move_to(&service, "dev-kek", KeyState::Compromised).await;
    expect_reason(&status_of(call(&service, &request).await), "KEY_NOT_ACTIVE");
}

#[tokio::test]
async fn ids_are_given_once_over_a_restart_up_to_the_cap() {
    let service = Service::start_durable().await;
    let attributes = KeyAttributes { device_cap: 40, ..open(&SET) };
    let bdk = Known::<BaseDerivation>::generate(Algorithm::Aes128);
    bdk.import_with(&service, "bdk", "B0AX00N", attributes).await;
    let mut given = HashSet::new();
    let (one, other) = tokio::join!(exported(&service), exported(&service));
    given.extend([one.initial_key_id, other.initial_key_id]);
    given.insert(exported(&service).await.initial_key_id);
    assert_eq!(given.len(), 3);

    let service = restarted(service).await;
    // A restart loses the rest of a lease; nothing comes twice.
    let mut more = 0;
    let refused = loop {
        match call(&service, &export("bdk", "dev-kek")).await {
            Ok(left) => {
                assert!(given.insert(left.initial_key_id), "an id was given twice");
                more += 1;
            }
            Err(refused) => break refused,
        }
    };
    expect_reason(&refused, "KSN_EXHAUSTED");
    assert!((1..=37).contains(&more), "{more}");
}
