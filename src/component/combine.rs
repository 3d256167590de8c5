//! Components into a key, and what is refused on the way: SEC-48 and SEC-51.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::Component;
use crate::crypto::constant_time_eq;
use crate::crypto::tdes::{self, Weakness};
use crate::key::usage::Usage;
use crate::key::{Algorithm, Key, Material};
use crate::memory::with_wiped_stack;

/// How many components make a key.
pub const COMPONENTS: RangeInclusive<usize> = 2..=5;

/// What the parity bits of TDES components are (FIPS 46-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parity {
    /// Of no consequence: the key's are set.
    Adjusted,
    /// Odd, or the component is refused.
    #[default]
    Required,
}

/// Why components are no key. TDES components and keys are compared without their parity bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComponentsRefused {
    /// A component for another algorithm, or of another length, than the key.
    #[error("a component is for another algorithm or length than the key")]
    AlgorithmDiffers,
    /// One component is the key, or more of them than [`COMPONENTS`].
    #[error("a key has from 2 to 5 components")]
    Count,
    /// Two components are equal, so that neither counts.
    #[error("two components are equal")]
    Equal,
    /// An octet of a TDES component has even parity.
    #[error("a component does not have odd parity")]
    Parity,
    /// The key equals one of its components, which its custodian knows.
    #[error("the key would be one of its components")]
    ResultEqualsComponent,
    /// The key is weak, or two of its parts are one (SP 800-67 revision 2, 3.3).
    #[error("the key would be weak")]
    ResultWeak,
    /// The key is zero.
    #[error("the key would be zero")]
    ResultZero,
    /// A component is zero, and leaves the key to the others.
    #[error("a component is zero")]
    Zero,
}

/// Combines components into a key of this algorithm: their exclusive or, for TDES with odd parity.
///
/// Of the first thing that is wrong it is told what, and not with which component.
pub fn combine<U: Usage>(
    algorithm: Algorithm,
    parity: Parity,
    components: &[&Component],
) -> Result<Key<U>, ComponentsRefused> {
    if !COMPONENTS.contains(&components.len()) {
        return Err(ComponentsRefused::Count);
    }
    if components.iter().any(|component| component.algorithm() != algorithm) {
        return Err(ComponentsRefused::AlgorithmDiffers);
    }
    with_wiped_stack(|| {
        for (place, component) in components.iter().enumerate() {
            refuse(algorithm, parity, component, &components[..place])?;
        }
        let mut key = Material::zeroed(algorithm.len_bytes());
        for component in components {
            // Exposed to be combined.
            let pairs = key.expose_bytes_mut().iter_mut().zip(component.expose_bytes());
            pairs.for_each(|(sum, octet)| *sum ^= octet);
        }
        if algorithm.is_tdes() {
            tdes::set_odd_parity(key.expose_bytes_mut());
        }
        refuse_key(algorithm, key.expose_bytes(), components)?;
        Ok(Key::from_material(algorithm, key).expect("it has the length of its algorithm"))
    })
}

/// Refuses a component by itself and beside those before it.
fn refuse(
    algorithm: Algorithm,
    parity: Parity,
    component: &Component,
    before: &[&Component],
) -> Result<(), ComponentsRefused> {
    let octets = component.expose_bytes();
    if algorithm.is_tdes() && parity == Parity::Required && !has_odd_parity(octets) {
        return Err(ComponentsRefused::Parity);
    }
    if is_zero(algorithm, octets) {
        return Err(ComponentsRefused::Zero);
    }
    if before.iter().any(|other| is_same(algorithm, octets, other.expose_bytes())) {
        return Err(ComponentsRefused::Equal);
    }
    Ok(())
}

fn refuse_key(
    algorithm: Algorithm,
    key: &[u8],
    components: &[&Component],
) -> Result<(), ComponentsRefused> {
    if is_zero(algorithm, key) {
        return Err(ComponentsRefused::ResultZero);
    }
    if components.iter().any(|component| is_same(algorithm, key, component.expose_bytes())) {
        return Err(ComponentsRefused::ResultEqualsComponent);
    }
    if !algorithm.is_tdes() {
        return Ok(());
    }
    match tdes::weakness(key) {
        Some(Weakness::PartWeak | Weakness::PartsEqual) => Err(ComponentsRefused::ResultWeak),
        None => Ok(()),
    }
}

fn has_odd_parity(octets: &[u8]) -> bool {
    let mut adjusted = Material::copied_from(octets);
    tdes::set_odd_parity(adjusted.expose_bytes_mut());
    constant_time_eq(adjusted.expose_bytes(), octets)
}

