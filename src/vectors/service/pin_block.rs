//! PIN blocks, by translating them from and to a key of our own, and opening the answer.

use zeroize::Zeroizing;

use super::super::dukpt_aes::{self, kind_or_usual};
use super::super::file::hex;
use super::super::{Answer, Outcome, Stop, Vector, dukpt_tdes, pin_block};
use super::DukptInputs;
use super::keys::{Keys, New, expect};
use crate::crypto::aes::Aes;
use crate::crypto::tdes::Tdes;
use crate::grpc::client::{KeyCall, PinCall};
use crate::key::usage::PinEncryption;
use crate::key::{Algorithm, Key};
use crate::pin::for_vectors::{Subject, encode_pan_field};
use crate::pin::{Pan, PinBlockFormat, permitted};
use crate::vault::{KeyAttributes, KeyUsage};

/// Runs the operations under the vector's own keys.
pub(super) async fn run(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    match vector.operation()? {
        "translate" => translate(keys, vector).await,
        "decode" => decode(keys, vector).await,
        "encode" => encode(keys, vector).await,
        "decipher" | "decrypt" => {
            let subject = pin_block::subject(vector)?;
            let key = vector.bytes("key")?;
            let id = import(keys, vector, "key_type", subject.format, &key).await?;
            let block = vector.bytes("encrypted_pin_block")?;
            decipher(keys, subject, KeyCall::Static(&id), &block).await
        }
        _ => {
            let subject = pin_block::subject(vector)?;
            let key = vector.bytes("key")?;
            let id = import(keys, vector, "key_type", subject.format, &key).await?;
            encipher(keys, vector, subject, KeyCall::Static(&id), &key).await
        }
    }
}

/// Runs `pin_decrypt` and `pin_encrypt` under a transaction key.
pub(super) async fn run_dukpt(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let subject = pin_block::subject(vector)?;
    let inputs = DukptInputs::of(vector)?;
    let usual = if inputs.is_aes { "pin_encryption" } else { "pin" };
    let name = vector.optional_text("derivation_type")?.unwrap_or(usual);
    if name != usual {
        return Err(Stop::Unexpressed(format!("of PIN blocks under the {name} key")));
    }
    let algorithm = if inputs.is_aes {
        Some(kind_or_usual(vector, None, inputs.bdk.len())?.algorithm())
    } else {
        None
    };
    let new = New {
        usage: KeyUsage::BaseDerivation,
        letter: inputs.letter(),
        key: &inputs.bdk,
        attributes: KeyAttributes { open: true, ..attributes(subject.format) },
    };
    let imported = keys.import(new).await?;
    let key = KeyCall::Dukpt { base_derivation_key: &imported.id, ksn: &inputs.ksn, algorithm };
    if vector.operation()? == "pin_decrypt" {
        let block = vector.bytes("encrypted_pin_block")?;
        return decipher(keys, subject, key, &block).await;
    }
    let working_key = if inputs.is_aes {
        dukpt_aes::working_key(vector, name, None).map(|(_, key)| key.to_vec())
    } else {
        dukpt_tdes::derive(vector, name).map(|key| key.as_slice().to_vec())
    };
    // Where there is no such key to open the answer with, the service is to refuse.
    encipher(keys, vector, subject, key, &working_key.unwrap_or_default()).await
}

/// A clear block goes in under a key of ours, and out again under another.
async fn decode(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let subject = pin_block::subject(vector)?;
    let source = Ours::of(keys, subject.format).await?;
    let mut block = vector.bytes("pin_block")?;
    // One of another length has no cryptogram: it goes as it is, to be refused.
    if block.len() == subject.format.len_bytes() {
        encrypt(source.key.expose_bytes(), &mut block, subject.pan.unwrap_or(ANY_PAN))?;
    }
    decipher(keys, subject, KeyCall::Static(&source.id), &block).await
}

/// A block comes out under a key of ours, and is laid open with it.
async fn encode(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let subject = pin_block::subject(vector)?;
    let destination = Ours::of(keys, subject.format).await?;
    let pin = vector.text("pin")?;
    let answer = from_ours(keys, subject, pin, KeyCall::Static(&destination.id)).await?;
    let key = destination.key.expose_bytes();
    if subject.format == PinBlockFormat::Iso0 {
        return Ok(Answer::text(&hex(&decrypt(key, &answer)?)));
    }
    let pan = Some(subject.pan.unwrap_or(ANY_PAN));
    let opened = open(Subject { pan, ..subject }, key, &answer)?;
    let expected = vector.expected()?;
    let block = expected.as_str().map(str::as_bytes).unwrap_or_default();
    let block = data_encoding::HEXUPPER_PERMISSIVE.decode(block).unwrap_or_default();
    if subject.decode(&block).is_ok_and(|other| *other == *opened) {
        Ok(Answer::value(expected.clone()))
    } else {
        Ok(Answer::text("a block that opens to another PIN"))
    }
}

