//! Secrets in the hands of people: components of a key, shares of the master key, and the text in
//! which both stand on paper.
//!
//! ```text
//! key         = component 1 XOR component 2 XOR ..     each as long as the key; all are needed
//! master key  = any m of n shares                      see `crypto::sharing`
//! ```
//!
//! See PCI PIN requirements 6 and 12; ANSI X9.24-1:2017, 7.

mod combine;
mod entry;
mod inspect;
mod share;
mod text;

use std::fmt;

use crate::agreement::label;
use crate::crypto::digest::sha256;
use crate::crypto::rng::{Rng, RngFailed};
use crate::crypto::tdes;
use crate::key::{Algorithm, CheckValue, Material};
use crate::memory::with_wiped_stack;

pub use combine::{COMPONENTS, ComponentsRefused, Parity, combine};
pub use entry::{Entry, Place, Pressed};
pub use inspect::{Held, Inspected, inspect, looks_like_a_slip};
pub use share::{CombineError, Heading, HeadingField, HeadingInvalid, Share};
pub use text::{Assurance, Line, Rows, TextInvalid};

/// One of the parts whose exclusive or is a key, as long as the key itself. Wiped on drop.
pub struct Component {
    algorithm: Algorithm,
    material: Material,
}

impl Component {
    /// Draws a component; for TDES with odd parity.
    pub fn generate(algorithm: Algorithm, rng: &dyn Rng) -> Result<Self, RngFailed> {
        let mut material = Material::zeroed(algorithm.len_bytes());
        // Exposed to be filled.
        rng.fill(material.expose_bytes_mut())?;
        if algorithm.is_tdes() {
            tdes::set_odd_parity(material.expose_bytes_mut());
        }
        Ok(Self { algorithm, material })
    }

    /// Takes the octets of a component out of an envelope; none where the length is another.
    #[must_use]
    pub fn from_bytes(algorithm: Algorithm, octets: &[u8]) -> Option<Self> {
        let is_whole = octets.len() == algorithm.len_bytes();
        is_whole.then(|| Self { algorithm, material: Material::copied_from(octets) })
    }

    /// Reads a component as it stands on paper: groups of hexadecimal digits, blanks and line ends
    /// anywhere, letters of either case. What is checked is what `assurance` says.
    pub fn parse(
        algorithm: Algorithm,
        assurance: Assurance,
        text: &str,
    ) -> Result<Self, TextInvalid> {
        Self::typed(Entry::of_component(algorithm, assurance).with_text(text)?)
    }

    /// Takes a component that was typed.
    pub fn typed(entry: Entry) -> Result<Self, TextInvalid> {
        let (algorithm, material, shown) = entry.into_component()?;
        let component = Self { algorithm, material };
        match shown {
            Some(shown) if !component.check_value().matches_prefix(&shown) => {
                Err(TextInvalid::CheckValue)
            }
            _ => Ok(component),
        }
    }

    /// The component as it stands on paper: rows of 8 octets, each with its check group.
    #[must_use]
    pub fn write(&self) -> Rows {
        // Exposed to be put on paper, for the one custodian whose component it is.
        Rows::of_component(self.material.expose_bytes())
    }

    /// The algorithm, which fixes the length.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The check value, computed as that of a key: by it a custodian sees that what was typed is
    /// what stands on the slip.
    #[must_use]
    pub fn check_value(&self) -> CheckValue {
        with_wiped_stack(|| CheckValue::of(self.algorithm, &self.material))
    }

    /// What a custodian says before anybody shows a component: it fixes the component and tells
    /// nothing of it.
    ///
    /// ```text
    /// SHA-256( label || for each of ceremony, index(1), salt(32), algorithm, component:
    ///          length(4, big endian) || octets )
    /// ```
    ///
    /// The salt is drawn for this one commitment and shown with the component. See SEC-50, ATK-12.
    #[must_use]
    pub fn commitment(&self, ceremony: &str, index: u8, salt: &[u8; 32]) -> [u8; 32] {
        let algorithm = self.algorithm.to_string();
        let index = [index];
        // Exposed to be hashed together with 32 octets that nobody knows.
        let component = self.material.expose_bytes();
        let parts = [ceremony.as_bytes(), &index, salt, algorithm.as_bytes(), component];
        let lens = parts.map(|part| {
            u32::try_from(part.len()).expect("names and components are short").to_be_bytes()
        });
        let mut framed = vec![label::CEREMONY_COMMITMENT.as_bytes()];
        for (len, part) in lens.iter().zip(parts) {
            framed.extend([&len[..], part]);
        }
        with_wiped_stack(|| sha256(&framed))
    }

    /// The component itself, for an envelope. Each caller says why.
    pub(crate) fn expose_bytes(&self) -> &[u8] {
        self.material.expose_bytes()
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Component<{}>", self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;
    use crate::crypto::rng::SystemRng;

    fn component(algorithm: Algorithm, digits: &str) -> Component {
        let octets = HEXUPPER.decode(digits.as_bytes()).unwrap();
        Component::from_bytes(algorithm, &octets).unwrap()
    }

    #[test]
    fn a_generated_component_has_its_length_and_tdes_has_odd_parity() {
        let rng = SystemRng::new();
        for algorithm in Algorithm::ALL {
            let component = Component::generate(algorithm, &rng).unwrap();
            assert_eq!(component.expose_bytes().len(), algorithm.len_bytes());
            let again = Component::generate(algorithm, &rng).unwrap();
            assert_ne!(component.expose_bytes(), again.expose_bytes());
            let is_odd = component.expose_bytes().iter().all(|octet| octet.count_ones() % 2 == 1);
            assert!(is_odd || !algorithm.is_tdes());
            assert!(Component::from_bytes(algorithm, &again.expose_bytes()[1..]).is_none());
        }
    }

    #[test]
    fn a_check_value_is_that_of_a_key_of_the_same_octets() {
        // ANSI X9.24-1:2009, annex A: the base derivation key of its examples.
        let tdes = component(Algorithm::Tdes2, "0123456789ABCDEFFEDCBA9876543210");
        assert_eq!(tdes.check_value().to_string(), "08D7B4");
        assert_eq!(format!("{tdes:?}"), "Component<TDES2>");
    }

    #[test]
    fn a_commitment_is_the_hash_of_what_it_says() {
        let octets = "00112233445566778899AABBCCDDEEFF";
        let aes = component(Algorithm::Aes128, octets);
        let salt = [7; 32];
        let mut covered = b"firstkey/v1/ceremony/commitment".to_vec();
        for part in [&b"ceremonies/1"[..], &[2], &salt, b"AES128", aes.expose_bytes()] {
            covered.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            covered.extend(part);
        }
        let commitment = aes.commitment("ceremonies/1", 2, &salt);
        assert_eq!(commitment, sha256(&[&covered]));
        assert_ne!(commitment, aes.commitment("ceremonies/2", 2, &salt));
        assert_ne!(commitment, aes.commitment("ceremonies/1", 1, &salt));
        assert_ne!(commitment, aes.commitment("ceremonies/1", 2, &[8; 32]));
        let other = component(Algorithm::Aes128, "00112233445566778899AABBCCDDEEFE");
        assert_ne!(commitment, other.commitment("ceremonies/1", 2, &salt));
        let other = component(Algorithm::Hmac128, octets);
        assert_ne!(commitment, other.commitment("ceremonies/1", 2, &salt));
    }
}
