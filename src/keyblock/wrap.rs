//! Wraps and unwraps keys as the service does: versions D and B, strict, with one error.

use std::fmt;

use zeroize::Zeroizing;

use super::codec::{self, Defect, LENGTH_LEN};
use super::{Header, HeaderInvalid, Version, usage_meaning};
use crate::crypto::rng::{Rng, RngFailed};
use crate::crypto::self_test::KnownAnswer;
use crate::key::usage::{KeyBlockProtection, KeyEncryption, Usage, WorkingKeyEncryption};
use crate::key::{Algorithm, Key, Material};
use crate::memory::with_wiped_stack;

/// A usage whose keys wrap others as key blocks: the protection key of a link, a partner's key
/// encryption key, and the DUKPT update key.
pub trait WrappingUsage: Usage {}

impl WrappingUsage for KeyBlockProtection {}
impl WrappingUsage for KeyEncryption {}
impl WrappingUsage for WorkingKeyEncryption {}

/// A key block as text. Its key is enciphered and its header is public, so it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBlock(String);

impl KeyBlock {
    /// The block as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<KeyBlock> for String {
    fn from(block: KeyBlock) -> Self {
        block.0
    }
}

/// The block was not accepted. Which of its parts was wrong is told to nobody (SEC-43).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key block was rejected")]
pub struct KeyBlockRejected;

