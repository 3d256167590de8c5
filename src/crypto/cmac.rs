//! CMAC, the MAC mode of a block cipher: NIST SP 800-38B (2016), ISO 9797-1:2011 algorithm 5.

use ::cmac::{Cmac, Mac};
use ::des::{TdesEde2, TdesEde3};
use cipher::{KeyInit, KeySizeUser};

use super::KeyLengthInvalid;

/// Computes AES-CMAC under a key of 16, 24 or 32 bytes.
pub fn aes_cmac(key: &[u8], message: &[u8]) -> Result<[u8; 16], KeyLengthInvalid> {
    match key.len() {
        16 => mac::<Cmac<::aes::Aes128>, 16>(key, message),
        24 => mac::<Cmac<::aes::Aes192>, 16>(key, message),
        32 => mac::<Cmac<::aes::Aes256>, 16>(key, message),
        _ => Err(KeyLengthInvalid),
    }
}

/// Computes TDES-CMAC under a key of 16 or 24 bytes.
pub fn tdes_cmac(key: &[u8], message: &[u8]) -> Result<[u8; 8], KeyLengthInvalid> {
    match key.len() {
        16 => mac::<Cmac<TdesEde2>, 8>(key, message),
        24 => mac::<Cmac<TdesEde3>, 8>(key, message),
        _ => Err(KeyLengthInvalid),
    }
}

fn mac<M: Mac + KeyInit + KeySizeUser, const N: usize>(
    key: &[u8],
    message: &[u8],
) -> Result<[u8; N], KeyLengthInvalid> {
    let mut mac = <M as KeyInit>::new_from_slice(key).map_err(|_| KeyLengthInvalid)?;
    mac.update(message);
    let mut tag = [0; N];
    tag.copy_from_slice(&mac.finalize().into_bytes());
    Ok(tag)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;

    #[test]
    fn agrees_with_rfc_4493() {
        // RFC 4493, section 4, examples 1 and 2.
        let key = HEXUPPER.decode(b"2B7E151628AED2A6ABF7158809CF4F3C").unwrap();
        let message = HEXUPPER.decode(b"6BC1BEE22E409F96E93D7E117393172A").unwrap();
        assert_eq!(
            HEXUPPER.encode(&aes_cmac(&key, b"").unwrap()),
            "BB1D6929E95937287FA37D129B756746"
        );
        assert_eq!(
            HEXUPPER.encode(&aes_cmac(&key, &message).unwrap()),
            "070A16B46B4D4144F79BDD9DD04A287C"
        );
    }

    #[test]
    fn agrees_with_the_tdes_examples_of_the_standard() {
        // NIST, CMAC with TDEA examples to SP 800-38B: three-key, empty message and 16 bytes.
        let key = HEXUPPER.decode(b"8AA83BF8CBDA10620BC1BF19FBB6CD58BC313D4A371CA8B5").unwrap();
        assert_eq!(HEXUPPER.encode(&tdes_cmac(&key, b"").unwrap()), "B7A688E122FFAF95");
        let message = HEXUPPER.decode(b"6BC1BEE22E409F96").unwrap();
        assert_eq!(HEXUPPER.encode(&tdes_cmac(&key, &message).unwrap()), "8E8F293136283797");
    }

    #[test]
    fn refuses_other_key_lengths() {
        for len_bytes in [0, 8, 15, 17, 33] {
            assert!(aes_cmac(&vec![1; len_bytes], b"").is_err());
            assert!(tdes_cmac(&vec![1; len_bytes], b"").is_err());
        }
        assert!(tdes_cmac(&[1; 32], b"").is_err());
    }
}
