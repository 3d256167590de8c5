//! Randomness, handed in as a value so that a test can replay it.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use ring::rand::{SecureRandom, SystemRandom};

use super::self_test::{SelfTestFailed, falsify};

/// A source of random bytes that nobody can predict.
pub trait Rng: Send + Sync {
    /// Fills all of `out`.
    fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed>;
}

/// The source of randomness gave nothing: nothing may be done in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the random number generator failed")]
pub struct RngFailed;

/// The generator of the operating system.
pub struct SystemRng(SystemRandom);

impl SystemRng {
    /// Opens it.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemRng {
    fn default() -> Self {
        Self::new()
    }
}

impl Rng for SystemRng {
    fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
        self.0.fill(out).map_err(|_| RngFailed)
    }
}

/// Lends a source to a library that knows none that fails: when it did, what came of its zeros is
/// thrown away.
pub(super) fn lend<T>(
    rng: &dyn Rng,
    draw: impl FnOnce(&mut Lent<'_>) -> T,
) -> Result<T, RngFailed> {
    let mut lent = Lent { rng, has_failed: false };
    let drawn = draw(&mut lent);
    if lent.has_failed { Err(RngFailed) } else { Ok(drawn) }
}

/// A source in the form that the libraries take.
pub(super) struct Lent<'a> {
    rng: &'a dyn Rng,
    has_failed: bool,
}

impl TryRng for Lent<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_be_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_be_bytes(word))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        if self.has_failed || self.rng.fill(out).is_err() {
            self.has_failed = true;
            out.fill(0);
        }
        Ok(())
    }
}

impl TryCryptoRng for Lent<'_> {}

/// What the self-tests call a source of randomness.
pub const RANDOM_NUMBERS: &str = "random numbers";

/// Octets that [`examine`] draws.
const SAMPLE_LEN_BYTES: usize = 2_048;

/// Octets of which no two draws are alike.
const BLOCK_LEN_BYTES: usize = 16;

/// Asks a source whether what it gives can still be random, and fails if it gives nothing.
///
/// ```text
/// repetition  of 128 blocks of 16 octets no two are alike     fails by chance once in 2^115
/// proportion  of 16,384 bits 7,680 to 8,704 are ones          fails by chance once in 2^49
/// ```
///
/// The operating system tests its own sources; this finds one that is stuck or was replaced.
///
/// See SP 800-90B (2018), 4.4.
pub fn examine(rng: &dyn Rng) -> Result<(), SelfTestFailed> {
    let failed = SelfTestFailed { algorithm: RANDOM_NUMBERS };
    let mut sample = vec![0; SAMPLE_LEN_BYTES];
    rng.fill(&mut sample).map_err(|_| failed)?;
    let mut same = [0];
    falsify(RANDOM_NUMBERS, &mut same);
    if same != [0] {
        sample.fill(0);
    }
    let ones: u32 = sample.iter().map(|octet| octet.count_ones()).sum();
    let mut blocks: Vec<_> = sample.chunks_exact(BLOCK_LEN_BYTES).collect();
    blocks.sort_unstable();
    let repeated = blocks.windows(2).any(|pair| pair[0] == pair[1]);
    if repeated || !(7_680..=8_704).contains(&ones) { Err(failed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that gives octets by their place.
    struct Source(fn(usize) -> u8);

    impl Rng for Source {
        fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
            out.iter_mut().enumerate().for_each(|(place, octet)| *octet = (self.0)(place));
            Ok(())
        }
    }

    struct Silent;

    impl Rng for Silent {
        fn fill(&self, _: &mut [u8]) -> Result<(), RngFailed> {
            Err(RngFailed)
        }
    }

    #[test]
    fn a_source_that_is_stuck_lopsided_or_silent_is_found() {
        assert_eq!(examine(&SystemRng::new()), Ok(()));
        let failed = Err(SelfTestFailed { algorithm: RANDOM_NUMBERS });
        assert_eq!(examine(&Silent), failed);
        let stuck = Source(|place| [0x0F, 0xA5, 0x3C, 0x99][place % 4]);
        assert_eq!(examine(&stuck), failed);
        // Every octet of it is another, and one in sixteen of its bits is always one.
        let lopsided = Source(|place| {
            let digest = crate::crypto::digest::sha256(&[&place.to_be_bytes()]);
            digest[0] | if place % 2 == 0 { 0x81 } else { 0 }
        });
        assert_eq!(examine(&lopsided), failed);
    }

    #[test]
    fn what_was_made_of_a_source_that_failed_is_thrown_away() {
        let counted = Source(|place| u8::try_from(place).unwrap());
        let drawn = lend(&counted, |lent| (lent.try_next_u32(), lent.try_next_u64()));
        assert_eq!(drawn, Ok((Ok(0x0001_0203), Ok(0x0001_0203_0405_0607))));
        let mut octets = [7; 3];
        assert_eq!(lend(&Silent, |lent| lent.try_fill_bytes(&mut octets)), Err(RngFailed));
        assert_eq!(octets, [0; 3]);
    }

    #[test]
    fn two_draws_differ() {
        let (mut one, mut other) = ([0; 32], [0; 32]);
        SystemRng::new().fill(&mut one).unwrap();
        SystemRng::new().fill(&mut other).unwrap();
        assert_ne!(one, other);
    }
}
