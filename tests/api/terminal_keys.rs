//! The static keys that a profile gives beside the initial key: derived for each terminal, delivered
//! and confirmed with the initial key, renewed with it.

use firstkey::activation::Call;
use firstkey::agreement::Suite;
use firstkey::crypto::cmac::{aes_cmac, tdes_cmac};
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{self, KeyAlgorithm as Word, KeyUsage as Usage};
use firstkey::key::usage::{DataBoth, KeyDerivation, KeyEncryption, Mac, PinEncryption};
use firstkey::key::{Algorithm, CheckValue};

use crate::backend::create_profile_request;
use crate::harness::{Service, Till, answer, refusal, refused, state_name, told};
use crate::known::Known;

const AES: Suite = Suite::P256Aes128;

fn key(slot: u32, usage: Usage, algorithm: Word, derivation_key: &str) -> proto::ProfileKey {
    proto::ProfileKey {
        slot,
        usage: usage.into(),
        algorithm: algorithm.into(),
        derivation_key: format!("keys/{derivation_key}"),
    }
}

/// As many keys as there may be, one of each usage and one more.
pub(crate) fn seven() -> Vec<proto::ProfileKey> {
    vec![
        key(1, Usage::PinEncryption, Word::Aes128, "derive-aes"),
        key(2, Usage::MacAlgorithm1, Word::Tdes3, "derive-aes"),
        key(3, Usage::MacAlgorithm3, Word::Tdes2, "derive-tdes"),
        key(5, Usage::MacCmac, Word::Aes128, "derive-aes"),
        key(8, Usage::DataEncryption, Word::Aes128, "derive-aes"),
        key(14, Usage::KeyEncryption, Word::Aes128, "derive-aes"),
        key(15, Usage::PinEncryption, Word::Tdes3, "derive-tdes"),
    ]
}

/// The derivation keys, which the test knows.
pub(crate) struct Roots {
    aes: Known<KeyDerivation>,
    tdes: Known<KeyDerivation>,
}

impl Roots {
    pub(crate) async fn import(service: &Service) -> Self {
        let aes = Known::generate(Algorithm::Aes256);
        let tdes = Known::generate(Algorithm::Tdes3);
        aes.import(service, "derive-aes", "B3AX00N").await;
        tdes.import(service, "derive-tdes", "B3TX00N").await;
        Self { aes, tdes }
    }

    /// The bytes of a key, by the formula of the proto.
    pub(crate) fn derive(&self, key: &proto::ProfileKey, initial_key_id: &[u8]) -> Vec<u8> {
        let (usage, letter, len) = match (key.usage(), key.algorithm()) {
            (Usage::PinEncryption, Word::Aes128) => (b"P0", b'A', 16_usize),
            (Usage::PinEncryption, Word::Tdes3) => (b"P0", b'T', 24),
            (Usage::MacAlgorithm1, Word::Tdes3) => (b"M1", b'T', 24),
            (Usage::MacAlgorithm3, Word::Tdes2) => (b"M3", b'T', 16),
            (Usage::MacCmac, Word::Aes128) => (b"M6", b'A', 16),
            (Usage::DataEncryption, Word::Aes128) => (b"D0", b'A', 16),
            (Usage::KeyEncryption, Word::Aes128) => (b"K0", b'A', 16),
            _ => panic!("no test asks for such a key"),
        };
        let bits = u16::try_from(len * 8).unwrap();
        let slot = [u8::try_from(key.slot).unwrap()];
        let context = [initial_key_id, &slot, &usage[..], &[letter], &bits.to_be_bytes()].concat();
        let block = |counter: u32| {
            let counter = counter.to_be_bytes();
            let bits = u32::from(bits).to_be_bytes();
            let label = b"firstkey/v1/terminal-key";
            let input = [&counter[..], label, &[0], &context, &bits].concat();
            if key.derivation_key.starts_with("keys/derive-aes") {
                aes_cmac(&self.aes.bytes, &input).unwrap().to_vec()
            } else {
                tdes_cmac(&self.tdes.bytes, &input).unwrap().to_vec()
            }
        };
        let mut bytes: Vec<u8> = (1..=3).flat_map(block).take(len).collect();
        if letter == b'T' {
            for octet in &mut bytes {
                *octet ^= u8::from(octet.count_ones() % 2 == 0);
            }
        }
        bytes
    }
}

/// The check value of a key that the terminal holds in a slot.
fn held(till: &Till, key: &proto::ProfileKey) -> CheckValue {
    let slot = key.slot;
    let found = match key.usage() {
        Usage::PinEncryption => {
            till.terminal.slot_key::<PinEncryption>(slot).map(|key| key.check_value())
        }
        Usage::DataEncryption => {
            till.terminal.slot_key::<DataBoth>(slot).map(|key| key.check_value())
        }
        Usage::KeyEncryption => {
            till.terminal.slot_key::<KeyEncryption>(slot).map(|key| key.check_value())
        }
        _ => till.terminal.slot_key::<Mac>(slot).map(|key| key.check_value()),
    };
    found.expect("a key of that usage in that slot")
}

