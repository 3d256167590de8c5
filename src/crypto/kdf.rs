//! Key derivation: HKDF (RFC 5869) and the counter mode KDF with CMAC (SP 800-108r1, 2022).

use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use super::cbc_mac::BlockMacError;
use super::{KeyLengthInvalid, LengthInvalid, cmac};

/// Derives `out` by HKDF with SHA-256; the parts of `info` are joined as they stand.
///
/// At most 255 blocks of 32 bytes can be derived, else the length is invalid.
pub fn hkdf_sha256(
    salt: &[u8],
    input: &[u8],
    info: &[&[u8]],
    out: &mut [u8],
) -> Result<(), LengthInvalid> {
    Salt::new(HKDF_SHA256, salt)
        .extract(input)
        .expand(info, OutLen(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| LengthInvalid)
}

struct OutLen(usize);

impl KeyType for OutLen {
    fn len(&self) -> usize {
        self.0
    }
}

/// Derives `out` by the counter mode KDF with AES-CMAC.
///
/// ```text
/// K(i) = CMAC(key, i as 32 bits || label || 00 || context || bits of out as 32 bits)
/// ```
///
/// The key has 16, 24 or 32 bytes; `out` is neither empty nor longer than 512 MiB.
///
/// See NIST SP 800-108r1 (2022), 4.1.
pub fn kbkdf_cmac_aes(
    key: &[u8],
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Result<(), BlockMacError> {
    counter_mode(|input| cmac::aes_cmac(key, input), label, context, out)
}

/// Derives `out` by the counter mode KDF with TDES-CMAC, which is [`kbkdf_cmac_aes`] in blocks of 8
/// bytes. The key has 16 or 24 bytes; a key that is derived has whatever parity comes out.
pub fn kbkdf_cmac_tdes(
    key: &[u8],
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Result<(), BlockMacError> {
    counter_mode(|input| cmac::tdes_cmac(key, input), label, context, out)
}

fn counter_mode<const LEN_BYTES: usize>(
    prf: impl Fn(&[u8]) -> Result<[u8; LEN_BYTES], KeyLengthInvalid>,
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Result<(), BlockMacError> {
    let bits = out.len().checked_mul(8).and_then(|bits| u32::try_from(bits).ok());
    let bits = bits.filter(|bits| *bits > 0).ok_or(LengthInvalid)?;
    for (counter, block) in (1_u32..).zip(out.chunks_mut(LEN_BYTES)) {
        let input =
            [&counter.to_be_bytes(), label, &[0], context, &bits.to_be_bytes()[..]].concat();
        let derived = Zeroizing::new(prf(&input)?);
        block.copy_from_slice(&derived[..block.len()]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::super::KeyLengthInvalid;
    use super::*;

    #[test]
    fn hkdf_agrees_with_rfc_5869() {
        // RFC 5869, appendix A.1; its info cut in two.
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let mut out = [0; 42];
        hkdf_sha256(&salt, &[0x0b; 22], &[&info[..3], &info[3..]], &mut out).unwrap();
        assert_eq!(
            HEXUPPER.encode(&out),
            "3CB25F25FAACD57A90434F64D0362F2A2D2D0A90CF1A5A4C5DB02D56ECC4C5BF34007208D5B887185865"
        );
    }

    #[test]
    fn hkdf_refuses_more_than_it_has() {
        assert!(hkdf_sha256(b"", b"", &[], &mut vec![0; 255 * 32]).is_ok());
        assert!(hkdf_sha256(b"", b"", &[], &mut vec![0; 255 * 32 + 1]).is_err());
    }

    #[test]
    fn kbkdf_is_cmac_of_the_stated_input() {
        let key = [7; 16];
        let mut out = [0; 24];
        kbkdf_cmac_aes(&key, b"label", b"context", &mut out).unwrap();
        let first = b"\x00\x00\x00\x01label\x00context\x00\x00\x00\xc0";
        let second = b"\x00\x00\x00\x02label\x00context\x00\x00\x00\xc0";
        assert_eq!(out[..16], cmac::aes_cmac(&key, first).unwrap());
        assert_eq!(out[16..], cmac::aes_cmac(&key, second).unwrap()[..8]);
    }

    #[test]
    fn kbkdf_agrees_with_openssl() {
        // Computed with Python's cryptography over OpenSSL 4.0.
        let key = HEXUPPER.decode(b"8AA83BF8CBDA10620BC1BF19FBB6CD58BC313D4A371CA8B5").unwrap();
        let mut out = [0; 24];
        kbkdf_cmac_tdes(&key, b"label", b"context", &mut out).unwrap();
        assert_eq!(HEXUPPER.encode(&out), "23174F1FEBC62C785455B1F13AFED4C91E6D6175256537F3");
        let key: Vec<u8> = (0..32).collect();
        let mut out = [0; 40];
        kbkdf_cmac_aes(&key, b"label", b"context", &mut out).unwrap();
        let known =
            "F14B2590D159191E74C966B0CCEFD4E8ACC21DAC50A6B9816BE8A8B591834AF5291AE4253390327D";
        assert_eq!(HEXUPPER.encode(&out), known);
    }

    #[test]
    fn kbkdf_refuses_an_empty_output_and_other_keys() {
        assert_eq!(kbkdf_cmac_aes(&[7; 16], b"", b"", &mut []), Err(LengthInvalid.into()));
        assert_eq!(kbkdf_cmac_aes(&[7; 8], b"", b"", &mut [0]), Err(KeyLengthInvalid.into()));
        assert_eq!(kbkdf_cmac_tdes(&[7; 16], b"", b"", &mut []), Err(LengthInvalid.into()));
        assert_eq!(kbkdf_cmac_tdes(&[7; 8], b"", b"", &mut [0]), Err(KeyLengthInvalid.into()));
    }
}
