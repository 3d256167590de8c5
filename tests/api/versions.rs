//! Versions of keys over the API: who stays with which, what is listed, what is signed when one is
//! destroyed, and what a compromised one takes with it.

use std::collections::BTreeMap;

use firstkey::agreement::Suite;
use firstkey::grpc::client::{Refusal, request_id};
use firstkey::grpc::proto::{
    self, CreateKeyRequest, GetDestructionCertificateRequest, GetKeyRequest, ImportKeyRequest, Key,
    KeyAlgorithm, KeyAttributes, KeyFilter, KeyOrigin, KeyState, KeyUsage, ListKeyVersionsRequest,
    ListKeysRequest, ListTerminalsRequest, PinBlockFormat, RotateKeyRequest, SetKeyStateRequest,
    SetKeyStateResponse, SetPrimaryVersionRequest, TranslatePinRequest, UpdateKeyRequest,
};
use firstkey::key::Algorithm;
use firstkey::key::usage::{KeyEncryption, PinEncryption};
use firstkey::server::simulation::verify_request;
use firstkey::vault::{DestructionCertificate, VerifierKey};
use prost_types::{FieldMask, Timestamp};
use tonic::Status;

use crate::harness::{HOUR, Service, Till, answer};
use crate::known::{
    Known, PAN, PIN, dukpt_of, expect_field, expect_reason, import_request, pin_block, pin_of,
    random, status_of, stored, wrap_d,
};
use crate::lookup::lookup;
use crate::transactions::verify;

const AES: Suite = Suite::P256Aes128;

fn create(id: &str, usage: KeyUsage, attributes: KeyAttributes) -> CreateKeyRequest {
    CreateKeyRequest {
        request_id: request_id(),
        key_id: id.to_owned(),
        usage: usage.into(),
        algorithm: KeyAlgorithm::Aes128.into(),
        attributes: Some(attributes),
        ..CreateKeyRequest::default()
    }
}

async fn made(service: &Service, request: CreateKeyRequest) -> Key {
    answer(service.client.keys().create_key(request).await).key.unwrap()
}

fn rotation(id: &str) -> RotateKeyRequest {
    let name = format!("keys/{id}");
    RotateKeyRequest { request_id: request_id(), name, ..RotateKeyRequest::default() }
}

async fn rotated(service: &Service, request: RotateKeyRequest) -> Result<Key, Status> {
    Ok(service.client.keys().rotate_key(request).await?.into_inner().key.unwrap())
}

async fn set_primary(service: &Service, name: &str) -> Result<Key, Status> {
    let request = SetPrimaryVersionRequest { request_id: request_id(), name: name.to_owned() };
    Ok(service.client.keys().set_primary_version(request).await?.into_inner().key.unwrap())
}

async fn set_state(
    service: &Service,
    name: &str,
    state: KeyState,
) -> Result<SetKeyStateResponse, Status> {
    let request = SetKeyStateRequest {
        request_id: request_id(),
        name: name.to_owned(),
        state: state.into(),
        serve_until: None,
    };
    Ok(service.client.keys().set_key_state(request).await?.into_inner())
}

async fn get(service: &Service, name: &str) -> Result<Key, Status> {
    let request = GetKeyRequest { name: name.to_owned() };
    Ok(service.client.keys().get_key(request).await?.into_inner().key.unwrap())
}

/// All pages of a list, each of two rows at most: names and versions.
async fn listed(service: &Service, filter: KeyFilter) -> Vec<(String, u32)> {
    let (mut rows, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListKeysRequest { page_size: 2, page_token, filter: Some(filter.clone()) };
        let page = answer(service.client.keys().list_keys(request).await);
        assert!(page.keys.len() <= 2);
        let row = |key: Key| (key.name.replace("keys/", ""), key.version);
        rows.extend(page.keys.into_iter().map(row));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return rows;
        }
    }
}

