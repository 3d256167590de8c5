//! Hybrid public key encryption (HPKE), base mode: RFC 9180.
//!
//! ```text
//! KEM                          KDF          AEAD         for secrets of
//! DHKEM(P-256, HKDF-SHA256)    HKDF-SHA256  AES-256-GCM  128 bits of strength at most
//! DHKEM(P-521, HKDF-SHA512)    HKDF-SHA512  AES-256-GCM  more
//! ```
//!
//! An envelope is the encapsulated key (an uncompressed point, SEC 1) and then the ciphertext with
//! its tag. Base mode tells nothing of who sealed it: whoever opens one has a signature over it.

use ::hpke::aead::AesGcm256;
use ::hpke::kdf::{HkdfSha256, HkdfSha512, Kdf};
use ::hpke::kem::{DhP256HkdfSha256, DhP521HkdfSha512};
use ::hpke::{Deserializable, HpkeError, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use super::LengthInvalid;
use super::rng::{self, Rng, RngFailed};
use super::self_test::{KnownAnswer, break_down, falsify};
use crate::memory::with_wiped_stack;

/// A key encapsulation mechanism, and with it the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kem {
    /// DHKEM(P-256, HKDF-SHA256).
    P256,
    /// DHKEM(P-521, HKDF-SHA512).
    P521,
}

impl Kem {
    /// The mechanism that is at least as strong as a secret of so many bits of strength.
    ///
    /// See NIST SP 800-57 part 1 revision 5, table 2; SEC-52.
    #[must_use]
    pub const fn for_strength(bits: u16) -> Self {
        if bits <= 128 { Self::P256 } else { Self::P521 }
    }

    /// Octets of a public key, and of the encapsulated key at the front of an envelope.
    #[must_use]
    pub const fn public_len_bytes(self) -> usize {
        match self {
            Self::P256 => 65,
            Self::P521 => 133,
        }
    }

    /// Octets of an envelope around so many octets.
    #[must_use]
    pub const fn envelope_len_bytes(self, plain_len_bytes: usize) -> usize {
        self.public_len_bytes() + plain_len_bytes + super::aead::TAG_LEN_BYTES
    }
}

/// The longest `info` that is taken; the library takes a little less than 65,536 octets.
pub const INFO_LEN_BYTES_MAX: usize = 4_096;

