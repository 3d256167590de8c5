//! Keys typed by what they may do: a program that uses one for something else does not compile.

mod algorithm;
mod check_value;
mod material;
pub mod usage;

use std::fmt;
use std::marker::PhantomData;

use crate::crypto::rng::{Rng, RngFailed};
use crate::crypto::tdes;
use crate::memory;

pub use algorithm::Algorithm;
pub use check_value::{CheckValue, CheckValueAlgorithm};
pub use material::Material;
use usage::Usage;

/// A secret key that can do only what `U` allows. Wiped on drop; `Debug` prints the usage alone.
///
/// No `Clone`, `Display`, `PartialEq` or serialisation: a key at rest or in flight is a key block.
/// Its length is the algorithm's by construction.
pub struct Key<U: Usage> {
    material: Material,
    algorithm: Algorithm,
    usage: PhantomData<fn() -> U>,
}

/// Why bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyInvalid {
    /// The algorithm has keys of another length.
    #[error("the key has a length that its algorithm does not have")]
    Length,
    /// A TDES key with a weak part or equal parts, whatever its parity (SP 800-67r2, 3.3).
    #[error("the key is weak")]
    Weak,
}

impl<U: Usage> Key<U> {
    /// Takes the bytes of a key as they stand; a weak one too, see [`Key::refuse_weak`].
    pub(crate) fn from_material(
        algorithm: Algorithm,
        material: Material,
    ) -> Result<Self, KeyInvalid> {
        if material.len_bytes() != algorithm.len_bytes() {
            return Err(KeyInvalid::Length);
        }
        Ok(Self { material, algorithm, usage: PhantomData })
    }

    /// Draws a new key; for TDES with odd parity and never a weak one.
    pub fn generate(algorithm: Algorithm, rng: &dyn Rng) -> Result<Self, RngFailed> {
        for _ in 0..DRAWS_MAX {
            let mut material = Material::zeroed(algorithm.len_bytes());
            rng.fill(material.expose_bytes_mut())?;
            if algorithm.is_tdes() {
                tdes::set_odd_parity(material.expose_bytes_mut());
            }
            let key = Self { material, algorithm, usage: PhantomData };
            if key.refuse_weak().is_ok() {
                return Ok(key);
            }
        }
        Err(RngFailed)
    }

    /// Refuses a weak TDES key: for the door through which keys come in from outside.
    ///
    /// Not part of every construction, for a derived key is what the standard says it is.
    pub(crate) fn refuse_weak(&self) -> Result<(), KeyInvalid> {
        if self.algorithm.is_tdes() && tdes::weakness(self.expose_bytes()).is_some() {
            return Err(KeyInvalid::Weak);
        }
        Ok(())
    }

    /// The algorithm, which fixes the length.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The check value: public data by which two parties see that they hold the same key.
    #[must_use]
    pub fn check_value(&self) -> CheckValue {
        memory::with_wiped_stack(|| CheckValue::of(self.algorithm, &self.material))
    }

    /// The key itself, for the rooms that compute with it. Each caller says why.
    pub(crate) fn expose_bytes(&self) -> &[u8] {
        self.material.expose_bytes()
    }
}

/// A weak draw has a probability below 2^-48: several in a row are a broken generator.
const DRAWS_MAX: u8 = 4;

impl<U: Usage> fmt::Debug for Key<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key<{}>", U::NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::usage::{Mac, PinEncryption};
    use super::*;
    use crate::crypto::rng::SystemRng;

    /// Gives the same octet for ever.
    struct Stuck(u8);

    impl Rng for Stuck {
        fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
            out.fill(self.0);
            Ok(())
        }
    }

    #[test]
    fn has_the_length_of_its_algorithm() {
        for algorithm in Algorithm::ALL {
            let exact = algorithm.len_bytes();
            for len_bytes in [0, exact - 1, exact, exact + 1] {
                let key = Key::<Mac>::from_material(algorithm, Material::zeroed(len_bytes));
                assert_eq!(key.is_ok(), len_bytes == exact);
            }
        }
    }

    #[test]
    fn a_generated_tdes_key_has_odd_parity_and_is_not_weak() {
        for algorithm in [Algorithm::Tdes2, Algorithm::Tdes3] {
            let key = Key::<PinEncryption>::generate(algorithm, &SystemRng::new()).unwrap();
            assert!(key.expose_bytes().iter().all(|octet| octet.count_ones() % 2 == 1));
            assert_eq!(key.refuse_weak(), Ok(()));
            assert!(Key::<PinEncryption>::generate(algorithm, &Stuck(0x5a)).is_err());
        }
    }

    #[test]
    fn weakness_is_refused_at_the_door_alone() {
        let weak = Key::<Mac>::from_material(Algorithm::Tdes2, Material::zeroed(16)).unwrap();
        assert_eq!(weak.refuse_weak(), Err(KeyInvalid::Weak));
        let zero = Key::<Mac>::from_material(Algorithm::Aes128, Material::zeroed(16)).unwrap();
        assert_eq!(zero.refuse_weak(), Ok(()));
    }

    #[test]
    fn debug_prints_the_usage_alone() {
        let key = Key::<PinEncryption>::generate(Algorithm::Aes128, &Stuck(0x41)).unwrap();
        assert_eq!(format!("{key:?}"), "Key<PinEncryption>");
    }
}
