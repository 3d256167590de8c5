//! PIN blocks of every format, clear and enciphered.

use super::file::hex;
use super::operation::undefined;
use super::{Answer, Outcome, Stop, Vector};
use crate::key::Algorithm;
use crate::pin::PinBlockFormat;
use crate::pin::for_vectors::{Refused, Subject, encode_pan_field};

/// Runs the operations on PIN blocks.
pub(super) fn run(vector: &Vector) -> Outcome {
    let operation = vector.operation()?;
    if operation == "translate" {
        return translate(vector);
    }
    let subject = subject(vector)?;
    match operation {
        "decode" => Ok(Answer::text(&subject.decode(&vector.bytes("pin_block")?)?)),
        "encode" => {
            let pin = vector.text("pin")?;
            with_fill(vector, "random_fill", subject, pin, |fill| {
                subject.encode(pin, fill).map(|block| hex(&block))
            })
        }
        "encode_pan_field" => Ok(Answer::text(&hex(&encode_pan_field(vector.text("pan")?)?))),
        "decipher" | "decrypt" => {
            decipher(vector, subject, &key(vector, "key", "key_type", subject.format)?)
        }
        _ => encipher(vector, subject, &key(vector, "key", "key_type", subject.format)?),
    }
}

/// Enciphers the vector's PIN under a key, given or derived.
pub(super) fn encipher(vector: &Vector, subject: Subject<'_>, key: &[u8]) -> Outcome {
    let pin = vector.text("pin")?;
    with_fill(vector, "random_fill", subject, pin, |fill| {
        subject.encipher(key, pin, fill).map(|block| hex(block.bytes()))
    })
}

/// Deciphers the vector's PIN block under a key, given or derived.
pub(super) fn decipher(vector: &Vector, subject: Subject<'_>, key: &[u8]) -> Outcome {
    Ok(Answer::text(&subject.decipher(key, &vector.bytes("encrypted_pin_block")?)?))
}

/// What the vector's PIN block is made of.
pub(super) fn subject(vector: &Vector) -> Result<Subject<'_>, Stop> {
    of_format(vector, "pin_block_format")
}

/// Whether a key of an algorithm can carry a format: TDES goes with 0 to 3, AES with 4.
pub(super) fn check_algorithm(format: PinBlockFormat, algorithm: Algorithm) -> Result<(), Stop> {
    if format.goes_with(algorithm) {
        Ok(())
    } else {
        Err(Stop::Refused("the format does not go with the key's algorithm".to_owned()))
    }
}

fn translate(vector: &Vector) -> Outcome {
    let from = of_format(vector, "in_format")?;
    let to = of_format(vector, "out_format")?;
    if [from.format, to.format].contains(&PinBlockFormat::Iso2) {
        return Err(Stop::Refused("format 2 is for the chip alone".to_owned()));
    }
    let in_key = key(vector, "in_key", "in_key_type", from.format)?;
    let out_key = key(vector, "out_key", "out_key_type", to.format)?;
    let pin = from.decipher(&in_key, &vector.bytes("encrypted_pin_block")?)?;
    with_fill(vector, "out_random_fill", to, &pin, |fill| {
        to.encipher(&out_key, &pin, fill).map(|block| hex(block.bytes()))
    })
}

pub(super) fn of_format<'a>(vector: &'a Vector, field: &str) -> Result<Subject<'a>, Stop> {
    let format = match vector.text(field)? {
        "ISO-0" => PinBlockFormat::Iso0,
        "ISO-1" => PinBlockFormat::Iso1,
        "ISO-2" => PinBlockFormat::Iso2,
        "ISO-3" => PinBlockFormat::Iso3,
        "ISO-4" => PinBlockFormat::Iso4,
        other => return Err(undefined(field, other)),
    };
    let pan = vector.optional_text("pan")?;
    // The clear PIN field of format 4 holds nothing of the PAN.
    let is_pin_field =
        format == PinBlockFormat::Iso4 && matches!(vector.operation()?, "decode" | "encode");
    let needs_pan = !matches!(format, PinBlockFormat::Iso1 | PinBlockFormat::Iso2) && !is_pin_field;
    if needs_pan && pan.is_none() {
        return Err(Stop::missing("pan"));
    }
    Ok(Subject { format, pan })
}

/// A key whose type, where it is said, is the one of its length and goes with the format.
fn key(
    vector: &Vector,
    field: &str,
    type_field: &str,
    format: PinBlockFormat,
) -> Result<Vec<u8>, Stop> {
    let key = vector.bytes(field)?;
    if let Some(name) = vector.optional_text(type_field)? {
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.to_string() == name)
            .ok_or_else(|| undefined(type_field, name))?;
        check_algorithm(format, algorithm)?;
        if algorithm.len_bytes() != key.len() {
            return Err(Stop::Refused(format!("`{field}` has another length than its type")));
        }
    }
    Ok(key)
}

/// Gives the encoder the digits that it would draw. Where the vector has none and everything
/// else is right, the vector is at fault.
fn with_fill(
    vector: &Vector,
    field: &str,
    subject: Subject<'_>,
    pin: &str,
    encode: impl FnOnce(&[u8]) -> Result<String, Refused>,
) -> Outcome {
    let needed = subject.fill_len(pin);
    let Some(text) = vector.optional_text(field)? else {
        let block = encode(&vec![0xA; needed])?;
        return if needed == 0 { Ok(Answer::text(&block)) } else { Err(Stop::missing(field)) };
    };
    let fill: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let fill = fill.ok_or_else(|| Stop::Refused(format!("`{field}` is not hexadecimal")))?;
    Ok(Answer::text(&encode(&fill)?))
}
