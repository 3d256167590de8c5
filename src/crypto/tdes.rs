//! The Triple Data Encryption Algorithm, and single DES where a standard builds upon it.

use ::des::{TdesEde2, TdesEde3};
use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::ct::ConstantTimeEq;
use super::{Choice, KeyLengthInvalid, LengthInvalid, cbc};

/// TDEA (TDES) with a double (K1 K2 K1) or triple length key, wiped on drop.
///
/// Keys are taken as they stand, parity bits included.
///
/// See NIST SP 800-67 revision 2 (2017).
pub struct Tdes(Schedule);

enum Schedule {
    Double(TdesEde2),
    Triple(TdesEde3),
}

macro_rules! with_cipher {
    ($tdes:expr, $cipher:ident => $body:expr) => {
        match &$tdes.0 {
            Schedule::Double($cipher) => $body,
            Schedule::Triple($cipher) => $body,
        }
    };
}

impl Tdes {
    /// Octets in a block.
    pub const BLOCK_LEN_BYTES: usize = 8;

    /// Expands a key of 16 or 24 bytes.
    pub fn new(key: &[u8]) -> Result<Self, KeyLengthInvalid> {
        let schedule = match key.len() {
            16 => TdesEde2::new_from_slice(key).map(Schedule::Double),
            24 => TdesEde3::new_from_slice(key).map(Schedule::Triple),
            _ => return Err(KeyLengthInvalid),
        };
        schedule.map(Self).map_err(|_| KeyLengthInvalid)
    }

    /// Encrypts one block in place.
    pub fn encrypt_block(&self, block: &mut [u8; 8]) {
        with_cipher!(self, cipher => cipher.encrypt_block(block.into()));
    }

    /// Decrypts one block in place.
    pub fn decrypt_block(&self, block: &mut [u8; 8]) {
        with_cipher!(self, cipher => cipher.decrypt_block(block.into()));
    }

    /// Encrypts whole blocks in place by cipher block chaining, without padding.
    pub fn cbc_encrypt(&self, iv: &[u8; 8], data: &mut [u8]) -> Result<(), LengthInvalid> {
        with_cipher!(self, cipher => cbc::encrypt(cipher, iv.into(), data))
    }

    /// Decrypts whole blocks in place by cipher block chaining, without padding.
    pub fn cbc_decrypt(&self, iv: &[u8; 8], data: &mut [u8]) -> Result<(), LengthInvalid> {
        with_cipher!(self, cipher => cbc::decrypt(cipher, iv.into(), data))
    }
}

/// Single DES, wiped on drop: a step of the one-way function of ANSI X9.24-1:2009 and of the
/// `UnionPay` MAC. It protects nothing by itself.
///
/// See FIPS 46-3 (1999).
pub struct Des(::des::Des);

impl Des {
    /// Expands a key.
    #[must_use]
    pub fn new(key: &[u8; 8]) -> Self {
        Self(::des::Des::new(key.into()))
    }

    /// Encrypts one block in place.
    pub fn encrypt_block(&self, block: &mut [u8; 8]) {
        self.0.encrypt_block(block.into());
    }

    /// Decrypts one block in place.
    pub fn decrypt_block(&self, block: &mut [u8; 8]) {
        self.0.decrypt_block(block.into());
    }
}

/// Why a DES or TDES key is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// Two of its 8-byte parts are one key, which undoes a step of the triple encryption.
    PartsEqual,
    /// One of its 8-byte parts is weak, semi-weak or possibly weak: zero is among them.
    PartWeak,
}

/// Finds what makes a key of whole 8-byte parts unfit, whatever its parity bits are.
///
/// The 64 keys are those of NIST SP 800-67 revision 2, 3.3.2. Equal parts are refused there in
/// 3.3.1 for K1 = K2 and K2 = K3; K1 = K3 given as three parts is a double length key that poses
/// as a triple one.
#[must_use]
pub fn weakness(key: &[u8]) -> Option<Weakness> {
    // The library compares raw bytes, so K and K with other parity would pass as two keys.
    let mut normal = Zeroizing::new(key.to_vec());
    set_odd_parity(&mut normal);
    let (parts, _) = normal.as_chunks::<8>();
    let mut equal = Choice::from(0);
    let mut weak = false;
    for (index, part) in parts.iter().enumerate() {
        for other in &parts[index + 1..] {
            equal |= part.ct_eq(other);
        }
        weak |= ::des::weak_key_test(part).is_err();
    }
    match (bool::from(equal), weak) {
        (_, true) => Some(Weakness::PartWeak),
        (true, false) => Some(Weakness::PartsEqual),
        (false, false) => None,
    }
}