fn is_zero(algorithm: Algorithm, octets: &[u8]) -> bool {
    is_same(algorithm, octets, Material::zeroed(octets.len()).expose_bytes())
}

/// Whether two keys are one, in a time that does not depend on them; for TDES without parity bits.
fn is_same(algorithm: Algorithm, one: &[u8], other: &[u8]) -> bool {
    let counts = if algorithm.is_tdes() { 0xfe } else { 0xff };
    // Every octet enters, wherever the first difference is.
    let pairs = one.iter().zip(other);
    pairs.fold(0, |difference, (one, other)| difference | ((one ^ other) & counts)) == 0
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;
    use crate::crypto::rng::SystemRng;
    use crate::key::usage::DataBoth;

    // SP 800-67, appendix B.1: its three keys; and weak ones of 3.3.2.
    const K1: &str = "0123456789ABCDEF";
    const K2: &str = "23456789ABCDEF01";
    const K3: &str = "456789ABCDEF0123";

    fn octets(digits: &str) -> Vec<u8> {
        HEXUPPER.decode(digits.as_bytes()).unwrap()
    }

    fn component(algorithm: Algorithm, octets: &[u8]) -> Component {
        Component::from_bytes(algorithm, octets).unwrap()
    }

    fn combined(
        algorithm: Algorithm,
        parity: Parity,
        components: &[Vec<u8>],
    ) -> Result<Vec<u8>, ComponentsRefused> {
        let components: Vec<_> =
            components.iter().map(|octets| component(algorithm, octets)).collect();
        let components: Vec<_> = components.iter().collect();
        combine::<DataBoth>(algorithm, parity, &components).map(|key| key.expose_bytes().to_vec())
    }

    fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
        one.iter().zip(other).map(|(one, other)| one ^ other).collect()
    }

    fn odd(mut octets: Vec<u8>) -> Vec<u8> {
        tdes::set_odd_parity(&mut octets);
        octets
    }

    /// A component that makes this key together with the given ones.
    fn towards(key: &[u8], others: &[&[u8]]) -> Vec<u8> {
        others.iter().fold(key.to_vec(), |sum, other| xor(&sum, other))
    }

    #[test]
    fn the_key_is_the_exclusive_or_whatever_the_order() {
        let rng = SystemRng::new();
        for algorithm in Algorithm::ALL {
            for count in COMPONENTS {
                let drawn: Vec<_> =
                    (0..count).map(|_| Component::generate(algorithm, &rng).unwrap()).collect();
                let zeros = vec![0; algorithm.len_bytes()];
                let mut expected =
                    drawn.iter().fold(zeros, |sum, next| xor(&sum, next.expose_bytes()));
                if algorithm.is_tdes() {
                    expected = odd(expected);
                }
                let mut components: Vec<&Component> = drawn.iter().collect();
                for _ in 0..count {
                    components.rotate_left(1);
                    let key =
                        combine::<DataBoth>(algorithm, Parity::Required, &components).unwrap();
                    assert_eq!(key.expose_bytes(), expected);
                }
            }
        }
    }

    #[test]
    fn one_component_too_many_and_other_algorithms_are_refused() {
        let rng = SystemRng::new();
        let drawn: Vec<_> =
            (0..6).map(|_| Component::generate(Algorithm::Aes128, &rng).unwrap()).collect();
        let all: Vec<_> = drawn.iter().collect();
        for count in [0, 1, 6] {
            let refused = combine::<DataBoth>(Algorithm::Aes128, Parity::Required, &all[..count]);
            assert_eq!(refused.err(), Some(ComponentsRefused::Count), "{count}");
        }
        for other in Algorithm::ALL.into_iter().filter(|other| *other != Algorithm::Aes128) {
            let foreign = Component::generate(other, &rng).unwrap();
            let refused =
                combine::<DataBoth>(Algorithm::Aes128, Parity::Required, &[all[0], &foreign]);
            assert_eq!(refused.err(), Some(ComponentsRefused::AlgorithmDiffers), "{other}");
            let refused = combine::<DataBoth>(other, Parity::Required, &all[..2]);
            assert_eq!(refused.err(), Some(ComponentsRefused::AlgorithmDiffers), "{other}");
        }
    }

    #[test]
    fn zero_equal_and_self_cancelling_components_are_refused() {
        let (a, b, c) = (vec![0xa1; 16], vec![0xb2; 16], vec![0xc4; 16]);
        let aes = |components: &[&[u8]]| {
            let components: Vec<_> = components.iter().map(|octets| octets.to_vec()).collect();
            combined(Algorithm::Aes128, Parity::Required, &components)
        };
        assert_eq!(aes(&[&a, &[0; 16]]), Err(ComponentsRefused::Zero));
        assert_eq!(aes(&[&[0; 16], &a, &b]), Err(ComponentsRefused::Zero));
        assert_eq!(aes(&[&a, &a]), Err(ComponentsRefused::Equal));
        // ATK-11: the same twice cancels, twice over or beside another.
        assert_eq!(aes(&[&a, &b, &a]), Err(ComponentsRefused::Equal));
        assert_eq!(aes(&[&a, &a, &b, &b]), Err(ComponentsRefused::Equal));
        assert_eq!(aes(&[&a, &b, &xor(&a, &b)]), Err(ComponentsRefused::ResultZero));
        // The last three cancel, so that the key is the first.
        let last = xor(&b, &c);
        assert_eq!(aes(&[&a, &b, &c, &last]), Err(ComponentsRefused::ResultEqualsComponent));
        assert_eq!(aes(&[&a, &b, &c]), Ok(xor(&xor(&a, &b), &c)));
    }

    #[test]
    fn tdes_components_are_compared_without_parity() {
        let (one, other) = (octets(&[K1, K2].concat()), octets(&[K3, K1].concat()));
        let turned: Vec<u8> = one.iter().map(|octet| octet ^ 1).collect();
        let tdes = |parity, components: &[&Vec<u8>]| {
            let components: Vec<_> = components.iter().copied().cloned().collect();
            combined(Algorithm::Tdes2, parity, &components)
        };
        let key = odd(xor(&one, &other));
        assert_eq!(tdes(Parity::Required, &[&one, &other]), Ok(key.clone()));
        assert_eq!(tdes(Parity::Required, &[&turned, &other]), Err(ComponentsRefused::Parity));
        assert_eq!(tdes(Parity::Adjusted, &[&turned, &other]), Ok(key));
        assert_eq!(tdes(Parity::Adjusted, &[&turned, &one]), Err(ComponentsRefused::Equal));
        // Zero in odd parity is ones.
        let ones = vec![1; 16];
        assert_eq!(tdes(Parity::Required, &[&one, &ones]), Err(ComponentsRefused::Zero));
        assert_eq!(tdes(Parity::Adjusted, &[&one, &vec![0; 16]]), Err(ComponentsRefused::Zero));
        let last = odd(xor(&one, &other));
        let refused = tdes(Parity::Required, &[&one, &other, &last]);
        assert_eq!(refused, Err(ComponentsRefused::ResultZero));
        let third = octets(&[K2, K3].concat());
        let last = odd(xor(&other, &third));
        let refused = tdes(Parity::Required, &[&one, &other, &third, &last]);
        assert_eq!(refused, Err(ComponentsRefused::ResultEqualsComponent));
    }

    #[test]
    fn a_weak_tdes_key_is_refused_under_every_parity() {
        let weak = ["0101010101010101", "FEFEFEFEFEFEFEFE", "01FE01FE01FE01FE", "1F1F01010E0E0101"];
        let strong = |part: &str| [part, K2, K3].concat();
        let mut keys = vec![[K1, K1].concat(), [K1, K1, K2].concat()];
        keys.extend([[K1, K2, K2].concat(), [K1, K2, K1].concat()]);
        for part in weak {
            keys.extend([[part, K1].concat(), [K1, part].concat(), strong(part)]);
            keys.extend([[K1, part, K3].concat(), [K1, K2, part].concat()]);
        }
        for key in keys {
            let key = octets(&key);
            let algorithm = Algorithm::from_header(b'T', key.len()).unwrap();
            let first = Component::generate(algorithm, &SystemRng::new()).unwrap();
            let first = first.expose_bytes();
            for parity in 0..=1 {
                let last: Vec<u8> =
                    towards(&key, &[first]).iter().map(|octet| octet ^ parity).collect();
                let refused = combined(algorithm, Parity::Adjusted, &[first.to_vec(), last]);
                assert_eq!(refused, Err(ComponentsRefused::ResultWeak), "{key:02X?}");
            }
        }
    }

    #[test]
    fn what_is_weak_as_tdes_is_none_of_aes() {
        let first = vec![0x5a; 16];
        let last = towards(&[1; 16], &[&first]);
        assert_eq!(combined(Algorithm::Aes128, Parity::Required, &[first, last]), Ok(vec![1; 16]));
    }
}
