//! What the service refuses and test vectors contain: raw keys, empty messages, single DES.
//!
//! For the vector runner alone; `command` and `grpc` may not come here.

use zeroize::Zeroizing;

use super::algorithm::whole;
use super::padding::Padding;
use super::{MacAlgorithm, MacError, MacMismatch, Octets, VerifyMacError};
use crate::crypto::tdes::Tdes;
use crate::crypto::{self, cbc_mac};

/// A MAC algorithm of the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VectorMacAlgorithm {
    /// CBC-MAC with AES, which the service does not offer: its AES MAC is CMAC.
    Iso9797Alg1Aes(Padding),
    /// One of the service, with any key and message.
    Service(MacAlgorithm),
    /// The MAC of `UnionPay` terminals, in its `ECB` form: eight ASCII characters.
    UnionPayEcb,
}

/// Generates a MAC of exactly `len_bytes`, the leftmost octets.
pub(crate) fn generate(
    algorithm: VectorMacAlgorithm,
    key: &[u8],
    message: &[u8],
    len_bytes: usize,
) -> Result<Vec<u8>, MacError> {
    let octets = compute(algorithm, key, message)?;
    octets.bytes().get(..len_bytes).map(<[u8]>::to_vec).ok_or(MacError::Length)
}

/// Verifies a MAC that must have exactly `len_bytes`.
pub(crate) fn verify(
    algorithm: VectorMacAlgorithm,
    key: &[u8],
    message: &[u8],
    mac: &[u8],
    len_bytes: usize,
) -> Result<(), VerifyMacError> {
    if mac.len() != len_bytes {
        return Err(MacError::Length.into());
    }
    let expected = generate(algorithm, key, message, len_bytes)?;
    if crypto::constant_time_eq(&expected, mac) { Ok(()) } else { Err(MacMismatch.into()) }
}

fn compute(algorithm: VectorMacAlgorithm, key: &[u8], message: &[u8]) -> Result<Octets, MacError> {
    match algorithm {
        VectorMacAlgorithm::Iso9797Alg1Aes(padding) => {
            whole(cbc_mac::aes_cbc_mac(key, &padding.pad::<16>(message)))
        }
        VectorMacAlgorithm::Service(algorithm) => algorithm.compute(key, message),
        VectorMacAlgorithm::UnionPayEcb => union_pay_ecb(key, message),
    }
}

/// ```text
/// x = exclusive or of the blocks of the message, the last filled with zeros
/// y = E(key, first 8 hexadecimal digits of x in ASCII)
/// z = E(key, y xor last 8 hexadecimal digits of x in ASCII)
/// MAC = first 8 hexadecimal digits of z in ASCII
/// ```
fn union_pay_ecb(key: &[u8], message: &[u8]) -> Result<Octets, MacError> {
    let cipher = single_or_double(key)?;
    let mut folded = [0; 8];
    for block in message.chunks(8) {
        folded.iter_mut().zip(block).for_each(|(octet, other)| *octet ^= other);
    }
    let [left, right] = ascii_halves(folded);
    let mut block = left;
    cipher.encrypt_block(&mut block);
    block.iter_mut().zip(right).for_each(|(octet, other)| *octet ^= other);
    cipher.encrypt_block(&mut block);
    let [mac, _] = ascii_halves(block);
    Ok(Octets::new(&mac))
}

/// The upper-case hexadecimal digits of a block, in two blocks of ASCII.
fn ascii_halves(block: [u8; 8]) -> [[u8; 8]; 2] {
    let digits =
        block.map(|octet| [octet >> 4, octet & 0xf].map(|digit| HEX_DIGITS[usize::from(digit)]));
    let mut halves = [[0; 8]; 2];
    for (target, digit) in halves.as_flattened_mut().iter_mut().zip(digits.as_flattened()) {
        *target = *digit;
    }
    halves
}

const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// A single length key is a double length one with equal halves.
fn single_or_double(key: &[u8]) -> Result<Tdes, MacError> {
    let doubled;
    let key = match key.len() {
        8 => {
            doubled = Zeroizing::new(key.repeat(2));
            &doubled
        }
        16 => key,
        _ => return Err(MacError::Algorithm),
    };
    Tdes::new(key).map_err(|_| MacError::Algorithm)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;

    #[test]
    fn union_pay_agrees_with_its_worked_example() {
        // The worked example of the UnionPay POS specification's ECB algorithm, as given in the
        // tests of the open-source project pgate.
        let message = HEXUPPER.decode(b"1234567890ABCDEFABCDEF1234567890").unwrap();
        let algorithm = VectorMacAlgorithm::UnionPayEcb;
        assert_eq!(generate(algorithm, &[0x22; 8], &message, 8).unwrap(), b"E267B6E2");
        assert_eq!(generate(algorithm, &[0x22; 16], &message, 8).unwrap(), b"E267B6E2");
        assert_eq!(generate(algorithm, &[0x22; 24], &message, 8), Err(MacError::Algorithm));
    }

    #[test]
    fn a_length_that_is_not_the_stated_one_is_refused() {
        let algorithm = VectorMacAlgorithm::Service(MacAlgorithm::AesCmac);
        let mac = generate(algorithm, &[1; 16], b"", 16).unwrap();
        assert_eq!(verify(algorithm, &[1; 16], b"", &mac, 16), Ok(()));
        let refused = verify(algorithm, &[1; 16], b"", &mac[..8], 16);
        assert_eq!(refused, Err(MacError::Length.into()));
        assert_eq!(generate(algorithm, &[1; 16], b"", 17), Err(MacError::Length));
        assert_eq!(verify(algorithm, &[2; 16], b"", &mac, 16), Err(MacMismatch.into()));
    }
}
