//! `KeyService`: keys are made, brought, taken out and retired, and every way around the rules is
//! closed.

use data_encoding::HEXUPPER;
use firstkey::crypto::aes::Aes;
use firstkey::crypto::cmac::aes_cmac;
use firstkey::crypto::tdes::Tdes;
use firstkey::grpc::MESSAGE_LEN_BYTES_MAX;
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{
    CreateKeyRequest, ExportKeyRequest, Exportability, GenerateMacRequest, GetKeyRequest,
    ImportKeyRequest, InspectKeyBlockRequest, Key, KeyAlgorithm, KeyAttributes, KeyOrigin,
    KeyState, KeyUsage, ListKeysRequest, MacAlgorithm, ModeOfUse, PinBlockFormat,
    SetKeyStateRequest, VerifyMacRequest,
};
use firstkey::key::Algorithm;
use firstkey::key::usage::{DataBoth, KeyEncryption};
use firstkey::keyblock::Header;
use tonic::Code;

use crate::harness::Service;
use crate::known::{
    Known, dev, expect_field, expect_reason, import_request, open_b, open_d, random, reason_of,
    status_of, stored, wrap_b, wrap_d,
};

pub(crate) fn create(id: &str, usage: KeyUsage, algorithm: KeyAlgorithm) -> CreateKeyRequest {
    CreateKeyRequest {
        request_id: request_id(),
        key_id: id.to_owned(),
        usage: usage.into(),
        algorithm: algorithm.into(),
        ..CreateKeyRequest::default()
    }
}

pub(crate) async fn made(service: &Service, request: CreateKeyRequest) -> Key {
    let answer = service.client.keys().create_key(request).await;
    answer.expect("the key is made").into_inner().key.unwrap()
}

async fn exportable(service: &Service, id: &str, usage: KeyUsage, of: KeyAlgorithm) -> Key {
    let request = create(id, usage, of);
    let exportability = Exportability::Exportable.into();
    made(service, CreateKeyRequest { exportability, ..request }).await
}

pub(crate) fn export(name: &str, wrapping_key: &str) -> ExportKeyRequest {
    ExportKeyRequest {
        request_id: request_id(),
        name: format!("keys/{name}"),
        wrapping_key: format!("keys/{wrapping_key}"),
        ..ExportKeyRequest::default()
    }
}

pub(crate) async fn move_to(
    service: &Service,
    id: &str,
    state: KeyState,
) -> Result<Key, tonic::Status> {
    let request = SetKeyStateRequest {
        request_id: request_id(),
        name: format!("keys/{id}"),
        state: state.into(),
        ..SetKeyStateRequest::default()
    };
    Ok(service.client.keys().set_key_state(request).await?.into_inner().key.unwrap())
}

#[tokio::test]
async fn every_usage_is_made_with_every_algorithm_that_it_has_and_no_other() {
    use KeyAlgorithm::{
        Aes128, Aes192, Aes256, Hmac128, Hmac192, Hmac256, Hmac384, Hmac512, Tdes2, Tdes3,
    };
    let service = Service::start().await;
    let ciphers: &[KeyAlgorithm] = &[Tdes2, Tdes3, Aes128, Aes192, Aes256];
    let bases: &[KeyAlgorithm] = &[Tdes2, Aes128, Aes192, Aes256];
    let hashes: &[KeyAlgorithm] = &[Hmac128, Hmac192, Hmac256, Hmac384, Hmac512];
    let rows: [(KeyUsage, &[KeyAlgorithm], ModeOfUse); 11] = [
        (KeyUsage::BaseDerivation, bases, ModeOfUse::Derive),
        (KeyUsage::InitialDukpt, &[], ModeOfUse::Derive),
        (KeyUsage::KeyDerivation, ciphers, ModeOfUse::Derive),
        (KeyUsage::KeyEncryption, ciphers, ModeOfUse::EncryptAndDecrypt),
        (KeyUsage::KeyBlockProtection, ciphers, ModeOfUse::EncryptAndDecrypt),
        (KeyUsage::PinEncryption, ciphers, ModeOfUse::EncryptAndDecrypt),
        (KeyUsage::MacAlgorithm1, &[Tdes2, Tdes3], ModeOfUse::GenerateAndVerify),
        (KeyUsage::MacAlgorithm3, &[Tdes2], ModeOfUse::GenerateAndVerify),
        (KeyUsage::MacCmac, ciphers, ModeOfUse::GenerateAndVerify),
        (KeyUsage::MacHmac, hashes, ModeOfUse::GenerateAndVerify),
        (KeyUsage::DataEncryption, ciphers, ModeOfUse::EncryptAndDecrypt),
    ];
    let mut check_values = std::collections::BTreeSet::new();
    let mut count = 0;
    for (usage, permitted, mode) in rows {
        for algorithm in ciphers.iter().chain(hashes).copied() {
            count += 1;
            let request = create(&format!("k-{count}"), usage, algorithm);
            if !permitted.contains(&algorithm) {
                let refused = status_of(service.client.keys().create_key(request).await);
                let path = if usage == KeyUsage::InitialDukpt { "usage" } else { "algorithm" };
                expect_field(&refused, path);
                continue;
            }
            let key = made(&service, request).await;
            assert_eq!(key.name, format!("keys/k-{count}"));
            assert!((key.usage(), key.algorithm()) == (usage, algorithm));
            assert!(key.mode_of_use() == mode);
            assert!(key.exportability() == Exportability::NonExportable);
            assert!(key.state() == KeyState::Active);
            assert!(key.origin() == KeyOrigin::Generated);
            assert_eq!(key.version, 1);
            let len = if matches!(algorithm, Tdes2 | Tdes3) { 3 } else { 5 };
            assert_eq!(key.check_value.len(), len);
            assert!(check_values.insert(key.check_value.clone()), "two keys are the same");
            let request = GetKeyRequest { name: key.name.clone() };
            let found = service.client.keys().get_key(request).await.unwrap().into_inner();
            assert!(found.key == Some(key));
        }
    }
}

