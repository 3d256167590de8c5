//! Message authentication codes as one vocabulary: CMAC, ISO 9797-1 algorithms 1 and 3, HMAC.
//!
//! What is here is what the standards allow. Which algorithm and which length a key may use is its
//! policy, one floor above.

mod algorithm;
pub(crate) mod for_vectors;
mod padding;

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto;
use crate::key::Key;
use crate::key::usage::MacUsage;
use crate::memory;

pub use algorithm::MacAlgorithm;
pub use padding::Padding;

/// A MAC that was generated, in the length that was asked for.
///
/// No `PartialEq`: a MAC is checked by [`Key::verify_mac`], in constant time, or not at all.
pub struct MacTag(Octets);

/// Why no MAC can be computed from the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// The key is of another algorithm, or of a length that the MAC algorithm does not have.
    #[error("the MAC algorithm does not fit the key")]
    Algorithm,
    /// The MAC is shorter than any policy allows, or longer than the algorithm gives.
    #[error("the MAC has a length that the algorithm does not give")]
    Length,
    /// There is nothing to authenticate.
    #[error("the message is empty")]
    MessageEmpty,
}

/// The MAC is not that of the message under the key; nothing further is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the MAC does not verify")]
pub struct MacMismatch;

/// Why a MAC is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyMacError {
    /// Nothing was compared.
    #[error(transparent)]
    Arguments(#[from] MacError),
    /// It was compared and differs.
    #[error(transparent)]
    Mismatch(#[from] MacMismatch),
}

impl<U: MacUsage> Key<U> {
    /// Generates the MAC of a message: the leftmost `len_bytes` octets of what the algorithm gives.
    pub fn generate_mac(
        &self,
        algorithm: MacAlgorithm,
        message: &[u8],
        len_bytes: usize,
    ) -> Result<MacTag, MacError> {
        let mut octets = self.whole_mac(algorithm, message, len_bytes)?;
        octets.truncate(len_bytes);
        Ok(MacTag(octets))
    }

    /// Verifies the MAC of a message in exactly the length in which it is given.
    ///
    /// The caller has held that length against the key's policy before.
    pub fn verify_mac(
        &self,
        algorithm: MacAlgorithm,
        message: &[u8],
        mac: &[u8],
    ) -> Result<(), VerifyMacError> {
        let octets = self.whole_mac(algorithm, message, mac.len())?;
        let leftmost = octets.bytes().get(..mac.len()).ok_or(MacError::Length)?;
        if crypto::constant_time_eq(leftmost, mac) { Ok(()) } else { Err(MacMismatch.into()) }
    }

    fn whole_mac(
        &self,
        algorithm: MacAlgorithm,
        message: &[u8],
        len_bytes: usize,
    ) -> Result<Octets, MacError> {
        if !algorithm.fits(self.algorithm()) {
            return Err(MacError::Algorithm);
        }
        if !(MacTag::LEN_BYTES_MIN..=algorithm.len_bytes()).contains(&len_bytes) {
            return Err(MacError::Length);
        }
        if message.is_empty() {
            return Err(MacError::MessageEmpty);
        }
        // The key goes into the one computation that its usage allows.
        memory::with_wiped_stack(|| algorithm.compute(self.expose_bytes(), message))
    }
}

impl MacTag {
    /// Octets of the shortest MAC: half a block of TDES, the usual truncation of ISO 8583 hosts.
    pub const LEN_BYTES_MIN: usize = 4;

    /// The MAC, to be sent beside its message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl fmt::Debug for MacTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacTag({} bytes)", self.bytes().len())
    }
}

/// Up to 64 octets of a MAC without a trip to the heap; what is cut off is not told to anybody.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Octets {
    octets: [u8; Self::LEN_BYTES_MAX],
    len_bytes: usize,
}

impl Octets {
    const LEN_BYTES_MAX: usize = 64;

