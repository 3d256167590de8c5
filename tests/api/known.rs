//! Keys that the tests know, and a second way to the same bytes.
//!
//! Key blocks of versions D and B and PIN blocks are written and read here once more, from the
//! standards and over bare primitives, so that what the service answers is not held against the
//! code that answered it.

#![allow(clippy::unnecessary_wraps, reason = "a key stands where a message has an option")]

use std::sync::OnceLock;

use data_encoding::HEXUPPER;
use firstkey::crypto::aes::Aes;
use firstkey::crypto::cmac::{aes_cmac, tdes_cmac};
use firstkey::crypto::rng::{Rng as _, SystemRng};
use firstkey::crypto::tdes::Tdes;
use firstkey::dukpt::{
    AesInitialKey, AesInitialKeyId, AesKsn, KeyKind, TdesInitialKey, TdesInitialKeyId, TdesKsn,
};
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{self, ImportKeyRequest, working_key::Key as Which};
use firstkey::grpc::{DOMAIN, code};
use firstkey::key::usage::{
    BaseDerivation, KeyBlockProtection, PinEncryption, TdesVariant, Usage, WorkingUsage,
};
use firstkey::key::{Algorithm, Key};
use firstkey::keyblock::{Header, Version, wrap_key};
use firstkey::pin::{self, Fill, Pan, Pin, PinBlockFormat};
use firstkey::server::dev::Keys;
use firstkey::vault::Reason;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::Service;

/// The PAN of the tests, and another one.
pub(crate) const PAN: &str = "4111111111111111";
pub(crate) const OTHER_PAN: &str = "5555555555554444";
/// The PIN of the tests.
pub(crate) const PIN: &str = "73951";

/// A key that the service may import: as the library has it, and its bytes.
pub(crate) struct Known<U: Usage> {
    pub(crate) key: Key<U>,
    pub(crate) bytes: Vec<u8>,
}

impl<U: Usage> Known<U> {
    /// A random key.
    pub(crate) fn generate(algorithm: Algorithm) -> Self {
        let key = Key::<U>::generate(algorithm, &SystemRng::new()).unwrap();
        let header = Header::new(Version::D, *b"D0", algorithm.header_letter(), b'B');
        let dev = dev();
        let block = wrap_key(&dev.protection, &header, &key, &SystemRng::new()).unwrap();
        let bytes = open_d(&dev.master, block.as_str());
        Self { key, bytes }
    }

    /// Imports it as `keys/{id}` below the development key encryption key. `fields` are the usage,
    /// algorithm, mode, version and exportability of the header, such as `P0AB00E`.
    pub(crate) async fn import(&self, service: &Service, id: &str, fields: &str) -> proto::Key {
        self.import_with(service, id, fields, proto::KeyAttributes::default()).await
    }

    /// The same with attributes.
    pub(crate) async fn import_with(
        &self,
        service: &Service,
        id: &str,
        fields: &str,
        attributes: proto::KeyAttributes,
    ) -> proto::Key {
        let key_block = wrap_d(&dev().kek, &format!("{fields}0000"), &self.bytes);
        let request = import_request(id, &key_block, "keys/dev-kek");
        let request = ImportKeyRequest { attributes: Some(attributes), ..request };
        let answer = service.client.keys().import_key(request).await;
        answer.expect("a key block under dev-kek is imported").into_inner().key.unwrap()
    }
}

/// A request to import a key block as it is.
pub(crate) fn import_request(id: &str, key_block: &str, wrapping_key: &str) -> ImportKeyRequest {
    ImportKeyRequest {
        request_id: request_id(),
        key_id: id.to_owned(),
        key_block: key_block.to_owned(),
        wrapping_key: wrapping_key.to_owned(),
        ..ImportKeyRequest::default()
    }
}

/// A static key of a call.
pub(crate) fn stored(id: &str) -> Option<proto::WorkingKey> {
    Some(proto::WorkingKey { key: Some(Which::StaticKey(format!("keys/{id}"))) })
}