#[tokio::test]
async fn keys_are_listed_page_by_page_in_the_order_of_their_names() {
    let service = Service::start().await;
    for id in ["list-c", "list-a", "list-b"] {
        made(&service, create(id, KeyUsage::MacCmac, KeyAlgorithm::Aes128)).await;
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListKeysRequest { page_size: 2, page_token, filter: None };
        let page = service.client.keys().list_keys(request).await.unwrap().into_inner();
        assert!((1..=2).contains(&page.keys.len()));
        names.extend(page.keys.into_iter().map(|key| key.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(names, sorted);
    for id in ["dev-kek", "list-a", "list-b", "list-c"] {
        assert!(names.contains(&format!("keys/{id}")), "{id}");
    }
    let whole = service.client.keys().list_keys(ListKeysRequest::default()).await.unwrap();
    let whole = whole.into_inner();
    assert_eq!(whole.keys.len(), names.len());
    assert_eq!(whole.next_page_token, "");
}

#[tokio::test]
async fn each_field_of_a_new_key_is_bounded_and_named() {
    let service = Service::start().await;
    let pin = || create("bounds", KeyUsage::PinEncryption, KeyAlgorithm::Aes128);
    let of = |attributes| CreateKeyRequest { attributes: Some(attributes), ..pin() };
    let none = KeyAttributes::default;
    let id = |key_id: &str| CreateKeyRequest { key_id: key_id.to_owned(), ..pin() };
    let request = |request_id: &str| CreateKeyRequest { request_id: request_id.into(), ..pin() };
    let iso_1 = PinBlockFormat::Iso1.into();
    let iso_4 = PinBlockFormat::Iso4.into();
    let past = prost_types::Timestamp { seconds: -1, nanos: 0 };
    let bdk = create("bounds", KeyUsage::BaseDerivation, KeyAlgorithm::Aes128);
    let cases = [
        ("request_id", CreateKeyRequest::default()),
        ("request_id", request("")),
        ("request_id", request("7")),
        ("request_id", request("00000000000000000000000000000001")),
        ("request_id", request("{00000000-0000-0000-0000-00000000001}")),
        ("key_id", id("")),
        ("key_id", id("1-key")),
        ("key_id", id("Key")),
        ("key_id", id("key-")),
        ("key_id", id("key_1")),
        ("key_id", id("keys/key")),
        ("key_id", id(&"k".repeat(64))),
        ("usage", CreateKeyRequest { usage: 0, ..pin() }),
        ("usage", CreateKeyRequest { usage: 12, ..pin() }),
        ("usage", CreateKeyRequest { usage: -1, ..pin() }),
        ("algorithm", CreateKeyRequest { algorithm: 0, ..pin() }),
        ("algorithm", CreateKeyRequest { algorithm: 11, ..pin() }),
        ("mode_of_use", CreateKeyRequest { mode_of_use: 9, ..pin() }),
        ("mode_of_use", CreateKeyRequest { mode_of_use: ModeOfUse::Derive.into(), ..pin() }),
        ("exportability", CreateKeyRequest { exportability: 4, ..pin() }),
        ("attributes.pin_formats_in", of(KeyAttributes { pin_formats_in: vec![0], ..none() })),
        ("attributes.pin_formats_in", of(KeyAttributes { pin_formats_in: vec![5], ..none() })),
        ("attributes.pin_formats_out", of(KeyAttributes { pin_formats_out: vec![0], ..none() })),
        (
            "attributes.pin_formats_out",
            of(KeyAttributes { pin_formats_out: vec![iso_4, iso_4], ..none() }),
        ),
        ("attributes.pin_formats_in", of(KeyAttributes { pin_formats_in: vec![iso_1], ..none() })),
        (
            "attributes.mac_length_min_bytes",
            of(KeyAttributes { mac_length_min_bytes: 3, ..none() }),
        ),
        (
            "attributes.mac_length_min_bytes",
            of(KeyAttributes { mac_length_min_bytes: 65, ..none() }),
        ),
        (
            "attributes.mac_message_length_bytes",
            of(KeyAttributes { mac_message_length_bytes: 61_441, ..none() }),
        ),
        ("attributes.key_set_id", of(KeyAttributes { key_set_id: vec![1; 3], ..none() })),
        ("attributes.key_set_id", of(KeyAttributes { key_set_id: vec![1; 6], ..none() })),
        ("attributes.key_set_id", of(KeyAttributes { key_set_id: vec![1; 4], ..none() })),
        ("attributes.open", of(KeyAttributes { open: true, ..none() })),
        ("attributes.expire_time", of(KeyAttributes { expire_time: Some(past), ..none() })),
        (
            "attributes.key_set_id",
            CreateKeyRequest {
                attributes: Some(KeyAttributes { key_set_id: vec![1; 5], ..none() }),
                ..bdk
            },
        ),
    ];
    for (path, request) in cases {
        expect_field(&status_of(service.client.keys().create_key(request).await), path);
    }
    let found = service.client.keys().get_key(GetKeyRequest { name: "keys/bounds".into() }).await;
    expect_reason(&status_of(found), "KEY_NOT_FOUND");
    made(&service, id(&"k".repeat(63))).await;
}

#[tokio::test]
async fn each_field_of_the_other_calls_is_bounded_and_named() {
    let service = Service::start().await;
    let mut keys = service.client.keys();
    let block = wrap_d(&dev().kek, "P0AB00E0000", &random(16));
    let good = || import_request("import", &block, "keys/dev-kek");
    let text = |key_block: &str| ImportKeyRequest { key_block: key_block.to_owned(), ..good() };
    let under = |name: &str| ImportKeyRequest { wrapping_key: name.to_owned(), ..good() };
    for (path, request) in [
        ("request_id", ImportKeyRequest::default()),
        ("request_id", ImportKeyRequest { request_id: "x".into(), ..good() }),
        ("key_id", ImportKeyRequest { key_id: "-".into(), ..good() }),
        ("key_block", text("")),
        ("key_block", text(&"D".repeat(9_985))),
        ("key_block", text("D0112\u{e9}")),
        ("key_block", text("D0112\n")),
        ("wrapping_key", under("")),
        ("wrapping_key", under("dev-kek")),
        ("wrapping_key", under("terminals/dev-kek")),
        ("exportability", ImportKeyRequest { exportability: 9, ..good() }),
        (
            "attributes.open",
            ImportKeyRequest {
                attributes: Some(KeyAttributes { open: true, ..KeyAttributes::default() }),
                ..good()
            },
        ),
    ] {
        expect_field(&status_of(keys.import_key(request).await), path);
    }
    let good = || export("dev-zone-pin-aes", "dev-kek");
    for (path, request) in [
        ("request_id", ExportKeyRequest::default()),
        ("name", ExportKeyRequest { name: String::new(), ..good() }),
        ("name", ExportKeyRequest { name: "keys/a/b".into(), ..good() }),
        ("wrapping_key", ExportKeyRequest { wrapping_key: "keys/".into(), ..good() }),
        ("exportability", ExportKeyRequest { exportability: -2, ..good() }),
    ] {
        expect_field(&status_of(keys.export_key(request).await), path);
    }
    let good = || SetKeyStateRequest {
        request_id: request_id(),
        name: "keys/dev-mac".into(),
        state: KeyState::Suspended.into(),
        ..SetKeyStateRequest::default()
    };
    for (path, request) in [
        ("request_id", SetKeyStateRequest::default()),
        ("name", SetKeyStateRequest { name: "dev-mac".into(), ..good() }),
        ("state", SetKeyStateRequest { state: 0, ..good() }),
        ("state", SetKeyStateRequest { state: 7, ..good() }),
    ] {
        expect_field(&status_of(keys.set_key_state(request).await), path);
    }
    for name in ["", "keys", "keys/", "keys/UPPER", "profiles/dev-mac"] {
        let request = GetKeyRequest { name: name.to_owned() };
        expect_field(&status_of(keys.get_key(request).await), "name");
    }
    let list = |page_size, page_token: &str| {
        let page_token = page_token.to_owned();
        ListKeysRequest { page_size, page_token, filter: None }
    };
    expect_field(&status_of(keys.list_keys(list(101, "")).await), "page_size");
    expect_field(&status_of(keys.list_keys(list(0, "no token")).await), "page_token");
    for key_block in ["", "X", "F0112P0AE00E0000", "D0112P0AE00E00"] {
        let request = InspectKeyBlockRequest { key_block: key_block.to_owned() };
        expect_field(&status_of(keys.inspect_key_block(request).await), "key_block");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_there_is_not_replaced() {
    let service = Service::start().await;
    let mut keys = service.client.keys();
    let request = GetKeyRequest { name: "keys/nobody".into() };
    expect_reason(&status_of(keys.get_key(request).await), "KEY_NOT_FOUND");
    let refused = status_of(keys.export_key(export("nobody", "dev-kek")).await);
    expect_reason(&refused, "KEY_NOT_FOUND");
    let refused = status_of(keys.export_key(export("dev-zone-pin-aes", "nobody")).await);
    expect_reason(&refused, "KEY_NOT_FOUND");
    let refused = status_of(move_to(&service, "nobody", KeyState::Suspended).await);
    expect_reason(&refused, "KEY_NOT_FOUND");
    let block = wrap_d(&dev().kek, "P0AB00E0000", &random(16));
    let refused = status_of(keys.import_key(import_request("new", &block, "keys/nobody")).await);
    expect_reason(&refused, "KEY_NOT_FOUND");
    let refused = status_of(keys.import_key(import_request("new", &block, "keys/dev-mac")).await);
    expect_reason(&refused, "KEY_USAGE_MISMATCH");
    let refused =
        status_of(keys.import_key(import_request("dev-mac", &block, "keys/dev-kek")).await);
    expect_reason(&refused, "KEY_ALREADY_EXISTS");
    let again = create("dev-mac", KeyUsage::MacCmac, KeyAlgorithm::Aes128);
    let refused = status_of(keys.create_key(again).await);
    expect_reason(&refused, "KEY_ALREADY_EXISTS");
    // One key set id leads to one base derivation key.
    let attributes =
        KeyAttributes { key_set_id: vec![0x12, 0x34, 0x56, 0x78], ..KeyAttributes::default() };
    let twin = CreateKeyRequest {
        attributes: Some(attributes),
        ..create("twin", KeyUsage::BaseDerivation, KeyAlgorithm::Aes128)
    };
    let refused = status_of(keys.create_key(twin).await);
    expect_reason(&refused, "KEY_ALREADY_EXISTS");
}

#[tokio::test]
async fn a_check_value_is_that_of_the_standard_and_never_a_cipher_of_zeros_for_aes() {
    let service = Service::start().await;
    for (algorithm, id) in [(Algorithm::Tdes2, "kcv-2"), (Algorithm::Tdes3, "kcv-3")] {
        let known = Known::<DataBoth>::generate(algorithm);
        let key = known.import(&service, id, "D0TB00E").await;
        let mut zeros = [0; 8];
        Tdes::new(&known.bytes).unwrap().encrypt_block(&mut zeros);
        assert_eq!(key.check_value, zeros[..3]);
        assert!(key.origin() == KeyOrigin::Imported);
    }
    for (algorithm, id) in [
        (Algorithm::Aes128, "kcv-128"),
        (Algorithm::Aes192, "kcv-192"),
        (Algorithm::Aes256, "kcv-256"),
    ] {
        let known = Known::<DataBoth>::generate(algorithm);
        let key = known.import(&service, id, "D0AB00E").await;
        assert_eq!(key.check_value, aes_cmac(&known.bytes, &[0; 16]).unwrap()[..5]);
        let mut zeros = [0; 16];
        Aes::new(&known.bytes).unwrap().encrypt_block(&mut zeros);
        assert_ne!(key.check_value[..3], zeros[..3]);
    }
}

#[tokio::test]
async fn every_changed_character_of_a_key_block_is_rejected_with_the_same_status() {
    let service = Service::start().await;
    let mut keys = service.client.keys();
    let fields = "B0AX00E0300KS1800604B120F9292800000LB0Cmy labelPB0C00000000";
    let good = wrap_d(&dev().kek, fields, &random(16));
    let (header, header_len) = Header::parse(&good).unwrap();
    assert_eq!(header.optional().len(), 3);
    let mut rejected =
        async |block: &str| status_of(keys.import_key(import_request("block", block, KEK)).await);
    let mut other = good.clone();
    let last = other.pop().unwrap();
    other.push(if last == '0' { '1' } else { '0' });
    let expected = rejected(&other).await;
    assert_eq!(expected.code(), Code::FailedPrecondition);
    let replaced = |at: usize, with: char| {
        let mut changed: Vec<char> = good.chars().collect();
        let changed_here = changed[at] != with;
        changed[at] = with;
        changed_here.then(|| changed.into_iter().collect::<String>())
    };
    let body = [header_len, header_len + 40, good.len() - 33, good.len() - 32];
    for at in (0..header_len).chain(body) {
        for with in ['0', '9', 'B', 'z', ' '] {
            let Some(block) = replaced(at, with) else { continue };
            let status = rejected(&block).await;
            assert_eq!(status.code(), expected.code(), "{at} {with}");
            assert_eq!(status.message(), expected.message(), "{at} {with}");
            assert_eq!(status.details(), expected.details(), "{at} {with}");
        }
    }
    for block in [
        good.to_lowercase(),
        format!("{}{}", &good[..header_len], good[header_len..].to_lowercase()),
        format!("{good}00"),
        good[..good.len() - 2].to_owned(),
        good[..16].to_owned(),
        "D".to_owned(),
        wrap_d(&random(32), fields, &random(16)),
    ] {
        let status = rejected(&block).await;
        assert_eq!(status.details(), expected.details(), "{block}");
        assert_eq!(status.message(), expected.message(), "{block}");
    }
    let taken = service.client.keys().import_key(import_request("block", &good, KEK)).await;
    assert!(taken.unwrap().into_inner().key.unwrap().usage() == KeyUsage::BaseDerivation);
}

const KEK: &str = "keys/dev-kek";

#[tokio::test]
async fn a_right_mac_does_not_excuse_what_the_service_does_not_import() {
    let service = Service::start().await;
    let mut keys = service.client.keys();
    let mut weak = random(8);
    weak.extend(weak.clone());
    let (aes, tdes) = (random(16), Known::<DataBoth>::generate(Algorithm::Tdes2).bytes);
    let zero_check_value = "P0AB00E0200KC0C00000000PB040000PB";
    for (what, fields, key) in [
        ("usage that is none", "Z9AB00E0000", &aes),
        ("usage of the standard that is not served", "C0AC00E0000", &aes),
        ("initial DUKPT key", "B1AX00E0000", &aes),
        ("mode that is none", "P0AZ00E0000", &aes),
        ("mode of another usage", "P0AX00E0000", &aes),
        ("exportability that is none", "P0AB00X0000", &aes),
        ("storage context", "P0AB00E0010", &aes),
        ("reserved digit", "P0AB00E0001", &aes),
        ("algorithm that is none", "P0XB00E0000", &aes),
        ("key length that the algorithm does not have", "P0AB00E0000", &random(17)),
        ("key length that TDES does not have", "P0TB00E0000", &random(8)),
        ("CMAC key as retail MAC key", "M3AC00E0000", &aes),
        ("weak key", "P0TB00E0000", &weak),
        ("zero key", "P0TB00E0000", &vec![0; 16]),
        ("optional block that is cut", zero_check_value, &aes),
        ("duplicate optional block", "P0AB00E0200LB06abLB06cdPB140000000000000000", &aes),
        ("check value of another key", "P0AB00E0200KC0C01000000PB140000000000000000", &aes),
    ] {
        let block = wrap_d(&dev().kek, fields, key);
        let refused = status_of(keys.import_key(import_request("right", &block, KEK)).await);
        assert_eq!(reason_of(&refused), "KEY_BLOCK_REJECTED", "{what}");
    }
    let right = HEXUPPER.encode(&aes_cmac(&aes, &[0; 16]).unwrap()[..3]);
    let block = wrap_d(&dev().kek, &format!("P0AB00E0200KC0C01{right}PB140000000000000000"), &aes);
    keys.import_key(import_request("right", &block, KEK)).await.expect("its own check value");
    // Version B is for TDES keys, and their strength.
    let block = wrap_b(&dev().kek_tdes, "P0AB00E0000", &aes);
    let request = import_request("right-b", &block, "keys/dev-kek-tdes");
    let refused = status_of(keys.import_key(request).await);
    expect_reason(&refused, "WRAPPING_KEY_TOO_WEAK");
    let block = wrap_b(&dev().kek_tdes, "P0TB00E0000", &tdes);
    let request = import_request("right-b", &block, "keys/dev-kek-tdes");
    keys.import_key(request).await.expect("version B for a TDES key");
}

#[tokio::test]
async fn deprecated_and_foreign_versions_are_refused_though_their_mac_is_right() {
    let service = Service::start().await;
    let mut keys = service.client.keys();
    let (mut refused, mut taken) = (0, 0);
    for (number, example) in standard_examples().into_iter().enumerate() {
        let kbpk = HEXUPPER.decode(example.kbpk.as_bytes()).unwrap();
        let letter = if example.block.starts_with(['D', 'E']) { 'A' } else { 'T' };
        let below = wrap_d(&dev().kek, &format!("K1{letter}B00N0000"), &kbpk);
        let kbpk = format!("kbpk-{number}");
        let request = import_request(&kbpk, &below, KEK);
        keys.import_key(request).await.expect("the protection key of an example");
        let request =
            import_request(&format!("key-{number}"), &example.block, &format!("keys/{kbpk}"));
        let answer = keys.import_key(request).await;
        if example.importable {
            taken += 1;
            let key = answer.expect("an example of a version that is served").into_inner();
            let mut zeros = [0; 8];
            let bytes = HEXUPPER.decode(example.key.as_bytes()).unwrap();
            let check_value = if letter == 'A' {
                aes_cmac(&bytes, &[0; 16]).unwrap()[..5].to_vec()
            } else {
                Tdes::new(&bytes).unwrap().encrypt_block(&mut zeros);
                zeros[..3].to_vec()
            };
            assert_eq!(key.key.unwrap().check_value, check_value, "{}", example.block);
        } else {
            refused += 1;
            assert_eq!(reason_of(&status_of(answer)), "KEY_BLOCK_REJECTED", "{}", example.block);
        }
    }
    assert!(refused >= 3 && taken >= 3, "{refused} refused, {taken} taken");
}

/// A key block that a standard prints, with both its keys.
struct Example {
    kbpk: String,
    block: String,
    key: String,
    importable: bool,
}

/// The examples of TDES blocks A, B, C and of AES blocks D, and E, each once.
fn standard_examples() -> Vec<Example> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/key_blocks.json");
    let file = std::fs::read_to_string(path).unwrap();
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    let wanted = [
        ("std-tr-31-2018-a.7.2.1", false),
        ("std-tr-31-2018-a.7.2.2", true),
        ("std-tr-31-2018-a.7.3.1", false),
        ("std-tr-31-2018-a.7.3.2", true),
        ("std-tr-31-2018-a.7.4", true),
        ("std-iso-20038-2017-b.2", false),
    ];
    let vectors = file["vectors"].as_array().unwrap();
    wanted
        .into_iter()
        .map(|(id, importable)| {
            let vector = vectors.iter().find(|vector| vector["id"] == id).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            Example {
                kbpk: text(&vector["kbpk"]),
                block: text(&vector["key_block"]),
                key: text(&vector["expect"]["key"]),
                importable,
            }
        })
        .collect()
}

#[tokio::test]
async fn a_key_goes_out_and_in_again_under_aes_and_under_tdes() {
    let service = Service::start().await;
    let mut keys = service.client.keys();
    for (id, of, wrapping) in [
        ("out-aes", KeyAlgorithm::Aes256, "dev-kek"),
        ("out-tdes", KeyAlgorithm::Tdes2, "dev-kek"),
        ("out-tdes-b", KeyAlgorithm::Tdes2, "dev-kek-tdes"),
    ] {
        let made = exportable(&service, id, KeyUsage::PinEncryption, of).await;
        let exported = keys.export_key(export(id, wrapping)).await.unwrap().into_inner();
        assert_eq!(exported.check_value, made.check_value);
        assert_eq!(exported.dropped_attributes.len(), 10);
        let (header, _) = Header::parse(&exported.key_block).unwrap();
        assert_eq!((header.usage, header.exportability), (*b"P0", b'N'));
        let bytes = if wrapping == "dev-kek" {
            assert!(exported.key_block.starts_with('D'));
            open_d(&dev().kek, &exported.key_block)
        } else {
            assert!(exported.key_block.starts_with('B'));
            open_b(&dev().kek_tdes, &exported.key_block)
        };
        assert_eq!(bytes.len(), if of == KeyAlgorithm::Aes256 { 32 } else { 16 });
        let request =
            import_request(&format!("{id}-in"), &exported.key_block, &format!("keys/{wrapping}"));
        let imported = keys.import_key(request).await.unwrap().into_inner().key.unwrap();
        assert_eq!(imported.check_value, made.check_value);
        assert!(imported.algorithm() == made.algorithm());
        assert!(imported.exportability() == Exportability::NonExportable);
        assert!(imported.origin() == KeyOrigin::Imported);
    }
}

#[tokio::test]
async fn a_wrapping_key_is_as_strong_as_what_it_carries_in_either_direction() {
    use KeyAlgorithm::{Aes128, Aes192, Aes256, Tdes2, Tdes3};
    let service = Service::start().await;
    let mut keys = service.client.keys();
    // By strength in bits, not by length: 80, 112, 128, 192, 256.
    let ladder = [(Tdes2, 16), (Tdes3, 24), (Aes128, 16), (Aes192, 24), (Aes256, 32)];
    for (step, (of, _)) in ladder.into_iter().enumerate() {
        exportable(&service, &format!("carried-{step}"), KeyUsage::KeyDerivation, of).await;
    }
    for (wrapping_step, (of, len)) in ladder.into_iter().enumerate() {
        let wrapping = format!("carrier-{wrapping_step}");
        let is_tdes = matches!(of, Tdes2 | Tdes3);
        let letter = if is_tdes { 'T' } else { 'A' };
        let carrier = match (of, len) {
            (Tdes2, _) => Known::<KeyEncryption>::generate(Algorithm::Tdes2).bytes,
            (Tdes3, _) => Known::<KeyEncryption>::generate(Algorithm::Tdes3).bytes,
            _ => random(len),
        };
        let block = wrap_d(&dev().kek, &format!("K0{letter}B00N0000"), &carrier);
        keys.import_key(import_request(&wrapping, &block, KEK)).await.unwrap();
        for (step, (carried, len)) in ladder.into_iter().enumerate() {
            let weak = step > wrapping_step;
            let answer = keys.export_key(export(&format!("carried-{step}"), &wrapping)).await;
            assert_eq!(answer.is_err(), weak, "{wrapping_step} carries {step} out");
            if let Err(status) = &answer {
                expect_reason(status, "WRAPPING_KEY_TOO_WEAK");
            }
            // Version B takes TDES keys alone, so AES below it is a block that is not served.
            let letter = if matches!(carried, Tdes2 | Tdes3) { 'T' } else { 'A' };
            let bytes = match carried {
                Tdes2 => Known::<DataBoth>::generate(Algorithm::Tdes2).bytes,
                Tdes3 => Known::<DataBoth>::generate(Algorithm::Tdes3).bytes,
                _ => random(len),
            };
            let fields = format!("B3{letter}X00E0000");
            let block = if is_tdes {
                wrap_b(&carrier, &fields, &bytes)
            } else {
                wrap_d(&carrier, &fields, &bytes)
            };
            let id = format!("in-{wrapping_step}-{step}");
            let answer = keys.import_key(import_request(&id, &block, &format!("keys/{wrapping}")));
            let answer = answer.await;
            assert_eq!(answer.is_err(), weak, "{wrapping_step} carries {step} in");
            if let Err(status) = &answer {
                expect_reason(status, "WRAPPING_KEY_TOO_WEAK");
            }
        }
    }
}

#[tokio::test]
async fn exportability_only_tightens() {
    use Exportability::{Exportable, NonExportable, Sensitive, Unspecified};
    let service = Service::start().await;
    let mut keys = service.client.keys();
    let rows = [('E', Exportable), ('N', NonExportable), ('S', Sensitive)];
    for (letter, received) in rows {
        for asked in [Unspecified, Exportable, NonExportable, Sensitive] {
            let id = format!("tight-{}-{}", letter.to_ascii_lowercase(), i32::from(asked));
            let block = wrap_d(&dev().kek, &format!("P0AB00{letter}0000"), &random(16));
            let request = ImportKeyRequest {
                exportability: asked.into(),
                ..import_request(&id, &block, KEK)
            };
            let answer = keys.import_key(request).await;
            if asked == Exportable && received != Exportable {
                expect_reason(&status_of(answer), "POLICY_DENIED");
                continue;
            }
            let kept = if asked == Unspecified { received } else { asked };
            let key = answer.expect("it is not loosened").into_inner().key.unwrap();
            assert!(key.exportability() == kept);
            let answer = keys.export_key(export(&id, "dev-kek")).await;
            if kept == Exportable {
                answer.expect("an exportable key leaves");
            } else {
                expect_reason(&status_of(answer), "POLICY_DENIED");
            }
        }
    }
    exportable(&service, "said", KeyUsage::PinEncryption, KeyAlgorithm::Aes128).await;
    for (asked, letter) in
        [(Unspecified, b'N'), (NonExportable, b'N'), (Sensitive, b'S'), (Exportable, b'E')]
    {
        let request = ExportKeyRequest { exportability: asked.into(), ..export("said", "dev-kek") };
        let exported = keys.export_key(request).await.unwrap().into_inner();
        assert_eq!(Header::parse(&exported.key_block).unwrap().0.exportability, letter);
    }
}

#[tokio::test]
async fn a_key_block_is_explained_without_its_key() {
    let service = Service::start().await;
    let mut keys = service.client.keys();
    for (key_block, importable) in [
        ("D0144P0AE00E0000", true),
        ("B0080P0TE00N0000", true),
        ("A0072P0TE00E0000", false),
        ("C0096B0TX12S0100KS1800604B120F9292800000", false),
        ("E0084B0TV16N0000", false),
        ("D0144B1AX00N0000", false),
    ] {
        let request = InspectKeyBlockRequest { key_block: key_block.to_owned() };
        let told = keys.inspect_key_block(request).await.unwrap().into_inner();
        assert_eq!(told.importable, importable, "{key_block}");
        let values: String = told.fields.iter().map(|row| row.value.as_str()).collect();
        // The length is of the block, not of the key, and so is not explained.
        let fixed = format!("{}{}", &key_block[..1], &key_block[5..16]);
        assert!(values.starts_with(&fixed), "{values}");
        assert_eq!(values.contains("00604B120F9292800000"), key_block.contains("KS18"));
        assert!(told.fields.iter().all(|row| !row.field.is_empty() && !row.meaning.is_empty()));
    }
}

#[tokio::test]
async fn an_expired_key_starts_nothing_new_and_still_verifies_the_old() {
    let service = Service::start().await;
    let end = i64::try_from(service.now()).unwrap() + 60;
    let attributes = KeyAttributes {
        expire_time: Some(prost_types::Timestamp { seconds: end, nanos: 0 }),
        ..KeyAttributes::default()
    };
    let request = create("expires", KeyUsage::MacCmac, KeyAlgorithm::Aes128);
    let request = CreateKeyRequest { attributes: Some(attributes), ..request };
    assert_eq!(made(&service, request).await.attributes.unwrap().expire_time.unwrap().seconds, end);
    let generate = GenerateMacRequest {
        key: stored("expires"),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: vec![1],
        mac_length_bytes: 8,
        ..GenerateMacRequest::default()
    };
    let mac = service.client.macs().generate_mac(generate.clone()).await.unwrap().into_inner().mac;
    service.clock.advance(61);
    let refused = status_of(service.client.macs().generate_mac(generate).await);
    expect_reason(&refused, "KEY_NOT_ACTIVE");
    let verify = VerifyMacRequest {
        key: stored("expires"),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: vec![1],
        mac,
        ..VerifyMacRequest::default()
    };
    service.client.macs().verify_mac(verify).await.expect("old data is still verified");
}

#[tokio::test]
async fn a_mode_of_use_holds_within_its_usage() {
    let service = Service::start().await;
    let generate = |id: &str| GenerateMacRequest {
        key: stored(id),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: vec![1],
        mac_length_bytes: 8,
        ..GenerateMacRequest::default()
    };
    let verify = |id: &str| VerifyMacRequest {
        key: stored(id),
        algorithm: MacAlgorithm::AesCmac.into(),
        message: vec![1],
        mac: vec![0; 8],
        ..VerifyMacRequest::default()
    };
    for (id, mode, generates, verifies) in [
        ("mode-g", ModeOfUse::Generate, true, false),
        ("mode-v", ModeOfUse::Verify, false, true),
        ("mode-c", ModeOfUse::GenerateAndVerify, true, true),
        ("mode-n", ModeOfUse::NoRestriction, true, true),
    ] {
        let request = create(id, KeyUsage::MacCmac, KeyAlgorithm::Aes128);
        made(&service, CreateKeyRequest { mode_of_use: mode.into(), ..request }).await;
        match service.client.macs().generate_mac(generate(id)).await {
            Ok(_) => assert!(generates),
            Err(status) => {
                assert!(!generates);
                expect_reason(&status, "KEY_USAGE_MISMATCH");
            }
        }
        let expected = if verifies { "MAC_MISMATCH" } else { "KEY_USAGE_MISMATCH" };
        expect_reason(&status_of(service.client.macs().verify_mac(verify(id)).await), expected);
    }
}

#[tokio::test]
async fn a_request_id_answers_once_more_and_never_for_another_body() {
    let service = Service::start().await;
    let mut keys = service.client.keys();
    let request = create("once", KeyUsage::MacCmac, KeyAlgorithm::Aes128);
    let first = made(&service, request.clone()).await;
    assert!(made(&service, request.clone()).await == first);
    // The same id written in capitals is the same id.
    let capitals = request.request_id.to_uppercase();
    let reused =
        CreateKeyRequest { key_id: "twice".into(), request_id: capitals, ..request.clone() };
    expect_reason(&status_of(keys.create_key(reused).await), "REQUEST_ID_REUSED");
    let reused = CreateKeyRequest { algorithm: KeyAlgorithm::Aes256.into(), ..request.clone() };
    expect_reason(&status_of(keys.create_key(reused).await), "REQUEST_ID_REUSED");
    let events = service.vault.events_after(0, 1_000).await.unwrap();
    let told = events.iter().filter(|event| event.reason.as_deref() == Some("REQUEST_ID_REUSED"));
    assert_eq!(told.map(|event| event.action.as_str()).collect::<Vec<_>>(), ["CreateKey"]);
    // Another call may use it: ids are kept per call.
    let state = KeyState::Suspended.into();
    let other = SetKeyStateRequest {
        request_id: request.request_id.clone(),
        name: first.name.clone(),
        state,
        ..SetKeyStateRequest::default()
    };
    let suspended = keys.set_key_state(other.clone()).await.unwrap().into_inner().key.unwrap();
    assert!(suspended.state() == KeyState::Suspended);
    let again = keys.set_key_state(other).await.unwrap().into_inner().key.unwrap();
    assert!(again == suspended);
    // An answer is kept for 24 hours; after that the request is a new one, and the name is taken.
    service.clock.advance(24 * 60 * 60 + 1);
    expect_reason(&status_of(keys.create_key(request).await), "KEY_ALREADY_EXISTS");
}

#[tokio::test]
async fn an_export_is_not_repeated_once_the_key_may_not_leave() {
    let service = Service::start().await;
    let mut keys = service.client.keys();
    exportable(&service, "leaves", KeyUsage::PinEncryption, KeyAlgorithm::Aes128).await;
    let request = export("leaves", "dev-kek");
    let first = keys.export_key(request.clone()).await.unwrap().into_inner();
    let again = keys.export_key(request.clone()).await.unwrap().into_inner();
    assert!(first == again);
    move_to(&service, "leaves", KeyState::Suspended).await.unwrap();
    expect_reason(&status_of(keys.export_key(request).await), "KEY_NOT_ACTIVE");
}

#[tokio::test]
async fn a_message_beyond_64_kib_is_not_read() {
    let service = Service::start().await;
    // A key block field of so many bytes has a tag of one and a length of three.
    let of_len = |len: usize| InspectKeyBlockRequest { key_block: "D".repeat(len - 4) };
    let mut keys = service.client.keys();
    let at_most = status_of(keys.inspect_key_block(of_len(MESSAGE_LEN_BYTES_MAX)).await);
    expect_field(&at_most, "key_block");
    let beyond = status_of(keys.inspect_key_block(of_len(MESSAGE_LEN_BYTES_MAX + 1)).await);
    expect_reason(&beyond, "MESSAGE_INVALID");
}

/// `GetKeyRequest` as a later version of the protocol might have it.
#[derive(Clone, PartialEq, prost::Message)]
struct LaterGetKeyRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "99")]
    unknown: Vec<u8>,
}

#[tokio::test]
async fn a_field_that_this_version_does_not_know_is_passed_over() {
    let service = Service::start().await;
    let channel = tonic::transport::Endpoint::from_shared(service.url.clone()).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let request = LaterGetKeyRequest { name: "keys/dev-mac".into(), unknown: random(100) };
    let codec: tonic_prost::ProstCodec<_, firstkey::grpc::proto::GetKeyResponse> =
        tonic_prost::ProstCodec::default();
    let path = "/firstkey.v1.KeyService/GetKey".parse().unwrap();
    let answer = grpc.unary(tonic::Request::new(request), path, codec).await.unwrap().into_inner();
    assert!(answer.key.unwrap().usage() == KeyUsage::MacCmac);
}
