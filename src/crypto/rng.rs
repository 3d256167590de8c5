//! Randomness, handed in as a value so that a test can replay it.

use ring::rand::{SecureRandom, SystemRandom};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let (mut one, mut other) = ([0; 32], [0; 32]);
        SystemRng::new().fill(&mut one).unwrap();
        SystemRng::new().fill(&mut other).unwrap();
        assert_ne!(one, other);
    }
}