/// Enciphers a clear block in place; of format 4 its PIN field, with the field of a PAN.
fn encrypt(key: &[u8], block: &mut [u8], pan: &str) -> Result<(), Stop> {
    let broken = |_| Stop::Broken("a key of ours that is none".to_owned());
    if let Ok(block) = <&mut [u8; 8]>::try_from(&mut *block) {
        Tdes::new(key).map_err(broken)?.encrypt_block(block);
    } else if let Ok(block) = <&mut [u8; 16]>::try_from(block) {
        let aes = Aes::new(key).map_err(broken)?;
        aes.encrypt_block(block);
        for (octet, other) in block.iter_mut().zip(encode_pan_field(pan)?) {
            *octet ^= other;
        }
        aes.encrypt_block(block);
    }
    Ok(())
}

/// Lays a block of TDES open.
fn decrypt(key: &[u8], block: &[u8]) -> Result<[u8; 8], Stop> {
    let mut clear = <[u8; 8]>::try_from(block)
        .map_err(|_| Stop::Broken("an answer of another length".to_owned()))?;
    let tdes = Tdes::new(key).map_err(|_| Stop::Broken("a key of ours that is none".to_owned()))?;
    tdes.decrypt_block(&mut clear);
    Ok(clear)
}

/// From the vector's key to one of ours.
async fn decipher(
    keys: &mut Keys<'_>,
    subject: Subject<'_>,
    source: KeyCall<'_>,
    block: &[u8],
) -> Outcome {
    let ours = Ours::import(keys, subject.format).await?;
    let pan = subject.pan.unwrap_or(ANY_PAN);
    let call = PinCall {
        source,
        source_format: subject.format,
        pin_block: block,
        destination: KeyCall::Static(&ours.id),
        destination_format: ours.format,
        pan,
    };
    let answer = ask(keys, call).await?;
    let opened = Subject { format: ours.format, pan: Some(pan) };
    Ok(Answer::text(&open(opened, ours.key.expose_bytes(), &answer)?))
}

/// From one of our keys to the vector's.
async fn encipher(
    keys: &mut Keys<'_>,
    vector: &Vector,
    subject: Subject<'_>,
    destination: KeyCall<'_>,
    their_key: &[u8],
) -> Outcome {
    let answer = from_ours(keys, subject, vector.text("pin")?, destination).await?;
    compare(vector, subject, their_key, &answer)
}

/// The PIN block of a PIN under a key of the service, translated from one of ours.
pub(super) async fn from_ours(
    keys: &mut Keys<'_>,
    subject: Subject<'_>,
    pin: &str,
    destination: KeyCall<'_>,
) -> Result<Vec<u8>, Stop> {
    let ours = Ours::import(keys, subject.format).await?;
    let pan = subject.pan.unwrap_or(ANY_PAN);
    let given = Subject { format: ours.format, pan: Some(pan) };
    let fill = vec![0xA; given.fill_len(pin)];
    let block = given.encipher(ours.key.expose_bytes(), pin, &fill).map_err(|_| {
        Stop::Unexpressed("with a PIN or PAN that no PIN block can hold".to_owned())
    })?;
    let call = PinCall {
        source: KeyCall::Static(&ours.id),
        source_format: ours.format,
        pin_block: block.bytes(),
        destination,
        destination_format: subject.format,
        pan,
    };
    ask(keys, call).await
}

async fn translate(keys: &mut Keys<'_>, vector: &Vector) -> Outcome {
    let from = pin_block::of_format(vector, "in_format")?;
    let to = pin_block::of_format(vector, "out_format")?;
    let (in_key, out_key) = (vector.bytes("in_key")?, vector.bytes("out_key")?);
    let block = vector.bytes("encrypted_pin_block")?;
    let source = import(keys, vector, "in_key_type", from.format, &in_key).await?;
    let destination = import(keys, vector, "out_key_type", to.format, &out_key).await?;
    let call = PinCall {
        source: KeyCall::Static(&source),
        source_format: from.format,
        pin_block: &block,
        destination: KeyCall::Static(&destination),
        destination_format: to.format,
        pan: from.pan.or(to.pan).unwrap_or(ANY_PAN),
    };
    let answer = ask(keys, call).await?;
    compare(vector, to, &out_key, &answer)
}

/// Where a vector of format 1 has no PAN, the API asks for one all the same.
pub(super) const ANY_PAN: &str = "4111111111111111";

