//! AES DUKPT and what is done with its working keys.

use serde_json::json;

use super::cipher::{Cipher, Way};
use super::file::hex;
use super::operation::undefined;
use super::{Answer, Outcome, Stop, Vector, mac, pin_block};
use crate::dukpt::for_vectors::{
    AesDerived, CompatibleKsn, aes_initial_key, aes_transaction_key, aes_update_key,
    aes_working_key,
};
use crate::dukpt::{AesInitialKeyId, AesKsn, KeyKind};
use crate::key::Algorithm;
use crate::key::usage::{
    DataBoth, DataDecryption, DataEncryption, MacBoth, MacGeneration, MacVerification,
    PinEncryption, WorkingKeyDerivation, WorkingKeyEncryption, WorkingUsage,
};
use crate::mac::for_vectors::VectorMacAlgorithm;

/// Whether a derivation type is one of this family.
pub(super) fn knows(derivation_type: &str) -> bool {
    indicator(derivation_type).is_some()
}

/// Runs the operations of AES DUKPT.
pub(super) fn run(vector: &Vector) -> Outcome {
    match vector.operation()? {
        "derive_initial_key" => {
            let id = initial_key_id(vector)?;
            Ok(Answer::text(&hex(&aes_initial_key(&bdk(vector)?, id)?)))
        }
        "derive_transaction_key" => {
            let ksn = AesKsn::parse(&vector.bytes("ksn")?)?;
            let id = ksn.initial_key_id();
            let initial_key = aes_initial_key(&bdk(vector)?, id)?;
            Ok(Answer::text(&hex(&aes_transaction_key(&initial_key, id, ksn.counter())?)))
        }
        "derive_update_key" => update_key(vector),
        "derive_working_key" => {
            let (_, key) = working_key(vector, vector.text("derivation_type")?, None)?;
            Ok(Answer::text(&hex(&key)))
        }
        "data_decrypt" => data(vector, Way::Decrypt),
        "data_encrypt" => data(vector, Way::Encrypt),
        "mac_generate" | "mac_verify" => mac(vector),
        "parse_ksn" => {
            let ksn = CompatibleKsn::parse(&vector.bytes("ksn")?)?;
            Ok(Answer::value(json!({
                "initial_key_id": hex(&ksn.initial_key_id),
                "counter": format!("{:08X}", ksn.counter),
            })))
        }
        "pin_decrypt" | "pin_encrypt" => pin(vector),
        unknown => Err(Stop::Unknown(unknown.to_owned())),
    }
}

fn update_key(vector: &Vector) -> Outcome {
    let id = initial_key_id(vector)?;
    let initial_key = aes_initial_key(&bdk(vector)?, id)?;
    let key = aes_update_key(&initial_key, id, kind(vector)?.unwrap_or(KeyKind::Aes128))?;
    if let Some(given) = vector.optional_bytes("intermediate_key")? {
        let intermediate = aes_transaction_key(&initial_key, id, u32::MAX)?;
        if *intermediate != given {
            return Ok(Answer::text(&format!("intermediate key {}", hex(&intermediate))));
        }
    }
    Ok(Answer::text(&hex(&key)))
}

fn data(vector: &Vector, way: Way) -> Outcome {
    let (kind, key) = working_key(vector, vector.text("derivation_type")?, None)?;
    let algorithm = kind.algorithm();
    let cipher = if algorithm.is_aes() {
        Cipher::aes(&key)?
    } else if algorithm.is_tdes() {
        Cipher::tdes(&key)?
    } else {
        return Err(Stop::Refused("an HMAC key encrypts no data".to_owned()));
    };
    Ok(Answer::text(&hex(&cipher.run(vector, way)?)))
}

fn mac(vector: &Vector) -> Outcome {
    let algorithm = mac::algorithm(vector)?;
    let (kind, key) = working_key(vector, vector.text("derivation_type")?, Some(algorithm))?;
    if !fits(algorithm, kind.algorithm()) {
        return Err(Stop::Refused("the MAC algorithm does not fit the working key".to_owned()));
    }
    mac::with_key(vector, algorithm, &key)
}

fn pin(vector: &Vector) -> Outcome {
    let subject = pin_block::subject(vector)?;
    let name = vector.optional_text("derivation_type")?.unwrap_or("pin_encryption");
    let (kind, key) = working_key(vector, name, None)?;
    pin_block::check_algorithm(subject.format, kind.algorithm())?;
    if vector.operation()? == "pin_decrypt" {
        pin_block::decipher(vector, subject, &key)
    } else {
        pin_block::encipher(vector, subject, &key)
    }
}