fn translation(source: &str, destination: &str, pin_block: Vec<u8>) -> TranslatePinRequest {
    TranslatePinRequest {
        source: stored(source),
        source_format: PinBlockFormat::Iso4.into(),
        pin_block,
        destination: stored(destination),
        destination_format: PinBlockFormat::Iso4.into(),
        pan: PAN.to_owned(),
        ..TranslatePinRequest::default()
    }
}

#[tokio::test]
async fn a_zone_key_that_a_partner_rotates_opens_old_and_new_pin_blocks() {
    let service = Service::start().await;
    let old = Known::<PinEncryption>::generate(Algorithm::Aes128);
    old.import(&service, "zone", "P0AB00E").await;
    let own = Known::<PinEncryption>::generate(Algorithm::Aes128);
    own.import(&service, "own", "P0AB00E").await;
    let kek = Known::<KeyEncryption>::generate(Algorithm::Aes256);
    kek.import(&service, "partner-kek", "K0AB00E").await;
    let new = random(16);
    let block = wrap_d(&kek.bytes, "P0AB00E0000", &new);
    let next = ImportKeyRequest {
        next_version: true,
        keep_primary: true,
        ..import_request("zone", &block, "keys/partner-kek")
    };
    let key = answer(service.client.keys().import_key(next.clone()).await).key.unwrap();
    assert_eq!((key.version, key.primary_version, key.latest_version), (2, 1, 2));
    assert_eq!(key.name, "keys/zone");
    assert!(key.origin() == KeyOrigin::Imported && key.state() == KeyState::Active);
    let again = answer(service.client.keys().import_key(next).await).key.unwrap();
    assert!(again == key, "the same request makes one version");

    let translate = async |source: &str, bytes: &[u8]| {
        let request = translation(source, "own", pin_block(4, bytes, PIN, PAN));
        let translated = service.client.pins().translate_pin(request).await;
        let found = translated.map_err(Refusal::from)?.into_inner().pin_block;
        Ok::<_, Refusal>(pin_of(4, &own.bytes, &found, PAN))
    };
    assert_eq!(translate("zone", &old.bytes).await.unwrap(), PIN);
    assert_eq!(translate("zone/versions/2", &new).await.unwrap(), PIN);
    set_primary(&service, "keys/zone/versions/2").await.unwrap();
    assert_eq!(translate("zone", &new).await.unwrap(), PIN);
    assert_eq!(translate("zone/versions/1", &old.bytes).await.unwrap(), PIN);
    assert_eq!(translate("zone", &old.bytes).await.unwrap_err().reason, "PIN_BLOCK_REJECTED");
    let event = service.vault.events_after(0, 1_000).await.unwrap().pop().unwrap();
    assert!(event.keys.iter().any(|key| key.name == "keys/zone/versions/2"));

    // The former one serves as its state says, and no longer.
    set_state(&service, "keys/zone/versions/1", KeyState::Deactivated).await.unwrap();
    assert_eq!(translate("zone/versions/1", &old.bytes).await.unwrap(), PIN);
    set_state(&service, "keys/zone/versions/1", KeyState::Destroyed).await.unwrap();
    let refused = translate("zone/versions/1", &old.bytes).await.unwrap_err();
    assert_eq!(refused.reason, "KEY_NOT_ACTIVE");
    assert_eq!(translate("zone", &new).await.unwrap(), PIN);
}

async fn till(service: &Service, id: &str) -> Till {
    let mut till = service.register_under(id, AES, "retail").await;
    let code = service.issue_code(id).await;
    till.activate(service, Some(code)).await.unwrap();
    service.enable(id).await.unwrap();
    till
}

/// The terminals whose serving keys come from a key or version.
async fn under(service: &Service, name: &str) -> Vec<String> {
    let base_derivation_key = format!("keys/{name}");
    let request = ListTerminalsRequest { base_derivation_key, ..Default::default() };
    let listed = answer(service.client.terminals().list_terminals(request).await).terminals;
    listed.into_iter().map(|one| one.name.replace("terminals/", "")).collect()
}