/// An envelope that does not open: made for another key, `info` or associated data, or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the envelope does not open")]
pub struct EnvelopeRefused;

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More `info` than [`INFO_LEN_BYTES_MAX`].
    #[error(transparent)]
    Length(#[from] LengthInvalid),
    /// The public key is not an uncompressed point of the mechanism's curve.
    #[error("not a public key of the mechanism")]
    PublicKeyInvalid,
    /// The source of randomness failed.
    #[error(transparent)]
    Rng(#[from] RngFailed),
}

/// Seals for the holder of a public key, under an ephemeral key of its own.
///
/// See RFC 9180, 6.1.
pub fn seal(
    kem: Kem,
    public: &[u8],
    info: &[u8],
    aad: &[u8],
    plain: &[u8],
    rng: &dyn Rng,
) -> Result<Vec<u8>, SealError> {
    if info.len() > INFO_LEN_BYTES_MAX {
        return Err(LengthInvalid.into());
    }
    with_wiped_stack(|| match kem {
        Kem::P256 => seal_with::<DhP256HkdfSha256, HkdfSha256>(public, info, aad, plain, rng),
        Kem::P521 => seal_with::<DhP521HkdfSha512, HkdfSha512>(public, info, aad, plain, rng),
    })
}

fn seal_with<K: ::hpke::Kem, D: Kdf>(
    public: &[u8],
    info: &[u8],
    aad: &[u8],
    plain: &[u8],
    rng: &dyn Rng,
) -> Result<Vec<u8>, SealError> {
    let public = K::PublicKey::from_bytes(public).map_err(|_| SealError::PublicKeyInvalid)?;
    let sealed = rng::lend(rng, |source| {
        let mode = OpModeS::Base;
        ::hpke::single_shot_seal_with_rng::<AesGcm256, D, K>(
            &mode, &public, info, plain, aad, source,
        )
    })?;
    // A point that was parsed agrees with every key, and no message of ours is too long.
    let (encapsulated, ciphertext) = sealed.map_err(|_| SealError::PublicKeyInvalid)?;
    Ok([encapsulated.to_bytes().as_slice(), &ciphertext].concat())
}

/// The test of each new key pair for envelopes.
pub const RECIPIENT_PAIR: &str = "a key pair for HPKE";

/// A private key that opens envelopes, kept in memory as long as they come in. Wiped on drop.
pub struct RecipientKey {
    private: Private,
    public: Vec<u8>,
}

/// On the heap, so that a key that is moved leaves no copy behind.
enum Private {
    P256(Box<<DhP256HkdfSha256 as ::hpke::Kem>::PrivateKey>),
    P521(Box<<DhP521HkdfSha512 as ::hpke::Kem>::PrivateKey>),
}

impl RecipientKey {
    /// Draws a key, and computes its public key twice (SP 800-56A revision 3, 5.6.2.1.4).
    ///
    /// # Errors
    ///
    /// Also when the two differ; nothing is served then any more.
    pub fn generate(kem: Kem, rng: &dyn Rng) -> Result<Self, RngFailed> {
        with_wiped_stack(|| {
            let (private, public) = match kem {
                Kem::P256 => {
                    let (private, public) = generate_with::<DhP256HkdfSha256>(rng)?;
                    (Private::P256(private), public)
                }
                Kem::P521 => {
                    let (private, public) = generate_with::<DhP521HkdfSha512>(rng)?;
                    (Private::P521(private), public)
                }
            };
            Ok(Self { private, public })
        })
    }

    /// The private key, for a record that is sealed (RFC 9180, 7.1.2).
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        with_wiped_stack(|| match &self.private {
            Private::P256(key) => Zeroizing::new(key.to_bytes().to_vec()),
            Private::P521(key) => Zeroizing::new(key.to_bytes().to_vec()),
        })
    }

    /// Takes a private key out of its record, and computes its public key anew.
    pub fn from_bytes(kem: Kem, octets: &[u8]) -> Result<Self, EnvelopeRefused> {
        with_wiped_stack(|| {
            let (private, public) = match kem {
                Kem::P256 => {
                    let (key, public) = parse_with::<DhP256HkdfSha256>(octets)?;
                    (Private::P256(key), public)
                }
                Kem::P521 => {
                    let (key, public) = parse_with::<DhP521HkdfSha512>(octets)?;
                    (Private::P521(key), public)
                }
            };
            Ok(Self { private, public })
        })
    }

    /// The mechanism that the key is for.
    #[must_use]
    pub const fn kem(&self) -> Kem {
        match self.private {
            Private::P256(_) => Kem::P256,
            Private::P521(_) => Kem::P521,
        }
    }

    /// The public key: an uncompressed point, 65 or 133 octets (SEC 1 version 2.0, 2.3.3).
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Opens an envelope. What was in it is wiped on drop.
    ///
    /// See RFC 9180, 6.1.
    pub fn open(
        &self,
        info: &[u8],
        aad: &[u8],
        envelope: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EnvelopeRefused> {
        if info.len() > INFO_LEN_BYTES_MAX {
            return Err(EnvelopeRefused);
        }
        let parts = envelope.split_at_checked(self.kem().public_len_bytes());
        let parts = parts.ok_or(EnvelopeRefused)?;
        let opened = with_wiped_stack(|| match &self.private {
            Private::P256(key) => open_with::<DhP256HkdfSha256, HkdfSha256>(key, info, aad, parts),
            Private::P521(key) => open_with::<DhP521HkdfSha512, HkdfSha512>(key, info, aad, parts),
        });
        opened.map(Zeroizing::new).map_err(|_| EnvelopeRefused)
    }
}

fn parse_with<K: ::hpke::Kem>(
    octets: &[u8],
) -> Result<(Box<K::PrivateKey>, Vec<u8>), EnvelopeRefused> {
    let key = K::PrivateKey::from_bytes(octets).map_err(|_| EnvelopeRefused)?;
    let public = K::sk_to_pk(&key).to_bytes().to_vec();
    Ok((Box::new(key), public))
}

fn generate_with<K: ::hpke::Kem>(
    rng: &dyn Rng,
) -> Result<(Box<K::PrivateKey>, Vec<u8>), RngFailed> {
    let (private, public) = rng::lend(rng, |source| K::gen_keypair_with_rng(source))?;
    let private = Box::new(private);
    let public = public.to_bytes().to_vec();
    let mut again = K::sk_to_pk(&private).to_bytes().to_vec();
    falsify(RECIPIENT_PAIR, &mut again);
    if public != again {
        break_down(RECIPIENT_PAIR);
        return Err(RngFailed);
    }
    Ok((private, public))
}

fn open_with<K: ::hpke::Kem, D: Kdf>(
    private: &K::PrivateKey,
    info: &[u8],
    aad: &[u8],
    (encapsulated, ciphertext): (&[u8], &[u8]),
) -> Result<Vec<u8>, HpkeError> {
    let encapsulated = K::EncappedKey::from_bytes(encapsulated)?;
    let mode = OpModeR::Base;
    ::hpke::single_shot_open::<AesGcm256, D, K>(
        &mode,
        private,
        &encapsulated,
        info,
        ciphertext,
        aad,
    )
}

/// The known answers: the first ciphertext after the given keys.
pub const KNOWN_ANSWERS: [KnownAnswer; 2] = [
    // The keys of RFC 9180, A.3.1, whose suite has AES-128; computed with Python's cryptography by
    // a program that agrees with A.3.1 and A.6.1.
    KnownAnswer {
        algorithm: "HPKE with P-256",
        expected: concat!(
            "518C46E6810FBC55362F7D5995B0F54339D93664CA44E5C74D0F289C4F7983B4",
            "781B193DE04AD3319F177244DE",
        ),
        holds: |expected| {
            let recipient = "668B37171F1072F3CF12EA8A236A45DF23FC13B82AF3609AD1E354F6EF817550";
            let ephemeral = "4270E54FFD08D79D5928020AF4686D8F6B7D35DBE470265F1F5AA22816CE860E";
            holds(Kem::P256, [recipient, ephemeral], expected)
        },
    },
    // RFC 9180, A.6.1.
    KnownAnswer {
        algorithm: "HPKE with P-521",
        expected: concat!(
            "170F8BEDDFE949B75EF9C387E201BAF4132FA7374593DFAFA90768788B7B2B20",
            "0AAFCC6D80EA4C795A7C5B841A",
        ),
        holds: |expected| {
            let recipient = concat!(
                "2AD954BBE39B7122529F7DDE780BFF626CD97F850D0784A432784E69D86ECCAADE43B6C10A8FFDB9",
                "4BF943C6DA479DB137914EC835A7E715E36E45E29B587BAB3BF1",
            );
            let ephemeral = concat!(
                "7F06AB8215105FC46ACEEB2E3DC5028B44364F960426EB0D8E4026C2F8B5D7E7A986688F1591ABF5",
                "AB753C357A5D6F0440414B4ED4EDE71317772AC98D9239F70904",
            );
            holds(Kem::P521, [recipient, ephemeral], expected)
        },
    },
];

/// Whether the example of RFC 9180 comes out, sealed and opened, under keys that are derived from
/// the given octets.
fn holds(kem: Kem, key_material: [&'static str; 2], expected: &[u8]) -> Option<bool> {
    let [recipient, ephemeral] = key_material;
    let (info, aad) = (b"Ode on a Grecian Urn", b"Count-0");
    let plain = b"Beauty is truth, truth beauty";
    let key = RecipientKey::generate(kem, &Given(recipient)).ok()?;
    let sealed = seal(kem, key.public(), info, aad, plain, &Given(ephemeral)).ok()?;
    let opened = key.open(info, aad, &sealed).ok()?;
    let ciphertext = sealed.get(kem.public_len_bytes()..)?;
    Some(ciphertext == expected && *opened == plain)
}

/// A source that gives known octets.
struct Given(&'static str);

impl Rng for Given {
    fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
        let octets = data_encoding::HEXUPPER.decode(self.0.as_bytes()).map_err(|_| RngFailed)?;
        if octets.len() != out.len() {
            return Err(RngFailed);
        }
        out.copy_from_slice(&octets);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::super::rng::SystemRng;
    use super::*;

    const KEMS: [Kem; 2] = [Kem::P256, Kem::P521];

    struct Silent;

    impl Rng for Silent {
        fn fill(&self, _: &mut [u8]) -> Result<(), RngFailed> {
            Err(RngFailed)
        }
    }

    #[test]
    fn every_answer_is_right_and_every_octet_of_it_counts() {
        // Not every bit as elsewhere: without optimisation P-521 takes its time.
        for known in &KNOWN_ANSWERS {
            assert_eq!(known.check(), Ok(()));
            let expected = HEXUPPER.decode(known.expected.as_bytes()).unwrap();
            for at in 0..expected.len() {
                let mut wrong = expected.clone();
                wrong[at] ^= 1 << (at % 8);
                assert_eq!((known.holds)(&wrong), Some(false), "{}, {at}", known.algorithm);
            }
            assert_eq!((known.holds)(&expected[1..]), Some(false));
        }
    }

    #[test]
    fn the_keys_are_those_of_the_rfc() {
        // RFC 9180, A.3.1: pkRm.
        let given = Given("668B37171F1072F3CF12EA8A236A45DF23FC13B82AF3609AD1E354F6EF817550");
        let key = RecipientKey::generate(Kem::P256, &given).unwrap();
        let expected = concat!(
            "04FE8C19CE0905191EBC298A9245792531F26F0CECE2460639E8BC39CB7F706A82",
            "6A779B4CF969B8A0E539C7F62FB3D30AD6AA8F80E30F1D128AAFD68A2CE72EA0",
        );
        assert_eq!(HEXUPPER.encode(key.public()), expected);
        assert!(RecipientKey::generate(Kem::P521, &given).is_err(), "it asks for 66 octets");
    }

    #[test]
    fn opens_what_was_sealed_for_it_and_nothing_else() {
        let rng = SystemRng::new();
        for kem in KEMS {
            let key = RecipientKey::generate(kem, &rng).unwrap();
            let other = RecipientKey::generate(kem, &rng).unwrap();
            assert_eq!((key.kem(), key.public().len()), (kem, kem.public_len_bytes()));
            let sealed = seal(kem, key.public(), b"info", b"aad", b"secret", &rng).unwrap();
            assert_eq!(sealed.len(), kem.envelope_len_bytes(6));
            assert_eq!(*key.open(b"info", b"aad", &sealed).unwrap(), b"secret");
            assert_eq!(key.open(b"other", b"aad", &sealed), Err(EnvelopeRefused));
            assert_eq!(key.open(b"info", b"other", &sealed), Err(EnvelopeRefused));
            assert_eq!(other.open(b"info", b"aad", &sealed), Err(EnvelopeRefused));
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(key.open(b"info", b"aad", &changed), Err(EnvelopeRefused), "{at}");
                assert_eq!(key.open(b"info", b"aad", &sealed[..at]), Err(EnvelopeRefused));
            }
            // A fresh ephemeral key each time: nothing of two envelopes is alike.
            let again = seal(kem, key.public(), b"info", b"aad", b"secret", &rng).unwrap();
            assert_ne!(sealed[..65], again[..65]);
        }
    }

    #[test]
    fn an_envelope_for_one_curve_does_not_open_on_the_other() {
        let rng = SystemRng::new();
        let [one, other] = KEMS.map(|kem| RecipientKey::generate(kem, &rng).unwrap());
        let sealed = seal(Kem::P256, one.public(), b"", b"", &[0; 200], &rng).unwrap();
        assert_eq!(other.open(b"", b"", &sealed), Err(EnvelopeRefused));
        let refused = seal(Kem::P521, one.public(), b"", b"", b"", &rng);
        assert_eq!(refused, Err(SealError::PublicKeyInvalid));
    }

    #[test]
    fn nothing_is_sealed_for_what_is_no_key_or_without_randomness() {
        let rng = SystemRng::new();
        for kem in KEMS {
            let key = RecipientKey::generate(kem, &rng).unwrap();
            let mut off_curve = key.public().to_vec();
            *off_curve.last_mut().unwrap() ^= 1;
            let mut other_form = key.public().to_vec();
            other_form[0] = 6;
            let zeros = vec![0; kem.public_len_bytes()];
            for public in [&off_curve[..], &other_form, &zeros, &key.public()[1..], &[0], &[]] {
                let refused = seal(kem, public, b"", b"", b"secret", &rng);
                assert_eq!(refused, Err(SealError::PublicKeyInvalid));
            }
            let refused = seal(kem, key.public(), b"", b"", b"secret", &Silent);
            assert_eq!(refused, Err(SealError::Rng(RngFailed)));
            assert!(RecipientKey::generate(kem, &Silent).is_err());
            let long = vec![0; INFO_LEN_BYTES_MAX + 1];
            let refused = seal(kem, key.public(), &long, b"", b"secret", &rng);
            assert_eq!(refused, Err(SealError::Length(LengthInvalid)));
            let sealed = seal(kem, key.public(), &long[1..], b"", b"secret", &rng).unwrap();
            assert!(key.open(&long[1..], b"", &sealed).is_ok());
            assert_eq!(key.open(&long, b"", &sealed), Err(EnvelopeRefused));
        }
    }

    #[test]
    fn the_mechanism_is_as_strong_as_the_secret() {
        for (bits, kem) in [(80, Kem::P256), (112, Kem::P256), (128, Kem::P256)] {
            assert_eq!(Kem::for_strength(bits), kem);
        }
        for bits in [129, 192, 256] {
            assert_eq!(Kem::for_strength(bits), Kem::P521);
        }
    }
}
