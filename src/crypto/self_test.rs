//! Known answers of every primitive on the service's path, asked before the first call is served.
//!
//! What a library, a compiler or a machine computes wrongly is found here and not by a terminal.
//! The rooms above have their own. Whatever fails once, here or in a test of a new key pair, is a
//! state of the process that only its end leaves (FIPS 140-3, 7.10).

use data_encoding::HEXUPPER;
use tokio::sync::SetOnce;

use super::aes::Aes;
use super::ec::{EphemeralKey, Point, SigningKey};
use super::ed25519::{self, Ed25519Key};
use super::tdes::{Des, Tdes};
use super::{aead, cbc_mac, cmac, digest, ec, hmac, kdf, retail_mac};
use crate::memory::with_wiped_stack;

/// Something gives another answer than its standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the self-test of {algorithm} failed")]
pub struct SelfTestFailed {
    /// What failed, in the words of its standard.
    pub algorithm: &'static str,
}

/// One known answer: `holds` computes and compares with `expected`, which stands apart so that a
/// test can put a wrong one in its place.
#[derive(Clone, Copy)]
pub struct KnownAnswer {
    /// What is computed, in the words of its standard.
    pub algorithm: &'static str,
    /// What must come out, in hexadecimals.
    pub(crate) expected: &'static str,
    pub(crate) holds: fn(expected: &[u8]) -> Option<bool>,
}

impl KnownAnswer {
    /// Computes it and compares.
    pub fn check(&self) -> Result<(), SelfTestFailed> {
        let failed = SelfTestFailed { algorithm: self.algorithm };
        let mut expected = hex(self.expected).ok_or(failed)?;
        falsify(self.algorithm, &mut expected);
        // Published keys: but whoever searches the memory for keys is to find none.
        let holds = with_wiped_stack(|| (self.holds)(&expected));
        if holds == Some(true) { Ok(()) } else { Err(failed) }
    }
}

static BROKEN: SetOnce<&'static str> = SetOnce::const_new();

/// What failed in this process while it was serving; nothing it computes may be trusted since.
#[must_use]
pub fn broken() -> Option<&'static str> {
    BROKEN.get().copied()
}

/// Waits until something fails, and tells what; for ever where nothing does.
pub async fn until_broken() -> &'static str {
    BROKEN.wait().await
}

/// Notes a failure that no caller can be left to deal with.
pub(super) fn break_down(algorithm: &'static str) {
    // The first one is told.
    let _ = BROKEN.set(algorithm);
}

/// Nothing in a build that serves; in a build for tests, turns a bit of the answer that is to fail.
pub(super) fn falsify(algorithm: &'static str, answer: &mut [u8]) {
    #[cfg(feature = "fault-points")]
    super::fault_points::falsify(algorithm, answer);
    #[cfg(not(feature = "fault-points"))]
    let _ = (algorithm, answer);
}

