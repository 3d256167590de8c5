//! CBC-MAC, ISO 9797-1:2011 MAC algorithm 1, over a message that is already padded.
//!
//! Secure only where all messages have one length or begin with their length.

use ::cbc_mac::{CbcMac, Mac};
use cipher::KeyInit;

use super::{KeyLengthInvalid, LengthInvalid};

/// Why a CBC-MAC or retail MAC is not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockMacError {
    /// The key has a length that the algorithm does not have.
    #[error(transparent)]
    Key(#[from] KeyLengthInvalid),
    /// The message is empty or not a whole number of blocks.
    #[error(transparent)]
    Message(#[from] LengthInvalid),
}

/// Computes the MAC with TDES under a key of 16 or 24 bytes.
pub fn tdes_cbc_mac(key: &[u8], padded: &[u8]) -> Result<[u8; 8], BlockMacError> {
    require_blocks::<8>(padded)?;
    match key.len() {
        16 => mac::<CbcMac<::des::TdesEde2>, 8>(key, padded),
        24 => mac::<CbcMac<::des::TdesEde3>, 8>(key, padded),
        _ => Err(KeyLengthInvalid.into()),
    }
}

/// Computes the MAC with AES under a key of 16, 24 or 32 bytes.
pub fn aes_cbc_mac(key: &[u8], padded: &[u8]) -> Result<[u8; 16], BlockMacError> {
    require_blocks::<16>(padded)?;
    match key.len() {
        16 => mac::<CbcMac<::aes::Aes128>, 16>(key, padded),
        24 => mac::<CbcMac<::aes::Aes192>, 16>(key, padded),
        32 => mac::<CbcMac<::aes::Aes256>, 16>(key, padded),
        _ => Err(KeyLengthInvalid.into()),
    }
}

/// Refuses what the library would pad by itself or answer with zeros.
pub(super) fn require_blocks<const LEN_BYTES: usize>(padded: &[u8]) -> Result<(), LengthInvalid> {
    if padded.is_empty() || !padded.len().is_multiple_of(LEN_BYTES) {
        return Err(LengthInvalid);
    }
    Ok(())
}

pub(super) fn mac<M: Mac + KeyInit, const N: usize>(
    key: &[u8],
    padded: &[u8],
) -> Result<[u8; N], BlockMacError> {
    let mut mac = <M as KeyInit>::new_from_slice(key).map_err(|_| KeyLengthInvalid)?;
    mac.update(padded);
    let mut tag = [0; N];
    tag.copy_from_slice(&mac.finalize().into_bytes());
    Ok(tag)
}

#[cfg(test)]
mod tests {
    use super::super::{aes::Aes, tdes::Tdes};
    use super::*;

    #[test]
    fn is_the_last_block_of_chaining_from_zero() {
        let key: Vec<u8> = (1..=16).collect();
        let message: Vec<u8> = (0..48).collect();
        let mut chained = message.clone();
        Tdes::new(&key).unwrap().cbc_encrypt(&[0; 8], &mut chained).unwrap();
        assert_eq!(tdes_cbc_mac(&key, &message).unwrap(), chained[40..]);
        let mut chained = message.clone();
        Aes::new(&key).unwrap().cbc_encrypt(&[0; 16], &mut chained).unwrap();
        assert_eq!(aes_cbc_mac(&key, &message).unwrap(), chained[32..]);
    }

    #[test]
    fn refuses_empty_and_ragged_messages() {
        for message in [&b""[..], b"seven b", b"nine byte"] {
            let refused = Err(BlockMacError::Message(LengthInvalid));
            assert_eq!(tdes_cbc_mac(&[1; 16], message), refused);
            assert_eq!(aes_cbc_mac(&[1; 16], message), refused.map(|_: [u8; 8]| [0; 16]));
        }
        assert_eq!(tdes_cbc_mac(&[1; 8], &[0; 8]), Err(BlockMacError::Key(KeyLengthInvalid)));
    }
}