/// A static key of a terminal, by its slot.
pub(crate) fn slot_of(terminal: &str, slot: u32) -> Option<proto::WorkingKey> {
    let key = proto::TerminalSlot { terminal: format!("terminals/{terminal}"), slot };
    Some(proto::WorkingKey { key: Some(Which::TerminalKey(key)) })
}

/// A transaction key of a call, its base derivation key found by the KSN.
pub(crate) fn dukpt(ksn: &[u8]) -> Option<proto::WorkingKey> {
    dukpt_of("", ksn)
}

/// A transaction key of a call, its base derivation key named.
pub(crate) fn dukpt_of(base_derivation_key: &str, ksn: &[u8]) -> Option<proto::WorkingKey> {
    let key = proto::DukptKey {
        base_derivation_key: base_derivation_key.to_owned(),
        ksn: ksn.to_vec(),
        ..proto::DukptKey::default()
    };
    Some(proto::WorkingKey { key: Some(Which::Dukpt(key)) })
}

/// An AES terminal that was injected elsewhere, under a base derivation key open to such.
pub(crate) struct InjectedAes {
    pub(crate) id: AesInitialKeyId,
    initial: AesInitialKey,
}

impl InjectedAes {
    /// Imports a new base derivation key for the key set and injects a terminal.
    pub(crate) async fn below(service: &Service, bdk: &str, key_set_id: [u8; 4]) -> Self {
        let known = Known::<BaseDerivation>::generate(Algorithm::Aes128);
        let attributes = open_attributes(&key_set_id);
        known.import_with(service, bdk, "B0AX00N", attributes).await;
        let id = [key_set_id, [0, 0, 0, 7]].concat();
        let id = AesInitialKeyId::parse(&id).unwrap();
        Self { id, initial: known.key.aes_initial_key(id).unwrap() }
    }

    pub(crate) fn ksn(&self, counter: u32) -> AesKsn {
        self.id.ksn(counter).unwrap()
    }

    pub(crate) fn key<U: WorkingUsage>(&self, counter: u32) -> Key<U> {
        self.initial.working_key(&self.ksn(counter), KeyKind::Aes128).unwrap()
    }

    /// A PIN block of format 4.
    pub(crate) fn pin_block(&self, counter: u32, pin: &str, pan: &str) -> Vec<u8> {
        enciphered(&self.key(counter), PinBlockFormat::Iso4, pin, pan)
    }

    /// A PIN block of format 3 under a TDES key that is derived from the AES key.
    pub(crate) fn tdes_pin_block(&self, counter: u32, pin: &str, pan: &str) -> Vec<u8> {
        let key = self.initial.working_key(&self.ksn(counter), KeyKind::Tdes2).unwrap();
        enciphered(&key, PinBlockFormat::Iso3, pin, pan)
    }
}

/// The same of TDES.
pub(crate) struct InjectedTdes {
    pub(crate) id: TdesInitialKeyId,
    initial: TdesInitialKey,
}

impl InjectedTdes {
    pub(crate) async fn below(service: &Service, bdk: &str, key_set_id: [u8; 5]) -> Self {
        let known = Known::<BaseDerivation>::generate(Algorithm::Tdes2);
        let attributes = open_attributes(&key_set_id);
        known.import_with(service, bdk, "B0TX00N", attributes).await;
        let id = TdesInitialKeyId::new(key_set_id, 7).unwrap();
        Self { id, initial: known.key.tdes_initial_key(id).unwrap() }
    }

    pub(crate) fn ksn(&self, counter: u32) -> TdesKsn {
        self.id.ksn(counter).unwrap()
    }

    pub(crate) fn key<U: TdesVariant>(&self, counter: u32) -> Key<U> {
        self.initial.working_key(&self.ksn(counter)).unwrap()
    }

    /// A PIN block of format 3.
    pub(crate) fn pin_block(&self, counter: u32, pin: &str, pan: &str) -> Vec<u8> {
        enciphered(&self.key(counter), PinBlockFormat::Iso3, pin, pan)
    }
}

