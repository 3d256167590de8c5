//! MACs under a given key.

use super::file::hex;
use super::operation::undefined;
use super::{Answer, Outcome, Stop, Vector};
use crate::mac::for_vectors::{VectorMacAlgorithm, generate, verify};
use crate::mac::{MacAlgorithm, Padding};

/// Runs `mac_generate` and `mac_verify` with the vector's own key.
pub(super) fn run(vector: &Vector) -> Outcome {
    let algorithm = algorithm(vector)?;
    let mut key = vector.bytes("key")?;
    let is_cbc_mac = matches!(algorithm, VectorMacAlgorithm::Service(MacAlgorithm::Iso9797Alg1(_)));
    if is_cbc_mac && key.len() == SINGLE_DES_LEN {
        // Two equal halves are single DES, as the standard's own examples of algorithm 1 use it.
        key.extend_from_within(..);
    }
    with_key(vector, algorithm, &key)
}

const SINGLE_DES_LEN: usize = 8;

/// Runs `mac_generate` and `mac_verify` with a key that was derived.
pub(super) fn with_key(vector: &Vector, algorithm: VectorMacAlgorithm, key: &[u8]) -> Outcome {
    let message = vector.bytes("message")?;
    if vector.operation()? == "mac_verify" {
        let mac = vector.bytes("mac")?;
        let len_bytes = vector.optional_number("mac_length")?.unwrap_or(mac.len());
        if len_bytes == 0 {
            return Err(Stop::Refused("a MAC of no octets verifies nothing".to_owned()));
        }
        verify(algorithm, key, &message, &mac, len_bytes)?;
        return Ok(Answer::verified());
    }
    let len_bytes = vector.optional_number("mac_length")?.unwrap_or(whole_len(algorithm));
    if len_bytes == 0 {
        return Err(Stop::Refused("a MAC of no octets proves nothing".to_owned()));
    }
    Ok(Answer::text(&hex(&generate(algorithm, key, &message, len_bytes)?)))
}

/// The MAC algorithm that a vector names.
pub(super) fn algorithm(vector: &Vector) -> Result<VectorMacAlgorithm, Stop> {
    Ok(VectorMacAlgorithm::Service(match vector.text("mac_algorithm")? {
        "CMAC-AES" => MacAlgorithm::AesCmac,
        "CMAC-TDES" => MacAlgorithm::TdesCmac,
        "HMAC-SHA256" => MacAlgorithm::HmacSha256,
        "HMAC-SHA384" => MacAlgorithm::HmacSha384,
        "HMAC-SHA512" => MacAlgorithm::HmacSha512,
        "ISO9797-1-ALG1" => MacAlgorithm::Iso9797Alg1(padding(vector)?),
        "ISO9797-1-ALG3" => MacAlgorithm::Iso9797Alg3(padding(vector)?),
        "ISO9797-1-ALG1-AES" => return Ok(VectorMacAlgorithm::Iso9797Alg1Aes(padding(vector)?)),
        "UNIONPAY-ECB" => return Ok(VectorMacAlgorithm::UnionPayEcb),
        unknown => return Err(Stop::Unknown(format!("{} {unknown}", vector.operation()?))),
    }))
}

/// The padding method; method 1, that of X9.19, where none is said.
fn padding(vector: &Vector) -> Result<Padding, Stop> {
    match vector.optional_number("padding_method")? {
        None | Some(1) => Ok(Padding::Method1),
        Some(2) => Ok(Padding::Method2),
        Some(3) => Ok(Padding::Method3),
        Some(other) => Err(undefined("padding_method", &other.to_string())),
    }
}

fn whole_len(algorithm: VectorMacAlgorithm) -> usize {
    match algorithm {
        VectorMacAlgorithm::Iso9797Alg1Aes(_) => 16,
        VectorMacAlgorithm::Service(algorithm) => algorithm.len_bytes(),
        VectorMacAlgorithm::UnionPayEcb => 8,
    }
}