/// The known answers of the primitives.
pub const KNOWN_ANSWERS: [KnownAnswer; 20] = [
    // FIPS 197, appendices C.1, C.2 and C.3.
    KnownAnswer {
        algorithm: "AES-128",
        expected: "69C4E0D86A7B0430D8CDB78070B4C55A",
        holds: |expected| aes_block(16, expected),
    },
    KnownAnswer {
        algorithm: "AES-192",
        expected: "DDA97CA4864CDFE06EAF70A0EC0D7191",
        holds: |expected| aes_block(24, expected),
    },
    KnownAnswer {
        algorithm: "AES-256",
        expected: "8EA2B7CA516745BFEAFC49904B496089",
        holds: |expected| aes_block(32, expected),
    },
    // NIST SP 800-38A, appendix F.2.1, first block.
    KnownAnswer {
        algorithm: "AES-CBC",
        expected: "7649ABAC8119B246CEE98E9B12E9197D",
        holds: aes_cbc,
    },
    // NIST SP 800-67, appendix B.1, first block.
    KnownAnswer { algorithm: "TDES", expected: "A826FD8CE53B855F", holds: tdes_triple },
    // The check value of the base derivation key in the examples of ANSI X9.24-1, whole.
    KnownAnswer { algorithm: "TDES-CBC", expected: "08D7B4FB629D0885", holds: tdes_double },
    // The same block under equal halves, computed with OpenSSL: the step of X9.24-1's derivation.
    KnownAnswer {
        algorithm: "DES",
        expected: "D5D44FF720683D0D",
        holds: |expected| Some(des(expected)),
    },
    // RFC 4493, section 4, example 2.
    KnownAnswer {
        algorithm: "AES-CMAC",
        expected: "070A16B46B4D4144F79BDD9DD04A287C",
        holds: |expected| Some(cmac::aes_cmac(&AES_KEY, &AES_BLOCK).ok()? == expected),
    },
    // NIST, examples to SP 800-38B: three-key TDEA, empty message.
    KnownAnswer { algorithm: "TDES-CMAC", expected: "B7A688E122FFAF95", holds: tdes_cmac },
    // Chaining of one block is encryption: the answer of "TDES-CBC".
    KnownAnswer {
        algorithm: "CBC-MAC",
        expected: "08D7B4FB629D0885",
        holds: |expected| Some(cbc_mac::tdes_cbc_mac(&TDES_KEY, &[0; 8]).ok()? == expected),
    },
    // ISO 9797-1:2011, annex B.4, padding method 1, leftmost half.
    KnownAnswer {
        algorithm: "retail MAC",
        expected: "A1C72E74",
        holds: |expected| {
            let mac = retail_mac::retail_mac(&TDES_KEY, b"Now is the time for all ").ok()?;
            Some(mac[..4] == *expected)
        },
    },
    // FIPS 180-2, appendix B.1.
    KnownAnswer {
        algorithm: "SHA-256",
        expected: "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
        holds: |expected| Some(digest::sha256(&[b"abc"]) == expected),
    },
    // RFC 4231, test case 2: SHA-256, SHA-384 and SHA-512 one after the other.
    KnownAnswer {
        algorithm: "HMAC",
        expected: concat!(
            "5BDCC146BF60754E6A042426089575C75A003F089D2739839DEC58B964EC3843",
            "AF45D2E376484031617F78D2B58A6B1B9C7EF464F5A01B47E42EC3736322445E",
            "8E2240CA5E69E2C78B3239ECFAB21649",
            "164B7A7BFCF819E2E395FBE73B56E0A387BD64222E831FD610270CD7EA250554",
            "9758BF75C05A994A6D034F65F8F0E6FDCAEAB1A34D4A6B4B636E070A38BCE737",
        ),
        holds: |expected| Some(hmacs(expected)),
    },
    // RFC 5869, appendix A.1.
    KnownAnswer {
        algorithm: "HKDF",
        expected: concat!(
            "3CB25F25FAACD57A90434F64D0362F2A2D2D0A90CF1A5A4C5DB02D56ECC4C5BF",
            "34007208D5B887185865",
        ),
        holds: hkdf,
    },
    // Computed with OpenSSL 3.0: KBKDF, counter mode, CMAC with AES-128.
    KnownAnswer {
        algorithm: "KBKDF",
        expected: "1CB525FE42A4D2D0056B65D54B0C0725E2AB407FF8007156F5724E5103169DD9",
        holds: |expected| {
            let mut derived = [0; 32];
            kdf::kbkdf_cmac_aes(&AES_KEY, b"firstkey", b"self-test", &mut derived).ok()?;
            Some(derived == expected)
        },
    },
    // Computed with Python's cryptography over OpenSSL 4.0: the same with double-length TDES.
    KnownAnswer {
        algorithm: "KBKDF with TDES",
        expected: "6C7982BDA60FE5CFE5A865E76B1BBB407A837652",
        holds: |expected| {
            let mut derived = [0; 20];
            kdf::kbkdf_cmac_tdes(&TDES_KEY, b"firstkey", b"self-test", &mut derived).ok()?;
            Some(derived == expected)
        },
    },
    // The Galois/Counter Mode of Operation, McGrew and Viega, appendix B, test case 14.
    KnownAnswer {
        algorithm: "AES-GCM",
        expected: "CEA7403D4D606B6E074EC5D3BAF39D18D0D1C8A799996BF0265B98B5D48AB919",
        holds: |expected| {
            let opened = aead::open(&[0; 32], [0; 12], b"", expected);
            Some(aead::seal(&[0; 32], [0; 12], b"", &[0; 16]) == expected && opened.is_ok())
        },
    },
    // NIST CAVP, ECC CDH primitive, P-256, count 0.
    KnownAnswer {
        algorithm: "ECDH",
        expected: "46FC62106420FF012E54A434FBDD2D25CCC5852060561E68040DD7778997BD7B",
        holds: ecdh,
    },
    // RFC 6979, appendix A.2.5: SHA-256, message "sample".
    KnownAnswer {
        algorithm: "ECDSA",
        expected: concat!(
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
            "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ),
        holds: ecdsa,
    },
    // RFC 8032, 7.1, test 1: the empty message.
    KnownAnswer {
        algorithm: "Ed25519",
        expected: concat!(
            "E5564300C360AC729086E2CC806E828A84877F1EB8E5D974D873E065224901555FB8821590A33BACC61E",
            "39701CF9B46BD25BF5F0595BBE24655141438E7A100B",
        ),
        holds: ed25519,
    },
];

/// NIST SP 800-38A, appendix F: its AES-128 key and first block.
const AES_KEY: [u8; 16] = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes();
const AES_BLOCK: [u8; 16] = 0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a_u128.to_be_bytes();

/// The base derivation key in the examples of ANSI X9.24-1, the key of ISO 9797-1 annex B.
const TDES_KEY: [u8; 16] = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128.to_be_bytes();

fn aes_block(key_len_bytes: u8, expected: &[u8]) -> Option<bool> {
    let plain = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();
    let key: Vec<u8> = (0..key_len_bytes).collect();
    let aes = Aes::new(&key).ok()?;
    let mut block = plain;
    aes.encrypt_block(&mut block);
    let encrypted = block == expected;
    aes.decrypt_block(&mut block);
    Some(encrypted && block == plain)
}

fn aes_cbc(expected: &[u8]) -> Option<bool> {
    let iv = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f_u128.to_be_bytes();
    let aes = Aes::new(&AES_KEY).ok()?;
    let mut block = AES_BLOCK;
    aes.cbc_encrypt(&iv, &mut block).ok()?;
    let encrypted = block == expected;
    aes.cbc_decrypt(&iv, &mut block).ok()?;
    Some(encrypted && block == AES_BLOCK)
}

fn tdes_triple(expected: &[u8]) -> Option<bool> {
    let key = [
        0x0123_4567_89ab_cdef_u64.to_be_bytes(),
        0x2345_6789_abcd_ef01_u64.to_be_bytes(),
        0x4567_89ab_cdef_0123_u64.to_be_bytes(),
    ];
    let tdes = Tdes::new(key.as_flattened()).ok()?;
    let mut block = *b"The qufc";
    tdes.encrypt_block(&mut block);
    let encrypted = block == expected;
    tdes.decrypt_block(&mut block);
    Some(encrypted && block == *b"The qufc")
}

fn tdes_double(expected: &[u8]) -> Option<bool> {
    let tdes = Tdes::new(&TDES_KEY).ok()?;
    let mut block = [0; 8];
    tdes.cbc_encrypt(&[0; 8], &mut block).ok()?;
    let encrypted = block == expected;
    tdes.cbc_decrypt(&[0; 8], &mut block).ok()?;
    Some(encrypted && block == [0; 8])
}

fn des(expected: &[u8]) -> bool {
    let des = Des::new(&0x0123_4567_89ab_cdef_u64.to_be_bytes());
    let mut block = [0; 8];
    des.encrypt_block(&mut block);
    let encrypted = block == expected;
    des.decrypt_block(&mut block);
    encrypted && block == [0; 8]
}

fn tdes_cmac(expected: &[u8]) -> Option<bool> {
    let key = [
        0x8aa8_3bf8_cbda_1062_u64.to_be_bytes(),
        0x0bc1_bf19_fbb6_cd58_u64.to_be_bytes(),
        0xbc31_3d4a_371c_a8b5_u64.to_be_bytes(),
    ];
    Some(cmac::tdes_cmac(key.as_flattened(), b"").ok()? == expected)
}

fn hmacs(expected: &[u8]) -> bool {
    let message = b"what do ya want for nothing?";
    let macs = [
        &hmac::hmac_sha256(b"Jefe", message)[..],
        &hmac::hmac_sha384(b"Jefe", message),
        &hmac::hmac_sha512(b"Jefe", message),
    ];
    macs.concat() == expected
}

fn hkdf(expected: &[u8]) -> Option<bool> {
    let salt: Vec<u8> = (0x00..=0x0c).collect();
    let info: Vec<u8> = (0xf0..=0xf9).collect();
    let mut derived = [0; 42];
    kdf::hkdf_sha256(&salt, &[0x0b; 22], &[&info], &mut derived).ok()?;
    Some(derived == expected)
}

/// The library of the service's path takes no given key; so the other one answers, and then the
/// two agree with each other.
fn ecdh(expected: &[u8]) -> Option<bool> {
    let private = hex("7D7DC5F71EB29DDAF80D6214632EEAE03D9058AF1FB6D22ED80BADB62BC1A534")?;
    let peer = hex(concat!(
        "04",
        "700C48F77F56584C5CC632CA65640DB91B6BACCE3A4DF6B42CE7CC838833D287",
        "DB71E509E3FD9B060DDB20BA5C51DCC5948D46FBF640DFE0441782CAB85FA4AC",
    ))?;
    let public = hex(concat!(
        "04",
        "EAD218590119E8876B29146FF89CA61770C4EDBBF97D38CE385ED281D8A6B230",
        "28AF61281FD35E2FA7002523ACC85A429CB06EE6648325389F59EDFCE1405141",
    ))?;
    let known = ec::ecdh_with_private_key(&private, &Point::parse(&peer).ok()?).ok()?;
    let ephemeral = EphemeralKey::generate().ok()?;
    let theirs = ec::ecdh_with_private_key(&private, &ephemeral.public()).ok()?;
    let ours = ephemeral.agree(&Point::parse(&public).ok()?);
    Some(known.expose_bytes() == expected && ours.expose_bytes() == theirs.expose_bytes())
}

fn ecdsa(expected: &[u8]) -> Option<bool> {
    let public = hex(concat!(
        "04",
        "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
        "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
    ))?;
    let signature = expected.try_into().ok()?;
    let known = ec::verify(&Point::parse(&public).ok()?, b"sample", signature).is_ok();
    let key = SigningKey::generate().ok()?;
    let signature = key.sign(b"sample").ok()?;
    Some(known && ec::verify(&key.public(), b"sample", &signature).is_ok())
}

fn ed25519(expected: &[u8]) -> Option<bool> {
    let seed = hex("9D61B19DEFFD5A60BA844AF492EC2CC44449C5697B326919703BAC031CAE7F60")?;
    let key = Ed25519Key::from_seed(&seed.try_into().ok()?);
    let signed = key.sign(b"");
    Some(signed == expected && ed25519::verify(&key.public(), b"", &signed).is_ok())
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    HEXUPPER.decode(digits.as_bytes()).ok()
}

/// Each answer is right, and is missed when one bit of it is another.
#[cfg(test)]
pub(crate) fn expect_each_to_bite(known_answers: &[KnownAnswer]) {
    for known in known_answers {
        assert_eq!(known.check(), Ok(()));
        let expected = hex(known.expected).expect("hexadecimals");
        assert!(!expected.is_empty());
        for bit in 0..8 * expected.len() {
            let mut wrong = expected.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_ne!((known.holds)(&wrong), Some(true), "{}, bit {bit}", known.algorithm);
        }
        assert_ne!((known.holds)(&[]), Some(true), "{}", known.algorithm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_right_and_every_bit_of_it_counts() {
        expect_each_to_bite(&KNOWN_ANSWERS);
    }

    #[test]
    fn an_answer_that_is_none_fails() {
        let algorithm = "none";
        let none = KnownAnswer { algorithm, expected: "0G", holds: |_| Some(true) };
        assert_eq!(none.check(), Err(SelfTestFailed { algorithm }));
    }
}