fn open_attributes(key_set_id: &[u8]) -> proto::KeyAttributes {
    let key_set_id = key_set_id.to_vec();
    proto::KeyAttributes { key_set_id, open: true, ..proto::KeyAttributes::default() }
}

/// A PIN block under a key of the library.
pub(crate) fn enciphered(
    key: &Key<PinEncryption>,
    format: PinBlockFormat,
    pin: &str,
    pan: &str,
) -> Vec<u8> {
    let fill = Fill::draw(&SystemRng::new()).unwrap();
    let (pin, pan) = (Pin::parse(pin).unwrap(), Pan::parse(pan).unwrap());
    pin::encipher(key, format, &pin, &pan, &fill).unwrap().bytes().to_vec()
}

/// The published development keys that everything begins with.
pub(crate) struct Dev {
    pub(crate) master: Vec<u8>,
    pub(crate) kek: Vec<u8>,
    pub(crate) kek_tdes: Vec<u8>,
    protection: Key<KeyBlockProtection>,
}

/// The development keys, read once.
pub(crate) fn dev() -> &'static Dev {
    static DEV: OnceLock<Dev> = OnceLock::new();
    DEV.get_or_init(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/keys-dev/keys.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let keys = Keys::parse(&text).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let master = HEXUPPER.decode(table["master_key"].as_str().unwrap().as_bytes()).unwrap();
        let bytes = |id| open_d(&master, keys.block(id).unwrap());
        Dev {
            kek: bytes("dev-kek"),
            kek_tdes: bytes("dev-kek-tdes"),
            protection: keys.protection_key().unwrap(),
            master,
        }
    })
}

/// Random bytes.
pub(crate) fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SystemRng::new().fill(&mut bytes).unwrap();
    bytes
}

/// Wraps a key as version D under AES (ANSI X9.143:2021, 7.3): `fields` is the header after the
/// length field.
pub(crate) fn wrap_d(kbpk: &[u8], fields: &str, key: &[u8]) -> String {
    let mut clear = clear_data(key, 32, 16);
    let block_len = 5 + fields.len() + 2 * (clear.len() + 16);
    let header = format!("D{block_len:04}{fields}");
    let (encryption, authentication) = derived_d(kbpk);
    let mac = aes_cmac(&authentication, &[header.as_bytes(), &clear].concat()).unwrap();
    Aes::new(&encryption).unwrap().cbc_encrypt(&mac, &mut clear).unwrap();
    format!("{header}{}{}", HEXUPPER.encode(&clear), HEXUPPER.encode(&mac))
}

/// Opens a block of version D under AES, and panics when its MAC does not verify.
pub(crate) fn open_d(kbpk: &[u8], block: &str) -> Vec<u8> {
    let (header, mut clear, mac) = parts::<16>(block);
    let (encryption, authentication) = derived_d(kbpk);
    Aes::new(&encryption).unwrap().cbc_decrypt(&mac, &mut clear).unwrap();
    let verified = aes_cmac(&authentication, &[header.as_bytes(), &clear].concat()).unwrap();
    assert_eq!(verified, mac, "the MAC of {block} does not verify");
    key_of(&clear)
}

/// Wraps a key as version B under TDES (ANSI X9.143:2021, 7.2).
pub(crate) fn wrap_b(kbpk: &[u8], fields: &str, key: &[u8]) -> String {
    let mut clear = clear_data(key, 24, 8);
    let block_len = 5 + fields.len() + 2 * (clear.len() + 8);
    let header = format!("B{block_len:04}{fields}");
    let (encryption, authentication) = derived_b(kbpk);
    let mac = tdes_cmac(&authentication, &[header.as_bytes(), &clear].concat()).unwrap();
    Tdes::new(&encryption).unwrap().cbc_encrypt(&mac, &mut clear).unwrap();
    format!("{header}{}{}", HEXUPPER.encode(&clear), HEXUPPER.encode(&mac))
}