/// TDES: of zeros; AES: by CMAC of zeros.
fn check_value(key: &proto::ProfileKey, bytes: &[u8]) -> Vec<u8> {
    match key.algorithm() {
        Word::Tdes2 | Word::Tdes3 => {
            let mut block = [0; 8];
            firstkey::crypto::tdes::Tdes::new(bytes).unwrap().encrypt_block(&mut block);
            block[..3].to_vec()
        }
        _ => aes_cmac(bytes, &[0; 16]).unwrap()[..5].to_vec(),
    }
}

#[tokio::test]
async fn each_terminal_has_keys_of_its_own_and_confirms_them() {
    let service = Service::start_durable().await;
    let roots = Roots::import(&service).await;
    let mut seen = std::collections::HashSet::new();
    for (suite, word, bdk) in [
        (AES, proto::Suite::P256Aes128, "keys/dev-bdk-aes"),
        (Suite::P256Tdes2, proto::Suite::P256Tdes2, "keys/dev-bdk-tdes"),
    ] {
        let profile = format!("retail-{}", suite.name().to_lowercase().replace('_', "-"));
        service
            .profile(&profile, |profile| {
                profile.suite = word.into();
                profile.base_derivation_key = bdk.to_owned();
                profile.keys = seven();
            })
            .await;
        for number in 1..=2 {
            let id = format!("{profile}-{number}");
            let mut till = service.register_under(&id, suite, &profile).await;
            let code = service.issue_code(&id).await;
            till.take_keys(&service, Some(code)).await.unwrap();
            let terminal = service.get(&id).await;
            assert_eq!(terminal.terminal_keys.len(), 7);
            let till = till.twin();
            for (told, asked) in terminal.terminal_keys.iter().zip(seven()) {
                // The version that it came from is told with it.
                let derivation_key = format!("{}/versions/1", asked.derivation_key);
                assert!(told.key == Some(proto::ProfileKey { derivation_key, ..asked.clone() }));
                let bytes = roots.derive(&asked, &terminal.initial_key_id);
                assert_eq!(told.check_value, check_value(&asked, &bytes), "slot {}", asked.slot);
                assert_eq!(held(&till, &asked).bytes(), told.check_value);
                assert!(seen.insert(bytes), "two keys are the same");
            }
            assert!(till.terminal.slot_key::<PinEncryption>(5).is_none(), "a MAC key");
            assert!(till.terminal.slot_key::<Mac>(4).is_none());
        }
    }
}

#[tokio::test]
async fn new_keys_come_with_a_new_initial_key() {
    let service = Service::start().await;
    Roots::import(&service).await;
    service
        .profile("retail", |profile| {
            profile.keys = vec![key(1, Usage::PinEncryption, Word::Aes128, "derive-aes")];
        })
        .await;
    let mut till = service.register_under("till", AES, "retail").await;
    let code = service.issue_code("till").await;
    till.activate(&service, Some(code)).await.unwrap();
    service.enable("till").await.unwrap();
    let mut values = vec![service.get("till").await.terminal_keys[0].check_value.clone()];
    for by_update in [true, false] {
        service.start_update("till").await;
        if by_update {
            till.update(&service).await.unwrap();
            till.confirm(&service).await.unwrap();
        } else {
            till.take_keys(&service, None).await.unwrap();
        }
        let terminal = service.get("till").await;
        assert_eq!(state_name(&terminal), "ACTIVE");
        let told = terminal.terminal_keys[0].clone();
        assert_eq!(held(&till, told.key.as_ref().unwrap()).bytes(), told.check_value);
        assert!(!values.contains(&told.check_value), "by update: {by_update}");
        values.push(told.check_value);
    }
}

/// A change of the keys of a profile.
type Spoil = fn(&mut Vec<proto::ProfileKey>);

/// What is wrong in the keys of a profile, and the field that is to be named.
const FAULTS: [(&str, Spoil); 12] = [
    ("profile.keys", |keys| {
        keys.insert(6, key(9, Usage::MacCmac, Word::Aes128, "derive-aes"));
        keys.sort_by_key(|key| key.slot);
    }),
    ("profile.keys[0].slot", |keys| keys[0].slot = 0),
    ("profile.keys[6].slot", |keys| keys[6].slot = 16),
    ("profile.keys[6].slot", |keys| keys[6].slot = 257),
    ("profile.keys[1].slot", |keys| keys[1].slot = 1),
    ("profile.keys[1].slot", |keys| keys.swap(0, 1)),
    ("profile.keys[0].usage", |keys| keys[0].usage = 0),
    ("profile.keys[2].usage", |keys| keys[2].usage = Usage::BaseDerivation.into()),
    ("profile.keys[2].usage", |keys| keys[2].usage = Usage::MacHmac.into()),
    ("profile.keys[3].algorithm", |keys| keys[3].algorithm = 0),
    ("profile.keys[1].algorithm", |keys| keys[1].algorithm = Word::Aes128.into()),
    ("profile.keys[4].derivation_key", |keys| keys[4].derivation_key = "derive-aes".into()),
];