    fn new(mac: &[u8]) -> Self {
        let mut octets = [0; Self::LEN_BYTES_MAX];
        octets[..mac.len()].copy_from_slice(mac);
        Self { octets, len_bytes: mac.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.octets[..self.len_bytes]
    }

    fn truncate(&mut self, len_bytes: usize) {
        self.octets[len_bytes..].zeroize();
        self.len_bytes = len_bytes;
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;
    use crate::crypto::rng::SystemRng;
    use crate::key::usage::{Mac, MacGeneration};
    use crate::key::{Algorithm, Material};

    const MESSAGE: &[u8] = b"Now is the time for all ";

    fn key<U: MacUsage>(algorithm: Algorithm) -> Key<U> {
        Key::generate(algorithm, &SystemRng::new()).unwrap()
    }

    #[test]
    fn agrees_with_the_standard() {
        // ISO 9797-1:2011, annex B.4: algorithm 3 over MESSAGE, padding method 1.
        let bytes = HEXUPPER.decode(b"0123456789ABCDEFFEDCBA9876543210").unwrap();
        let material = Material::copied_from(&bytes);
        let key = Key::<Mac>::from_material(Algorithm::Tdes2, material).unwrap();
        let algorithm = MacAlgorithm::Iso9797Alg3(Padding::Method1);
        let mac = key.generate_mac(algorithm, MESSAGE, 4).unwrap();
        assert_eq!(HEXUPPER.encode(mac.bytes()), "A1C72E74");
    }

    #[test]
    fn verifies_every_length_that_it_generates() {
        for algorithm in MacAlgorithm::ALL {
            for key_algorithm in Algorithm::ALL.into_iter().filter(|key| algorithm.fits(*key)) {
                let key = key::<MacGeneration>(key_algorithm);
                for len_bytes in 4..=algorithm.len_bytes() {
                    let tag = key.generate_mac(algorithm, MESSAGE, len_bytes).unwrap();
                    assert_eq!(tag.bytes().len(), len_bytes);
                    assert_eq!(key.verify_mac(algorithm, MESSAGE, tag.bytes()), Ok(()));
                    let mut changed = tag.bytes().to_vec();
                    changed[len_bytes - 1] ^= 1;
                    let refused = Err(MacMismatch.into());
                    assert_eq!(key.verify_mac(algorithm, MESSAGE, &changed), refused);
                    assert_eq!(key.verify_mac(algorithm, b"other", tag.bytes()), refused);
                }
            }
        }
    }

    #[test]
    fn refuses_lengths_that_no_policy_allows() {
        for algorithm in MacAlgorithm::ALL {
            let fitting = Algorithm::ALL.into_iter().find(|key| algorithm.fits(*key)).unwrap();
            let key = key::<Mac>(fitting);
            for len_bytes in [0, 1, 3, algorithm.len_bytes() + 1, 65, 1000] {
                let refused = key.generate_mac(algorithm, MESSAGE, len_bytes);
                assert_eq!(refused.unwrap_err(), MacError::Length);
                let refused = key.verify_mac(algorithm, MESSAGE, &vec![0; len_bytes]);
                assert_eq!(refused, Err(MacError::Length.into()));
            }
        }
    }

    #[test]
    fn refuses_an_empty_message() {
        for algorithm in MacAlgorithm::ALL {
            let fitting = Algorithm::ALL.into_iter().find(|key| algorithm.fits(*key)).unwrap();
            let key = key::<Mac>(fitting);
            let refused = key.generate_mac(algorithm, b"", 8).unwrap_err();
            assert_eq!(refused, MacError::MessageEmpty);
            // Nothing verifies over it either: not the zeros that a library would give.
            let refused = key.verify_mac(algorithm, b"", &[0; 8]);
            assert_eq!(refused, Err(MacError::MessageEmpty.into()));
        }
    }

    #[test]
    fn refuses_a_key_of_another_algorithm() {
        let refused = |key: Algorithm, algorithm| {
            let refused = self::key::<Mac>(key).generate_mac(algorithm, MESSAGE, 8);
            matches!(refused, Err(MacError::Algorithm))
        };
        assert!(refused(Algorithm::Tdes2, MacAlgorithm::AesCmac));
        assert!(refused(Algorithm::Aes128, MacAlgorithm::TdesCmac));
        assert!(refused(Algorithm::Aes128, MacAlgorithm::HmacSha256));
        assert!(refused(Algorithm::Hmac128, MacAlgorithm::AesCmac));
        assert!(refused(Algorithm::Tdes3, MacAlgorithm::Iso9797Alg3(Padding::Method1)));
        assert!(refused(Algorithm::Aes256, MacAlgorithm::Iso9797Alg1(Padding::Method2)));
    }
}