/// Opens a block of version B under TDES, and panics when its MAC does not verify.
pub(crate) fn open_b(kbpk: &[u8], block: &str) -> Vec<u8> {
    let (header, mut clear, mac) = parts::<8>(block);
    let (encryption, authentication) = derived_b(kbpk);
    Tdes::new(&encryption).unwrap().cbc_decrypt(&mac, &mut clear).unwrap();
    let verified = tdes_cmac(&authentication, &[header.as_bytes(), &clear].concat()).unwrap();
    assert_eq!(verified, mac, "the MAC of {block} does not verify");
    key_of(&clear)
}

/// Length in bits, key, random octets up to the longest key of the family and a whole block.
fn clear_data(key: &[u8], longest: usize, cipher_block: usize) -> Vec<u8> {
    let len_bits = u16::try_from(key.len() * 8).unwrap();
    let len = (2 + longest.max(key.len())).next_multiple_of(cipher_block);
    let padding = random(len - 2 - key.len());
    [&len_bits.to_be_bytes(), key, &padding].concat()
}

fn key_of(clear: &[u8]) -> Vec<u8> {
    let len_bits = u16::from_be_bytes([clear[0], clear[1]]);
    clear[2..2 + usize::from(len_bits / 8)].to_vec()
}

fn parts<const MAC: usize>(block: &str) -> (&str, Vec<u8>, [u8; MAC]) {
    let (_, header_len) = Header::parse(block).unwrap();
    let (header, rest) = block.split_at(header_len);
    let (data, mac) = rest.split_at(rest.len() - 2 * MAC);
    let mac = HEXUPPER.decode(mac.as_bytes()).unwrap();
    (header, HEXUPPER.decode(data.as_bytes()).unwrap(), mac.try_into().unwrap())
}

/// The encryption and the MAC key of an AES protection key, by CMAC derivation.
fn derived_d(kbpk: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let algorithm = match kbpk.len() {
        16 => 2,
        24 => 3,
        _ => 4,
    };
    let len_bits = u16::try_from(kbpk.len() * 8).unwrap().to_be_bytes();
    let derive = |usage: u8| {
        let blocks = (1..=2).flat_map(|counter| {
            let input = [counter, 0, usage, 0, 0, algorithm, len_bits[0], len_bits[1]];
            aes_cmac(kbpk, &input).unwrap()
        });
        blocks.take(kbpk.len()).collect()
    };
    (derive(0), derive(1))
}

/// The same of a TDES protection key.
fn derived_b(kbpk: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (algorithm, len_bits) = if kbpk.len() == 16 { (0, 0x80) } else { (1, 0xC0) };
    let derive = |usage: u8| {
        let blocks = (1..=3).flat_map(|counter| {
            tdes_cmac(kbpk, &[counter, 0, usage, 0, 0, algorithm, 0, len_bits]).unwrap()
        });
        blocks.take(kbpk.len()).collect()
    };
    (derive(0), derive(1))
}

/// A PIN block of format 0, 1, 3 or 4 (ISO 9564-1:2017, 9), enciphered under a key's bytes.
pub(crate) fn pin_block(format: u8, key: &[u8], pin: &str, pan: &str) -> Vec<u8> {
    encipher(format, key, &pin_field(format, pin), pan)
}

/// The first 8 bytes of a PIN block: control, length, PIN, fill.
pub(crate) fn pin_field(format: u8, pin: &str) -> Vec<u8> {
    let fill = match format {
        0 => 'F',
        1 => '7',
        3 => 'C',
        _ => 'A',
    };
    let mut text = format!("{format}{:X}{pin}", pin.len());
    while text.len() < 16 {
        text.push(fill);
    }
    HEXUPPER.decode(text.as_bytes()).unwrap()
}

