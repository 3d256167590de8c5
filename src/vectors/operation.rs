//! Finds the operation that a vector names.

use super::{
    Outcome, Stop, Vector, activation, dukpt_aes, dukpt_tdes, key_block, mac, pin_block, primitive,
};

/// Runs one vector.
///
/// Names are shared between families, so a vector's inputs tell its family: with a base
/// derivation key it is of DUKPT, with a PIN block format it is of PIN blocks.
pub(super) fn run(vector: &Vector) -> Outcome {
    let operation = vector.operation()?;
    if vector.has("bdk") || operation == "parse_ksn" {
        return if is_aes_dukpt(vector) { dukpt_aes::run(vector) } else { dukpt_tdes::run(vector) };
    }
    if operation.starts_with("activation_") {
        return activation::run(vector);
    }
    match operation {
        "parse_header" | "unwrap" | "wrap" => key_block::run(vector),
        "decipher" | "decode" | "encipher" | "encode" | "encode_pan_field" | "translate" => {
            pin_block::run(vector)
        }
        "decrypt" | "encrypt" if vector.has("pin_block_format") => pin_block::run(vector),
        "decrypt" | "encrypt" => primitive::run_cipher(vector),
        "mac_generate" | "mac_verify" => mac::run(vector),
        "aead_decrypt" => primitive::aead_decrypt(vector),
        "aead_encrypt" => primitive::aead_encrypt(vector),
        "ecdh" => primitive::ecdh(vector),
        "ecdsa_verify" => primitive::ecdsa_verify(vector),
        "hash" => primitive::hash(vector),
        "hkdf" => primitive::hkdf(vector),
        unknown => Err(Stop::Unknown(unknown.to_owned())),
    }
}

/// Whether a vector of DUKPT is of the AES family: it says what type the keys are, asks for what
/// only that family has, or has its key serial number.
pub(super) fn is_aes_dukpt(vector: &Vector) -> bool {
    let derivation = vector.optional_text("derivation_type").ok().flatten();
    match derivation {
        Some(name) if dukpt_tdes::knows(name) => false,
        Some(name) if dukpt_aes::knows(name) => true,
        Some(_) | None => {
            let op = vector.operation().unwrap_or_default();
            vector.has("bdk_type")
                || vector.has("initial_key_id")
                || matches!(op, "derive_transaction_key" | "derive_update_key" | "parse_ksn")
                || vector.bytes("ksn").is_ok_and(|ksn| ksn.len() == 12)
        }
    }
}

/// A name that the vectors do not define is an input that is refused.
pub(super) fn undefined(field: &str, name: &str) -> Stop {
    Stop::Refused(format!("`{field}` can not be `{name}`"))
}
