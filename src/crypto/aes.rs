//! The Advanced Encryption Standard: single blocks and cipher block chaining.

use ::aes::{Aes128, Aes192, Aes256};
use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use super::{KeyLengthInvalid, LengthInvalid, cbc};

/// AES with an expanded key of 128, 192 or 256 bits, wiped on drop.
///
/// See FIPS 197 (2023).
pub struct Aes(Schedule);

enum Schedule {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

/// Does one thing with whichever cipher the key length chose.
macro_rules! with_cipher {
    ($aes:expr, $cipher:ident => $body:expr) => {
        match &$aes.0 {
            Schedule::Aes128($cipher) => $body,
            Schedule::Aes192($cipher) => $body,
            Schedule::Aes256($cipher) => $body,
        }
    };
}

impl Aes {
    /// Octets in a block.
    pub const BLOCK_LEN_BYTES: usize = 16;

    /// Expands a key of 16, 24 or 32 bytes.
    pub fn new(key: &[u8]) -> Result<Self, KeyLengthInvalid> {
        let schedule = match key.len() {
            16 => Aes128::new_from_slice(key).map(Schedule::Aes128),
            24 => Aes192::new_from_slice(key).map(Schedule::Aes192),
            32 => Aes256::new_from_slice(key).map(Schedule::Aes256),
            _ => return Err(KeyLengthInvalid),
        };
        schedule.map(Self).map_err(|_| KeyLengthInvalid)
    }

    /// Encrypts one block in place.
    pub fn encrypt_block(&self, block: &mut [u8; 16]) {
        with_cipher!(self, cipher => cipher.encrypt_block(block.into()));
    }

    /// Decrypts one block in place.
    pub fn decrypt_block(&self, block: &mut [u8; 16]) {
        with_cipher!(self, cipher => cipher.decrypt_block(block.into()));
    }

    /// Encrypts whole blocks in place by cipher block chaining, without padding.
    pub fn cbc_encrypt(&self, iv: &[u8; 16], data: &mut [u8]) -> Result<(), LengthInvalid> {
        with_cipher!(self, cipher => cbc::encrypt(cipher, iv.into(), data))
    }

    /// Decrypts whole blocks in place by cipher block chaining, without padding.
    pub fn cbc_decrypt(&self, iv: &[u8; 16], data: &mut [u8]) -> Result<(), LengthInvalid> {
        with_cipher!(self, cipher => cbc::decrypt(cipher, iv.into(), data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197, appendix C: the plaintext of its three examples.
    const PLAIN: [u8; 16] = [
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
        0xff,
    ];

    fn key(len_bytes: u8) -> Vec<u8> {
        (0..len_bytes).collect()
    }

    #[test]
    fn agrees_with_the_standard_for_each_key_length() {
        // FIPS 197, appendices C.1, C.2 and C.3.
        let expected = [
            (16, "69C4E0D86A7B0430D8CDB78070B4C55A"),
            (24, "DDA97CA4864CDFE06EAF70A0EC0D7191"),
            (32, "8EA2B7CA516745BFEAFC49904B496089"),
        ];
        for (len_bytes, cryptogram) in expected {
            let aes = Aes::new(&key(len_bytes)).unwrap();
            let mut block = PLAIN;
            aes.encrypt_block(&mut block);
            assert_eq!(data_encoding::HEXUPPER.encode(&block), cryptogram);
            aes.decrypt_block(&mut block);
            assert_eq!(block, PLAIN);
        }
    }

    #[test]
    fn refuses_other_key_lengths() {
        for len_bytes in [0, 1, 15, 17, 23, 25, 31, 33, 64] {
            assert!(Aes::new(&key(len_bytes)).is_err());
        }
    }

    #[test]
    fn chains_blocks_there_and_back_and_refuses_a_part() {
        let aes = Aes::new(&key(16)).unwrap();
        let iv = [7; 16];
        let mut data = [PLAIN, PLAIN].concat();
        aes.cbc_encrypt(&iv, &mut data).unwrap();
        assert_ne!(data[..16], data[16..]);
        let mut first = PLAIN;
        first.iter_mut().zip(iv).for_each(|(byte, iv)| *byte ^= iv);
        aes.encrypt_block(&mut first);
        assert_eq!(data[..16], first);
        aes.cbc_decrypt(&iv, &mut data).unwrap();
        assert_eq!(data, [PLAIN, PLAIN].concat());
        assert_eq!(aes.cbc_encrypt(&iv, &mut data[1..]), Err(LengthInvalid));
        assert_eq!(aes.cbc_decrypt(&iv, &mut data[1..]), Err(LengthInvalid));
    }
}