/// Gives each octet an odd number of one bits by its lowest bit, as a new DES key has them.
pub fn set_odd_parity(key: &mut [u8]) {
    for octet in key {
        // By folding, not by a count: the time does not depend on the key.
        let folded = *octet ^ (*octet >> 4);
        let folded = folded ^ (folded >> 2);
        let folded = folded ^ (folded >> 1);
        *octet ^= 1 ^ (folded & 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K1: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    const K2: [u8; 8] = [0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01];
    const K3: [u8; 8] = [0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23];

    #[test]
    fn agrees_with_the_standard() {
        // SP 800-67, appendix B.1: the first block of its example.
        let tdes = Tdes::new(&[K1, K2, K3].concat()).unwrap();
        let mut block = *b"The qufc";
        tdes.encrypt_block(&mut block);
        assert_eq!(data_encoding::HEXUPPER.encode(&block), "A826FD8CE53B855F");
        tdes.decrypt_block(&mut block);
        assert_eq!(&block, b"The qufc");
    }

    #[test]
    fn double_length_is_triple_with_the_first_part_again() {
        let double = Tdes::new(&[K1, K2].concat()).unwrap();
        let triple = Tdes::new(&[K1, K2, K1].concat()).unwrap();
        let mut one = [0x5a; 24];
        let mut other = one;
        double.cbc_encrypt(&[1; 8], &mut one).unwrap();
        triple.cbc_encrypt(&[1; 8], &mut other).unwrap();
        assert_eq!(one, other);
        double.cbc_decrypt(&[1; 8], &mut one).unwrap();
        assert_eq!(one, [0x5a; 24]);
        assert_eq!(double.cbc_encrypt(&[1; 8], &mut one[..7]), Err(LengthInvalid));
    }

    #[test]
    fn single_des_is_triple_with_one_part() {
        let mut one = [9; 8];
        let mut other = one;
        Des::new(&K1).encrypt_block(&mut one);
        Tdes::new(&[K1, K1].concat()).unwrap().encrypt_block(&mut other);
        assert_eq!(one, other);
        Des::new(&K1).decrypt_block(&mut one);
        assert_eq!(one, [9; 8]);
    }

    #[test]
    fn refuses_other_key_lengths() {
        for len_bytes in [0, 8, 15, 17, 23, 25, 32] {
            assert!(Tdes::new(&vec![0x5b; len_bytes]).is_err());
        }
    }

    #[test]
    fn finds_weak_parts_under_every_parity() {
        // SP 800-67, 3.3.2: one of the weak, semi-weak and possibly weak keys each.
        let weak: [[u8; 8]; 4] = [
            [0x01; 8],
            [0xfe; 8],
            [0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe],
            [0x1f, 0x1f, 0x01, 0x01, 0x0e, 0x0e, 0x01, 0x01],
        ];
        for part in weak {
            for mask in 0..=u8::MAX {
                let mut other_parity = part;
                for (bit, octet) in other_parity.iter_mut().enumerate() {
                    *octet ^= (mask >> bit) & 1;
                }
                assert_eq!(weakness(&[K1, other_parity].concat()), Some(Weakness::PartWeak));
                assert_eq!(weakness(&[other_parity, K1].concat()), Some(Weakness::PartWeak));
            }
        }
        assert_eq!(weakness(&[0; 16]), Some(Weakness::PartWeak));
    }

    #[test]
    fn finds_equal_parts_under_every_parity() {
        let turned = K1.map(|octet| octet ^ 1);
        for key in [[K1, turned].concat(), [K1, K2, turned].concat(), [K2, K1, turned].concat()] {
            assert_eq!(weakness(&key), Some(Weakness::PartsEqual));
        }
        assert_eq!(weakness(&[K1, turned, K2].concat()), Some(Weakness::PartsEqual));
        assert_eq!(weakness(&[K1, K2].concat()), None);
        assert_eq!(weakness(&[K1, K2, K3].concat()), None);
    }

    #[test]
    fn odd_parity_changes_the_lowest_bit_alone() {
        for octet in 0..=u8::MAX {
            let mut adjusted = [octet];
            set_odd_parity(&mut adjusted);
            assert_eq!(adjusted[0].count_ones() % 2, 1);
            assert_eq!(adjusted[0] >> 1, octet >> 1);
        }
    }
}