/// Enciphers a PIN field of 8 bytes, whatever stands in it.
pub(crate) fn encipher(format: u8, key: &[u8], field: &[u8], pan: &str) -> Vec<u8> {
    if format == 4 {
        let mut block: [u8; 16] = [field, &random(8)].concat().try_into().unwrap();
        let aes = Aes::new(key).unwrap();
        aes.encrypt_block(&mut block);
        xor(&mut block, &pan_field_4(pan));
        aes.encrypt_block(&mut block);
        return block.to_vec();
    }
    let mut block: [u8; 8] = field.try_into().unwrap();
    if format != 1 {
        xor(&mut block, &pan_field(pan));
    }
    Tdes::new(key).unwrap().encrypt_block(&mut block);
    block.to_vec()
}

/// The PIN in a block; panics when the block holds none.
pub(crate) fn pin_of(format: u8, key: &[u8], block: &[u8], pan: &str) -> String {
    let field: [u8; 8] = if format == 4 {
        let mut block: [u8; 16] = block.try_into().unwrap();
        let aes = Aes::new(key).unwrap();
        aes.decrypt_block(&mut block);
        xor(&mut block, &pan_field_4(pan));
        aes.decrypt_block(&mut block);
        *block.first_chunk().unwrap()
    } else {
        let mut block: [u8; 8] = block.try_into().unwrap();
        Tdes::new(key).unwrap().decrypt_block(&mut block);
        if format != 1 {
            xor(&mut block, &pan_field(pan));
        }
        block
    };
    let text = HEXUPPER.encode(&field);
    assert_eq!(text[..1], format!("{format}"), "the block is of another format");
    let len = usize::from_str_radix(&text[1..2], 16).unwrap();
    let (pin, fill) = text[2..].split_at(len);
    assert!(pin.bytes().all(|digit| digit.is_ascii_digit()), "the block holds no PIN");
    let fits = |nibble: u8| match format {
        0 => nibble == b'F',
        3 => nibble.is_ascii_uppercase(),
        4 => nibble == b'A',
        _ => true,
    };
    assert!(fill.bytes().all(fits), "the fill is not that of the format");
    pin.to_owned()
}

/// The twelve digits beside the check digit.
fn pan_field(pan: &str) -> Vec<u8> {
    let digits = &pan[pan.len() - 13..pan.len() - 1];
    HEXUPPER.decode(format!("0000{digits}").as_bytes()).unwrap()
}

/// The PAN in full, led by how many digits it has more than twelve.
fn pan_field_4(pan: &str) -> Vec<u8> {
    HEXUPPER.decode(format!("{}{pan:0<31}", pan.len() - 12).as_bytes()).unwrap()
}

fn xor(block: &mut [u8], other: &[u8]) {
    for (octet, other) in block.iter_mut().zip(other) {
        *octet ^= other;
    }
}

/// The status of a call that must be refused.
#[track_caller]
pub(crate) fn status_of<T>(result: Result<T, Status>) -> Status {
    match result {
        Ok(_) => panic!("the call was not refused"),
        Err(status) => status,
    }
}

/// The reason in a status, once its domain and its code are those that go with it.
#[track_caller]
pub(crate) fn reason_of(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("a refusal carries its reason");
    assert_eq!(info.domain, DOMAIN);
    let reason = Reason::ALL.iter().find(|reason| reason.as_str() == info.reason);
    let reason = *reason.expect("a reason is one of those in the proto");
    assert_eq!(status.code(), code(reason), "{}", info.reason);
    info.reason.clone()
}

/// A refusal for a reason.
#[track_caller]
pub(crate) fn expect_reason(status: &Status, reason: &str) {
    assert_eq!(reason_of(status), reason);
}

/// A refusal that names one field.
#[track_caller]
pub(crate) fn expect_field(status: &Status, path: &str) {
    expect_path(status, "FIELD_INVALID", path);
}

/// A refusal of one field for a reason.
#[track_caller]
pub(crate) fn expect_path(status: &Status, reason: &str, path: &str) {
    assert_eq!(reason_of(status), reason, "{path}");
    let details = status.get_error_details();
    let violations = details.bad_request().map(|request| &request.field_violations[..]);
    let paths: Vec<&str> =
        violations.unwrap_or_default().iter().map(|one| one.field.as_str()).collect();
    assert_eq!(paths, [path]);
}
