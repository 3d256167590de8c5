//! Randomness, handed in as a value so that a test can replay it.

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
    fn two_draws_differ() {
        let (mut one, mut other) = ([0; 32], [0; 32]);
        SystemRng::new().fill(&mut one).unwrap();
        SystemRng::new().fill(&mut other).unwrap();
        assert_ne!(one, other);
    }
}