/// The working key of a vector and its kind. Where no kind is said it is, for a MAC, the one
/// that the algorithm takes, else AES of the base derivation key's length.
pub(super) fn working_key(
    vector: &Vector,
    name: &str,
    mac: Option<VectorMacAlgorithm>,
) -> Result<(KeyKind, AesDerived), Stop> {
    let usage = indicator(name).ok_or_else(|| undefined("derivation_type", name))?;
    let ksn = AesKsn::parse(&vector.bytes("ksn")?)?;
    let id = ksn.initial_key_id();
    let bdk = bdk(vector)?;
    let kind = kind_or_usual(vector, mac, bdk.len())?;
    let initial_key = aes_initial_key(&bdk, id)?;
    Ok((kind, aes_working_key(&initial_key, id, ksn.counter(), usage, kind)?))
}

/// The kind of a vector's working key, said or usual.
pub(super) fn kind_or_usual(
    vector: &Vector,
    mac: Option<VectorMacAlgorithm>,
    bdk_len_bytes: usize,
) -> Result<KeyKind, Stop> {
    if let Some(kind) = kind(vector)? {
        return Ok(kind);
    }
    let fits = |algorithm: Algorithm| {
        mac.map_or(algorithm.is_aes(), |mac| fits(mac, algorithm))
            && (algorithm.is_tdes() || algorithm.len_bytes() == bdk_len_bytes)
    };
    let found = KINDS.into_iter().find(|kind| fits(kind.algorithm()));
    found.ok_or_else(|| Stop::missing("key_type"))
}

fn indicator(derivation_type: &str) -> Option<u16> {
    Some(match derivation_type {
        "data_both" => DataBoth::INDICATOR,
        "data_decryption" => DataDecryption::INDICATOR,
        "data_encryption" => DataEncryption::INDICATOR,
        "key_derivation" => WorkingKeyDerivation::INDICATOR,
        "key_encryption" => WorkingKeyEncryption::INDICATOR,
        "mac_both" => MacBoth::INDICATOR,
        "mac_generation" => MacGeneration::INDICATOR,
        "mac_verification" => MacVerification::INDICATOR,
        "pin_encryption" => PinEncryption::INDICATOR,
        _ => return None,
    })
}

const KINDS: [KeyKind; 8] = [
    KeyKind::Tdes2,
    KeyKind::Tdes3,
    KeyKind::Aes128,
    KeyKind::Aes192,
    KeyKind::Aes256,
    KeyKind::Hmac128,
    KeyKind::Hmac192,
    KeyKind::Hmac256,
];

fn kind(vector: &Vector) -> Result<Option<KeyKind>, Stop> {
    let Some(name) = vector.optional_text("key_type")? else { return Ok(None) };
    let found = KINDS.into_iter().find(|kind| kind.algorithm().to_string() == name);
    found.map(Some).ok_or_else(|| undefined("key_type", name))
}

/// The base derivation key, which has the length of its type.
fn bdk(vector: &Vector) -> Result<Vec<u8>, Stop> {
    let bdk = vector.bytes("bdk")?;
    if let Some(name) = vector.optional_text("bdk_type")? {
        let fits = |algorithm: &Algorithm| {
            algorithm.is_aes()
                && algorithm.to_string() == name
                && algorithm.len_bytes() == bdk.len()
        };
        if !Algorithm::ALL.iter().any(fits) {
            return Err(Stop::Refused("`bdk` is not a key of `bdk_type`".to_owned()));
        }
    }
    Ok(bdk)
}

pub(super) fn initial_key_id(vector: &Vector) -> Result<AesInitialKeyId, Stop> {
    if let Some(id) = vector.optional_bytes("initial_key_id")? {
        return Ok(AesInitialKeyId::parse(&id)?);
    }
    let ksn = vector.optional_bytes("ksn")?.ok_or_else(|| Stop::missing("initial_key_id"))?;
    Ok(AesInitialKeyId::parse(ksn.get(..AesInitialKeyId::LEN_BYTES).unwrap_or_default())?)
}

fn fits(algorithm: VectorMacAlgorithm, key: Algorithm) -> bool {
    match algorithm {
        VectorMacAlgorithm::Iso9797Alg1Aes(_) => key.is_aes(),
        VectorMacAlgorithm::Service(algorithm) => algorithm.fits(key),
        VectorMacAlgorithm::UnionPayEcb => key == Algorithm::Tdes2,
    }
}