#[tokio::test]
async fn a_profile_names_keys_that_can_be_derived_and_carried() {
    let service = Service::start().await;
    Roots::import(&service).await;
    let create = async |spoil: &dyn Fn(&mut proto::Profile)| {
        let mut request = create_profile_request("retail");
        let profile = request.profile.as_mut().unwrap();
        profile.keys = seven();
        spoil(profile);
        service.client.terminals().create_profile(request).await
    };
    for (path, spoil) in FAULTS {
        let refused = refusal(create(&|profile| spoil(&mut profile.keys)).await);
        assert_eq!(
            (refused.reason.as_str(), refused.fields[0].0.as_str()),
            ("FIELD_INVALID", path)
        );
    }
    // A terminal holds this one: it could derive the keys of all others.
    let mut other = service.register("master", Suite::MasterAesAes128).await;
    let code = service.issue_code("master").await;
    other.begin(&service, Some(code)).await.unwrap();
    // Of which version the terminal holds it, a profile does not say.
    let master = service.get("master").await.master_key.replace("/versions/1", "");
    let first = |change: fn(&mut proto::ProfileKey)| {
        move |profile: &mut proto::Profile| {
            profile.keys.truncate(1);
            change(&mut profile.keys[0]);
        }
    };
    for (reason, change) in [
        ("KEY_NOT_FOUND", first(|key| key.derivation_key = "keys/nobody".into())),
        ("KEY_USAGE_MISMATCH", first(|key| key.derivation_key = "keys/dev-kek".into())),
        ("KEY_USAGE_MISMATCH", first(|key| key.derivation_key = "keys/derive-tdes".into())),
        ("WRAPPING_KEY_TOO_WEAK", first(|key| key.algorithm = Word::Aes192.into())),
    ] {
        assert_eq!(refusal(create(&change).await).reason, reason);
    }
    let held = |profile: &mut proto::Profile| profile.keys[0].derivation_key.clone_from(&master);
    assert_eq!(refusal(create(&held).await).reason, "KEY_USAGE_MISMATCH");
    let tdes = |profile: &mut proto::Profile| {
        profile.suite = proto::Suite::MasterTdesTdes2.into();
        profile.base_derivation_key = "keys/dev-bdk-tdes".into();
    };
    assert_eq!(refusal(create(&tdes).await).reason, "WRAPPING_KEY_TOO_WEAK", "AES under TDES");
    let made = answer(create(&|_| ()).await).profile.unwrap();
    assert!(made.keys == seven());
}

#[tokio::test]
async fn a_derivation_key_out_of_use_gives_out_none() {
    let service = Service::start().await;
    Roots::import(&service).await;
    service.profile("retail", |profile| profile.keys = seven()).await;
    let mut till = service.register_under("till", AES, "retail").await;
    let code = service.issue_code("till").await;
    till.begin(&service, Some(code)).await.unwrap();
    let state = async |state: proto::KeyState| {
        let request = proto::SetKeyStateRequest {
            request_id: request_id(),
            name: "keys/derive-tdes".to_owned(),
            state: state.into(),
            serve_until: None,
        };
        answer(service.client.keys().set_key_state(request).await);
    };
    state(proto::KeyState::Suspended).await;
    let refusal = refused(till.twin().deliver(&service).await);
    assert_eq!(refusal.reason, "KEY_NOT_ACTIVE");
    assert!(told(&refusal, "remedy").contains("the profile's keys"), "{refusal}");
    let terminal = service.get("till").await;
    assert_eq!(state_name(&terminal), "CODE_VERIFIED");
    assert_eq!(terminal.timeline.last().unwrap().reason, "KEY_NOT_ACTIVE");
    state(proto::KeyState::Active).await;
    till.deliver(&service).await.unwrap();
    // Delivered keys may still be confirmed: the terminal has them.
    state(proto::KeyState::Compromised).await;
    till.confirm(&service).await.unwrap();
    assert_eq!(service.get("till").await.terminal_keys.len(), 7);
    service.must(Call::CancelActivation, "till").await;
    let code = service.issue_code("till").await;
    till.begin(&service, Some(code)).await.unwrap();
    assert_eq!(refused(till.deliver(&service).await).reason, "KEY_NOT_ACTIVE");
}