/// Why a key was not wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// The header can not be written, or the block would be too long.
    #[error("the key block header can not be written: {0}")]
    Header(#[from] HeaderInvalid),
    /// The header's algorithm has no keys of this length.
    #[error("the key has a length that the header's algorithm does not have")]
    KeyLength,
    /// No random padding.
    #[error(transparent)]
    Random(#[from] RngFailed),
    /// The wrapping key is weaker than what it would carry.
    #[error("the wrapping key is weaker than the key")]
    Strength,
    /// The header's version is not the one of the wrapping key's algorithm: D for AES, B for TDES.
    #[error("the key block version is not the one of the wrapping key")]
    Version,
}

/// What a key block held, once its MAC was verified.
pub struct Unwrapped {
    /// The header, with every optional block as it came.
    pub header: Header,
    /// The key's algorithm and length.
    pub algorithm: Algorithm,
    /// The key.
    pub material: Material,
}

/// Wraps a key under a header. The header's optional blocks are kept in their order, a padding
/// block is added where the cipher needs one, and the key's length is hidden: the clear data is
/// filled with random octets to the longest key of the algorithm (ANSI X9.143, 7.2), for AES 32
/// octets, for TDES 24, for HMAC 64, the longest HMAC key here.
pub fn wrap<U: WrappingUsage>(
    kbpk: &Key<U>,
    header: &Header,
    key: &Material,
    rng: &dyn Rng,
) -> Result<KeyBlock, WrapError> {
    // Exposed to the codec alone.
    wrap_bytes(kbpk, header, key.expose_bytes(), rng)
}

/// Wraps a typed key, such as a device's initial key, as [`wrap`] does.
pub fn wrap_key<K: Usage, U: WrappingUsage>(
    kbpk: &Key<U>,
    header: &Header,
    key: &Key<K>,
    rng: &dyn Rng,
) -> Result<KeyBlock, WrapError> {
    // Exposed to the codec alone.
    wrap_bytes(kbpk, header, key.expose_bytes(), rng)
}

fn wrap_bytes<U: WrappingUsage>(
    kbpk: &Key<U>,
    header: &Header,
    key: &[u8],
    rng: &dyn Rng,
) -> Result<KeyBlock, WrapError> {
    if Version::under(kbpk.algorithm()) != Some(header.version) {
        return Err(WrapError::Version);
    }
    let algorithm =
        Algorithm::from_header(header.algorithm, key.len()).ok_or(WrapError::KeyLength)?;
    if algorithm.strength_bits() > kbpk.algorithm().strength_bits() {
        return Err(WrapError::Strength);
    }
    let mut padding = Zeroizing::new(vec![0; padding_len(header.version, algorithm)]);
    rng.fill(&mut padding)?;

    let mut header = header.clone();
    header.align()?;
    let header = header.encode(0)?;
    // Both keys are exposed to the codec alone, which wipes what it derives and enciphers.
    with_wiped_stack(|| codec::seal(kbpk.expose_bytes(), &header, key, &padding))
        .map(KeyBlock)
        .map_err(|defect| match defect {
            Defect::Header(invalid) => WrapError::Header(invalid),
            Defect::KbpkLength => WrapError::Version,
            Defect::KeyLength => WrapError::KeyLength,
            Defect::Hex | Defect::Length | Defect::LengthField | Defect::Mac => {
                WrapError::Header(HeaderInvalid::LengthField)
            }
        })
}

/// Unwraps a block of version D under an AES key or of version B under a TDES key.
///
/// The MAC is verified, in constant time, over the header exactly as received before anything
/// else is acted upon. Then the block must be in its canonical form: upper-case hexadecimal, an
/// exact length field, `00` in the reserved places, known usage, algorithm, mode and
/// exportability, and no optional block twice.
pub fn unwrap<U: WrappingUsage>(kbpk: &Key<U>, text: &str) -> Result<Unwrapped, KeyBlockRejected> {
    let version = text.bytes().next().and_then(Version::from_letter);
    if version.is_none() || version != Version::under(kbpk.algorithm()) {
        return Err(KeyBlockRejected);
    }
    // The key is exposed to the codec alone, which wipes what it derives and deciphers.
    let opened = with_wiped_stack(|| codec::open(kbpk.expose_bytes(), text))
        .map_err(|_| KeyBlockRejected)?;
    let header = opened.header;
    let after_header = text.get(header.len_chars()..).ok_or(KeyBlockRejected)?;
    let algorithm = Algorithm::from_header(header.algorithm, opened.key.len_bytes());
    let Some(algorithm) = algorithm.filter(|_| is_canonical(&header, after_header)) else {
        return Err(KeyBlockRejected);
    };
    Ok(Unwrapped { header, algorithm, material: opened.key })
}

fn is_canonical(header: &Header, after_header: &str) -> bool {
    usage_meaning(header.usage).is_some()
        && b"BCDEGNSTVXY".contains(&header.mode)
        && b"ENS".contains(&header.exportability)
        && header.context == b'0'
        && header.reserved == b'0'
        && !after_header.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Random octets after a key, so that the clear data has the length it would have for the
/// longest key of the family, and is a multiple of the cipher's block.
fn padding_len(version: Version, algorithm: Algorithm) -> usize {
    let longest = if algorithm.is_aes() {
        Algorithm::Aes256
    } else if algorithm.is_tdes() {
        Algorithm::Tdes3
    } else {
        Algorithm::Hmac512
    };
    let clear_len = (LENGTH_LEN + longest.len_bytes()).next_multiple_of(version.cipher_block_len());
    clear_len - LENGTH_LEN - algorithm.len_bytes()
}

/// Known blocks of the two versions that the service opens, and the keys in them.
pub const KNOWN_ANSWERS: [KnownAnswer; 2] = [
    // ANSI X9.143:2022, 8.3.2.2.
    KnownAnswer {
        algorithm: "key block version B",
        expected: "3F419E1CB7079442AA37474C2EFBF8B8",
        holds: |expected| {
            let kbpk = 0xDD75_15F2_BFC1_7F85_CE48_F3CA_25CB_21F6_u128.to_be_bytes();
            let block = concat!(
                "B0096P0TE00E0000",
                "D7ED9E189BC6F715125B265B149DF8FE218A396785608923D6197378386A3759",
                "308FC49A2AA891BA",
            );
            opens(Algorithm::Tdes2, &kbpk, block, expected)
        },
    },
    // TR-31:2018, A.7.4.
    KnownAnswer {
        algorithm: "key block version D",
        expected: "3F419E1CB7079442AA37474C2EFBF8B8",
        holds: |expected| {
            let kbpk = [
                0x88E1_AB2A_2E3D_D38C_1FA0_39A5_3650_0CC8_u128.to_be_bytes(),
                0xA87A_B9D6_2DC9_2C01_058F_A79F_4465_7DE6_u128.to_be_bytes(),
            ];
            let block = concat!(
                "D0112P0AE00E0000",
                "B82679114F470F540165EDFBF7E250FCEA43F810D215F8D207E2E417C07156A2",
                "7E8E31DA05F7425509593D03A457DC34",
            );
            opens(Algorithm::Aes256, kbpk.as_flattened(), block, expected)
        },
    },
];

fn opens(algorithm: Algorithm, kbpk: &[u8], block: &str, expected: &[u8]) -> Option<bool> {
    let kbpk = Material::copied_from(kbpk);
    let kbpk = Key::<KeyBlockProtection>::from_material(algorithm, kbpk).ok()?;
    // A published key: exposed to be compared with what the standard prints.
    Some(unwrap(&kbpk, block).ok()?.material.expose_bytes() == expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rng::SystemRng;
    use crate::keyblock::OptionalBlock;

    fn key<U: Usage>(algorithm: Algorithm) -> Key<U> {
        Key::generate(algorithm, &SystemRng::new()).unwrap()
    }

    fn block(kbpk: &Key<KeyBlockProtection>, header: &Header, key: &[u8]) -> KeyBlock {
        wrap(kbpk, header, &Material::copied_from(key), &SystemRng::new()).unwrap()
    }

    #[test]
    fn what_was_wrapped_comes_back() {
        for (version, wrapping) in [(Version::D, Algorithm::Aes256), (Version::B, Algorithm::Tdes3)]
        {
            let kbpk = key(wrapping);
            let mut header = Header::new(version, *b"P0", b'T', b'E');
            header.push(OptionalBlock::new(*b"KS", "00604B120F9292800000").unwrap()).unwrap();
            header.push(OptionalBlock::new(*b"37", "whatever it is").unwrap()).unwrap();
            let text = block(&kbpk, &header, &[7; 16]);
            let mut opened = unwrap(&kbpk, text.as_str()).unwrap();
            assert_eq!(opened.material.expose_bytes(), [7; 16]);
            assert_eq!(opened.algorithm, Algorithm::Tdes2);
            assert!(opened.header.remove(*b"PB").is_some());
            assert_eq!(opened.header, header);
        }
    }

    #[test]
    fn the_length_of_a_key_does_not_show() {
        let kbpk = key(Algorithm::Aes256);
        for (letter, lengths) in [(b'A', vec![16, 24, 32]), (b'H', vec![16, 24, 32, 48, 64])] {
            let header = Header::new(Version::D, *b"M7", letter, b'C');
            let mut seen = lengths
                .iter()
                .map(|len| block(&kbpk, &header, &vec![1; *len]).as_str().len())
                .collect::<Vec<_>>();
            seen.dedup();
            assert_eq!(seen.len(), 1, "{seen:?}");
        }
        let kbpk = key(Algorithm::Tdes3);
        let header = Header::new(Version::B, *b"P0", b'T', b'E');
        let two = block(&kbpk, &header, &[1; 16]);
        let three = block(&kbpk, &header, &[1; 24]);
        assert_eq!(two.as_str().len(), three.as_str().len());
    }

    #[test]
    fn every_changed_character_is_rejected() {
        let kbpk = key(Algorithm::Aes128);
        let mut header = Header::new(Version::D, *b"B1", b'A', b'X');
        header.push(OptionalBlock::new(*b"IK", "1234567890123456").unwrap()).unwrap();
        let text = block(&kbpk, &header, &[9; 16]);
        for at in 0..text.as_str().len() {
            for other in [b'0', b'1', b'9', b'A', b'F', b'a', b'f', b'Z', b' ', 0x7F] {
                let mut changed = text.as_str().as_bytes().to_vec();
                if changed[at] == other {
                    continue;
                }
                changed[at] = other;
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(unwrap(&kbpk, &changed).err(), Some(KeyBlockRejected), "{changed}");
            }
            assert!(unwrap(&kbpk, &text.as_str()[..at]).is_err());
        }
        assert!(unwrap(&kbpk, &format!("{text}00000000000000000000000000000000")).is_err());
        let lower = format!("{}{}", &text.as_str()[..48], text.as_str()[48..].to_lowercase());
        assert!(unwrap(&kbpk, &lower).is_err());
        assert!(unwrap(&kbpk, text.as_str()).is_ok());
    }

    #[test]
    fn a_verified_block_must_still_be_canonical() {
        let kbpk = key::<KeyBlockProtection>(Algorithm::Aes128);
        let sealed = |header: &str, key: &[u8]| {
            let padding = vec![0; 46 - key.len()];
            codec::seal(kbpk.expose_bytes(), header, key, &padding).unwrap()
        };
        assert!(unwrap(&kbpk, &sealed("D0000P0AE00E0000", &[1; 16])).is_ok());
        for (header, key_len) in [
            ("D0000P9AE00E0000", 16),
            ("D000010AE00E0000", 16),
            ("D0000P0XE00E0000", 16),
            ("D0000P0AZ00E0000", 16),
            ("D0000P0AE00A0000", 16),
            ("D0000P0AE00E0010", 16),
            ("D0000P0AE00E0001", 16),
            ("D0000P0AE00E0000", 17),
            ("D0000P0TE00E0000", 8),
        ] {
            let text = sealed(header, &vec![1; key_len]);
            assert_eq!(unwrap(&kbpk, &text).err(), Some(KeyBlockRejected), "{header}");
        }
    }

    #[test]
    fn only_the_version_of_the_wrapping_key_is_accepted() {
        let aes = key::<KeyBlockProtection>(Algorithm::Aes128);
        let tdes = key::<KeyBlockProtection>(Algorithm::Tdes2);
        for version in [Version::A, Version::B, Version::C, Version::D, Version::E] {
            let header = Header::new(version, *b"P0", b'T', b'E');
            let letter = char::from(version.letter());
            let header_text = format!("{letter}0000P0TE00N0000");
            for kbpk in [&aes, &tdes] {
                let fits = Some(version) == Version::under(kbpk.algorithm());
                let wrapped = wrap(kbpk, &header, &Material::zeroed(16), &SystemRng::new());
                assert_eq!(wrapped.is_ok(), fits);
                let text = codec::seal(kbpk.expose_bytes(), &header_text, &[1; 16], &[0; 14]);
                let opened = unwrap(kbpk, &text.unwrap());
                assert_eq!(opened.is_ok(), fits, "{version:?}");
            }
        }
    }

    #[test]
    fn a_weaker_key_carries_nothing_stronger() {
        let kbpk = key::<KeyBlockProtection>(Algorithm::Aes128);
        let header = Header::new(Version::D, *b"B0", b'A', b'X');
        let refused = wrap(&kbpk, &header, &Material::zeroed(32), &SystemRng::new()).err();
        assert_eq!(refused, Some(WrapError::Strength));
        let refused = wrap(&kbpk, &header, &Material::zeroed(17), &SystemRng::new()).err();
        assert_eq!(refused, Some(WrapError::KeyLength));
        let kbpk = key::<KeyBlockProtection>(Algorithm::Tdes2);
        let header = Header::new(Version::B, *b"P0", b'T', b'E');
        let refused = wrap(&kbpk, &header, &Material::zeroed(24), &SystemRng::new()).err();
        assert_eq!(refused, Some(WrapError::Strength));
    }

    #[test]
    fn every_answer_is_right_and_every_bit_of_it_counts() {
        crate::crypto::self_test::expect_each_to_bite(&KNOWN_ANSWERS);
    }
}