#[tokio::test]
async fn terminals_stay_with_the_version_that_their_keys_come_from() {
    let service = Service::start_durable().await;
    let of_set = |number| KeyAttributes { key_set_id: vec![number; 4], ..Default::default() };
    made(&service, create("bdk-1", KeyUsage::BaseDerivation, of_set(0xB1))).await;
    let name = || "keys/bdk-1".to_owned();
    service.profile("retail", |profile| profile.base_derivation_key = name()).await;
    let mut old = till(&service, "old").await;
    let mut moves = till(&service, "moves").await;
    let rotate = RotateKeyRequest { key_set_id: vec![0xB2; 4], ..rotation("bdk-1") };
    let second = rotated(&service, rotate.clone()).await.unwrap();
    assert_eq!((second.version, second.primary_version), (2, 2));
    assert!(rotated(&service, rotate).await.unwrap() == second, "the same request makes one");
    assert_eq!(second.attributes.as_ref().unwrap().key_set_id, [0xB2; 4]);
    let missing = status_of(rotated(&service, rotation("bdk-1")).await);
    expect_field(&missing, "key_set_id");
    let taken = RotateKeyRequest { key_set_id: vec![0xB1; 4], ..rotation("bdk-1") };
    expect_reason(&status_of(rotated(&service, taken).await), "KEY_ALREADY_EXISTS");

    // New terminals have keys of the new version; each is served, found, and listed with its own.
    let mut new = till(&service, "new").await;
    for (till, id, version, other) in [(&mut old, "old", 1, 2), (&mut new, "new", 2, 1)] {
        let payment = till.purchase(&service);
        let version = format!("keys/bdk-1/versions/{version}");
        let other = format!("keys/bdk-1/versions/{other}");
        let found = lookup(&service, payment.ksn.bytes()).await;
        assert_eq!(found.terminal, format!("terminals/{id}"));
        assert_eq!(found.base_derivation_key, version);
        verify(&service, &payment).await.unwrap();
        // Named without a version the key is that of the KSN; with another version it is not.
        let mac = |name: &str| proto::VerifyMacRequest {
            key: dukpt_of(name, payment.ksn.bytes()),
            ..verify_request(&payment)
        };
        for name in ["keys/bdk-1", version.as_str()] {
            answer(service.client.macs().verify_mac(mac(name)).await);
        }
        let refused = status_of(service.client.macs().verify_mac(mac(&other)).await);
        expect_reason(&refused, "KEY_USAGE_MISMATCH");
    }
    assert_eq!(under(&service, "bdk-1").await.len(), 3);
    assert_eq!(under(&service, "bdk-1/versions/2").await, ["new"]);
    let mut former = under(&service, "bdk-1/versions/1").await;
    former.sort();
    assert_eq!(former, ["moves", "old"]);

    // A re-key takes a terminal over; what stays is refused once its version is out of use.
    service.must(firstkey::activation::Call::StartRekey, "moves").await;
    moves.take_keys(&service, None).await.unwrap();
    assert!(service.get("moves").await.initial_key_id.starts_with(&[0xB2; 4]));
    set_state(&service, "keys/bdk-1/versions/1", KeyState::Deactivated).await.unwrap();
    service.clock.advance(2 * HOUR);
    verify(&service, &moves.purchase(&service)).await.unwrap();
    verify(&service, &new.purchase(&service)).await.unwrap();
    let refused = verify(&service, &old.purchase(&service)).await.unwrap_err();
    assert_eq!(refused.reason, "KEY_NOT_ACTIVE");
    assert!(service.get("old").await.rekey_due && !service.get("new").await.rekey_due);
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn keys_are_found_by_what_they_are_and_by_their_labels() {
    let service = Service::start().await;
    let none = KeyAttributes::default;
    let bdk = KeyAttributes { key_set_id: vec![0xC1; 4], ..none() };
    made(&service, create("l-bdk", KeyUsage::BaseDerivation, bdk)).await;
    let zone = CreateKeyRequest {
        labels: labels(&[("partner", "visa"), ("zone", "1")]),
        ..create("l-zone", KeyUsage::PinEncryption, none())
    };
    let zone = made(&service, zone).await;
    assert_eq!(zone.labels, labels(&[("partner", "visa"), ("zone", "1")]));
    let other = CreateKeyRequest {
        labels: labels(&[("partner", "other")]),
        pre_active: true,
        ..create("l-other", KeyUsage::MacCmac, none())
    };
    assert!(made(&service, other).await.state() == KeyState::PreActive);
    rotated(&service, rotation("l-zone")).await.unwrap();

    let mut wanted = vec![("l-zone".to_owned(), 2)];
    let partner = || KeyFilter { labels: labels(&[("partner", "visa")]), ..Default::default() };
    assert_eq!(listed(&service, partner()).await, wanted);
    let every = KeyFilter { every_version: true, ..partner() };
    wanted.insert(0, ("l-zone".to_owned(), 1));
    assert_eq!(listed(&service, every).await, wanted);
    let both = KeyFilter { labels: labels(&[("partner", "visa"), ("zone", "2")]), ..partner() };
    assert_eq!(listed(&service, both).await, []);
    let one = |name: &str, version| vec![(name.to_owned(), version)];
    let check_value = zone.check_value[..3].to_vec();
    for (filter, expected) in [
        (KeyFilter { state: KeyState::PreActive.into(), ..Default::default() }, one("l-other", 1)),
        (KeyFilter { key_set_id: vec![0xC1; 4], ..Default::default() }, one("l-bdk", 1)),
        (KeyFilter { check_value, every_version: true, ..Default::default() }, one("l-zone", 1)),
        (
            KeyFilter {
                usage: KeyUsage::PinEncryption.into(),
                algorithm: KeyAlgorithm::Aes128.into(),
                origin: KeyOrigin::Generated.into(),
                ..Default::default()
            },
            one("l-zone", 2),
        ),
    ] {
        assert_eq!(listed(&service, filter).await, expected);
    }

    // Labels are of the key: a former version shows the new ones too.
    let update = |labels, paths: &[&str]| UpdateKeyRequest {
        request_id: request_id(),
        key: Some(Key { name: "keys/l-zone".into(), labels, ..Key::default() }),
        update_mask: Some(FieldMask { paths: paths.iter().map(|&path| path.into()).collect() }),
    };
    let mut keys = service.client.keys();
    let changed = answer(keys.update_key(update(labels(&[("zone", "")]), &["labels"])).await);
    assert_eq!((changed.key.unwrap().version, listed(&service, partner()).await.len()), (2, 0));
    let former = get(&service, "keys/l-zone/versions/1").await.unwrap();
    assert_eq!((former.labels, former.version), (labels(&[("zone", "")]), 1));
    let many = (0..17).map(|number| (format!("l{number}"), String::new())).collect();
    let long = "x".repeat(64);
    for (path, bad) in [
        ("key.labels", update(many, &["labels"])),
        ("key.labels", update(labels(&[("Upper", "")]), &["labels"])),
        ("key.labels", update(labels(&[("1", "")]), &["labels"])),
        ("key.labels", update(labels(&[("", "")]), &["labels"])),
        ("key.labels", update(labels(&[(&long, "")]), &["labels"])),
        ("key.labels", update(labels(&[("a", &long)]), &["labels"])),
        ("key.labels", update(labels(&[("a", "\u{7}")]), &["labels"])),
        ("update_mask", update(labels(&[]), &[])),
        ("update_mask", update(labels(&[]), &["state"])),
        ("update_mask", update(labels(&[]), &["labels", "labels"])),
    ] {
        expect_field(&status_of(keys.update_key(bad).await), path);
    }
}

#[tokio::test]
async fn versions_are_listed_named_and_bounded() {
    let service = Service::start().await;
    made(&service, create("v", KeyUsage::MacCmac, KeyAttributes::default())).await;
    for keep_primary in [true, false, true] {
        rotated(&service, RotateKeyRequest { keep_primary, ..rotation("v") }).await.unwrap();
    }
    let (mut versions, mut page_token) = (Vec::new(), String::new());
    loop {
        let (name, page_size) = ("keys/v".to_owned(), 3);
        let request = ListKeyVersionsRequest { name, page_size, page_token };
        let page = answer(service.client.keys().list_key_versions(request).await);
        versions.extend(page.keys.iter().map(|key| (key.version, key.primary_version)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(versions, [(1, 3), (2, 3), (3, 3), (4, 3)]);
    assert_eq!(get(&service, "keys/v").await.unwrap().version, 3);
    assert_eq!(get(&service, "keys/v/versions/4").await.unwrap().version, 4);
    expect_reason(&status_of(get(&service, "keys/v/versions/5").await), "KEY_NOT_FOUND");
    for bad in ["keys/v/versions", "keys/v/versions/0", "keys/v/versions/04", "keys/v/versions/x"] {
        expect_field(&status_of(get(&service, bad).await), "name");
    }
    for bad in ["keys/v", "v/versions/1"] {
        expect_field(&status_of(set_primary(&service, bad).await), "name");
    }
    // What is about the key as a whole is not about a version of it.
    let of_version = RotateKeyRequest { name: "keys/v/versions/1".into(), ..rotation("v") };
    expect_field(&status_of(rotated(&service, of_version).await), "name");
    let vague = status_of(set_state(&service, "keys/v", KeyState::Suspended).await);
    expect_field(&vague, "name");
    let ahead = i64::try_from(service.now()).unwrap() + 60;
    let not_before = Some(Timestamp { seconds: ahead, nanos: 0 });
    let early = RotateKeyRequest { not_before, ..rotation("v") };
    expect_field(&status_of(rotated(&service, early.clone()).await), "not_before");
    let kept = RotateKeyRequest { keep_primary: true, request_id: request_id(), ..early };
    let kept = rotated(&service, kept).await.unwrap();
    assert_eq!((kept.version, kept.primary_version), (5, 3));
    expect_reason(&status_of(set_primary(&service, "keys/v/versions/5").await), "KEY_NOT_ACTIVE");
    service.clock.advance(61);
    assert_eq!(set_primary(&service, "keys/v/versions/5").await.unwrap().primary_version, 5);
    for (path, request) in [
        (
            "keep_primary",
            ImportKeyRequest { keep_primary: true, ..import_request("i", "D", "keys/k") },
        ),
        (
            "labels",
            ImportKeyRequest {
                next_version: true,
                labels: BTreeMap::from([("a".into(), "b".into())]),
                ..import_request("i", "D", "keys/k")
            },
        ),
    ] {
        expect_field(&status_of(service.client.keys().import_key(request).await), path);
    }
}

#[tokio::test]
async fn a_key_that_is_not_in_use_yet_does_nothing() {
    let service = Service::start().await;
    let request = create("soon", KeyUsage::MacCmac, KeyAttributes::default());
    made(&service, CreateKeyRequest { pre_active: true, ..request }).await;
    let generate = || proto::GenerateMacRequest {
        key: stored("soon"),
        algorithm: proto::MacAlgorithm::AesCmac.into(),
        message: vec![1],
        mac_length_bytes: 8,
        ..proto::GenerateMacRequest::default()
    };
    let mut macs = service.client.macs();
    expect_reason(&status_of(macs.generate_mac(generate()).await), "KEY_NOT_ACTIVE");
    let verify = proto::VerifyMacRequest {
        key: stored("soon"),
        algorithm: proto::MacAlgorithm::AesCmac.into(),
        message: vec![1],
        mac: vec![0; 8],
        ..proto::VerifyMacRequest::default()
    };
    expect_reason(&status_of(macs.verify_mac(verify).await), "KEY_NOT_ACTIVE");
    let leaves = proto::ExportKeyRequest {
        request_id: request_id(),
        name: "keys/soon".into(),
        wrapping_key: "keys/dev-kek".into(),
        ..proto::ExportKeyRequest::default()
    };
    let refused = status_of(service.client.keys().export_key(leaves).await);
    expect_reason(&refused, "POLICY_DENIED");
    set_state(&service, "keys/soon", KeyState::Active).await.unwrap();
    answer(macs.generate_mac(generate()).await);
}

#[tokio::test]
async fn a_destroyed_key_has_a_certificate_that_verifies_without_the_service() {
    let service = Service::start().await;
    let key = made(&service, create("d", KeyUsage::MacCmac, KeyAttributes::default())).await;
    let ask = async || {
        let request = GetDestructionCertificateRequest { name: "keys/d".into() };
        service.client.keys().get_destruction_certificate(request).await
    };
    expect_reason(&status_of(ask().await), "KEY_NOT_ACTIVE");
    for state in [KeyState::Deactivated, KeyState::Destroyed] {
        set_state(&service, "keys/d", state).await.unwrap();
    }
    let made = answer(ask().await);
    assert!(answer(ask().await) == made, "it is the same each time");
    let log = service.vault.checkpoint().await.unwrap().verifier_key;
    assert_eq!(made.verifier_key, log);
    let log = VerifierKey::parse(&log).unwrap();
    let lines = DestructionCertificate::open(&made.certificate, &log).unwrap();
    let shown = data_encoding::HEXUPPER.encode(&key.check_value);
    assert!(lines.contains(&("key".to_owned(), "keys/d/versions/1".to_owned())));
    assert!(lines.contains(&("check_value".to_owned(), shown)));
}

#[tokio::test]
async fn what_a_compromised_key_carried_is_refused_at_once_and_listed() {
    let service = Service::start_durable().await;
    let kek = Known::<KeyEncryption>::generate(Algorithm::Aes256);
    kek.import(&service, "kek-0", "K0AB00E").await;
    let below = Known::<KeyEncryption>::generate(Algorithm::Aes128);
    let block = wrap_d(&kek.bytes, "K0AB00E0000", &below.bytes);
    let import = import_request("kek-1", &block, "keys/kek-0");
    answer(service.client.keys().import_key(import).await);
    let pin = random(16);
    let block = wrap_d(&below.bytes, "P0AB00E0000", &pin);
    let import = import_request("pin-1", &block, "keys/kek-1");
    answer(service.client.keys().import_key(import).await);
    let own = Known::<PinEncryption>::generate(Algorithm::Aes128);
    own.import(&service, "own", "P0AB00E").await;
    let translate = async || {
        let request = translation("pin-1", "own", pin_block(4, &pin, PIN, PAN));
        service.client.pins().translate_pin(request).await
    };
    answer(translate().await);

    let told = set_state(&service, "keys/kek-0", KeyState::Compromised).await.unwrap();
    assert_eq!(told.exposed_versions, 2);
    expect_reason(&status_of(translate().await), "KEY_NOT_ACTIVE");
    let through = "keys/kek-0/versions/1";
    let filter = KeyFilter {
        compromised_through: through.to_owned(),
        every_version: true,
        ..KeyFilter::default()
    };
    assert_eq!(listed(&service, filter).await, [("kek-1".into(), 1), ("pin-1".into(), 1)]);
    let exposed = get(&service, "keys/pin-1").await.unwrap();
    assert_eq!(exposed.compromised_through, [through]);
    assert!(exposed.state() == KeyState::Compromised);
    assert!(get(&service, "keys/own").await.unwrap().state() == KeyState::Active);
    let bad = KeyFilter { compromised_through: "keys/kek-0".into(), ..KeyFilter::default() };
    let request = ListKeysRequest { filter: Some(bad), ..ListKeysRequest::default() };
    let refused = status_of(service.client.keys().list_keys(request).await);
    expect_field(&refused, "filter.compromised_through");
}
