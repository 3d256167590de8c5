//! Primitives: block ciphers, AES-GCM, ECDH and ECDSA on P-256, digests, HKDF.

use serde_json::json;

use super::cipher::{Cipher, Way};
use super::file::hex;
use super::operation::undefined;
use super::{Answer, Outcome, Stop, Vector};
use crate::crypto::ec::{self, Point};
use crate::crypto::{LengthInvalid, aead, digest, kdf};

/// Runs `encrypt` and `decrypt`.
pub(super) fn run_cipher(vector: &Vector) -> Outcome {
    let key = vector.bytes("key")?;
    let cipher = match vector.text("algorithm")? {
        "AES" => Cipher::aes(&key)?,
        "DES" | "TDES" => Cipher::tdes(&key)?,
        _ => return Err(unknown(vector, "algorithm")),
    };
    let way = if vector.operation()? == "decrypt" { Way::Decrypt } else { Way::Encrypt };
    Ok(Answer::text(&hex(&cipher.run(vector, way)?)))
}

/// Opens AES-GCM. What was opened must also be the message, where the vector tells it.
pub(super) fn aead_decrypt(vector: &Vector) -> Outcome {
    require(vector, "algorithm", "AES-GCM")?;
    let opened = aead::gcm_open_any(
        &vector.bytes("key")?,
        &vector.bytes("iv")?,
        &vector.optional_bytes("aad")?.unwrap_or_default(),
        &vector.bytes("ciphertext")?,
        &vector.bytes("tag")?,
    )?;
    let verified = vector.optional_bytes("message")?.is_none_or(|message| message == opened);
    Ok(Answer { verified, value: hex(&opened).into() })
}

/// Seals with AES-GCM.
pub(super) fn aead_encrypt(vector: &Vector) -> Outcome {
    require(vector, "algorithm", "AES-GCM")?;
    let (ciphertext, tag) = aead::gcm_seal_any(
        &vector.bytes("key")?,
        &vector.bytes("iv")?,
        &vector.optional_bytes("aad")?.unwrap_or_default(),
        &vector.bytes("message")?,
    )?;
    Ok(Answer::value(json!({ "ciphertext": hex(&ciphertext), "tag": hex(&tag) })))
}

/// Agrees with a given private key.
pub(super) fn ecdh(vector: &Vector) -> Outcome {
    require(vector, "curve", "P-256")?;
    let peer = public_key(vector)?;
    let shared = ec::ecdh_with_private_key(&vector.bytes("private_key")?, &peer)?;
    // Exposed to be compared with a published value.
    Ok(Answer::text(&hex(shared.expose_bytes())))
}

/// Verifies ECDSA with SHA-256.
pub(super) fn ecdsa_verify(vector: &Vector) -> Outcome {
    require(vector, "curve", "P-256")?;
    require(vector, "hash", "SHA-256")?;
    let public = public_key(vector)?;
    let message = vector.bytes("message")?;
    let signature = vector.bytes("signature")?;
    match vector.optional_text("signature_encoding")? {
        None | Some("DER") => ec::verify_der(&public, &message, &signature)?,
        Some("P1363") => {
            let signature = signature.as_slice().try_into().map_err(|_| LengthInvalid)?;
            ec::verify(&public, &message, signature)?;
        }
        Some(other) => return Err(undefined("signature_encoding", other)),
    }
    Ok(Answer::verified())
}

/// Digests a message with SHA-256.
pub(super) fn hash(vector: &Vector) -> Outcome {
    require(vector, "algorithm", "SHA-256")?;
    Ok(Answer::text(&hex(&digest::sha256(&[&vector.bytes("message")?]))))
}

/// Derives by HKDF with SHA-256.
pub(super) fn hkdf(vector: &Vector) -> Outcome {
    require(vector, "hash", "SHA-256")?;
    let length = vector.optional_number("length")?.ok_or_else(|| Stop::missing("length"))?;
    // More than HKDF can give is refused before there is room for it.
    if length > HKDF_LEN_MAX {
        return Err(LengthInvalid.into());
    }
    let mut out = vec![0; length];
    let salt = vector.optional_bytes("salt")?.unwrap_or_default();
    let info = vector.optional_bytes("info")?.unwrap_or_default();
    kdf::hkdf_sha256(&salt, &vector.bytes("ikm")?, &[&info], &mut out)?;
    Ok(Answer::text(&hex(&out)))
}

/// 255 blocks of SHA-256 (RFC 5869, 2.3).
const HKDF_LEN_MAX: usize = 255 * 32;

fn public_key(vector: &Vector) -> Result<Point, Stop> {
    let bytes = vector.bytes("public_key")?;
    match vector.optional_text("public_key_encoding")? {
        None | Some("SubjectPublicKeyInfo") => Ok(ec::point_from_spki(&bytes)?),
        Some("X9.62 point") => Ok(Point::parse(&bytes)?),
        Some(other) => Err(undefined("public_key_encoding", other)),
    }
}

/// Another algorithm than the one known here is another operation. Where a vector says nothing,
/// that one is meant.
fn require(vector: &Vector, field: &str, known: &str) -> Result<(), Stop> {
    match vector.optional_text(field)? {
        None => Ok(()),
        Some(name) if name == known => Ok(()),
        Some(_) => Err(unknown(vector, field)),
    }
}

fn unknown(vector: &Vector, field: &str) -> Stop {
    let name = |field| vector.optional_text(field).ok().flatten().unwrap_or_default();
    Stop::Unknown(format!("{} {}", name("op"), name(field)))
}