/// Asks for a translation; what the table or the form of the PAN forbids is expected refused.
async fn ask(keys: &Keys<'_>, call: PinCall<'_>) -> Result<Vec<u8>, Stop> {
    let (from, to) = (call.source_format, call.destination_format);
    // The wire has no word for format 2.
    let has_word = ![from, to].contains(&PinBlockFormat::Iso2) && Pan::parse(call.pan).is_ok();
    let forbidden = if !has_word {
        Some("FIELD_INVALID")
    } else if !permitted(from, to, true) {
        Some("TRANSLATION_FORBIDDEN")
    } else {
        None
    };
    expect(forbidden, keys.service.client.translate_pin(call).await)
}

/// Compares an answer with the block that is expected: where random digits are in it, by what
/// both open to.
fn compare(vector: &Vector, subject: Subject<'_>, key: &[u8], answer: &[u8]) -> Outcome {
    if subject.format == PinBlockFormat::Iso0 {
        return Ok(Answer::text(&hex(answer)));
    }
    let pin = open(subject, key, answer)?;
    let expected = vector.expected()?;
    let expected_block = expected.as_str().map(str::as_bytes).unwrap_or_default();
    let same = data_encoding::HEXUPPER_PERMISSIVE
        .decode(expected_block)
        .is_ok_and(|block| subject.decipher(key, &block).is_ok_and(|other| *other == *pin));
    if same {
        Ok(Answer::value(expected.clone()))
    } else {
        Ok(Answer::text("a block that opens to another PIN"))
    }
}

/// Opens a block that the service made: there is no reason why that should fail.
fn open(subject: Subject<'_>, key: &[u8], block: &[u8]) -> Result<Zeroizing<String>, Stop> {
    let opened = subject.decipher(key, block);
    opened.map_err(|error| Stop::Broken(format!("an answer that does not open: {error}")))
}

/// A static key that we know.
struct Ours {
    key: Key<PinEncryption>,
    id: String,
    format: PinBlockFormat,
}

impl Ours {
    /// Makes one for the format that stands nearest to that of a vector.
    async fn import(keys: &mut Keys<'_>, near: PinBlockFormat) -> Result<Self, Stop> {
        let (format, algorithm) = match near {
            PinBlockFormat::Iso4 => (PinBlockFormat::Iso4, Algorithm::Aes128),
            PinBlockFormat::Iso0
            | PinBlockFormat::Iso1
            | PinBlockFormat::Iso2
            | PinBlockFormat::Iso3 => (PinBlockFormat::Iso3, Algorithm::Tdes2),
        };
        Self::make(keys, format, algorithm).await
    }

    /// Makes one for exactly a format.
    async fn of(keys: &mut Keys<'_>, format: PinBlockFormat) -> Result<Self, Stop> {
        let is_aes = format == PinBlockFormat::Iso4;
        let algorithm = if is_aes { Algorithm::Aes128 } else { Algorithm::Tdes2 };
        Self::make(keys, format, algorithm).await
    }

    async fn make(
        keys: &mut Keys<'_>,
        format: PinBlockFormat,
        algorithm: Algorithm,
    ) -> Result<Self, Stop> {
        let key = Key::<PinEncryption>::generate(algorithm, keys.service.rng)
            .map_err(|error| Stop::Broken(error.to_string()))?;
        let new = New {
            usage: KeyUsage::PinEncryption,
            letter: algorithm.header_letter(),
            // Exposed to be brought to the service, below the key encryption key.
            key: key.expose_bytes(),
            attributes: attributes(format),
        };
        let id = keys.import(new).await?.id;
        Ok(Self { key, id, format })
    }
}

/// Imports a static key of the vector.
async fn import(
    keys: &mut Keys<'_>,
    vector: &Vector,
    type_field: &str,
    format: PinBlockFormat,
    key: &[u8],
) -> Result<String, Stop> {
    let is_aes = match vector.optional_text(type_field)? {
        Some(name) => name.starts_with("AES"),
        None => format == PinBlockFormat::Iso4,
    };
    let letter = if is_aes { b'A' } else { b'T' };
    let new = New { usage: KeyUsage::PinEncryption, letter, key, attributes: attributes(format) };
    Ok(keys.import(new).await?.id)
}

/// The attributes of a key that carries a format both ways, as far as a key can.
pub(super) fn attributes(format: PinBlockFormat) -> KeyAttributes {
    let (inbound, outbound): (&[u8], &[u8]) = match format {
        PinBlockFormat::Iso0 => (&[0], &[0]),
        PinBlockFormat::Iso1 => (&[1], &[]),
        PinBlockFormat::Iso2 => (&[], &[]),
        PinBlockFormat::Iso3 => (&[3], &[3]),
        PinBlockFormat::Iso4 => (&[4], &[4]),
    };
    KeyAttributes {
        pin_formats_in: inbound.to_vec(),
        pin_formats_out: outbound.to_vec(),
        ..KeyAttributes::default()
    }
}
